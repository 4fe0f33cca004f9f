"""Launch plans: the golden table, the KV cache as vLLM's formulas give it, what is refused, and what cannot get worse."""

from __future__ import annotations

from dataclasses import replace

import golden
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes_cli.catalog.engine_weights import named_weights
from hermes_cli.catalog.load import shipped_catalogue
from hermes_cli.errors import DoesNotFitError, UsageError
from hermes_cli.hardware.machine import Device, Machine
from hermes_cli.planning.launch_memory import kv_bytes_per_token
from hermes_cli.planning.launch_plan import LaunchOptions
from hermes_cli.planning.launch_planner import Launch, best_launch, plan_launch
from hermes_cli.planning.launch_speed import batch_speed
from hermes_cli.units import GIB

MODELS = {model.short: model for model in shipped_catalogue().models}
FREE = LaunchOptions()


def machine(count: int, gib: float, capability: str = "9.0") -> Machine:
    gpu = Device("nvidia", "GPU", int(gib * GIB), int(gib * GIB), 3e12, "table", "cuda", compute_capability=capability)
    ram = 256 * GIB
    return Machine((gpu,) * count, ram, ram, 1e11, "given", "a CPU", 8, (), "Linux", "/", 1, ("cuda",), simulated=True)


def plan(name: str, count: int, gib: float, options: LaunchOptions = FREE, capability: str = "9.0") -> Launch:
    model, _, suffix = name.partition("@")
    here = machine(count, gib, capability)
    weights = named_weights(MODELS[model], suffix) if suffix else None
    return plan_launch(weights, here, options) if weights else best_launch(MODELS[model], here, options)


def sizes(launch: Launch) -> tuple[int, int, int]:
    return launch.plan.tensor, launch.plan.pipeline, launch.plan.data


def test_the_golden_table_of_launch_plans() -> None:
    """Changed on purpose? Read the difference: python tools/golden.py --write."""
    assert golden.launch_table() == golden.LAUNCH_FILE.read_text(encoding="utf-8")


# Thousands of tokens of 16-bit KV cache on one replica, by the formulas of vLLM 0.32 as others worked them out:
# weights, GPUs (or GPUs per stage and stages), memory of each in GB as vendors call it, tokens.
@pytest.mark.parametrize(
    ("weights", "tensor", "pipeline", "gib", "thousands"),
    [
        ("hermes-3:8b@bf16", 1, 1, 24, 34),
        ("hermes-3:8b@bf16", 2, 1, 24, 184),
        ("hermes-3:8b@bf16", 4, 1, 24, 491),
        ("hermes-3:8b@bf16", 1, 1, 48, 214),
        ("hermes-3:8b@bf16", 1, 1, 80, 446),
        ("hermes-3:8b@bf16", 4, 1, 80, 2149),
        ("hermes-4:14b@bf16", 2, 1, 24, 64),
        ("hermes-4:14b@bf16", 1, 1, 48, 88),
        ("hermes-4:14b@bf16", 2, 1, 80, 724),
        ("hermes-4:14b@fp8", 1, 1, 24, 25),
        ("hermes-4:14b@fp8", 4, 1, 24, 390),
        ("hermes-4:14b@fp8", 1, 1, 80, 354),
        ("hermes-4.3:36b@bf16", 4, 1, 24, 29),
        ("hermes-4.3:36b@bf16", 1, 1, 80, 6),
        ("hermes-4.3:36b@bf16", 8, 1, 80, 1992),
        ("hermes-4.3:36b@fp8", 2, 1, 24, 8),
        ("hermes-4.3:36b@fp8", 1, 1, 48, 23),
        ("hermes-4.3:36b@fp8", 2, 1, 80, 420),
        ("hermes-4:70b@bf16", 2, 1, 80, 20),
        ("hermes-4:70b@bf16", 8, 1, 80, 1380),
        ("hermes-4:70b@bf16", 8, 2, 80, 3191),
        ("hermes-4:70b@fp8", 4, 1, 24, 22),
        ("hermes-4:70b@fp8", 1, 1, 80, 3),
        ("hermes-4:70b@fp8", 2, 1, 80, 228),
        ("hermes-4:70b@fp8", 8, 1, 80, 1589),
        ("hermes-4:405b@fp8", 8, 1, 80, 345),
        ("hermes-4:405b@fp8", 8, 2, 80, 1485),
        ("hermes-4:405b@bf16", 8, 2, 80, 707),
        ("hermes-4:405b@nvfp4", 4, 1, 80, 116),
    ],
)
def test_tokens_of_kv_cache(weights: str, tensor: int, pipeline: int, gib: int, thousands: int) -> None:
    options = LaunchOptions(nodes=pipeline, sequences=256, kv_type="auto", tensor=tensor, pipeline=pipeline, data=1)
    tokens = plan(weights, tensor, gib, options).plan.kv_tokens
    assert tokens == pytest.approx(thousands * 1000, rel=0.01, abs=1500)
    in_8_bits = plan(weights, tensor, gib, replace(options, kv_type="fp8")).plan.kv_tokens
    assert in_8_bits in {2 * tokens, 2 * tokens + 1}


