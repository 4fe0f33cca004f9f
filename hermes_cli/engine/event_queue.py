"""The events of one request between who generates and who reads them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from hermes_cli.engine.protocol import TextEvent
from hermes_cli.errors import HermesError

if TYPE_CHECKING:
    from hermes_cli.engine.protocol import Done, Event, TokenLogprobs

MOST_PIECES = 256  # texts that wait as they came; more are joined


class EventQueue:
    """Texts wait merged into one, so that whoever reads slowly or never costs hardly more than the text itself."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._tokens = 0
        self._logprobs: list[TokenLogprobs] = []
        self._end: Done | HermesError | None = None
        self._news = asyncio.Event()

    @property
    def whole(self) -> bool:
        """Whether nothing will come any more."""
        return self._end is not None

    def put(self, event: Event | HermesError) -> None:
        """One more event, an error as the last."""
        if isinstance(event, TextEvent):
            self._texts.append(event.text)
            self._tokens += event.tokens
            self._logprobs += event.logprobs
            if len(self._texts) > MOST_PIECES:
                self._texts = ["".join(self._texts)]
        elif self._end is None:
            self._end = event
        self._news.set()

    async def next(self) -> Event:
        """Wait for the next event.

        Raises:
            HermesError: the one that was put.
        """
        while not self._texts:
            if isinstance(self._end, HermesError):
                raise self._end
            if self._end:
                return self._end
            self._news.clear()
            await self._news.wait()
        text = TextEvent("".join(self._texts), self._tokens, tuple(self._logprobs))
        self._texts, self._tokens, self._logprobs = [], 0, []
        return text
