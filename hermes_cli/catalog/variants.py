"""A model in one quantization from one repository: what can be fetched, and what fits or does not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hermes_cli.catalog.models import CatalogModel, Catalogue, GgufFile, Repository, SizeSource


@dataclass(frozen=True)
class Variant:
    """Model, quantization, and the repository and files it comes from."""

    model: CatalogModel
    quantization: str
    repository: Repository
    entry: GgufFile

    @property
    def name(self) -> str:
        """What to type for it."""
        return f"{self.model.short}:{self.quantization}"

    @property
    def files(self) -> tuple[str, ...]:
        """Paths in the repository, in the order in which they belong together."""
        return file_names(self.repository, self.quantization, self.entry)

    @property
    def computed_bytes(self) -> int | None:
        """Size by llama.cpp's rules; None for quantizations that have no fixed rule."""
        sizes = self.model.sizes
        changed = sizes.imatrix.get(self.quantization) if self.repository.imatrix else None
        return changed or sizes.static.get(self.quantization)

    @property
    def size_source(self) -> SizeSource:
        """Where `bytes` comes from: stated exactly, listed in rounded GB, or computed."""
        if self.entry.bytes:
            return "stated"
        if self.entry.listed_gb and (self.entry.old_mix or not self.computed_bytes):
            return "listed"
        return "computed" if self.computed_bytes else "unknown"

    @property
    def bytes(self) -> int | None:
        """Size of all files together."""
        match self.size_source:
            case "stated":
                return self.entry.bytes
            case "listed":
                return round((self.entry.listed_gb or 0) * 1e9)
            case "computed":
                return self.computed_bytes
            case "unknown":
                return None

    def loss(self, catalogue: Catalogue) -> float | None:
        """Mean KL divergence from F16 in nats, as measured on Llama 3 8B; None if nobody measured it."""
        entry = catalogue.quantizations[self.quantization]
        if entry.same_as:
            entry = catalogue.quantizations[entry.same_as]
        first, second = (entry.kl_imatrix, entry.kl) if self.repository.imatrix else (entry.kl, entry.kl_imatrix)
        return second if first is None else first

    @property
    def bits_per_weight(self) -> float | None:
        """Bits of the whole file per parameter."""
        return self.bytes * 8 / self.model.parameters if self.bytes else None


def file_names(repository: Repository, quantization: str, entry: GgufFile) -> tuple[str, ...]:
    """Names of the files of one quantization, from the repository's pattern and what the entry says otherwise."""
    pattern = entry.file or repository.files or ""
    name = pattern.replace("{quantization}", entry.spelled or quantization)
    if entry.shards:
        stem = name.removesuffix(".gguf")
        names = [f"{stem}-{number:05}-of-{entry.shards:05}.gguf" for number in range(1, entry.shards + 1)]
    elif entry.parts:
        names = [f"{name}.part{number}of{entry.parts}" for number in range(1, entry.parts + 1)]
    else:
        names = [name]
    return tuple(f"{entry.folder}/{name}" if entry.folder else name for name in names)


def variants(model: CatalogModel) -> Iterator[Variant]:
    """Every quantization in every repository, in order of preference of the repositories."""
    for repository in model.gguf:
        for quantization, entry in repository.quantizations.items():
            yield Variant(model, quantization, repository, entry)


def matching_variants(
    model: CatalogModel, *, quantization: str | None = None, repository: str | None = None
) -> list[Variant]:
    """The variants with this quantization and of this repository, where given, in order of preference."""
    return [
        one
        for one in variants(model)
        if quantization in {None, one.quantization} and repository in {None, one.repository.repo}
    ]


def default_variant(model: CatalogModel) -> Variant | None:
    """What most people take: Q4_K_M, or the smallest there is; None if no files are known."""
    offered = preferred_variants(model)
    return next((one for one in offered if one.quantization == "Q4_K_M"), offered[-1] if offered else None)


def preferred_variants(model: CatalogModel) -> list[Variant]:
    """One variant for each quantization, largest first: of the repositories that have it, the most preferred.

    A file that was seen comes before one whose name is only inferred.
    """
    chosen: dict[str, Variant] = {}
    for variant in variants(model):
        known = chosen.get(variant.quantization)
        if known is None or (known.entry.inferred and not variant.entry.inferred):
            chosen[variant.quantization] = variant
    return sorted(chosen.values(), key=lambda variant: -(variant.bytes or 0))
