"""What a server says when it does not answer, in the words of this program."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from hermes_cli.errors import ContextFullError, HermesError, NetworkError, NotFoundError, UsageError

if TYPE_CHECKING:
    from hermes_cli.chat.endpoint.address import EndpointAddress

SHOWN = 500  # characters of what a server says
LOADING = re.compile(r"\bloading\b", re.IGNORECASE)

# Tokens of the context, of the prompt, as servers tell them: vLLM and this program's own server, vLLM where
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


@dataclass(frozen=True)
class Told:
    """What came in place of an answer.

    Attributes:
        status: of HTTP, or as an event in a stream tells it; 0 where the connection failed.
        said: what the server says, on one line.
        body: of the answer, if it is a JSON object.
        wait: seconds after which it wants to be asked again.
        location: where it sends clients instead.
        vain: asking again would change nothing.
    """

    status: int
    said: str
    body: dict[str, Any] = field(default_factory=dict)
    wait: float | None = None
    location: str = ""
    vain: bool = False


class EndpointError(Exception):
    """A server did not answer; what to make of that depends on when."""

    def __init__(self, told: Told) -> None:
        super().__init__(told.said)
        self.told = told


def one_line(said: str) -> str:
    """What a server says, fit for a message."""
    return " ".join(said.split())[:SHOWN]


def seconds_to_wait(stated: str | None) -> float | None:
    """What a header Retry-After says: seconds, or a date."""
    if not stated:
        return None
    try:
        return max(float(stated), 0.0)
    except ValueError:
        pass
    try:
        left = parsedate_to_datetime(stated) - datetime.now(UTC)
    except (ValueError, TypeError):  # no date, or one without a zone
        return None
    return max(left.total_seconds(), 0.0)


def said_by(body: object, otherwise: str) -> str:
    """The message in the body of an error, in the shapes that servers give it."""
    if not isinstance(body, dict):
        return str(body) if isinstance(body, str) else otherwise
    error = body.get("error", body)
    if isinstance(error, str):
        return error
    if not isinstance(error, dict):
        return otherwise
    said = error.get("message") or body.get("message") or body.get("detail") or otherwise
    metadata = error.get("metadata")
    behind = metadata.get("raw") if isinstance(metadata, dict) else None  # OpenRouter: what the provider said
    return f"{said} ({behind})" if isinstance(behind, str) and behind else str(said)


def error_of(told: Told, address: EndpointAddress, model: str = "", asked: int | None = None) -> HermesError:
    """The error that a user meets.

    Args:
        told: what the server said.
        address: its address.
        model: that was asked for.
        asked: tokens that the answer may have, if that was said.
    """
    if told.status == 0:
        return _unreached(told, address)
    return _too_long(told, asked) or _by_status(told, address, model)


def broken_off(told: Told, address: EndpointAddress) -> HermesError:
    """The error for an answer that ends too early."""
    return _too_long(told, None) or NetworkError(
        f"{address.host} broke off in the middle of the answer: {told.said}", hint="what came is kept; ask again."
    )


def _by_status(told: Told, address: EndpointAddress, model: str) -> HermesError:
    if told.location:
        return NetworkError(
            f"{address.base} sends clients elsewhere, where nothing is sent unasked.",
            hint=f"if that is right: --endpoint {one_line(told.location)}",
        )
    if told.status == HTTPStatus.FORBIDDEN:
        return UsageError(
            f"{address.host} does not allow this: {told.said}",
            hint=f"check what the key in {address.variable} may do."
            if address.key
            else f"if it wants a key, put it into the environment: export {address.variable}=…",
        )
    if told.status == HTTPStatus.UNAUTHORIZED:
        return _locked(told, address)
    if told.status in {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED}:
        return _not_found(told, address, model)
    if told.status in {HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY}:
        return UsageError(f"{address.host} refuses the request: {told.said}", hint="leave out or change what it names.")
    hints: dict[int, str] = {
        HTTPStatus.PAYMENT_REQUIRED: "add credits to the account, or take a model that costs nothing.",
        HTTPStatus.TOO_MANY_REQUESTS: "try again later.",
    }
    return NetworkError(
        f"{address.host} answers with status {told.status}: {told.said}",
        hint=hints.get(told.status, "try again later; the server's log may have more."),
    )


def _too_long(told: Told, asked: int | None) -> HermesError | None:
    error = told.body.get("error")
    stated = error if isinstance(error, dict) else {}
    if not _TOO_LONG.search(f"{told.said} {stated.get('code')} {stated.get('type')}"):
        return None
    prompt, context = _sizes(told.said, stated)
    if prompt is None or context is None:
        return ContextFullError(f"the conversation is too long for the model: {told.said}", hint=_SHORTER)
    if prompt < context and asked:
        return ContextFullError(
            f"the prompt has {prompt:,} tokens and the answer may have {asked:,}, the context length is {context:,} "
            "tokens.",
            hint=f"ask for at most {context - prompt:,} with --max-tokens.",
            prompt_tokens=prompt,
            context_length=context,
        )
    return ContextFullError(
        f"the prompt has {prompt:,} tokens, the context length is {context:,} tokens.",
        hint=_SHORTER,
        prompt_tokens=prompt,
        context_length=context,
    )


def _sizes(said: str, stated: dict[str, Any]) -> tuple[int | None, int | None]:
    """Tokens of the prompt and of the context."""
    fields = stated.get("n_prompt_tokens"), stated.get("n_ctx")
    if isinstance(fields[0], int) and isinstance(fields[1], int):
        return fields
    if found := _LLAMA_CPP.search(said):
        return _number(found[1]), _number(found[2])
    context = _CONTEXT.search(said)
    prompt = next(filter(None, (pattern.search(said) for pattern in _PROMPTS)), None)
    return prompt and _number(prompt[1]), context and _number(context[1])


def _number(text: str) -> int:
    return int(text.replace(",", ""))


def _unreached(told: Told, address: EndpointAddress) -> HermesError:
    hint = "check the address, and that the server is running."
    if address.guessed and "SSL" in told.said:
        hint = f"if it speaks plain http: --endpoint {address.base.replace('https:', 'http:', 1)}"
    return NetworkError(f"{address.base} cannot be reached: {told.said}.", hint=hint)


def _locked(told: Told, address: EndpointAddress) -> HermesError:
    if address.key is None:
        return UsageError(
            f"{address.host} wants a key: {told.said}", hint=f"put it into the environment: export {address.variable}=…"
        )
    return UsageError(
        f"{address.host} does not accept the key in {address.variable}: {told.said}",
        hint="check that it is whole, still valid, and allowed to use this model.",
    )


def _not_found(told: Told, address: EndpointAddress, model: str) -> HermesError:
    if model and re.search(r"model", told.said, re.IGNORECASE):
        return NotFoundError(f"{address.host} has no model {model}: {told.said}", hint="choose another with -m NAME.")
    return NotFoundError(
        f"there is no OpenAI-compatible API at {address.base}: {told.said}",
        hint="give the address that comes before /chat/completions.",
    )
