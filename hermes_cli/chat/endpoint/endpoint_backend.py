"""A chat backend whose model is behind an address, and what the server there tells about its models."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from hermes_cli.chat.conversation import ChatOptions
from hermes_cli.chat.endpoint.address import SERVICES, EndpointAddress, ServerKind, read_address
from hermes_cli.chat.endpoint.chat_completions import CompletionReader, EndpointModel, prompt_body, request_body
from hermes_cli.chat.endpoint.http_client import EndpointClient, EndpointError, Retries
from hermes_cli.errors import HermesError, NetworkError, NotFoundError, UsageError
from hermes_cli.event_loop import EventLoop

if TYPE_CHECKING:
    from hermes_cli.generation import Event, Message

MAX_LISTED = 20  # names in an error
_COUNTS_MESSAGES = {"vllm", "sglang"}  # kinds of servers whose `/tokenize` takes messages
_COUNTS_TOKENS = {"hermes", "llama.cpp", *_COUNTS_MESSAGES}  # kinds of servers with routes for it
# Kinds of servers that refuse a `max_tokens` that the context has no room for; others generate what fits.
_REFUSES_LONG_ANSWERS = {"vllm", "sglang"}
_SEPARATES_REASONING = {"hermes"}  # kinds of servers that never leave reasoning in the content
# Fields for the context length. Not `n_ctx_train`: that is what the model was trained for.
_CONTEXT_FIELDS = ("context_length", "max_model_len", "context_window", "max_context_length", "n_ctx")
_OWNERS: dict[str, ServerKind] = {
    "hermes-llm": "hermes",
    "llamacpp": "llama.cpp",
    "vllm": "vllm",
    "sglang": "sglang",
    "library": "ollama",
}


class Endpoint:
    """Opens models behind one address."""

    def __init__(
        self,
        address: str,
        event_loop: EventLoop,
        note: Callable[[str], object],
        warn: Callable[[str], object],
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        """Parse the address; nothing is requested yet. UsageError if it is none, or its key cannot be one.

        `note` is called with waits, `warn` with a key that is sent unencrypted, and with tool calls that cannot be run.
        """
        self._address = read_address(address, environ)
        self._event_loop, self._note, self._warn = event_loop, note, warn
        if self._address.exposes_key:
            warn(
                f"the key in {self._address.variable} goes to {self._address.host} unencrypted: others on the way can "
                "read it."
            )

    def names(self) -> list[str]:
        """Return the names of its models."""

        async def list_names() -> list[str]:
            client = EndpointClient(self._address, self._note)
            try:
                return [_model_id(model) for model in await _list_models(client)]
            finally:
                await client.close()

        return self._event_loop.run(list_names())

    def open(self, name: str | None) -> EndpointBackend:
        """Open a model, to be closed by the caller; errors are those of `connect`."""
        return self._event_loop.run(connect(self._address, name, self._note, self._warn))

    @contextmanager
    def opening(self, name: str | None) -> Iterator[Callable[[], EndpointBackend]]:
        """Yield a function that opens a model. Nothing can begin earlier: it takes one request to the server."""
        yield lambda: self.open(name)


async def connect(
    address: EndpointAddress, model: str | None, note: Callable[[str], object], warn: Callable[[str], object]
) -> EndpointBackend:
    """Return the model behind an address; None takes the only one there is.

    Raise UsageError if the key is refused or a name is needed, NotFoundError if there is no such model or no API.
    """
    client = EndpointClient(address, note)
    try:
        return EndpointBackend(client, await _find_model(client, model), warn)
    except BaseException:
        await client.close()
        raise


class EndpointBackend:
    """A model behind an OpenAI-compatible API. It closes its client; `warn` gets calls that cannot be run."""

    def __init__(self, client: EndpointClient, model: EndpointModel, warn: Callable[[str], object]) -> None:
        self._client, self._model, self._warn = client, model, warn
        self.context_length = model.context_length
        self.supports_reasoning, self.supports_tools = model.supports_reasoning, model.supports_tools
        self.details = {"context_length": model.context_length, "endpoint": client.address.base}

    @property
    def name(self) -> str:
        """Name of the model; of the path of a file, as llama.cpp's server has it, only the end."""
        name = self._model.name
        return re.split(r"[/\\]", name)[-1] if name.endswith(".gguf") else name

    async def generate(
        self, messages: Sequence[Message], tools: Sequence[dict[str, Any]], options: ChatOptions
    ) -> AsyncGenerator[Event, None]:
        """Yield the events of the next turn. Until the first one, failures are retried where that may help."""
        address = self._client.address
        body = request_body(self._model, messages, tools, options)
        if options.max_tokens and self._model.kind in _REFUSES_LONG_ANSWERS:
            body["max_tokens"] = await self._room(messages, tools, options, options.max_tokens)
        retries = Retries(address, self._client.note)
        while True:
            begun = False
            try:
                async with aclosing(self._generate_once(body, options)) as events:
                    async for event in events:
                        begun = True
                        yield event
            except EndpointError as error:
                failure = error
            else:
                return
            if begun:
                raise failure.as_broken_answer(address)
            await retries.wait(failure, failure.as_user_error(address, self.name, options.max_tokens))

    async def _generate_once(self, body: dict[str, Any], options: ChatOptions) -> AsyncGenerator[Event, None]:
        reader = CompletionReader(
            reasoning_separated=self._model.kind in _SEPARATES_REASONING,
            warn=self._warn,
            think_budget=options.think_budget is not None,
        )
        url = f"{self._client.address.base}/chat/completions"
        try:
            async with aclosing(self._client.stream(url, body, lambda: reader.is_finished)) as chunks:
                async for chunk in chunks:
                    for event in reader.feed(chunk):
                        yield event
        except EndpointError as error:
            if error.status or not reader.is_finished:  # what breaks after the end is no loss
                raise
        if not reader.is_finished:
            raise EndpointError(0, "the stream ended before the answer did")
        for last in reader.finish(self.context_length, options.max_tokens):
            yield last

    async def _room(
        self, messages: Sequence[Message], tools: Sequence[dict[str, Any]], options: ChatOptions, max_tokens: int
    ) -> int:
        """Return `max_tokens`, or the tokens that the prompt leaves of the context if there are fewer."""
        if self.context_length is None:
            return max_tokens
        prompt = await self.count_tokens(messages, tools, options) or 0
        room = self.context_length - prompt
        return min(max_tokens, room) if room > 0 else max_tokens

    async def count_tokens(
        self, messages: Sequence[Message], tools: Sequence[dict[str, Any]], options: ChatOptions
    ) -> int | None:
        """Return the number of tokens in the prompt, where the server can count them."""
        if self._model.kind not in _COUNTS_TOKENS:
            return None
        root = self._client.address.root
        body = prompt_body(self._model, messages, tools, options)
        try:
            if self._model.kind in _COUNTS_MESSAGES:
                count = (await self._client.json(f"{root}/tokenize", body))["count"]
                return count if isinstance(count, int) else None
            prompt = (await self._client.json(f"{root}/apply-template", body))["prompt"]
            body = {"content": prompt, "add_special": True, "parse_special": True, "model": self.name}
            return len((await self._client.json(f"{root}/tokenize", body))["tokens"])
        except (EndpointError, NetworkError):  # the next answer tells why
            return None
        except (KeyError, TypeError):  # another server than it seemed
            return None

    async def unload(self) -> None:
        """Do nothing: no memory is held."""

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


