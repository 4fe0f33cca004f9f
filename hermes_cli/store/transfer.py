"""Bytes of a file on the Hub, from any offset on, over as many connections as it takes.

huggingface_hub has `http_get` and `xet_get` for that. Neither can go on after the process died (both want to start a
file), the first holds back 10 MB that a broken connection loses, tells nobody that it waits, gives up on status 5xx and
waits for ever on a connection that drips; so this stands one floor lower, on the same session, headers and proxies.
The token goes to the configured endpoint only: httpx2 drops it when a redirect leads to another host.
"""

from __future__ import annotations

import re
import time
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Literal

import httpx2
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # re-exported without saying so
    build_hf_headers,
    hf_raise_for_status,
    http_stream_backoff,
    parse_ratelimit_headers,
)

from hermes_cli.errors import IntegrityError, NetworkError
from hermes_cli.store import xet
from hermes_cli.store.hashing import BLOCK
from hermes_cli.store.hub import endpoint, explained
from hermes_cli.store.progress import Phase
from hermes_cli.store.retry_policy import Interrupted

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

    from hermes_cli.store.hub import RemoteFile
    from hermes_cli.store.progress import Meter
    from hermes_cli.store.retry_policy import RetryPolicy

AGE = 0.5  # seconds that bytes wait to be written
_RANGE = re.compile(r"^bytes (\d+)-")
_HASH = re.compile(r'^(?:W/)?"?([0-9a-f]{40}|[0-9a-f]{64})"?\Z')
_AGAIN = {408, 425, 429}  # refused for now; so is 500 and above


def receive(
    file: RemoteFile, start: int, stop: int, meter: Meter, patience: RetryPolicy
) -> Iterator[bytes | bytearray]:
    """Bytes from `start` up to `stop`, in order, in blocks; smaller ones on a slow connection, so that little is lost.

    Raises:
        NetworkError: the server refuses, or no connection brings anything any more.
        NotFoundError: it does not have the file, or not for this user.
        IntegrityError: it has another file under this name.
    """
    vain = 0
    by_xet = xet.available()
    while start < stop:
        began = start
        block = _Block()
        try:
            with explained(file.repo):
                for data in _connection(file, start, stop, meter, patience, by_xet=by_xet):
                    start += len(data)
                    if full := block.add(data):
                        yield full
            if start < stop:
                raise Interrupted("the server ended the file too early")  # noqa: TRY301 - as if the line had broken
            yield from block.rest()
        except Interrupted as interruption:
            yield from block.rest()
            useful = start - began >= patience.progress
            vain = 1 if useful else vain + 1
            by_xet = xet.available() and by_xet is useful  # what does not get through is tried the other way
            _pause(file, interruption, vain, meter, patience)


class _Block:
    """Gathers small pieces, for half a second at most."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._since = time.monotonic()

    def add(self, piece: bytes) -> bytes | bytearray | None:
        """A piece more; returns the block once it is full or old."""
        if not self._data and len(piece) >= BLOCK:
            return piece
        self._data += piece
        now = time.monotonic()
        if len(self._data) < BLOCK and now - self._since < AGE:
            return None
        full, self._data, self._since = self._data, bytearray(), now
        return full

    def rest(self) -> Iterator[bytearray]:
        """What has not been returned, if anything."""
        if self._data:
            yield self._data


def _pause(file: RemoteFile, interruption: Interrupted, vain: int, meter: Meter, patience: RetryPolicy) -> None:
    wait = patience.after(vain) if interruption.wait is None else interruption.wait
    if vain > patience.tries or wait > patience.longest_asked:
        often = f" ({vain} times in a row)" if vain > 1 else ""
        raise NetworkError(
            f"fetching {file.path} of {file.repo} does not get on: {interruption.reason}{often}.",
            hint="what was fetched is kept; run the same command again to go on.",
        ) from None
    meter.say(Phase.RETRYING, interruption.reason, wait)
    time.sleep(wait)


def _connection(
    file: RemoteFile, start: int, stop: int, meter: Meter, patience: RetryPolicy, *, by_xet: bool
) -> Iterator[bytes]:
    """What one connection brings, without what lies before `start` or after `stop`."""
    silence = patience.silence or constants.HF_HUB_DOWNLOAD_TIMEOUT
    pace = _Pace(patience)
    with _interruptions(silence):
        headers = build_hf_headers()
        content = _xet_content(file, headers, silence) if by_xet else None
        source = xet.stream(content, headers, start, stop) if content else _http(file, start, stop, silence)
        with closing(source):
            for at, piece in source:
                pace.count(len(piece))
                wanted = piece[max(0, start - at) : max(0, stop - at)]
                if wanted:
                    yield wanted
                else:
                    meter.at(Phase.SKIPPING, start)
                if at + len(piece) >= stop:
                    return


def _http(file: RemoteFile, start: int, stop: int, silence: float) -> Generator[tuple[int, bytes]]:
    """What the server sends, and at which offset; it may begin before `start` if it knows no ranges."""
    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
    if start or stop < file.size:
        headers["Range"] = f"bytes={start}-{stop - 1}" if stop < file.size else f"bytes={start}-"
    with _request("GET", file, headers, silence) as answer:
        at = _first_byte(answer)
        if at > start:
            raise Interrupted("the server sends another part of the file than it was asked for")
        for piece in answer.iter_bytes():
            yield at, piece
            at += len(piece)


def _xet_content(file: RemoteFile, headers: dict[str, str], silence: float) -> xet.Content | None:
    """What Xet calls the file's content, None if it is not stored there. A redirect carries the answer itself."""
    with _request("HEAD", file, headers, silence, follow_redirects=False) as answer:
        name = answer.headers.get(constants.HUGGINGFACE_HEADER_X_XET_HASH)
    return xet.content(name, file) if name else None


