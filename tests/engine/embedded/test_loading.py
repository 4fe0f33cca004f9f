"""What happens between the weights and the first request."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes_cli.engine.embedded import loading
from hermes_cli.engine.embedded.llama import LlamaModel
from hermes_cli.engine.embedded.loading import ModelRuntime, fastest, load
from hermes_cli.engine.embedded.messages import EngineOptions, LoadRequest
from hermes_cli.engine.embedded.vocabulary import Vocabulary
from hermes_cli.errors import UsageError
from hermes_cli.planning.load_plan import LoadPlan
from hermes_cli.planning.memory import ContextSettings

PLAN = LoadPlan(ContextSettings(512))


def loaded_model(path: Path, plan: LoadPlan = PLAN, tags: tuple[str, ...] = ()) -> ModelRuntime:
    runtime = load(LoadRequest(path, plan, EngineOptions(tags=tags)), lambda _: None)
    assert isinstance(runtime, ModelRuntime)
    return runtime


@given(st.integers(8, 512), st.floats(0.01, 10), st.floats(0.01, 10), st.floats(0.01, 10))
def test_fewer_threads_only_where_they_are_clearly_faster(usual: int, all_: float, most: float, half: float) -> None:
    times = {usual: all_, usual * 3 // 4: most, usual // 2: half}
    chosen = fastest(usual, times.__getitem__)
    if chosen == usual:
        assert min(most, half) >= 0.95 * all_
    else:
        assert times[chosen] == min(most, half) < 0.95 * all_


def test_threads_are_measured_where_there_are_many(demo_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[int] = []

    def seconds(_: object, prefill: int, decode: int) -> float:
        assert prefill == 8
        measured.append(decode)
        return 1.0

    monkeypatch.setattr(loading, "decode_seconds", seconds)
    for threads, gpu_layers in ((7, 0), (8, 1), (8, 0)):
        loaded = loaded_model(demo_path, LoadPlan(ContextSettings(512), gpu_layers, threads=threads))
        loaded.model.close()
    assert measured == [8, 6, 4]


def test_measuring_leaves_nothing_in_the_cache(demo_path: Path) -> None:
    loaded = loaded_model(demo_path, LoadPlan(ContextSettings(512), threads=2))
    assert loading.decode_seconds(loaded.context, 2, 1) > 0
    assert loaded.context.forget(0)
    loading.decode_once(loaded.context)  # position 0 is free again
    loaded.model.close()


def test_a_vocabulary_without_an_end_can_do_all_but_constraints(
    demo_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Vocabulary, "ends", set())
    loaded = loaded_model(demo_path, tags=("<tool_call>", "no tag"))
    with pytest.raises(UsageError, match="no token that ends an answer"):
        loaded.grammars.start('{"grammars": [{"lark_grammar": "start: /a+/"}]}')
    assert list(loaded.info.tags) == ["<tool_call>"]
    loaded.model.close()


def test_the_vocabulary_is_read_once(demo_path: Path) -> None:
    loaded = loaded_model(demo_path, tags=("<tool_call>",))
    with ThreadPoolExecutor(4) as pool:
        tokenizers = {id(tokenizer) for tokenizer in pool.map(lambda _: loaded.grammars.tokenizer(), range(8))}
    assert len(tokenizers) == 1
    loaded.model.close()


def test_no_token_that_ends_an_answer_is_missed(demo_model: LlamaModel) -> None:
    vocabulary = demo_model.vocabulary
    assert vocabulary.ends == {token for token in range(vocabulary.size) if vocabulary.ends_generation(token)}
    assert vocabulary.ends
