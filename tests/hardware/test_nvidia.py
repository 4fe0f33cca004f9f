from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pynvml  # type: ignore[import-untyped]
import pytest

from hermes_cli.hardware import nvidia
from hermes_cli.hardware.machine import Device, Note
from hermes_cli.hardware.system import SystemMemory

GB = 10**9
MIB = 2**20
RAM = SystemMemory(64 * GB, 48 * GB)

SM, MEM = pynvml.NVML_CLOCK_SM, pynvml.NVML_CLOCK_MEM
NOT_SUPPORTED, NO_PERMISSION = pynvml.NVMLError_NotSupported, pynvml.NVMLError_NoPermission


class Card(dict[str, Any]):
    """What NVML answers of one card: the name of a function after `nvmlDeviceGet`, and its answer or its error."""

    instances: tuple[Card | None, ...] = ()


def memory(total: int, free: int) -> SimpleNamespace:
    """As nvmlDeviceGetMemoryInfo, from MiB as nvidia-smi prints them."""
    return SimpleNamespace(total=total * MIB, free=free * MIB, used=(total - free) * MIB)


def process(pid: int, used: int | None) -> SimpleNamespace:
    return SimpleNamespace(pid=pid, usedGpuMemory=used)


def rtx_4090(**others: object) -> Card:
    card = Card(
        Name="NVIDIA GeForce RTX 4090",
        UUID="GPU-8932f937-d72c-4106-c12f-20bd9faed9f6",
        MemoryInfo=memory(24564, 22518),
        MemoryBusWidth=384,
        MaxClockInfo={SM: 3105, MEM: 10501},
        NumGpuCores=16384,
        CudaComputeCapability=(8, 9),
        ComputeRunningProcesses=[process(4711, 1_300_000_000)],
        GraphicsRunningProcesses=[process(2210, 700_000_000), process(2400, 12_000_000)],
    )
    return Card(card | others)


def gtx_1060() -> Card:
    return Card(
        Name="NVIDIA GeForce GTX 1060 6GB",
        UUID="GPU-11112222-0000-4106-c12f-20bd9faed9f6",
        MemoryInfo=memory(6144, 6000),
        MemoryBusWidth=192,
        MaxClockInfo={SM: 1911, MEM: 4004},
        NumGpuCores=1280,
        CudaComputeCapability=(6, 1),
    )


def h100(uuid: str) -> Card:
    return Card(
        Name="NVIDIA H100 80GB HBM3",
        UUID=uuid,
        MemoryInfo=memory(81559, 81004),
        MemoryBusWidth=5120,
        MaxClockInfo={SM: 1980, MEM: 2619},
        NumGpuCores=16896,
        CudaComputeCapability=(9, 0),
        ComputeRunningProcesses=[],
        GraphicsRunningProcesses=[],
        MigMode=[0, 0],
    )


def instance(profile: str, uuid: str, megabytes: int) -> Card:
    return Card(
        Name=f"NVIDIA A100-SXM4-80GB MIG {profile}",
        UUID=uuid,
        MemoryInfo=memory(megabytes, megabytes - 25),
        Attributes=SimpleNamespace(memorySizeMB=megabytes),
        GpuInstanceId=2 if profile.startswith("3g") else 9,
        ComputeInstanceId=0,
        ComputeRunningProcesses=[],
        GraphicsRunningProcesses=[],
    )


def a100_in_slices() -> Card:
    card = Card(
        Name="NVIDIA A100-SXM4-80GB",
        UUID="GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77",
        MemoryInfo=memory(81920, 81000),
        MemoryBusWidth=5120,
        MaxClockInfo={SM: 1410, MEM: 1593},
        NumGpuCores=6912,
        CudaComputeCapability=(8, 0),
        ComputeRunningProcesses=NO_PERMISSION,
        MigMode=[1, 1],
        MaxMigDeviceCount=7,
    )
    card.instances = (
        instance("3g.40gb", "MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f", 40192),
        None,  # the second place is part of the 3g one
        instance("1g.10gb", "MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb", 9728),
    )
    return card


