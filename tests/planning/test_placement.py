from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes_cli.catalog.load import shipped_catalogue
from hermes_cli.hardware.machine import Device, Machine
from hermes_cli.planning.best_placement import NEEDS, best_placement
from hermes_cli.planning.memory import ContextSettings, MemoryBreakdown, on_cpu, weights
from hermes_cli.planning.placement import Placement, place_layers, place_split
from hermes_cli.planning.quality import supports_purpose
from hermes_cli.planning.recommend import RecommendOptions, recommendations
from hermes_cli.planning.speed import decode_speed

CATALOGUE = shipped_catalogue()
MODELS = {model.short: model for model in CATALOGUE.models}
GIB = 1 << 30


def machine(*gpus: float, ram: float = 64, bandwidth: float = 900e9, unified: bool = False) -> Machine:
    devices = tuple(
        Device("nvidia", f"Card {size}", int(size * GIB), int(size * GIB), bandwidth, "given", "cuda", unified=unified)
        for size in gpus
    )
    return Machine(
        devices, int(ram * GIB), int(ram * 0.9 * GIB), 45e9, "given", "a CPU", 8, (), "an OS", "/", GIB << 10, ("cpu",)
    )


def placed(name: str, quantization: str, context: int, on: Machine) -> Placement:
    a = MODELS[name].architecture
    return best_placement(a, quantization, weights(a, quantization, imatrix=False), ContextSettings(context), on)


@pytest.mark.parametrize(
    ("name", "quantization", "context", "gpus"),
    [
        ("hermes-3:3b", "Q4_K_M", 8192, (4,)),
        ("hermes-3:8b", "Q4_K_M", 4096, (6,)),
        ("hermes-3:8b", "Q4_K_M", 16_384, (8,)),
        ("hermes-4.3:36b", "Q4_K_M", 4096, (24,)),
        ("hermes-4:70b", "Q4_K_M", 8192, (48,)),
        ("hermes-4:70b", "Q4_K_M", 8192, (24, 24)),
        ("hermes-4:405b", "Q4_K_M", 8192, (141, 141)),
    ],
)
def test_the_published_sizing_fits_on_gpus_alone(
    name: str, quantization: str, context: int, gpus: tuple[float, ...]
) -> None:
    found = placed(name, quantization, context, machine(*gpus, ram=16))
    assert found.fits
    assert found.gpu_layers == MODELS[name].architecture.layers + 1


@pytest.mark.parametrize(
    ("name", "gpus", "ram"),
    [
        ("hermes-4:405b", (80, 80), 64),
        ("hermes-4:405b", (), 230),
        ("hermes-4:70b", (24,), 16),
        ("hermes-3:8b", (), 5),
    ],
)
def test_what_does_not_fit_still_has_numbers(name: str, gpus: tuple[float, ...], ram: float) -> None:
    found = placed(name, "Q4_K_M", 8192, machine(*gpus, ram=ram))
    assert not found.fits
    assert found.total.weights >= weights(MODELS[name].architecture, "Q4_K_M", imatrix=False).total


def test_what_a_card_cannot_hold_stays_on_the_cpu() -> None:
    found = placed("hermes-4:70b", "Q4_K_M", 8192, machine(24, ram=64))
    assert found.fits
    assert 30 < found.gpu_layers < 60
    cpu, card = found.shares
    assert (cpu.first, cpu.last, card.last) == (0, card.first, 80)
    assert card.part.total > 0.9 * card.room


def test_unequal_cards_share_in_proportion() -> None:
    found = placed("hermes-4.3:36b", "Q8_0", 8192, machine(32, 16, ram=16))
    _, large, small = found.shares
    assert found.fits
    assert large.part.weights > 1.6 * small.part.weights
    assert small.output
    assert not large.output


def test_unified_memory_is_not_counted_twice() -> None:
    assert placed("hermes-4.3:36b", "Q4_K_M", 8192, machine(24, ram=32, unified=True)).fits
    assert not placed("hermes-4.3:36b", "Q8_0", 8192, machine(27, ram=36, unified=True)).fits


