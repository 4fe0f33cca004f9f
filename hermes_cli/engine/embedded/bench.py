"""Speed tests as llama-bench makes them (llama.cpp's tools/llama-bench): llama.cpp alone, random tokens, no sampler.

Prefill is one prompt in batches as large as a micro-batch; decoding is one token after the other. Both start after
`depth` tokens in the KV cache. A part of each test is run before it counts.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator

from hermes_cli.engine.embedded.bindings import LOG
from hermes_cli.engine.embedded.llama import Batch, LlamaContext, LlamaModel
from hermes_cli.engine.embedded.loading import decode_once
from hermes_cli.engine.embedded.messages import BenchRequest, BenchSpeeds, BenchTest

WARM_UP = 64, 8  # tokens prefilled, and decoded, before the first run counts


def bench(request: BenchRequest, progress: Callable[[float], None]) -> Iterator[BenchSpeeds]:
    """Load a model and run the tests, in order of depth; `progress` gets the part (0 to 1) of the weights.

    Raises:
        IntegrityError: llama.cpp refused the file.
        EngineError: there is no room for a context, or a decode failed.
    """
    LOG.verbose = request.verbose
    plan = request.plan
    with (
        LlamaModel(
            request.path, gpu_layers=plan.gpu_layers, tensor_split=plan.tensor_split, progress=progress
        ) as model,
        LlamaContext(model, plan.settings, threads=plan.threads) as context,
    ):
        decode_once(context)
        runner = _TestRunner(context)
        for test in sorted(request.tests, key=lambda test: test.depth):
            if not request.patient and runner.seconds_to_fill(test.depth) > request.seconds:
                yield BenchSpeeds(test, ())
                continue
            runner.fill(test.depth)
            runner.warm_up(test)
            began, speeds = time.perf_counter(), [runner.run(test)]
            while len(speeds) < request.runs and time.perf_counter() - began < request.seconds:
                speeds.append(runner.run(test))
            yield BenchSpeeds(test, tuple(speeds))


class _TestRunner:
    """One sequence in a context, filled up to a depth."""

    def __init__(self, context: LlamaContext) -> None:
        self._context = context
        self._batch = Batch(context.batch_tokens)
        self._depth = 0
        self._prefill_speed = 0.0  # tokens per second, as far as it is known
        self._random = random.Random(0)  # noqa: S311 - any tokens will do

    def seconds_to_fill(self, depth: int) -> float:
        return (depth - self._depth) / self._prefill_speed if self._prefill_speed else 0.0

    def fill(self, depth: int) -> None:
        self._prefill(depth - self._depth)
        self._depth = depth

    def warm_up(self, test: BenchTest) -> None:
        """Run a part of a test, so that kernels are compiled and caches warm."""
        prefill, decode = WARM_UP
        if test.prefill:
            self._prefill(min(prefill, test.prefill))
        else:
            self._decode(min(decode, test.decode))
        self._context.forget(0, self._depth)

    def run(self, test: BenchTest) -> float:
        """Run a test once and return its tokens per second."""
        started = time.perf_counter()
        if test.prefill:
            self._prefill(test.prefill)
        else:
            self._decode(test.decode)
        speed = (test.prefill or test.decode) / (time.perf_counter() - started)
        self._context.forget(0, self._depth)
        if test.prefill:
            self._prefill_speed = speed
        return speed

    def _prefill(self, count: int) -> None:
        position = self._depth
        for start in range(0, count, self._batch.capacity):
            size = min(self._batch.capacity, count - start)
            self._batch.clear()
            self._batch.add([self._token() for _ in range(size)], position + start, 0, outputs=start + size == count)
            self._context.decode(self._batch)

    def _decode(self, count: int) -> None:
        for position in range(self._depth, self._depth + count):
            self._batch.clear()
            self._batch.add([self._token()], position, 0, outputs=1)
            self._context.decode(self._batch)

    def _token(self) -> int:
        return self._random.randrange(self._context.model.vocabulary.size)
