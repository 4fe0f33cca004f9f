"""Disk usage of models, of unfinished downloads, and of everything else in the Hub's cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hermes_cli import paths
from hermes_cli.store import layout
from hermes_cli.store.disk import DiskSpace, bytes_on_disk, disk_space, files_below

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hermes_cli.store.disk import Inode
    from hermes_cli.store.inventory import InstalledModel


@dataclass(frozen=True)
class ModelUsage:
    """Usage of one model.

    Attributes:
        bytes: on the disk, without files that another model in the list counts already.
        used_elsewhere: its files have names outside the library, so that removing it may free nothing.
    """

    model: InstalledModel
    bytes: int
    used_elsewhere: bool


@dataclass(frozen=True)
class PartialUsage:
    """Usage of the unfinished downloads of one repository."""

    repo: str
    count: int
    bytes: int


@dataclass(frozen=True)
class Usage:
    """Bytes on the disk. `other` is all else in the Hub's cache: tokenizers, other formats, data sets."""

    models: tuple[ModelUsage, ...]
    partial: tuple[PartialUsage, ...]
    other: int
    disk: DiskSpace

    @property
    def total(self) -> int:
        """Return the bytes of everything together."""
        return sum(entry.bytes for entry in self.models) + sum(entry.bytes for entry in self.partial) + self.other


def usage(models: Sequence[InstalledModel]) -> Usage:
    """Return the disk usage of these models and of the Hub's cache, each file counted once."""
    counted: set[Inode] = set()
    sizes = [bytes_on_disk((file.path for file in model.files), counted) for model in models]
    by_model = [ModelUsage(model, size, _used_elsewhere(model)) for model, size in zip(models, sizes, strict=True)]
    partial = tuple(
        PartialUsage(repo, len(files), bytes_on_disk(files, counted))
        for repo in layout.repositories()
        if (files := layout.unfinished_downloads(repo))
    )
    other = bytes_on_disk((path for path in files_below(paths.models_dir()) if not path.is_symlink()), counted)
    disk = disk_space(paths.models_dir()) or DiskSpace(0, 0)
    return Usage(tuple(sorted(by_model, key=lambda entry: -entry.bytes)), partial, other, disk)


def _used_elsewhere(model: InstalledModel) -> bool:
    """Return whether a file has more hard links than the library made, or is only linked to from here."""
    roots = [root.resolve() for root in (paths.models_dir(), layout.imported_root())]
    for file in model.files:
        try:
            real, links = file.path.resolve(strict=True), file.path.stat().st_nlink
        except OSError:
            continue
        if links > 1 or not any(root in real.parents for root in roots):
            return True
    return False
