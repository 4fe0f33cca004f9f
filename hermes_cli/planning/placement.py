"""Placement of layers on devices: everything must fit, and as much as possible goes on GPUs.

llama.cpp puts the last layers on GPUs first, in one piece for each device, and counts the output matrix as one more
layer (`n_gpu_layers`, src/llama-model.cpp); the embedding table stays on the CPU.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hermes_cli.planning.memory import MemoryBreakdown, Weights, beside_devices, kv_bytes_per_layer, on_cpu, on_device
from hermes_cli.units import GIB, MIB

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hermes_cli.catalog.models import Architecture
    from hermes_cli.hardware.machine import Backend, Device, Machine
    from hermes_cli.planning.memory import ContextSettings

# What a backend takes for itself: CUDA and ROCm contexts with their libraries, Metal's heap (Ollama's ml/device.go
# keeps as much free: 457 MiB, 512 on Metal). Stated as an assumption wherever it is shown.
OVERHEAD: dict[Backend, int] = {
    "cuda": 457 * MIB,
    "rocm": 457 * MIB,
    "metal": 512 * MIB,
    "vulkan": 300 * MIB,
    "sycl": 457 * MIB,
    "cpu": 150 * MIB,
}


@dataclass(frozen=True)
class DeviceShare:
    """The share of one device: layers `first` to `last` (exclusive), perhaps the output matrix, and their bytes.

    `device` is the index among the machine's usable devices, or None for the CPU; `room` is what it has free.
    """

    device: int | None
    first: int
    last: int
    output: bool
    part: MemoryBreakdown
    room: int

    @property
    def fits(self) -> bool:
        """The device has room for its share."""
        return self.part.total <= self.room


@dataclass(frozen=True)
class Placement:
    """A whole model on a machine: the CPU's share first, then the devices'."""

    shares: tuple[DeviceShare, ...]

    @property
    def fits(self) -> bool:
        """Every device has room."""
        return all(share.fits for share in self.shares)

    @property
    def total(self) -> MemoryBreakdown:
        """All places together."""
        return sum((share.part for share in self.shares), MemoryBreakdown())

    @property
    def gpu_layers(self) -> int:
        """llama.cpp's `n_gpu_layers`: layers on devices, and one for the output matrix."""
        return sum(self.tensor_split)

    @property
    def tensor_split(self) -> tuple[int, ...]:
        """llama.cpp's `tensor_split`: of `gpu_layers`, how many each device holds."""
        return tuple(share.last - share.first + share.output for share in self.shares if share.device is not None)


def reserved_bytes(device: Device) -> int:
    """Bytes that are left free on a device for what else it does: 3 %, at least 128 MiB and at most 1 GiB."""
    return min(max(device.total * 3 // 100, 128 * MIB), GIB)


def place(architecture: Architecture, table: Weights, settings: ContextSettings, machine: Machine) -> Placement:
    """The best placement of a model: all on devices, else as many layers as fit there, else all on the CPU.

    It is returned even if it does not fit, so that its numbers can be shown.
    """
    if not machine.usable_devices:
        return _all_on_cpu(architecture, table, settings, machine)
    full = _on_devices(architecture, table, settings, machine, 0)
    if full.fits:
        return full
    low, high = 1, architecture.layers  # the fewest layers on the CPU with which the devices have room
    while low < high:
        middle = (low + high) // 2
        if all(share.fits for share in _on_devices(architecture, table, settings, machine, middle).shares[1:]):
            high = middle
        else:
            low = middle + 1
    partial = _on_devices(architecture, table, settings, machine, high)
    if partial.fits and high < architecture.layers:
        return partial
    on_the_cpu = _all_on_cpu(architecture, table, settings, machine)
    return on_the_cpu if on_the_cpu.fits else full


def place_layers(
    architecture: Architecture, table: Weights, settings: ContextSettings, machine: Machine, gpu_layers: int
) -> Placement:
    """With so many layers on devices, counted as llama.cpp's `n_gpu_layers`; it may not fit."""
    if gpu_layers < 1 or not machine.usable_devices:
        return _all_on_cpu(architecture, table, settings, machine)
    return _on_devices(architecture, table, settings, machine, max(architecture.layers + 1 - gpu_layers, 0))


def _all_on_cpu(architecture: Architecture, table: Weights, settings: ContextSettings, machine: Machine) -> Placement:
    part = replace(on_cpu(architecture, table, settings), overhead=OVERHEAD["cpu"])
    return Placement((DeviceShare(None, 0, architecture.layers, output=True, part=part, room=machine.ram_available),))


def _on_devices(
    architecture: Architecture, table: Weights, settings: ContextSettings, machine: Machine, on_host: int
) -> Placement:
    """The first `on_host` layers on the CPU, the rest and the output spread over the devices."""
    devices, layers = machine.usable_devices, architecture.layers
    per_layer = kv_bytes_per_layer(architecture, settings)
    rooms = [max(device.free - reserved_bytes(device), 0) for device in devices]
    costs = [size + per_layer for size in table.layers[on_host:]] + [table.head]
    cuts = _split(costs, rooms)
    shares = []
    for number, (device, room) in enumerate(zip(devices, rooms, strict=True)):
        first, last = (min(on_host + cut, layers) for cut in cuts[number : number + 2])
        has_output = cuts[number] < cuts[number + 1] == len(costs)
        part = on_device(architecture, settings, table.layers[first:last], table.head if has_output else None)
        if part.total:
            part = replace(part, overhead=OVERHEAD[device.backend])
        shares.append(DeviceShare(number, first, last, has_output, part, room))
    host = replace(beside_devices(architecture, table, settings, on_host), overhead=OVERHEAD["cpu"])
    shared = sum(device.ram_taken(share.part.total) for device, share in zip(devices, shares, strict=True))
    room = machine.ram_available - shared
    return Placement((DeviceShare(None, 0, on_host, output=False, part=host, room=room), *shares))


def _split(costs: Sequence[int], rooms: Sequence[int]) -> list[int]:
    """Cut a row of units into one piece for each device, in proportion to their free memory.

    Returns one index more than there are devices, from 0 to the number of units.
    """
    total, all_rooms = sum(costs), sum(rooms) or 1
    cuts, spent, goal = [0], 0, 0.0
    for room in rooms[:-1]:
        goal += total * room / all_rooms
        index = cuts[-1]
        while index < len(costs) and spent + costs[index] / 2 <= goal:
            spent += costs[index]
            index += 1
        cuts.append(index)
    return [*cuts, len(costs)]
