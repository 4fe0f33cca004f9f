"""The context window: tokens of each part of the prompt, and compaction of older messages into a summary."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hermes_cli.chat.conversation import ChatOptions, Conversation
from hermes_cli.errors import ContextFullError, HermesError, UsageError
from hermes_cli.generation import Content, Message

if TYPE_CHECKING:
    from hermes_cli.chat.backend import ChatBackend

NEARLY_FULL = 0.8  # share of the context from which on the user is warned
KEPT_QUESTIONS = 2  # the user's last ones stay as they are, with all that followed them
MAX_SUMMARY, MIN_SUMMARY, SUMMARY_SHARE = 1024, 128, 8  # tokens: an eighth of the context, within these limits
INSTRUCTION = (
    "Summarize this conversation so that it can be continued from the summary alone. Keep every fact, name, number, "
    "decision, file and open question that may matter later, and what the user wants and how. Write plain sentences, "
    "no preface."
)
_PARTS = (("user", "your messages"), ("assistant", "answers and calls"), ("tool", "results of tools"))
_AUTHORS = {"user": "User", "assistant": "Assistant", "tool": "Result of a tool", "system": "System"}


async def context_usage(
    backend: ChatBackend, conversation: Conversation, tools: Sequence[dict[str, Any]]
) -> dict[str, int]:
    """Return the tokens of each part of the prompt, without the next message. Their sum is that of the prompt.

    A part has as many tokens as the prompt becomes shorter by without it; the rest is the template's markup. Raise
    UsageError if the backend cannot count.
    """
    messages = conversation.messages or [Message("user", "")]

    async def count(messages: Sequence[Message], tools: Sequence[dict[str, Any]], options: ChatOptions) -> int:
        tokens = await backend.count_tokens(messages, tools, options)
        if tokens is None:
            raise UsageError(
                f"{backend.name} cannot be asked how many tokens a prompt has.",
                hint="the status line shows what the last answer counted.",
            )
        return tokens

    options, with_summary = conversation.options, conversation.prompt_options
    total = await count(messages, tools, with_summary)
    without_tools = await count(messages, (), with_summary) if tools else total
    without_summary = await count(messages, (), options) if conversation.summary else without_tools
    without_system = await count(messages, (), replace(options, system=None)) if options.system else without_summary
    parts = {
        "system prompt": without_summary - without_system,
        "summary": without_tools - without_summary,
        "tools": total - without_tools,
    }
    for role, name in _PARTS:
        blank = [_blank(message) if message.role == role else message for message in messages]
        if blank != messages:
            parts[name] = total - await count(blank, tools, with_summary)
    parts["markup of the template"] = total - sum(parts.values())
    return {name: tokens for name, tokens in parts.items() if tokens}


def _blank(message: Message) -> Message:
    """Return a message without its text. Results need their calls, so those stay, without arguments."""
    calls = tuple(replace(call, arguments={}) for call in message.tool_calls)
    return replace(message, content="", tool_calls=calls, reasoning=None)


def compactable(conversation: Conversation) -> int:
    """Return how many messages a summary can replace, those before the last questions; raise UsageError if none."""
    questions = [at for at, entry in enumerate(conversation.entries) if entry.message.role == "user"]
    replaced = conversation.summary.count if conversation.summary else 0
    if len(questions) <= KEPT_QUESTIONS or questions[-KEPT_QUESTIONS] <= replaced:
        raise UsageError(
            f"there is nothing to sum up yet: the last {KEPT_QUESTIONS} questions stay as they are.",
            hint="go on; /context shows what fills the context.",
        )
    return questions[-KEPT_QUESTIONS]


async def summarize(backend: ChatBackend, conversation: Conversation, count: int) -> str:
    """Have the model summarize the first `count` messages, together with the summary so far.

    What is longer than the context is summarized in parts, each with the summary of those before it. Raise HermesError
    if the model cannot answer, writes nothing, or a single message is longer than its context.
    """
    summary = conversation.summary
    messages = [entry.message for entry in conversation.entries[summary.count if summary else 0 : count]]
    return await _summarize(backend, summary.summary if summary else "", messages)


async def _summarize(backend: ChatBackend, earlier: str, messages: Sequence[Message]) -> str:
    try:
        return await _generate_summary(backend, earlier, messages)
    except ContextFullError:
        if len(messages) == 1:
            raise
    middle = len(messages) // 2
    return await _summarize(backend, await _summarize(backend, earlier, messages[:middle]), messages[middle:])


async def _generate_summary(backend: ChatBackend, earlier: str, messages: Sequence[Message]) -> str:
    parts = [f"Summary of what was before:\n{earlier}"] if earlier else []
    for message in messages:
        calls = [f"(calls {call})" for call in message.tool_calls]
        parts.append(f"{_AUTHORS[message.role]}: " + "\n".join(filter(None, [message.content, *calls])))
    prompt = "\n\n".join([*parts, INSTRUCTION])
    share = (backend.context_length or MAX_SUMMARY * SUMMARY_SHARE) // SUMMARY_SHARE
    options = ChatOptions(
        think=False if backend.supports_reasoning else None, max_tokens=min(max(share, MIN_SUMMARY), MAX_SUMMARY)
    )
    async with aclosing(backend.generate([Message("user", prompt)], (), options)) as events:
        summary = "".join([event.text async for event in events if isinstance(event, Content)]).strip()
    if not summary:
        raise HermesError("the model wrote no summary.", hint="try /compact again, or /undo what is not needed.")
    return summary
