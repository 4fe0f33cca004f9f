"""Where a conversation is kept, which may change on the way: nowhere, in a new session, or in one from earlier."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hermes_cli.chat.sessions.session_file import SessionFile
from hermes_cli.chat.sessions.store import find, latest, sessions
from hermes_cli.errors import HermesError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from hermes_cli.chat.conversation import Conversation
    from hermes_cli.chat.sessions.store import SessionInfo


class CurrentSession:
    """The session of the conversation that goes on; close it."""

    def __init__(self, folder: Path, warn: Callable[[str], None]) -> None:
        """Nothing is kept yet.

        Args:
            folder: where sessions are.
            warn: is told what goes wrong with them.
        """
        self._folder, self._warn = folder, warn
        self._session: SessionFile | None = None

    @property
    def name(self) -> str | None:
        """Of the session; None if there is none, or nothing in it."""
        return self._session.name if self._session else None

    @property
    def model(self) -> str:
        """That the session was with last; empty if nobody knows."""
        return self._session.model if self._session else ""

    def begin(self, conversation: Conversation, model: str, name: str | None = None) -> None:
        """Keep a conversation in a session of its own.

        Raises:
            UsageError: it cannot be called so, or another one is.
        """
        begun = SessionFile.create(self._folder, conversation, model, self._warn, name)
        self.close()
        self._session = begun

    def load(self, name: str | None) -> Conversation:
        """Go on with a session from now on; None is the latest.

        Raises:
            NotFoundError: there is none of this name, or none at all.
            UsageError: it is open already, here or in another chat.
            HermesError: it cannot be read.
        """
        path = latest(self._folder).path if name is None else find(self._folder, name).path
        if self._session and self._session.path == path:
            raise UsageError(f"{self.name} is the session that you are in.", hint="/list shows the others.")
        session, conversation = SessionFile.open(path, self._warn)
        self.close()
        self._session = session
        return conversation

    def save(self, name: str | None, conversation: Conversation, model: str) -> str:
        """Give the session a name, or begin one where nothing was to be kept; what it is called.

        Raises:
            UsageError: it cannot be called so, or another one is.
            HermesError: there is nothing to save, or the disk refuses.
        """
        if not conversation.said:
            raise HermesError("there is nothing to save yet.", hint="what you say is saved as you say it.")
        if self._session is None:
            self.begin(conversation, model, name)
        elif name is not None:
            self._session.rename(name)
        if self.name is None:
            raise HermesError("the session could not be written.", hint="make room on the disk, and try again.")
        return self.name

    def listed(self) -> Sequence[SessionInfo]:
        """All of them, the latest first."""
        return sessions(self._folder)

    def close(self) -> None:
        """Let others open the session."""
        if self._session:
            self._session.close()
            self._session = None