def laptop_under_wsl() -> Card:
    return Card(
        Name="NVIDIA GeForce RTX 4060 Laptop GPU",
        UUID="GPU-2f1d5bf6-74f6-a4d4-d9b4-0f4f2bd8a3ae",
        MemoryInfo=memory(8188, 6947),
        MaxClockInfo={SM: 3105, MEM: 8001},
        CudaComputeCapability=(8, 9),
        ComputeRunningProcesses=[process(99, None)],
    )


def t4() -> Card:
    return Card(
        Name="Tesla T4",
        UUID="GPU-3ff41bd8-8a16-4c1b-8c4c-8d8c4d6c2a11",
        MemoryInfo=memory(15360, 14918),
        MemoryBusWidth=256,
        MaxClockInfo={SM: 1590, MEM: 5001},
        NumGpuCores=2560,
        CudaComputeCapability=(7, 5),
    )


def unsupported(*_: object) -> None:
    raise NOT_SUPPORTED


def answered(value: object) -> object:
    if isinstance(value, type) and issubclass(value, Exception):
        raise value
    return value


def asks(key: str) -> Callable[..., object]:
    """nvmlDeviceGet<key>: of the card, or of the card and a kind (of clock)."""

    def ask(card: Card, *kind: int) -> object:
        value = answered(card.get(key, NOT_SUPPORTED))
        return answered(value[kind[0]]) if kind and isinstance(value, dict) else value

    return ask


def mig_device(card: Card, index: int) -> Card:
    found = card.instances[index] if index < len(card.instances) else None
    if found is None:
        raise pynvml.NVMLError_NotFound
    return found


def nvml(*cards: Card | type[Exception], programs: Mapping[int, str] | None = None) -> ModuleType:
    """A module with all of pynvml's functions; those that have no answer raise NotSupported."""
    module = ModuleType("pynvml")
    opened: list[int] = []
    names = {name: getattr(pynvml, name) for name in dir(pynvml)}
    keys = {key for card in cards if isinstance(card, Card) for key in (*card, *instance("", "", 0))}
    vars(module).update({name: value for name, value in names.items() if name.startswith("NVML")})
    vars(module).update(dict.fromkeys((name for name in names if name.startswith("nvml")), unsupported))
    vars(module).update({f"nvmlDeviceGet{key}": asks(key) for key in keys})
    vars(module).update(
        opened=opened,
        nvmlInit=lambda: opened.append(1),
        nvmlShutdown=opened.pop,
        nvmlSystemGetDriverVersion=lambda: "580.82.07",
        nvmlSystemGetProcessName=lambda pid: answered((programs or {}).get(pid, NO_PERMISSION)),
        nvmlDeviceGetCount=lambda: len(cards),
        nvmlDeviceGetHandleByIndex=lambda index: answered(cards[index]),
        nvmlDeviceGetMigDeviceHandleByIndex=mig_device,
    )
    return module


NOWHERE = Path("nowhere")  # a machine without /sys and /dev
Tree = Callable[[Mapping[str, str]], Path]
CARD_ON_THE_BUS = {
    "sys/bus/pci/devices/0000:01:00.0/vendor": "0x10de\n",
    "sys/bus/pci/devices/0000:01:00.0/class": "0x030000",
}


def look(module: ModuleType, notes: list[Note] | None = None, root: Path = NOWHERE, **environ: str) -> list[Device]:
    return nvidia.devices(module, root, RAM, environ, notes if notes is not None else [])


def texts(notes: list[Note]) -> list[str]:
    return [note.text for note in notes]


def test_a_desktop_card() -> None:
    notes: list[Note] = []
    module = nvml(rtx_4090(), programs={4711: "/usr/bin/python3 train.py", 2210: "/usr/lib/xorg/Xorg"})
    (card,) = look(module, notes)
    assert (card.vendor, card.name, card.backend) == ("nvidia", "GeForce RTX 4090", "cuda")
    assert (card.total, card.free) == (24564 * MIB, 22518 * MIB)
    assert card.bandwidth == pytest.approx(1008e9, rel=1e-3)  # NVIDIA's data sheet
    assert card.bandwidth_source == "probed"
    assert (card.driver, card.compute_capability, card.unified) == ("580.82.07", "8.9", False)
    assert card.users == ("python3 1.30 GB", "Xorg 700 MB", "process 2400 12 MB")
    assert notes == []
    assert module.opened == []


