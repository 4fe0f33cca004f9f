"""Models in engines that hermes starts itself, and the command of llama-server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hermes_cli.catalog.models import Catalogue
from hermes_cli.engine.protocol import Engine
from hermes_cli.engine.upstream.engine_log import part_loaded
from hermes_cli.engine.upstream.engine_process import EngineCommand
from hermes_cli.engine.upstream.programs import EngineProgram
from hermes_cli.errors import DoesNotFitError, HermesError
from hermes_cli.hardware.probe import ProbeSources, probe
from hermes_cli.hardware.selection import select_devices
from hermes_cli.models.resolve import EngineChoice, ModelRequest, resolve
from hermes_cli.models.servable import ServableModel
from hermes_cli.planning.load_plan import LoadOverrides
from hermes_cli.planning.memory import facts_of
from hermes_cli.planning.planner import computed_plan
from hermes_cli.prompting.markers import TAGS as PROMPT_TAGS
from hermes_cli.prompting.turn_grammar import TAGS

if TYPE_CHECKING:
    from hermes_cli.engine.embedded.child import Child
    from hermes_cli.hardware.machine import Machine
    from hermes_cli.planning.memory import FileFacts


@dataclass(frozen=True, kw_only=True)
class OwnedModel(ServableModel):
    """A model in an engine that hermes starts."""

    program: EngineProgram  # what is started
    command: EngineCommand  # its words, with the model
    # returns the error if there is too little memory now; none where the engine plans its memory itself
    room_fault: Callable[[], HermesError | None] = lambda: None

    @property
    def details(self) -> dict[str, Any]:
        """Return its fields for `--json`."""
        return {"engine": self.program.engine}

    def engine(
        self,
        *,
        verbose: bool = False,  # noqa: ARG002 - its log is in a file
        progress: Callable[[float], None] = lambda _: None,
        note: Callable[[str], None] = lambda _: None,
        child: Child | None = None,  # noqa: ARG002 - no process of ours works for it
    ) -> Engine:
        """Make the engine; it starts when it is asked to load."""
        from hermes_cli.engine.upstream.supervised_engine import SupervisedEngine  # noqa: PLC0415 - HTTP

        def report(line: str) -> None:
            if (part := part_loaded(line)) is not None:
                progress(part)

        return SupervisedEngine(self.command, tags=TAGS, texts=PROMPT_TAGS, report=report, note=note)

    def memory_fault(self) -> HermesError | None:
        """Return the error if there is too little memory now."""
        return self.room_fault()


def owned_by_llama_server(
    request: ModelRequest, choice: EngineChoice, program: EngineProgram, catalogue: Catalogue
) -> OwnedModel:
    """Return the model of a request in llama-server; the errors are those of `engine_choice.own`."""
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
        name=name,
        context=context,
        slots=slots,
        program=program,
        command=command,
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
