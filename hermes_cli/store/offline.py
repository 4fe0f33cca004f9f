"""Models that are complete on this disk, for `hermes pull` when the Hub cannot be asked."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from hermes_cli.catalog.file_names import joined_name, read_quantization
from hermes_cli.catalog.models import Catalogue
from hermes_cli.catalog.names import (
    CatalogueReference,
    HubReference,
    ModelReference,
    WeightsReference,
    named_quantization,
)
from hermes_cli.catalog.variants import quantization_loss
from hermes_cli.errors import IntegrityError
from hermes_cli.store import layout
from hermes_cli.store.choose_files import choose_files
from hermes_cli.store.hashing import known_sha256, sha256_of
from hermes_cli.store.inventory import InstalledModel, inventory
from hermes_cli.store.library import named_by
from hermes_cli.store.progress import DownloadProgress, Phase, ProgressMeter


def find_complete(
    reference: ModelReference, quantization: str | None, revision: str | None, catalogue: Catalogue, room: int
) -> InstalledModel | None:
    """Return the complete model that a name means; None if there is none.

    `quantization` is one beside the name, as typed; `revision` is a branch, tag or commit that the model must be of. Of
    several of the catalogue it is the one that loses least, as for `hermes chat`; of several of a repository the one
    that a pull takes of them, where `room` bytes are free for its files.

    Raises:
        AccessError: the Hub's cache may not be read.
        UsageError: there are several models of a repository.
    """
    match reference:
        case CatalogueReference(model, named, _):
            typed = quantization and (named_quantization(quantization, model) or read_quantization(quantization))
            reference = replace(reference, quantization=typed or named)
        case HubReference(_, named, _):
            reference = replace(reference, quantization=quantization or named)
        case WeightsReference():
            pass
        case _:
            return None
    models = [model for model in inventory(catalogue) if model.present == model.count]
    found = named_by(reference, models)
    if revision is not None:
        found = [model for model in found if model.repo and layout.commit_of(model.repo, revision) in model.revisions]
    if isinstance(reference, HubReference) and len({model.file for model in found}) > 1:
        sizes = {file.repo_path: file.bytes or 0 for model in found for file in model.files}
        [first, *_] = choose_files(reference.repo, sizes, reference.quantization, room).files
        found = [model for model in found if model.file == joined_name(first)]

    def rank(model: InstalledModel) -> tuple[float, int, bool]:
        loss = quantization_loss(model.quantization or "", catalogue)
        newest = layout.commit_of(model.repo, "main") if model.repo else None
        return math.inf if loss is None else loss, model.bytes, newest not in model.revisions

    return min(found, key=rank, default=None)


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
