"""The OpenAPI document, made true: errors as they really are, and which routes need a key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from fastapi import FastAPI

from hermes_cli.server.errors import AnthropicErrorBody, ErrorBody, shape_of

if TYPE_CHECKING:
    from collections.abc import Iterator

_REF = "#/components/schemas/{name}"
_MEANS = {
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


_ERRORS = {"openai": ErrorBody, "anthropic": AnthropicErrorBody}


class Described(FastAPI):
    """An application that describes itself as it is."""

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401 - FastAPI's
        super().__init__(**settings)
        self.openapi_version = "3.2.0"  # the first in which events of a stream can be described (`itemSchema`)

    def openapi(self) -> dict[str, Any]:
        """The document; made once."""
        if self.openapi_schema is None:
            self.openapi_schema = _corrected(super().openapi())
        return self.openapi_schema


def _corrected(document: dict[str, Any]) -> dict[str, Any]:
    """FastAPI's document, without the answer to invalid requests that it would give, and with those that are given."""
    _, schemas = msgspec.json.schema_components(_ERRORS.values(), ref_template=_REF)
    parts = document.setdefault("components", {})
    known = parts.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        known.pop(name, None)
    known |= schemas
    parts["securitySchemes"] = _KEYS
    for path, operation in _operations(document):
        body = _ERRORS[shape_of(path)].__name__
        error = {"application/json": {"schema": {"$ref": _REF.format(name=body)}}}
        responses = operation["responses"]
        responses.pop("422", None)
        for status, means in _MEANS.items():
            said = responses.setdefault(status, {"description": means})
            said.setdefault("content", error)
        public = path == "/health"
        operation["security"] = [] if public else [{}, *({name: []} for name in _KEYS)]
    return document


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for operation in methods.values():
            yield path, operation
