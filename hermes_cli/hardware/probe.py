"""`probe()`: this machine as a Machine. Takes 50 ms on one without GPUs, and half a second more the first time.

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
from hermes_cli.hardware.machine import Device, Machine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import ModuleType

    from hermes_cli.hardware.machine import Backend
    from hermes_cli.hardware.system import Memory


@dataclass(frozen=True)
class Sources:
    """Where the probe looks. The defaults are this machine; tests give recorded ones.

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
    nvml: Callable[[Path, list[str]], ModuleType | None] = nvidia.load
    amdsmi: Callable[[], ModuleType | None] = amd.load_smi
    sysctl: apple.Sysctl | None = apple.run_sysctl if sys.platform == "darwin" else None
    host_memory: Callable[[], Memory] = system.host_memory
    allowed_cpus: Callable[[], set[int] | None] = system.allowed_cpus
    libraries: Callable[[], Path | None] = backends.library_folder


def probe(*, measure: bool = True, sources: Sources | None = None) -> Machine:
    """Look at this machine.

    Args:
        measure: whether to measure RAM's bandwidth if no earlier probe did.
        sources: where to look instead of at this machine.
    """
    sources = sources or Sources()
    notes: list[str] = []
    root, sysctl = sources.root, apple.answers(sources.sysctl) if sources.sysctl else {}
    ram = system.within_limits(root, sources.host_memory())
    cpu, cores = system.cpu_name(root, sysctl), system.cores(root, sysctl, sources.allowed_cpus())
    cache = system.last_level_cache(root)
    speed = bandwidth.ram_bandwidth(cpu, cores, ram.total, cache=cache, measured=measure)
    built = backends.built(sources.libraries())
    disk = paths.models_dir()
    return Machine(
        devices=_devices(sources, sysctl, ram, built, notes),
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
        notes=tuple(notes),
    )


def _devices(
    sources: Sources, sysctl: Mapping[str, str], ram: Memory, built: tuple[Backend, ...], notes: list[str]
) -> tuple[Device, ...]:
    """All GPUs, in the order in which llama.cpp registers what drives them (ggml/src/ggml-backend-reg.cpp)."""
    root, environ = sources.root, sources.environ

    def of_nvidia() -> list[Device]:
        nvml = sources.nvml(root, notes)
        return nvidia.devices(nvml, ram, environ, notes) if nvml else []

    found = [
        *_guarded("NVIDIA", of_nvidia, notes),
        *_guarded("AMD", lambda: amd.devices(root, ram, environ, notes, sources.amdsmi), notes),
        *_guarded("Apple", lambda: apple.devices(sysctl, ram, notes), notes),
        *_guarded("Intel", lambda: intel.devices(root, ram, notes), notes),
    ]
    if sys.platform == "win32":
        notes.append("On Windows only NVIDIA's GPUs are looked for.")
    return _cards_first(backends.matched(found, built), notes)


def _guarded(vendor: str, devices: Callable[[], list[Device]], notes: list[str]) -> Iterable[Device]:
    """What the vendor's module finds; if it fails in a way it does not expect, a note instead."""
    try:
        return devices()
    except Exception as error:  # noqa: BLE001 - a driver's surprise must not keep people from their CPU
        notes.append(f"{vendor}'s GPUs could not be looked at ({type(error).__name__}: {error}).")
        return []


def _cards_first(devices: tuple[Device, ...], notes: list[str]) -> tuple[Device, ...]:
    """Beside a card llama.cpp leaves a GPU that shares the RAM alone (llama.cpp, "add integrated GPUs only if …")."""
    if not any(device.usable and not device.unified for device in devices):
        return devices
    notes += [
        f"llama.cpp does not use {device.name} while there is a card with memory of its own."
        for device in devices
        if device.usable and device.unified
    ]
    return tuple(replace(device, usable=False) if device.unified else device for device in devices)
