"""Download files of the Hub into its cache.

    files = resolve("NousResearch/Hermes-3-Llama-3.1-8B-GGUF", None, ["Hermes-3-Llama-3.1-8B.Q4_K_M.gguf"])
    file_states(files), space_needed(files)      before any byte
    fetch(files, print)                          events on the way, paths in the end

They lie in the Hub's own cache, under its own locks, so `hf download`, transformers and llama.cpp share one copy with
us. The download of one file is in `file_download.py`, its connections in `transfer.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from hermes_cli import paths
from hermes_cli.catalog.file_names import joined_name
from hermes_cli.catalog.models import Catalogue
from hermes_cli.errors import DoesNotFitError, NetworkError, NotFoundError, UsageError
from hermes_cli.store import layout
from hermes_cli.store.disk import disk_space
from hermes_cli.store.file_download import FileDownload, download_targets
from hermes_cli.store.hub import RemoteFile, endpoint, is_safe, list_files, quiet_hub_log
from hermes_cli.store.inventory import known_files
from hermes_cli.store.progress import DownloadProgress, Phase, ProgressMeter
from hermes_cli.store.transfer import RetryPolicy, ask_headers
from hermes_cli.units import gigabytes

MAX_NAMES = 12  # file names in a message


@dataclass(frozen=True)
class FileState:
    """The part of a file that is here before anything is fetched."""

    file: str  # its path in the repository; for raw parts, of the file that they are joined into
    path: Path  # of the file on this disk, now or in the end
    size: int  # bytes in the end
    here: int  # bytes that need not be fetched
    complete: bool
    verified: bool  # it was hashed, and is what the Hub states; if not, `fetch` hashes it first


@dataclass(frozen=True)
class SpaceNeeded:
    """Bytes that are still needed in a folder, and bytes that its disk has free; None if the system does not say."""

    folder: Path
    needed: int
    free: int | None

    def check(self) -> None:
        """Raise DoesNotFitError, with both numbers, if the disk has not enough room."""
        if self.free is not None and self.needed > self.free:
            raise DoesNotFitError(
                f"{gigabytes(self.needed)} are needed in {self.folder}, {gigabytes(self.free)} are free.",
                hint="free some space, or choose another disk with HF_HOME; --force tries all the same.",
            )


def resolve(repo: str, revision: str | None, files: Sequence[str]) -> list[RemoteFile]:
    """Ask the Hub for sizes and hashes of some files of a repository, all at one commit.

    Raises:
        UsageError: a name that cannot be a path here.
        NotFoundError: no such repository, revision or file; the hint names the files that there are.
        NetworkError: the Hub cannot be reached, refuses, or states no size.
    """
    for name in files:
        if not is_safe(name):
            raise UsageError(f"{name!r} cannot be the name of a file here.", hint=f"see the names: hermes show {repo}")
    listed = {file.path: file for file in list_files(repo, revision)}
    for name in files:
        if name not in listed:
            place = f"{repo} at revision {revision}" if revision else repo
            models = [path for path in listed if ".gguf" in path.lower()] or list(listed)
            more = f" and {len(models) - MAX_NAMES} more: hermes show {repo}" if len(models) > MAX_NAMES else ""
            hint = f"it has {', '.join(models[:MAX_NAMES])}{more}"
            empty = f"it has no files; choose another repository than {repo}."
            raise NotFoundError(f"{place} has no file {name}.", hint=hint if models else empty)
    return [_completed(listed[name]) for name in files]


def _completed(file: RemoteFile) -> RemoteFile:
    """Return a file with size and hash, asked for anew if a mirror lists none; some state no hash at all."""
    if not file.etag or (not file.size and ".gguf" in file.path.lower()):
        file = ask_headers(file)
    if not file.etag and joined_name(file.path) != file.path:
        raise NetworkError(
            f"{endpoint()} publishes no hash of {file.path}, without which raw parts are not joined.",
            hint="choose another mirror with HF_ENDPOINT.",
        )
    return file


def known_content(file: RemoteFile, catalogue: Catalogue) -> RemoteFile:
    """Return a file of a mirror that states no hash, with the one that the catalogue has for the same commit and size.

    Where the catalogue states no commit, the size alone decides.
    """
    for known in known_files(catalogue):
        same = (known.repo.lower(), known.path) == (file.repo.lower(), file.path)
        if same and known.sha256 and known.bytes == file.size and known.revision in {None, file.revision}:
            return replace(file, etag=known.sha256, sha256=known.sha256)
    return file


def file_states(files: Sequence[RemoteFile]) -> list[FileState]:
    """Return the part of each file that is here; raw parts count as the file that they are joined into."""
    states = []
    for target in download_targets(files):
        complete = target.is_complete()
        here = target.size if complete else target.bytes_here()
        verified = complete and any(target.is_verified(path) for path in (target.path, *target.other_copies()))
        states.append(FileState(target.name, target.path, target.size, here, complete, verified))
    return states


def space_needed(files: Sequence[RemoteFile]) -> SpaceNeeded:
    """Return the bytes still to be written, and the free space of the Hub's cache."""
    needed = sum(state.size - state.here for state in file_states(files))
    unjoined = [target for target in download_targets(files) if target.is_joined and not target.is_complete()]
    needed += max((part.size for target in unjoined for part in target.parts), default=0)  # one part lies twice
    space = disk_space(paths.models_dir())
    return SpaceNeeded(paths.models_dir(), needed, space.free if space else None)


def fetch(
    files: Sequence[RemoteFile],
    on_progress: Callable[[DownloadProgress], None],
    *,
    verify: bool = True,
    force: bool = False,
    policy: RetryPolicy | None = None,
) -> list[Path]:
    """Download files and return their paths, in the order in which they were named.

    Files that are here already are not fetched again, whoever fetched them. Interrupted by anything, it goes on from
    there when called again. With `force` the free disk space is not checked.

    Raises:
        DoesNotFitError: there is not enough disk space; or the disk got full, and what came is kept.
        NotFoundError, NetworkError: the Hub does not have the files, or refuses, or no connection gets on any more.
        IntegrityError: a file came twice with a wrong hash.
        HermesError: the cache cannot be written.
    """
    targets = download_targets(files)
    if not force:
        space_needed(files).check()
    layout.write_cachedir_tag()
    done = []
    with quiet_hub_log():
        for target in targets:
            meter = ProgressMeter(target.name, target.size, on_progress)
            done.append(FileDownload(target, meter, policy or RetryPolicy(), verify=verify).run())
            meter.report(Phase.DONE, target.size)
    for repo, ref, revision in {(file.repo, file.ref, file.revision) for file in files}:
        if ref:
            with suppress(OSError):  # a cache that can only be read is good enough
                layout.write_ref(repo, ref, revision)
    return done
