"""HTTP with an endpoint: JSON there and back, streamed events, timeouts, retries, and the errors that users get."""

from __future__ import annotations

import asyncio
import json
import os
import re
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

import hermes_cli
from hermes_cli.chat.endpoint.providers import PROVIDERS
from hermes_cli.engine.upstream.http import event_status, read_body, token_counts
from hermes_cli.errors import ContextFullError, HermesError, NetworkError, NotFoundError, UsageError
from hermes_cli.prompting.normalize import repaired

if TYPE_CHECKING:
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
SHOWN_CHARACTERS = 500  # of a server's message
_LOADING = re.compile(r"\bloading\b", re.IGNORECASE)

_TOO_LONG = re.compile(
    r"maximum (?:context|model) length|longer than the model's context length|"
    r"exceeds? the available context|context_length_exceeded|exceed_context_size"
)
_SHORTER = "go on with a shorter conversation, or have the server started with a longer context."


@dataclass(eq=False)
class EndpointError(Exception):
    """A failed request; `as_user_error` and `as_broken_answer` turn it into what the user gets."""

    status: int  # HTTP status, or the one in an event of a stream; 0 if the connection failed
    message: str  # the server's; it is put on one line
    body: dict[str, Any] = field(default_factory=dict)  # JSON object of the response, or an empty one
    retry_after: float | None = None  # seconds after which the server wants to be asked again
    location: str = ""  # target of a redirect
    permanent: bool = False  # asking again would change nothing

    def __post_init__(self) -> None:
        self.message = " ".join(self.message.split())[:SHOWN_CHARACTERS]
        self.location = self.location[:SHOWN_CHARACTERS]

    @property
    def is_loading(self) -> bool:
        """Return whether the server says that its model is being loaded."""
        return _LOADING.search(self.message) is not None

    def as_user_error(self, address: EndpointAddress, model: str = "", max_tokens: int | None = None) -> HermesError:
        """Return the error for a request without an answer; `model` and `max_tokens` are those of the request."""
        if self.status == 0:
            hint = "check the address, and that the server is running."
            if address.scheme_guessed and "SSL" in self.message:
                hint = f"if it speaks plain http: --endpoint {address.base.replace('https:', 'http:', 1)}"
            return NetworkError(f"{address.base} cannot be reached: {self.message}.", hint=hint)
        return self._context_full(max_tokens) or self._by_status(address, model)

    def as_broken_answer(self, address: EndpointAddress) -> HermesError:
        """Return the error for an answer that ended too early."""
        return self._context_full(None) or NetworkError(
            f"{address.host} broke the connection in the middle of the answer: {self.message}",
            hint="what arrived is kept; ask again.",
        )

    def _by_status(self, address: EndpointAddress, model: str) -> HermesError:
        status, host, message = self.status, address.host, self.message
        export = f"put it into the environment: export {address.variable}=…"
        if provider := next((name for name, each in PROVIDERS.items() if each.host == host), None):
            export += f", or store it: hermes login {provider}"
        if self.location:
            return NetworkError(
                f"{address.base} redirects to another address, which hermes does not follow by itself.",
                hint=f"if that is right: --endpoint {self.location}",
            )
        if status == HTTPStatus.FORBIDDEN:
            hint = (
                f"check what the key in {address.variable} may do." if address.key else f"if it wants a key, {export}"
            )
            return UsageError(f"{host} does not allow this: {message}", hint=hint)
        if status == HTTPStatus.UNAUTHORIZED:
            text = f"{host} does not accept the key in {address.variable}: {message}"
            hint = "check that it is whole, still valid, and allowed to use this model."
            if address.key is None:
                text, hint = f"{host} wants a key: {message}", export
            return UsageError(text, hint=hint)
        if status in {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED}:
            text = f"there is no OpenAI-compatible API at {address.base}: {message}"
            hint = "give the address that comes before /chat/completions."
            if model and re.search(r"model", message, re.IGNORECASE):
                text, hint = f"{host} has no model {model}: {message}", "choose another with -m NAME."
            return NotFoundError(text, hint=hint)
        if status in {HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY}:
            return UsageError(f"{host} refuses the request: {message}", hint="leave out or change what it names.")
        hints: dict[int, str] = {
            HTTPStatus.PAYMENT_REQUIRED: "add credits to the account, or take a model that costs nothing.",
            HTTPStatus.TOO_MANY_REQUESTS: "try again later.",
        }
        return NetworkError(
            f"{host} answers with status {status}: {message}",
            hint=hints.get(status, "try again later; the server's log may have more."),
        )

    def _context_full(self, max_tokens: int | None) -> HermesError | None:
        error = self.body.get("error")
        fields = error if isinstance(error, dict) else {}
        if not _TOO_LONG.search(f"{self.message} {fields.get('code')} {fields.get('type')}"):
            return None
        prompt, context = token_counts(self.message, fields)
        if prompt is None or context is None:
            return ContextFullError(f"the conversation is too long for the model: {self.message}", hint=_SHORTER)
        answer, hint = "", _SHORTER
        if prompt < context and max_tokens:
            answer = f" and the answer may have {max_tokens:,}"
            hint = f"ask for at most {context - prompt:,} with --max-tokens."
        return ContextFullError(
            f"the prompt has {prompt:,} tokens{answer}, the context length is {context:,} tokens.",
            hint=hint,
            prompt_tokens=prompt,
            context_length=context,
        )


