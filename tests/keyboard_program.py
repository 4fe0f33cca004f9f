"""Reads what is typed, for tests: shows what came of it, line by line. Arguments: the file of the history."""

from __future__ import annotations

import select
import sys
from pathlib import Path
from types import SimpleNamespace

from hermes_cli.chat.terminal.keyboard import Keyboard

MODELS = ["hermes-3:8b", "hermes-4:14b"]


def main() -> None:
    """Read until the user leaves."""
    context = SimpleNamespace(model_names=lambda: MODELS)
    keyboard = Keyboard(Path(sys.argv[1]), lambda: "demo · context 12 of 2,048 tokens · think off", context)  # type: ignore[arg-type]  # what completions need of it
    draft = ""
    while (line := keyboard.read(draft)) is not None:
        draft = "drafted" if line == "draft" else ""
        print(f"read {len(line):,}: {line[:40]!r}")  # noqa: T201
        if line == "work":
            select.select([sys.stdin], [], [])  # until a line was typed ahead
        if line == "ask":
            try:
                answer = keyboard.ask("Run it?\x1b[2J\n[y]es, [n]o: ")
                print(f"answered {answer!r}")  # noqa: T201
            except KeyboardInterrupt:
                print("interrupted")  # noqa: T201
    print("left")  # noqa: T201


main()
