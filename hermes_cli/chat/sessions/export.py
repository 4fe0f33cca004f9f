"""A conversation for other eyes and programs: as Markdown, as JSON that speaks OpenAI's language, as lines to read.

All of it is in there, also what a summary stands for and what the model thought; what was taken back is not.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from hermes_cli.chat.sessions.format import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hermes_cli.chat.conversation import Conversation, MessageAdded
    from hermes_cli.generation import ToolCall
    from hermes_cli.prompting.messages import Message

UNFINISHED = "stopped before its end"
_ROLES = {"user": "User", "assistant": "Assistant", "tool": "Result", "system": "System"}


def title_of(conversation: Conversation) -> str:
    """What it is called, or its first question, on one line."""
    asked = (one.message.content for one in conversation.said if one.message.role == "user")
    return one_line(conversation.title or next(asked, None) or "")


def as_document(conversation: Conversation, model: str) -> dict[str, Any]:
    """A conversation in JSON.

    Args:
        conversation: what was said.
        model: that answered last, or that it began with.

    Returns:
        `messages` in the shape of OpenAI's Chat Completions, the system prompt first, to be sent as they are; `model`;
        `created`, the date and time of the first message in ISO 8601; `system`, the system prompt alone; `summary` with
        the `text` that is told to the model for so many first `messages`. The last three are None if there is none.
    """
    system, summary = conversation.manner.system, conversation.summary
    first = [{"role": "system", "content": system}] if system else []
    return {
        "messages": [*first, *(_openai(one.message) for one in conversation.said)],
        "model": model or None,
        "created": moment(conversation.said[0].at) if conversation.said else None,
        "system": system,
        "summary": {"text": summary.summary, "messages": summary.count} if summary else None,
    }


def as_json(conversation: Conversation, model: str) -> str:
    """The same as text."""
    return json.dumps(as_document(conversation, model), ensure_ascii=False, indent=2) + "\n"


def as_markdown(conversation: Conversation, model: str) -> str:
    """A conversation in Markdown; arguments as for `as_document`. Text of models stands there as they wrote it."""
    began = [when(one.at) for one in conversation.said[:1]]
    parts = [f"# {title_of(conversation) or 'Conversation'}", ", ".join(filter(None, (_plain(model), *began)))]
    if conversation.manner.system:
        parts += ["## System", conversation.manner.system]
    for at, one in enumerate(conversation.said, 1):
        parts += _markdown(one)
        if conversation.summary and conversation.summary.count == at:
            parts += [f"## Summary of the first {_messages(at)}", conversation.summary.summary]
    return "\n\n".join(filter(None, (part.strip("\n") for part in parts))) + "\n"


def as_lines(conversation: Conversation) -> Iterator[tuple[str, str]]:
    """A conversation to read on a terminal: lines without their ends, each with a style of Rich's."""
    if conversation.manner.system:
        yield "system", "bold"
        yield from _styled(conversation.manner.system, "")
        yield "", ""
    for at, one in enumerate(conversation.said, 1):
        yield from _lines(one)
        yield "", ""
        if conversation.summary and conversation.summary.count == at:
            yield f"summary of the first {_messages(at)}, which the model reads in place of them", "bold"
            yield from _styled(conversation.summary.summary, "")
            yield "", ""


def moment(seconds: float) -> str:
    """Seconds since 1970 as JSON has them: `2026-11-22T21:15:07Z`."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _openai(message: Message) -> dict[str, Any]:
    said: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.reasoning:
        said["reasoning_content"] = message.reasoning
    if message.tool_calls:
        said["tool_calls"] = [
            {"id": one.id, "type": "function", "function": {"name": one.name, "arguments": _json(one.arguments)}}
            for one in message.tool_calls
        ]
    if message.tool_call_id:
        said["tool_call_id"] = message.tool_call_id
    return said


def _markdown(said: MessageAdded) -> Iterator[str]:
    message = said.message
    who = _plain(said.model or "") if message.role == "assistant" else _plain(message.name or "")
    yield f"## {_ROLES[message.role]}{f' ({who})' if who else ''}"
    if message.reasoning:
        yield "\n".join(f"> {line}".rstrip() for line in message.reasoning.strip().splitlines())
    if message.role == "tool":
        yield _fenced(message.content or "", "")
    elif message.content:
        yield message.content
    for call in message.tool_calls:
        yield f"Calls `{_plain(call.name)}`:"
        yield _fenced(json.dumps(call.arguments, ensure_ascii=False, indent=2), "json")
    if said.unfinished:
        yield f"*({UNFINISHED})*"


def _lines(said: MessageAdded) -> Iterator[tuple[str, str]]:
    message = said.message
    named = message.name if message.role == "tool" else said.model
    yield f"{_ROLES[message.role].lower()}{f' {named}' if named else ''}  {when(said.at)}", "bold"
    if message.reasoning:
        yield from _styled(message.reasoning.strip(), "dim italic")
    if message.content:
        yield from _styled(message.content, "green" if message.role == "tool" else "")
    for call in message.tool_calls:
        yield f"→ {_written(call)}", "cyan"
    if said.unfinished:
        yield f"({UNFINISHED})", "dim"


def _styled(text: str, style: str) -> Iterator[tuple[str, str]]:
    yield from ((line, style) for line in text.strip("\n").split("\n"))


def _written(call: ToolCall) -> str:
    return _plain(str(call))


def _plain(text: str) -> str:
    """Text for the middle of a line."""
    return " ".join(text.split()).replace("`", "'")


def _fenced(text: str, language: str) -> str:
    """A block of code that nothing in the text can end."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip(chr(10))}\n{fence}"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def when(seconds: float) -> str:
    """For people, where they are: `2026-11-22 22:15`."""
    return f"{datetime.fromtimestamp(seconds, UTC).astimezone():%Y-%m-%d %H:%M}"


def _messages(count: int) -> str:
    return "message" if count == 1 else f"{count} messages"
