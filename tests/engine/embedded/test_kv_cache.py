"""Who has which cells: against a cache that is a plain list of cells, and against llama.cpp's own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hermes_cli.engine.embedded import kv_cache as module
from hermes_cli.engine.embedded.kv_cache import KVCache
from hermes_cli.engine.embedded.llama import Batch, LlamaContext, LlamaModel
from hermes_cli.errors import EngineError
from hermes_cli.planning.memory import ContextSettings

SLOTS = 3


@dataclass
class Cell:
    position: int
    token: int
    sequences: set[int]


@dataclass
class Cache:
    """What llama.cpp's unified cache does, one cell at a time.

    With a `window`, `slide` loses what only that window keeps: cells before a position, for one sequence.
    """

    length: int
    slots: int = SLOTS
    window: int = 1000
    cells: list[Cell] = field(default_factory=list)
    starts: dict[int, int] = field(default_factory=dict)

    def share(self, source: int, target: int, end: int) -> None:
        assert source != target
        assert not self.held(target), "the target is in use"
        assert 0 < end <= len(self.held(source))
        for cell in self.held(source)[:end]:
            cell.sequences.add(target)
        self.starts[target] = self.starts.get(source, 0)

    def forget(self, sequence: int, start: int = 0) -> bool:
        assert 0 <= sequence < 256
        for cell in self.held(sequence)[start:]:
            cell.sequences.remove(sequence)
        self.cells = [cell for cell in self.cells if cell.sequences]
        if not self.held(sequence):
            self.starts.pop(sequence, None)
        return True

    def covers(self, sequence: int, end: int) -> bool:
        start = self.starts.get(sequence, 0)
        return start == 0 or start <= end - self.window

    def slide(self, sequence: int, position: int) -> None:
        self.starts[sequence] = max(self.starts.get(sequence, 0), position)

    def decode(self, sequence: int, tokens: list[int]) -> None:
        assert sequence < self.slots, "only the first ids can be decoded"
        assert len(self.cells) + len(tokens) <= self.length, "more than there are cells"
        behind = len(self.held(sequence))
        self.cells += [Cell(behind + number, token, {sequence}) for number, token in enumerate(tokens)]

    def held(self, sequence: int) -> list[Cell]:
        held = sorted((cell for cell in self.cells if sequence in cell.sequences), key=lambda cell: cell.position)
        assert [cell.position for cell in held] == list(range(len(held))), "a sequence has gaps"
        return held

    def tokens(self, sequence: int) -> list[int]:
        return [cell.token for cell in self.held(sequence)]

    def sequences(self) -> set[int]:
        return {sequence for cell in self.cells for sequence in cell.sequences}

    def longest_prefix(self, tokens: list[int]) -> int:
        """The longest prefix that a sequence has with all that is looked at behind it."""
        shared = {sequence: same(self.tokens(sequence), tokens) for sequence in self.sequences()}
        return max((length for sequence, length in shared.items() if self.covers(sequence, length)), default=0)


def cells_of(cache: Cache) -> KVCache:
    return KVCache(cast(LlamaContext, cache), cache.slots)


def same(left: list[int], right: list[int]) -> int:
    length = 0
    while length < min(len(left), len(right)) and left[length] == right[length]:
        length += 1
    return length


TOKENS = st.lists(st.integers(0, 2), max_size=12)
INDEX = st.integers(0, 999)


class Machine(RuleBasedStateMachine):
    """Every order of calls; what is counted has to be what the cache holds."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.active: dict[int, list[int]] = {}
        self.slid = False

    @initialize(at_once=st.sampled_from([1, 3, 256]), ids=st.integers(1, 8), capacity=st.integers(8, 40))
    def begin(self, at_once: int, ids: int, capacity: int) -> None:
        self.patch.setattr(module, "EVICTED_AT_ONCE", at_once)
        self.patch.setattr(module, "SEQUENCES", SLOTS + ids)
        self.at_once, self.ids = at_once, ids
        self.cache = Cache(capacity, window=3)
        self.cells = cells_of(self.cache)

    def teardown(self) -> None:
        self.patch.undo()

    def one(self, index: int) -> int:
        return sorted(self.active)[index % len(self.active)]

    def prompt(self, index: int, length: int, tail: list[int]) -> list[int]:
        """Something new, or the beginning of something that is there, and something else."""
        there = sorted(self.cache.sequences())
        return self.cache.tokens(there[index % len(there)])[:length] + tail if there else tail

    @rule(index=INDEX, length=st.integers(0, 30), tail=TOKENS)
    def start(self, index: int, length: int, tail: list[int]) -> None:
        prompt = self.prompt(index, length, tail)
        if len(self.active) == SLOTS:
            with pytest.raises(EngineError, match=f"more than {SLOTS} sequences"):
                self.cells.start(prompt)
            return
        expected = self.cache.longest_prefix(prompt)
        assert self.cells.match(prompt) == expected
        sequence, reused = self.cells.start(prompt)
        assert reused == expected
        assert sequence not in self.active
        assert self.cache.covers(sequence, reused)
        self.active[sequence] = prompt[:reused]

    @precondition(lambda self: self.active)
    @rule(index=INDEX, tokens=TOKENS)
    def decode(self, index: int, tokens: list[int]) -> None:
        if self.cells.ensure_free(len(tokens)):
            sequence = self.one(index)
            self.cache.decode(sequence, tokens)
            self.cells.extend(sequence, tokens)
            self.active[sequence] += tokens

    @precondition(lambda self: self.active)
    @rule(index=INDEX, length=st.integers(0, 30))
    def truncate(self, index: int, length: int) -> None:
        sequence = self.one(index)
        self.cells.truncate(sequence, length)
        del self.active[sequence][length:]

    @precondition(lambda self: self.active)
    @rule(index=INDEX)
    def finish(self, index: int) -> None:
        sequence = self.one(index)
        tokens = self.active.pop(sequence)
        before, kept = self.cells.match(tokens), len(list(self.cells.cached()))
        self.cells.finish(sequence)
        after = self.cells.match(tokens)
        assert after >= before or (self.slid and kept == self.ids), "what was computed is lost"
        assert sequence not in self.cache.sequences()

    @precondition(lambda self: self.active)
    @rule(index=INDEX)
    def discard(self, index: int) -> None:
        sequence = self.one(index)
        del self.active[sequence]
        self.cells.discard(sequence)
        assert sequence not in self.cache.sequences()

    @precondition(lambda self: len(self.active) < SLOTS)
    @rule(index=INDEX, length=st.integers(0, 30), tail=TOKENS)
    def ask(self, index: int, length: int, tail: list[int]) -> None:
        """A whole request at once."""
        prompt = self.prompt(index, length, tail)
        sequence, reused = self.cells.start(prompt)
        if self.cells.ensure_free(len(prompt) - reused):
            self.cache.decode(sequence, prompt[reused:])
            self.cells.extend(sequence, prompt[reused:])
        self.cells.finish(sequence)

    @rule(more=st.integers(-5, 12))
    def ensure_free(self, more: int) -> None:
        free, used, possible = self.cells.free, self.cells.used, self.cells.free + self.cells.reusable
        count = max(0, free + more)
        assert self.cells.ensure_free(count) == (count <= possible)
        if count <= free or count > possible:
            assert self.cells.used == used
        else:
            assert count <= self.cells.free < count + self.at_once, "more was evicted than is of use"

    @rule(index=INDEX, back=st.integers(0, 4))
    def slide(self, index: int, back: int) -> None:
        if there := sorted(self.cache.sequences()):
            sequence = there[index % len(there)]
            self.cache.slide(sequence, max(0, len(self.cache.held(sequence)) - self.cache.window - back))
            self.slid = True

    @rule()
    def clear(self) -> None:
        for sequence in self.active:
            self.cells.discard(sequence)
        self.active.clear()
        assert self.cells.ensure_free(self.cache.length)
        assert self.cells.used == 0
        assert not self.cache.cells

    @invariant()
    def counts_are_true(self) -> None:
        sequences = [cell.sequences for cell in self.cache.cells]
        assert self.cells.used == len(sequences)
        assert self.cells.free == self.cache.length - len(sequences)
        assert self.cells.reusable == sum(min(held) >= SLOTS for held in sequences)

    @invariant()
    def working_sequences_have_their_tokens(self) -> None:
        for sequence, tokens in self.active.items():
            assert self.cache.tokens(sequence) == tokens
            assert self.cells.length(sequence) == len(tokens)

    @invariant()
    def kept_sequences_are_those_that_the_cache_has(self) -> None:
        kept = dict(self.cells.cached())
        assert set(kept) == {sequence for sequence in self.cache.sequences() if sequence >= SLOTS}
        assert all(self.cache.tokens(sequence) == tokens for sequence, tokens in kept.items())

    @invariant()
    def no_kept_sequence_is_useless(self) -> None:
        kept = dict(self.cells.cached())
        if not self.slid:
            assert not any(
                one != other
                and {id(cell) for cell in self.cache.held(one)} <= {id(cell) for cell in self.cache.held(other)}
                for one in kept
                for other in kept
            )


