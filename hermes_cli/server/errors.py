"""Errors as HTTP clients know them: a status, and a body in OpenAI's shape, or that of the route's own API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Literal

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
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

MOST_CHARACTERS = 2000  # of a message
RETRY_AFTER = 1  # seconds; the SDKs wait at least half of that, and longer with each try

# Status and code of errors; the first class that fits counts. After 429 and 503, the same request may succeed later.
_STATUSES: dict[type[HermesError], tuple[int, str]] = {
    ContextFullError: (400, "context_length_exceeded"),
    UsageError: (400, "invalid_value"),
    NotFoundError: (404, "model_not_found"),
    QueueFullError: (429, "queue_full"),
    NotReadyError: (503, "not_ready"),
    EngineDiedError: (503, "engine_died"),
    DoesNotFitError: (503, "out_of_memory"),
    HermesError: (500, "internal_error"),
}
_SERVER_FAULT = 500  # the first status that is the server's fault
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

# The folders in Ollama's `/api`.
_OLLAMA = frozenset(
    {
        *("version", "tags", "ps", "show", "chat", "generate", "embed", "embeddings"),
        *("pull", "push", "create", "copy", "delete", "blobs"),
    }
)

ErrorShape = Literal["openai", "anthropic", "ollama"]


class RefusedError(HTTPException):
    """A request that is answered with an error object and goes no further."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str,
        headers: dict[str, str] | None = None,
        param: str | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(status, message, headers)
        self.problem = Problem(status, message, param, code, headers, details)


class ErrorObject(msgspec.Struct, frozen=True):
    """An error. `param` is the path of the field that is to blame; the numbers, of a prompt that is too long."""

    message: str
    type: str
    param: str | None
    code: str | None
    n_prompt_tokens: int | msgspec.UnsetType = msgspec.UNSET  # as llama.cpp's server names them
    n_ctx: int | msgspec.UnsetType = msgspec.UNSET


class ErrorBody(msgspec.Struct, frozen=True):
    """The body of every reply that is an error, and the last event of a stream that fails."""

    error: ErrorObject


class AnthropicErrorObject(msgspec.Struct, frozen=True):
    """An error in Anthropic's shape."""

    type: str
    message: str
    details: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


class AnthropicErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    """The counterpart of `ErrorBody` in Anthropic's API."""

    type: Literal["error"] = "error"
    error: AnthropicErrorObject


class OllamaErrorBody(msgspec.Struct, frozen=True):
    """The counterpart of `ErrorBody` in Ollama's API."""

    error: str


@dataclass(frozen=True)
class Problem:
    """An error on its way to a client."""

    status: int  # of the HTTP reply
    message: str  # what is wrong and what to do about it
    param: str | None = None  # the path of the field that is to blame
    code: str | None = None  # a short name for programs
    headers: Mapping[str, str] | None = None  # beside the usual ones
    details: dict[str, Any] | None = None  # for programs, in Anthropic's shape
    tokens: tuple[int, int] | None = None  # of a prompt that is too long, and of the context

    def body(self, shape: ErrorShape = "openai") -> bytes:
        """Encode it as JSON."""
        fault = "invalid_request_error" if self.status < _SERVER_FAULT else None
        # Whatever of the request is repeated in it: a reply is not as long as its request.
        message, param = shortened(repaired(self.message)), self.param and shortened(repaired(self.param))
        if shape == "anthropic":
            kind = _ANTHROPIC.get(self.status, fault or "api_error")
            error = AnthropicErrorObject(kind, message, self.details or msgspec.UNSET)
            return msgspec.json.encode(AnthropicErrorBody(error=error))
        if shape == "ollama":
            return msgspec.json.encode(OllamaErrorBody(message))
        kind = _OPENAI.get(self.status, fault or "server_error")
        return msgspec.json.encode(ErrorBody(ErrorObject(message, kind, param, self.code, *(self.tokens or ()))))

    def response(self, shape: ErrorShape = "openai") -> Response:
        """Make a reply of it."""
        return Response(self.body(shape), self.status, self.headers, media_type="application/json")


def shortened(text: str) -> str:
    """Return a text, cut in the middle if it is long."""
    if len(text) <= MOST_CHARACTERS:
        return text
    half = (MOST_CHARACTERS - 3) // 2
    return f"{text[:half]} … {text[-half:]}"


