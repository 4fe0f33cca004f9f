"""RAM bandwidth, measured: few machines report it, and it decides the decode speed on the CPU.

A measurement takes 0.1 to 0.2 s and can only be too low: other programs, or other virtual machines on the same host,
take their part of the bandwidth. So every one is remembered with its time and with how much of the CPUs other programs
used meanwhile, and the best of them counts, until the processor, its cores or RAM change.

Where other programs are busy the first time, it is measured again at once, a few times, until it is calm.

It is repeated, shorter and one a run, until two calm measurements agree: ones during which other programs took at most
a tenth of the CPUs, of a plausible speed, and within a tenth of the best. After the n-th the next is due a minute times
4^(n-1) later, at most half a year: a machine that never agrees with itself is measured eleven times in its first year.
"""

from __future__ import annotations

import json
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hermes_cli import paths
from hermes_cli.units import MIB

if TYPE_CHECKING:
    from hermes_cli.hardware.system import SystemMemory

PASS = 4 * MIB  # bytes one call touches: about 1 ms, so that threads rarely wait for each other in Python
SMALLEST, LARGEST = 128 * MIB, 256 * MIB  # of all buffers together: beyond caches, and quickly got from the kernel
SECONDS = 0.025  # of one window
WINDOWS = 3  # of each kind the first time; later ones take one and are to confirm it
ROOM = 2  # times the buffers must be available, or nothing is measured

TRIES = 6  # the first time, while other programs are busy: a second together
CALM = 0.1  # of the CPUs' time: more for other programs is a measurement disturbed
AGREEMENT = 0.9  # of the best
IMPLAUSIBLE = 2e9  # bytes per second; a Raspberry Pi 3 has more
PAUSE = 60.0  # seconds after the first measurement
LONGER, MOST_TIMES = 4, 9  # times as long after each further one, and how often it gets longer


class Measurement(NamedTuple):
    """Bytes per second, when that was (seconds since 1970), and the share of CPU time that others took meanwhile."""

    speed: float
    at: float
    load: float


