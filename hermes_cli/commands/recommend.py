"""`hermes recommend`: which model, quantization and context fit, how fast and how good they are."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from hermes_cli.catalog.load import load_catalogue
from hermes_cli.commands.options import (
    AppleOption,
    CpuOnlyOption,
    GpuOption,
    JsonOption,
    NoColorOption,
    QuietOption,
    RamOption,
    VramOption,
    console_for,
    machine_for,
    one_line,
)
from hermes_cli.errors import DoesNotFitError, UsageError
from hermes_cli.planning.quality import Purpose
from hermes_cli.planning.recommend import (
    LOW_BITS,
    NEEDS,
    Alternative,
    Recommendation,
    RecommendOptions,
    alternatives,
    recommendations,
    smallest_variant,
)
from hermes_cli.units import gibibytes

if TYPE_CHECKING:
    from hermes_cli.catalog.models import Catalogue
    from hermes_cli.console import Console
    from hermes_cli.hardware.machine import Machine
    from hermes_cli.planning.speed import Speed

PURPOSES: tuple[Purpose, ...] = get_args(Purpose)
BAR = 40  # characters
TITLES = ("", "VARIANT", "CONTEXT", "MEMORY", "TOKENS/S", "QUALITY")


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
    catalogue = load_catalogue()
    wish = RecommendOptions(meant, context, min_speed)
    found = recommendations(catalogue, machine, wish)
    console.text(f"{one_line(machine)}\n\n")
    if not found:
        console.document(_document(machine, wish, found, []))
        raise nothing_fits(catalogue, machine, wish)
    others = alternatives(found, catalogue, machine, wish)
    console.document(_document(machine, wish, found, others))
    _show_pick(found[0], console)
    rows = [Alternative("", one) for one in found[1:]] if every else others
    if rows:
        console.text("\n")
        table = [_row(one) for one in (Alternative("pick", found[0]), *rows)]
        console.table(TITLES, table, right=TITLES[2:])
    if explain:
        _explain(found[0], wish, console)


def _show_pick(pick: Recommendation, console: Console) -> None:
    total = pick.placement.total
    console.text(f"{pick.variant.name}: {_why(pick)}\n")
    console.text(f"  {_bar(pick)}\n")
    console.text(
        f"  {pick.settings.context:,} tokens of context{_kv_note(pick)}, {gibibytes(total.total)} of memory, computed\n"
        f"  writes {_speed(pick.speed)}, reads {_speed(pick.prefill)} (docs/speed.md)\n"
        f"  quality {pick.quality.points:.1f} points (docs/quality.md)\n"
    )
    if (pick.variant.bits_per_weight or LOW_BITS) < LOW_BITS:
        console.warn("below 3 bits per weight answers suffer visibly; a smaller model may serve better.")
    if pick.by_yarn:
        console.warn(_yarn_note(pick))
    console.text(f"  {_next(pick)}\n")


def _speed(speed: Speed) -> str:
    low, high = _two_digits(speed.low), _two_digits(speed.high)
    return f"{_two_digits(speed.expected)} tokens/s ({low} to {high}, {speed.source})"


def _two_digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"  # noqa: PLR2004


def _kv_note(pick: Recommendation) -> str:
    return "" if pick.settings.k_type == "f16" else f" (KV cache in {pick.settings.k_type})"


def _yarn_note(pick: Recommendation) -> str:
    context = pick.variant.model.context
    return (
        f"{pick.variant.model.name} was trained for {context.usable:,} tokens; beyond them it depends on YaRN, which "
        "its base model documents and this model was never trained with."
    )


def _next(pick: Recommendation) -> str:
    """The command that runs it as planned."""
    flags = [f"--context {pick.settings.context}"]
    if pick.settings.k_type != "f16":
        flags.append(f"--kv-type {pick.settings.k_type}")
    if pick.by_yarn:
        flags.append("--yarn")
    return " ".join(["hermes chat", pick.variant.name, *flags])


def _why(pick: Recommendation) -> str:
    model = pick.variant.model
    where = "on the CPU" if not pick.placement.gpu_layers else "all on the GPU"
    if 0 < pick.placement.gpu_layers <= model.architecture.layers:
        where = f"{pick.placement.gpu_layers} of {model.architecture.layers + 1} layers on the GPU, the rest on the CPU"
    return f"the best that fits, {model.name} at {pick.variant.bits_per_weight:.1f} bits per weight, {where}"


def _bar(pick: Recommendation) -> str:
    """Describe the memory by part, on the device that holds most of the model."""
    share = max(pick.placement.shares, key=lambda one: one.part.weights)
    part, room = share.part, max(share.room, share.part.total)
    rest = part.total - part.weights - part.kv_cache
    pieces = (
        ("weights", part.weights, "█"),
        ("KV cache", part.kv_cache, "▓"),
        ("compute", rest, "▒"),
        ("free", room - part.total, "░"),
    )
    drawn, filled = "", 0
    for _, size, mark in pieces:
        filled += size
        drawn += mark * (round(BAR * filled / room) - len(drawn))
    return f"{drawn} " + ", ".join(f"{mark} {label} {gibibytes(size)}" for label, size, mark in pieces)


def _row(one: Alternative) -> tuple[str, ...]:
    candidate = one.candidate
    return (
        one.label,
        candidate.variant.name,
        f"{candidate.settings.context:,}",
        gibibytes(candidate.placement.total.total),
        _two_digits(candidate.speed.expected),
        f"{candidate.quality.points:.1f}",
    )


def _explain(pick: Recommendation, wish: RecommendOptions, console: Console) -> None:
    part, costs, merit, need = pick.placement.total, pick.costs, pick.quality, NEEDS[wish.purpose]
    lines = (
        ("weights", gibibytes(part.weights), f"tensors of the file, by llama.cpp's mix of {pick.variant.quantization}"),
        ("KV cache", gibibytes(part.kv_cache), f"cells x KV heads x head length x layers x 2, {pick.settings.k_type}"),
        ("compute", gibibytes(part.compute), "llama.cpp's graph of one micro-batch, by the rules of its allocator"),
        ("output", gibibytes(part.output), "vocabulary x slots x 4 bytes"),
        ("overhead", gibibytes(part.overhead), "what backends usually take (assumed)"),
        (
            "writing",
            f"{_two_digits(pick.speed.expected)} tokens/s",
            "bytes read for a token over bandwidth (docs/speed.md)",
        ),
        (
            "reading",
            f"{_two_digits(pick.prefill.expected)} tokens/s",
            "operations of a token over operations per second",
        ),
        ("model", f"{merit.model:.1f} points", "published results, size and generation (docs/quality.md)"),
        ("quantization", _minus(merit.loss), "KL divergence from F16 on Llama 3 8B, scaled to this size"),
        ("context", _minus(costs.context), f"{need.points_per_halving:g} for each halving of {wish.wanted:,}"),
        ("KV type", _minus(costs.kv_type), "8 bits instead of 16 (assumed)"),
        ("slowness", _minus(costs.speed), f"below {need.comfortable:g} tokens/s"),
        ("leaving the GPU", _minus(costs.leaving_gpu), "layers that stay on the CPU"),
        ("no room", _minus(costs.no_room), "less than 8 % of the fullest place left free"),
        ("unusual", _minus(costs.unusual), "another quantization than Q4_K_M, which most people run"),
        ("score", f"{pick.score:.1f} points", "decides the order; only differences mean something"),
    )
    console.text("\n")
    console.table(("PART", "VALUE", "FROM"), lines, right=("VALUE",))


def _minus(points: float) -> str:
    return f"-{points:.1f} points" if points else "0 points"


def nothing_fits(catalogue: Catalogue, machine: Machine, wish: RecommendOptions) -> DoesNotFitError:
    """Nothing local fits: say what would, and who hosts these models."""
    hosted = [model.cloud.openrouter for model in catalogue.models if model.cloud.openrouter]
    speed = f" at {wish.min_speed:g} tokens/s" if wish.min_speed else ""
    would = smallest_variant(catalogue, wish)
    reach = f"{would[0].name} would, with {gibibytes(would[1])} of memory; " if would and not wish.min_speed else ""
    return DoesNotFitError(
        f"no Hermes model for {wish.purpose} with {wish.least:,} tokens of context{speed} fits this machine "
        f"({one_line(machine)}).",
        hint=f"{reach}ask for less (--context, --min-speed), or use a hosted one: {', '.join(hosted)} at OpenRouter.",
    )


def _document(
    machine: Machine, wish: RecommendOptions, found: list[Recommendation], others: list[Alternative]
) -> dict[str, Any]:
    return {
        "machine": one_line(machine),
        "simulated": machine.simulated,
        "purpose": wish.purpose,
        "pick": _candidate(found[0]) if found else None,
        "alternatives": [{"label": one.label or "other", **_candidate(one.candidate)} for one in others],
        "candidates": [_candidate(one) for one in found],
    }


def _candidate(one: Recommendation) -> dict[str, Any]:
    total = one.placement.total
    return {
        "name": one.variant.name,
        "repository": one.variant.repository.repo,
        "files": list(one.variant.files),
        "bytes": one.variant.bytes,
        "context_length": one.settings.context,
        "kv_type": one.settings.k_type,
        "yarn": one.by_yarn,
        "memory_bytes": total.total,
        "gpu_layers": one.placement.gpu_layers,
        "tokens_per_second": asdict(one.speed),
        "prefill_tokens_per_second": asdict(one.prefill),
        "quality_points": one.quality.points,
        "costs_points": asdict(one.costs),
        "score_points": one.score,
        "command": _next(one),
    }
