"""The line editor, on prompt_toolkit: keys, completion, history and pastes."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app, run_in_terminal
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, get_common_complete_suffix
from prompt_toolkit.filters import Condition, has_focus, is_searching
from prompt_toolkit.history import DummyHistory, FileHistory
from prompt_toolkit.input import create_input
from prompt_toolkit.input.typeahead import clear_typeahead
from prompt_toolkit.input.vt100_parser import Vt100Parser
from prompt_toolkit.key_binding import KeyBindings
from prompt_toolkit.key_binding.key_processor import KeyPress
from prompt_toolkit.keys import Keys
from prompt_toolkit.output.color_depth import ColorDepth
from prompt_toolkit.styles import Style
from prompt_toolkit.utils import get_cwidth

from hermes_cli.chat.slash.command import is_open_quote, unquoted
from hermes_cli.chat.terminal.tty import HOW_TO_LEAVE, PROMPT
from hermes_cli.console import CONTROL

if sys.platform == "win32":  # no such module there: its console has keys of its own, and `PasteInput` is not used
    Vt100Input = object
else:
    from prompt_toolkit.input.vt100 import Vt100Input

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path
    from typing import TextIO

    from prompt_toolkit.document import Document
    from prompt_toolkit.input import Input
    from prompt_toolkit.key_binding import KeyPressEvent

    Completions = Callable[[str], Iterable[str]]

MAX_HISTORY_ENTRY = 10_000  # bytes: nobody looks for a longer paste
MAX_PASTE = 10_000_000  # characters: twenty times what the largest context of a model holds
SHOWN_LINES, SHOWN_CHARACTERS = 200, 100_000  # of a paste; a longer one is shown as one word

_PASTE_END = "\x1b[201~"
_PASTE_CHUNK = 65_536  # characters; keys are read in smaller pieces, since each of them is work


class LineEditor:
    """Reads lines on a terminal; arguments as for `Keyboard`."""

    def __init__(
        self,
        history_path: Path,
        status: Callable[[], str],
        completions: Mapping[str, Completions],
        commands: Mapping[str, str],
    ) -> None:
        self._status = status
        self._pastes = PasteStore()
        self._input = _open_input()
        self._session: PromptSession[str] = PromptSession(
            [("bold", PROMPT)],
            input=self._input,
            multiline=True,
            prompt_continuation=" " * len(PROMPT),
            history=LineHistory(history_path, self._pastes.has_placeholder),
            completer=SlashCompleter(commands, completions),
            complete_while_typing=Condition(_is_command_line),
            complete_in_thread=True,
            enable_open_in_editor=True,
            tempfile_suffix=".md",
            key_bindings=self._bindings(),
            bottom_toolbar=self._toolbar,
            style=Style.from_dict({"bottom-toolbar": "noreverse dim", "bottom-toolbar.text": ""}),
            color_depth=ColorDepth.DEPTH_1_BIT if os.environ.get("NO_COLOR") else None,
        )

    def read(self, default: str) -> str | None:
        """Return a line or several, without quotes and with the texts of pastes; None after Ctrl-D."""
        try:
            return self._pastes.restored(unquoted(self._session.prompt(default=default)))
        except EOFError:
            return None

    def ask(self, prompt: str) -> str:
        """Return a line that is not kept in the history; raise EOFError after Ctrl-D."""
        clear_typeahead(self._input)
        session: PromptSession[str] = PromptSession(history=DummyHistory(), input=self._input)
        return session.prompt(prompt)

    def _toolbar(self) -> str:
        columns = get_app().output.get_size().columns
        status = self._status().translate(CONTROL).replace("\n", " ")
        if get_cwidth(status) < columns:
            return status
        while status and get_cwidth(status) >= columns - 1:
            status = status[:-1]
        return f"{status}…"

    def _bindings(self) -> KeyBindings:
        bindings = KeyBindings()
        for keys, action in {
            ("enter",): _send,
            ("escape", "enter"): _insert_newline,
            ("c-j",): _insert_newline,
            ("c-c",): _clear,
            ("c-g",): _open_in_editor,
            ("tab",): _complete,
            ("<bracketed-paste>",): self._paste,
        }.items():
            bindings.add(*keys, filter=has_focus("DEFAULT_BUFFER") & ~is_searching)(action)
        return bindings

    def _paste(self, event: KeyPressEvent) -> None:
        if isinstance(self._input, PasteInput) and (refused := self._input.take_refused()):
            _print_above(f"{refused:,} characters were pasted: no model can read as many, so they were left out")
        else:
            event.current_buffer.insert_text(self._pastes.placeholder(event.data))


def _open_input() -> Input:
    return create_input() if sys.platform == "win32" else PasteInput(sys.stdin)


def _is_command_line() -> bool:
    text = get_app().current_buffer.text
    return text.startswith("/") and "\n" not in text


def _send(event: KeyPressEvent) -> None:
    buffer = event.current_buffer
    if is_open_quote(buffer.text):
        buffer.insert_text("\n")
    elif buffer.text.strip():
        buffer.validate_and_handle()


def _insert_newline(event: KeyPressEvent) -> None:
    event.current_buffer.insert_text("\n")


def _clear(event: KeyPressEvent) -> None:
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


def _open_in_editor(event: KeyPressEvent) -> None:
    event.current_buffer.open_in_editor()


def _print_above(message: str) -> None:
    """Print a line above the prompt."""
    run_in_terminal(lambda: print(message))  # noqa: T201 - where it is typed


class SlashCompleter(Completer):
    """Completes commands and their arguments."""

    def __init__(self, commands: Mapping[str, str], completions: Mapping[str, Completions]) -> None:
        self._commands, self._completions = commands, completions

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:  # noqa: ARG002
        """Yield what the text before the cursor can become."""
        line = document.text_before_cursor
        if not line.startswith("/") or "\n" in line:
            return
        name, blank, argument = line.partition(" ")
        candidates: Iterable[tuple[str, str]] = self._commands.items()
        typed = name
        if blank:
            typed, candidates = argument, ((candidate, "") for candidate in self._arguments(name, argument))
        for text, summary in candidates:
            if text.startswith(typed) and text.isprintable():
                yield Completion(text, -len(typed), display_meta=summary.translate(CONTROL))

    def _arguments(self, name: str, argument: str) -> Iterable[str]:
        try:
            return list(self._completions[name](argument)) if name in self._completions else ()
        except Exception:  # noqa: BLE001 - whatever fails here, the line can be typed
            return ()


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
            if placeholder in line:
                line = line.replace(placeholder, text)
        return line


class PasteInput(Vt100Input):
    """The keys of a terminal that marks pastes."""

    def __init__(self, stdin: TextIO) -> None:
        super().__init__(stdin)
        self._parser = _PasteParser(self._take_key)
        self.vt100_parser = self._parser

    def read_keys(self) -> list[KeyPress]:
        """Return the keys that were pressed; a paste is one."""
        is_pasting = self._parser.is_pasting
        self._parser.feed(self.stdin_reader.read(_PASTE_CHUNK) if is_pasting else self.stdin_reader.read())
        keys, self._buffer = self._buffer, []
        return keys

    def _take_key(self, key: KeyPress) -> None:
        self._buffer.append(key)

    def take_refused(self) -> int:
        """Return the characters of the last paste if it had too many, once."""
        refused, self._parser.refused = self._parser.refused, 0
        return refused


class _PasteParser(Vt100Parser):
    """Parses keys, and collects a paste up to MAX_PASTE characters.

    prompt_toolkit searches all of a paste again with each kilobyte of it; here its end is searched in what is new.
    """

    def __init__(self, on_key: Callable[[KeyPress], None]) -> None:
        super().__init__(on_key)
        self.refused = 0
        self._pieces: list[str] = []
        self._length = 0
        self._tail = ""  # of what was read: the end mark may come in two parts

    @property
    def is_pasting(self) -> bool:
        """Return whether the end of a paste was not seen yet."""
        return self._in_bracketed_paste

    def feed(self, data: str) -> None:
        """Parse some more input."""
        if not self._in_bracketed_paste:
            super().feed(data)
            return
        text = self._tail + data
        pasted, mark, rest = text.partition(_PASTE_END)
        if not mark:
            cut = max(len(text) - len(_PASTE_END) + 1, 0)
            pasted, self._tail = text[:cut], text[cut:]
        self._length += len(pasted)
        if self._length <= MAX_PASTE:
            self._pieces.append(pasted)
        else:
            self._pieces.clear()
        if mark:
            self._finish()
            self.feed(rest)

    def _finish(self) -> None:
        text = "".join(self._pieces)
        self.refused = self._length if self._length > MAX_PASTE else 0
        self._in_bracketed_paste, self._pieces, self._length, self._tail = False, [], 0, ""
        self.feed_key_callback(KeyPress(Keys.BracketedPaste, text))
