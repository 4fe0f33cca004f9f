"""`hermes chat` with a question: what was typed and piped in is answered once, and the program ends."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hermes_cli.commands.stage import set_stage
from hermes_cli.console import Voice
from hermes_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

    from hermes_cli.chat.partner import Partner
    from hermes_cli.chat.view import View
    from hermes_cli.commands.head_start import HeadStart
    from hermes_cli.commands.opening import How
    from hermes_cli.commands.stage import Wish
    from hermes_cli.console import Console

OWN_PROMPT_HINT = "type it after the model's name, or pipe it in: git diff | hermes chat demo explain"


def chat(wish: Wish, how: How, console: Console, start: HeadStart) -> None:
    """Answer one question, or talk until the user leaves.

    Args:
        wish: what was typed.
        how: models are loaded.
        console: where it is shown.
        start: what was begun already.

    Raises:
        HermesError: whatever goes wrong, in words.
    """
    model, words = _model_and_words(wish)
    text = _with_piped(words)
    wish = replace(wish, model=model)
    if text:
        _answer(wish, how, console, start, text)
        return
    if not _on_terminal(console):
        raise UsageError("there is no prompt.", hint=OWN_PROMPT_HINT)
    from hermes_cli.commands.staying import stay  # noqa: PLC0415 - a single question needs no keyboard

    stay(wish, how, console, start)


def _answer(wish: Wish, how: How, console: Console, start: HeadStart, text: str) -> None:
    """One question, and what it led to as a document."""

    def view(partner: Partner) -> View:
        from hermes_cli.chat.oneshot import PlainView  # noqa: PLC0415 - when the partner is there

        return PlainView(console, partner, wish.manner, hide_thinking=wish.hide_thinking)

    with ExitStack() as stack:
        talk = set_stage(wish, how, console, start, stack, view, stays=False).talk
        from hermes_cli.chat.oneshot import document  # noqa: PLC0415 - imported by the view

        told = document(talk.ask(text), tools=bool(talk.schemas))
        console.document({"model": talk.partner.name, **told, **talk.partner.details})


def _on_terminal(console: Console) -> bool:
    """Whether somebody is there to talk with."""
    return console.voice is Voice.HUMAN and console.out.isatty() and sys.stdin is not None and sys.stdin.isatty()


def _model_and_words(wish: Wish) -> tuple[str | None, Sequence[str]]:
    """What of the words is the model, and what the prompt.

    The first word is a model, unless one was named by a flag, a server is asked, or it holds several words, as only
    a prompt in quotes does.
    """
    if wish.model or wish.endpoint or not wish.words:
        return wish.model, wish.words
    first, *rest = wish.words
    if not first.strip() or (len(first.split()) > 1 and not Path(first).exists()):
        return None, wish.words
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
