"""HTTP with an endpoint: JSON there and back, streamed events, timeouts and retries."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from contextlib import aclosing, asynccontextmanager, contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

import hermes_cli
from hermes_cli.chat.endpoint.failures import EndpointError, error_message, parse_retry_after
from hermes_cli.errors import ContextFullError, HermesError, NetworkError
from hermes_cli.prompting.normalize import repaired

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping

    import httpx2

    from hermes_cli.chat.endpoint.address import EndpointAddress

# Timeouts in seconds.
CONNECT, WRITE = 10.0, 60.0
FIRST_BYTE, BETWEEN = 600.0, 300.0  # silence before and within an answer: a long prompt takes its time
SHORT = 60.0  # silence of routes that take no time, as the list of models
AFTER_DONE = 0.5  # for the end of the stream after the last event: the connection can be used again then
USAGE = 5.0  # between the end of an answer and its token counts, which not every server sends
TOTAL_WAIT = 120.0  # of all waits that a server asks for; while a model is being loaded, FIRST_BYTE
LONGEST_WAIT = 15.0  # of one wait if the server does not say how long
PAUSE = 1.0  # after the first failure, twice that after the second
TRIES = 3  # if the server or the connection failed
DONE = "[DONE]"  # last event of a stream
MAX_JSON = 64 << 20  # bytes of a response that is no stream: OpenRouter's list of models has some MiB
MAX_EVENT = 16 << 20  # bytes
_MAX_ERROR = 1 << 20  # bytes


class Retries:
    """Decides how often and when a failed request is sent again; `note` is called with every wait."""

    def __init__(self, address: EndpointAddress, note: Callable[[str], object]) -> None:
        self._address, self._note = address, note
        self._failures, self._waits, self._waited = 0, 0, 0.0

    async def wait(self, failure: EndpointError, error: HermesError) -> None:
        """Wait until the request may be sent again, or raise `error` if that would not help."""
        is_clients_fault = 0 < failure.status < HTTPStatus.INTERNAL_SERVER_ERROR
        is_busy = failure.status == HTTPStatus.TOO_MANY_REQUESTS
        if failure.permanent or (is_clients_fault and not is_busy) or isinstance(error, ContextFullError):
            raise error
        seconds = self._seconds(failure, is_busy=is_busy)
        if seconds is None:
            raise error
        reason = failure.message if failure.status == 0 else f"status {failure.status}: {failure.message}"
        self._note(f"{self._address.host}: {reason}; asking again in {seconds:.0f} s.")
        await asyncio.sleep(seconds)

    def _seconds(self, failure: EndpointError, *, is_busy: bool) -> float | None:
        """Return the seconds until the next try; None if there is none."""
        if failure.retry_after is None and not is_busy and not failure.is_loading:
            self._failures += 1
            return self._failures * PAUSE if self._failures < TRIES else None
        seconds = min(2.0**self._waits, LONGEST_WAIT) if failure.retry_after is None else failure.retry_after
        self._waits += 1
        self._waited += max(seconds, 1.0)
        return seconds if self._waited <= (FIRST_BYTE if failure.is_loading else TOTAL_WAIT) else None


class EndpointClient:
    """An HTTP client for one endpoint; `note` is called with every wait."""

    def __init__(self, address: EndpointAddress, note: Callable[[str], object]) -> None:
        import httpx2  # noqa: PLC0415 - 0.1 s that only endpoints need

        headers = {"User-Agent": f"hermes-llm/{hermes_cli.__version__}"}
        if address.key:
            headers["Authorization"] = f"Bearer {address.key}"
        self.address, self.note = address, note
        self._client = httpx2.AsyncClient(
            headers=headers,
            follow_redirects=False,  # neither the key nor the conversation goes where the user did not send it
            verify=not (address.is_local and address.base.startswith("http:")),  # certificates take 50 ms to read
            trust_env=not address.is_local,  # no proxy of the environment reaches this machine
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def json(self, url: str, body: Mapping[str, Any] | None = None) -> Any:  # noqa: ANN401 - any JSON
        """Return the JSON that GET, or POST with a body, gives.

        Raises:
            EndpointError: the server refused, or the connection failed.
            HermesError: the response is not JSON.
        """
        async with self._request(url, body, SHORT) as response:
            return self._parse(await _read(response, MAX_JSON))

    async def with_retries(self, request: Callable[[], Awaitable[Any]]) -> Any:  # noqa: ANN401 - any JSON
        """Repeat a request until it succeeds, or raise the last failure if repeating would not help."""
        retries = Retries(self.address, self.note)
        while True:
            try:
                return await request()
            except EndpointError as error:
                failure = error
            await retries.wait(failure, failure.as_user_error(self.address))

    async def stream(
        self, url: str, body: Mapping[str, Any], is_finished: Callable[[], bool]
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the JSON objects of a stream, or the single one that came in its place; `[DONE]` is an empty one.

        `is_finished` tells whether the answer is complete, so that little is waited for.

        Raises:
            EndpointError: the server refused, or the connection failed.
            HermesError: the response is not JSON.
        """
        async with self._request(url, body, FIRST_BYTE) as response:
            content_type = response.headers.get("content-type", "")
            if "json" in content_type:
                yield _chunk(self._parse(await _read(response, MAX_JSON)))
            elif "event-stream" not in content_type:
                raise self._not_json(await _read(response, _MAX_ERROR))
            else:
                async with aclosing(_events(response, is_finished)) as events:
                    async for data in events:
                        yield {} if data == DONE else _chunk(self._parse(data.encode()))

    @asynccontextmanager
    async def _request(
        self, url: str, body: Mapping[str, Any] | None, silence: float
    ) -> AsyncIterator[httpx2.Response]:
        """Send a request, and yield its response if it is no error; `silence` is the read timeout in seconds."""
        import httpx2  # noqa: PLC0415 - as above

        data = None if body is None else repaired(json.dumps(body, ensure_ascii=False)).encode()
        headers = {} if body is None else {"Content-Type": "application/json"}
        method, timeout = "GET" if body is None else "POST", httpx2.Timeout(silence, connect=CONNECT, write=WRITE)
        with _connection_errors(silence):
            async with self._client.stream(method, url, content=data, headers=headers, timeout=timeout) as response:
                if not response.is_success:
                    raise await _refusal(response)
                yield response

    def _parse(self, data: bytes) -> Any:  # noqa: ANN401 - any JSON
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            raise self._not_json(data) from None

    def _not_json(self, data: bytes) -> HermesError:
        text = " ".join(data[:200].decode("utf-8", "replace").split())
        what = "a web page" if "<html" in text.lower() or "<!doctype" in text.lower() else f"no JSON: {text!r}"
        return NetworkError(
            f"{self.address.base} answers with {what}.", hint="give the address that comes before /chat/completions."
        )


