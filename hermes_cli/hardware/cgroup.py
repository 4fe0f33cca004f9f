"""What a container or a service unit leaves of the machine: limits of cgroup v1 and v2.

A process may be in groups inside groups, and every one of them can limit it, so all are asked up to the top one that
can be seen. Files: the kernel's Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from hermes_cli.hardware.sysfs import read_number, read_text

if TYPE_CHECKING:
    from pathlib import Path


class CgroupMemory(NamedTuple):
    """One group that limits memory, in bytes. `used` is without what the kernel would drop first."""

    limit: int
    used: int


def cgroup_memory(root: Path) -> list[CgroupMemory]:
    """The groups that limit this process's memory, innermost first."""
    folders, version = _groups(root, "memory")
    groups = (_memory_v1(folder) if version == 1 else _memory_v2(folder) for folder in folders)
    return [group for group in groups if group]


def cgroup_cpus(root: Path) -> float | None:
    """How many CPUs' worth of time this process may use, None if nothing limits it."""
    folders, version = _groups(root, "cpu")
    quotas = [_quota_v1(folder) if version == 1 else _quota_v2(folder) for folder in folders]
    return min((quota for quota in quotas if quota), default=None)


def _groups(root: Path, controller: str) -> tuple[list[Path], int]:
    """Folders of the process's groups, innermost first, and the cgroup version of this controller.

    /proc/self/cgroup has a line "N:controllers:/path"; that of version 2 has no controllers. Both versions can be
    there at once, and then each controller belongs to one of them: version 1 if that names it.
    """
    two = ""
    for controllers, path in re.findall(r"^\d+:([^:]*):(.*)$", read_text(root / "proc/self/cgroup"), re.MULTILINE):
        if controller in controllers.split(","):
            top = root / "sys/fs/cgroup" / controller
            # "cpu" is a link to "cpu,cpuacct" on most systems, not on all
            return _upwards(top if top.is_dir() else top.with_name(controllers), path), 1
        if not controllers:
            two = path
    return (_upwards(root / "sys/fs/cgroup", two) if two else []), 2


def _upwards(top: Path, path: str) -> list[Path]:
    """The group's folder and all above it. In a container the path may be the host's: then only the top is there."""
    parts = [part for part in path.split("/") if part not in {"", "..", "."}]
    folders = [top.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1)]
    return [folder for folder in folders if folder.is_dir()]


def _memory_v2(folder: Path) -> CgroupMemory | None:
    """memory.max is where the kernel kills, memory.high where it makes the process wait: neither is to be passed."""
    limits = [limit for limit in (read_number(folder / "memory.max"), read_number(folder / "memory.high")) if limit]
    if not limits:  # both say "max" (or 0, with which nothing would run), or this is the root, which has neither
        return None
    reclaimable = _counted(read_text(folder / "memory.stat"), "inactive_file")
    return CgroupMemory(min(limits), _used(folder / "memory.current", reclaimable))


def _memory_v1(folder: Path) -> CgroupMemory | None:
    """The group's limit, or that of a group above which a container cannot see, if it is lower."""
    own = read_number(folder / "memory.limit_in_bytes")  # unlimited is a number just below 2^63: no limit to any RAM
    stat = read_text(folder / "memory.stat")
    limits = [limit for limit in (own, _counted(stat, "hierarchical_memory_limit")) if limit]
    if not limits:
        return None
    return CgroupMemory(min(limits), _used(folder / "memory.usage_in_bytes", _counted(stat, "total_inactive_file")))


def _used(usage: Path, reclaimable: int) -> int:
    """Usage counts cached files; of those the inactive ones are dropped before anything else is refused."""
    return max((read_number(usage) or 0) - reclaimable, 0)


def _counted(stat: str, name: str) -> int:
    """A line of memory.stat, 0 if there is none of that name."""
    line = re.search(rf"^{name} (\d+)$", stat, re.MULTILINE)
    return int(line[1]) if line else 0


def _quota_v2(folder: Path) -> float | None:
    """cpu.max: "200000 100000" is two CPUs, "max 100000" no limit."""
    quota, _, period = read_text(folder / "cpu.max").partition(" ")
    return int(quota) / int(period) if quota.isdecimal() and period.isdecimal() and int(period) else None


def _quota_v1(folder: Path) -> float | None:
    quota, period = read_number(folder / "cpu.cfs_quota_us"), read_number(folder / "cpu.cfs_period_us")
    return quota / period if quota and period and quota > 0 else None  # -1 is no limit
