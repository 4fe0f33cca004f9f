"""Variants: a model of the catalogue in one quantization from one repository, with its files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec.structs import replace

from hermes_cli.catalog.file_names import sibling_names
from hermes_cli.errors import NotFoundError

if TYPE_CHECKING:
    from hermes_cli.catalog.models import CatalogModel, Catalogue, GgufFile, Repository, SizeSource
    from hermes_cli.catalog.names import CatalogueReference


@dataclass(frozen=True)
class Variant:
    """A model in one quantization from one repository."""

    model: CatalogModel
    quantization: str
    repository: Repository
    entry: GgufFile

    @property
    def name(self) -> str:
        """Return the name on the command line, such as `hermes-3:8b:Q4_K_M`; of a file that is not listed, its own."""
        return f"{self.model.short}:{self.quantization}" if self.model.generation else self.model.short

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

    def expected_loss(self, catalogue: Catalogue) -> float | None:
        """Return the loss, or that of the nearest quantization: of UD-Q6_K_XL it is Q6_K_L's."""
        static = self.quantization.removeprefix("UD-")
        stem, bits = static.rpartition("_")[0], static.partition("_")[0]
        names = (self.quantization, static, f"{stem}_L", f"{static}_M", f"{bits}_0")
        known = next((name for name in names if name in catalogue.quantizations), self.quantization)
        return quantization_loss(known, catalogue, imatrix=self.repository.imatrix)


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


def only_named(wanted: CatalogueReference) -> CatalogModel:
    """Return the model that a name means, with no files but those that the name says.

    Raise NotFoundError if it has no such quantization.
    """
    model = wanted.model
    if wanted.quantization and not matching_variants(model, quantization=wanted.quantization):
        hint = f"see what there is: hermes show {model.short}"
        raise NotFoundError(f"no {wanted.quantization} of {model.short} is known.", hint=hint)
    repositories = [repository for repository in model.gguf if wanted.repository in {None, repository.repo}]
    if wanted.quantization:
        name = wanted.quantization
        repositories = [
            replace(each, quantizations={name: each.quantizations[name]} if name in each.quantizations else {})
            for each in repositories
        ]
    return replace(model, gguf=tuple(repositories))
