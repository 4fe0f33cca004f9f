"""Coroutines in turns, and Ctrl-C in them and between them."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator

import pytest
from chat_rig import Interrupted, sigint_raises

from hermes_cli.errors import EngineError
from hermes_cli.event_loop import EventLoop


@pytest.fixture(autouse=True)
def raising() -> Iterator[None]:
    with sigint_raises():
        yield


async def give(value: str) -> str:
    await asyncio.sleep(0)
    return value


async def fail() -> None:
    await asyncio.sleep(0)
    raise EngineError("it failed.", hint="try again.")


def test_what_was_begun_goes_on_while_something_else_runs() -> None:
    done = []

    async def work(go: asyncio.Event) -> str:
        await go.wait()
        done.append("work")
        return "worked"

    async def let(go: asyncio.Event) -> None:
        go.set()
        await asyncio.sleep(0)

    with EventLoop() as loop:
        go = loop.run(asyncio.sleep(0, asyncio.Event()))
        working = loop.begin(work(go))
        assert not done
        loop.run(let(go))
        assert done
        assert loop.run(working) == "worked"


def test_an_error_is_raised_where_it_is_waited_for() -> None:
    with EventLoop() as loop:
        failing = loop.begin(fail())
        assert loop.run(give("fine")) == "fine"
        with pytest.raises(EngineError):
            loop.run(failing)


def test_an_error_that_nobody_waits_for_is_no_noise(caplog: pytest.LogCaptureFixture) -> None:
    with EventLoop() as loop:
        loop.begin(fail())
    assert not caplog.records


def test_what_still_runs_at_the_end_is_cancelled() -> None:
    cleaned = []

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append(True)

    with EventLoop() as loop:
        loop.begin(forever())
    assert cleaned


def test_ctrl_c_cancels_a_coroutine_which_may_clean_up_first() -> None:
    cleaned = []

    async def interrupted() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    with EventLoop() as loop:
        with pytest.raises(Interrupted):
            loop.run(interrupted())
        assert cleaned
        assert loop.run(give("still there")) == "still there"


def test_between_coroutines_ctrl_c_is_the_program_s_own() -> None:
    with EventLoop() as loop:
        loop.run(give(""))
        with pytest.raises(Interrupted):
            signal.raise_signal(signal.SIGINT)
