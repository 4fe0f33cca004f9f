"""How tokens are chosen, and what their log-probabilities are."""

from __future__ import annotations

import math
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf_bytes import entry, string
from hypothesis import given
from hypothesis import strategies as st
from logit_rows import Row, distinct, flat

from hermes_cli.engine.embedded.llama import LlamaModel
from hermes_cli.engine.embedded.sampler import Sampler, token_logprobs
from hermes_cli.engine.embedded.vocabulary import Vocabulary
from hermes_cli.engine.request import SamplingOptions
from hermes_cli.errors import EngineError, UsageError

CONTEXT = 1024
NOTHING = -math.inf
GREEDY = SamplingOptions(temperature=0)
PURE = SamplingOptions(temperature=1, top_k=0, top_p=1, min_p=0, seed=1)


@pytest.fixture(scope="session")
def vocabulary(demo_model: LlamaModel) -> Vocabulary:
    return demo_model.vocabulary


@pytest.mark.parametrize(
    ("sampling", "low"),
    [
        (SamplingOptions(temperature=1, top_k=0, top_p=1, min_p=0.2, seed=1), math.log(0.2) + 1e-4),
        (SamplingOptions(temperature=100, mirostat=2, mirostat_tau=20, seed=1), -100),
        (SamplingOptions(temperature=1, top_k=0, top_p=1, min_p=0, typical_p=1, seed=1), -1),
    ],
)
def test_nothing_that_can_come_is_lost(vocabulary: Vocabulary, sampling: SamplingOptions, low: float) -> None:
    row = np.full(3000, low, np.float32)
    row[1000] = 0
    sampler = Sampler(sampling, vocabulary, CONTEXT)
    assert len({sampler.draw(row) for _ in range(20)} - {1000}) > 10


@pytest.mark.parametrize("top_k", [0, 40])
def test_typical_sampling_does_not_count_what_is_impossible(vocabulary: Vocabulary, top_k: int) -> None:
    row = np.full(5000, -np.inf, np.float32)
    row[[10, 2000, 4999]] = np.log([0.5, 0.3, 0.2])  # 1.03 nats of entropy: 0.3 is the closest with 1.20
    sampler = Sampler(SamplingOptions(temperature=1, top_k=top_k, typical_p=0.2, seed=1), vocabulary, CONTEXT)
    assert {sampler.draw(row) for _ in range(20)} == {2000}


def test_greedy_takes_the_first_of_equals(vocabulary: Vocabulary) -> None:
    sampler = Sampler(SamplingOptions(temperature=0, repeat_penalty=2), vocabulary, CONTEXT)
    sampler.accept(0)  # whose penalty changes nothing, as its logit is 0
    assert sampler.draw(flat(5000)) == 0


@given(seed=st.integers(0, 2**32), size=st.integers(1, 9000))
def test_greedy_is_the_largest_logit(vocabulary: Vocabulary, seed: int, size: int) -> None:
    row = np.random.default_rng(seed).integers(-50, 5, size).astype(np.float32)
    assert Sampler(GREEDY, vocabulary, CONTEXT).draw(row) == row.argmax()
    assert Sampler(SamplingOptions(temperature=1e-40), vocabulary, CONTEXT).draw(row) == row.argmax()


@given(
    seed=st.integers(0, 2**32),
    accepted=st.lists(st.integers(0, 9), max_size=30),
    repeat=st.sampled_from([1.0, 1.3, 0.7]),
    presence=st.floats(-3, 3, width=32),
    frequency=st.floats(-1, 1, width=32),
    last=st.sampled_from([0, 1, 6, 64, -1]),
)
def test_penalties_change_the_logits_of_seen_tokens_only(
    vocabulary: Vocabulary,
    seed: int,
    accepted: list[int],
    repeat: float,
    presence: float,
    frequency: float,
    last: int,
) -> None:
    row = distinct(seed, 3000, 1)
    row[:10] += 3  # so that the penalties decide
    sampling = SamplingOptions(
        temperature=0,
        repeat_penalty=repeat,
        presence_penalty=presence,
        frequency_penalty=frequency,
        penalty_last_n=last,
    )
    sampler = Sampler(sampling, vocabulary, trained_context=20)
    for token in accepted:
        sampler.accept(token)
    expected = row.astype(np.float64)
    window = {-1: 20, 0: 0}.get(last, last)
    for token, count in Counter(accepted[-window:] if window else []).items():
        expected[token] *= repeat if expected[token] <= 0 else 1 / repeat
        expected[token] -= count * frequency + presence
    drawn = sampler.draw(row)
    assert expected[drawn] == pytest.approx(expected.max(), abs=1e-5)


