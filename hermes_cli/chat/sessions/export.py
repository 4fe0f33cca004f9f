"""A conversation for people and programs: as Markdown, as JSON in OpenAI's shape, as styled lines for a terminal.

All messages are there, also those that a summary replaces, and reasoning; what was undone is not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from hermes_cli.chat.conversation import Conversation, MessageAdded, openai_message

if TYPE_CHECKING:
    from hermes_cli.generation import Message

TITLE_CHARACTERS = 80
UNFINISHED = "stopped before its end"
_ROLES = {"user": "User", "assistant": "Assistant", "tool": "Result", "system": "System"}


def title_of(conversation: Conversation) -> str:
    """Return the title or the first question, shortened, on one line."""
    questions = (entry.message.content for entry in conversation.entries if entry.message.role == "user")
    title = conversation.title or next(questions, None) or ""
    line = " ".join(title[: TITLE_CHARACTERS * 10].split())
    return line if len(line) <= TITLE_CHARACTERS else line[: TITLE_CHARACTERS - 1] + "…"


def as_document(conversation: Conversation, model: str) -> dict[str, Any]:
    """Return a conversation in JSON; `model` is the name of the one that answered last.

    Returns:
        `messages` in the shape of OpenAI's Chat Completions, the system prompt first, ready to be sent; `model`;
        `created`, the time of the first message in ISO 8601; `system`, the system prompt; `summary` with its `text` and
        the number of first `messages` that it replaces. The last three are None if there is none.
    """
    system, summary = conversation.options.system, conversation.summary
    first = [{"role": "system", "content": system}] if system else []
    return {
        "messages": [*first, *(_with_reasoning(entry.message) for entry in conversation.entries)],
        "model": model or None,
        "created": iso_time(conversation.entries[0].at) if conversation.entries else None,
        "system": system,
        "summary": {"text": summary.summary, "messages": summary.count} if summary else None,
    }


def as_json(conversation: Conversation, model: str) -> str:
    """Return `as_document` as text."""
    return json.dumps(as_document(conversation, model), ensure_ascii=False, indent=2) + "\n"


def as_markdown(conversation: Conversation, model: str) -> str:
    """Return a conversation in Markdown, with the model's text as it wrote it."""
    began = [local_time(entry.at) for entry in conversation.entries[:1]]
    parts = [f"# {title_of(conversation) or 'Conversation'}", ", ".join(filter(None, (_inline(model), *began)))]
    if conversation.options.system:
        parts += ["## System", conversation.options.system]
    for number, entry in enumerate(conversation.entries, 1):
        parts += _markdown(entry)
        if conversation.summary and conversation.summary.count == number:
            parts += [f"## Summary of the first {_messages(number)}", conversation.summary.summary]
    return "\n\n".join(filter(None, (part.strip("\n") for part in parts))) + "\n"


def as_lines(conversation: Conversation) -> Iterator[tuple[str, str]]:
    """Yield lines without their ends, each with a style of Rich's."""
    if conversation.options.system:
        yield "system", "bold"
        yield from _styled(conversation.options.system, "")
        yield "", ""
    for number, entry in enumerate(conversation.entries, 1):
        yield from _lines(entry)
        yield "", ""
        if conversation.summary and conversation.summary.count == number:
            yield f"summary of the first {_messages(number)}, which the model reads in place of them", "bold"
            yield from _styled(conversation.summary.summary, "")
            yield "", ""


def iso_time(seconds: float) -> str:
    """Return seconds since 1970 in ISO 8601: `2026-11-22T21:15:07Z`."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"


def local_time(seconds: float) -> str:
    """Return seconds since 1970 in the user's time zone: `2026-11-22 22:15`."""
    return f"{datetime.fromtimestamp(seconds, UTC).astimezone():%Y-%m-%d %H:%M}"


def _with_reasoning(message: Message) -> dict[str, Any]:
    document = openai_message(message)
    if not message.reasoning:
        return document
    return {"role": message.role, "content": message.content, "reasoning_content": message.reasoning, **document}


def _markdown(entry: MessageAdded) -> Iterator[str]:
    message = entry.message
    author = _inline((entry.model if message.role == "assistant" else message.name) or "")
    yield f"## {_ROLES[message.role]}{f' ({author})' if author else ''}"
    if message.reasoning:
        yield "\n".join(f"> {line}".rstrip() for line in message.reasoning.strip().splitlines())
    if message.role == "tool":
        yield _fenced(message.content or "", "")
    elif message.content:
        yield message.content
    for call in message.tool_calls:
        yield f"Calls `{_inline(call.name)}`:"
        yield _fenced(json.dumps(call.arguments, ensure_ascii=False, indent=2), "json")
    if entry.unfinished:
        yield f"*({UNFINISHED})*"


def _lines(entry: MessageAdded) -> Iterator[tuple[str, str]]:
    message = entry.message
    author = message.name if message.role == "tool" else entry.model
    yield f"{_ROLES[message.role].lower()}{f' {author}' if author else ''}  {local_time(entry.at)}", "bold"
    if message.reasoning:
        yield from _styled(message.reasoning.strip(), "dim italic")
    if message.content:
        yield from _styled(message.content, "green" if message.role == "tool" else "")
    for call in message.tool_calls:
        yield f"→ {_inline(str(call))}", "cyan"
    if entry.unfinished:
        yield f"({UNFINISHED})", "dim"


def _styled(text: str, style: str) -> Iterator[tuple[str, str]]:
    yield from ((line, style) for line in text.strip("\n").split("\n"))


def _inline(text: str) -> str:
    """Return text for the middle of a line of Markdown."""
    return " ".join(text.split()).replace("`", "'")


def _fenced(text: str, language: str) -> str:
    """Return a code block whose fence is longer than any in the text."""
    longest = max(map(len, re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip(chr(10))}\n{fence}"


def _messages(count: int) -> str:
    return "message" if count == 1 else f"{count} messages"
