"""The state that slash commands can read and change."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hermes_cli.chat.attachments import with_attachments
from hermes_cli.errors import HermesError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hermes_cli.chat.agent_loop import AgentLoop
    from hermes_cli.chat.attachments import Attachment
    from hermes_cli.chat.backend import ChatBackend
    from hermes_cli.chat.conversation import Conversation, TurnUsage
    from hermes_cli.chat.sessions.store import CurrentSession
    from hermes_cli.chat.terminal.terminal_view import TerminalView
    from hermes_cli.chat.tools.toolbox import Toolbox
    from hermes_cli.console import Console
    from hermes_cli.event_loop import EventLoop


@dataclass
class ReplContext:
    """A conversation on a terminal.

    Attributes:
        agent: conversation, backend and tools.
        open_backend: loads another model, by name.
        model_names: returns the models that can be loaded.
        attachments: files that are sent with the next message.
        draft: text that the next line begins with.
        used_tokens: tokens of the context that the conversation fills, as counted last.
        is_over: the user leaves.
    """

    agent: AgentLoop
    view: TerminalView
    console: Console
    event_loop: EventLoop
    toolbox: Toolbox
    session: CurrentSession
    open_backend: Callable[[str], ChatBackend]
    model_names: Callable[[], Sequence[str]]
    attachments: list[Attachment] = field(default_factory=list)
    draft: str = ""
    used_tokens: int = 0
    is_over: bool = False

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
