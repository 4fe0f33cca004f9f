"""HTTP with an upstream engine: its address, JSON there and back, streamed events, and its errors as ours."""

from __future__ import annotations

import json
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import msgspec

from hermes_cli.engine.upstream.event_stream import BrokenStreamError, Pacer, Response, StreamConnection
from hermes_cli.errors import ContextFullError, EngineError, HermesError, NetworkError, QueueFullError, UsageError
from hermes_cli.platforms import is_loopback

if TYPE_CHECKING:
    import httpx2

KEY_VARIABLE = "HERMES_LLM_ENGINE_KEY"
CONNECT = 10.0  # seconds until a connection is there
SHORT = 60.0  # seconds of silence before an answer that takes no computing
SILENCE = 600.0  # the same while text is generated: a long prompt takes its time
SHOWN_CHARACTERS = 500  # of a server's message
MAX_BODY = 64 << 20  # bytes of a response that is no stream
MAX_EVENT = 16 << 20  # bytes
_SCHEMES = {"http", "https"}
_EXAMPLE = "give it like this: --engine-url http://127.0.0.1:8080, or unix:/run/engine.sock"

# How servers tell the tokens of the context and of the prompt: vLLM and this program's own server, vLLM where
# `max_tokens` is too large, OpenAI, OpenRouter, llama.cpp (the prompt first), older vLLM, SGLang (two).
_CONTEXT = re.compile(r"(?:maximum (?:context|model) length (?:is|of)|model's context length \() ?(\d[\d,]{,20})")
_PROMPTS = (
    re.compile(r"prompt contains (?:at least )?(\d[\d,]{,20}) input tokens"),
    re.compile(r"request has (\d[\d,]{,20}) input tokens"),
    re.compile(r"messages resulted in (\d[\d,]{,20}) tokens"),
    re.compile(r"\((\d[\d,]{,20}) (?:in the messages|in your prompt|of text input)"),
    re.compile(r"The input \((\d[\d,]{,20}) tokens\) is longer than"),
    re.compile(r"(\d[\d,]{,20}) tokens from the input messages"),
    re.compile(r"\(length (\d[\d,]{,20})\) is longer than"),
    re.compile(r"you requested (?:about )?(\d[\d,]{,20}) tokens"),
)
_LLAMA_CPP = re.compile(r"request \((\d[\d,]{,20}) tokens\) exceeds the available context size \((\d[\d,]{,20})")


@dataclass(frozen=True)
class EngineAddress:
    """The address of an engine: the URL that its routes are appended to, and the socket file where it has one."""

    url: str
    socket: str = ""

    def __str__(self) -> str:
        return f"unix:{self.socket}" if self.socket else self.url


def read_engine_url(text: str) -> EngineAddress:
    """Parse `http://HOST:PORT`, `https://…` or `unix:PATH`; `/v1` at its end is dropped. UsageError if it is none."""
    text = text.strip()
    scheme, colon, rest = text.partition(":")
    if scheme == "unix" and rest.strip("/"):
        return EngineAddress("http://engine", rest if rest.startswith("/") and not rest.startswith("//") else rest[2:])
    try:
        parts = urlsplit(text if colon and rest.startswith("//") else f"http://{text}")
        valid = (
            scheme != "unix" and bool(parts.hostname) and parts.port != 0 and not re.search(r"[\s\\%]", parts.netloc)
        )
    except ValueError:  # a port that is not a number
        raise UsageError(f"--engine-url {text!r} is not an address.", hint=_EXAMPLE) from None
    if parts.username is not None:
        raise UsageError(
            "--engine-url: an address with a name or key in it can be read by others on this machine.",
            hint=f"leave it out and put the key into the environment: export {KEY_VARIABLE}=…",
        )
    if not valid or parts.scheme not in _SCHEMES or parts.query or parts.fragment:
        raise UsageError(f"--engine-url {text!r} is not an address.", hint=_EXAMPLE)
    path = re.sub(r"/v1$", "", parts.path.rstrip("/"))
    return EngineAddress(f"{parts.scheme}://{parts.netloc}{path}")


class UpstreamError(Exception):
    """An answer that is an error; `as_hermes_error` is what users get."""

    def __init__(self, status: int, body: object) -> None:
        error = body.get("error", body) if isinstance(body, dict) else body
        self.status = status  # of HTTP, or of an error event in a stream
        self.body = error if isinstance(error, dict) else {}
        text = self.body.get("message") or (error if isinstance(error, str) else "") or "no reason"
        self.message = " ".join(str(text).split())[:SHOWN_CHARACTERS]
        super().__init__(self.message)

    @property
    def is_loading(self) -> bool:
        """Return whether the engine says that its model is being loaded."""
        return self.status == HTTPStatus.SERVICE_UNAVAILABLE and "loading" in self.message.lower()

    def as_hermes_error(self, address: EngineAddress) -> HermesError:
        """Return the error for a request that this ended."""
        if full := self._context_full():
            return full
        if self.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
            return UsageError(
                f"the engine at {address} refuses the key: {self.message}",
                hint=f"put the right one into the environment: export {KEY_VARIABLE}=…",
            )
        if self.status in {HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS}:
            return QueueFullError(f"the engine at {address} takes no more requests: {self.message}", hint="ask later.")
        if self.status in {HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY}:
            return UsageError(
                f"the engine at {address} refuses the request: {self.message}", hint="leave out what it names."
            )
        return EngineError(
            f"the engine at {address} failed with status {self.status}: {self.message}", hint="its log may have more."
        )

    def _context_full(self) -> ContextFullError | None:
        prompt, context = token_counts(self.message, self.body)
        return None if prompt is None or context is None else context_full(prompt, context)


