"""`probe()`: this machine as a Machine. Takes 15 ms on one without GPUs, and 0.3 s more when RAM is to be measured.

Nothing that a driver does can fail it: what could not be found out becomes one of the machine's notes.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hermes_cli import paths
from hermes_cli.hardware import amd, apple, backends, bandwidth, intel, nvidia, system
from hermes_cli.hardware.machine import Device, Machine, Note
from hermes_cli.units import gibibytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import ModuleType

    from hermes_cli.hardware.machine import Backend, Device, Vendor
    from hermes_cli.hardware.system import SystemMemory

VULKANS_CHOICE = "GGML_VK_VISIBLE_DEVICES"  # indexes among Vulkan's devices


@dataclass(frozen=True)
class ProbeSources:
    """Sources of the probe. The defaults are this machine; tests give recorded ones.

    Attributes:
        root: of the file system.
        environ: variables that hide or order GPUs.
        nvml: gives pynvml, or None where there is no NVIDIA driver.
        amdsmi: gives amdsmi, or None where ROCm did not bring it.
        sysctl: runs sysctl, None where that is not macOS.
        host_memory: the whole machine's RAM.
        allowed_cpus: logical CPUs this process may run on.
        libraries: the folder of llama.cpp's libraries.
    """

    root: Path = Path("/")
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    nvml: Callable[[Path, list[Note]], ModuleType | None] = nvidia.load
    amdsmi: Callable[[], ModuleType | None] = amd.load_smi
    sysctl: apple.Sysctl | None = apple.run_sysctl if sys.platform == "darwin" else None
    host_memory: Callable[[], SystemMemory] = system.host_memory
    allowed_cpus: Callable[[], set[int] | None] = system.allowed_cpus
    libraries: Callable[[], Path | None] = backends.library_folder


def probe(*, measure: bool = True, sources: ProbeSources | None = None) -> Machine:
    """Look at this machine.

    Args:
        measure: whether to measure RAM's bandwidth if that is due.
        sources: where to look instead of at this machine.
    """
    sources = sources or ProbeSources()
    notes: list[Note] = []
    root, sysctl = sources.root, apple.answers(sources.sysctl) if sources.sysctl else {}
    host = sources.host_memory()
    ram = system.within_limits(root, host)
    if ram.total < host.total:
        limited = f"Of the machine's {gibibytes(host.total)} of RAM, {gibibytes(ram.total)} may be used here"
        notes.append(Note("ram", f"{limited}: its cgroup (a container or a service) is limited."))
    cpu, cores = system.cpu_name(root, sysctl), system.cores(root, sysctl, sources.allowed_cpus())
    cache = system.last_level_cache(root)
    speed = bandwidth.ram_bandwidth(cpu, cores, ram, cache=cache, measured=measure)
    built = backends.built_backends(sources.libraries())
    devices = _cards_first(backends.assign_backends(_devices(sources, sysctl, ram, built, notes), built))
    disk = paths.models_dir()
    return Machine(
        devices=complete_devices(devices, host.total, speed, notes),
        ram_total=ram.total,
        ram_available=ram.available,
        ram_bandwidth=speed,
        ram_bandwidth_source="assumed" if speed is None else "measured",
        cpu=cpu,
        cores=cores,
        simd=system.simd(root, sysctl),
        os=system.os_text(root),
        disk_path=str(disk),
        disk_free=system.disk_free(disk),
        backends=built,
        notes=tuple(dict.fromkeys(notes)),
    )


def _devices(
    sources: ProbeSources, sysctl: Mapping[str, str], ram: SystemMemory, built: tuple[Backend, ...], notes: list[Note]
) -> list[Device]:
    """All GPUs, in the order in which llama.cpp registers what drives them (ggml/src/ggml-backend-reg.cpp)."""
    root, environ = sources.root, sources.environ

    def through_vulkan(vendor: Vendor) -> bool:
        return backends.backend_for(vendor, built) == "vulkan"

    def of_nvidia() -> list[Device]:
        nvml = sources.nvml(root, notes)
        seen = {} if through_vulkan("nvidia") else environ  # Vulkan does not mind CUDA's variables
        return nvidia.devices(nvml, root, ram, seen, notes) if nvml else []

    def of_amd() -> list[Device]:
        return amd.devices(root, ram, environ, notes, sources.amdsmi, through_vulkan=through_vulkan("amd"))

    found = [
        *_guarded("NVIDIA", of_nvidia, notes),
        *_guarded("AMD", of_amd, notes),
        *_guarded("Apple", lambda: apple.devices(sysctl, ram, notes), notes),
        *_guarded("Intel", lambda: intel.devices(root, ram, notes), notes),
    ]
    if sys.platform == "win32":
        notes.append(Note("devices", "On Windows only NVIDIA's GPUs are looked for."))
    if "vulkan" in built and VULKANS_CHOICE in environ:
        some = f'{VULKANS_CHOICE}="{environ[VULKANS_CHOICE]}" lets llama.cpp use some GPUs only; which, Vulkan decides.'
        notes.append(Note("devices", some, fix=f"unset {VULKANS_CHOICE}"))
    return found


def _guarded(vendor: str, devices: Callable[[], list[Device]], notes: list[Note]) -> Iterable[Device]:
    """Return the vendor's devices; an unexpected failure of its module becomes a note."""
    try:
        return devices()
    except Exception as error:  # noqa: BLE001 - a driver's surprise must not keep people from their CPU
        notes.append(Note("devices", f"{vendor}'s GPUs could not be looked at ({type(error).__name__}: {error})."))
        return []


