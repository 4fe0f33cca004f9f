"""HTTP with an endpoint: JSON there and back, events as they come, and patience where it helps."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from contextlib import aclosing, asynccontextmanager, contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

import hermes_cli
from hermes_cli.chat.endpoint.failures import LOADING, EndpointError, Told, error_of, one_line, said_by, seconds_to_wait
from hermes_cli.errors import ContextFullError, HermesError, NetworkError
from hermes_cli.prompting.normalize import repaired

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping

    import httpx2

    from hermes_cli.chat.endpoint.address import EndpointAddress

CONNECT, WRITE = 10.0, 60.0  # seconds
FIRST_BYTE, BETWEEN = 600.0, 300.0  # seconds without anything of an answer: a long prompt takes its time
ASIDE = 60.0  # seconds for what takes no time: the list of models, say
LINGER = 0.5  # seconds after the last event: a connection that is read to its end can be used again
USAGE = 5.0  # seconds between the end of an answer and what it took, which not every server tells
PATIENCE = 120.0  # seconds, of all waiting for one answer that a server asks for; for a model to be loaded, FIRST_BYTE
PAUSE = 1.0  # seconds after the first failure, twice that after the second
LONGEST = 15.0  # seconds, of one wait where it does not say how long
TRIES = 3  # where it is the server's fault, or the connection's
FAULT, BUSY = HTTPStatus.INTERNAL_SERVER_ERROR, HTTPStatus.TOO_MANY_REQUESTS
DONE = "[DONE]"  # the last event
MOST_JSON = 64 << 20  # bytes of an answer that is no stream: OpenRouter's list of models has some MiB
MOST_EVENT = 16 << 20  # bytes
_MOST_ERROR = 1 << 20  # bytes


class Retries:
    """How often one thing was asked for, and how long one has waited for it."""

    def __init__(self, address: EndpointAddress, note: Callable[[str], object]) -> None:
        """Nothing was tried yet; `note` is told of every wait."""
        self._address, self._note = address, note
        self._failed, self._waits, self._waited = 0, 0, 0.0

    async def after(self, told: Told, otherwise: HermesError) -> None:
        """Wait until it may be tried again.

        Raises:
            HermesError: `otherwise`, since that would help no one.
        """
        if told.vain or (0 < told.status < FAULT and told.status != BUSY) or isinstance(otherwise, ContextFullError):
            raise otherwise
        wait = self._wait(told)
        if wait is None:
            raise otherwise
        why = told.said if told.status == 0 else f"status {told.status}: {told.said}"
        self._note(f"{self._address.host}: {why}; asking again in {wait:.0f} s.")
        await asyncio.sleep(wait)

    def _wait(self, told: Told) -> float | None:
        """Seconds until the next try; None if there is none."""
        loading = LOADING.search(told.said) is not None
        if told.wait is None and told.status != BUSY and not loading:
            self._failed += 1
            return self._failed * PAUSE if self._failed < TRIES else None
        wait = min(2.0**self._waits, LONGEST) if told.wait is None else told.wait
        self._waits += 1
        self._waited += max(wait, 1.0)
        return wait if self._waited <= (FIRST_BYTE if loading else PATIENCE) else None


class EndpointClient:
    """Connections to one endpoint."""

    def __init__(self, address: EndpointAddress, note: Callable[[str], object]) -> None:
        """Nothing is asked yet; `note` is told of every wait."""
        import httpx2  # noqa: PLC0415 - 0.1 s that only endpoints need

        headers = {"User-Agent": f"hermes-llm/{hermes_cli.__version__}"}
        if address.key:
            headers["Authorization"] = f"Bearer {address.key}"
        self.address, self.note = address, note
        self._client = httpx2.AsyncClient(
            headers=headers,
            follow_redirects=False,  # neither the key nor the conversation goes anywhere that nobody named
            verify=not (address.local and address.base.startswith("http:")),  # certificates take 50 ms to read
            trust_env=not address.local,  # no proxy of the environment reaches this machine
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def json(self, url: str, body: Mapping[str, Any] | None = None) -> Any:  # noqa: ANN401 - what JSON holds
        """What comes back from a route: of GET, or of POST if there is a body.

        Raises:
            RefusedError: it is an error, or nothing.
            HermesError: it is no JSON.
        """
        async with self._answer(url, body, ASIDE) as answer:
            return self._parsed(await _read(answer, MOST_JSON))

    async def patiently(self, ask: Callable[[], Awaitable[Any]]) -> Any:  # noqa: ANN401 - as above
        """Ask until there is an answer, or no hope for one.

        Raises:
            HermesError: what the server said last.
        """
        tries = Retries(self.address, self.note)
        while True:
            try:
                return await ask()
            except EndpointError as refused:
                told = refused.told
            await tries.after(told, error_of(told, self.address))

    async def chunks(
        self, url: str, body: Mapping[str, Any], ended: Callable[[], bool]
    ) -> AsyncGenerator[dict[str, Any], None]:
        """The JSON objects of a stream, or the one that came in place of it. `[DONE]` is an empty one.

        `ended` says whether the answer is whole by now; nothing much has to come then.

        Raises:
            RefusedError: the server refused, or the connection broke.
            HermesError: what comes is no JSON.
        """
        async with self._answer(url, body, FIRST_BYTE) as answer:
            kind = answer.headers.get("content-type", "")
            if "json" in kind:
                yield _chunk(self._parsed(await _read(answer, MOST_JSON)))
            elif "event-stream" not in kind:
                raise self._no_json(await _read(answer, _MOST_ERROR))
            else:
                async with aclosing(_events(answer, ended)) as events:
                    async for data in events:
                        yield {} if data == DONE else _chunk(self._parsed(data.encode()))

    @asynccontextmanager
    async def _answer(self, url: str, body: Mapping[str, Any] | None, silence: float) -> AsyncIterator[httpx2.Response]:
        """An answer that is no error. `silence` is how long nothing may come, in seconds."""
        import httpx2  # noqa: PLC0415 - as above

        data = None if body is None else repaired(json.dumps(body, ensure_ascii=False)).encode()
        kind = {} if body is None else {"Content-Type": "application/json"}
        method, limits = "GET" if body is None else "POST", httpx2.Timeout(silence, connect=CONNECT, write=WRITE)
        with _failures(silence):
            async with self._client.stream(method, url, content=data, headers=kind, timeout=limits) as answer:
                if not answer.is_success:
                    raise await _refused(answer)
                yield answer

    def _parsed(self, data: bytes) -> Any:  # noqa: ANN401 - what JSON holds
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            raise self._no_json(data) from None

    def _no_json(self, data: bytes) -> HermesError:
        begin = one_line(data[:200].decode("utf-8", "replace"))
        what = "a web page" if "<html" in begin.lower() or "<!doctype" in begin.lower() else f"no JSON: {begin!r}"
        return NetworkError(
            f"{self.address.base} answers with {what}.", hint="give the address that comes before /chat/completions."
        )


async def _events(answer: httpx2.Response, ended: Callable[[], bool]) -> AsyncGenerator[str, None]:
    """The data of events."""
    import anyio  # noqa: PLC0415 - httpx2 brings it
    import httpx2  # noqa: PLC0415 - as above

    source = cast("AsyncGenerator[httpx2.ServerSentEvent, None]", aiter(httpx2.EventSource(answer, MOST_EVENT)))
    seconds, last = FIRST_BYTE, False
    async with aclosing(source) as events:
        while True:
            seconds = LINGER if last else USAGE if ended() else seconds
            try:
                with anyio.fail_after(seconds):
                    data = (await anext(events)).data.strip()
            except StopAsyncIteration:
                return
            except TimeoutError:
                if last or ended():
                    return
                raise EndpointError(Told(0, f"nothing came for {seconds:.0f} s", vain=True)) from None
            last, seconds = last or data == DONE, BETWEEN
            if data:
                yield data


@contextmanager
def _failures(silence: float) -> Iterator[None]:
    """Tells what httpx2 says of a connection in the words of this program."""
    import httpx2  # noqa: PLC0415 - as above

    try:
        yield
    except httpx2.ConnectTimeout:
        raise EndpointError(Told(0, f"no connection within {CONNECT:.0f} s", vain=True)) from None
    except httpx2.TimeoutException:
        raise EndpointError(Told(0, f"nothing came for {silence:.0f} s", vain=True)) from None
    except (httpx2.ConnectError, httpx2.UnsupportedProtocol, httpx2.ProxyError, httpx2.InvalidURL) as error:
        raise EndpointError(Told(0, _reason(error), vain=True)) from None
    except (httpx2.HTTPError, httpx2.StreamError, OSError) as error:
        raise EndpointError(Told(0, f"the connection broke ({_reason(error)})")) from None


def _chunk(value: object) -> dict[str, Any]:
    """A chunk; what is none says nothing.

    Raises:
        RefusedError: it is an error.
    """
    if not isinstance(value, dict):
        return {"choices": []}
    if error := value.get("error"):
        code = error.get("code") if isinstance(error, dict) else None
        status = code if isinstance(code, int) and code > 0 else FAULT
        raise EndpointError(Told(status, one_line(said_by(value, "an error")), value))
    return value or {"choices": []}


async def _refused(answer: httpx2.Response) -> EndpointError:
    data = await _read(answer, _MOST_ERROR)
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        body = None
    text = "" if "html" in answer.headers.get("content-type", "") else data.decode("utf-8", "replace")
    said = one_line(said_by(body, text or answer.reason_phrase or "no reason"))
    location = str(answer.url.join(answer.headers["location"])) if answer.has_redirect_location else ""
    wait = seconds_to_wait(answer.headers.get("retry-after"))
    return EndpointError(Told(answer.status_code, said, body if isinstance(body, dict) else {}, wait, location))


async def _read(answer: httpx2.Response, most: int) -> bytes:
    """The body, up to a size that no honest one has."""
    data = bytearray()
    async for piece in answer.aiter_bytes():
        data += piece
        if len(data) > most:
            break
    return bytes(data)


def _reason(error: BaseException) -> str:
    """Why, in few words: httpx2 hides the reasons of the system."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return f"SSL: {cause.reason or cause}"
        if isinstance(cause, OSError) and cause.errno and cause.strerror:
            return os.strerror(cause.errno) if cause.errno > 0 else cause.strerror  # asyncio has its own text there
        cause = cause.__cause__ or cause.__context__
    return one_line(str(error)) or type(error).__name__
