"""AMD's and Intel's GPUs on Windows, by recorded values of the registry."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import pytest

from hermes_cli.hardware import windows
from hermes_cli.hardware.advice import install_command
from hermes_cli.hardware.machine import Backend, Device, Note
from hermes_cli.hardware.probe import ProbeSources, probe
from hermes_cli.hardware.system import SystemMemory

GIB = 2**30
CPU: tuple[Backend, ...] = ("cpu",)
RAM = SystemMemory(64 * GIB, 40 * GIB)


def adapter(name: str, ids: str, memory: object, **others: object) -> dict[str, object]:
    """What a driver writes into …\\Class\\{4d36e968-…}\\0000."""
    return {
        "DriverDesc": name,
        "ProviderName": "the vendor",
        "MatchingDeviceId": f"PCI\\{ids}",
        "DriverVersion": "32.0.21025.1024",
        "HardwareInformation.qwMemorySize": memory,
        **others,
    }


RX_7900_XTX = adapter("AMD Radeon RX 7900 XTX", "VEN_1002&DEV_744C&REV_C8", 25_753_026_560)
RX_6600 = adapter("AMD Radeon RX 6600", "VEN_1002&DEV_73FF&REV_C7", 8 * GIB)
RX_580 = adapter("Radeon RX 580 Series", "VEN_1002&DEV_67DF&REV_E7", 8 * GIB)
RADEON_780M = adapter("AMD Radeon 780M Graphics", "VEN_1002&DEV_15BF&REV_C7", 4 * GIB)
RADEON = adapter("AMD Radeon(TM) Graphics", "VEN_1002&DEV_164E&REV_C6", GIB // 2)
RADEON_8060S = adapter("AMD Radeon(TM) 8060S Graphics", "VEN_1002&DEV_1586&REV_C1", 48 * GIB)
ARC_A770 = adapter("Intel(R) Arc(TM) A770 Graphics", "VEN_8086&DEV_56A0", 17_063_477_248)
ARC_B580 = adapter("Intel(R) Arc(TM) B580 Graphics", "VEN_8086&DEV_E20B", 12 * GIB)
ARC_140V = adapter("Intel(R) Arc(TM) 140V GPU (16GB)", "VEN_8086&DEV_64A0", 128 << 20)
UHD = adapter("Intel(R) UHD Graphics 770", "VEN_8086&DEV_4680", (128 << 20).to_bytes(8, "little"))
OLD = adapter("Intel(R) Iris(R) Plus Graphics", "VEN_8086&DEV_8A52", None) | {
    "HardwareInformation.MemorySize": (GIB).to_bytes(4, "little")
}
BASIC = {"DriverDesc": "Microsoft Basic Display Adapter", "MatchingDeviceId": r"PCI\CC_0300"}
GEFORCE = adapter("NVIDIA GeForce RTX 4090", "VEN_10DE&DEV_2684", 24 * GIB)


def look(*adapters: Mapping[str, Any], built: tuple[Backend, ...] = ("cpu",)) -> list[Device]:
    return windows.devices(adapters, RAM, built, [])


@pytest.mark.parametrize(
    ("values", "name", "total", "carve_out"),
    [
        (RX_7900_XTX, "Radeon RX 7900 XTX", 25_753_026_560, None),
        (RX_6600, "Radeon RX 6600", 8 * GIB, None),
        (RX_580, "Radeon RX 580 Series", 8 * GIB, None),
        (ARC_A770, "Arc A770 Graphics", 17_063_477_248, None),
        (ARC_B580, "Arc B580 Graphics", 12 * GIB, None),
        (RADEON_780M, "Radeon 780M Graphics", 36 * GIB, 4 * GIB),
        (RADEON, "Radeon Graphics", 32 * GIB + GIB // 2, GIB // 2),
        (RADEON_8060S, "Radeon 8060S Graphics", 80 * GIB, 48 * GIB),
        (ARC_140V, "Arc 140V GPU (16GB)", 32 * GIB + (128 << 20), 128 << 20),
        (UHD, "UHD Graphics 770", 32 * GIB + (128 << 20), 128 << 20),
        (OLD, "Iris Plus Graphics", 33 * GIB, GIB),
    ],
)
def test_cards_and_gpus_in_processors(values: dict[str, object], name: str, total: int, carve_out: int | None) -> None:
    (device,) = look(values)
    assert (device.name, device.total, device.driver) == (name, total, "32.0.21025.1024")
    assert device.unified == (carve_out is not None)
    assert (device.carve_out, device.free) == (carve_out or 0, total)
    assert device.bandwidth is None


def test_what_programs_use_of_the_ram_is_not_free_to_a_gpu_that_shares_it() -> None:
    (device,) = windows.devices([RADEON_780M], SystemMemory(64 * GIB, 10 * GIB), CPU, [])
    assert (device.total, device.free, device.ram_taken(6 * GIB)) == (36 * GIB, 14 * GIB, 2 * GIB)


def test_only_amds_and_intels_are_taken_from_the_registry() -> None:
    assert [device.vendor for device in look(BASIC, {}, GEFORCE, UHD, RX_6600, {"MatchingDeviceId": 7})] == [
        "amd",
        "intel",
    ]


@pytest.mark.parametrize(
    ("values", "built", "backend"),
    [
        (RX_7900_XTX, ("cpu",), "vulkan"),
        (RX_7900_XTX, ("cpu", "rocm"), "rocm"),
        (RX_6600, ("cpu", "rocm"), "vulkan"),  # ROCm has no code for it
        (RX_580, ("cpu", "rocm"), "vulkan"),
        (ARC_B580, ("cpu", "rocm"), "vulkan"),
    ],
)
def test_backends(values: dict[str, object], built: tuple[Backend, ...], backend: Backend) -> None:
    assert [device.backend for device in look(values, built=built)] == [backend]


@pytest.mark.parametrize("memory", [None, 0, "much", b""])
def test_memory_that_is_not_told(memory: object) -> None:
    notes: list[Note] = []
    (device,) = windows.devices([adapter("AMD Radeon RX 6600", "VEN_1002&DEV_73FF", memory)], RAM, CPU, notes)
    assert (device.total, device.unified) == (0, False)
    assert [note.text for note in notes] == ["The registry does not tell the memory of Radeon RX 6600."]


def test_the_probe_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERMES_LLM_CONFIG_DIR", str(tmp_path))
    (tmp_path / "ggml-vulkan.dll").touch()
    here = ProbeSources(
        root=tmp_path,
        environ={},
        nvml=lambda _, __: None,
        sysctl=None,
        host_memory=lambda: RAM,
        libraries=lambda: tmp_path,
        registry=lambda: [RADEON, RX_7900_XTX],
    )
    shared, card = probe(measure=False, sources=here).devices
    assert (card.usable, card.backend, card.bandwidth, card.bandwidth_source) == (True, "vulkan", 960e9, "table")
    assert not shared.usable
    (tmp_path / "ggml-vulkan.dll").unlink()
    machine = probe(measure=False, sources=replace(here, registry=lambda: [RX_7900_XTX]))
    assert [(device.usable, device.fix) for device in machine.devices] == [(False, install_command("vulkan"))]


class Key:
    """A key of a registry: what winreg's functions are asked about."""

    def __init__(self, values: Mapping[str, object], keys: Mapping[str, Key | None] | None = None) -> None:
        self.values, self.keys = values, keys or {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def open_key(parent: Key, path: str) -> Key:
    if (key := parent.keys.get(path)) is None:
        raise PermissionError(path)
    return key


def winreg(machine: Key) -> ModuleType:
    module = ModuleType("winreg")
    vars(module).update(
        HKEY_LOCAL_MACHINE=machine,
        OpenKey=open_key,
        EnumKey=lambda key, index: list(key.keys)[index],
        EnumValue=lambda key, index: (*list(key.values.items())[index], 1),
        QueryInfoKey=lambda key: (len(key.keys), len(key.values), 0),
    )
    return module


def test_the_registry_is_walked(monkeypatch: pytest.MonkeyPatch) -> None:
    """One key is the system's alone, as "Properties" is; a machine may have none of them."""
    folder = Key({"Class": "Display"}, {"0000": Key(UHD), "Properties": None, "0001": Key(RX_6600)})
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setitem(sys.modules, "winreg", winreg(Key({}, {windows.DISPLAY_ADAPTERS: folder})))
    assert windows.read_adapters() == [UHD, RX_6600]
    monkeypatch.setitem(sys.modules, "winreg", winreg(Key({})))
    assert windows.read_adapters() == []


@pytest.mark.skipif(sys.platform != "win32", reason="reads Windows' registry")
def test_this_machine() -> None:
    assert all("DriverDesc" in values for values in windows.read_adapters() if values.get("MatchingDeviceId"))