def _cards_first(devices: tuple[Device, ...]) -> tuple[Device, ...]:
    """Beside a card llama.cpp leaves a GPU that shares the RAM alone (llama.cpp, "add integrated GPUs only if …").

    Where the card cannot be used yet, what would make it comes first: no other build is recommended for the other GPU.
    """
    cards = [device for device in devices if not device.unified]
    usable = any(card.usable for card in cards)
    return tuple(_beside(device, cards_usable=usable) if cards and device.unified else device for device in devices)


def _beside(device: Device, *, cards_usable: bool) -> Device:
    """A GPU that shares the RAM, on a machine with cards."""
    if cards_usable:
        reason = "llama.cpp leaves a GPU that shares the RAM alone beside a card with memory of its own"
        return replace(device, usable=False, reason=reason, fix="")
    return device if device.usable else replace(device, fix="")


LARGEST_MEMORY = 1 << 46  # bytes; no device has 64 TiB
SLOWEST_MEMORY, FASTEST_MEMORY = 1e9, 1e14  # bytes per second; no GPU's memory is slower or faster


def complete_devices(
    devices: Iterable[Device], ram: int, ram_bandwidth: float | None, notes: list[Note]
) -> tuple[Device, ...]:
    """The devices with everything that can be known of how fast they are.

    Args:
        devices: as the vendors' modules found them.
        ram: bytes of the whole machine's RAM, by which chips that share it are told apart.
        ram_bandwidth: bytes per second that were measured, None if nobody did.
        notes: what stays unknown is added here.
    """
    return tuple(_with_speed(_plausible(device), ram, ram_bandwidth, notes) for device in devices)


def _plausible(device: Device) -> Device:
    """The device without numbers that cannot be: memory of 0 and a bandwidth of None are unknown."""
    total = device.total if 0 <= device.total <= LARGEST_MEMORY else 0
    told = device.bandwidth is not None and SLOWEST_MEMORY <= device.bandwidth <= FASTEST_MEMORY
    return replace(
        device,
        total=total,
        free=min(max(device.free, 0), total),
        bandwidth=device.bandwidth if told else None,
        bandwidth_source=device.bandwidth_source if told else "assumed",
    )


def _with_speed(device: Device, ram: int, ram_bandwidth: float | None, notes: list[Note]) -> Device:
    from hermes_cli.hardware.lookup import gpu_reported_as  # noqa: PLC0415 - 10 ms, only where there is a GPU

    listed = gpu_reported_as(device.vendor, device.name, (ram if device.unified else device.total) or None)
    device = replace(device, operations=listed.operations if listed else None)
    if device.bandwidth is not None:
        return device
    if listed:
        return replace(device, bandwidth=listed.bandwidth, bandwidth_source="table")
    if device.unified and device.vendor != "apple" and ram_bandwidth:
        return replace(device, bandwidth=ram_bandwidth, bandwidth_source="measured")
    if device.usable or device.fix:  # of one that will not be used nobody needs it
        unknown = f"The memory bandwidth of {device.name} is unknown: neither its driver nor the table of GPUs tells it"
        amdsmi = "; amdsmi, which comes with ROCm, may" if device.vendor == "amd" else ""
        notes.append(Note("devices", f"{unknown}{amdsmi}."))
    return device
