"""Continuous batching: in every step one `llama_decode` with the next tokens of all requests at work.

    waiting ──admit──► running (reads its prompt in chunks, then writes) ──► ended
       ▲                  │
       └────put back──────┘   when the KV cache is full: the youngest, resumed later without its client noticing

All is driven by `step`, in one thread. It brings together the KV cache (kv_cache.py), the requests at work
(sequence.py), those that wait (request_queue.py) and the cost of a step (step_cost.py).
"""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

from hermes_cli.engine.embedded.batch import Batch
from hermes_cli.engine.embedded.kv_cache import KVCache
from hermes_cli.engine.embedded.request_queue import RequestQueue
from hermes_cli.engine.embedded.sequence import ActiveSequence
from hermes_cli.engine.embedded.step_cost import StepCostModel
from hermes_cli.engine.embedded.vocabulary import TokenPieces
from hermes_cli.engine.protocol import EngineStats, SequenceState
from hermes_cli.engine.tokens import common_prefix
from hermes_cli.errors import ContextFullError, EngineError, HermesError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from hermes_cli.engine.embedded.draft_model import DraftModel
    from hermes_cli.engine.embedded.llama import LlamaContext, LlamaModel
    from hermes_cli.engine.embedded.saved_prefixes import SavedPrefixes
    from hermes_cli.engine.embedded.sequence import Job
    from hermes_cli.engine.protocol import Event

    Emit = Callable[[int, Event | HermesError], None]

WORTH_WAITING = 32  # tokens of a shared prompt that are worth waiting for instead of computing them twice
MARGIN = 64  # cells that each request at work will need soon; nobody is admitted into them
MOST_DRAFTED = 24  # tokens of one request in one step


