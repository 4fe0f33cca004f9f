"""What fills the context: tokens of each part of the prompt, counted by whoever answers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hermes_cli.errors import UsageError
from hermes_cli.generation import Message

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from hermes_cli.chat.backend import ChatBackend
    from hermes_cli.chat.conversation import Conversation

FULL = 0.8  # of the context, from which on it is worth saying
_ROLES = (("user", "your messages"), ("assistant", "answers and calls"), ("tool", "results of tools"))
_NOBODY = Message("user", "")


@dataclass(frozen=True)
class PromptPart:
    """A part of the prompt, in tokens."""

    name: str
    tokens: int


@dataclass(frozen=True)
class ContextUsage:
    """All of a prompt, in tokens; `room` is the context, where it is known."""

    parts: tuple[PromptPart, ...]
    total: int
    room: int | None


async def composition(
    partner: ChatBackend, conversation: Conversation, tools: Sequence[dict[str, Any]]
) -> ContextUsage:
    """What the next prompt would consist of, without the next message.

    Each part is what the prompt becomes shorter by without it; what is left is the template's markup.

    Raises:
        UsageError: whoever answers cannot count.
        HermesError: the template refuses it, or the engine failed.
    """
    messages = conversation.messages or [_NOBODY]

    async def count(
        messages: Sequence[Message], tools: Sequence[dict[str, Any]], *, summary: bool, system: bool
    ) -> int:
        manner = conversation.told if summary else conversation.manner
        counted = await partner.count(messages, tools, manner if system else replace(manner, system=None))
        if counted is None:
            raise UsageError(
                f"{partner.name} cannot be asked how many tokens a prompt has.",
                hint="the status line shows what the last answer counted.",
            )
        return counted

    total = await count(messages, tools, summary=True, system=True)
    without_tools = await count(messages, (), summary=True, system=True) if tools else total
    without_summary = await count(messages, (), summary=False, system=True) if conversation.summary else without_tools
    without_system = (
        await count(messages, (), summary=False, system=False) if conversation.manner.system else without_summary
    )
    parts = [
        PromptPart("system prompt", without_summary - without_system),
        PromptPart("summary", without_tools - without_summary),
        PromptPart("tools", total - without_tools),
    ]
    for role, name in _ROLES:
        blank = [_blank(one) if one.role == role else one for one in messages]
        if blank != messages:
            parts.append(PromptPart(name, total - await count(blank, tools, summary=True, system=True)))
    parts.append(PromptPart("markup of the template", total - sum(part.tokens for part in parts)))
    return ContextUsage(tuple(part for part in parts if part.tokens), total, partner.context)


def _blank(message: Message) -> Message:
    """Without what was said in it; results need their calls, so those stay, with nothing in them."""
    calls = tuple(replace(call, arguments={}, written=None) for call in message.tool_calls)
    return replace(message, content="", tool_calls=calls, reasoning=None)
