"""The environment variables that choose GPUs: CUDA_VISIBLE_DEVICES, ROCR_VISIBLE_DEVICES, HIP_VISIBLE_DEVICES."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_DIGITS = 9  # of an index; Python refuses to read numbers of some thousand


def visible_devices(choice: str | None, identifiers: Sequence[str], indexable: int | None = None) -> list[int]:
    """Positions of the devices that the variable leaves, in its order.

    The CUDA C++ programming guide (environment variables): a list of indexes, of UUIDs or of their unambiguous
    beginnings; from the first entry that names nothing on, all are hidden. So "" and "-1" hide everything.

    Args:
        choice: the variable's value, None if it is not set.
        identifiers: the devices' UUIDs.
        indexable: how many of them, from the first on, also go by an index; None is all.
    """
    if choice is None:
        return list(range(len(identifiers) if indexable is None else indexable))
    positions: list[int] = []
    for entry in choice.split(","):
        position = _position(entry.strip(), identifiers, len(identifiers) if indexable is None else indexable)
        if position is None:
            break
        if position not in positions:
            positions.append(position)
    return positions


def _position(entry: str, identifiers: Sequence[str], indexable: int) -> int | None:
    if entry.isdecimal():
        return int(entry) if len(entry) <= MOST_DIGITS and int(entry) < indexable else None
    matches = [i for i, identifier in enumerate(identifiers) if entry and identifier.lower().startswith(entry.lower())]
    return matches[0] if len(matches) == 1 else None
