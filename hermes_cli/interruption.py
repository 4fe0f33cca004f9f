"""Ending the wait for the next event of a generator from outside of its task, with an error of one's choice.

Cheaper than a timer or a task for each event, of which there are thousands in a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar

from hermes_cli.errors import HermesError

T = TypeVar("T")


class Interruption:
    """The possible interruption of one generator, whose events are taken with `next`."""

    def __init__(self) -> None:
        self._task: asyncio.Task[object] | None = None
        self._error: HermesError | None = None

    @property
    def is_waiting(self) -> bool:
        """Return whether the next event is being waited for."""
        return self._task is not None

    def interrupt(self, error: HermesError) -> None:
        """Raise an error where the next event is, or will be, waited for."""
        self._error = error
        if self._task:
            self._task.cancel()

    async def next(self, events: AsyncIterator[T]) -> T | None:
        """Return the next event, None at the end; raise the error of an interruption."""
        if self._error:
            raise self._error
        self._task = task = asyncio.current_task()
        try:
            return await anext(events, None)
        except asyncio.CancelledError:
            if self._error and not (task and task.uncancel()):  # nobody else wants the task to end
                raise self._error from None
            raise
        finally:
            self._task = None
