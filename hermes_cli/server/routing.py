"""Routes of the server: each asks for a key and reads its parameters; the OpenAPI document describes them."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from pydantic import BaseModel, ValidationError
from pydantic.json_schema import models_json_schema
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

from hermes_cli import large_json
from hermes_cli.server.errors import AnthropicErrorBody, ErrorBody, OllamaErrorBody, RefusedError, shape_of
from hermes_cli.server.request_stats import CURRENT, aside
from hermes_cli.server.security import authenticate
from hermes_cli.server.streaming_reply import unless_client_leaves

_NO_JSON = "send a JSON object, with the header `Content-Type: application/json`."


class ApiRoute(Route):
    """A route that is closed while the server stops, and needs a key if the server has any."""

    def __init__(  # noqa: PLR0913 - a table of routes names what each needs
        self,
        method: str,
        path: str,
        endpoint: Callable[..., Coroutine[object, object, Response]],
        *,
        tag: str = "",  # its heading in the OpenAPI document; empty leaves it out there
        body: type[BaseModel] | None = None,
        query: type[BaseModel] | None = None,
        reply: type[msgspec.Struct] | dict[str, Any] | None = None,  # or a description by media type
        stream: type[msgspec.Struct] | str | None = None,  # data of its events before `[DONE]`; lines; or a text
        unavailable: Mapping[str, Any] | None = None,  # description of status 503, where other routes have another
        any_media_type: bool = False,  # its body is JSON, whatever its header says
        public: bool = False,  # it needs no key, and answers while the server stops
    ) -> None:
        """Make a route. The endpoint is called with the request, and with the body or the query if the route has one.

        Its docstring is its summary and description in the OpenAPI document.
        """

        async def handle(request: Request) -> Response:
            if not public:
                request.state.client = authenticate(request)
                request.app.state.traffic.let_in()
            if body:
                read = await _read_body(request, body, any_media_type=any_media_type)
                return await unless_client_leaves(request.receive, endpoint(request, read))
            if query:
                return await endpoint(request, _validated(query, dict(request.query_params), "query."))
            return await endpoint(request)

        super().__init__(path, handle, methods=[method], name=endpoint.__name__)
        self.methods = {method}  # no HEAD beside GET
        self.tag, self.body, self.query, self.public = tag, body, query, public
        self.reply, self.stream, self.unavailable = reply, stream, unavailable or {}
        self.doc = endpoint.__doc__ or ""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match a request; tell the access log which route it was."""
        match, child = super().matches(scope)
        return match, {**child, "route": self} if match is not Match.NONE else child


async def _read_body(request: Request, kind: type[BaseModel], *, any_media_type: bool) -> BaseModel:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_json = (
        any_media_type
        or media_type == "application/json"
        or (media_type.startswith("application/") and media_type[-5:] == "+json")
    )
    try:
        # Not `request.body`, which joins the parts, and keeps the whole to the end of the request.
        parts = [part async for part in request.stream() if part]
    except ClientDisconnect:  # nobody reads this reply
        raise RefusedError(400, "the connection was closed before the body was here.", "invalid_json") from None
    if stats := CURRENT.get():
        stats.size = sum(map(len, parts))
    return await aside(request.state.client, lambda: _read(kind, parts if is_json else []))


def _read(kind: type[BaseModel], parts: Sequence[bytes]) -> BaseModel:
    try:
        value = large_json.read(*parts) if parts else None
    except json.JSONDecodeError as error:
        reason = f"the body of the request is not JSON: {error.msg} at {error.pos}."
        raise RefusedError(400, reason, "invalid_json") from None
    except large_json.TooManyValuesError:
        raise RefusedError(400, "the body of the request has too many values: send fewer.", "invalid_json") from None
    except (ValueError, RecursionError):  # no UTF-8, endless digits or depth
        raise RefusedError(400, f"the body of the request cannot be read: {_NO_JSON}", "invalid_json") from None
    if not isinstance(value, dict):
        raise RefusedError(400, f"the body of the request is not a JSON object: {_NO_JSON}", "invalid_json")
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


