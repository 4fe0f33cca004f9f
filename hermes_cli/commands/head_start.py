"""An event loop and an engine's child, started before `hermes chat` imports the rest: imports take most of the time."""

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
        """Start nothing yet.

        Args:
            engine: start a child.
            verbose: show the child's log.
        """
        self.event_loop = EventLoop()
        self._engine, self._verbose = engine, verbose
        self._starting: asyncio.Task[Child] | None = None

    def child(self) -> Child:
        """Return the child that runs, or a new one if it has ended; `take` it, or it is ended here.

        Raises:
            EngineError: no process can be started.
        """
        child = self.event_loop.run(self._starting or self._start())
        return child if child.usable else self.event_loop.run(self._start())

    def take(self) -> Child:
        """Return the child, which belongs to the caller then."""
        child, self._starting = self.child(), None
        return child

    def _start(self) -> asyncio.Task[Child]:
        self._starting = self.event_loop.begin(Child.start(verbose=self._verbose))
        return self._starting

    def __enter__(self) -> Self:
        self.event_loop.__enter__()
        if self._engine:
            self._start()
        return self

    def __exit__(self, *error: object) -> None:
        try:
            if self._starting:
                self.event_loop.run(_end(self._starting))
        finally:
            self.event_loop.__exit__(*error)


async def _end(starting: asyncio.Task[Child]) -> None:
    """End a child that nobody needs; one that could not be started has ended."""
    with suppress(HermesError):
        child = await starting
        child.kill()
        await child.gone()
