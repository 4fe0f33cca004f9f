"""Prefill and decode speed of a model, always as a range (docs/speed.md).

Decoding one token reads every weight once (of a mixture of experts, the active ones) and the KV cache as far as it is
filled, and takes a fixed time for each layer. Prefill takes two operations for each weight and token, hundreds of
tokens at once, and attention to all earlier tokens. Layers in RAM beside a GPU are computed there, too, if the batch
has 32 tokens or more (llama.cpp's `op_offload`): their weights are copied for each micro-batch, but their attention
stays on the CPU, where their KV cache is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Self, TypeVar

from hermes_cli.catalog.models import Architecture
from hermes_cli.planning.memory import ContextSettings, Weights, kv_bytes_per_layer
from hermes_cli.planning.placement import Placement
from hermes_cli.planning.speed_figures import (
    COPY_BANDWIDTH,
    CORE_ATTENTION,
    CORE_ATTENTION_QUANTIZED,
    CPU_ATTENTION,
    DEVICE_SECONDS,
    FLOAT_KV_TYPES,
    GPU_ATTENTION,
    UNPACK_SHARE,
    bandwidth_of,
    figures_of,
    operations_of,
)
from hermes_cli.planning.tensor_types import LARGE

if TYPE_CHECKING:
    from hermes_cli.hardware.machine import Machine
    from hermes_cli.planning.quality import Purpose

SpeedKind = Literal["decode", "prefill"]
SPREAD = (0.75, 1.3)  # low and high end of the range, as a factor
PREFILL_SPREAD = (0.55, 1.6)
MEASURED_SPREAD = 0.1  # of a measured speed: other lengths of the context, other programs
MOST_CORRECTION = 2.0  # by measured speeds, a factor; what is further away says something about that one model or run
PREFILL_TOKENS = 512  # of the prompt that a prefill speed holds for, as in llama-bench's pp512
OFFLOADED = 32  # tokens of the smallest batch whose weights are copied to a GPU (ggml-cuda.cu, ggml-vulkan.cpp)


@dataclass(frozen=True)
class Speed:
    """Tokens per second: expected, low and high; `source` says whether it was measured here, computed, or assumed."""

    expected: float
    low: float
    high: float
    source: Literal["computed", "assumed", "measured"]

    def times(self, factor: float) -> Self:
        """Return a speed so many times as high."""
        return replace(self, expected=self.expected * factor, low=self.low * factor, high=self.high * factor)


@dataclass(frozen=True)
class PrefillSpeed(Speed):
    """The speed of the first 512 tokens; each earlier token makes one take `growth` seconds more."""

    growth: float

    def times(self, factor: float) -> Self:
        """Return a speed so many times as high."""
        return replace(super().times(factor), growth=self.growth / factor)


@dataclass(frozen=True)
class PromptTokens:
    """Tokens of the first prompt, and of each further turn, whose beginning is in the KV cache by then.

    `filled` are those in the cache while an answer is written, on average.
    """

    first: int
    turn: int
    filled: int


# Agents send system prompt and tools first, tool results then; summaries are asked of a document once; thoughts are
# long.
PROMPTS: dict[Purpose, PromptTokens] = {
    "chat": PromptTokens(1024, 256, 2048),
    "agent": PromptTokens(16_384, 2048, 24_576),
    "reasoning": PromptTokens(1024, 256, 8192),
    "json": PromptTokens(2048, 1024, 2048),
    "long-context": PromptTokens(65_536, 512, 66_048),
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


def first_token_seconds(prompt: PromptTokens, prefill: PrefillSpeed, context: int) -> FirstToken:
    """Return the time to the first token of a prompt, as far as the context (tokens) goes.

    A turn comes when the first prompt is in the KV cache.
    """
    tokens = min(prompt.first, context)

    def seconds(first: int, last: int) -> float:
        later = (first + last - PREFILL_TOKENS) / 2  # than the middle of the tokens that the speed is of
        return (last - first) * max(1 / prefill.expected + later * prefill.growth, 0)

    expected, (low, high) = seconds(0, tokens), (prefill.expected / prefill.high, prefill.expected / prefill.low)
    return FirstToken(
        tokens, expected, expected * low, expected * high, prompt.turn, seconds(tokens, tokens + prompt.turn)
    )


def decode_speed(
    architecture: Architecture,
    quantization: str,
    table: Weights,
    settings: ContextSettings,
    placement: Placement,
    machine: Machine,
    filled: int,
) -> Speed:
    """Return the decode speed of one sequence with so many tokens in the KV cache, of half of the context at most."""
    filled = min(filled, settings.context // settings.slots // 2)
    unpack = UNPACK_SHARE.get(LARGE.get(quantization, quantization), 1.0)
    seconds, known, used = 0.0, True, 0
    for share in placement.shares:
        device = None if share.device is None else machine.usable_devices[share.device]
        layers = share.last - share.first
        read = sum(table.layers[share.first : share.last]) * _active_share(architecture)
        read += table.head if share.output else 0
        if not read:
            continue
        figures, (bandwidth, bandwidth_known) = figures_of(device), bandwidth_of(device, machine)
        kv = kv_bytes_per_layer(architecture, settings) * layers * filled / settings.context
        reading = read / unpack**figures.unpacking / (bandwidth * figures.share)
        attending = kv / (bandwidth * figures.share)
        if device is None:  # cores are busy with unpacking and attention before the memory is
            reading = max(reading, 2 * active_elements(architecture) * layers / operations_of(None, machine)[0])
            operations = layers * attention_operations(architecture) * filled
            attending = max(attending, operations / (machine.cores * CORE_ATTENTION))
        seconds += reading + attending + layers * figures.layer_seconds
        known, used = known and bandwidth_known, used + 1
    seconds += max(used - 1, 0) * DEVICE_SECONDS
    expected, (low, high) = 1 / seconds, SPREAD
    return Speed(expected, expected * low, expected * high, "computed" if known else "assumed")


def prefill_speed(
    architecture: Architecture, table: Weights, settings: ContextSettings, placement: Placement, machine: Machine
) -> PrefillSpeed:
    """Return the prefill speed of a prompt of 512 tokens."""
    elements = active_elements(architecture)
    attention = attention_operations(architecture)
    on_cpu = _cpu_prefill_attention(settings, machine)
    batch = settings.batch_tokens
    # llama.cpp lets the first device of a plan help (load_plan.py)
    first = (placement.devices or prompt_helpers(machine))[:1] if batch >= OFFLOADED else ()
    helper = next((machine.usable_devices[index] for index in first if not machine.usable_devices[index].unified), None)
    seconds, growth, known = 0.0, 0.0, True
    for share in placement.shares:
        layers = share.last - share.first
        if not layers:
            continue
        device = None if share.device is None else machine.usable_devices[share.device]
        own, own_known = operations_of(device, machine)
        operations, operations_known = operations_of(helper, machine) if helper and device is None else (own, own_known)
        seconds += 2 * elements * layers / operations
        if helper and device is None:
            seconds += sum(table.layers[share.first : share.last]) / COPY_BANDWIDTH / batch
        growth += layers * attention * (1 / on_cpu if device is None else GPU_ATTENTION / own)
        known = known and operations_known
    expected, (low, high) = 1 / (seconds + growth * PREFILL_TOKENS / 2), PREFILL_SPREAD
    return PrefillSpeed(expected, expected * low, expected * high, "computed" if known else "assumed", growth)


def prompt_helpers(machine: Machine) -> tuple[int, ...]:
    """The usable device that prefills best, as an index, for a plan that has no layers on any; () if there is none."""
    devices = machine.usable_devices
    order = sorted(
        range(len(devices)),
        key=lambda index: (devices[index].unified, -operations_of(devices[index], machine)[0]),
    )
    return tuple(order[:1])


def attention_operations(architecture: Architecture) -> int:
    """Operations of a layer for a token and each earlier one."""
    return 4 * architecture.heads * architecture.head_length


def _cpu_prefill_attention(settings: ContextSettings, machine: Machine) -> float:
    """Operations per second that attention reaches on the CPU in prefill."""
    if not {settings.k_type, settings.v_type} <= FLOAT_KV_TYPES:
        return machine.cores * CORE_ATTENTION_QUANTIZED
    return max(operations_of(None, machine)[0] * CPU_ATTENTION, machine.cores * CORE_ATTENTION)


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


S = TypeVar("S", bound=Speed)


@dataclass(frozen=True)
class SpeedRatio:
    """Measured over estimated speed of a model that was loaded with so many layers on GPUs, of so many in all."""

    model: str
    kind: SpeedKind
    gpu_layers: int
    all_layers: int
    ratio: float


def corrected(speed: S, kind: SpeedKind, model: str, placement: Placement, ratios: Sequence[SpeedRatio]) -> S:
    """Return an estimate corrected by what was measured.

    The same model with as many layers on GPUs has its own ratio, and its speed counts as measured. Others get the
    median of all that were wholly on GPUs, wholly on the CPU or on both as they are, within bounds.
    """
    if not ratios:
        return speed
    layers, all_layers = placement.gpu_layers, max(share.last for share in placement.shares) + 1
    of_kind = [ratio for ratio in ratios if ratio.kind == kind]
    own = [ratio.ratio for ratio in of_kind if (ratio.model, ratio.gpu_layers) == (model, layers)]
    if own:
        measured = speed.times(own[-1])
        expected = measured.expected
        return replace(
            measured, low=expected * (1 - MEASURED_SPREAD), high=expected * (1 + MEASURED_SPREAD), source="measured"
        )
    place = _place(layers, all_layers)
    alike = [ratio.ratio for ratio in of_kind if _place(ratio.gpu_layers, ratio.all_layers) == place]
    if not alike:
        return speed
    import statistics  # noqa: PLC0415 - 5 ms, and most machines have no benchmarks

    return speed.times(min(max(statistics.median(alike), 1 / MOST_CORRECTION), MOST_CORRECTION))


def _place(gpu_layers: int, all_layers: int) -> Literal["cpu", "gpu", "both"]:
    return "cpu" if not gpu_layers else "gpu" if gpu_layers >= all_layers else "both"
