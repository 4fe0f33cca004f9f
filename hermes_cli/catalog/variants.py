"""What file names say: quantizations, shards and raw parts; and variants: a model's files in one quantization."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hermes_cli.catalog.models import CatalogModel, Catalogue, GgufFile, Repository, SizeSource

# Names for the same thing, as listings and people write them (llama.cpp's own aliases, and `fp16`).
ALIASES = {"fp32": "F32", "fp16": "F16", "q3k": "Q3_K_M", "q4k": "Q4_K_M", "q5k": "Q5_K_M"}
# Bare bits in a file name: what DeepHermes' official files mean by them (their sizes fit).
BITS_IN_FILE_NAMES = {"q4": "Q4_0", "q5": "Q5_0", "q6": "Q6_K", "q8": "Q8_0"}

SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")
PART = re.compile(r"\.gguf\.part(\d+)of(\d+)$")  # a raw piece, to be joined before use
_NOT_ALPHANUMERIC = re.compile(r"[^a-z0-9]+")


def normalize_name(text: str) -> str:
    """Return letters and digits only, in lower case: `Q4_K_M` and `q4-k-m` are the same."""
    return _NOT_ALPHANUMERIC.sub("", text.lower())


def find_quantization(text: str, names: frozenset[str]) -> str | None:
    """Return the quantization that a typed name means, or None."""
    return _typed(names).get(normalize_name(text))


def quantization_in_file_name(path: str, names: frozenset[str]) -> str | None:
    """Return the last quantization in the name of a file, between dots, dashes or underscores, or None."""
    stem = path.rpartition("/")[2].removesuffix(".gguf")
    matches = _pattern(names).findall(stem)
    if not matches:
        return None
    word = normalize_name(matches[-1])
    return _typed(names).get(word) or BITS_IN_FILE_NAMES.get(word)


def with_quantization(paths: Iterable[str], quantization: str, names: frozenset[str]) -> list[str]:
    """Return the paths whose file names have a quantization, which may be spelled in any way."""
    typed = normalize_name(quantization)
    return [path for path in paths if normalize_name(quantization_in_file_name(path, names) or "") == typed]


@lru_cache(maxsize=4)
def _typed(names: frozenset[str]) -> dict[str, str]:
    return {**ALIASES, **{normalize_name(name): name for name in names}}


@lru_cache(maxsize=4)
def _pattern(names: frozenset[str]) -> re.Pattern[str]:
    words = {*names, "fp32", "fp16", "Q3_K", "Q4_K", "Q5_K", *BITS_IN_FILE_NAMES}
    longest_first = sorted(words, key=len, reverse=True)
    # Overlapping matches are not wanted, but neighbouring ones share a separator: hence the look-ahead at the end.
    inside = "|".join(re.escape(word).replace("_", "[_-]") for word in longest_first)
    return re.compile(rf"(?:^|[-._])({inside})(?=$|[-._])", re.IGNORECASE)


def joined_name(name: str) -> str:
    """Return the name of the file that a raw part belongs to (`X.gguf.part1of2` -> `X.gguf`); other names stay."""
    return PART.sub(".gguf", name)


def base_name(name: str) -> str:
    """Return a file name without the number of its shard or raw part."""
    return joined_name(SHARD.sub(".gguf", name))


def piece_count(name: str) -> int:
    """Return the number of shards or raw parts that the name of one of them states, 1 for a whole file."""
    match = SHARD.search(name) or PART.search(name)
    return int(match[2]) if match else 1


def sibling_names(name: str, count: int) -> list[str]:
    """Return the names of all shards or raw parts of a model, given one of them."""
    if SHARD.search(name):
        return [SHARD.sub(f"-{number:05}-of-{count:05}.gguf", name) for number in range(1, count + 1)]
    if PART.search(name):
        return [PART.sub(f".gguf.part{number}of{count}", name) for number in range(1, count + 1)]
    return [name]


def group_files(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Group file names by model: the shards or raw parts of one together and in order, all other files alone."""
    groups: dict[tuple[str, int], list[str]] = {}
    for name in names:
        groups.setdefault((base_name(name), piece_count(name)), []).append(name)
    return [tuple(sorted(group, key=lambda name: (len(name), name))) for group in groups.values()]


