"""Messages and commands that the user types: with line editing (prompt_toolkit) on a terminal, plainly elsewhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, get_common_complete_suffix
from prompt_toolkit.filters import Condition, has_focus, is_searching
from prompt_toolkit.history import DummyHistory, FileHistory
from prompt_toolkit.input import Input, create_input
from prompt_toolkit.input.typeahead import clear_typeahead
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output.color_depth import ColorDepth
from prompt_toolkit.styles import Style
from rich.text import Text

from hermes_cli.chat.slash.command import COMMANDS, is_open_quote, unquoted
from hermes_cli.console import CONTROL
from hermes_cli.platforms import STDIN, drop_typed_ahead, echo

if TYPE_CHECKING:
    from prompt_toolkit.document import Document

    from hermes_cli.chat.repl import ReplContext

PROMPT = "> "
HOW_TO_LEAVE = "Ctrl-D or /bye leaves"
MAX_HISTORY_ENTRY = 10_000  # bytes: nobody looks for a longer paste
MAX_PASTE = 10_000_000  # characters: twenty times what the largest context of a model holds
SHOWN_LINES, SHOWN_CHARACTERS = 200, 100_000  # of a paste; a longer one is shown as one word


class Keyboard:
    """Reads messages and commands; `status` returns the line below the prompt."""

    def __init__(self, history_path: Path, status: Callable[[], str], context: ReplContext) -> None:
        self._history_path, self._status, self._context = history_path, status, context
        self._pastes = PasteStore()
        is_terminal = sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()
        self._can_edit = is_terminal and os.environ.get("TERM") not in {"dumb", "unknown"}  # its cursor can move

    def read(self, default: str = "") -> str | None:
        """Return the next message or command, None if the user leaves; its line begins with `default`.

        Text in three quotes is never a command.
        """
        if not self._can_edit:
            return _read_plainly(default)
        try:
            return self._pastes.restored(unquoted(self._session.prompt(default=default)))
        except EOFError:
            return None

    def ask(self, question: str) -> str:
        """Return the line that answers a question; empty after Ctrl-D. What was typed ahead is dropped."""
        with suppress(OSError, ValueError, AttributeError):  # no terminal
            drop_typed_ahead(sys.stdin.fileno())
        *above, last = question.translate(CONTROL).split("\n")
        for line in above:
            print(line)  # noqa: T201 - on the terminal that is typed on
        try:
            if not self._can_edit:
                return _input(last)
            clear_typeahead(self._input)
            session: PromptSession[str] = PromptSession(history=DummyHistory(), input=self._input)
            return session.prompt(last)
        except EOFError:
            return ""

    @cached_property
    def _input(self) -> Input:
        if sys.platform == "win32":  # its console has keys of its own
            return create_input()
        from hermes_cli.chat.terminal.posix_input import PosixInput  # noqa: PLC0415 - not on Windows

        return PosixInput(sys.stdin)

    @cached_property
    def _session(self) -> PromptSession[str]:
        return PromptSession(
            [("bold", PROMPT)],
            input=self._input,
            multiline=True,
            prompt_continuation=" " * len(PROMPT),
            history=LineHistory(self._history_path, self._pastes.has_placeholder),
            completer=SlashCompleter(self._context),
            complete_while_typing=Condition(lambda: get_app().current_buffer.text.startswith("/")),
            complete_in_thread=True,
            enable_open_in_editor=True,
            enable_suspend=True,
            tempfile_suffix=".md",
            key_bindings=self._bindings(),
            bottom_toolbar=self._toolbar,
            style=Style.from_dict({"bottom-toolbar": "noreverse dim", "bottom-toolbar.text": ""}),
            color_depth=ColorDepth.DEPTH_1_BIT if os.environ.get("NO_COLOR") else None,
        )

    def _toolbar(self) -> str:
        status = Text(self._status().translate(CONTROL).replace("\n", " "))
        status.truncate(get_app().output.get_size().columns - 1, overflow="ellipsis")
        return status.plain

    def _bindings(self) -> KeyBindings:
        bindings = KeyBindings()
        for keys, action in {
            ("enter",): _send,
            ("escape", "enter"): lambda event: event.current_buffer.insert_text("\n"),
            ("c-j",): lambda event: event.current_buffer.insert_text("\n"),
            ("c-c",): _clear_or_tell,
            ("c-g",): lambda event: event.current_buffer.open_in_editor(),
            ("tab",): _complete,
            ("<bracketed-paste>",): self._paste,
        }.items():
            bindings.add(*keys, filter=has_focus("DEFAULT_BUFFER") & ~is_searching)(action)
        return bindings

    def _paste(self, event: KeyPressEvent) -> None:
        if (length := len(event.data)) > MAX_PASTE:
            _print_above(f"{length:,} characters were pasted: no model can read as many, so they were left out")
        else:
            event.current_buffer.insert_text(self._pastes.placeholder(event.data))


def _read_plainly(default: str) -> str | None:
    """Read a line, or several in three quotes, with the terminal's own editing; an empty one takes the default."""
    if default:
        print(f"{default}\n(Enter alone sends this)".translate(CONTROL))  # noqa: T201 - on the same terminal
    lines: list[str] = []
    while not lines or is_open_quote("\n".join(lines)):
        try:
            lines.append(_input("  " if lines else PROMPT))
        except EOFError:
            return None
        except KeyboardInterrupt:
            print(f"\n{HOW_TO_LEAVE}")  # noqa: T201 - the same
            lines.clear()
    return unquoted("\n".join(lines)) or default