TestEveryOrderOfCalls = Machine.TestCase
TestEveryOrderOfCalls.settings = settings(max_examples=settings().max_examples, stateful_step_count=30)


class Desk:
    """A cache and its cells, and requests that come one after the other."""

    def __init__(self, capacity: int = 10_000, slots: int = 4) -> None:
        self.cache = Cache(capacity, slots)
        self.cells = cells_of(self.cache)

    def read(self, tokens: list[int]) -> tuple[int, int]:
        """Open and decode what is missing; the sequence, and what was there."""
        sequence, reused = self.cells.start(tokens)
        self.write(sequence, tokens[reused:])
        return sequence, reused

    def write(self, sequence: int, tokens: list[int]) -> None:
        assert self.cells.ensure_free(len(tokens))
        self.cache.decode(sequence, tokens)
        self.cells.extend(sequence, tokens)

    def ask(self, tokens: list[int]) -> int:
        """A whole request; how much of it was there."""
        sequence, reused = self.read(tokens)
        self.cells.finish(sequence)
        return reused

    def cached(self) -> list[list[int]]:
        return [tokens for _, tokens in self.cells.cached()]


SYSTEM = list(range(100, 140))


def test_a_shared_system_prompt_is_held_once() -> None:
    desk = Desk(slots=16)
    desk.ask(SYSTEM)
    opened = [desk.read([*SYSTEM, number]) for number in range(16)]
    assert [reused for _, reused in opened] == [len(SYSTEM)] * 16
    assert desk.cells.used == len(desk.cache.cells) == len(SYSTEM) + 16
    assert desk.cells.reusable == 0
    for sequence, _ in opened:
        desk.cells.finish(sequence)
    assert desk.cells.reusable == desk.cells.used == len(SYSTEM) + 16


