"""Embeddings of the engine, in its own process, against llama.cpp's API called by hand."""

from __future__ import annotations

import array
import asyncio
import ctypes
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from conftest import WaitFor
from desk import finish
from tiny_bert import CLS, SEP, write_tiny_bert

from hermes_cli.engine.embedded.bindings import llama_cpp
from hermes_cli.engine.embedded.dry_run import DryRunner
from hermes_cli.engine.embedded.embedder import Embedder, EmbeddingJob, EmbeddingRuntime
from hermes_cli.engine.embedded.engine import EmbeddedEngine
from hermes_cli.engine.embedded.llama import LlamaContext, LlamaModel
from hermes_cli.engine.embedded.loading import load
from hermes_cli.engine.embedded.messages import DryRunRequest, EngineOptions, LoadRequest
from hermes_cli.engine.protocol import Embeddings
from hermes_cli.engine.request import EmbeddingRequest, GenerationRequest
from hermes_cli.errors import ContextFullError, HermesError, QueueFullError, UsageError
from hermes_cli.gguf.shards import read_model
from hermes_cli.hardware.machine import Machine
from hermes_cli.planning.load_plan import LoadOverrides, LoadPlan
from hermes_cli.planning.memory import Pooling, facts_of
from hermes_cli.planning.planner import plans_for

MACHINE = Machine((), 1 << 36, 1 << 36, None, "given", "a CPU", 1, (), "an OS", "/", 1 << 40, ("cpu",))
TEXTS = ("the cat sat on a mat.", "is a dog there?", "hermes", "cats and dogs, and a mat")


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bert(tmp_path_factory.mktemp("bert") / "tiny-bert.gguf")


def plan_of(path: Path, pooling: Pooling) -> LoadPlan:
    return plans_for(facts_of(read_model(path)[1]), MACHINE, LoadOverrides(pooling=pooling))[0]


def loaded(path: Path, pooling: Pooling, **options: int) -> EmbeddingRuntime:
    request = LoadRequest(path, plan_of(path, pooling), EngineOptions(**options))  # type: ignore[arg-type]
    runtime = load(request, lambda _: None)
    assert isinstance(runtime, EmbeddingRuntime)
    return runtime


def run(runtime: EmbeddingRuntime, *requests: EmbeddingRequest) -> list[Embeddings]:
    results: dict[int, Embeddings | HermesError] = {}
    embedder = runtime.scheduler(results.__setitem__)
    for number, request in enumerate(requests):
        embedder.submit(finish(runtime.prepare(number, request)))
    while embedder.busy:
        embedder.step()
    return [result for _, result in sorted(results.items()) if isinstance(result, Embeddings)]


def floats(vector: bytes) -> list[float]:
    return array.array("f", vector).tolist()


def by_hand(path: Path, pooling: int, tokens: Sequence[int]) -> list[float]:
    """The embedding of one text as a C program would get it: one batch, no hermes."""
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
    params = llama_cpp.llama_context_default_params()
    params.embeddings, params.pooling_type, params.n_ctx, params.n_threads = True, pooling, 1024, 1
    params.n_batch = params.n_ubatch = 1024
    context = llama_cpp.llama_init_from_model(model, params)
    batch = llama_cpp.llama_batch_init(len(tokens), 0, 1)
    batch.n_tokens = len(tokens)
    for position, token in enumerate(tokens):
        batch.token[position], batch.pos[position], batch.logits[position] = token, position, True
        batch.n_seq_id[position], batch.seq_id[position][0] = 1, 0
    assert llama_cpp.llama_decode(context, batch) == 0
    vector = llama_cpp.llama_get_embeddings_seq(context, 0)[: llama_cpp.llama_model_n_embd_out(model)]
    llama_cpp.llama_batch_free(batch)
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
    length = math.sqrt(sum(number * number for number in vector))
    return [number / length for number in vector]


