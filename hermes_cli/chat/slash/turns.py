"""Slash commands about the messages: retry, undo, edit, copy, and what they take of the context."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hermes_cli.chat.context_usage import compactable, context_usage, summarize
from hermes_cli.chat.conversation import Conversation
from hermes_cli.chat.slash.command import slash_command
from hermes_cli.chat.terminal.tty import copy_to_clipboard
from hermes_cli.chat.view import tokens_per_second
from hermes_cli.errors import HermesError, UsageError

if TYPE_CHECKING:
    from hermes_cli.chat.repl import ReplContext

UNKNOWN = "not known"
_BAR_WIDTH = 30  # characters for a whole context
_EMPTY = HermesError("nothing was said yet.", hint="type a question.")


@slash_command("/retry", "", "answer the last message again")
def _retry(context: ReplContext, _argument: str) -> None:
    context.agent.retry()


@slash_command("/undo", "", "take the last message back, with its answer")
def _undo(context: ReplContext, _argument: str) -> None:
    line = " ".join(_take_back(context).split())
    context.console.note(f"taken back: {line if len(line) <= 60 else f'{line[:59]}…'}")  # noqa: PLR2004 - of a line of 80


@slash_command("/edit", "", "take the last message back into the line you type")
def _edit(context: ReplContext, _argument: str) -> None:
    context.draft = _take_back(context)


def _take_back(context: ReplContext) -> str:
    """Remove the user's last message with all that followed it; return its text."""
    at = context.conversation.last_user_index
    if at is None:
        raise _EMPTY
    text = context.conversation.entries[at].message.content or ""
    context.conversation.truncate(at)
    return text


@slash_command("/context", "", "what fills the context")
def _context(context: ReplContext, _argument: str) -> None:
    parts = context.event_loop.run(context_usage(context.backend, context.conversation, context.agent.schemas))
    used, length = sum(parts.values()), context.backend.context_length
    rows = [*parts.items(), *([("free", length - used)] if length else [])]
    whole = length or max(used, 1)
    context.console.table(
        ["part", "tokens", "share", ""],
        [
            [name, f"{tokens:,}", f"{tokens / whole:.0%}", "█" * round(_BAR_WIDTH * max(tokens, 0) / whole)]
            for name, tokens in rows
        ],
        right=["tokens", "share"],
        optional=[""],
    )
    size = f" of {length:,}" if length else ""
    context.console.note(f"{used:,}{size} tokens, counted by {context.backend.name}'s own tokenizer")


@slash_command("/compact", "[undo]", "replace older turns by a summary, or undo that", lambda *_: ("undo",))
def _compact(context: ReplContext, argument: str) -> None:
    conversation = context.conversation
    if argument == "undo":
        if not conversation.expand():
            raise UsageError("there is no summary to take back.", hint="/compact writes one.")
        context.console.note("the messages that the summary replaced are in the prompt again")
        return
    if argument:
        raise UsageError(f"/compact takes no argument: {argument[:60]}", hint="type /compact alone.")
    count = compactable(conversation)
    with context.console.working(f"summing up {count:,} messages"):
        summary = context.event_loop.run(summarize(context.backend, conversation, count))
    conversation.compact(summary, count)
    context.print(summary)
    context.console.note(
        f"replaces the first {count:,} messages in the prompt from now on; /compact undo brings them back"
    )


@slash_command("/stats", "", "tokens and speeds of this conversation")
def _stats(context: ReplContext, _argument: str) -> None:
    usages = [entry.usage for entry in context.conversation.entries if entry.usage]
    if not usages:
        raise _EMPTY

    def total(name: str) -> Any:  # noqa: ANN401 - tokens or seconds
        return sum(getattr(usage, name) for usage in usages)

    prompt, cached, completion = total("prompt_tokens"), total("cached_tokens"), total("completion_tokens")
    prefill = tokens_per_second(prompt - cached, total("prompt_seconds"))
    decode = tokens_per_second(completion, total("completion_seconds"))
    rows = [
        ["messages", f"{len(context.conversation.entries):,}"],
        ["turns of the model", f"{len(usages):,}"],
        ["prompt tokens", f"{prompt:,}, {cached:,} of them from the cache"],
        ["completion tokens", f"{completion:,}, {total('reasoning_tokens'):,} of them reasoning"],
        ["prefill, measured", prefill or UNKNOWN],
        ["decode, measured", decode or UNKNOWN],
    ]
    context.console.table(["", ""], rows)


@slash_command("/copy", "", "copy the last answer")
def _copy(context: ReplContext, _argument: str) -> None:
    messages = [entry.message for entry in context.conversation.entries]
    answers = [message.content for message in messages if message.role == "assistant" and message.content]
    if not answers:
        raise _EMPTY
    context.console.note(f"copied {len(answers[-1]):,} characters {copy_to_clipboard(answers[-1])}")


@slash_command("/new", "", "begin another conversation; this one is kept")
def _new(context: ReplContext, _argument: str) -> None:
    conversation = Conversation(context.conversation.options)
    name = context.session.name
    if name and context.conversation.entries:
        context.session.create(conversation, context.backend.name)
        context.console.note(f"saved as {name}; /load {name} goes on with it")
    context.agent.conversation, context.attachments = conversation, []
    context.print()


@slash_command("/bye", "", "leave")
def _bye(context: ReplContext, _argument: str) -> None:
    context.is_over = True
