"""A conversation as it is seen on a terminal: what the model thinks and says, as it comes, and what its calls lead to.

waiting ──► thinking ──► saying ──► calling ──► turn (why it ended, and what it took) ──► results
spinner     dim, then    Markdown   names, then calls as a whole
            one line
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from rich.console import Console as RichConsole
from rich.text import Text

from hermes_cli.chat.terminal.live import LiveRegion
from hermes_cli.chat.terminal.thoughts import STYLE, ReasoningText, folded, rows_of
from hermes_cli.chat.terminal.tty import TerminalEcho
from hermes_cli.chat.tools.consent import shown
from hermes_cli.chat.view import speed
from hermes_cli.console import CONTROL

if TYPE_CHECKING:
    from rich.live import Live

    from hermes_cli.chat.conversation import Conversation, MessageAdded
    from hermes_cli.chat.terminal.markdown import MarkdownStream
    from hermes_cli.chat.view import ToolResult, TurnResult
    from hermes_cli.console import Console
    from hermes_cli.generation import Done, ToolCall

SHOWN_CHARACTERS = 500  # of a tool's result
SHOWN_LINES = 15  # of the same
RECALLED = 6  # messages of a conversation that goes on
RECALLED_CHARACTERS = 2_000  # of what the user said in each
REDRAWS = 15  # a second: more is not seen
PATIENCE = 10  # times what drawing took: so it never takes more than a tenth of the time


class TerminalView:
    """Shows turns on a terminal, as `View` says."""

    def __init__(self, console: Console, *, hide_thinking: bool = False) -> None:
        """Nothing is shown yet.

        Args:
            console: whose standard output it is shown on; tells notes and warnings.
            hide_thinking: of reasoning, show only how long it took.
        """
        self._console, self._hide_thinking = console, hide_thinking
        off = console.color is False or (console.color is None and bool(os.environ.get("NO_COLOR")))
        self._rich = RichConsole(
            file=console.out, no_color=off, force_terminal=console.color or None, highlight=False, markup=False
        )
        self._painter = LiveRegion(self._rich, console.out)
        self._echo = TerminalEcho()
        self._spinner: Live | None = None
        self._part: ReasoningText | MarkdownStream | None = None
        self._names: list[str] = []
        self._asked = self._first = self._thinking_since = self._thought_at = 0.0
        self._next_redraw = 0.0
        self.last_reasoning = ""

    def waiting(self) -> None:
        """A spinner, with the seconds since the model was asked."""
        self._echo.off()
        self._names = []
        self._asked, self._first = time.monotonic(), 0.0
        self._spin("")

    def reasoning(self, text: str) -> None:
        """Dim, as it comes."""
        now = self._came()
        if not isinstance(self._part, ReasoningText):
            self._close()
            self._part, self._thinking_since = ReasoningText(), now
            if self._hide_thinking:
                self._spin("thinking ")
        self._thought_at = now
        self._part.feed(text)
        if not self._hide_thinking:
            self._redraw()

    def content(self, text: str) -> None:
        """As Markdown; blocks that are whole for good, the one being written drawn again."""
        self._came()
        if self._part is None or isinstance(self._part, ReasoningText):
            if not text.strip():
                return
            from hermes_cli.chat.terminal.markdown import MarkdownStream  # noqa: PLC0415 - parser and lexers, which a prompt need not wait for

            self._close()
            self._part = MarkdownStream(self._rich)
        self._part.feed(text)
        self._redraw()

    def calling(self, name: str) -> None:
        """The name, while arguments are written."""
        self._came()
        self._close()
        self._names.append(name)
        self._painter.paint([], [_call(f"{one}(…)") for one in self._names])

    def turn(self, answer: TurnResult, *, stopped: bool) -> None:
        """The calls as a whole, why it ended if not by itself, and what it took."""
        self._close()
        lines = [_call(shown(call)) for call in answer.calls]
        if stopped and (answer.content or answer.reasoning or self._names):
            left = [_call(f"{name}(… not finished, so not run)") for name in self._names[len(answer.calls) :]]
            lines += [*left, Text("stopped before its end", "yellow")]
        elif answer.done:
            lines += self._ended(answer.done, calls=bool(answer.calls))
        self._painter.paint(lines)
        self.last_reasoning = answer.reasoning.strip() or self.last_reasoning
        self._echo.on()

    def result(self, call: ToolCall, result: ToolResult) -> None:
        """The beginning of it, how much more there is, and the seconds it took."""
        self._painter.paint([_result(call.name, result.text, result.cut, result.seconds, failed=result.failed)])

    def note(self, message: str) -> None:
        """As the console does, below what is there."""
        self._close()
        self._console.note(message)

    def warn(self, message: str) -> None:
        """As the console does, below what is there."""
        self._close()
        self._console.warn(message)

    def show_reasoning(self) -> None:
        """What the model thought last, as a whole."""
        if not self.last_reasoning:
            self._console.note("there was no reasoning yet")
            return
        text = self.last_reasoning.translate(CONTROL).expandtabs(4)
        self._painter.paint([Text(row.rstrip(), STYLE) for row in rows_of(text, self._painter.width)])

    def history(self, conversation: Conversation) -> None:
        """The last messages of a conversation that goes on, as they were seen."""
        said = conversation.said
        if len(said) > RECALLED:
            self._painter.paint([Text(f"… {len(said) - RECALLED:,} earlier messages", "dim")])
        for one in said[-RECALLED:]:
            self._recall(one)

    def _recall(self, one: MessageAdded) -> None:
        message, lines = one.message, []
        text = message.content or ""
        if message.role == "user":
            lines = [Text(), Text(f"> {_beginning(text, RECALLED_CHARACTERS)}", "bold")]
        elif message.role == "tool":
            lines = [_result(message.name or "", text, 0, 0.0, failed=False)]
        elif message.role == "assistant":
            if message.reasoning:
                spent = one.spent
                lines.append(folded(spent.reasoning_seconds if spent else 0.0, spent.reasoning_tokens if spent else 0))
                self.last_reasoning = message.reasoning.strip()
            lines += self._as_markdown(text)
            lines += [_call(shown(call)) for call in message.tool_calls]
            lines += [Text("stopped before its end", "yellow")] if one.unfinished else []
        self._painter.paint(lines)

    def _as_markdown(self, text: str) -> list[Text]:
        from hermes_cli.chat.terminal.markdown import MarkdownStream  # noqa: PLC0415 - as in `content`

        markdown = MarkdownStream(self._rich)
        markdown.feed(text)
        return markdown.finish(self._painter.width)

    def _came(self) -> float:
        """Something came: nothing is waited for any more. When that was."""
        now = time.monotonic()
        self._first = self._first or now
        if not (self._hide_thinking and isinstance(self._part, ReasoningText)):
            self._still()
        return now

    def _redraw(self) -> None:
        """Draw what is being written, but not more often than is seen, or than can be afforded."""
        start = time.monotonic()
        if self._part is None or start < self._next_redraw:
            return
        painter = self._painter
        painter.paint(*self._part.lines(painter.width, painter.height))
        took = time.monotonic() - start
        self._next_redraw = start + max(1 / REDRAWS, PATIENCE * took)

    def _close(self) -> None:
        """What is being written is whole, and is shown for good."""
        self._still()
        part, self._part = self._part, None
        self._next_redraw = 0.0
        painter = self._painter
        if isinstance(part, ReasoningText):
            gone, left = part.lines(painter.width, painter.height)
            folds = self._hide_thinking or (painter.moves and not part.overflowed)
            line = folded(self._thought_at - self._thinking_since)
            painter.paint([line] if folds else [*gone, *left, line])
        elif part is not None:
            painter.paint(part.finish(painter.width))

    def _ended(self, done: Done, *, calls: bool) -> list[Text]:
        """Why the model went no further, and what it took."""
        lines = []
        if done.context_full:
            lines.append(Text("cut off: the context is full; /compact sums up older turns", "yellow"))
        elif done.reason == "length":
            text = f"cut off: the most tokens of an answer (max_tokens) are used up, {done.completion_tokens:,}"
            lines.append(Text(text, "yellow"))
        if not calls:
            lines.append(Text(self._took(done), "dim"))
        return lines

    def _took(self, done: Done) -> str:
        parts = [f"{done.completion_tokens:,} tokens"]
        if done.reasoning_tokens:
            parts[0] += f", {done.reasoning_tokens:,} of them thought"
        if rate := speed(done.completion_tokens, done.completion_seconds):
            parts.append(rate)
        if self._first and self._asked:
            parts.append(f"first token {self._first - self._asked:.2f} s")
        return f"{' · '.join(parts)} (measured)"

    def _spin(self, label: str) -> None:
        self._still()
        if not self._painter.moves:
            return
        from rich.live import Live  # noqa: PLC0415 - a thread for what moves while nothing comes

        from hermes_cli.chat.terminal.waiting import WaitSpinner  # noqa: PLC0415

        self._spinner = Live(
            WaitSpinner(label), console=self._rich, transient=True, redirect_stdout=False, redirect_stderr=False
        )
        self._spinner.start(refresh=True)

    def _still(self) -> None:
        spinner, self._spinner = self._spinner, None
        if spinner:
            with suppress(OSError):  # the terminal went away
                spinner.stop()


def _call(text: str) -> Text:
    return Text(f"→ {text}".translate(CONTROL), "cyan")


def _result(name: str, text: str, cut: int, seconds: float, *, failed: bool) -> Text:
    taken = f", {seconds:.1f} s" if seconds else ""
    beginning = _beginning(text, SHOWN_CHARACTERS, SHOWN_LINES, cut)
    return Text(f"← {name}{taken}: ".translate(CONTROL) + beginning, "red" if failed else "green")


def _beginning(text: str, characters: int, lines: int | None = None, cut: int = 0) -> str:
    """The beginning of a text, lines after the first one set in, and how many characters are left out."""
    beginning = text[:characters]
    if lines is not None:
        beginning = "\n".join(beginning.split("\n")[:lines])
    left_out = len(text) - len(beginning) + cut
    more = f" … and {left_out:,} characters more" if left_out else ""
    return beginning.translate(CONTROL).rstrip("\n").replace("\n", "\n  ") + more
