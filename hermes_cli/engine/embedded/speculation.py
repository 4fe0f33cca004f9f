"""Speculative decoding: prompt lookup, a draft model, and how often their drafts are accepted.

Prompt lookup drafts the tokens that followed the last time that the last few tokens occurred. Text that repeats its
input (edited code, JSON, tool calls) is drafted mostly right this way, in microseconds. Occurrences are found as
deflate finds them: a table from the hash of three tokens to the last position behind such, and for every position the
one before it with the same hash.

A draft model is a second, small model of the same vocabulary. It has a KV cache of its own for every sequence. Bringing
that up to date is the expensive part: the common prefix stays, and the rest is prefilled in chunks that delay nobody.
"""

from __future__ import annotations

import time
from array import array
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hermes_cli.engine.embedded.kv_cache import common_prefix
from hermes_cli.engine.embedded.llama import Batch, LlamaContext, LlamaModel
from hermes_cli.engine.embedded.step_cost import FIXED_CHUNK, StepCostModel
from hermes_cli.engine.embedded.vocabulary import Vocabulary
from hermes_cli.errors import ContextFullError, EngineError, UsageError
from hermes_cli.planning.load_plan import LoadPlan

# llama.cpp's common/speculative.cpp: vocabularies may differ in size by so many tokens (padding), and the first few are
# special ones that are spelled in different ways.
MAX_EXTRA_TOKENS, FIRST_COMPARED = 128, 5
# Drafting goes on while the whole draft is more likely accepted than not. Draft models are right at least as
# often as their probabilities say: of tokens between 0.5 and 0.75, 97 % were accepted (measured on one
# model in two quantizations; llama.cpp's own limit was 0.75 for each token, and is 0 with at most 3 tokens now).
MIN_PROBABILITY = 0.5
MAX_PENDING = 64  # tokens; more are a prompt, to be prefilled in chunks


