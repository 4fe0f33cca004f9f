"""The memory that vLLM takes of each GPU, part by part.

    room for the KV cache = memory x utilization - weights - activations - logits - graphs - context - communication

It follows vLLM 0.32: gpu_worker.py profiles a pass of the largest batch before it allocates the KV cache, and what is
left of `--gpu-memory-utilization` becomes the cache. Weights, KV cache, activations and logits follow from sizes;
graphs, context and communication are what vLLM's logs usually show. Only the KV cache per
token was measured by us (on a CPU, right to the block): no GPU was at hand.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from hermes_cli.catalog.engine_weights import EngineWeights, matrix_elements
from hermes_cli.planning.launch_plan import EngineKvType, GpuMemory
from hermes_cli.units import GIB

if TYPE_CHECKING:
    from hermes_cli.catalog.models import Architecture

UTILIZATION = 0.92  # vLLM's default of --gpu-memory-utilization
REPORTED = 0.99  # of the memory in a GPU's name, what the driver gives a program (H100: 79.1 of 80 GiB)
BATCHES = ((160 * GIB, 16_384), (70 * GIB, 8192), (0, 2048))  # --max-num-batched-tokens by memory of the GPU
GRAPHS = 1 * GIB  # CUDA graphs; vLLM's log shows 1 to 3 GiB (assumed)
CONTEXT = round(1.2 * GIB)  # CUDA context and libraries (assumed)
COMMUNICATION = GIB // 2  # NCCL's buffers, where GPUs work together (assumed)
LOGITS_COPIES = 3  # float32 logits of all sequences in the profiled pass: as computed, scaled, and sorted
KV_BYTES: dict[EngineKvType, int] = {"auto": 2, "fp8": 1}


def kv_bytes_per_token(architecture: Architecture, tensor: int, pipeline: int, kv_type: EngineKvType) -> int:
    """Return the bytes of KV cache that one token takes on each GPU.

    Keys and values of the layers of the largest stage; KV heads are split over the GPUs of a stage, and where there are
    more GPUs than heads, each has one, so that tensor parallel 16 takes twice what 8 x pipeline parallel 2 takes.
    """
    layers = math.ceil(architecture.layers / pipeline)
    heads = max(architecture.kv_heads // tensor, 1)
    return 2 * layers * heads * architecture.head_length * KV_BYTES[kv_type]


def batch_tokens(name: str, gpu_memory: int) -> int:
    """Return vLLM's default of `--max-num-batched-tokens` (engine/arg_utils.py); an A100 has that of small GPUs."""
    memory = 0 if "a100" in name.lower() else gpu_memory
    return next(tokens for least, tokens in BATCHES if memory >= least)


def weight_bytes(weights: EngineWeights, tensor: int, pipeline: int) -> int:
    """Return the bytes of weights on the fullest GPU.

    Matrices, embedding and output are split over the GPUs of a stage; the first stage has the embedding, the last one
    the output.
    """
    architecture, all_bytes = weights.model.architecture, weights.bytes
    in_layers = round(matrix_elements(architecture) * weights.bits / 8)
    outside = all_bytes - in_layers
    layers = math.ceil(architecture.layers / pipeline)
    return (in_layers * layers // architecture.layers + outside // min(pipeline, 2)) // tensor


def gpu_memory(
    weights: EngineWeights,
    *,
    room: int,
    batch: int,
    tensor: int,
    pipeline: int,
    sequences: int,
) -> GpuMemory:
    """Return the parts on one GPU; the KV cache is what is left of `room`, and may come out negative.

    Activations are those of one layer at a time: gate and up of the feed-forward network, split over the GPUs of a
    stage, and four vectors of the embedding length.
    """
    architecture = weights.model.architecture
    inner = max(architecture.experts_used, 1) * architecture.feed_forward_length
    parts = GpuMemory(
        weights=weight_bytes(weights, tensor, pipeline),
        activations=batch * (2 * inner // tensor + 4 * architecture.embedding_length) * 2,
        logits=LOGITS_COPIES * sequences * architecture.vocabulary * 4,
        graphs=GRAPHS,
        context=CONTEXT,
        communication=COMMUNICATION if tensor * pipeline > 1 else 0,
    )
    return replace(parts, kv_cache=room - parts.total)