def parse_retry_after(header: str | None) -> float | None:
    """Return the seconds of a Retry-After header, which holds seconds or a date."""
    if not header:
        return None
    try:
        return max(float(header), 0.0)
    except ValueError:
        pass
    try:
        remaining = parsedate_to_datetime(header) - datetime.now(UTC)
    except (ValueError, TypeError):  # no date, or one without a zone
        return None
    return max(remaining.total_seconds(), 0.0)


def error_message(body: object, default: str) -> str:
    """Return the message in an error's body, in the shapes that servers give it."""
    if not isinstance(body, dict):
        return body if isinstance(body, str) else default
    error = body.get("error", body)
    if isinstance(error, str):
        return error
    if not isinstance(error, dict):
        return default
    message = error.get("message") or body.get("message") or body.get("detail") or default
    metadata = error.get("metadata")
    cause = metadata.get("raw") if isinstance(metadata, dict) else None  # OpenRouter: the provider's message
    return f"{message} ({cause})" if isinstance(cause, str) and cause else str(message)


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
        if failure.retry_after is None and not is_busy and not failure.is_loading:
            self._failures += 1
            seconds = self._failures * PAUSE
            may_try = self._failures < TRIES
        else:
            seconds = min(2.0**self._waits, LONGEST_WAIT) if failure.retry_after is None else failure.retry_after
            self._waits += 1
            self._waited += max(seconds, 1.0)
            may_try = self._waited <= (FIRST_BYTE if failure.is_loading else TOTAL_WAIT)
        if not may_try:
            raise error
        reason = failure.message if failure.status == 0 else f"status {failure.status}: {failure.message}"
        self._note(f"{self._address.host}: {reason}; asking again in {seconds:.0f} s.")
        await asyncio.sleep(seconds)


class EndpointClient:
    """An HTTP client for one endpoint; `note` is called with every wait."""

    def __init__(self, address: EndpointAddress, note: Callable[[str], object]) -> None:
        import httpx2  # noqa: PLC0415 - 0.1 s that only endpoints need

        headers = {"User-Agent": f"hermes-llm/{hermes_cli.__version__}"}
        if address.key:
            headers["Authorization"] = f"Bearer {address.key}"
        self.address, self.note = address, note
        try:
            self._client = httpx2.AsyncClient(
                headers=headers,
                follow_redirects=False,  # neither the key nor the conversation goes where the user did not send it
                verify=not (address.is_local and address.base.startswith("http:")),  # certificates take 50 ms to read
                trust_env=not address.is_local,  # no proxy of the environment reaches this machine
            )
        except ImportError:
            raise NetworkError(
                "a proxy of the environment speaks SOCKS, and the package for that, socksio, is not installed.",
                hint="install it: pip install 'httpx2[socks]'",
            ) from None

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def json(self, url: str, body: Mapping[str, Any] | None = None) -> Any:  # noqa: ANN401 - any JSON
        """Return the JSON that GET, or POST with a body, gives; errors as of `stream`."""
        async with self._request(url, body, SHORT) as response:
            return self._parse(await read_body(response, MAX_JSON))

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

        `is_finished` tells whether the answer is complete, so that little is waited for. Raise EndpointError if the
        server refused or the connection failed, HermesError if the response is not JSON.
        """
        async with self._request(url, body, FIRST_BYTE) as response:
            content_type = response.headers.get("content-type", "")
            if "json" in content_type:
                yield _chunk(self._parse(await read_body(response, MAX_JSON)))
            elif "event-stream" not in content_type:
                raise self._not_json(await read_body(response, _MAX_ERROR))
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
        raise EndpointError(event_status(error), error_message(value, "an error"), value)
    return value or {"choices": []}


async def _refusal(response: httpx2.Response) -> EndpointError:
    data = await read_body(response, _MAX_ERROR)
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        body = None
    text = "" if "html" in response.headers.get("content-type", "") else data.decode("utf-8", "replace")
    return EndpointError(
        response.status_code,
        error_message(body, text or response.reason_phrase or "no reason"),
        body if isinstance(body, dict) else {},
        retry_after=parse_retry_after(response.headers.get("retry-after")),
        location=str(response.url.join(response.headers["location"])) if response.has_redirect_location else "",
    )


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
