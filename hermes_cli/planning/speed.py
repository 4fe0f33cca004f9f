"""Prefill and decode speed of a model, always as a range (docs/speed.md).

Decoding one token reads every weight once (of a mixture of experts, the active ones) and the KV cache as far as it is
filled. How much of the bandwidth is reached depends on the type of the weights. The shares below come from one table,
llama.cpp's tools/quantize/README.md: the same Llama 3.1 8B on the same machine in 22 quantizations, as (bytes x
tokens/s) of each over that of F16. What F16 itself reaches is assumed.

Prefill takes two operations for each weight of the layers and each token, hundreds of tokens at once: there
arithmetic counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from hermes_cli.planning.memory import kv_bytes_per_layer
from hermes_cli.planning.tensor_types import LARGE

if TYPE_CHECKING:
    from hermes_cli.catalog.models import Architecture
    from hermes_cli.hardware.machine import Device, Machine
    from hermes_cli.planning.memory import ContextSettings, Weights
    from hermes_cli.planning.placement import Placement
    from hermes_cli.planning.quality import Purpose

# Share of the bandwidth that F16 reaches.
REACHED: dict[str, float] = {"cuda": 0.85, "rocm": 0.70, "metal": 0.75, "vulkan": 0.65, "sycl": 0.55, "cpu": 0.80}
ASSUMED_RAM_BANDWIDTH = 40e9  # bytes/s; two channels of DDR4-3200 give 51 in theory
ASSUMED_GPU_BANDWIDTH = 300e9  # bytes/s; of a card that nothing is known of
SPREAD = (0.75, 1.15)  # low and high end of the range, as a factor

# Share of a data sheet's FP16 operations that prefill reaches. llama.cpp's own tables: RTX 3090 0.79 (8B Q6_K, pull
# request 7860), RTX 4090 0.74 (8B Q2_K, 7921), RTX 2080 Ti 0.68 (13B Q4_K_M).
OPERATIONS_REACHED = 0.7
OPERATIONS_PER_BYTE = 50.0  # of GPUs without such a figure, for each byte/s; the P40 reaches 35, the RTX 3090 60
# Operations per second of one core. Measured with Q4_K_M, Q4_0 and IQ4_XS on two cores of a Xeon with AVX512_VNNI
# (benchmarks/speed_model.py); the others are assumed.
CORE_OPERATIONS = {"AVX512_VNNI": 50e9, "AVX_VNNI": 40e9, "AVX2": 30e9, "NEON": 40e9}
SLOWEST_CORE = 10e9
PREFILL_SPREAD = (0.5, 1.5)

OF_F16 = {
    "F32": 1.00,
    "F16": 1.00,
    "BF16": 1.00,
    "Q8_0": 0.92,
    "Q6_K": 0.82,
    "Q5_K_M": 0.81,
    "Q5_K_S": 0.82,
    "Q5_1": 0.82,
    "Q5_0": 0.82,
    "Q4_K_M": 0.75,
    "Q4_K_S": 0.76,
    "Q4_1": 0.77,
    "Q4_0": 0.77,
    "IQ4_NL": 0.77,
    "IQ4_XS": 0.73,
    "Q3_K_L": 0.64,
    "Q3_K_M": 0.62,
    "Q3_K_S": 0.56,
    "IQ3_M": 0.56,
    "IQ3_S": 0.54,
    "IQ3_XS": 0.54,
    "IQ3_XXS": 0.51,
    "Q2_K": 0.54,
    "Q2_K_S": 0.57,
    "IQ2_M": 0.47,
    "IQ2_S": 0.45,
    "IQ2_XS": 0.43,
    "IQ2_XXS": 0.41,
    "IQ1_M": 0.34,
    "IQ1_S": 0.34,
}


@dataclass(frozen=True)
class Speed:
    """Tokens per second: expected, low and high; `source` says whether what it is computed from is known."""

    expected: float
    low: float
    high: float
    source: Literal["computed", "assumed"]


@dataclass(frozen=True)
class PromptTokens:
    """Tokens of the first prompt, and of each further turn, whose beginning is in the KV cache by then."""

    first: int
    turn: int


# Agents send system prompt and tools first, tool results then; summaries are asked of a document once.
PROMPTS: dict[Purpose, PromptTokens] = {
    "chat": PromptTokens(1024, 256),
    "agent": PromptTokens(16_384, 2048),
    "reasoning": PromptTokens(1024, 256),
    "json": PromptTokens(2048, 1024),
    "long-context": PromptTokens(65_536, 512),
}


@dataclass(frozen=True)
class FirstToken:
    """Seconds from the prompt to the first token: of the first prompt as a range, and of a later turn."""

    prompt_tokens: int
    expected: float
    low: float
    high: float
    turn_tokens: int
    turn: float


def first_token_seconds(prompt: PromptTokens, prefill: Speed, architecture: Architecture, context: int) -> FirstToken:
    """Return the time to the first token of a prompt, as far as the context (tokens) goes.

    A turn comes when the first prompt is in the KV cache. Attention meets every earlier token: 4 operations for each
    element of a layer's queries, beside 2 for each weight.
    """
    tokens = min(prompt.first, context)
    per_earlier = 2 * architecture.heads * architecture.head_length / active_elements(architecture)

    def measure(first: int, last: int) -> float:  # prefill speed is that of 512 tokens, 256 of which are earlier ones
        return (last - first) * (1 + per_earlier * (first + last) / 2) / (1 + per_earlier * 256)

    work = measure(0, tokens)
    turn = measure(tokens, tokens + prompt.turn)
    return FirstToken(
        tokens, work / prefill.expected, work / prefill.high, work / prefill.low, prompt.turn, turn / prefill.expected
    )


def decode_speed(
    architecture: Architecture,
    quantization: str,
    table: Weights,
    settings: ContextSettings,
    placement: Placement,
    machine: Machine,
) -> Speed:
    """Return the decode speed of one sequence with half of the context filled."""
    of_f16 = OF_F16.get(LARGE.get(quantization, quantization), 0.6)
    seconds, known = 0.0, True
    for share in placement.shares:
        device = None if share.device is None else machine.usable_devices[share.device]
        read = sum(table.layers[share.first : share.last]) * _active_share(architecture)
        read += table.head if share.output else 0
        bandwidth, bandwidth_known = _bandwidth(device, machine)
        known = known and (bandwidth_known or not read)
        reached = REACHED[device.backend if device else "cpu"]
        kv = kv_bytes_per_layer(architecture, settings) * (share.last - share.first) / settings.slots / 2
        seconds += (read / (reached * of_f16) + kv / reached) / bandwidth
    expected, (low, high) = 1 / seconds, SPREAD
    return Speed(expected, expected * low, expected * high, "computed" if known else "assumed")


def prefill_speed(architecture: Architecture, placement: Placement, machine: Machine) -> Speed:
    """Return the prefill speed; attention over earlier tokens is left out."""
    elements = active_elements(architecture)
    seconds, known = 0.0, True
    for share in placement.shares:
        device = None if share.device is None else machine.usable_devices[share.device]
        operations, operations_known = _operations(device, machine)
        seconds += 2 * elements * (share.last - share.first) / operations
        known = known and (operations_known or share.first == share.last)
    low, high = PREFILL_SPREAD
    return Speed(1 / seconds, low / seconds, high / seconds, "computed" if known else "assumed")


def active_elements(architecture: Architecture) -> float:
    """Weights of one layer that a token meets."""
    attention = 2 * (architecture.heads + architecture.kv_heads) * architecture.head_length
    experts = architecture.experts_used if architecture.experts else 1
    return (attention + experts * 3 * architecture.feed_forward_length) * architecture.embedding_length


def _active_share(architecture: Architecture) -> float:
    """Share of a layer's weights that one token reads: all, or of a mixture the experts it is routed to."""
    if not architecture.experts:
        return 1.0
    idle = (architecture.experts - architecture.experts_used) * 3 * architecture.feed_forward_length
    active = active_elements(architecture)
    return active / (active + idle * architecture.embedding_length)


def _operations(device: Device | None, machine: Machine) -> tuple[float, bool]:
    """Operations per second that are reached, and whether that is more than an assumption."""
    if device is None:
        core = max((CORE_OPERATIONS.get(name, 0.0) for name in machine.simd), default=0.0)
        return machine.cores * max(core, SLOWEST_CORE), "AVX512_VNNI" in machine.simd
    if device.operations:
        return device.operations * OPERATIONS_REACHED, True
    return _bandwidth(device, machine)[0] * OPERATIONS_PER_BYTE, False


def _bandwidth(device: Device | None, machine: Machine) -> tuple[float, bool]:
    """Bytes per second, and whether that is more than an assumption."""
    if device is None:
        return machine.ram_bandwidth or ASSUMED_RAM_BANDWIDTH, machine.ram_bandwidth is not None
    return device.bandwidth or ASSUMED_GPU_BANDWIDTH, device.bandwidth_source != "assumed"
