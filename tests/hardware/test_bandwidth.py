from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes_cli.hardware import bandwidth
from hermes_cli.hardware.bandwidth import Measurement, measure, observed, ram_bandwidth
from hermes_cli.hardware.system import SystemMemory

MIB, GIB = 2**20, 2**30
KEY = "Some CPU, 2 cores, 8589934592 bytes"
RAM = SystemMemory(8 * GIB, 6 * GIB)
MINUTE, YEAR = 60.0, 365 * 86400.0


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HERMES_LLM_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache" / "bandwidth.json"


class Bench:
    """A machine whose memory gives the listed speeds one after the other, each under a load; and its clock."""

    def __init__(self, *given: tuple[float, float]) -> None:
        self.given = list(given)
        self.now = 1_760_000_000.0
        self.windows: list[int] = []

    def __call__(self, _threads: int, _size: int, now: float, *, windows: int) -> Measurement:
        self.windows.append(windows)
        speed, load = self.given[min(len(self.windows), len(self.given)) - 1]
        return Measurement(speed, now, load)

    @property
    def count(self) -> int:
        """How often was measured."""
        return len(self.windows)

    def probe(self, *, after: float = 0.0) -> float | None:
        """What a probe so many seconds later takes the bandwidth to be."""
        self.now += after
        best = ram_bandwidth("Some CPU", 2, RAM, clock=lambda: self.now)
        return best.speed if best else None

    def probe_every(self, pause: float, duration: float) -> list[float | None]:
        """The same again and again."""
        return [self.probe(after=pause) for _ in range(int(duration / pause))]


def bench(monkeypatch: pytest.MonkeyPatch, *given: tuple[float, float]) -> Bench:
    made = Bench(*given)
    monkeypatch.setattr(bandwidth, "observed", made)
    return made


def known(*, measured: bool = False, cores: int = 2) -> float | None:
    best = ram_bandwidth("Some CPU", cores, RAM, measured=measured)
    return best.speed if best else None


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """One short measurement of few bytes, whoever else is busy."""
    for name, value in {"TRIES": 1, "SECONDS": 0.001, "SMALLEST": 16 * MIB}.items():
        monkeypatch.setattr(bandwidth, name, value)


def one_thread_copying(size: int) -> float:
    """Bytes per second, read and written, of the best of several copies."""
    source, target = ctypes.create_string_buffer(b"x" * size, size), ctypes.create_string_buffer(size)
    best = 0.0
    for _ in range(12):
        start = time.perf_counter()
        ctypes.memmove(target, source, size)
        best = max(best, 2 * size / (time.perf_counter() - start))
    return best


def test_it_measures_what_memory_does() -> None:
    """Within a factor that leaves no room for a wrong unit or count; others on the machine may disturb some tries."""
    ratios = (measure(1, 64 * MIB) / one_thread_copying(32 * MIB) for _ in range(50))
    assert any(1 / 5 < ratio < 5 for ratio in ratios)


@pytest.mark.parametrize(("threads", "size"), [(1, 1), (3, 20 * MIB), (8, 64 * MIB)])
def test_any_size_and_number_of_threads(threads: int, size: int) -> None:
    assert 10**6 < measure(threads, size, windows=1) < 10**14


def test_what_was_measured_is_remembered_with_its_time_and_load(cache: Path) -> None:
    before = time.time()
    speed = known(measured=True)
    ((written, at, load),) = json.loads(cache.read_text())[KEY]
    assert written == speed
    assert before <= at <= time.time()
    assert 0 <= load <= 1
    assert known() == speed
    assert list(cache.parent.iterdir()) == [cache]


@pytest.mark.usefixtures("quick")
def test_right_after_a_measurement_there_is_no_other(cache: Path) -> None:
    known(measured=True)
    written = cache.read_text()
    known(measured=True)
    assert cache.read_text() == written


