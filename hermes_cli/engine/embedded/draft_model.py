"""A second, small model that guesses what the large one will say.

It keeps a cache of its own for every sequence that asks. Bringing that up to date is the dear part: what a sequence
has in common with its cache stays, and of the rest only so much is read at a time that nobody has to wait for it.
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
MOST_EXTRA_TOKENS, FIRST_COMPARED = 128, 5
# A guess is made as long as it is more likely right than not, with all before it. Small models are right at least as
# often as their probabilities say: of those between 0.5 and 0.75, 97 % were what the large one chose (measured on one
# model in two quantizations; llama.cpp's own limit was 0.75 for each guess, and is 0 with at most 3 guesses now).
LIKELY = 0.5
AT_ONCE = 64  # tokens behind: more are a prompt, to be read in chunks


class DraftModel:
    """A model that guesses, with a cache for each of its sequences; their numbers are the large model's."""

    def __init__(self, path: Path, plan: LoadPlan, target: Vocabulary) -> None:
        """Load it.

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
        self._pace = StepCostModel()
        self._held: dict[int, list[int]] = {}  # tokens in the cache, by sequence
        self._failed = False

    def guess(self, wanted: Mapping[int, tuple[Sequence[int], int]]) -> dict[int, list[int]]:
        """What comes next in each sequence, as far as the model is certain.

        Args:
            wanted: by sequence, all its tokens so far, and how many guesses it wants at most.

        Returns:
            The guesses; none for a sequence whose beginning is still being read or that has no room in the cache, nor
            ever again after llama.cpp failed.
        """
        guessed: dict[int, list[int]] = {sequence: [] for sequence in wanted}
        if self._failed:
            return guessed
        try:
            self._guess(wanted, guessed)
        except ContextFullError:
            for sequence in wanted:
                self.forget(sequence)
        except EngineError:  # whatever it is, it would come again; the large model can go on without
            self._failed = True
        return guessed

    def seconds(self, sequences: int) -> float:
        """What one guess for one of so many sequences takes; 0 before the first."""
        return self._pace.seconds(sequences) / sequences

    def forget(self, sequence: int) -> None:
        """Drop a sequence's cache."""
        if self._held.pop(sequence, None) is not None:
            self._context.forget(sequence)

    def close(self) -> None:
        """Give the memory back."""
        self._context.close()
        self._model.close()

    def _guess(self, wanted: Mapping[int, tuple[Sequence[int], int]], guessed: Mapping[int, list[int]]) -> None:
        asking = self._read({sequence: list(wanted[sequence][0]) for sequence in self._with_room(wanted)})
        likely = dict.fromkeys(asking, 1.0)
        while asking:
            going = []
            for sequence, (token, chance) in zip(asking, self._best(), strict=True):
                likely[sequence] *= chance
                # An end needs no guess: nothing is computed behind it.
                if likely[sequence] >= LIKELY and not self._vocabulary.ends_generation(token):
                    guessed[sequence].append(token)
                    if len(guessed[sequence]) < wanted[sequence][1]:
                        going.append(sequence)
            if going:
                self._batch.clear()
                for sequence in going:
                    self._add(sequence, guessed[sequence][-1:], outputs=1)
                self._decode(len(going), 0)
            asking = going

    def _with_room(self, wanted: Mapping[int, tuple[Sequence[int], int]]) -> list[int]:
        """Those sequences whose tokens and guesses the cache can hold, the short ones first; the others lose theirs."""
        length = self._context.length
        need = {sequence: len(tokens) + most for sequence, (tokens, most) in wanted.items() if tokens and most > 0}
        need = {sequence: count for sequence, count in need.items() if count <= length}
        idle = [sequence for sequence in self._held if sequence not in need]
        room = length - sum(len(self._held[sequence]) for sequence in idle)
        if sum(need.values()) > room:
            for sequence in idle:
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

    def _read(self, sequences: Mapping[int, list[int]]) -> list[int]:
        """Bring caches up to date; those sequences that are, in the order of their outputs."""
        behind = {sequence: len(tokens) - self._keep(sequence, tokens) for sequence, tokens in sequences.items()}
        late = sum(count > AT_ONCE for count in behind.values())
        chunk = self._pace.chunk(len(sequences), late, self._batch.capacity)
        self._batch.clear()
        ready, reading = [], 0
        for sequence in sorted(behind, key=behind.__getitem__):
            count = min(behind[sequence], self._batch.room)
            if behind[sequence] > AT_ONCE:
                count = min(count, chunk - reading)
                reading += count
            if count:
                start, complete = len(self._held[sequence]), count == behind[sequence]
                self._add(sequence, sequences[sequence][start : start + count], outputs=int(complete))
                if complete:
                    ready.append(sequence)
        if self._batch.count:
            self._decode(self._batch.count - reading, reading)
        return ready

    def _keep(self, sequence: int, tokens: list[int]) -> int:
        """Drop from a sequence's cache what is not the beginning of these tokens; how many it holds then.

        The last token is read again in any case, since its output is what is asked for.
        """
        held = self._held.setdefault(sequence, [])
        shared = min(common_prefix(held, tokens), len(tokens) - 1)
        if shared < len(held):
            if not self._context.forget(sequence, shared):
                self._context.forget(sequence)
                shared = 0
            del held[shared:]
        return shared

    def _add(self, sequence: int, tokens: list[int], *, outputs: int) -> None:
        held = self._held[sequence]
        self._batch.add(tokens, len(held), sequence, outputs)
        held += tokens

    def _decode(self, writing: int, reading: int) -> None:
        started = time.perf_counter()
        self._context.decode(self._batch)
        self._context.synchronize()
        self._pace.note(writing, reading, time.perf_counter() - started)

    def _best(self) -> Iterator[tuple[int, float]]:
        """The most likely token of each output, and how likely it is."""
        logits = self._context.logits()[:, : self._size]
        chances = 1 / np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1)
        return zip(logits.argmax(axis=1).tolist(), chances.tolist(), strict=True)


def _check(path: Path, draft: Vocabulary, target: Vocabulary) -> None:
    if difference := _difference(draft, target):
        raise UsageError(
            f"{path.name} cannot guess for this model: {difference}.",
            hint="leave --draft out, or name a smaller model of the same generation and base.",
        )


def _difference(draft: Vocabulary, target: Vocabulary) -> str:
    """In what two vocabularies differ so that one model's tokens mean nothing to the other; empty if they don't."""
    if abs(draft.size - target.size) > MOST_EXTRA_TOKENS:
        return f"it knows {draft.size:,} tokens, not {target.size:,}"
    if draft.adds_bos != target.adds_bos or (target.adds_bos and draft.bos != target.bos):
        return "its texts begin with another token"
    for token in range(FIRST_COMPARED, min(draft.size, target.size)):
        if (theirs := draft.text_of(token)) != (ours := target.text_of(token)):
            return f"its token {token:,} is {theirs!r}, not {ours!r}"
    return ""
