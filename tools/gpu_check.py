"""Checks a real GPU: memory as planned, speed as estimated, text as on the CPU, and memory that comes back.

    python tools/gpu_check.py [FILE.gguf ...]    # the demo model, and these files
    python tools/gpu_check.py --json

It loads each file as `hermes chat` would, compares planned memory with what the driver says is gone, decodes greedily
and compares text and speed, kills the engine and waits for the memory to be free again. One table; exit code 1 if a row
is wrong. Without a GPU that the installed llama.cpp uses, RAM takes its place: a rehearsal.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import psutil

from hermes_cli import paths
from hermes_cli.engine.embedded.engine import EmbeddedEngine
from hermes_cli.engine.embedded.fit_check import check_fit
from hermes_cli.engine.protocol import Done, TextEvent
from hermes_cli.engine.request import GenerationRequest, SamplingOptions
from hermes_cli.errors import EngineDiedError
from hermes_cli.gguf.shards import read_model
from hermes_cli.hardware.probe import probe
from hermes_cli.planning.fitted_plan import RAM, FittedPlan
from hermes_cli.planning.load_plan import LoadOverrides
from hermes_cli.planning.memory import facts_of

PROMPT = ("The three largest cities of Japan, with a sentence on each:",)
TOKENS = 64
CONTEXT = 1024  # tokens; the demo model has no more
MEMORY_TOLERANCE = 0.10  # of what is planned; a driver rounds, and other programs come and go
SLACK = 300 << 20  # bytes; a CUDA context takes as much, which is planned as overhead
COMES_BACK_SECONDS = 30.0

Verdict = Literal["ok", "WRONG", "told"]


@dataclass(frozen=True)
class Row:
    """A check of one file, with what was expected and what was seen."""

    file: str
    check: str
    expected: str
    seen: str
    verdict: Verdict


def free_memory(pid: int | None) -> dict[str, int]:
    """Return the free bytes of each GPU that is used; in a rehearsal, the negative size of the engine's process."""
    devices = probe(measure=False).usable_devices
    if devices:
        return {f"{number} {device.name}": device.free for number, device in enumerate(devices)}
    try:
        return {RAM: -psutil.Process(pid).memory_info().rss if pid else 0}
    except psutil.NoSuchProcess:
        return {RAM: 0}


async def greedy(engine: EmbeddedEngine) -> tuple[str, Done]:
    """Return the text of the prompt's greedy continuation, and its end with counts and times."""
    request = GenerationRequest(PROMPT, sampling=SamplingOptions(temperature=0.0), max_tokens=TOKENS)
    text, end = "", None
    async for event in engine.generate(request):
        if isinstance(event, TextEvent):
            text += event.text
        elif isinstance(event, Done):
            end = event
    if end is None:
        raise RuntimeError("the engine did not end its answer")
    return text, end


def engine_pid() -> int | None:
    """Return the process of the engine: the youngest child that loads llama.cpp."""
    children = psutil.Process().children()
    return max(children, key=lambda child: child.memory_info().rss).pid if children else None


async def check(path: Path, fitted: FittedPlan, alone: FittedPlan) -> list[Row]:
    """Return the rows of a file; `fitted` is how it is loaded here, `alone` on the CPU."""
    rows: list[Row] = []

    def add(name: str, expected: str, seen: str, verdict: Verdict) -> None:
        rows.append(Row(path.name, name, expected, seen, verdict))

    before = free_memory(None)
    engine = EmbeddedEngine(path, fitted.plan)
    await engine.load()
    text, done = await greedy(engine)
    pid = engine_pid()
    after = free_memory(pid)
    for (name, was), planned in zip(before.items(), on_devices(fitted), strict=False):
        taken = was - after[name]
        near = name == RAM or abs(taken - planned) <= planned * MEMORY_TOLERANCE + SLACK
        add(f"memory on {name}", f"{planned / 2**20:,.0f} MiB", f"{taken / 2**20:,.0f} MiB", "ok" if near else "WRONG")
    facts, seconds = facts_of(read_model(path)[1]), done.completion_seconds
    speed = f"{(done.completion_tokens - 1) / seconds:,.1f} tokens/s" if seconds else "too short to measure"
    layers = f"{fitted.gpu_layers} of {len(facts.weights.layers)} layers on a GPU"
    add("decode speed", layers, speed, "told")

    if pid is None:
        raise RuntimeError("the engine has no process")
    os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))
    deadline, least = time.monotonic() + COMES_BACK_SECONDS, {name: free - SLACK for name, free in before.items()}
    while (now := free_memory(pid)) and any(now[name] < least[name] for name in least):
        if time.monotonic() > deadline:
            break
        await asyncio.sleep(0.2)
    lost = max(before[name] - now[name] for name in before)
    back = all(now[name] >= least[name] for name in least)
    add("memory after a kill", "all is back", f"{max(lost, 0) / 2**20:,.0f} MiB missing", "ok" if back else "WRONG")
    try:
        again, _ = await greedy(engine)
    except EngineDiedError:  # it was sent before the death was seen; the next one starts a process
        again, _ = await greedy(engine)
    add("the next request", "the same text", "the same" if again == text else again, "ok" if again == text else "WRONG")
    await engine.close()

    cpu = EmbeddedEngine(path, alone.plan)
    await cpu.load()
    other, _ = await greedy(cpu)
    await cpu.close()
    same = next((at for at, pair in enumerate(zip(text, other, strict=False)) if len({*pair}) > 1), len(text))
    verdict: Verdict = "ok" if same == len(text) else "told"  # roundings differ: another token may win by a hair
    add("greedy text", "as on the CPU", f"the same for {same} of {len(text)} characters", verdict)
    return rows


def on_devices(fitted: FittedPlan) -> list[int]:
    """Return the planned bytes of each GPU, without the reserve for its driver; of RAM if there is none."""
    gpus = [place.part.total for place in fitted.places if place.name != RAM]
    return gpus or [place.part.total for place in fitted.places]


def main() -> None:
    """Check the demo and the files that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    devices = probe(measure=False).usable_devices
    used = ", ".join(f"{device.name} with {device.backend}" for device in devices) or "RAM: a rehearsal"
    rows = []
    for path in (paths.asset("demo.gguf"), *given.files):
        plans = [check_fit(path, LoadOverrides(context=CONTEXT, gpu_layers=layers)) for layers in (None, 0)]
        rows += asyncio.run(check(path, *plans))
    if given.json:
        print(json.dumps({"device": used, "rows": [asdict(row) for row in rows]}, indent=2))
    else:
        print(f"checked on {used}")
        lines = [
            ("FILE", "CHECK", "EXPECTED", "SEEN", ""),
            *((r.file, r.check, r.expected, r.seen, r.verdict) for r in rows),
        ]
        widths = [max(len(line[column]) for line in lines) for column in range(5)]
        for line in lines:
            print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    sys.exit(any(row.verdict == "WRONG" for row in rows))


if __name__ == "__main__":
    main()
