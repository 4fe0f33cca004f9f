"""Dry runs: the memory that llama.cpp would allocate for a plan, without allocating it (`no_alloc`).

Sizes are read out of llama.cpp's log. With `no_alloc` it logs compute and output buffers with the sizes that they would
have. Buffers of weights and of the KV cache it logs as empty, but also which layer goes to which device and how large
each cache is; together with the file's tensor table that tells their sizes. Lines come from llama.cpp's
src/llama.cpp (devices), llama-model.cpp (layers), llama-kv-cache.cpp and llama-memory-recurrent.cpp (caches),
llama-context.cpp (compute and output).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from hermes_cli.engine.embedded.bindings import LOG
from hermes_cli.engine.embedded.devices import listed_gpus
from hermes_cli.engine.embedded.llama import LlamaContext, LlamaModel
from hermes_cli.engine.embedded.messages import DryRunRequest, DryRunResult, LoggedDevice
from hermes_cli.errors import EngineError
from hermes_cli.planning.compute import F32
from hermes_cli.planning.memory import MemoryBreakdown, Weights
from hermes_cli.units import MIB

HOST = -1  # every buffer that is in RAM: CPU, CPU_REPACK, CUDA_Host ...

_DEVICE = re.compile(r"using device (\S+) \(.* - (\d+) MiB free$", re.MULTILINE)
_LAYER = re.compile(r"load_tensors: layer +(\d+) assigned to device (.+?), ")
_CACHED_LAYER = re.compile(r"layer +\d+: dev = (.+)$")
_CACHE = re.compile(r"size = +([\d.]+) MiB \( *\d+ cells")
_BUFFER = re.compile(r": +(\S+) +(compute|output) buffer size = +([\d.]+) MiB")


class DryRunner:
    """Dry runs of plans, one after the other. The file is read again only when its layers are to lie elsewhere."""

    def __init__(self) -> None:
        self._model: LlamaModel | None = None
        self._placement: object = None  # of the model: its file, and where its layers lie
        self._log = ""

    def run(self, request: DryRunRequest) -> DryRunResult:
        """Return the bytes that a plan needs, or the reason why llama.cpp refuses it."""
        plan, LOG.verbose = request.plan, request.verbose
        placement = (request.path, plan.gpu_layers, plan.tensor_split, plan.devices)
        if self._model is None or self._placement != placement:
            self.close()
            with LOG.capture() as lines:
                self._model = LlamaModel(
                    request.path,
                    gpu_layers=plan.gpu_layers,
                    tensor_split=plan.tensor_split,
                    devices=plan.devices,
                    no_alloc=True,
                )
            self._placement, self._log = placement, "".join(lines)
        try:
            with LOG.capture() as lines:
                context = LlamaContext(self._model, plan.settings, threads=plan.threads)
                embedded = context.embedding_length if plan.settings.pooling else 0
                context.close()
            result = read_logs(self._log, "".join(lines), request.weights, encodes=bool(embedded))
            if embedded:
                # The buffer is logged for one token of each text, and grows to logits and embeddings of a whole batch.
                size = (self._model.vocabulary.size + embedded) * plan.settings.batch_tokens * F32
                ram, *others = result.parts
                result = replace(result, parts=(replace(ram, output=size), *others))
            return replace(result, listed=len(listed_gpus()))
        except EngineError as error:
            return DryRunResult(refusal=error.message)

    def close(self) -> None:
        """Free the model."""
        if self._model:
            self._model.close()
        self._model = self._placement = None


def read_logs(model_log: str, context_log: str, weights: Weights, *, encodes: bool = False) -> DryRunResult:
    """Return the bytes in RAM and on each device, without what backends take for themselves.

    The logs are llama.cpp's while the model was loaded, and while the context was made. An encoder has no KV cache.
    """
    devices = tuple(LoggedDevice(name, int(free) * MIB) for name, free in _DEVICE.findall(model_log))

    def place(name: str) -> int:
        """Return where a buffer or layer is: CUDA1 and CUDA1_Split are CUDA1's, CUDA_Host is in RAM."""
        owners = (index for index, device in enumerate(devices) if re.match(rf"{re.escape(device.name)}(?!\d)", name))
        return next(owners, HOST)

    loaded = _weights([(int(layer), place(name)) for layer, name in _LAYER.findall(model_log)], weights)
    cached: Counter[int] = Counter()
    sharing: list[int] = []  # the places of layers that share the next cache equally; its size is logged after them
    for line in context_log.splitlines():
        if layer := _CACHED_LAYER.search(line):
            sharing.append(place(layer[1]))
        elif (cache := _CACHE.search(line)) and sharing:
            for where in sharing:
                cached[where] += round(float(cache[1]) * MIB / len(sharing))
            sharing = []
    buffers: dict[str, Counter[int]] = {"compute": Counter(), "output": Counter()}
    for name, purpose, size in _BUFFER.findall(context_log):
        buffers[purpose][place(name)] += round(float(size) * MIB)
    parts = (loaded, cached, buffers["compute"], buffers["output"])
    if not all(part or (encodes and part is cached) for part in parts):
        raise EngineError(
            "llama.cpp's log does not say what it would allocate.",
            hint="this llama-cpp-python is newer than hermes knows: pip install llama-cpp-python==0.3.36",
        )
    places = (HOST, *range(len(devices)))
    return DryRunResult(tuple(MemoryBreakdown(*(part[where] for part in parts)) for where in places), devices)


def _weights(layers: Sequence[tuple[int, int]], weights: Weights) -> Counter[int]:
    """Return the bytes of weights by place, from the number and the place of each layer; empty if there are none.

    Tensors that a backend has no code for stay in RAM in truth; that is in the log only as a number of tensors, and
    they are counted on the device.
    """
    loaded: Counter[int] = Counter()
    if not layers:
        return loaded
    loaded[HOST] += weights.embedding
    *repeated, (_, last) = layers  # the output matrix counts as a layer behind all others
    for layer, place in repeated:
        loaded[place] += weights.layers[layer] if layer < len(weights.layers) else 0
    loaded[last] += weights.output if last == HOST else weights.head
    return loaded
