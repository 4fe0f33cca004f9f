"""The conversation on a terminal: each line is a command or a question. Errors are shown, and it goes on."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hermes_cli.chat.attachments import Attachment, unread_files, with_attachments
from hermes_cli.chat.context_usage import NEARLY_FULL
from hermes_cli.chat.conversation import Conversation, TurnUsage
from hermes_cli.chat.slash.command import LEAVING, is_command, run_command, unescaped
from hermes_cli.chat.slash.settings import thinking_label
from hermes_cli.chat.view import tokens_per_second
from hermes_cli.errors import ContextFullError, EngineDiedError, HermesError
from hermes_cli.event_loop import EventLoop

if TYPE_CHECKING:
    from hermes_cli.chat.agent_loop import AgentLoop
    from hermes_cli.chat.backend import ChatBackend
    from hermes_cli.chat.sessions.store import CurrentSession
    from hermes_cli.chat.terminal.keyboard import Keyboard
    from hermes_cli.chat.terminal.terminal_view import TerminalView
    from hermes_cli.console import Console
    from hermes_cli.tools.toolbox import Toolbox


@dataclass
class ReplContext:
    """The state of a conversation on a terminal, which slash commands read and change."""

    agent: AgentLoop  # conversation, backend and tools
    view: TerminalView
    console: Console
    event_loop: EventLoop
    toolbox: Toolbox
    session: CurrentSession
    open_backend: Callable[[str], ChatBackend]  # loads another model, by name
    model_names: Callable[[], Sequence[str]]  # returns the models that can be loaded
    attachments: list[Attachment] = field(default_factory=list)  # files that are sent with the next message
    draft: str = ""  # text that the next line begins with
    used_tokens: int = 0  # tokens of the context that the conversation fills, as counted last
    is_over: bool = False  # the user leaves

    @property
    def conversation(self) -> Conversation:
        """The conversation."""
        return self.agent.conversation

    @property
    def backend(self) -> ChatBackend:
        """The backend that answers it."""
        return self.agent.backend

    @property
    def last_usage(self) -> TurnUsage | None:
        """Usage of the model's last turn."""
        return next((entry.usage for entry in reversed(self.conversation.entries) if entry.usage), None)

    def take_attachments(self, text: str) -> str:
        """Return a message with the attachments above it, which are used up by that."""
        files, self.attachments = self.attachments, []
        return with_attachments(text, files)

    def count_tokens(self) -> None:
        """Count the tokens of the prompt, after something else than an answer changed it."""
        conversation, tokens = self.conversation, None
        if conversation.entries:
            with suppress(HermesError):
                tokens = self.event_loop.run(
                    self.backend.count_tokens(conversation.messages, self.agent.schemas, conversation.prompt_options)
                )
        self.used_tokens = tokens or 0

    def print(self, line: str = "") -> None:
        """Print a line of a command's output."""
        self.console.text(f"{line}\n")


def run_repl(context: ReplContext, keyboard: Keyboard) -> None:
    """Read and handle lines until the user leaves. Ctrl-C ends what is going on, and not the program."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # raises KeyboardInterrupt
    try:
        while not context.is_over:
            draft, context.draft = context.draft, ""
            line = keyboard.read(draft)
            if line is None or line.strip().lower() in LEAVING:
                return
            if line.strip():
                handle_line(context, line)
    finally:
        signal.signal(signal.SIGINT, handler)


def handle_line(context: ReplContext, line: str) -> None:
    """Run a command or ask a question, and show what goes wrong."""
    before = _prompt_inputs(context)
    try:
        if is_command(line):
            run_command(context, line)
            if _prompt_inputs(context) != before:
                context.count_tokens()
        else:
            for name in unread_files(line):
                context.console.note(f"@{name} is sent as it stands; /file {name} sends the file")
            _ask(context, unescaped(line))
    except KeyboardInterrupt:
        if is_command(line):
            context.console.note("stopped")
        context.count_tokens()
    except EngineDiedError as error:
        context.console.error(error)
        context.console.note(
            "the conversation is kept, and the model is loaded again with your next message; /retry asks again"
        )
    except HermesError as error:
        context.console.error(error)
    else:
        _warn_if_nearly_full(context)


def status_line(context: ReplContext) -> str:
    """Return the line below the prompt: model, context, speed, reasoning, attachments."""
    parts = [context.backend.name]
    if length := context.backend.context_length:
        used = context.used_tokens
        parts.append(f"context {used:,} of {length:,} tokens ({used / length:.0%})")
    usage = context.last_usage
    if usage and (speed := tokens_per_second(usage.completion_tokens, usage.completion_seconds)):
        parts.append(speed)
    if context.backend.supports_reasoning is not False:
        parts.append(f"think {thinking_label(context.conversation.options)}")
    if context.attachments:
        parts.append(f"with {', '.join(file.name for file in context.attachments)}")
    return " · ".join(parts)


def _ask(context: ReplContext, text: str) -> None:
    attachments = list(context.attachments)
    try:
        context.agent.ask(context.take_attachments(text))
    except ContextFullError:
        context.attachments, context.draft = attachments, text  # the message was not added
        context.console.note("/compact sums up older turns, /undo takes the last one back, /file none leaves files out")
        raise
    finally:
        usage = context.last_usage
        if usage:  # reasoning is not in the next prompt
            context.used_tokens = usage.prompt_tokens + usage.completion_tokens - usage.reasoning_tokens


def _prompt_inputs(context: ReplContext) -> tuple[object, ...]:
    """Return all that the tokens of the prompt depend on."""
    conversation = context.conversation
    return conversation.entries, conversation.summary, conversation.options, context.backend, context.agent.schemas


def _warn_if_nearly_full(context: ReplContext) -> None:
    used, length = context.used_tokens, context.backend.context_length
    if length and used >= NEARLY_FULL * length and not context.is_over:
        shift = "" if context.conversation.options.shift else "; at the end a message is refused, never cut"
        context.console.warn(
            f"{used:,} of {length:,} tokens of context are used ({used / length:.0%}): "
            f"/compact sums up older turns{shift}."
        )
