from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes_cli.errors import UsageError
from hermes_cli.hardware.gpus import find_gpu, typical_bandwidth
from hermes_cli.hardware.machine import Device, Machine, Note
from hermes_cli.hardware.simulate import ALL_FREE, MACS_FREE, ONLY_VULKAN, parse_size, simulate

GIB = 2**30
MINE = Device("nvidia", "GeForce RTX 3060", 12 * GIB, 3 * GIB, 360e9, "table", "cuda", users=("python 9 GB",))
HERE = Machine(
    devices=(MINE,),
    ram_total=32 * GIB,
    ram_available=20 * GIB,
    ram_bandwidth=50e9,
    ram_bandwidth_source="measured",
    cpu="A processor",
    cores=8,
    simd=("AVX2",),
    os="Linux",
    disk_path="/models",
    disk_free=100 * GIB,
    backends=("cpu",),
)
MAC = replace(
    HERE,
    devices=(Device("apple", "M4 Pro", 16 * GIB, 10 * GIB, 273e9, "table", "metal", unified=True, users=("x 1 GB",)),),
    ram_total=24 * GIB,
)


def simulated(
    here: Machine = HERE,
    *,
    gpu: Sequence[str] = (),
    vram: str | None = None,
    ram: str | None = None,
    apple: str | None = None,
    cpu_only: bool = False,
) -> Machine:
    return simulate(here, gpu=gpu, vram=vram, ram=ram, apple=apple, cpu_only=cpu_only)


def size_of(text: str) -> int | UsageError:
    try:
        return parse_size(text, "--vram")
    except UsageError as error:
        return error


def names(machine: Machine) -> list[str]:
    return [device.name for device in machine.devices]


def test_no_flag_changes_nothing() -> None:
    assert simulated() is HERE


def test_a_named_card_takes_the_place_of_mine() -> None:
    machine = simulated(gpu=["RTX 4090"])
    assert machine.simulated
    assert machine.backends == ("cpu", "cuda")
    assert (machine.ram_total, machine.ram_available, machine.ram_bandwidth_source) == (32 * GIB, 20 * GIB, "measured")
    assert (machine.cpu, machine.cores, machine.disk_free) == (HERE.cpu, HERE.cores, HERE.disk_free)
    (device,) = machine.devices
    assert device == Device(
        vendor="nvidia",
        name="GeForce RTX 4090",
        total=24 * GIB,
        free=24 * GIB,
        bandwidth=1008e9,
        bandwidth_source="table",
        backend="cuda",
        compute_capability="8.9",
        operations=find_gpu("RTX 4090").operations,
    )
    assert ALL_FREE in machine.notes


@pytest.mark.parametrize(
    ("gpu", "expected"),
    [
        (["2xH100"], ["H100 SXM"] * 2),
        (["2 x RTX 3090"], ["GeForce RTX 3090"] * 2),
        (["3X RTX 3090"], ["GeForce RTX 3090"] * 3),
        (["2\u00d74090"], ["GeForce RTX 4090"] * 2),
        (["2*4090"], ["GeForce RTX 4090"] * 2),
        (["RTX 4090x2"], ["GeForce RTX 4090"] * 2),
        (["RTX 3090 x 3"], ["GeForce RTX 3090"] * 3),
        (["7900 XTX \u00d72"], ["Radeon RX 7900 XTX"] * 2),
        (["GTX 1060"], ["GeForce GTX 1060 6GB"]),
        (["GTX 1060 3GB"], ["GeForce GTX 1060 3GB"]),
        (["RX580"], ["Radeon RX 580 8GB"]),
        (["1xT4"], ["Tesla T4"]),
        (["16xA100"], ["A100 80GB SXM"] * 16),
        (["RTX 4090", "RTX 3060 12GB"], ["GeForce RTX 4090", "GeForce RTX 3060 12GB"]),
        (["RTX 4090, 2x3090"], ["GeForce RTX 4090", "GeForce RTX 3090", "GeForce RTX 3090"]),
        (["7900 XTX"], ["Radeon RX 7900 XTX"]),
        (["MI250X"], ["Instinct MI250X"] * 2),
        (["A16"], ["A16"] * 4),
        (["Arc B580"], ["Arc B580"]),
    ],
)
def test_cards_add_up(gpu: list[str], expected: list[str]) -> None:
    assert names(simulated(gpu=gpu)) == expected