@pytest.mark.parametrize(("pooling", "number"), [("mean", 1), ("cls", 2)])
def test_an_encoder_s_embeddings_are_llama_cpp_s(bert: Path, pooling: Pooling, number: int) -> None:
    runtime = loaded(bert, pooling)
    (together,) = run(runtime, EmbeddingRequest(TEXTS))
    for text, vector, count in zip(TEXTS, together.vectors, together.tokens, strict=True):
        tokens = runtime.model.vocabulary.tokenize(text, special=True, ends=True)
        assert (tokens[0], tokens[-1], len(tokens)) == (CLS, SEP, count)
        assert floats(vector) == pytest.approx(by_hand(bert, number, tokens), abs=1e-3)


def test_so_are_those_of_a_model_with_causal_attention(demo_path: Path) -> None:
    """A text of more tokens than a batch among them: the last token sees all of it."""
    runtime = loaded(demo_path, "last")
    texts = ("What is GGUF?", "word and " * 90, "Hi")
    (together,) = run(runtime, EmbeddingRequest(texts))
    assert together.tokens[1] > runtime.context.batch_tokens == 512
    for text, vector in zip(texts, together.vectors, strict=True):
        tokens = runtime.model.vocabulary.tokenize(text, special=True, ends=True)
        assert floats(vector) == pytest.approx(by_hand(demo_path, 3, tokens), abs=2e-3)
    assert plan_of(demo_path, "mean").settings.batch_tokens == 1024, "the mean is that of a whole text"


def test_requests_take_turns_and_keep_their_order(bert: Path) -> None:
    runtime = loaded(bert, "mean")
    order: list[int] = []
    embedder = Embedder(runtime.context, lambda number, _: order.append(number), slots=2, max_queue=9)
    embedder.submit(finish(runtime.prepare(0, EmbeddingRequest(TEXTS * 3))))
    embedder.submit(finish(runtime.prepare(1, EmbeddingRequest(("a dog",)))))
    while embedder.busy:
        embedder.step()
    assert order == [1, 0]
    many, one = run(runtime, EmbeddingRequest(TEXTS * 20), EmbeddingRequest(("a dog",)))
    for index, vector in enumerate(many.vectors):
        assert floats(vector) == pytest.approx(floats(many.vectors[index % 4]), abs=1e-3)
    assert len(one.vectors) == 1
    assert embedder.stats().prompt_tokens == sum(many.tokens[:12]) + sum(one.tokens)


def test_dimensions_keep_the_first_numbers_at_length_1(bert: Path) -> None:
    runtime = loaded(bert, "mean")
    whole, part = run(runtime, EmbeddingRequest(("a cat",)), EmbeddingRequest(("a cat",), dimensions=8))
    first = floats(whole.vectors[0])[:8]
    length = math.sqrt(sum(number * number for number in first))
    assert floats(part.vectors[0]) == pytest.approx([number / length for number in first], abs=1e-6)
    for wrong in (0, 33, -1):
        with pytest.raises(UsageError, match=r"^dimensions is .*"):
            finish(runtime.prepare(0, EmbeddingRequest(("a",), dimensions=wrong)))


def test_a_text_that_is_too_long_is_refused_or_cut_as_asked(bert: Path) -> None:
    runtime = loaded(bert, "mean")
    with pytest.raises(ContextFullError) as error:
        finish(runtime.prepare(0, EmbeddingRequest(("a cat", "cat " * 100))))
    assert (error.value.prompt_tokens, error.value.context_length) == (102, 64)
    job = finish(runtime.prepare(0, EmbeddingRequest(("a cat", "cat " * 100), truncate=True)))
    assert [len(text) for text in job.texts] == [4, 64]
    assert job.texts[1][-1] == SEP
    assert (job.result.tokens, job.result.truncated) == ((4, 102), (1,))


