"""Bytes of a file on the Hub, from any offset on, over as many connections as it takes.

huggingface_hub's `http_get` and `xet_get` are not used: neither can go on after the process died (both want to start a
file), and the first holds back 10 MB that a broken connection loses, tells nobody that it waits, gives up on status 5xx
and waits for ever on a connection that drips. This stands one floor lower, on the same session, headers and proxies.
The token goes to the configured endpoint only: httpx2 drops it when a redirect leads to another host.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal

import httpx2
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # re-exported without saying so
    build_hf_headers,
    hf_raise_for_status,
    http_stream_backoff,
    parse_ratelimit_headers,
)
from huggingface_hub.utils._runtime import is_xet_available

from hermes_cli.errors import IntegrityError, NetworkError
from hermes_cli.store import xet
from hermes_cli.store.connection import proxy_fault
from hermes_cli.store.disk import BLOCK
from hermes_cli.store.hub import RemoteFile, endpoint, hub_errors, quiet_hub_log
from hermes_cli.store.progress import Phase, ProgressMeter

MAX_AGE = 0.5  # seconds that bytes wait to be written
SHA256_DIGITS = 64
_TOTAL = re.compile(r"^(?:bytes [0-9]+-[0-9]+/)?([0-9]+)$")
_RANGE = re.compile(r"^bytes (\d+)-")
_HASH = re.compile(r'^(?:W/)?"?([0-9a-f]{40}|[0-9a-f]{64})"?\Z')
_RETRYABLE = {408, 425, 429}  # refused for now; so is 500 and above


@dataclass(frozen=True)
class RetryPolicy:
    """When a download tries again, and when it gives up."""

    # connections in a row without progress before it gives up; with the pauses, about eight minutes
    max_attempts: int = 12
    delay: float = 1.0  # seconds before the second attempt, doubled for each one after
    max_delay: float = 60.0  # seconds
    max_retry_after: float = 600.0  # seconds that the server may ask to wait (Retry-After)
    min_progress: int = 1 << 20  # bytes that make a connection count as progress
    read_timeout: float | None = None  # seconds without a byte; None for HF_HUB_DOWNLOAD_TIMEOUT (10 unless set)
    min_speed: int = 1024  # bytes per second; a connection below it for `speed_window` seconds is replaced by a new one
    speed_window: float = 30.0  # seconds
    max_speed: float | None = None  # bytes per second over all connections; hf_xet has no limit, so it is not used then

    def delay_after(self, attempts: int) -> float:
        """Return the seconds to pause after this many attempts without progress."""
        return float(min(self.max_delay, self.delay * 2 ** max(0, attempts - 1)))


class Interrupted(Exception):  # noqa: N818 - no error yet: the next connection may do
    """The bytes stopped coming; `retry_after` is how many seconds the server asks to wait."""

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that the server asks to wait, by its rate limit or Retry-After; None if it does not."""
    limit = parse_ratelimit_headers(headers)
    if limit and not limit.remaining:
        return float(limit.reset_in_seconds)
    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return max(0.0, (moment - datetime.now(UTC)).total_seconds()) if moment.tzinfo else None


def ask_headers(file: RemoteFile) -> RemoteFile:
    """Return a file with the size and hash that the headers of its own response state, for a mirror that lists neither.

    Raise NetworkError if it cannot be reached, or does not say the size.
    """
    size, etag = file.size, file.etag
    headers = {**build_hf_headers(), "Accept-Encoding": "identity", "Range": "bytes=0-0"}
    request = _request("GET", file, headers, constants.HF_HUB_DOWNLOAD_TIMEOUT)
    with hub_errors(file.repo), quiet_hub_log(), request as response:
        whole = response.status_code != httpx2.codes.PARTIAL_CONTENT
        sizes = [hop.headers.get(constants.HUGGINGFACE_HEADER_X_LINKED_SIZE) for hop in response.history]
        sizes.append(response.headers.get("Content-Length" if whole else "Content-Range"))
        size = size or next((int(match[1]) for text in sizes if text and (match := _TOTAL.search(text))), 0)
        for hop in (*response.history, response):
            match = _HASH.match(_stated_etag(hop) or "")
            etag = etag or (match[1] if match else "")
    if not size:
        raise NetworkError(
            f"{endpoint()} does not say the size of {file.path}.", hint="choose another mirror with HF_ENDPOINT."
        )
    return replace(file, size=size, etag=etag, sha256=etag if len(etag) == SHA256_DIGITS else None)


