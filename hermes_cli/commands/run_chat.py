"""Runs `hermes chat`: one question and its answer (one-shot), or a conversation on the terminal (interactive)."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from hermes_cli import paths
from hermes_cli.commands.open_chat import open_chat

if TYPE_CHECKING:
    from hermes_cli.chat.backend import ChatBackend
    from hermes_cli.chat.repl import ReplContext
    from hermes_cli.chat.terminal.terminal_view import TerminalView
    from hermes_cli.chat.view import View
    from hermes_cli.commands.open_chat import ChatArguments
    from hermes_cli.console import Console
    from hermes_cli.models.loader import Prewarm
    from hermes_cli.models.resolve import ModelRequest

HISTORY = "chat-history"  # of lines that were typed, in the data folder


def run_oneshot(
    text: str, arguments: ChatArguments, settings: ModelRequest, console: Console, prewarm: Prewarm
) -> None:
    """Answer one question; with `--json` the turns that it led to are one document.

    Args:
        text: the question.
        arguments: of the command line.
        settings: of loading the model.
        console: shows the answer.
        prewarm: the event loop, and the engine's child.

    Raises:
        HermesError: anything that went wrong.
    """

    def view(backend: ChatBackend) -> View:
        from hermes_cli.chat.view import PlainView  # noqa: PLC0415 - when the backend is there

        return PlainView(console, backend, arguments.options, hide_thinking=arguments.hide_thinking)

    with ExitStack() as stack:
        agent = open_chat(arguments, settings, console, prewarm, stack, view, interactive=False).agent
        document = agent.ask(text).as_document(tools=bool(agent.schemas))
        console.document({"model": agent.backend.name, **document, **agent.backend.details})


def run_interactive(arguments: ChatArguments, settings: ModelRequest, console: Console, prewarm: Prewarm) -> None:
    """Talk until the user leaves; arguments are those of `run_oneshot`.

    Raises:
        HermesError: there is no model to talk with, or a session, tool or server is not there.
    """
    views: list[TerminalView] = []

    def view(_: ChatBackend) -> TerminalView:
        from hermes_cli.chat.terminal.terminal_view import TerminalView  # noqa: PLC0415 - imported meanwhile

        views.append(TerminalView(console, hide_thinking=arguments.hide_thinking))
        return views[0]

    with ExitStack() as stack:
        chat = open_chat(arguments, settings, console, prewarm, stack, view, interactive=True, meanwhile=_import)
        if chat.toolbox is None or chat.session is None:
            raise TypeError("a conversation has tools and a session")
        from hermes_cli.chat.repl import ReplContext, run_repl, status_line  # noqa: PLC0415 - imported meanwhile
        from hermes_cli.chat.terminal.keyboard import Keyboard  # noqa: PLC0415

        context = ReplContext(
            chat.agent,
            views[0],
            console,
            chat.event_loop,
            chat.toolbox,
            chat.session,
            chat.source.open,
            chat.source.names,
        )
        keyboard = Keyboard(paths.data_dir() / HISTORY, lambda: status_line(context), context)
        chat.asker.ask = keyboard.ask
        _greet(context)
        run_repl(context, keyboard)
        if name := chat.session.name:
            console.note(f"saved as {name}; hermes chat --resume {name} goes on")


def _import() -> None:
    """Import the modules of a conversation while other processes get ready: 0.2 s."""
    import hermes_cli.chat.repl  # noqa: PLC0415
    import hermes_cli.chat.terminal.keyboard  # noqa: PLC0415
    import hermes_cli.chat.terminal.terminal_view  # noqa: F401, PLC0415


def _greet(context: ReplContext) -> None:
    """Show the model, and the last messages of a resumed conversation."""
    length = context.backend.context_length
    size = f", {length:,} tokens of context" if length else ""
    context.console.note(f"{context.backend.name}{size}. /help lists commands, Ctrl-D leaves.")
    if context.conversation.entries:
        context.view.history(context.conversation)
        context.count_tokens()
