from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes_cli.engine.embedded.step_cost import (
    SMALLEST_CHUNK,
    CostCurve,
    StepCostModel,
    fixed_draft_length,
)

Cost = Callable[[int], float]

# Milliseconds that a decode of one sequence took, with so many outputs: a model of 270 million weights, Q4_K_M, on
# two cores of a Xeon. Four tokens at a time are computed together.
MEASURED = {1: 21.4, 2: 28.5, 3: 33.1, 4: 31.6, 5: 48.8, 6: 53.9, 7: 64.1, 8: 52.3, 9: 77.9, 12: 81.7, 16: 88.6}
MEASURED |= {17: 119.6, 24: 142.4, 32: 193.8}


def cpu(tokens: int) -> float:
    sizes = list(MEASURED)
    high = next((size for size in sizes if size >= tokens), sizes[-1])
    low = max([size for size in sizes if size <= tokens], default=high)
    share = (tokens - low) / (high - low) if high > low else 0.0
    return (MEASURED[low] + share * (MEASURED[high] - MEASURED[low])) / 1000 * max(1.0, tokens / sizes[-1])


def gpu(tokens: int) -> float:
    return 0.010 * (1 + 0.004 * tokens)


def dear(tokens: int) -> float:
    return 0.020 * tokens


def expected(chance: float, drafted: int) -> float:
    return sum(chance**number for number in range(drafted + 1))


def taught(cost: Cost, sizes: range = range(1, 33)) -> StepCostModel:
    pace = StepCostModel()
    for size in sizes:
        for _ in range(3):
            pace.record(size, 0, cost(size))
    return pace


@pytest.mark.parametrize("cost", [cpu, gpu, dear])
@given(chance=st.floats(0, 1), running=st.integers(1, 8), most=st.integers(0, 20))
def test_the_best_draft_length_is_found(cost: Cost, chance: float, running: int, most: int) -> None:
    pace = taught(cost)
    chance = round(chance, 2)

    def rate(drafted: int) -> float:
        best_case = min(cost(size) for size in range(running + drafted, 33))  # a batch can always be filled up
        return (running - 1 + expected(chance, drafted)) / best_case

    length = pace.draft_length(chance, running, most)
    assert 0 <= length <= most
    assert rate(length) == pytest.approx(max(rate(count) for count in range(most + 1)))


def test_the_cost_decides() -> None:
    """Free checking drafts much, dear checking nothing; a CPU fills up what it computes together."""
    assert taught(gpu).draft_length(0.95, 1, 24) == 24
    assert taught(gpu).draft_length(0.3, 1, 24) >= 2
    assert taught(dear).draft_length(0.99, 1, 24) == 0
    assert [taught(cpu).draft_length(chance, 1, 24) for chance in (0.2, 0.6, 0.9, 0.98)] == [0, 3, 7, 15]
    assert taught(cpu).draft_length(0.6, 8, 24) < taught(gpu).draft_length(0.6, 8, 24)
    assert [fixed_draft_length(chance, 24) for chance in (0.2, 0.6, 0.9, 0.98)] == [0, 2, 6, 15]
    assert fixed_draft_length(0.9, 24, by_model=True) < fixed_draft_length(0.9, 24)
    assert fixed_draft_length(1.0, 24) == 24


def test_what_guessing_takes_counts() -> None:
    pace = taught(gpu)
    free, cheap, dear_one = (pace.draft_length(0.8, 1, 16, each) for each in (0.0, 0.001, 0.02))
    assert free > cheap > dear_one == 0


@given(st.floats(0, 1), st.integers(1, 64), st.integers(0, 30))
def test_before_anything_is_known_it_tries_a_few(chance: float, running: int, most: int) -> None:
    length = StepCostModel().draft_length(chance, running, most)
    assert 0 <= length <= min(most, running + 2)
    assert StepCostModel().draft_length(0.8, 1, 24) >= 1


def test_impossible_chances_are_bounded() -> None:
    pace = taught(cpu)
    assert pace.draft_length(-1.0, 1, 8) == 0
    assert pace.draft_length(2.0, 1, 8) == pace.draft_length(1.0, 1, 8)
    assert pace.draft_length(0.9, 1, -3) == 0


