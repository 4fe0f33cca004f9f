"""Process groups of other programs, as MCP servers and engines: ended with us, however we end, and found again later.

A group is named by the process id of its leader, which was started in a session of its own. The leader may be gone
while its children live on.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from hermes_cli.platforms import child_python

# Seconds. The MCP specification, "Lifecycle", section "Shutdown": close its input, wait, then SIGTERM, then SIGKILL.
EXIT_TIMEOUT, TERMINATE_TIMEOUT = 2.0, 1.0
START_TOLERANCE = 2.0  # by which two readings of a start may differ: clocks are set meanwhile, but on Linux
_POLL = 0.05

_GUARD = f"""
import contextlib, os, signal, sys, time
groups = set()
for line in sys.stdin:
    groups ^= {{int(line)}}
if groups:
    time.sleep({EXIT_TIMEOUT})
for number in (signal.SIGTERM, signal.SIGKILL):
    for group in groups:
        with contextlib.suppress(OSError):
            os.killpg(group, number)
    time.sleep({TERMINATE_TIMEOUT} if groups else 0)
"""


class ProcessGuard:
    """A process that ends groups if we end without doing so, as by SIGKILL.

    It is told each process group twice, when it begins and when it has ended; the end of its input means that we ended.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        if sys.platform != "win32":  # where a job object does it
            command = [child_python(), "-I", "-S", "-c", _GUARD]
            quiet = subprocess.DEVNULL
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                command, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet, start_new_session=True
            )

    def tell(self, group: int) -> None:
        """Tell that a process group has begun, or that it has ended."""
        if self._process and self._process.stdin:
            with suppress(OSError):  # somebody ended it
                self._process.stdin.write(b"%d\n" % group)
                self._process.stdin.flush()

    def close(self) -> None:
        """End it, once all groups have ended."""
        if self._process and self._process.stdin:
            with suppress(OSError):
                self._process.stdin.close()
            self._process.wait()


def started_at(pid: int) -> float | None:
    """Return when a process started, None if it is gone; a later one may have its number.

    On Linux in ticks since the machine started, which a set clock does not move; elsewhere in seconds since 1970.
    """
    import psutil  # noqa: PLC0415 - 15 ms, only where processes are looked at

    with suppress(psutil.Error, OSError):  # on Windows some calls for an ended process raise the bare OSError
        stat = Path(f"/proc/{pid}/stat")
        if stat.exists():
            return float(stat.read_bytes().rpartition(b")")[2].split()[19])
        return float(psutil.Process(pid).create_time())
    return None


def members(group: int, started: float) -> list[int]:
    """Return the processes of a group whose leader started then; none if the number belongs to another group by now."""
    import psutil  # noqa: PLC0415 - as above

    leader = started_at(group)
    if leader is not None and abs(leader - started) > START_TOLERANCE:
        return []
    found = []
    for pid in psutil.pids():
        with suppress(psutil.Error, OSError):
            if os.getpgid(pid) == group and os.getsid(pid) == group:
                is_alive = psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
                if is_alive and (started_at(pid) or 0) >= started - START_TOLERANCE:
                    found.append(pid)
    return found


def usage(group: int, started: float) -> tuple[float, int]:
    """Return the CPU time in seconds and the resident bytes of a group's processes."""
    import psutil  # noqa: PLC0415 - as above

    seconds, resident = 0.0, 0
    for pid in members(group, started):
        with suppress(psutil.Error, OSError):
            process = psutil.Process(pid)
            times = process.cpu_times()
            seconds += times.user + times.system
            resident += process.memory_info().rss
    return seconds, resident


def ending(group: int, started: float, grace: float) -> Iterator[float]:
    """End a group: SIGTERM, and SIGKILL for what is left after `grace` seconds; yield the seconds to wait meanwhile.

    What SIGKILL does not end, because the system holds it, is left after `TERMINATE_TIMEOUT`.
    """
    for number, limit in ((signal.SIGTERM, grace), (signal.SIGKILL, TERMINATE_TIMEOUT)):
        if not members(group, started):
            return
        with suppress(OSError):
            os.killpg(group, number)
        end = time.monotonic() + limit
        while time.monotonic() < end and members(group, started):
            yield _POLL
