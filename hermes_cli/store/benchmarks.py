"""Results of `hermes bench`, kept in the data folder: benchmarks.json, the latest last."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from hermes_cli import paths
from hermes_cli.errors import HermesError
from hermes_cli.planning.speed import Speed, SpeedRatio

if TYPE_CHECKING:
    from hermes_cli.hardware.machine import Machine

MOST_KEPT = 500
LEAST_BYTES = 256 << 20  # of a model that says something about others: small ones wait for threads, not for memory


@dataclass(frozen=True)
class BenchmarkTest:
    """One test: its name, the depth in tokens, tokens per second of each run, and what was estimated before."""

    name: str
    kind: Literal["prefill", "decode"]
    depth: int
    tokens_per_second: float
    deviation: float
    runs: tuple[float, ...]
    estimate: Speed | None = None


@dataclass(frozen=True)
class Benchmark:
    """A model's speeds on a machine; `at` in ISO 8601, `machine` as `machine_key` says."""

    at: str
    model: str
    bytes: int
    machine: str
    llama_cpp: str
    gpu_layers: int
    all_layers: int
    threads: int
    kv_type: str
    tests: tuple[BenchmarkTest, ...]


def machine_key(machine: Machine) -> str:
    """Return what speeds depend on: the CPU, its cores and the GPUs that are used."""
    return " + ".join([f"{machine.cpu}, {machine.cores} cores", *(device.name for device in machine.usable_devices)])


def file() -> Path:
    """Return the file of all results."""
    return paths.data_dir() / "benchmarks.json"


def benchmarks(machine: Machine) -> list[Benchmark]:
    """Return the results of this machine, the latest last; none from a file that cannot be read."""
    return [result for result in _all() if result.machine == machine_key(machine)]


def keep(result: Benchmark) -> None:
    """Add a result, in one step; raise HermesError if the file cannot be written."""
    path = file()
    try:
        paths.write_data(path, json.dumps([asdict(kept) for kept in [*_all(), result][-MOST_KEPT:]], indent=1).encode())
    except OSError as error:
        raise HermesError(
            f"the result cannot be kept in {path}: {error.strerror or error}.",
            hint="free space on that disk, or set HERMES_LLM_DATA_DIR to a folder that can be written to.",
        ) from error


def speed_ratios(machine: Machine) -> tuple[SpeedRatio, ...]:
    """Return measured over estimated speeds of this machine, of tests with an empty KV cache; none if simulated."""
    if machine.simulated or not file().is_file():
        return ()
    return tuple(
        SpeedRatio(
            result.model,
            test.kind,
            result.gpu_layers,
            result.all_layers,
            test.tokens_per_second / test.estimate.expected,
        )
        for result in benchmarks(machine)
        for test in result.tests
        if test.estimate and not test.depth and result.bytes >= LEAST_BYTES
    )


def _all() -> list[Benchmark]:
    try:
        return msgspec.json.decode(file().read_bytes(), type=list[Benchmark])
    except (OSError, msgspec.DecodeError):
        return []
