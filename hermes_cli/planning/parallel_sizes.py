"""The parallel sizes with which a number of GPUs can run a model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from hermes_cli.errors import UsageError
from hermes_cli.units import counted

if TYPE_CHECKING:
    from hermes_cli.catalog.models import Architecture
    from hermes_cli.planning.launch_plan import LaunchOptions

MOST_NODES = 64


class ParallelSizes(NamedTuple):
    """A use of GPUs: `tensor` x `pipeline` of them make a replica, of which there are `data`."""

    tensor: int
    pipeline: int
    data: int


def splits(architecture: Architecture, tensor: int) -> bool:
    """Return whether layers can be split over so many GPUs.

    Each gets a whole number of attention heads and columns of the feed-forward network; KV heads are split evenly, or
    each is copied to the same number of GPUs (vllm/model_executor/models/llama.py and qwen3.py assert it).
    """
    heads, kv_heads = architecture.heads, architecture.kv_heads
    even = kv_heads % tensor == 0 or tensor % kv_heads == 0
    return heads % tensor == 0 and even and architecture.feed_forward_length % tensor == 0


def parallel_sizes(architecture: Architecture, gpus: int, options: LaunchOptions) -> Iterator[ParallelSizes]:
    """Yield all ways to use the GPUs: replicas within a node, and one replica over all nodes."""
    nodes = options.nodes
    for tensor in range(1, gpus + 1):
        if not splits(architecture, tensor) or options.tensor not in {None, tensor}:
            continue
        pipeline = options.pipeline or 1
        local = gpus // (tensor * pipeline)
        if local and (nodes == 1 or options.engine == "vllm"):
            data = options.data or local * nodes
            if data <= local * nodes and data % nodes == 0:
                yield ParallelSizes(tensor, pipeline, data)
        stages = options.pipeline or gpus // tensor * nodes
        whole = nodes > 1 and tensor * stages <= gpus * nodes and stages % nodes == 0 and stages <= architecture.layers
        if whole and options.data in {None, 1}:
            yield ParallelSizes(tensor, stages, 1)
    if nodes > 1 and options.tensor and options.tensor > gpus and splits(architecture, options.tensor):
        yield ParallelSizes(options.tensor, options.pipeline or 1, 1)


def check_sizes(architecture: Architecture, name: str, gpus: int, options: LaunchOptions) -> None:
    """Raise UsageError for sizes that cannot be."""
    nodes, tensor = options.nodes, options.tensor
    if not 1 <= nodes <= MOST_NODES:
        raise UsageError(f"--nodes {nodes} cannot be planned.", hint=f"1 to {MOST_NODES}.")
    if tensor and not splits(architecture, tensor):
        *others, largest = [str(size) for size in range(1, gpus * nodes + 1) if splits(architecture, size)]
        either = f"{', '.join(others)} or {largest}" if others else largest
        raise UsageError(
            f"--tensor-parallel {tensor}: {name} has {architecture.heads} attention heads and {architecture.kv_heads} "
            f"KV heads, which cannot be split evenly over {counted(tensor, 'GPU')}.",
            hint=f"use --tensor-parallel {either}.",
        )
    if options.pipeline and options.pipeline > architecture.layers:
        raise UsageError(
            f"--pipeline-parallel {options.pipeline}: {name} has {architecture.layers} layers.",
            hint="use fewer stages.",
        )
    if options.data and nodes > 1 and options.data % nodes and options.data > 1:
        raise UsageError(
            f"--data-parallel {options.data} cannot be spread evenly over {nodes} nodes.",
            hint=f"use a multiple of {nodes}.",
        )
    if options.data and options.data > 1 and nodes > 1 and options.engine == "sglang":
        raise UsageError(
            "--data-parallel: SGLang has no replicas on several nodes.",
            hint="start one server on each node, or plan for --engine vllm.",
        )
    wanted = (tensor or 1) * (options.pipeline or 1) * (options.data or 1)
    if wanted > gpus * nodes:
        raise UsageError(
            f"{wanted} GPUs are needed for these sizes, and there are {gpus * nodes}.",
            hint="tensor x pipeline x data parallel is the number of GPUs.",
        )
