"""NVIDIA's cards through NVML, the library beside the driver that nvidia-smi uses too.

Every figure is asked for on its own, and one that the driver does not tell (WSL, laptops, virtual GPUs and old cards
leave out different ones) is unknown without taking the others along. Names and meanings: NVML API Reference Guide.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hermes_cli.hardware.advice import Problem, advice_at
from hermes_cli.hardware.machine import Device, Note
from hermes_cli.hardware.system import SystemMemory, in_container, jetson_model, on_pci
from hermes_cli.units import MIB, memory_size

if TYPE_CHECKING:
    from types import ModuleType

VENDOR = 0x10DE  # NVIDIA at PCI-SIG
VARIABLE = "CUDA_VISIBLE_DEVICES"
TRANSFERS_PER_CLOCK = 2  # NVML tells the clock of the data lines: 10501 MHz on a 384 bit RTX 4090 is 1008 GB/s
MEMORY_SLICES = 8  # MIG divides memory into eighths of the card (MIG User Guide, "Partitioning"); A30 uses every other
NOT_TOLD = 2**64 - 1  # NVML_VALUE_NOT_AVAILABLE, which some versions of pynvml pass on
MOST_DIGITS = 9  # of an index; Python refuses to read numbers of some thousand
# GPUs inside a processor share its RAM, whatever NVML answers: GB10, and the Jetsons by all their names ("Orin
# (nvgpu)") or by CUDA's list of compute capabilities, where Thor was 10.1 at first.
UNIFIED = re.compile(r"(?i)\bGB10\b|\bThor\b|\bOrin\b|xavier|tegra|jetson|nvgpu")
UNIFIED_CAPABILITIES = {(5, 3), (6, 2), (7, 2), (8, 7), (10, 1), (11, 0), (12, 1)}
JETSONS_FILES = ("dev/nvmap", "dev/nvhost-gpu", "dev/nvgpu")  # one of them is there where CUDA can run


def load(root: Path, notes: list[Note]) -> ModuleType | None:
    """The pynvml module where there may be NVIDIA's driver; importing it takes 35 ms that other machines can save."""
    # on Windows and WSL (dxg) nothing but NVML itself tells whether there is such a card
    if sys.platform != "win32" and not (root / "dev/dxg").exists() and not _card_seen(root):
        return None
    try:
        import pynvml  # type: ignore[import-untyped]  # noqa: PLC0415 - as above
    except ImportError as error:
        if not jetson_model(root):
            notes.append(Note("devices", f"NVIDIA's driver cannot be asked: {error}.", fix="pip install nvidia-ml-py"))
        return None
    module: ModuleType = pynvml
    return module


def _card_seen(root: Path) -> bool:
    """A card on the bus counts even without device files: NVML makes those on its first call after a boot."""
    return (root / "dev/nvidiactl").exists() or on_pci(root, VENDOR) or bool(jetson_model(root))


def devices(
    nvml: ModuleType | None,  # the module pynvml, or one that answers like it; None if there is none
    root: Path,  # of the file system
    ram: SystemMemory,  # what a GPU without memory of its own shares
    environ: Mapping[str, str],  # where CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER are looked up
    notes: list[Note],  # what cannot be found out is added here
) -> list[Device]:
    """The GPUs that CUDA programs started now would see, in their order."""
    if nvml is None:
        return _jetson(root, ram, environ, notes)
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        if jetson_model(root):  # JetPack before 6 has no NVML
            return _jetson(root, ram, environ, notes)
        if _card_seen(root) or not isinstance(error, nvml.NVMLError_LibraryNotFound):
            _note(notes, root, _problem(nvml, error), f"NVIDIA's driver does not answer: {str(error).rstrip('.')}.")
        return []
    cards = _Cards(nvml, root, ram, notes)
    try:
        if not cards.count and jetson_model(root):
            return _jetson(root, ram, environ, notes)
        if not cards.count and _card_seen(root):
            _note(notes, root, "NVIDIA's driver finds no GPU", "NVIDIA's driver answers, but it finds no GPU.")
        return cards.devices(environ)
    finally:
        cards.ask("nvmlShutdown")


