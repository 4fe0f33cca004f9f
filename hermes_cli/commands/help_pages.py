"""Pages of `--help`: commands in groups, plain words for kinds of values, colours on a terminal."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

CLICK_CONTEXT: Any = typer.Context.__bases__[0]
"""The class of all contexts, which makes the formatter of a page; it has no public name."""
UNCUT = 1_000  # characters of a summary
_LARGEST = 2**31 - 1  # a larger limit of a number is none
_BOLD, _CYAN, _END = "\x1b[1m", "\x1b[36m", "\x1b[0m"
_KINDS = {"<str>": "TEXT", "<path>": "PATH"}
_KIND = re.compile(r"<(?:str|path|(?:int|float)(?: range)?)>")
_RANGE = re.compile(r"(?:(-?[\d.]{1,20})<=)?x(?:<=|>=)(-?[\d.]{1,20})")
_HYPHEN = "\u2011"  # one that no line breaks after


class HelpPage(CLICK_CONTEXT.formatter_class):  # type: ignore[misc]  # of the click that Typer carries
    """Formats a page of help."""

    colored = False

    def write_heading(self, heading: str) -> None:
        """Write the heading of a section, bold."""
        super().write_heading(self._styled(heading, _BOLD))

    def write_text(self, text: str) -> None:
        """Write a paragraph; names with hyphens stay whole."""
        super().write_text(text.replace("-", _HYPHEN))

    def write_dl(self, rows: Sequence[tuple[str, str]], **layout: int) -> None:
        """Write options, arguments or commands beside what is said about them."""
        plain = [
            (_KIND.sub(lambda kind: _KINDS.get(kind[0], "N"), name), _RANGE.sub(_limits, text).replace("-", _HYPHEN))
            for name, text in rows
        ]
        super().write_dl([(self._styled(name, _CYAN), text) for name, text in plain], **layout)

    def getvalue(self) -> str:
        """Return the page."""
        return str(super().getvalue()).replace(_HYPHEN, "-")

    def _styled(self, text: str, style: str) -> str:
        return f"{style}{text}{_END}" if self.colored else text


def _limits(match: re.Match[str]) -> str:
    """Return the range of a number in words: `0<=x<=5` is 0 to 5."""
    least, most = match[1], match[2]
    if least is None:
        least, most = (most, None) if ">=" in match[0] else (None, most)
    if most is not None and float(most) >= _LARGEST:
        most = None
    least, most = (limit and f"{float(limit):g}" for limit in (least, most))
    if least and most:
        return f"{least} to {most}"
    return f"{least} or more" if least else f"at most {most}"


class CommandGroups(TyperGroup):
    """Commands in groups: the `rich_help_panel` of each is the heading that it stands below."""

    def format_options(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - Typer's classes are private
        """Write the groups, and the options below them."""
        groups: dict[str, list[tuple[str, str]]] = {}
        width = max(map(len, self.commands))
        command: Any  # the class of groups and that of commands have the panel, but not the one above both
        for name, command in self.commands.items():
            summary = command.get_short_help_str(UNCUT)
            groups.setdefault(command.rich_help_panel, []).append((name.ljust(width), summary))
        for heading, rows in groups.items():
            with formatter.section(heading):
                formatter.write_dl(rows)
        super().format_options(ctx, formatter)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - as above
        """Write nothing: the commands stand above the options."""


def use_help_pages(arguments: Sequence[str]) -> None:
    """Have Typer format its help as above; with colours on a terminal, unless they are switched off."""
    off = {"NO_COLOR", "HERMES_LLM_NO_COLOR"} & os.environ.keys() or "--no-color" in arguments
    HelpPage.colored = sys.stdout.isatty() and os.environ.get("TERM") not in {"dumb", "unknown"} and not off
    CLICK_CONTEXT.formatter_class = HelpPage
