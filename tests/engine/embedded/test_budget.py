"""Where reasoning begins and ends, read off the text."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hermes_cli.engine.embedded.output_text import ReasoningBudget
from hermes_cli.engine.request import ThinkingBudget

FORCED = [7, 8]


def due_after(pieces: list[str], budget: ThinkingBudget) -> int | None:
    """After how many pieces the end is forced; None if never."""
    reasoning = ReasoningBudget(budget, FORCED)
    for number, piece in enumerate(pieces):
        if reasoning.due():
            return number
        reasoning.read(piece)
    return len(pieces) if reasoning.due() else None


def test_an_open_thought_counts_from_the_first_token() -> None:
    assert due_after(["a", "b", "c", "d"], ThinkingBudget(2, inside=True)) == 2
    assert due_after(["a", "b", "</think>", "d", "e"], ThinkingBudget(5, inside=True)) is None


def test_no_reasoning_at_all() -> None:
    assert due_after(["a"], ThinkingBudget(0, inside=True)) == 0


def test_a_thought_of_the_model_s_own() -> None:
    assert due_after(["<th", "ink>", "a", "b", "c"], ThinkingBudget(2)) == 4
    assert due_after(["\n ", "<think>", "a", "b", "c"], ThinkingBudget(2)) == 4
    assert due_after(["Hello\n", "<think>", "a", "b", "c"], ThinkingBudget(2)) == 4


def test_in_the_middle_of_a_line_it_is_text() -> None:
    assert due_after(["Hello ", "<think>", "a", "b", "c"], ThinkingBudget(2)) is None


def test_what_is_left_counts_for_the_next_thought() -> None:
    assert due_after(["<think>", "a", "</think>", "\n", "<think>", "b", "c"], ThinkingBudget(3)) == 6


def test_a_forced_end_is_an_end() -> None:
    reasoning = ReasoningBudget(ThinkingBudget(1, inside=True), FORCED)
    reasoning.read("a")
    assert reasoning.due() == FORCED
    for piece in ("\n</th", "ink>\n", "answer"):
        reasoning.read(piece)
    assert not reasoning.due()


@given(st.lists(st.sampled_from(["<think>", "</think>", "\n", " ", "a", "<th", "ink>"]), max_size=30))
def test_a_large_budget_never_matters(pieces: list[str]) -> None:
    assert due_after(pieces, ThinkingBudget(1000)) is None