@pytest.mark.parametrize(
    ("gpu", "backends"),
    [
        (["T4"], ("cpu", "cuda")),
        (["7900 XTX"], ("cpu", "rocm")),
        (["B580"], ("cpu", "sycl")),
        (["4090", "3090"], ("cpu", "cuda")),
        (["4090", "7900 XTX"], ("cpu", "vulkan")),
    ],
)
def test_the_vendor_decides_the_backend(gpu: list[str], backends: tuple[str, ...]) -> None:
    machine = simulated(gpu=gpu)
    assert machine.backends == backends
    assert {device.backend for device in machine.devices} == set(backends[1:])
    assert all(device.usable for device in machine.devices)
    assert (ONLY_VULKAN in machine.notes) == (backends[1] == "vulkan")


@pytest.mark.parametrize(
    ("gpu", "ram", "ram_total", "total"),
    [
        ("DGX Spark", None, 128 * GIB, int(115.2 * GIB)),
        ("Ryzen AI Max+ 395", None, 128 * GIB, 96 * GIB),
        ("Ryzen AI Max+ 395", "64G", 64 * GIB, 48 * GIB),
        ("Ryzen AI Max+ 395 64GB", None, 64 * GIB, 48 * GIB),
        ("Jetson AGX Orin", None, 64 * GIB, int(57.6 * GIB)),
        ("Jetson AGX Orin 32GB", None, 32 * GIB, int(28.8 * GIB)),
        ("AGX Orin 32 GB", None, 32 * GIB, int(28.8 * GIB)),
        ("Orin NX 8GB", None, 8 * GIB, int(7.2 * GIB)),
        ("Xavier NX 8G", None, 8 * GIB, int(7.2 * GIB)),
        ("Jetson Nano 2GB", None, 2 * GIB, int(1.8 * GIB)),  # not in the table
        ("Iris Xe 16GB", None, 16 * GIB, 12 * GIB),
        ("Intel Arc 140V", None, 32 * GIB, 24 * GIB),
        ("Orin NX 8GB", "16G", 16 * GIB, int(14.4 * GIB)),
    ],
)
def test_chips_that_share_the_ram(gpu: str, ram: str | None, ram_total: int, total: int) -> None:
    machine = simulated(gpu=[gpu], ram=ram)
    (device,) = machine.devices
    assert device.unified
    assert (machine.ram_total, device.total, device.free) == (ram_total, total, total)
    assert (machine.ram_bandwidth, machine.ram_bandwidth_source) == (device.bandwidth, "table")


@pytest.mark.parametrize(
    ("vram", "totals"),
    [("24G", [24]), ("24G,24G", [24, 24]), (" 24 GiB , 12GB", [24, 12]), ("0.5T", [512])],
)
def test_memory_of_unnamed_cards(vram: str, totals: list[int]) -> None:
    machine = simulated(vram=vram)
    assert [device.total for device in machine.devices] == [total * GIB for total in totals]
    assert all(device.free == device.total for device in machine.devices)
    assert {device.bandwidth_source for device in machine.devices} == {"assumed"}
    assert all(device.bandwidth == typical_bandwidth("nvidia", device.total) for device in machine.devices)
    assert machine.simulated


def test_other_ram_keeps_my_card_as_it_is() -> None:
    machine = simulated(ram="64G")
    assert machine.devices == (MINE,)
    assert (machine.ram_total, machine.ram_available) == (64 * GIB, int(64 * GIB * 0.9))
    assert (machine.ram_bandwidth, machine.ram_bandwidth_source) == (50e9, "assumed")
    assert machine.simulated
    assert machine.backends == HERE.backends


def test_other_ram_of_a_mac_gives_its_gpu_more() -> None:
    (device,) = simulated(MAC, ram="48G").devices
    assert (device.total, device.free, device.users) == (36 * GIB, 36 * GIB, ())


def test_flags_that_go_together() -> None:
    machine = simulated(gpu=["T4"], ram="64G")
    assert (names(machine), machine.ram_total) == (["Tesla T4"], 64 * GIB)
    machine = simulated(vram="8G", ram="64G")
    assert (machine.devices[0].total, machine.ram_total) == (8 * GIB, 64 * GIB)
    machine = simulated(cpu_only=True, ram="64G")
    assert (machine.devices, machine.ram_total) == ((), 64 * GIB)


