"""`hermes --version`: ours, llama.cpp's, and whether `hermes` on PATH is us."""

from __future__ import annotations

import shutil
from importlib.metadata import version
from pathlib import Path

from hermes_cli import __version__
from hermes_cli.console import Console

ENTRY_POINT = b"hermes_cli.cli"  # stands in every script that pip, pipx or uv make for us; Hermes Agent's says .main


def foreign_hermes(search_path: str | None = None) -> Path | None:
    """The program that typing `hermes` starts, if it is not this one (Nous' Hermes Agent, for instance)."""
    found = shutil.which("hermes", path=search_path)
    if found is None or ENTRY_POINT in Path(found).read_bytes():
        return None
    return Path(found)


def print_version() -> None:
    """Print the versions on standard output, and a warning on standard error if another `hermes` comes first."""
    console = Console()
    console.text(f"hermes-llm {__version__} (llama-cpp-python {version('llama-cpp-python')})\n")
    if other := foreign_hermes():
        console.warn(f"note: typing hermes starts another program, {other}. Type hermes-llm for this one.")
