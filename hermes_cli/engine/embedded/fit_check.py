"""Finds the plan to load a file with: llama.cpp tells the memory for each candidate in dry runs in a child process.

The child is the one that may load the model afterwards. Whatever it dies of becomes an error that names the file.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain, repeat
from pathlib import Path

from hermes_cli.child_process import Frame, pack, protocol_error
from hermes_cli.engine.embedded.child import Child
from hermes_cli.engine.embedded.messages import DryRunRequest, DryRunResult
from hermes_cli.errors import EngineError
from hermes_cli.event_loop import EventLoop
from hermes_cli.gguf.header import GGUFHeader
from hermes_cli.gguf.shards import read_model
from hermes_cli.hardware.advice import advice_at
from hermes_cli.hardware.machine import Machine
from hermes_cli.hardware.probe import probe
from hermes_cli.hardware.selection import select_devices
from hermes_cli.planning.fitted_plan import RAM, DryRun, FittedPlan, MemoryUse, Tried, choose_plan
from hermes_cli.planning.load_plan import LoadOverrides, LoadPlan
from hermes_cli.planning.memory import ContextSettings, Weights, facts_of
from hermes_cli.planning.placement import OVERHEAD, reserved_bytes
from hermes_cli.planning.planner import alternatives_to, plans_for

TIME_LIMIT = 120.0  # seconds for all plans; drivers and network file systems may take a few
VERBOSE_HINT = "`-v` shows llama.cpp's log."


class FitCheck:
    """The plans for one file, tried in the order of preference."""

    def __init__(
        self,
        child: Child,  # has been asked for nothing, or only for earlier checks
        path: Path,  # the file, or its first shard
        overrides: LoadOverrides,  # the settings that the user insists on
        machine: Machine | None = None,  # where the model is to run; None looks at this one
        *,
        headers: Sequence[GGUFHeader] | None = None,  # of the file, or of all its shards, if they have been read
        limit: float = TIME_LIMIT,  # seconds that `result` waits
    ) -> None:
        """Make the plans, and start the dry run of the first."""
        self._child, self._path, self._overrides, self._limit = child, path, overrides, limit
        self._facts = facts_of(headers or read_model(path)[1])
        self._machine = select_devices(machine or probe(measure=False), overrides.devices, overrides.reserve)
        self._listed = 0  # GPUs that llama.cpp finds
        self._plans = plans_for(self._facts, self._machine, overrides)
        self._reply: asyncio.Queue[Frame] = asyncio.Queue()
        child.receive = self._reply.put_nowait
        self._send(self._plans[0])

    async def result(self) -> FittedPlan:
        """Return the plan to load. The child goes on, ready to load it; after any error it has ended.

        Raises:
            DoesNotFitError: nothing that the user allows fits; the hint names what would.
            IntegrityError: llama.cpp refused the file, or gave up over it.
            EngineError: llama.cpp refused every plan, or did not answer.
        """
        try:
            async with asyncio.timeout(self._limit):
                plans = await self._try(self._plans, sent=1)
                hopeless = not plans[-1][1].fits and not self._overrides.force
                others = alternatives_to(self._facts, self._machine, self._overrides) if hopeless else ()
                fitted = choose_plan(self._path.name, self._overrides, plans, await self._try(others))
        except BaseException as error:
            self._child.kill()
            await self._child.gone()
            if isinstance(error, TimeoutError):
                raise EngineError(
                    f"llama.cpp did not say within {self._limit:g} seconds what {self._path} needs.",
                    hint=f"its disk or a GPU's driver may hang. {VERBOSE_HINT}",
                ) from None
            raise
        notes = (self._missing_gpus(fitted), fitted.note)
        return replace(fitted, note="; ".join(note for note in notes if note))

    def _missing_gpus(self, fitted: FittedPlan) -> str:
        """Return a note if llama.cpp finds fewer GPUs than there are, or than the user counts on."""
        if not fitted.places:  # the plan was refused before that was known
            return ""
        known = sum(device.usable for device in self._machine.devices)
        usable = max(self._listed, len(fitted.places) - 1)
        if usable < known:
            missing = f"llama.cpp finds {usable} of {known} GPUs; hermes hardware may tell why"
            advised = advice_at("CUDA finds no GPU") if "cuda" in self._machine.backends else None
            return f"{missing}; {advised.text}: {advised.fix}" if advised and advised.fix else missing
        if not usable and self._overrides.gpu_layers:
            return "--gpu-layers does nothing here, llama.cpp finds no GPU; hermes hardware may tell why"
        return ""

    async def _try(self, plans: Iterable[LoadPlan], sent: int = 0) -> list[Tried]:
        """Try one plan after the other, up to the first that fits; the first `sent` are with the child already."""
        tried: list[Tried] = []
        for plan in plans:
            if len(tried) >= sent:
                self._send(plan)
            tried.append((plan, self._dry_run(plan, await _receive(self._child, self._reply, self._path))))
            if tried[-1][1].fits:
                break
        return tried

    def _send(self, plan: LoadPlan) -> None:
        self._child.send(pack("dry_run", 0, DryRunRequest(self._path, self._facts.weights, plan, self._child.verbose)))

    def _dry_run(self, plan: LoadPlan, result: DryRunResult) -> DryRun:
        """Return a result together with the memory that is free and what backends take for themselves."""
        if result.refusal:
            return DryRun(refusal=result.refusal)
        ram, *parts = result.parts
        self._listed = result.listed
        places, in_ram = [], 0
        listed = [device for device in self._machine.devices if device.usable]
        chosen = range(len(listed)) if plan.devices is None or len(plan.devices) != len(parts) else plan.devices
        known = chain(((index, listed[index]) for index in chosen), repeat((None, None)))
        for (index, device), logged, part in zip(known, result.devices, parts, strict=False):
            if device:
                free, overhead = max(device.free - reserved_bytes(device), 0), OVERHEAD[device.backend]
            else:  # only llama.cpp knows it
                free, overhead = logged.free, max(OVERHEAD.values())
            used = replace(part, overhead=overhead) if part.total else part
            users = device.users if device else ()
            places.append(MemoryUse(device.name if device else logged.name, used, free, index, users))
            in_ram += device.ram_taken(used.total) if device else 0
        free = self._machine.ram_available - in_ram
        return DryRun((MemoryUse(RAM, replace(ram, overhead=OVERHEAD["cpu"]), free), *places))


async def _receive(child: Child, replies: asyncio.Queue[Frame], path: Path) -> DryRunResult:
    """Wait for the child's answer; raise the error that it failed or ended with."""
    reply, end = asyncio.ensure_future(replies.get()), asyncio.ensure_future(child.gone())
    try:
        await asyncio.wait((reply, end), return_when=asyncio.FIRST_COMPLETED)
        if not reply.done():
            report = end.result()
            raise (
                child.protocol_error
                or report.while_reading(path)
                or EngineError(
                    f"the process that tried {path} {report.how}: {report.last_line}.",
                    hint=f"if memory ran out, close other programs. {VERBOSE_HINT}",
                )
            )
    finally:
        reply.cancel()
        end.cancel()
    frame = reply.result()
    if frame.kind == "failed":
        raise frame.error()
    if frame.kind != "fit":
        raise protocol_error(f"a frame of kind {frame.kind!r}")
    return frame.read(DryRunResult)


