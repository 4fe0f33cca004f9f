"""Older turns told as a summary, which the model writes itself, so that a conversation can go on in its context."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from hermes_cli.chat.options import ChatOptions
from hermes_cli.errors import ContextFullError, HermesError, UsageError
from hermes_cli.generation import Content, Message

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hermes_cli.chat.backend import ChatBackend
    from hermes_cli.chat.conversation import Conversation

KEPT_QUESTIONS = 2  # of the user, the last ones, with all that followed them
LONGEST, SHORTEST, SHARE = 1024, 128, 8  # tokens of a summary: an eighth of the context, within these limits
INSTRUCTION = (
    "Summarize this conversation so that it can be continued from the summary alone. Keep every fact, name, number, "
    "decision, file and open question that may matter later, and what the user wants and how. Write plain sentences, "
    "no preface."
)
_ROLES = {"user": "User", "assistant": "Assistant", "tool": "Result of a tool", "system": "System"}


def covered(conversation: Conversation, kept: int = KEPT_QUESTIONS) -> int:
    """How many messages a summary would stand for: those before the user's last questions.

    Raises:
        UsageError: there are too few for that.
    """
    questions = [at for at, one in enumerate(conversation.said) if one.message.role == "user"]
    before = conversation.summary.count if conversation.summary else 0
    if len(questions) <= kept or questions[-kept] <= before:
        raise UsageError(
            f"there is nothing to sum up yet: the last {kept} questions stay as they are.",
            hint="go on; /context shows what fills the context.",
        )
    return questions[-kept]


async def summarize(partner: ChatBackend, conversation: Conversation, count: int) -> str:
    """A summary of the first messages, together with what was summed up before.

    What is too long to be read at once is summed up in parts, each with the summary of those before it.

    Raises:
        HermesError: the model cannot answer, says nothing, or a single message is longer than its context.
    """
    earlier = conversation.summary
    messages = [one.message for one in conversation.said[earlier.count if earlier else 0 : count]]
    return await _summary(partner, earlier.summary if earlier else "", messages)


async def _summary(partner: ChatBackend, before: str, messages: Sequence[Message]) -> str:
    try:
        return await _ask(partner, before, messages)
    except ContextFullError:
        if len(messages) == 1:
            raise
    middle = len(messages) // 2
    return await _summary(partner, await _summary(partner, before, messages[:middle]), messages[middle:])


async def _ask(partner: ChatBackend, before: str, messages: Sequence[Message]) -> str:
    said = [f"Summary of what was before:\n{before}"] if before else []
    text = "\n\n".join([*said, *map(_told, messages), INSTRUCTION])
    limit = min(max((partner.context or LONGEST * SHARE) // SHARE, SHORTEST), LONGEST)
    manner = ChatOptions(think=False if partner.reasons else None, max_tokens=limit)
    async with aclosing(partner.answer([Message("user", text)], (), manner)) as events:
        parts = [event.text async for event in events if isinstance(event, Content)]
    if not (summary := "".join(parts).strip()):
        raise HermesError("the model wrote no summary.", hint="try /compact again, or /undo what is not needed.")
    return summary


def _told(message: Message) -> str:
    calls = [f"(calls {call})" for call in message.tool_calls]
    return f"{_ROLES[message.role]}: " + "\n".join(filter(None, [message.content, *calls]))