def test_without_a_gpu() -> None:
    machine = simulated(cpu_only=True)
    assert machine == replace(HERE, devices=(), simulated=True, notes=machine.notes)


def test_a_mac_of_which_only_the_memory_is_known() -> None:
    machine = simulated(apple="64G")
    (device,) = machine.devices
    assert (machine.ram_total, device.total, device.free) == (64 * GIB, 48 * GIB, 48 * GIB)
    assert machine.ram_available == pytest.approx(58.44 * GIB, rel=1e-3)
    assert (device.vendor, device.backend, device.unified) == ("apple", "metal", True)
    assert (device.bandwidth, device.bandwidth_source) == (typical_bandwidth("apple", 64 * GIB), "assumed")
    assert (machine.ram_bandwidth, machine.simd, machine.os) == (device.bandwidth, ("NEON",), "macOS")


def test_a_gpu_without_a_name_is_told_how_to_name_it() -> None:
    fixes = {"64G": ['--apple "M5 Max 64G"'], "100G": [], "M4 Max 64G": []}
    for apple, fix in fixes.items():
        assert [note.fix for note in simulated(apple=apple).notes if note.fix] == fix
    assert [note.fix for note in simulated(vram="24G").notes if note.fix] == ["--gpu NAME"]
    assert not any(note.fix for note in simulated(gpu=["RTX 4090"]).notes)