async def _events(response: httpx2.Response, is_finished: Callable[[], bool]) -> AsyncGenerator[str, None]:
    """Yield the data of server-sent events."""
    import anyio  # noqa: PLC0415 - httpx2 brings it
    import httpx2  # noqa: PLC0415 - as above

    source = cast("AsyncGenerator[httpx2.ServerSentEvent, None]", aiter(httpx2.EventSource(response, MAX_EVENT)))
    seconds, done = FIRST_BYTE, False
    async with aclosing(source) as events:
        while True:
            seconds = AFTER_DONE if done else USAGE if is_finished() else seconds
            try:
                with anyio.fail_after(seconds):
                    data = (await anext(events)).data.strip()
            except StopAsyncIteration:
                return
            except TimeoutError:
                if done or is_finished():
                    return
                raise EndpointError(0, f"nothing came for {seconds:.0f} s", permanent=True) from None
            done, seconds = done or data == DONE, BETWEEN
            if data:
                yield data


@contextmanager
def _connection_errors(silence: float) -> Iterator[None]:
    """Turn httpx2's errors of a connection into EndpointError."""
    import httpx2  # noqa: PLC0415 - as above

    try:
        yield
    except httpx2.ConnectTimeout:
        raise EndpointError(0, f"no connection within {CONNECT:.0f} s", permanent=True) from None
    except httpx2.TimeoutException:
        raise EndpointError(0, f"nothing came for {silence:.0f} s", permanent=True) from None
    except (httpx2.ConnectError, httpx2.UnsupportedProtocol, httpx2.ProxyError, httpx2.InvalidURL) as error:
        raise EndpointError(0, _reason(error), permanent=True) from None
    except (httpx2.HTTPError, httpx2.StreamError, OSError) as error:
        raise EndpointError(0, f"the connection broke ({_reason(error)})") from None


def _chunk(value: object) -> dict[str, Any]:
    """Return a chunk of an answer, anything else as one without content; raise EndpointError if it is an error."""
    if not isinstance(value, dict):
        return {"choices": []}
    if error := value.get("error"):
        code = error.get("code") if isinstance(error, dict) else None
        status = code if isinstance(code, int) and code > 0 else HTTPStatus.INTERNAL_SERVER_ERROR
        raise EndpointError(status, error_message(value, "an error"), value)
    return value or {"choices": []}


async def _refusal(response: httpx2.Response) -> EndpointError:
    data = await _read(response, _MAX_ERROR)
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        body = None
    text = "" if "html" in response.headers.get("content-type", "") else data.decode("utf-8", "replace")
    return EndpointError(
        response.status_code,
        error_message(body, text or response.reason_phrase or "no reason"),
        body if isinstance(body, dict) else None,
        retry_after=parse_retry_after(response.headers.get("retry-after")),
        location=str(response.url.join(response.headers["location"])) if response.has_redirect_location else "",
    )


async def _read(response: httpx2.Response, limit: int) -> bytes:
    """Return the body, cut off behind `limit` bytes, which no honest one has."""
    data = bytearray()
    async for piece in response.aiter_bytes():
        data += piece
        if len(data) > limit:
            break
    return bytes(data)


def _reason(error: BaseException) -> str:
    """Return the cause in few words; httpx2 hides that of the system."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return f"SSL: {cause.reason or cause}"
        if isinstance(cause, OSError) and cause.errno and cause.strerror:
            return os.strerror(cause.errno) if cause.errno > 0 else cause.strerror  # asyncio has its own text there
        cause = cause.__cause__ or cause.__context__
    return " ".join(str(error).split()) or type(error).__name__
