"""Import files from elsewhere into the library, by links.

A file that is certainly one of the Hub's goes into the Hub's cache, exactly as if it had been fetched: every tool that
knows the cache finds it, and nobody fetches it again. All others go into the folder of imported files.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hermes_cli.errors import IntegrityError
from hermes_cli.store import layout
from hermes_cli.store.disk import link_errors, link_file
from hermes_cli.store.hashing import known_sha256, remember_sha256, sha256_of

if TYPE_CHECKING:
    from pathlib import Path

    from hermes_cli.store.disk import LinkKind
    from hermes_cli.store.identify import Identity
    from hermes_cli.store.inventory import KnownFile
    from hermes_cli.store.other_tools import FoundModel


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
    """Link or copy a model into the library; with `dry_run` only say where it would go.

    Raises:
        HermesError: another file has that name already, or it can neither be linked nor copied.
    """
    if identity.model and identity.quantization:
        name = f"{identity.model.short}:{identity.quantization}"
    else:
        name = found.names[0]
    kinds: list[LinkKind] = []
    if identity.known and all(known.revision for known in identity.known):
        places = [layout.snapshot_path(known.repo, str(known.revision), known.path) for known in identity.known]
        if not dry_run:
            for source, place, known in zip(found.files, places, identity.known, strict=True):
                kinds.append(_into_hub_cache(source, place, known, copy=copy))
            _write_main_ref(identity.known[0])
    else:
        folder = layout.imported_folder(identity.model.id if identity.model else None, identity.quantization)
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


def _write_main_ref(known: KnownFile) -> None:
    """Let `main` point to the commit if the cache has no such ref: without it, offline tools find no file by name."""
    if known.revision and not (layout.repo_folder(known.repo) / "refs" / "main").exists():
        with suppress(OSError):
            layout.write_ref(known.repo, "main", known.revision)
