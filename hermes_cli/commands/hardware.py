"""`hermes hardware`: what this machine has, where each number is from, and what keeps a GPU from being used."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from hermes_cli.commands.options import with_console
from hermes_cli.console import Console
from hermes_cli.units import GIB, counted, memory_size

if TYPE_CHECKING:
    from hermes_cli.hardware.machine import Device, Machine, ValueSource, Vendor

# Who answers for a vendor's devices, and what else a number may be from.
ANSWERS: dict[Vendor, str] = {"nvidia": "NVML", "amd": "amdgpu driver", "intel": "kernel driver", "apple": "sysctl"}
FROM: dict[ValueSource, str] = {
    "measured": "measured",
    "table": "data sheet",
    "given": "hardware.yaml",
    "assumed": "assumed",
}
SYSTEM = "operating system"
MOST_USERS = 4


@with_console
def command(console: Console) -> None:
    """Show what this machine has: GPUs, memory, bandwidth, disk, and what hermes can use of it.

    What is wrong there can be corrected in hardware.yaml (docs/planning.md).
    """
    from hermes_cli.hardware.probe import probe

    with console.working("measuring memory bandwidth"):
        machine = probe()
    show(machine, console)


def show(machine: Machine, console: Console) -> None:
    """Show the facts, and on standard error what could be better, with the command that helps."""
    console.facts(list(_rows(machine)))
    unused: dict[tuple[str, str], list[int]] = {}
    for number, device in enumerate(machine.devices):
        if not device.usable and not device.left_out:
            unused.setdefault((device.reason, device.fix), []).append(number)
    for (reason, fix), numbers in unused.items():
        names = ", ".join(f"GPU {number} ({machine.devices[number].name})" for number in numbers)
        message = f"{names} {'is' if len(numbers) == 1 else 'are'} not used: {reason}."
        if fix:
            console.warn(f"{message}\n  next: {fix}")
        else:
            console.note(message)
    for note in machine.notes:
        console.note(f"{note.text}\n  next: {note.fix}" if note.fix else note.text)
    console.document(asdict(machine))


def _rows(machine: Machine) -> Iterator[tuple[str, str]]:
    for number, device in enumerate(machine.devices):
        used = f"used with {device.backend}" if device.usable else "not used"
        yield f"GPU {number}", f"{device.name}, {f'left out by {device.left_out}' if device.left_out else used}"
        yield from _device(device)
    if not machine.devices:
        yield "GPU", "none found"
    yield "CPU", f"{machine.cpu}, {counted(machine.cores, 'core')} ({SYSTEM})"
    yield "  SIMD", f"{' '.join(machine.simd) or 'none known'} ({SYSTEM})"
    ram = f"{memory_size(machine.ram_available)} of {_total(machine.ram_total)} available"
    yield "RAM", f"{ram} ({FROM.get(machine.ram_source, SYSTEM)})"
    yield "  bandwidth", _bandwidth(machine.ram_bandwidth, FROM.get(machine.ram_bandwidth_source, SYSTEM))
    yield "disk", f"{memory_size(machine.disk_free)} free in {machine.disk_path} ({SYSTEM})"
    yield "system", machine.os
    yield "backends", f"{', '.join(machine.backends)} (files of the installed llama-cpp-python)"


def _device(device: Device) -> Iterator[tuple[str, str]]:
    source = ANSWERS[device.vendor]
    shared = " of the RAM" if device.unified and not device.carve_out else ""
    memory = f"{memory_size(device.free)} of {_total(device.total)}{shared} free"
    of_memory = SYSTEM if device.vendor == "nvidia" and device.unified else source  # NVML does not tell it
    yield "  memory", f"{memory} ({FROM.get(device.memory_source, of_memory)})" if device.total else "unknown"
    if device.carve_out:
        yield "  carve-out", f"{memory_size(device.carve_out)} of these are no RAM ({source})"
    yield "  bandwidth", _bandwidth(device.bandwidth, FROM.get(device.bandwidth_source, source))
    capability = f"compute capability {device.compute_capability}" if device.compute_capability else ""
    if device.driver or capability:
        yield "  driver", ", ".join(filter(None, (device.driver, capability))) + f" ({source})"
    if device.users:
        more = len(device.users) - MOST_USERS
        named = ", ".join(device.users[:MOST_USERS])
        yield "  in use by", f"{named}{f' and {more} more' if more > 0 else ''} ({source})"


def _total(size: int) -> str:
    """Return all memory of a place in GB, and in GiB as well: what it is sold with is a round number of these."""
    return f"{memory_size(size)} ({size / GIB:.4g} GiB)"


def _bandwidth(value: float | None, source: str) -> str:
    return f"{value / 1e9:.0f} GB/s ({source})" if value else "unknown"