@pytest.mark.parametrize(
    ("given", "words"), [((-1,), "input has token -1"), ((5, 999), "input has token 999"), ((), "without any token")]
)
def test_what_is_no_text_of_this_model_is_refused(bert: Path, given: tuple[int, ...], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        finish(loaded(bert, "mean").prepare(0, EmbeddingRequest((given,))))


def test_too_many_requests_are_refused(bert: Path) -> None:
    runtime = loaded(bert, "mean", max_queue=1)
    results: dict[int, object] = {}
    embedder = runtime.scheduler(results.__setitem__)
    for number in range(3):
        embedder.submit(finish(runtime.prepare(number, EmbeddingRequest(("a",)))))
    assert isinstance(results[2], QueueFullError)
    embedder.cancel(0)
    embedder.cancel(7)
    while embedder.busy:
        embedder.step()
    assert 0 not in results
    assert isinstance(results[1], Embeddings)


def test_the_plan_s_memory_is_what_is_allocated(bert: Path, demo_path: Path) -> None:
    for path, pooling in ((bert, "mean"), (demo_path, "last")):
        facts, plan = facts_of(read_model(path)[1]), plan_of(path, pooling)  # type: ignore[arg-type]
        runner = DryRunner()
        (planned,) = runner.run(DryRunRequest(path, facts.weights, plan)).parts
        runner.close()
        with LlamaModel(path) as model, LlamaContext(model, plan.settings, threads=1) as context:
            rows = plan.settings.batch_tokens
            assert planned.output == rows * (model.vocabulary.size + context.embedding_length) * ctypes.sizeof(
                ctypes.c_float
            )
        assert bool(planned.kv_cache) == (path == demo_path)
        assert planned.compute > 0


def test_the_process_embeds_and_writes_no_text(bert: Path, demo_path: Path, wait_for: WaitFor) -> None:
    async def converse() -> None:
        engine = EmbeddedEngine(bert, plan_of(bert, "mean"))
        info = await engine.load()
        assert (info.pooling, info.embedding_length, info.context) == ("mean", 32, 64)
        results = await asyncio.gather(*(engine.embed(EmbeddingRequest((text,))) for text in TEXTS))
        together = await engine.embed(EmbeddingRequest(TEXTS))
        for alone, vector in zip(results, together.vectors, strict=True):
            assert floats(alone.vectors[0]) == pytest.approx(floats(vector), abs=1e-3)
        with pytest.raises(UsageError, match="writes no text"):
            _ = [event async for event in engine.generate(GenerationRequest(("Hi",)))]
        stats = await engine.stats()
        assert (stats.requests, stats.failed, stats.state) == (6, 1, "ready")
        await engine.close()
        writer = EmbeddedEngine(demo_path, LoadPlan(plan_of(demo_path, "last").settings.__class__(512), threads=1))
        with pytest.raises(UsageError, match="makes no embeddings"):
            await writer.embed(EmbeddingRequest(("Hi",)))
        await writer.close()

    wait_for(converse())


def test_an_abandoned_request_is_dropped(bert: Path) -> None:
    """As a client that leaves has it: what is left of its texts is not embedded."""
    runtime = loaded(bert, "mean")
    results: dict[int, object] = {}
    embedder = Embedder(runtime.context, results.__setitem__, slots=1, max_queue=9)
    job = finish(runtime.prepare(0, EmbeddingRequest(TEXTS)))
    assert isinstance(job, EmbeddingJob)
    embedder.submit(job)
    embedder.step()
    embedder.cancel(0)
    assert not embedder.busy
    assert len(job.vectors) == 1
    assert not results
    assert embedder.stats().cancelled == 1


def test_tokens_for_filling_in_are_known_if_there_are_all_three(tmp_path: Path, bert: Path) -> None:
    with LlamaModel(bert) as model:
        assert model.vocabulary.fim == ()
    names = {"fim_pre": 5, "fim_suf": 6, "fim_mid": 7}
    with LlamaModel(write_tiny_bert(tmp_path / "three.gguf", tokens=names)) as model:
        assert model.vocabulary.fim == (5, 6, 7)
    del names["fim_suf"]
    with LlamaModel(write_tiny_bert(tmp_path / "two.gguf", tokens=names)) as model:
        assert model.vocabulary.fim == ()
