"""Graphics cards in Linux' /sys. Functions take the root of the file system, so that recorded trees serve.

A file that is absent, forbidden or unreadable is simply unknown: drivers differ in what they show.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

DISPLAY = 0x03  # the PCI class of display controllers: the top byte of "0x030000"
PCI_IDS = ("usr/share/hwdata/pci.ids", "usr/share/misc/pci.ids")  # Fedora and Arch; Debian and SUSE


def read_text(path: Path) -> str:
    """Return the file's text without the final newline; empty if it cannot be read."""
    try:
        return path.read_text("utf-8", "replace").strip("\n\0 ")
    except OSError:
        return ""


def read_number(path: Path) -> int | None:
    """Return the number in the file, decimal or 0x…; None if there is none."""
    try:
        return int(read_text(path), 0)
    except ValueError:
        return None


@dataclass(frozen=True)
class Card:
    """One /sys/class/drm/cardN.

    Attributes:
        folder: cardN itself; `device`: the PCI device behind it.
        address: where it sits ("0000:03:00.0"), which also orders cards.
        product, revision: PCI ids that tell the model.
        driver: the kernel's ("amdgpu", "xe", "i915").
    """

    folder: Path
    device: Path
    address: str
    product: int
    revision: int
    driver: str


def graphics_cards(root: Path, vendor: int) -> list[Card]:
    """The vendor's graphics cards by PCI address, which is how drivers enumerate them."""
    found = [
        _card(folder)
        for folder in (root / "sys/class/drm").glob("card*")
        # card0-DP-1 and the like are the connectors of card0
        if re.fullmatch(r"card\d+", folder.name) and read_number(folder / "device/vendor") == vendor
    ]
    return sorted(found, key=lambda card: (card.address, card.folder.name))


def _card(folder: Path) -> Card:
    device = folder / "device"
    event = dict(re.findall(r"^(\w+)=(.*)$", read_text(device / "uevent"), re.MULTILINE))
    return Card(
        folder=folder,
        device=device,
        address=event.get("PCI_SLOT_NAME", ""),
        product=read_number(device / "device") or 0,
        revision=read_number(device / "revision") or 0,
        driver=event.get("DRIVER", ""),
    )


def on_pci(root: Path, vendor: int) -> bool:
    """Return whether a display controller of this vendor is plugged in, with or without a driver."""
    return any(
        read_number(device / "vendor") == vendor and (read_number(device / "class") or 0) >> 16 == DISPLAY
        for device in (root / "sys/bus/pci/devices").glob("*")
    )


def access_problem(root: Path, card: Card, *others: str) -> tuple[str, str]:
    """Return why this process cannot use the card, and the command that changes it; both empty if it can.

    /sys is the same in a container and outside, so a card may be seen that cannot be used.

    Args:
        root: of the file system.
        card: which is used through its render nodes.
        others: more device files that it is used through ("dev/kfd").
    """
    closed = _closed_nodes(root, card, others)
    return (f"no access to {', '.join(closed)}", _fix_for_closed(root, closed)) if closed else ("", "")


def _closed_nodes(root: Path, card: Card, others: Iterable[str]) -> list[str]:
    nodes = [*(f"dev/dri/{node.name}" for node in (card.device / "drm").glob("renderD*")), *others]
    return [f"/{node}" for node in sorted(nodes) if not os.access(root / node, os.R_OK | os.W_OK)]


def _fix_for_closed(root: Path, closed: list[str]) -> str:
    if any((root / node.lstrip("/")).exists() for node in closed):
        return "sudo usermod -aG render,video $USER"  # takes effect at the next login
    engine = container_engine(root)
    return f"{engine} run {' '.join(f'--device {node}' for node in closed)} …" if engine else ""


def container_engine(root: Path) -> str:
    """The program that runs the container we are in, by the file it leaves there; empty outside and in others'."""
    marks = {".dockerenv": "docker", "run/.containerenv": "podman"}
    return next((engine for mark, engine in marks.items() if (root / mark).exists()), "")


def pci_name(root: Path, vendor: int, product: int) -> str:
    """The model's name from the PCI ID database ("Navi 31 [Radeon RX 7900 XTX]": what is in brackets); else empty."""
    for place in PCI_IDS:
        with suppress(OSError), (root / place).open(encoding="utf-8", errors="replace") as file:
            name = _entry(file, f"{vendor:04x}", f"{product:04x}")
            inside = re.search(r"\[(.+)\]", name)
            return inside[1] if inside else name
    return ""


def _entry(lines: Iterator[str], vendor: str, product: str) -> str:
    """Vendors stand at the start of a line, their products after one tab (the format's own description in pci.ids)."""
    for line in lines:
        if line.startswith(vendor):
            break
    for line in lines:
        if line.startswith(f"\t{product}"):
            return line[len(product) + 1 :].strip()
        if line[0] not in "\t#\n":
            break
    return ""
