"""Measures the speeds of an installed model on this machine, next to what was estimated for the same plan."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Literal

from hermes_cli.catalog.file_names import quantization_in_file_name
from hermes_cli.child_process import Frame, pack, protocol_error
from hermes_cli.engine.embedded.child import Child
from hermes_cli.engine.embedded.fit_check import FitCheck
from hermes_cli.engine.embedded.messages import BenchRequest, BenchSpeeds, BenchTest
from hermes_cli.errors import UsageError
from hermes_cli.event_loop import EventLoop
from hermes_cli.gguf.shards import read_model
from hermes_cli.hardware.machine import Machine
from hermes_cli.planning.fitted_plan import FittedPlan
from hermes_cli.planning.memory import FileFacts, facts_of
from hermes_cli.planning.placement import place_split
from hermes_cli.planning.speed import PREFILL_TOKENS, Speed, decode_speed, prefill_speed
from hermes_cli.store.benchmarks import Benchmark, BenchmarkTest, machine_key

if TYPE_CHECKING:
    from hermes_cli.models.resolve import ResolvedModel

PREFILL, DECODE = PREFILL_TOKENS, 128  # tokens, llama-bench's defaults
MOST_TOKENS = 1 << 31  # of a context that the file says nothing of


def bench_tests(depths: Sequence[int], trained: int) -> tuple[BenchTest, ...]:
    """Return the tests for each depth that a model with so many tokens of context can handle.

    Raise UsageError if it can handle none of them.
    """
    longest = trained or MOST_TOKENS
    tests = tuple(
        test
        for depth in depths
        for test in (BenchTest(PREFILL, 0, depth), BenchTest(0, DECODE, depth))
        if depth + test.prefill + test.decode <= longest
    )
    if not tests:
        raise UsageError(
            f"--depth {min(depths):,} and {PREFILL} tokens of prompt are more than the {trained:,} tokens that this "
            "model was trained for.",
            hint="choose a smaller --depth, or leave it out.",
        )
    return tests


@dataclass(frozen=True)
class BenchOptions:
    """Depths in tokens, runs of each test, whether slow tests are run, too, and whether llama.cpp's log is shown."""

    depths: tuple[int, ...]
    runs: int
    patient: bool = False
    verbose: bool = False


def benchmark(
    resolved: ResolvedModel,
    machine: Machine,
    options: BenchOptions,
    show: Callable[[str], None],
    note: Callable[[str], None],
) -> Benchmark:
    """Load a model in a child process and measure it.

    `show` is told what goes on, `note` what was given up for the plan and which test was left out.

    Raises:
        DoesNotFitError: there is too little memory.
        HermesError: the file cannot be read, llama.cpp refuses it, or its process ended.
    """
    path = resolved.file.path
    _, headers = read_model(path)
    facts = facts_of(headers)
    tests = bench_tests(options.depths, facts.trained_context)
    context = max(test.depth + test.prefill + test.decode for test in tests)
    with EventLoop() as loop:
        child = loop.run(Child.start(verbose=options.verbose))
        try:
            fitted = loop.run(FitCheck(child, path, replace(resolved.overrides, context=context), machine).result())
            if fitted.note:
                note(fitted.note)
            plan = fitted.plan
            request = BenchRequest(path, plan, tests, options.runs, patient=options.patient, verbose=options.verbose)
            measured = loop.run(_measure(child, request, show))
        finally:
            child.kill()
            loop.run(child.gone())
    quantization = headers[0].file_type or quantization_in_file_name(path.name) or ""
    estimates = _Estimates(facts, quantization, fitted, replace(machine, cores=plan.threads))
    for speeds in measured:
        if not speeds.speeds:
            note(f"{speeds.test.name} would take long and was left out; --depth {speeds.test.depth} runs it")
    return Benchmark(
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        model=resolved.file.name,
        bytes=facts.weights.total,
        machine=machine_key(machine),
        llama_cpp=f"llama-cpp-python {version('llama-cpp-python')}",
        gpu_layers=fitted.gpu_layers,
        all_layers=len(facts.weights.layers) + 1,
        threads=plan.threads,
        kv_type=plan.settings.k_type,
        tests=tuple(_result(speeds, estimates.of(speeds.test)) for speeds in measured if speeds.speeds),
    )


async def _measure(child: Child, request: BenchRequest, show: Callable[[str], None]) -> list[BenchSpeeds]:
    """Send the request and collect the speeds of all tests."""
    frames: asyncio.Queue[Frame] = asyncio.Queue()
    child.receive = frames.put_nowait
    child.send(pack("bench", 0, request))
    names = [test.name for test in sorted(request.tests, key=lambda test: test.depth)]
    measured: list[BenchSpeeds] = []
    end = asyncio.ensure_future(child.gone())
    try:
        while len(measured) < len(names):
            following = asyncio.ensure_future(frames.get())
            await asyncio.wait((following, end), return_when=asyncio.FIRST_COMPLETED)
            if not following.done():
                following.cancel()
                raise child.protocol_error or end.result().while_running(request.path, changed=False)
            frame = following.result()
            if frame.kind == "failed":
                raise frame.error()
            if frame.kind == "progress":
                part = frame.read(float)
                show(f"loading: {part:.0%}" if part < 1 else f"measuring {names[0]}")
            elif frame.kind == "speeds":
                measured.append(frame.read(BenchSpeeds))
                if len(measured) < len(names):
                    show(f"measuring {names[len(measured)]}")
            else:
                raise protocol_error(f"a frame of kind {frame.kind!r}")
    finally:
        end.cancel()
    return measured


@dataclass(frozen=True)
class _Estimates:
    """The estimates of planning/speed.py for a plan."""

    facts: FileFacts
    quantization: str
    fitted: FittedPlan
    machine: Machine

    def of(self, test: BenchTest) -> Speed | None:
        """Return the estimate for a test; None for an architecture that is not known."""
        architecture, table, settings = self.facts.architecture, self.facts.weights, self.fitted.plan.settings
        if architecture is None:
            return None
        plan, every = self.fitted.plan, range(len(self.machine.usable_devices))
        devices = every if plan.devices is None else [index for index in plan.devices if index in every]
        split = plan.tensor_split or [1] * len(devices)
        layers = self.fitted.gpu_layers
        placement = place_split(architecture, table, settings, self.machine, layers, devices, split)
        if test.decode:
            filled = test.depth + test.decode // 2
            settings = replace(settings, context=2 * filled)
            return decode_speed(architecture, self.quantization, table, settings, placement, self.machine, filled)
        speed = prefill_speed(architecture, table, settings, placement, self.machine)
        return speed.times(1 / (1 + speed.expected * speed.growth * test.depth))


def _result(speeds: BenchSpeeds, estimate: Speed | None) -> BenchmarkTest:
    test, runs = speeds.test, speeds.speeds
    if estimate:
        estimate = Speed(estimate.expected, estimate.low, estimate.high, estimate.source)
    deviation = statistics.stdev(runs) if len(runs) > 1 else 0.0
    kind: Literal["prefill", "decode"] = "prefill" if test.prefill else "decode"
    return BenchmarkTest(test.name, kind, test.depth, statistics.mean(runs), deviation, runs, estimate)