def test_seeds_reproduce_and_differ(vocabulary: Vocabulary) -> None:
    def tokens(seed: int | None) -> list[int]:
        sampler = Sampler(SamplingOptions(temperature=1, top_k=0, top_p=1, min_p=0, seed=seed), vocabulary, CONTEXT)
        return [sampler.draw(flat()) for _ in range(30)]

    assert tokens(0) == tokens(0)
    assert tokens(0) != tokens(1)
    assert tokens(None) != tokens(None)


def test_draws_are_as_frequent_as_probable(vocabulary: Vocabulary) -> None:
    row = np.full(5000, -20, np.float32)
    row[[10, 2000, 4999]] = np.log([0.6, 0.3, 0.1])
    for sampling in (PURE, SamplingOptions(temperature=1, top_k=5, top_p=1, min_p=0, seed=1)):
        sampler = Sampler(sampling, vocabulary, CONTEXT)
        counts = Counter(sampler.draw(row) for _ in range(3000))
        assert [counts[token] / 3000 for token in (10, 2000, 4999)] == pytest.approx([0.6, 0.3, 0.1], abs=0.03)


def test_bias_forces_and_forbids(vocabulary: Vocabulary) -> None:
    def biased(*entries: tuple[int, float]) -> Row:
        row = flat()
        Sampler(SamplingOptions(temperature=1, logit_bias=entries), vocabulary, CONTEXT).bias(row)
        return row

    row = biased((5, 100), (6, -100), (7, -1e9), (8, NOTHING), (9, 2.5), (10, -60), (10, -60))
    assert row[[4, 5, 9]].tolist() == [0, 100, 2.5]
    assert row[[6, 7, 8, 10]].tolist() == [NOTHING] * 4
    assert Sampler(SamplingOptions(seed=1), vocabulary, CONTEXT).draw(row) == 5
    huge = biased((5, 1e300))
    assert Sampler(SamplingOptions(temperature=0.01, seed=1), vocabulary, CONTEXT).draw(huge) == 5
    untouched = biased()
    assert not untouched.any()


def test_a_biased_token_has_to_exist(vocabulary: Vocabulary) -> None:
    with pytest.raises(UsageError, match=r"logit_bias has token 1024, .* from 0 to 1,023"):
        Sampler(SamplingOptions(logit_bias=((1024, 1.0),)), vocabulary, CONTEXT)


def test_ignore_eos_forbids_all_tokens_that_end(vocabulary: Vocabulary) -> None:
    row = flat()
    Sampler(SamplingOptions(ignore_eos=True), vocabulary, CONTEXT).bias(row)
    ends = [token for token in range(vocabulary.size) if vocabulary.ends_generation(token)]
    assert len(ends) == 2
    assert np.flatnonzero(row).tolist() == ends
    assert np.isneginf(row[ends]).all()


def test_tokens_that_the_file_suppresses_never_come(demo_path: Path, tmp_path: Path) -> None:
    raw = demo_path.read_bytes()
    entries = entry("tokenizer.ggml.suppress_tokens", 9, struct.pack("<IQ2i", 5, 2, 300, 400))
    entries += entry("filling", 8, string("."))
    entries = entries[:-9] + string("." * (1 + -len(entries) % 32))  # so that the tensors stay aligned
    count = struct.unpack_from("<Q", raw, 16)[0]
    path = tmp_path / "suppressing.gguf"
    path.write_bytes(raw[:16] + struct.pack("<Q", count + 2) + entries + raw[24:])
    row = flat()
    with LlamaModel(path) as model:
        Sampler(GREEDY, model.vocabulary, CONTEXT).bias(row)
    assert np.flatnonzero(np.isneginf(row)).tolist() == [300, 400]


