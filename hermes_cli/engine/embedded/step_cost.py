"""What a step costs, learned while working, and what follows: how much of a prompt to read, how far to guess ahead.

Costs are no straight line. On CPUs llama.cpp computes four tokens at once, and on a GPU sixteen may cost as much as
one; so every batch size stands for itself, and a straight line is drawn only between sizes that were measured.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from itertools import accumulate

KEPT = 16  # samples of one batch size
FORGOTTEN = 1000  # steps; a size that did not come up since counts as never measured, for machines change
SAME = 0.01  # changes below that part are none
EXACT = 64  # tokens; larger batches are told apart by their first four binary digits

SLOPE = 0.05  # what a token adds to a batch of one, where nothing is measured: little, so that it is tried and measured

# A prompt may take three fourths of the time from those who write, or, where more prompts wait than requests write,
# seven eighths; and a step may always take a fifth of a second. Text that comes so slowly is nearly as fast as people
# read (5 words/s), and CPUs read a prompt twice as fast in chunks of 64 tokens as in chunks of 16.
SHARE, LARGEST_SHARE = 4, 8
SMOOTH = 0.200  # seconds
SMALLEST_CHUNK = 16  # tokens; smaller ones cost a CPU almost as much. Chunks are multiples of it: llama.cpp reuses
# the graph of the step before if that had the same shape.


class Curve:
    """Seconds by number of tokens: never less for more tokens, and what disturbed a few samples does not count."""

    def __init__(self, *, from_zero: bool = False) -> None:
        """Begin without samples; `from_zero` says that no tokens take no time."""
        self._samples: dict[int, deque[float]] = {}
        self._usual: dict[int, float] = {0: 0.0} if from_zero else {}
        self._noted: dict[int, int] = {}  # when each size came up last, in notes
        self._notes = 0
        self._sizes: list[int] = []
        self._seconds: list[float] = []

    @property
    def known(self) -> bool:
        """Whether anything was measured."""
        return bool(self._samples)

    @property
    def largest(self) -> int:
        """The most tokens that were measured."""
        return self._sizes[-1] if self._sizes else 0

    def note(self, tokens: int, seconds: float) -> bool:
        """A batch of so many tokens took so long; whether that changes what is known."""
        size = tokens if tokens <= EXACT else tokens & -(1 << (tokens.bit_length() - 4))
        samples = self._samples.setdefault(size, deque(maxlen=KEPT))
        samples.append(seconds)
        self._notes += 1
        self._noted[size] = self._notes
        # Other processes only ever make a step longer: the quickest fourth counts, and of that what took longest.
        usual = sorted(samples)[(len(samples) - 1) // 4]
        stale = self._forget() if self._notes % FORGOTTEN == 0 else False
        if not stale and abs(usual - self._usual.get(size, 0.0)) <= SAME * usual:
            return False
        self._usual[size] = usual
        self._sizes = sorted(self._usual)
        # A smaller batch that seems to take longer than a larger one was disturbed, or is one that could be filled up.
        self._seconds = [*accumulate((self._usual[one] for one in reversed(self._sizes)), min)][::-1]
        return True

    def at(self, tokens: int) -> float:
        """Seconds for so many tokens; relative to one token if nothing was measured."""
        sizes, seconds = self._sizes, self._seconds
        if not sizes:
            return 1.0 + SLOPE * (tokens - 1)
        place = bisect_left(sizes, tokens)
        if place == len(sizes):
            return seconds[-1] + self._slope * (tokens - sizes[-1])
        if sizes[place] == tokens:
            return seconds[place]
        if place == 0:  # as little as possible, so that it is tried and measured
            return seconds[0] * tokens / sizes[0]
        low, high = sizes[place - 1], sizes[place]
        return seconds[place - 1] + (seconds[place] - seconds[place - 1]) * (tokens - low) / (high - low)

    @property
    def _slope(self) -> float:
        """Seconds that each further token takes beyond the largest batch."""
        if len(self._sizes) == 1:
            return self._seconds[0] * SLOPE / (1.0 + SLOPE * (self._sizes[0] - 1))
        return (self._seconds[-1] - self._seconds[0]) / (self._sizes[-1] - self._sizes[0])

    def _forget(self) -> bool:
        stale = [size for size, noted in self._noted.items() if noted <= self._notes - FORGOTTEN]
        for size in stale:
            del self._noted[size], self._samples[size], self._usual[size]
        return bool(stale)


class StepCostModel:
    """The costs of one context."""

    def __init__(self) -> None:
        self._writing = Curve()
        self._reading = Curve(from_zero=True)  # beyond what the step would have taken without
        self._lengths: dict[tuple[int, int, int, float], int] = {}

    def note(self, decode_tokens: int, prefill_tokens: int, seconds: float) -> None:
        """A step took so long.

        Args:
            decode_tokens: of its batch, those that have outputs: of requests that write, with what was guessed.
            prefill_tokens: those of prompts.
            seconds: from the call of llama.cpp until the outputs were there.
        """
        if prefill_tokens:
            without = self._writing.at(max(decode_tokens, 1)) if self._writing.known else 0.0
            self._reading.note(prefill_tokens, max(seconds - without, seconds / 10))
        elif decode_tokens and self._writing.note(decode_tokens, seconds):
            self._lengths.clear()

    def seconds(self, decode_tokens: int) -> float:
        """How long a step without prompts takes; 0 before the first."""
        return self._writing.at(decode_tokens) if self._writing.known else 0.0

    def chunk(self, running: int, waiting: int, capacity: int) -> int:
        """How many tokens of prompts to put into the next step.

        Args:
            running: tokens in it already, of requests that write; if there are none, nobody is kept waiting.
            waiting: requests whose prompts are to be read.
            capacity: the most that have room.

        Returns:
            As many as keep the step within `SHARE` times what it takes without (more if `waiting` is larger than
            `running`) or within `SMOOTH`, whichever is longer; at least `SMALLEST_CHUNK`, never more than `capacity`.
        """
        if running <= 0 or capacity <= SMALLEST_CHUNK:
            return max(capacity, 0)
        if not self._reading.known:
            return SMALLEST_CHUNK
        without = self.seconds(running)
        share = min(max(SHARE * waiting / running, SHARE), LARGEST_SHARE)
        budget = max(share * without, SMOOTH) - without
        low, high = 1, capacity // SMALLEST_CHUNK + 1  # in smallest chunks; `high` are too many
        if self._reading.at(capacity) <= budget:
            return capacity
        while low + 1 < high:
            middle = (low + high) // 2
            if self._reading.at(middle * SMALLEST_CHUNK) <= budget:
                low = middle
            else:
                high = middle
        return low * SMALLEST_CHUNK

    def draft_length(self, chance: float, batch_tokens: int, most: int, each: float = 0.0) -> int:
        """How many guessed tokens of one sequence to put into the next step, so that most tokens per second come of it.

        Of a batch of `n` tokens that have to be computed anyway and `k` guessed ones,

            n + chance + ... + chance^k   tokens are expected in   cost(n + k) + each * k   seconds.

        Args:
            chance: how likely a guess is right if those before it are, 0 to 1; it is taken to two digits.
            batch_tokens: what the batch holds already, the one token of this sequence included.
            most: guesses.
            each: seconds that it takes to guess one.

        Returns:
            The best `k`; 0 if none is better. Never more than twice as many tokens as were ever measured together,
            so that finding out costs little where they are dear.
        """
        percent = round(min(max(chance, 0.0), 1.0) * 100)
        key = percent, batch_tokens, most, round(each, 5)
        if key not in self._lengths:
            self._lengths[key] = self._best_length(percent / 100, batch_tokens, most, each)
        return self._lengths[key]

    def _best_length(self, chance: float, batch_tokens: int, most: int, each: float) -> int:
        cost = self._writing.at
        reach = 2 * max(self._writing.largest, batch_tokens) + 2 - batch_tokens
        tokens, still, length = float(batch_tokens), 1.0, 0
        best = tokens / cost(batch_tokens)
        for count in range(1, min(most, reach) + 1):
            still *= chance
            tokens += still
            if (rate := tokens / (cost(batch_tokens + count) + each * count)) > best:
                best, length = rate, count
        return length


HOPE, HOPE_WEIGHT = 0.8, 4  # where it begins: good enough to be tried; counts as so many tokens
FADE = 0.95  # what a draft is worth after each further one
HOPELESS = 0.3  # below it guesses pay nowhere that making them costs anything
FIRST_PAUSE, LONGEST_PAUSE = 16, 1024  # steps


class Acceptance:
    """How often one request's guesses are right, where making them costs something; pauses while that does not pay."""

    def __init__(self) -> None:
        self._right, self._tried = HOPE * HOPE_WEIGHT, float(HOPE_WEIGHT)
        self._left = 0  # steps of this pause
        self._pause = FIRST_PAUSE  # how long the next one is

    @property
    def chance(self) -> float:
        """How likely a guess is right if those before it are."""
        return self._right / self._tried

    @property
    def paused(self) -> bool:
        """Whether it does without guesses now."""
        return self._left > 0

    def ready(self) -> bool:
        """Whether to guess in this step; to be asked once in each. After a pause it hopes again, though not firmly."""
        if self._left:
            self._left -= 1
            if not self._left:
                self._right, self._tried = HOPE, 1.0
        return not self._left

    def note(self, drafted: int, accepted: int) -> None:
        """Of so many guesses so many were right, all before the first wrong one."""
        if drafted <= 0:
            return
        self._right = self._right * FADE + accepted
        self._tried = self._tried * FADE + min(accepted + 1, drafted)
        if accepted == drafted:
            self._pause = FIRST_PAUSE
        elif self.chance < HOPELESS:
            self.rest()

    def rest(self) -> None:
        """It does not pay as things are: pause, for twice as long as the last time."""
        self._left = self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
