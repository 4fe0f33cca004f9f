"""The token that is drawn is the one that llama.cpp draws from all tokens."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from logit_rows import Row, distinct
from numpy.typing import NDArray

from hermes_cli.engine.embedded.bindings import llama_cpp
from hermes_cli.engine.embedded.llama import Batch, LlamaContext, LlamaModel
from hermes_cli.engine.embedded.sampler import Sampler
from hermes_cli.engine.embedded.vocabulary import Vocabulary
from hermes_cli.engine.request import SamplingOptions
from hermes_cli.planning.memory import ContextSettings

CONTEXT = 1024


@pytest.fixture(scope="session")
def vocabulary(demo_model: LlamaModel) -> Vocabulary:
    return demo_model.vocabulary


class Whole:
    """llama.cpp's samplers in the order of its common_sampler_init, over all tokens, as its own programs use them."""

    def __init__(self, sampling: SamplingOptions, vocabulary: Vocabulary) -> None:
        self.chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
        for link in self._links(sampling, vocabulary):
            llama_cpp.llama_sampler_chain_add(self.chain, link)

    @staticmethod
    def _links(sampling: SamplingOptions, vocabulary: Vocabulary) -> Iterator[Any]:
        def reach(last: int) -> int:
            return CONTEXT if last < 0 else last

        yield llama_cpp.llama_sampler_init_penalties(
            vocabulary.size,
            reach(sampling.penalty_last_n),
            sampling.repeat_penalty,
            sampling.frequency_penalty,
            sampling.presence_penalty,
        )
        breakers = [text.encode() for text in sampling.dry_breakers]
        yield llama_cpp.llama_sampler_init_dry(
            vocabulary._vocab,  # noqa: SLF001 - the C pointer
            sampling.dry_multiplier,
            sampling.dry_base,
            sampling.dry_allowed_length,
            reach(sampling.dry_penalty_last_n),
            (ctypes.c_char_p * len(breakers))(*breakers),
            len(breakers),
        )
        seed = sampling.seed or 0
        if sampling.mirostat:
            yield llama_cpp.llama_sampler_init_temp(sampling.temperature)
        if sampling.mirostat == 1:
            yield llama_cpp.llama_sampler_init_mirostat(
                vocabulary.size, seed, sampling.mirostat_tau, sampling.mirostat_eta, 100
            )
        elif sampling.mirostat == 2:
            yield llama_cpp.llama_sampler_init_mirostat_v2(seed, sampling.mirostat_tau, sampling.mirostat_eta)
        else:
            yield llama_cpp.llama_sampler_init_top_k(sampling.top_k)
            yield llama_cpp.llama_sampler_init_typical(sampling.typical_p, 0)
            yield llama_cpp.llama_sampler_init_top_p(sampling.top_p, 0)
            yield llama_cpp.llama_sampler_init_min_p(sampling.min_p, 0)
            yield llama_cpp.llama_sampler_init_temp(sampling.temperature)
            yield llama_cpp.llama_sampler_init_dist(seed)

    def draw(self, row: Row, among: NDArray[np.intp] | None = None) -> int:
        ids = np.arange(row.size) if among is None else np.sort(among)
        table = np.zeros(ids.size, [("id", np.int32), ("logit", np.float32), ("p", np.float32)])
        table["id"], table["logit"] = ids, row[ids]
        data: Any = table.ctypes.data_as(llama_cpp.llama_token_data_p)
        tokens = llama_cpp.llama_token_data_array(data, ids.size, -1, False)  # noqa: FBT003
        llama_cpp.llama_sampler_apply(self.chain, ctypes.byref(tokens))
        return int(tokens.data[tokens.selected].id)

    def accept(self, token: int) -> None:
        llama_cpp.llama_sampler_accept(self.chain, token)

    def close(self) -> None:
        llama_cpp.llama_sampler_free(self.chain)