@dataclass(frozen=True)
class Variant:
    """A model in one quantization from one repository."""

    model: CatalogModel
    quantization: str
    repository: Repository
    entry: GgufFile

    @property
    def name(self) -> str:
        """Return the name on the command line, such as `hermes-3:8b:Q4_K_M`."""
        return f"{self.model.short}:{self.quantization}"

    @property
    def files(self) -> tuple[str, ...]:
        """Return the paths in the repository, in the order in which they belong together."""
        entry = self.entry
        pattern = entry.file or self.repository.files or ""
        path = pattern.replace("{quantization}", entry.spelled or self.quantization)
        path = f"{entry.folder}/{path}" if entry.folder else path
        if entry.shards:
            path = f"{path.removesuffix('.gguf')}-00001-of-{entry.shards:05}.gguf"
        elif entry.parts:
            path = f"{path}.part1of{entry.parts}"
        return tuple(sibling_names(path, entry.shards or entry.parts or 1))

    @property
    def computed_bytes(self) -> int | None:
        """Return the size by llama.cpp's rules; None for quantizations that have no fixed rule."""
        sizes = self.model.sizes
        changed = sizes.imatrix.get(self.quantization) if self.repository.imatrix else None
        return changed or sizes.static.get(self.quantization)

    @property
    def size_source(self) -> SizeSource:
        """Return the origin of `bytes`: stated exactly, listed in rounded GB, or computed."""
        if self.entry.bytes:
            return "stated"
        if self.entry.listed_gb and (self.entry.old_mix or not self.computed_bytes):
            return "listed"
        return "computed" if self.computed_bytes else "unknown"

    @property
    def bytes(self) -> int | None:
        """Return the size of all files together."""
        if self.size_source == "listed":
            return round((self.entry.listed_gb or 0) * 1e9)
        return self.entry.bytes or self.computed_bytes

    @property
    def bits_per_weight(self) -> float | None:
        """Return the bits of the files per parameter."""
        return self.bytes * 8 / self.model.parameters if self.bytes else None

    def loss(self, catalogue: Catalogue) -> float | None:
        """Return the mean KL divergence from F16 in nats, as measured on Llama 3 8B; None if not measured."""
        return quantization_loss(self.quantization, catalogue, imatrix=self.repository.imatrix)


def quantization_loss(name: str, catalogue: Catalogue, *, imatrix: bool = False) -> float | None:
    """Return the loss of a quantization in nats, with an importance matrix or without; None if not measured."""
    entry = catalogue.quantizations.get(name)
    if entry and entry.same_as:
        entry = catalogue.quantizations[entry.same_as]
    if entry is None:
        return None
    first, second = (entry.kl_imatrix, entry.kl) if imatrix else (entry.kl, entry.kl_imatrix)
    return second if first is None else first


def variants(model: CatalogModel) -> Iterator[Variant]:
    """Yield every quantization in every repository, in order of preference of the repositories."""
    for repository in model.gguf:
        for quantization, entry in repository.quantizations.items():
            yield Variant(model, quantization, repository, entry)


def matching_variants(
    model: CatalogModel, *, quantization: str | None = None, repository: str | None = None
) -> list[Variant]:
    """Return the variants with this quantization and of this repository, where given, in order of preference."""
    return [
        variant
        for variant in variants(model)
        if quantization in {None, variant.quantization} and repository in {None, variant.repository.repo}
    ]


def default_variant(model: CatalogModel) -> Variant | None:
    """Return the Q4_K_M variant, else the smallest one; None if no files are known."""
    offered = preferred_variants(model)
    return next((variant for variant in offered if variant.quantization == "Q4_K_M"), offered[-1] if offered else None)


def preferred_variants(model: CatalogModel) -> list[Variant]:
    """Return one variant for each quantization, largest first: of the repositories that have it, the most preferred.

    A file that was seen comes before one whose name is only inferred.
    """
    chosen: dict[str, Variant] = {}
    for variant in sorted(variants(model), key=lambda variant: variant.entry.inferred):
        chosen.setdefault(variant.quantization, variant)
    return sorted(chosen.values(), key=lambda variant: -(variant.bytes or 0))