def test_a_prompt_that_is_still_read_is_shared_as_far_as_it_is() -> None:
    desk = Desk()
    sequence, _ = desk.cells.start(SYSTEM)
    desk.write(sequence, SYSTEM[:30])
    assert desk.cells.match([*SYSTEM, 1]) == 30
    other, reused = desk.cells.start([*SYSTEM, 1])
    assert reused == 30
    desk.write(sequence, SYSTEM[30:])
    desk.write(other, [7])
    assert desk.cache.tokens(sequence) == SYSTEM
    assert desk.cache.tokens(other) == [*SYSTEM[:30], 7]
    assert desk.cells.used == len(SYSTEM) + 1


def test_the_next_turn_replaces_the_one_before() -> None:
    desk = Desk()
    desk.ask(SYSTEM)
    assert desk.ask([*SYSTEM, 1, 2, 3]) == len(SYSTEM)
    assert desk.ask([*SYSTEM, 1, 2, 3, 4, 5, 6]) == len(SYSTEM) + 3
    assert desk.cached() == [[*SYSTEM, 1, 2, 3, 4, 5, 6]]


def test_a_shared_system_prompt_survives_its_tails() -> None:
    desk = Desk(capacity=100)
    for number in range(3):
        desk.ask([*SYSTEM, *[number] * 20])
    assert desk.cells.free == 0
    assert desk.cells.ensure_free(60)
    assert desk.cached() == [SYSTEM]
    assert desk.cells.used == desk.cells.reusable == len(SYSTEM)
    assert desk.cells.ensure_free(100)
    assert desk.cached() == []


def test_least_recently_used_goes_first() -> None:
    desk = Desk(capacity=90)
    for number in range(3):
        desk.ask([number] * 30)
    assert desk.ask([0] * 30) == 30
    assert desk.cells.ensure_free(1)
    assert desk.cached() == [[0] * 30, [2] * 30]
    assert desk.cells.ensure_free(31)
    assert desk.cached() == [[0] * 30]


