from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from enum import IntEnum
from pathlib import Path
from types import ModuleType

import pytest

from hermes_cli.hardware import amd
from hermes_cli.hardware.machine import Device, Note
from hermes_cli.hardware.system import SystemMemory

Tree = Callable[[Mapping[str, str | bytes]], Path]
GIB = 2**30
RAM = SystemMemory(128 * GIB, 100 * GIB)

NAMES = """# List of AMDGPU IDs
1.0.0
744C,\tC8,\tAMD Radeon RX 7900 XTX
744C,\tCC,\tAMD Radeon RX 7900 XT
1586,\tC1,\tAMD Radeon 8060S Graphics
"""
PCI_IDS = """# a comment
1002  Advanced Micro Devices, Inc. [AMD/ATI]
\t73bf  Navi 21 [Radeon RX 6800/6800 XT / 6900 XT]
\t\t1043 04fb  a board of somebody
\t744c  Navi 31 [Radeon RX 7900 XT/7900 XTX/7900 GRE/7900M]
8086  Intel Corporation
\t73c0  not AMD's
"""
DISCRETE, APU = bytes([0x78, 0x00, 1, 3]), bytes([0x08, 0x01, 3, 0])  # beginnings of gpu_metrics


def card(number: int, address: str, **files: str | bytes) -> dict[str, str | bytes]:
    """/sys/class/drm/cardN as amdgpu fills it, with its render node, a connector and its place in KFD's topology."""
    folder = f"sys/class/drm/card{number}/device"
    render = f"renderD{128 + number}"
    target = files.pop("gfx_target_version", "")
    shown = {"vendor": "0x1002\n", "uevent": f"DRIVER=amdgpu\nPCI_CLASS=30000\nPCI_SLOT_NAME={address}\n"} | files
    bus = int(address.split(":")[1], 16)
    node = f"sys/class/kfd/kfd/topology/nodes/{number + 1}"
    result: dict[str, str | bytes] = {f"{folder}/{name}": content for name, content in shown.items()}
    result[f"{folder}/drm/{render}/dev"] = f"226:{128 + number}\n"
    result[f"dev/dri/{render}"] = ""
    result[f"sys/class/drm/card{number}-DP-1/status"] = "connected\n"
    if target:
        result[f"{node}/properties"] = (
            f"cpu_cores_count 0\nsimd_count 192\ngfx_target_version {target!s}\nlocation_id {bus << 8}\ndomain 0\n"
        )
        result["sys/class/kfd/kfd/topology/nodes/0/properties"] = "cpu_cores_count 32\ngfx_target_version 0\n"
        result["dev/kfd"] = ""
    return result


def rx_7900_xtx(number: int = 0, address: str = "0000:03:00.0", **others: str) -> dict[str, str | bytes]:
    files: dict[str, str | bytes] = {
        "device": "0x744c\n",
        "revision": "0xc8\n",
        "mem_info_vram_total": "25753026560\n",
        "mem_info_vram_used": "1753026560\n",
        "mem_info_gtt_total": "33554432000\n",
        "mem_info_gtt_used": "54525952\n",
        "pp_dpm_mclk": "0: 96Mhz *\n1: 456Mhz \n2: 772Mhz \n3: 1249Mhz \n",
        "gpu_metrics": DISCRETE,
        "gfx_target_version": "110000",
    }
    return card(number, address, **(files | others)) | {"usr/share/libdrm/amdgpu.ids": NAMES}


def mi300x(number: int, address: str) -> dict[str, str | bytes]:
    files: dict[str, str | bytes] = {
        "device": "0x74a1\n",
        "revision": "0x00\n",
        "product_name": "AMD Instinct MI300X\n",
        "unique_id": f"{0xC0FFEE00 + number:x}\n",
        "mem_info_vram_total": "206141652992\n",
        "mem_info_vram_used": "297910272\n",
        "pp_dpm_mclk": "0: 900Mhz *\n1: 1100Mhz \n2: 1200Mhz \n3: 1300Mhz \n",
        "gpu_metrics": DISCRETE,
        "gfx_target_version": "90402",
    }
    return card(number, address, **files) | {"sys/module/amdgpu/version": "6.10.5\n"}


