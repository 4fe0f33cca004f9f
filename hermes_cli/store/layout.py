"""The layout of model files on this disk: the Hub's cache, and the folder of imported files.

The Hub's cache, as huggingface_hub lays it out (its file_download.py):

    models--OWNER--NAME/blobs/ETAG                  content; the ETag of a model file is its SHA-256
    models--OWNER--NAME/snapshots/REVISION/PATH     its name, a link to the blob
    models--OWNER--NAME/refs/main                   the commit that a branch points to

Imported files for which the Hub's cache has no place; the folders say what a file is:

    imported/hermes-3-llama-3.1-8b/Q4_K_M/FILE      of the catalogue: model id and quantization
    imported/files/FILE                             all others
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from hermes_cli import paths

PREFIX = "models--"
UNFINISHED = (".incomplete", ".downloadInProgress")  # suffixes of huggingface_hub and of llama.cpp
IMPORTED_OTHERS = "files"

# As huggingface_hub writes it, so that backups leave the cache out (bford.info/cachedir).
_TAG = "Signature: 8a477f597d28d172789f06886806bc55\n# This file is a cache directory tag created by hermes.\n"
_SHA256 = re.compile(r"^[0-9a-f]{64}\Z")
_SHA1 = re.compile(r"^[0-9a-f]{40}\Z")


def repo_folder(repo: str) -> Path:
    """Return the folder of a repository in the Hub's cache, whether it exists or not."""
    return paths.models_dir() / f"{PREFIX}{repo.replace('/', '--')}"


def blob_path(repo: str, etag: str) -> Path:
    """Return the path of the content with this ETag."""
    return repo_folder(repo) / "blobs" / etag


def lock_path(repo: str, etag: str) -> Path:
    """Return the path of the lock that a process holds while it downloads a file; `hf download` uses the same."""
    return paths.models_dir() / ".locks" / repo_folder(repo).name / f"{etag}.lock"


def snapshot_path(repo: str, revision: str, path: str) -> Path:
    """Return the path of a file of a commit."""
    return (repo_folder(repo) / "snapshots" / revision).joinpath(*path.split("/"))


def repositories() -> Iterator[str]:
    """Yield the repositories that have a folder, by name."""
    try:
        folders = sorted(paths.models_dir().glob(f"{PREFIX}*"))
    except OSError:
        return
    yield from (path.name.removeprefix(PREFIX).replace("--", "/", 1) for path in folders if path.is_dir())


def snapshots(repo: str) -> list[Path]:
    """Return the folders of a repository's revisions: that of `main` first, then the newest first."""
    folder = repo_folder(repo)
    try:
        main = (folder / "refs" / "main").read_text(encoding="utf-8").strip()
    except OSError:
        main = ""
    try:
        folders = [path for path in (folder / "snapshots").iterdir() if path.is_dir()]
    except OSError:
        return []

    def modified(path: Path) -> float:
        try:
            return path.stat().st_mtime
        except OSError:
            return 0.0  # it was removed meanwhile

    return sorted(folders, key=lambda path: (path.name != main, -modified(path)))


def commit_of(repo: str, revision: str) -> str | None:
    """Return the commit that a branch or tag pointed to when it was last fetched, or that begins with `revision`."""
    try:
        return (repo_folder(repo) / "refs").joinpath(*revision.split("/")).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return next((folder.name for folder in snapshots(repo) if folder.name.startswith(revision)), None)


def blob_of(path: Path) -> Path:
    """Return the blob that a name in a snapshot links to, or the name itself where it is a plain file.

    Only the first link is followed. With Xet the blob is a link in turn, into a store that all repositories share
    (huggingface_hub's _shared_blobs.py).
    """
    try:
        target = path.parent / path.readlink()
    except OSError:
        return path
    return Path(os.path.normpath(target))


def published_sha256(blob: Path) -> str | None:
    """Return the SHA-256 that the Hub states for a blob: its name, for files in Git LFS, as all models are."""
    return blob.name if blob.parent.name == "blobs" and _SHA256.match(blob.name) else None


def published_git_hash(blob: Path) -> str | None:
    """Return the hash that git has of a small file: the name of its blob."""
    return blob.name if blob.parent.name == "blobs" and _SHA1.match(blob.name) else None


def same_blobs(repo: str, etag: str) -> list[Path]:
    """Return the blobs of other repositories with the same ETag, and so the same content."""
    try:
        blobs = list(paths.models_dir().glob(f"{PREFIX}*/blobs/{etag}"))
    except OSError:
        return []
    return [path for path in blobs if path != blob_path(repo, etag) and path.is_file()]


def unfinished_downloads(repo: str) -> list[Path]:
    """Return the partial files of a repository, whether a process still works on them or not."""
    try:
        blobs = sorted((repo_folder(repo) / "blobs").iterdir())
    except OSError:
        return []
    return [path for path in blobs if path.name.endswith(UNFINISHED)]


def is_downloading(repo: str, partial: Path) -> bool:
    """Return whether a process holds the lock of a partial file now."""
    lock = lock_path(repo, partial.name.partition(".")[0])
    if not lock.exists():
        return False
    from filelock import Timeout  # noqa: PLC0415 - with huggingface_hub, only where there is a lock
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]  # noqa: PLC0415 - not declared as public

    try:
        with WeakFileLock(lock, timeout=0.05):  # seconds; it must not be 0, which would not even try
            return False
    except Timeout:
        return True
    except OSError:
        return False  # a lock file that cannot be opened is no reason to call it busy


def link_blob(blob: Path, name: Path) -> None:
    """Give a blob its name, at once or not at all: by a relative link, or by moving it where there are no links."""
    name.parent.mkdir(parents=True, exist_ok=True)
    if os.environ.get("HF_HUB_DISABLE_SYMLINKS", "").upper() in {"1", "ON", "YES", "TRUE"}:
        blob.replace(name)  # huggingface_hub's switch for file systems that only claim to have links
        return
    temporary = name.with_name(f".{name.name}.{os.getpid()}")
    try:
        temporary.symlink_to(os.path.relpath(blob, name.parent))
        temporary.replace(name)
    except OSError:
        temporary.unlink(missing_ok=True)
        blob.replace(name)


def write_ref(repo: str, ref: str, revision: str) -> None:
    """Let a branch or tag point to a commit."""
    paths.write_data((repo_folder(repo) / "refs").joinpath(*ref.split("/")), revision.encode())


def write_cachedir_tag() -> None:
    """Mark the Hub's cache as a cache, if it can be written."""
    path = paths.models_dir() / "CACHEDIR.TAG"
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_text(_TAG, encoding="utf-8")


def imported_root() -> Path:
    """Return the folder of all imported files."""
    return paths.data_dir() / "imported"


def imported_folder(model_id: str | None, quantization: str | None) -> Path:
    """Return the folder for imported files of a model of the catalogue, or of all others."""
    if model_id is None or quantization is None:
        return imported_root() / IMPORTED_OTHERS
    return imported_root() / model_id / quantization


def imported_folders(model_id: str | None = None) -> Iterator[tuple[str | None, str | None, Path]]:
    """Yield model id, quantization and path of the folders that exist, of one model or of all."""
    if model_id is None and (imported_root() / IMPORTED_OTHERS).is_dir():
        yield None, None, imported_root() / IMPORTED_OTHERS
    try:
        folders = sorted(imported_root().glob(f"{model_id or '*'}/*"))
    except OSError:
        return
    for path in folders:
        if path.is_dir() and path.parent.name != IMPORTED_OTHERS:
            yield path.parent.name, path.name, path