@pytest.mark.parametrize(
    ("card", "gigabytes_per_second"), [(h100("GPU-1"), 3352), (t4(), 320), (gtx_1060(), 192), (rtx_4090(), 1008)]
)
def test_bandwidths_are_those_of_the_data_sheets(card: Card, gigabytes_per_second: float) -> None:
    assert look(nvml(card))[0].bandwidth == pytest.approx(gigabytes_per_second * 1e9, rel=1e-3)


def test_several_cards_keep_their_own_memory() -> None:
    cards = look(nvml(h100("GPU-aaaa"), h100("GPU-bbbb")))
    assert [card.name for card in cards] == ["H100 80GB HBM3"] * 2
    assert [card.total for card in cards] == [81559 * MIB] * 2


def test_own_process_and_duplicates_are_no_other_users() -> None:
    mine, other = process(os.getpid(), 5 * GB), process(7, 2 * GB)
    card = rtx_4090(ComputeRunningProcesses=[mine, other], GraphicsRunningProcesses=[other])
    assert look(nvml(card, programs={7: r"C:\Program Files\Games\game.exe"}))[0].users == ("game.exe 2.00 GB",)


def test_sizes_that_are_not_told_are_no_sizes() -> None:
    card = rtx_4090(ComputeRunningProcesses=[process(7, 2**64 - 1)], GraphicsRunningProcesses=[])
    assert look(nvml(card, programs={7: "/opt/app"}))[0].users == ("app",)


def test_what_wsl_does_not_tell_is_unknown_and_nothing_else() -> None:
    notes: list[Note] = []
    (card,) = look(nvml(laptop_under_wsl(), programs={99: "python"}), notes)
    assert (card.total, card.free) == (8188 * MIB, 6947 * MIB)
    assert (card.bandwidth, card.bandwidth_source) == (None, "assumed")
    assert card.users == ("python",)
    assert notes == []


@pytest.mark.parametrize("function", ["Name", "UUID", "MemoryBusWidth", "MaxClockInfo", "CudaComputeCapability"])
@pytest.mark.parametrize("error", [NOT_SUPPORTED, NO_PERMISSION, pynvml.NVMLError_Unknown])
def test_any_call_may_fail(function: str, error: type[Exception]) -> None:
    (card,) = look(nvml(rtx_4090(**{function: error})))
    assert (card.total, card.free) == (24564 * MIB, 22518 * MIB)
    assert card.name == ("GPU" if function == "Name" else "GeForce RTX 4090")
    assert (card.bandwidth is None) == (function in {"MemoryBusWidth", "MaxClockInfo"})
    assert card.compute_capability == ("" if function == "CudaComputeCapability" else "8.9")


def test_memory_that_cannot_be_asked_for_is_noted() -> None:
    notes: list[Note] = []
    (card,) = look(nvml(rtx_4090(MemoryInfo=NO_PERMISSION)), notes)
    assert (card.total, card.free, card.unified) == (0, 0, False)
    assert texts(notes) == [
        "NVIDIA's driver does not tell the memory of GeForce RTX 4090; hardware.yaml can (docs/planning.md)."
    ]


def test_memory_of_zero_is_not_told() -> None:
    notes: list[Note] = []
    (card,) = look(nvml(rtx_4090(MemoryInfo=memory(0, 0))), notes)
    assert (card.total, card.free) == (0, 0)
    assert texts(notes) == [
        "NVIDIA's driver does not tell the memory of GeForce RTX 4090; hardware.yaml can (docs/planning.md)."
    ]


