"""Where the coroutines of a conversation run: one at a time, and between them no event loop does.

So tools and questions to the user are ordinary calls: a tool may run an event loop of its own, and Ctrl-C ends it. In
a coroutine Ctrl-C cancels instead, since an exception in the middle of an event loop's work could get lost.
"""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine
    from typing import Self

T = TypeVar("T")

HEAD_START = 0.01  # seconds: a process is started in less


class EventLoop:
    """An event loop, to be used in `with` and in the main thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()

    def run(self, awaited: Awaitable[T]) -> T:
        """What comes of it. After Ctrl-C it is cancelled; SIGINT comes again when it has ended."""
        task = asyncio.ensure_future(awaited, loop=self._loop)
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
        """Start something that has others work for it, to `run` the rest of it later."""
        task = self._loop.create_task(coroutine)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody has to ask how it ended
        self.run(asyncio.wait({task}, timeout=HEAD_START))
        return task

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            left = asyncio.all_tasks(self._loop)
            for task in left:
                task.cancel()
            self.run(_ended(left))
        finally:
            self._loop.close()


async def _ended(tasks: set[asyncio.Task[Any]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()
