"""What `hermes recommend` and `hermes plan --engine vllm` say of many machines.

Recommendations for every purpose are in tests/planning/golden.txt, launch plans of a few models in launch_golden.txt.

    python tools/golden.py            print them
    python tools/golden.py --write    replace the files; read the difference before you commit it

The tables are reviewed by eye: they show what a change of the scale (planning/quality.py, recommend.py) or of the
launch planner does to people.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import get_args

from hermes_cli.catalog.load import shipped_catalogue
from hermes_cli.catalog.models import CatalogModel
from hermes_cli.errors import HermesError
from hermes_cli.hardware.machine import Machine
from hermes_cli.hardware.simulate import simulate
from hermes_cli.planning.launch_plan import LaunchOptions
from hermes_cli.planning.launch_planner import best_launch
from hermes_cli.planning.quality import Purpose
from hermes_cli.planning.recommend import Recommendation, RecommendOptions, best_recommendation, recommendations

FILE = Path(__file__).parent.parent / "tests" / "planning" / "golden.txt"
LAUNCH_FILE = FILE.with_name("launch_golden.txt")
GIB = 1 << 30
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)

# GPUs, VRAM, Macs (as the flags take them), RAM in GiB and its bandwidth in GB/s.
DESKTOP, WORKSTATION, SERVER, LAPTOP = (32, 50.0), (128, 80.0), (1024, 300.0), (16, 45.0)
NAMED: dict[str, tuple[int, float]] = {
    "GTX 1060 6GB": LAPTOP,
    "RTX 4050 Laptop": LAPTOP,
    "RTX 3070": DESKTOP,
    "RTX 4060": DESKTOP,
    "RTX 4060 Laptop": LAPTOP,
    "RTX 3060 12GB": DESKTOP,
    "RTX 4070": DESKTOP,
    "RTX 5070": DESKTOP,
    "RTX 4060 Ti 16GB": DESKTOP,
    "RTX 4080": DESKTOP,
    "RTX 5080": DESKTOP,
    "RTX 3090": (64, 50.0),
    "RTX 4090": (64, 80.0),
    "RTX 5090": (64, 80.0),
    "2xRTX 3090": WORKSTATION,
    "2xRTX 4090": WORKSTATION,
    "4xRTX 3090": WORKSTATION,
    "RTX 4090, RTX 3060 12GB": (64, 80.0),
    "RTX 3090, RTX 4060": (64, 50.0),
    "RTX A6000": WORKSTATION,
    "RTX 6000 Ada": WORKSTATION,
    "RTX PRO 6000 Blackwell": WORKSTATION,
    "L4": (64, 100.0),
    "A100 80GB": (256, 200.0),
    "H100": SERVER,
    "2xH100": SERVER,
    "4xH100": SERVER,
    "8xH100": SERVER,
    "8xH200": (2048, 300.0),
    "RX 6600": DESKTOP,
    "RX 7600": DESKTOP,
    "RX 7800 XT": DESKTOP,
    "RX 7900 XTX": (64, 80.0),
    "MI300X": SERVER,
    "Arc A770 16GB": DESKTOP,
    "Arc B580": DESKTOP,
}
SIZED = ("4G", "6G", "8G", "12G", "16G", "24G", "48G", "80G", "24G,24G")
MACS = ("M1 8G", "M2 16G", "M3 Pro 36G", "M4 24G", "M4 Max 64G", "M4 Max 128G", "M3 Ultra 256G", "M3 Ultra 512G")
CPU_ONLY = ((4, 20.0), (8, 35.0), (16, 45.0), (32, 50.0), (64, 60.0), (128, 80.0), (512, 300.0))

LAUNCHED = ("hermes-3:8b", "hermes-4:14b", "hermes-4.3:36b", "hermes-4:70b", "hermes-4:405b")
NODES = (  # of so many, GPUs
    *((1, gpus) for gpus in ("T4", "RTX 3090", "2xRTX 3090", "4xRTX 3090", "RTX 4090", "2xRTX 4090", "3xRTX 4090")),
    *((1, gpus) for gpus in ("4xRTX 4090", "2xRTX 5090", "L4", "L40S", "2xL40S", "RTX PRO 6000 Blackwell")),
    *((1, gpus) for gpus in ("A100 80GB", "8xA100 80GB", "H100", "2xH100", "3xH100", "4xH100", "6xH100", "8xH100")),
    *((1, gpus) for gpus in ("H200", "8xH200", "8xB200", "MI300X", "8xMI300X", "RX 7900 XTX")),
    *((nodes, gpus) for nodes, gpus in ((2, "8xH100"), (2, "8xH200"), (2, "4xH100"), (4, "8xA100 80GB"))),
)


def _bare(ram: int, bandwidth: float) -> Machine:
    """A machine without GPUs."""
    return Machine(
        devices=(),
        ram_total=ram * GIB,
        ram_available=int(ram * GIB * 0.9),
        ram_bandwidth=bandwidth * 1e9,
        ram_bandwidth_source="given",
        cpu="a CPU",
        cores=8,
        simd=("AVX2",),
        os="Linux",
        disk_path="/",
        disk_free=4096 * GIB,
        backends=("cpu",),
    )


@cache
def machines() -> dict[str, Machine]:
    """Every machine of the table by its name."""
    found: dict[str, Machine] = {}
    for name, (ram, bandwidth) in NAMED.items():
        found[f"{name}, {ram} GB RAM"] = _simulated(_bare(ram, bandwidth), gpu=name)
    for size in SIZED:
        found[f"any card {size}"] = _simulated(_bare(32, 50.0), vram=size)
    for mac in MACS:
        found[f"Apple {mac}"] = _simulated(_bare(32, 50.0), apple=mac)
    for ram, bandwidth in CPU_ONLY:
        found[f"CPU only, {ram} GB RAM at {bandwidth:.0f} GB/s"] = _bare(ram, bandwidth)
    return found


def _simulated(here: Machine, gpu: str | None = None, vram: str | None = None, apple: str | None = None) -> Machine:
    made = simulate(here, gpu=[gpu] if gpu else [], vram=vram, ram=None, apple=apple, cpu_only=False)
    return replace(made, simulated=False)


def _line(pick: Recommendation | None, purpose: Purpose) -> str:
    if pick is None:
        return f"    {purpose:<13} nothing"
    layers = pick.variant.model.architecture.layers + 1
    where = "CPU" if not pick.placement.gpu_layers else f"GPU {pick.placement.gpu_layers}/{layers}"
    settings = f"{pick.settings.context:>7} tokens in {pick.settings.k_type:<5}"
    return f"    {purpose:<13} {pick.variant.name:<24} {settings} {where:<11} {pick.speed.expected:5.1f} tokens/s"


@cache
def ranked(machine: str, purpose: Purpose) -> tuple[Recommendation, ...]:
    """Everything that fits a machine of the table, the best first."""
    return tuple(recommendations(shipped_catalogue(), machines()[machine], RecommendOptions(purpose)))


@cache
def best(machine: str, purpose: Purpose) -> Recommendation | None:
    """The first of `ranked`, in a third of the time."""
    pick = best_recommendation(shipped_catalogue(), machines()[machine], RecommendOptions(purpose))
    return pick or next(iter(ranked(machine, purpose)), None)


def table() -> str:
    """The picks, a block for each machine."""
    lines = []
    for name in machines():
        lines += [name, *(_line(best(name, purpose), purpose) for purpose in PURPOSES)]
    return "\n".join(lines) + "\n"


def launch_machine(gpus: str) -> Machine:
    """A machine with these GPUs."""
    return simulate(_bare(*SERVER), gpu=[gpus], vram=None, ram=None, apple=None, cpu_only=False)


def launch_table() -> str:
    """The launch plans, a block for each machine or group of them."""
    models = {model.short: model for model in shipped_catalogue().models}
    lines = []
    for nodes, gpus in NODES:
        lines.append(f"{gpus}, {nodes} nodes" if nodes > 1 else gpus)
        lines += [_launch_line(models[name], gpus, nodes) for name in LAUNCHED]
    return "\n".join(lines) + "\n"


def _launch_line(model: CatalogModel, gpus: str, nodes: int) -> str:
    try:
        launch = best_launch(model, launch_machine(gpus), LaunchOptions(nodes=nodes))
    except HermesError as error:
        return f"    {model.short:<20} {error.message}"
    plan = launch.plan
    sizes = f"TP {plan.tensor:>2} PP {plan.pipeline} DP {plan.data:>2}"
    cache = f"{plan.kv_tokens:>9,} of KV in {plan.kv_type:<4}"
    return f"    {launch.weights.name:<20} {sizes}  {plan.context:>7,} tokens, {cache}  {plan.sequences:>3} at once"


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        FILE.write_text(table(), encoding="utf-8")
        LAUNCH_FILE.write_text(launch_table(), encoding="utf-8")
    else:
        sys.stdout.write(table() + launch_table())
