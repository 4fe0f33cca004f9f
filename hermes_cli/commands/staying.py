"""`hermes chat` without a question: a conversation on the terminal."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from hermes_cli import paths
from hermes_cli.chat.repl import converse, count, status
from hermes_cli.chat.scene import Scene
from hermes_cli.chat.slash.all import COMMANDS
from hermes_cli.chat.slash.choices import choices
from hermes_cli.chat.terminal.keyboard import Keyboard
from hermes_cli.chat.terminal.screen import TerminalView
from hermes_cli.commands.stage import set_stage

if TYPE_CHECKING:
    from hermes_cli.commands.opening import How
    from hermes_cli.commands.stage import Wish
    from hermes_cli.console import Console

HISTORY = "chat-history"  # of what was typed, in the folder of data


def stay(wish: Wish, how: How, console: Console) -> None:
    """Talk until the user leaves.

    Raises:
        HermesError: there is nobody to talk with, or a session, tool or server is not there.
    """
    view = TerminalView(console, hide_thinking=wish.hide_thinking)
    with ExitStack() as stack:
        stage = set_stage(wish, how, console, stack, lambda _: view, stays=True)
        if stage.toolbox is None or stage.records is None:
            raise TypeError("a conversation has tools and records")
        scene = Scene(
            stage.talk, view, console, stage.loop, stage.toolbox, stage.records, stage.source.open, stage.source.names
        )
        summaries = {one.name: one.summary for one in COMMANDS.values()}
        keyboard = Keyboard(paths.data_dir() / HISTORY, lambda: status(scene), choices(scene), summaries)
        stage.asker.ask = keyboard.ask
        _greet(scene)
        converse(scene, keyboard)
        if name := stage.records.name:
            console.note(f"saved as {name}; hermes chat --resume {name} goes on")


def _greet(scene: Scene) -> None:
    """Who answers, and what was said before."""
    context = scene.partner.context
    room = f", {context:,} tokens of context" if context else ""
    scene.console.note(f"{scene.partner.name}{room}. /help lists commands, Ctrl-D leaves.")
    if scene.conversation.said:
        scene.view.history(scene.conversation)
        count(scene)