def _problem(nvml: ModuleType, error: Exception) -> Problem:
    if isinstance(error, nvml.NVMLError_LibRmVersionMismatch):  # it was updated while it was in use
        return "NVIDIA's driver was replaced"
    if isinstance(error, nvml.NVMLError_DriverNotLoaded):
        return "NVIDIA's driver is not loaded"
    return "NVML is missing" if isinstance(error, nvml.NVMLError_LibraryNotFound) else "NVIDIA's driver fails"


def _note(notes: list[Note], root: Path, problem: Problem, text: str) -> None:
    """Note a problem, with what the table of advice says to it."""
    known = advice_at(problem, root)
    notes.append(Note("devices", f"{text} {known.text}." if known.text else text, known.fix))


def _jetson(root: Path, ram: SystemMemory, environ: Mapping[str, str], notes: list[Note]) -> list[Device]:
    """The GPU of a Jetson, which CUDA finds without NVML; none on other machines."""
    name = jetson_model(root)
    if not name:
        return []
    if not visible_devices(environ.get(VARIABLE), [name]):
        notes.append(Note("devices", f'{VARIABLE}="{environ[VARIABLE]}" hides the GPU.', fix=f"unset {VARIABLE}"))
        return []
    shut = in_container(root) and not any((root / file).exists() for file in JETSONS_FILES)
    return [
        Device(
            vendor="nvidia",
            name=name,
            total=ram.total,
            free=ram.available,
            bandwidth=None,
            bandwidth_source="assumed",
            backend="cuda",
            usable=not shut,
            reason="no access to its device files" if shut else "",
            fix=advice_at("a Jetson's device files are absent", root).fix if shut else "",
            unified=True,
        )
    ]


@dataclass(frozen=True)
class _Unit:
    """A CUDA device: a card, or an instance of a card in MIG mode."""

    handle: object
    card: object
    uuid: str

    @property
    def mig(self) -> bool:
        return self.handle is not self.card


