"""What moves while nothing comes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.spinner import Spinner
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult


class WaitSpinner:
    """A spinner with the seconds since it began, drawn anew each time it is asked for."""

    def __init__(self, label: str) -> None:
        """It begins now; `label` stands before the seconds."""
        self._label, self._since, self._spinner = label, time.monotonic(), Spinner("dots", style="dim")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """One line."""
        self._spinner.update(text=Text(f"{self._label}{time.monotonic() - self._since:.0f} s", "dim"))
        yield self._spinner
