from __future__ import annotations

import ctypes
import json
import os
import time
from pathlib import Path

import pytest

from hermes_cli.hardware import bandwidth
from hermes_cli.hardware.bandwidth import measure, ram_bandwidth

MIB = 2**20
KEY = "Some CPU, 2 cores, 8589934592 bytes"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HERMES_LLM_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "bandwidth.json"


def known(*, measured: bool = False, cores: int = 2) -> float | None:
    return ram_bandwidth("Some CPU", cores, 2**33, measured=measured)


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
    """Within a factor that leaves room for others on the machine, but none for a wrong unit or count."""
    assert one_thread_copying(32 * MIB) / 5 < measure(1, 64 * MIB) < one_thread_copying(32 * MIB) * 5


@pytest.mark.parametrize(("threads", "size"), [(1, 1), (3, 20 * MIB), (8, 64 * MIB)])
def test_any_size_and_number_of_threads(threads: int, size: int) -> None:
    assert 10**8 < measure(threads, size) < 10**14


def test_it_is_measured_once(cache: Path) -> None:
    speed = known(measured=True)
    assert json.loads(cache.read_text()) == {KEY: speed}
    assert known() == speed
    assert known(measured=True) == speed
    assert list(cache.parent.iterdir()) == [cache]


def test_not_asked_to_measure_means_unknown(cache: Path) -> None:
    assert known() is None
    assert not cache.exists()


def test_another_machine_is_another_number(cache: Path) -> None:
    cache.parent.mkdir()
    cache.write_text(json.dumps({KEY: 5e10}))
    assert known() == 5e10
    assert known(cores=4) is None
    assert ram_bandwidth("Other CPU", 2, 2**33, measured=False) is None
    assert ram_bandwidth("Some CPU", 2, 2**34, measured=False) is None


def test_measuring_keeps_what_is_known_of_others(cache: Path) -> None:
    cache.parent.mkdir()
    cache.write_text(json.dumps({"Other": 1e9}))
    speed = known(measured=True)
    assert json.loads(cache.read_text()) == {"Other": 1e9, KEY: speed}


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b"\xff\xfe", b'{"%s": "fast"}', b'{"%s": -1.0}', b'{"%s": NaN}', b'{"%s": Infinity}']
)
def test_a_broken_cache_is_an_empty_one(cache: Path, content: bytes) -> None:
    cache.parent.mkdir()
    cache.write_bytes(content.replace(b"%s", KEY.encode()))
    assert known() is None


def test_a_cache_that_cannot_be_written_is_no_harm(cache: Path) -> None:
    cache.parent.write_text("a file where the folder should be")
    assert known() is None
    assert (known(measured=True) or 0) > 0


def test_large_buffers_stay_within_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def note(_: int, size: int) -> float:
        sizes.append(size)
        return 1.0

    monkeypatch.setattr(bandwidth, "measure", note)
    for cache, ram in [(0, 2**36), (100 * MIB, 2**36), (500 * MIB, 2**36), (500 * MIB, 2**30)]:
        ram_bandwidth(f"{cache} {ram} {os.getpid()}", 1, ram, cache=cache)
    assert sizes == [128 * MIB, 200 * MIB, 256 * MIB, 128 * MIB]
