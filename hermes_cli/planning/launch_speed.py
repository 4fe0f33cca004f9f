"""Decode speed of a launch plan, for one request and for several at once: derived, not measured.

One step of a replica writes one token for each request. Each GPU reads its share of the weights once for all of them,
and the KV cache of each; with many requests, arithmetic takes longer than reading. Tensor parallelism adds two
all-reduces for each layer. Waiting, prefill between steps and scheduling are not counted.

The figures were set so that 405B in FP8 on 8 x H200 writes 37 tokens/s for one request, as NVIDIA has published for
TensorRT-LLM with Llama's own FP8 recipe (its developer blog, August 2024). vLLM on GPUs was not measured by us.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from hermes_cli.planning.engine_gpus import computes_fp8
from hermes_cli.planning.launch_memory import kv_bytes_per_token
from hermes_cli.planning.launch_planner import Launch
from hermes_cli.planning.speed import Speed, active_elements
from hermes_cli.planning.speed_figures import ASSUMED_GPU_BANDWIDTH

BANDWIDTH_SHARE = 0.75  # of the data sheet
LAYER_SECONDS = 0.03e-3  # CUDA graphs start kernels
ALL_REDUCE_SECONDS = 35e-6  # with NVLink; two for each layer
NETWORK_REDUCE_SECONDS = 150e-6  # where a stage goes over several nodes (assumed)
NODE_SECONDS = 0.1e-3  # from stage to stage over the network
OPERATIONS_SHARE = 0.5
OPERATIONS_PER_BYTE = 150  # FP16 operations for each byte/s of bandwidth, where the data sheet says none
SPREAD = (0.6, 1.4)


@dataclass(frozen=True)
class BatchSpeed:
    """Tokens per second with so many requests at once: of each, and of all together."""

    requests: int
    each: Speed
    all: Speed


def batch_speed(launch: Launch, requests: int, filled: int) -> BatchSpeed:
    """Return the speed with so many requests at once, each with so many tokens in the KV cache.

    More than the plan has room for wait for their turn: those at work share the speed.
    """
    plan = launch.plan
    room = max(plan.kv_tokens // max(filled, 1), 1)
    most = plan.data * min(plan.sequences or requests, room)
    at_work = min(requests, most)
    busiest = math.ceil(at_work / plan.data)
    seconds = step_seconds(launch, busiest, filled)
    return BatchSpeed(requests, _speed(at_work / requests / seconds), _speed(at_work / seconds))


def first_token_of(launch: Launch, tokens: int) -> float:
    """Return the seconds to the first token of a prompt of so many tokens, if nothing else is going on."""
    weights, plan = launch.weights, launch.plan
    architecture = weights.model.architecture
    work = 2 * tokens * architecture.layers * active_elements(architecture) / plan.tensor
    return work / _operations(launch) + step_seconds(launch, 1, tokens)


def _operations(launch: Launch) -> float:
    """Return the operations per second that one GPU reaches."""
    gpu = min(launch.gpus, key=lambda gpu: gpu.operations or 0)
    operations = gpu.operations or OPERATIONS_PER_BYTE * (gpu.bandwidth or ASSUMED_GPU_BANDWIDTH)
    in_8_bits = launch.weights.format == "fp8" and all(map(computes_fp8, launch.gpus))
    return operations * OPERATIONS_SHARE * (2 if in_8_bits else 1)


def step_seconds(launch: Launch, batch: int, filled: int) -> float:
    """Return the seconds of one step with so many requests in a replica, through all its stages."""
    plan, weights = launch.plan, launch.weights
    architecture = weights.model.architecture
    bandwidth = min(gpu.bandwidth or ASSUMED_GPU_BANDWIDTH for gpu in launch.gpus) * BANDWIDTH_SHARE
    layers = architecture.layers / plan.pipeline
    in_stage = math.ceil(batch / plan.pipeline)  # stages work on different requests at the same time
    active = active_elements(architecture)
    head = architecture.vocabulary * architecture.embedding_length * 2 / plan.pipeline
    read = (layers * active * weights.bits / 8 + head) / plan.tensor
    read += in_stage * filled * kv_bytes_per_token(architecture, plan.tensor, plan.pipeline, plan.kv_type)
    computing = 2 * in_stage * layers * active / plan.tensor / _operations(launch)
    reduce = NETWORK_REDUCE_SECONDS if plan.tensor > len(launch.gpus) else ALL_REDUCE_SECONDS
    fixed = layers * (LAYER_SECONDS + (2 * reduce if plan.tensor > 1 else 0))
    between = NODE_SECONDS if plan.pipeline > 1 else 0
    return plan.pipeline * (max(read / bandwidth, computing) + fixed + between)


def _speed(expected: float) -> Speed:
    low, high = SPREAD
    return Speed(expected, expected * low, expected * high, "computed")