async def _find_model(client: EndpointClient, name: str | None) -> EndpointModel:
    models = await _list_models(client, required=not name)
    model = _choose(models, name, client.address.host) if models or not name else {}
    service = SERVICES.get(client.address.host)
    kind: ServerKind = service.kind if service else _OWNERS.get(str(model.get("owned_by")), "other")
    if not name or (_has_similar_name(model, name) and not _has_name(model, name)):
        name = _model_id(model)
    objects = [model, *(model[part] for part in ("meta", "top_provider") if isinstance(model.get(part), dict))]
    numbers = (fields.get(field) for fields in objects for field in _CONTEXT_FIELDS)
    context_length = next((number for number in numbers if type(number) is int and number > 0), None)
    if context_length is None and kind in {"llama.cpp", "other"}:
        context_length = await _props_context_length(client, name)
    return EndpointModel(name, kind, context_length, *_capabilities(model))


async def _list_models(client: EndpointClient, *, required: bool = True) -> list[dict[str, Any]]:
    """Return all models that have an id. A server without a list has none, unless it is `required`."""

    async def request() -> Any:  # noqa: ANN401 - any JSON
        try:
            return await client.json(f"{client.address.base}/models")
        except EndpointError as error:
            if error.status == HTTPStatus.NOT_FOUND and not required:
                return []
            raise

    answer = await client.with_retries(request)
    models = answer.get("data", answer.get("models")) if isinstance(answer, dict) else answer
    if not isinstance(models, list):
        return []
    return [model for model in models if isinstance(model, dict) and _model_id(model)]


