"""The table of GPUs, and finding one by its name."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes_cli.errors import UsageError
from hermes_cli.hardware.gpus import GB, GPUS, Gpu, find_gpu, gpu_reported_as, gpus_named, typical_bandwidth
from hermes_cli.hardware.machine import Vendor
from hermes_cli.units import GIB

VENDORS: dict[Vendor, str] = {"nvidia": "NVIDIA", "amd": "AMD", "intel": "Intel", "apple": "Apple"}
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


@pytest.mark.parametrize("vendor", VENDORS)
def test_figures_are_plausible(vendor: Vendor) -> None:
    for gpu in (gpu for gpu in GPUS if gpu.vendor == vendor):
        assert 25 <= gpu.gb_per_s <= 10_000
        assert 2 <= gpu.gib <= (512 if gpu.unified else 300)
        assert gpu.tflops is None or 1 <= gpu.tflops <= 5_000
        assert gpu.dies in {1, 2, 4}
        assert (gpu.memory, gpu.bandwidth) == (gpu.gib * GIB, gpu.gb_per_s * GB)
        form = {"nvidia": r"\d+\.\d", "amd": r"gfx\d{1,3}[0-9a-f]\d|gfx90a", "intel": "", "apple": ""}[gpu.vendor]
        assert re.fullmatch(form, gpu.compute_capability)
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


def test_a_geforce_in_a_laptop_is_never_faster_than_the_card_of_its_name() -> None:
    pairs = 0
    for gpu in GPUS:
        card = BY_NAME.get(gpu.name.partition(" Laptop GPU")[0])
        # the RTX 5050 has the slower kind of memory as a card
        if gpu.name.startswith("GeForce") and card and card is not gpu and "5050" not in gpu.name:
            pairs += 1
            assert gpu.gb_per_s <= card.gb_per_s
            same = gpu.compute_capability == "7.5" or gpu.name == "GeForce RTX 3070 Laptop GPU"
            assert gpu.gb_per_s < card.gb_per_s or same
    assert pairs >= 15


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
        ("Radeon RX 6800 XT", 16, 512, "gfx1030"),
        ("Radeon RX 7900 XT", 20, 800, "gfx1100"),
        ("Radeon RX 7900 XTX", 24, 960, "gfx1100"),
        ("Radeon RX 9070 XT", 16, 640, "gfx1201"),
        ("Instinct MI300X", 192, 5300, "gfx942"),
        ("Radeon 8060S", 128, 256, "gfx1151"),
        ("Jetson Orin Nano 8GB", 8, 102.4, "8.7"),
        ("Jetson AGX Orin", 64, 204.8, "8.7"),
        ("Jetson AGX Thor", 128, 273, "11.0"),
        ("RTX PRO 5000 72GB Blackwell", 72, 1344, "12.0"),
        ("GeForce RTX 5090 D V2", 24, 1344, "12.0"),
        ("H20", 96, 4000, "9.0"),
        ("GeForce GTX 970", 4, 224, "5.2"),
        ("GeForce GTX 1060 3GB", 3, 192, "6.1"),
        ("Arc 140V", 32, 136.5, ""),
        ("Radeon RX 580 8GB", 8, 256, "gfx803"),
        ("Radeon RX Vega 64", 8, 484, "gfx900"),
        ("Radeon RX 9060", 8, 288, "gfx1200"),
        ("Radeon 780M", 96, 89.6, "gfx1103"),
        ("Arc Pro B70", 32, 608, ""),
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


MIB = 2**20


def outcome(text: str) -> Gpu | UsageError:
    try:
        return find_gpu(text)
    except UsageError as error:
        return error


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("RTX 4090", "GeForce RTX 4090"),
        ("rtx4090", "GeForce RTX 4090"),
        ("  NVIDIA   GeForce RTX 4090 ", "GeForce RTX 4090"),
        ("4090", "GeForce RTX 4090"),
        ("rtx-4090-24gb", "GeForce RTX 4090"),
        ("4090D", "GeForce RTX 4090 D"),
        ("RTX 3060 12GB", "GeForce RTX 3060 12GB"),
        ("rtx 3060 8gb", "GeForce RTX 3060 8GB"),
        ("3060", "GeForce RTX 3060 12GB"),
        ("RTX 4060 Ti 16G", "GeForce RTX 4060 Ti 16GB"),
        ("4070 Ti Super", "GeForce RTX 4070 Ti SUPER"),
        ("4090 laptop", "GeForce RTX 4090 Laptop GPU"),
        ("RTX 4090 Mobile", "GeForce RTX 4090 Laptop GPU"),
        ("H100", "H100 SXM"),
        ("2080ti", "GeForce RTX 2080 Ti"),
        ("H100 PCIe", "H100 PCIe"),
        ("H100 NVL", "H100 NVL"),
        ("A100", "A100 80GB SXM"),
        ("A100 40GB", "A100 40GB"),
        ("A100 80GB PCIe", "A100 80GB PCIe"),
        ("A6000", "RTX A6000"),
        ("RTX 6000 Ada", "RTX 6000 Ada Generation"),
        ("RTX PRO 6000", "RTX PRO 6000 Blackwell Workstation Edition"),
        ("Quadro RTX 6000", "Quadro RTX 6000"),
        ("DGX Spark", "GB10"),
        ("Jetson Orin Nano", "Jetson Orin Nano 8GB"),
        ("Orin NX 16GB", "Jetson Orin NX"),
        ("AGX Orin 64GB", "Jetson AGX Orin"),
        ("RTX 3050 Ti", "GeForce RTX 3050 Ti Laptop GPU"),
        ("RTX 5000 Ada Laptop", "RTX 5000 Ada Generation Laptop GPU"),
        ("RTX PRO 5000 72GB", "RTX PRO 5000 72GB Blackwell"),
        ("4090 48GB", "GeForce RTX 4090 48GB"),
        ("2080 Ti", "GeForce RTX 2080 Ti"),
        ("RX 580", "Radeon RX 580 8GB"),
        ("Vega 56", "Radeon RX Vega 56"),
        ("780M", "Radeon 780M"),
        ("Ryzen AI Max 390", "Radeon 8050S"),
        ("Ryzen AI Max+ PRO 395", "Radeon 8060S"),
        ("V100 32GB", "Tesla V100 32GB"),
        ("7900 XTX", "Radeon RX 7900 XTX"),
        ("AMD Radeon RX 7900 XTX", "Radeon RX 7900 XTX"),
        ("W7900", "Radeon PRO W7900"),
        ("MI300X", "Instinct MI300X"),
        ("Ryzen AI Max+ 395", "Radeon 8060S"),
        ("Intel(R) Arc(TM) A770 Graphics", "Arc A770 16GB"),
        ("B580", "Arc B580"),
        ("M1", "M1"),
        ("Apple M4 Pro", "M4 Pro"),
        ("M4 Max 64GB", "M4 Max 40-core"),
        ("M4 Max 36 GB", "M4 Max 32-core"),
        ("m3max96g", "M3 Max 30-core"),
    ],
)
def test_names_that_people_type(text: str, name: str) -> None:
    assert find_gpu(text).name == name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("A10", "A10"),
        ("A100", "A100 80GB SXM"),
        ("A1000", "RTX A1000"),
        ("A2", "A2"),
        ("T4", "Tesla T4"),
        ("L4", "L4"),
        ("L40", "L40"),
        ("RTX 5070", "GeForce RTX 5070"),
        ("RTX 5070 Laptop", "GeForce RTX 5070 Laptop GPU"),
        ("5070 Laptop", "GeForce RTX 5070 Laptop GPU"),
        ("RTX 5070 Ti", "GeForce RTX 5070 Ti"),
        ("RX 7900 XT", "Radeon RX 7900 XT"),
        ("M4", "M4"),
    ],
)
def test_a_name_is_never_found_inside_another(text: str, name: str) -> None:
    assert find_gpu(text).name == name


@pytest.mark.parametrize(
    "text",
    [
        "T400",
        "A1",
        "90",
        "RTX 40",
        "RTX",
        "GeForce",
        "RTX 4090 Ti",
        "RTX 4090 12GB",
        "GTX 4090",
        "AMD RTX 4090",
        "Intel A40",
        "NVIDIA Radeon RX 7900 XTX",
        "my RTX 4090",
        "RTX 4090 \u8d85",
        "RTX 4000 Ada Laptop 16GB",
        "M4 Max 96GB",
    ],
)
def test_what_is_no_gpu(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        find_gpu(text)
    assert text in caught.value.message
    assert "--vram" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("RTX 4091", "GeForce RTX 4090"),
        ("GTX 4090", "GeForce RTX 4090"),
        ("RX 7900 XTZ", "Radeon RX 7900 XTX"),
        ("Arc B58", "Arc B580"),
        ("M4 Ultra", "M3 Ultra"),
    ],
)
def test_the_nearest_names_are_told(text: str, hint: str) -> None:
    with pytest.raises(UsageError, match=text) as caught:
        find_gpu(text)
    named = caught.value.hint.partition(";")[0].removeprefix("the nearest names: ").split(", ")
    assert hint in named
    assert len(named) == 3


@pytest.mark.parametrize(
    ("text", "vendor"),
    [
        ("Jetson Orin", "nvidia"),
        ("Jetson T9000", "nvidia"),
        ("Tegra X3", "nvidia"),
        ("T400", "nvidia"),
        ("GT 1010", "nvidia"),
        ("A17", "nvidia"),
        ("PRO 6000D", "nvidia"),
        ("Ryzen AI Max 999", "amd"),
        ("Ryzen 5 4600G", "amd"),
        ("R9600D", "amd"),
        ("MI999", "amd"),
        ("610M", "amd"),
        ("Iris Plus", "intel"),
        ("UHD 770", "intel"),
        ("Arc B999", "intel"),
        ("M9 Max", "apple"),
    ],
)
def test_the_nearest_names_are_the_same_vendors(text: str, vendor: Vendor) -> None:
    with pytest.raises(UsageError) as caught:
        find_gpu(text)
    named = caught.value.hint.partition(";")[0].removeprefix("the nearest names: ").split(", ")
    assert [BY_NAME[name].vendor for name in named] == [vendor] * 3


@given(st.text("RTXAMGBi 0123456789", min_size=2, max_size=14))
def test_nearest_names_are_never_of_two_vendors(text: str) -> None:
    found = outcome(text)
    if isinstance(found, UsageError) and "nearest" in found.hint:
        named = found.hint.partition(";")[0].removeprefix("the nearest names: ").split(", ")
        assert len({BY_NAME[name].vendor for name in named}) == 1


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("RTX 4060 Ti", "say which: GeForce RTX 4060 Ti 8GB, GeForce RTX 4060 Ti 16GB"),
        ("RTX 6000", "say which: Quadro RTX 6000, RTX 6000 Ada Generation"),
        ("V100", "say which: Tesla V100 16GB, Tesla V100 32GB"),
        ("A100 PCIe", "say which: A100 40GB, A100 80GB PCIe"),
    ],
)
def test_a_name_of_several_is_asked_back(text: str, hint: str) -> None:
    with pytest.raises(UsageError, match="is the name of 2 GPUs") as caught:
        find_gpu(text)
    assert caught.value.hint == hint


def test_the_chip_of_a_mac_is_told_with_its_flag() -> None:
    with pytest.raises(UsageError, match="M4 Max is a Mac's chip") as caught:
        find_gpu("M4 Max")
    assert '--apple "M4 Max ' in caught.value.hint


def test_every_candidate_can_be_had() -> None:
    assert [gpu.name for gpu in gpus_named("H100")] == ["H100 SXM", "H100 PCIe", "H100 NVL"]
    assert [gpu.name for gpu in gpus_named("RTX 4090")] == ["GeForce RTX 4090"]


@pytest.mark.parametrize("vendor", VENDORS)
def test_what_is_shown_can_be_typed(vendor: Vendor) -> None:
    for gpu in (gpu for gpu in GPUS if gpu.vendor == vendor):
        assert find_gpu(gpu.name) is gpu
        assert find_gpu(f"{VENDORS[gpu.vendor]} {gpu.name}") is gpu


@given(st.sampled_from(GPUS), st.data())
def test_case_and_punctuation_do_not_matter(gpu: Gpu, data: st.DataObject) -> None:
    separator = st.sampled_from(["", " ", "-", "_", ".", "/"])
    typed = "".join(
        data.draw(st.sampled_from([letter.lower(), letter.upper()])) + data.draw(separator)
        for letter in gpu.name
        if letter.isalnum()
    )
    assert find_gpu(typed) is gpu


@given(st.one_of(st.text(max_size=120), st.text("RTXAMGBi 0123456789()-", max_size=20)))
def test_any_text_is_a_gpu_or_an_error_with_a_hint(text: str) -> None:
    found = outcome(text)
    assert found in GPUS if isinstance(found, Gpu) else found.hint and len(found.message) < 200


@given(st.sampled_from(GPUS), st.text("0123456789abcxyz", min_size=1, max_size=3))
def test_what_stands_behind_a_name_counts(gpu: Gpu, behind: str) -> None:
    """A longer name is that of another GPU or of none, never of the one that it starts with."""
    if gpu.name + behind not in gpu.also and outcome(gpu.name + behind) is gpu:
        assert behind.rstrip("gb") in {str(size) for size in gpu.sizes}


@pytest.mark.parametrize(
    ("vendor", "name", "mebibytes", "expected"),
    [
        ("nvidia", "NVIDIA GeForce RTX 4090", 24564, "GeForce RTX 4090"),
        ("nvidia", "GeForce RTX 3060", 12288, "GeForce RTX 3060 12GB"),
        ("nvidia", "NVIDIA GeForce RTX 3060", 8192, "GeForce RTX 3060 8GB"),
        ("nvidia", "NVIDIA GeForce RTX 3080", 12288, "GeForce RTX 3080 12GB"),
        ("nvidia", "NVIDIA GeForce RTX 4060 Ti", 16380, "GeForce RTX 4060 Ti 16GB"),
        ("nvidia", "NVIDIA GeForce RTX 5070 Laptop GPU", 8151, "GeForce RTX 5070 Laptop GPU"),
        ("nvidia", "NVIDIA GeForce RTX 3080 Laptop GPU", 16384, "GeForce RTX 3080 Laptop GPU 16GB"),
        ("nvidia", "NVIDIA A100-SXM4-80GB", 81920, "A100 80GB SXM"),
        ("nvidia", "NVIDIA A100 80GB PCIe", 81920, "A100 80GB PCIe"),
        ("nvidia", "NVIDIA A100-PCIE-40GB", 40536, "A100 40GB"),
        ("nvidia", "NVIDIA H100 80GB HBM3", 81559, "H100 SXM"),
        ("nvidia", "NVIDIA H100 PCIe", 81559, "H100 PCIe"),
        ("nvidia", "NVIDIA H100 NVL", 95830, "H100 NVL"),
        ("nvidia", "NVIDIA H200", 143771, "H200"),
        ("nvidia", "NVIDIA B200", 183359, "B200"),
        ("nvidia", "NVIDIA GH200 480GB", 97871, "GH200 96GB"),
        ("nvidia", "Tesla T4", 15360, "Tesla T4"),
        ("nvidia", "Tesla V100-SXM2-32GB", 32510, "Tesla V100 32GB"),
        ("nvidia", "NVIDIA A10G", 23028, "A10G"),
        ("nvidia", "NVIDIA L40S", 46068, "L40S"),
        ("nvidia", "NVIDIA RTX A2000 12GB", 12282, "RTX A2000 12GB"),
        ("nvidia", "NVIDIA RTX A2000", 6138, "RTX A2000 6GB"),
        ("nvidia", "NVIDIA T1000", 4096, "T1000"),
        ("nvidia", "NVIDIA T1000 8GB", 8192, "T1000 8GB"),
        ("nvidia", "NVIDIA RTX 6000 Ada Generation", 49140, "RTX 6000 Ada Generation"),
        ("nvidia", "NVIDIA GB10", 122_000, "GB10"),
        ("nvidia", "NVIDIA GeForce RTX 4090", 49140, "GeForce RTX 4090 48GB"),
        ("nvidia", "NVIDIA GeForce RTX 2080 Ti", 22528, "GeForce RTX 2080 Ti 22GB"),
        ("nvidia", "NVIDIA GeForce RTX 2070 Super with Max-Q Design", 8192, "GeForce RTX 2070 SUPER with Max-Q Design"),
        ("nvidia", "NVIDIA RTX 4000 Ada Generation Laptop GPU", 12282, "RTX 4000 Ada Generation Laptop GPU"),
        ("nvidia", "NVIDIA RTX A2000 8GB Laptop GPU", 8192, "RTX A2000 Laptop GPU 8GB"),
        ("nvidia", "NVIDIA RTX A2000 Laptop GPU", 4096, "RTX A2000 Laptop GPU 4GB"),
        ("nvidia", "NVIDIA RTX PRO 5000 Blackwell", 73_000, "RTX PRO 5000 72GB Blackwell"),
        ("nvidia", "NVIDIA B300 SXM6 AC", 275_040, "B300"),
        ("nvidia", "NVIDIA Jetson Orin Nano", 7_620, "Jetson Orin Nano 8GB"),
        ("nvidia", "NVIDIA Thor", 125_000, "Jetson AGX Thor"),
        ("amd", "Radeon RX 580 Series", 8192, "Radeon RX 580 8GB"),
        ("amd", "AMD Radeon 780M Graphics", 31_000, "Radeon 780M"),
        ("amd", "AMD Radeon RX 7900 XTX", 24560, "Radeon RX 7900 XTX"),
        ("amd", "AMD Radeon RX 9060 XT", 16304, "Radeon RX 9060 XT 16GB"),
        ("amd", "AMD Instinct MI250X / MI250", 65520, "Instinct MI250X"),
        ("amd", "AMD Radeon 8060S Graphics", 98304, "Radeon 8060S"),
        ("intel", "Intel(R) Arc(TM) A770 Graphics", 16225, "Arc A770 16GB"),
        ("intel", "Intel(R) Arc(TM) B580 Graphics", 12216, "Arc B580"),
        ("apple", "Apple M4 Max", 65536, "M4 Max 40-core"),
        ("apple", "Apple M4 Max", 36864, "M4 Max 32-core"),
        ("apple", "Apple M3 Max", 98304, "M3 Max 30-core"),
        ("apple", "Apple M1", 8192, "M1"),
        # Not in the table, a slice of a GPU, a rebuilt card, or somebody else's name.
        ("nvidia", "NVIDIA T1200 Laptop GPU", 4096, None),
        ("nvidia", "NVIDIA A100-SXM4-40GB MIG 1g.5gb", 4864, None),
        ("nvidia", "NVIDIA A100-SXM4-40GB", 4864, None),
        ("nvidia", "NVIDIA GeForce RTX 4090", 32760, None),
        ("nvidia", "NVIDIA T400 4GB", 4096, None),
        ("nvidia", "", 4096, None),
        ("amd", "AMD Radeon Graphics", 512, None),
        ("amd", "NVIDIA GeForce RTX 4090", 24564, None),
        ("nvidia", "Radeon RX 7900 XTX", 24560, None),
        ("intel", "Intel(R) UHD Graphics 770", 16384, None),
    ],
)
def test_names_that_drivers_report(vendor: Vendor, name: str, mebibytes: int, expected: str | None) -> None:
    found = gpu_reported_as(vendor, name, mebibytes * MIB)
    assert (found and found.name) == expected


@pytest.mark.parametrize(
    ("name", "card", "gib"),
    [("GRID T4-4Q", "Tesla T4", 4), ("NVIDIA A16-8C", "A16", 8), ("GRID A40-48Q", "A40", 48), ("t4-2b", "Tesla T4", 2)],
)
def test_a_share_of_a_card_has_its_bandwidth(name: str, card: str, gib: int) -> None:
    typed, reported = find_gpu(name), gpu_reported_as("nvidia", name, gib * GIB)
    for found in (typed, reported):
        assert found
        assert (found.name, found.gib, found.bandwidth, found.dies) == (name, gib, BY_NAME[card].bandwidth, 1)
    assert gpu_reported_as("nvidia", "GRID X9-4Q", 4 * GIB) is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [("R9 390", "Radeon R9 390"), ("MX150", "GeForce MX150"), ("AMD Radeon Vega 8 Graphics", "Radeon Vega 8")],
)
def test_older_and_smaller_gpus(name: str, expected: str) -> None:
    assert find_gpu(name).name == expected


def test_a_name_of_many_gpus_in_processors_is_answered_with_some_of_them() -> None:
    with pytest.raises(UsageError) as caught:
        find_gpu("AMD Radeon(TM) Graphics")
    assert "Radeon 780M" in caught.value.hint


def test_an_open_name_without_memory_stays_open() -> None:
    assert gpu_reported_as("nvidia", "NVIDIA GeForce RTX 3060", None) is None
    assert gpu_reported_as("nvidia", "NVIDIA GeForce RTX 4090", None) is not None


@given(st.sampled_from(list(VENDORS)), st.text(max_size=120), st.integers(0, 2**50))
def test_no_driver_can_break_it(vendor: Vendor, name: str, memory: int) -> None:
    found = gpu_reported_as(vendor, name, memory)
    assert found is None or found.vendor == vendor


@given(st.sampled_from(GPUS))
def test_every_gpu_is_found_as_its_driver_would_name_it(gpu: Gpu) -> None:
    reported = gpu.sizes[0] * GIB if gpu.unified else int(0.95 * gpu.memory)
    assert gpu_reported_as(gpu.vendor, f"{VENDORS[gpu.vendor]} {gpu.name}", reported) is gpu


@pytest.mark.parametrize(
    ("vendor", "gib", "least", "most"),
    [("nvidia", 4, 100, 200), ("nvidia", 24, 400, 1000), ("nvidia", 23.5, 400, 1000), ("apple", 64, 300, 900)],
)
def test_a_typical_bandwidth_is_one_of_cards_of_that_size(vendor: Vendor, gib: float, least: int, most: int) -> None:
    found = typical_bandwidth(vendor, int(gib * GIB)) / 1e9
    assert least <= found <= most
    assert any(gpu.gb_per_s == found for gpu in GPUS if gpu.vendor == vendor)


def test_beyond_every_card_the_largest_are_typical() -> None:
    assert typical_bandwidth("nvidia", 10_000 * GIB) >= typical_bandwidth("nvidia", 100 * GIB)
