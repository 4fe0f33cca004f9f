"""The tokens of one `llama_decode`, in arrays that llama.cpp reads in place."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import numpy as np

from hermes_cli.engine.embedded.bindings import llama_cpp
from hermes_cli.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


class Batch:
    """Tokens of any sequences to decode together, at most `capacity`."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.count = 0
        self.outputs = 0  # tokens with logits
        self._tokens = np.zeros(capacity, np.int32)
        self._positions = np.zeros(capacity, np.int32)
        self._sequences = np.zeros(capacity, np.int32)
        self._logits = np.zeros(capacity, np.int8)
        self._one = np.ones(capacity, np.int32)  # every token belongs to one sequence
        self._pointers = self._sequences.ctypes.data + np.arange(capacity, dtype=np.uintp) * self._sequences.itemsize
        self.raw = llama_cpp.llama_batch()
        self.raw.token = _as(self._tokens, llama_cpp.llama_token)
        self.raw.pos = _as(self._positions, llama_cpp.llama_pos)
        self.raw.n_seq_id = _as(self._one, ctypes.c_int32)
        self.raw.seq_id = _as(self._pointers, ctypes.POINTER(llama_cpp.llama_seq_id))
        self.raw.logits = _as(self._logits, ctypes.c_int8)

    @property
    def room(self) -> int:
        """The number of tokens that can still be added."""
        return self.capacity - self.count

    def clear(self) -> None:
        """Remove all tokens."""
        self.count = self.outputs = self.raw.n_tokens = 0

    def add(self, tokens: Sequence[int], position: int, sequence: int, outputs: int = 0) -> int:
        """Append consecutive tokens of one sequence.

        Args:
            tokens: their ids.
            position: of the first of them in its sequence.
            sequence: which one.
            outputs: the number of tokens at their end that get logits.

        Returns:
            The number of the first of those among all outputs of this batch.

        Raises:
            EngineError: the batch is full.
        """
        start, end = self.count, self.count + len(tokens)
        if end > self.capacity:
            raise EngineError(
                f"a batch of {self.capacity} tokens is full.", hint="this is a bug in hermes; please report it."
            )
        self._tokens[start:end] = tokens
        self._positions[start:end] = np.arange(position, position + len(tokens), dtype=np.int32)
        self._sequences[start:end] = sequence
        self._logits[start:end] = 0
        self._logits[end - outputs : end] = 1
        first, self.outputs = self.outputs, self.outputs + outputs
        self.count = self.raw.n_tokens = end
        return first


def _as(array: NDArray[Any], kind: Any) -> Any:  # noqa: ANN401 - ctypes' own types
    return array.ctypes.data_as(ctypes.POINTER(kind))
