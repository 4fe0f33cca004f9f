"""What the user types: a line or several, with history and completion on a terminal, plainly where there is no such.

Importing this is cheap; the editor of lines comes with the first line that is read.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from hermes_cli.chat.terminal.tty import forget_typed
from hermes_cli.console import CONTROL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from prompt_toolkit import PromptSession
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

PROMPT = "> "
QUOTES = '"""'
LEAVING = "Ctrl-D or /bye leaves"


class Keyboard:
    """The keyboard of one conversation."""

    def __init__(
        self,
        history_path: Path,
        status: Callable[[], str],
        completions: Mapping[str, Callable[[str], Iterable[str]]],
        commands: Mapping[str, str],
    ) -> None:
        """Nothing is read yet.

        Args:
            history_path: the file of what was typed before.
            status: the line below the prompt.
            completions: what may follow a command, by its name; takes what was typed of it.
            commands: what each command does, by its name with the slash.
        """
        self._history_path, self._status = history_path, status
        self._completions, self._commands = completions, commands
        self._edits = _can_edit()
        self._session: PromptSession[str] | None = None
        self._pastes: Any = None

    def read(self, default: str = "") -> str | None:
        """The next message or command; None if the user leaves. What stands in three quotes is never a command.

        Args:
            default: what is there already, to be changed.
        """
        if not self._edits:
            return _plainly(default)
        session = self._opened()
        try:
            line = session.prompt(default=default)
        except EOFError:
            return None
        return self._pastes.whole(unquoted(line)) if line else line

    def ask(self, question: str) -> str:
        """The line that answers a question; empty after Ctrl-D. What was typed before it was asked is dropped."""
        forget_typed()
        *above, last = question.translate(CONTROL).split("\n")
        for line in above:
            print(line)  # noqa: T201 - on the terminal that is typed on
        try:
            if not self._edits:
                return input(last)
            from prompt_toolkit import PromptSession  # noqa: PLC0415 - 0.1 s
            from prompt_toolkit.history import DummyHistory  # noqa: PLC0415
            from prompt_toolkit.input.typeahead import clear_typeahead  # noqa: PLC0415

            keys = self._opened().input
            clear_typeahead(keys)
            answer: str = PromptSession(history=DummyHistory(), input=keys).prompt(last)
        except EOFError:
            return ""
        return answer

    def _opened(self) -> PromptSession[str]:
        """The editor of lines."""
        if self._session is None:
            self._session = self._new_session()
        return self._session

    def _new_session(self) -> PromptSession[str]:
        from prompt_toolkit import PromptSession  # noqa: PLC0415 - 0.1 s, which a single question need not take
        from prompt_toolkit.application import get_app  # noqa: PLC0415
        from prompt_toolkit.filters import Condition  # noqa: PLC0415
        from prompt_toolkit.output.color_depth import ColorDepth  # noqa: PLC0415
        from prompt_toolkit.styles import Style  # noqa: PLC0415

        from hermes_cli.chat.terminal.completion import SlashCompleter  # noqa: PLC0415
        from hermes_cli.chat.terminal.typed import LineHistory  # noqa: PLC0415

        def a_command() -> bool:
            text = get_app().current_buffer.text
            return text.startswith("/") and "\n" not in text

        keys, self._pastes = _keys()
        return PromptSession(
            [("bold", PROMPT)],
            input=keys,
            multiline=True,
            prompt_continuation=" " * len(PROMPT),
            history=LineHistory(self._history_path, self._pastes.stands_for_one),
            completer=SlashCompleter(self._commands, self._completions),
            complete_while_typing=Condition(a_command),
            complete_in_thread=True,
            enable_open_in_editor=True,
            tempfile_suffix=".md",
            key_bindings=self._bindings(keys),
            bottom_toolbar=self._toolbar,
            style=Style.from_dict({"bottom-toolbar": "noreverse dim", "bottom-toolbar.text": ""}),
            color_depth=ColorDepth.DEPTH_1_BIT if os.environ.get("NO_COLOR") else None,
        )

    def _toolbar(self) -> str:
        from prompt_toolkit.application import get_app  # noqa: PLC0415 - it runs already
        from prompt_toolkit.utils import get_cwidth  # noqa: PLC0415

        room = get_app().output.get_size().columns
        status = self._status().translate(CONTROL).replace("\n", " ")
        if get_cwidth(status) < room:
            return status
        while status and get_cwidth(status) >= room - 1:
            status = status[:-1]
        return f"{status}…"

    def _bindings(self, keyboard: Any) -> KeyBindings:  # noqa: ANN401 - prompt_toolkit's Input, or ours
        from prompt_toolkit.filters import has_focus, is_searching  # noqa: PLC0415 - with the session
        from prompt_toolkit.key_binding import KeyBindings  # noqa: PLC0415

        bindings = KeyBindings()
        for keys, action in {
            ("enter",): _send,
            ("escape", "enter"): _break,
            ("c-j",): _break,
            ("c-c",): _clear,
            ("c-g",): _edit,
            ("tab",): _complete,
            ("<bracketed-paste>",): lambda event: self._paste(event, keyboard),
        }.items():
            bindings.add(*keys, filter=has_focus("DEFAULT_BUFFER") & ~is_searching)(action)
        return bindings

    def _paste(self, event: KeyPressEvent, keyboard: Any) -> None:  # noqa: ANN401 - as above
        refused = keyboard.refused() if hasattr(keyboard, "refused") else 0
        if refused:
            _say(f"{refused:,} characters were pasted: no model can read as many, so they were left out")
        else:
            event.current_buffer.insert_text(self._pastes.shown(event.data))


