from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes_cli.engine.embedded import speculation as module
from hermes_cli.engine.embedded.llama import LlamaModel
from hermes_cli.engine.embedded.speculation import FIRST_PAUSE, LONGEST_PAUSE, DraftAcceptance, PromptLookup

few_tokens = st.lists(st.integers(0, 4), max_size=120)


def knowing(tokens: list[int]) -> PromptLookup:
    lookup = PromptLookup()
    lookup.extend(tokens)
    return lookup


def steps(lookup: PromptLookup, output: list[int], most: int = 15) -> int:
    """Decodes that it takes to say something, if every guess is tried."""
    said = count = 0
    while said < len(output):
        guessed = lookup.draft(most)
        right = 0
        while right < len(guessed) and said + right < len(output) and guessed[right] == output[said + right]:
            right += 1
        new = output[said : said + right + 1]
        lookup.extend(new)
        said += len(new)
        count += 1
    return count


@given(few_tokens, st.integers(1, 40))
def test_a_guess_continues_an_occurrence(tokens: list[int], most: int) -> None:
    guessed = knowing(tokens).draft(most)
    there = [
        place for place in range(3, len(tokens)) if tokens[place - 3 : place] == tokens[-3:]
    ]  # places behind the last three tokens, the end aside
    if not there:
        assert guessed == []
        return
    assert len(guessed) == most
    assert any((tokens + guessed)[place : place + most] == guessed for place in there)


@given(few_tokens)
def test_the_longest_occurrence_wins_then_the_latest(tokens: list[int]) -> None:
    guessed = knowing(tokens).draft(1)

    def equal(place: int) -> int:
        count = 0
        while count < min(place, module.MAX_MATCH) and tokens[place - 1 - count] == tokens[-1 - count]:
            count += 1
        return count

    places = [place for place in range(3, len(tokens)) if equal(place) >= 3][-module.MAX_CANDIDATES :]
    if places:
        assert guessed == [tokens[max(places, key=lambda place: (equal(place), place))]]


@given(few_tokens, st.lists(st.integers(0, 119), max_size=8), st.integers(1, 20))
def test_it_does_not_matter_in_which_pieces_tokens_come(tokens: list[int], cuts: list[int], most: int) -> None:
    pieces = PromptLookup()
    edges = [0, *sorted(min(cut, len(tokens)) for cut in cuts), len(tokens)]
    for start, end in pairwise(edges):
        pieces.extend(tokens[start:end])
    assert pieces.draft(most) == knowing(tokens).draft(most)
    assert pieces.acceptance_rate == knowing(tokens).acceptance_rate


@given(few_tokens, st.lists(st.tuples(few_tokens, st.integers(0, 12)), max_size=6))
def test_it_can_be_asked_at_any_time(tokens: list[int], talk: list[tuple[list[int], int]]) -> None:
    lookup = knowing(tokens)
    known = list(tokens)
    for new, most in talk:
        guessed = lookup.draft(most)
        chance = lookup.acceptance_rate
        assert len(guessed) == (most if chance else 0)
        assert 0 <= chance <= 1
        if guessed:  # wherever it is from, the last token stood before it
            text = known + guessed
            assert any(
                text[place - 1] == known[-1] and text[place : place + most] == guessed for place in range(1, len(known))
            )
        lookup.extend(new)
        known += new


def test_nothing_is_guessed_from_nothing() -> None:
    assert PromptLookup().draft(5) == []
    assert PromptLookup().acceptance_rate == 0
    assert knowing([1, 2, 3, 4, 5]).draft(5) == []
    assert knowing([1, 2, 3, 9, 1, 2, 3]).draft(0) == []


def test_what_repeats_itself_goes_on() -> None:
    assert knowing([7, 1, 2, 3, 1, 2, 3]).draft(7) == [1, 2, 3, 1, 2, 3, 1]


def test_collisions_of_the_hash_are_no_occurrences() -> None:
    beyond = 1 << module.BITS
    assert knowing([1, 2, 3, 50, 1 + beyond, 2 + beyond, 3 + beyond]).draft(3) == []


def test_a_wrong_guess_is_not_made_again() -> None:
    """The newer occurrence says what the older one did not."""
    lookup = knowing([11, 12, 13, 14, 0, 0])
    lookup.extend([11, 12, 13])
    assert lookup.draft(1) == [14]
    lookup.extend([20, 0, 0, 11, 12, 13])
    assert lookup.draft(1) == [20]


