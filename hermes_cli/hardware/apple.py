"""Apple silicon through `sysctl`: one memory for all, of which macOS lets the GPU take a part."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from hermes_cli.hardware.machine import Device, Note
from hermes_cli.hardware.system import SYSCTL_FLAGS, SystemMemory
from hermes_cli.units import GIB, MIB

if TYPE_CHECKING:
    Sysctl = Callable[[Sequence[str]], str]

MACOS = 3 * GIB  # that macOS and the usual programs take, and a part of the memory, for its caches and tables
MACOS_SHARE = 0.04
LARGE = 36 * GIB  # from this size on the GPU gets three quarters, below two thirds

KEYS = (
    "hw.memsize",
    "hw.physicalcpu",
    "hw.perflevel0.physicalcpu",
    "iogpu.wired_limit_mb",
    "machdep.cpu.brand_string",
    "sysctl.proc_translated",
    *SYSCTL_FLAGS,
)


def run_sysctl(keys: Sequence[str]) -> str:
    """Return sysctl's output for the keys: a "key: value" line for each that this Mac has."""
    # not every Mac has every key: then it exits with 1 and has printed the others
    done = subprocess.run(  # noqa: S603 - a fixed program and fixed keys
        ["/usr/sbin/sysctl", *keys], capture_output=True, text=True, check=False, timeout=5
    )
    return done.stdout


def answers(run: Sysctl) -> dict[str, str]:
    """Return this Mac's values of `KEYS`; empty if sysctl cannot be run."""
    try:
        return dict(re.findall(r"^([\w.]+): (.*)$", run(KEYS), re.MULTILINE))
    except (OSError, subprocess.SubprocessError):
        return {}


def devices(
    sysctl: Mapping[str, str],  # from `answers`
    ram: SystemMemory,  # of which the free part is free to the GPU too
    notes: list[Note],  # what stands in the way is added here
) -> list[Device]:
    """The GPU of an M-series chip; none on Macs with Intel processors, whose GPUs llama.cpp serves badly."""
    chip = sysctl.get("machdep.cpu.brand_string", "")
    if not chip.startswith("Apple"):
        return []
    if sysctl.get("sysctl.proc_translated") == "1":
        rosetta = "This Python is for Intel Macs and runs translated (Rosetta): install one for Apple silicon."
        notes.append(Note("devices", rosetta))
    total = gpu_limit(int(sysctl.get("hw.memsize") or ram.total), int(sysctl.get("iogpu.wired_limit_mb") or 0))
    return [
        Device(
            vendor="apple",
            name=chip.removeprefix("Apple "),
            total=total,
            free=min(total, ram.available),
            bandwidth=None,  # macOS does not tell
            bandwidth_source="assumed",
            backend="metal",
            unified=True,
        )
    ]


def gpu_limit(memory: int, set_megabytes: int = 0) -> int:
    """Bytes that the GPU may take, Metal's recommendedMaxWorkingSetSize.

    macOS: two thirds of memory, three quarters from 36 GiB on. As llama.cpp's logs have it: 5461 MiB of 8 GiB, 10922 of
    16, 21845 of 32, 27648 of 36, 49152 of 64. `sudo sysctl iogpu.wired_limit_mb=…` sets another until the next boot.
    """
    if set_megabytes:
        return min(set_megabytes * MIB, memory)
    return memory * 3 // 4 if memory >= LARGE else memory * 2 // 3


def usually_free(memory: int) -> int:
    """Bytes that macOS and a few programs leave on a Mac: of 8 GiB 4.7 (measured on an M1), of 64 58; at least half."""
    return max(int(memory * (1 - MACOS_SHARE)) - MACOS, memory // 2)
