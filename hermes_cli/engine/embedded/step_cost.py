"""Measured costs of decode steps, which decide the size of prefill chunks and the length of drafts.

Costs are no straight line. On CPUs llama.cpp computes four tokens at once, and on a GPU sixteen may cost as much as
one; so every batch size stands for itself, and a straight line is drawn only between sizes that were measured.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from itertools import accumulate

MAX_SAMPLES = 16  # samples of one batch size
STALE_STEPS = 1000  # steps; a size that did not come up since counts as never measured, for machines change
MIN_CHANGE = 0.01  # changes below that part are none
MAX_EXACT = 64  # tokens; larger batches are told apart by their first four binary digits

SLOPE = 0.05  # what a token adds to a batch of one, where nothing is measured: little, so that it is tried and measured

# Prefill may take three fourths of the time of decoding requests, or, where more prompts wait than requests decode,
# seven eighths; and a step may always take a fifth of a second. Text that comes so slowly is nearly as fast as people
# read (5 words/s), and CPUs prefill twice as fast in chunks of 64 tokens as in chunks of 16.
PREFILL_SHARE, LARGEST_PREFILL_SHARE = 4, 8
SMOOTH_SECONDS = 0.200  # seconds
SMALLEST_CHUNK = 16  # tokens; smaller ones cost a CPU almost as much. Chunks are multiples of it: llama.cpp reuses
# the graph of the step before if that had the same shape.


# Where a seed promises the same text again, drafts must not depend on how long steps take: batches of other sizes round
# otherwise. These costs of a further token, as parts of a step, lie between those of GPUs (0.02) and slow CPUs (0.5): a
# draft that pays by them pays on nearly every machine.
FIXED_COST, FIXED_DRAFT_COST = 0.25, 0.10
FIXED_CHUNK = 256  # tokens of the draft model's prefill


def fixed_draft_length(acceptance_rate: float, limit: int, *, by_model: bool = False) -> int:
    """Return the number of draft tokens that gives most tokens per second by fixed costs; 0 if none is better.

    Arguments as of `StepCostModel.draft_length`; `by_model` if a draft model has to be run for each of them.
    """
    each = FIXED_COST + FIXED_DRAFT_COST * by_model
    tokens, probability, best, length = 1.0, 1.0, 1.0, 0
    for count in range(1, limit + 1):
        probability *= acceptance_rate
        tokens += probability
        if (rate := tokens / (1.0 + each * count)) > best:
            best, length = rate, count
    return length


class CostCurve:
    """Seconds by number of tokens: monotonic, and robust against a few disturbed samples."""

    def __init__(self, *, from_zero: bool = False) -> None:
        """Start without samples; `from_zero` adds the point of no tokens in no time."""
        self._samples: dict[int, deque[float]] = {}
        self._typical: dict[int, float] = {0: 0.0} if from_zero else {}
        self._last_record: dict[int, int] = {}  # when each size came up last, in notes
        self._records = 0
        self.sizes: list[int] = []  # the numbers of tokens that were measured, in order
        self._seconds: list[float] = []

    @property
    def known(self) -> bool:
        """True once a sample was recorded."""
        return bool(self._samples)

    def record(self, tokens: int, seconds: float) -> bool:
        """Record the seconds of a batch; return whether that changes the curve."""
        size = tokens if tokens <= MAX_EXACT else tokens & -(1 << (tokens.bit_length() - 4))
        samples = self._samples.setdefault(size, deque(maxlen=MAX_SAMPLES))
        samples.append(seconds)
        self._records += 1
        self._last_record[size] = self._records
        # Other processes only ever make a step longer: the quickest fourth counts, and of that what took longest.
        typical = sorted(samples)[(len(samples) - 1) // 4]
        stale = []
        if self._records % STALE_STEPS == 0:
            stale = [size for size, recorded in self._last_record.items() if recorded <= self._records - STALE_STEPS]
        for old in stale:
            del self._last_record[old], self._samples[old], self._typical[old]
        if not stale and abs(typical - self._typical.get(size, 0.0)) <= MIN_CHANGE * typical:
            return False
        self._typical[size] = typical
        self.sizes = sorted(self._typical)
        # A smaller batch that seems to take longer than a larger one was disturbed, or is one that could be filled up.
        self._seconds = [*accumulate((self._typical[size] for size in reversed(self.sizes)), min)][::-1]
        return True

    def at(self, tokens: int) -> float:
        """Return the seconds for so many tokens; relative to one token if nothing was measured."""
        sizes, seconds = self.sizes, self._seconds
        if not sizes:
            return 1.0 + SLOPE * (tokens - 1)
        index = bisect_left(sizes, tokens)
        if index == len(sizes):
            if len(sizes) == 1:
                slope = seconds[0] * SLOPE / (1.0 + SLOPE * (sizes[0] - 1))
            else:
                slope = (seconds[-1] - seconds[0]) / (sizes[-1] - sizes[0])
            return seconds[-1] + slope * (tokens - sizes[-1])
        if sizes[index] == tokens:
            return seconds[index]
        if index == 0:  # as little as possible, so that it is tried and measured
            return seconds[0] * tokens / sizes[0]
        low, high = sizes[index - 1], sizes[index]
        return seconds[index - 1] + (seconds[index] - seconds[index - 1]) * (tokens - low) / (high - low)


class StepCostModel:
    """The step costs of one context."""

    def __init__(self) -> None:
        self._decode_costs = CostCurve()
        self._prefill_costs = CostCurve(from_zero=True)  # beyond what the step would have taken without
        self._lengths: dict[tuple[int, int, int, float], int] = {}

    def record(self, decode_tokens: int, prefill_tokens: int, seconds: float) -> None:
        """Record the seconds of a batch with tokens of decoding requests, drafts included, and of prompts."""
        if prefill_tokens:
            without = self._decode_costs.at(max(decode_tokens, 1)) if self._decode_costs.known else 0.0
            self._prefill_costs.record(prefill_tokens, max(seconds - without, seconds / 10))
        elif decode_tokens and self._decode_costs.record(decode_tokens, seconds):
            self._lengths.clear()

    def seconds(self, decode_tokens: int) -> float:
        """Return the seconds of a step without prefill; 0 before the first."""
        return self._decode_costs.at(decode_tokens) if self._decode_costs.known else 0.0

    def chunk(self, decode_tokens: int, prompts: int, capacity: int) -> int:
        """Return the number of prompt tokens for the next step, which has `decode_tokens` of decoding requests already.

        As many as keep the step within `PREFILL_SHARE` times its time without them (more if there are more `prompts`
        to prefill than `decode_tokens`) or within `SMOOTH_SECONDS`, whichever is longer; at least `SMALLEST_CHUNK`,
        never more than `capacity`, and that if nobody is delayed.
        """
        if decode_tokens <= 0 or capacity <= SMALLEST_CHUNK:
            return max(capacity, 0)
        if not self._prefill_costs.known:
            return SMALLEST_CHUNK
        without = self.seconds(decode_tokens)
        share = min(max(PREFILL_SHARE * prompts / decode_tokens, PREFILL_SHARE), LARGEST_PREFILL_SHARE)
        budget = max(share * without, SMOOTH_SECONDS) - without
        low, high = 1, capacity // SMALLEST_CHUNK + 1  # in smallest chunks; `high` are too many
        if self._prefill_costs.at(capacity) <= budget:
            return capacity
        while low + 1 < high:
            middle = (low + high) // 2
            if self._prefill_costs.at(middle * SMALLEST_CHUNK) <= budget:
                low = middle
            else:
                high = middle
        return low * SMALLEST_CHUNK

    def draft_length(
        self,
        acceptance_rate: float,  # of a draft token if those before it are accepted, 0 to 1, rounded to two digits
        batch_tokens: int,  # tokens in the batch already, the one of this sequence included
        limit: int,  # the most draft tokens
        draft_seconds: float = 0.0,  # seconds for each draft token
    ) -> int:
        """Return the number of draft tokens of a sequence that gives most tokens per second.

        Of a batch of `n` tokens that have to be computed anyway and `k` draft tokens with acceptance rate `p`,

            n + p + ... + p^k   tokens are expected in   cost(n + k) + draft_seconds * k   seconds.

        Returns:
            The best `k`; 0 if none is better. Never more than twice as many tokens as were ever measured together,
            so that finding out costs little where they are expensive.
        """
        percent = round(min(max(acceptance_rate, 0.0), 1.0) * 100)
        key = percent, batch_tokens, limit, round(draft_seconds, 5)
        if key in self._lengths:
            return self._lengths[key]
        cost = self._decode_costs.at
        reach = 2 * max([*self._decode_costs.sizes, batch_tokens]) + 2 - batch_tokens
        tokens, probability, length = float(batch_tokens), 1.0, 0
        best = tokens / cost(batch_tokens)
        for count in range(1, min(limit, reach) + 1):
            probability *= percent / 100
            tokens += probability
            if (rate := tokens / (cost(batch_tokens + count) + draft_seconds * count)) > best:
                best, length = rate, count
        self._lengths[key] = length
        return length
