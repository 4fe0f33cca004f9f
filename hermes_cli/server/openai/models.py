"""GET /v1/models and /v1/models/{id}."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from hermes_cli.server.openai.replies import answers
from hermes_cli.server.security import GuardedRoute

if TYPE_CHECKING:
    from hermes_cli.server.pool import ModelCard


class ModelCapabilities(msgspec.Struct, frozen=True):
    """What a model can do; null where that is known once it is loaded."""

    tools: bool | None
    reasoning: bool | None
    json: bool


class ModelObject(msgspec.Struct, frozen=True, kw_only=True):
    """A model that is served.

    Clients look for the context length under several names, and some take the first number that looks like one: so
    there are only numbers that a request can really use. Size in bytes, `created` in seconds since 1970.
    """

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    context_length: int
    max_model_len: int
    aliases: list[str]
    state: Literal["unloaded", "loading", "ready", "failed"]
    capabilities: ModelCapabilities
    quantization: str | None
    parameters: int | None
    size: int
    slots: int


class ModelList(msgspec.Struct, frozen=True):
    """All of them, the default first."""

    data: list[ModelObject]
    object: Literal["list"] = "list"


router = APIRouter(route_class=GuardedRoute, tags=["OpenAI"])


@router.get("/v1/models", response_class=Response, responses=answers(ModelList), summary="List the models")
async def list_models(request: Request) -> Response:
    """What is served, loaded or not."""
    return _json(ModelList([described(card) for card in request.app.state.pool.cards()]))


@router.get(
    "/v1/models/{model:path}", response_class=Response, responses=answers(ModelObject), summary="Describe a model"
)
async def describe_model(request: Request, model: str) -> Response:
    """One model, by its name or an alias."""
    return _json(described(request.app.state.pool.card(model)))


def described(card: ModelCard) -> ModelObject:
    """A model as OpenAI's clients and those of other servers want to read of it."""
    can = card.capabilities
    return ModelObject(
        id=card.name,
        created=card.created,
        owned_by=card.owned_by,
        context_length=card.context_length,
        max_model_len=card.context_length,
        aliases=list(card.aliases),
        state=card.state,
        capabilities=ModelCapabilities(can.tools, can.reasoning, can.json),
        quantization=card.quantization,
        parameters=card.parameters,
        size=card.size,
        slots=card.slots,
    )


def _json(content: msgspec.Struct) -> Response:
    return Response(msgspec.json.encode(content), media_type="application/json")
