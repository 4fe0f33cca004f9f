"""Options that every command takes, declared once."""

from __future__ import annotations

from typing import Annotated

import typer

from hermes_cli.console import Console, Voice
from hermes_cli.errors import UsageError

JsonOption = Annotated[
    bool, typer.Option("--json", envvar="HERMES_LLM_JSON", help="Print one JSON document and nothing else.")
]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", envvar="HERMES_LLM_QUIET", help="Print data only, no notes about it.")
]
NoColorOption = Annotated[
    bool, typer.Option("--no-color", envvar="HERMES_LLM_NO_COLOR", help="No colours (NO_COLOR works too).")
]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", "-v", envvar="HERMES_LLM_VERBOSE", help="Show llama.cpp's own log.")
]


def console_for(*, json: bool, quiet: bool, no_color: bool) -> Console:
    """The console that these options ask for.

    Raises:
        UsageError: --json and --quiet together.
    """
    if json and quiet:
        raise UsageError("--json and --quiet exclude each other.", hint="--json alone is already quiet.")
    voice = Voice.JSON if json else Voice.QUIET if quiet else Voice.HUMAN
    return Console(voice, color=False if no_color else None)
