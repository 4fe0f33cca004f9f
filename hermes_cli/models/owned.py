"""Models in engines that hermes starts itself: the program, the words that load a model, what cannot be set there."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hermes_cli.catalog.models import CatalogModel, Catalogue
from hermes_cli.engine.protocol import Engine
from hermes_cli.engine.upstream.engine_log import part_loaded
from hermes_cli.engine.upstream.engine_process import EngineCommand
from hermes_cli.engine.upstream.programs import EngineProgram, engine_named, find_program
from hermes_cli.errors import DoesNotFitError, HermesError, NotFoundError, UsageError
from hermes_cli.hardware.probe import ProbeSources, probe
from hermes_cli.hardware.selection import select_devices
from hermes_cli.models.resolve import EngineChoice, ModelRequest, given_flags, resolve
from hermes_cli.planning.load_plan import LoadOverrides
from hermes_cli.planning.memory import facts_of
from hermes_cli.planning.planner import computed_plan
from hermes_cli.prompting.markers import TAGS as PROMPT_TAGS
from hermes_cli.prompting.turn_grammar import TAGS

if TYPE_CHECKING:
    from hermes_cli.engine.embedded.child import Child
    from hermes_cli.hardware.machine import Machine
    from hermes_cli.planning.fitted_plan import MemoryUse
    from hermes_cli.planning.memory import FileFacts, Pooling

# Settings that only the embedded engine has; llama-server has some of them as arguments of its own.
_EMBEDDED = {"tensor_split": "--tensor-split", "devices": "--devices", "reserve": "--reserve", "pooling": "pooling"}


@dataclass(frozen=True)
class OwnedModel:
    """A model in an engine that hermes starts; it has what `PlannedModel` has, as far as that makes sense.

    Attributes:
        context: tokens that one request can use.
        slots: requests at once.
        program: what is started.
        command: its words, with the model.
        room_fault: returns the error if there is too little memory now.
    """

    name: str
    context: int
    slots: int
    program: EngineProgram
    command: EngineCommand
    room_fault: Callable[[], HermesError | None]
    path: Path | None = None
    known: CatalogModel | None = None
    template: str | None = None
    note: str = ""
    forced: bool = False

    pooling: Pooling | None = None
    places: tuple[MemoryUse, ...] = ()  # the engine decides

    @property
    def file_name(self) -> str:
        """Return the name of its file, or its own."""
        return self.path.name if self.path else self.name

    @property
    def details(self) -> dict[str, Any]:
        """Return its fields for `--json`."""
        return {"engine": self.program.engine}

    def engine(
        self,
        *,
        verbose: bool = False,  # noqa: ARG002 - its log is in a file
        progress: Callable[[float], None] = lambda _: None,
        child: Child | None = None,  # noqa: ARG002 - no process of ours works for it
    ) -> Engine:
        """Make the engine, with the arguments of `PlannedModel.engine`; it starts when it is asked to load."""
        from hermes_cli.engine.upstream.supervised_engine import SupervisedEngine  # noqa: PLC0415 - HTTP

        def report(line: str) -> None:
            if (part := part_loaded(line)) is not None:
                progress(part)

        return SupervisedEngine(self.command, tags=TAGS, texts=PROMPT_TAGS, report=report)


def own(request: ModelRequest, catalogue: Catalogue, platform: str = sys.platform) -> OwnedModel:
    """Return the model of a request in the engine that it chooses, not started yet.

    Raises:
        UsageError: there is no such engine, it has no such setting, or the system has no way to watch it.
        NotFoundError: the program, or the model, is not here.
        DoesNotFitError: there is too little memory.
    """
    if platform == "win32":  # no process groups, no sockets in files
        raise UsageError(
            "--engine: on Windows hermes starts no other engine.",
            hint="start it yourself and attach to it: --engine-url http://127.0.0.1:8080; or use WSL.",
        )
    choice = request.engine or EngineChoice("")
    engine = engine_named(choice.name)
    _check(request, choice, engine)
    program = find_program(engine, choice.command)
    if engine == "llama-server":
        return _llama_server(request, choice, program, catalogue)
    from hermes_cli.models.launched import launched  # noqa: PLC0415 - only for these engines

    planned = launched(request, choice, program, catalogue)
    return OwnedModel(
        planned.name,
        planned.context,
        planned.plan.sequences or 1,
        program,
        planned.command,
        room_fault=lambda: None,  # it plans its memory itself, and says so if there is too little
        known=planned.known,
        template=request.template,
        note="; ".join(planned.notes),
        forced=request.overrides.force,
    )


def _check(request: ModelRequest, choice: EngineChoice, engine: str) -> None:
    if given := given_flags(request, _EMBEDDED):
        raise UsageError(
            f"{' and '.join(given)}: hermes does not set this for {engine}.",
            hint="pass the engine's own arguments on with --engine-arg, or leave --engine out.",
        )
    if choice.rpc and engine != "llama-server":
        raise UsageError(f"--rpc: {engine} has nothing like it.", hint="see hermes plan NAME --engine vllm --nodes 2")


def _llama_server(
    request: ModelRequest, choice: EngineChoice, program: EngineProgram, catalogue: Catalogue
) -> OwnedModel:
    resolved = resolve(request, catalogue)
    facts, overrides, name = facts_of(resolved.file.headers), resolved.overrides, resolved.file.name
    # Memory of other machines is not known here: with --rpc the context is what was asked for, or what a chat takes.
    remote = replace(overrides, force=True) if choice.rpc else overrides
    plan = computed_plan(facts, _machine(program, overrides), remote)
    if plan is None:
        raise _no_room(name, overrides)
    settings = plan.settings
    context, slots = settings.context, settings.slots
    words = [*program.words, "-m", str(resolved.file.path), "--host", "{socket}"]
    words += ["-c", str(context * slots), "-np", str(slots), "-t", str(plan.threads)]
    if overrides.gpu_layers is not None:
        words += ["-ngl", str(overrides.gpu_layers)]
    if overrides.kv_type:
        words += ["-ctk", overrides.kv_type, "-ctv", overrides.kv_type]
    if overrides.micro_batch:
        words += ["-ub", str(overrides.micro_batch)]
    if choice.rpc:  # prompts that are kept in RAM make it abort once a machine is gone
        words += ["--rpc", ",".join(choice.rpc), "--cache-ram", "0"]
    command = EngineCommand(
        program.engine, (*words, *choice.arguments), activity=("/slots", ""), computes_here=not choice.rpc
    )
    exact = replace(overrides, context=context, slots=slots, least=0)
    notes = ["--rpc: no key and no encryption on the way; for a network of your own"] if choice.rpc else []
    return OwnedModel(
        name,
        context,
        slots,
        program,
        command,
        room_fault=lambda: None if choice.rpc else _room_fault(name, facts, exact, program),
        path=resolved.file.path,
        known=resolved.known,
        template=request.template,
        note="; ".join(notes),
        forced=overrides.force,
    )


def _machine(program: EngineProgram, overrides: LoadOverrides) -> Machine:
    """Return this machine as the program can use it: by the backends whose libraries it has."""
    machine = probe(measure=False, sources=ProbeSources(libraries=lambda: program.libraries))
    return select_devices(machine, overrides.devices, overrides.reserve)


def _room_fault(name: str, facts: FileFacts, overrides: LoadOverrides, program: EngineProgram) -> HermesError | None:
    fits = computed_plan(facts, _machine(program, overrides), replace(overrides, force=False))
    return None if fits else _no_room(name, overrides)


def _no_room(name: str, overrides: LoadOverrides) -> DoesNotFitError:
    with_context = f" with a context of {overrides.context:,} tokens" if overrides.context else ""
    return DoesNotFitError(
        f"{name} does not fit into the memory of this machine{with_context}.",
        hint="take a shorter --context or a smaller quantization, end other programs, or load it even so: --force",
    )


def default_engine() -> EngineChoice | None:
    """Return the engine that takes the place of this program's own if that is not installed; None if none has to."""
    if find_spec("llama_cpp") is not None:
        return None
    try:
        find_program("llama-server")
    except NotFoundError:
        return None
    return EngineChoice("llama-server")


def engine_choice(
    name: str | None, command: str | None, arguments: Sequence[str], rpc: str | None
) -> EngineChoice | None:
    """Return what the flags of a command choose; None for the engine of this program.

    Where llama-cpp-python is not installed, llama-server takes its place if it is here.

    Raises:
        UsageError: a flag for engines that hermes starts is given without one, or the name is none.
    """
    if not name and not (command or arguments or rpc):
        return default_engine()
    if name in {None, "", "embedded", "llama.cpp"}:
        flags = {"--engine-command": command, "--engine-arg": arguments, "--rpc": rpc}
        if given := [flag for flag, value in flags.items() if value]:
            raise UsageError(
                f"{' and '.join(given)}: this is for an engine that hermes starts.",
                hint="name it: --engine llama-server",
            )
        return None
    hosts = tuple(host.strip() for host in (rpc or "").split(",") if host.strip())
    if wrong := next((host for host in hosts if not host.rpartition(":")[2].isdigit()), None):
        raise UsageError(
            f"--rpc {wrong} is no HOST:PORT.", hint="for example: --rpc 192.168.1.5:50052,192.168.1.6:50052"
        )
    return EngineChoice(engine_named(str(name)), command or "", tuple(arguments), hosts)
