"""What may follow each command: what the Tab key offers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hermes_cli.chat.slash.settings import SETTINGS, USUAL
from hermes_cli.chat.terminal.completion import files
from hermes_cli.chat.tools.config import read_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from hermes_cli.chat.repl_context import ReplContext


def choices(scene: ReplContext) -> Mapping[str, Callable[[str], Iterable[str]]]:
    """By command, what may follow; each takes what was typed of it."""

    def sessions(_: str) -> list[str]:
        return [one.name for one in scene.records.listed()]

    def export(typed: str) -> list[str]:
        form, blank, where = typed.partition(" ")
        return [f"{form} {one}" for one in files(where)] if blank else ["md", "json"]

    return {
        "/model": lambda _: scene.model_names(),
        "/think": lambda _: ("on", "off", "budget ", USUAL, "show"),
        "/system": lambda _: (USUAL,),
        "/set": lambda _: [f"{name} " for name in SETTINGS],
        "/json": lambda typed: ["any", "off", *files(typed)],
        "/tools": lambda typed: ["on", "off", "demo", *(one for one in files(typed) if one.endswith((".py", "/")))],
        "/mcp": lambda _: list(read_file().mcp_servers),
        "/file": lambda typed: ["none", *files(typed)],
        "/load": sessions,
        "/export": export,
        "/compact": lambda _: ("undo",),
    }
