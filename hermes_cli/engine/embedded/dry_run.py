"""A process that says what llama.cpp would allocate for a plan and where, without allocating it (`no_alloc`).

llama.cpp ends the whole process over some files; here that costs nothing. `fit_check.py` starts it and talks to it in
lines of JSON: first the file, then one plan after the other, each of which is answered before the next one comes. It
imports as little as it can, because somebody waits for it.

Sizes are read out of llama.cpp's log. With `no_alloc` it logs compute and output buffers with the sizes that they would
have. Buffers of weights and of the KV cache it logs as empty, but also which layer goes to which device and how large
each cache is; together with the file's tensor table that tells their sizes. Lines come from llama.cpp's
src/llama.cpp (devices), llama-model.cpp (layers), llama-kv-cache.cpp and llama-memory-recurrent.cpp (caches),
llama-context.cpp (compute and output).
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hermes_cli.engine.embedded.bindings import LOG
from hermes_cli.engine.embedded.llama import LlamaContext, LlamaModel
from hermes_cli.errors import EngineError, IntegrityError
from hermes_cli.planning.memory import ContextSettings, MemoryBreakdown, Weights
from hermes_cli.units import MIB

if TYPE_CHECKING:
    from typing import TextIO

    Json = dict[str, Any]
    from collections.abc import Sequence


class DryRunner:
    """Plans for one file; it is read again only when its layers are to lie elsewhere."""

    def __init__(self, path: Path, weights: Weights) -> None:
        self._path = path
        self._weights = weights
        self._model: LlamaModel | None = None
        self._layers: object = None
        self._log = ""

    def answer(self, plan: Json) -> Json:
        """What a plan needs in RAM and then on each device, in bytes; or why it cannot be.

        Raises:
            IntegrityError: llama.cpp refused the file.
        """
        model = self._placed(plan["gpu_layers"], plan["tensor_split"])
        LOG.kept = []
        try:
            LlamaContext(model, ContextSettings(**plan["settings"]), threads=plan["threads"]).close()
            parts = allocation(self._log, "".join(LOG.kept), self._weights)
        except EngineError as error:
            return {"refusal": error.message}
        return {"parts": [vars(part) for part in parts], "devices": [vars(one) for one in devices(self._log)]}

    def _placed(self, gpu_layers: int, tensor_split: list[float]) -> LlamaModel:
        if self._model is None or self._layers != (gpu_layers, tensor_split):
            if self._model:
                self._model.close()
            LOG.kept = []
            self._model = LlamaModel(self._path, gpu_layers=gpu_layers, tensor_split=tensor_split, rehearse=True)
            self._layers = (gpu_layers, tensor_split)
            self._log = "".join(LOG.kept)
        return self._model


def serve(requests: TextIO, answers: TextIO) -> None:
    """Answer until there are no more requests, or the file turns out to be none."""
    first = json.loads(requests.readline())
    table = first["weights"]
    rehearsal = DryRunner(Path(first["path"]), Weights(**{**table, "layers": tuple(table["layers"])}))
    LOG.verbose = first["verbose"]
    for line in requests:
        try:
            answer = rehearsal.answer(json.loads(line))
        except IntegrityError as error:
            answer = {"file": error.message, "hint": error.hint}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def main() -> None:
    """Be that process. Whatever else writes to standard output, such as a driver, is led to standard error."""
    with os.fdopen(os.dup(1), "w", encoding="ascii") as answers:
        os.dup2(2, 1)
        serve(sys.stdin, answers)
        answers.flush()
        os._exit(0)  # everything is said; drivers take their time to shut down


HOST = -1  # every buffer that is in RAM: CPU, CPU_REPACK, CUDA_Host ...

_DEVICE = re.compile(r"using device (\S+) \(.* - (\d+) MiB free$", re.MULTILINE)
_LAYER = re.compile(r"load_tensors: layer +(\d+) assigned to device (.+?), ")
_CACHED_LAYER = re.compile(r"layer +\d+: dev = (.+)$")
_CACHE = re.compile(r"size = +([\d.]+) MiB \( *\d+ cells")
_BUFFER = re.compile(r": +(\S+) +(compute|output) buffer size = +([\d.]+) MiB")


@dataclass(frozen=True)
class LoggedDevice:
    """A GPU as llama.cpp calls it ("CUDA0"), and the bytes that its driver says are free."""

    name: str
    free: int


def devices(log: str) -> tuple[LoggedDevice, ...]:
    """The GPUs that a model is loaded on, in llama.cpp's order."""
    return tuple(LoggedDevice(name, int(free) * MIB) for name, free in _DEVICE.findall(log))


def allocation(model_log: str, context_log: str, weights: Weights) -> tuple[MemoryBreakdown, ...]:
    """Bytes in RAM, then on each device; without what backends take for themselves.

    Args:
        model_log: all that was logged while the model was loaded.
        context_log: the same of the context.
        weights: bytes of the file's tensors.

    Raises:
        EngineError: the log says too little; this is another llama.cpp.
    """
    names = [device.name for device in devices(model_log)]
    held = _weights(model_log, names, weights)
    cached = _caches(context_log, names)
    buffers: dict[str, Counter[int]] = {"compute": Counter(), "output": Counter()}
    for name, purpose, size in _BUFFER.findall(context_log):
        buffers[purpose][_place(name, names)] += round(float(size) * MIB)
    compute, output = buffers["compute"], buffers["output"]
    if not all((held, cached, compute, output)):
        raise EngineError(
            "llama.cpp's log does not say what it would allocate.",
            hint="this llama-cpp-python is newer than hermes knows: pip install llama-cpp-python==0.3.36",
        )
    places = (HOST, *range(len(names)))
    return tuple(MemoryBreakdown(held[place], cached[place], compute[place], output[place]) for place in places)


def _place(name: str, names: Sequence[str]) -> int:
    """The device that a buffer or layer belongs to: CUDA1 and CUDA1_Split are CUDA1's, CUDA_Host is in RAM."""
    for index, device in enumerate(names):
        if name.startswith(device) and not name[len(device) :][:1].isdigit():
            return index
    return HOST


def _weights(log: str, names: Sequence[str], weights: Weights) -> Counter[int]:
    """Bytes of weights by place; empty where the log does not tell.

    Tensors that a backend has no code for stay in RAM in truth; that is in the log only as a number of tensors, and
    they are counted on the device.
    """
    layers = [(int(layer), _place(name, names)) for layer, name in _LAYER.findall(log)]
    held: Counter[int] = Counter()
    if not layers:
        return held
    held[HOST] += weights.embedding
    *repeated, (_, last) = layers  # the output matrix counts as a layer behind all others
    for layer, place in repeated:
        held[place] += weights.layers[layer] if layer < len(weights.layers) else 0
    held[last] += weights.output if last == HOST else weights.head
    return held


def _caches(log: str, names: Sequence[str]) -> Counter[int]:
    """Bytes of KV caches by place: the size of each is logged after its layers, and they share it equally."""
    found: Counter[int] = Counter()
    layers: list[int] = []
    for line in log.splitlines():
        if layer := _CACHED_LAYER.search(line):
            layers.append(_place(layer[1], names))
        elif (cache := _CACHE.search(line)) and layers:
            for place in layers:
                found[place] += round(float(cache[1]) * MIB / len(layers))
            layers = []
    return found