def test_programs_beside_it_are_seen() -> None:
    """Threads of this process are its own, so a child has to be what others do: one that keeps every CPU busy."""
    program = "print('begun', flush=True)\nwhile True: pass"
    with ExitStack() as stack:
        for _ in range(os.cpu_count() or 1):
            child = stack.enter_context(subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE))
            stack.callback(child.kill)
            assert child.stdout is not None
            assert child.stdout.readline() == b"begun\n"
        busy = max(observed(1, 32 * MIB, 0.0).load for _ in range(3))
    assert busy > bandwidth.CALM


def test_two_calm_measurements_that_agree_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = bench(monkeypatch, (50e9, 0.02), (48e9, 0.05))
    assert machine.probe() == 50e9
    assert machine.probe(after=30.0) == 50e9
    assert machine.count == 1
    assert machine.probe(after=31.0) == 50e9
    assert machine.windows == [3, 1]  # the second is to confirm it, and is shorter
    assert machine.probe_every(YEAR / 10, YEAR) == [50e9] * 10
    assert machine.count == 2


def test_a_busy_machine_is_measured_again_until_it_is_calm(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = [(1.1e9, 0.9)] * (bandwidth.TRIES - 1)
    machine = bench(
        monkeypatch, *busy, (1.3e9, 0.9), (1.2e9, 0.8), (1.15e9, 0.9), (51e9, 0.0), (50e9, 0.01), (9e9, 0.0)
    )
    assert machine.probe() == 1.3e9
    assert machine.count == bandwidth.TRIES
    assert machine.probe(after=MINUTE) == 1.3e9
    assert machine.probe(after=5 * MINUTE) == 1.3e9
    assert machine.probe(after=17 * MINUTE) == 51e9
    assert machine.probe(after=65 * MINUTE) == 51e9
    assert machine.probe(after=YEAR) == 51e9
    assert machine.count == bandwidth.TRIES + 4


def test_a_short_disturbance_of_the_first_measurement_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = bench(monkeypatch, (20e9, 0.5), (30e9, 0.3), (50e9, 0.0), (60e9, 0.5))
    assert machine.probe() == 50e9
    assert machine.windows == [3, 3, 3]


def test_an_implausible_speed_is_never_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A neighbour on the same host, or a quota, shows in no load."""
    machine = bench(monkeypatch, (1e9, 0.0), (1e9, 0.0), (1e9, 0.0), (30e9, 0.0))
    assert machine.probe_every(MINUTE, 60 * MINUTE)[-1] == 30e9


def test_the_best_counts_even_if_it_was_disturbed(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = bench(monkeypatch, *[(60e9, 0.5)] * bandwidth.TRIES, (40e9, 0.0), (41e9, 0.0), (58e9, 0.0), (59e9, 0.0))
    assert set(machine.probe_every(MINUTE, 600 * MINUTE)) == {60e9}
    assert machine.count == bandwidth.TRIES + 4  # 40 and 41 agree with each other, but not with the best


def test_a_machine_that_never_agrees_is_measured_ever_more_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = bench(monkeypatch, *((10e9 * 1.2**n, 0.0) for n in range(40)))
    machine.probe_every(MINUTE, 60 * MINUTE)
    assert machine.count == 4
    machine.probe_every(120 * MINUTE, YEAR)
    assert machine.count == 11
    machine.probe_every(YEAR / 12, 4 * YEAR)
    assert machine.count <= 11 + 8


def test_a_clock_that_was_set_back_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = bench(monkeypatch, *[(1e9, 0.9)] * bandwidth.TRIES, (50e9, 0.0))
    machine.probe()
    assert machine.probe(after=-YEAR) == 50e9


def test_the_former_format_is_a_number_to_be_improved(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.write_text(json.dumps({KEY: 1.03e9, "Other": 5e10}))
    assert known() == 1.03e9
    machine = bench(monkeypatch, (50e9, 0.0))
    assert machine.probe() == 50e9
    assert json.loads(cache.read_text()) == {
        KEY: [[1.03e9, 0.0, 1.0], [50e9, machine.now, 0.0]],
        "Other": [[5e10, 0.0, 1.0]],
    }


def test_not_asked_to_measure_means_unknown(cache: Path) -> None:
    assert known() is None
    assert not cache.exists()


def test_another_machine_is_another_number(cache: Path) -> None:
    cache.write_text(json.dumps({KEY: [[5e10, 1.0, 0.0]]}))
    assert known() == 5e10
    assert known(cores=4) is None
    assert ram_bandwidth("Other CPU", 2, RAM, measured=False) is None
    assert ram_bandwidth("Some CPU", 2, SystemMemory(16 * GIB, 6 * GIB), measured=False) is None


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"[1]", b"\xff\xfe", b'{"%s": "fast"}', b'{"%s": -1.0}', b'{"%s": NaN}', b'{"%s": Infinity}'),
        *(
            b'{"%s": []}',
            b'{"%s": [1.0]}',
            b'{"%s": [[1.0]]}',
            b'{"%s": [[5.0, null, 0.0]]}',
            b'{"%s": {"speed": 1.0}}',
        ),
        *(b'{"%s": [[NaN, 1.0, 0.0]]}', b'{"%s": [[5.0, Infinity, 0.0]]}', b'{"%s": [[5.0, 1.0, NaN]]}'),
    ],
)
def test_a_broken_cache_is_an_empty_one(cache: Path, content: bytes) -> None:
    cache.write_bytes(content.replace(b"%s", KEY.encode()))
    assert known() is None


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=3),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.text(max_size=3), inside, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(st.just(KEY), JSON) | JSON)
def test_whatever_the_cache_holds_it_is_read(content: object) -> None:
    place = Path(os.environ["HERMES_LLM_CACHE_DIR"]) / "bandwidth.json"
    place.write_text(json.dumps(content))
    speed = known()
    assert speed is None or speed > 0


def test_a_row_of_a_thousand_measurements_is_no_overflow(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.write_text(json.dumps({KEY: [[5e10, 1.0, 0.9]] * 1000}))
    assert bench(monkeypatch, (1e9, 0.0)).probe() == 5e10


@pytest.mark.usefixtures("quick")
def test_a_cache_that_cannot_be_written_is_no_harm(cache: Path) -> None:
    cache.parent.rmdir()
    cache.parent.write_text("a file where the folder should be")
    assert known() is None
    assert (known(measured=True) or 0) > 0


@pytest.mark.parametrize("error", [OSError(12, "Cannot allocate memory"), RuntimeError("can't start new thread")])
def test_a_measurement_that_fails_leaves_what_is_known(
    cache: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> Measurement:
        raise error

    monkeypatch.setattr(bandwidth, "observed", fail)
    assert known(measured=True) is None
    cache.write_text(json.dumps({KEY: 4e10}))
    assert known(measured=True) == 4e10


def sizes_of(monkeypatch: pytest.MonkeyPatch, machines: Sequence[tuple[int, SystemMemory, int]]) -> list[int]:
    """Bytes of the buffers on machines with so many cores, RAM, and bytes of cache."""
    sizes: list[int] = []

    def note(_: int, size: int, now: float, *, windows: int) -> Measurement:
        sizes.append(size)
        return Measurement(float(windows), now, 0.0)

    monkeypatch.setattr(bandwidth, "observed", note)
    for number, (cores, ram, cache) in enumerate(machines):
        ram_bandwidth(f"CPU {number}", cores, ram, cache=cache)
    return sizes


def test_large_buffers_stay_within_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    large = SystemMemory(64 * GIB, 60 * GIB)
    machines = [(1, large, 0), (1, large, 100 * MIB), (1, large, 500 * MIB), (1, SystemMemory(GIB, GIB), 500 * MIB)]
    assert sizes_of(monkeypatch, machines) == [128 * MIB, 200 * MIB, 256 * MIB, 128 * MIB]


def test_a_small_container_is_not_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every core has buffers, so the many cores of a host would fill what a container has of its memory."""
    assert (
        sizes_of(monkeypatch, [(2, SystemMemory(GIB, 200 * MIB), 0), (128, SystemMemory(2 * GIB, 2 * GIB - 1), 0)])
        == []
    )
    assert sizes_of(monkeypatch, [(128, SystemMemory(64 * GIB, 60 * GIB), 0)]) == [1024 * MIB]