def _model_id(model: dict[str, Any]) -> str:
    """Return the name of a listed model, or an empty string."""
    name = model.get("id") or model.get("name")
    return name if isinstance(name, str) else ""


def _choose(models: Sequence[dict[str, Any]], name: str | None, host: str) -> dict[str, Any]:
    """Return the model of a name, an alias, or a name in other letter case; without a name, the only one."""
    names = [_model_id(model) for model in models]
    if not names:
        raise NotFoundError(f"{host} lists no models.", hint="name one: -m NAME.")
    more = f" and {len(names) - MAX_LISTED:,} more" if len(names) > MAX_LISTED else ""
    listed = ", ".join(names[:MAX_LISTED]) + more
    if not name:
        if len(models) == 1:
            return models[0]
        raise UsageError(f"{host} has {len(names):,} models: {listed}.", hint=f"choose one: -m {names[0]}")
    for matches in (_has_name, _has_similar_name, lambda model, _: "*" in _aliases(model)):
        if match := next((model for model in models if matches(model, name)), None):
            return match
    import difflib  # noqa: PLC0415 - some milliseconds, and only errors need it

    by_lower = {other.lower(): other for other in names}
    near = [by_lower[other] for other in difflib.get_close_matches(name.lower(), by_lower, 4)]
    hint = f"did you mean {' or '.join(near)}?" if near else "choose one of them with -m NAME."
    raise NotFoundError(f"{host} has no model {name}; it has {listed}.", hint=hint)


def _has_name(model: dict[str, Any], name: str) -> bool:
    """Return whether requests may use the name; OpenRouter lists `vendor/name` and takes `vendor/name:variant`, too."""
    names, base = [_model_id(model), *_aliases(model)], name.partition(":")[0]
    return name in names or ("/" in base and base in names)


def _has_similar_name(model: dict[str, Any], name: str) -> bool:
    return _model_id(model).lower() in {name.lower(), f"{name.lower()}:latest"}


def _aliases(model: dict[str, Any]) -> list[Any]:
    aliases = model.get("aliases")
    return aliases if isinstance(aliases, list) else []


async def _props_context_length(client: EndpointClient, name: str) -> int | None:
    """Return the context length from llama.cpp's `/props`; other servers have no such route."""
    try:
        answer = await client.json(f"{client.address.root}/props?model={quote(name, safe='')}")
        number = answer["default_generation_settings"]["n_ctx"]
    except (EndpointError, HermesError, KeyError, TypeError):
        return None
    return number if type(number) is int and number > 0 else None


def _capabilities(model: dict[str, Any]) -> tuple[bool | None, bool | None]:
    """Return whether the model reasons and takes tools, from this program's server or from OpenRouter."""
    fields = model.get("capabilities")
    if isinstance(fields, dict):
        flags = [fields.get(name) for name in ("reasoning", "tools")]
        reasoning, tools = (flag if isinstance(flag, bool) else None for flag in flags)
        return reasoning, tools
    parameters = model.get("supported_parameters")
    return ("reasoning" in parameters, "tools" in parameters) if isinstance(parameters, list) else (None, None)
