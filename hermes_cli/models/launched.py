"""Models for vLLM and SGLang on this machine: their weights on this disk, and the command that a launch plan makes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hermes_cli import paths
from hermes_cli.catalog.engine_weights import engine_weights
from hermes_cli.catalog.names import (
    ANY_WEIGHTS,
    CatalogueReference,
    DemoReference,
    FileReference,
    ModelNames,
    ModelReference,
    WeightsReference,
)
from hermes_cli.engine.upstream.dialect import ACTIVITY
from hermes_cli.engine.upstream.engine_process import EngineCommand
from hermes_cli.engine.upstream.tokenizer_files import config_number
from hermes_cli.errors import IntegrityError, NotFoundError, NotInstalledError, UsageError
from hermes_cli.hardware.probe import probe
from hermes_cli.models.any_weights import weights_in_folder
from hermes_cli.models.owned import OwnedModel
from hermes_cli.planning.launch_plan import ENGINE_TITLES, MASTER_PORT, GpuMemory, LaunchOptions, LaunchPlan
from hermes_cli.planning.launch_planner import best_launch, plan_launch
from hermes_cli.store.weights import installed_weights, read_weight_folder

if TYPE_CHECKING:
    from hermes_cli.catalog.models import CatalogModel, Catalogue
    from hermes_cli.engine.upstream.programs import EngineProgram
    from hermes_cli.hardware.machine import Machine
    from hermes_cli.models.resolve import EngineChoice, ModelRequest
    from hermes_cli.planning.launch_plan import EngineName

CPU_CONTEXT, CPU_SEQUENCES = 4096, 64  # where there is no GPU, which is for tries
CPU_SHARE = 0.6  # of the free RAM that vLLM may use there
CPU_KV_CACHE = 1 << 30  # bytes
GRACE = 15.0  # seconds from SIGTERM to SIGKILL


def launched(request: ModelRequest, choice: EngineChoice, program: EngineProgram, catalogue: Catalogue) -> OwnedModel:
    """Plan a model for an engine on this machine.

    Raises:
        NotInstalledError: its weights are not on this disk.
        UsageError: it has no weights for these engines, or a setting makes no sense there.
        DoesNotFitError: the GPUs do not hold it.
    """
    engine: EngineName = "sglang" if program.engine == "sglang" else "vllm"
    if request.overrides.kv_type:
        raise UsageError(
            f"--kv-type is for llama.cpp; {ENGINE_TITLES[engine]} has types of its own.",
            hint="for example: --engine-arg=--kv-cache-dtype --engine-arg=fp8",
        )
    machine, overrides = _machine(), request.overrides
    sequences = overrides.slots if overrides.slots > 1 else None
    options = LaunchOptions(engine, context=overrides.context, sequences=sequences)
    name, known, plan, notes = _planned(ModelNames(catalogue).parse(request.name), request.name, machine, options)
    if not machine.devices:
        plan = _on_cpu(plan, machine)
        notes = (*notes, f"there is no GPU: {ENGINE_TITLES[engine]} on a CPU is for tries")
    plan = replace(plan, more=choice.arguments)
    return OwnedModel(
        name=name,
        context=plan.context or _trained_context(plan),  # at most so many where the engine decides
        slots=plan.sequences or 1,
        program=program,
        command=command_of(plan, program.words),
        known=known,
        template=request.template,
        note="; ".join(notes),
        forced=overrides.force,
    )


def _planned(
    reference: ModelReference, typed: str, machine: Machine, options: LaunchOptions
) -> tuple[str, CatalogModel | None, LaunchPlan, tuple[str, ...]]:
    """Return the name of a model, the model of the catalogue if it is one, its plan with a folder, and remarks."""
    engine = options.engine
    plain = LaunchPlan(engine, "", "", context=options.context, sequences=options.sequences)
    if isinstance(reference, FileReference):
        folder, name = _local(reference.path, engine), reference.path.resolve().name
        plan, notes = _plan_of_folder(folder, name, plain, machine, options)
        return name, None, plan, notes
    if isinstance(reference, WeightsReference) and reference.weights is None:
        folder, name = _installed(reference.repo, reference.name), reference.repo.partition("/")[2]
        plan, notes = _plan_of_folder(folder, name, plain, machine, options)
        return name, None, plan, notes
    if isinstance(reference, WeightsReference) and reference.weights:
        model, weights = reference.weights.model, [reference.weights]
    elif isinstance(reference, CatalogueReference):
        model = reference.model
        weights = [weights for weights in engine_weights(model) if installed_weights(weights.repo)]
    else:
        raise _no_weights(reference, typed, engine)
    if machine.devices:
        launch = plan_launch(weights[0], machine, options) if weights else best_launch(model, machine, options)
        chosen, plan, notes = launch.weights, launch.plan, launch.notes
    else:
        chosen, plan, notes = (weights or list(engine_weights(model)))[0], plain, ()
    folder = _installed(chosen.repo, chosen.name)
    return model.short, model, replace(plan, repo=str(folder), name=model.short), notes


def _plan_of_folder(
    folder: Path, name: str, plain: LaunchPlan, machine: Machine, options: LaunchOptions
) -> tuple[LaunchPlan, tuple[str, ...]]:
    """Return the plan of a folder that no catalogue lists; one GPU where its memory cannot be computed."""
    plain = replace(plain, repo=str(folder), name=name)
    if not machine.devices:
        return plain, ()
    try:
        weights = weights_in_folder(folder, name)
    except (UsageError, IntegrityError) as error:
        return plain, (error.message,)
    launch = plan_launch(weights, machine, options)
    return replace(launch.plan, repo=str(folder), name=name), launch.notes


def command_of(plan: LaunchPlan, program: Sequence[str]) -> EngineCommand:
    """Return the command of a plan for one node, on a private socket or a port of loopback."""
    words = plan.argv(socket="{socket}", port="{port}", program=program)
    meeting = _meeting(words)
    environment = dict(plan.environment(run_folder="{folder}"))
    if meeting:
        environment.pop("VLLM_HOST_IP", None)  # the user's own counts: other nodes do not reach loopback
    return EngineCommand(
        plan.engine, tuple(words), environment, activity=ACTIVITY[plan.engine], grace=GRACE, meeting=meeting
    )


def _meeting(words: Sequence[str]) -> str:
    """Return the address at which nodes meet, of a command for several; empty for one node."""
    pairs = [word.split("=", 1) for word in words if "=" in word]
    given = dict([*itertools.pairwise(words), *((pair[0], pair[1]) for pair in pairs)])
    if given.get("--nnodes", "1") == "1":
        return ""
    host = given.get("--master-addr", "127.0.0.1")
    return given.get("--dist-init-addr", f"{host}:{given.get('--master-port', MASTER_PORT)}")


def _machine() -> Machine:
    """Return this machine with the GPUs that there are, whatever llama.cpp was built for."""
    machine = probe(measure=False)
    gpus = [device for device in machine.devices if device.vendor in {"nvidia", "amd"}]
    return replace(machine, devices=tuple(replace(device, usable=True) for device in gpus))


def _trained_context(plan: LaunchPlan) -> int:
    """Return the tokens that a model was trained for; 0 if its config does not say."""
    return config_number(Path(plan.repo), "max_position_embeddings") or 0


def _on_cpu(plan: LaunchPlan, machine: Machine) -> LaunchPlan:
    share = round(CPU_SHARE * machine.ram_available / machine.ram_total, 2)
    return replace(
        plan,
        device="cpu",
        context=plan.context or min(CPU_CONTEXT, _trained_context(plan) or CPU_CONTEXT),
        sequences=plan.sequences or CPU_SEQUENCES,
        utilization=share,
        memory=GpuMemory(kv_cache=CPU_KV_CACHE),
    )


def _local(path: Path, engine: EngineName) -> Path:
    if not paths.is_dir(path):
        if not path.exists():
            raise NotFoundError(f"there is no folder {path}.", hint="check the path.")
        raise UsageError(
            f"{path.name} is a file for llama.cpp; {ENGINE_TITLES[engine]} loads a folder of safetensors.",
            hint="leave --engine out, or take --engine llama-server.",
        )
    folder = read_weight_folder(path)
    if folder is None or not folder.is_whole:
        raise UsageError(
            f"{path} has not the files of a model: config.json, a tokenizer and all safetensors.",
            hint="give the folder of a whole repository.",
        )
    return path.resolve()


def _installed(repo: str, name: str) -> Path:
    if folder := installed_weights(repo):
        return folder
    raise NotInstalledError(f"{name} is not on this machine.", pull=name)


def _no_weights(reference: ModelReference, typed: str, engine: EngineName) -> UsageError:
    if isinstance(reference, DemoReference):
        return UsageError(
            f"the demo model is a GGUF file, which {ENGINE_TITLES[engine]} does not load.",
            hint="try it with --engine llama-server, or name a folder of safetensors.",
        )
    return UsageError(
        f"{typed} is not a model with weights for {ENGINE_TITLES[engine]} that is known.",
        hint=f"if it has safetensors: hermes pull {typed.partition(':')[0]}@{ANY_WEIGHTS}",
    )