class Scheduler:
    """Requests in, events out. Belongs to one thread."""

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
        """Start with an empty cache.

        Args:
            model: and
            context: stay open as long as this is used.
            emit: is given every event of every request, with its id; an error is its last.
            slots: requests at work at once, as the context was made for.
            lookup: guess tokens that repeat.
            max_queue: requests that may wait.
            draft: a model that guesses tokens.
            saved: caches of prompts from earlier.
        """
        self._model, self._context, self._emit = model, context, emit
        self._slots, self._lookup, self._draft, self._saved = slots, lookup, draft, saved
        self.cells = KVCache(context, context.length, slots, covers=context.covers)
        self._batch = Batch(context.batch_tokens)
        self._pieces = TokenPieces(model.vocabulary)
        self._pace = StepCostModel()
        self._waiting = RequestQueue(max_queue)
        self._running: list[ActiveSequence] = []  # the oldest first
        self._requests: dict[int, ActiveSequence] = {}
        self._blocked = False  # the next in turn has no room, and nobody has left since
        self._counts: Counter[str] = Counter()
        self._decode_seconds = self._step_seconds = 0.0
        self._planned = 0  # tokens of the step that is being prepared

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""
        return bool(self._requests)

    def submit(self, job: Job) -> None:
        """Take a request; what is wrong with it becomes its last event."""
        self._counts["requests"] += 1
        try:
            self._check(job)
            request = ActiveSequence(job, self._model, self._pieces, self._context.length, lookup=self._lookup)
            self._waiting.push(request)
        except HermesError as error:
            self._counts["failed"] += 1
            self._emit(job.id, error)
            return
        self._requests[job.id] = request
        self._blocked = False
        if request.room <= 0:
            self._end(request)

    def cancel(self, id: int) -> None:  # noqa: A002 - what it is
        """Forget a request without an event; nothing happens if it has ended."""
        if request := self._requests.get(id):
            self._counts["cancelled"] += 1
            self._leave(request)

    def step(self) -> None:
        """Decode once, for everybody."""
        started = time.perf_counter()
        self._admit()
        members = self._fill()
        if not members or (seconds := self._decode(members)) is None:
            return
        writing = sum(request.fed + len(request.drafts) for request in members if request.decoding)
        self._pace.note(writing, self._batch.count - writing, seconds)
        outputs = self._context.logits() if self._batch.outputs else None
        for request in members:
            self._go_on(request, outputs)
        self._counts["steps"] += 1
        self._decode_seconds += seconds
        self._step_seconds += time.perf_counter() - started

    def stats(self) -> EngineStats:
        """Counters, and what there is now."""
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
            queued=len(self._waiting),
            cache_cells=self._context.length,
            cache_used=self.cells.used,
            cache_reusable=self.cells.reusable,
            decode_seconds=self._decode_seconds,
            step_seconds=self._step_seconds,
            **self._counts,  # type: ignore[arg-type]  # its keys are fields that count
        )

    def close(self) -> None:
        """Forget all requests, without events; prefixes are saved, if they are to be."""
        for request in list(self._requests.values()):
            self._leave(request)
        if self._saved:
            self._saved.save(self.cells)

    def _check(self, job: Job) -> None:
        if len(job.prompt) >= self._context.length:
            raise _full(self._context, len(job.prompt))

    # Admission

    def _admit(self) -> None:
        """Let those in whose turn it is, as long as there is room for them."""
        if self._blocked or not self._waiting or len(self._running) >= self._slots:
            return
        for request in self._waiting.in_turn(self._running):
            if len(self._running) >= self._slots:
                return
            if self._leads_elsewhere(request):
                continue
            if not self._let_in(request):
                self._blocked = True
                return

    def _leads_elsewhere(self, request: ActiveSequence) -> bool:
        """Whether another request is just computing the beginning of this one's prompt."""
        if request.leader and request.leader.sequence is not None and request.leader.cached < request.shared:
            return True
        request.leader = None
        here = self.cells.match(request.tokens)
        for other in self._running:
            if other.cached >= len(other.job.prompt):
                continue
            shared = common_prefix(request.tokens, other.job.prompt)
            if shared >= max(here, other.cached) + WORTH_WAITING:
                request.leader, request.shared = other, shared
                return True
        return False

    def _let_in(self, request: ActiveSequence) -> bool:
        """Give a request its place in the cache, unless that would take cells that others will need."""
        if self._saved:
            self._saved.bring(request.tokens[:-1], self.cells)
        sequence, reused = self.cells.open(request.tokens[:-1])
        needed = len(request.tokens) - reused + MARGIN
        promised = sum(other.behind + MARGIN for other in self._running)
        if self._running and needed + promised > self.cells.free + self.cells.reusable:
            self.cells.drop(sequence)
            return False
        request.admit(sequence, reused)
        self._waiting.begin(request)
        self._running.append(request)
        return True

    def _put_back(self, request: ActiveSequence) -> None:
        """Take a request's place in the cache from it; what it computed stays as long as nobody needs the room."""
        self._give_up_place(request)
        self._waiting.put_back(request)
        self._counts["preempted"] += 1

    def _give_up_place(self, request: ActiveSequence) -> None:
        if request.sequence is not None:
            self.cells.keep(request.sequence)
            if self._draft:
                self._draft.forget(request.sequence)
            request.put_back()
            self._running.remove(request)
            self._blocked = False

    # One step

    def _fill(self) -> list[ActiveSequence]:
        """Put the next tokens of requests into the batch: of all that write, then a chunk of those that read."""
        self._batch.clear()
        self._planned = 0
        members: list[ActiveSequence] = []
        for request in [request for request in self._running if request.decoding]:
            if request.behind <= self._batch.capacity - self._planned and self._secure(
                request, request.behind, members
            ):
                self._plan(request, request.behind, members)
        self._draft_for(members)
        readers = [request for request in self._running if not request.decoding]
        if readers:
            chunk = self._pace.chunk(len(members), len(readers), self._batch.capacity - self._planned)
            for request, count in _shares(readers, chunk):
                if count and self._secure(request, count, members):
                    self._plan(request, count, members)
        for request in members:
            self._add(request)
        return members

    def _plan(self, request: ActiveSequence, count: int, members: list[ActiveSequence]) -> None:
        request.fed = count
        self._planned += count
        members.append(request)

    def _secure(self, request: ActiveSequence, count: int, members: Sequence[ActiveSequence]) -> bool:
        """Have cells for so many more tokens in this step; whoever came last gives way. False if that is this one."""
        while request.sequence is not None:
            if self.cells.make_room(self._planned + count):
                return True
            if len(self._running) == 1:
                self._fail(request, _full(self._context, len(request.tokens)))
                return False
            youngest = next((one for one in reversed(self._running) if one not in members), request)
            self._put_back(youngest)
        return False

    def _draft_for(self, writers: Sequence[ActiveSequence]) -> None:
        """Guess what some will write, as far as that pays and there is room."""
        asked: dict[int, ActiveSequence] = {}
        lengths: dict[int, int] = {}
        free = min(self._batch.capacity, self.cells.free) - self._planned
        for request in writers:
            most = min(MOST_DRAFTED, request.room - 1, free)
            if most <= 0 or not request.job.request.speculate or not self.cells.divisible:
                continue
            request.guess(most, lambda chance, most: self._pace.draft_length(chance, self._planned, most))
            if self._draft and not request.drafts and request.acceptance.ready():
                each = self._draft.seconds(len(writers))
                length = self._pace.draft_length(request.acceptance.chance, self._planned, most, each)
                if length:
                    asked[request.place], lengths[request.place] = request, length
                    free -= length
                else:
                    request.acceptance.rest()
            free -= len(request.drafts)
        if self._draft and asked:
            wanted = {place: (request.tokens, lengths[place]) for place, request in asked.items()}
            for place, guessed in self._draft.guess(wanted).items():
                asked[place].draft(guessed)
        self._planned += sum(len(request.drafts) for request in writers)

    def _add(self, request: ActiveSequence) -> None:
        """Its next tokens, and drafts behind them; outputs are asked for only where something is chosen."""
        end = request.cached + request.fed
        outputs = 1 + len(request.drafts) if end == len(request.tokens) else 0
        request.outputs = self._batch.add(request.in_batch(), request.cached, request.place, outputs)

    def _decode(self, members: Sequence[ActiveSequence]) -> float | None:
        """Run the batch; the seconds that took, or None if nothing came of it."""
        started = time.perf_counter()
        try:
            self._context.decode(self._batch)
            self._context.synchronize()
        except ContextFullError as error:  # llama.cpp has fewer cells than we counted
            if len(self._running) == 1:
                self._fail(self._running[0], error)
            else:
                self._put_back(self._running[-1])
            return None
        except EngineError as error:
            for request in members:
                self._fail(request, error, spoiled=True)
            return None
        return time.perf_counter() - started

    def _go_on(self, request: ActiveSequence, outputs: NDArray[np.float32] | None) -> None:
        """What one request makes of what was decoded for it."""
        drafts = len(request.drafts)
        reading = request.cached < len(request.job.prompt)
        self.cells.extend(request.place, request.in_batch())
        request.cached += request.fed
        if reading:
            self._counts["prompt_tokens"] += request.fed
        if outputs is None or request.cached < len(request.tokens):
            return
        before = request.generated
        try:
            right = request.advance(outputs[request.outputs : request.outputs + 1 + drafts])
        except HermesError as error:
            self.cells.cut(request.place, request.cached)
            self._fail(request, error)
            return
        self._counts["completion_tokens"] += request.generated - before
        if drafts:
            self._counts["drafted_tokens"] += drafts
            self._counts["accepted_tokens"] += right
            if right < drafts:
                self.cells.cut(request.place, request.cached)
                request.cached = self.cells.length(request.place)  # 0 where a cache cannot be cut
        if text := request.take_text(last=request.ended is not None):
            self._emit(request.job.id, text)
        if request.ended:
            self._end(request)
        elif request.full:
            self._give_up_place(request)
            request.shift()
            self._waiting.put_back(request)

    # The end

    def _end(self, request: ActiveSequence) -> None:
        done = request.done()
        self._counts["cached_tokens"] += done.cached_tokens
        self._emit(request.job.id, done)
        self._leave(request)

    def _fail(self, request: ActiveSequence, error: HermesError, *, spoiled: bool = False) -> None:
        self._counts["failed"] += 1
        self._emit(request.job.id, error)
        self._leave(request, spoiled=spoiled)

    def _leave(self, request: ActiveSequence, *, spoiled: bool = False) -> None:
        """Forget a request; what it computed stays in the cache for others, unless it is `spoiled`."""
        del self._requests[request.job.id]
        if request.sequence is None:
            self._waiting.remove(request)
        else:
            if spoiled:
                self.cells.drop(request.sequence)
            else:
                self.cells.keep(request.sequence)
            if self._draft:
                self._draft.forget(request.sequence)
            self._running.remove(request)
            request.put_back()  # nobody waits for what it reads any more
        self._blocked = False
        request.close()


def _shares(readers: Sequence[ActiveSequence], chunk: int) -> Iterator[tuple[ActiveSequence, int]]:
    """How many tokens each of those that read gets: at least half for the oldest, the rest for the shortest first.

    So a long prompt holds up no short one, and is not held up forever itself.
    """
    oldest, *others = readers
    left = chunk - min(oldest.behind, (chunk + 1) // 2)
    shares = []
    for request in sorted(others, key=lambda one: one.behind):
        count = min(request.behind, left)
        shares.append((request, count))
        left -= count
    yield oldest, min(oldest.behind, chunk - sum(count for _, count in shares))
    yield from shares


def _full(context: LlamaContext, tokens: int) -> ContextFullError:
    return ContextFullError(
        f"the prompt has {tokens:,} tokens, the context length is {context.length:,} tokens.",
        hint="shorten the prompt, or ask for a longer context with --context.",
        prompt_tokens=tokens,
        context_length=context.length,
    )