@pytest.mark.parametrize(("cost", "chance", "reached"), [(cpu, 0.95, 0.85), (gpu, 0.9, 0.9), (dear, 0.9, 0.95)])
@pytest.mark.parametrize("trouble", [0.0, 0.3])
def test_it_learns_while_working(cost: Cost, chance: float, reached: float, trouble: float) -> None:
    """From nothing and with other processes in between, it comes near the best that is possible."""
    random_ = random.Random(4)
    pace, tokens, seconds = StepCostModel(), 0.0, 0.0
    for _ in range(3000):
        length = pace.draft_length(chance, 1, 24)
        tokens += expected(chance, length)
        seconds += cost(1 + length)
        disturbed = random_.uniform(1.5, 4) if random_.random() < trouble else 1.0
        pace.record(1 + length, 0, cost(1 + length) * disturbed * random_.uniform(1, 1.03))
    best = max(expected(chance, length) / cost(1 + length) for length in range(25))
    assert tokens / seconds > reached * best


def test_it_notices_that_a_machine_changed() -> None:
    pace = taught(dear)
    assert pace.draft_length(0.9, 1, 16) == 0
    for _ in range(3000):
        pace.record(1 + pace.draft_length(0.9, 1, 16), 0, gpu(1))
    assert pace.draft_length(0.9, 1, 16) > 8


@given(st.lists(st.tuples(st.integers(1, 3000), st.floats(1e-6, 10)), max_size=80), st.sampled_from(["zero", "one"]))
def test_a_curve_never_falls(notes: list[tuple[int, float]], start: str) -> None:
    curve = CostCurve(from_zero=start == "zero")
    for tokens, seconds in notes:
        curve.record(tokens, seconds)
    values = [curve.at(tokens) for tokens in range(1, 3200, 7)]
    assert all(low <= high + 1e-9 for low, high in pairwise(values))
    assert values[0] >= 0
    if notes:
        assert curve.at(max(tokens for tokens, _ in notes)) <= max(seconds for _, seconds in notes) * 1.5


def step(decode: Cost, reading: float, tokens: int, chunk: int) -> float:
    return decode(max(tokens, 1)) + reading * chunk


@pytest.mark.parametrize(
    ("decode", "reading", "longest"),
    [
        pytest.param(lambda tokens: 0.010 + 0.0001 * tokens, 0.0002, 0.205, id="GPU"),
        pytest.param(lambda tokens: 0.020 + 0.006 * tokens, 0.0025, 0.205, id="small model on a CPU"),
        pytest.param(lambda tokens: 0.150 + 0.010 * tokens, 0.030, 0.75, id="large model on a CPU"),
    ],
)
def test_streams_go_on_while_a_prompt_is_read(decode: Cost, reading: float, longest: float) -> None:
    """It comes to know both costs, and steps stay within the limit without wasting it."""
    pace, random_ = StepCostModel(), random.Random(1)
    for _ in range(20):
        pace.record(1, 0, decode(1))
    steps = []
    for _ in range(60):
        chunk = pace.chunk(1, 1, 511)
        assert SMALLEST_CHUNK <= chunk <= 511
        seconds = step(decode, reading, 1, chunk)
        steps.append(seconds)
        pace.record(1, chunk, seconds * random_.uniform(1, 1.2))
    assert max(steps) <= longest
    assert min(steps[10:]) >= 0.5 * min(longest, step(decode, reading, 1, 511))


def test_nobody_to_keep_waiting_means_all_that_check_room() -> None:
    pace = taught(cpu)
    assert pace.chunk(0, 1, 512) == 512
    assert StepCostModel().chunk(0, 1, 512) == 512
    assert StepCostModel().chunk(4, 1, 512) == SMALLEST_CHUNK
    assert StepCostModel().chunk(4, 1, 5) == 5
    assert StepCostModel().chunk(4, 1, -1) == 0


@given(
    notes=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 600), st.floats(1e-4, 3)), max_size=40),
    running=st.integers(0, 64),
    waiting=st.integers(1, 64),
    capacity=st.integers(0, 2048),
    more=st.integers(0, 500),
)
def test_chunks_are_within_bounds_and_grow_with_room_and_with_those_who_wait(
    notes: list[tuple[int, int, float]], running: int, waiting: int, capacity: int, more: int
) -> None:
    pace = StepCostModel()
    for decode, prefill, seconds in notes:
        pace.record(decode, prefill, seconds)
    chunk = pace.chunk(running, waiting, capacity)
    assert min(SMALLEST_CHUNK, capacity) <= chunk <= capacity
    assert chunk <= pace.chunk(running, waiting, capacity + more)
    assert chunk <= pace.chunk(running, waiting + more, capacity)


def test_a_prompt_alone_teaches_what_reading_costs() -> None:
    pace = StepCostModel()
    pace.record(0, 512, 0.512)
    pace.record(1, 0, 0.010)
    assert 176 <= pace.chunk(1, 1, 512) <= 192  # 190 ms at a millisecond for each token


def test_seconds() -> None:
    assert StepCostModel().seconds(1) == 0
    assert taught(cpu).seconds(4) == pytest.approx(0.0316)