class DraftModel:
    """A loaded draft model, with a KV cache for each sequence. Sequence ids are the target model's."""

    def __init__(self, path: Path, plan: LoadPlan, target: Vocabulary) -> None:
        """Load the draft model, with the context length and the slots of the large one.

        Raise UsageError if `target`, the vocabulary of the large model, is another one.
        """
        self._model = LlamaModel(path, gpu_layers=plan.gpu_layers, tensor_split=plan.tensor_split, devices=plan.devices)
        self._vocabulary = self._model.vocabulary
        try:
            if difference := _difference(self._vocabulary, target):
                raise UsageError(  # noqa: TRY301 - the model is closed then
                    f"{path.name} cannot draft for this model: {difference}.",
                    hint="leave --draft out, or name a smaller model of the same generation and base.",
                )
            self._context = LlamaContext(self._model, plan.settings, threads=plan.threads)
        except BaseException:
            self._model.close()
            raise
        self._size = min(target.size, self._vocabulary.size)
        self._batch = Batch(self._context.batch_tokens)
        self._step_cost = StepCostModel()
        self._cached: dict[int, list[int]] = {}  # tokens in the cache, by sequence
        self._failed = False

    def draft(self, wanted: Mapping[int, tuple[Sequence[int], int]], *, fixed: bool = False) -> dict[int, list[int]]:
        """Return the likely next tokens of each sequence, given all its tokens so far and the most drafts.

        `fixed` prefills in chunks of one size, not as measured times say. There are none for a sequence whose prefill
        is not done or that has no room in the cache, nor ever again after llama.cpp failed.
        """
        drafts: dict[int, list[int]] = {sequence: [] for sequence in wanted}
        if self._failed:
            return drafts
        try:
            self._draft(wanted, drafts, fixed=fixed)
        except ContextFullError:
            for sequence in wanted:
                self.forget(sequence)
        except EngineError:  # whatever it is, it would come again; the large model can go on without
            self._failed = True
        return drafts

    def seconds(self, sequences: int) -> float:
        """Return the seconds that one draft token of one sequence takes among so many; 0 before the first."""
        return self._step_cost.seconds(sequences) / sequences

    def forget(self, sequence: int) -> None:
        """Free a sequence's cache."""
        if self._cached.pop(sequence, None) is not None:
            self._context.forget(sequence)

    def close(self) -> None:
        """Free model and context."""
        self._context.close()
        self._model.close()

    def _draft(
        self, wanted: Mapping[int, tuple[Sequence[int], int]], drafts: Mapping[int, list[int]], *, fixed: bool
    ) -> None:
        tokens = {sequence: list(wanted[sequence][0]) for sequence in self._fitting(wanted)}
        sequences = self._prefill(tokens, fixed=fixed)
        probabilities = dict.fromkeys(sequences, 1.0)
        while sequences:
            continuing = []
            logits = self._context.logits()[:, : self._size]
            likeliest = (1 / np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1)).tolist()
            for sequence, token, probability in zip(sequences, logits.argmax(axis=1).tolist(), likeliest, strict=True):
                probabilities[sequence] *= probability
                # An end token needs no draft: nothing is computed behind it.
                if probabilities[sequence] >= MIN_PROBABILITY and not self._vocabulary.ends_generation(token):
                    drafts[sequence].append(token)
                    if len(drafts[sequence]) < wanted[sequence][1]:
                        continuing.append(sequence)
            if continuing:
                self._batch.clear()
                for sequence in continuing:
                    self._add(sequence, drafts[sequence][-1:], outputs=1)
                self._decode(len(continuing), 0)
            sequences = continuing

    def _fitting(self, wanted: Mapping[int, tuple[Sequence[int], int]]) -> list[int]:
        """Return the sequences that have room in the cache with their drafts, the short ones first; free the others."""
        length = self._context.length
        need = {sequence: len(tokens) + limit for sequence, (tokens, limit) in wanted.items() if tokens and limit > 0}
        need = {sequence: count for sequence, count in need.items() if count <= length}
        unused = [sequence for sequence in self._cached if sequence not in need]
        room = length - sum(len(self._cached[sequence]) for sequence in unused)
        if sum(need.values()) > room:
            for sequence in unused:
                self.forget(sequence)
            room = length
        chosen = []
        for sequence in sorted(need, key=need.__getitem__):
            if need[sequence] > room:
                self.forget(sequence)
                continue
            room -= need[sequence]
            chosen.append(sequence)
        return chosen

    def _prefill(self, sequences: Mapping[int, list[int]], *, fixed: bool) -> list[int]:
        """Bring caches up to date; return the sequences that are, in the order of their outputs."""
        pending = {sequence: len(tokens) - self._trim(sequence, tokens) for sequence, tokens in sequences.items()}
        long = sum(count > MAX_PENDING for count in pending.values())
        chunk = FIXED_CHUNK if fixed else self._step_cost.chunk(len(sequences), long, self._batch.capacity)
        self._batch.clear()
        ready, prefill_tokens = [], 0
        for sequence in sorted(pending, key=pending.__getitem__):
            count = min(pending[sequence], self._batch.capacity - self._batch.count)
            if pending[sequence] > MAX_PENDING:
                count = min(count, chunk - prefill_tokens)
                prefill_tokens += count
            if count:
                start, complete = len(self._cached[sequence]), count == pending[sequence]
                self._add(sequence, sequences[sequence][start : start + count], outputs=int(complete))
                if complete:
                    ready.append(sequence)
        if self._batch.count:
            self._decode(self._batch.count - prefill_tokens, prefill_tokens)
        return ready

    def _trim(self, sequence: int, tokens: list[int]) -> int:
        """Truncate a sequence's cache to what these tokens begin with; return its length.

        The last token is decoded again in any case, since its output is needed.
        """
        cached = self._cached.setdefault(sequence, [])
        shared = min(common_prefix(cached, tokens), len(tokens) - 1)
        if shared < len(cached):
            if not self._context.forget(sequence, shared):
                self._context.forget(sequence)
                shared = 0
            del cached[shared:]
        return shared

    def _add(self, sequence: int, tokens: list[int], *, outputs: int) -> None:
        cached = self._cached[sequence]
        self._batch.add(tokens, len(cached), sequence, outputs)
        cached += tokens

    def _decode(self, decode_tokens: int, prefill_tokens: int) -> None:
        started = time.perf_counter()
        self._context.decode(self._batch)
        self._step_cost.record(decode_tokens, prefill_tokens, time.perf_counter() - started)


