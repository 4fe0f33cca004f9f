"""What the Tab key offers: commands, and what may follow them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from prompt_toolkit.completion import Completer, Completion

from hermes_cli.console import CONTROL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from prompt_toolkit.completion import CompleteEvent
    from prompt_toolkit.document import Document

    Choices = Callable[[str], Iterable[str]]

MOST_FILES = 500  # of a folder: more cannot be chosen from


class SlashCompleter(Completer):
    """Offers what a line that begins with a slash may go on with."""

    def __init__(self, commands: Mapping[str, str], choices: Mapping[str, Choices]) -> None:
        """Nothing is looked up before it is asked for.

        Args:
            commands: what each does, by name with its slash.
            choices: by the same names, what may follow; is given what was typed, and may return more than begins so.
        """
        self._commands, self._choices = commands, choices

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:  # noqa: ARG002
        """What the text before the cursor may go on with."""
        line = document.text_before_cursor
        if not line.startswith("/") or "\n" in line:
            return
        name, blank, typed = line.partition(" ")
        offered: Iterable[tuple[str, str]]
        if not blank:
            typed, offered = name, self._commands.items()
        else:
            offered = ((one, "") for one in self._following(name, typed))
        for text, summary in offered:
            if text.startswith(typed) and text.isprintable():
                yield Completion(text, -len(typed), display_meta=summary.translate(CONTROL))

    def _following(self, name: str, typed: str) -> Iterable[str]:
        try:
            return list(self._choices[name](typed)) if name in self._choices else ()
        except Exception:  # noqa: BLE001 - whatever fails here, the line can be typed
            return ()


def files(typed: str) -> list[str]:
    """Files and folders whose paths begin as it was typed; folders end with a slash."""
    folder, _, beginning = typed.rpartition("/")
    place = Path(f"{folder}/" if folder or typed.startswith("/") else ".").expanduser()
    found = []
    try:
        with os.scandir(place) as entries:
            for entry in entries:
                hidden = entry.name.startswith(".") and not beginning.startswith(".")
                if entry.name.startswith(beginning) and not hidden:
                    found.append(typed.removesuffix(beginning) + entry.name + ("/" if entry.is_dir() else ""))
                if len(found) == MOST_FILES:
                    break
    except OSError:
        return []
    return sorted(found)