def strix_halo() -> dict[str, str | bytes]:
    files: dict[str, str | bytes] = {
        "device": "0x1586\n",
        "revision": "0xc1\n",
        "mem_info_vram_total": str(GIB // 2),
        "mem_info_vram_used": str(GIB // 4),
        "mem_info_gtt_total": str(110 * GIB),
        "mem_info_gtt_used": str(2 * GIB),
        "gpu_metrics": APU,
        "gfx_target_version": "110501",
    }
    return card(0, "0000:c4:00.0", **files) | {"usr/share/libdrm/amdgpu.ids": NAMES}


class AmdSmiVramType(IntEnum):
    HBM3 = 4
    GDDR6 = 22


def amdsmi(told: Mapping[str, Mapping[str, object]]) -> ModuleType:
    """The module, with what amdsmi_get_gpu_vram_info tells of the card at each address."""
    module = ModuleType("amdsmi")
    opened: list[int] = []
    vars(module).update(
        opened=opened,
        AmdSmiException=type("AmdSmiException", (Exception,), {}),
        AmdSmiVramType=AmdSmiVramType,
        amdsmi_init=lambda: opened.append(1),
        amdsmi_shut_down=opened.pop,
        amdsmi_get_processor_handles=lambda: list(told),
        amdsmi_get_gpu_device_bdf=lambda handle: handle,
        amdsmi_get_gpu_vram_info=told.__getitem__,
    )
    return module


def look(
    root: Path,
    notes: list[Note] | None = None,
    smi: ModuleType | None = None,
    environ: Mapping[str, str] | None = None,
) -> list[Device]:
    return amd.devices(root, RAM, environ or {}, notes if notes is not None else [], lambda: smi)


def test_a_desktop_card(tree: Tree) -> None:
    notes: list[Note] = []
    (device,) = look(tree(rx_7900_xtx()), notes)
    assert (device.vendor, device.name, device.backend) == ("amd", "Radeon RX 7900 XTX", "rocm")
    assert (device.total, device.free) == (25753026560, 24000000000)
    assert (device.unified, device.usable, device.fix) == (False, True, "")
    assert (device.compute_capability, device.driver) == ("gfx1100", "amdgpu")
    assert (device.bandwidth, device.bandwidth_source) == (None, "assumed")
    assert notes == []


def test_bandwidth_from_the_bus_width(tree: Tree) -> None:
    module = amdsmi(
        {"0000:03:00.0": {"vram_type": 22, "vram_bit_width": 384, "vram_size": 24560, "vram_max_bandwidth": "N/A"}}
    )
    notes: list[Note] = []
    (device,) = look(tree(rx_7900_xtx()), notes, module)
    assert device.bandwidth == pytest.approx(960e9, rel=2e-3)  # AMD's data sheet
    assert device.bandwidth_source == "probed"
    assert notes == []
    assert module.opened == []


def test_bandwidth_that_firmware_tells(tree: Tree) -> None:
    root = tree(mi300x(0, "0000:05:00.0") | mi300x(1, "0000:26:00.0"))
    told = {"vram_type": 4, "vram_bit_width": 8192, "vram_max_bandwidth": 5300}
    first, second = look(root, smi=amdsmi({"0000:26:00.0": told, "0000:05:00.0": told | {"vram_max_bandwidth": 0}}))
    assert second.bandwidth == 5300e9
    assert first.bandwidth == pytest.approx(5325e9, rel=1e-3)  # from width and clock
    assert (first.name, first.compute_capability, first.driver) == ("Instinct MI300X", "gfx942", "amdgpu 6.10.5")
    assert first.total == 206141652992


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"vram_type": 99, "vram_bit_width": 384},
        {"vram_type": 22, "vram_bit_width": "N/A"},
        {"vram_type": 22, "vram_bit_width": 0, "vram_max_bandwidth": 0},
    ],
)
def test_half_an_answer_is_no_bandwidth(tree: Tree, told: Mapping[str, object]) -> None:
    assert look(tree(rx_7900_xtx()), smi=amdsmi({"0000:03:00.0": told}))[0].bandwidth is None


