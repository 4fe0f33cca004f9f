"""Reasoning as the engine reads it off the text: its tokens are counted, and its end is forced."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes_cli.engine.output_text import ReasoningTracker
from hermes_cli.engine.request import ReasoningOptions
from hermes_cli.generation import Content, Reasoning
from hermes_cli.prompting.parse import Parser
from hermes_cli.prompting.turn_grammar import THOUGHTS

FORCED = {"</think>": [7, 8], "</scratch_pad>": [9]}


def counted(*pieces: str, inside: bool = False) -> int:
    tracker = ReasoningTracker(ReasoningOptions(inside=inside, tags=THOUGHTS, line_ends=("</tool_call>",)), {})
    for piece in pieces:
        tracker.read(piece)
    return tracker.tokens


def due_after(pieces: list[str], options: ReasoningOptions) -> int | None:
    """After how many pieces the end is forced; None if never."""
    tracker = ReasoningTracker(options, FORCED)
    for number, piece in enumerate(pieces):
        if tracker.due():
            return number
        tracker.read(piece)
    return len(pieces) if tracker.due() else None


@pytest.mark.parametrize(
    ("pieces", "count"),
    [
        (["<think>", "a", "b", "</think>", "\n", "c"], 3),
        (["<th", "ink>", "a", "b", "</th", "ink>", "c"], 4),
        (["\n ", "<think>", "a", "\n</think>\n\nb", "c"], 2),
        (["Hello\n", "<think>", "a", "b"], 2),
        (["Hello\n<think>a", "b"], 1),
        (["Hello ", "<think>", "a", "b"], 0),
        (["<thin", "g>", "<think>", "a"], 0),
        (["<think>", "", "", "a", "</scratch_pad>", "b"], 5),
        (["<scratch_pad>", "a", "</think>", "</scratch_pad>", "b"], 3),
        (["<think>", "a", "</think>", "<think>", "b", "c"], 4),
        (["<think>", "a", "</think>", "b", "<think>", "c"], 2),
        (["<tool_call>{}</tool", "_call>", "<think>", "a"], 1),
        (["<think>a</think>", "b"], 0),
    ],
)
def test_tokens_between_the_tags_are_counted(pieces: list[str], count: int) -> None:
    assert counted(*pieces) == count


def test_what_the_prompt_opened_counts_from_the_first_token() -> None:
    assert counted("a", "<think>", "b", "</think>", "c", inside=True) == 4


@given(
    st.lists(st.sampled_from(["<think>", "</think>", "<scratch_pad>", "</scratch_pad>", "\n", " ", "a", "<", "<th"])),
    st.booleans(),
)
def test_reasoning_is_where_prompting_reads_it(tokens: list[str], inside: bool) -> None:  # noqa: FBT001
    """A letter is behind every token, and is reasoning for both or for neither."""
    tokens = [part for token in tokens for part in ((token, "\n") if token.startswith("</") else (token,))]
    for end in range(len(tokens) + 1):
        so_far = tokens[:end]
        parser = Parser(prompt_opens_think=inside)
        events = [*parser.feed("".join(so_far) + "X"), *parser.finish()]
        last = [event for event in events if isinstance(event, Content | Reasoning)][-1]
        assert last.text.endswith("X")
        more = counted(*so_far, "X", inside=inside) - counted(*so_far, inside=inside)
        assert more == isinstance(last, Reasoning), so_far


@given(
    st.lists(st.sampled_from(["<think>", "</think>", "</tool_call>", "\n", " ", "a", "<th", "ink>"])),
    st.lists(st.integers(0, 60), max_size=9),
)
def test_how_the_text_is_cut_does_not_change_the_state(pieces: list[str], cuts: list[int]) -> None:
    text = "".join(pieces)
    ends = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    otherwise = [text[start:end] for start, end in itertools.pairwise(ends)]
    one, other = counted(*pieces, "X") - counted(*pieces), counted(*otherwise, "X") - counted(*otherwise)
    assert one == other


def test_an_open_thought_has_its_budget_from_the_first_token() -> None:
    assert due_after(["a", "b", "c", "d"], ReasoningOptions(2, inside=True)) == 2
    assert due_after(["a", "b", "</think>", "d", "e"], ReasoningOptions(5, inside=True)) is None
    assert due_after(["a"], ReasoningOptions(0, inside=True)) == 0


def test_a_thought_of_the_models_own_has_a_budget() -> None:
    assert due_after(["<th", "ink>", "a", "b", "c"], ReasoningOptions(2)) == 4
    assert due_after(["Hello ", "<think>", "a", "b", "c"], ReasoningOptions(2)) is None


def test_what_is_left_counts_for_the_next_thought() -> None:
    assert due_after(["<think>", "a", "</think>", "\n", "<think>", "b", "c"], ReasoningOptions(3)) == 6


@pytest.mark.parametrize(("opening", "closing"), THOUGHTS)
def test_reasoning_ends_with_the_tag_that_closes_it(opening: str, closing: str) -> None:
    tracker = ReasoningTracker(ReasoningOptions(1, tags=THOUGHTS), FORCED)
    for piece in (opening, "a"):
        tracker.read(piece)
    assert (tracker.cut, tracker.due(), tracker.cut) == (False, FORCED[closing], True)
    for piece in (f"\n{closing[:4]}", f"{closing[4:]}\n", "answer"):
        tracker.read(piece)
    assert not tracker.due()
    assert tracker.tokens == 3


@given(st.lists(st.sampled_from(["<think>", "</think>", "\n", " ", "a", "<th", "ink>"]), max_size=30))
def test_no_budget_and_a_large_one_never_matter(pieces: list[str]) -> None:
    assert due_after(pieces, ReasoningOptions(1000)) is None
    assert due_after(pieces, ReasoningOptions()) is None
