"""llama.cpp's objects as Python objects that free what they own and turn every return code into an error.

Objects close in any order and twice without harm; a context keeps its model alive.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakSet

from hermes_cli.engine.embedded.bindings import LOG, llama_cpp
from hermes_cli.engine.embedded.devices import device_array
from hermes_cli.engine.embedded.vocabulary import Vocabulary
from hermes_cli.errors import ContextFullError, EngineError, IntegrityError
from hermes_cli.gguf.types import TENSOR_TYPES, UPGRADE
from hermes_cli.planning.memory import ContextSettings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

GGML_TYPES = {kind.name.lower(): number for number, kind in TENSOR_TYPES.items()}

POOLING_TYPES = {
    "mean": llama_cpp.LLAMA_POOLING_TYPE_MEAN,
    "cls": llama_cpp.LLAMA_POOLING_TYPE_CLS,
    "last": llama_cpp.LLAMA_POOLING_TYPE_LAST,
}

# What llama_decode returns (llama.h, comment above its declaration).
DECODE_NO_SLOT = 1
DECODE_ABORTED = 2
DECODE_INVALID = -1


class Owned:
    """Memory that llama.cpp allocated: freed by `close()`, at the end of `with`, or with the object."""

    _handle: Any = None
    _free: Any  # a function of llama.cpp, or a method, that frees the handle

    @property
    def handle(self) -> Any:  # noqa: ANN401 - ctypes pointers have no common type
        """The C pointer."""
        if self._handle is None:
            raise EngineError(
                f"the {type(self).__name__.removeprefix('Llama').lower()} is closed.",
                hint="this is a bug in hermes; please report it.",
            )
        return self._handle

    def close(self) -> None:
        """Free the memory; a second call does nothing."""
        handle, self._handle = self._handle, None
        if handle is not None:
            self._free(handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if not sys.is_finalizing():  # by then ctypes may be gone, and the memory goes with the process
            self.close()


class LlamaModel(Owned):
    """Weights and vocabulary of one GGUF file (the first shard stands for all)."""

    def __init__(
        self,
        path: Path,  # the file
        *,
        # layers to put on GPUs, the output matrix counted as one; -1 is all. Ignored by builds without a GPU backend
        gpu_layers: int = -1,
        tensor_split: Sequence[float] = (),  # in which proportion the GPUs share them; empty leaves it to llama.cpp
        # the GPUs to use, as positions in llama.cpp's list (devices.py); None is all. If it lists fewer, all are used,
        # and llama.cpp shares the layers out
        devices: Sequence[int] | None = None,
        no_alloc: bool = False,  # read everything but the weights, and let contexts log what they would allocate
        # is called with the part of the weights (0 to 1) that has been read
        progress: Callable[[float], None] | None = None,
    ) -> None:
        """Load a model."""
        LOG.install()
        llama_cpp.llama_backend_init()
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = gpu_layers
        self._devices = None if devices is None else device_array(devices)
        if self._devices is not None:
            params.devices = ctypes.cast(self._devices, ctypes.c_void_p)
        if tensor_split and (devices is None or self._devices is not None):
            shares = [*tensor_split, *[0.0] * llama_cpp.llama_max_devices()]  # llama.cpp reads one for each device
            self._split = (ctypes.c_float * len(shares))(*shares)  # the model keeps a bare pointer to it
            params.tensor_split = self._split
        if no_alloc:
            params.no_alloc, params.load_mode = True, llama_cpp.LLAMA_LOAD_MODE_NONE
        if progress:

            def report(part: float, _: object) -> bool:
                progress(part)
                return True

            self._progress = llama_cpp.llama_progress_callback(report)  # kept while llama.cpp has a bare pointer to it
            params.progress_callback = self._progress
        self._handle = llama_cpp.llama_model_load_from_file(os.fsencode(path), params)
        if self._handle is None:
            reason = LOG.take_errors()
            newer = f"it may need a newer llama.cpp: {UPGRADE}" if "unknown model architecture" in reason else ""
            raise IntegrityError(
                f"llama.cpp cannot load {path}: {reason}.",
                hint=newer or "check that it is a whole, recent GGUF of a text model; `-v` shows llama.cpp's log.",
            )
        self.trained_context = int(llama_cpp.llama_model_n_ctx_train(self._handle))  # tokens
        self.parameters = int(llama_cpp.llama_model_n_params(self._handle))
        self.weight_bytes = int(llama_cpp.llama_model_size(self._handle))
        self.vocabulary = Vocabulary(self)
        self._contexts: WeakSet[LlamaContext] = WeakSet()

    def _free(self, handle: Any) -> None:  # noqa: ANN401
        for context in list(self._contexts):
            context.close()
        llama_cpp.llama_model_free(handle)

    def metadata(self, key: str) -> str | None:
        """Return a metadata value as text; None where the file has no such key."""
        size = 256
        while True:
            buffer = ctypes.create_string_buffer(size)
            length: int = llama_cpp.llama_model_meta_val_str(self.handle, key.encode(), buffer, size)
            if length < size:
                return buffer.value.decode("utf-8", "replace") if length >= 0 else None
            size = length + 1

    def chat_template(self, name: str | None = None) -> str | None:
        """Return the source of a named chat template, or of the default one; None if there is none."""
        raw = llama_cpp.llama_model_chat_template(self.handle, None if name is None else name.encode())
        return None if raw is None else raw.decode("utf-8", "replace")


class Batch:
    """Tokens of any sequences to decode together, at most `capacity`, in arrays that llama.cpp reads in place."""

    def __init__(self, capacity: int) -> None:
        import numpy as np  # noqa: PLC0415 - 0.1 s, and a dry run decodes nothing

        self.capacity = capacity
        self.count = 0
        self.outputs = 0  # tokens with logits
        self._tokens, self._positions, self._sequences = np.zeros((3, capacity), np.int32)
        self._logits = np.zeros(capacity, np.int8)
        self._one = np.ones(capacity, np.int32)  # every token belongs to one sequence
        self._pointers = self._sequences.ctypes.data + np.arange(capacity, dtype=np.uintp) * self._sequences.itemsize
        self.raw = llama_cpp.llama_batch()
        self.raw.token = _as(self._tokens, llama_cpp.llama_token)
        self.raw.pos = _as(self._positions, llama_cpp.llama_pos)
        self.raw.n_seq_id = _as(self._one, ctypes.c_int32)
        self.raw.seq_id = _as(self._pointers, ctypes.POINTER(llama_cpp.llama_seq_id))
        self.raw.logits = _as(self._logits, ctypes.c_int8)

    def clear(self) -> None:
        """Remove all tokens."""
        self.count = self.outputs = self.raw.n_tokens = 0

    def add(self, tokens: Sequence[int], position: int, sequence: int, outputs: int = 0) -> int:
        """Append consecutive tokens of one sequence, the last `outputs` with logits; return the row of the first."""
        start, end = self.count, self.count + len(tokens)
        if end > self.capacity:
            raise EngineError(
                f"a batch of {self.capacity} tokens is full.", hint="this is a bug in hermes; please report it."
            )
        self._tokens[start:end] = tokens
        self._positions[start:end] = range(position, position + len(tokens))
        self._sequences[start:end] = sequence
        self._logits[start:end] = 0
        self._logits[end - outputs : end] = 1
        first, self.outputs = self.outputs, self.outputs + outputs
        self.count = self.raw.n_tokens = end
        return first


def _as(array: NDArray[Any], kind: Any) -> Any:  # noqa: ANN401 - ctypes' own types
    return array.ctypes.data_as(ctypes.POINTER(kind))


class LlamaContext(Owned):
    """A KV cache of `length` tokens and the buffers to decode with, `batch_tokens` at once."""

    _free = staticmethod(llama_cpp.llama_free)

    def __init__(self, model: LlamaModel, settings: ContextSettings, *, threads: int) -> None:
        """Allocate a context. llama.cpp leaves out flash attention where the backend has no code for it."""
        LOG.install()
        self.model = model
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_seq_max = settings.context, settings.slots
        self.batch_tokens = min(settings.micro_batch, settings.context)
        params.n_batch = params.n_ubatch = self.batch_tokens
        params.type_k, params.type_v = GGML_TYPES[settings.k_type], GGML_TYPES[settings.v_type]
        if not settings.flash_attention:
            params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        if settings.yarn_factor:
            params.rope_scaling_type = llama_cpp.LLAMA_ROPE_SCALING_TYPE_YARN
            params.rope_freq_scale = 1 / settings.yarn_factor
            params.yarn_orig_ctx = settings.yarn_original
        if settings.pooling:
            params.embeddings, params.pooling_type = True, POOLING_TYPES[settings.pooling]
        params.n_threads = params.n_threads_batch = threads
        params.kv_unified, params.no_perf = settings.unified, True
        self._handle = llama_cpp.llama_init_from_model(model.handle, params)
        if self._handle is None:
            raise EngineError(
                f"llama.cpp cannot make a context of {settings.context:,} tokens: {LOG.take_errors()}.",
                hint="ask for a smaller one with --context; `-v` shows llama.cpp's log.",
            )
        model._contexts.add(self)  # noqa: SLF001 - a model frees its contexts first
        self.length = int(llama_cpp.llama_n_ctx(self._handle))
        self.embedding_length = int(llama_cpp.llama_model_n_embd_out(model.handle))
        self._memory = llama_cpp.llama_get_memory(self._handle)
        self._outputs = 0

    def decode(self, batch: Batch) -> None:
        """Decode a batch and wait until that is done; `logits` has its outputs then.

        Raises:
            ContextFullError: no room left in the KV cache; nothing has changed.
            EngineError: llama.cpp refused or failed; the message says which.
        """
        code: int = llama_cpp.llama_decode(self.handle, batch.raw)
        if code == 0:
            llama_cpp.llama_synchronize(self.handle)
            self._outputs = batch.outputs
            return
        if code == DECODE_NO_SLOT:
            raise ContextFullError(
                f"the KV cache of {self.length:,} tokens has no room for {batch.count:,} more.",
                hint="ask for a larger one with --context, or shorten the conversation.",
            )
        what = {DECODE_ABORTED: "was stopped", DECODE_INVALID: "got a batch that makes no sense"}.get(code, "failed")
        raise EngineError(
            f"llama.cpp's decode {what} (code {code}): {LOG.take_errors()}.", hint="run again with -v for its log."
        )

    def logits(self) -> NDArray[np.float32]:
        """Return the outputs of the last decode: a row for each, a column for each token of the vocabulary.

        It is llama.cpp's own memory: writing to it changes what samplers see, and the next decode overwrites it.
        """
        import numpy as np  # noqa: PLC0415 - 0.1 s, only for who looks at logits

        pointer = llama_cpp.llama_get_logits(self.handle) if self._outputs else None
        if not pointer:
            raise EngineError("there are no logits.", hint="this is a bug in hermes; please report it.")
        return np.ctypeslib.as_array(pointer, shape=(self._outputs, self.model.vocabulary.size))

    def embedding(self, sequence: int) -> NDArray[np.float32]:
        """Return the embedding of a sequence that the last decode had tokens of; the next decode overwrites it."""
        import numpy as np  # noqa: PLC0415 - as above

        pointer = llama_cpp.llama_get_embeddings_seq(self.handle, sequence)
        if not pointer:
            raise EngineError("there is no embedding.", hint="this is a bug in hermes; please report it.")
        return np.ctypeslib.as_array(pointer, shape=(self.embedding_length,))

    def forget(self, sequence: int, start: int = 0) -> bool:
        """Remove a sequence from position `start` on; return False where it can only be removed whole."""
        return bool(llama_cpp.llama_memory_seq_rm(self._memory, sequence, start, -1))

    def share(self, source: int, target: int, end: int) -> None:
        """Add the first `end` positions of a sequence to another one, without a copy."""
        llama_cpp.llama_memory_seq_cp(self._memory, source, target, 0, end)

    def covers(self, sequence: int, end: int) -> bool:
        """Return whether the KV cache has all that a token at position `end` attends to.

        Of layers with a sliding window llama.cpp reuses cells that no token of their sequence can see any more.
        """
        start: int = llama_cpp.llama_memory_seq_pos_min(self._memory, sequence)
        return start == 0 or 0 < start <= end - llama_cpp.llama_model_n_swa(self.model.handle) + 1

    def use_threads(self, decode: int, prefill: int) -> None:
        """Set the CPU threads for decodes of one token, and of more."""
        llama_cpp.llama_set_n_threads(self.handle, decode, prefill)

    def apply_adapters(self, adapters: Sequence[tuple[LoraAdapter, float]]) -> None:
        """Apply LoRA adapters, each with its scale, to all later decodes."""
        self._adapters = adapters  # they have to stay as long
        count = len(adapters)
        handles = (llama_cpp.llama_adapter_lora_p_ctypes * count)(*(adapter.handle for adapter, _ in adapters))
        scales = (ctypes.c_float * count)(*(scale for _, scale in adapters))
        if llama_cpp.llama_set_adapters_lora(self.handle, handles, count, scales):
            raise EngineError(
                f"llama.cpp cannot apply the LoRA adapters: {LOG.take_errors()}.",
                hint="leave --lora out, or use adapters that were made for this model.",
            )

    def save(self, path: Path, sequence: int, tokens: Sequence[int]) -> int:
        """Write a sequence's cache and its tokens to a file; return the bytes written, 0 if it failed."""
        array = (llama_cpp.llama_token * len(tokens))(*tokens)
        raw = os.fsencode(path)
        return int(llama_cpp.llama_state_seq_save_file(self.handle, raw, sequence, array, len(tokens)))

    def restore(self, path: Path, sequence: int) -> list[int]:
        """Read a sequence's cache from a file; return its tokens, none if the file does not fit."""
        array = (llama_cpp.llama_token * self.length)()
        count = ctypes.c_size_t()
        read = llama_cpp.llama_state_seq_load_file(
            self.handle, os.fsencode(path), sequence, array, self.length, ctypes.byref(count)
        )
        LOG.take_errors()
        return list(array[: count.value]) if read else []


class LoraAdapter(Owned):
    """A LoRA adapter for one model, which must stay open as long."""

    def __init__(self, model: LlamaModel, path: Path) -> None:
        """Load it."""
        LOG.take_errors()
        # Unlike others it comes as a typed pointer: one that is false, not None, where there is nothing.
        self._handle = llama_cpp.llama_adapter_lora_init(model.handle, os.fsencode(path)) or None
        if self._handle is None:
            raise IntegrityError(
                f"llama.cpp cannot load the LoRA adapter {path}: {LOG.take_errors()}.",
                hint="give a GGUF adapter that was made for this model; `-v` shows llama.cpp's log.",
            )
        self._model = model

    def _free(self, handle: Any) -> None:  # noqa: ANN401
        if self._model._handle is not None:  # noqa: SLF001 - a model frees its adapters itself
            llama_cpp.llama_adapter_lora_free(handle)
