"""`hermes plan`: the memory that one variant takes, part by part, before anything is downloaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, get_args

import typer

from hermes_cli.commands.completing import models, one_of
from hermes_cli.commands.options import (
    CONTEXT,
    AppleOption,
    CpuOnlyOption,
    DevicesOption,
    GpuOption,
    PurposeOption,
    RamOption,
    ReserveOption,
    VramOption,
    argument,
    machine_for,
    purpose_named,
    with_console,
)
from hermes_cli.console import Console
from hermes_cli.errors import UsageError
from hermes_cli.gguf.types import KV_TYPES
from hermes_cli.planning.launch_files import FILE_KINDS
from hermes_cli.planning.launch_plan import EngineKvType, EngineName

ENGINES: tuple[EngineName, ...] = get_args(EngineName)
ENGINE_KV_TYPES: tuple[EngineKvType, ...] = get_args(EngineKvType)
TensorOption = Annotated[int | None, typer.Option("--tensor-parallel", min=1, help="GPUs that share each layer.")]
PipelineOption = Annotated[int | None, typer.Option("--pipeline-parallel", min=1, help="Stages that share the layers.")]
DataOption = Annotated[int | None, typer.Option("--data-parallel", min=1, help="Replicas of the model.")]


@with_console
def command(
    console: Console,
    name: Annotated[str, argument("NAME", "A model, a file.gguf, or owner/repository on the Hub.", models)],
    context: Annotated[
        int | None,
        typer.Option(
            help="Context length in tokens. Default: what chat takes, up to 16384.",
            **CONTEXT,
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

        hermes plan hermes-4:405b --engine vllm --gpu 8xH100 --write slurm
    """
    from hermes_cli.catalog.load import load_catalogue
    from hermes_cli.planning.launch_plan import LaunchOptions

    wanted_for = purpose_named(purpose)
    launch = LaunchOptions(
        nodes=nodes or 1, context=context, sequences=slots, tensor=tensor, pipeline=pipeline, data=data
    )
    if engine is not None or _is_for_engines(name):
        from hermes_cli.commands.plan_engine import WriteOptions, plan_engine

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
    from hermes_cli.commands.plan_memory import PlanOptions, plan_memory

    options = PlanOptions(context, kv_type or "f16", slots or 1, ubatch or 512, flash_attention, yarn)
    plan_memory(
        name,
        options,
        lambda: machine_for(gpu, vram, ram, apple, cpu_only=cpu_only, devices=devices, reserve=reserve),
        wanted_for,
        console,
    )


def _is_for_engines(name: str) -> bool:
    """Return whether a name means weights for vLLM and SGLang."""
    from hermes_cli.catalog.load import load_catalogue
    from hermes_cli.catalog.names import ModelNames, WeightsReference

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
