"""GET /v1/models and /v1/models/{id}."""

from __future__ import annotations

from typing import Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from hermes_cli.server.pool import ModelObject
from hermes_cli.server.routing import ApiRoute
from hermes_cli.server.streaming_reply import json_reply


class ModelList(msgspec.Struct, frozen=True):
    """All models, the default first."""

    data: list[ModelObject]
    object: Literal["list"] = "list"


async def list_models(request: Request) -> Response:
    """List the models.

    All that are served, loaded or not.
    """
    return json_reply(ModelList(request.app.state.pool.describe_all()))


async def describe_model(request: Request) -> Response:
    """Describe a model.

    By its name or an alias.
    """
    return json_reply(request.app.state.pool.describe(request.path_params["model"]))


ROUTES = [
    ApiRoute("GET", "/v1/models", list_models, tag="OpenAI", reply=ModelList),
    ApiRoute("GET", "/v1/models/{model:path}", describe_model, tag="OpenAI", reply=ModelObject),
]