_VERSION = "3.2.0"  # the first in which events of a stream can be described (`itemSchema`)
_REF = "#/components/schemas/{name}"
_TEXT = {"type": "string"}
_ERRORS = {"openai": ErrorBody, "anthropic": AnthropicErrorBody, "ollama": OllamaErrorBody}
_STATUSES = {
    "400": "The request is not as it should be; `param` names the field.",
    "401": "A key is needed, or it is wrong.",
    "403": "The Host or the Origin is not allowed.",
    "404": "There is no such model.",
    "408": "The body did not arrive in time.",
    "413": "The body is too long.",
    "429": "Too many requests are waiting already; see Retry-After.",
    "500": "Something went wrong here.",
    "503": "Loading, stopping, or the engine died; see Retry-After.",
}
_KEYS = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
}


def openapi(routes: Iterable[ApiRoute], title: str, version: str, description: str) -> dict[str, Any]:
    """Return the document of all routes that have a tag."""
    tagged = [route for route in routes if route.tag]
    bodies = dict.fromkeys(route.body for route in tagged if route.body)
    _, requests = models_json_schema(
        [(body, "validation") for body in bodies], ref_template=_REF.replace("name", "model")
    )
    kinds = [kind for route in tagged for kind in (route.reply, route.stream) if isinstance(kind, type)]
    _, replies = msgspec.json.schema_components([*kinds, *_ERRORS.values()], ref_template=_REF)
    paths: dict[str, Any] = {}
    for route in tagged:
        (method,) = route.methods or ("",)
        paths.setdefault(route.path_format, {})[method.lower()] = _operation(route, method.lower())
    return {
        "openapi": _VERSION,
        "info": {"title": title, "version": version, "description": description},
        "paths": paths,
        "components": {"schemas": {**requests.get("$defs", {}), **replies}, "securitySchemes": _KEYS},
    }


def _operation(route: ApiRoute, method: str) -> dict[str, Any]:
    error = _json(_ERRORS[shape_of(route.path)])
    responses: dict[str, Any] = {"200": {"description": "The reply.", "content": _content(route)}}
    responses |= {status: {"description": text, "content": error} for status, text in _STATUSES.items()}
    responses["503"] |= route.unavailable
    query = route.query.model_json_schema()["properties"] if route.query else {}
    parameters = [{"name": name, "in": "path", "required": True, "schema": _TEXT} for name in route.param_convertors]
    parameters += [{"name": name, "in": "query", "required": False, "schema": field} for name, field in query.items()]
    summary, _, text = route.doc.partition("\n\n")
    operation: dict[str, Any] = {
        "tags": [route.tag],
        "summary": summary.removesuffix("."),
        "description": inspect.cleandoc(text),
        "operationId": f"{route.name}_{method}",
        "parameters": parameters,
        "responses": responses,
        "security": [] if route.public else [{}, *({name: []} for name in _KEYS)],
    }
    if route.body:
        operation["requestBody"] = {"content": _json(route.body), "required": True}
    return operation


def _content(route: ApiRoute) -> dict[str, Any]:
    if not isinstance(route.reply, type):
        return route.reply or {}
    content = _json(route.reply)
    if isinstance(route.stream, str):  # named events, whose data repeats the name
        data = _json_text({"type": "object", "properties": {"type": _TEXT}, "required": ["type"]})
        content["text/event-stream"] = {"itemSchema": {**_event(data, event=_TEXT), "description": route.stream}}
    elif route.stream and shape_of(route.path) == "ollama":
        content["application/x-ndjson"] = {"itemSchema": {"anyOf": [_ref(route.stream), _ref(OllamaErrorBody)]}}
    elif route.stream:
        chunk = _json_text({"anyOf": [_ref(route.stream), _ref(ErrorBody)]})
        data = {"anyOf": [{"const": "[DONE]"}, chunk], "description": "`[DONE]` comes last, if nothing went wrong."}
        content["text/event-stream"] = {"itemSchema": _event(data)}
    return content


def _event(data: dict[str, Any], **more: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {"data": data, **more}, "required": ["data", *more]}


def _json_text(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a text that is JSON of a schema."""
    return {"type": "string", "contentMediaType": "application/json", "contentSchema": schema}


def _json(kind: type) -> dict[str, Any]:
    return {"application/json": {"schema": _ref(kind)}}


def _ref(kind: type) -> dict[str, str]:
    return {"$ref": _REF.format(name=kind.__name__)}