def _send(event: KeyPressEvent) -> None:
    buffer = event.current_buffer
    if is_open(buffer.text):
        buffer.insert_text("\n")
    elif buffer.text.strip():
        buffer.validate_and_handle()


def _break(event: KeyPressEvent) -> None:
    event.current_buffer.insert_text("\n")


def _clear(event: KeyPressEvent) -> None:
    if event.current_buffer.text:
        event.current_buffer.reset()
    else:
        _say(LEAVING)


def _complete(event: KeyPressEvent) -> None:
    """Write what is certain, or choose from the menu; at once, however fast the keys before it came."""
    from prompt_toolkit.completion import CompleteEvent, get_common_complete_suffix  # noqa: PLC0415 - it runs already

    buffer = event.current_buffer
    if buffer.complete_state and buffer.complete_state.current_completion:
        buffer.complete_next()
        return
    asked = CompleteEvent(completion_requested=True)
    found = list(buffer.completer.get_completions(buffer.document, asked))
    certain = get_common_complete_suffix(buffer.document, found)
    if len(found) == 1:
        buffer.apply_completion(found[0])
    elif certain:
        buffer.insert_text(certain)
    elif buffer.complete_state:
        buffer.complete_next()
    else:
        buffer.start_completion(select_first=True)


def _edit(event: KeyPressEvent) -> None:
    event.current_buffer.open_in_editor()


def _say(message: str) -> None:
    """Above the prompt, which is drawn again."""
    from prompt_toolkit.application import run_in_terminal  # noqa: PLC0415 - it runs already

    run_in_terminal(lambda: print(message))  # noqa: T201 - where it is typed


def is_open(text: str) -> bool:
    """Whether three quotes begin it that were not closed."""
    text = text.strip()
    return text.startswith(QUOTES) and not (text.endswith(QUOTES) and len(text) >= 2 * len(QUOTES))


def unquoted(text: str) -> str:
    """What stands in three quotes, as a message even if it looks like a command; other text as it is."""
    from hermes_cli.chat.slash.command import is_command  # noqa: PLC0415 - the commands come with the first line

    inner = text.strip()
    if not inner.startswith(QUOTES) or is_open(text):
        return text
    inner = inner.removeprefix(QUOTES).removesuffix(QUOTES).removeprefix("\n").removesuffix("\n")
    return f"/{inner}" if is_command(inner) or inner.startswith("//") else inner


def _can_edit() -> bool:
    """Whether there is a terminal on which the cursor can be moved."""
    both = sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()
    return both and os.environ.get("TERM") not in {"dumb", "unknown"}


def _keys() -> tuple[Any, Any]:
    """Where keys come from, and what keeps pastes."""
    from hermes_cli.chat.terminal.line_editor import PasteInput, PasteStore  # noqa: PLC0415 - with the session

    if sys.platform == "win32":
        from prompt_toolkit.input import create_input  # noqa: PLC0415 - the console there has keys of its own

        return create_input(), PasteStore()
    return PasteInput(sys.stdin), PasteStore()


def _plainly(default: str) -> str | None:
    """A line as the terminal itself lets it be typed, or lines in three quotes; an empty one takes the default."""
    if default:
        print(f"{default}\n(Enter alone sends this)".translate(CONTROL))  # noqa: T201 - on the same terminal
    lines: list[str] = []
    while not lines or is_open("\n".join(lines)):
        try:
            lines.append(input("  " if lines else PROMPT))
        except EOFError:
            return None
        except KeyboardInterrupt:
            print(f"\n{LEAVING}")  # noqa: T201 - the same
            lines.clear()
    return unquoted("\n".join(lines)) or default
