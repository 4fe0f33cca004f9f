"""`hermes plan --engine`: how vLLM or SGLang runs a model on a machine, the commands, and the files that start it."""

from __future__ import annotations

import shlex
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hermes_cli.catalog.names import CatalogueReference, FileReference, HubReference, ModelNames, WeightsReference
from hermes_cli.commands.options import gpu_notes, one_line
from hermes_cli.commands.speeds import per_second, speed_document, two_digits
from hermes_cli.errors import HermesError, NotFoundError, UsageError
from hermes_cli.planning.launch_files import FILE_KINDS, launch_file, shell_line
from hermes_cli.planning.launch_plan import ENGINE_TITLES
from hermes_cli.planning.launch_planner import Launch, best_launch, plan_launch
from hermes_cli.planning.launch_speed import batch_speed
from hermes_cli.planning.speed import PROMPTS
from hermes_cli.units import GB, counted, gigabytes

if TYPE_CHECKING:
    from hermes_cli.catalog.engine_weights import EngineWeights
    from hermes_cli.catalog.models import Catalogue
    from hermes_cli.catalog.names import ModelReference
    from hermes_cli.console import Console
    from hermes_cli.hardware.machine import Machine
    from hermes_cli.planning.launch_plan import LaunchOptions
    from hermes_cli.planning.quality import Purpose

PARTS = ("weights", "kv_cache", "activations", "logits", "graphs", "context", "communication")
SHOWN_REQUESTS = 32  # at once, if the user names no number
COMPUTED = "computed from vLLM's source; nothing of it was measured on a GPU"


@dataclass(frozen=True)
class WriteOptions:
    """The file to write: its kind, its path if not the usual one, and whether it may replace another."""

    kind: str
    path: Path | None
    force: bool


def plan_engine(
    name: str,
    catalogue: Catalogue,
    machine: Machine,
    options: LaunchOptions,
    purpose: Purpose,
    write: WriteOptions | None,
    console: Console,
) -> None:
    """Show how an engine runs a model, or write the file that starts it.

    Raises:
        UsageError: the name is not a model of the catalogue, or the GPUs cannot be used so.
        DoesNotFitError: it does not fit.
    """
    launch = _plan(name, catalogue, machine, options)
    if write:
        _write(launch, write, console)
        return
    requests = options.sequences or min(launch.plan.data * (launch.plan.sequences or 1), SHOWN_REQUESTS)
    filled = PROMPTS[purpose].filled
    speeds = [batch_speed(launch, count, filled) for count in dict.fromkeys((1, requests))]
    _show(launch, machine, console)
    for speed in speeds:
        each, low, high = speed.each.expected, two_digits(speed.each.low), two_digits(speed.each.high)
        together = f", {per_second(speed.all.expected)} together" if speed.requests > 1 else ""
        label = "one request" if speed.requests == 1 else f"{speed.requests} at once"
        console.prose(f"{label}: {per_second(each)} each ({low} to {high}){together}", hanging="  ")
    _show_commands(launch, console)
    for note in launch.notes:
        console.note(note)
    console.note(f"{COMPUTED}. If memory falls short, --max-model-len auto takes what there is.")
    plan = launch.plan
    if plan.nodes > 1:
        console.note(
            "VLLM_HOST_IP, GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME name the network between the nodes, which must be "
            f"closed to all others; files for a cluster: --write {'|'.join(FILE_KINDS)}"
        )
    console.document(
        {
            "name": launch.weights.name,
            "repository": plan.repo,
            "bytes": launch.weights.bytes,
            "engine": plan.engine,
            "nodes": plan.nodes,
            "gpus_per_node": len(launch.gpus),
            "tensor_parallel": plan.tensor,
            "pipeline_parallel": plan.pipeline,
            "data_parallel": plan.data,
            "context": plan.context,
            "sequences": plan.sequences,
            "kv_type": plan.kv_type,
            "kv_tokens": plan.kv_tokens,
            "memory": {**asdict(plan.memory), "total": plan.memory.total, "room": launch.room},
            "speeds": [
                {"requests": speed.requests, "each": speed_document(speed.each), "all": speed_document(speed.all)}
                for speed in speeds
            ],
            "measured": False,
            "commands": [plan.argv(rank, head="HEAD") for rank in range(plan.nodes)],
            "environment": dict(plan.environment()),
            "notes": list(launch.notes),
            "simulated": machine.simulated,
        }
    )


def _plan(name: str, catalogue: Catalogue, machine: Machine, options: LaunchOptions) -> Launch:
    reference = ModelNames(catalogue).parse(name)
    if isinstance(reference, WeightsReference) and reference.weights:
        return plan_launch(reference.weights, machine, options)
    if isinstance(reference, CatalogueReference):
        if reference.quantization:
            raise UsageError(
                f"{name} is a GGUF file, which {ENGINE_TITLES[options.engine]} is not planned with.",
                hint=f"leave {reference.quantization} out, or name weights: {reference.model.short}@bf16",
            )
        return best_launch(reference.model, machine, options)
    return plan_launch(_unlisted(reference, name, options), machine, options)


