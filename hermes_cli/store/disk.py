"""Operations on the file system: free space, bytes on the disk, errors with the next step, links and copies."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

from hermes_cli import paths
from hermes_cli.errors import DoesNotFitError, HermesError
from hermes_cli.units import gigabytes

BLOCK = 1 << 20  # bytes that are read, written and hashed at once
ALLOCATION_UNIT = 512  # bytes in a unit of `st_blocks`, on every system that has it (POSIX, <sys/stat.h>)
_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}

Inode = tuple[int, int]
LinkKind = Literal["hard link", "symbolic link", "copy", "already here"]


class DiskSpace(NamedTuple):
    """Total and free bytes of a disk."""

    total: int
    free: int


def disk_space(path: Path) -> DiskSpace | None:
    """Return the space of the disk that a path is on or would be on, None if the system does not say."""
    try:
        usage = shutil.disk_usage(paths.existing(path))
    except OSError:
        return None
    return DiskSpace(usage.total, usage.free)


def size_of(path: Path) -> int | None:
    """Return the length of a file in bytes, None if there is none."""
    try:
        return path.stat().st_size if path.is_file() else None
    except OSError:
        return None


def allocated_bytes(info: os.stat_result) -> int:
    """Return the bytes that a file takes on the disk: its blocks, or its length where the system does not say."""
    count = getattr(info, "st_blocks", None)
    return info.st_size if count is None else count * ALLOCATION_UNIT


def inode(info: os.stat_result) -> Inode:
    """Return the identity that all hard links of a file share."""
    return info.st_dev, info.st_ino


def bytes_on_disk(files: Iterable[Path], counted: set[Inode] | None = None) -> int:
    """Return the bytes that files take together, links followed; those in `counted` and missing ones take none."""
    counted = set() if counted is None else counted
    total = 0
    for path in files:
        try:
            info = path.stat()
        except OSError:
            continue
        if stat.S_ISREG(info.st_mode) and inode(info) not in counted:
            counted.add(inode(info))
            total += allocated_bytes(info)
    return total


def files_below(
    folder: Path,  # to be searched
    *,
    follow: bool = False,  # into linked folders, too, each folder once, so that a circle of links has an end
    on_error: Callable[[OSError], None] | None = None,  # called for each folder that cannot be read, which is left out
) -> Iterator[Path]:
    """Yield every file and link below a folder, by name; what vanishes meanwhile is left out."""
    seen: set[Inode] = set()
    for directory, folders, names in os.walk(folder, onerror=on_error, followlinks=follow):
        if follow:
            try:
                identity = inode(Path(directory).stat())
            except OSError:
                continue
            if identity in seen:
                folders.clear()
                continue
            seen.add(identity)
        folders.sort()
        for name in sorted(names):
            yield Path(directory, name)


@contextmanager
def disk_errors(path: Path, missing: int = 0) -> Iterator[None]:
    """Turn an OSError into our error; `missing` bytes of `path` are still to be written.

    Raises:
        DoesNotFitError: the disk is full, or its file system cannot hold so large a file.
        HermesError: the file cannot be read or written for another reason.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            more = f", {gigabytes(missing)} more are needed" if missing else ""
            raise DoesNotFitError(
                f"the disk of {path.parent} is full{more}; what is here is kept.",
                hint="free some space and run the same command again, or choose another disk with HF_HOME.",
            ) from None
        if error.errno == errno.EFBIG:
            raise DoesNotFitError(
                f"{path.parent} cannot hold a file of this size (FAT has a limit of 4 GB).",
                hint="choose another disk with HF_HOME.",
            ) from None
        if isinstance(error, PermissionError):
            raise paths.access_error(os.fsdecode(error.filename or path), error) from None
        raise HermesError(
            f"{error.filename or path} cannot be read or written: {error.strerror or error}.",
            hint="check its owner and permissions, or choose another folder with HF_HOME.",
        ) from None


def read_blocks(path: Path, start: int, stop: int) -> Iterator[bytes]:
    """Yield the bytes of a file from `start` to `stop`, or to its end."""
    with disk_errors(path):
        file = path.open("rb")
    with file:
        file.seek(start)
        while start < stop:
            with disk_errors(path):
                data = file.read(min(BLOCK, stop - start))
            if not data:
                return
            yield data
            start += len(data)


def rename_durably(file: Path, name: Path) -> None:
    """Rename a file, already flushed by `os.fsync`, so that the new name survives a loss of power."""
    file.replace(name)
    if os.name == "posix":
        handle = os.open(name.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def link_file(source: Path, target: Path, *, copy: bool = False) -> LinkKind:
    """Make `target` another name of the file `source`: a hard link, or a symbolic link to another disk.

    Hard links come first because they outlive the original's name. Links in the source are followed, so that nothing
    ever points at a link.

    Raise HermesError if another file has that name, the disk is full, or no link can be made.
    """
    real = paths.readable(source.resolve())
    with link_errors(target):
        if target.exists():
            if target.samefile(real):
                return "already here"
            raise HermesError(
                f"{target} already exists, and is another file.", hint="move or remove it, then try again."
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)  # a link that leads nowhere
        if copy:
            _copy(real, target)
            return "copy"
        try:
            target.hardlink_to(real)
        except OSError:  # another disk, another owner, or a file system without hard links
            target.symlink_to(real)
            return "symbolic link"
        return "hard link"


@contextmanager
def link_errors(target: Path) -> Iterator[None]:
    """Turn an OSError while `target` is made into our error."""
    try:
        yield
    except OSError as error:
        raise HermesError(
            f"{target} cannot be made: {error.strerror or error}.",
            hint="choose a place that you may write to; where links are not possible, --copy copies.",
        ) from None


def _copy(real: Path, target: Path) -> None:
    """Copy under another name first, so that an interrupted copy is never taken for the file."""
    size, space = real.stat().st_size, disk_space(target.parent)
    if space and size > space.free:
        raise HermesError(
            f"a copy of {real} takes {size:,} bytes, and only {space.free:,} bytes are free at {target.parent}.",
            hint="free some space, or leave --copy out: a link takes none.",
        )
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        shutil.copyfile(real, temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