class _Cards:
    """All that NVML tells of this machine's cards."""

    def __init__(self, nvml: ModuleType, root: Path, ram: SystemMemory, notes: list[Note]) -> None:
        self._nvml = nvml
        self._root = root
        # some calls that a driver older than pynvml lacks raise this class, which is no NVMLError
        self._mismatch: type[Exception] = getattr(nvml, "NVMLLibraryMismatchError", nvml.NVMLError)
        self._ram = ram
        self._notes = notes
        self._driver = self.ask("nvmlSystemGetDriverVersion") or ""
        self.count: int = self.ask("nvmlDeviceGetCount") or 0

    def ask(self, function: str, *arguments: Any) -> Any:  # noqa: ANN401 - NVML's answers have no common type
        """Call a function of NVML; None if this card, driver or version of pynvml does not tell."""
        try:
            answer = getattr(self._nvml, function)(*arguments)
        except (self._nvml.NVMLError, self._mismatch, AttributeError, UnicodeDecodeError):
            return None
        return answer.decode("utf-8", "replace") if isinstance(answer, bytes) else answer  # old versions of pynvml

    def devices(self, environ: Mapping[str, str]) -> list[Device]:
        cards = []
        for index in range(self.count):
            handle = self.ask("nvmlDeviceGetHandleByIndex", index)
            if handle is None:  # fallen off the bus, or kept from this container
                lost = f"NVIDIA GPU {index} is there, but the driver gives no access to it."
                _note(self._notes, self._root, "NVIDIA's driver fails", lost)
            else:
                cards.append(_Unit(handle, handle, self.ask("nvmlDeviceGetUUID", handle) or f"card {index}"))
        # NVML goes by PCI address, CUDA by speed unless told otherwise (CUDA_DEVICE_ORDER in CUDA's guide). CUDA does
        # not publish how it compares cards; cores x clock agrees with it wherever cards differ enough to care.
        speeds = {card.uuid: self._speed(card) for card in cards}
        if environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID" and all(speeds.values()):
            cards.sort(key=lambda card: -speeds[card.uuid])
        units = self._chosen(cards, environ.get(VARIABLE))
        devices = [self._device(unit) for unit in units]
        # a process gets one MIG instance, and then nothing else (MIG User Guide, "CUDA Device Enumeration")
        first = next((unit for unit in units if unit.mig), None)
        if first is None or len(units) == 1:
            return devices
        reason = "CUDA uses one MIG instance at a time, and no card beside it"
        return [
            device
            if unit is first
            else replace(device, usable=False, reason=reason, fix=f"export {VARIABLE}={unit.uuid}")
            for unit, device in zip(units, devices, strict=True)
        ]

    def _speed(self, card: _Unit) -> int:
        cores = self.ask("nvmlDeviceGetNumGpuCores", card.handle) or 0
        clock = self.ask("nvmlDeviceGetMaxClockInfo", card.handle, self._nvml.NVML_CLOCK_SM) or 0
        return int(cores * clock)

    def _chosen(self, cards: list[_Unit], choice: str | None) -> list[_Unit]:
        """The cards and instances that CUDA_VISIBLE_DEVICES leaves; a card in MIG mode stands for its instances."""
        modes = {card.uuid: self.ask("nvmlDeviceGetMigMode", card.handle) for card in cards}  # current and pending
        instances = {card.uuid: list(self._instances(card)) for card in cards if (modes[card.uuid] or [0])[0]}
        units = cards + [unit for several in instances.values() for unit in several]
        identifiers = [unit.uuid for unit in units] + [self._older_name(unit) for unit in units]
        positions = visible_devices(choice, identifiers, indexable=len(cards))
        named = [units[position] for position in dict.fromkeys(position % len(units) for position in positions)]
        chosen = [usable for unit in named for usable in instances.get(unit.uuid, [unit])]
        everything = [usable for card in cards for usable in instances.get(card.uuid, [card])]
        if hidden := len({unit.uuid for unit in everything} - {unit.uuid for unit in chosen}):
            hides = f'{VARIABLE}="{choice}" hides {hidden} of {len(everything)} NVIDIA devices.'
            self._notes.append(Note("devices", hides, fix=f"unset {VARIABLE}"))
        return chosen

    def _older_name(self, unit: _Unit) -> str:
        """Return the instance's name of before R470, which CUDA still takes (CUDA's guide); empty for cards."""
        if not unit.mig:
            return ""
        numbers = [self.ask(f"nvmlDeviceGet{part}InstanceId", unit.handle) for part in ("Gpu", "Compute")]
        card = self.ask("nvmlDeviceGetUUID", unit.card)
        return "" if None in {card, *numbers} else f"MIG-{card}/{numbers[0]}/{numbers[1]}"

    def _instances(self, card: _Unit) -> Iterator[_Unit]:
        found = False
        for index in range(self.ask("nvmlDeviceGetMaxMigDeviceCount", card.handle) or 0):
            handle = self.ask("nvmlDeviceGetMigDeviceHandleByIndex", card.handle, index)
            if handle is not None:  # slots that hold no instance answer "not found"
                found = True
                uuid = self.ask("nvmlDeviceGetUUID", handle) or f"instance {index} of {card.uuid}"
                yield _Unit(handle, card.handle, uuid)
        if not found:
            empty = f"{self._name(card)} is in MIG mode but has no instance, so CUDA cannot use it."
            # one instance of the whole card
            self._notes.append(Note("devices", empty, fix=f"sudo nvidia-smi mig -i {card.uuid} -cgi 0 -C"))

    def _device(self, unit: _Unit) -> Device:
        capability = self.ask("nvmlDeviceGetCudaComputeCapability", unit.card)
        bandwidth, name = self._bandwidth(unit), self._name(unit)
        unified = bool(UNIFIED.search(name)) or tuple(capability or ()) in UNIFIED_CAPABILITIES
        total, free = self._ram if unified else self._memory(unit)
        return Device(
            vendor="nvidia",
            name=(jetson_model(self._root) or name) if unified else name,
            total=total,
            free=free,
            bandwidth=bandwidth,
            bandwidth_source="assumed" if bandwidth is None else "probed",
            backend="cuda",
            unified=unified,
            compute_capability=".".join(str(part) for part in capability or ()),
            driver=self._driver,
            users=tuple(self._users(unit)),
        )

    def _name(self, unit: _Unit) -> str:
        """Of an instance, drivers since R470 tell "NVIDIA A100-SXM4-80GB MIG 1g.10gb"."""
        name = self.ask("nvmlDeviceGetName", unit.handle) or self.ask("nvmlDeviceGetName", unit.card) or "GPU"
        return str(name).removeprefix("NVIDIA ")

    def _memory(self, unit: _Unit) -> tuple[int, int]:
        """Total and free bytes of a card; some virtual GPUs do not tell."""
        memory = self.ask("nvmlDeviceGetMemoryInfo", unit.handle)
        if memory is not None and memory.total:
            return int(memory.total), int(memory.free)
        untold = (
            f"NVIDIA's driver does not tell the memory of {self._name(unit)}; hardware.yaml can (docs/planning.md)."
        )
        self._notes.append(Note("devices", untold))
        return 0, 0

    def _bandwidth(self, unit: _Unit) -> float | None:
        """Bytes per second: bus width in bits x transfers per second / 8, and of that an instance's part."""
        width = self.ask("nvmlDeviceGetMemoryBusWidth", unit.card)
        megahertz = self.ask("nvmlDeviceGetMaxClockInfo", unit.card, self._nvml.NVML_CLOCK_MEM)
        if not (width and megahertz):
            return None
        share = 1.0
        if unit.mig:  # its attributes give its memory in MiB, which is a little less than its slices are
            attributes = self.ask("nvmlDeviceGetAttributes", unit.handle)
            whole = self.ask("nvmlDeviceGetMemoryInfo", unit.card)
            if attributes is None or whole is None or not whole.total:
                return None
            share = round(attributes.memorySizeMB * MIB / whole.total * MEMORY_SLICES) / MEMORY_SLICES
        return float(width * megahertz * 10**6 * TRANSFERS_PER_CLOCK / 8 * share) or None

    def _users(self, unit: _Unit) -> Iterator[str]:
        """Other processes on it, the largest first. Windows and WSL tell no sizes."""
        used: dict[int, int] = {}
        for kind in ("Compute", "Graphics"):
            for process in self.ask(f"nvmlDeviceGet{kind}RunningProcesses", unit.handle) or []:
                # one that computes and draws is listed twice, with all its memory each time
                size = 0 if process.usedGpuMemory in {None, NOT_TOLD} else process.usedGpuMemory
                used[process.pid] = max(used.get(process.pid, 0), size)
        used.pop(os.getpid(), None)
        for pid, size in sorted(used.items(), key=lambda item: -item[1]):
            name = self.ask("nvmlSystemGetProcessName", pid) or f"process {pid}"
            program = str(name).split(" ")[0] if name.startswith("/") else str(name)  # without arguments
            yield program.replace("\\", "/").rsplit("/", 1)[-1] + (f" {memory_size(size)}" if size else "")


def visible_devices(
    choice: str | None,  # the variable's value, None if it is not set
    identifiers: Sequence[str],  # the devices' UUIDs
    indexable: int | None = None,  # how many of them, from the first on, also go by an index; None is all
) -> list[int]:
    """Return the positions of the devices that CUDA_VISIBLE_DEVICES, or ROCm's and HIP's equivalent, leaves, in order.

    The CUDA C++ programming guide (environment variables): a list of indexes, of UUIDs or of their unambiguous
    beginnings; from the first entry that names nothing on, all are hidden. So "" and "-1" hide everything.
    """
    if choice is None:
        return list(range(len(identifiers) if indexable is None else indexable))
    positions: list[int] = []
    for entry in choice.split(","):
        position = _position(entry.strip(), identifiers, len(identifiers) if indexable is None else indexable)
        if position is None:
            break
        if position not in positions:
            positions.append(position)
    return positions


def _position(entry: str, identifiers: Sequence[str], indexable: int) -> int | None:
    if entry.isdecimal():
        return int(entry) if len(entry) <= MOST_DIGITS and int(entry) < indexable else None
    matches = [i for i, identifier in enumerate(identifiers) if entry and identifier.lower().startswith(entry.lower())]
    return matches[0] if len(matches) == 1 else None
