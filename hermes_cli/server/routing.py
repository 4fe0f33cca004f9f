"""Routes of the server: each asks for a key, reads its parameters, and is described in the OpenAPI document."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from starlette.requests import ClientDisconnect
from starlette.routing import Match, Route

from hermes_cli.server.errors import RefusedError
from hermes_cli.server.security import authenticate

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    import msgspec
    from pydantic import BaseModel
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import Scope

_NO_JSON = "send a JSON object, with the header `Content-Type: application/json`."


@dataclass(frozen=True)
class RouteDescription:
    """Description of a route in the OpenAPI document, beside its endpoint's docstring: summary and description.

    Attributes:
        tag: its heading.
        reply: the type of its reply, or a description by media type.
        stream: the type of the data of its events, which `[DONE]` ends; or text about its named events.
        statuses: replies beside 200 that differ from the errors of all routes.
    """

    tag: str
    reply: type[msgspec.Struct] | dict[str, Any]
    stream: type[msgspec.Struct] | str | None = None
    statuses: Mapping[str, dict[str, Any]] = field(default_factory=dict)


class ApiRoute(Route):
    """A route that is closed while the server stops, and needs a key if the server has any."""

    def __init__(
        self,
        method: str,
        path: str,
        endpoint: Callable[..., Awaitable[Response]],
        description: RouteDescription | None = None,
        *,
        body: type[BaseModel] | None = None,
        query: type[BaseModel] | None = None,
        public: bool = False,
    ) -> None:
        """Make a route.

        Args:
            method: of HTTP.
            path: as Starlette has it.
            endpoint: is called with the request, and with the body or the query if the route has one.
            description: for the OpenAPI document; None leaves it out there.
            body: the type of its JSON body.
            query: the type of its query string.
            public: it needs no key, and answers while the server stops.
        """

        async def handle(request: Request) -> Response:
            if not public:
                request.state.client = authenticate(request)
                request.app.state.traffic.let_in()
            if body:
                return await endpoint(request, await _read_body(request, body))
            if query:
                return await endpoint(request, _validated(query, dict(request.query_params), "query."))
            return await endpoint(request)

        super().__init__(path, handle, methods=[method], name=endpoint.__name__)
        self.methods = {method}  # no HEAD beside GET
        self.description, self.body, self.query, self.public = description, body, query, public
        self.doc = endpoint.__doc__ or ""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match a request; tell the access log which route it was."""
        match, child = super().matches(scope)
        return match, {**child, "route": self} if match is not Match.NONE else child


async def _read_body(request: Request, kind: type[BaseModel]) -> BaseModel:
    """Return the JSON object of a request.

    Raises:
        RefusedError: there is none, or a field is not as it should be.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_json = media_type == "application/json" or (media_type.startswith("application/") and media_type[-5:] == "+json")
    try:
        raw = await request.body()
        # Not pydantic's reader: it refuses halves of surrogate pairs, which clients send.
        value = json.loads(raw) if is_json and raw else None
    except ClientDisconnect:  # nobody reads this reply
        raise RefusedError(400, "the connection was closed before the body was here.", "invalid_json") from None
    except json.JSONDecodeError as error:
        reason = f"the body of the request is no JSON: {error.msg} at {error.pos}."
        raise RefusedError(400, reason, "invalid_json") from None
    except (ValueError, RecursionError):  # no UTF-8, endless digits or depth
        raise RefusedError(400, f"the body of the request cannot be read: {_NO_JSON}", "invalid_json") from None
    if not isinstance(value, dict):
        raise RefusedError(400, f"the body of the request is no JSON object: {_NO_JSON}", "invalid_json")
    return _validated(kind, value)


def _validated(kind: type[BaseModel], value: dict[str, Any], prefix: str = "") -> BaseModel:
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in first["loc"])
    path = prefix + "".join(steps).removeprefix(".")
    reason = str(first["msg"]).removeprefix("Value error, ")
    raise RefusedError(400, f"{path}: {reason[:1].lower()}{reason[1:]}.", "invalid_value", param=path)
