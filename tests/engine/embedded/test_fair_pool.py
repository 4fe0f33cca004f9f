from __future__ import annotations

from collections.abc import Iterator
from queue import SimpleQueue
from threading import Event

from conftest import HANG

from hermes_cli.engine.embedded.fair_pool import FairPool


def test_work_takes_turns_by_client_and_then_by_request() -> None:
    pool, begin = FairPool(1), Event()
    turns: SimpleQueue[str] = SimpleQueue()

    def work(name: str, steps: int) -> Iterator[None]:
        for _ in range(steps):
            turns.put(name)
            yield

    def hold() -> Iterator[None]:
        assert begin.wait(HANG)
        yield

    pool.submit(hold(), "a")
    for name in ("a1", "a2", "a3"):
        pool.submit(work(name, 2), "a")
    pool.submit(work("b1", 3), "b")
    begin.set()
    order = [turns.get(timeout=HANG) for _ in range(9)]
    assert order[:2] in (["a1", "b1"], ["b1", "a1"])
    assert [name for name in order if name != "b1"] == ["a1", "a2", "a3"] * 2
    assert order.index("b1", order.index("b1") + 1) <= 4
