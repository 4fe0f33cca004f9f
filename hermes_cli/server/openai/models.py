"""GET /v1/models and /v1/models/{id}, for Anthropic's clients in Anthropic's shape."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
from msgspec import structs
from starlette.requests import Request
from starlette.responses import Response

from hermes_cli.server.pooled_model import ModelObject
from hermes_cli.server.routing import ApiRoute
from hermes_cli.server.server_tools import SUFFIX
from hermes_cli.server.streaming_reply import json_reply

_ANTHROPIC = "anthropic-version"


class ModelList(msgspec.Struct, frozen=True):
    """All models, the default first."""

    data: list[ModelObject]
    object: Literal["list"] = "list"


async def list_models(request: Request) -> Response:
    """List the models.

    All that are served, loaded or not; in Anthropic's shape if there is a header `anthropic-version`.
    """
    listed = request.app.state.pool.describe_all()
    if request.app.state.server_tools:
        listed += [structs.replace(model, id=model.id + SUFFIX) for model in listed]
    if _ANTHROPIC not in request.headers:
        return json_reply(ModelList(listed))
    data = [_as_anthropic(model) for model in listed]
    return json_reply({"data": data, "has_more": False, "first_id": data[0]["id"], "last_id": data[-1]["id"]})


async def describe_model(request: Request) -> Response:
    """Describe a model.

    By its name or an alias.
    """
    model = request.app.state.pool.describe(request.path_params["model"].removesuffix(SUFFIX))
    return json_reply(_as_anthropic(model) if _ANTHROPIC in request.headers else model)


def _as_anthropic(model: ModelObject) -> dict[str, Any]:
    return {
        "type": "model",
        "id": model.id,
        "display_name": model.id,
        "created_at": datetime.fromtimestamp(model.created, UTC).isoformat(),
        "max_input_tokens": model.context_length,
        "max_tokens": model.context_length,
    }


ROUTES = [
    ApiRoute("GET", "/v1/models", list_models, tag="OpenAI", reply=ModelList),
    ApiRoute("GET", "/v1/models/{model:path}", describe_model, tag="OpenAI", reply=ModelObject),
]
