"""One connection of a client, held to time limits that uvicorn does not have.

A head has to be whole soon after its first byte, or after the connection is made (slowloris); what a client does not
read must not pile up here for ever; and there are only so many connections at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    import asyncio


@dataclass(frozen=True)
class Patience:
    """How long a client may take, in seconds, and how many connections there may be."""

    head: float
    reading: float
    connections: int


class Connection(H11Protocol):
    """uvicorn's connection, with patience; made by `with_patience`."""

    patience: Patience
    _head_timer: asyncio.TimerHandle | None = None
    _reading_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there."""
        super().connection_made(transport)
        if len(self.connections) > self.patience.connections:
            transport.abort()
        else:
            self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """It has left."""
        self._stop_timers()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """It says something."""
        if self._between_requests and self._head_timer is None:
            self._expect_head()
        super().data_received(data)
        if not self._between_requests and self._head_timer:
            self._head_timer.cancel()
            self._head_timer = None

    def pause_writing(self) -> None:
        """It does not read as fast as is written."""
        super().pause_writing()
        if self._reading_timer is None:
            self._reading_timer = self.loop.call_later(self.patience.reading, self.transport.abort)

    def resume_writing(self) -> None:
        """It has read."""
        super().resume_writing()
        if self._reading_timer:
            self._reading_timer.cancel()
            self._reading_timer = None

    def send_400_response(self, msg: str) -> None:
        """It does not speak HTTP, or stopped doing so in the middle of an answer."""
        if self.conn.our_state in {h11.IDLE, h11.SEND_RESPONSE} and self._between_requests:
            super().send_400_response(msg)
        else:
            self.transport.abort()

    @property
    def _between_requests(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete  # type: ignore[redundant-expr]  # None at first

    def _expect_head(self) -> None:
        self._head_timer = self.loop.call_later(self.patience.head, self.transport.abort)

    def _stop_timers(self) -> None:
        for timer in (self._head_timer, self._reading_timer):
            if timer:
                timer.cancel()


def with_patience(patience: Patience) -> type[Connection]:
    """The class of connections that uvicorn is to make."""
    kind: dict[str, Any] = {"patience": patience}
    return type("PatientConnection", (Connection,), kind)
