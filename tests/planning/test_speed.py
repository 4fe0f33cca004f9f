"""Speeds against those that others published (benchmarks/published_speeds.csv), and what follows from them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks import speed_model
from hermes_cli.gguf.types import KvType
from hermes_cli.hardware.machine import Machine
from hermes_cli.planning.memory import ContextSettings, weights
from hermes_cli.planning.placement import place_layers
from hermes_cli.planning.speed import (
    PROMPTS,
    PrefillSpeed,
    PromptTokens,
    decode_speed,
    first_token_seconds,
    prefill_speed,
)

ROWS = tuple(speed_model.published())
PREFILL = PrefillSpeed(1000, 500, 2000, "computed", 70e-9)


@pytest.mark.parametrize("speed", ["decode", "prefill"])
@pytest.mark.parametrize("first_half", [True, False])
def test_ranges_hold_nine_of_ten_published_measurements(speed: str, first_half: bool) -> None:  # noqa: FBT001
    rows = [row for row in ROWS if row.speed == speed and row.first_half == first_half]
    outside = [row for row in rows if not row.inside]
    assert len(rows) > 40
    assert len(outside) <= 0.1 * len(rows), outside


def prefill(machine: Machine, name: str, quantization: str, layers: int, micro_batch: int = 512) -> PrefillSpeed:
    a, settings = speed_model.MODELS[name].architecture, ContextSettings(2048, micro_batch=micro_batch)
    table = weights(a, quantization, imatrix=False)
    return prefill_speed(a, table, settings, place_layers(a, table, settings, machine, layers), machine)


def test_layers_in_ram_are_prefilled_on_the_gpu() -> None:
    """784 tokens/s with 18 layers of 7B on an RTX 3090 Ti, 1,024 tokens at once (ggml-org/llama.cpp#6083)."""
    machine = speed_model.machine_named("RTX 3090", "cuda")
    speed = prefill(machine, "openhermes-1:7b", "Q4_0", 18, 1024)
    first = first_token_seconds(PromptTokens(1024, 1, 0), speed, 2048)
    assert first.low < 1024 / 784 < first.high
    alone = prefill(replace(machine, devices=()), "openhermes-1:7b", "Q4_0", 0)
    assert prefill(machine, "openhermes-1:7b", "Q4_0", 0).expected > 5 * alone.expected
    small, large = (prefill(machine, "openhermes-1:7b", "Q4_0", 18, batch).expected for batch in (16, 64))
    assert small < large


def test_a_quantized_kv_cache_makes_long_prompts_slow_on_a_cpu() -> None:
    """Measured on a virtual core of a Xeon: attention of a prompt at 7e9 to 9e9 operations/s in Q8_0, 34e9 in F16."""
    machine = replace(speed_model.machine_named("RTX 3090", "cuda"), devices=(), cores=8, simd=("AVX2",))
    a = speed_model.MODELS["hermes-3:8b"].architecture
    table = weights(a, "Q4_K_M", imatrix=False)

    def wait_and_speeds(kind: KvType) -> tuple[float, float, float]:
        settings = ContextSettings(65_536, k_type=kind, v_type=kind)
        placement = place_layers(a, table, settings, machine, 0)
        prefill = prefill_speed(a, table, settings, placement, machine)
        empty, filled = (
            decode_speed(a, "Q4_K_M", table, settings, placement, machine, tokens).expected for tokens in (0, 24_576)
        )
        return first_token_seconds(PROMPTS["agent"], prefill, 65_536).expected, empty, filled

    wait, empty, filled = wait_and_speeds("f16")
    quantized_wait, _, quantized_filled = wait_and_speeds("q8_0")
    assert quantized_wait > 1.4 * wait
    assert quantized_filled == filled < 0.4 * empty


def test_more_layers_on_the_gpu_are_never_slower() -> None:
    machine = speed_model.machine_named("RTX 3090", "cuda")
    speeds = [prefill(machine, "hermes-3:8b", "Q4_K_M", layers).expected for layers in range(34)]
    assert speeds == sorted(speeds)


def test_a_short_prompt_takes_its_tokens_over_the_prefill_speed() -> None:
    first = first_token_seconds(PromptTokens(512, 512, 0), PREFILL, 8192)
    assert (first.expected, first.low, first.high) == pytest.approx((0.512, 0.256, 1.024))
    assert first.expected < first.turn < 1.1 * first.expected  # attention to the first prompt


def test_attention_counts_over_a_long_prompt() -> None:
    first = first_token_seconds(PROMPTS["long-context"], PREFILL, 131_072)
    assert 3 * 65.536 < first.expected < 3.5 * 65.536


def test_a_prompt_is_no_longer_than_the_context() -> None:
    assert first_token_seconds(PROMPTS["agent"], PREFILL, 4096).prompt_tokens == 4096
