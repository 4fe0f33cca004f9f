"""Continuous batching: each step is one `llama_decode` with the next tokens of all active requests.

    waiting ──admit──► running (prefill in chunks, then decode) ──► ended
       ▲                  │
       └────preempt───────┘   the newest, when the KV cache is full; it resumes later without its client noticing

All is driven by `step`, in one thread. It brings together the KV cache (kv_cache.py), the active requests
(sequence.py), the waiting ones and the cost of a step (step_cost.py).
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from hermes_cli.engine.embedded.kv_cache import KVCache, common_prefix
from hermes_cli.engine.embedded.llama import Batch, LlamaContext, LlamaModel
from hermes_cli.engine.embedded.sequence import NO_SEQUENCE, ActiveSequence, Job
from hermes_cli.engine.embedded.speculation import DraftModel
from hermes_cli.engine.embedded.step_cost import StepCostModel, fixed_draft_length
from hermes_cli.engine.embedded.vocabulary import TokenPieces
from hermes_cli.engine.protocol import EngineStats, Event, SequenceState
from hermes_cli.errors import ContextFullError, EngineError, HermesError, QueueFullError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hermes_cli.engine.embedded.saved_prefixes import SavedPrefixes
Emit = Callable[[int, Event | HermesError], None]

WORTH_WAITING = 32  # tokens of a shared prompt that are worth waiting for instead of computing them twice
MARGIN = 64  # KV cells that each active request will need soon; nobody is admitted into them
OUTPUTS_OF_PROMPTS = 32  # tokens of a prompt in one step whose log-probabilities are wanted: a millisecond for each
MOST_DRAFTED = 24  # tokens of one request in one step
MAX_CLIENTS = 4096  # whose last turn is remembered


class Scheduler:
    """Takes requests, gives events. Belongs to one thread."""

    def __init__(
        self,
        model: LlamaModel,
        context: LlamaContext,
        emit: Emit,
        *,
        slots: int = 1,
        lookup: bool = True,
        max_queue: int = 256,
        draft: DraftModel | None = None,
        saved: SavedPrefixes | None = None,
    ) -> None:
        """Start with an empty context, made for so many `slots`.

        `emit` is called with the id of a request and an event; an error is its last. `lookup` drafts by prompt lookup.
        """
        self._model, self._context, self._emit = model, context, emit
        self._slots, self._lookup, self._draft, self._saved = slots, lookup, draft, saved
        self.kv_cache = KVCache(context, slots)
        self._batch = Batch(context.batch_tokens)
        self._pieces = TokenPieces(model.vocabulary)
        self._step_cost = StepCostModel()
        self._queue = RequestQueue(max_queue)
        self._running: list[ActiveSequence] = []  # the oldest first
        self._requests: dict[int, ActiveSequence] = {}
        self._blocked = False  # the next request has no room, and none has ended since
        self._counts: dict[str, float] = defaultdict(int)
        self._planned = 0  # tokens of the step that is being prepared

    @property
    def busy(self) -> bool:
        """True while there are requests."""
        return bool(self._requests)

    def submit(self, job: Job) -> None:
        """Take a request; an error in it becomes its last event."""
        self._counts["requests"] += 1
        try:
            if len(job.prompt) >= self._context.length:
                raise _full(self._context, len(job.prompt))
            request = ActiveSequence(job, self._model, self._pieces, self._context.length, lookup=self._lookup)
            self._queue.push(request)
        except HermesError as error:
            self._counts["failed"] += 1
            self._emit(job.id, error)
            return
        self._requests[job.id] = request
        self._blocked = False
        if request.remaining <= 0 and not request.unread:
            self._end(request)

    def cancel(self, id: int) -> None:  # noqa: A002 - what it is
        """Remove a request without an event; do nothing if it has ended."""
        if request := self._requests.get(id):
            self._counts["cancelled"] += 1
            self._remove(request)

    def step(self) -> None:
        """Admit requests, decode once, and emit the events."""
        started = time.perf_counter()
        self._admit()
        batched = self._fill_batch()
        if not batched or (seconds := self._decode(batched)) is None:
            return
        decode_tokens = sum(request.scheduled + len(request.drafts) for request in batched if request.decoding)
        self._step_cost.record(decode_tokens, self._batch.count - decode_tokens, seconds)
        outputs = self._context.logits() if self._batch.outputs else None
        for request in batched:
            self._advance(request, outputs)
        self._counts["steps"] += 1
        self._counts["decode_seconds"] += seconds
        self._counts["step_seconds"] += time.perf_counter() - started

    def stats(self) -> EngineStats:
        """Return the counters and the state of active requests."""
        running = tuple(
            SequenceState(
                request.job.id,
                len(request.job.prompt),
                min(request.cached, len(request.job.prompt)),
                request.generated,
            )
            for request in self._running
        )
        return EngineStats(
            running=running,
            queued=len(self._queue),
            cache_cells=self._context.length,
            cache_used=self.kv_cache.used,
            cache_reusable=self.kv_cache.reusable,
            **self._counts,  # type: ignore[arg-type]  # its keys are fields that count
        )

    def close(self) -> None:
        """Remove all requests without events, and save prefixes if they are to be saved."""
        for request in list(self._requests.values()):
            self._remove(request)
        if self._saved:
            self._saved.save(self.kv_cache)

    # Admission

    def _admit(self) -> None:
        """Admit waiting requests in order, as long as there is room."""
        if self._blocked or not self._queue or len(self._running) >= self._slots:
            return
        for request in self._queue.in_order(self._running):
            if len(self._running) >= self._slots:
                return
            if self._waits_for_prefix(request):
                continue
            if not self._try_admit(request):
                self._blocked = True
                return

    def _waits_for_prefix(self, request: ActiveSequence) -> bool:
        """Return whether another request is computing the beginning of this one's prompt."""
        if request.unread:
            return False
        if request.leader and request.leader.sequence != NO_SEQUENCE and request.leader.cached < request.shared:
            return True
        request.leader = None
        cached_here = self.kv_cache.match(request.tokens)
        for other in self._running:
            if other.cached >= len(other.job.prompt):
                continue
            shared = common_prefix(request.tokens, other.job.prompt)
            if shared >= max(cached_here, other.cached) + WORTH_WAITING:
                request.leader, request.shared = other, shared
                return True
        return False

    def _try_admit(self, request: ActiveSequence) -> bool:
        """Start a sequence for a request, unless that would take KV cells that active requests will need."""
        reusable = [] if request.unread else request.tokens[:-1]
        if self._saved:
            self._saved.restore(request.job.request.client, reusable, self.kv_cache)
        sequence, reused = self.kv_cache.start(reusable)
        needed = len(request.tokens) - reused + MARGIN
        reserved = sum(other.pending + MARGIN for other in self._running)
        if self._running and needed + reserved > self.kv_cache.free + self.kv_cache.reusable:
            self.kv_cache.discard(sequence)
            return False
        request.admit(sequence, reused)
        self._queue.begin(request)
        self._running.append(request)
        return True

    def _preempt(self, request: ActiveSequence) -> None:
        """Return a request to the queue; its tokens stay cached as long as nobody needs the cells."""
        self._release(request)
        self._queue.requeue(request)
        self._counts["preempted"] += 1

    def _release(self, request: ActiveSequence, *, invalid: bool = False) -> None:
        """End the sequence of a request; its tokens stay cached unless they are `invalid`."""
        if invalid:
            self.kv_cache.discard(request.sequence)
        else:
            if self._saved:
                self._saved.note(request.job.request.client, request.tokens[: request.cached])
            self.kv_cache.finish(request.sequence)
        if self._draft:
            self._draft.forget(request.sequence)
        request.release()  # requests that wait for its prompt need not any more
        self._running.remove(request)
        self._blocked = False

    # One step

    def _fill_batch(self) -> list[ActiveSequence]:
        """Fill the batch: the next tokens of decoding requests and their drafts, then chunks of prompts."""
        self._batch.clear()
        self._planned = 0
        batched: list[ActiveSequence] = []
        for request in [request for request in self._running if request.decoding]:
            if request.pending <= self._batch.capacity - self._planned:
                self._plan(request, request.pending, batched)
        self._draft_for(batched)
        prefilling = [request for request in self._running if not request.decoding]
        if prefilling:
            chunk = self._step_cost.chunk(len(batched), len(prefilling), self._batch.capacity - self._planned)
            for request, count in _shares(prefilling, chunk):
                if count:
                    self._plan(request, min(count, OUTPUTS_OF_PROMPTS) if request.unread else count, batched)
        for request in batched:
            end = request.cached + request.scheduled
            # Outputs only where a token is to be sampled, or the log-probability of the next one is wanted.
            outputs = 1 + len(request.drafts) if end == len(request.tokens) else 0
            outputs = request.scheduled if request.unread else outputs
            request.outputs = self._batch.add(request.in_batch(), request.cached, request.sequence, outputs)
        return batched

    def _plan(self, request: ActiveSequence, count: int, batched: list[ActiveSequence]) -> None:
        """Take the next tokens of a request, preempting the newest requests, maybe this one, where KV cells lack."""
        while request.sequence != NO_SEQUENCE:
            if self.kv_cache.ensure_free(self._planned + count):
                request.scheduled = count
                self._planned += count
                batched.append(request)
                return
            if len(self._running) == 1:
                self._fail(request, _full(self._context, len(request.tokens)))
            else:
                self._preempt(next((other for other in reversed(self._running) if other not in batched), request))

    def _draft_for(self, decoding_sequences: Sequence[ActiveSequence]) -> None:
        """Draft tokens for decoding requests, as far as that pays and there is room."""
        wanted: dict[int, tuple[list[int], int]] = {}  # of the draft model: by sequence, its tokens and the most drafts
        free = min(self._batch.capacity, self.kv_cache.free) - self._planned
        for request in decoding_sequences:
            limit = min(MOST_DRAFTED, request.remaining - 1, free)
            if limit <= 0 or not request.job.request.speculate or not self.kv_cache.can_truncate:
                continue
            request.draft_by_lookup(limit, partial(self._draft_length, request))
            if self._draft and not request.drafts and request.acceptance.should_draft():
                length = self._draft_length(
                    request, request.acceptance.acceptance_rate, limit, sequences=len(decoding_sequences)
                )
                if length:
                    wanted[request.sequence] = request.tokens, length
                    free -= length
                else:
                    request.acceptance.pause()
            free -= len(request.drafts)
        fixed = any(map(_is_seeded, decoding_sequences))
        drafted = self._draft.draft(wanted, fixed=fixed) if self._draft and wanted else {}
        for request in decoding_sequences:
            if drafts := drafted.get(request.sequence):
                request.use_drafts(drafts)
        self._planned += sum(len(request.drafts) for request in decoding_sequences)

    def _draft_length(self, request: ActiveSequence, rate: float, limit: int, *, sequences: int = 0) -> int:
        """Return how many drafts pay; `sequences` are those that the draft model is run for, 0 for prompt lookup."""
        if _is_seeded(request):
            return fixed_draft_length(rate, limit, by_model=sequences > 0)
        if self._draft and sequences:
            return self._step_cost.draft_length(rate, self._planned, limit, self._draft.seconds(sequences))
        return self._step_cost.draft_length(rate, self._planned, limit)

    def _decode(self, batched: Sequence[ActiveSequence]) -> float | None:
        """Decode the batch; return the seconds, or None if it failed."""
        started = time.perf_counter()
        try:
            self._context.decode(self._batch)
        except ContextFullError as error:  # llama.cpp has fewer KV cells than we counted
            if len(self._running) == 1:
                self._fail(self._running[0], error)
            else:
                self._preempt(self._running[-1])
            return None
        except EngineError as error:
            for request in batched:
                self._fail(request, error, invalid=True)
            return None
        return time.perf_counter() - started

    def _advance(self, request: ActiveSequence, outputs: NDArray[np.float32] | None) -> None:
        """Sample the next tokens of a request from the outputs of this step."""
        drafts = len(request.drafts)
        reading = request.cached < len(request.job.prompt)
        self.kv_cache.extend(request.sequence, request.in_batch())
        request.read_prompt(outputs)
        request.cached += request.scheduled
        if reading:
            self._counts["prompt_tokens"] += request.scheduled
        if text := request.take_text():  # of the prompt
            self._emit(request.job.id, text)
        if outputs is None or request.cached < len(request.tokens):
            return
        generated_before = request.generated
        try:
            accepted = request.advance(outputs[request.outputs : request.outputs + 1 + drafts])
        except HermesError as error:
            self.kv_cache.truncate(request.sequence, request.cached)
            self._fail(request, error)
            return
        self._counts["completion_tokens"] += request.generated - generated_before
        if drafts:
            self._counts["drafted_tokens"] += drafts
            self._counts["accepted_tokens"] += accepted
            if accepted < drafts:
                self.kv_cache.truncate(request.sequence, request.cached)
                request.cached = self.kv_cache.length(request.sequence)  # 0 where a cache cannot be cut
        if text := request.take_text(last=request.ended is not None):
            self._emit(request.job.id, text)
        if request.ended:
            self._end(request)
        elif request.full:
            self._release(request)
            request.shift()
            self._queue.requeue(request)

    # The end

    def _end(self, request: ActiveSequence) -> None:
        done = request.done()
        self._counts["cached_tokens"] += done.cached_tokens
        self._emit(request.job.id, done)
        self._remove(request)

    def _fail(self, request: ActiveSequence, error: HermesError, *, invalid: bool = False) -> None:
        self._counts["failed"] += 1
        self._emit(request.job.id, error)
        self._remove(request, invalid=invalid)

    def _remove(self, request: ActiveSequence, *, invalid: bool = False) -> None:
        """Remove a request; its tokens stay cached unless they are `invalid`."""
        del self._requests[request.job.id]
        if request.sequence == NO_SEQUENCE:
            self._queue.remove(request)
            self._blocked = False
        else:
            self._release(request, invalid=invalid)
        request.close()


