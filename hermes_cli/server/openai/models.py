"""GET /v1/models and /v1/models/{id}."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from hermes_cli.server.pool import Capabilities  # noqa: TC001 - msgspec reads it
from hermes_cli.server.routing import ApiRoute, RouteDescription
from hermes_cli.server.streaming_reply import json_reply

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from hermes_cli.server.pool import ModelCard


class ModelObject(msgspec.Struct, frozen=True, kw_only=True):
    """A model that is served. Size in bytes, `created` in seconds since 1970.

    Clients look for the context length under several names, and some take the first number that looks like one: so
    there are only numbers that a request can really use.
    """

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    context_length: int
    max_model_len: int
    aliases: list[str]
    state: Literal["unloaded", "loading", "ready", "failed"]
    capabilities: Capabilities
    quantization: str | None
    parameters: int | None
    size: int
    slots: int


class ModelList(msgspec.Struct, frozen=True):
    """All models, the default first."""

    data: list[ModelObject]
    object: Literal["list"] = "list"


async def list_models(request: Request) -> Response:
    """List the models.

    All that are served, loaded or not.
    """
    return json_reply(ModelList([model_object(card) for card in request.app.state.pool.cards()]))


async def describe_model(request: Request) -> Response:
    """Describe a model.

    By its name or an alias.
    """
    return json_reply(model_object(request.app.state.pool.card(request.path_params["model"])))


def model_object(card: ModelCard) -> ModelObject:
    """Describe a model in the fields that OpenAI's clients and those of other servers look for."""
    return ModelObject(
        id=card.name,
        created=card.created,
        owned_by=card.owned_by,
        context_length=card.context_length,
        max_model_len=card.context_length,
        aliases=list(card.aliases),
        state=card.state,
        capabilities=card.capabilities,
        quantization=card.quantization,
        parameters=card.parameters,
        size=card.size,
        slots=card.slots,
    )


ROUTES = [
    ApiRoute("GET", "/v1/models", list_models, RouteDescription("OpenAI", ModelList)),
    ApiRoute("GET", "/v1/models/{model:path}", describe_model, RouteDescription("OpenAI", ModelObject)),
]
