"""The parameters that a model is loaded with, and those that a user insists on; planner.py makes plans of them."""

from __future__ import annotations

from dataclasses import dataclass

from hermes_cli.catalog.models import Yarn
from hermes_cli.gguf.types import KvType
from hermes_cli.planning.memory import ContextSettings, Pooling


@dataclass(frozen=True)
class LoadPlan:
    """The parameters with which llama.cpp loads a model.

    Attributes:
        settings: context, slots, micro-batch, types of the KV cache, flash attention.
        gpu_layers: layers on GPUs, the output matrix counted as one.
        tensor_split: of several GPUs, in which proportion they share those; else empty.
        threads: of the CPU.
        devices: the GPUs to use, as positions in llama.cpp's list, which are those of the machine's usable devices with
            the ones that the user leaves out; None leaves it to llama.cpp.
    """

    settings: ContextSettings
    gpu_layers: int = 0
    tensor_split: tuple[float, ...] = ()
    threads: int = 1
    devices: tuple[int, ...] | None = None


@dataclass(frozen=True)
class LoadOverrides:
    """The parameters that a user insists on; None leaves one free.

    Attributes:
        context: tokens.
        gpu_layers: as in `LoadPlan`, or -1 for all.
        kv_type: of keys and values.
        threads: of the CPU; the physical cores if free.
        slots: requests at once.
        yarn: how the context may be stretched beyond what the model was trained for.
        force: load the plan that is wanted most even if it does not fit.
        longest: look for the longest context up to all that the model can handle, not only what a chat takes.
        least: tokens of context that it must have, where `context` is free.
        tensor_split: of several GPUs, in which proportion they share the layers; empty is free.
        micro_batch: tokens in one pass; None is as many as usual.
        devices: the GPUs that may be used, by number or name (hardware/selection.py); empty is all.
        reserve: bytes to leave free on each GPU; None leaves it to planning/placement.py.
        pooling: make embeddings, each of all tokens of a text in this way.
    """

    context: int | None = None
    gpu_layers: int | None = None
    kv_type: KvType | None = None
    threads: int | None = None
    slots: int = 1
    yarn: Yarn | None = None
    force: bool = False
    longest: bool = False
    least: int = 0
    tensor_split: tuple[float, ...] = ()
    micro_batch: int | None = None
    devices: tuple[str, ...] = ()
    reserve: int | None = None
    pooling: Pooling | None = None