def dry_runs(path: Path, weights: Weights, every: Sequence[ContextSettings]) -> list[DryRunResult]:
    """Return what llama.cpp would allocate for a file on the CPU with each of the settings; outside of event loops.

    Raises:
        IntegrityError: llama.cpp refused the file, or gave up over it.
        EngineError: it did not answer.
    """

    async def run() -> list[DryRunResult]:
        child, results = await Child.start(), list[DryRunResult]()
        replies: asyncio.Queue[Frame] = asyncio.Queue()
        child.receive = replies.put_nowait
        try:
            async with asyncio.timeout(TIME_LIMIT):
                for settings in every:
                    child.send(pack("dry_run", 0, DryRunRequest(path, weights, LoadPlan(settings), child.verbose)))
                    results.append(await _receive(child, replies, path))
        except TimeoutError:
            raise EngineError(
                f"llama.cpp did not say within {TIME_LIMIT:g} seconds what {path} needs.", hint="try again later."
            ) from None
        finally:
            child.kill()
            await child.gone()
        return results

    with EventLoop() as event_loop:
        return event_loop.run(run())


def check_fit(path: Path, overrides: LoadOverrides, machine: Machine | None = None) -> FittedPlan:
    """Return the plan to load a file with, as `FitCheck` with a child process of its own; outside of event loops."""

    async def check() -> FittedPlan:
        child = await Child.start()
        try:
            return await FitCheck(child, path, overrides, machine).result()
        finally:
            child.kill()
            await child.gone()

    if threading.current_thread() is not threading.main_thread():
        return asyncio.run(check())
    with EventLoop() as event_loop:  # Ctrl-C cancels there, and is not lost in a callback
        return event_loop.run(check())