def _difference(draft: Vocabulary, target: Vocabulary) -> str:
    """Return how two vocabularies differ so that the drafts mean nothing to the target; empty if they do not."""
    if abs(draft.size - target.size) > MAX_EXTRA_TOKENS:
        return f"it knows {draft.size:,} tokens, not {target.size:,}"
    if draft.adds_bos != target.adds_bos or (target.adds_bos and draft.bos != target.bos):
        return "its texts begin with another token"
    for token in range(FIRST_COMPARED, min(draft.size, target.size)):
        if (theirs := draft.text_of(token)) != (ours := target.text_of(token)):
            return f"its token {token:,} is {theirs!r}, not {ours!r}"
    return ""


MIN_MATCH = 3  # tokens that have to be equal; the hash forgets a token after so many others: 3 * SHIFT >= BITS
BITS, SHIFT = 16, 6
MASK = (1 << BITS) - 1
MAX_MATCH = 16  # tokens; whether 16 or 60 are equal says the same about the next
MAX_CANDIDATES = 8  # the last ones; more find nothing better
BEHIND, AHEAD = 8, 16  # tokens around the position that was followed, within which a copy goes on after an edit

# Acceptance rate of the next token, by how many before it are equal: what 160 real edits, conversions to JSON and
# texts showed. It is where each text begins, and counts as so many observations.
PRIORS = ((1, 0.35), (2, 0.45), (3, 0.5), (4, 0.6), (5, 0.65), (6, 0.7), (8, 0.85), (12, 0.9), (MAX_MATCH, 0.96))
WEIGHT = 8
FADE = 0.97  # weight of an observation after each further one