@pytest.mark.parametrize(
    ("apple", "name", "gb_per_s", "limit"),
    [
        ("M4 Max 64G", "M4 Max 40-core", 546, 48 * GIB),
        ("Apple M4 Max 36 GB", "M4 Max 32-core", 410, 27 * GIB),
        ("m3 max 96GiB", "M3 Max 30-core", 300, 72 * GIB),
        ("M3 Max 40-core 64G", "M3 Max 40-core", 400, 48 * GIB),
        ("M1 8G", "M1", 68, 8 * GIB * 2 // 3),
        ("M3 Ultra 0.5T", "M3 Ultra", 819, 384 * GIB),
    ],
)
def test_a_mac_by_its_chip(apple: str, name: str, gb_per_s: float, limit: int) -> None:
    machine = simulated(apple=apple)
    (device,) = machine.devices
    assert (device.name, device.bandwidth, device.total) == (name, gb_per_s * 1e9, limit)
    assert (machine.ram_bandwidth, machine.ram_bandwidth_source) == (device.bandwidth, "table")
    assert machine.cpu == f"Apple {name}"


@pytest.mark.parametrize(("ram", "limit"), [(32, 32 * GIB * 2 // 3), (36, 27 * GIB), (48, 36 * GIB)])
def test_metal_gives_two_thirds_below_36_gib_and_three_quarters_from_there_on(ram: int, limit: int) -> None:
    assert simulated(apple=f"{ram}G").devices[0].total == limit
    assert simulated(MAC, ram=f"{ram}G").devices[0].total == limit


@pytest.mark.parametrize(("ram", "free"), [(8, 4.7), (16, 16 * 2 / 3), (32, 32 * 2 / 3), (64, 48), (4, 2), (1, 0.5)])
def test_macos_takes_its_part_before_a_model_does(ram: int, free: float) -> None:
    """4.7 GB are free on an 8 GB M1 with a few programs open; on larger Macs the limit of the GPU is less."""
    for machine in (simulated(apple=f"{ram}G"), simulated(MAC, ram=f"{ram}G")):
        assert machine.devices[0].free == pytest.approx(free * GIB, rel=0.01)
        assert machine.devices[0].free <= machine.ram_available < machine.ram_total


def test_other_ram_leaves_a_carve_out_as_it_is() -> None:
    apu = Device(
        "amd", "Radeon 8060S", 112 * GIB, 100 * GIB, 256e9, "table", "vulkan", unified=True, carve_out=96 * GIB
    )
    (device,) = simulated(replace(HERE, devices=(apu,), ram_total=32 * GIB), ram="64G").devices
    assert (device.total, device.carve_out) == (128 * GIB, 96 * GIB)


@pytest.mark.parametrize(("gpu", "backend"), [("RX 6600", "vulkan"), ("RX 580", "vulkan"), ("RX 7900 XTX", "rocm")])
def test_a_card_without_code_of_rocms_is_planned_with_vulkan(gpu: str, backend: str) -> None:
    assert [device.backend for device in simulated(gpu=[gpu]).devices] == [backend]


ABOUT_RAM = Note("ram", "Of the machine's 68.72 GB of RAM, 34.36 GB may be used here.")
ABOUT_MINE = Note("devices", 'CUDA_VISIBLE_DEVICES="0" hides 1 of 2 NVIDIA devices.', fix="unset CUDA_VISIBLE_DEVICES")
NOTED = replace(HERE, notes=(ABOUT_RAM, ABOUT_MINE))


@pytest.mark.parametrize(
    ("flags", "kept"),
    [
        ({"gpu": ["RTX 4090"]}, {ABOUT_RAM}),
        ({"vram": "24G"}, {ABOUT_RAM}),
        ({"cpu_only": True}, {ABOUT_RAM}),
        ({"ram": "64G"}, {ABOUT_MINE}),
        ({"gpu": ["RTX 4090"], "ram": "64G"}, set()),
        ({"cpu_only": True, "ram": "64G"}, set()),
        ({"gpu": ["DGX Spark"]}, set()),
        ({"apple": "64G"}, set()),
    ],
)
def test_notes_on_what_is_replaced_are_dropped(flags: dict[str, Any], kept: set[Note]) -> None:
    notes = simulated(NOTED, **flags).notes
    assert set(notes) & set(NOTED.notes) == kept
    assert len(set(notes)) == len(notes)
    assert any(note.about == "simulation" for note in notes)


def test_a_machine_without_gpus_has_no_simulated_ones_that_are_free() -> None:
    assert MACS_FREE in simulated(MAC, ram="48G").notes
    assert MACS_FREE not in simulated(MAC, ram="48G", cpu_only=True).notes
    assert ALL_FREE in simulated(gpu=["T4"]).notes
    assert ALL_FREE not in simulated(ram="48G").notes


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"gpu": ["T4"], "vram": "24G"}, "--gpu and --vram"),
        ({"gpu": ["T4"], "apple": "64G"}, "--gpu and --apple"),
        ({"gpu": ["T4"], "cpu_only": True}, "--gpu and --cpu-only"),
        ({"vram": "24G", "apple": "64G"}, "--vram and --apple"),
        ({"vram": "24G", "cpu_only": True}, "--vram and --cpu-only"),
        ({"apple": "64G", "cpu_only": True}, "--apple and --cpu-only"),
        ({"apple": "64G", "ram": "64G"}, "--ram and --apple"),
        ({"gpu": ["T4"], "vram": "1G", "ram": "1G", "apple": "1G", "cpu_only": True}, "--gpu and --vram and --apple"),
    ],
)
def test_flags_that_contradict_each_other(flags: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match="contradict each other") as caught:
        simulated(**flags)
    assert says in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("flags", "says", "hint"),
    [
        ({"gpu": ["RTX 9999"]}, "no GPU named RTX 9999", "nearest names"),
        ({"gpu": [""]}, "no GPU named", "--vram 24G"),
        ({"gpu": ["T4,"]}, "no GPU named", "--vram 24G"),
        ({"gpu": ["RTX 4060 Ti"]}, "the name of 2 GPUs", "16GB"),
        ({"gpu": ["0xT4"]}, "0 GPUs", "1 to 16"),
        ({"gpu": ["17xT4"]}, "17 GPUs", "1 to 16"),
        ({"gpu": ["16xT4", "T4"]}, "17 GPUs", "at most 16"),
        ({"gpu": ["9xMI250X"]}, "18 GPUs", "at most 16"),
        ({"vram": ",".join(["1G"] * 17)}, "17 GPUs", "at most 16"),
        ({"gpu": ["M4 Pro"]}, "M4 Pro is a Mac's chip", '--apple "M4 Pro 24G"'),
        ({"gpu": ["Apple M3 Max 64G"]}, "is a Mac's chip", 'type --apple "M3 Max 64G"'),
        ({"gpu": ["2xDGX Spark"]}, "two machines", "one machine"),
        ({"gpu": ["DGX Spark", "Strix Halo"]}, "two machines", "one machine"),
        ({"vram": ""}, "--vram: '' is not a size", "--vram 24G"),
        ({"vram": "24G,"}, "--vram: '' is not a size", "--vram 24G"),
        ({"ram": "lots"}, "--ram: 'lots' is not a size", "--ram 24G"),
        ({"apple": ""}, "needs the size", "--apple 64G"),
        ({"apple": "M4 Pro"}, "needs the size", '--apple "M4 Pro 24G"'),
        ({"apple": "M4 Max 40-core"}, "needs the size", '--apple "M4 Max 48G"'),
        ({"apple": "nonsense"}, "needs the size", "--apple 64G"),
        ({"apple": "M4 Pro 96G"}, "only with 24, 48, 64", "--apple 96G"),
        ({"apple": "M4 Max 40G"}, "only with 36, 48, 64, 128", "--apple 40G"),
        ({"apple": "M4 Pro 24000M"}, "only with 24, 48, 64", "--apple 23.4"),
        ({"apple": "RTX 4090 24G"}, "not a chip of Apple's", '--gpu "RTX 4090"'),
        ({"apple": "M9 24G"}, "no GPU named M9", "nearest names"),
        ({"apple": "M4 Pro 0G"}, "too little", "24G"),
    ],
)
def test_what_cannot_be_simulated(flags: dict[str, Any], says: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        simulated(**flags)
    assert says in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("24G", 24 * GIB),
        ("24g", 24 * GIB),
        ("24", 24 * GIB),
        ("0.5", GIB // 2),
        ("24GB", 24 * GIB),
        (" 24 GiB ", 24 * GIB),
        ("24576M", 24 * GIB),
        ("24576 mib", 24 * GIB),
        ("0.5T", 512 * GIB),
        ("1.5G", 3 * GIB // 2),
        ("1M", 2**20),
        ("100T", 100 * 2**40),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text, "--ram") == size


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "24576", "G", "-24G", "+24G", "24K", "24B", "24GG", "24 Gigabytes", "NaN", "nanG", "infG", "1e3G"),
        *("0x10G", "1,5G", "1.G", ".5G", "1..5G", "24G 24G", "24\u00a0\u0262", "\u0662\u0664G", "24G\0", "24\nG\nx"),
        *("0G", "0.0T", "0.5M", "101T", "100.1T", "999999999999999T", "1" * 5000 + "G", "24G;"),
    ],
)
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="--ram: ") as caught:
        parse_size(text, "--ram")
    assert "--ram 24G" in caught.value.hint
    assert len(caught.value.message) < 200


