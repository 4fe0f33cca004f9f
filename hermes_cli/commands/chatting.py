"""`hermes chat` with a question: what was typed and piped in is answered once, and the program ends."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from hermes_cli.commands.stage import set_stage

if TYPE_CHECKING:
    from hermes_cli.chat.backend import ChatBackend
    from hermes_cli.chat.view import View
    from hermes_cli.commands.head_start import Prewarm
    from hermes_cli.commands.opening import LoadOptions
    from hermes_cli.commands.stage import Wish
    from hermes_cli.console import Console


def chat(text: str, wish: Wish, how: LoadOptions, console: Console, start: Prewarm) -> None:
    """Answer one question, or talk until the user leaves.

    Args:
        text: the question; empty for a conversation.
        wish: what else was typed.
        how: models are loaded.
        console: where it is shown.
        start: what was begun already.

    Raises:
        HermesError: whatever goes wrong, in words.
    """
    if text:
        _answer(wish, how, console, start, text)
        return
    from hermes_cli.commands.staying import stay  # noqa: PLC0415 - a single question needs no keyboard

    stay(wish, how, console, start)


def _answer(wish: Wish, how: LoadOptions, console: Console, start: Prewarm, text: str) -> None:
    """One question, and what it led to as a document."""

    def view(backend: ChatBackend) -> View:
        from hermes_cli.chat.view import PlainView  # noqa: PLC0415 - when the backend is there

        return PlainView(console, backend, wish.options, hide_thinking=wish.hide_thinking)

    with ExitStack() as stack:
        agent = set_stage(wish, how, console, start, stack, view, stays=False).agent
        document = agent.ask(text).as_document(tools=bool(agent.schemas))
        console.document({"model": agent.backend.name, **document, **agent.backend.details})
