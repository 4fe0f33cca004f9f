"""The formulas of planning/speed.py next to what was measured.

    python benchmarks/speed_model.py                                  against published_speeds.csv
    python benchmarks/speed_model.py hermes-3:3b Q4_K_M Q8_0 F16      against llama.cpp on this machine's CPU

Errors are shown for both halves, the even and the odd rows of each kind of device (docs/speed.md).

On this machine the files are skeletons: real shapes and types, all weights zero, which take as long to read and
multiply as any others. Nothing else may run meanwhile: llama.cpp's threads wait for each other.
"""

import argparse
import csv
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from hermes_cli.catalog.load import shipped_catalogue
from hermes_cli.errors import UsageError
from hermes_cli.hardware.gpus import find_gpu
from hermes_cli.hardware.machine import Device, Machine
from hermes_cli.hardware.probe import probe
from hermes_cli.hardware.simulate import simulate
from hermes_cli.planning.best_placement import best_placement
from hermes_cli.planning.memory import ContextSettings, weights
from hermes_cli.planning.placement import place_layers
from hermes_cli.planning.speed import Speed, decode_speed, prefill_speed
from hermes_cli.planning.speed_figures import figures_of

TABLE = Path(__file__).with_name("published_speeds.csv")
MODELS = {model.short: model for model in shipped_catalogue().models}
PROMPT, WRITTEN = 256, 16
GIB = 1 << 30
SHORT = ContextSettings(512)


@dataclass(frozen=True)
class Row:
    """One measurement: of which speed, what was estimated, and whether it is in the first half."""

    hardware: str
    kind: str
    model: str
    speed: str
    measured: float
    estimated: Speed
    first_half: bool
    source: str

    @property
    def inside(self) -> bool:
        """The range holds what was measured."""
        return self.estimated.low <= self.measured <= self.estimated.high


def published() -> Iterator[Row]:
    """Every speed of the table next to its estimate."""
    seen: Counter[str] = Counter()
    with TABLE.open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(line for line in file if not line.startswith("#")):
            machine = machine_named(line["hardware"], line["backend"])
            architecture, quantization = MODELS[line["model"]].architecture, line["quantization"]
            table = weights(architecture, quantization, imatrix=False)
            placement = place_layers(architecture, table, SHORT, machine, architecture.layers + 1)
            estimates = {
                "decode": decode_speed(architecture, quantization, table, SHORT, placement, machine, SHORT.context),
                "prefill": prefill_speed(architecture, table, SHORT, placement, machine),
            }
            device = next(iter(machine.devices), None)
            kind = f"{line['backend']} {figures_of(device).share:g}"
            for speed, estimated in estimates.items():
                if line[speed]:
                    seen[f"{kind} {speed}"] += 1
                    yield Row(
                        line["hardware"],
                        kind,
                        f"{line['model']}:{quantization}",
                        speed,
                        float(line[speed]),
                        estimated,
                        seen[f"{kind} {speed}"] % 2 == 0,
                        line["source"],
                    )


def machine_named(hardware: str, backend: str) -> Machine:
    """Return a machine of the table, with all the memory that is needed."""
    bare = Machine((), 4096 * GIB, 4096 * GIB, 45e9, "given", "a CPU", 8, ("AVX2",), "", "", 0, ("cpu",))
    if backend == "cpu":
        _, cores, _, simd, bandwidth = hardware.split()
        return replace(bare, cores=int(cores), simd=(simd,), ram_bandwidth=float(bandwidth) * 1e9)
    try:
        made = simulate(bare, gpu=[hardware], vram=None, ram=None, apple=None, cpu_only=False)
    except UsageError:  # a Mac's chip
        gpu = find_gpu(hardware)
        device = Device(
            "apple", gpu.name, GIB, GIB, gpu.bandwidth, "table", "metal", operations=gpu.operations, unified=True
        )
        return replace(bare, devices=(device,))
    return replace(made, devices=tuple(replace(device, backend=backend) for device in made.devices))  # type: ignore[arg-type]


