"""The parameters that a model is loaded with, and those that a user insists on; planner.py makes plans of them."""

from __future__ import annotations

from dataclasses import dataclass

from hermes_cli.catalog.models import Yarn
from hermes_cli.gguf.types import KvType
from hermes_cli.planning.memory import ContextSettings, Pooling


@dataclass(frozen=True)
class LoadPlan:
    """The parameters with which llama.cpp loads a model."""

    settings: ContextSettings  # context, slots, micro-batch, types of the KV cache, flash attention
    gpu_layers: int = 0  # layers on GPUs, the output matrix counted as one
    tensor_split: tuple[float, ...] = ()  # of several GPUs, in which proportion they share those; else empty
    threads: int = 1  # of the CPU
    # the GPUs to use, as positions in llama.cpp's list, which are those of the machine's usable devices with the ones
    # that the user leaves out; None leaves it to llama.cpp
    devices: tuple[int, ...] | None = None


@dataclass(frozen=True)
class LoadOverrides:
    """The parameters that a user insists on; None leaves one free."""

    context: int | None = None  # tokens
    gpu_layers: int | None = None  # as in `LoadPlan`, or -1 for all
    kv_type: KvType | None = None  # of keys and values
    threads: int | None = None  # of the CPU; the physical cores if free
    slots: int = 1  # requests at once
    yarn: Yarn | None = None  # how the context may be stretched beyond what the model was trained for
    force: bool = False  # load the plan that is wanted most even if it does not fit
    # look for the longest context up to all that the model can handle, not only what a chat takes
    longest: bool = False
    least: int = 0  # tokens of context that it must have, where `context` is free
    tensor_split: tuple[float, ...] = ()  # of several GPUs, in which proportion they share the layers; empty is free
    micro_batch: int | None = None  # tokens in one pass; None is as many as usual
    devices: tuple[str, ...] = ()  # the GPUs that may be used, by number or name (hardware/selection.py); empty is all
    reserve: int | None = None  # bytes to leave free on each GPU; None leaves it to planning/placement.py
    pooling: Pooling | None = None  # make embeddings, each of all tokens of a text in this way