def dry_draw(vocabulary: Vocabulary, history: list[int], wanted: int, **values: Any) -> int:  # noqa: ANN401 - any of Sampling's
    """What comes where `wanted` is the likeliest, and 900 the next."""
    sampler = Sampler(SamplingOptions(temperature=0, dry_multiplier=0.8, **values), vocabulary, CONTEXT)
    for token in history:
        sampler.accept(token)
    row = flat()
    row[[wanted, 900]] = 10, 9
    return sampler.draw(row)


def test_dry_breaks_a_loop(vocabulary: Vocabulary) -> None:
    loop = [500, 501, 502, 503]
    assert dry_draw(vocabulary, [*loop, *loop, *loop[:3]], 503) == 900
    assert dry_draw(vocabulary, [*loop, *loop, *loop[:3]], 504) == 504  # no repetition
    assert dry_draw(vocabulary, [], 503) == 503  # the sampler that was copied remembers nothing
    assert dry_draw(vocabulary, [*loop, 501, 502], 503) == 503  # two tokens are free at first: 0.8 is less than 1
    assert dry_draw(vocabulary, [*loop, 501, 502], 503, dry_allowed_length=1) == 900
    assert dry_draw(vocabulary, [*loop, *loop, *loop[:3]], 503, dry_penalty_last_n=3) == 503  # sees none
    assert dry_draw(vocabulary, [*loop, *loop, *loop[:3]], 503, dry_base=0.5) == 503  # which llama.cpp takes for off


def test_dry_does_not_reach_across_breakers(vocabulary: Vocabulary) -> None:
    (line,) = vocabulary.tokenize("\n", special=False)
    broken = [500, 501, line, 502, 503]
    history = [*broken, *broken, *broken[:4]]
    assert dry_draw(vocabulary, history, 503) == 503
    assert dry_draw(vocabulary, history, 503, dry_breakers=()) == 900
    assert dry_draw(vocabulary, history, 503, dry_breakers=("", "x" * 100)) == 900


@pytest.mark.parametrize(
    "sampling",
    [
        SamplingOptions(seed=1),
        SamplingOptions(seed=1, typical_p=0.7),
        SamplingOptions(seed=1, top_k=0, typical_p=0.7),
        SamplingOptions(seed=1, mirostat=1),
        SamplingOptions(seed=1, mirostat=2),
        SamplingOptions(seed=1, mirostat=2, repeat_penalty=1.2),
        SamplingOptions(seed=1, top_k=0, top_p=1),
        SamplingOptions(seed=1, repeat_penalty=1.2, dry_multiplier=1),
        PURE,
        GREEDY,
        SamplingOptions(temperature=0, repeat_penalty=1.2),
        SamplingOptions(temperature=0, mirostat=2),
        SamplingOptions(temperature=1e-25, seed=1),
        SamplingOptions(temperature=100, top_k=2**31 - 1, top_p=0, min_p=1, typical_p=0, seed=1),
        SamplingOptions(mirostat=1, temperature=100, mirostat_tau=0, mirostat_eta=1, seed=1),
        SamplingOptions(mirostat=2, temperature=1e-3, mirostat_tau=100, mirostat_eta=1, seed=1),
        SamplingOptions(repeat_penalty=100, presence_penalty=100, dry_multiplier=100, dry_base=100, seed=1),
        SamplingOptions(repeat_penalty=0.01, frequency_penalty=-100, penalty_last_n=-1, seed=1),
    ],
)
@pytest.mark.parametrize("left", [1, 2, 50])
def test_stays_in_what_is_possible(vocabulary: Vocabulary, sampling: SamplingOptions, left: int) -> None:
    sampler = Sampler(sampling, vocabulary, CONTEXT)
    for step in range(20):
        row = distinct(step, 5000, scale=30)
        token = sampler.draw(row)
        assert 0 <= token < row.size
        allowed = (np.arange(left) * 97 + 13).tolist()
        masked = np.full(row.size, -np.inf, np.float32)
        masked[allowed] = row[allowed]
        row[:] = masked  # a grammar refused it
        token = sampler.draw(row)
        assert token in allowed
        sampler.accept(token)


