"""`hermes hardware`: what this machine has, and what the installed build can use of it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from hermes_cli.commands.machine import gibibytes
from hermes_cli.commands.options import JsonOption, NoColorOption, QuietOption, console_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hermes_cli.hardware.machine import Device, Machine


def command(json: JsonOption = False, quiet: QuietOption = False, no_color: NoColorOption = False) -> None:
    """Show what this machine has: GPUs, memory, bandwidth, disk, and what hermes can use of it."""
    console = console_for(json=json, quiet=quiet, no_color=no_color)

    from hermes_cli.hardware.probe import probe  # noqa: PLC0415 - psutil and NVML

    with console.working("measuring memory bandwidth"):
        machine = probe()
    facts = list(_facts(machine))
    width = max(len(label) for label, _ in facts)
    for label, text in facts:
        console.text(f"{label:{width}}  {text}\n")
    for device in machine.devices:
        if not device.usable:
            console.warn(f"{device.name} is not used.")
        if device.fix:
            console.note(f"  next: {device.fix}")
    for note in machine.notes:
        console.note(note)
    console.document(asdict(machine))


def _facts(machine: Machine) -> Iterator[tuple[str, str]]:
    for number, device in enumerate(machine.devices):
        yield f"GPU {number}", _device(device)
        if device.users:
            yield "", f"in use by {', '.join(device.users)}"
    if not machine.devices:
        yield "GPU", "none found"
    yield "CPU", f"{machine.cpu}, {machine.cores} cores, {' '.join(machine.simd) or 'no SIMD known'}"
    free, total = gibibytes(machine.ram_available), gibibytes(machine.ram_total)
    yield "RAM", f"{free} of {total} available{_bandwidth(machine.ram_bandwidth, machine.ram_bandwidth_source)}"
    yield "disk", f"{gibibytes(machine.disk_free)} free in {machine.disk_path}"
    yield "system", machine.os
    yield "backends", f"{', '.join(machine.backends)} (of the installed llama-cpp-python)"


def _device(device: Device) -> str:
    more = [f"compute capability {device.compute_capability}"] if device.compute_capability else []
    more += [f"driver {device.driver}"] if device.driver else []
    more += ["shares the RAM"] if device.unified else []
    memory = f"{gibibytes(device.free)} of {gibibytes(device.total)} free"
    return ", ".join([f"{device.name}: {memory}{_bandwidth(device.bandwidth, device.bandwidth_source)}", *more])


def _bandwidth(value: float | None, source: str) -> str:
    return f", {value / 1e9:.0f} GB/s ({source})" if value else ", bandwidth unknown"