def token_counts(message: str, fields: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Return the tokens of the prompt and of the context, from an error's fields or from its text."""
    prompt, context = fields.get("n_prompt_tokens"), fields.get("n_ctx")
    if isinstance(prompt, int) and isinstance(context, int):
        return prompt, context
    if match := _LLAMA_CPP.search(message):
        return _number(match[1]), _number(match[2])
    context_match = _CONTEXT.search(message)
    prompt_match = next(filter(None, (pattern.search(message) for pattern in _PROMPTS)), None)
    return prompt_match and _number(prompt_match[1]), context_match and _number(context_match[1])


def _number(text: str) -> int:
    return int(text.replace(",", ""))


def context_full(prompt: int, context: int) -> ContextFullError:
    """Return the error for a prompt of so many tokens."""
    return ContextFullError(
        f"the prompt has {prompt:,} tokens, the context length is {context:,} tokens.",
        hint="shorten the prompt, or have the engine started with a longer context.",
        prompt_tokens=prompt,
        context_length=context,
    )


class UpstreamClient:
    """An HTTP client for one engine, with the key of the environment."""

    def __init__(self, address: EngineAddress) -> None:
        import httpx2  # noqa: PLC0415 - 0.1 s that only upstream engines need

        self.address = address
        self.pacer = Pacer()
        key = os.environ.get(KEY_VARIABLE, "").strip()
        host = urlsplit(address.url).hostname or ""
        local = bool(address.socket) or is_loopback(host)
        self._key = {"Authorization": f"Bearer {key}"} if key else {}
        self._is_direct = address.url.startswith("http:") and (local or not _has_proxy(host))
        self._client = httpx2.AsyncClient(
            headers=self._key,
            follow_redirects=False,
            transport=httpx2.AsyncHTTPTransport(uds=address.socket) if address.socket else None,
            verify=address.url.startswith("https:"),  # certificates take 50 ms to read
            trust_env=not local,  # no proxy of the environment reaches this machine
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def get(self, path: str) -> Any:  # noqa: ANN401 - any JSON
        """Return the JSON of a route.

        Raises:
            UpstreamError: the engine answers with an error.
            NetworkError: it cannot be reached, or answers with something else.
        """
        return await self._json(path, None)

    async def get_text(self, path: str) -> str:
        """Return the text of a route; errors are those of `get`."""
        async with self._request(path, None, SHORT) as response:
            return (await read_body(response, MAX_BODY)).decode("utf-8", "replace")

    async def post(self, path: str, body: Mapping[str, Any]) -> Any:  # noqa: ANN401 - any JSON
        """Return the JSON that a route answers a body with; errors are those of `get`."""
        return await self._json(path, body)

    async def look(self, path: str, seconds: float) -> tuple[int, str]:
        """Return the status and the text of a route; 0 and nothing if no answer comes within so many seconds."""
        import httpx2  # noqa: PLC0415 - as above

        try:
            response = await self._client.get(f"{self.address.url}{path}", timeout=seconds)
        except (httpx2.HTTPError, httpx2.StreamError, OSError):
            return 0, ""
        return response.status_code, response.text

    async def activity(self, path: str, beginning: str, seconds: float) -> str:
        """Return the lines of a route that begin so, which change while the engine works; empty as `look`."""
        _, text = await self.look(path, seconds)
        return "\n".join(line for line in text.splitlines() if line.startswith(beginning))

    async def stream(self, path: str, body: Mapping[str, Any]) -> AsyncGenerator[list[dict[str, Any]], None]:
        """Yield the objects of a stream of server-sent events, those at once that came at once; closing it cancels it.

        An error event raises UpstreamError, whatever follows it: vLLM sends `[DONE]` behind one. The other errors are
        those of `get`.
        """
        stream = self._direct_stream(path, body) if self._is_direct else self._library_stream(path, body)
        async with aclosing(stream) as batches:
            async for batch in batches:
                chunks = [self._parse(data) for data in batch if data and data != b"[DONE]"]
                for number, chunk in enumerate(chunks):
                    if "error" in chunk:
                        if number:
                            yield chunks[:number]
                        raise UpstreamError(event_status(chunk["error"]), chunk)
                if chunks:
                    yield chunks

    async def _direct_stream(self, path: str, body: Mapping[str, Any]) -> AsyncGenerator[list[bytes], None]:
        async with self._direct(path, body, SILENCE) as response:
            if "event-stream" not in response.content_type:
                raise self._no_engine()
            async with aclosing(response.events(MAX_EVENT)) as batches:
                async for batch in batches:
                    yield batch

    @asynccontextmanager
    async def _direct(self, path: str, body: Mapping[str, Any], silence: float) -> AsyncIterator[Response]:
        """Post a body over a connection of its own, in a tenth of the library's time."""
        try:
            connection = await StreamConnection.open(
                self.address.url, self.address.socket, connect=CONNECT, silence=silence, pacer=self.pacer
            )
        except (OSError, TimeoutError) as error:
            raise self._unreachable(error) from None
        try:
            parts = urlsplit(self.address.url)
            headers = {"Host": parts.netloc, "Content-Type": "application/json", **self._key}
            response = await connection.post(f"{parts.path}{path}", headers, _data(body))
            if response.status != HTTPStatus.OK:
                raise UpstreamError(response.status, _object(await response.body(MAX_BODY)))
            yield response
        except TimeoutError:
            raise self._silent() from None
        except (OSError, BrokenStreamError) as error:
            raise self._broken(error) from None
        finally:
            connection.close()

    async def _library_stream(self, path: str, body: Mapping[str, Any]) -> AsyncGenerator[list[bytes], None]:
        """Yield the data of events one by one, over TLS or a proxy."""
        import httpx2  # noqa: PLC0415 - as above

        async with self._request(path, body, SILENCE) as response:
            if "event-stream" not in response.headers.get("content-type", ""):
                raise self._no_engine()
            async with aclosing(aiter(httpx2.EventSource(response, MAX_EVENT))) as events:  # type: ignore[type-var]
                async for event in events:
                    yield [event.data.strip().encode()]

    async def _json(self, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        if body is not None and self._is_direct:
            async with self._direct(path, body, SHORT) as answer:
                return self._parse(await answer.body(MAX_BODY))
        async with self._request(path, body, SHORT) as response:
            return self._parse(await read_body(response, MAX_BODY))

    @asynccontextmanager
    async def _request(
        self, path: str, body: Mapping[str, Any] | None, silence: float
    ) -> AsyncIterator[httpx2.Response]:
        import httpx2  # noqa: PLC0415 - as above

        data = None if body is None else _data(body)
        headers = {} if body is None else {"Content-Type": "application/json"}
        timeout = httpx2.Timeout(silence, connect=CONNECT)
        method, url = "GET" if body is None else "POST", f"{self.address.url}{path}"
        with self._connection_errors():
            async with self._client.stream(method, url, content=data, headers=headers, timeout=timeout) as response:
                if not response.is_success:
                    raise UpstreamError(response.status_code, _object(await read_body(response, MAX_BODY)))
                yield response

    @contextmanager
    def _connection_errors(self) -> Iterator[None]:
        import httpx2  # noqa: PLC0415 - as above

        try:
            yield
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.UnsupportedProtocol) as error:
            raise self._unreachable(error) from None
        except httpx2.TimeoutException:
            raise self._silent() from None
        except (httpx2.HTTPError, httpx2.StreamError, OSError) as error:
            raise self._broken(error) from None

    def _unreachable(self, error: BaseException) -> NetworkError:
        return NetworkError(
            f"the engine at {self.address} cannot be reached: {_reason(error)}.",
            hint="check the address, and that it runs.",
        )

    def _silent(self) -> NetworkError:
        return NetworkError(f"the engine at {self.address} sends nothing any more.", hint="see its log.")

    def _broken(self, error: BaseException) -> NetworkError:
        return NetworkError(
            f"the connection to the engine at {self.address} broke: {_reason(error)}.",
            hint="ask again; its log may tell why.",
        )

    def _parse(self, data: bytes) -> dict[str, Any]:
        value = _object(data)
        if not isinstance(value, (dict, list)):
            raise self._no_engine()
        return value if isinstance(value, dict) else {"data": value}

    def _no_engine(self) -> NetworkError:
        return NetworkError(f"what answers at {self.address} is not an engine that hermes knows.", hint=_EXAMPLE)


def _has_proxy(host: str) -> bool:
    return bool({"http", "all"} & getproxies().keys()) and not proxy_bypass(host)


def _data(body: Mapping[str, Any]) -> bytes:
    # Half a surrogate pair, which JSON escapes and command lines can hold, has no UTF-8.
    return json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def event_status(error: object) -> int:
    """Return the status of an error in a stream of events."""
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, int) and code > 0 else HTTPStatus.INTERNAL_SERVER_ERROR


def _object(data: bytes) -> object:
    try:
        return msgspec.json.decode(data)
    except (ValueError, RecursionError):
        return " ".join(data[:SHOWN_CHARACTERS].decode("utf-8", "replace").split())


async def read_body(response: httpx2.Response, limit: int) -> bytes:
    """Return the body, cut off behind `limit` bytes, which no honest one has."""
    data = bytearray()
    async for piece in response.aiter_bytes():
        data += piece
        if len(data) > limit:
            break
    return bytes(data)
