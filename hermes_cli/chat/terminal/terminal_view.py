"""Shows turns on a terminal as they come.

waiting ──► reasoning ──► content ──► calls ──► turn (finish reason and speed) ──► results
spinner     dim, folded   Markdown    names, then whole calls
            when over
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from rich.console import Console as RichConsole
from rich.spinner import Spinner
from rich.style import Style
from rich.text import Text

from hermes_cli.chat.conversation import Conversation, MessageAdded, TurnUsage
from hermes_cli.chat.terminal.tty import LiveRegion
from hermes_cli.chat.view import SHOWN_CHARACTERS, TurnResult, tokens_per_second
from hermes_cli.console import CONTROL, Console, warning_style
from hermes_cli.prompting.messages import ToolResult
from hermes_cli.tools.toolbox import printable

if TYPE_CHECKING:
    from rich.live import Live

    from hermes_cli.chat.terminal.markdown import MarkdownStream
    from hermes_cli.generation import Done, ToolCall

SHOWN_LINES = 15  # of a tool's result
HISTORY_MESSAGES, HISTORY_CHARACTERS = 6, 2_000  # of a resumed conversation; characters of each of the user's
REASONING_STYLE = Style(dim=True, italic=True)
REDRAWS_PER_SECOND = 15
REDRAW_COST = 10  # a redraw waits this many times its duration, so that it takes at most a tenth of the time


class TerminalView:
    """A `View` on a terminal; with `hide_thinking` only the duration of reasoning is shown."""

    def __init__(self, console: Console, *, hide_thinking: bool = False) -> None:
        self._console, self._hide_thinking = console, hide_thinking
        no_color = console.color is False or (console.color is None and bool(os.environ.get("NO_COLOR")))
        self._rich = RichConsole(
            file=console.out, no_color=no_color, force_terminal=console.color or None, highlight=False, markup=False
        )
        self._region = LiveRegion(self._rich, console.out)
        self._spinner: Live | None = None
        self._part: _ReasoningText | MarkdownStream | None = None
        self._call_names: list[str] = []
        self._asked_at = self._first_at = self._thinking_since = self._thought_at = 0.0
        self._next_redraw = 0.0
        self._last_reasoning = ""

    def waiting(self) -> None:
        """Show a spinner with seconds."""
        self._call_names = []
        self._asked_at, self._first_at = time.monotonic(), 0.0
        self._start_spinner("")

    def reasoning(self, text: str) -> None:
        """Show a piece of reasoning, dim."""
        now = self._received()
        if not isinstance(self._part, _ReasoningText):
            self._finish_part()
            self._part, self._thinking_since = _ReasoningText(self._rich), now
            if self._hide_thinking:
                self._start_spinner("thinking ")
        self._thought_at = now
        self._part.feed(text)
        if not self._hide_thinking:
            self._redraw()

    def content(self, text: str) -> None:
        """Show a piece of the answer as Markdown."""
        self._received()
        if self._part is None or isinstance(self._part, _ReasoningText):
            if not text.strip():
                return
            self._finish_part()
            self._part = self._new_markdown()
        self._part.feed(text)
        self._redraw()

    def calling(self, name: str) -> None:
        """Show the name of a call while its arguments are generated."""
        self._received()
        self._finish_part()
        self._call_names.append(name)
        self._region.paint([], [_call_line(f"{name}(…)") for name in self._call_names])

    def turn(self, turn: TurnResult, *, stopped: bool) -> None:
        """Show whole calls, the finish reason if it is not a plain end, and the speed."""
        self._finish_part()
        lines = [_call_line(printable(call)) for call in turn.calls]
        if stopped and (turn.content or turn.reasoning or self._call_names):
            unfinished = self._call_names[len(turn.calls) :]
            lines += [_call_line(f"{name}(… not finished, so not run)") for name in unfinished]
            lines.append(Text("stopped before its end", warning_style()))
        elif turn.done:
            lines += self._ending(turn.done, has_calls=bool(turn.calls))
        self._region.paint(lines)
        self._last_reasoning = turn.reasoning.strip() or self._last_reasoning

    def result(self, call: ToolCall, result: ToolResult) -> None:
        """Show the beginning of a result, how much is left out, and its seconds."""
        self._region.paint([_result_line(call.name, result)])

    def show_reasoning(self) -> None:
        """Show the last reasoning in full."""
        if not self._last_reasoning:
            self._console.note("there was no reasoning yet")
            return
        text = self._last_reasoning.translate(CONTROL)
        self._region.paint(_wrapped_reasoning(text, self._rich, self._region.width))

    def history(self, conversation: Conversation) -> None:
        """Show the last messages of a resumed conversation."""
        entries = conversation.entries
        if len(entries) > HISTORY_MESSAGES:
            self._region.paint([Text(f"… {len(entries) - HISTORY_MESSAGES:,} earlier messages", "dim")])
        for entry in entries[-HISTORY_MESSAGES:]:
            self._region.paint(self._entry_lines(entry))

    def _entry_lines(self, entry: MessageAdded) -> list[Text]:
        message, usage = entry.message, entry.usage or TurnUsage()
        text = message.content or ""
        if message.role == "user":
            return [Text(), Text(f"> {_beginning(text, HISTORY_CHARACTERS)}", "bold")]
        if message.role == "tool":
            return [_result_line(message.name or "", ToolResult(text))]
        lines: list[Text] = []
        if message.reasoning:
            lines.append(_folded_reasoning(usage.reasoning_seconds, usage.reasoning_tokens))
            self._last_reasoning = message.reasoning.strip()
        markdown = self._new_markdown()
        markdown.feed(text)
        lines += [*markdown.finish(self._region.width), *(_call_line(printable(call)) for call in message.tool_calls)]
        return [*lines, Text("stopped before its end", warning_style())] if entry.unfinished else lines

    def _new_markdown(self) -> MarkdownStream:
        from hermes_cli.chat.terminal.markdown import MarkdownStream  # noqa: PLC0415 - parser and lexers: 0.1 s

        return MarkdownStream(self._rich)

    def _received(self) -> float:
        """Stop the spinner, as something came; return the time."""
        now = time.monotonic()
        self._first_at = self._first_at or now
        if not (self._hide_thinking and isinstance(self._part, _ReasoningText)):
            self._stop_spinner()
        return now

    def _redraw(self) -> None:
        """Draw the open part, but not more often than is seen, or than can be afforded."""
        start = time.monotonic()
        if self._part is None or start < self._next_redraw:
            return
        region = self._region
        region.paint(*self._part.lines(region.width, region.height))
        duration = time.monotonic() - start
        self._next_redraw = start + max(1 / REDRAWS_PER_SECOND, REDRAW_COST * duration)

    def _finish_part(self) -> None:
        """Print the open part for good."""
        self._stop_spinner()
        part, self._part = self._part, None
        self._next_redraw = 0.0
        region = self._region
        if isinstance(part, _ReasoningText):
            leaving, left = part.lines(region.width, region.height)
            is_folded = self._hide_thinking or (region.can_redraw and not part.overflowed)
            line = _folded_reasoning(self._thought_at - self._thinking_since)
            region.paint([line] if is_folded else [*leaving, *left, line])
        elif part is not None:
            region.paint(part.finish(region.width))

    def _ending(self, done: Done, *, has_calls: bool) -> list[Text]:
        lines = []
        if done.context_full:
            lines.append(Text("cut off: the context is full; /compact sums up older turns", warning_style()))
        elif done.reason == "length":
            text = f"cut off: the most tokens of an answer (max_tokens) are used up, {done.completion_tokens:,}"
            lines.append(Text(text, warning_style()))
        if not has_calls:
            parts = [f"{done.completion_tokens:,} tokens"]
            if done.reasoning_tokens:
                parts[0] += f", {done.reasoning_tokens:,} of them reasoning"
            if speed := tokens_per_second(done.completion_tokens, done.completion_seconds):
                parts.append(speed)
            if self._first_at and self._asked_at:
                parts.append(f"first token {self._first_at - self._asked_at:.2f} s")
            lines.append(Text(f"{' · '.join(parts)} (measured)", "dim"))
        return lines

    def _start_spinner(self, label: str) -> None:
        self._stop_spinner()
        if not self._region.can_redraw:
            return
        from rich.live import Live  # noqa: PLC0415 - with a thread, only where something moves

        since, spinner = time.monotonic(), Spinner("dots", style="dim")

        def frame() -> Spinner:
            spinner.update(text=Text(f"{label}{time.monotonic() - since:.0f} s", "dim"))
            return spinner

        self._spinner = Live(
            get_renderable=frame, console=self._rich, transient=True, redirect_stdout=False, redirect_stderr=False
        )
        self._spinner.start(refresh=True)

    def _stop_spinner(self) -> None:
        spinner, self._spinner = self._spinner, None
        if spinner:
            with suppress(OSError):  # the terminal went away
                spinner.stop()


class _ReasoningText:
    """Reasoning as it is generated: plain, dim. Once it fills the screen, its complete lines are final."""

    def __init__(self, console: RichConsole) -> None:
        self._console = console
        self._text = ""  # of the lines that can be redrawn
        self._pieces: list[str] = []
        self.overflowed = False

    def feed(self, piece: str) -> None:
        self._pieces.append(piece.translate(CONTROL))

    def lines(self, width: int, height: int) -> tuple[list[Text], list[Text]]:
        """Return new final lines, and those of the rest."""
        self._text += "".join(self._pieces)
        self._pieces.clear()
        if not self.overflowed:
            self._text = self._text.lstrip("\n")
        text = self._text.rstrip()
        rows = _wrapped_reasoning(text, self._console, width)
        if len(rows) <= height:
            return [], rows
        self.overflowed = True
        complete, _, rest = text.rpartition("\n")
        self._text = rest + self._text[len(text) :]
        return _wrapped_reasoning(complete, self._console, width), _wrapped_reasoning(rest, self._console, width)


def _wrapped_reasoning(text: str, console: RichConsole, width: int) -> list[Text]:
    return list(Text(text, REASONING_STYLE).wrap(console, width, overflow="fold", tab_size=4)) if text else []


def _folded_reasoning(seconds: float, tokens: int = 0) -> Text:
    """Return the line that replaces finished reasoning."""
    count = f" ({tokens:,} tokens)" if tokens else ""
    return Text(f"∴ thought for {seconds:.1f} s{count}", "dim")


def _call_line(text: str) -> Text:
    return Text(f"→ {text}".translate(CONTROL), "cyan")


def _result_line(name: str, result: ToolResult) -> Text:
    duration = f", {result.seconds:.1f} s" if result.seconds else ""
    beginning = _beginning(result.text, SHOWN_CHARACTERS, SHOWN_LINES, result.cut)
    return Text(f"← {name}{duration}: ".translate(CONTROL) + beginning, "red" if result.failed else "green")


def _beginning(text: str, characters: int, lines: int | None = None, cut: int = 0) -> str:
    """Return the beginning of a text, its later lines indented, and how many characters are left out."""
    beginning = text[:characters]
    if lines is not None:
        beginning = "\n".join(beginning.split("\n")[:lines])
    left_out = len(text) - len(beginning) + cut
    more = f" … and {left_out:,} characters more" if left_out else ""
    return beginning.translate(CONTROL).rstrip("\n").replace("\n", "\n  ") + more
