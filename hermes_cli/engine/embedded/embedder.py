"""Embeddings: each step is one `llama_decode` with the tokens of several texts, and one vector for each of them.

Requests take turns text by text, so that a long list delays no short one. A text is decoded whole where its pooling
looks at all of its tokens; where it looks only at the last one and attention is causal, in batches, as a prompt is.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hermes_cli.engine.embedded.llama import Batch
from hermes_cli.engine.protocol import Embeddings, EngineStats, ModelInfo, SequenceState
from hermes_cli.engine.request import EmbeddingRequest, GenerationRequest
from hermes_cli.errors import ContextFullError, EngineError, HermesError, QueueFullError, UsageError
from hermes_cli.planning.memory import MICRO_BATCH

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    import numpy as np
    from numpy.typing import NDArray

    from hermes_cli.engine.embedded.llama import LlamaContext, LlamaModel
    from hermes_cli.engine.embedded.messages import LoadRequest

    Emit = Callable[[int, Embeddings | HermesError], None]


@dataclass
class EmbeddingJob:
    """A request with the tokens of its texts, and the vectors that there are so far."""

    id: int
    texts: list[list[int]]
    result: Embeddings  # without vectors
    dimensions: int
    vectors: list[bytes] = field(default_factory=list)
    next: int = 0  # the text that is decoded next


class EmbeddingRuntime:
    """A loaded model for embeddings; it has what the worker asks of any runtime."""

    prefixes = None

    def __init__(self, request: LoadRequest, model: LlamaModel, context: LlamaContext) -> None:
        self.model, self.context, self._max_queue = model, context, request.options.max_queue
        settings = request.plan.settings
        vocabulary = model.vocabulary
        control, added = vocabulary.special_texts()
        self.info = ModelInfo(
            context=settings.context,
            slots=settings.slots,
            trained_context=model.trained_context,
            parameters=model.parameters,
            weight_bytes=model.weight_bytes,
            vocabulary=vocabulary.size,
            bos=vocabulary.text_of(vocabulary.bos),
            eos=vocabulary.text_of(vocabulary.eos),
            adds_bos=vocabulary.adds_bos,
            control=tuple(control),
            added=tuple(added),
            pooling=settings.pooling or "",
            embedding_length=context.embedding_length,
        )

    def warm_up(self) -> None:
        """Do nothing: there are no grammars."""

    def scheduler(self, emit: Emit) -> Embedder:
        """Return what works on requests and gives their results to `emit`."""
        return Embedder(self.context, emit, slots=self.info.slots, max_queue=self._max_queue)

    def prepare(
        self, number: int, request: EmbeddingRequest | GenerationRequest
    ) -> Generator[None, None, EmbeddingJob]:
        """Return a request with its tokens; yield between its texts."""
        if isinstance(request, GenerationRequest):
            raise UsageError("this model makes embeddings, and writes no text.", hint="ask another model.")
        length = self.info.embedding_length
        dimensions = length if request.dimensions is None else request.dimensions
        if not 1 <= dimensions <= length:
            raise UsageError(
                f"is {dimensions}.", field="dimensions", hint=f"embeddings of this model have {length} numbers."
            )
        texts, truncated = [], []
        for index, text in enumerate(request.inputs):
            tokens = self._tokens(text)
            if len(tokens) > self.info.context:
                if not request.truncate:
                    raise _too_long(len(tokens), self.info.context)
                truncated.append(index)
            texts.append(tokens)
            yield
        result = Embeddings((), tuple(map(len, texts)), tuple(truncated))
        return EmbeddingJob(number, [self._cut(tokens) for tokens in texts], result, dimensions)

    def _tokens(self, text: str | tuple[int, ...]) -> list[int]:
        vocabulary = self.model.vocabulary
        if isinstance(text, str):
            tokens = vocabulary.tokenize(text, special=True, ends=True)
        else:
            tokens = list(text)
            if wrong := [token for token in tokens if not 0 <= token < vocabulary.size]:
                hint = f"this model's go from 0 to {vocabulary.size - 1:,}."
                raise UsageError(f"has token {wrong[0]}.", field="input", hint=hint)
        if not tokens:
            raise UsageError("has a text without any token.", field="input", hint="leave empty texts out.")
        return tokens

    def _cut(self, tokens: list[int]) -> list[int]:
        """Cut tokens to the context length, but for a last one that ends every text."""
        most = self.info.context
        if len(tokens) <= most:
            return tokens
        end = tokens[-1:] if tokens[-1] in self.model.vocabulary.marked else []
        return tokens[: most - len(end)] + end


class Embedder:
    """Takes requests, gives embeddings. Belongs to one thread; the worker drives it as it drives the scheduler."""

    def __init__(self, context: LlamaContext, emit: Emit, *, slots: int, max_queue: int) -> None:
        """Start with an empty context, made for so many `slots`: texts in one batch."""
        self._context, self._emit, self._slots, self._max_queue = context, emit, slots, max_queue
        self._batch = Batch(context.batch_tokens)
        self._jobs: deque[EmbeddingJob] = deque()
        self._counts: dict[str, float] = defaultdict(int)

    @property
    def busy(self) -> bool:
        """True while there are requests."""
        return bool(self._jobs)

    def submit(self, job: EmbeddingJob) -> None:
        """Take a request; an error becomes its result."""
        self._counts["requests"] += 1
        if len(self._jobs) > self._max_queue:
            self._counts["failed"] += 1
            hint = "try again in a moment, or allow more with --max-queue."
            self._emit(job.id, QueueFullError(f"{len(self._jobs):,} requests are waiting already.", hint=hint))
            return
        self._jobs.append(job)

    def cancel(self, id: int) -> None:  # noqa: A002 - as the scheduler has it
        """Remove a request without a result; do nothing if it has ended."""
        if job := next((job for job in self._jobs if job.id == id), None):
            self._counts["cancelled"] += 1
            self._jobs.remove(job)

    def step(self) -> None:
        """Decode one batch of texts, and emit the requests that are complete with it."""
        started = time.perf_counter()
        taken = self._take()
        try:
            decoding = self._decode([job.texts[index] for job, index in taken])
            vectors = [_unit(vector[: job.dimensions]) for vector, (job, _) in zip(decoding, taken, strict=True)]
        except EngineError as error:
            for job in {job.id: job for job, _ in taken}.values():
                self._jobs.remove(job)
                self._counts["failed"] += 1
                self._emit(job.id, error)
            return
        for (job, index), vector in zip(taken, vectors, strict=True):
            self._counts["prompt_tokens"] += len(job.texts[index])
            job.vectors.append(vector)
        for job in [job for job in self._jobs if len(job.vectors) == len(job.texts)]:
            self._jobs.remove(job)
            self._emit(job.id, Embeddings(tuple(job.vectors), job.result.tokens, job.result.truncated))
        self._counts["steps"] += 1
        self._counts["step_seconds"] += time.perf_counter() - started

    def stats(self) -> EngineStats:
        """Return the counters and the state of requests."""
        running = tuple(
            SequenceState(
                job.id, sum(map(len, job.texts)), sum(map(len, job.texts[: len(job.vectors)])), completion_tokens=0
            )
            for job in self._jobs
        )
        return EngineStats(running=running, **self._counts)  # type: ignore[arg-type]  # its keys are fields that count

    def close(self) -> None:
        """Remove all requests without results."""
        self._jobs.clear()

    def _take(self) -> list[tuple[EmbeddingJob, int]]:
        """Take texts of all requests in turn, for one batch; the tokens of a batch attend to all others, so few."""
        taken: list[tuple[EmbeddingJob, int]] = []
        room = min(self._context.batch_tokens, MICRO_BATCH)
        while len(taken) < self._slots and (
            job := next((job for job in self._jobs if job.next < len(job.texts)), None)
        ):
            size = len(job.texts[job.next])
            if taken and size > room:
                break
            room -= size
            taken.append((job, job.next))
            job.next += 1
            self._jobs.remove(job)
            self._jobs.append(job)
        return taken

    def _decode(self, texts: list[list[int]]) -> list[NDArray[np.float32]]:
        """Return the embedding of each text, which all fit into one batch unless there is only one."""
        started = time.perf_counter()
        try:
            longest = max(map(len, texts))
            for start in range(0, longest, self._batch.capacity):
                self._batch.clear()
                for sequence, tokens in enumerate(texts):
                    part = tokens[start : start + self._batch.capacity]
                    self._batch.add(part, start, sequence, outputs=len(part))
                self._context.decode(self._batch)
            return [self._context.embedding(sequence) for sequence in range(len(texts))]
        finally:
            for sequence in range(len(texts)):
                self._context.forget(sequence)
            self._counts["decode_seconds"] += time.perf_counter() - started


def _unit(vector: NDArray[np.float32]) -> bytes:
    """Return a vector of length 1 as 32-bit floats, little-endian."""
    import numpy as np  # noqa: PLC0415 - imported while the model loads

    values = np.asarray(vector, np.float64)
    length = float(np.linalg.norm(values))
    if not np.isfinite(length):
        raise EngineError("the model made an embedding that is not a number.", hint="its file may be damaged.")
    return (values / (length or 1.0)).astype("<f4").tobytes()


def _too_long(tokens: int, context: int) -> ContextFullError:
    return ContextFullError(
        f"a text has {tokens:,} tokens, the context length is {context:,} tokens.",
        hint="send shorter texts.",
        prompt_tokens=tokens,
        context_length=context,
    )