@pytest.mark.parametrize(
    "card",
    [
        Card(Name="NVIDIA GB10", MemoryInfo=NOT_SUPPORTED, CudaComputeCapability=(12, 1)),
        Card(Name="NVIDIA GB10", MemoryInfo=memory(122_000, 121_000), CudaComputeCapability=(12, 1)),  # newer drivers
        Card(Name="NVIDIA GB10", MemoryInfo=NO_PERMISSION),
        Card(Name="NVIDIA something new", MemoryInfo=memory(60_000, 50_000), CudaComputeCapability=(12, 1)),
        Card(Name="NVIDIA Thor", MemoryInfo=memory(125_000, 120_000), CudaComputeCapability=(11, 0)),
        Card(Name="Orin (nvgpu)", MemoryInfo=NOT_SUPPORTED, CudaComputeCapability=(8, 7)),
    ],
)
def test_a_gpu_without_memory_of_its_own_shares_the_ram_whatever_nvml_says(card: Card) -> None:
    (device,) = look(nvml(Card(card | {"UUID": "GPU-1"})))
    assert (device.total, device.free, device.unified) == (*RAM, True)


@pytest.mark.parametrize("name", ["GRID A40-8Q", "NVIDIA L40S-12Q", "NVIDIA GeForce RTX 4090"])
def test_a_virtual_gpu_that_tells_no_memory_is_not_the_ram(name: str) -> None:
    notes: list[Note] = []
    (device,) = look(nvml(Card(Name=name, UUID="GPU-1", MemoryInfo=NOT_SUPPORTED)), notes)
    assert (device.total, device.free, device.unified) == (0, 0, False)
    assert texts(notes) == [
        f"NVIDIA's driver does not tell the memory of {device.name}; hardware.yaml can (docs/planning.md)."
    ]


ORIN_NANO = {
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
    "usr/bin/ubuntu-drivers": "",
    "dev/nvmap": "",
}


@pytest.mark.parametrize("driver", ["none", "no library", "not loaded", "no GPU"])
def test_a_jetson_is_a_gpu_without_nvml(tree: Tree, driver: str) -> None:
    """JetPack before 6 has no NVML and no /dev/nvidiactl."""
    root, notes = tree(ORIN_NANO), list[Note]()
    modules = {
        "none": None,
        "no library": failing(pynvml.NVMLError_LibraryNotFound),
        "not loaded": failing(pynvml.NVMLError_DriverNotLoaded),
        "no GPU": nvml(),
    }
    (device,) = nvidia.devices(modules[driver], root, RAM, {}, notes)
    assert (device.name, device.backend, device.usable) == ("Jetson Orin Nano", "cuda", True)
    assert (device.total, device.free, device.unified) == (*RAM, True)
    assert notes == []


def test_nvml_is_asked_on_a_jetson_too(tree: Tree) -> None:
    root = tree(ORIN_NANO)
    assert nvidia.load(root, []) is pynvml
    (device,) = look(nvml(Card(Name="Orin (nvgpu)", UUID="GPU-1", CudaComputeCapability=(8, 7))), root=root)
    assert (device.name, device.total, device.compute_capability) == ("Jetson Orin Nano", RAM.total, "8.7")


@pytest.mark.parametrize(
    ("model", "compatible", "name"),
    [
        ("NVIDIA Jetson Orin Nano", "", "Jetson Orin Nano"),
        ("NVIDIA Jetson AGX Orin Developer Kit", "nvidia,tegra234", "Jetson AGX Orin"),
        ("NVIDIA Orin NX Developer Kit", "nvidia,p3768-0000+p3767-0000\0nvidia,tegra234", "Jetson Orin NX"),
        ("NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super", "", "Jetson Orin Nano"),
        ("NVIDIA Jetson AGX Thor Developer Kit", "nvidia,tegra264", "Jetson AGX Thor"),
        ("Jetson-AGX", "nvidia,tegra194", "Jetson-AGX"),
        ("quill", "nvidia,tegra186", "Jetson quill"),
        ("Raspberry Pi 5 Model B Rev 1.0", "raspberrypi,5-model-b\0brcm,bcm2712", ""),
        ("", "", ""),
    ],
)
def test_jetsons_by_their_device_tree(tree: Tree, model: str, compatible: str, name: str) -> None:
    files = {"proc/device-tree/model": f"{model}\0", "proc/device-tree/compatible": f"{compatible}\0"}
    assert [device.name for device in nvidia.devices(None, tree(files), RAM, {}, [])] == [name] * bool(name)


