"""hardware.yaml: what a person knows better than the probe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes_cli.errors import UsageError
from hermes_cli.hardware.corrections import FILE, Corrections, read_corrections
from hermes_cli.hardware.machine import Device, Note
from hermes_cli.hardware.system import SystemMemory

GIB = 2**30
RAM = SystemMemory(32 * GIB, 20 * GIB)
CARD = Device("nvidia", "GeForce RTX 4090", 24 * GIB, 22 * GIB, 1008e9, "probed", "cuda")
UNKNOWN = Device("nvidia", "GRID A40-8Q", 0, 0, None, "assumed", "cuda")
APU = Device("amd", "Radeon 8060S", 112 * GIB, 110 * GIB, 256e9, "table", "vulkan", unified=True, carve_out=95 * GIB)

Read = Callable[[str], Corrections]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def write_and_read(text: str) -> Corrections:
        (tmp_path / FILE).write_text(text, encoding="utf-8")
        return read_corrections(tmp_path / FILE)

    return write_and_read


def corrected(read: Read, text: str, *devices: Device) -> tuple[Device, ...]:
    return read(text).corrected_devices(devices, RAM, [])


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}", "ram: {}\n", "gpus: {}\n", "gpus: {0: {}}\n"])
def test_nothing_said_changes_nothing(read: Read, text: str) -> None:
    corrections = read(text)
    assert corrections.corrected_devices([CARD], RAM, []) == (CARD,)
    assert (corrections.corrected_ram(RAM), corrections.ram_bandwidth) == (RAM, None)


@pytest.mark.parametrize("name", ["0", "'0'", "RTX 4090", "geforce-rtx-4090"])
def test_a_gpu_goes_by_number_and_by_name(read: Read, name: str) -> None:
    (device,) = corrected(read, f"gpus: {{{name}: {{bandwidth: 900}}}}", CARD)
    assert device == replace(CARD, bandwidth=900e9, bandwidth_source="given")


@pytest.mark.parametrize("written", ["256", "256.0", "256 GB/s", "256GB/s", "'256 gb/s'"])
def test_ways_to_write_a_bandwidth(read: Read, written: str) -> None:
    assert corrected(read, f"gpus: {{0: {{bandwidth: {written}}}}}", CARD)[0].bandwidth == 256e9
    assert read(f"ram: {{bandwidth: {written}}}").ram_bandwidth == 256e9


def test_of_given_memory_what_is_in_use_is_not_free(read: Read) -> None:
    (device,) = corrected(read, "gpus: {0: {memory: 20G}}", CARD)
    assert (device.total, device.free, device.memory_source) == (20 * GIB, 18 * GIB, "given")
    (device,) = corrected(read, "gpus: {0: {memory: 1G}}", CARD)
    assert (device.total, device.free) == (GIB, 0)
    (device,) = corrected(read, "gpus: {A40: {memory: 8G}}", UNKNOWN)
    assert (device.total, device.free) == (8 * GIB, 8 * GIB)


def test_given_memory_that_is_shared_is_free_as_far_as_the_ram_is(read: Read) -> None:
    assert [corrected(read, f"gpus: {{0: {{memory: {size}G}}}}", APU)[0].free for size in (96, 120)] == [
        96 * GIB,
        115 * GIB,
    ]


def test_given_ram(read: Read) -> None:
    assert read("ram: {memory: 48G}").corrected_ram(RAM) == SystemMemory(48 * GIB, 36 * GIB)
    assert read("ram: {memory: 4G}").corrected_ram(RAM) == SystemMemory(4 * GIB, 0)


def test_a_gpu_that_is_left_out(read: Read) -> None:
    first, second = corrected(read, "gpus: {1: {use: no}}", CARD, APU)
    assert (first.left_out, second.left_out) == ("", FILE)
    assert second.usable  # llama.cpp would take it


def test_all_gpus_of_a_name(read: Read) -> None:
    cards = corrected(read, "gpus: {RTX 4090: {bandwidth: 9}, Radeon: {use: false}}", CARD, APU, CARD)
    assert [device.bandwidth for device in cards] == [9e9, 256e9, 9e9]
    assert [device.left_out for device in cards] == ["", FILE, ""]


def test_a_gpu_that_is_not_here_is_noted(read: Read) -> None:
    notes: list[Note] = []
    assert read("gpus: {B580: {use: no}, 7: {}}").corrected_devices([CARD], RAM, notes) == (CARD,)
    there = "Found: 0 (GeForce RTX 4090)."
    texts = [f"{FILE} names a GPU that is not here: {name}. {there}" for name in ("B580", "7")]
    assert [note.text for note in notes] == texts


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("gpus: [", "is not YAML"),
        ("just text", "Expected `object`"),
        ("- 1", "Expected `object`"),
        ("cards: {}", "unknown field `cards`"),
        ("gpus: {0: {vram: 8G}}", "unknown field `vram`"),
        ("gpus: {0: 8G}", "Expected `object`"),
        ("ram: {use: no}", "unknown field `use`"),
        ("gpus: {0: {use: maybe}}", "Expected `bool`"),
        ("gpus: {0: {memory: 24}}", "Expected `str | null`"),
        ("gpus: {0: {memory: much}}", "0: memory: 'much' is not a size of memory"),
        ("ram: {memory: 0G}", "ram: memory: 0G is too little"),
        ("ram: {bandwidth: fast}", "ram: bandwidth: 'fast' is no bandwidth"),
        ("ram: {bandwidth: 0}", "is no bandwidth"),
        ("ram: {bandwidth: -5}", "is no bandwidth"),
        ("ram: {bandwidth: .inf}", "is no bandwidth"),
        ("ram: {bandwidth: 1000000}", "is no bandwidth"),
    ],
)
def test_a_bad_file_is_one_clear_error(read: Read, text: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(text)
    assert FILE in caught.value.message
    assert says in caught.value.message
    assert caught.value.hint


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path, tmp_path / FILE):
        with pytest.raises(UsageError, match="cannot be read"):
            read_corrections(path)


@given(st.text("{}[]:, abcgpusramemory0123456789GM.-\n", max_size=60))
def test_any_file_is_read_or_an_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / FILE
    path.write_text(text, encoding="utf-8")
    try:
        corrections = read_corrections(path)
    except UsageError:
        return
    corrections.corrected_devices([CARD, APU], RAM, [])
    assert corrections.corrected_ram(RAM).available >= 0
