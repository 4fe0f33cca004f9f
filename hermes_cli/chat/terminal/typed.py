"""What was typed before, in a file that only its owner can read. Where it cannot be kept, it is forgotten."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from prompt_toolkit.history import FileHistory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

MOST = 10_000  # bytes of one entry in the file: a paste that long is nothing that one looks for


class LineHistory(FileHistory):
    """Lines that were sent, the newest first."""

    def __init__(self, path: Path, leaves_out: Callable[[str], bool]) -> None:
        """Nothing is read yet.

        Args:
            path: of the file.
            leaves_out: whether a line means nothing later.
        """
        super().__init__(path)
        self._path, self._leaves_out = path, leaves_out

    def load_history_strings(self) -> Iterable[str]:
        """What is in the file."""
        with suppress(OSError):
            return super().load_history_strings()
        return ()

    def store_string(self, string: str) -> None:
        """Add a line to the file, unless it is long."""
        if len(string.encode(errors="replace")) > MOST or self._leaves_out(string):
            return
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.touch(mode=0o600)
            self._path.chmod(0o600)
            super().store_string(string)
