"""The GPUs that the user lets hermes use (`--devices`), and the memory to leave free on each (`--reserve`)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from hermes_cli.errors import UsageError

if TYPE_CHECKING:
    from hermes_cli.hardware.machine import Device, Machine

FLAG = "--devices"
SHORTEST_NAME = 2  # digits; fewer are a number


def select_devices(
    machine: Machine,  # the one at hand, or a simulated one
    # numbers as `hermes hardware` shows them, or names or parts of them, which stand for every GPU that has them; none
    # is all GPUs
    names: Sequence[str],
    reserve: int | None = None,  # bytes to leave free on each; None leaves that to the planner
) -> Machine:
    """Return the machine with only these GPUs to be used.

    Raise UsageError if there is no such GPU, or it cannot be used.
    """
    devices = machine.devices
    if names:
        chosen = {index for name in names for index in _named(name, devices)}
        devices = tuple(
            device if index in chosen else replace(device, left_out=FLAG) for index, device in enumerate(devices)
        )
    if reserve is not None:
        devices = tuple(replace(device, reserve=reserve) for device in devices)
    return machine if devices == machine.devices else replace(machine, devices=devices)


def device_names(text: str | None) -> tuple[str, ...]:
    """Return the numbers and names of `--devices`, which commas separate."""
    return tuple(filter(None, (name.strip() for name in (text or "").split(","))))


def reserve_bytes(text: str | None) -> int | None:
    """Return the bytes of `--reserve`; None if it is not given.

    Raise UsageError if it is not a size.
    """
    if text is None:
        return None
    from hermes_cli.hardware.simulate import parse_size  # noqa: PLC0415 - with the table of GPUs, 10 ms

    return 0 if text.strip() == "0" else parse_size(text, "--reserve")


def _named(name: str, devices: Sequence[Device]) -> list[int]:
    plain = _plain(name)
    found = [index for index in range(len(devices)) if str(index) == name.strip()]
    if not found and (len(plain) > SHORTEST_NAME or not plain.isdecimal()):  # 4090 is a name
        alike = [index for index, device in enumerate(devices) if plain and plain in _plain(device.name)]
        found = [index for index in alike if _plain(devices[index].name) == plain] or alike
    if not found:
        there = ", ".join(f"{index} ({device.name})" for index, device in enumerate(devices))
        raise UsageError(
            f"{FLAG} {name.strip()}: there is no such GPU.",
            hint=f"choose among: {there}" if there else "no GPU is found here: hermes hardware",
        )
    usable = [index for index in found if devices[index].usable]
    if not usable:
        device = devices[found[0]]
        raise UsageError(
            f"{FLAG} {name.strip()}: {device.name} is not used: {device.reason}.",
            hint=device.fix or "hermes hardware says more.",
        )
    return usable


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", text.lower())
