"""`hermes recommend`: its arguments. run_recommend.py does the work, so that completion need not import it."""

from __future__ import annotations

from typing import Annotated

import typer

from hermes_cli.commands.completing import models
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


@with_console
def command(
    console: Console,
    name: Annotated[
        str | None, argument("[NAME]", "Only this model, file.gguf, or owner/repository on the Hub.", models)
    ] = None,
    purpose: PurposeOption = "chat",
    context: Annotated[
        int | None,
        typer.Option(help="Context length that the model must have, in tokens.", **CONTEXT),
    ] = None,
    min_speed: Annotated[float | None, typer.Option(min=0.0, help="Tokens per second that it has to reach.")] = None,
    max_wait: Annotated[
        float | None,
        typer.Option(min=0.0, metavar="SECONDS", help="Time to the first token of a first prompt, at most."),
    ] = None,
    gpu_only: Annotated[bool, typer.Option("--gpu-only", help="Only what fits on the GPUs as a whole.")] = False,
    users: Annotated[int, typer.Option(min=1, max=100_000, help="People who use the model at once.")] = 1,
    every: Annotated[bool, typer.Option("--all", "-a", help="Everything that fits, not only a few.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Every number with its formula and source.")] = False,
    gpu: GpuOption = None,
    vram: VramOption = None,
    ram: RamOption = None,
    apple: AppleOption = None,
    cpu_only: CpuOnlyOption = False,
    devices: DevicesOption = None,
    reserve: ReserveOption = None,
) -> None:
    """Recommend a model, quantization and context for this machine, or for another one.

    hermes recommend

    hermes recommend --for agent --gpu 2x"RTX 3090"

    hermes recommend hermes-4:14b --vram 12G

    hermes recommend --gpu 8xH200 --users 64
    """
    from hermes_cli.commands.run_recommend import run_recommend
    from hermes_cli.planning.recommend import RecommendOptions

    machine = machine_for(gpu, vram, ram, apple, cpu_only=cpu_only, devices=devices, reserve=reserve)
    options = RecommendOptions(purpose_named(purpose), context, min_speed, max_wait, gpu_only, users=users)
    run_recommend(name, machine, options, console, every=every, explain=explain)