def test_amdsmi_that_fails_takes_nothing_else_along(tree: Tree) -> None:
    module = amdsmi({"0000:03:00.0": {}})

    def fail(*_: object) -> None:
        raise module.AmdSmiException("driver not loaded")

    root = tree(rx_7900_xtx())
    vars(module).update(amdsmi_get_gpu_vram_info=fail)
    assert look(root, smi=module)[0].total == 25753026560
    vars(module).update(amdsmi_get_processor_handles=fail, amdsmi_shut_down=fail)
    assert look(root, smi=module)[0].total == 25753026560
    vars(module).update(amdsmi_init=fail)
    notes: list[Note] = []
    assert look(root, notes, module)[0].total == 25753026560
    assert notes == [Note("devices", "amdsmi does not answer: driver not loaded")]


def test_a_gpu_in_the_processor_shares_the_ram(tree: Tree) -> None:
    (device,) = look(tree(strix_halo()))
    assert (device.name, device.compute_capability) == ("Radeon 8060S Graphics", "gfx1151")
    assert device.unified
    assert device.total == 110 * GIB + GIB // 2
    assert device.free == 100 * GIB + GIB // 4  # of its table 108 GiB are free, of RAM 100
    assert device.carve_out == GIB // 4


@pytest.mark.parametrize(("carve_out", "unified"), [(GIB // 2, True), (8 * GIB, False)])
def test_without_gpu_metrics_the_carve_out_tells(tree: Tree, carve_out: int, unified: bool) -> None:  # noqa: FBT001
    root = tree(strix_halo() | {"sys/class/drm/card0/device/mem_info_vram_total": str(carve_out)})
    (root / "sys/class/drm/card0/device/gpu_metrics").unlink()
    assert look(root)[0].unified is unified


@pytest.mark.parametrize(("format_revision", "unified"), [(1, False), (2, True), (3, True)])
def test_gpu_metrics_tell_what_is_in_the_processor(tree: Tree, format_revision: int, unified: bool) -> None:  # noqa: FBT001
    header = bytes([0x78, 0x00, format_revision, 3])
    assert look(tree(strix_halo() | {"sys/class/drm/card0/device/gpu_metrics": header}))[0].unified is unified


def test_only_what_exceeds_a_carve_out_is_ram(tree: Tree) -> None:
    """The system sees 32 GiB of 128; 96 GiB are set aside for the GPU."""
    sizes = {"vram_total": 96 * GIB, "vram_used": GIB, "gtt_total": 16 * GIB, "gtt_used": 0}
    files = {f"sys/class/drm/card0/device/mem_info_{name}": str(size) for name, size in sizes.items()}
    ram = SystemMemory(31 * GIB, 25 * GIB)
    (device,) = amd.devices(tree(strix_halo() | files), ram, {}, [], lambda: None)
    assert (device.total, device.free, device.carve_out) == (112 * GIB, 111 * GIB, 95 * GIB)
    assert device.unified
    assert (device.ram_taken(40 * GIB), device.ram_taken(95 * GIB), device.ram_taken(100 * GIB)) == (0, 0, 5 * GIB)


def two_cards(tree: Tree) -> Path:
    """The newer one was found first by the kernel but sits further back on the bus."""
    older = {"device": "0x73bf\n", "revision": "0xc1\n", "unique_id": "7a5d\n", "mem_info_vram_total": str(16 * GIB)}
    return tree(
        rx_7900_xtx(0, "0000:2d:00.0", unique_id="beef\n")
        | card(1, "0000:0a:00.0", gpu_metrics=DISCRETE, gfx_target_version="100300", **older)
        | {"usr/share/misc/pci.ids": PCI_IDS}
    )


def test_two_cards_go_by_their_place(tree: Tree) -> None:
    older, newer = look(two_cards(tree))
    assert (older.name, older.total) == ("Radeon RX 6800/6800 XT / 6900 XT", 16 * GIB)
    assert (newer.name, newer.total) == ("Radeon RX 7900 XTX", 25753026560)
    assert (older.compute_capability, newer.compute_capability) == ("gfx1030", "gfx1100")


@pytest.mark.parametrize(
    ("environ", "left"),
    [
        ({}, ["gfx1030", "gfx1100"]),
        ({"HIP_VISIBLE_DEVICES": "1"}, ["gfx1100"]),
        ({"ROCR_VISIBLE_DEVICES": "1,0"}, ["gfx1100", "gfx1030"]),
        ({"ROCR_VISIBLE_DEVICES": "GPU-beef"}, ["gfx1100"]),
        ({"ROCR_VISIBLE_DEVICES": "1", "HIP_VISIBLE_DEVICES": "0"}, ["gfx1100"]),
        ({"ROCR_VISIBLE_DEVICES": "1", "HIP_VISIBLE_DEVICES": "1"}, []),
        ({"HIP_VISIBLE_DEVICES": ""}, []),
        ({"CUDA_VISIBLE_DEVICES": "1"}, ["gfx1100"]),
        ({"CUDA_VISIBLE_DEVICES": "1", "HIP_VISIBLE_DEVICES": "0"}, ["gfx1030"]),
        ({"ROCR_VISIBLE_DEVICES": "1", "CUDA_VISIBLE_DEVICES": "0"}, ["gfx1100"]),
    ],
)
def test_rocms_variables(tree: Tree, environ: dict[str, str], left: list[str]) -> None:
    notes: list[Note] = []
    assert [device.compute_capability for device in look(two_cards(tree), notes, environ=environ)] == left
    assert any("hides" in note.text for note in notes) == (len(left) < 2)
    assert {note.fix for note in notes} <= {f"unset {variable}" for variable in environ}


@pytest.mark.parametrize(("version", "target"), [("90010", "gfx90a"), ("90402", "gfx942"), ("120001", "gfx1201")])
def test_what_rocm_calls_architectures(tree: Tree, version: str, target: str) -> None:
    assert look(tree(rx_7900_xtx(gfx_target_version=version)))[0].compute_capability == target


@pytest.mark.parametrize(
    ("device", "revision", "name"),
    [
        ("0x744c", "0xcc", "Radeon RX 7900 XT"),
        ("0x744c", "0x01", "Radeon RX 7900 XT/7900 XTX/7900 GRE/7900M"),
        ("0x73c0", "0xc1", "GPU 73c0"),  # another vendor has a product of this number
    ],
)
def test_names(tree: Tree, device: str, revision: str, name: str) -> None:
    files = rx_7900_xtx(device=device, revision=revision) | {"usr/share/misc/pci.ids": PCI_IDS}
    assert look(tree(files))[0].name == name


def test_a_card_that_rocm_does_not_know_is_for_vulkan(tree: Tree) -> None:
    root = tree(card(0, "0000:03:00.0", device="0x67df\n", mem_info_vram_total=str(8 * GIB)))
    (device,) = look(root)
    assert (device.name, device.backend, device.compute_capability) == ("GPU 67df", "vulkan", "")


@pytest.mark.parametrize(
    ("version", "override", "backend"),
    [
        ("80003", "", "vulkan"),  # RX 580
        ("90000", "", "vulkan"),  # Vega 56
        ("100100", "", "vulkan"),  # RX 5700 XT
        ("100302", "", "vulkan"),  # RX 6600
        ("100302", "10.3.0", "rocm"),
        ("100302", "what", "vulkan"),
        ("110003", "", "vulkan"),  # Radeon 780M
        ("110003", "11.0.2", "rocm"),
        ("110000", "", "rocm"),
    ],
)
def test_rocm_serves_what_it_has_code_for(tree: Tree, version: str, override: str, backend: str) -> None:
    root = tree(rx_7900_xtx(gfx_target_version=version))
    (root / "dev/kfd").unlink()
    (device,) = look(root, environ={"HSA_OVERRIDE_GFX_VERSION": override})
    assert device.backend == backend
    assert device.usable == (backend == "vulkan")  # which does without /dev/kfd


def test_a_container_without_the_device_files(tree: Tree) -> None:
    root = tree(rx_7900_xtx())
    (root / "dev/kfd").unlink()
    (root / "dev/dri/renderD128").unlink()
    (device,) = look(root)
    assert (device.usable, device.fix) == (False, "")
    assert device.reason == "no access to /dev/dri/renderD128, /dev/kfd"


def test_a_container_whose_engine_is_known(tree: Tree) -> None:
    root = tree(rx_7900_xtx() | {"run/.containerenv": ""})
    (root / "dev/kfd").unlink()
    (device,) = look(root)
    assert (device.usable, device.reason) == (False, "no access to /dev/kfd")
    assert device.fix == "podman run --device /dev/kfd …"


def test_vulkan_minds_nothing_of_rocms(tree: Tree) -> None:
    root = tree(rx_7900_xtx())
    (root / "dev/kfd").unlink()
    hidden = {"ROCR_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": "-1"}
    notes: list[Note] = []
    (device,) = amd.devices(root, RAM, hidden, notes, lambda: None, through_vulkan=True)
    assert (device.usable, device.reason, device.fix) == (True, "", "")
    assert notes == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may open everything")
def test_a_user_outside_the_render_group(tree: Tree) -> None:
    root = tree(rx_7900_xtx())
    (root / "dev/dri/renderD128").chmod(0)
    (device,) = look(root)
    assert (device.usable, device.fix) == (False, "sudo usermod -aG render,video $USER")
    assert device.reason == "no access to /dev/dri/renderD128"


def test_other_drivers_are_noted(tree: Tree) -> None:
    root = tree(rx_7900_xtx() | {"sys/class/drm/card0/device/uevent": "DRIVER=vfio-pci\nPCI_SLOT_NAME=0000:03:00.0\n"})
    notes: list[Note] = []
    assert look(root, notes) == []
    other = "The AMD GPU at 0000:03:00.0 has no driver that helps here: vfio-pci, not amdgpu."
    assert notes == [Note("devices", other)]


def test_a_card_without_a_driver_wants_its_module(tree: Tree) -> None:
    root = tree(rx_7900_xtx() | {"sys/class/drm/card0/device/uevent": "PCI_SLOT_NAME=0000:03:00.0\n"})
    notes: list[Note] = []
    assert look(root, notes) == []
    assert [note.fix for note in notes] == ["sudo modprobe amdgpu"]
    (root / ".dockerenv").touch()
    look(root, notes)
    assert (notes[1].fix, notes[1].text.endswith("Only the host can load it.")) == ("", True)


def test_more_used_than_there_is_leaves_nothing_of_the_table(tree: Tree) -> None:
    (device,) = look(tree(strix_halo() | {"sys/class/drm/card0/device/mem_info_gtt_used": str(200 * GIB)}))
    assert device.free == GIB // 4  # of the carve-out


def test_files_that_say_nothing(tree: Tree) -> None:
    folder = "sys/class/drm/card0/device"
    files = {f"{folder}/{name}": "what\n" for name in ("mem_info_vram_total", "revision", "device", "unique_id")}
    notes: list[Note] = []
    (device,) = look(tree(rx_7900_xtx() | files), notes)
    assert (device.total, device.name) == (0, "GPU 0000")
    assert notes == [Note("devices", "amdgpu does not tell the memory of GPU 0000.")]


def test_amdsmi_is_not_asked_for_without_a_card(tree: Tree) -> None:
    def never() -> ModuleType:
        raise AssertionError

    assert amd.devices(tree({"sys/class/drm/version": "drm 1.1.0 20060810\n"}), RAM, {}, [], never) == []