def test_a_container_on_a_jetson_needs_its_files(tree: Tree) -> None:
    root = tree(ORIN_NANO | {".dockerenv": ""})
    assert nvidia.devices(None, root, RAM, {}, [])[0].usable
    (root / "dev/nvmap").unlink()
    (device,) = nvidia.devices(None, root, RAM, {}, [])
    assert (device.usable, device.fix) == (False, "docker run --runtime nvidia …")
    assert device.reason == "no access to its device files"


def test_cudas_variable_hides_a_jetsons_gpu(tree: Tree) -> None:
    notes: list[Note] = []
    assert nvidia.devices(None, tree(ORIN_NANO), RAM, {"CUDA_VISIBLE_DEVICES": "-1"}, notes) == []
    assert [note.fix for note in notes] == ["unset CUDA_VISIBLE_DEVICES"]


def test_functions_that_pynvml_lacks_are_unknown() -> None:
    module = nvml(rtx_4090())
    del vars(module)["nvmlDeviceGetMemoryBusWidth"], vars(module)["nvmlDeviceGetComputeRunningProcesses"]
    (card,) = look(module)
    assert card.bandwidth is None
    assert len(card.users) == 2


def test_a_card_that_fell_off_the_bus() -> None:
    notes: list[Note] = []
    assert len(look(nvml(h100("GPU-aaaa"), pynvml.NVMLError_GpuIsLost), notes)) == 1
    lost = "NVIDIA GPU 1 is there, but the driver gives no access to it."
    assert notes == [Note("devices", lost, fix="nvidia-smi")]


def test_a_card_that_is_lost_while_it_is_asked() -> None:
    """It is unknown in everything, and takes no other along."""
    lost = Card(dict.fromkeys(rtx_4090(), pynvml.NVMLError_GpuIsLost))
    first, second = look(nvml(lost, rtx_4090(ComputeRunningProcesses=pynvml.NVMLError_Unknown)))
    assert (first.name, first.total, first.bandwidth, first.users) == ("GPU", 0, None, ())
    assert (second.name, second.total, second.bandwidth) == ("GeForce RTX 4090", 24564 * MIB, 1008.096e9)
    assert len(second.users) == 2


@pytest.mark.parametrize("count", [0, pynvml.NVMLError_Unknown])
def test_a_driver_without_cards(tree: Tree, count: int | type[Exception]) -> None:
    module = nvml()
    vars(module)["nvmlDeviceGetCount"] = lambda: answered(count)
    notes: list[Note] = []
    assert look(module, notes) == []
    assert notes == []
    assert look(module, notes, tree(CARD_ON_THE_BUS)) == []
    assert notes == [Note("devices", "NVIDIA's driver answers, but it finds no GPU.", fix="nvidia-smi")]


def failing(error: type[Exception]) -> ModuleType:
    """A module whose nvmlInit raises it."""
    module = nvml(rtx_4090())
    vars(module)["nvmlInit"] = lambda: answered(error)
    return module


@pytest.mark.parametrize(
    ("error", "says", "fix"),
    [
        (pynvml.NVMLError_LibraryNotFound, "NVML Shared Library Not Found", ""),
        (pynvml.NVMLError_DriverNotLoaded, "Driver Not Loaded", "sudo modprobe nvidia"),
        (pynvml.NVMLError_LibRmVersionMismatch, "RM has detected an NVML/RM version mismatch", "sudo reboot"),
        (pynvml.NVMLError_Unknown, "Unknown Error", "nvidia-smi"),
    ],
)
def test_a_driver_that_does_not_answer(tree: Tree, error: type[Exception], says: str, fix: str) -> None:
    notes: list[Note] = []
    assert look(failing(error), notes, tree(CARD_ON_THE_BUS)) == []
    (note,) = notes
    assert says in note.text
    assert (note.about, note.fix) == ("devices", fix)


