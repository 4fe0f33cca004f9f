"""Placement of layers on devices: everything must fit, and as much as possible goes on GPUs.

llama.cpp puts the last layers on GPUs first, in one piece for each device, and counts the output matrix as one more
layer (`n_gpu_layers`, src/llama-model.cpp); the embedding table stays on the CPU.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, chain, pairwise, product
from typing import TYPE_CHECKING

from hermes_cli.catalog.models import Architecture
from hermes_cli.planning.memory import (
    ContextSettings,
    MemoryBreakdown,
    Weights,
    beside_devices,
    compute_bytes,
    kv_bytes_per_layer,
    on_cpu,
    on_device,
)
from hermes_cli.units import GIB, MIB

if TYPE_CHECKING:
    from hermes_cli.hardware.machine import Backend, Device, Machine

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

ROOMY = 0.92  # of a device's room: with more in it a plan depends on overheads that are assumed
MOST_KINDS = 6  # of different devices, of which all sets are looked at
EXACT = 2**-14  # of a device's room; 1.5 MiB of 24 GiB


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
    """A whole model on a machine: the CPU's share first, then those of the devices that hold something."""

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
    def devices(self) -> tuple[int, ...]:
        """The devices that hold something, as indexes among the machine's usable ones."""
        return tuple(share.device for share in self.shares if share.device is not None)

    @property
    def gpu_layers(self) -> int:
        """llama.cpp's `n_gpu_layers`: layers on devices, and one for the output matrix."""
        return sum(self.tensor_split)

    @property
    def tensor_split(self) -> tuple[int, ...]:
        """llama.cpp's `tensor_split`: of `gpu_layers`, how many each of `devices` holds."""
        return tuple(share.last - share.first + share.output for share in self.shares if share.device is not None)


