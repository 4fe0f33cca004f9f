"""Import files from elsewhere into the library, by links.

A file that is certainly one of the Hub's goes into the Hub's cache, exactly as if it had been fetched: every tool that
knows the cache finds it, and nobody fetches it again. All others go into the folder of imported files.

A hash proves which file it is. Without one, the shape of the weights must fit and the name must be exactly one of the
model's own: dozens of fine-tunes share Llama 3's shape, and many are named after the model that they changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hermes_cli.catalog.file_names import base_name, normalize_name
from hermes_cli.catalog.names import CatalogueReference, ModelNames
from hermes_cli.catalog.variants import matching_variants
from hermes_cli.errors import IntegrityError, NotFoundError, UsageError
from hermes_cli.gguf.reader import SkippedValue
from hermes_cli.store import layout
from hermes_cli.store.disk import LinkKind, link_errors, link_file
from hermes_cli.store.hashing import known_sha256, remember_sha256, sha256_of

if TYPE_CHECKING:
    from hermes_cli.catalog.models import CatalogModel, Catalogue
    from hermes_cli.gguf.header import GGUFHeader
    from hermes_cli.store.inventory import KnownFile
    from hermes_cli.store.other_tools import FoundModel


Evidence = Literal["hash", "size", "header", "unknown"]

EVIDENCE_TEXTS: dict[Evidence, str] = {
    "hash": "certain: its SHA-256 is the Hub's",
    "size": "very likely: name, header and exact size fit",
    "header": "likely: name and header fit",
    "unknown": "not in the catalogue",
}
SIZE_TOLERANCE = 0.01  # of a size that is only computed or listed; a file within it is worth hashing


@dataclass(frozen=True)
class Identity:
    """The model that a file is. By the evidence `hash`, `known` are the files on the Hub, one for each shard."""

    evidence: Evidence
    model: CatalogModel | None = None
    quantization: str | None = None
    known: tuple[KnownFile, ...] = ()


def identify(
    found: FoundModel, catalogue: Catalogue, known: Sequence[KnownFile], hash_of: Callable[[Path], str]
) -> Identity:
    """Identify a model. Its files are hashed only if they could be some whose hash is known.

    Raises:
        IntegrityError: it has the name and size of a file on the Hub, but not its hash.
        OSError: it cannot be read.
    """
    by_hash = _by_hash(found, known, hash_of)
    if by_hash:
        variant = by_hash[0].variant
        return Identity("hash", variant.model, variant.quantization, by_hash)
    names = ModelNames(catalogue)
    claims = []
    for label in _labels(found):
        with suppress(NotFoundError, UsageError):
            claims.append(names.parse(label))
    same_name = [file.variant for file in known if file.name.lower() == found.names[0].lower()]
    claims += [CatalogueReference(variant.model, variant.quantization) for variant in same_name]
    models = [claim for claim in claims if isinstance(claim, CatalogueReference)]
    models = [claim for claim in models if _shape_fits(found.header, claim.model)]
    claimed = next((claim.quantization for claim in models if claim.quantization), None)
    quantization = _quantization(found.header, claimed, frozenset(catalogue.quantizations))
    if len({claim.model.id for claim in models}) != 1 or quantization is None:
        return Identity("unknown")
    model = models[0].model
    exact = {variant.entry.bytes for variant in matching_variants(model, quantization=quantization)} - {None}
    return Identity("size" if found.bytes in exact else "header", model, quantization)


def _by_hash(
    found: FoundModel, known: Sequence[KnownFile], hash_of: Callable[[Path], str]
) -> tuple[KnownFile, ...] | None:
    matches = []
    for path, name in zip(found.files, found.names, strict=True):
        size = path.stat().st_size
        possible = [file for file in known if file.sha256 and _size_fits(file, size)]
        if not possible:
            return None
        digest = hash_of(path)
        # The same file may be in several repositories; the one whose folder it was found in comes first.
        possible.sort(key=lambda file: file.repo.lower() != found.repo.lower())
        match = next((file for file in possible if file.sha256 == digest), None)
        if match is None:
            same = next((file for file in possible if file.name == name and file.bytes == size), None)
            if same is None:
                return None
            raise IntegrityError(
                f"{path} is damaged or altered: it has the name and size of {same.repo}/{same.path}, "
                "but not its SHA-256.",
                hint=f"fetch a good copy: hermes pull {same.variant.name}",
            )
        matches.append(match)
    same_commit = len({(file.repo, file.revision) for file in matches}) == 1
    return tuple(matches) if same_commit else None


def _size_fits(known: KnownFile, size: int) -> bool:
    if known.bytes is not None:
        return known.bytes == size
    expected = known.variant.bytes
    return len(known.variant.files) == 1 and (expected is None or abs(expected - size) <= SIZE_TOLERANCE * size)


def _shape_fits(header: GGUFHeader, model: CatalogModel) -> bool:
    """Return whether the shape of the weights is that of the model, as far as the header says."""
    architecture = model.architecture
    expected = {
        "block_count": architecture.layers,
        "embedding_length": architecture.embedding_length,
        "feed_forward_length": architecture.feed_forward_length,
        "attention.head_count": architecture.heads,
        "attention.head_count_kv": architecture.kv_heads,
    }
    stated = {key: header.number(key) for key in expected}
    tokens = header.metadata.get("tokenizer.ggml.tokens")
    return (
        header.text("general.architecture") == architecture.kind
        and stated["block_count"] is not None
        and stated["embedding_length"] is not None
        and all(stated[key] in {None, expected[key]} for key in expected)
        and (header.number("expert_count") or 0) == architecture.experts
        and (not isinstance(tokens, SkippedValue) or tokens.count == architecture.vocabulary)
    )


def _quantization(header: GGUFHeader, claimed: str | None, names: frozenset[str]) -> str | None:
    """Return the quantization of the name if the header agrees, or that of the header if the name has none."""
    file_type = header.file_type
    if claimed is None:
        return file_type if file_type in names else None
    # `Q6_K_L` and `UD-Q4_K_XL` are Q6_K and Q4_K_M in their headers: the number of bits is the same.
    same = (
        file_type in {None, claimed}
        or normalize_name(claimed.removeprefix("UD-"))[:2] == normalize_name(file_type or "")[:2]
    )
    return claimed if same else None


def _labels(found: FoundModel) -> Iterator[str]:
    """Yield the names of a file: by its surroundings, by its file name, and by its header.

    The header's name counts only if the file name does not say Hermes: a file that does, in words of no model, is
    somebody's variation with the header of the original.
    """
    yield from found.labels
    yield base_name(found.names[0]).removesuffix(".gguf")
    title = found.header.text("general.name")
    if title and "hermes" not in normalize_name(found.names[0]):
        yield title


@dataclass(frozen=True)
class ImportedModel:
    """A model that is part of the library now; `how` is None after a dry run."""

    name: str
    identity: Identity
    originals: tuple[Path, ...]
    paths: tuple[Path, ...]
    bytes: int
    how: LinkKind | None


def import_model(found: FoundModel, identity: Identity, *, copy: bool = False, dry_run: bool = False) -> ImportedModel:
    """Link or copy a model into the library; with `dry_run` only say where it would go."""
    model, quantization = identity.model, identity.quantization
    name = f"{model.short}:{quantization}" if model and quantization else found.names[0]
    kinds: list[LinkKind] = []
    if identity.known and all(known.revision for known in identity.known):
        places = [layout.snapshot_path(known.repo, str(known.revision), known.path) for known in identity.known]
        if not dry_run:
            for source, place, known in zip(found.files, places, identity.known, strict=True):
                kinds.append(_into_hub_cache(source, place, known, copy=copy))
            first = identity.known[0]
            # Without a ref to `main`, offline tools find no file by name.
            if first.revision and not (layout.repo_folder(first.repo) / "refs" / "main").exists():
                with suppress(OSError):
                    layout.write_ref(first.repo, "main", first.revision)
    else:
        folder = layout.imported_folder(model.id if model else None, quantization)
        places = [folder / file_name for file_name in found.names]
        if not dry_run:
            pairs = zip(found.files, places, strict=True)
            kinds = [link_file(source, place, copy=copy) for source, place in pairs]
    how = next((kind for kind in kinds if kind != "already here"), kinds[0]) if kinds else None
    return ImportedModel(name, identity, found.files, tuple(places), found.bytes, how)


def _into_hub_cache(source: Path, name: Path, known: KnownFile, *, copy: bool) -> LinkKind:
    how: LinkKind = "already here"
    blob = layout.blob_path(known.repo, str(known.sha256))
    if not blob.is_file():
        how = link_file(source, blob, copy=copy)
        if how == "copy" and sha256_of(blob) != blob.name:
            blob.unlink()
            raise IntegrityError(
                f"the copy of {source} came out wrong: its SHA-256 differs.", hint="check the disk, then try again."
            )
        if sha256 := known_sha256(source):
            remember_sha256(blob, sha256)  # the same file by another name
    if not name.exists():
        with link_errors(name):
            layout.link_blob(blob, name)
    return how