def print_published() -> None:
    """Print the table, then the shares inside the range."""
    rows = list(published())
    print(f"{'':38}{'':24}{'':9}{'MEASURED':>9}{'ESTIMATE':>9}{'RANGE':>14}{'RATIO':>7}")
    for row in sorted(rows, key=lambda row: (row.speed, row.kind)):
        estimate = row.estimated
        print(
            f"{row.hardware:38}{row.model:24}{row.speed:9}{row.measured:9,.1f}{estimate.expected:9,.1f}"
            f"{estimate.low:7,.0f}-{estimate.high:<6,.0f}{row.measured / estimate.expected:7.2f}"
            f"{'' if row.inside else ' outside'}"
        )
    print()
    for speed in ("decode", "prefill"):
        for label, half in (("first half", True), ("second half", False)):
            part = [row for row in rows if row.speed == speed and row.first_half == half]
            ratios = [row.measured / row.estimated.expected for row in part]
            error = statistics.median(abs(ratio - 1) for ratio in ratios)
            share = sum(row.inside for row in part) / len(part)
            print(
                f"{speed}, {label}: {len(part)} rows, {share:.0%} inside the range, median error {error:.0%}, "
                f"median ratio {statistics.median(ratios):.2f}"
            )
    for speed, kind in sorted({(row.speed, row.kind) for row in rows}):
        ratios = [row.measured / row.estimated.expected for row in rows if (row.speed, row.kind) == (speed, kind)]
        print(f"  {speed:8}{kind:14} {len(ratios):3} rows, median ratio {statistics.median(ratios):.2f}")


def measured_here(path: Path, threads: int) -> tuple[float, float]:
    """Tokens per second of prefill (the better of two) and of decoding (the median)."""
    from hermes_cli.engine.embedded.llama import Batch, LlamaContext, LlamaModel  # noqa: PLC0415 - slow to import

    batch = Batch(PROMPT)
    with LlamaModel(path) as model, LlamaContext(model, ContextSettings(2 * PROMPT), threads=threads) as context:

        def decode(count: int, start: int) -> float:
            batch.clear()
            batch.add(range(100, 100 + count), start, sequence=0, outputs=1)
            started = time.perf_counter()
            context.decode(batch)
            return time.perf_counter() - started

        first = decode(PROMPT, 0)
        context.forget(0)
        prefill = min(first, decode(PROMPT, 0))
        return PROMPT / prefill, 1 / statistics.median(decode(1, PROMPT + index) for index in range(WRITTEN))


def print_here(name: str, quantizations: list[str]) -> None:
    """Compare with this machine's CPU for each quantization."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))
    from skeleton import write_skeleton  # noqa: PLC0415

    machine = simulate(probe(), gpu=[], vram=None, ram=None, apple=None, cpu_only=True)
    bandwidth = f"{(machine.ram_bandwidth or 0) / 1e9:.0f} GB/s ({machine.ram_bandwidth_source})"
    print(f"{name} on {machine.cores} cores of {machine.cpu}, RAM at {bandwidth}")
    for quantization in quantizations:
        a, settings = MODELS[name].architecture, ContextSettings(2 * PROMPT)
        table = weights(a, quantization, imatrix=False)
        placement = best_placement(a, quantization, table, settings, machine)
        decode = decode_speed(a, quantization, table, settings, placement, machine, settings.context).expected
        prefill = prefill_speed(a, table, settings, placement, machine).expected
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "skeleton.gguf"
            write_skeleton(path, a, 4096, quantization)
            prefill_here, decode_here = measured_here(path, machine.cores)
        print(
            f"{quantization}: measured / estimated, decode {decode_here / decode:.2f} ({decode_here:.1f} and "
            f"{decode:.1f} tokens/s), prefill {prefill_here / prefill:.2f} ({prefill_here:.1f} and {prefill:.1f})"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("quantizations", nargs="*")
    options = parser.parse_args()
    if options.model:
        print_here(options.model, options.quantizations or ["Q4_K_M"])
    else:
        print_published()
