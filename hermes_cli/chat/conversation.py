"""A conversation as a list of changes: replaying the same changes gives the same conversation.

A session on disk is that list (sessions/format.py), so undoing loses nothing and no line is ever rewritten.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import msgspec

from hermes_cli.errors import UsageError
from hermes_cli.prompting.messages import Message

_EXAMPLE = """a file, or like this: --schema '{"type": "object", "properties": {"name": {"type": "string"}}}'"""
SUMMARY_HEADING = "Summary of the conversation so far:\n"


@dataclass(frozen=True)
class ChatOptions:
    """Options of every turn. Their names are part of the session format."""

    system: str | None = None  # system prompt
    think: bool | None = None  # reason before answering or not; None is the model's default
    think_budget: int | None = None  # most tokens of reasoning; None for no limit
    schema: Mapping[str, Any] | bool | None = None  # of the answer in JSON, or True for any JSON object; None for text
    sampling: Mapping[str, float | int] = field(default_factory=dict)  # those that the user sets, by name
    max_tokens: int | None = None  # most tokens of one turn; None for as many as fit
    stops: tuple[str, ...] = ()  # strings that end an answer
    shift: bool = False  # at the end of the context, drop its older half and go on


def read_schema(text_or_path: str) -> Mapping[str, Any]:
    """Return a JSON schema from a file, or as it was typed; raise UsageError if it is none."""
    typed = text_or_path.lstrip().startswith("{")
    try:
        text = text_or_path if typed else Path(text_or_path).expanduser().read_text(encoding="utf-8")
    except (OSError, RuntimeError, ValueError) as error:  # also no such user, or a name that cannot be
        reason = "it is not text" if isinstance(error, UnicodeDecodeError) else getattr(error, "strerror", None)
        example = (
            """for any JSON object: --schema '{"type": "object"}'""" if text_or_path == "any" else f"give {_EXAMPLE}"
        )
        raise UsageError(f"--schema {text_or_path}: {reason or error}.", hint=example) from None
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        where = "" if typed else f" {text_or_path}"
        raise UsageError(f"--schema{where}: this is not JSON: {error}.", hint=f"give {_EXAMPLE}") from None
    if not isinstance(schema, dict):
        raise UsageError("--schema: a schema is a JSON object.", hint=f"give {_EXAMPLE}")
    return schema


LAST_SECOND = 253_402_300_799  # seconds since 1970 until the end of the year 9999, the last that datetime knows


class TurnUsage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Tokens and measured seconds of one model turn."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    prompt_seconds: float = 0.0
    completion_seconds: float = 0.0
    reasoning_seconds: float = 0.0


# The tags and the names given to `field` are those of the session format, which must not change.
class MessageAdded(msgspec.Struct, frozen=True, tag="said", omit_defaults=True):
    """A message, the time in seconds since 1970, and the model that generated it; `unfinished` if it was stopped."""

    message: Message
    at: Annotated[float, msgspec.Meta(ge=0, le=LAST_SECOND)]
    model: str | None = None
    usage: TurnUsage | None = msgspec.field(default=None, name="spent")
    unfinished: bool = False


class TurnsDropped(msgspec.Struct, frozen=True, tag="dropped"):
    """Removal of the last `count` messages."""

    count: int


class SummaryAdded(msgspec.Struct, frozen=True, tag="compacted"):
    """A summary that replaces the first `count` messages in the prompt."""

    summary: str
    count: int


class SummaryRemoved(msgspec.Struct, frozen=True, tag="expanded"):
    """Removal of the last summary: the messages it replaced are in the prompt again."""


class OptionsChanged(msgspec.Struct, frozen=True, tag="manner"):
    """New options of the conversation."""

    options: ChatOptions = msgspec.field(name="manner")


class TitleChanged(msgspec.Struct, frozen=True, tag="named"):
    """A new title of the conversation."""

    title: str


Change = MessageAdded | TurnsDropped | SummaryAdded | SummaryRemoved | OptionsChanged | TitleChanged


def openai_message(message: Message) -> dict[str, Any]:
    """Return a message in the shape of OpenAI's Chat Completions, without its reasoning."""
    document: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        document["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(call.arguments, ensure_ascii=False)},
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id:
        document["tool_call_id"] = message.tool_call_id
    return document


class Conversation:
    """All messages in order, with times and usage; options as the user set them; a title, which may be empty."""

    def __init__(
        self, options: ChatOptions | None = None, on_change: Callable[[Change], None] = lambda _: None
    ) -> None:
        self.entries: tuple[MessageAdded, ...] = ()
        self.options = options or ChatOptions()
        self.title = ""
        self.on_change = on_change
        self._summaries: tuple[SummaryAdded, ...] = ()

    @classmethod
    def replay(cls, changes: Iterable[Change]) -> Conversation:
        """Return the conversation that the changes make. Impossible ones, as in a damaged file, change nothing."""
        conversation = cls()
        for change in changes:
            conversation._apply(change)
        return conversation

    @property
    def summary(self) -> SummaryAdded | None:
        """Summary that replaces the first messages in the prompt."""
        return self._summaries[-1] if self._summaries else None

    @property
    def messages(self) -> list[Message]:
        """Messages in the prompt, without the system prompt and without those that the summary replaces."""
        covered = self.summary.count if self.summary else 0
        return [entry.message for entry in self.entries[covered:]]

    @property
    def prompt_options(self) -> ChatOptions:
        """Options with the summary appended to the system prompt."""
        if not self.summary:
            return self.options
        parts = (self.options.system, SUMMARY_HEADING + self.summary.summary)
        return replace(self.options, system="\n\n".join(filter(None, parts)))

    @property
    def last_user_index(self) -> int | None:
        """Index of the user's last message in `entries`; None if there is none."""
        return next((at for at in reversed(range(len(self.entries))) if self.entries[at].message.role == "user"), None)

    def add(
        self, message: Message, *, model: str | None = None, usage: TurnUsage | None = None, unfinished: bool = False
    ) -> None:
        """Append a message."""
        self._change(MessageAdded(message, time.time(), model, usage, unfinished))

    def truncate(self, count: int) -> None:
        """Keep the first `count` messages. Summaries of any removed message are removed before them."""
        while self.summary and self.summary.count > count:
            self._change(SummaryRemoved())
        if removed := len(self.entries[count:]):
            self._change(TurnsDropped(removed))

    def compact(self, summary: str, count: int) -> None:
        """Replace the first `count` messages in the prompt by a summary."""
        self._change(SummaryAdded(summary, count))

    def expand(self) -> bool:
        """Remove the last summary; return False if there is none."""
        if not self.summary:
            return False
        self._change(SummaryRemoved())
        return True

    def set_options(self, options: ChatOptions) -> None:
        """Use these options from the next turn on."""
        if options != self.options:
            self._change(OptionsChanged(options))

    def set_title(self, title: str) -> None:
        """Give the conversation a title."""
        self._change(TitleChanged(title))

    def _change(self, change: Change) -> None:
        self._apply(change)
        self.on_change(change)

    def _apply(self, change: Change) -> None:
        if isinstance(change, MessageAdded):
            self.entries = (*self.entries, change)
        elif isinstance(change, TurnsDropped):
            left = max(len(self.entries) - max(change.count, 0), 0)
            self._summaries = tuple(summary for summary in self._summaries if summary.count <= left)
            self.entries = self.entries[:left]
        elif isinstance(change, SummaryAdded):
            if 0 < change.count <= len(self.entries):
                self._summaries = (*self._summaries, change)
        elif isinstance(change, SummaryRemoved):
            self._summaries = self._summaries[:-1]
        elif isinstance(change, OptionsChanged):
            self.options = change.options
        else:
            self.title = change.title
