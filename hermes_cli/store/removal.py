"""Remove models: plan first what goes and what stays, then do it.

A name in a revision is only a link. The blob behind it goes when no other revision, name or program uses it, so fewer
bytes may be freed than were removed; both are reported. Names go first, so that none ever points at a blob that is
gone, however the removal is interrupted.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hermes_cli import paths
from hermes_cli.errors import HermesError
from hermes_cli.store import layout
from hermes_cli.store.disk import allocated_bytes, bytes_on_disk, files_below, inode

if TYPE_CHECKING:
    from huggingface_hub import DeleteCacheStrategy

    from hermes_cli.store.inventory import InstalledModel

OTHER_NAME = "another revision or name of its repository uses it"
OTHER_PLACE = "the same file has another name elsewhere, in another program's folder perhaps"
ORIGINAL = "it is an original outside the library, which was only linked to"
BUSY = "it is being fetched right now"
SHARED = "another repository shares it"


@dataclass(frozen=True)
class KeptFile:
    """A file that still takes its space after the removal, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Removal:
    """The plan of a removal."""

    names: tuple[Path, ...] = ()  # in snapshots and among the imported files
    blobs: tuple[Path, ...] = ()  # behind them, that nothing else in the cache uses
    partials: tuple[Path, ...] = ()  # unfinished downloads
    frees: int = 0  # bytes that the disk gets back
    kept: tuple[KeptFile, ...] = ()  # files that still take their space


def plan_removal(models: Sequence[InstalledModel]) -> Removal:
    """Plan the removal of models and of unfinished downloads of the same files."""
    files = [file for model in models for file in model.files]
    names = {path for file in files for path in file.paths}
    contents = list(dict.fromkeys(file.blob for file in files))
    snapshots = [folder for repo in {model.repo for model in models if model.repo} for folder in layout.snapshots(repo)]
    used = {layout.blob_of(path) for folder in snapshots for path in files_below(folder) if path not in names}
    blobs = [path for path in contents if _in_library(path) and path not in used and path not in names]
    kept = [KeptFile(path, OTHER_NAME) for path in contents if path in used]
    removed: dict[Path, os.stat_result] = {}
    for path in (*blobs, *names):
        with suppress(OSError):
            info = path.lstat()
            if stat.S_ISREG(info.st_mode):
                removed[path] = info
    links = Counter(inode(info) for info in removed.values())
    elsewhere = [path for path, info in removed.items() if info.st_nlink > links[inode(info)]]
    frees = bytes_on_disk(path for path in removed if path not in elsewhere)
    kept += [KeptFile(path, OTHER_PLACE) for path in elsewhere]
    kept += [KeptFile(path, ORIGINAL) for path in contents if not _in_library(path)]
    kept += [KeptFile(path, ORIGINAL) for path in blobs if path.is_symlink() and not _in_shared_store(path)]
    shared = [path for path in blobs if _in_shared_store(path)]
    if shared:
        freed = _shared_store_removal(shared).expected_freed_size
        frees += freed
        kept += [KeptFile(path, SHARED) for path in shared if not freed]
    hashes = {(model.repo, file.sha256) for model in models for file in model.files if model.repo and file.sha256}
    whole = {model.repo for model in models if model.repo and model.is_weights}
    partials = [
        partial
        for repo in {repo for repo, _ in hashes if repo} | whole
        for partial in layout.unfinished_downloads(repo)
        if repo in whole or (repo, partial.name.partition(".")[0]) in hashes
        if not layout.is_downloading(repo, partial)
    ]
    return Removal(tuple(sorted(names)), tuple(blobs), tuple(partials), frees + bytes_on_disk(partials), tuple(kept))


def plan_partial_removal(repos: Iterable[str]) -> Removal:
    """Plan the removal of the unfinished downloads of some repositories, but for those still under way."""
    busy = {path: layout.is_downloading(repo, path) for repo in repos for path in layout.unfinished_downloads(repo)}
    stale = [path for path in busy if not busy[path]]
    kept = tuple(KeptFile(path, BUSY) for path in busy if busy[path])
    return Removal(partials=tuple(stale), frees=bytes_on_disk(stale), kept=kept)


