"""Intel's GPUs through /sys. The kernel shows little of them: sizes only of some cards, and of none how much is free.

xe shows physical_vram_size_bytes for each tile; the i915 of Intel's own packages lmem_total_bytes, the kernel's i915
nothing. Then the size is known by the model, or by the window onto the memory where firmware opens all of it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from hermes_cli.hardware.advice import access_problem
from hermes_cli.hardware.machine import Device, Note
from hermes_cli.hardware.system import Card, SystemMemory, graphics_cards, pci_name, read_number, read_text
from hermes_cli.units import GIB

VENDOR = 0x8086  # Intel at PCI-SIG
INTEGRATED = ":00:02.0"  # where every GPU inside an Intel processor sits, and no card does
WINDOW = 2  # the BAR that shows a card's own memory (i915's and xe's LMEM_BAR)
SMALL_WINDOW = GIB // 4  # all that is shown without resizable BAR
TILES = ("tile*/physical_vram_size_bytes", "tile*/memory/physical_vram_size_bytes")  # older and newer xe


class CardModel(NamedTuple):
    """A card's name and its memory in GiB, 0 where it was sold with several sizes."""

    name: str
    memory: int


# Cards by PCI id, from Intel's list of discrete GPUs (dgpu-docs.intel.com, "Hardware table") and product pages.
MODELS = {
    0x5690: CardModel("Arc A770M", 16),
    0x5691: CardModel("Arc A730M", 12),
    0x5692: CardModel("Arc A550M", 8),
    0x5693: CardModel("Arc A370M", 4),
    0x5694: CardModel("Arc A350M", 4),
    0x56A0: CardModel("Arc A770", 0),
    0x56A1: CardModel("Arc A750", 8),
    0x56A2: CardModel("Arc A580", 8),
    0x56A5: CardModel("Arc A380", 6),
    0x56A6: CardModel("Arc A310", 4),
    0x56B3: CardModel("Arc Pro A60", 12),
    0xE211: CardModel("Arc Pro B60", 24),
    0xE212: CardModel("Arc Pro B50", 16),
    0xE20B: CardModel("Arc B580", 12),
    0xE20C: CardModel("Arc B570", 10),
}


def devices(
    root: Path,  # of the file system
    ram: SystemMemory,  # what a GPU inside the processor shares
    notes: list[Note],  # what cannot be found out is added here
) -> list[Device]:
    """Intel's GPUs by PCI address; Vulkan drives them all."""
    return [_device(root, card, ram, notes) for card in graphics_cards(root, VENDOR) if card.driver in {"i915", "xe"}]


def _device(root: Path, card: Card, ram: SystemMemory, notes: list[Note]) -> Device:
    name = MODELS[card.product].name if card.product in MODELS else pci_name(root, VENDOR, card.product)
    name = name.removeprefix("Intel ") or f"GPU {card.product:04x}"
    unified = card.address.endswith(INTEGRATED) and card.product not in MODELS
    # of RAM, Intel's Vulkan driver offers half up to 4 GiB, else three quarters (Mesa's anv_device.c)
    share = ram.total // 2 if ram.total <= 4 * GIB else ram.total * 3 // 4
    total = share if unified else _own_memory(card)
    if not total:
        untold = f"The kernel does not tell the memory of {name}; resizable BAR in the firmware would show it."
        notes.append(Note("devices", untold))
    elif not unified:
        assumed = f"The kernel does not tell how much memory of {name} is free; all of it is assumed to be."
        notes.append(Note("devices", assumed))
    reason, fix = access_problem(root, card)
    return Device(
        vendor="intel",
        name=name,
        total=total,
        free=min(total, ram.available) if unified else total,
        bandwidth=None,  # nothing in /sys tells the width of the bus
        bandwidth_source="assumed",
        backend="vulkan",
        usable=not reason,
        fix=fix,
        reason=reason,
        unified=unified,
        driver=card.driver,
    )


def _own_memory(card: Card) -> int:
    """Bytes of a card's own memory, 0 if nothing tells."""
    tiles = [read_number(file) or 0 for pattern in TILES for file in card.device.glob(pattern)]
    listed = MODELS[card.product].memory * GIB if card.product in MODELS else 0
    return sum(tiles) or read_number(card.folder / "lmem_total_bytes") or listed or _window(card)


def _window(card: Card) -> int:
    """The size of the window onto the memory, in the card's list of address ranges ("start end flags" in hex).

    It is a power of two, so for 6, 10 or 12 GB it would be too large: those models are in the table above.
    """
    ranges = re.findall(r"^0x([0-9a-f]+) 0x([0-9a-f]+) 0x[0-9a-f]+$", read_text(card.device / "resource"), re.MULTILINE)
    if len(ranges) <= WINDOW:
        return 0
    start, end = (int(part, 16) for part in ranges[WINDOW])
    size = end - start + 1
    return size if size > SMALL_WINDOW else 0
