"""Turns as the model wrote them, by the ids of their calls.

Clients send a conversation back in their own words: arguments parsed and written anew, white space gone. The model then
reads another text than it wrote, and the KV cache of that turn is lost. So its own text is kept and given back.
"""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hermes_cli.prompting.messages import Message

MOST_TURNS = 1000
MOST_CHARACTERS = 8_000_000


class RawTurnCache:
    """The latest turns with calls, least recently used ones dropped first. Safe to share between threads."""

    def __init__(self, turns: int = MOST_TURNS, characters: int = MOST_CHARACTERS) -> None:
        self._turns: OrderedDict[str, tuple[Message, str]] = OrderedDict()
        self._most_turns, self._most_characters = turns, characters
        self._characters = 0
        self._lock = Lock()

    def remember(self, message: Message, text: str) -> None:
        """Keep a turn.

        Args:
            message: as it was given to the client; turns without calls have no id and are not kept.
            text: all that the model generated in it, tags and reasoning included, without the token that ended it.
        """
        if not message.tool_calls or len(text) > self._most_characters:
            return
        with self._lock:
            self._forget(message.tool_calls[0].id)
            self._turns[message.tool_calls[0].id] = message, text
            self._characters += len(text)
            while len(self._turns) > self._most_turns or self._characters > self._most_characters:
                self._forget(next(iter(self._turns)))

    def recall(self, message: Message) -> str | None:
        """Return the turn as the model wrote it, None if that is not known or the client changed it."""
        if not message.tool_calls:
            return None
        with self._lock:
            known = self._turns.get(message.tool_calls[0].id)
            if known is None or not _same(known[0], message):
                return None
            self._turns.move_to_end(message.tool_calls[0].id)
            return known[1]

    def _forget(self, key: str) -> None:
        if key in self._turns:
            self._characters -= len(self._turns.pop(key)[1])


def _same(kept: Message, sent: Message) -> bool:
    """Return whether both have the same calls in the same order, and the same text beside them, or none."""
    words = (sent.content or "").strip()
    return (
        [(call.id, call.name, call.arguments) for call in kept.tool_calls]
        == [(call.id, call.name, call.arguments) for call in sent.tool_calls]
    ) and words in {"", (kept.content or "").strip()}