# Rows are longer than the demo model's vocabulary where that matters: the smaller ones are searched as a whole.
sizes = st.integers(3000, 9000)
shares = st.floats(0, 1)
penalties = {
    "repeat_penalty": st.sampled_from([1.0, 1.1, 0.8, 2.5]),
    "presence_penalty": st.sampled_from([0.0, 1.5, -1.5]),
    "frequency_penalty": st.sampled_from([0.0, 0.5, -0.5]),
    "penalty_last_n": st.sampled_from([0, 5, 64, -1]),
    "dry_multiplier": st.sampled_from([0.0, 0.0, 0.8, 3.0]),
    "dry_breakers": st.sampled_from([(), ("\n",)]),
}
cut_by_rank = st.builds(
    SamplingOptions,
    temperature=st.floats(0.05, 5),
    top_k=st.integers(1, 300),
    top_p=shares,
    min_p=st.floats(0, 0.3),
    typical_p=st.sampled_from([1.0, 1.0, 0.9, 0.4]),
    seed=st.integers(0, 1000),
    **penalties,
)
cut_by_share = st.builds(
    SamplingOptions,
    temperature=st.floats(0.05, 5),
    top_k=st.sampled_from([0, -1]),
    top_p=st.sampled_from([1.0, 1.0, 0.9]),
    min_p=st.sampled_from([0.0, 0.01, 0.2, 1.0]),
    typical_p=st.sampled_from([1.0, 1.0, 0.9]),
    seed=st.integers(0, 1000),
    **penalties,
)
mirostats = st.builds(
    SamplingOptions,
    temperature=st.floats(0.3, 2),
    mirostat=st.sampled_from([1, 2]),
    mirostat_tau=st.floats(1, 8),
    seed=st.integers(0, 1000),
    **penalties,
)


@given(
    sampling=st.one_of(cut_by_rank, cut_by_share, mirostats),
    seed=st.integers(0, 2**32),
    size=sizes,
    prompt=st.lists(st.integers(0, 1023), max_size=30),
)
def test_draws_what_llama_cpp_draws_from_all_tokens(
    vocabulary: Vocabulary, sampling: SamplingOptions, seed: int, size: int, prompt: list[int]
) -> None:
    sampler, whole = Sampler(sampling, vocabulary, CONTEXT), Whole(sampling, vocabulary)
    for token in prompt:
        sampler.accept(token)
        whole.accept(token)
    for step in range(4):
        row = distinct(seed + step, size)
        if prompt and step % 2:  # what was there already would come again
            row[prompt[0]] = row.max() + np.float32(1.0379)
        before = row.copy()
        token = sampler.draw(row)
        assert (row == before).all()
        assert token == whole.draw(row)
        token %= vocabulary.size
        sampler.accept(token)
        whole.accept(token)
    whole.close()


@given(sampling=st.one_of(cut_by_rank, cut_by_share), seed=st.integers(0, 2**32), size=sizes, left=st.integers(1, 60))
def test_draws_the_same_after_a_mask(
    vocabulary: Vocabulary, sampling: SamplingOptions, seed: int, size: int, left: int
) -> None:
    sampler, whole = Sampler(sampling, vocabulary, CONTEXT), Whole(sampling, vocabulary)
    row = distinct(seed, size)
    allowed = np.random.default_rng(seed).permutation(row.size)[:left]
    masked = np.full(row.size, -np.inf, np.float32)
    masked[allowed] = row[allowed]
    for step in range(4):
        sampler.accept(step)
        whole.accept(step)
        assert sampler.draw(masked) == whole.draw(row, among=allowed)
    whole.close()


@given(seed=st.integers(0, 2**32), size=sizes, top_k=st.integers(1, 300), steps=st.sampled_from([1, 4]))
def test_equal_logits_change_only_which_of_them_is_drawn(
    vocabulary: Vocabulary, seed: int, size: int, top_k: int, steps: int
) -> None:
    sampling = SamplingOptions(temperature=1.5, top_k=top_k, seed=seed % 1000)
    sampler, whole = Sampler(sampling, vocabulary, CONTEXT), Whole(sampling, vocabulary)
    row = np.round(distinct(seed, size) * steps) / np.float32(steps)
    for _ in range(8):
        assert row[sampler.draw(row)] == row[whole.draw(row)]
    whole.close()


@pytest.mark.parametrize("top_k", [10, 40])
def test_writes_what_llama_sampler_sample_writes(demo_model: LlamaModel, top_k: int) -> None:
    sampling = SamplingOptions(temperature=3, top_k=top_k, top_p=0.99, min_p=0.001, repeat_penalty=1.3, seed=7)
    sampler, whole = Sampler(sampling, demo_model.vocabulary, CONTEXT), Whole(sampling, demo_model.vocabulary)
    context = LlamaContext(demo_model, ContextSettings(256), threads=1)
    batch = Batch(context.batch_tokens)
    prompt = demo_model.vocabulary.tokenize("<|im_start|>user\nWho are you?", special=True)
    batch.add(prompt, 0, 0, 1)
    tokens: list[int] = []
    for position in range(len(prompt), len(prompt) + 40):
        context.decode(batch)
        token = sampler.draw(context.logits()[0])
        sampler.accept(token)
        assert token == llama_cpp.llama_sampler_sample(whole.chain, context.handle, -1)
        tokens.append(token)
        batch.clear()
        batch.add([token], position, 0, 1)
    assert len(set(tokens)) > 20
    whole.close()
