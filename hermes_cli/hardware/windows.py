"""AMD's and Intel's GPUs on Windows, by what their drivers write into the registry; NVIDIA's tell more through NVML.

Each display adapter has a key of the class Display with its name, its PCI ids and the size of its own memory
(Microsoft's documentation, "Registering hardware information"). Nothing there tells what is free or how fast it is.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any

from hermes_cli.hardware.advice import advice
from hermes_cli.hardware.gpus import gpu_reported_as
from hermes_cli.hardware.machine import Backend, Device, Note, Vendor
from hermes_cli.hardware.system import SystemMemory

DISPLAY_ADAPTERS = r"SYSTEM\CurrentControlSet\Control\Class\{4d36e968-e325-11ce-bfc1-08002be10318}"
MEMORY = ("HardwareInformation.qwMemorySize", "HardwareInformation.MemorySize")  # 64 bits; 32 bits of older drivers
VENDORS: dict[str, Vendor] = {"1002": "amd", "8086": "intel"}
# Of what the table of GPUs does not have: Intel's cards have a letter before their number, AMD's GPUs inside processors
# are just Graphics or have three digits.
INTELS_CARD = re.compile(r"(?i)arc.*\b[ab]\d{2,3}m?\b|flex|data center")
AMDS_IN_PROCESSORS = re.compile(r"(?i)graphics$|\b\d{3}m\b|\b80\d0s\b")

Adapter = Mapping[str, Any]


def read_adapters() -> list[Adapter]:
    """Return the registry's values of each display adapter; none elsewhere."""
    adapters: list[Adapter] = []
    if sys.platform == "win32":
        import winreg  # noqa: PLC0415 - Windows only

        with suppress(OSError), winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, DISPLAY_ADAPTERS) as folder:
            for index in range(winreg.QueryInfoKey(folder)[0]):
                # "Properties" is the system's alone
                with suppress(OSError), winreg.OpenKey(folder, winreg.EnumKey(folder, index)) as key:
                    count = winreg.QueryInfoKey(key)[1]
                    adapters.append(dict(winreg.EnumValue(key, number)[:2] for number in range(count)))
    return adapters


def devices(
    adapters: Collection[Adapter],  # from `read_adapters`
    ram: SystemMemory,  # what a GPU inside the processor shares: Windows lends it half
    built: Collection[Backend],  # the backends of the installed llama.cpp
    notes: list[Note],  # what cannot be found out is added here
) -> list[Device]:
    """AMD's GPUs, then Intel's, in the registry's order."""
    found = []
    for adapter in adapters:
        ids = re.match(r"(?i)pci\\ven_([0-9a-f]{4})", str(adapter.get("MatchingDeviceId", "")))
        vendor = VENDORS.get(ids[1].lower()) if ids else None
        if vendor:
            found.append(_device(adapter, vendor, ram, built, notes))
    return sorted(found, key=lambda device: device.vendor)


def _device(
    adapter: Adapter, vendor: Vendor, ram: SystemMemory, built: Collection[Backend], notes: list[Note]
) -> Device:
    name = re.sub(r"(?i)\((?:r|tm)\)", "", str(adapter.get("DriverDesc", "GPU")))
    name = " ".join(name.split()).removeprefix("AMD ").removeprefix("Intel ")
    own = next((size for size in map(_size, map(adapter.get, MEMORY)) if size), 0)
    listed = gpu_reported_as(vendor, name, own or None)
    if listed:
        unified = listed.unified
    else:
        unified = bool(AMDS_IN_PROCESSORS.search(name) if vendor == "amd" else not INTELS_CARD.search(name))
    lent = ram.total // 2 if unified else 0
    if not own + lent:
        notes.append(Note("devices", f"The registry does not tell the memory of {name}."))
    elif not unified:
        assumed = f"Windows does not tell how much memory of {name} is free; all of it is assumed to be."
        notes.append(Note("devices", assumed))
    target = listed.compute_capability if listed and vendor == "amd" else ""
    has_rocm = "rocm" in built and advice("build for AMD", target or "unknown").backend == "rocm"
    return Device(
        vendor=vendor,
        name=name,
        total=own + lent,
        free=own + min(lent, ram.available),
        bandwidth=None,
        bandwidth_source="assumed",
        backend="rocm" if has_rocm else "vulkan",  # Vulkan needs least to be built on Windows
        unified=unified,
        carve_out=own if unified else 0,
        compute_capability=target,
        driver=str(adapter.get("DriverVersion", "")),
    )


def _size(value: object) -> int:
    """Bytes of a value that some drivers write as a number, others as its bytes."""
    return int.from_bytes(value, "little") if isinstance(value, bytes) else value if isinstance(value, int) else 0
