"""Engines that hermes starts itself, on a program that fails in each way (tests/dummy_engine.py)."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest
from conftest import HANG, REPOSITORY, WaitFor, eventually
from hermes_zygote import ForkedProcess, zygote

from hermes_cli.engine.protocol import Done, Event
from hermes_cli.engine.request import GenerationRequest
from hermes_cli.engine.upstream import engine as upstream_engine
from hermes_cli.engine.upstream import run_folder
from hermes_cli.engine.upstream.engine_process import EngineCommand, Limits
from hermes_cli.engine.upstream.supervised_engine import SupervisedEngine
from hermes_cli.errors import EngineDiedError, EngineError, NotFoundError

DUMMY = REPOSITORY / "tests" / "dummy_engine.py"


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder for sockets, whose names may not be long."""
    monkeypatch.setenv("HERMES_LLM_CACHE_DIR", str(tmp_path / "cache"))
    with TemporaryDirectory() as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield Path(folder)


@pytest.fixture
def pids(tmp_path: Path) -> Iterator[Callable[[], list[int]]]:
    """The processes of the dummy: its front and its worker. None is left in the end."""
    file = tmp_path / "pids"
    yield lambda: [int(word) for word in file.read_text().split()]
    if file.exists():
        assert not any(map(alive, (int(word) for word in file.read_text().split())))


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def command(tmp_path: Path, how: str = "well") -> EngineCommand:
    words = (sys.executable, str(DUMMY), "--host", "{socket}")
    variables = {"DUMMY_START": how, "DUMMY_PIDS": str(tmp_path / "pids")}
    return EngineCommand("llama-server", words, variables, activity=("/slots", ""), computes_here=True)


def engine(tmp_path: Path, how: str = "well", **limits: float) -> SupervisedEngine:
    return SupervisedEngine(command(tmp_path, how), delays=(0.0, 0.1), limits=Limits(**limits))


@asynccontextmanager
async def closing(engine: SupervisedEngine) -> AsyncIterator[SupervisedEngine]:
    try:
        yield engine
    finally:
        await engine.close()


async def ask(engine: SupervisedEngine, prompt: str) -> list[Event]:
    async with aclosing(engine.generate(GenerationRequest((prompt,), max_tokens=9))) as events:
        return [event async for event in events]


def test_it_is_started_asked_and_ended(
    tmp_path: Path, runtime: Path, pids: Callable[[], list[int]], wait_for: WaitFor
) -> None:
    async def run() -> None:
        async with closing(engine(tmp_path)) as started:
            assert (await started.stats()).state == "unloaded"
            *texts, _ = await ask(started, "hi")
            assert "".join(event.text for event in texts if not isinstance(event, Done)) == "ok"
            [folder] = (runtime / "hermes-llm").iterdir()
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            assert all(map(alive, pids()))
            stats = await started.stats()
            assert (stats.state, stats.requests, stats.restarts) == ("ready", 1, 0)
            assert stats.rss_bytes > 10**6
            await started.unload()
            assert not any(map(alive, pids()))
            assert (await started.stats()).requests == 1
            await ask(started, "again")
        assert not list((runtime / "hermes-llm").iterdir())

    wait_for(run())


@pytest.mark.parametrize(
    ("prompt", "said"),
    [("die", "was ended (Killed) while it worked on this"), ("hang", "hung: nothing came for 2 seconds while")],
)
def test_a_request_ends_with_the_cause_and_the_next_one_works(
    tmp_path: Path, pids: Callable[[], list[int]], wait_for: WaitFor, prompt: str, said: str
) -> None:
    async def run() -> None:
        async with closing(engine(tmp_path, stalled=2.0)) as started:
            await started.load()
            before = pids()
            with pytest.raises(EngineDiedError) as caught:
                await ask(started, prompt)
            assert said in caught.value.message
            started.limits = Limits()  # on a busy machine an answer takes its time
            assert await ask(started, "hi")
            assert not any(map(alive, before))
            assert (await started.stats()).restarts == 1

    wait_for(run())


@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_is_killed_while_nobody_asks(
    tmp_path: Path, pids: Callable[[], list[int]], wait_for: WaitFor, victim: int
) -> None:
    """The front is missed at once; a worker when the front says so."""

    async def run() -> None:
        async with closing(engine(tmp_path)) as started:
            await ask(started, "sick" if victim else "hi")
            before = pids()
            os.kill(before[victim], signal.SIGKILL)
            while pids() == before or (await started.stats()).state != "ready":  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.05)
            assert not any(map(alive, before))
            assert await ask(started, "hi")

    wait_for(asyncio.wait_for(run(), HANG))


