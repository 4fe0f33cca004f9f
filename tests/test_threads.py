"""Rations of threads: `hermes_cli/threads.py`."""

from __future__ import annotations

import asyncio
import threading

import pytest
from conftest import HANG

from hermes_cli.threads import LARGE, LARGE_OF_CLIENT, SMALL_OF_CLIENT, in_turn


@pytest.mark.parametrize(("size", "most"), [(0, SMALL_OF_CLIENT), (LARGE, LARGE_OF_CLIENT)])
def test_a_client_that_keeps_its_threads_busy_leaves_others_theirs(size: int, most: int) -> None:
    """Even if it leaves: what runs in a thread goes on. Small work of its own goes on beside large work, too."""

    async def story() -> list[str]:
        release = threading.Event()
        begun: list[str] = []

        def hold() -> None:
            begun.append("greedy")
            assert release.wait(HANG)

        greedy = [asyncio.ensure_future(in_turn("greedy", hold, size=size)) for _ in range(20)]
        await asyncio.sleep(0)
        for task in greedy[:most]:
            task.cancel()
        await in_turn("greedy" if size else "honest", lambda: begun.append("honest"))
        assert begun.count("greedy") <= most
        release.set()
        await asyncio.gather(*greedy, return_exceptions=True)
        return begun

    assert asyncio.run(story()).count("greedy") == 20


def test_a_client_with_many_slow_grammars_does_not_keep_others_waiting() -> None:
    """Two threads compile: if they both had this client's, the other one would never come."""

    async def compile_all() -> None:
        other_came = threading.Event()

        def slow() -> None:
            assert other_came.wait(HANG)

        mine = [asyncio.create_task(in_turn("many", slow, grammar=True)) for _ in range(10)]
        await asyncio.sleep(0)
        await in_turn("other", other_came.set, grammar=True)
        await asyncio.gather(*mine)

    asyncio.run(compile_all())
