"""Finds the plan to load a file with, and has llama.cpp confirm in a child process that there is memory for it.

The child (`dry_run.py`) is started first and asked last, so that it imports llama.cpp while the caller does other
things. Whatever it dies of becomes an error that names the file.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import asdict, replace
from threading import Timer
from typing import TYPE_CHECKING, Any

from hermes_cli.engine.embedded.process import ExitReport, command, environment
from hermes_cli.errors import EngineError, IntegrityError
from hermes_cli.gguf.header import read_header
from hermes_cli.hardware.probe import probe
from hermes_cli.planning.fitted_plan import RAM, DryRun, MemoryUse, choose_plan
from hermes_cli.planning.load_plan import alternatives_to, facts_of, plans_for
from hermes_cli.planning.memory import MemoryBreakdown
from hermes_cli.planning.placement import OVERHEAD, reserved_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from typing import Self

    from hermes_cli.gguf.header import GGUFHeader
    from hermes_cli.hardware.machine import Machine
    from hermes_cli.planning.fitted_plan import FittedPlan, Tried
    from hermes_cli.planning.load_plan import FileFacts, LoadOverrides, LoadPlan

    Json = dict[str, Any]

TIME_LIMIT = 120.0  # seconds for all plans; drivers and network file systems may take a few
COMMAND = command("hermes_cli.engine.embedded.dry_run")
FIRST_SHARD, SHARD = "-00001-of-", "-{:05}-of-"
VERBOSE_HINT = "`-v` shows llama.cpp's log."


class FitCheck:
    """A child process that confirms plans, to be used in `with`: `begin`, do something else, `result`."""

    def __init__(self, *, verbose: bool = False, limit: float = TIME_LIMIT) -> None:
        """Start the child.

        Args:
            verbose: show llama.cpp's log on standard error.
            limit: seconds that `result` waits.

        Raises:
            EngineError: no process can be started.
        """
        self._verbose = verbose
        self._limit = limit
        self._expired = False
        try:
            self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `close`; a pipe could fill up
            self._child = subprocess.Popen(  # noqa: S603 - this interpreter
                [*COMMAND, json.dumps(sys.path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                encoding="ascii",
                errors="replace",
                env=environment(),
            )
        except OSError as error:
            raise EngineError(
                f"no process can be started to try the model in: {error.strerror or error}.",
                hint="close other programs, raise the limit of processes, or make room for temporary files.",
            ) from error

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._child.pid

    def begin(self, path: Path, loading: LoadOverrides, machine: Machine | None = None) -> None:
        """Plan, and ask about the plan that is wanted most.

        Args:
            path: the file, or its first shard.
            loading: what the user insists on.
            machine: where it is to run; None looks at this one.

        Raises:
            UsageError: a longer context is asked for than the model was trained for.
            IntegrityError: a file cannot be read, or is none.
        """
        self._path, self._loading = path, loading
        self._facts: FileFacts = facts_of(_headers(path))
        self._machine: Machine = machine or probe(measure=False)
        self._plans: tuple[LoadPlan, ...] = plans_for(self._facts, self._machine, loading)
        self._send({"path": str(path), "verbose": self._verbose, "weights": asdict(self._facts.weights)})
        self._send(asdict(self._plans[0]))

    def result(self) -> FittedPlan:
        """The plan to load; the child is gone then, and with it what it held.

        Raises:
            DoesNotFitError: nothing that the user allows fits; the hint names what would.
            IntegrityError: llama.cpp refused the file, or gave up over it.
            EngineError: llama.cpp refused every plan, or did not answer.
        """
        timer = Timer(self._limit, self._expire)
        timer.daemon = True  # Ctrl-C in the next line must not wait for it
        timer.start()
        try:
            plans = self._tried(self._plans, asked=1)
            hopeless = not plans[-1][1].fits and not self._loading.force
            others = alternatives_to(self._facts, self._machine, self._loading) if hopeless else ()
            alternatives = self._tried(others)
        finally:
            timer.cancel()
            self.close()
        confirmed = choose_plan(self._path.name, self._loading, plans, alternatives)
        notes = (self._missed(confirmed), confirmed.note)
        return replace(confirmed, note="; ".join(note for note in notes if note))

    def close(self) -> None:
        """End the child; a second call does nothing."""
        if self._log.closed:
            return
        self._child.kill()
        self._child.wait()
        for stream in (self._child.stdin, self._child.stdout):
            with suppress(OSError):  # what was not sent yet cannot be sent any more
                stream and stream.close()
        if self._verbose:
            sys.stderr.write(self._logged())
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _missed(self, confirmed: FittedPlan) -> str:
        """What is to be said if llama.cpp finds fewer GPUs than there are, or than the user counts on."""
        if not confirmed.places:  # it was not asked to the end
            return ""
        known, found = len(self._machine.usable_devices), len(confirmed.places) - 1
        if found < known:
            return f"llama.cpp finds {found} of {known} GPUs; hermes hardware may tell why"
        if not found and self._loading.gpu_layers:
            return "--gpu-layers does nothing here, llama.cpp finds no GPU; hermes hardware may tell why"
        return ""

    def _tried(self, plans: Iterable[LoadPlan], asked: int = 0) -> list[Tried]:
        """One plan after the other, up to the first that fits; `asked` of them have been sent already."""
        tried: list[Tried] = []
        for plan in plans:
            if len(tried) >= asked:
                self._send(asdict(plan))
            tried.append((plan, self._answer()))
            if tried[-1][1].fits:
                break
        return tried

    def _judged(self, answer: Json) -> DryRun:
        """What was answered, with the room that there is and what backends take for themselves.

        Raises:
            IntegrityError: llama.cpp refused the file.
        """
        if "file" in answer:
            raise IntegrityError(answer["file"], hint=answer["hint"])
        if "refusal" in answer:
            return DryRun(refusal=answer["refusal"])
        ram, *on_devices = (MemoryBreakdown(**part) for part in answer["parts"])
        places = [
            self._device_place(number, part, said)
            for number, (part, said) in enumerate(zip(on_devices, answer["devices"], strict=True))
        ]
        room = self._machine.ram_available
        if any(device.unified for device in self._machine.usable_devices):
            room -= sum(place.part.total for place in places)
        return DryRun((MemoryUse(RAM, replace(ram, overhead=OVERHEAD["cpu"]), room), *places))

    def _device_place(self, number: int, part: MemoryBreakdown, said: Json) -> MemoryUse:
        """A GPU that only llama.cpp knows has the room that it says."""
        known = self._machine.usable_devices
        if number < len(known):
            device = known[number]
            name, room, overhead = device.name, max(device.free - reserved_bytes(device), 0), OVERHEAD[device.backend]
        else:
            name, room, overhead = said["name"], said["free"], max(OVERHEAD.values())
        return MemoryUse(name, replace(part, overhead=overhead) if part.total else part, room)

    def _send(self, message: Json) -> None:
        stream = self._child.stdin
        with suppress(OSError):  # a dead child is noticed when it does not answer
            if stream:
                stream.write(json.dumps(message) + "\n")
                stream.flush()

    def _answer(self) -> DryRun:
        stream = self._child.stdout
        line = stream.readline() if stream else ""
        try:
            return self._judged(json.loads(line))
        except (ValueError, TypeError, KeyError):
            raise self._failure(line) from None

    def _expire(self) -> None:
        self._expired = True
        self._child.kill()

    def _failure(self, line: str) -> EngineError | IntegrityError:
        """What to say of a child that answered nothing, or nonsense."""
        if self._expired:
            return EngineError(
                f"llama.cpp did not say within {self._limit:g} seconds what {self._path} needs.",
                hint=f"its disk or a GPU's driver may hang. {VERBOSE_HINT}",
            )
        if line:
            self._child.kill()
            return EngineError(f"trying {self._path} gave nonsense: {line.strip()[:200]!r}.", hint=VERBOSE_HINT)
        death = ExitReport(self._child.wait(), self._logged())
        if refused := death.unloadable or death.over(self._path):
            return refused
        return EngineError(
            f"the process that tried {self._path} {death.ended}: {death.last_words}.",
            hint=f"if memory ran out, close other programs. {VERBOSE_HINT}",
        )

    def _logged(self) -> str:
        """All that the child wrote to standard error."""
        self._log.seek(0)
        return self._log.read().decode("utf-8", "replace")


def confirm(
    path: Path, loading: LoadOverrides, machine: Machine | None = None, *, limit: float = TIME_LIMIT
) -> FittedPlan:
    """`FitCheck` for those who have nothing else to do meanwhile; raises the same."""
    with FitCheck(limit=limit) as confirmation:
        confirmation.begin(path, loading, machine)
        return confirmation.result()


def _headers(path: Path) -> list[GGUFHeader]:
    """Of the file, or of all its shards."""
    first = read_header(path)
    if first.split is None or FIRST_SHARD not in path.name:
        return [first]
    names = (path.name.replace(FIRST_SHARD, SHARD.format(number)) for number in range(2, first.split.count + 1))
    return [first, *(read_header(path.with_name(name)) for name in names)]
