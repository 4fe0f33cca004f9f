"""hermes' engine next to llama-server, on the same llama.cpp source, file, threads and context, in one run.

    python benchmarks/engine.py model.gguf                    # all scenarios, or: make bench MODEL=model.gguf
    python benchmarks/engine.py model.gguf --only a,b --rounds 5
    python benchmarks/engine.py                               # the demo model, with lengths that fit its context

The sides take turns, round by round in another order. Every ratio is above 1 where hermes is better: its tokens per
second by the other's, or the other's seconds by its. What is asked is in material.py and scenarios.py, how each side is
run in sides.py and others.py; peers.py builds llama-server. Nothing else may run meanwhile: llama.cpp's threads wait
for each other.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.contest import OURS, PLAIN, THEIRS, Contestant, Row, compared, contest
from benchmarks.material import Material
from benchmarks.others import others
from benchmarks.peers import PACKAGE, programs
from benchmarks.scenarios import SCENARIOS, Repeat, Scenario
from benchmarks.sides import Hermes, LlamaServer, Load, Side
from hermes_cli import __version__, paths
from hermes_cli.engine.embedded.llama import LlamaModel
from hermes_cli.hardware.probe import probe

GIB = 1024**3


@dataclass(frozen=True)
class Bench:
    """One run: all that its scenarios have in common."""

    load: Load
    material: Material
    programs: Path
    rounds: int
    others: tuple[Side, ...]

    async def rows(self, kinds: list[type[Scenario]]) -> list[Row]:
        """What the scenarios of one setup give: the sides are started once for all of them."""
        rows: list[Row] = []
        async with AsyncExitStack() as stack:
            sides = await self._started(stack, kinds[0])
            for kind in kinds:
                print(f"  {kind.letter}  {kind.measures[0].title} ...", end=" ", file=sys.stderr, flush=True)
                started = time.monotonic()
                contestants = self._contestants(kind, sides)
                await contest(contestants, max(1, round(self.rounds * kind.share)))
                rows += compared(contestants)
                print(f"{time.monotonic() - started:.0f} s", file=sys.stderr)
        return rows

    async def _started(self, stack: AsyncExitStack, kind: type[Scenario]) -> list[Side]:
        load = replace(self.load, slots=kind.slots, cells=kind.cells(self.material))
        sides: list[Side] = [Hermes(), LlamaServer(self.programs)]
        if kind is Repeat:
            sides.append(LlamaServer(self.programs, speculating=True))
        else:
            sides += self.others
        for side in sides:
            stack.push_async_callback(side.close)
            await side.start(load)
        return sides

    def _contestants(self, kind: type[Scenario], sides: list[Side]) -> list[Contestant]:
        contestants = [
            Contestant(side.name, side, kind(self.material))
            for side in sides
            if not (kind.bound and side in self.others)
        ]
        if kind is Repeat:
            contestants.append(Contestant(PLAIN, sides[0], kind(self.material, speculate=False)))
        return contestants


def number(value: float | None) -> str:
    """Three digits at least."""
    if value is None:
        return "-"
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"  # noqa: PLR2004 - ten


def line(row: Row, rows: list[Row]) -> str:
    """A row of the table; those of others than the two sides say what was measured if that was more than one thing."""
    title = f"{row.scenario}  {row.title}"
    if (row.first, row.second) != (OURS, THEIRS):
        several = any(one.scenario == row.scenario and one.measure != row.measure for one in rows)
        title = f"     {row.first} / {row.second}{f', {row.measure}' if several else ''}"
    ratio = spread = "-"
    target = ""
    if row.ratio is not None:
        ratio = f"{row.ratio:.2f}"
        spread = f"({row.least:.2f} to {row.most:.2f})" if row.pairs > 1 else ""
        if row.target is not None:
            target = f"{row.target:.2f} {'reached' if row.ratio >= row.target else 'MISSED'}"
    medians = f"{number(row.of_first):>8} {number(row.of_second):>8} {row.unit}"
    return f"{title:46} {ratio:>5} {spread:17} {target:13} {medians}"


def table(about: dict[str, Any], rows: list[Row], notes: list[str]) -> str:
    """All for people."""
    lines = [f"{key}: {value}" for key, value in about.items()]
    lines += ["", f"{'':46} ratio {'(lowest, highest)':17} {'target':13} {'first':>8} {'second':>8}"]
    lines += [line(row, rows) for row in rows]
    lines += [
        f"note: {note}" for note in dict.fromkeys([*notes, *(f"{r.scenario}: {n}" for r in rows for n in r.notes)])
    ]
    return "\n".join(lines)


def described(load: Load, peers: Path, rounds: int) -> dict[str, Any]:
    """What was measured, and on what."""
    machine = probe(measure=False)
    said = subprocess.run([peers / "llama-server", "--version"], capture_output=True, text=True, check=False)
    server = (said.stdout + said.stderr).strip().partition("\n")[0]
    return {
        "model": f"{load.path.name}, {load.path.stat().st_size / 1e6:,.0f} MB",
        OURS: f"{__version__}, {PACKAGE} {version(PACKAGE)}",
        THEIRS: server,
        "machine": f"{machine.cpu}, {machine.cores} cores, {machine.ram_total / GIB:.0f} GiB RAM, {machine.os}",
        "threads": load.threads,
        "rounds": rounds,
        "load before": f"{os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else "unknown",
        "date": time.strftime("%Y-%m-%d"),
    }


async def measured(bench: Bench, kinds: list[type[Scenario]]) -> list[Row]:
    """All scenarios, those with the same setup together."""
    setups: dict[tuple[int, int, bool], list[type[Scenario]]] = {}
    for kind in kinds:
        setups.setdefault((kind.slots, kind.cells(bench.material), kind is Repeat), []).append(kind)
    rows = [row for kinds in setups.values() for row in await bench.rows(kinds)]
    return sorted(rows, key=lambda row: row.scenario)


def main() -> None:
    """Parse arguments, measure, print."""
    letters = ",".join(kind.letter for kind in SCENARIOS)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, default=paths.asset("demo.gguf"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default=letters, help=f"scenarios: some of {letters}")
    parser.add_argument("--threads", type=int, default=probe(measure=False).cores)
    parser.add_argument("--gpu-layers", type=int, default=0, help="-1 is all")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    kinds = [kind for kind in SCENARIOS if kind.letter in options.only.split(",")]
    peers = programs()
    more, notes = others()
    load = Load(options.file, options.threads, 0, 0, options.gpu_layers)
    about = described(load, peers, options.rounds)
    with LlamaModel(options.file, no_alloc=True) as model:
        material = Material(lambda text: len(model.vocabulary.tokenize(text, special=True)), model.trained_context)
        bench = Bench(load, material, peers, options.rounds, more)
        rows = asyncio.run(measured(bench, kinds))
    if options.json:
        print(json.dumps({**about, "rows": [asdict(row) for row in rows], "notes": notes}, indent=2))
    else:
        print(table(about, rows, notes))


if __name__ == "__main__":
    main()
