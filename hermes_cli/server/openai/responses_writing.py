"""A response as it is written: its items, and the events that tell of them.

Whole answers are written the same way, and their events thrown away: so both are the same answer.
"""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING

from msgspec import structs

from hermes_cli.generation import CallArguments, CallStarted, Content, Reasoning
from hermes_cli.server.errors import problem
from hermes_cli.server.named_events import event
from hermes_cli.server.openai.responses_items import OpenCall, OpenMessage, OpenReasoning
from hermes_cli.server.openai.responses_objects import Failure, Incomplete, usage
from hermes_cli.server.openai.usage import timings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hermes_cli.errors import HermesError
    from hermes_cli.generation import Done
    from hermes_cli.server.openai.responses_items import OpenItem
    from hermes_cli.server.openai.responses_objects import Item, ResponseObject, Status
    from hermes_cli.server.openai.turns import Sent, TurnSent


class Writing:
    """One response."""

    def __init__(self, response: ResponseObject, sent: TurnSent, *, summary: bool) -> None:
        """Nothing is written yet.

        Args:
            response: what is known of it before.
            sent: knows the log-probabilities.
            summary: reasoning is told as its summary.
        """
        self.response = response
        self._sent, self._summary = sent, summary
        self._items: list[Item] = []
        self._open: OpenItem | None = None
        self._numbers = itertools.count()
        self._begun = False

    def take(self, parts: Sequence[Sent], done: Done | None) -> bytes:
        """More of it, and its end; the events that tell of that."""
        if not parts and not done:
            return b""
        data = self._begin() + b"".join(map(self._part, parts))
        return data + self._end(done) if done else data

    def failed(self, error: HermesError) -> bytes:
        """It ends in the middle."""
        told = problem(error)
        code = {429: "rate_limit_exceeded", 500: "server_error"}.get(told.status, told.code or "server_error")
        data = self._begin() + self._close("incomplete")
        failure = Failure(code, told.message)
        self.response = structs.replace(self.response, status="failed", error=failure, output=self._items)
        return data + self._tell("response.failed", response=self.response)

    def _begin(self) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        kinds = ("response.created", "response.in_progress")
        return b"".join(self._tell(kind, response=self.response) for kind in kinds)

    def _part(self, part: Sent) -> bytes:
        """It goes into the item that is open, or begins another one."""
        item, data = self._open, b""
        if item is None or not item.takes(part):
            data = self._close("completed")
            self._open = item = self._opened(part)
            data += item.begin()
        if isinstance(part, CallStarted):
            return data
        return data + item.add(part.text, self._sent.logprobs(part) if isinstance(part, Content) else None)

    def _opened(self, part: Sent) -> OpenItem:
        index = len(self._items)
        if isinstance(part, Content):
            return OpenMessage(self._tell, index)
        if isinstance(part, Reasoning):
            return OpenReasoning(self._tell, index, summary=self._summary)
        if isinstance(part, CallArguments):
            raise TypeError("arguments without a call")
        return OpenCall(self._tell, index, part)

    def _close(self, status: Status) -> bytes:
        if self._open is None:
            return b""
        item, data = self._open.end(status)
        self._items.append(item)
        self._open = None
        return data

    def _end(self, done: Done) -> bytes:
        cut = done.reason == "length"
        status: Status = "incomplete" if cut else "completed"
        data = self._close(status)
        self.response = structs.replace(
            self.response,
            status=status,
            completed_at=None if cut else int(time.time()),
            incomplete_details=Incomplete("max_output_tokens") if cut else None,
            output=self._items,
            usage=usage(done),
            timings=timings([[done]]),
        )
        return data + self._tell(f"response.{status}", response=self.response)

    def _tell(self, kind: str, /, **fields: object) -> bytes:
        """One event."""
        return event(kind, {"sequence_number": next(self._numbers), **fields})