def _is_ollama(path: str) -> bool:
    """Return whether a path is of Ollama's API, spoken here or not."""
    return path.startswith("/api/") and path.split("/")[2] in _OLLAMA


def shape_of(path: str) -> ErrorShape:
    """Return the shape of errors under a path."""
    if _is_ollama(path):
        return "ollama"
    return "anthropic" if "messages" in path.split("/") else "openai"


def problem(
    error: HermesError, shape: ErrorShape = "openai", *, prompt_field: str = "messages", max_tokens: int | None = None
) -> Problem:
    """Translate an error for a client; a prompt that is too long is worded as the API's clients expect.

    Its field is `prompt_field`, and `max_tokens` were to be generated; None is any number.
    """
    status, code = next(answer for kind, answer in _STATUSES.items() if isinstance(error, kind))
    message, param, tokens = f"{error.message} {error.hint[:1].upper()}{error.hint[1:]}", None, None
    if isinstance(error, ContextFullError):
        message, param = _too_long(error, shape, max_tokens), prompt_field
        if error.prompt_tokens is not None and error.context_length is not None:
            tokens = error.prompt_tokens, error.context_length
    elif isinstance(error, UsageError):
        param = error.field or None
    elif isinstance(error, NotFoundError):
        param = "model"
        if shape == "ollama":  # words that its clients look for, before they offer to pull it
            message = f"model not found: {message}"
    headers = {"Retry-After": str(RETRY_AFTER)} if status in (429, 503) else None
    return Problem(status, message, param, code, headers, tokens=tokens)


def _too_long(error: ContextFullError, shape: ErrorShape, max_tokens: int | None) -> str:
    """Word it like Anthropic, as Claude Code expects, or like vLLM, where Hermes Agent reads how much room is left."""
    prompt, context = error.prompt_tokens, error.context_length
    if prompt is None or context is None:
        return error.message
    if shape == "anthropic":
        return f"prompt is too long: {prompt} tokens > {context} maximum"
    output = 1 if max_tokens is None else min(max_tokens, context)
    return (
        f"This model's maximum context length is {context} tokens. However, you requested {output} output tokens and "
        f"your prompt contains at least {prompt} input tokens, for a total of at least {prompt + output} tokens. "
        "Please reduce the length of the input prompt or the number of requested output tokens."
    )


async def on_error(request: Request, error: Exception) -> Response:
    """Answer with an error of ours, of routing, or any other; the text of that is for the log: it may hold secrets."""
    if isinstance(error, HermesError):
        answer = problem(error, shape_of(request.scope["path"]))
    elif isinstance(error, RefusedError):
        answer = error.problem
    elif isinstance(error, HTTPException):
        method, path = request.scope["method"][:20], ascii(request.scope["path"])[1:-1][:200]
        message = f"{HTTPStatus(error.status_code).phrase}: {method} {path}.{_right_address(request)}"
        answer = Problem(error.status_code, message, headers=error.headers)
    else:
        message = "something went wrong; this is a bug in hermes; the server's log has more."
        answer = Problem(500, message, None, "internal_error")
    return answer.response(shape_of(request.scope["path"]))


def _right_address(request: Request) -> str:
    """Return a sentence with the address that was meant, where a base URL has a folder too many, or lacks `/v1`.

    Or with the flag for Ollama's API, where that is meant.
    """
    steps = request.scope["path"][:200].strip("/").split("/")
    known = {route.path for route in request.app.routes if request.method in route.methods}
    for begin in range(len(steps) if steps[0] else 0):
        for folder in ("", "/v1"):
            path = f"{folder}/{'/'.join(steps[begin:])}"
            if path in known:
                # Anthropic's clients write the `/v1` themselves.
                with_v1 = path.startswith("/v1/") and shape_of(path) == "openai"
                base = str(request.base_url).rstrip("/") + ("/v1" if with_v1 else "")
                return f" It is here at {path}: the base URL for this client is {base}"
    if _is_ollama(request.scope["path"]) and not any(route.path == "/api/tags" for route in request.app.routes):
        return " This server speaks Ollama's API only if it is asked to: hermes serve --ollama"
    return ""


HANDLERS: dict[Any, Any] = dict.fromkeys((HermesError, HTTPException, Exception), on_error)
"""For `Starlette(exception_handlers=…)`."""