@pytest.mark.parametrize(
    "edited",
    [
        pytest.param(lambda text: [*text[:60], 900, *text[61:]], id="replaced"),
        pytest.param(lambda text: [*text[:60], 900, 901, 902, *text[60:]], id="inserted"),
        pytest.param(lambda text: [*text[:60], *text[70:]], id="deleted"),
    ],
)
def test_copying_goes_on_right_after_an_edit(edited: Callable[[list[int]], list[int]]) -> None:
    """Of 120 tokens at up to 16 a step the copy takes 8 steps; the edit adds itself and at most two more."""
    text = list(range(100, 220))
    lookup = knowing([*text, 1, 2, *text[:3]])
    output = edited(text)[3:]
    assert steps(lookup, output) <= 8 + 3 + 2


def test_chances_are_learned_from_what_came() -> None:
    """Rows of a table: their frame is always the same, their values never; the values' chance falls, others' not."""
    lookup, value = PromptLookup(), 1000
    frame = [1, 2, 3, 4, 5, 6]
    chances = []
    for _ in range(40):
        lookup.extend(frame)
        chances.append(lookup.acceptance_rate)
        lookup.draft(1)
        lookup.extend([(value := value + 1)])
        lookup.draft(1)
    assert chances[0] == 0
    assert chances[-1] < chances[1] / 2

    copying = knowing([*range(500), 7777, 0, 1, 2, 3])
    early = copying.acceptance_rate
    for token in range(4, 300):
        assert copying.draft(1) == [token]
        copying.extend([token])
    assert copying.acceptance_rate > 0.98 > early


def test_edits_as_they_are(demo_model: LlamaModel) -> None:
    """A real file, with a name changed all over it, is said in less than a third of the steps."""
    source = Path(module.__file__).read_text()
    tokenize = demo_model.vocabulary.tokenize
    lookup = knowing(tokenize(f"```\n{source}```\nCall position offset.\n```\n", special=False))
    output = tokenize(source.replace("position", "offset"), special=False)
    assert steps(lookup, output) < len(output) / 3


def test_long_prompts_take_little_time() -> None:
    tokens = [number * 7919 % 50_000 for number in range(100_000)]
    started = time.process_time()
    knowing(tokens)
    assert time.process_time() - started < 10  # 0.02 s where this was written, hours if it were quadratic


# Acceptance


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20))))
def test_chance_is_a_chance(drafts: list[tuple[int, int]]) -> None:
    acceptance = DraftAcceptance()
    for drafted, right in drafts:
        acceptance.record(drafted, min(drafted, right))
        acceptance.should_draft()
        assert 0 <= acceptance.acceptance_rate <= 1


@pytest.mark.parametrize("chance", [0.4, 0.7, 0.95])
def test_chance_is_estimated(chance: float) -> None:
    random_, acceptance, seen = random.Random(3), DraftAcceptance(), []
    for number in range(2000):
        right = 0
        while right < 6 and random_.random() < chance:
            right += 1
        acceptance.record(6, right)
        if number > 100:
            seen.append(acceptance.acceptance_rate)
    assert math.fsum(seen) / len(seen) == pytest.approx(chance, abs=0.05)


def test_it_starts_with_hope_and_gives_up_after_a_few_failures() -> None:
    acceptance = DraftAcceptance()
    assert acceptance.acceptance_rate > 0.7
    failures = 0
    while acceptance.should_draft():
        acceptance.record(4, 0)
        failures += 1
    assert 3 <= failures <= 12


def test_pauses_double_and_end() -> None:
    acceptance = DraftAcceptance()
    waits = []
    for _ in range(10):
        acceptance.pause()
        wait = 1
        while not acceptance.should_draft():
            wait += 1
        waits.append(wait)
        assert acceptance.acceptance_rate > 0.7  # tries again with hope
    assert waits[:4] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE, 8 * FIRST_PAUSE]
    assert waits[-1] == LONGEST_PAUSE


def test_one_failure_after_a_pause_is_enough_to_pause_again() -> None:
    acceptance = DraftAcceptance()
    acceptance.pause()
    while not acceptance.should_draft():
        pass
    acceptance.record(4, 0)
    acceptance.record(4, 0)
    assert not acceptance.should_draft()


def test_success_forgets_the_pauses() -> None:
    acceptance = DraftAcceptance()
    for _ in range(6):
        acceptance.pause()
    while not acceptance.should_draft():
        pass
    acceptance.record(4, 4)
    acceptance.pause()
    assert [acceptance.should_draft() for _ in range(FIRST_PAUSE)] == [False] * (FIRST_PAUSE - 1) + [True]


def test_no_draft_says_nothing() -> None:
    acceptance = DraftAcceptance()
    before = acceptance.acceptance_rate
    acceptance.record(0, 0)
    assert acceptance.acceptance_rate == before
