"""The download of one file: found on this disk or fetched, hashed on the way, and named only once its hash is right.

The order is what makes it safe: bytes go into `ETAG.incomplete`; all are there and the hash matches; they are on the
disk (fsync); the file is renamed to its hash; a link gives it its name. Whatever stops the process leaves one of these
states, and each is a good start for the next run.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Self

from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]  # re-exported without saying so

from hermes_cli.catalog.file_names import PART, joined_name, piece_count, sibling_names
from hermes_cli.errors import IntegrityError, NotFoundError
from hermes_cli.store import layout
from hermes_cli.store.disk import BLOCK, disk_errors, read_blocks, rename_durably, size_of
from hermes_cli.store.hashing import BackgroundHasher, hash_for, known_sha256, remember_sha256, sha256_of
from hermes_cli.store.hub import RemoteFile
from hermes_cli.store.progress import Phase, ProgressMeter
from hermes_cli.store.transfer import RetryPolicy, receive

LOCK_POLL = 0.5  # seconds between two looks at a lock that another process holds

# After a loss of power a file system may show zeros where data never reached the disk. They are at the end, and no
# more than it keeps in memory between two writes; models hardly ever hold so many, so nothing much is lost with them.
MAX_ZEROS = 64 << 20


@dataclass(frozen=True)
class DownloadTarget:
    """A file to be downloaded, as it will be on this disk: a file of the Hub, or raw parts that are joined into one."""

    name: str  # its path in the repository
    parts: tuple[RemoteFile, ...]  # the files of the Hub that it consists of, in order: itself, or several raw parts
    as_blob: bool = False  # it gets no name in the snapshot, because it is a raw part on its way into the joined file

    @property
    def repo(self) -> str:
        """Return its repository."""
        return self.parts[0].repo

    @property
    def is_joined(self) -> bool:
        """Return whether it is joined from raw parts."""
        return len(self.parts) > 1

    @cached_property
    def size(self) -> int:
        """Return its bytes in the end."""
        return sum(part.size for part in self.parts)

    @cached_property
    def etag(self) -> str:
        """Return the name of its lock and partial file: its ETag; for a joined file, the hash of its parts' ETags.

        Where the Hub states no ETag it is made of the file's name, so that nobody takes it for a hash.
        """
        if not self.parts[0].etag:
            file = self.parts[0]
            place = f"{file.repo}/{file.revision}/{file.path}"
            return f"unchecked-{hashlib.sha256(place.encode()).hexdigest()}"
        tags = [part.etag for part in self.parts]
        return hashlib.sha256("\n".join(tags).encode()).hexdigest() if self.is_joined else tags[0]

    @property
    def blob(self) -> Path:
        """Return the path of its content. The blob of a joined file has its SHA-256 for a name, known in the end."""
        return layout.blob_path(self.repo, self.etag)

    @property
    def path(self) -> Path:
        """Return the path to open it by."""
        return self.blob if self.as_blob else layout.snapshot_path(self.repo, self.parts[0].revision, self.name)

    @property
    def partial(self) -> Path:
        """Return the path of its unfinished download. Newer huggingface_hub uses a new random suffix for each."""
        return self.blob.with_name(f"{self.etag}.incomplete")

    def part_targets(self) -> list[tuple[int, DownloadTarget]]:
        """Return the raw parts as downloads of their own, each with its offset in the joined file."""
        offsets = accumulate((part.size for part in self.parts), initial=0)
        parts = (DownloadTarget(part.path, (part,), as_blob=True) for part in self.parts)
        return list(zip(offsets, parts, strict=False))

    def bytes_here(self) -> int:
        """Return how many bytes of it unfinished runs have left."""
        size = size_of(self.partial) or 0
        if not self.is_joined:
            return size if size <= self.size else 0
        return sum(
            part.size if offset + part.size <= size or part.is_complete() else part.bytes_here()
            for offset, part in self.part_targets()
        )

    def is_complete(self) -> bool:
        """Return whether all of it is here, under whatever name, as far as the size tells."""
        return any(size_of(path) == self.size for path in (self.path, *self.other_copies()))

    def other_copies(self) -> Iterator[Path]:
        """Yield where its content may be under another name: as a blob, in another repository or commit."""
        if not self.is_joined:
            yield self.blob
            yield from layout.same_blobs(self.repo, self.etag)
        if not self.parts[0].etag:
            return  # the size alone does not make another file the same
        for snapshot in layout.snapshots(self.repo):
            other = snapshot.joinpath(*self.name.split("/"))
            # A link to another blob than ours is another file; but a joined file's blob is not named by our ETag.
            if other != self.path and (self.is_joined or not other.is_symlink()):
                yield other

    def is_verified(self, path: Path) -> bool:
        """Return whether a file was hashed before and is this one; without reading it."""
        sha256 = known_sha256(path)
        if self.is_joined:
            return sha256 is not None and path == self.path  # it was joined here, from these very parts
        return sha256 is not None and sha256 == self.parts[0].sha256


def download_targets(files: Sequence[RemoteFile]) -> list[DownloadTarget]:
    """Return the files that these become on this disk, in their order; raise NotFoundError if a raw part is missing."""
    groups: dict[tuple[str, str, str], dict[str, RemoteFile]] = {}
    for file in files:
        groups.setdefault((file.repo, file.revision, joined_name(file.path)), {})[file.path] = file
    targets = []
    for (_, _, name), by_path in groups.items():
        part = next(filter(PART.search, by_path), None)
        paths = sibling_names(part, piece_count(part)) if part else list(by_path)
        missing = [path for path in paths if path not in by_path]
        if missing:
            number = paths.index(missing[0]) + 1
            raise NotFoundError(
                f"{name} comes in {len(paths)} parts, but part {number} is not among the files.",
                hint="name all of them.",
            )
        targets.append(DownloadTarget(name, tuple(by_path[path] for path in paths)))
    return targets


class PartialFile:
    """The file `ETAG.incomplete`, with `size` bytes so far of the `expected` ones.

    Writes go past all buffers of this process: a killed process loses nothing that it wrote.
    """

    def __init__(self, path: Path, expected: int) -> None:
        self._path = path
        self._expected = expected
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        self._file = os.fdopen(handle, "r+b", buffering=0)
        self.size = os.fstat(handle).st_size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, offset: int, data: bytes | bytearray) -> None:
        """Write data at an offset."""
        view = memoryview(data)
        self._file.seek(offset)
        while view:
            with disk_errors(self._path, self._expected - self.size):
                written = self._file.write(view)
            offset += written
            self.size = max(self.size, offset)
            view = view[written:]

    def truncate(self, size: int) -> None:
        """Drop everything after the first `size` bytes."""
        if size < self.size:
            with disk_errors(self._path):
                self._file.truncate(size)
            self.size = size

    def drop_zeros(self) -> None:
        """Drop the zeros at its end."""
        end, least = self.size, max(0, self.size - MAX_ZEROS)
        while end > least:
            start = max(least, end - BLOCK)
            kept = b"".join(read_blocks(self._path, start, end)).rstrip(b"\0")
            end = start + len(kept)
            if kept:
                break
        self.truncate(end)

    def flush(self) -> None:
        """Wait until all of it is on the disk."""
        with disk_errors(self._path):
            os.fsync(self._file.fileno())


class FileDownload:
    """The download of one target."""

    def __init__(self, target: DownloadTarget, meter: ProgressMeter, policy: RetryPolicy, *, verify: bool) -> None:
        self._target = target
        self._meter = meter
        self._policy = policy
        self._verify = verify
        self._mismatched: set[tuple[int, int, int]] = set()  # identities of files that were hashed already

    def run(self) -> Path:
        """Return the path of the file, complete and verified."""
        path = self._target.path
        if not self._matches(path):
            with self._lock():
                if not self._matches(path) and not self._link_existing():
                    if self._target.is_joined:
                        self._join()
                    else:
                        self._fetch()
        return path

    def _matches(self, path: Path) -> bool:
        """Return whether a file is the target. It is read only if its hash is not known yet."""
        target = self._target
        if size_of(path) != target.size:
            return False
        if not self._verify or target.is_verified(path):
            return True
        with disk_errors(path):
            stat = path.stat()
        identity = stat.st_dev, stat.st_ino, stat.st_mtime_ns
        if identity not in self._mismatched and self._matching_prefix(path) == target.size:
            self._remember(path, sha256_of(path) if target.is_joined else target.parts[0].sha256)
            return True
        self._mismatched.add(identity)
        return False

    def _matching_prefix(self, path: Path) -> int:
        """Return how many bytes at the beginning of a file are whole parts of the target, with the right hashes."""
        size, end = size_of(path) or 0, 0
        for part in self._target.parts:
            if end + part.size > size or (self._verify and part.etag and self._hash(path, end, part) != part.etag):
                break
            end += part.size
        return end

    def _hash(self, path: Path, start: int, part: RemoteFile) -> str:
        with BackgroundHasher(hash_for(part)) as hasher:
            self._feed(hasher, path, start, start + part.size)
            return hasher.hexdigest()

    def _feed(self, hasher: BackgroundHasher, path: Path, start: int, stop: int) -> None:
        for data in read_blocks(path, start, stop):
            hasher.update(data)
            start += len(data)
            self._meter.advance(Phase.HASHING, start)

    def _lock(self) -> ExitStack:
        """Return the Hub's lock of this file, already held; other processes that want it wait, `hf download` too."""
        path, stack = layout.lock_path(self._target.repo, self._target.etag), ExitStack()
        while True:
            with disk_errors(path), suppress(TimeoutError):
                path.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(WeakFileLock(path, timeout=LOCK_POLL))
                return stack
            # The other process may call its partial file otherwise.
            partials = self._target.blob.parent.glob(f"{self._target.etag}*.incomplete")
            done = max((size_of(partial) or 0 for partial in partials), default=0)
            self._meter.report(Phase.WAITING, done, reason="another process fetches it")

    def _link_existing(self) -> bool:
        """Return whether the content was here under another name, and has this one now, too. Bad copies are removed."""
        target = self._target
        if any(self._matches(copy) and self._link(copy) for copy in target.other_copies()):
            return True
        with disk_errors(target.path):
            target.path.unlink(missing_ok=True)
            target.blob.unlink(missing_ok=True)
        return False

    def _link(self, copy: Path) -> bool:
        """Return whether a copy could be given the target's name: by a link to its blob, or by a hard link."""
        target, sha256 = self._target, known_sha256(copy)
        blob = layout.blob_path(target.repo, sha256) if target.is_joined and sha256 else target.blob
        if copy != blob:
            content = copy.resolve()
            if content.parent == blob.parent.resolve():
                blob = content
            else:
                try:
                    blob.parent.mkdir(parents=True, exist_ok=True)
                    blob.unlink(missing_ok=True)
                    blob.hardlink_to(content)
                except OSError:  # a file system without hard links, or another disk
                    return False
        self._name(blob, sha256)
        return True

    def _name(self, blob: Path, sha256: str | None) -> None:
        path = self._target.path
        if not self._target.as_blob:
            with disk_errors(path):
                layout.link_blob(blob, path)
        self._remember(path, sha256)

    def _remember(self, path: Path, sha256: str | None) -> None:
        if self._verify and sha256:
            remember_sha256(path, sha256)

    def _fetch(self) -> None:
        """Fetch what is missing, check all of it and name it."""
        target, file = self._target, self._target.parts[0]
        with PartialFile(target.partial, target.size) as partial:
            partial.drop_zeros()
            if partial.size > target.size:
                partial.truncate(0)  # no beginning of this file
            here = partial.size
            if here:
                self._meter.report(Phase.RESUMING, here)
            with BackgroundHasher(hash_for(file)) as hasher:
                if self._verify:
                    self._feed(hasher, target.partial, 0, here)
                for data in self._receive(partial, here, target.size, Phase.DOWNLOADING):
                    if self._verify:
                        hasher.update(data)
                self._meter.report(Phase.VERIFYING)
                matches = not self._verify or not file.etag or hasher.hexdigest() == file.etag
            if not matches:
                self._repair(partial, here)
            partial.flush()
        with disk_errors(target.path):
            rename_durably(target.partial, target.blob)
        self._name(target.blob, file.sha256)

    def _receive(self, partial: PartialFile, start: int, stop: int, phase: Phase) -> Iterator[bytes | bytearray]:
        """Write a span of the file and yield its data."""
        for data in receive(self._target.parts[0], start, stop, self._meter, self._policy):
            partial.write(start, data)
            start += len(data)
            self._meter.advance(phase, start, fetched=len(data))
            yield data

    def _repair(self, partial: PartialFile, here: int) -> None:
        """Fetch once more what may be wrong: first what an earlier run had left, then what came in this one."""
        file, sha256 = self._target.parts[0], ""
        for start, stop in ((0, here), (here, file.size)):
            if start == stop:
                continue
            self._meter.report(Phase.REPAIRING, reason="its hash is wrong")
            for _ in self._receive(partial, start, stop, Phase.REPAIRING):
                pass
            sha256 = self._hash(self._target.partial, 0, file)
            if sha256 == file.etag:
                return
        partial.truncate(0)
        raise IntegrityError(
            f"{file.path} of {file.repo} came twice with a wrong hash: {sha256} instead of {file.etag}.",
            hint="something on the way alters it; try again later, or over another network or mirror (HF_ENDPOINT).",
        )

    def _join(self) -> None:
        """Fetch the raw parts one by one and append them; a part that nobody else named goes once it is appended."""
        target = self._target
        with PartialFile(target.partial, target.size) as joined:
            joined.drop_zeros()
            joined.truncate(self._matching_prefix(target.partial))
            for offset, part in target.part_targets():
                if joined.size > offset:
                    continue
                self._meter.offset = offset
                path = FileDownload(part, self._meter, self._policy, verify=self._verify).run()
                for data in read_blocks(path, 0, part.size):
                    joined.write(joined.size, data)
                joined.flush()
                if not any((snapshot / part.name).exists() for snapshot in layout.snapshots(target.repo)):
                    path.unlink()
        self._meter.offset = 0
        self._meter.report(Phase.VERIFYING, target.size)
        with disk_errors(target.path):
            sha256 = sha256_of(target.partial)
            blob = layout.blob_path(target.repo, sha256)
            rename_durably(target.partial, blob)
        self._name(blob, sha256)