def test_what_is_at_work_was_just_used() -> None:
    desk = Desk(capacity=90)
    for number in range(3):
        desk.ask([number] * 30)
    sequence, _ = desk.read([0] * 30)
    desk.cells.discard(sequence)
    assert desk.cells.ensure_free(1)
    assert desk.cached() == [[0] * 30, [2] * 30]


def test_what_was_computed_again_was_just_used() -> None:
    desk = Desk(capacity=90)
    first, _ = desk.cells.start([])
    second, _ = desk.cells.start([])
    for sequence in (first, second):
        desk.write(sequence, [0] * 30)
    desk.cells.finish(first)
    desk.ask([1] * 30)
    desk.cells.finish(second)
    desk.ask([2] * 30)
    assert desk.cells.ensure_free(1)
    assert desk.cached() == [[2] * 30, [0] * 30]


def test_a_long_tail_goes_from_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVICTED_AT_ONCE", 10)
    desk = Desk(capacity=100)
    desk.ask(list(range(100)))
    assert desk.cells.ensure_free(1)
    assert desk.cached() == [list(range(90))]
    assert desk.cells.ensure_free(25)
    assert desk.cached() == [list(range(75))]


def test_working_sequences_are_never_evicted() -> None:
    desk = Desk(capacity=60)
    desk.ask([*SYSTEM, 1, 2])
    sequence, _ = desk.read(SYSTEM)
    assert desk.cells.reusable == 2
    assert not desk.cells.ensure_free(21)
    assert desk.cached() == [[*SYSTEM, 1, 2]]
    assert desk.cells.ensure_free(20)
    assert desk.cache.tokens(sequence) == SYSTEM
    assert desk.cells.reusable == 0


def test_rejected_drafts_are_forgotten() -> None:
    desk = Desk()
    sequence, _ = desk.read([1, 2, 3])
    desk.write(sequence, [4, 90, 91])
    desk.cells.truncate(sequence, 4)
    desk.write(sequence, [5])
    assert desk.cache.tokens(sequence) == [1, 2, 3, 4, 5]
    assert desk.cells.used == 5


def test_drafts_that_another_one_shares_stay_there() -> None:
    desk = Desk()
    sequence, _ = desk.read([1, 2, 3, 90, 91])
    other, reused = desk.cells.start([1, 2, 3, 90])
    desk.cells.truncate(sequence, 3)
    desk.write(sequence, [4])
    assert reused == 4
    assert desk.cache.tokens(other) == [1, 2, 3, 90]
    assert desk.cache.tokens(sequence) == [1, 2, 3, 4]
    assert desk.cells.used == 5


def test_two_that_computed_the_same_separately_are_kept_once() -> None:
    desk = Desk()
    first, _ = desk.cells.start([])
    second, _ = desk.cells.start([])
    for sequence in (first, second):
        desk.write(sequence, [1, 2, 3])
    desk.write(second, [4])
    assert desk.cells.used == 7
    assert desk.cells.match([1, 2, 3, 4, 5]) == 4
    desk.cells.finish(first)
    desk.cells.finish(second)
    assert desk.cached() == [[1, 2, 3, 4]]
    assert desk.cells.used == 4


def test_the_longer_of_two_equal_beginnings_is_found() -> None:
    desk = Desk()
    first, _ = desk.cells.start([])
    second, _ = desk.cells.start([])
    desk.write(first, [1, 2])
    desk.write(second, [1, 2, 3])
    desk.cells.start([1])
    desk.write(first, [3, 4])
    assert desk.cells.match([1, 2, 3, 4, 5]) == 4


def test_ids_run_out_after_256() -> None:
    desk = Desk(slots=4)
    for number in range(300):
        desk.ask([number, 0])
    assert len(desk.cached()) == 252
    assert desk.cached()[-1] == [48, 0]
    assert desk.ask([47, 0]) == 0
    assert desk.ask([299, 0]) == 2


def test_nothing_is_kept_if_all_ids_are_at_work() -> None:
    desk = Desk(slots=256)
    for _ in range(2):
        assert desk.ask([1, 2, 3]) == 0
    assert desk.cells.used == 0