@pytest.mark.parametrize(
    ("file", "fix"),
    [
        (".dockerenv", "docker run --gpus all …"),
        ("run/.containerenv", "podman run --device nvidia.com/gpu=all …"),
        ("usr/bin/ubuntu-drivers", "sudo ubuntu-drivers install"),
    ],
)
def test_a_card_without_a_driver(tree: Tree, file: str, fix: str) -> None:
    notes: list[Note] = []
    look(failing(pynvml.NVMLError_LibraryNotFound), notes, tree(CARD_ON_THE_BUS | {file: ""}))
    assert [note.fix for note in notes] == [fix]


@pytest.mark.parametrize(
    ("error", "file", "fix"),
    [
        (pynvml.NVMLError_Unknown, ".dockerenv", "docker restart …"),
        (pynvml.NVMLError_DriverNotLoaded, "dev/dxg", "wsl.exe --shutdown"),
        (pynvml.NVMLError_DriverNotLoaded, ".dockerenv", "docker run --gpus all …"),
        (pynvml.NVMLError_LibRmVersionMismatch, "run/.containerenv", "podman restart …"),
    ],
)
def test_the_advice_is_for_the_place(tree: Tree, error: type[Exception], file: str, fix: str) -> None:
    notes: list[Note] = []
    look(failing(error), notes, tree(CARD_ON_THE_BUS | {file: ""}))
    assert [note.fix for note in notes] == [fix]


def test_wsl_and_windows_without_such_a_card_are_no_fault(tree: Tree) -> None:
    notes: list[Note] = []
    assert look(failing(pynvml.NVMLError_LibraryNotFound), notes, tree({"dev/dxg": ""})) == []
    assert notes == []


def test_a_card_in_mig_mode_is_its_instances() -> None:
    notes: list[Note] = []
    large, small = look(nvml(a100_in_slices()), notes)
    assert (large.name, large.total) == ("A100-SXM4-80GB MIG 3g.40gb", 40192 * MIB)
    assert (small.name, small.total) == ("A100-SXM4-80GB MIG 1g.10gb", 9728 * MIB)
    whole = 5120 * 1593e6 * 2 / 8
    assert (large.bandwidth, small.bandwidth) == (whole / 2, whole / 8)
    assert (large.compute_capability, small.compute_capability) == ("8.0", "8.0")
    # CUDA gives a process one instance: the first, unless told otherwise
    assert (large.usable, small.usable) == (True, False)
    assert small.fix == "export CUDA_VISIBLE_DEVICES=MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb"
    assert small.reason == "CUDA uses one MIG instance at a time, and no card beside it"
    assert notes == []


@pytest.mark.parametrize(
    "choice",
    [
        "MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb",
        "MIG-cba663e8",
        "MIG-GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77/9/0",
        "MIG-cba663e8,MIG-GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77/9/0",
    ],
)
def test_an_instance_chosen_by_its_uuid_or_its_older_name(choice: str) -> None:
    (one,) = look(nvml(a100_in_slices()), CUDA_VISIBLE_DEVICES=choice)
    assert (one.name, one.usable, one.fix) == ("A100-SXM4-80GB MIG 1g.10gb", True, "")


def test_whole_cards_are_not_used_beside_an_instance() -> None:
    cards = look(nvml(h100("GPU-aaaa"), a100_in_slices()))
    assert [(card.name, card.usable) for card in cards] == [
        ("H100 80GB HBM3", False),
        ("A100-SXM4-80GB MIG 3g.40gb", True),
        ("A100-SXM4-80GB MIG 1g.10gb", False),
    ]
    assert cards[0].fix == "export CUDA_VISIBLE_DEVICES=GPU-aaaa"
    assert [card.name for card in look(nvml(h100("GPU-aaaa"), a100_in_slices()), CUDA_VISIBLE_DEVICES="0")] == [
        "H100 80GB HBM3"
    ]


def test_instances_without_attributes_have_no_bandwidth() -> None:
    card = a100_in_slices()
    for one in card.instances:
        if one:
            del one["Attributes"]
    assert [one.bandwidth for one in look(nvml(card))] == [None, None]