@given(
    st.sampled_from(["hermes-3:8b", "hermes-3:3b", "hermes-4.3:36b", "hermes-2:8x7b"]),
    st.sampled_from(["Q4_K_M", "Q8_0", "IQ2_M"]),
    st.lists(st.integers(2, 96), max_size=4),
    st.integers(4, 256),
    st.integers(256, 40_960),
)
def test_nothing_is_lost_and_fitting_is_true(
    name: str, quantization: str, gpus: list[int], ram: int, context: int
) -> None:
    a = MODELS[name].architecture
    table = weights(a, quantization, imatrix=False)
    found = best_placement(a, quantization, table, ContextSettings(context), machine(*gpus, ram=ram))
    covered = [layer for share in found.shares for layer in range(share.first, share.last)]
    assert covered == list(range(a.layers))
    assert sum(share.output for share in found.shares) == 1
    alone = on_cpu(a, table, ContextSettings(context))
    copied = table.embedding if a.tied_embeddings else 0
    assert alone.weights <= found.total.weights <= alone.weights + copied
    assert found.total.kv_cache == alone.kv_cache
    if found.fits:
        assert all(share.part.total <= share.room for share in found.shares)


@pytest.mark.slow
def test_more_memory_never_makes_it_worse() -> None:
    best = -1.0
    for size in (4, 6, 8, 12, 16, 24, 32, 48, 80):
        found = recommendations(CATALOGUE, machine(size), RecommendOptions())
        assert found[0].score >= best, size
        best = found[0].score


@pytest.mark.parametrize("purpose", NEEDS)
def test_candidates_fit_serve_and_are_in_order(purpose: str) -> None:
    wish = RecommendOptions(purpose)  # type: ignore[arg-type]
    found = recommendations(CATALOGUE, machine(24), wish)
    assert found
    ranks = [(one.by_yarn, -one.score) for one in found]
    assert ranks == sorted(ranks)
    for one in found:
        assert one.placement.fits
        assert supports_purpose(one.variant.model, wish.purpose)
        assert one.by_yarn or one.settings.context <= one.variant.model.context.usable


def test_an_agent_gets_its_context_or_nothing() -> None:
    assert all(
        one.settings.context >= 64_000 for one in recommendations(CATALOGUE, machine(24), RecommendOptions("agent"))
    )
    assert not recommendations(CATALOGUE, machine(ram=4), RecommendOptions("agent"))


def test_what_the_user_insists_on_holds() -> None:
    long = recommendations(CATALOGUE, machine(24), RecommendOptions(context=100_000))
    assert long
    assert {one.settings.context for one in long} == {100_000}
    fast = recommendations(CATALOGUE, machine(24), RecommendOptions(min_speed=60))
    assert fast
    assert all(one.speed.expected >= 60 for one in fast)


def test_speed_follows_bandwidth_and_size() -> None:
    a = MODELS["hermes-3:8b"].architecture
    slow, fast = machine(24, bandwidth=300e9), machine(24, bandwidth=900e9)

    def speed(quantization: str, on: Machine) -> float:
        settings, table = ContextSettings(8192), weights(a, quantization, imatrix=False)
        placement = best_placement(a, quantization, table, settings, on)
        return decode_speed(a, quantization, table, settings, placement, on, settings.context).expected

    assert 2 * speed("Q4_K_M", slow) < speed("Q4_K_M", fast) < 3 * speed("Q4_K_M", slow)
    assert speed("Q4_K_M", fast) > speed("Q8_0", fast) > speed("F16", fast)
    assert 80 < speed("Q4_K_M", fast) < 160


def test_a_mixture_reads_only_its_active_experts() -> None:
    on = machine(48)
    mixture, dense = MODELS["hermes-2:8x7b"].architecture, MODELS["hermes-2:34b"].architecture
    settings = ContextSettings(4096)
    speeds = []
    for a in (mixture, dense):
        table = weights(a, "Q4_K_M", imatrix=False)
        placement = best_placement(a, "Q4_K_M", table, settings, on)
        speeds.append(decode_speed(a, "Q4_K_M", table, settings, placement, on, settings.context).expected)
    assert speeds[0] > 1.3 * speeds[1]