@contextmanager
def _request(
    method: Literal["GET", "HEAD"],
    file: RemoteFile,
    headers: dict[str, str],
    silence: float,
    *,
    follow_redirects: bool = True,
) -> Iterator[httpx2.Response]:
    with http_stream_backoff(
        method,
        file.url,
        headers=headers,
        timeout=silence,
        follow_redirects=follow_redirects,
        retry_on_exceptions=(),
        retry_on_status_codes=(),
    ) as answer:
        hf_raise_for_status(answer)
        _check_identity(answer, file)
        yield answer


def _check_identity(answer: httpx2.Response, file: RemoteFile) -> None:
    """The Hub states the hash with its answer or its redirect: another one than listed means another file.

    Raises:
        IntegrityError: it is another file.
    """
    for hop in (*answer.history, answer):
        stated = hop.headers.get(constants.HUGGINGFACE_HEADER_X_LINKED_ETAG)
        if not stated and constants.HUGGINGFACE_HEADER_X_REPO_COMMIT in hop.headers:
            stated = hop.headers.get("ETag")
        found = _HASH.match(stated or "")
        if found and len(found[1]) == len(file.etag) and found[1] != file.etag:
            raise IntegrityError(
                f"{file.path} of {file.repo} has changed on the server: its hash is {found[1]}, it was {file.etag}.",
                hint="run the same command again to fetch the new one.",
            )


def _first_byte(answer: httpx2.Response) -> int:
    """The offset of the first byte of the answer."""
    if answer.status_code != httpx2.codes.PARTIAL_CONTENT:
        return 0
    match = _RANGE.match(answer.headers.get("Content-Range", ""))
    if not match:
        raise Interrupted("the server does not say which part of the file it sends")
    return int(match[1])


@contextmanager
def _interruptions(silence: float) -> Iterator[None]:
    """Tells what another connection may cure from what it cannot."""
    try:
        yield
    except httpx2.TimeoutException:
        raise Interrupted(f"nothing came for {silence:g} s") from None
    except (httpx2.NetworkError, httpx2.ProtocolError, httpx2.ProxyError, httpx2.DecodingError) as error:
        raise Interrupted(f"the connection broke ({str(error) or type(error).__name__})") from None
    except HfHubHTTPError as error:
        answer, code = error.response, error.response.status_code
        says = f"{_name(answer)} answers with status {code}"
        if code in _AGAIN or code >= httpx2.codes.INTERNAL_SERVER_ERROR:
            wait = _asked_to_wait(answer.headers)
            raise Interrupted(says + (f" and asks to wait {wait:.0f} s" if wait else ""), wait) from None
        if type(error) is HfHubHTTPError and answer.history:
            # Nothing that the Hub says, so the storage does: the link to it has run out, say. The next one is new.
            raise Interrupted(says) from None
        raise


def _name(answer: httpx2.Response) -> str:
    """The server, without the address, which may be signed."""
    return f"the storage ({answer.url.host})" if answer.history else f"the Hub ({endpoint()})"


def _asked_to_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds after which the server wants to be asked again, if it says so."""
    limit = parse_ratelimit_headers(headers)
    if limit and not limit.remaining:
        return float(limit.reset_in_seconds)
    value = headers.get("Retry-After", "").strip()
    if value.isdigit():
        return float(value)
    try:
        then = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (then - datetime.now(UTC)).total_seconds()) if then.tzinfo else None


class _Pace:
    """Notices a connection that is alive and will never get there."""

    def __init__(self, patience: RetryPolicy) -> None:
        self._patience = patience
        self._since = time.monotonic()
        self._bytes = 0

    def count(self, size: int) -> None:
        """So many bytes came."""
        self._bytes += size
        elapsed = time.monotonic() - self._since
        if elapsed < self._patience.window:
            return
        if self._bytes < self._patience.slowest * elapsed:
            raise Interrupted(f"only {self._bytes} bytes came in {elapsed:.3g} s")
        self._since, self._bytes = time.monotonic(), 0
