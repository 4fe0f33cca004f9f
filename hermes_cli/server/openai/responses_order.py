"""Requests to the Responses API as chats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hermes_cli.errors import UsageError
from hermes_cli.prompting.normalize import check
from hermes_cli.server.openai.as_chat import Names, Ordered, ordered
from hermes_cli.server.openai.responses_input import Conversation, items, resolved
from hermes_cli.server.openai.responses_schemas import REFUSED, SAME, ResponseRequest
from hermes_cli.server.openai.schemas import ChatRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from hermes_cli.server.openai.responses_input import Item

LOGPROBS = "message.output_text.logprobs"
_NAMES = {
    "response_format": "text.format",
    "verbosity": "text.verbosity",
    "reasoning_effort": "reasoning.effort",
    "max_completion_tokens": "max_output_tokens",
}
_JSON = ("input", "tools", "tool_choice", "text", "reasoning", "chat_template_kwargs")


@dataclass(frozen=True)
class ResponseOrder:
    """What a request asks for.

    Attributes:
        chat: of a model.
        items: the conversation up to here.
        summary: reasoning is told as its summary.
    """

    chat: Ordered
    items: Sequence[Item]
    summary: bool


async def response_order(
    body: ResponseRequest, client: str, earlier: Sequence[Item], find: Callable[[str], Item | None]
) -> ResponseOrder:
    """What a request asks for.

    Args:
        body: the request.
        client: who asks.
        earlier: items of the conversation that it goes on from.
        find: an item by its id, for those that are only referred to.

    Raises:
        UsageError: a field makes no sense, or cannot be honoured.
    """
    _refuse(body.model_extra or {})
    for name in _JSON:
        check(getattr(body, name), name)
    new = resolved(items(body.input), find)
    conversation = Conversation(body.instructions)
    for item in earlier:
        conversation.add(item, "previous_response_id")
    for index, item in enumerate(new):
        conversation.add(item, f"input[{index}]")
    names = Names({**_NAMES, **conversation.places}, "OpenAI's Responses")
    chat = await ordered(_chat(body, conversation.messages), client, names)
    return ResponseOrder(chat, [*earlier, *new], summary=_summary(body.reasoning or {}))


def _chat(body: ResponseRequest, messages: list[dict[str, Any]]) -> ChatRequest:
    """The same request to Chat Completions. Its fields were checked, with the same types."""
    text, reasoning = body.text or {}, body.reasoning or {}
    logprobs = bool(body.top_logprobs) or LOGPROBS in (body.include or ())
    return ChatRequest.model_construct(
        **{name: getattr(body, name) for name in SAME},
        messages=messages,
        max_completion_tokens=body.max_output_tokens,
        response_format=_object(text, "format", "text"),
        reasoning_effort=_effort(reasoning),
        logprobs=logprobs,
        top_logprobs=body.top_logprobs if logprobs else None,
        **({"verbosity": text["verbosity"]} if text.get("verbosity") is not None else {}),
    )


def _refuse(extra: Mapping[str, Any]) -> None:
    """What would change the result, and is not to be had."""
    for name, (usual, hint) in REFUSED.items():
        if extra.get(name) not in (None, usual):
            raise UsageError("is not supported.", field=name, hint=hint)


def _object(of: Mapping[str, Any], name: str, where: str) -> dict[str, Any] | None:
    value = of.get(name)
    if value is not None and not isinstance(value, dict):
        raise UsageError("must be an object.", field=f"{where}.{name}", hint='write it like this: {"type": "text"}.')
    return value


def _effort(reasoning: Mapping[str, Any]) -> str | None:
    effort = reasoning.get("effort")
    if effort is not None and not isinstance(effort, str):
        raise UsageError("must be a text.", field="reasoning.effort", hint="leave it out for what is usual.")
    return effort


def _summary(reasoning: Mapping[str, Any]) -> bool:
    """Whether a summary is wanted. There is no other than the reasoning itself, which is told as one then."""
    kinds = ("auto", "concise", "detailed")
    for name in ("summary", "generate_summary"):
        wanted = reasoning.get(name)
        if wanted is not None and wanted not in (*kinds, "none"):
            raise UsageError(f"must be one of {', '.join(kinds)}.", field=f"reasoning.{name}", hint="leave it out.")
        if wanted in kinds:
            return True
    return False