def receive(
    file: RemoteFile, start: int, stop: int, meter: ProgressMeter, policy: RetryPolicy
) -> Iterator[bytes | bytearray]:
    """Yield the bytes from `start` to `stop` in order, in blocks; in smaller ones on a slow connection."""
    failures = 0
    may_use_xet = is_xet_available() and policy.max_speed is None
    by_xet, pace = may_use_xet, _Pace(policy.max_speed or math.inf)
    while start < stop:
        first = start
        try:
            with hub_errors(file.repo):
                for block in _blocks(_connection(file, start, stop, meter, policy, pace, by_xet=by_xet)):
                    start += len(block)
                    yield block
            if start < stop:
                raise Interrupted("the server ended the file too early")  # noqa: TRY301 - as if the line had broken
        except Interrupted as interruption:
            progress = start - first >= policy.min_progress
            failures = 1 if progress else failures + 1
            by_xet = may_use_xet and by_xet is progress  # after a failure the other way is tried
            _pause(file, interruption, failures, meter, policy)


class _Pace:
    """Waits after what came, so that it stays below `speed` bytes per second; one second's worth may be made up for."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._due = time.monotonic()

    def wait(self, count: int) -> None:
        """Wait as long as `count` bytes may take."""
        now = time.monotonic()
        self._due = max(self._due, now - 1) + count / self._speed
        if self._due > now:
            time.sleep(self._due - now)


def _blocks(pieces: Iterator[bytes]) -> Iterator[bytes | bytearray]:
    """Gather small pieces into blocks, for half a second at most, so that a broken connection loses little."""
    block, since = bytearray(), time.monotonic()
    try:
        for piece in pieces:
            if not block and len(piece) >= BLOCK:
                yield piece
                continue
            block += piece
            if len(block) >= BLOCK or time.monotonic() - since >= MAX_AGE:
                yield block
                block, since = bytearray(), time.monotonic()
    except Interrupted:
        if block:
            yield block
        raise
    if block:
        yield block


def _pause(
    file: RemoteFile, interruption: Interrupted, failures: int, meter: ProgressMeter, policy: RetryPolicy
) -> None:
    wait = policy.delay_after(failures) if interruption.retry_after is None else interruption.retry_after
    if failures > policy.max_attempts or wait > policy.max_retry_after:
        count = f" ({failures} times in a row)" if failures > 1 else ""
        raise NetworkError(
            f"fetching {file.path} of {file.repo} does not get on: {interruption.reason}{count}.",
            hint="what was fetched is kept; run the same command again to go on.",
        ) from None
    meter.report(Phase.RETRYING, reason=interruption.reason, wait=wait)
    time.sleep(wait)


def _connection(
    file: RemoteFile, start: int, stop: int, meter: ProgressMeter, policy: RetryPolicy, pace: _Pace, *, by_xet: bool
) -> Iterator[bytes]:
    """Yield the bytes that one connection brings, without those before `start` or after `stop`."""
    timeout = policy.read_timeout or constants.HF_HUB_DOWNLOAD_TIMEOUT
    min_speed = min(policy.min_speed, (policy.max_speed or math.inf) / 2)
    since, received = time.monotonic(), 0
    with _interruptions(timeout):
        headers = build_hf_headers()
        xet_hash = None
        if by_xet:  # the Hub's redirect states Xet's hash of the file
            with _request("HEAD", file, headers, timeout) as response:
                xet_hash = response.headers.get(constants.HUGGINGFACE_HEADER_X_XET_HASH)
        if xet_hash:
            source = xet.stream(file, xet_hash, headers, start, stop)
        else:
            source = _http(file, headers, start, stop, timeout)
        with closing(source):
            for at, piece in source:
                received += len(piece)
                pace.wait(len(piece))
                elapsed = time.monotonic() - since
                if elapsed >= policy.speed_window:
                    if received < min_speed * elapsed:
                        raise Interrupted(f"only {received} bytes came in {elapsed:.3g} s")
                    since, received = time.monotonic(), 0
                wanted = piece[max(0, start - at) : max(0, stop - at)]
                if wanted:
                    yield wanted
                else:
                    meter.advance(Phase.SKIPPING, start)
                if at + len(piece) >= stop:
                    return


def _http(
    file: RemoteFile, headers: dict[str, str], start: int, stop: int, timeout: float
) -> Generator[tuple[int, bytes]]:
    """Yield the offset and bytes of what the server sends; it begins before `start` if it knows no ranges."""
    headers = {**headers, "Accept-Encoding": "identity"}
    if start or stop < file.size:
        headers["Range"] = f"bytes={start}-{stop - 1}" if stop < file.size else f"bytes={start}-"
    with _request("GET", file, headers, timeout) as response:
        at = 0
        if response.status_code == httpx2.codes.PARTIAL_CONTENT:
            match = _RANGE.match(response.headers.get("Content-Range", ""))
            if not match:
                raise Interrupted("the server does not say which part of the file it sends")
            at = int(match[1])
        if at > start:
            raise Interrupted("the server sends another part of the file than it was asked for")
        for piece in response.iter_bytes():
            yield at, piece
            at += len(piece)


def _stated_etag(response: httpx2.Response) -> str | None:
    """Return the hash of the file by the Hub; an ETag of anybody else may be anything."""
    stated: str | None = response.headers.get(constants.HUGGINGFACE_HEADER_X_LINKED_ETAG)
    if not stated and constants.HUGGINGFACE_HEADER_X_REPO_COMMIT in response.headers:
        stated = response.headers.get("ETag")
    return stated


@contextmanager
def _request(
    method: Literal["GET", "HEAD"], file: RemoteFile, headers: dict[str, str], timeout: float
) -> Iterator[httpx2.Response]:
    """Make a request for a file; only GET follows redirects."""
    with http_stream_backoff(
        method,
        file.url,
        headers=headers,
        timeout=timeout,
        follow_redirects=method == "GET",
        retry_on_exceptions=(),
        retry_on_status_codes=(),
    ) as response:
        hf_raise_for_status(response)
        for hop in (*response.history, response):
            match = _HASH.match(_stated_etag(hop) or "")
            if match and len(match[1]) == len(file.etag) and match[1] != file.etag:
                raise IntegrityError(
                    f"{file.path} of {file.repo} has changed on the server: its hash is {match[1]}, "
                    f"it was {file.etag}.",
                    hint="run the same command again to fetch the new one.",
                )
        yield response


@contextmanager
def _interruptions(timeout: float) -> Iterator[None]:
    """Turn the errors that another connection may cure into `Interrupted`."""
    try:
        yield
    except httpx2.TimeoutException:
        raise Interrupted(f"nothing came for {timeout:g} s") from None
    except xet.XetError as error:
        raise Interrupted(str(error)) from None
    except (httpx2.NetworkError, httpx2.ProtocolError, httpx2.ProxyError, httpx2.DecodingError) as error:
        fault = proxy_fault(error)
        raise Interrupted(
            fault[0] if fault else f"the connection broke ({str(error) or type(error).__name__})"
        ) from None
    except HfHubHTTPError as error:
        response, status = error.response, error.response.status_code
        # The host without the path, which may be signed.
        server = f"the storage ({response.url.host})" if response.history else f"the Hub ({endpoint()})"
        reason = f"{server} answers with status {status}"
        if status in _RETRYABLE or status >= httpx2.codes.INTERNAL_SERVER_ERROR:
            wait = retry_after(response.headers)
            raise Interrupted(reason + (f" and asks to wait {wait:.0f} s" if wait else ""), wait) from None
        if type(error) is HfHubHTTPError and response.history:
            # An error of the storage, not of the Hub: its signed link may have expired. The next one is new.
            raise Interrupted(reason) from None
        raise