def test_a_card_that_hides_its_size_from_its_instances() -> None:
    """A container that was given an instance may not ask for the card's memory, or gets none of it."""
    for answer in (NO_PERMISSION, memory(0, 0)):
        card = a100_in_slices()
        card["MemoryInfo"] = answer
        large, small = look(nvml(card))
        assert (large.total, small.total) == (40192 * MIB, 9728 * MIB)
        assert (large.bandwidth, small.bandwidth) == (None, None)


def test_mig_mode_without_instances_leaves_nothing() -> None:
    card = a100_in_slices()
    card.instances = ()
    notes: list[Note] = []
    assert look(nvml(card), notes) == []
    none = "A100-SXM4-80GB is in MIG mode but has no instance, so CUDA cannot use it."
    assert notes == [Note("devices", none, f"sudo nvidia-smi mig -i {card['UUID']} -cgi 0 -C")]


UUIDS = ("GPU-aaaa1111", "GPU-aaaa2222", "GPU-bbbb3333")


@pytest.mark.parametrize(
    ("choice", "left"),
    [
        ("0,1,2", [0, 1, 2]),
        ("2,0", [2, 0]),
        (" 1 , 2 ", [1, 2]),
        ("", []),
        ("-1", []),
        ("0,-1,2", [0]),
        ("1,7,0", [1]),
        ("NoDevFiles", []),
        ("GPU-bbbb3333", [2]),
        ("GPU-b", [2]),
        ("gpu-AAAA2,0", [1, 0]),
        ("GPU-aaaa", []),  # it could be either
        ("0,0,1", [0, 1]),
        ("0,,1", [0]),
        ("9" * 5000, []),
        (" ", []),
        ("GPU-", []),
    ],
)
def test_cuda_visible_devices(choice: str, left: list[int]) -> None:
    cards = [h100(uuid) | {"Name": f"NVIDIA {i}"} for i, uuid in enumerate(UUIDS)]
    notes: list[Note] = []
    found = look(nvml(*(Card(card) for card in cards)), notes, CUDA_VISIBLE_DEVICES=choice)
    assert [int(device.name) for device in found] == left
    hidden = 3 - len(left)
    hides = Note(
        "devices", f'CUDA_VISIBLE_DEVICES="{choice}" hides {hidden} of 3 NVIDIA devices.', "unset CUDA_VISIBLE_DEVICES"
    )
    assert notes == ([hides] if hidden else [])


def test_cuda_counts_the_fastest_card_first() -> None:
    module = nvml(gtx_1060(), rtx_4090())
    assert [card.name for card in look(module)] == ["GeForce RTX 4090", "GeForce GTX 1060 6GB"]
    assert [card.name for card in look(module, CUDA_VISIBLE_DEVICES="0")] == ["GeForce RTX 4090"]
    by_address = look(module, CUDA_VISIBLE_DEVICES="0", CUDA_DEVICE_ORDER="PCI_BUS_ID")
    assert [card.name for card in by_address] == ["GeForce GTX 1060 6GB"]


def test_pynvml_is_imported_only_where_a_driver_may_be(tree: Tree) -> None:
    notes: list[Note] = []
    assert nvidia.load(tree({"sys/bus/pci/devices/0000:00:02.0/vendor": "0x8086\n"}), notes) is None
    audio = {
        "sys/bus/pci/devices/0000:01:00.1/vendor": "0x10de\n",
        "sys/bus/pci/devices/0000:01:00.1/class": "0x040300",
    }
    assert nvidia.load(tree(audio), notes) is None
    assert nvidia.load(tree(CARD_ON_THE_BUS), notes) is pynvml
    assert notes == []


def test_a_container_without_sys_shows_the_card_by_its_device_file(tree: Tree) -> None:
    assert nvidia.load(tree({"dev/nvidiactl": ""}), []) is pynvml


def test_wsl_has_no_pci_bus_but_its_own_device(tree: Tree) -> None:
    assert nvidia.load(tree({"dev/dxg": ""}), []) is pynvml
