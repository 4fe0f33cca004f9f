"""Sizes and counts as text.

Files and memory have one unit, GB of 10^9 bytes, so that a download, a disk, a file and the memory it takes can be
compared at sight. It is the unit of the Hub, of disks and of Ollama. A card that is sold with 24 GB has 25.77 of them.
"""

from __future__ import annotations

MIB = 1 << 20
GIB = 1 << 30
GB = 10**9


def memory_size(size: float) -> str:
    """Return bytes of memory as text: `7.76 GB`, `25.77 GB`, `168 MB`; two decimals, so that sums agree."""
    return f"{size / GB:.2f} GB" if size >= GB else f"{size / 10**6:.0f} MB"


def gigabytes(size: int | None) -> str:
    """Return bytes of a file as text: `4.92 GB`, `243 GB`, `2.8 MB`."""
    if size is None:
        return "unknown"
    for factor, unit in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= factor:
            return f"{_three_digits(size / factor)} {unit}"
    return f"{size} B"


def billions(count: int) -> str:
    """Return a number of parameters as text: `8.03 B`, `405 B`, `3.80 M`."""
    return f"{_three_digits(count / 10**9)} B" if count >= 10**9 else f"{_three_digits(count / 10**6)} M"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: `1 file`, `1,200 files`."""
    return f"1 {noun}" if number == 1 else f"{number:,} {noun}s"


def _three_digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"  # noqa: PLR2004
