"""hardware.yaml in the config folder: what a person knows better than the probe.

    ram: {memory: 48G, bandwidth: 80}                  # bandwidths in GB/s
    gpus:
      Radeon 8060S: {memory: 96G, bandwidth: 256}      # by name, or a part of it
      1: {use: false}                                  # or by its number in `hermes hardware`

What is given replaces what was found; of memory, what is in use now is subtracted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from hermes_cli.errors import UsageError
from hermes_cli.hardware.machine import Device, Note
from hermes_cli.hardware.simulate import parse_size
from hermes_cli.hardware.system import SystemMemory

FILE = "hardware.yaml"
HINT = "docs/planning.md shows what can stand there; correct it, or move it away."
FASTEST = 100_000  # GB/s

_BANDWIDTH = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)\s*(?:GB/s)?", re.IGNORECASE)


class MemoryCorrection(msgspec.Struct, forbid_unknown_fields=True):
    """Bytes of memory in all, and bytes per second; None is left as it was found."""

    memory: str | None = None
    bandwidth: float | str | None = None


class GpuCorrection(MemoryCorrection, forbid_unknown_fields=True):
    """The given memory and bandwidth of a GPU; it is not used unless `use`."""

    use: bool = True


class Corrections(msgspec.Struct, forbid_unknown_fields=True):
    """Contents of hardware.yaml."""

    ram: MemoryCorrection = msgspec.field(default_factory=MemoryCorrection)
    gpus: dict[str | int, GpuCorrection] = {}

    @property
    def ram_bandwidth(self) -> float | None:
        """Bytes per second, None if not given."""
        return _bytes_per_second(self.ram.bandwidth)

    def corrected_ram(self, ram: SystemMemory) -> SystemMemory:
        """Return the RAM with the size that is given, less what is in use."""
        if self.ram.memory is None:
            return ram
        total = parse_size(self.ram.memory, FILE)
        return SystemMemory(total, max(total - (ram.total - ram.available), 0))

    def corrected_devices(self, devices: Sequence[Device], ram: SystemMemory, notes: list[Note]) -> tuple[Device, ...]:
        """Return the devices as the file says they are; entries for GPUs that are not here are noted."""
        result = list(devices)
        for name, correction in self.gpus.items():
            chosen = _named(str(name), devices)
            if not chosen:
                there = ", ".join(f"{index} ({device.name})" for index, device in enumerate(devices)) or "none"
                notes.append(Note("devices", f"{FILE} names a GPU that is not here: {name}. Found: {there}."))
            for index in chosen:
                result[index] = _corrected(result[index], correction, ram)
        return tuple(result)


def read_corrections(path: Path) -> Corrections:
    """Read the file; raise UsageError if it cannot be read, is not YAML, or says something that cannot be."""
    import yaml  # noqa: PLC0415 - 20 ms, and few machines have the file

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)  # noqa: S506 - a safe loader
        corrections = msgspec.convert({} if document is None else document, Corrections)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UsageError(f"{path} cannot be read: {reason}.", hint=HINT) from None
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is not YAML: {' '.join(str(error).split())}.", hint=HINT) from None
    except msgspec.ValidationError as error:
        raise UsageError(f"{path}: {error}.", hint=HINT) from None
    for name, part in (("ram", corrections.ram), *corrections.gpus.items()):
        _check(part, f"{path}: {name}")
    return corrections


def _check(part: MemoryCorrection, where: str) -> None:
    if part.memory is not None:
        try:
            parse_size(part.memory, f"{where}: memory")
        except UsageError as error:
            raise UsageError(error.message, hint="write a size like 24G.") from None
    speed = _bytes_per_second(part.bandwidth)
    if part.bandwidth is not None and not (speed and speed <= FASTEST * 1e9):
        fault = f"{where}: bandwidth: {part.bandwidth!r} is no bandwidth."
        raise UsageError(fault, hint="write a number of GB/s, such as 256.")


def _bytes_per_second(value: float | str | None) -> float | None:
    match = _BANDWIDTH.fullmatch(str(value).strip()) if value is not None else None
    return float(match[1]) * 1e9 if match else None


def _named(name: str, devices: Sequence[Device]) -> list[int]:
    if name.isdecimal():
        return [index for index in range(len(devices)) if str(index) == name]
    plain = _plain(name)
    return [index for index, device in enumerate(devices) if plain and plain in _plain(device.name)]


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", text.lower())


def _corrected(device: Device, correction: GpuCorrection, ram: SystemMemory) -> Device:
    changes: dict[str, Any] = {}
    if correction.memory is not None:
        total = parse_size(correction.memory, FILE)
        # of memory that is shared, the RAM's programs are the users
        free = device.carve_out + ram.available if device.unified else total - (device.total - device.free)
        changes |= {"total": total, "free": min(max(free, 0), total), "memory_source": "given"}
    if (speed := _bytes_per_second(correction.bandwidth)) is not None:
        changes |= {"bandwidth": speed, "bandwidth_source": "given"}
    if not correction.use:
        changes |= {"left_out": FILE}
    return replace(device, **changes)
