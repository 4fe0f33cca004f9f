"""The conversation on a terminal: a line is read, and it is a command or a question. Errors are shown; it goes on."""

from __future__ import annotations

import signal
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from hermes_cli.chat.composition import FULL
from hermes_cli.chat.slash import command
from hermes_cli.chat.slash.registry import COMMANDS
from hermes_cli.chat.slash.settings import thinking
from hermes_cli.chat.view import speed
from hermes_cli.errors import ContextFullError, EngineDiedError, HermesError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hermes_cli.chat.conversation import TurnUsage
    from hermes_cli.chat.repl_context import ReplContext
    from hermes_cli.chat.terminal.keyboard import Keyboard


def converse(scene: ReplContext, keyboard: Keyboard) -> None:
    """Talk until the user leaves."""
    with _interruptible():
        while not scene.over:
            draft, scene.draft = scene.draft, ""
            line = keyboard.read(draft)
            if line is None:
                return
            if line.strip():
                _take(scene, line)


def _take(scene: ReplContext, line: str) -> None:
    """Do what a line asks for, whatever comes of it."""
    before = _told(scene)
    try:
        if command.is_command(line):
            command.run(scene, line, COMMANDS)
            if _told(scene) != before:
                count(scene)
        else:
            _ask(scene, command.message_of(line))
    except KeyboardInterrupt:
        scene.console.note("stopped")
    except EngineDiedError as error:
        scene.console.error(error)
        scene.console.note(
            "the conversation is kept, and the model is loaded again with your next message; /retry asks again"
        )
    except HermesError as error:
        scene.console.error(error)
    else:
        _say_how_full(scene)


def _ask(scene: ReplContext, text: str) -> None:
    files = list(scene.attached)
    try:
        scene.talk.ask(scene.question(text))
    except ContextFullError:
        scene.attached, scene.draft = files, text  # it was not said
        scene.console.note("/compact sums up older turns, /undo takes the last one back, /file none leaves files out")
        raise
    finally:
        spent = _spent(scene)
        if spent:  # reasoning is not read again
            scene.used = spent.prompt_tokens + spent.completion_tokens - spent.reasoning_tokens


def _told(scene: ReplContext) -> tuple[object, ...]:
    """What the prompt depends on."""
    conversation = scene.conversation
    return conversation.said, conversation.summary, conversation.manner, scene.partner, scene.talk.schemas


def _say_how_full(scene: ReplContext) -> None:
    """Say it before anything has to be refused, and what helps."""
    room = scene.partner.context
    if room and scene.used >= FULL * room and not scene.over:
        shift = "" if scene.conversation.manner.shift else "; at the end a message is refused, never cut"
        scene.console.warn(
            f"{scene.used:,} of {room:,} tokens of context are used ({scene.used / room:.0%}): "
            f"/compact sums up older turns{shift}."
        )


def count(scene: ReplContext) -> None:
    """Count what the conversation fills, where something else than an answer changed it."""
    conversation = scene.conversation
    counted = None
    if conversation.said:
        with suppress(HermesError):
            counted = scene.loop.run(scene.partner.count(conversation.messages, scene.talk.schemas, conversation.told))
    scene.used = counted or 0


def status(scene: ReplContext) -> str:
    """The line below the prompt: model, context, speed, reasoning."""
    room = scene.partner.context
    parts = [scene.partner.name]
    if room:
        parts.append(f"context {scene.used:,} of {room:,} tokens ({scene.used / room:.0%})")
    spent = _spent(scene)
    if spent and (rate := speed(spent.completion_tokens, spent.completion_seconds)):
        parts.append(rate)
    if scene.partner.reasons is not False:
        parts.append(f"think {thinking(scene.conversation.manner)}")
    if scene.attached:
        parts.append(f"with {', '.join(file.name for file in scene.attached)}")
    return " · ".join(parts)


def _spent(scene: ReplContext) -> TurnUsage | None:
    """What the model's last turn took."""
    return next((one.spent for one in reversed(scene.conversation.said) if one.spent), None)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C is a KeyboardInterrupt here: it ends what is going on, not the program."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