@given(st.one_of(st.text(max_size=60), st.text("0123456789.,-+eE MGTKiBb", max_size=30)))
def test_parse_size_never_crashes(text: str) -> None:
    size = size_of(text)
    assert 2**20 <= size <= 100 * 2**40 if isinstance(size, int) else "--vram 24G" in size.hint


@given(st.integers(1, 100 * 2**20), st.sampled_from(["M", "MB", "MiB", " m", " mib"]))
def test_whole_mebibytes_are_exact(count: int, unit: str) -> None:
    assert parse_size(f"{count}{unit}", "--ram") == count * 2**20


@given(
    gpu=st.lists(st.text("RTXAM 0123456789x,GB", max_size=12), max_size=2),
    vram=st.none() | st.text("0123456789.GMT, ", max_size=8),
    ram=st.none() | st.text("0123456789.GMT ", max_size=6),
    apple=st.none() | st.text("M1234 ProMax0123456789G", max_size=12),
    cpu_only=st.booleans(),
)
def test_any_flags_make_a_machine_or_a_usage_error(
    *, gpu: list[str], vram: str | None, ram: str | None, apple: str | None, cpu_only: bool
) -> None:
    try:
        machine = simulate(HERE, gpu=gpu, vram=vram, ram=ram, apple=apple, cpu_only=cpu_only)
    except UsageError:
        return
    assert machine is HERE or machine.simulated
    assert all(0 < device.free <= device.total for device in machine.devices)
    assert machine.ram_available <= machine.ram_total