def _unlisted(reference: ModelReference, name: str, options: LaunchOptions) -> EngineWeights:
    """Return the weights of a folder or of a repository that the catalogue does not list."""
    from hermes_cli.models.any_weights import weights_in_folder, weights_on_hub

    if isinstance(reference, FileReference) and not reference.path.exists():
        raise NotFoundError(f"there is no folder {reference.path}.", hint="check the path.")
    if isinstance(reference, FileReference) and reference.path.is_dir():
        return weights_in_folder(reference.path, reference.path.resolve().name)
    if isinstance(reference, WeightsReference):
        return weights_on_hub(reference.repo, reference.name)
    if isinstance(reference, HubReference) and reference.quantization is reference.file is None:
        return weights_on_hub(reference.repo, WeightsReference(reference.repo).name)
    raise UsageError(
        f"{name} is a GGUF file, which {ENGINE_TITLES[options.engine]} is not planned with.",
        hint="name a model of the catalogue, a folder of safetensors, or owner/repository@safetensors.",
    )


def _show(launch: Launch, machine: Machine, console: Console) -> None:
    plan, weights, memory = launch.plan, launch.weights, launch.plan.memory
    console.prose(f"{weights.name} from {weights.repo} ({gigabytes(weights.bytes)}) with {ENGINE_TITLES[plan.engine]}")
    nodes = f"{plan.nodes} nodes, each: " if plan.nodes > 1 else ""
    console.prose(f"{nodes}{one_line(machine)}", hanging="  ")
    console.text("\n")
    rows = [
        ("replicas (data parallel)", str(plan.data)),
        ("GPUs per replica", f"{plan.tensor * plan.pipeline}: tensor parallel {plan.tensor}, pipeline {plan.pipeline}"),
        ("longest request", f"{plan.context or 0:,} tokens"),
        ("KV cache per replica", f"{plan.kv_tokens:,} tokens in {'8 bits' if plan.kv_type == 'fp8' else '16 bits'}"),
        ("requests at once", f"{plan.sequences} per replica"),
    ]
    console.facts(rows)
    console.text("\n")
    sizes = [(part.replace("_", " ").replace("kv", "KV"), getattr(memory, part)) for part in PARTS]
    table = [(label, f"{size / GB:.2f}") for label, size in sizes if size]
    table += [("all", f"{memory.total / GB:.2f}"), ("left to others", f"{_rest(launch) / GB:.2f}")]
    console.table(("EACH GPU", "GB"), table, right=("GB",))
    console.text("\n")
    for note in gpu_notes(machine):
        console.note(note)


def _rest(launch: Launch) -> int:
    """Return the bytes of a GPU that the engine does not use."""
    return max(min(gpu.total for gpu in launch.gpus) - launch.plan.memory.total, 0)


def _show_commands(launch: Launch, console: Console) -> None:
    plan = launch.plan
    for rank in range(plan.nodes):
        console.text("\n")
        if plan.nodes > 1:
            console.text(f"node {rank}{', the head' if rank == 0 else ''}:\n")
        console.command(shell_line(plan.argv(rank, head="HEAD")))


def _write(launch: Launch, write: WriteOptions, console: Console) -> None:
    """Write the file that starts a plan; `-` is standard output."""
    kind = next((kind for kind in FILE_KINDS if kind == write.kind.lower()), None)
    if kind is None:
        raise UsageError(f"--write {write.kind} is unknown.", hint=f"choose one of: {', '.join(FILE_KINDS)}")
    if kind == "ray" and launch.plan.engine != "vllm":
        raise UsageError("--write ray: only vLLM runs in a Ray cluster.", hint="choose another kind, or --engine vllm.")
    made_by = shlex.join(["hermes", *sys.argv[1:]])
    file = launch_file(kind, launch.plan, gpus=len(launch.gpus), gpu=launch.gpus[0], made_by=made_by)
    path = write.path or Path(file.name)
    if str(path) == "-":
        console.text(file.text)
    else:
        try:
            with path.open("w" if write.force else "x", encoding="utf-8") as opened:
                opened.write(file.text)
        except FileExistsError:
            raise UsageError(f"{path} already exists.", hint="--force replaces it; --output names another.") from None
        except OSError as error:
            raise HermesError(f"{path} cannot be written: {error.strerror}.", hint="choose another --output.") from None
        console.text(f"{path}\n")
    for note in launch.notes:
        console.note(note)
    gpus = counted(len(launch.gpus), "GPU")
    console.note(f"{counted(launch.plan.nodes, 'node')} with {gpus}; start it: {file.start}")
    console.document({"path": str(path), "kind": kind, "start": file.start, "text": file.text})
