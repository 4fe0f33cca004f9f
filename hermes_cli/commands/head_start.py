"""What `hermes chat` begins before it imports anything else, since most of the time until the first word is imports."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from hermes_cli.chat.event_loop import EventLoop
from hermes_cli.engine.embedded.child import Child
from hermes_cli.errors import HermesError

if TYPE_CHECKING:
    import asyncio
    from typing import Self


class Prewarm:
    """An event loop, and a child that gets ready to be an engine; to be used in `with`, which ends both."""

    def __init__(self, *, engine: bool, verbose: bool) -> None:
        """Nothing is begun yet.

        Args:
            engine: there will be one.
            verbose: its child shows llama.cpp's log.
        """
        self.loop = EventLoop()
        self._engine, self._verbose = engine, verbose
        self._child: asyncio.Task[Child] | None = None

    def child(self) -> asyncio.Task[Child]:
        """The child, which belongs to who asks; the next time another one."""
        child = self._child or self._begin()
        self._child = None
        return child

    def ready(self) -> None:
        """Have a child get ready for when it is asked for."""
        if self._child is None:
            self._child = self._begin()

    def _begin(self) -> asyncio.Task[Child]:
        return self.loop.begin(Child.start(verbose=self._verbose))

    def __enter__(self) -> Self:
        self.loop.__enter__()
        if self._engine:
            self.ready()
        return self

    def __exit__(self, *error: object) -> None:
        try:
            if self._child:
                self.loop.run(_ended(self._child))
        finally:
            self.loop.__exit__(*error)


async def _ended(starting: asyncio.Task[Child]) -> None:
    """End a child that nobody needs; one that could not be started has ended."""
    with suppress(HermesError):
        child = await starting
        child.kill()
        await child.gone()