def _input(prompt: str) -> str:
    with echo(STDIN, on=True):
        return input(prompt)


def _send(event: KeyPressEvent) -> None:
    buffer = event.current_buffer
    if is_open_quote(buffer.text):
        buffer.insert_text("\n")
    elif buffer.text.strip():
        buffer.validate_and_handle()


def _clear_or_tell(event: KeyPressEvent) -> None:
    if event.current_buffer.text:
        event.current_buffer.reset()
    else:
        _print_above(HOW_TO_LEAVE)


def _complete(event: KeyPressEvent) -> None:
    """Insert what all completions share, or choose from the menu; at once, however fast the keys before it came."""
    buffer = event.current_buffer
    if buffer.complete_state and buffer.complete_state.current_completion:
        buffer.complete_next()
        return
    completions = list(buffer.completer.get_completions(buffer.document, CompleteEvent(completion_requested=True)))
    suffix = get_common_complete_suffix(buffer.document, completions)
    if len(completions) == 1:
        buffer.apply_completion(completions[0])
    elif suffix:
        buffer.insert_text(suffix)
    elif buffer.complete_state:
        buffer.complete_next()
    else:
        buffer.start_completion(select_first=True)


def _print_above(message: str) -> None:
    # run_in_terminal would leave raw mode, and Enter that is pressed meanwhile would become a line feed
    app = get_app()
    app.renderer.erase()
    print(message)  # noqa: T201 - where it is typed
    app.renderer.request_absolute_cursor_position()
    app.invalidate()


class SlashCompleter(Completer):
    """Completes commands and their arguments."""

    def __init__(self, context: ReplContext) -> None:
        self._context = context

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:  # noqa: ARG002
        """Yield what the text before the cursor can become."""
        line = document.text_before_cursor
        if not line.startswith("/") or "\n" in line:
            return
        name, space, argument = line.partition(" ")
        if not space:
            typed, candidates = name, {command.name: command.summary for command in COMMANDS.values()}
        else:
            typed, candidates = argument, {}
            with suppress(Exception):  # whatever fails here, the line can be typed
                candidates = dict.fromkeys(COMMANDS[name].complete(self._context, argument), "")
        for text, summary in candidates.items():
            if text.startswith(typed) and text.isprintable():
                yield Completion(text, -len(typed), display_meta=summary)


class LineHistory(FileHistory):
    """Lines that were sent, in a file that only its owner can read. Where it cannot be kept, it is forgotten."""

    def __init__(self, path: Path, is_excluded: Callable[[str], bool]) -> None:
        super().__init__(path)
        self._path, self._is_excluded = path, is_excluded

    def load_history_strings(self) -> Iterable[str]:
        """Return the lines of the file."""
        with suppress(OSError):
            return super().load_history_strings()
        return ()

    def store_string(self, string: str) -> None:
        """Add a line to the file, unless it is long or excluded."""
        if len(string.encode(errors="replace")) > MAX_HISTORY_ENTRY or self._is_excluded(string):
            return
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.touch(mode=0o600)
            self._path.chmod(0o600)
            super().store_string(string)


class PasteStore:
    """Long pastes, and the placeholders that stand for them in a line."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def placeholder(self, text: str) -> str:
        """Return the text itself, or a placeholder if it is long."""
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        lines = text.removesuffix("\n").count("\n") + 1
        if lines <= SHOWN_LINES and len(text) <= SHOWN_CHARACTERS:
            return text
        size = f"{lines:,} lines" if lines > SHOWN_LINES else f"{len(text):,} characters"
        placeholder, number = f"[pasted {size}]", 1
        while self._texts.get(placeholder, text) != text:
            number += 1
            placeholder = f"[pasted {size}, {number}]"
        self._texts[placeholder] = text
        return placeholder

    def has_placeholder(self, line: str) -> bool:
        """Return whether a placeholder is in the line."""
        return any(placeholder in line for placeholder in self._texts)

    def restored(self, line: str) -> str:
        """Return the line with texts in place of placeholders."""
        for placeholder, text in self._texts.items():
            line = line.replace(placeholder, text)
        return line