def test_more_gpus_than_kv_heads_copy_them() -> None:
    architecture = MODELS["hermes-4:405b"].architecture
    assert kv_bytes_per_token(architecture, 8, 1, "auto") == 2 * 126 * 128 * 2
    assert kv_bytes_per_token(architecture, 16, 1, "auto") == 2 * kv_bytes_per_token(architecture, 8, 2, "auto")


def test_replicas_are_small_where_the_context_fits_and_then_many() -> None:
    assert sizes(plan("hermes-3:8b", 8, 80)) == (1, 1, 8)
    assert sizes(plan("hermes-4:70b@fp8", 8, 80)) == (2, 1, 4)
    assert sizes(plan("hermes-4:405b@fp8", 8, 80)) == (8, 1, 1)


def test_nodes_have_replicas_each_before_one_goes_over_several() -> None:
    two = LaunchOptions(nodes=2)
    assert sizes(plan("hermes-4:405b@fp8", 8, 80, two)) == (8, 1, 2)
    assert sizes(plan("hermes-4:405b@bf16", 8, 80, two)) == (8, 2, 1)
    assert sizes(plan("hermes-4:405b@fp8", 8, 80, replace(two, engine="sglang"))) == (8, 2, 1)


@pytest.mark.parametrize(
    ("capability", "weights", "kv_type"),
    [("8.9", "hermes-4:14b@fp8", "fp8"), ("8.6", "hermes-4:14b@awq", "auto"), ("7.5", "hermes-4:14b@awq", "auto")],
)
def test_weights_and_cache_are_what_the_gpu_computes_in(capability: str, weights: str, kv_type: str) -> None:
    launch = plan("hermes-4:14b", 1, 24, capability=capability)
    assert (launch.weights.name, launch.plan.kv_type) == (weights, kv_type)
    assert ("half" in launch.plan.more) == (capability == "7.5")


def test_14b_is_not_split_over_three_gpus() -> None:
    with pytest.raises(UsageError, match="40 attention heads and 8 KV heads") as error:
        plan("hermes-4:14b@bf16", 3, 24)
    assert "--tensor-parallel 2" in error.value.hint
    with pytest.raises(UsageError, match="split evenly over 3 GPUs") as error:
        plan("hermes-4:14b", 3, 80, LaunchOptions(tensor=3))
    assert "1 or 2" in error.value.hint
    replicas = plan("hermes-4:14b", 3, 80)  # each holds it
    assert sizes(replicas) == (1, 1, 3)
    assert any("not split over 3 GPUs" in note for note in replicas.notes)
    chosen = plan("hermes-4:14b@bf16", 3, 24, LaunchOptions(tensor=2))
    assert sizes(chosen) == (2, 1, 1)
    assert any("stay idle" in note for note in chosen.notes)


def test_five_gpus_cannot_share_eight_kv_heads_though_they_could_forty_heads() -> None:
    with pytest.raises(UsageError, match="split evenly over 5 GPUs"):
        plan("hermes-4:14b", 5, 24, LaunchOptions(tensor=5))


def test_what_does_not_fit_says_what_would() -> None:
    with pytest.raises(DoesNotFitError) as error:
        plan("hermes-4:70b@bf16", 1, 80)
    assert "2 of these GPUs would hold it" in error.value.hint
    assert "hermes-4:70b@fp8 fits" in error.value.hint
    with pytest.raises(DoesNotFitError, match=r"131,072 tokens") as error:
        plan("hermes-3:8b", 1, 24, LaunchOptions(context=131_072))
    assert "--context " in error.value.hint


