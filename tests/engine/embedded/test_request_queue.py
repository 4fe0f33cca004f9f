"""Whose turn it is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes_cli.engine.embedded.llama import LlamaModel
from hermes_cli.engine.embedded.scheduler import RequestQueue
from hermes_cli.engine.embedded.sequence import ActiveSequence, Job
from hermes_cli.engine.embedded.vocabulary import TokenPieces
from hermes_cli.engine.request import GenerationRequest
from hermes_cli.errors import QueueFullError


def request(model: LlamaModel, number: int, client: str) -> ActiveSequence:
    job = Job(number, GenerationRequest((5,), client=client), [5])
    return ActiveSequence(job, model, TokenPieces(model.vocabulary), 256, lookup=False)


@pytest.mark.parametrize("slots", [1, 2, 4])
def test_who_asks_much_makes_nobody_wait_long(demo_model: LlamaModel, slots: int) -> None:
    waiting = RequestQueue(100)
    working: list[ActiveSequence] = []
    begun: list[int] = []
    for number in range(20):
        waiting.push(request(demo_model, number, "greedy"))
    for number in range(20, 23):
        waiting.push(request(demo_model, number, f"modest {number}"))
    while waiting:
        one = waiting.in_order(working)[0]
        waiting.begin(one)
        working = [*working, one][-slots:]
        begun.append(one.job.id)
    assert max(begun.index(number) for number in range(20, 23)) < 8
    assert [number for number in begun if number < 20] == list(range(20))


def test_who_was_put_back_comes_first(demo_model: LlamaModel) -> None:
    waiting = RequestQueue(1)
    waiting.push(request(demo_model, 1, "a"))
    back = request(demo_model, 2, "a")
    waiting.requeue(back)
    assert waiting.in_order([])[0] is back
    with pytest.raises(QueueFullError, match="1 requests are waiting"):
        waiting.push(request(demo_model, 3, "b"))


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=30), st.integers(1, 4))
def test_everybody_has_a_turn(demo_model: LlamaModel, clients: list[str], slots: int) -> None:
    waiting = RequestQueue(100)
    working: list[ActiveSequence] = []
    begun: list[int] = []
    for number, client in enumerate(clients):
        waiting.push(request(demo_model, number, client))
    while waiting:
        order = waiting.in_order(working)
        assert len(order) == len(waiting)
        waiting.begin(order[0])
        working = [*working, order[0]][-slots:]
        begun.append(order[0].job.id)
    assert sorted(begun) == list(range(len(clients)))
    for client in "abc":
        own = [number for number in begun if clients[number] == client]
        assert own == sorted(own)
