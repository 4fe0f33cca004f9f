"""Work in threads beside the event loop; what cannot be cancelled is rationed, so that nobody takes all of them.

Small work and large work never wait for each other. There is one thread for large work: two would only take the
interpreter from each other, and from the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar
from weakref import WeakValueDictionary

T = TypeVar("T")

LARGE = 64 << 10  # bytes or characters from which on work is large; less takes some milliseconds
SMALL_OF_CLIENT, LARGE_OF_CLIENT = 2, 1  # threads that one client can have at once; of those for small work there are
# at least five (concurrent.futures)
_large = ThreadPoolExecutor(1, "large")
_turns: WeakValueDictionary[tuple[asyncio.AbstractEventLoop, str, bool], asyncio.Semaphore] = WeakValueDictionary()


async def in_turn(client: str, work: Callable[[], T], *, size: int = 0) -> T:
    """Return the result of work on so many bytes or characters, in a thread, when it is the client's turn."""
    loop, large = asyncio.get_running_loop(), size >= LARGE
    limit = LARGE_OF_CLIENT if large else SMALL_OF_CLIENT
    turns = _turns.setdefault((loop, client, large), asyncio.Semaphore(limit))
    await turns.acquire()
    running = loop.run_in_executor(_large if large else None, copy_context().run, work)

    def end(done: asyncio.Future[T]) -> None:
        turns.release()  # not before, even if nobody waits for the result any more
        if not done.cancelled():
            done.exception()  # whoever waits has it

    running.add_done_callback(end)
    return await asyncio.shield(running)
