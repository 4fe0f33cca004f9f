"""The GPUs that --devices names, and what --reserve leaves free."""

from __future__ import annotations

import pytest

from hermes_cli.errors import UsageError
from hermes_cli.hardware.machine import Device, Machine
from hermes_cli.hardware.selection import device_names, reserve_bytes, select_devices
from hermes_cli.planning.placement import room_on

GIB = 1 << 30


def card(name: str, size: int = 24, *, usable: bool = True) -> Device:
    reason = "" if usable else "the installed llama-cpp-python was built without ROCm"
    return Device("nvidia", name, size * GIB, size * GIB, None, "given", "cuda", usable=usable, reason=reason)


HERE = Machine(
    (
        card("GeForce RTX 4090"),
        card("GeForce RTX 3060", 12),
        card("GeForce RTX 3060", 12),
        card("RX 6600", usable=False),
    ),
    64 * GIB,
    60 * GIB,
    None,
    "given",
    "a CPU",
    8,
    (),
    "an OS",
    "/",
    GIB,
    ("cpu", "cuda"),
)


@pytest.mark.parametrize(
    ("typed", "used"),
    [("", [0, 1, 2]), ("0", [0]), ("2, 0", [0, 2]), ("rtx 3060", [1, 2]), ("4090,1", [0, 1]), ("GeForce", [0, 1, 2])],
)
def test_numbers_and_parts_of_names_choose_gpus(typed: str, used: list[int]) -> None:
    found = select_devices(HERE, device_names(typed))
    left_out = [index for index, device in enumerate(found.devices) if device.usable and not device.left_out]
    assert left_out == used
    assert len(found.usable_devices) == len(used)


@pytest.mark.parametrize(
    ("typed", "message", "hint"),
    [
        ("4", "--devices 4: there is no such GPU.", "0 (GeForce RTX 4090)"),
        ("5090", "--devices 5090: there is no such GPU.", "choose among"),
        ("0,Arc", "--devices Arc: there is no such GPU.", "choose among"),
        ("-1", "--devices -1: there is no such GPU.", "choose among"),
        ("3", "--devices 3: RX 6600 is not used: the installed llama-cpp-python was built without ROCm.", "hardware"),
    ],
)
def test_what_cannot_be_used_is_refused_with_what_can(typed: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as error:
        select_devices(HERE, device_names(typed))
    assert error.value.message == message
    assert hint in error.value.hint


def test_a_reserve_stays_free_on_every_gpu() -> None:
    found = select_devices(HERE, (), reserve_bytes("2G"))
    assert [room_on(device) // GIB for device in found.usable_devices] == [22, 10, 10]
    assert room_on(select_devices(HERE, (), reserve_bytes("0")).devices[0]) == 24 * GIB
    assert select_devices(HERE, (), reserve_bytes(None)) is HERE
    with pytest.raises(UsageError, match="--reserve: 'much' is not a size of memory"):
        reserve_bytes("much")
