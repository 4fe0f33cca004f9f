"""`hermes plan`: the memory that one variant takes, part by part, before anything is downloaded."""

from __future__ import annotations

import shlex
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from hermes_cli.catalog.load import load_catalogue
from hermes_cli.catalog.names import CatalogueReference, HubReference, ModelNames, WeightsReference
from hermes_cli.catalog.variants import Variant, default_variant, matching_variants
from hermes_cli.commands.completing import models, one_of
from hermes_cli.commands.options import (
    AppleOption,
    CpuOnlyOption,
    DevicesOption,
    GpuOption,
    PurposeOption,
    RamOption,
    ReserveOption,
    VramOption,
    context_length,
    kv_type_named,
    machine_for,
    memory_in_use,
    one_line,
    purpose_named,
    with_console,
)
from hermes_cli.commands.plan_engine import WriteOptions, plan_engine
from hermes_cli.commands.speeds import speed_document, speed_lines
from hermes_cli.console import Console
from hermes_cli.errors import NotFoundError, UsageError
from hermes_cli.gguf.types import KV_TYPES
from hermes_cli.models.any_model import measured, memory_source, open_variant
from hermes_cli.planning.best_placement import NEEDS, best_placement
from hermes_cli.planning.launch_files import FILE_KINDS
from hermes_cli.planning.launch_plan import EngineKvType, EngineName
from hermes_cli.planning.launch_planner import LaunchOptions
from hermes_cli.planning.measured import corrected
from hermes_cli.planning.memory import ContextSettings, weights
from hermes_cli.planning.placement import DeviceShare, Placement
from hermes_cli.planning.speed import PROMPTS, decode_speed, first_token_seconds, prefill_speed
from hermes_cli.store.benchmarks import speed_ratios
from hermes_cli.units import GB, memory_size

if TYPE_CHECKING:
    from hermes_cli.hardware.machine import Machine

PARTS = ("weights", "kv_cache", "compute", "output", "overhead", "total")
ENGINES: tuple[EngineName, ...] = get_args(EngineName)
ENGINE_KV_TYPES: tuple[EngineKvType, ...] = get_args(EngineKvType)
TensorOption = Annotated[int | None, typer.Option("--tensor-parallel", min=1, help="GPUs that share each layer.")]
PipelineOption = Annotated[int | None, typer.Option("--pipeline-parallel", min=1, help="Stages that share the layers.")]
DataOption = Annotated[int | None, typer.Option("--data-parallel", min=1, help="Replicas of the model.")]