class PromptLookup:
    """The tokens of one request, indexed to draft from."""

    def __init__(self) -> None:
        self._tokens: list[int] = []
        self._hash = 0
        self._last = array("i", bytes(4 << BITS))  # by hash, the last position behind such three tokens; 0 is none
        self._before = array("i", [0])  # for each position the one before it with the same hash
        self._source = 0  # the position that is followed; 0 is none
        self._match = 0  # tokens before it that equal the last ones
        self._searched = -1  # how many tokens there were when it was looked for
        self._accepted = [WEIGHT * acceptance_rate for _, acceptance_rate in PRIORS]
        self._drafted = [float(WEIGHT)] * len(PRIORS)

    def extend(self, tokens: Sequence[int]) -> None:
        """Append tokens of the prompt or the completion, and learn from them how good the last draft was."""
        if self._match and self._searched == len(self._tokens):
            accepted = common_prefix(self._continuation(min(len(tokens), MAX_MATCH)), list(tokens[:MAX_MATCH]))
            bucket = self._bucket()
            self._accepted[bucket] = self._accepted[bucket] * FADE + accepted
            self._drafted[bucket] = self._drafted[bucket] * FADE + min(accepted + 1, len(tokens), MAX_MATCH)
        if self._source:
            self._source += len(tokens)
        value, latest, append = self._hash, self._last, self._before.append
        for position, token in enumerate(tokens, len(self._tokens) + 1):
            value = (value << SHIFT ^ token) & MASK
            append(latest[value])
            latest[value] = position
        self._hash = value
        self._tokens += tokens

    @property
    def acceptance_rate(self) -> float:
        """The probability that each next token of a draft is accepted if those before it are; 0 without a draft."""
        self._search()
        if not self._match:
            return 0.0
        bucket = self._bucket()
        return self._accepted[bucket] / self._drafted[bucket]

    def draft(self, limit: int) -> list[int]:
        """Return the `limit` tokens that followed the longest and latest occurrence; none if there was none."""
        self._search()
        return self._continuation(limit) if self._match else []

    def _continuation(self, count: int) -> list[int]:
        following = self._tokens[self._source : self._source + max(count, 0)]
        if len(following) < count:  # text that repeats itself goes on repeating itself
            following = (following * (count // len(following) + 1))[:count]
        return following

    def _bucket(self) -> int:
        return bisect_right(PRIORS, (self._match, 1.0)) - 1

    def _search(self) -> None:
        """Find the position to follow: the one followed already, unless another has a longer match."""
        if self._searched == len(self._tokens):
            return
        self._searched = len(self._tokens)
        match, source = self._match_before(self._source), self._source
        position = self._before[-1]
        for _ in range(MAX_CANDIDATES):
            if not position or match == MAX_MATCH:
                break
            if (length := self._match_before(position)) > match and length >= MIN_MATCH:
                match, source = length, position
            position = self._before[position]
        if not match and source:
            source = self._nearby(source)
            match = self._match_before(source)
        self._match = match
        self._source = source or self._source

    def _match_before(self, position: int) -> int:
        """Return how many tokens before a position equal the last ones."""
        tokens, end = self._tokens, len(self._tokens)
        limit, count = min(position, MAX_MATCH), 0
        while count < limit and tokens[position - 1 - count] == tokens[end - 1 - count]:
            count += 1
        return count

    def _nearby(self, position: int) -> int:
        """Return the nearest position with the last token before it; 0 if there is none near."""
        tokens = self._tokens
        latest, end = tokens[-1], len(tokens)
        for distance in range(1, AHEAD + 1):
            if position + distance < end and tokens[position + distance - 1] == latest:
                return position + distance
            if distance <= BEHIND and position > distance and tokens[position - distance - 1] == latest:
                return position - distance
        return 0


PRIOR, PRIOR_WEIGHT = 0.8, 4  # where it begins: good enough to be tried; counts as so many tokens
DRAFT_FADE = 0.95  # weight of a draft after each further one
MIN_RATE = 0.3  # below it drafts that cost anything do not pay
FIRST_PAUSE, LONGEST_PAUSE = 16, 1024  # steps


class DraftAcceptance:
    """The acceptance rate of one request's drafts, with pauses while drafting does not pay."""

    def __init__(self) -> None:
        self._accepted, self._drafted = PRIOR * PRIOR_WEIGHT, float(PRIOR_WEIGHT)
        self._paused_steps = 0  # steps of this pause
        self._next_pause = FIRST_PAUSE  # how long the next one is

    @property
    def acceptance_rate(self) -> float:
        """The probability that a draft token is accepted if those before it are."""
        return self._accepted / self._drafted

    def should_draft(self) -> bool:
        """Return whether to draft in this step; to be called once in each.

        After a pause the acceptance rate starts anew, with little weight.
        """
        if self._paused_steps:
            self._paused_steps -= 1
            if not self._paused_steps:
                self._accepted, self._drafted = PRIOR, 1.0
        return not self._paused_steps

    def record(self, drafted: int, accepted: int) -> None:
        """Record how many tokens of a draft were accepted."""
        if drafted <= 0:
            return
        self._accepted = self._accepted * DRAFT_FADE + accepted
        self._drafted = self._drafted * DRAFT_FADE + min(accepted + 1, drafted)
        if accepted == drafted:
            self._next_pause = FIRST_PAUSE
        elif self.acceptance_rate < MIN_RATE:
            self.pause()

    def pause(self) -> None:
        """Stop drafting for twice as many steps as the last time."""
        self._paused_steps = self._next_pause
        self._next_pause = min(2 * self._next_pause, LONGEST_PAUSE)
