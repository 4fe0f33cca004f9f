"""How fast RAM is, measured: nothing on most machines tells it, and it decides how fast a model on the CPU talks.

A measurement takes about 150 ms and the time to get the memory, so it is made once and kept until the processor, its
cores or RAM change.
"""

from __future__ import annotations

import json
import math
import os
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from hermes_cli import paths

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MIB = 1 << 20
PASS = 4 * MIB  # bytes one call touches: about 1 ms, so that threads rarely wait for each other in Python
SMALLEST, LARGEST = 128 * MIB, 256 * MIB  # of all buffers together: beyond caches, and quickly got from the kernel
SECONDS = 0.025  # of one window
WINDOWS = 3  # of each kind; the best counts, because others may be using the machine


def ram_bandwidth(cpu: str, cores: int, ram: int, *, cache: int = 0, measured: bool = True) -> float | None:
    """Bytes per second that all cores together read: remembered, else measured, else None.

    Args:
        cpu: the processor's name, and with it
        cores: and
        ram: (bytes) what a remembered number holds for.
        cache: bytes of the processor's last cache, which the measurement has to exceed.
        measured: whether to measure if nothing is remembered.
    """
    key = f"{cpu}, {cores} cores, {ram} bytes"
    known = _remembered().get(key)
    if known is None and measured:
        known = measure(cores, max(SMALLEST, min(2 * cache, LARGEST, ram // 8)))
        _remember(key, known)
    return known


def measure(threads: int, size: int) -> float:
    """Bytes per second that so many threads move between RAM and cores.

    Two ways are tried because C libraries are good at different ones: comparing two buffers, which reads, and copying,
    where what is read and what is written both count. Both let other Python threads run meanwhile.

    Args:
        threads: one for each core.
        size: bytes of all their buffers together.
    """
    share = max(size // threads, 2 * PASS)
    workers = [_Worker(share) for _ in range(threads)]
    _run([worker.fill for worker in workers])  # on its own thread, so that NUMA puts memory beside the core
    return max(_window(workers, copying=copying) for _ in range(WINDOWS) for copying in (False, True))


def _window(workers: list[_Worker], *, copying: bool) -> float:
    """Bytes per second of one window."""
    start = time.perf_counter()
    moved: list[int] = []

    def one(worker: _Worker) -> None:
        moved.append(worker.work(start + SECONDS, copying=copying))

    _run([partial(one, worker) for worker in workers])
    return sum(moved) / (time.perf_counter() - start)


def _run(tasks: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=task, daemon=True) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class _Worker:
    """Two buffers of one thread and the C functions that read and copy them."""

    def __init__(self, size: int) -> None:
        import ctypes  # noqa: PLC0415 - 5 ms, only for who measures
        import mmap  # noqa: PLC0415 - as above

        self._half = size // 2 // PASS * PASS
        self._memory = mmap.mmap(-1, 2 * self._half)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            with suppress(OSError):  # a kernel without huge pages; they only save time
                self._memory.madvise(mmap.MADV_HUGEPAGE)
        self._start = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self._set, self._copy = ctypes.memset, ctypes.memmove
        self._compare = ctypes.CDLL("msvcrt" if sys.platform == "win32" else None).memcmp
        self._compare.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)

    def fill(self) -> None:
        """Write all of it: memory that was only asked for is one page of zeros, read from cache."""
        self._set(self._start, 1, 2 * self._half)

    def work(self, until: float, *, copying: bool) -> int:
        """Go round the buffers until a time of `perf_counter`; bytes read and written.

        Both hold the same, so a comparison goes to the end.
        """
        act = self._copy if copying else self._compare
        passes = 0
        while passes == 0 or time.perf_counter() < until:
            at = self._start + passes * PASS % self._half
            act(at, at + self._half, PASS)
            passes += 1
        return passes * PASS * 2


def _file() -> Path:
    return paths.cache_dir() / "bandwidth.json"


def _remembered() -> dict[str, float]:
    """What earlier runs measured; a cache that cannot be read is an empty one."""
    try:
        known = json.loads(_file().read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(known, dict):
        return {}
    return {key: value for key, value in known.items() if isinstance(value, float) and 0 < value < math.inf}


def _remember(key: str, value: float) -> None:
    """Add to the cache in one step, so that no other run reads half a file; not being able to is no harm."""
    file = _file()
    part = file.with_name(f"{file.name}.{os.getpid()}")
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(_remembered() | {key: value}, indent=1), "utf-8")
        part.replace(file)
