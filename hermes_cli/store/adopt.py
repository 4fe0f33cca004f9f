"""Making files from elsewhere part of the library, by links.

A file that is certainly one of the Hub's goes into the Hub's cache, exactly as if it had been fetched: every tool that
knows the cache sees it, and nobody fetches it again. All others go where store/imported.py says.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hermes_cli.errors import IntegrityError
from hermes_cli.store import cache, imported, links, verified
from hermes_cli.store.verification import sha256_of

if TYPE_CHECKING:
    from pathlib import Path

    from hermes_cli.store.identify import Identity
    from hermes_cli.store.known import KnownFile
    from hermes_cli.store.links import How
    from hermes_cli.store.other_tools import Candidate


@dataclass(frozen=True)
class Target:
    """Where a file is to go: its name there, and, in the Hub's cache, the blob that the name links to."""

    path: Path
    blob: Path | None = None


@dataclass(frozen=True)
class Adopted:
    """A model that is part of the library now; `how` is None where nothing was done yet."""

    name: str
    identity: Identity
    originals: tuple[Path, ...]
    paths: tuple[Path, ...]
    bytes: int
    how: How | None


def adopt(candidate: Candidate, identity: Identity, *, copy: bool = False, pretend: bool = False) -> Adopted:
    """Put a model into the library, or with `pretend` only say where it would go.

    Raises:
        HermesError: another file has that name already, or it can neither be linked nor copied.
    """
    targets = _targets(candidate, identity)
    if identity.model and identity.quantization:
        name = f"{identity.model.short}:{identity.quantization}"
    else:
        name = candidate.names[0]
    hows: list[How] = []
    if not pretend:
        pairs = zip(candidate.files, targets, strict=True)
        hows = [_place(source, target, copy=copy) for source, target in pairs]
        for known in identity.known[:1]:
            _note_revision(known)
    paths = tuple(target.path for target in targets)
    how = next((one for one in hows if one != "already here"), hows[0]) if hows else None
    return Adopted(name, identity, candidate.files, paths, candidate.bytes, how)


def _targets(candidate: Candidate, identity: Identity) -> list[Target]:
    if identity.known and all(known.revision for known in identity.known):
        return [_in_cache(known) for known in identity.known]
    model_id = identity.model.id if identity.model else None
    folder = imported.place(model_id, identity.quantization)
    return [Target(folder / name) for name in candidate.names]


def _in_cache(known: KnownFile) -> Target:
    path = cache.place(known.repo, str(known.revision), known.path)
    return Target(path, cache.blob(known.repo, str(known.sha256)))


def _place(source: Path, target: Target, *, copy: bool) -> How:
    if target.blob is None:
        return links.place(source, target.path, copy=copy)
    how: How = "already here"
    if not target.blob.is_file():
        how = links.place(source, target.blob, copy=copy)
        _check_copy(source, target.blob, how)
    if not target.path.exists():
        with links.making(target.path):
            cache.link(target.blob, target.path)
    return how


def _check_copy(source: Path, blob: Path, how: How) -> None:
    if how == "copy" and sha256_of(blob) != blob.name:
        blob.unlink()
        raise IntegrityError(
            f"the copy of {source} came out wrong: its SHA-256 differs.", hint="check the disk, then try again."
        )
    if hashed := verified.known(source):
        verified.remember(blob, hashed)  # the same file by another name


def _note_revision(known: KnownFile) -> None:
    """What `main` is, if the cache does not know: without it, tools that are offline do not find a file by its name."""
    if known.revision and not (cache.folder(known.repo) / "refs" / "main").exists():
        with suppress(OSError):
            cache.write_ref(known.repo, "main", known.revision)
