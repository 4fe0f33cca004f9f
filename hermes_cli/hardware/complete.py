"""What is made of vendors' answers: speed and bandwidth are added, and what is absurd becomes unknown.

A device's bandwidth is, in this order, what its interface tells, what the table of GPUs says of its name and memory,
and for a GPU that shares the RAM what was measured of that. Not so on Apple silicon, whose larger chips read memory
faster than their CPU cores can.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hermes_cli.hardware.machine import Note

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hermes_cli.hardware.machine import Device

LARGEST = 1 << 46  # bytes; no device has 64 TiB
SLOWEST, FASTEST = 1e9, 1e14  # bytes per second; no GPU's memory is slower or faster


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
    total = device.total if 0 <= device.total <= LARGEST else 0
    told = device.bandwidth is not None and SLOWEST <= device.bandwidth <= FASTEST
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
