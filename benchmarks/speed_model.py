"""The formulas of planning/speed.py next to llama.cpp on this machine's CPU.

The files are skeletons: real shapes and types, all weights zero, which take as long to read and multiply as any others.
Nothing else may run meanwhile: llama.cpp's threads wait for each other.

Run it as: python benchmarks/speed_model.py hermes-3:3b Q4_K_M Q8_0 F16
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))

from skeleton import write_skeleton

from hermes_cli.catalog.load import shipped_catalogue
from hermes_cli.engine.embedded.llama import Batch, LlamaContext, LlamaModel
from hermes_cli.hardware.probe import probe
from hermes_cli.hardware.simulate import simulate
from hermes_cli.planning.memory import ContextSettings, weights
from hermes_cli.planning.recommend import best_placement
from hermes_cli.planning.speed import decode_speed, prefill_speed

PROMPT, WRITTEN = 256, 16


def measured(path: Path, threads: int) -> tuple[float, float]:
    """Tokens per second of prefill (the better of two) and of decoding (the median)."""
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


def main() -> None:
    """Compare for each quantization."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("quantizations", nargs="+")
    options = parser.parse_args()
    model = next(one for one in shipped_catalogue().models if one.short == options.model)
    machine = simulate(probe(), gpu=[], vram=None, ram=None, apple=None, cpu_only=True)
    bandwidth = f"{(machine.ram_bandwidth or 0) / 1e9:.0f} GB/s ({machine.ram_bandwidth_source})"
    print(f"{options.model} on {machine.cores} cores of {machine.cpu}, RAM at {bandwidth}")
    for quantization in options.quantizations:
        a, settings = model.architecture, ContextSettings(2 * PROMPT)
        table = weights(a, quantization, imatrix=False)
        placement = best_placement(a, quantization, table, settings, machine)
        expected = decode_speed(a, quantization, table, settings, placement, machine).expected
        read = prefill_speed(a, placement, machine).expected
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "skeleton.gguf"
            write_skeleton(path, a, 4096, quantization)
            prefill, decode = measured(path, machine.cores)
        print(
            f"{quantization}: computed / measured, writing {expected / decode:.2f} ({expected:.1f} and {decode:.1f} "
            f"tokens/s), reading {read / prefill:.2f} ({read:.1f} and {prefill:.1f} tokens/s)"
        )


if __name__ == "__main__":
    main()
