"""Every model file on this disk: in the Hub's cache, whoever fetched it, and among the imported ones.

Only names and links are read, so this is quick however large the files are.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from hermes_cli import paths
from hermes_cli.catalog.engine_weights import EngineWeights, listed_weights
from hermes_cli.catalog.file_names import (
    group_files,
    joined_name,
    piece_count,
    quantization_in_file_name,
    sibling_names,
)
from hermes_cli.catalog.load import read_overlay
from hermes_cli.catalog.models import CatalogModel, Catalogue
from hermes_cli.catalog.names import ANY_WEIGHTS
from hermes_cli.catalog.variants import Variant, variants
from hermes_cli.store import layout
from hermes_cli.store.disk import DiskSpace, Inode, bytes_on_disk, disk_space, files_below
from hermes_cli.store.hashing import git_hash_of, known_sha256
from hermes_cli.store.weights import WeightFolder, weight_folders

InstalledState = Literal["verified", "unverified", "damaged", "incomplete"]

_MODEL_FILE = re.compile(r"\.gguf(\.part\d+of\d+)?\Z", re.IGNORECASE)

MOST_IN_GIT = 10 << 20  # bytes; the Hub wants larger files in Git LFS


@dataclass(frozen=True)
class KnownFile:
    """A file on the Hub that the catalogue or its refresh lists; size and SHA-256 are exact or None."""

    repo: str
    revision: str | None
    path: str
    bytes: int | None
    sha256: str | None
    variant: Variant

    @property
    def name(self) -> str:
        """Return the last part of its path."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True)
class LocalFile:
    """One file of a model."""

    # in the revisions of its repository, the preferred one first; or its path among the imported files
    paths: tuple[Path, ...]
    blob: Path  # the content that these paths link to; the path itself where there are no links
    repo_path: str  # its path within the repository, or its name
    sha256: str | None = None  # by the Hub, None if unknown

    @property
    def path(self) -> Path:
        """Return the path to open it by."""
        return self.paths[0]

    @property
    def git_hash(self) -> str | None:
        """Return the hash that git has of it, if it is so small that the Hub states no SHA-256."""
        small = (self.bytes or 0) <= MOST_IN_GIT
        return layout.published_git_hash(self.blob) if small and not self.sha256 else None

    @property
    def is_as_in_git(self) -> bool:
        """Return whether a small file has the hash that git has of it."""
        try:
            return git_hash_of(self.path) == self.git_hash
        except OSError:
            return False

    @property
    def bytes(self) -> int | None:
        """Return its length, None if the path leads to no file."""
        try:
            return self.path.stat().st_size
        except OSError:
            return None


@dataclass(frozen=True)
class InstalledModel:
    """A model on this disk with all its shards or raw parts."""

    name: str  # a name that a user can type; unique, but for the same file in other revisions
    files: tuple[LocalFile, ...]  # those that are here, in order
    count: int  # number of files that belong to it
    repo: str | None  # its repository on the Hub, None if it was imported
    revisions: tuple[str, ...]  # the commits of the repository that have it
    model: CatalogModel | None  # of the catalogue, None if it is not listed there
    quantization: str | None  # by its file name
    weights: EngineWeights | None = None  # a repository of safetensors, for vLLM and SGLang, that the catalogue lists
    missing: tuple[str, ...] | None = None  # of such a repository, listed or not: shards that its index names besides

    @property
    def file(self) -> str:
        """Return the first file's path within the repository, or its name."""
        return self.files[0].repo_path

    @property
    def path(self) -> Path:
        """Return the first file, which llama.cpp opens."""
        return self.files[0].path

    @property
    def is_weights(self) -> bool:
        """Return whether it is a repository for vLLM and SGLang, which llama.cpp does not load."""
        return self.missing is not None

    @property
    def present(self) -> int:
        """Return how many of its files exist."""
        return sum(file.bytes is not None for file in self.files)

    @property
    def bytes(self) -> int:
        """Return the lengths of its files together."""
        return sum(file.bytes or 0 for file in self.files)

    @property
    def absent(self) -> tuple[LocalFile, ...]:
        """Return the shards or raw parts that have no name here at all."""
        first = self.files[0]
        here = {file.repo_path for file in self.files}
        roots = [path.parents[first.repo_path.count("/")] for path in first.paths]
        siblings = sibling_names(first.repo_path, self.count) if self.missing is None else self.missing
        missing = [name for name in siblings if name not in here]
        return tuple(LocalFile(tuple(root / name for root in roots), roots[0] / name, name) for name in missing)

    @property
    def state(self) -> InstalledState:
        """Return whether all files are here, and whether they had the published hashes since they last changed."""
        if self.present < self.count:
            return "incomplete"
        hashes = [(known_sha256(file.path), file.sha256) for file in self.files if not file.git_hash]
        small = [file for file in self.files if file.git_hash]
        if not all(file.is_as_in_git for file in small):
            return "damaged"
        if any(found and published and found != published for found, published in hashes):
            return "damaged"
        return "verified" if all(found and found == published for found, published in hashes) else "unverified"


def known_files(catalogue: Catalogue) -> Iterator[KnownFile]:
    """Yield every file of every variant, with what the Hub said itself before what the catalogue states."""
    refreshed = {(repo, file.path): file for repo, entry in read_overlay().items() for file in entry.files}
    for model in catalogue.models:
        for variant in variants(model):
            single = len(variant.files) == 1
            for path in variant.files:
                repo, listed = variant.repository.repo, refreshed.get((variant.repository.repo, path))
                size = listed.bytes if listed else variant.entry.bytes if single else None
                sha256 = listed.sha256 if listed else variant.entry.sha256 if single else None
                yield KnownFile(repo, variant.repository.revision, path, size, sha256, variant)


