"""All that the commands of a conversation can reach, and what they may change for the next line."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hermes_cli.chat.attachments import Attachment, with_files

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hermes_cli.chat.agent_loop import AgentLoop
    from hermes_cli.chat.backend import ChatBackend
    from hermes_cli.chat.conversation import Conversation
    from hermes_cli.chat.event_loop import EventLoop
    from hermes_cli.chat.sessions.records import CurrentSession
    from hermes_cli.chat.terminal.terminal_view import TerminalView
    from hermes_cli.chat.tools.toolbox import Toolbox
    from hermes_cli.console import Console


@dataclass
class ReplContext:
    """A conversation on a terminal.

    Attributes:
        talk: the conversation itself, with whom, and by which tools.
        view: shows it.
        console: for what is said about it.
        loop: where coroutines run.
        toolbox: the tools.
        records: where it is saved.
        open_partner: loads another model, by name.
        model_names: those that may be switched to.
        attached: files that go with the next message.
        draft: what the next line begins with.
        used: tokens of the context that the conversation fills, as counted last.
        over: the user wants to leave.
    """

    talk: AgentLoop
    view: TerminalView
    console: Console
    loop: EventLoop
    toolbox: Toolbox
    records: CurrentSession
    open_partner: Callable[[str], ChatBackend]
    model_names: Callable[[], Sequence[str]]
    attached: list[Attachment] = field(default_factory=list)
    draft: str = ""
    used: int = 0
    over: bool = False

    @property
    def conversation(self) -> Conversation:
        """What was said."""
        return self.talk.conversation

    @property
    def partner(self) -> ChatBackend:
        """Who answers."""
        return self.talk.partner

    def question(self, text: str) -> str:
        """A message with the files that go with it, which are used up by that."""
        files, self.attached = self.attached, []
        return with_files(text, files)

    def show(self, line: str = "") -> None:
        """A line of what a command tells."""
        self.console.text(f"{line}\n")
