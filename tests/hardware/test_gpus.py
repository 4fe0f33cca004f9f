from __future__ import annotations

from collections import Counter

import pytest

from hermes_cli.hardware.gpus import GB, GPUS, Gpu
from hermes_cli.units import GIB

BY_NAME = {gpu.name: gpu for gpu in GPUS}


def plain(text: str) -> str:
    return "".join(letter for letter in text.lower() if letter.isalnum())


def test_it_is_a_table_worth_having() -> None:
    assert len(GPUS) >= 110
    vendors = Counter(gpu.vendor for gpu in GPUS)
    assert set(vendors) == {"nvidia", "amd", "intel", "apple"}
    assert min(vendors.values()) >= 8


def test_names_differ_by_more_than_case_and_punctuation() -> None:
    assert [name for name, count in Counter(plain(gpu.name) for gpu in GPUS).items() if count > 1] == []


@pytest.mark.parametrize("gpu", GPUS, ids=lambda gpu: gpu.name)
def test_figures_are_plausible(gpu: Gpu) -> None:
    assert 50 <= gpu.gb_per_s <= 10_000
    assert 4 <= gpu.gib <= (512 if gpu.unified else 300)
    assert gpu.tflops is None or 1 <= gpu.tflops <= 5_000
    assert gpu.dies in {1, 2, 4}
    assert (gpu.memory, gpu.bandwidth) == (gpu.gib * GIB, gpu.gb_per_s * GB)
    assert bool(gpu.compute_capability) == (gpu.vendor == "nvidia")
    assert not gpu.name.startswith(("NVIDIA", "AMD", "Intel", "Apple"))


@pytest.mark.parametrize("gpu", [gpu for gpu in GPUS if gpu.unified], ids=lambda gpu: gpu.name)
def test_unified_memory_lists_its_sizes(gpu: Gpu) -> None:
    assert list(gpu.sizes) == sorted(set(gpu.sizes))
    assert gpu.sizes[-1] == gpu.gib


def test_every_chip_of_apples_is_unified() -> None:
    assert all(gpu.unified for gpu in GPUS if gpu.vendor == "apple")


@pytest.mark.parametrize("gpu", [gpu for gpu in GPUS if gpu.name.endswith("GB")], ids=lambda gpu: gpu.name)
def test_memory_in_a_name_is_the_memory(gpu: Gpu) -> None:
    assert gpu.name.endswith((f" {gpu.gib}GB", f"-{gpu.gib}GB"))


def test_a_laptop_gpu_is_never_faster_than_the_card_of_its_name() -> None:
    pairs = 0
    for gpu in GPUS:
        card = BY_NAME.get(gpu.name.partition(" Laptop GPU")[0])
        if " Laptop GPU" in gpu.name and card:
            pairs += 1
            assert gpu.gb_per_s <= card.gb_per_s
            assert gpu.gb_per_s < card.gb_per_s or gpu.name == "GeForce RTX 3070 Laptop GPU"
    assert pairs >= 10


@pytest.mark.parametrize(
    ("name", "gib", "gb_per_s", "capability"),
    [
        ("GeForce GTX 1080 Ti", 11, 484, "6.1"),
        ("GeForce RTX 2080 Ti", 11, 616, "7.5"),
        ("GeForce RTX 3060 12GB", 12, 360, "8.6"),
        ("GeForce RTX 3060 8GB", 8, 240, "8.6"),
        ("GeForce RTX 3080 10GB", 10, 760, "8.6"),
        ("GeForce RTX 3090", 24, 936, "8.6"),
        ("GeForce RTX 4060", 8, 272, "8.9"),
        ("GeForce RTX 4060 Ti 16GB", 16, 288, "8.9"),
        ("GeForce RTX 4090", 24, 1008, "8.9"),
        ("GeForce RTX 4090 Laptop GPU", 16, 576, "8.9"),
        ("GeForce RTX 5060 Ti 16GB", 16, 448, "12.0"),
        ("GeForce RTX 5070", 12, 672, "12.0"),
        ("GeForce RTX 5070 Laptop GPU", 8, 384, "12.0"),
        ("GeForce RTX 5090", 32, 1792, "12.0"),
        ("RTX A6000", 48, 768, "8.6"),
        ("RTX 6000 Ada Generation", 48, 960, "8.9"),
        ("RTX PRO 6000 Blackwell Workstation Edition", 96, 1792, "12.0"),
        ("Tesla T4", 16, 320, "7.5"),
        ("Tesla P40", 24, 346, "6.1"),
        ("L4", 24, 300, "8.9"),
        ("L40S", 48, 864, "8.9"),
        ("A10", 24, 600, "8.6"),
        ("A100 40GB", 40, 1555, "8.0"),
        ("A100 80GB SXM", 80, 2039, "8.0"),
        ("A100 80GB PCIe", 80, 1935, "8.0"),
        ("H100 SXM", 80, 3350, "9.0"),
        ("H200", 141, 4800, "9.0"),
        ("B200", 180, 8000, "10.0"),
        ("GB10", 128, 273, "12.1"),
        ("Radeon RX 6800 XT", 16, 512, ""),
        ("Radeon RX 7900 XT", 20, 800, ""),
        ("Radeon RX 7900 XTX", 24, 960, ""),
        ("Radeon RX 9070 XT", 16, 640, ""),
        ("Instinct MI300X", 192, 5300, ""),
        ("Radeon 8060S", 128, 256, ""),
        ("Arc A770 16GB", 16, 560, ""),
        ("Arc B580", 12, 456, ""),
        ("M1 Ultra", 128, 800, ""),
        ("M3 Max 30-core", 96, 300, ""),
        ("M4 Max 40-core", 128, 546, ""),
    ],
)
def test_against_the_vendors_figures(name: str, gib: int, gb_per_s: float, capability: str) -> None:
    gpu = BY_NAME[name]
    assert (gpu.gib, gpu.gb_per_s, gpu.compute_capability) == (gib, gb_per_s, capability)


@pytest.mark.parametrize(
    ("name", "bits", "gigabits"),
    [
        ("GeForce RTX 3090", 384, 19.5),
        ("GeForce RTX 4090", 384, 21),
        ("GeForce RTX 5080", 256, 30),
        ("GeForce RTX 5090", 512, 28),
        ("GeForce RTX 4070 Laptop GPU", 128, 16),
        ("Radeon RX 7900 XTX", 384, 20),
        ("Radeon 8060S", 256, 8),
        ("Arc B580", 192, 19),
    ],
)
def test_bandwidth_is_bus_width_times_data_rate(name: str, bits: int, gigabits: float) -> None:
    assert BY_NAME[name].gb_per_s == pytest.approx(bits * gigabits / 8, rel=0.002)


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("GeForce RTX 3090", 71),
        ("GeForce RTX 4090", 165.2),
        ("GeForce RTX 5090", 209.5),
        ("A100 80GB SXM", 312),
        ("H100 SXM", 989.4),
        ("L4", 121),
        ("Tesla T4", 65),
    ],
)
def test_speed_is_dense_with_fp32_accumulation(name: str, tflops: float) -> None:
    assert BY_NAME[name].tflops == pytest.approx(tflops, rel=0.005)
