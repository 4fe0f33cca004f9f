"""How a conversation is shown while it happens. Text of models and tools is data: views never obey what is in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from hermes_cli.generation import Done, ToolCall


def speed(tokens: float, seconds: float) -> str:
    """Tokens per second as they are shown; empty where nothing was timed, or nobody counted."""
    return f"{tokens / seconds:,.1f} tokens/s" if seconds > 0 and tokens > 0 else ""


@dataclass
class TurnResult:
    """One turn of the model, as far as it is there.

    Attributes:
        content, reasoning: what was written.
        calls: those that are whole.
        reasoning_seconds: from its first to its last piece, as measured.
        done: how it ended; None if it did not, or not yet.
    """

    content: str = ""
    reasoning: str = ""
    calls: list[ToolCall] = field(default_factory=list)
    reasoning_seconds: float = 0.0
    done: Done | None = None


@dataclass(frozen=True)
class ToolResult:
    """What came of a call.

    Attributes:
        text: as the model reads it.
        failed: it is not what the tool is for: an error, a refusal, too late.
        cut: characters of the whole result that are left out of `text`.
        seconds: that it took, as measured.
    """

    text: str
    failed: bool = False
    cut: int = 0
    seconds: float = 0.0


class View(Protocol):
    """What shows turns. A turn: `waiting`, then any pieces, then `turn`; calls and results after that."""

    def waiting(self) -> None:
        """The model was asked."""

    def reasoning(self, text: str) -> None:
        """A piece of what it thinks."""

    def content(self, text: str) -> None:
        """A piece of the answer."""

    def calling(self, name: str) -> None:
        """It begins to write a call."""

    def turn(self, answer: TurnResult, *, stopped: bool) -> None:
        """It has ended; `stopped` if by Ctrl-C or an error, before its end. Shows the calls in it, too."""

    def result(self, call: ToolCall, result: ToolResult) -> None:
        """A call was run, or was not."""

    def note(self, message: str) -> None:
        """Something worth knowing."""

    def warn(self, message: str) -> None:
        """Something that must be seen."""