def test_a_heartbeat_notices_that_a_node_is_gone_while_nobody_asks(
    tmp_path: Path, pids: Callable[[], list[int]], wait_for: WaitFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends this engine as it ends one on several nodes, which notices at work only."""
    monkeypatch.setattr(upstream_engine, "HEARTBEAT", 0.01)

    async def run() -> None:
        on_several = replace(command(tmp_path), meeting="10.0.0.1:29501")
        async with closing(SupervisedEngine(on_several, delays=(0.0, 0.1))) as started:
            await started.load()
            before = pids()
            while not (await started.stats()).restarts:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.05)
            assert not any(map(alive, before))

    wait_for(asyncio.wait_for(run(), HANG))


def test_a_slow_start_may_last_while_it_advances(
    tmp_path: Path, pids: Callable[[], list[int]], wait_for: WaitFor
) -> None:
    lines: list[str] = []
    started = SupervisedEngine(command(tmp_path, "slow"), report=lines.append, limits=Limits(idle_start=2.5))

    async def run() -> None:
        async with closing(started):
            assert await ask(started, "hi")
            assert all(map(alive, pids()))

    wait_for(run())
    assert "Loading shards: 7%" in lines


def test_a_head_waits_for_its_other_nodes_as_long_as_it_takes_and_says_so(
    tmp_path: Path, pids: Callable[[], list[int]], wait_for: WaitFor
) -> None:
    notes: asyncio.Queue[str] = asyncio.Queue()
    on_several = replace(command(tmp_path, "alone"), meeting="10.0.0.1:29501")
    limits = Limits(idle_start=0.0, silent_start=0.0, waiting_start=0.0)

    async def run() -> None:
        async with closing(SupervisedEngine(on_several, note=notes.put_nowait, limits=limits)) as started:
            asking = asyncio.ensure_future(ask(started, "hi"))
            note = await notes.get()
            assert note.startswith("llama-server waits for its other nodes to join at 10.0.0.1:29501: ")
            assert not asking.done()
            (tmp_path / "pids.joined").touch()
            assert await asking
            assert all(map(alive, pids()))
        assert notes.empty()  # said once

    wait_for(run())


def test_a_head_that_waits_can_be_ended(tmp_path: Path, pids: Callable[[], list[int]], wait_for: WaitFor) -> None:
    """As Ctrl-C does."""
    noted = asyncio.Event()
    on_several = replace(command(tmp_path, "alone"), meeting="10.0.0.1:29501")

    async def run() -> None:
        limits = Limits(waiting_start=0.0)
        async with closing(SupervisedEngine(on_several, note=lambda _: noted.set(), limits=limits)) as started:
            asking = asyncio.ensure_future(started.load())
            await noted.wait()
            while not (tmp_path / "pids").exists():  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.01)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        assert not any(map(alive, pids()))

    wait_for(run())


@pytest.mark.parametrize(
    ("how", "said"), [("silent", "does nothing any more"), ("fail", "ValueError: there is no such thing")]
)
def test_a_start_that_fails_tells_the_first_cause(
    tmp_path: Path, pids: Callable[[], list[int]], wait_for: WaitFor, how: str, said: str
) -> None:
    async def run() -> None:
        async with closing(engine(tmp_path, how, idle_start=1.0)) as started:
            for _ in range(2):
                with pytest.raises(EngineError) as caught:
                    await started.load()
                assert "llama-server did not start" in caught.value.message
                assert said in caught.value.message
                assert "llama-server.log" in caught.value.hint
                assert not any(map(alive, pids()))

    wait_for(run())


def test_there_is_no_such_program(wait_for: WaitFor) -> None:
    async def run() -> None:
        async with closing(SupervisedEngine(EngineCommand("vllm", ("no-such-program", "{socket}")))) as started:
            with pytest.raises(NotFoundError, match="no-such-program"):
                await started.load()

    wait_for(run())


PROGRAM = """
import asyncio, json, sys
from hermes_cli.engine.upstream.engine_process import EngineCommand
from hermes_cli.engine.upstream.supervised_engine import SupervisedEngine
async def main():
    engine = SupervisedEngine(EngineCommand("llama-server", *json.loads(sys.argv[1])))
    await engine.load()
    print(engine._guard._process.pid, flush=True)
    await asyncio.sleep(1000)
asyncio.run(main())
"""


@pytest.fixture
def hermes_with_engine(tmp_path: Path, pids: Callable[[], list[int]]) -> Iterator[tuple[ForkedProcess, int]]:
    """A program that has an engine, and the process id of its guard."""
    forks, has = zygote(), command(tmp_path)
    assert forks
    process = forks.start([json.dumps([has.words, has.environment])], tmp_path, os.environ, code=PROGRAM)
    guard = int(process.stdout.readline())
    assert all(map(alive, pids()))
    yield process, guard
    process.kill()
    process.communicate()


def test_the_group_ends_with_a_hermes_that_is_killed(
    hermes_with_engine: tuple[ForkedProcess, int], pids: Callable[[], list[int]]
) -> None:
    hermes_with_engine[0].kill()
    eventually(lambda: not any(map(alive, pids())))


def test_what_is_left_even_so_is_swept_up_by_the_next_start(
    runtime: Path, hermes_with_engine: tuple[ForkedProcess, int], pids: Callable[[], list[int]]
) -> None:
    process, guard = hermes_with_engine
    assert run_folder.sweep() == 0
    os.kill(guard, signal.SIGKILL)
    process.kill()
    process.wait()
    front, worker = pids()
    os.kill(front, signal.SIGKILL)  # as vLLM, whose workers outlive it
    eventually(lambda: not alive(front))
    assert alive(worker)
    assert run_folder.sweep() == 1
    assert not alive(worker)
    assert not list((runtime / "hermes-llm").iterdir())


def test_a_folder_that_others_can_open_is_not_used(runtime: Path) -> None:
    (runtime / "hermes-llm").mkdir(mode=0o755)
    with pytest.raises(Exception, match="no folder that only you can open"):
        run_folder.base_folder()
