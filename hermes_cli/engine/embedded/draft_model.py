"""Speculative decoding with a second, small model of the same vocabulary: the draft model.

It has a KV cache of its own for every sequence. Bringing that up to date is the expensive part: the common prefix
stays, and the rest is prefilled in chunks that delay nobody.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from hermes_cli.engine.embedded.batch import Batch
from hermes_cli.engine.embedded.llama import LlamaContext, LlamaModel
from hermes_cli.engine.embedded.step_cost import StepCostModel
from hermes_cli.engine.tokens import common_prefix
from hermes_cli.errors import ContextFullError, EngineError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from hermes_cli.engine.embedded.vocabulary import Vocabulary
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
        """Load the draft model.

        Args:
            path: the file, or its first shard.
            plan: how it is loaded; context length and slots have to be the large model's.
            target: the large model's vocabulary.

        Raises:
            UsageError: its tokens are other ones.
            IntegrityError: llama.cpp refused the file.
            EngineError: it has no room for the context.
        """
        self._model = LlamaModel(path, gpu_layers=plan.gpu_layers, tensor_split=plan.tensor_split)
        try:
            _check(path, self._model.vocabulary, target)
            self._context = LlamaContext(self._model, plan.settings, threads=plan.threads)
        except BaseException:
            self._model.close()
            raise
        self._vocabulary = self._model.vocabulary
        self._size = min(target.size, self._vocabulary.size)
        self._batch = Batch(self._context.batch_tokens)
        self._step_cost = StepCostModel()
        self._cached: dict[int, list[int]] = {}  # tokens in the cache, by sequence
        self._failed = False

    def draft(self, wanted: Mapping[int, tuple[Sequence[int], int]]) -> dict[int, list[int]]:
        """Return the likely next tokens of each sequence.

        Args:
            wanted: by sequence, all its tokens so far, and the most drafts.

        Returns:
            The drafts; none for a sequence whose prefill is not done or that has no room in the cache, nor
            ever again after llama.cpp failed.
        """
        drafts: dict[int, list[int]] = {sequence: [] for sequence in wanted}
        if self._failed:
            return drafts
        try:
            self._draft(wanted, drafts)
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

    def _draft(self, wanted: Mapping[int, tuple[Sequence[int], int]], drafts: Mapping[int, list[int]]) -> None:
        sequences = self._prefill({sequence: list(wanted[sequence][0]) for sequence in self._fitting(wanted)})
        probabilities = dict.fromkeys(sequences, 1.0)
        while sequences:
            continuing = []
            for sequence, (token, probability) in zip(sequences, self._best(), strict=True):
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

    def _prefill(self, sequences: Mapping[int, list[int]]) -> list[int]:
        """Bring caches up to date; return the sequences that are, in the order of their outputs."""
        pending = {sequence: len(tokens) - self._trim(sequence, tokens) for sequence, tokens in sequences.items()}
        long = sum(count > MAX_PENDING for count in pending.values())
        chunk = self._step_cost.chunk(len(sequences), long, self._batch.capacity)
        self._batch.clear()
        ready, prefill_tokens = [], 0
        for sequence in sorted(pending, key=pending.__getitem__):
            count = min(pending[sequence], self._batch.room)
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
        self._context.synchronize()
        self._step_cost.record(decode_tokens, prefill_tokens, time.perf_counter() - started)

    def _best(self) -> Iterator[tuple[int, float]]:
        """Yield the most likely token of each output, and its probability."""
        logits = self._context.logits()[:, : self._size]
        probabilities = 1 / np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1)
        return zip(logits.argmax(axis=1).tolist(), probabilities.tolist(), strict=True)


def _check(path: Path, draft: Vocabulary, target: Vocabulary) -> None:
    if difference := _difference(draft, target):
        raise UsageError(
            f"{path.name} cannot draft for this model: {difference}.",
            hint="leave --draft out, or name a smaller model of the same generation and base.",
        )


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