def remove(removal: Removal) -> int:
    """Carry out a plan; return the bytes that the disk got back.

    Raise HermesError if a file cannot be removed. Those before it are gone, those after it are still whole.
    """
    freed = sum(_unlink(path) for path in removal.names)
    shared = [path for path in removal.blobs if _in_shared_store(path)]
    freed += sum(_unlink(path) for path in (*removal.blobs, *removal.partials) if path not in shared)
    if shared:
        contents = {Path(os.path.realpath(path)) for path in shared}
        before = bytes_on_disk(contents)
        _shared_store_removal(shared).execute()
        freed += before - bytes_on_disk(contents)
    root = paths.models_dir()
    for path in (*removal.names, *removal.partials):
        if root in path.parents:
            _clean_repository(root / path.relative_to(root).parts[0])
        else:
            folder = path.parent
            with suppress(OSError):  # not empty, or gone
                while folder != layout.imported_root().parent:
                    folder.rmdir()
                    folder = folder.parent
    return freed


def _in_library(path: Path) -> bool:
    """Return whether a file lies in the Hub's cache or among the imported files."""
    roots = (Path(os.path.normpath(root)) for root in (paths.models_dir(), layout.imported_root()))
    return any(root in Path(os.path.normpath(path)).parents for root in roots)


def _in_shared_store(blob: Path) -> bool:
    """Return whether a blob is a link into the store that huggingface_hub shares between repositories (Xet)."""
    store = Path(os.path.realpath(paths.models_dir() / "blobs"))
    return blob.is_symlink() and store in Path(os.path.realpath(blob)).parents


def _shared_store_removal(blobs: Sequence[Path]) -> DeleteCacheStrategy:
    """Return huggingface_hub's plan for blobs in the shared store: it alone knows who else uses them."""
    from huggingface_hub import DeleteCacheStrategy, scan_cache_dir  # noqa: PLC0415 - only where there is such a store

    cache = scan_cache_dir(paths.models_dir())
    wanted = {Path(os.path.realpath(blob.parent)) / blob.name for blob in blobs}
    files = [
        file
        for repo in cache.repos
        for revision in repo.revisions
        for file in revision.files
        if file.blob_path in wanted
    ]
    if files:
        return cache.delete_files(*files)
    # `remove` has removed their names already.
    none: frozenset[Path] = frozenset()
    return DeleteCacheStrategy(0, frozenset(wanted), none, none, none, none, cache.cache_dir)


def _unlink(path: Path) -> int:
    """Remove one name and return the bytes that this frees; a missing one frees none."""
    try:
        info = path.lstat()
        path.unlink()
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise HermesError(
            f"{path} cannot be removed: {error.strerror}.", hint="check who owns it and whether a program has it open."
        ) from None
    return allocated_bytes(info) if stat.S_ISREG(info.st_mode) and info.st_nlink == 1 else 0


def _clean_repository(folder: Path) -> None:
    """Remove empty folders and refs to missing revisions, and the folder of a repository that has no files left."""
    _remove_empty_folders(folder / "snapshots")
    snapshots = folder / "snapshots"
    revisions = {path.name for path in snapshots.iterdir()} if snapshots.is_dir() else set()
    for ref in files_below(folder / "refs"):
        with suppress(OSError):
            if ref.read_text(encoding="utf-8").strip() not in revisions:
                ref.unlink()
    _remove_empty_folders(folder / "refs")
    if not revisions:
        for mark in files_below(folder / ".no_exist"):  # empty files: names that the Hub was asked for and lacks
            with suppress(OSError):
                mark.unlink()
        _remove_empty_folders(folder)


def _remove_empty_folders(folder: Path) -> None:
    for directory, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):
            Path(directory).rmdir()