def inventory(catalogue: Catalogue) -> list[InstalledModel]:
    """Return every model on this disk, sorted by name; raise AccessError if the Hub's cache may not be read."""
    paths.readable(paths.models_dir())
    files = list(known_files(catalogue))
    by_path = {
        (file.repo.lower(), name): file.variant for file in files for name in (file.path, joined_name(file.path))
    }
    hashes = {(file.repo.lower(), file.path): file.sha256 for file in files if file.sha256}
    found: list[InstalledModel] = []

    def add(
        group: tuple[LocalFile, ...],
        repo: str | None,
        revisions: tuple[str, ...],
        model: CatalogModel | None,
        quantization: str | None,
    ) -> None:
        name = group[0].repo_path
        count = max(piece_count(name), len(group))
        quantization = quantization or quantization_in_file_name(name)
        found.append(InstalledModel("", group, count, repo, revisions, model, quantization))

    for repo in layout.repositories():
        for group, revisions in _in_repository(repo, hashes):
            variant = by_path.get((repo.lower(), group[0].repo_path))
            add(group, repo, revisions, variant.model if variant else None, variant.quantization if variant else None)
        found.extend(_weights_of(repo, catalogue))
    models = {model.id: model for model in catalogue.models}
    published = frozenset(hashes.values())
    for model_id, quantization, folder in layout.imported_folders():
        for group in _groups(folder):
            # An imported file whose hash is that of a file on the Hub is that file.
            known = [known_sha256(file.path) for file in group]
            pairs = zip(group, known, strict=True)
            verified = tuple(replace(file, sha256=sha256 if sha256 in published else None) for file, sha256 in pairs)
            add(verified, None, (), models.get(model_id or ""), quantization)
    return sorted(_named(found), key=lambda model: (model.name, model.file, model.revisions))


def _in_repository(
    repo: str, hashes: Mapping[tuple[str, str], str]
) -> Iterator[tuple[tuple[LocalFile, ...], tuple[str, ...]]]:
    """Yield the files of each model of a repository, with the revisions in which they are the same."""
    merged: dict[tuple[str, tuple[Path, ...]], list[tuple[str, tuple[LocalFile, ...]]]] = {}
    for snapshot in layout.snapshots(repo):
        for group in _groups(snapshot):
            key = group[0].repo_path, tuple(file.blob for file in group)
            merged.setdefault(key, []).append((snapshot.name, group))
    for copies in merged.values():
        files = []
        for same in zip(*(group for _, group in copies), strict=True):
            sha256 = layout.published_sha256(same[0].blob) or hashes.get((repo.lower(), same[0].repo_path))
            files.append(replace(same[0], paths=tuple(file.path for file in same), sha256=sha256))
        yield tuple(files), tuple(revision for revision, _ in copies)


def _weights_of(repo: str, catalogue: Catalogue) -> Iterator[InstalledModel]:
    """Yield the weights for vLLM and SGLang of a repository, the revisions with the same files together."""
    merged: dict[tuple[Path, ...], list[WeightFolder]] = {}
    for folder in weight_folders(repo):
        merged.setdefault(tuple(layout.blob_of(folder.path / name) for name in folder.files), []).append(folder)
    for blobs, folders in merged.items():
        first = folders[0]
        files = tuple(
            LocalFile(tuple(folder.path / name for folder in folders), blob, name, layout.published_sha256(blob))
            for name, blob in zip(first.files, blobs, strict=True)
        )
        weights = listed_weights(repo, catalogue)
        yield InstalledModel(
            name="",
            files=files,
            count=len(first.files) + len(first.absent),
            repo=repo,
            revisions=tuple(folder.path.name for folder in folders),
            model=weights.model if weights else None,
            quantization=weights.suffix if weights else None,
            weights=weights,
            missing=first.absent,
        )


def _groups(folder: Path) -> Iterator[tuple[LocalFile, ...]]:
    """Yield the files of each model below a folder; links that lead nowhere are among them."""
    names = (path.relative_to(folder).as_posix() for path in files_below(folder) if _MODEL_FILE.search(path.name))
    for group in group_files(names):
        yield tuple(LocalFile((folder / name,), layout.blob_of(folder / name), name) for name in group)


def _named(models: list[InstalledModel]) -> Iterator[InstalledModel]:
    """Give each the shortest name that means this file alone, in whichever revision."""
    names = [_possible_names(model) for model in models]
    for _ in range(2):
        distinct = {(name[0], model.repo, model.file) for name, model in zip(names, models, strict=True)}
        uses = Counter(name for name, _, _ in distinct)
        names = [name[1:] if uses[name[0]] > 1 and len(name) > 1 else name for name in names]
    return (replace(model, name=name[0]) for name, model in zip(names, models, strict=True))


def _possible_names(model: InstalledModel) -> list[str]:
    """Return the names of a model, the shortest first."""
    if model.is_weights:
        return [model.weights.name if model.weights else f"{model.repo}@{ANY_WEIGHTS}"]
    names = [f"hf.co/{model.repo}/blob/main/{model.file}" if model.repo else model.file]
    if model.repo and model.quantization:
        names.insert(0, f"{model.repo}:{model.quantization}")
    if model.model and model.quantization:
        names.insert(0, f"{model.model.short}:{model.quantization}")
    return names


@dataclass(frozen=True)
class ModelUsage:
    """Bytes of one model on the disk, but for files that another one in the list counts already.

    If `used_elsewhere`, its files have names outside the library, so that removing it may free nothing.
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
