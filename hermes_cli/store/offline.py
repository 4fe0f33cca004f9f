"""Models that are complete on this disk, for `hermes pull` when the Hub cannot be asked."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hermes_cli.catalog.names import CatalogueReference, HubReference
from hermes_cli.errors import IntegrityError, NotFoundError, UsageError
from hermes_cli.store import layout
from hermes_cli.store.hashing import known_sha256, sha256_of
from hermes_cli.store.inventory import inventory
from hermes_cli.store.library import find
from hermes_cli.store.progress import Phase, ProgressMeter

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hermes_cli.catalog.models import Catalogue
    from hermes_cli.catalog.names import ModelReference
    from hermes_cli.store.inventory import InstalledModel
    from hermes_cli.store.progress import DownloadProgress


def find_complete(
    reference: ModelReference, quantization: str | None, revision: str | None, catalogue: Catalogue
) -> InstalledModel | None:
    """Return the complete model that a name means, the one that `hermes chat` would take; None if there is none.

    `quantization` replaces that of the name; `revision` is a branch, tag or commit that the model must be of.

    Raises:
        IntegrityError: it was hashed before, and is damaged.
        AccessError: the Hub's cache may not be read.
    """
    if quantization and isinstance(reference, (CatalogueReference, HubReference)):
        reference = replace(reference, quantization=quantization)
    try:
        path = find(reference, catalogue).path
    except (NotFoundError, UsageError):
        return None
    models = [model for model in inventory(catalogue) if model.present == model.count]
    found = next((model for model in models if any(path in file.paths for file in model.files)), None)
    if found is None or revision is None:
        return found
    commit = layout.commit_of(found.repo, revision) if found.repo else None
    same = (model for model in models if (model.repo, model.file) == (found.repo, found.file))
    return next((model for model in same if commit in model.revisions), None)


def check_hashes(model: InstalledModel, on_progress: Callable[[DownloadProgress], None]) -> None:
    """Hash those files of a model that were not hashed since they last changed.

    Raises:
        IntegrityError: one has another hash than the Hub published.
        OSError: one cannot be read.
    """
    for file in model.files:
        found = known_sha256(file.path) or _hash(file.path, file.repo_path, on_progress)
        if file.sha256 and found != file.sha256:
            raise IntegrityError(
                f"{file.path} is damaged: its SHA-256 is not the Hub's, which cannot be asked now.",
                hint=f"fetch it again when it can: hermes verify --repair {model.name}",
            )


def _hash(path: Path, name: str, on_progress: Callable[[DownloadProgress], None]) -> str:
    meter, done = ProgressMeter(name, path.stat().st_size, on_progress), 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        meter.advance(Phase.HASHING, done)

    sha256 = sha256_of(path, advance)
    meter.report(Phase.DONE, done)
    return sha256