def _shares(prefilling: Sequence[ActiveSequence], chunk: int) -> Iterator[tuple[ActiveSequence, int]]:
    """Yield the share of a chunk for each prefilling request: half for the oldest, then the shortest first.

    A long prompt delays no short one, and is not delayed forever itself.
    """
    oldest, *others = prefilling
    left = chunk - min(oldest.pending, (chunk + 1) // 2)
    shares = []
    for request in sorted(others, key=lambda request: request.pending):
        count = min(request.pending, left)
        shares.append((request, count))
        left -= count
    yield oldest, min(oldest.pending, chunk - sum(count for _, count in shares))
    yield from shares


def _is_seeded(request: ActiveSequence) -> bool:
    return request.job.request.sampling.seed is not None


def _full(context: LlamaContext, tokens: int) -> ContextFullError:
    return ContextFullError(
        f"the prompt has {tokens:,} tokens, the context length is {context.length:,} tokens.",
        hint="shorten the prompt; --context gives a longer context, if the model was trained for one.",
        prompt_tokens=tokens,
        context_length=context.length,
    )


class RequestQueue:
    """A queue ordered by client: the fewest active requests first, then the longest time since the last turn.

    Preempted requests come before all others.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._preempted: deque[ActiveSequence] = deque()
        self._waiting: deque[ActiveSequence] = deque()
        self._turns: dict[str, int] = {}  # the number of each client's last turn, the longest ago first
        self._turn = 0

    def __len__(self) -> int:
        return len(self._preempted) + len(self._waiting)

    def push(self, request: ActiveSequence) -> None:
        """Append a new request; raise QueueFullError if too many wait already."""
        if len(self._waiting) >= self._limit:
            raise QueueFullError(
                f"{len(self._waiting):,} requests are waiting already, the most that may.",
                hint="try again in a moment, or allow more with --max-queue.",
            )
        self._waiting.append(request)

    def requeue(self, request: ActiveSequence) -> None:
        """Put a preempted request in front of all others."""
        self._preempted.appendleft(request)

    def begin(self, request: ActiveSequence) -> None:
        """Remove a request that is admitted, and record its client's turn."""
        self.remove(request)
        client = request.job.request.client
        self._turn += 1
        self._turns.pop(client, None)
        self._turns[client] = self._turn
        if len(self._turns) > MAX_CLIENTS:
            del self._turns[next(iter(self._turns))]

    def remove(self, request: ActiveSequence) -> None:
        """Remove a request."""
        (self._preempted if request in self._preempted else self._waiting).remove(request)

    def in_order(self, active: Iterable[ActiveSequence]) -> list[ActiveSequence]:
        """Return all requests in the order of admission, given those that are active."""
        counts = Counter(request.job.request.client for request in active)
        ranked = []
        for number, request in enumerate(self._waiting):
            client = request.job.request.client
            ranked.append((counts[client], self._turns.get(client, 0), number, request))
            counts[client] += 1
        return [*self._preempted, *(item[-1] for item in sorted(ranked, key=lambda item: item[:-1]))]
