"""The OpenAPI document, made of the routes and the types of their requests and replies."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import msgspec
from pydantic.json_schema import models_json_schema

from hermes_cli.server.errors import AnthropicErrorBody, ErrorBody, shape_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hermes_cli.server.routing import ApiRoute, RouteDescription

_VERSION = "3.2.0"  # the first in which events of a stream can be described (`itemSchema`)
_REF = "#/components/schemas/{name}"
_TEXT = {"type": "string"}
_ERRORS = {"openai": ErrorBody, "anthropic": AnthropicErrorBody}
_STATUSES = {
    "400": "The request is not as it should be; `param` names the field.",
    "401": "A key is needed, or it is wrong.",
    "403": "The Host or the Origin is not allowed.",
    "404": "There is no such model.",
    "408": "The body did not arrive in time.",
    "413": "The body is too long.",
    "429": "Too many requests wait already; see Retry-After.",
    "500": "Something went wrong here.",
    "503": "Loading, stopping, or the engine died; see Retry-After.",
}
_KEYS = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
}


def openapi(routes: Iterable[ApiRoute], title: str, version: str, description: str) -> dict[str, Any]:
    """Return the document of all routes that have a description."""
    described = [(route, route.description) for route in routes if route.description]
    bodies = dict.fromkeys(route.body for route, _ in described if route.body)
    _, requests = models_json_schema(
        [(body, "validation") for body in bodies], ref_template=_REF.replace("name", "model")
    )
    kinds = [kind for _, about in described for kind in (about.reply, about.stream) if isinstance(kind, type)]
    _, replies = msgspec.json.schema_components([*kinds, *_ERRORS.values()], ref_template=_REF)
    paths: dict[str, Any] = {}
    for route, about in described:
        (method,) = route.methods or ("",)
        paths.setdefault(route.path_format, {})[method.lower()] = _operation(route, about, method)
    return {
        "openapi": _VERSION,
        "info": {"title": title, "version": version, "description": description},
        "paths": paths,
        "components": {"schemas": {**requests.get("$defs", {}), **replies}, "securitySchemes": _KEYS},
    }


def _operation(route: ApiRoute, about: RouteDescription, method: str) -> dict[str, Any]:
    error = _json(_ERRORS[shape_of(route.path)])
    responses = {"200": {"description": "The reply.", "content": _content(about)}} | {
        status: {"description": text, "content": error, **about.statuses.get(status, {})}
        for status, text in _STATUSES.items()
    }
    summary, _, text = route.doc.partition("\n\n")
    operation: dict[str, Any] = {
        "tags": [about.tag],
        "summary": summary.removesuffix("."),
        "description": inspect.cleandoc(text),
        "operationId": f"{route.name}_{method.lower()}",
        "parameters": [*_path_parameters(route), *_query_parameters(route)],
        "responses": responses,
        "security": [] if route.public else [{}, *({name: []} for name in _KEYS)],
    }
    if route.body:
        operation["requestBody"] = {"content": _json(route.body), "required": True}
    return operation


def _path_parameters(route: ApiRoute) -> list[dict[str, Any]]:
    return [{"name": name, "in": "path", "required": True, "schema": _TEXT} for name in route.param_convertors]


def _query_parameters(route: ApiRoute) -> list[dict[str, Any]]:
    fields = route.query.model_json_schema()["properties"] if route.query else {}
    return [{"name": name, "in": "query", "required": False, "schema": field} for name, field in fields.items()]


def _content(about: RouteDescription) -> dict[str, Any]:
    if isinstance(about.reply, dict):
        return about.reply
    content = _json(about.reply)
    if isinstance(about.stream, str):  # named events, whose data repeats the name
        data = _json_text({"type": "object", "properties": {"type": _TEXT}, "required": ["type"]})
        content["text/event-stream"] = {"itemSchema": {**_event(data, event=_TEXT), "description": about.stream}}
    elif about.stream:
        chunk = _json_text({"anyOf": [_ref(about.stream), _ref(ErrorBody)]})
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