def test_parts_add_up() -> None:
    assert (MemoryBreakdown(1, 2, 3, 4, 5) + MemoryBreakdown(10, 20, 30, 40, 50)).total == 165


@pytest.mark.parametrize(
    ("name", "layers", "ram", "card"),
    [
        ("hermes-3:8b", 33, (1002.0, 0, 24.01), (14_315.02, 1024, 258.5)),
        ("hermes-3:8b", 16, (8074.53, 544, 124.01), (7242.48, 480, 258.5)),
        ("hermes-3:3b", 29, (751.5, 0, 20.01), (6128.17, 896, 256.5)),  # tied embeddings: both have the table
        ("hermes-3:3b", 14, (3631.85, 480, 80.01), (3247.82, 416, 256.5)),
        ("hermes-4.3:36b", 32, (35_507.84, 1056, 220.01), (33_447.68, 992, 313.0)),
        ("hermes-2:8x7b", 16, (47_308.67, 544, 208.01), (41_772.38, 480, 200.02)),
    ],
)
def test_a_split_between_ram_and_a_device_is_llama_cpp_s(
    name: str, layers: int, ram: tuple[float, ...], card: tuple[float, ...]
) -> None:
    """MiB of weights, KV cache and compute of F16 files with 8,192 tokens, as llama.cpp logged them on one device."""
    a = MODELS[name].architecture
    table = weights(a, "F16", imatrix=False)
    found = place_split(a, table, ContextSettings(8192), machine(1000, ram=1000), layers, [0], [1])
    assert found.gpu_layers == layers
    for share, said in zip(found.shares, (ram, card), strict=True):
        planned = (share.part.weights, share.part.kv_cache, share.part.compute)
        assert [size / 2**20 for size in planned] == pytest.approx(said, abs=0.03)


@pytest.mark.parametrize("layers", [0, 1, 5, 33, 99])
def test_any_number_of_layers_is_spread_over_all_devices(layers: int) -> None:
    a = MODELS["hermes-3:8b"].architecture
    found = place_layers(a, weights(a, "Q4_K_M", imatrix=False), ContextSettings(8192), machine(24, 12, 8), layers)
    assert found.gpu_layers == sum(found.tensor_split) == min(layers, 33)
    assert all(units >= 0 for units in found.tensor_split)
    assert sum(share.last - share.first for share in found.shares) == a.layers


def strix_halo() -> Machine:
    """96 of 128 GiB set aside for the GPU: the system sees 31, and the GPU may take 15 of them, too."""
    gpu = Device(
        "amd",
        "Radeon 8060S",
        total=int(111.5 * GIB),
        free=110 * GIB,
        bandwidth=256e9,
        bandwidth_source="table",
        backend="vulkan",
        unified=True,
        carve_out=95 * GIB,
    )
    return Machine(
        (gpu,), 31 * GIB, int(25.5 * GIB), 80e9, "given", "a CPU", 16, (), "an OS", "/", GIB << 10, ("cpu", "vulkan")
    )


def test_only_what_exceeds_a_carve_out_costs_ram() -> None:
    here = strix_halo()
    found = placed("hermes-4:70b", "Q4_K_M", 8192, here)
    assert found.fits
    assert found.gpu_layers == 81
    assert found.shares[0].room == here.ram_available
    large = placed("hermes-4:70b", "Q8_0", 131_072, here)
    on_gpu = large.shares[1].part.total
    assert on_gpu > 95 * GIB
    assert large.shares[0].room == here.ram_available - (on_gpu - 95 * GIB)


def test_a_carve_out_counts_for_the_pick() -> None:
    """The 36B and the 70B are larger than the RAM; what an agent waits for may still speak for a smaller one."""
    found = recommendations(CATALOGUE, strix_halo(), RecommendOptions("agent"))
    fitting = {one.variant.model.short for one in found if one.settings.context >= 64_000 and not one.leaves_gpu}
    assert {"hermes-4.3:36b", "hermes-4:70b"} <= fitting
    assert recommendations(CATALOGUE, strix_halo(), RecommendOptions("chat"))[0].variant.model.short == "hermes-4.3:36b"
