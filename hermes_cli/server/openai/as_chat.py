"""Requests of other APIs, understood as chats: so all of them mean the same, and are refused for the same reasons.

What is refused is named as the client called it: `messages[3].tool_calls[0].arguments` of the chat may be
`input[5].arguments` of what was sent.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hermes_cli.errors import UsageError
from hermes_cli.server.openai.translate import chat_order

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hermes_cli.generation import TurnRequest
    from hermes_cli.server.openai.schemas import ChatRequest
    from hermes_cli.server.openai.translate import ChatOrder
    from hermes_cli.server.pool import Served


@dataclass(frozen=True)
class Names:
    """What parts of a chat are called in another API: by the longest path that is known, the rest is the same.

    Attributes:
        theirs: by path.
        api: its name, for hints.
    """

    theirs: Mapping[str, str]
    api: str

    @contextmanager
    def told(self) -> Iterator[None]:
        """What is refused inside is named as the client knows it.

        Raises:
            UsageError: what was raised inside.
        """
        try:
            yield
        except UsageError as error:
            raise self.renamed(error) from None

    def renamed(self, error: UsageError) -> UsageError:
        """The same error."""
        if not error.field:
            return error
        hint = error.hint.replace("OpenAI's Chat Completions", self.api)
        return UsageError(error.reason, field=self.of(error.field), hint=hint)

    def of(self, path: str) -> str:
        """A path as the client knows it."""
        flat = path.replace(".function.", ".")
        for end in range(len(flat), 0, -1):
            if flat[end : end + 1] in {"", ".", "["} and flat[:end] in self.theirs:
                return self.theirs[flat[:end]] + flat[end:]
        return flat


@dataclass(frozen=True)
class Ordered:
    """A chat that another API asks for."""

    chat: ChatOrder
    names: Names

    def turn(self, served: Served) -> TurnRequest:
        """What a model is asked.

        Raises:
            UsageError: this model cannot do it.
        """
        with self.names.told():
            (turn,) = self.chat.turns(served)
        return turn


async def ordered(chat: ChatRequest, client: str, names: Names) -> Ordered:
    """What a chat asks for.

    Args:
        chat: as it was made of the request.
        client: who asks.
        names: what its parts were called in the request.

    Raises:
        UsageError: something makes no sense, or cannot be honoured.
    """
    with names.told():
        return Ordered(await chat_order(chat, client), names)
