"""`hermes bench`: prefill and decode speed of an installed model on this machine, next to the estimate."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hermes_cli.catalog.models import Catalogue
from hermes_cli.commands.completing import local_models
from hermes_cli.commands.options import (
    EngineArgumentOption,
    EngineCommandOption,
    EngineOption,
    EngineUrlOption,
    GpuLayersOption,
    KvTypeOption,
    ThreadsOption,
    TokenizerOption,
    VerboseOption,
    argument,
    kv_type_named,
    with_console,
)
from hermes_cli.commands.speeds import two_digits
from hermes_cli.console import Console
from hermes_cli.errors import UsageError
from hermes_cli.units import counted

if TYPE_CHECKING:
    from hermes_cli.hardware.machine import Machine
    from hermes_cli.models.benchmark import BenchOptions
    from hermes_cli.models.resolve import ModelRequest
    from hermes_cli.store.benchmarks import Benchmark, BenchmarkTest

DEPTHS = (0, 4096)  # tokens
BUSY = 0.5  # programs that want to run, per core


@with_console
def command(
    console: Console,
    name: Annotated[
        str | None,
        argument("[NAME]", "As `hermes list` shows it, or a path. Default: the best that is installed.", local_models),
    ] = None,
    runs: Annotated[int, typer.Option(min=1, max=100, help="Runs of each test.")] = 3,
    depth: Annotated[
        list[int] | None,
        typer.Option(min=0, help="Tokens in the KV cache before a test; may be given several times. Default: 0, 4096."),
    ] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Show the last result of this model, too.")] = False,
    gpu_layers: GpuLayersOption = None,
    kv_type: KvTypeOption = None,
    threads: ThreadsOption = None,
    engine_url: EngineUrlOption = None,
    tokenizer: TokenizerOption = None,
    engine: EngineOption = None,
    engine_command: EngineCommandOption = None,
    engine_arg: EngineArgumentOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Measure how fast a model reads and writes here: prefill of 512 tokens, decoding of 128, as llama-bench does.

    The result is kept: `recommend` and `plan` use it for this model, and correct their estimates of others by it. With
    --engine-url and --engine nothing is kept: it is what a client of that engine gets.

    hermes bench hermes-3:8b --compare
    """
    from hermes_cli.catalog.load import load_catalogue
    from hermes_cli.hardware.probe import probe
    from hermes_cli.models.benchmark import BenchOptions, benchmark
    from hermes_cli.models.engine_choice import engine_choice
    from hermes_cli.models.resolve import ModelRequest, resolve
    from hermes_cli.planning.load_plan import LoadOverrides
    from hermes_cli.store.benchmarks import benchmarks, keep

    kind = None if kv_type is None else kv_type_named(kv_type)
    request = ModelRequest(name or "", LoadOverrides(gpu_layers=gpu_layers, kv_type=kind, threads=threads))
    options = BenchOptions(tuple(sorted(set(depth or DEPTHS))), runs, patient=bool(depth), verbose=verbose)
    catalogue = load_catalogue()
    choice = engine_choice(engine, engine_command, engine_arg or (), None)
    if engine_url or choice:
        if engine_url and engine:
            raise UsageError("--engine-url and --engine cannot be used together.", hint="choose one.")
        if not name:
            raise UsageError(
                "this needs the name of a model.", hint="for example: hermes bench demo --engine llama-server"
            )
        outside = replace(
            request,
            engine_url=engine_url,
            tokenizer=Path(tokenizer) if tokenizer else None,
            engine=None if engine_url else choice,
        )
        _bench_outside(outside, catalogue, options, console, compare=compare)
        return
    machine = probe()
    resolved = resolve(request if name else _best_installed(request, catalogue, machine, console), catalogue)
    before = [result for result in benchmarks(machine) if result.model == resolved.file.name]
    if (load := _load()) > machine.cores * BUSY:
        console.warn(f"other programs keep this machine busy (load {load:.1f}): speeds will be lower than it can do.")
    label = resolved.file.name
    with console.working(f"loading {label}") as show:

        def progress(text: str) -> None:
            if console.animates:
                show(f"{label}: {text}")
            elif not text.endswith("%"):
                console.note(f"{label}: {text}")

        result = benchmark(resolved, machine, options, progress, console.note)
    keep(result)
    earlier = before[-1] if compare and before else None
    _show(result, earlier, console)
    if compare and not before:
        console.note("there is no earlier result of this model on this machine")
    console.document({**asdict(result), "compared_with": asdict(earlier) if earlier else None})


def _bench_outside(
    request: ModelRequest, catalogue: Catalogue, options: BenchOptions, console: Console, *, compare: bool
) -> None:
    from hermes_cli.models.outside_benchmark import benchmark_outside

    if compare:
        raise UsageError("--compare: results of engines outside this program are not kept.", hint="leave it out.")
    where = f"the engine at {request.engine_url}" if request.engine is None else request.engine.name
    with console.working(f"asking {where}") as show:
        name, tests = benchmark_outside(request, catalogue, options, show if console.animates else console.note)
    console.text(f"{name}, in {where}\n\n")
    console.table(
        ["TEST", "TOKENS/S", "SPREAD"], [_speed_columns(test) for test in tests], right=["TOKENS/S", "SPREAD"]
    )
    console.document({"model": name, "engine": request.engine_url or where, "tests": [asdict(test) for test in tests]})


def _speed_columns(test: BenchmarkTest) -> list[str]:
    spread = f"± {two_digits(test.deviation)}" if len(test.runs) > 1 else ""
    return [test.name, two_digits(test.tokens_per_second), spread]


def _load() -> float:
    """Return how many programs wanted to run in the last minute; 0 where the system does not tell."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return 0.0


def _best_installed(request: ModelRequest, catalogue: Catalogue, machine: Machine, console: Console) -> ModelRequest:
    from hermes_cli.commands.pull import default_model
    from hermes_cli.planning.recommend import RecommendOptions

    return default_model("bench", request, RecommendOptions(), catalogue, machine, console)


def _show(result: Benchmark, earlier: Benchmark | None, console: Console) -> None:
    where = "on the CPU" if not result.gpu_layers else f"{result.gpu_layers} of {result.all_layers} layers on the GPU"
    threads = counted(result.threads, "thread")
    console.prose(f"{result.model}, {where}, {threads}, KV cache in {result.kv_type}\n", hanging="  ")
    titles = ["TEST", "TOKENS/S", "SPREAD", "ESTIMATE", *(["BEFORE", "CHANGE"] if earlier else ["RANGE"])]
    before = {test.name: test.tokens_per_second for test in earlier.tests} if earlier else {}
    rows = []
    for test in result.tests:
        estimate, last = test.estimate, before.get(test.name)
        row = [*_speed_columns(test), two_digits(estimate.expected) if estimate else ""]
        if earlier:
            row += [two_digits(last), f"{test.tokens_per_second / last - 1:+.0%}"] if last else ["", ""]
        else:
            row.append(f"{two_digits(estimate.low)} to {two_digits(estimate.high)}" if estimate else "")
        rows.append(row)
    console.table(titles, rows, right=titles[1:])
    if earlier:
        console.note(f"before: {earlier.at}, {earlier.llama_cpp}")
