"""Failures of an endpoint: what a server sends in place of an answer, and the error that the user gets for it."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from hermes_cli.errors import ContextFullError, HermesError, NetworkError, NotFoundError, UsageError

if TYPE_CHECKING:
    from hermes_cli.chat.endpoint.address import EndpointAddress

SHOWN_CHARACTERS = 500  # of a server's message
_LOADING = re.compile(r"\bloading\b", re.IGNORECASE)

# How servers tell the tokens of the context and of the prompt: vLLM and this program's own server, vLLM where
# `max_tokens` is too large, OpenAI, OpenRouter, llama.cpp (the prompt first), older vLLM.
_CONTEXT = re.compile(r"maximum (?:context|model) length (?:is|of) ([\d,]+)")
_PROMPTS = (
    re.compile(r"prompt contains at least ([\d,]+) input tokens"),
    re.compile(r"request has ([\d,]+) input tokens"),
    re.compile(r"messages resulted in ([\d,]+) tokens"),
    re.compile(r"\(([\d,]+) (?:in the messages|in your prompt|of text input)"),
    re.compile(r"\(length ([\d,]+)\) is longer than"),
    re.compile(r"you requested (?:about )?([\d,]+) tokens"),
)
_LLAMA_CPP = re.compile(r"request \(([\d,]+) tokens\) exceeds the available context size \(([\d,]+)")
_TOO_LONG = re.compile(
    r"maximum (?:context|model) length|exceeds? the available context|context_length_exceeded|exceed_context_size"
)
_SHORTER = "go on with a shorter conversation, or have the server started with a longer context."


class EndpointError(Exception):
    """A failed request; `as_user_error` and `as_broken_answer` turn it into what the user gets.

    Attributes:
        status: HTTP status, or the one in an event of a stream; 0 if the connection failed.
        message: the server's, on one line.
        body: JSON object of the response, or an empty one.
        retry_after: seconds after which the server wants to be asked again.
        location: target of a redirect.
        permanent: asking again would change nothing.
    """

    def __init__(
        self,
        status: int,
        message: str,
        body: dict[str, Any] | None = None,
        *,
        retry_after: float | None = None,
        location: str = "",
        permanent: bool = False,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.body = status, " ".join(message.split())[:SHOWN_CHARACTERS], body or {}
        self.retry_after, self.location, self.permanent = retry_after, location[:SHOWN_CHARACTERS], permanent

    @property
    def is_loading(self) -> bool:
        """Return whether the server says that its model is being loaded."""
        return _LOADING.search(self.message) is not None

    def as_user_error(self, address: EndpointAddress, model: str = "", max_tokens: int | None = None) -> HermesError:
        """Return the error for a request without an answer; `model` and `max_tokens` are those of the request."""
        if self.status == 0:
            hint = "check the address, and that the server is running."
            if address.scheme_guessed and "SSL" in self.message:
                hint = f"if it speaks plain http: --endpoint {address.base.replace('https:', 'http:', 1)}"
            return NetworkError(f"{address.base} cannot be reached: {self.message}.", hint=hint)
        return self._context_full(max_tokens) or self._by_status(address, model)

    def as_broken_answer(self, address: EndpointAddress) -> HermesError:
        """Return the error for an answer that ended too early."""
        return self._context_full(None) or NetworkError(
            f"{address.host} broke off in the middle of the answer: {self.message}",
            hint="what came is kept; ask again.",
        )

    def _by_status(self, address: EndpointAddress, model: str) -> HermesError:
        status, host, message = self.status, address.host, self.message
        export = f"put it into the environment: export {address.variable}=…"
        if self.location:
            return NetworkError(
                f"{address.base} sends clients elsewhere, where nothing is sent unasked.",
                hint=f"if that is right: --endpoint {self.location}",
            )
        if status == HTTPStatus.FORBIDDEN:
            hint = (
                f"check what the key in {address.variable} may do." if address.key else f"if it wants a key, {export}"
            )
            return UsageError(f"{host} does not allow this: {message}", hint=hint)
        if status == HTTPStatus.UNAUTHORIZED:
            text = f"{host} does not accept the key in {address.variable}: {message}"
            hint = "check that it is whole, still valid, and allowed to use this model."
            if address.key is None:
                text, hint = f"{host} wants a key: {message}", export
            return UsageError(text, hint=hint)
        if status in {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED}:
            text = f"there is no OpenAI-compatible API at {address.base}: {message}"
            hint = "give the address that comes before /chat/completions."
            if model and re.search(r"model", message, re.IGNORECASE):
                text, hint = f"{host} has no model {model}: {message}", "choose another with -m NAME."
            return NotFoundError(text, hint=hint)
        if status in {HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY}:
            return UsageError(f"{host} refuses the request: {message}", hint="leave out or change what it names.")
        hints: dict[int, str] = {
            HTTPStatus.PAYMENT_REQUIRED: "add credits to the account, or take a model that costs nothing.",
            HTTPStatus.TOO_MANY_REQUESTS: "try again later.",
        }
        return NetworkError(
            f"{host} answers with status {status}: {message}",
            hint=hints.get(status, "try again later; the server's log may have more."),
        )

    def _context_full(self, max_tokens: int | None) -> HermesError | None:
        error = self.body.get("error")
        fields = error if isinstance(error, dict) else {}
        if not _TOO_LONG.search(f"{self.message} {fields.get('code')} {fields.get('type')}"):
            return None
        prompt, context = _token_counts(self.message, fields)
        if prompt is None or context is None:
            return ContextFullError(f"the conversation is too long for the model: {self.message}", hint=_SHORTER)
        answer, hint = "", _SHORTER
        if prompt < context and max_tokens:
            answer = f" and the answer may have {max_tokens:,}"
            hint = f"ask for at most {context - prompt:,} with --max-tokens."
        return ContextFullError(
            f"the prompt has {prompt:,} tokens{answer}, the context length is {context:,} tokens.",
            hint=hint,
            prompt_tokens=prompt,
            context_length=context,
        )


def _token_counts(message: str, fields: dict[str, Any]) -> tuple[int | None, int | None]:
    """Return the tokens of the prompt and of the context, from an error's fields or from its text."""
    prompt, context = fields.get("n_prompt_tokens"), fields.get("n_ctx")
    if isinstance(prompt, int) and isinstance(context, int):
        return prompt, context
    if match := _LLAMA_CPP.search(message):
        return _number(match[1]), _number(match[2])
    context_match = _CONTEXT.search(message)
    prompt_match = next(filter(None, (pattern.search(message) for pattern in _PROMPTS)), None)
    return prompt_match and _number(prompt_match[1]), context_match and _number(context_match[1])


def _number(text: str) -> int:
    return int(text.replace(",", ""))


def parse_retry_after(header: str | None) -> float | None:
    """Return the seconds of a Retry-After header, which holds seconds or a date."""
    if not header:
        return None
    try:
        return max(float(header), 0.0)
    except ValueError:
        pass
    try:
        remaining = parsedate_to_datetime(header) - datetime.now(UTC)
    except (ValueError, TypeError):  # no date, or one without a zone
        return None
    return max(remaining.total_seconds(), 0.0)


def error_message(body: object, default: str) -> str:
    """Return the message in an error's body, in the shapes that servers give it."""
    if not isinstance(body, dict):
        return body if isinstance(body, str) else default
    error = body.get("error", body)
    if isinstance(error, str):
        return error
    if not isinstance(error, dict):
        return default
    message = error.get("message") or body.get("message") or body.get("detail") or default
    metadata = error.get("metadata")
    cause = metadata.get("raw") if isinstance(metadata, dict) else None  # OpenRouter: the provider's message
    return f"{message} ({cause})" if isinstance(cause, str) and cause else str(message)