def reserved_bytes(device: Device) -> int:
    """Bytes that are left free on a device for what else it does: 3 %, at least 128 MiB and at most 1 GiB."""
    if device.reserve is not None:
        return device.reserve
    return min(max(device.total * 3 // 100, 128 * MIB), GIB)


def room_on(device: Device) -> int:
    """Bytes of a device that a model may take."""
    return max(device.free - reserved_bytes(device), 0)


def placements(
    architecture: Architecture,
    table: Weights,
    settings: ContextSettings,
    machine: Machine,
    gpu_layers: int | None = None,
) -> Iterator[Placement]:
    """Placements that fit, as far as they are worth a look; those on fewer devices first.

    All layers on devices come first, then as many as have room, then none. With `gpu_layers`, counted as llama.cpp's
    `n_gpu_layers`, there are only placements with so many.
    """
    planner = _Planner(architecture, table, settings, machine)
    most = architecture.layers + 1
    if gpu_layers is None or gpu_layers > 0:
        on_host = 0 if gpu_layers is None else max(most - gpu_layers, 0)
        sets = device_sets(machine.usable_devices)
        for devices in sets:
            yield from filter(None, (planner.spread(devices, on_host), planner.packed(devices, on_host)))
        if gpu_layers is None:
            for devices in sets:
                filled = planner.fill(devices, most)
                while filled:
                    yield filled
                    # on a device with less bandwidth than the RAM fewer layers may be better
                    slowest = min(machine.usable_devices[index].bandwidth or math.inf for index in devices)
                    if slowest >= (machine.ram_bandwidth or 0) or filled.gpu_layers == 1:
                        break
                    filled = planner.fill(devices, filled.gpu_layers - 1)
    if not gpu_layers and (alone := planner.on_cpu()).fits:
        yield alone


def place_layers(
    architecture: Architecture, table: Weights, settings: ContextSettings, machine: Machine, gpu_layers: int
) -> Placement:
    """So many layers on all devices together, in proportion to their room; it may not fit."""
    rooms = [room_on(device) for device in machine.usable_devices]
    split = rooms if any(rooms) else [1] * len(rooms)
    return place_split(architecture, table, settings, machine, gpu_layers, range(len(rooms)), split)


def place_split(
    architecture: Architecture,
    table: Weights,
    settings: ContextSettings,
    machine: Machine,
    gpu_layers: int,
    devices: Sequence[int],
    split: Sequence[float],
) -> Placement:
    """The placement that llama.cpp makes of `n_gpu_layers`, `devices` and `tensor_split`; it may not fit.

    `devices` are indexes among the usable ones; they share in the proportion of `split`.
    """
    planner = _Planner(architecture, table, settings, machine)
    if gpu_layers < 1 or not devices:
        return planner.on_cpu()
    on_host = max(architecture.layers + 1 - gpu_layers, 0)
    units, split = architecture.layers + 1 - on_host, split if any(split) else [1] * len(devices)
    ends = [part / sum(split) for part in accumulate(split)]
    # a layer goes to the first device whose end lies behind it (llama_model::load_tensors)
    positions = [number / units for number in range(units)]
    cuts = [on_host, *(on_host + bisect_left(positions, end) for end in ends)]
    return planner.placement(devices, cuts)


@lru_cache(maxsize=64)
def device_sets(devices: tuple[Device, ...]) -> tuple[tuple[int, ...], ...]:
    """Sets of devices that a model may be spread over, the smallest sets first; in each the fastest device first.

    Of devices that are alike only their number matters. Where more than `MOST_KINDS` differ, a set leaves out none
    that is faster than its last.
    """
    order = fastest_first(devices)
    kinds: dict[tuple[object, ...], list[int]] = {}
    for rank, index in enumerate(order):
        device = devices[index]
        kinds.setdefault((*_slowness(device), device.free, device.total, device.backend), []).append(rank)
    if len(kinds) > MOST_KINDS:
        return tuple(tuple(order[: count + 1]) for count in range(len(order)))
    numbers = product(*(range(len(alike), -1, -1) for alike in kinds.values()))
    sets = (chain(*(alike[:number] for alike, number in zip(kinds.values(), some, strict=True))) for some in numbers)
    return tuple(tuple(order[rank] for rank in sorted(ranks)) for ranks in sorted(map(tuple, sets), key=len) if ranks)


def fastest_first(devices: Sequence[Device]) -> list[int]:
    """The indexes of devices in the order in which they decode, the fastest first."""
    return sorted(range(len(devices)), key=lambda index: _slowness(devices[index]))


def _slowness(device: Device) -> tuple[float, float]:
    return -(device.bandwidth or 0.0), -(device.operations or 0.0)


class _Planner:
    """Placements of one model with one context on a machine.

    Units are the layers and, as the last one, the output matrix. Each device has its own overhead and compute buffer.
    """

    def __init__(self, architecture: Architecture, table: Weights, settings: ContextSettings, machine: Machine) -> None:
        self.architecture, self.table, self.settings, self.machine = architecture, table, settings, machine
        self.devices = machine.usable_devices
        self.rooms = [room_on(device) for device in self.devices]
        if self.devices:
            per_layer = kv_bytes_per_layer(architecture, settings)
            self.compute = compute_bytes(architecture, settings, on_gpu=True, with_output=False)
            last = table.head + compute_bytes(architecture, settings, on_gpu=True) - self.compute
            self.sums = [0, *accumulate((*(size + per_layer for size in table.layers), last))]

    def on_cpu(self) -> Placement:
        """Everything on the CPU."""
        part = on_cpu(self.architecture, self.table, self.settings, OVERHEAD["cpu"])
        layers, room = self.architecture.layers, self.machine.ram_available
        return Placement((DeviceShare(None, 0, layers, output=True, part=part, room=room),))

    def spread(self, devices: tuple[int, ...], on_host: int) -> Placement | None:
        """Place all but the first `on_host` layers on these devices; None if they do not fit, or one is not needed.

        The faster devices get as much as they can with a little room to spare; equally fast ones share evenly.
        """
        cuts = self._cuts(devices, on_host, ROOMY)
        if cuts is None:
            cuts = self._tightest(devices, on_host, 1.0)
        elif len(devices) > 1 and len({_slowness(self.devices[index]) for index in devices}) == 1:
            cuts = self._tightest(devices, on_host, ROOMY)
        return self._fitting(devices, cuts)

    def packed(self, devices: tuple[int, ...], on_host: int) -> Placement | None:
        """Place as `spread`, but fill the faster devices to the last byte; None if all are equally fast."""
        if len({_slowness(self.devices[index]) for index in devices}) == 1:
            return None
        return self._fitting(devices, self._cuts(devices, on_host, 1.0))

    def fill(self, devices: tuple[int, ...], most: int) -> Placement | None:
        """Place up to `most` layers, as many as these devices hold; None if that is none, or one is not needed."""
        cuts = [len(self.sums) - 1]
        for index in reversed(devices):
            start = bisect_left(self.sums, self.sums[cuts[0]] - self._limit(index, 1.0))
            cuts.insert(0, max(min(start, cuts[0]), len(self.sums) - 1 - most))
        return self._fitting(devices, cuts) if cuts[0] else None

    def placement(self, devices: Sequence[int], cuts: Sequence[int]) -> Placement:
        """Place the units before the first cut on the CPU, those up to the next on the first device, and so on."""
        architecture, settings, table, layers = self.architecture, self.settings, self.table, self.architecture.layers
        shares = []
        for index, start, end in zip(devices, cuts, cuts[1:], strict=False):
            if start < end:
                first, last, output = min(start, layers), min(end, layers), end > layers
                overhead, head = OVERHEAD[self.devices[index].backend], table.head if output else None
                part = on_device(architecture, settings, table.layers[first:last], head, overhead)
                shares.append(DeviceShare(index, first, last, output, part, self.rooms[index]))
        host = beside_devices(architecture, table, settings, cuts[0], OVERHEAD["cpu"])
        shared = sum(self.devices[share.device or 0].ram_taken(share.part.total) for share in shares)
        room = self.machine.ram_available - shared
        return Placement((DeviceShare(None, 0, cuts[0], output=False, part=host, room=room), *shares))

    def _fitting(self, devices: Sequence[int], cuts: Sequence[int] | None) -> Placement | None:
        if cuts is None or any(start >= end for start, end in pairwise(cuts)):
            return None
        placement = self.placement(devices, cuts)
        return placement if placement.fits else None

    def _limit(self, index: int, share: float) -> int:
        """Bytes of units that fill a device up to a share of its room."""
        return int(self.rooms[index] * share) - OVERHEAD[self.devices[index].backend] - self.compute

    def _cuts(self, devices: Sequence[int], on_host: int, share: float) -> list[int] | None:
        """Fill one device after the other up to a share of its room; None if something is left then."""
        cuts = [on_host]
        for index in devices:
            end = bisect_right(self.sums, self.sums[cuts[-1]] + self._limit(index, share)) - 1
            cuts.append(max(end, cuts[-1]))
        return cuts if cuts[-1] == len(self.sums) - 1 else None

    def _tightest(self, devices: Sequence[int], on_host: int, share: float) -> list[int] | None:
        """The smallest share of their rooms with which it fits on these devices, of at most `share`."""
        best, low = self._cuts(devices, on_host, share), 0.0
        while best and len(devices) > 1 and share - low > EXACT:
            middle = (low + share) / 2
            cuts = self._cuts(devices, on_host, middle)
            best, low, share = (cuts, low, middle) if cuts else (best, middle, share)
        return best