@with_console
def command(
    console: Console,
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="A model, a file.gguf, or owner/repository on the Hub.", autocompletion=models
        ),
    ],
    context: Annotated[
        int | None,
        typer.Option(
            parser=context_length,
            metavar="TOKENS",
            help="Context length in tokens. Default: what chat takes, up to 16384.",
        ),
    ] = None,
    yarn: Annotated[bool, typer.Option("--yarn", help="Allow the longer context that YaRN gives.")] = False,
    kv_type: Annotated[
        str | None,
        typer.Option(
            help=f"Type of the KV cache: {', '.join(KV_TYPES)}; of vLLM and SGLang auto, fp8. Default: f16.",
            autocompletion=one_of(*KV_TYPES, *ENGINE_KV_TYPES),
        ),
    ] = None,
    slots: Annotated[
        int | None, typer.Option(min=1, max=4096, help="Requests at once; in llama.cpp they share the context.")
    ] = None,
    ubatch: Annotated[int | None, typer.Option(min=1, max=65536, help="Tokens in one pass (micro-batch): 512.")] = None,
    flash_attention: Annotated[bool, typer.Option(help="Fused attention, as llama.cpp does by default.")] = True,
    purpose: PurposeOption = "chat",
    gpu: GpuOption = None,
    vram: VramOption = None,
    ram: RamOption = None,
    apple: AppleOption = None,
    cpu_only: CpuOnlyOption = False,
    devices: DevicesOption = None,
    reserve: ReserveOption = None,
    engine: Annotated[
        str | None,
        typer.Option(
            help=f"Plan for another engine than llama.cpp: {', '.join(ENGINES)}.", autocompletion=one_of(*ENGINES)
        ),
    ] = None,
    nodes: Annotated[int | None, typer.Option(min=1, help="Machines of this kind, for vLLM and SGLang.")] = None,
    tensor: TensorOption = None,
    pipeline: PipelineOption = None,
    data: DataOption = None,
    write: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help=f"Write the file that starts it: {', '.join(FILE_KINDS)}.",
            autocompletion=one_of(*FILE_KINDS),
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to; - is standard output.", show_default=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Show the memory that a model takes, part by part, where its layers go, and how fast it is.

    Computed as llama.cpp allocates it; nothing is loaded. Of a repository that is not in the catalogue only the header
    of a file is fetched, a few MB. With --engine: how vLLM or SGLang runs it on the GPUs of one machine or several, and
    with which command.

        hermes plan hermes-3:8b:Q4_K_M --context 32768 --gpu "RTX 3060 12GB"

        hermes plan hermes-4:405b --engine vllm --gpu 8xH100 --nodes 2 --write slurm
    """
    wanted_for = purpose_named(purpose)
    launch = LaunchOptions(
        nodes=nodes or 1, context=context, sequences=slots, tensor=tensor, pipeline=pipeline, data=data
    )
    if engine is not None or _is_for_engines(name):
        own = {"--yarn": yarn, "--ubatch": ubatch is not None, "--no-flash-attention": not flash_attention}
        _check_flags(own, f"{engine or 'vllm'} has nothing like it")
        launch = replace(launch, engine=_engine_named(engine or "vllm"), kv_type=_engine_kv_type(kv_type))
        machine = machine_for(gpu, vram, ram, apple, cpu_only=cpu_only, devices=devices, reserve=reserve)
        to_write = WriteOptions(write, output, force) if write else None
        plan_engine(name, load_catalogue(), machine, launch, wanted_for, to_write, console)
        return
    sizes = {"--tensor-parallel": tensor, "--pipeline-parallel": pipeline, "--data-parallel": data}
    given = {"--nodes": nodes, **sizes, "--write": write, "--output": output}
    _check_flags({flag: value is not None for flag, value in given.items()}, "llama.cpp has nothing like it")
    with console.working(f"reading what {name} needs"):
        variant = _variant(name)
        settings = _settings(
            variant,
            context,
            kv_type or "f16",
            slots or 1,
            ubatch or 512,
            flash_attention=flash_attention,
            yarn=yarn,
        )
        variant = measured(variant, [settings])
    machine = machine_for(gpu, vram, ram, apple, cpu_only=cpu_only, devices=devices, reserve=reserve)
    table = weights(variant.model.architecture, variant.quantization, imatrix=variant.repository.imatrix)
    architecture = variant.model.architecture
    placement = best_placement(architecture, variant.quantization, table, settings, machine, purpose=wanted_for)
    ratios = speed_ratios(machine)
    prefill = prefill_speed(architecture, table, settings, placement, machine)
    prefill = corrected(prefill, "prefill", variant.name, placement, ratios)
    filled = PROMPTS[wanted_for].filled
    decode = decode_speed(architecture, variant.quantization, table, settings, placement, machine, filled)
    decode = corrected(decode, "decode", variant.name, placement, ratios)
    first_token = first_token_seconds(PROMPTS[wanted_for], prefill, settings.context)
    _show(variant, settings, placement, machine, console)
    console.text("\n")
    for line in speed_lines(decode, prefill, first_token):
        console.prose(line, hanging="  ")
    console.document(
        {
            **_document(variant, settings, placement, machine),
            "tokens_per_second": speed_document(decode),
            "prefill_tokens_per_second": speed_document(prefill),
            "first_token_seconds": asdict(first_token),
        }
    )


def _is_for_engines(name: str) -> bool:
    """Return whether a name means weights for vLLM and SGLang."""
    return isinstance(ModelNames(load_catalogue()).parse(name), WeightsReference)


def _check_flags(flags: dict[str, bool], why: str) -> None:
    given = [flag for flag, is_given in flags.items() if is_given]
    if given:
        hint = "leave it out" if "llama" not in why else "say --engine vllm or --engine sglang, or leave it out"
        raise UsageError(f"{' and '.join(given)}: {why}.", hint=f"{hint}.")


def _engine_named(text: str) -> EngineName:
    if found := next((name for name in ENGINES if name == text.lower()), None):
        return found
    raise UsageError(
        f"--engine {text} is unknown.", hint=f"choose one of: {', '.join(ENGINES)}; without it llama.cpp is planned."
    )


def _engine_kv_type(text: str | None) -> EngineKvType | None:
    """Return the type of the KV cache in vLLM's words; F16 and BF16 are `auto` there."""
    words: dict[str, EngineKvType] = {"auto": "auto", "f16": "auto", "bf16": "auto", "fp8": "fp8"}
    if text is None:
        return None
    if text.lower() not in words:
        raise UsageError(f"--kv-type {text}: vLLM and SGLang have no such type.", hint="choose auto or fp8.")
    return words[text.lower()]


