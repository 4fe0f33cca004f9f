"""A bounded queue between two threads that Ctrl-C leaves in order.

`queue.Queue` is not made for that: an exception in the middle of its Python code can leave its lock taken, or a wake-up
lost, and then the program hangs on its way out. `SimpleQueue` is one piece of C; two of them make a bound.
"""

from __future__ import annotations

from queue import SimpleQueue
from typing import Generic, TypeVar

Item = TypeVar("Item")


class BoundedQueue(Generic[Item]):
    """Holds so many items at most."""

    def __init__(self, size: int) -> None:
        self._items: SimpleQueue[Item] = SimpleQueue()
        self._room: SimpleQueue[None] = SimpleQueue()
        for _ in range(size):
            self.make_room()

    def put(self, item: Item) -> None:
        """Hand over, once there is room."""
        self._room.get()
        self._items.put(item)

    def get(self, timeout: float | None = None) -> Item:
        """Take the next, once there is one.

        Raises:
            queue.Empty: there was none for `timeout` seconds.
        """
        item = self._items.get(timeout=timeout)
        self.make_room()
        return item

    def make_room(self) -> None:
        """Let one more in."""
        self._room.put(None)