def test_a_request_that_ends_before_it_began_leaves_nothing() -> None:
    desk = Desk()
    sequence, _ = desk.cells.start([])
    desk.cells.finish(sequence)
    assert desk.cached() == []
    assert [desk.cells.start([])[0] for _ in range(4)] == [0, 1, 2, 3]


def test_restored_caches_are_adopted() -> None:
    """What is read from disk lands in a working sequence as if it had been decoded."""
    desk = Desk()
    sequence, reused = desk.cells.start([])
    desk.cache.decode(sequence, SYSTEM)
    desk.cells.extend(sequence, SYSTEM)
    desk.cells.finish(sequence)
    assert reused == 0
    assert desk.ask([*SYSTEM, 1]) == len(SYSTEM)


def test_who_lost_its_window_is_not_shared() -> None:
    cache = Cache(100, window=4)
    cells = cells_of(cache)
    for tail in ([1, 1, 1], [2, 2, 2]):
        sequence, reused = cells.start([*range(10, 20), *tail])
        cache.decode(sequence, [*range(10, 20), *tail][reused:])
        cells.extend(sequence, [*range(10, 20), *tail][reused:])
        cells.finish(sequence)
    first, second = [sequence for sequence, _ in cells.cached()]
    cache.slide(first, 9)
    assert cells.match([*range(10, 20), 2, 2, 2]) == 13, "the window is there"
    assert cells.match(list(range(10, 20))) == 10, "the other one has it"
    cache.slide(second, 9)
    assert cells.match(list(range(10, 20))) == 0
    assert cells.match([*range(10, 20), 1, 1, 1, 1]) == 13


def test_the_turn_before_stays_if_the_next_one_lost_its_window() -> None:
    cache = Cache(100, window=4)
    cells = cells_of(cache)
    for end in (10, 20):
        sequence, reused = cells.start(list(range(end)))
        cache.decode(sequence, list(range(reused, end)))
        cells.extend(sequence, list(range(reused, end)))
        cache.slide(sequence, end - 10)
        cells.finish(sequence)
    assert cells.match(list(range(20))) == 20
    assert cells.match(list(range(10))) == 10
    assert cells.used == 20
    assert cells.ensure_free(90)
    assert [tokens for _, tokens in cells.cached()] == [list(range(10))]
    assert cells.match(list(range(10))) == 10


@pytest.mark.parametrize("call", ["truncate", "discard", "extend", "finish", "length"])
def test_a_sequence_that_is_not_active_is_a_bug(call: str) -> None:
    desk = Desk()
    desk.ask([1, 2, 3])
    [(kept, _)] = desk.cells.cached()
    for sequence in (3, kept):
        arguments: dict[str, tuple[object, ...]] = {"truncate": (sequence, 0), "extend": (sequence, [1])}
        with pytest.raises(EngineError, match=f"sequence {sequence} is not active"):
            getattr(desk.cells, call)(*arguments.get(call, (sequence,)))
    assert desk.cached() == [[1, 2, 3]]


class Recurrent(Cache):
    """One state for each sequence: no ids but those that can be decoded, and nothing can be cut."""

    def share(self, source: int, target: int, end: int) -> None:
        raise AssertionError(f"{source} has no part to share with {target} up to {end}")

    def forget(self, sequence: int, start: int = 0) -> bool:
        return sequence < self.slots and not start and super().forget(sequence)


def test_recurrent_models_reuse_nothing_and_are_cut_whole() -> None:
    cache = Recurrent(100)
    cells = cells_of(cache)
    assert not cells.can_truncate
    sequence, _ = cells.start(SYSTEM)
    cache.decode(sequence, SYSTEM)
    cells.extend(sequence, SYSTEM)
    assert cells.match(SYSTEM) == 0
    assert cells.start(SYSTEM) == (1, 0)
    cells.truncate(sequence, 20)
    assert cells.length(sequence) == cells.used == len(cache.cells) == 0
    cache.decode(sequence, SYSTEM[:20])
    cells.extend(sequence, SYSTEM[:20])
    cells.finish(sequence)
    assert cells.used == len(cache.cells) == 0
    assert cells.start([])[0] == sequence


