"""Measures the speeds of a model in an engine outside this program, as a client meets them.

The tests are llama-bench's, as in benchmark.py: prefill is the time to the first token behind a prompt of which the
engine has `depth` tokens in its prefix cache, decoding a completion behind such a prompt. The network and the engine's
queue are in it.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Literal

from hermes_cli.engine.protocol import Done, Engine, ModelInfo
from hermes_cli.engine.request import GenerationRequest, SamplingOptions
from hermes_cli.errors import EngineError
from hermes_cli.event_loop import EventLoop
from hermes_cli.models.attached import attach
from hermes_cli.models.benchmark import BenchOptions, bench_tests
from hermes_cli.models.engine_choice import own
from hermes_cli.store.benchmarks import BenchmarkTest

if TYPE_CHECKING:
    from hermes_cli.catalog.models import Catalogue
    from hermes_cli.engine.embedded.messages import BenchTest
    from hermes_cli.models.resolve import ModelRequest


def benchmark_outside(
    request: ModelRequest, catalogue: Catalogue, options: BenchOptions, show: Callable[[str], None]
) -> tuple[str, tuple[BenchmarkTest, ...]]:
    """Return the name of a model and its speeds in an engine outside; `show` is told what goes on.

    Raises:
        UsageError: it is another model, or its context is too short for any of the depths.
        HermesError: the engine does not answer, or fails.
    """

    async def measure() -> tuple[str, tuple[BenchmarkTest, ...]]:
        name, engine = await _opened(request, catalogue)
        try:
            info = await engine.load()
            results = []
            await _completed(engine, _prompt(info, 8, 0), 2)  # the first request of some engines compiles
            for test in bench_tests(options.depths, info.context - 1):
                show(f"measuring {test.name}")
                runs = [await _speed(engine, info, test, number) for number in range(options.runs)]
                results.append(_result(test, tuple(runs)))
            return name, tuple(results)
        finally:
            await engine.close()

    with EventLoop() as loop:
        return loop.run(measure())


async def _opened(request: ModelRequest, catalogue: Catalogue) -> tuple[str, Engine]:
    if request.engine:
        owned = own(request, catalogue)
        return owned.name, owned.engine()
    model, engine = await attach(request, catalogue)
    return model.name, engine


async def _speed(engine: Engine, info: ModelInfo, test: BenchTest, number: int) -> float:
    """Return the tokens per second of one run."""
    start = _prompt(info, max(test.depth, 1), number)
    if test.depth:
        await _completed(engine, start, 1)
    if test.decode:
        done = await _completed(engine, start, test.decode)
        # The time to the first token, too: busy engines send several tokens at once.
        return done.completion_tokens / max(done.prompt_seconds + done.completion_seconds, 1e-6)
    begun = start if test.depth else ()
    done = await _completed(engine, (*begun, *_prompt(info, test.prefill, number + 1_000_000)), 1)
    return (done.prompt_tokens - done.cached_tokens) / max(done.prompt_seconds, 1e-6)


def _prompt(info: ModelInfo, tokens: int, seed: int) -> tuple[int, ...]:
    """Return ordinary tokens that no other run has in its place: the engine has none of them in its cache."""
    special = {*info.tags.values(), *info.others}
    ordinary = [token for token in range(info.vocabulary // 8, info.vocabulary) if token not in special]
    return tuple(random.Random(seed).choices(ordinary, k=tokens))  # noqa: S311 - no secret


async def _completed(engine: Engine, prompt: tuple[int, ...], tokens: int) -> Done:
    sampling = SamplingOptions(temperature=0, ignore_eos=True)
    request = GenerationRequest(prompt, sampling=sampling, max_tokens=tokens)
    async with aclosing(engine.generate(request)) as events:
        async for event in events:
            if isinstance(event, Done):
                return event
    raise EngineError("the engine ended an answer without an end.", hint="see its log.")


def _result(test: BenchTest, runs: tuple[float, ...]) -> BenchmarkTest:
    deviation = statistics.stdev(runs) if len(runs) > 1 else 0.0
    kind: Literal["prefill", "decode"] = "prefill" if test.prefill else "decode"
    return BenchmarkTest(test.name, kind, test.depth, statistics.mean(runs), deviation, runs)
