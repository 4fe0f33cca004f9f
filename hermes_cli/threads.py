"""Work in threads beside the event loop; what cannot be cancelled is rationed, so that nobody takes all of them.

Small work, large work and grammars never wait for each other. There is one thread for large work: two would only take
the interpreter from each other, and from the event loop. Grammars can take seconds, whatever their size.
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
SMALL_OF_CLIENT, LARGE_OF_CLIENT, GRAMMARS_OF_CLIENT = 2, 1, 1  # threads that one client can have at once; of those
# for small work there are at least five (concurrent.futures)
_large, _grammars = ThreadPoolExecutor(1, "large"), ThreadPoolExecutor(2, "grammars")
_turns: WeakValueDictionary[tuple[object, ...], asyncio.Semaphore] = WeakValueDictionary()


async def in_turn(
    client: str,  # who has a ration of the threads
    work: Callable[[], T],  # done in the thread, with the context variables of here
    *,
    size: int = 0,  # bytes or characters that it works on
    grammar: bool = False,  # it compiles one
) -> T:
    """Return the result of work, in a thread, when it is the client's turn."""
    loop = asyncio.get_running_loop()
    executor, limit = (
        (_grammars, GRAMMARS_OF_CLIENT)
        if grammar
        else (_large, LARGE_OF_CLIENT)
        if size >= LARGE
        else (None, SMALL_OF_CLIENT)
    )
    turns = _turns.setdefault((loop, client, executor), asyncio.Semaphore(limit))
    await turns.acquire()
    running = loop.run_in_executor(executor, copy_context().run, work)

    def end(done: asyncio.Future[T]) -> None:
        turns.release()  # not before, even if nobody waits for the result any more
        if not done.cancelled():
            done.exception()  # whoever waits has it

    running.add_done_callback(end)
    return await asyncio.shield(running)