def ram_bandwidth(
    cpu: str,  # the processor's name. What is remembered holds for it, the number of cores and the total RAM
    cores: int,  # as many threads measure
    ram: SystemMemory,  # buffers must leave most of what is available of it alone
    *,
    cache: int = 0,  # bytes of the processor's last cache, which the measurement has to exceed
    measured: bool = True,  # whether to measure if one is due
    clock: Callable[[], float] = time.time,  # seconds since 1970
) -> Measurement | None:
    """Return the best measurement of the bytes per second that all cores together read; None if there is none."""
    key = f"{cpu}, {cores} cores, {ram.total} bytes"
    known = _remembered().get(key, ())
    size = max(SMALLEST, min(2 * cache, LARGEST, ram.total // 8), cores * 2 * PASS)
    if measured and ram.available >= ROOM * size and _due(known, clock()):
        with suppress(OSError, RuntimeError):  # no memory, no thread: then it stays as it is
            known = (*known, observed(cores, size, clock(), windows=1) if known else _first(cores, size, clock))
            _remember(key, known)
    return max(known, default=None)


def _first(threads: int, size: int, clock: Callable[[], float]) -> Measurement:
    """Return the first calm measurement, or the fastest where other programs go on."""
    tried: list[Measurement] = []
    while not tried or (tried[-1].load > CALM and len(tried) < TRIES):
        tried.append(observed(threads, size, clock(), windows=WINDOWS))
    return tried[-1] if tried[-1].load <= CALM else max(tried)


def _due(known: Sequence[Measurement], now: float) -> bool:
    """Return whether another measurement is due."""
    if not known:
        return True
    enough = max(max(measurement.speed for measurement in known) * AGREEMENT, IMPLAUSIBLE)
    if sum(measurement.load <= CALM and measurement.speed >= enough for measurement in known) > 1:
        return False
    waited = now - known[-1].at  # negative where the clock was set back
    return not 0 <= waited < PAUSE * LONGER ** min(len(known) - 1, MOST_TIMES)


def observed(threads: int, size: int, now: float, *, windows: int = WINDOWS) -> Measurement:
    """Measure at `now` (seconds since 1970), and see what other programs do meanwhile; else as `measure`."""
    start, left_before = time.perf_counter(), _left_by_others()
    speed = measure(threads, size, windows=windows)
    seconds, left = time.perf_counter() - start, _left_by_others() - left_before
    others = 1 - left / (seconds * (os.cpu_count() or 1))
    return Measurement(speed, float(now), min(max(others, 0.0), 1.0))


def _left_by_others() -> float:
    """Seconds of all CPUs' time up to now that were idle or this process's own."""
    import psutil  # noqa: PLC0415 - 15 ms, only for who measures

    try:
        times = psutil.cpu_times()
    except (OSError, RuntimeError):  # Android hides them: all counts as others'
        return 0.0
    return float(times.idle + getattr(times, "iowait", 0.0) + time.process_time())


def measure(
    threads: int,  # one for each core
    size: int,  # bytes of all their buffers together
    *,
    windows: int = WINDOWS,  # how many of each kind; the best counts, because others may be using the machine
) -> float:
    """Bytes per second that so many threads, one for each core, move between RAM and cores.

    Two ways are tried because C libraries are good at different ones: comparing two buffers, which reads, and copying,
    where what is read and what is written both count. Both let other Python threads run meanwhile.
    """
    share = max(size // threads, 2 * PASS)
    workers = [_Worker(share) for _ in range(threads)]
    _run([worker.fill for worker in workers])  # on its own thread, so that NUMA puts memory beside the core
    best = 0.0
    for copying in (False, True) * windows:
        start = time.perf_counter()
        _run([partial(worker.work, start + SECONDS, copying=copying) for worker in workers])
        best = max(best, sum(worker.moved for worker in workers) / (time.perf_counter() - start))
    return best


def _run(tasks: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=task, daemon=True) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class _Worker:
    """Two buffers of one thread and the C functions that read and copy them; `moved` is bytes in the last window."""

    def __init__(self, size: int) -> None:
        import ctypes  # noqa: PLC0415 - 5 ms, only for who measures
        import mmap  # noqa: PLC0415 - as above

        self.moved = 0
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

    def work(self, until: float, *, copying: bool) -> None:
        """Go round the buffers until a time of `perf_counter`. Both hold the same, so a comparison goes to the end."""
        act = self._copy if copying else self._compare
        passes = 0
        while passes == 0 or time.perf_counter() < until:
            at = self._start + passes * PASS % self._half
            act(at, at + self._half, PASS)
            passes += 1
        self.moved = passes * PASS * 2


def _file() -> Path:
    return paths.cache_dir() / "bandwidth.json"


def _remembered() -> dict[str, tuple[Measurement, ...]]:
    """Return the measurements of earlier runs; empty if the cache cannot be read."""
    try:
        cached = json.loads(_file().read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    machines = cached.items() if isinstance(cached, dict) else ()
    return {key: measurements for key, value in machines if (measurements := _sound(value))}


def _sound(value: Any) -> tuple[Measurement, ...]:  # noqa: ANN401 - whatever the file holds
    """The measurements of one machine. Before they had times, the file held one number, taken who knows how."""
    rows = value if isinstance(value, list) else [[value, 0.0, 1.0]]
    measurements = [
        Measurement(*row)
        for row in rows
        if isinstance(row, list) and len(row) == len(Measurement._fields) and all(isinstance(f, float) for f in row)
    ]
    return tuple(m for m in measurements if 0 < m.speed < math.inf and math.isfinite(m.at + m.load))


def _remember(key: str, value: Sequence[Measurement]) -> None:
    """Add to the cache in one step, so that no other run reads half a file; not being able to is no harm."""
    with suppress(OSError):
        paths.write_data(_file(), json.dumps(_remembered() | {key: value}, indent=1).encode())
