"""Views of turns: the View protocol, and PlainView for a single question, whose answer a pipe may read.

Text of models and tools is data: views never obey control characters in it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from hermes_cli.chat.conversation import ChatOptions
from hermes_cli.chat.word_wrap import WordWrap

if TYPE_CHECKING:
    from hermes_cli.chat.backend import ChatBackend
    from hermes_cli.console import Console
    from hermes_cli.generation import Done, ToolCall
    from hermes_cli.prompting.messages import ToolResult

SHOWN_CHARACTERS = 500  # of a tool's result on the terminal; the model gets more of it


def tokens_per_second(tokens: float, seconds: float) -> str:
    """Return a speed with its unit; an empty string where nothing was counted or timed."""
    return f"{tokens / seconds:,.1f} tokens/s" if seconds > 0 and tokens > 0 else ""


@dataclass
class TurnResult:
    """One turn of the model, as far as it has come."""

    content: str = ""
    reasoning: str = ""
    calls: list[ToolCall] = field(default_factory=list)  # complete tool calls
    reasoning_seconds: float = 0.0  # time between the first and the last piece of reasoning
    done: Done | None = None  # counts and finish reason; None if the turn has not ended


class View(Protocol):
    """Shows turns. The order of calls: `waiting`, then pieces, then `turn`, then the results of its calls."""

    def waiting(self) -> None:
        """The request was sent."""

    def reasoning(self, text: str) -> None:
        """A piece of reasoning."""

    def content(self, text: str) -> None:
        """A piece of the answer."""

    def calling(self, name: str) -> None:
        """The model begins to generate a tool call."""

    def turn(self, turn: TurnResult, *, stopped: bool) -> None:
        """The turn has ended; `stopped` if Ctrl-C or an error ended it. Shows its calls."""

    def result(self, call: ToolCall, result: ToolResult) -> None:
        """A call was run or refused."""


class PlainView:
    """Shows turns as text: the answer on standard output as it comes, all else on standard error.

    A terminal gets it broken between words, unless it is JSON; a pipe gets it as it is.
    """

    def __init__(
        self, console: Console, backend: ChatBackend, options: ChatOptions, *, hide_thinking: bool = False
    ) -> None:
        self._console, self._backend, self._options = console, backend, options
        self._hide_thinking = hide_thinking
        wraps = console.out.isatty() and not options.schema
        self._words = WordWrap(lambda: console.width) if wraps else None

    def waiting(self) -> None:
        """Show nothing."""

    def reasoning(self, text: str) -> None:
        """Show nothing yet: reasoning is shown as a whole, since the answer may be piped away between its pieces."""

    def content(self, text: str) -> None:
        """Show a piece of the answer; the beginning of a word waits for its end."""
        self._console.text(self._words.feed(text) if self._words else text)

    def calling(self, name: str) -> None:
        """Show nothing yet: calls are shown as a whole."""

    def turn(self, turn: TurnResult, *, stopped: bool) -> None:
        """Show calls, reasoning, and why the answer was cut off."""
        console = self._console
        if self._words:
            console.text(self._words.finish())
        console.end_line()
        if stopped:
            return
        for call in turn.calls:
            console.note(f"→ {call}", style="cyan")
        if turn.reasoning and not self._hide_thinking:
            console.note(f"(thought: {turn.reasoning.strip()})")
        if turn.done and turn.done.reason == "length":
            limit, more = f"--max-tokens {self._options.max_tokens}", ""
            if turn.done.context_full:
                size = f" of {self._backend.context_length:,} tokens" if self._backend.context_length else ""
                limit, more = f"the context{size}", "; --context-shift would go on"
            console.warn(f"the answer was cut off: {limit} is used up{more}.")

    def result(self, call: ToolCall, result: ToolResult) -> None:  # noqa: ARG002 - the call was shown
        """Show the beginning of a result."""
        left_out = len(result.text) - SHOWN_CHARACTERS
        more = f" … and {left_out:,} characters more" if left_out > 0 else ""
        self._console.note(f"← {result.text[:SHOWN_CHARACTERS]}{more}", style="red" if result.failed else "green")
