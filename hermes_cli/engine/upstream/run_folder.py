"""The private folder of a running engine: its socket, its process, its log; and what was left by programs that died.

It lies below `$XDG_RUNTIME_DIR`, else in the folder for temporary files, with mode 0700, and has

* `lock`: held as long as the hermes that started the engine lives;
* `process.json`: the process id of the group's leader, and when it started;
* `engine.sock`: where the engine listens;
* `log`, `log.1`: what it wrote; the second is older.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from hermes_cli import paths, process_guard
from hermes_cli.errors import AccessError

LONGEST_BASE = 48  # bytes: sockets' paths have 103 at most (macOS), and vLLM's own have 52 behind this
SWEEP_GRACE = 5.0  # seconds that an engine gets to end which was left by a program that died
_LOCK, _PROCESS, _SOCKET, _LOG = "lock", "process.json", "engine.sock", "log"


def base_folder() -> Path:
    """Return the folder that all run folders are in, made for this user alone.

    Raise AccessError if somebody else has made one of this name.
    """
    user = os.getuid() if sys.platform != "win32" else 0
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    base = Path(runtime, "hermes-llm") if runtime and paths.is_dir(Path(runtime)) else None
    # `serve` as a service may have no such folder, or one whose name is too long for a socket.
    if base is None or len(os.fsencode(base)) > LONGEST_BASE or not os.access(base.parent, os.W_OK):
        folder = tempfile.gettempdir()
        base = Path(folder if len(folder) < LONGEST_BASE - 20 else "/tmp", f"hermes-llm-{user}")  # noqa: S108 - checked below
    with suppress(FileExistsError):
        base.mkdir(mode=0o700, parents=True)
    status = base.lstat()
    private = sys.platform == "win32" or (status.st_uid == user and not stat.S_IMODE(status.st_mode) & 0o077)
    if not stat.S_ISDIR(status.st_mode) or not private:
        raise AccessError(
            f"{base} is no folder that only you can open.",
            hint=f"remove it, or set XDG_RUNTIME_DIR to a folder of yours: rm -r {base}",
        )
    return base


class RunFolder:
    """A run folder, made new; `close` removes it."""

    def __init__(self, engine: str) -> None:
        """Make the folder for an engine, after removing what was left by others."""
        from filelock import FileLock  # noqa: PLC0415 - 30 ms, only where an engine is started

        sweep()
        self.path = Path(tempfile.mkdtemp(prefix=f"{engine}-", dir=base_folder()))
        self._lock = FileLock(self.path / _LOCK, thread_local=False)  # made in one thread, released in another
        self._lock.acquire(timeout=0)
        self.socket, self.log = self.path / _SOCKET, self.path / _LOG

    def open_log(self) -> int:
        """Return a descriptor that appends to the log, which begins anew; to be closed by the caller."""
        self.log.unlink(missing_ok=True)
        return os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def trim_log(self) -> None:
        """Keep the log short."""
        paths.trim_log(self.log)

    def read_log(self) -> str:
        """Return the log, but for its older part."""
        with suppress(OSError):
            return self.log.read_bytes()[-paths.MAX_LOG_BYTES :].decode("utf-8", "replace")
        return ""

    def keep_log(self, place: Path) -> None:
        """Copy the log to where it outlives the folder."""
        with suppress(OSError):
            paths.write_private(place, self.read_log())

    def write_process(self, pid: int, started: float) -> None:
        """Record the engine's process, for who sweeps up if we cannot."""
        (self.path / _PROCESS).write_text(json.dumps({"pid": pid, "started": started}), encoding="utf-8")

    def close(self) -> None:
        """Remove the folder."""
        self._lock.release()
        shutil.rmtree(self.path, ignore_errors=True)


def sweep() -> int:
    """End the engines whose hermes has died, and remove their folders; return how many folders there were."""
    return sum(_sweep(folder) for folder in _folders())


def _folders() -> Iterator[Path]:
    with suppress(OSError):
        yield from (folder for folder in base_folder().iterdir() if paths.is_dir(folder))


def _sweep(folder: Path) -> bool:
    from filelock import FileLock, Timeout  # noqa: PLC0415 - as above

    if not (folder / _LOCK).exists():
        return False  # it is being made this moment, or is none of ours
    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except (Timeout, OSError):  # its hermes lives
        return False
    try:
        process = json.loads((folder / _PROCESS).read_text(encoding="utf-8"))
        for seconds in process_guard.ending(int(process["pid"]), float(process["started"]), SWEEP_GRACE):
            time.sleep(seconds)
    except (OSError, ValueError, KeyError, TypeError):  # none was started
        pass
    finally:
        lock.release()
        shutil.rmtree(folder, ignore_errors=True)
    return True
