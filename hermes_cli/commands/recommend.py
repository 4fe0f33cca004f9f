"""`hermes recommend`: which model, quantization and context fit, how fast and how good they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from hermes_cli.catalog.load import load
from hermes_cli.commands.machine import (
    AppleOption,
    CpuOnlyOption,
    GpuOption,
    RamOption,
    VramOption,
    gibibytes,
    machine_for,
    one_line,
)
from hermes_cli.commands.options import JsonOption, NoColorOption, QuietOption, console_for
from hermes_cli.errors import DoesNotFitError, UsageError
from hermes_cli.planning.quality import Purpose
from hermes_cli.planning.recommend import LOW_BITS, WANTED, Candidate, Wish, candidates

if TYPE_CHECKING:
    from hermes_cli.catalog.models import Catalogue
    from hermes_cli.console import Console
    from hermes_cli.hardware.machine import Machine

PURPOSES: tuple[Purpose, ...] = get_args(Purpose)
SHOWN = 6
BAR = 40  # characters
TITLES = ("", "VARIANT", "CONTEXT", "MEMORY", "TOKENS/S", "POINTS")


def command(
    purpose: Annotated[str, typer.Option("--for", help=f"What for: {', '.join(PURPOSES)}.")] = "chat",
    context: Annotated[int | None, typer.Option(min=64, help="Context length that it must have, in tokens.")] = None,
    min_speed: Annotated[float | None, typer.Option(min=0.0, help="Tokens per second that it must reach.")] = None,
    every: Annotated[bool, typer.Option("--all", "-a", help="Everything that fits, not only a few.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Every number with its formula and source.")] = False,
    gpu: GpuOption = None,
    vram: VramOption = None,
    ram: RamOption = None,
    apple: AppleOption = None,
    cpu_only: CpuOnlyOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    no_color: NoColorOption = False,
) -> None:
    """Recommend a model, quantization and context for this machine, or for another one.

    hermes recommend

    hermes recommend --for agent --gpu 2x"RTX 3090"
    """
    console = console_for(json=json, quiet=quiet, no_color=no_color)
    meant = next((one for one in PURPOSES if one == purpose.lower()), None)
    if meant is None:
        raise UsageError(f"--for {purpose} is unknown.", hint=f"choose one of: {', '.join(PURPOSES)}")
    machine = machine_for(gpu, vram, ram, apple, cpu_only=cpu_only)
    catalogue = load()
    wish = Wish(meant, context, min_speed)
    found = candidates(catalogue, machine, wish)
    console.document(_document(machine, wish, found))
    console.text(f"{one_line(machine)}\n\n")
    if not found:
        raise _nothing(catalogue, machine, wish)
    _show_pick(found[0], console)
    others = found[1:] if every else _alternatives(found)
    if others:
        console.text("\n")
        console.table(TITLES, [_row(label, one) for label, one in _labelled(found[0], others)], right=TITLES[2:])
    if explain:
        _explain(found[0], console)


def _show_pick(pick: Candidate, console: Console) -> None:
    total = pick.placement.total
    console.text(f"{pick.variant.name}: {_why(pick)}\n")
    console.text(f"  {_bar(pick)}\n")
    console.text(
        f"  {pick.settings.context:,} tokens of context, {pick.speed.expected:.0f} tokens/s expected "
        f"({pick.speed.low:.0f} to {pick.speed.high:.0f}, {pick.speed.source}), {gibibytes(total.total)} of memory\n"
    )
    if (pick.variant.bits_per_weight or LOW_BITS) < LOW_BITS:
        console.warn("below 3 bits per weight answers suffer visibly; a smaller model may serve better.")
    console.text(f"  hermes chat {pick.variant.name}\n")


def _why(pick: Candidate) -> str:
    model = pick.variant.model
    where = "on the CPU" if not pick.placement.gpu_layers else "all on the GPU"
    if 0 < pick.placement.gpu_layers <= model.architecture.layers:
        where = f"{pick.placement.gpu_layers} of {model.architecture.layers + 1} layers on the GPU, the rest on the CPU"
    return f"the best that fits, {model.name} at {pick.variant.bits_per_weight:.1f} bits per weight, {where}"


def _bar(pick: Candidate) -> str:
    """Where memory goes, on the place that holds most of the model."""
    share = max(pick.placement.shares, key=lambda one: one.part.weights)
    part, room = share.part, max(share.room, share.part.total)
    rest = part.total - part.weights - part.kv_cache
    pieces = (
        ("weights", part.weights, "█"),
        ("KV cache", part.kv_cache, "▓"),
        ("compute", rest, "▒"),
        ("free", room - part.total, "░"),
    )
    drawn = "".join(mark * round(BAR * size / room) for _, size, mark in pieces)
    return f"{drawn} " + ", ".join(f"{mark} {label} {gibibytes(size)}" for label, size, mark in pieces)


def _alternatives(found: list[Candidate]) -> list[Candidate]:
    """The best of a few other models: one each, faster or larger than the pick."""
    seen = {found[0].variant.model.id}
    chosen: list[Candidate] = []
    for one in found[1:]:
        if one.variant.model.id not in seen and len(chosen) < SHOWN:
            seen.add(one.variant.model.id)
            chosen.append(one)
    return chosen


def _labelled(pick: Candidate, others: list[Candidate]) -> list[tuple[str, Candidate]]:
    def label(one: Candidate) -> str:
        faster = one.speed.expected > pick.speed.expected
        longer = one.settings.context > pick.settings.context
        larger = one.variant.model.parameters > pick.variant.model.parameters
        if longer:
            return "longer context"
        if faster:
            return "faster"
        return "larger" if larger else ""

    return [("pick", pick), *((label(one), one) for one in others)]


def _row(label: str, one: Candidate) -> tuple[str, ...]:
    return (
        label,
        one.variant.name,
        f"{one.settings.context:,}",
        gibibytes(one.placement.total.total),
        f"{one.speed.expected:.0f}",
        f"{one.score:.1f}",
    )


def _explain(pick: Candidate, console: Console) -> None:
    part = pick.placement.total
    lines = (
        ("weights", gibibytes(part.weights), f"tensors of the file, by llama.cpp's mix of {pick.variant.quantization}"),
        ("KV cache", gibibytes(part.kv_cache), f"cells x KV heads x head length x layers x 2, {pick.settings.k_type}"),
        ("compute", gibibytes(part.compute), "llama.cpp's graph of one micro-batch, by the rules of its allocator"),
        ("output", gibibytes(part.output), "vocabulary x slots x 4 bytes"),
        ("overhead", gibibytes(part.overhead), "what backends usually take (assumed)"),
        ("speed", f"{pick.speed.expected:.1f} tokens/s", "bytes read for a token over bandwidth (docs/speed.md)"),
        (
            "points",
            f"{pick.score:.1f}",
            f"{pick.merit.model:.1f} for the model, less {pick.merit.loss:.1f} for its bits",
        ),
        ("", "", "and what a short context, slowness or leaving the GPU cost (docs/quality.md)"),
    )
    console.text("\n")
    console.table(("PART", "VALUE", "FROM"), lines, right=("VALUE",))


def _nothing(catalogue: Catalogue, machine: Machine, wish: Wish) -> DoesNotFitError:
    """Nothing local fits: say what would be needed, and who hosts these models."""
    hosted = [model.cloud.openrouter for model in catalogue.models if model.cloud.openrouter]
    wanted = wish.context or WANTED[wish.purpose][1]
    speed = f" at {wish.min_speed:g} tokens/s" if wish.min_speed else ""
    return DoesNotFitError(
        f"no Hermes model for {wish.purpose} with {wanted:,} tokens of context{speed} fits {one_line(machine)}.",
        hint=f"ask for less (--context, --min-speed), or use a hosted one: {', '.join(hosted)} at OpenRouter.",
    )


def _document(machine: Machine, wish: Wish, found: list[Candidate]) -> dict[str, Any]:
    return {
        "machine": one_line(machine),
        "simulated": machine.simulated,
        "purpose": wish.purpose,
        "pick": _candidate(found[0]) if found else None,
        "candidates": [_candidate(one) for one in found],
    }


def _candidate(one: Candidate) -> dict[str, Any]:
    total = one.placement.total
    return {
        "name": one.variant.name,
        "repository": one.variant.repository.repo,
        "files": list(one.variant.files),
        "bytes": one.variant.bytes,
        "context_length": one.settings.context,
        "memory_bytes": total.total,
        "gpu_layers": one.placement.gpu_layers,
        "tokens_per_second": {"expected": one.speed.expected, "low": one.speed.low, "high": one.speed.high},
        "points": one.score,
    }
