"""Finding a GPU of the table by its name, as a person types it or as a driver reports it.

    RTX 4090   rtx4090   NVIDIA GeForce RTX 4090   4090     one GPU: case, punctuation and the vendor do not matter
    RTX 3060 12GB   M4 Max 64GB                             the memory may be said, and chooses between variants
    RTX 3060                                                the usual one of several (gpus.py says which)
    RTX 4060 Ti   A100 PCIe   RTX 6000                      an error that names the candidates: none is the usual one

Names match in full, never in part: "A10" is neither A100 nor A1000, "5070 Laptop" is not the desktop card, and a
word that belongs to another vendor or series ("GTX 4090") is no match.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from hermes_cli.errors import UsageError
from hermes_cli.hardware.gpus import GPUS, Gpu
from hermes_cli.units import GIB

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hermes_cli.hardware.machine import Vendor

LONGEST_NAME = 100  # characters; no GPU has a longer one
LONGEST_SHOWN = 60  # of a text that is none
MOST_NAMED = 6  # candidates in a hint
NEAREST = 3

# A driver reports a little less than the data sheet: error correction takes up to 1/16 of GDDR memory, the driver
# some more. The closest variants of one name are 10 and 12 GB apart (a ratio of 0.83).
LEAST_REPORTED, MOST_REPORTED = 0.88, 1.05
ALIKE = 0.1  # sizes of memory within about a tenth count as the same

_VENDORS: dict[str, Vendor] = {
    "nvidia": "nvidia",
    "geforce": "nvidia",
    "amd": "amd",
    "radeon": "amd",
    "intel": "intel",
    "apple": "apple",
}
# Words that people leave out. "RTX PRO 6000" is never called 6000: two others are.
_SERIES = re.compile(r"ai(?=pro)|arc|gtx|instinct|pro(?=[bwr][0-9])|quadro|rtx|rx|tesla")
_EXAMPLES = ("GeForce RTX 4090", "Radeon RX 7900 XTX", "Arc B580")
_TRADEMARK = re.compile(r"\((?:r|tm|c)\)|[®™©]")
_PUNCTUATION = re.compile(r"[\W_]+")
_LAST_MEMORY = re.compile(r"[ -][0-9]+GB$")
_LAST_CORES = re.compile(r" [0-9]+-core$")


class _Name(NamedTuple):
    """A name without everything that does not matter, and the vendors that it spoke of."""

    plain: str
    vendors: frozenset[Vendor]


class _Index(NamedTuple):
    """GPUs by plain name: `full` is the one in the table, `other` all else that a GPU is called."""

    full: dict[str, Gpu]
    other: dict[str, tuple[Gpu, ...]]


def find_gpu(text: str) -> Gpu:
    """Return the GPU that a typed name means.

    Raises:
        UsageError: no GPU has that name (the hint holds the nearest ones), or several have and none is the usual one.
    """
    found = gpus_named(text)
    if len(found) == 1:
        return found[0]
    usual = [gpu for gpu in found if gpu.usual]
    if len(usual) == 1:
        return usual[0]
    raise UsageError(
        f"{_shown(text)} is the name of {len(found)} GPUs.",
        hint="say which: " + ", ".join(gpu.name for gpu in found[:MOST_NAMED]),
    )


def gpus_named(text: str) -> tuple[Gpu, ...]:
    """All GPUs of that name, at least one; a name that is one GPU's full name is only that one's.

    Raises:
        UsageError: no GPU has that name; the hint holds the nearest ones.
    """
    name = _read(text)
    found = _of_vendor(name, _full(name) or _index().other.get(name.plain, ()))
    if not found:
        raise _unknown(text, name)
    return found


def gpu_reported_as(vendor: Vendor, name: str, memory: int | None, *, cores: int | None = None) -> Gpu | None:
    """Return the table's entry for a device that a probe found, None if there is none or the name is ambiguous.

    A device whose memory is not that of the entry is something else (a slice of the GPU, or a rebuilt card): None.

    Args:
        vendor: whose driver answered.
        name: as the driver says it ("NVIDIA A100-SXM4-80GB", "Apple M4 Max").
        memory: bytes that the driver reports; for unified memory the bytes of RAM; None if unknown.
        cores: GPU cores (Apple), None if unknown.
    """
    read = _read(name)
    candidates = _of_vendor(read, (*_full(read), *_index().other.get(read.plain, ())))
    found = [gpu for gpu in dict.fromkeys(candidates) if gpu.vendor == vendor]
    if cores is not None:
        found = [gpu for gpu in found if gpu.cores in {None, cores}]
    if len(found) == 1 and found[0].unified:
        return found[0]  # its bandwidth is the same with every size that is sold
    if memory is not None:
        found = [gpu for gpu in found if _has(gpu, memory)]
    exact = [gpu for gpu in found if gpu in _full(read)]
    return exact[0] if exact else found[0] if len(found) == 1 else None


def typical_bandwidth(vendor: Vendor, memory: int) -> float:
    """Bytes per second of the vendor's GPUs with this much memory: the median, of those nearest in size if none has it.

    Args:
        vendor: whose.
        memory: bytes; of unified memory the RAM.
    """

    def distance(gpu: Gpu) -> float:
        return min(abs(math.log(size * GIB / memory)) for size in gpu.sizes or (gpu.gib,))

    of_vendor = [(distance(gpu), gpu.bandwidth) for gpu in GPUS if gpu.vendor == vendor]
    nearest = min(one for one, _ in of_vendor)
    alike = sorted(bandwidth for one, bandwidth in of_vendor if one <= nearest + ALIKE)
    return alike[len(alike) // 2]


def _has(gpu: Gpu, memory: int) -> bool:
    return any(LEAST_REPORTED * size * GIB <= memory <= MOST_REPORTED * size * GIB for size in gpu.sizes or (gpu.gib,))


def _full(name: _Name) -> tuple[Gpu, ...]:
    found = _index().full.get(name.plain)
    return (found,) if found else ()


def _of_vendor(name: _Name, gpus: tuple[Gpu, ...]) -> tuple[Gpu, ...]:
    return tuple(gpu for gpu in gpus if name.vendors <= {gpu.vendor})


def _read(text: str) -> _Name:
    """Lower case, without punctuation and without the words that name the vendor at the start."""
    if len(text) > LONGEST_NAME:
        return _Name("", frozenset())
    plain = _PUNCTUATION.sub("", _TRADEMARK.sub("", text.lower()))
    vendors: set[Vendor] = set()
    while word := next((word for word in _VENDORS if plain.startswith(word)), None):
        vendors.add(_VENDORS[word])
        plain = plain.removeprefix(word)
    return _Name(plain.removesuffix("graphics"), frozenset(vendors))


@lru_cache(maxsize=1)
def _index() -> _Index:
    other: dict[str, dict[Gpu, None]] = {}
    for gpu in GPUS:
        for name in _spellings(gpu):
            other.setdefault(name, {})[gpu] = None
    return _Index({_read(gpu.name).plain: gpu for gpu in GPUS}, {name: tuple(gpus) for name, gpus in other.items()})


def _spellings(gpu: Gpu) -> Iterator[str]:
    """Everything that a GPU is called, as plain names."""
    for name in _complete_names(gpu):
        plain = _read(name).plain
        while plain:
            yield plain
            for size in gpu.sizes or (gpu.gib,):
                yield f"{plain}{size}gb"
                yield f"{plain}{size}g"
            series = _SERIES.match(plain)
            plain = plain[series.end() :] if series else ""


def _complete_names(gpu: Gpu) -> Iterator[str]:
    """Its names with and without memory, cores, and the words that people leave out."""
    for name in (gpu.name, *gpu.also):
        bare = _LAST_CORES.sub("", _LAST_MEMORY.sub("", name))
        for one in dict.fromkeys((name, bare)):
            short = one.replace(" GPU", "").removesuffix(" Generation").removesuffix(" Edition")
            yield from dict.fromkeys((one, short, short.replace(" Laptop", " Mobile")))


def _unknown(text: str, name: _Name) -> UsageError:
    return UsageError(
        f"no GPU named {_shown(text)} is known.",
        hint=f"the nearest names: {', '.join(_nearest(name))}; for any other card give its memory, as in --vram 24G",
    )


def _nearest(name: _Name) -> list[str]:
    """The names that look most like it; the series counts only as far as it was typed."""
    import difflib  # noqa: PLC0415 - some milliseconds, and only errors need it

    if not name.plain:
        return list(_EXAMPLES)
    names: dict[str, str] = {}
    for gpu in GPUS:
        if name.vendors <= {gpu.vendor}:
            plain = _read(gpu.name).plain
            series = _SERIES.match(plain)
            left_out = series is not None and not name.plain.startswith(series[0])
            names.setdefault(plain[series.end() :] if series and left_out else plain, gpu.name)
    return [names[one] for one in difflib.get_close_matches(name.plain, names, n=NEAREST, cutoff=0.0)]


def _shown(text: str) -> str:
    """Shorten a typed text for a message."""
    text = " ".join(text.split())
    return f"{text[:LONGEST_SHOWN]}…" if len(text) > LONGEST_SHOWN else text or "''"
