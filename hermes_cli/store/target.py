"""A file to be downloaded, as it will be on this disk: one file of the Hub, or raw parts that are joined into one."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING

from hermes_cli.catalog.variants import PART, joined_name
from hermes_cli.errors import NotFoundError
from hermes_cli.store import layout
from hermes_cli.store.disk import size_of
from hermes_cli.store.hashing import known_sha256

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from hermes_cli.store.hub import RemoteFile


@dataclass(frozen=True)
class DownloadTarget:
    """One file.

    Attributes:
        name: its path in the repository.
        parts: the files of the Hub that it consists of, in order: itself, or several raw parts.
        as_blob: it gets no name in the snapshot, because it is a raw part on its way into the joined file.
    """

    name: str
    parts: tuple[RemoteFile, ...]
    as_blob: bool = False

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
        """Return the name of its lock and partial file: its ETag; for a joined file, the hash of its parts' ETags."""
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
        """Return the path of its unfinished download."""
        return layout.partial_path(self.repo, self.etag)

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
    """Return the files that these become on this disk, in their order.

    Raises:
        NotFoundError: a raw part is missing.
    """
    groups: dict[tuple[str, str, str], list[RemoteFile]] = {}
    for file in files:
        groups.setdefault((file.repo, file.revision, joined_name(file.path)), []).append(file)
    return [DownloadTarget(name, _in_order(name, parts)) for (_, _, name), parts in groups.items()]


def _in_order(name: str, parts: list[RemoteFile]) -> tuple[RemoteFile, ...]:
    numbered = {int(match[1]): part for part in parts if (match := PART.search(part.path))}
    if not numbered:
        return (parts[0],)
    count = max(int(match[2]) for part in parts if (match := PART.search(part.path)))
    missing = [number for number in range(1, count + 1) if number not in numbered]
    if missing:
        raise NotFoundError(
            f"{name} comes in {count} parts, but part {missing[0]} is not among the files.", hint="name all of them."
        )
    return tuple(numbered[number] for number in range(1, count + 1))
