"""The models of an endpoint, and what its server tells about them."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from hermes_cli.chat.endpoint.failures import EndpointError
from hermes_cli.errors import HermesError, NotFoundError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hermes_cli.chat.endpoint.address import EndpointAddress
    from hermes_cli.chat.endpoint.http_client import EndpointClient

ServerKind = Literal["hermes", "llama.cpp", "vllm", "ollama", "openrouter", "openai", "other"]

MAX_LISTED = 20  # names in an error
# Fields for the context length. Not `n_ctx_train`: that is what the model was trained for.
_CONTEXT_FIELDS = ("context_length", "max_model_len", "context_window", "max_context_length", "n_ctx")
_OWNERS: dict[str, ServerKind] = {"hermes-llm": "hermes", "llamacpp": "llama.cpp", "vllm": "vllm", "library": "ollama"}
_SERVICES: dict[str, ServerKind] = {
    "openrouter.ai": "openrouter",
    "inference-api.nousresearch.com": "openrouter",  # it takes the same fields
    "api.openai.com": "openai",
}


@dataclass(frozen=True)
class EndpointModel:
    """A model behind an endpoint.

    Attributes:
        name: as requests name it.
        kind: server, which decides the names of fields.
        context_length: tokens of prompt and answer together; None if unknown.
        supports_reasoning, supports_tools: None if unknown.
    """

    name: str
    kind: ServerKind
    context_length: int | None = None
    supports_reasoning: bool | None = None
    supports_tools: bool | None = None


async def find_model(client: EndpointClient, name: str | None) -> EndpointModel:
    """Return the model of a name, or the only one there is.

    Raises:
        NotFoundError: no such model, or none at all.
        UsageError: there are several, and none was named.
        HermesError: the server does not list them.
    """
    address = client.address
    models = await list_models(client, required=not name)
    if name and not models:
        return EndpointModel(name, _kind(address, {}), await _props_context_length(client, name))
    model = _choose(models, name, address.host)
    kind = _kind(address, model)
    request_name = name if name and (_has_name(model, name) or not _has_similar_name(model, name)) else model_id(model)
    context_length = _context_length(model)
    if context_length is None and kind in {"llama.cpp", "other"}:
        context_length = await _props_context_length(client, request_name)
    supports_reasoning, supports_tools = _capabilities(model)
    return EndpointModel(request_name, kind, context_length, supports_reasoning, supports_tools)


async def list_models(client: EndpointClient, *, required: bool = True) -> list[dict[str, Any]]:
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
    return (
        [model for model in models if isinstance(model, dict) and model_id(model)] if isinstance(models, list) else []
    )


def model_id(model: dict[str, Any]) -> str:
    """Return the name of a listed model, or an empty string."""
    name = model.get("id") or model.get("name")
    return name if isinstance(name, str) else ""


def _choose(models: Sequence[dict[str, Any]], name: str | None, host: str) -> dict[str, Any]:
    """Return the model of a name, an alias, or a name in other letter case; without a name, the only one."""
    names = [model_id(model) for model in models]
    if not names:
        raise NotFoundError(f"{host} lists no models.", hint="name one: -m NAME.")
    more = f" and {len(names) - MAX_LISTED:,} more" if len(names) > MAX_LISTED else ""
    listed = ", ".join(names[:MAX_LISTED]) + more
    if not name:
        if len(models) == 1:
            return models[0]
        raise UsageError(f"{host} has {len(names):,} models: {listed}.", hint=f"choose one: -m {names[0]}")
    for matches in (_has_name, _has_similar_name, _takes_any_name):
        if found := next((model for model in models if matches(model, name)), None):
            return found
    import difflib  # noqa: PLC0415 - some milliseconds, and only errors need it

    by_lower = {other.lower(): other for other in names}
    near = [by_lower[other] for other in difflib.get_close_matches(name.lower(), by_lower, 4)]
    hint = f"did you mean {' or '.join(near)}?" if near else "choose one of them with -m NAME."
    raise NotFoundError(f"{host} has no model {name}; it has {listed}.", hint=hint)


def _has_name(model: dict[str, Any], name: str) -> bool:
    """Return whether requests may use the name; OpenRouter lists `vendor/name` and takes `vendor/name:variant`, too."""
    names, base = [model_id(model), *_aliases(model)], name.partition(":")[0]
    return name in names or ("/" in base and base in names)


def _has_similar_name(model: dict[str, Any], name: str) -> bool:
    return model_id(model).lower() in {name.lower(), f"{name.lower()}:latest"}


def _takes_any_name(model: dict[str, Any], _: str) -> bool:
    return "*" in _aliases(model)


def _aliases(model: dict[str, Any]) -> list[Any]:
    aliases = model.get("aliases")
    return aliases if isinstance(aliases, list) else []


def _kind(address: EndpointAddress, model: dict[str, Any]) -> ServerKind:
    return _SERVICES.get(address.host) or _OWNERS.get(str(model.get("owned_by")), "other")


def _context_length(model: dict[str, Any]) -> int | None:
    objects = [model, *(model[part] for part in ("meta", "top_provider") if isinstance(model.get(part), dict))]
    numbers = (fields.get(name) for fields in objects for name in _CONTEXT_FIELDS)
    return next((number for number in numbers if type(number) is int and number > 0), None)


async def _props_context_length(client: EndpointClient, name: str) -> int | None:
    """Return the context length from llama.cpp's `/props`; other servers have no such route."""
    if client.address.host in _SERVICES:
        return None
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