@pytest.mark.parametrize(
    "sampling",
    [
        GREEDY,
        PURE,
        SamplingOptions(),
        SamplingOptions(top_k=0, top_p=1),
        SamplingOptions(mirostat=2),
        SamplingOptions(repeat_penalty=2),
    ],
)
@pytest.mark.parametrize("size", [1, 100, 5000])
def test_no_token_possible(vocabulary: Vocabulary, sampling: SamplingOptions, size: int) -> None:
    sampler = Sampler(sampling, vocabulary, CONTEXT)
    sampler.accept(0)
    with pytest.raises(EngineError, match="no token is possible"):
        sampler.draw(np.full(size, -np.inf, np.float32))


@pytest.mark.parametrize(
    "sampling",
    [
        GREEDY,
        PURE,
        SamplingOptions(),
        SamplingOptions(top_k=0, top_p=1),
        SamplingOptions(mirostat=2),
        SamplingOptions(repeat_penalty=2),
    ],
)
@pytest.mark.parametrize("wrong", [math.nan, math.inf])
@pytest.mark.parametrize("place", [0, 63, 2500, 4999])
@pytest.mark.parametrize("level", [0, -math.inf])
def test_the_model_computed_no_numbers(
    vocabulary: Vocabulary, sampling: SamplingOptions, wrong: float, place: int, level: float
) -> None:
    row = np.full(5000, level, np.float32)
    row[place] = wrong
    sampler = Sampler(sampling, vocabulary, CONTEXT)
    sampler.accept(0)
    with pytest.raises(EngineError, match="no numbers"):
        sampler.draw(row)
    with pytest.raises(EngineError, match="no numbers"):
        sampler.draw(np.full(5000, wrong, np.float32))


def test_a_closed_sampler_says_so(vocabulary: Vocabulary) -> None:
    sampler = Sampler(SamplingOptions(), vocabulary, CONTEXT)
    sampler.close()
    sampler.close()
    with pytest.raises(EngineError, match="closed"):
        sampler.draw(flat())


@given(seed=st.integers(0, 2**32), top=st.integers(0, 100), scale=st.sampled_from([0.1, 3, 50]))
def test_logprobs_are_the_logarithms_of_softmax(vocabulary: Vocabulary, seed: int, top: int, scale: float) -> None:
    row = (np.random.default_rng(seed).standard_normal(vocabulary.size) * scale).astype(np.float32)
    row[seed % 1000] = -np.inf
    exact = row.astype(np.float64)
    exact -= exact.max()
    exact -= np.log(np.exp(exact).sum())
    told = token_logprobs(row, 1001, top, vocabulary)
    assert told.chosen.logprob == pytest.approx(exact[1001], abs=1e-4)
    assert told.chosen.bytes == vocabulary.piece(1001)
    assert [entry.token for entry in told.top] == np.argsort(-row, kind="stable")[:top].tolist()
    assert [entry.logprob for entry in told.top] == pytest.approx(np.sort(exact)[::-1][:top], abs=1e-4)
    everything = token_logprobs(row, 1001, vocabulary.size, vocabulary).top
    assert len(everything) == vocabulary.size - 1  # what cannot come is not told
    assert sum(math.exp(entry.logprob) for entry in everything) == pytest.approx(1, abs=1e-4)


@given(seed=st.integers(0, 2**32), size=st.integers(3000, 9000), top=st.integers(1, 20))
def test_the_likeliest_are_found_in_long_rows(seed: int, size: int, top: int) -> None:
    row = np.round(distinct(seed, size), 1)

    class Pieces:
        @staticmethod
        def piece(token: int) -> bytes:
            return str(token).encode()

    told = token_logprobs(row, 3, top, Pieces())  # type: ignore[arg-type]  # a vocabulary of that size
    assert [entry.token for entry in told.top] == np.argsort(-row, kind="stable")[:top].tolist()
    assert [entry.bytes for entry in told.top] == [b"%d" % entry.token for entry in told.top]
