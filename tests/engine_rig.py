"""What tests of the engine share: a run that may leave nothing behind, and the usual questions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import psutil
from conftest import HANG

from hermes_cli.engine.embedded.engine import EmbeddedEngine
from hermes_cli.engine.embedded.messages import EngineOptions
from hermes_cli.engine.protocol import Event, TextEvent
from hermes_cli.engine.request import GenerationRequest
from hermes_cli.engine.restart_backoff import RESTART_DELAYS
from hermes_cli.planning.load_plan import LoadPlan
from hermes_cli.planning.memory import ContextSettings

T = TypeVar("T")

PLAN = LoadPlan(ContextSettings(1024))
PATH = Path("some.gguf")


def run(test: Coroutine[Any, Any, T]) -> T:
    """Run a test that must not hang, and that must leave no process, task or file open."""

    async def whole() -> T:
        result = await asyncio.wait_for(test, HANG)
        assert len(asyncio.all_tasks()) == 1
        return result

    before = open_files()
    result = asyncio.run(whole())
    assert not [_command(one) for one in children()]
    assert open_files() <= before
    return result


def open_files() -> int:
    """Open descriptors of this process, where the system tells."""
    return psutil.Process().num_fds() if hasattr(psutil.Process, "num_fds") else 0


@asynccontextmanager
async def engine(
    options: EngineOptions | None = None,
    *,
    path: Path = PATH,
    plan: LoadPlan = PLAN,
    delays: Sequence[float] = RESTART_DELAYS,
) -> AsyncIterator[EmbeddedEngine]:
    """An engine that is closed in the end."""
    made = EmbeddedEngine(path, plan, options, restart_delays=delays)
    try:
        yield made
    finally:
        await made.close()


async def answer(of: EmbeddedEngine, *prompt: str) -> list[Event]:
    """All events of one request."""
    return [event async for event in of.generate(GenerationRequest(prompt))]


def text_of(events: Sequence[Event]) -> str:
    """What they say together."""
    return "".join(event.text for event in events if isinstance(event, TextEvent))


async def pid_of(of: EmbeddedEngine) -> int:
    """The process that has the model now."""
    await of.load()
    (only,) = children()
    return only.pid


async def until(true: Callable[[], object]) -> None:
    """Wait for something that nobody announces."""
    deadline = time.monotonic() + HANG
    while not true():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def children() -> list[psutil.Process]:
    """Processes of this one, but for those that are kept, whatever engines do: sandboxes, and the tests' zygote."""
    kept = ("hermes_cli.prompting.sandbox", "hermes_zygote")
    return [one for one in psutil.Process().children() if not any(name in " ".join(_command(one)) for name in kept)]


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:  # it has ended, and nobody asked how
        return []