class Llama:
    """The demo model, read greedily through `KVCache`."""

    def __init__(self, model: LlamaModel) -> None:
        self.context = LlamaContext(model, ContextSettings(1024, slots=4), threads=1)
        self.cells = KVCache(self.context, 4)
        self.batch = Batch(self.context.batch_tokens)

    def begin(self, prompt: list[int]) -> tuple[int, int, int]:
        """The sequence, what was there, and the first token that comes."""
        sequence, reused = self.cells.start(prompt[:-1])
        return sequence, reused, self.next({sequence: prompt[reused:]})[sequence]

    def next(self, behind: dict[int, list[int]]) -> dict[int, int]:
        assert self.cells.ensure_free(sum(map(len, behind.values())))
        self.batch.clear()
        for sequence, tokens in behind.items():
            self.batch.add(tokens, self.cells.length(sequence), sequence, 1)
        self.context.decode(self.batch)
        for sequence, tokens in behind.items():
            self.cells.extend(sequence, tokens)
        return dict(zip(behind, self.context.logits().argmax(axis=1).tolist(), strict=True))

    def go_on(self, lasts: dict[int, int], count: int = 16) -> dict[int, list[int]]:
        """Several at once, a token of each in every step."""
        texts = {sequence: [last] for sequence, last in lasts.items()}
        for _ in range(count):
            for sequence, token in self.next({sequence: texts[sequence][-1:] for sequence in texts}).items():
                texts[sequence].append(token)
        return texts

    def fresh(self, prompt: list[int]) -> list[int]:
        assert self.cells.ensure_free(self.context.length)
        sequence, reused, token = self.begin(prompt)
        assert reused == 0
        text = self.go_on({sequence: token})[sequence]
        self.cells.discard(sequence)
        return text


QUESTIONS = ["Who are you?", "What is GGUF?", "What is a context length?", "Tell me about quantization."]


def prompts(model: LlamaModel) -> list[list[int]]:
    system = "<|im_start|>system\nYou are Hermes Demo.<|im_end|>\n<|im_start|>user\n"
    turns = [f"{system}{question}<|im_end|>\n<|im_start|>assistant\n" for question in QUESTIONS]
    return [model.vocabulary.tokenize(turn, special=True) for turn in turns]


def test_a_shared_prefix_gives_what_a_fresh_one_gives(demo_model: LlamaModel) -> None:
    llama = Llama(demo_model)
    fresh = [llama.fresh(prompt) for prompt in prompts(demo_model)]
    assert llama.cells.ensure_free(llama.context.length)
    opened = [llama.begin(prompt) for prompt in prompts(demo_model)]
    assert [reused > 10 for _, reused, _ in opened] == [False, True, True, True]
    texts = llama.go_on({sequence: token for sequence, _, token in opened})
    assert [texts[sequence] for sequence, _, _ in opened] == fresh
    for sequence, _, _ in opened:
        llama.cells.finish(sequence)
    for prompt, text in zip(prompts(demo_model), fresh, strict=True):  # and from what they left, with the answers
        sequence, reused, token = llama.begin(prompt + text[:8])
        assert reused == len(prompt) + 7
        assert llama.go_on({sequence: token}, 8)[sequence] == text[8:]
        llama.cells.discard(sequence)


def test_rejected_drafts_leave_no_trace(demo_model: LlamaModel) -> None:
    llama = Llama(demo_model)
    prompt = prompts(demo_model)[0]
    fresh = llama.fresh(prompt)
    assert llama.cells.ensure_free(llama.context.length)
    sequence, _, token = llama.begin(prompt)
    llama.next({sequence: [token, 50, 51, 52]})
    llama.cells.truncate(sequence, len(prompt) + 1)
    rest = llama.next({sequence: fresh[1:2]})
    assert llama.go_on(rest, 14)[sequence] == fresh[2:]


def test_the_whole_cache_can_be_filled_and_filled_again(demo_model: LlamaModel) -> None:
    """Llama.cpp finds room whenever the count says that there is."""
    llama = Llama(demo_model)
    for number in range(12):
        prompt = [5, *[20 + number] * 300]
        sequence, _, _ = llama.begin(prompt)
        llama.cells.finish(sequence)
    assert llama.cells.used > 700
    sequence, _, _ = llama.begin([6] * 500)
    other, _, _ = llama.begin([7] * 500)
    while llama.cells.ensure_free(2):
        llama.next({sequence: [6], other: [7]})
    assert llama.cells.used == llama.context.length
    assert llama.cells.reusable == 0