def test_a_context_beyond_what_was_trained_is_refused() -> None:
    with pytest.raises(UsageError, match="40,960 tokens"):
        plan("hermes-4:14b", 8, 80, LaunchOptions(context=65_536))


def test_without_gpus_that_it_can_use_it_says_so() -> None:
    with pytest.raises(UsageError, match="needs GPUs"):
        best_launch(MODELS["hermes-3:8b"], replace(machine(1, 24), devices=()), FREE)
    with pytest.raises(UsageError, match="compute capability"):
        plan("hermes-3:8b", 1, 24, capability="6.1")


def test_gpus_count_whatever_llama_cpp_was_built_for() -> None:
    here = machine(2, 80)
    unused = replace(here, devices=tuple(replace(device, usable=False) for device in here.devices))
    assert sizes(best_launch(MODELS["hermes-4:70b"], unused, FREE)) == (2, 1, 1)
    one = replace(here, devices=(here.devices[0], replace(here.devices[1], left_out="--devices")))
    assert len(best_launch(MODELS["hermes-3:8b"], one, FREE).gpus) == 1


def test_a_small_gpu_beside_large_ones_is_left_out() -> None:
    [large], [small] = machine(1, 24).devices, machine(1, 12).devices
    alone, both = (
        best_launch(MODELS["hermes-3:8b"], machine(1, 24), FREE),
        replace(machine(1, 24), devices=(small, large)),
    )
    launch = best_launch(MODELS["hermes-3:8b"], both, FREE)
    assert launch.plan == alone.plan
    assert any("less memory free" in note for note in launch.notes)
    three = replace(both, devices=(large, small, replace(large, total=20 * GIB, free=20 * GIB)))
    assert len(best_launch(MODELS["hermes-3:8b"], three, FREE).gpus) == 2


def test_a_gpu_that_others_fill_is_left_out() -> None:
    here = machine(2, 24)
    busy = replace(here, devices=(here.devices[0], replace(here.devices[1], free=2 * GIB)))
    assert best_launch(MODELS["hermes-3:8b"], busy, FREE).gpus == here.devices[:1]


def test_memory_in_use_is_left_alone() -> None:
    here = machine(1, 80)
    busy = replace(here, simulated=False, devices=(replace(here.devices[0], free=40 * GIB),))
    weights = named_weights(MODELS["hermes-3:8b"], "bf16")
    assert weights
    launch = plan_launch(weights, busy, FREE)
    assert launch.plan.utilization == 0.5
    assert launch.plan.memory.total <= 40 * GIB


def test_parts_add_up_to_what_the_engine_may_use() -> None:
    for name, count, gib in (("hermes-4:70b", 4, 80), ("hermes-4:14b", 1, 24), ("hermes-4.3:36b", 2, 48)):
        launch = plan(name, count, gib)
        assert launch.plan.memory.total == launch.room
        assert launch.plan.context
        assert launch.plan.context <= launch.plan.kv_tokens


@given(
    st.sampled_from(sorted(MODELS)),
    st.sampled_from([1, 2, 4, 8]),
    st.sampled_from([11, 16, 24, 48, 80, 141]),
    st.sampled_from(["8.0", "9.0"]),
)
def test_more_memory_or_twice_the_gpus_never_make_a_plan_worse(
    name: str, count: int, gib: float, capability: str
) -> None:
    def context(count: int, gib: float) -> int:
        try:
            return plan(name, count, gib, capability=capability).plan.context or 0
        except DoesNotFitError:
            return 0

    least = min(context(count, gib), 32_768)
    assert context(2 * count, gib) >= least
    assert context(count, gib * 1.5) >= least


@given(st.sampled_from(["hermes-3:8b", "hermes-4:70b"]), st.integers(1, 500), st.integers(1, 200))
def test_more_requests_write_more_together_and_less_each(name: str, requests: int, more: int) -> None:
    launch = plan(name, 8, 80)
    few, many = batch_speed(launch, requests, 2048), batch_speed(launch, requests + more, 2048)
    assert many.each.expected <= few.each.expected * (1 + 1e-9)
    # a replica with one request more than the others sets the pace of the whole
    assert many.all.expected >= few.all.expected * 0.5