def _variant(name: str) -> Variant:
    catalogue = load_catalogue()
    wanted = ModelNames(catalogue).parse(name)
    if not isinstance(wanted, CatalogueReference):
        return open_variant(wanted, name, catalogue)
    named = matching_variants(wanted.model, quantization=wanted.quantization, repository=wanted.repository)
    preferred = [] if wanted.quantization or wanted.repository else [default_variant(wanted.model)]
    known = [variant for variant in (*preferred, *named) if variant and variant.computed_bytes]
    if not known and named:  # its mix follows from no rule: the header tells
        return open_variant(HubReference(named[0].repository.repo, file=named[0].files[0]), name, catalogue)
    if not known:
        hint = f"see what there is: hermes show {shlex.quote(name)}"
        raise NotFoundError(f"no file of {name} is known whose memory can be computed.", hint=hint)
    return known[0]


def _settings(
    variant: Variant, context: int | None, kv_type: str, slots: int, ubatch: int, *, flash_attention: bool, yarn: bool
) -> ContextSettings:
    known = variant.model.context
    length = min(known.usable, NEEDS["chat"].wanted) if context is None else context
    if yarn and not known.yarn:
        raise UsageError(f"no source documents YaRN for {variant.model.short}.", hint="leave --yarn out.")
    longest = known.yarn.context if yarn and known.yarn else known.trained
    if length > longest:
        further = f", or --yarn for up to {known.yarn.context}" if known.yarn and not yarn else ""
        raise UsageError(
            f"--context {length:,} is longer than the {longest:,} tokens that {variant.model.short} can handle.",
            hint=f"use --context {longest} or less{further}.",
        )
    kind = kv_type_named(kv_type)
    if kind not in {"f32", "f16", "bf16"} and not flash_attention:
        raise UsageError(f"--kv-type {kind} needs flash attention.", hint="leave --no-flash-attention out.")
    return ContextSettings(length, slots, ubatch, kind, kind, flash_attention)


def _show(
    variant: Variant, settings: ContextSettings, placement: Placement, machine: Machine, console: Console
) -> None:
    console.prose(f"{variant.name} from {variant.repository.repo}", hanging="  ")
    slots = f", {settings.slots} slots" if settings.slots > 1 else ""
    console.prose(one_line(machine), hanging="  ")
    console.prose(f"{settings.context:,} tokens of context in {settings.k_type}{slots}; memory in GB\n")
    rows = [
        (
            _device_name(share, machine).removeprefix("GeForce ").removeprefix("Radeon "),
            f"{share.last - share.first}{'+out' if share.output else ''}",
            f"{share.part.total / GB:.2f}",
            f"{share.room / GB:.2f}",
            *(f"{getattr(share.part, part) / GB:.2f}" for part in PARTS[:-1]),
        )
        for share in placement.shares
        if share.part.total
    ]
    total = placement.total
    all_parts = (f"{getattr(total, part) / GB:.2f}" for part in PARTS[:-1])
    rows.append(("all", "", f"{total.total / GB:.2f}", "", *all_parts))
    titles = ("ON", "LAYERS", "TOTAL", "ROOM", "WEIGHTS", "KV CACHE", "COMPUTE", "OUTPUT", "OVERHEAD")
    console.table(titles, rows, right=titles[1:])
    for note in memory_in_use(machine):
        console.note(note)
    if placement.fits:
        how = "computed as llama.cpp allocates it" if memory_source(variant) == "rules" else "by llama.cpp's dry run"
        console.note(f"it fits · {how}; overhead is what a backend usually takes")
    else:
        short = max(share.part.total - share.room for share in placement.shares)
        console.warn(f"it does not fit: {memory_size(short)} are missing; what would: hermes recommend")


def _device_name(share: DeviceShare, machine: Machine) -> str:
    return "CPU" if share.device is None else machine.usable_devices[share.device].name


def _document(variant: Variant, settings: ContextSettings, placement: Placement, machine: Machine) -> dict[str, Any]:
    return {
        "name": variant.name,
        "repository": variant.repository.repo,
        "memory_from": memory_source(variant),
        "settings": asdict(settings),
        "fits": placement.fits,
        "gpu_layers": placement.gpu_layers,
        **{part: getattr(placement.total, part) for part in PARTS},
        "devices": [
            {
                "name": _device_name(share, machine),
                "layers": share.last - share.first,
                "holds_output": share.output,
                "room": share.room,
                **{part: getattr(share.part, part) for part in PARTS},
            }
            for share in placement.shares
        ],
        "simulated": machine.simulated,
    }
