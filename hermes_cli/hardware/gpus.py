"""The table of GPUs (gpus.csv), and how one is found by its name, as a person types it or as a driver reports it.

    RTX 4090   rtx4090   NVIDIA GeForce RTX 4090   4090     one GPU: case, punctuation and the vendor do not matter
    RTX 3060 12GB   M4 Max 64GB                             the memory may be given, and chooses between variants
    RTX 3060                                                of several the one that the table marks as usual
    RTX 4060 Ti   A100 PCIe   RTX 6000                      an error that names the candidates: none is the usual one

Names match in full, never in part: "A10" is neither A100 nor A1000, "5070 Laptop" is not the desktop card, and a
word that belongs to another vendor or series ("GTX 4090") is no match.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from hermes_cli.errors import UsageError
from hermes_cli.units import GIB

if TYPE_CHECKING:
    from hermes_cli.hardware.machine import Vendor

GB = 10**9

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
# Words by which people know whose GPU it is, where they leave the vendor out; Ryzen and Jetson are GPUs in processors.
_FAMILIES: dict[Vendor, re.Pattern[str]] = {
    "nvidia": re.compile(
        r"rtx|gtx|quadro|tesla|titan|jetson|orin|xavier|tegra|grid|dgx|[ahlbvt][0-9]+0[0-9]*|g[bh][0-9]"
    ),
    "amd": re.compile(r"rx|ryzen|vega|instinct|strix|firepro|mi[0-9]{2}|r9[0-9]|w[5-9][0-9]{3}|[0-9]{3}m$|80[0-9]0s"),
    "intel": re.compile(r"arc|iris|uhd|battlemage|alchemist|max1[0-9]{3}"),
    "apple": re.compile(r"m[1-9](?:$|pro|max|ultra)"),
}
_EXAMPLES = ("GeForce RTX 4090", "Radeon RX 7900 XTX", "Arc B580")
_TRADEMARK = re.compile(r"\((?:r|tm|c)\)|[®™©]")
# A share of a card in a virtual machine: GRID T4-4Q, NVIDIA A16-8C. It has the card's bandwidth while the others idle.
_VGPU = re.compile(r"(?:NVIDIA )?(?:GRID )?(?P<card>.+)-(?P<gib>[0-9]{1,2})[ABCQ]", re.IGNORECASE)
_PUNCTUATION = re.compile(r"[\W_]+")
_LAST_MEMORY_OR_CORES = re.compile(r"[ -][0-9]+GB$| [0-9]+-core$")


@dataclass(frozen=True, eq=False)  # entries are compared by identity, which is faster
class Gpu:
    """One GPU as it is sold: a row of gpus.csv, which explains the columns."""

    vendor: Vendor
    name: str
    gib: int
    gb_per_s: float
    tflops: float | None
    compute_capability: str
    also: tuple[str, ...]
    usual: bool
    sizes: tuple[int, ...]  # memory in GiB, each size that it is sold with; `gib` is the largest
    unified: bool  # it shares the machine's RAM
    dies: int

    @property
    def memory(self) -> int:
        """Bytes."""
        return self.gib * GIB

    @property
    def bandwidth(self) -> float:
        """Bytes per second."""
        return self.gb_per_s * GB

    @property
    def operations(self) -> float | None:
        """Dense FP16 operations per second, None if not published."""
        return self.tflops * 1e12 if self.tflops else None


def _read_table() -> Iterator[Gpu]:
    with Path(__file__).with_name("gpus.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader((line for line in file if not line.startswith("#")), restval=""):
            yield Gpu(
                vendor=_VENDORS[row["vendor"]],
                name=row["name"],
                gib=int(row["gib"]),
                gb_per_s=float(row["gb_per_s"]),
                tflops=float(row["tflops"]) if row["tflops"] else None,
                compute_capability=row["capability"],
                also=tuple(filter(None, row["also"].split(";"))),
                usual=bool(row["usual"]),
                sizes=tuple(int(size) for size in (row["sizes"] or row["gib"]).split(";")),
                unified=bool(row["sizes"]),
                dies=int(row["dies"] or 1),
            )


GPUS = tuple(_read_table())
_NO_GPU = ("none", "no", "off", "cpu")


def find_gpu(text: str) -> Gpu:
    """Return the GPU that a typed name means.

    Raises:
        UsageError: no GPU has that name (the hint holds the nearest ones), or several have and none is the usual one.
    """
    gpus = gpus_named(text)
    if len(gpus) == 1:
        return gpus[0]
    usual = [gpu for gpu in gpus if gpu.usual]
    if len(usual) == 1:
        return usual[0]
    if all(gpu.vendor == "apple" for gpu in gpus):
        size = gpus[-1].sizes[0]
        raise UsageError(
            f"{_shown(text)} is a Mac's chip.", hint=f'say its memory, too: --apple "{_shown(text)} {size}G"'
        )
    raise UsageError(
        f"{_shown(text)} is the name of {len(gpus)} GPUs.",
        hint="say which: " + ", ".join(gpu.name for gpu in gpus[:MOST_NAMED]),
    )


def gpus_named(text: str) -> list[Gpu]:
    """All GPUs of that name, at least one; a name that is one GPU's full name is only that one's.

    Raise UsageError if no GPU has that name; the hint holds the nearest ones.
    """
    if share := _VGPU.fullmatch(text.strip()[:LONGEST_NAME]):
        gib = int(share["gib"])
        return [replace(find_gpu(share["card"]), name=text.strip(), gib=gib, sizes=(gib,), dies=1)]
    plain, vendors = _plain_name(text)
    gpus = [gpu for gpu in _by_spelling().get(plain, ()) if vendors <= {gpu.vendor}]
    if not gpus and text.strip().lower() in _NO_GPU:
        raise UsageError(f"{_shown(text)} is the name of no GPU.", hint="plan for a machine without one: --cpu-only")
    if not gpus:
        nearest = ", ".join(_nearest(plain, vendors))
        raise UsageError(
            f"no GPU named {_shown(text)} is known.",
            hint=f"the nearest names: {nearest}; for any other card give its memory, as in --vram 24G",
        )
    return _full_name_first(plain, gpus)


def gpu_reported_as(
    vendor: Vendor,  # whose driver answered
    name: str,  # as the driver says it ("NVIDIA A100-SXM4-80GB", "Apple M4 Max")
    memory: int | None,  # bytes that the driver reports; for unified memory the bytes of RAM; None if unknown
) -> Gpu | None:
    """Return the table's entry for a device that a probe found, None if there is none or the name is ambiguous.

    A device whose memory is not that of the entry is something else (a slice of the GPU, or a rebuilt card): None.
    """
    if vendor == "nvidia" and _VGPU.fullmatch(name):
        with suppress(UsageError):
            return find_gpu(name)
    plain, vendors = _plain_name(name)
    gpus = [gpu for gpu in _by_spelling().get(plain, ()) if gpu.vendor == vendor and vendors <= {vendor}]
    if len(gpus) == 1 and gpus[0].unified:
        return gpus[0]  # its bandwidth is the same with every size that is sold
    if memory is not None:
        gpus = [
            gpu
            for gpu in gpus
            if any(LEAST_REPORTED * size * GIB <= memory <= MOST_REPORTED * size * GIB for size in gpu.sizes)
        ]
    gpus = _full_name_first(plain, gpus)
    return gpus[0] if len(gpus) == 1 else None


def typical_bandwidth(
    vendor: Vendor,
    memory: int,  # bytes; of unified memory the RAM
) -> float:
    """Return the median bytes per second of the vendor's GPUs with this much memory, or nearest to it in size."""

    def distance(gpu: Gpu) -> float:
        return min(abs(math.log(size * GIB / memory)) for size in gpu.sizes)

    # a module with a processor in it is no card
    of_vendor = [
        (distance(gpu), gpu.bandwidth) for gpu in GPUS if gpu.vendor == vendor and gpu.unified == (vendor == "apple")
    ]
    nearest, _ = min(of_vendor)
    alike = sorted(bandwidth for away, bandwidth in of_vendor if away <= nearest + ALIKE)
    return alike[len(alike) // 2]


def _full_name_first(plain: str, gpus: list[Gpu]) -> list[Gpu]:
    """Only the GPU whose full name it is, if there is one."""
    return [gpu for gpu in gpus if _plain_name(gpu.name)[0] == plain] or gpus


def _plain_name(text: str) -> tuple[str, set[Vendor]]:
    """A name in lower case, without punctuation and the words at its start that name the vendor; and these vendors."""
    if len(text) > LONGEST_NAME:
        return "", set()
    plain = _PUNCTUATION.sub("", _TRADEMARK.sub("", text.lower()))
    vendors: set[Vendor] = set()
    while word := next((word for word in _VENDORS if plain.startswith(word)), None):
        vendors.add(_VENDORS[word])
        plain = plain.removeprefix(word)
    return plain.removesuffix("graphics").removesuffix("series"), vendors


@lru_cache(maxsize=1)
def _by_spelling() -> dict[str, list[Gpu]]:
    """GPUs by all plain names that they are called, in the order of the table."""
    index: dict[str, list[Gpu]] = {}
    for gpu in GPUS:
        for spelling in set(_spellings(gpu)):
            index.setdefault(spelling, []).append(gpu)
    return index


def _spellings(gpu: Gpu) -> Iterator[str]:
    """With and without memory, cores, series, and the words that people leave out."""
    names: set[str] = set()
    for official in (gpu.name, *gpu.also):
        for name in (official, _LAST_MEMORY_OR_CORES.sub("", official)):
            short = name.replace(" GPU", "").replace(" Generation", "").removesuffix(" Edition")
            names.update((name, short, short.replace(" Laptop", " Mobile")))
    for name in names:
        plain, _ = _plain_name(name)
        while plain:
            yield plain
            for size in gpu.sizes:
                yield f"{plain}{size}gb"
                yield f"{plain}{size}g"
            series = _SERIES.match(plain)
            plain = plain[series.end() :] if series else ""


def _nearest(plain: str, vendors: set[Vendor]) -> list[str]:
    """The vendor's names that look most like it; the series counts only as far as it was typed."""
    import difflib  # noqa: PLC0415 - some milliseconds, and only errors need it

    if not plain:  # "AMD Radeon Graphics" is what drivers call many GPUs in processors
        shared = [gpu.name for gpu in GPUS if gpu.unified and vendors == {gpu.vendor}]
        return shared[-NEAREST:] or list(_EXAMPLES)
    vendors = vendors or {vendor for vendor, family in _FAMILIES.items() if family.match(plain)}
    names: dict[str, Gpu] = {}
    for gpu in GPUS:
        for called in (gpu.name, *gpu.also) if not vendors or gpu.vendor in vendors else ():
            name, _ = _plain_name(called)
            series = _SERIES.match(name)
            left_out = series is not None and not plain.startswith(series[0])
            names.setdefault(name[series.end() :] if series and left_out else name, gpu)
    alike = [names[name] for name in difflib.get_close_matches(plain, names, n=len(names), cutoff=0.0)]
    return list(dict.fromkeys(gpu.name for gpu in alike if gpu.vendor == alike[0].vendor))[:NEAREST]


def _shown(text: str) -> str:
    """Shorten a typed text for a message."""
    text = " ".join(text.split())
    return f"{text[:LONGEST_SHOWN]}…" if len(text) > LONGEST_SHOWN else text or "''"
