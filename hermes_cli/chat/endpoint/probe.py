"""Which model an endpoint has, and what it says about it."""

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

Kind = Literal["hermes", "llama.cpp", "vllm", "ollama", "openrouter", "openai", "other"]

LISTED = 20  # names in an error
# Where servers tell how many tokens a request can use. Not `n_ctx_train`: that is what the model was trained for.
_CONTEXT = ("context_length", "max_model_len", "context_window", "max_context_length")
_OWNERS: dict[str, Kind] = {"hermes-llm": "hermes", "llamacpp": "llama.cpp", "vllm": "vllm", "library": "ollama"}
_SERVICES: dict[str, Kind] = {
    "openrouter.ai": "openrouter",
    "inference-api.nousresearch.com": "openrouter",  # it takes the same fields
    "api.openai.com": "openai",
}


@dataclass(frozen=True)
class EndpointModel:
    """A model behind an endpoint.

    Attributes:
        name: as requests name it.
        kind: of server, as far as its words for things go.
        context: tokens that one request can use; None where nobody says.
        reasons, takes_tools: whether it can; None where nobody says.
    """

    name: str
    kind: Kind
    context: int | None = None
    reasons: bool | None = None
    takes_tools: bool | None = None


async def find(wire: EndpointClient, wanted: str | None) -> EndpointModel:
    """The model that is wanted, or the only one there is.

    Raises:
        NotFoundError: there is no such model, or none at all.
        UsageError: there are several, and none was named.
        HermesError: the server does not say.
    """
    address = wire.address
    models = await listed(wire, need=not wanted)
    if wanted and not models:
        return EndpointModel(wanted, _kind(address, {}), await _props_context(wire, wanted))
    chosen = choose(models, wanted, address.host)
    kind = _kind(address, chosen)
    name = wanted if wanted and (_names(chosen, wanted) or not _nearly(chosen, wanted)) else _id(chosen)
    asked = kind in {"llama.cpp", "other"} and address.host not in _SERVICES
    context = _context(chosen) or (await _props_context(wire, name) if asked else None)
    reasons, takes_tools = _abilities(chosen)
    return EndpointModel(name, kind, context, reasons, takes_tools)


async def listed(wire: EndpointClient, *, need: bool = True) -> list[dict[str, Any]]:
    """All models there are, each with an id. Some servers have no list, which is nothing wrong where there is no need.

    Raises:
        HermesError: the server does not say.
    """

    async def listing() -> Any:  # noqa: ANN401 - what JSON holds
        try:
            return await wire.json(f"{wire.address.base}/models")
        except EndpointError as refused:
            if refused.told.status == HTTPStatus.NOT_FOUND and not need:
                return []
            raise

    told = await wire.patiently(listing)
    given = told.get("data", told.get("models")) if isinstance(told, dict) else told
    return [one for one in given if isinstance(one, dict) and _id(one)] if isinstance(given, list) else []


def choose(models: Sequence[dict[str, Any]], wanted: str | None, host: str) -> dict[str, Any]:
    """The one that is wanted, by its name, an alias, or in other letters; without a wish, the only one.

    Raises:
        NotFoundError: there is none of that name, or none at all.
        UsageError: there are several, and none was named.
    """
    names = [_id(model) for model in models]
    if not names:
        raise NotFoundError(f"{host} lists no models.", hint="name one: -m NAME.")
    if not wanted:
        if len(models) == 1:
            return models[0]
        raise UsageError(f"{host} has {len(names):,} models: {_list(names)}.", hint=f"choose one: -m {names[0]}")
    for same in (_names, _nearly, _takes_any):
        found = [model for model in models if same(model, wanted)]
        if found:
            return found[0]
    import difflib  # noqa: PLC0415 - some milliseconds, and only errors need it

    letters = {name.lower(): name for name in names}
    near = [letters[one] for one in difflib.get_close_matches(wanted.lower(), letters, 4)]
    hint = f"did you mean {' or '.join(near)}?" if near else "choose one of them with -m NAME."
    raise NotFoundError(f"{host} has no model {wanted}; it has {_list(names)}.", hint=hint)


def _names(model: dict[str, Any], wanted: str) -> bool:
    """Whether requests may say it so; OpenRouter lists `vendor/name`, and takes `vendor/name:variant`, too."""
    known, base = [_id(model), *_aliases(model)], wanted.partition(":")[0]
    return wanted in known or ("/" in base and base in known)


def _nearly(model: dict[str, Any], wanted: str) -> bool:
    return _id(model).lower() in {wanted.lower(), f"{wanted.lower()}:latest"}


def _takes_any(model: dict[str, Any], _: str) -> bool:
    return "*" in _aliases(model)


def _aliases(model: dict[str, Any]) -> list[Any]:
    aliases = model.get("aliases")
    return aliases if isinstance(aliases, list) else []


def _id(model: dict[str, Any]) -> str:
    name = model.get("id") or model.get("name")
    return name if isinstance(name, str) else ""


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED:,} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def _kind(address: EndpointAddress, model: dict[str, Any]) -> Kind:
    return _SERVICES.get(address.host) or _OWNERS.get(str(model.get("owned_by")), "other")


def _context(model: dict[str, Any]) -> int | None:
    places = [model, *(model[part] for part in ("meta", "top_provider") if isinstance(model.get(part), dict))]
    stated = [place.get(name) for place in places for name in (*_CONTEXT, "n_ctx")]
    return next((number for number in stated if type(number) is int and number > 0), None)


async def _props_context(wire: EndpointClient, name: str) -> int | None:
    """What llama.cpp's server says of itself; others have no such route."""
    if wire.address.host in _SERVICES:
        return None
    try:
        told = await wire.json(f"{wire.address.root}/props?model={quote(name, safe='')}")
        number = told["default_generation_settings"]["n_ctx"]
    except (EndpointError, HermesError, KeyError, TypeError):
        return None
    return number if type(number) is int and number > 0 else None


def _abilities(model: dict[str, Any]) -> tuple[bool | None, bool | None]:
    """Whether it reasons, and takes tools: as this program's server says it, or OpenRouter."""
    said = model.get("capabilities")
    if isinstance(said, dict):
        return _flag(said.get("reasoning")), _flag(said.get("tools"))
    takes = model.get("supported_parameters")
    return ("reasoning" in takes, "tools" in takes) if isinstance(takes, list) else (None, None)


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None
