"""`hermes chat` without a question: a conversation on the terminal."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from hermes_cli import paths
from hermes_cli.commands.stage import set_stage

if TYPE_CHECKING:
    from hermes_cli.chat.backend import ChatBackend
    from hermes_cli.chat.repl_context import ReplContext
    from hermes_cli.chat.terminal.terminal_view import TerminalView
    from hermes_cli.commands.head_start import Prewarm
    from hermes_cli.commands.opening import LoadOptions
    from hermes_cli.commands.stage import Wish
    from hermes_cli.console import Console

HISTORY = "chat-history"  # of what was typed, in the folder of data


def stay(wish: Wish, how: LoadOptions, console: Console, start: Prewarm) -> None:
    """Talk until the user leaves.

    Raises:
        HermesError: there is nobody to talk with, or a session, tool or server is not there.
    """
    views: list[TerminalView] = []

    def view(_: ChatBackend) -> TerminalView:
        from hermes_cli.chat.terminal.terminal_view import TerminalView  # noqa: PLC0415 - imported meanwhile

        views.append(TerminalView(console, hide_thinking=wish.hide_thinking))
        return views[0]

    with ExitStack() as stack:
        stage = set_stage(wish, how, console, start, stack, view, stays=True, meanwhile=_import)
        if stage.toolbox is None or stage.session is None:
            raise TypeError("a conversation has tools and a session")
        from hermes_cli.chat.repl import run_repl, status_line  # noqa: PLC0415 - imported meanwhile
        from hermes_cli.chat.repl_context import ReplContext  # noqa: PLC0415
        from hermes_cli.chat.slash.registry import COMMANDS, completions  # noqa: PLC0415
        from hermes_cli.chat.terminal.keyboard import Keyboard  # noqa: PLC0415

        source = stage.source
        context = ReplContext(
            stage.agent, views[0], console, stage.event_loop, stage.toolbox, stage.session, source.open, source.names
        )
        summaries = {command.name: command.summary for command in COMMANDS.values()}
        keyboard = Keyboard(paths.data_dir() / HISTORY, lambda: status_line(context), completions(context), summaries)
        stage.asker.ask = keyboard.ask
        _greet(context)
        run_repl(context, keyboard)
        if name := stage.session.name:
            console.note(f"saved as {name}; hermes chat --resume {name} goes on")


def _import() -> None:
    """What a conversation needs, while other processes get ready: 0.2 s."""
    import hermes_cli.chat.repl  # noqa: PLC0415
    import hermes_cli.chat.repl_context  # noqa: PLC0415
    import hermes_cli.chat.slash.registry  # noqa: PLC0415
    import hermes_cli.chat.terminal.line_editor  # noqa: PLC0415
    import hermes_cli.chat.terminal.terminal_view  # noqa: F401, PLC0415


def _greet(context: ReplContext) -> None:
    """Show the model, and the last messages of a resumed conversation."""
    length = context.backend.context_length
    size = f", {length:,} tokens of context" if length else ""
    context.console.note(f"{context.backend.name}{size}. /help lists commands, Ctrl-D leaves.")
    if context.conversation.entries:
        context.view.history(context.conversation)
        context.count_tokens()
