from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from hermes_cli.hardware import intel
from hermes_cli.hardware.machine import Note
from hermes_cli.hardware.system import SystemMemory

Tree = Callable[[Mapping[str, str]], Path]
GIB = 2**30
RAM = SystemMemory(32 * GIB, 20 * GIB)

PCI_IDS = """1002  Advanced Micro Devices, Inc. [AMD/ATI]
\t64a0  not Intel's
8086  Intel Corporation
\t5912  HD Graphics 630
\t64a0  Lunar Lake [Intel Arc Graphics 130V / 140V]
\te211  Battlemage G21 [Intel Arc Pro B60]
"""


def card(number: int, address: str, driver: str, device: str, **files: str) -> dict[str, str]:
    folder = f"sys/class/drm/card{number}"
    shown = {
        "device/vendor": "0x8086\n",
        "device/device": f"{device}\n",
        "device/uevent": f"DRIVER={driver}\nPCI_CLASS=30000\nPCI_SLOT_NAME={address}\n",
        f"device/drm/renderD{128 + number}/dev": "",
    }
    return {f"{folder}/{name}": content for name, content in (shown | files).items()} | {
        f"dev/dri/renderD{128 + number}": "",
        "usr/share/hwdata/pci.ids": PCI_IDS,
    }


def window(size: int) -> str:
    """/sys/…/resource of a card: registers, nothing, the window onto its memory."""
    start = 0x4000000000
    return (
        "0x0000000084000000 0x0000000084ffffff 0x0000000000140204\n"
        "0x0000000000000000 0x0000000000000000 0x0000000000000000\n"
        f"0x{start:016x} 0x{start + size - 1:016x} 0x000000000014220c\n"
    )


def test_a_card_whose_memory_only_the_window_tells(tree: Tree) -> None:
    notes: list[Note] = []
    a770 = card(0, "0000:03:00.0", "i915", "0x56a0", **{"device/resource": window(16 * GIB)})
    (device,) = intel.devices(tree(a770), RAM, notes)
    assert (device.vendor, device.name, device.driver) == ("intel", "Arc A770", "i915")
    assert (device.total, device.free, device.unified) == (16 * GIB, 16 * GIB, False)
    assert (device.backend, device.bandwidth, device.bandwidth_source) == ("vulkan", None, "assumed")
    assumed = "The kernel does not tell how much memory of Arc A770 is free; all of it is assumed to be."
    assert notes == [Note("devices", assumed)]


def test_without_resizable_bar_it_is_unknown(tree: Tree) -> None:
    notes: list[Note] = []
    a770 = card(0, "0000:03:00.0", "i915", "0x56a0", **{"device/resource": window(GIB // 4)})
    assert intel.devices(tree(a770), RAM, notes)[0].total == 0
    untold = "The kernel does not tell the memory of Arc A770; resizable BAR in the firmware would show it."
    assert notes == [Note("devices", untold)]
    (device,) = intel.devices(tree(card(0, "0000:03:00.0", "i915", "0x56a0")), RAM, [])
    assert device.total == 0


def test_a_model_sold_with_one_size_needs_no_window(tree: Tree) -> None:
    a380 = card(0, "0000:03:00.0", "i915", "0x56a5", **{"device/resource": window(8 * GIB)})
    (device,) = intel.devices(tree(a380), RAM, [])
    assert (device.name, device.total) == ("Arc A380", 6 * GIB)


def test_intels_own_i915_tells(tree: Tree) -> None:
    a770 = card(0, "0000:03:00.0", "i915", "0x56a0", lmem_total_bytes="17028878336\n")
    assert intel.devices(tree(a770), RAM, [])[0].total == 17028878336


def test_xe_tells_by_tile(tree: Tree) -> None:
    pro = card(
        0,
        "0000:03:00.0",
        "xe",
        "0xe211",
        **{
            "device/tile0/physical_vram_size_bytes": "25669140480\n",
            "device/tile1/memory/physical_vram_size_bytes": "0x100000000\n",
        },
    )
    (device,) = intel.devices(tree(pro), RAM, [])
    assert (device.name, device.total, device.driver) == ("Arc Pro B60", 25669140480 + 4 * GIB, "xe")


def test_lunar_lake_shares_the_ram(tree: Tree) -> None:
    notes: list[Note] = []
    igpu = card(0, "0000:00:02.0", "xe", "0x64a0", **{"device/resource": window(8 * GIB)})
    (device,) = intel.devices(tree(igpu), RAM, notes)
    assert device.name == "Arc Graphics 130V / 140V"
    assert (device.total, device.free, device.unified) == (24 * GIB, 20 * GIB, True)
    assert notes == []


def test_of_little_ram_half_is_for_the_gpu(tree: Tree) -> None:
    root = tree(card(0, "0000:00:02.0", "i915", "0x5912"))
    (device,) = intel.devices(root, SystemMemory(4 * GIB, 3 * GIB), [])
    assert (device.name, device.total, device.free) == ("HD Graphics 630", 2 * GIB, 2 * GIB)


def test_a_card_beside_the_processors_own(tree: Tree) -> None:
    files = card(1, "0000:00:02.0", "i915", "0x5912") | card(0, "0000:03:00.0", "i915", "0x56a1")
    devices = intel.devices(tree(files), RAM, [])
    assert [(device.name, device.unified) for device in devices] == [("HD Graphics 630", True), ("Arc A750", False)]
    assert devices[1].total == 8 * GIB


def test_a_list_of_names_that_cannot_be_read(tree: Tree) -> None:
    root = tree(card(0, "0000:00:02.0", "xe", "0x64a0") | {"usr/share/misc/pci.ids": PCI_IDS})
    (root / "usr/share/hwdata/pci.ids").unlink()
    (root / "usr/share/hwdata/pci.ids").mkdir()
    assert intel.devices(root, RAM, [])[0].name == "Arc Graphics 130V / 140V"


def test_a_model_nobody_listed(tree: Tree) -> None:
    assert intel.devices(tree(card(0, "0000:00:02.0", "xe", "0xffff")), RAM, [])[0].name == "GPU ffff"


def test_a_container_without_the_device_file(tree: Tree) -> None:
    root = tree(card(0, "0000:00:02.0", "xe", "0x64a0"))
    (root / "dev/dri/renderD128").unlink()
    (device,) = intel.devices(root, RAM, [])
    assert (device.usable, device.reason, device.fix) == (False, "no access to /dev/dri/renderD128", "")
    (root / ".dockerenv").touch()
    assert intel.devices(root, RAM, [])[0].fix == "docker run --device /dev/dri/renderD128 …"


@pytest.mark.parametrize("resource", ["", "0x0 0x0 0x0\n" * 3, "what\n" * 6, "0x10 0x20\n" * 6, window(0)])
def test_a_list_of_windows_that_says_nothing(tree: Tree, resource: str) -> None:
    a770 = card(0, "0000:03:00.0", "i915", "0x56a0", **{"device/resource": resource})
    assert intel.devices(tree(a770), RAM, [])[0].total == 0


def test_cards_given_to_virtual_machines_do_not_count(tree: Tree) -> None:
    assert intel.devices(tree(card(0, "0000:03:00.0", "vfio-pci", "0x56a0")), RAM, []) == []
