"""A conversation as what happened in it: every change is an event, and the same events make the same conversation.

So a session on disk is a list of changes (session.py), undoing loses nothing, and nothing is ever rewritten.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import msgspec

from hermes_cli.chat.options import ChatOptions
from hermes_cli.prompting.messages import Message  # noqa: TC001 - msgspec reads it

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

SUMMARY = "Summary of the conversation so far:\n"


class TurnUsage(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an answer took: tokens, and seconds as measured."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    prompt_seconds: float = 0.0
    completion_seconds: float = 0.0
    reasoning_seconds: float = 0.0


class MessageAdded(msgspec.Struct, frozen=True, tag="said", omit_defaults=True):
    """A message was added.

    Attributes:
        message: by the user, the model or a tool.
        at: when, in seconds since 1970.
        model: who wrote it, if a model did.
        spent: what that took.
        unfinished: it was stopped before its end.
    """

    message: Message
    at: float
    model: str | None = None
    spent: TurnUsage | None = None
    unfinished: bool = False


class TurnsDropped(msgspec.Struct, frozen=True, tag="dropped"):
    """The last `count` messages were taken back."""

    count: int


class SummaryAdded(msgspec.Struct, frozen=True, tag="compacted"):
    """The first `count` messages are told to the model as a summary."""

    summary: str
    count: int


class SummaryRemoved(msgspec.Struct, frozen=True, tag="expanded"):
    """The last summary was taken back: the model reads again what it stood for."""


class OptionsChanged(msgspec.Struct, frozen=True, tag="manner"):
    """The model is to go on in another manner."""

    manner: ChatOptions


class TitleChanged(msgspec.Struct, frozen=True, tag="named"):
    """What the conversation is called, in a few words."""

    title: str


Change = MessageAdded | TurnsDropped | SummaryAdded | SummaryRemoved | OptionsChanged | TitleChanged


@dataclass(frozen=True)
class _State:
    said: tuple[MessageAdded, ...] = ()
    summaries: tuple[SummaryAdded, ...] = ()
    manner: ChatOptions = field(default_factory=ChatOptions)
    title: str = ""


class Conversation:
    """What was said, and how it is to go on."""

    def __init__(self, manner: ChatOptions | None = None, keep: Callable[[Change], None] = lambda _: None) -> None:
        """Nothing was said yet.

        Args:
            manner: how it begins.
            keep: is told every change, as it happens.
        """
        self._state = _State(manner=manner or ChatOptions())
        self.keep = keep

    @classmethod
    def of(cls, changes: Iterable[Change]) -> Conversation:
        """What came of changes. Those that make no sense, as only a damaged file has them, change nothing."""
        conversation = cls()
        for change in changes:
            conversation._apply(change)
        return conversation

    @property
    def said(self) -> tuple[MessageAdded, ...]:
        """Every message there is, in order."""
        return self._state.said

    @property
    def manner(self) -> ChatOptions:
        """How the model is to go on."""
        return self._state.manner

    @property
    def title(self) -> str:
        """In a few words; empty if nobody gave it one."""
        return self._state.title

    @property
    def summary(self) -> SummaryAdded | None:
        """What stands for the first messages."""
        return self._state.summaries[-1] if self._state.summaries else None

    @property
    def messages(self) -> list[Message]:
        """What the model reads, but for the system prompt."""
        covered = self.summary.count if self.summary else 0
        return [one.message for one in self.said[covered:]]

    @property
    def told(self) -> ChatOptions:
        """How the model is to go on, the summary in the system prompt."""
        if not self.summary:
            return self.manner
        parts = (self.manner.system, SUMMARY + self.summary.summary)
        return replace(self.manner, system="\n\n".join(filter(None, parts)))

    def say(
        self, message: Message, *, model: str | None = None, spent: TurnUsage | None = None, unfinished: bool = False
    ) -> None:
        """Add a message."""
        self._change(MessageAdded(message, time.time(), model, spent, unfinished))

    def back_to(self, count: int) -> Sequence[MessageAdded]:
        """Keep the first `count` messages; the ones that were taken back. Summaries of any of those go first."""
        while self.summary and self.summary.count > count:
            self._change(SummaryRemoved())
        gone = self.said[count:]
        if gone:
            self._change(TurnsDropped(len(gone)))
        return gone

    @property
    def last_question(self) -> int | None:
        """Where the user's last message is among what was said; None if there is none."""
        return next((at for at in range(len(self.said) - 1, -1, -1) if self.said[at].message.role == "user"), None)

    def compact(self, summary: str, count: int) -> None:
        """Tell the first `count` messages as a summary."""
        self._change(SummaryAdded(summary, count))

    def expand(self) -> bool:
        """Take the last summary back; whether there was one."""
        if there_is := self.summary is not None:
            self._change(SummaryRemoved())
        return there_is

    def behave(self, manner: ChatOptions) -> None:
        """Go on in another manner."""
        if manner != self.manner:
            self._change(OptionsChanged(manner))

    def name(self, title: str) -> None:
        """Call it something."""
        self._change(TitleChanged(title))

    def _change(self, change: Change) -> None:
        self._apply(change)
        self.keep(change)

    def _apply(self, change: Change) -> None:
        state = self._state
        if isinstance(change, MessageAdded):
            self._state = replace(state, said=(*state.said, change))
        elif isinstance(change, TurnsDropped):
            left = max(len(state.said) - max(change.count, 0), 0)
            summaries = tuple(one for one in state.summaries if one.count <= left)
            self._state = replace(state, said=state.said[:left], summaries=summaries)
        elif isinstance(change, SummaryAdded):
            if 0 < change.count <= len(state.said):
                self._state = replace(state, summaries=(*state.summaries, change))
        elif isinstance(change, SummaryRemoved):
            self._state = replace(state, summaries=state.summaries[:-1])
        elif isinstance(change, OptionsChanged):
            self._state = replace(state, manner=change.manner)
        else:
            self._state = replace(state, title=change.title)
