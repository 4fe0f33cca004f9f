"""Errors as HTTP clients know them: a status, and a body in OpenAI's shape or, where Anthropic's API is spoken, in its.

    UsageError          400    with its field; a prompt that is too long is told in vLLM's words
    NotFoundError       404
    QueueFullError      429    with Retry-After
    NotReadyError,
    DoesNotFitError,
    EngineDiedError     503    with Retry-After: the same request may do later
    all others          500

FastAPI answers requests that do not conform with 422; here they are 400, as with OpenAI.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from hermes_cli.errors import (
    ContextFullError,
    DoesNotFitError,
    EngineDiedError,
    HermesError,
    NotFoundError,
    NotReadyError,
    QueueFullError,
    UsageError,
)
from hermes_cli.prompting.normalize import repaired

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fastapi import Request

RETRY_AFTER = 1  # seconds; the SDKs wait at least half of that, and longer with each try

_LIMIT = 500  # the first status that is the server's fault
# OpenAI's names for what happened (`error.type`), and Anthropic's: docs.anthropic.com/en/api/errors.
_OPENAI = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_ANTHROPIC = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}
_NO_JSON = "send a JSON object, with the header `Content-Type: application/json`."
_OURS = "this is a bug in hermes; the server's log has more."

Shape = Literal["openai", "anthropic"]


class TooLongError(ContextFullError):
    """A prompt that is too long, in words for clients; `field` holds it."""

    def __init__(self, message: str, *, hint: str, field: str) -> None:
        super().__init__(message, hint=hint)
        self.field = field


class ErrorObject(msgspec.Struct, frozen=True):
    """What went wrong. `param` is the path of the field that is to blame."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(msgspec.Struct, frozen=True):
    """The body of every answer that is an error, and the last event of a stream that goes wrong."""

    error: ErrorObject


class AnthropicErrorObject(msgspec.Struct, frozen=True):
    """What went wrong, as Anthropic's clients know it."""

    type: str
    message: str


class AnthropicErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    """The same as `ErrorBody` where Anthropic's API is spoken."""

    type: Literal["error"] = "error"
    error: AnthropicErrorObject


@dataclass(frozen=True)
class Problem:
    """An error on its way to a client.

    Attributes:
        status: of the HTTP answer.
        message: what is wrong and what to do about it.
        param: the path of the field that is to blame.
        code: a short name for programs.
        headers: beside the usual ones.
    """

    status: int
    message: str
    param: str | None = None
    code: str | None = None
    headers: Mapping[str, str] | None = None

    def body(self, shape: Shape = "openai") -> bytes:
        """As JSON."""
        fault = "invalid_request_error" if self.status < _LIMIT else None
        message, param = repaired(self.message), self.param and repaired(self.param)
        if shape == "anthropic":
            kind = _ANTHROPIC.get(self.status, fault or "api_error")
            return msgspec.json.encode(AnthropicErrorBody(error=AnthropicErrorObject(kind, message)))
        kind = _OPENAI.get(self.status, fault or "server_error")
        return msgspec.json.encode(ErrorBody(ErrorObject(message, kind, param, self.code)))

    def response(self, shape: Shape = "openai") -> Response:
        """As an answer of its own."""
        return Response(self.body(shape), self.status, self.headers, media_type="application/json")


def shape_of(path: str) -> Shape:
    """Which API a path belongs to."""
    return "anthropic" if path.startswith("/v1/messages") else "openai"


def problem(error: HermesError) -> Problem:
    """What a client is told of an error."""
    if isinstance(error, ContextFullError):
        told = too_long(error)
        return Problem(400, told.message, getattr(told, "field", None), "context_length_exceeded")
    message = f"{error.message} {error.hint[:1].upper()}{error.hint[1:]}"
    if isinstance(error, UsageError):
        return Problem(400, message, error.field or None, "invalid_value")
    if isinstance(error, NotFoundError):
        return Problem(404, message, "model", "model_not_found")
    retry = {"Retry-After": str(RETRY_AFTER)}
    if isinstance(error, QueueFullError):
        return Problem(429, message, None, "queue_full", retry)
    if isinstance(error, NotReadyError | EngineDiedError | DoesNotFitError):
        code = {NotReadyError: "not_ready", EngineDiedError: "engine_died"}.get(type(error), "out_of_memory")
        return Problem(503, message, None, code, retry)
    return Problem(500, message, None, "internal_error")


