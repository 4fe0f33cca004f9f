"""Runs the coroutines of a conversation, one at a time; between them no event loop runs.

So tools and questions to the user are ordinary calls: a tool may run an event loop of its own, and Ctrl-C ends it. In
a coroutine Ctrl-C cancels instead, since an exception in the middle of an event loop's work could get lost.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Coroutine
from typing import Any, Self, TypeVar

T = TypeVar("T")

HEAD_START = 0.002  # seconds: enough for the first steps, which start a process or send a request


class EventLoop:
    """An asyncio event loop, to be used in `with` and in the main thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()

    def run(self, awaitable: Awaitable[T]) -> T:
        """Return the result of an awaitable. Ctrl-C cancels it; SIGINT is raised again when it has ended."""
        task = asyncio.ensure_future(awaitable, loop=self._loop)
        interrupted = False

        def interrupt(*_: object) -> None:
            nonlocal interrupted
            interrupted = True
            self._loop.call_soon_threadsafe(task.cancel)

        before = signal.signal(signal.SIGINT, interrupt)
        try:
            return self._loop.run_until_complete(task)
        finally:
            signal.signal(signal.SIGINT, before)
            if interrupted:
                signal.raise_signal(signal.SIGINT)

    def begin(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start a coroutine that has other processes work for it; `run` its task later."""
        task = self._loop.create_task(coroutine)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody need ask how it ended
        self.run(asyncio.wait({task}, timeout=HEAD_START))
        return task

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            tasks = asyncio.all_tasks(self._loop)
            for task in tasks:
                task.cancel()
            self.run(_wait_for_end(tasks))
        finally:
            self._loop.close()


async def _wait_for_end(tasks: set[asyncio.Task[Any]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()
