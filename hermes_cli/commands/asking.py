"""A question that is answered with yes or no."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from hermes_cli.errors import HermesError, UsageError

if TYPE_CHECKING:
    from hermes_cli.console import Console

YES = {"y", "yes"}


def somebody_there() -> bool:
    """Return whether standard input is a terminal."""
    return sys.stdin is not None and sys.stdin.isatty()


def agreed(question: str, console: Console, *, usually: bool = False) -> bool | None:
    """Return whether the user says yes; None where nobody can be asked.

    Args:
        question: with what may be typed, and a blank at its end.
        console: asks.
        usually: what an empty line means.
    """
    if not somebody_there():
        return None
    try:
        answer = console.ask(question).lower()
    except OSError:
        return None
    return answer in YES or (usually and not answer)


def agreed_to_remove(what: str, console: Console) -> None:
    """Go on only if what is named may be removed.

    Raises:
        UsageError: nobody can be asked.
        HermesError: the answer was no.
    """
    answer = agreed(f"Remove {what}? [y/N] ", console)
    if answer is None:
        raise UsageError(f"{what} would be removed, and nobody can be asked.", hint="say it is meant: --yes")
    if not answer:
        raise HermesError("nothing was removed.", hint="to remove it, answer y, or say --yes.")
