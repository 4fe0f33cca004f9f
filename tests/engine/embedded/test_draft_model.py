"""The demo model as its own draft model: it has to guess what it says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hermes_cli.engine.embedded.llama import Batch, LlamaContext, LlamaModel
from hermes_cli.engine.embedded.speculation import DraftModel
from hermes_cli.engine.embedded.vocabulary import Vocabulary
from hermes_cli.errors import UsageError
from hermes_cli.planning.load_plan import LoadPlan
from hermes_cli.planning.memory import ContextSettings

QUESTIONS = ["Who are you?", "What is GGUF?", "What's the weather in Tokyo?", "Count to five."]
SLOTS = 4


def plan(context: int = 1024) -> LoadPlan:
    return LoadPlan(ContextSettings(context, slots=SLOTS), threads=1)


def prompt(vocabulary: Vocabulary, text: str) -> list[int]:
    turn = f"<|im_start|>system\nYou are Hermes Demo.<|im_end|>\n<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"
    return vocabulary.tokenize(turn, special=True)


def greedy(model: LlamaModel, tokens: list[int], most: int = 60) -> list[int]:
    """What the model says, one token after the other; without the end of its turn."""
    answer: list[int] = []
    with LlamaContext(model, ContextSettings(1024), threads=1) as context:
        batch, new, position = Batch(len(tokens)), tokens, 0
        while len(answer) < most:
            batch.clear()
            batch.add(new, position, 0, outputs=1)
            context.decode(batch)
            position += len(new)
            token = int(context.logits()[0].argmax())
            if model.vocabulary.ends_generation(token):
                break
            answer.append(token)
            new = [token]
    return answer


@pytest.fixture(scope="module")
def prompts(demo_model: LlamaModel) -> list[list[int]]:
    return [prompt(demo_model.vocabulary, text) for text in QUESTIONS]


@pytest.fixture(scope="module")
def answers(demo_model: LlamaModel, prompts: list[list[int]]) -> list[list[int]]:
    return [greedy(demo_model, tokens) for tokens in prompts]


@pytest.fixture
def draft(demo_path: Path, demo_model: LlamaModel) -> Iterator[DraftModel]:
    draft = DraftModel(demo_path, plan(), demo_model.vocabulary)
    yield draft
    draft.close()


def caught_up(draft: DraftModel, sequence: int, tokens: list[int], most: int = 8) -> list[int]:
    """The first guesses after the beginning was read."""
    for _ in range(len(tokens)):
        if guessed := draft.draft({sequence: (tokens, most)})[sequence]:
            return guessed
    return []


def test_a_model_guesses_what_it_says_itself(
    draft: DraftModel, prompts: list[list[int]], answers: list[list[int]]
) -> None:
    said = {number: list(tokens) for number, tokens in enumerate(prompts)}
    ends = {number: prompts[number] + answers[number] for number in said}
    drafted = 0
    steps = 0
    while open_ones := [number for number in said if len(said[number]) < len(ends[number])]:
        guesses = draft.draft({number: (said[number], 6) for number in open_ones})
        for number in open_ones:
            start = len(said[number])
            guessed = guesses[number]
            assert len(guessed) <= 6
            assert guessed == ends[number][start : start + len(guessed)]
            drafted += len(guessed)
            said[number] = ends[number][: start + len(guessed) + 1]
        steps += 1
    assert drafted > 0.7 * sum(map(len, answers))
    assert steps < max(map(len, answers)) / 2


@settings(max_examples=settings().max_examples // 6)
@given(
    talk=st.lists(
        st.tuples(st.integers(0, SLOTS - 1), st.integers(0, 3), st.integers(0, 40), st.integers(1, 5)), max_size=12
    )
)
def test_guesses_do_not_depend_on_what_was_asked_before(
    draft_for_good: DraftModel,
    prompts: list[list[int]],
    answers: list[list[int]],
    talk: list[tuple[int, int, int, int]],
) -> None:
    """Its cache is cut back, replaced and extended without a trace."""
    for sequence, number, said, most in talk:
        tokens = prompts[number] + answers[number][:said]
        guessed = caught_up(draft_for_good, sequence, tokens, most)
        assert guessed == (prompts[number] + answers[number])[len(tokens) : len(tokens) + len(guessed)]


@pytest.fixture(scope="module")
def draft_for_good(demo_path: Path, demo_model: LlamaModel) -> Iterator[DraftModel]:
    draft = DraftModel(demo_path, plan(), demo_model.vocabulary)
    yield draft
    draft.close()


@pytest.mark.parametrize("text", ["zq xv )( 7 %% kw ~ ,, jj", "I am", "The weather in", '{"name": "', "<tool_call>"])
def test_guesses_stop_when_one_is_more_likely_wrong_than_right(
    draft: DraftModel, demo_model: LlamaModel, text: str
) -> None:
    tokens = demo_model.vocabulary.tokenize(text, special=True)
    guessed = caught_up(draft, 0, tokens, 20)
    likely, expected = 1.0, 0
    with LlamaContext(demo_model, ContextSettings(256), threads=1) as context:
        batch = Batch(64)
        batch.add([*tokens, *guessed], 0, 0, outputs=len(guessed) + 1)
        context.decode(batch)
        for row in context.logits():
            likely /= float(np.exp(row - row.max()).sum())
            if likely < 0.5 or demo_model.vocabulary.ends_generation(int(row.argmax())):
                break
            expected += 1
    assert len(guessed) == min(expected, 20)


def test_a_long_prompt_is_read_in_chunks_that_keep_nobody_waiting(
    draft: DraftModel, prompts: list[list[int]], answers: list[list[int]]
) -> None:
    long = (prompts[1] * 20)[:600] + prompts[0]
    short, end = prompts[0], prompts[0] + answers[0]
    calls = 0
    while not (guesses := draft.draft({0: (long, 4), 1: (short, 2)}))[0]:
        calls += 1
        assert guesses[1] == end[len(short) : len(short) + 2]
        short = end[: len(short) + 1]
    assert calls >= 2
    assert draft.draft({0: (long, 4)})[0] == guesses[0]


def test_without_room_there_are_no_guesses(
    demo_path: Path, demo_model: LlamaModel, prompts: list[list[int]], answers: list[list[int]]
) -> None:
    first, second = prompts[0], (prompts[1] * 9)[:160] + prompts[1]
    draft = DraftModel(demo_path, plan(256), demo_model.vocabulary)
    filler = (prompts[2] * 9)[:40]
    assert caught_up(draft, 0, second)
    for _ in range(20):
        guesses = draft.draft({0: (second, 8), 1: (first, 8), 2: (filler, 2)})
        assert guesses[1] == answers[0][:8]
        assert guesses[0] == []
    draft.forget(1)
    draft.forget(2)
    assert caught_up(draft, 0, second)
    assert draft.draft({3: ([5] * 300, 8)}) == {3: []}
    assert draft.draft({0: (second, 8)})[0]
    draft.close()


def test_those_who_do_not_ask_make_room(
    demo_path: Path, demo_model: LlamaModel, prompts: list[list[int]], answers: list[list[int]]
) -> None:
    draft = DraftModel(demo_path, plan(256), demo_model.vocabulary)
    caught_up(draft, 0, (prompts[1] * 9)[:200])
    assert caught_up(draft, 1, prompts[0]) == answers[0][:8]
    assert caught_up(draft, 2, (prompts[2] * 9)[:150] + prompts[0]) == answers[0][:8]
    draft.close()


def test_nothing_is_guessed_that_the_large_model_does_not_know(
    demo_path: Path, demo_model: LlamaModel, prompts: list[list[int]], answers: list[list[int]]
) -> None:
    size = demo_model.vocabulary.size
    number, at = next(
        (number, at) for number, answer in enumerate(answers) for at, token in enumerate(answer) if token > size - 100
    )
    target = Vocabulary(demo_model)
    target.size = answers[number][at]
    draft = DraftModel(demo_path, plan(), target)
    before = prompts[number] + answers[number][: at - 1]
    assert all(token < target.size for token in caught_up(draft, 0, before, 4))
    draft.close()


def test_what_fails_guesses_nothing(draft: DraftModel, prompts: list[list[int]]) -> None:
    assert caught_up(draft, 0, prompts[0])
    wrong = [10**6] * 5
    assert draft.draft({0: (prompts[0], 4), 1: (wrong, 4)}) == {0: [], 1: []}
    assert draft.draft({0: (prompts[0], 4)}) == {0: []}


def test_an_end_is_not_guessed(draft: DraftModel, prompts: list[list[int]], answers: list[list[int]]) -> None:
    assert draft.draft({0: (prompts[0] + answers[0], 4)})[0] == []


def test_it_knows_what_a_guess_costs(draft: DraftModel, prompts: list[list[int]]) -> None:
    assert draft.seconds(1) == 0
    assert caught_up(draft, 0, prompts[0])
    assert draft.seconds(2) > 0
    assert 0 < draft.seconds(1) < 1


def altered(demo_path: Path, folder: Path, old: bytes, new: bytes) -> Path:
    """The demo model with another word in its vocabulary."""
    raw = demo_path.read_bytes()
    start = raw.index(b"tokenizer.ggml.tokens")
    at = raw.index(len(old).to_bytes(8, "little") + old, start) + 8
    path = folder / "other.gguf"
    path.write_bytes(raw[:at] + new + raw[at + len(new) :])
    return path


def test_other_tokens_are_refused(demo_path: Path, demo_model: LlamaModel, tmp_path: Path) -> None:
    size = demo_model.vocabulary.size
    number, word = next(
        (number, word)
        for number in range(5, size)
        if len(word := demo_model.vocabulary.text_of(number)) == 5 and word.isalpha() and word.isascii()
    )
    path = altered(demo_path, tmp_path, word.encode(), b"XQXQX")
    with pytest.raises(
        UsageError, match=f"other.gguf cannot draft for this model: its token {number:,} is 'XQXQX', not"
    ):
        DraftModel(path, plan(), demo_model.vocabulary)


def test_other_sizes_and_beginnings_are_refused(demo_path: Path, demo_model: LlamaModel) -> None:
    target = Vocabulary(demo_model)
    target.size += 129
    with pytest.raises(UsageError, match="it knows 1,024 tokens, not 1,153"):
        DraftModel(demo_path, plan(), target)
