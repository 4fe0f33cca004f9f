"""What was typed behind `hermes chat`, and what was piped into it: which of it is a model, and which a prompt."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hermes_cli.commands.asking import somebody_there
from hermes_cli.console import Voice
from hermes_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

    from hermes_cli.console import Console

OWN_PROMPT_HINT = "type it after the model's name, or pipe it in: git diff | hermes chat demo explain"


def model_and_prompt(words: Sequence[str], *, named: bool, console: Console) -> tuple[str | None, str]:
    """The model, if one of the words is it, and the prompt; empty where somebody is there to talk with.

    Args:
        words: as they were typed.
        named: the model, or a server, is named otherwise.
        console: where it will be shown.

    Raises:
        UsageError: there is no prompt and nobody to talk with, or what was piped in is not text.
    """
    model, rest = _model_and_words(words, named=named)
    text = _with_piped(rest)
    if not text and not _on_terminal(console):
        raise UsageError("there is no prompt.", hint=OWN_PROMPT_HINT)
    return model, text


def _on_terminal(console: Console) -> bool:
    """Whether somebody is there to talk with."""
    return console.voice is Voice.HUMAN and console.out.isatty() and somebody_there()


def _model_and_words(words: Sequence[str], *, named: bool) -> tuple[str | None, Sequence[str]]:
    """The first word is a model, unless there is one, or it holds several words, as only a prompt in quotes does."""
    if named or not words:
        return None, words
    first, *rest = words
    if not first.strip() or (len(first.split()) > 1 and not Path(first).exists()):
        return None, words
    return first, rest


def _with_piped(words: Sequence[str]) -> str:
    """What was typed, with what was piped in below it.

    Raises:
        UsageError: what was piped in is not text.
    """
    parts = [" ".join(words).strip()]
    stdin: TextIO | None = sys.stdin  # None when it was closed (`<&-`)
    if stdin is not None and not stdin.isatty():
        try:
            parts.append(stdin.buffer.read().decode("utf-8").strip())
        except UnicodeDecodeError as error:
            raise UsageError(
                f"standard input is not text (byte {error.start:,} is not UTF-8).", hint="pipe text, not a binary file."
            ) from None
    return "\n\n".join(part for part in parts if part)