def too_long(error: ContextFullError, requested: int = 1, field: str = "messages") -> ContextFullError:
    """The same in vLLM's words, from which Hermes Agent and others read how much room there is.

    Args:
        error: of the engine, or one that was put into these words already.
        requested: tokens that the client wanted to be generated at most.
        field: that holds the prompt.
    """
    prompt, context = error.prompt_tokens, error.context_length
    if prompt is None or context is None or isinstance(error, TooLongError):
        return error
    return TooLongError(
        f"This model's maximum context length is {context} tokens. However, you requested {requested} output tokens "
        f"and your prompt contains at least {prompt} input tokens, for a total of at least {prompt + requested} "
        "tokens. Please reduce the length of the input prompt or the number of requested output tokens.",
        hint=error.hint,
        field=field,
    )


async def on_hermes_error(request: Request, error: Exception) -> Response:
    """For FastAPI: one of our errors."""
    said = error if isinstance(error, HermesError) else HermesError(str(error), hint=_OURS)
    return problem(said).response(shape_of(request.scope["path"]))


async def on_invalid_request(request: Request, error: Exception) -> Response:
    """For FastAPI: the body, or something in the URL, is not as it should be."""
    found = error.errors() if isinstance(error, RequestValidationError) else []
    return _invalid(found).response(shape_of(request.scope["path"]))


async def on_http_error(request: Request, error: Exception) -> Response:
    """For FastAPI: no such route, another method, a body that is no JSON, or what somebody refused."""
    if not isinstance(error, HTTPException):
        return await on_bug(request, error)
    usual = HTTPStatus(error.status_code).phrase
    method, path = request.scope["method"][:20], ascii(request.scope["path"])[1:-1][:200]
    message = error.detail
    if error.detail == usual:
        message = f"{usual}: {method} {path}."
    elif error.status_code == HTTPStatus.BAD_REQUEST and not hasattr(error, "code"):
        message = f"the body of the request cannot be read: {_NO_JSON}"  # FastAPI's own, of bad UTF-8 or endless depth
    code = getattr(error, "code", "invalid_json" if error.status_code == HTTPStatus.BAD_REQUEST else None)
    told = Problem(error.status_code, message, None, code, error.headers)
    return told.response(shape_of(request.scope["path"]))


async def on_bug(request: Request, _: Exception) -> Response:
    """For FastAPI: anything else. Its text is for the log alone: it may hold what nobody is to see."""
    return Problem(500, f"something went wrong; {_OURS}", None, "internal_error").response(
        shape_of(request.scope["path"])
    )


HANDLERS: dict[int | type[Exception], Any] = {
    HermesError: on_hermes_error,
    RequestValidationError: on_invalid_request,
    HTTPException: on_http_error,
    Exception: on_bug,
}
"""For `FastAPI(exception_handlers=…)`."""


def _invalid(found: Sequence[Any]) -> Problem:
    """The first of what pydantic found."""
    first: dict[str, Any] = found[0] if found else {"loc": (), "type": "", "msg": ""}
    where, what = list(first["loc"]), first["type"]
    if what == "json_invalid":
        why = first.get("ctx", {}).get("error", "")
        return Problem(400, f"the body of the request is no JSON: {why} at {where[-1]}.", None, "invalid_json")
    if where == ["body"]:
        return Problem(400, f"the body of the request is no JSON object: {_NO_JSON}", None, "invalid_json")
    path = _path(where[1:] if where[:1] == ["body"] else where)
    said = str(first["msg"]).removeprefix("Value error, ")
    return Problem(400, f"{path}: {said[:1].lower()}{said[1:]}.", path, "invalid_value")


def _path(where: Sequence[str | int]) -> str:
    return "".join(f"[{one}]" if isinstance(one, int) else f".{one}" for one in where).removeprefix(".")
