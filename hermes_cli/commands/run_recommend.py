"""Runs `hermes recommend`: which model, quantization and context fit, how fast and how good they are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from hermes_cli.catalog.load import load_catalogue
from hermes_cli.catalog.models import CatalogModel, Catalogue
from hermes_cli.catalog.names import CatalogueReference, ModelNames, WeightsReference
from hermes_cli.catalog.variants import only_named
from hermes_cli.commands.list import is_here, where_it_is
from hermes_cli.commands.options import gpu_notes, one_line
from hermes_cli.commands.speeds import duration, in_words, per_second, speed_document, two_digits
from hermes_cli.console import Console
from hermes_cli.errors import DoesNotFitError, UsageError
from hermes_cli.hardware.machine import Machine
from hermes_cli.planning.best_placement import NEEDS
from hermes_cli.planning.quality import Purpose
from hermes_cli.planning.recommend import (
    LOW_BITS,
    Alternative,
    Recommendation,
    RecommendOptions,
    Shortfall,
    alternatives,
    gpus_used,
    recommendations,
    shared_speed,
    shortfalls,
    smallest_variant,
)
from hermes_cli.store.benchmarks import speed_ratios
from hermes_cli.units import GB, memory_size

if TYPE_CHECKING:
    from hermes_cli.planning.recommend_engine import EngineRecommendation

BAR = 40  # characters
TITLES = ("", "VARIANT", "CONTEXT", "GB", "TOK/S", "WAIT", "POINTS")
PLURAL: dict[Purpose, str] = {"agent": "agents", "json": "JSON", "long-context": "long contexts"}


def run_recommend(
    name: str | None, machine: Machine, options: RecommendOptions, console: Console, *, every: bool, explain: bool
) -> None:
    """Show what fits a machine best, and alternatives to it; with `every` all that fits.

    Args:
        name: only this model, file or repository.
        machine: this one, or one that is simulated.
        options: what it is for, and what it must reach.
        console: shows it.
        every: show everything that fits, not only a few.
        explain: show every number with its formula and source.

    Raises:
        HermesError: nothing fits, or there is no such model.
    """
    catalogue = load_catalogue()
    options, users = replace(options, measured=speed_ratios(machine)), options.users
    if name is not None:
        with console.working(f"reading what {name} needs"):
            options = replace(options, only=_models(name, catalogue, machine, options))
    fitting = recommendations(catalogue, machine, options)
    others = alternatives(fitting, catalogue, machine, options) if fitting else []
    best = fitting[0] if fitting else None
    missing = shortfalls(best, options.purpose) if best else []
    engine = _engine_pick(name, catalogue, machine, options, best)
    console.prose(one_line(machine), hanging="  ")
    console.text("\n")
    for note in gpu_notes(machine):
        console.note(note)
    console.document(
        {
            "machine": one_line(machine),
            "simulated": machine.simulated,
            "purpose": options.purpose,
            "users": users,
            "engine": engine.launch.plan.engine if engine else "llama.cpp",
            "engine_pick": _engine_document(engine),
            "pick": _candidate(best) if best else None,
            "shortfalls": [asdict(shortfall) for shortfall in missing],
            "alternatives": [{"label": other.label or "other", **_candidate(other.candidate)} for other in others],
            "candidates": [_candidate(candidate) for candidate in fitting],
        }
    )
    if engine:
        from hermes_cli.commands.engine_pick import show_engine_pick

        show_engine_pick(engine, best, users, console, simulated=machine.simulated)
        if best is None:
            return
    if best is None:
        raise nothing_fits(catalogue, machine, options, name)
    _show_pick(best, users, console, alone=engine is None)
    _show_shortfalls(missing, options.purpose, console)
    listed = [Alternative("", candidate) for candidate in fitting[1:]] if every else others
    _show_table(best, listed, engine, console)
    if best.placement.gpu_layers <= best.variant.model.architecture.layers:
        for note in (note.text for note in machine.notes if note.about == "bandwidth"):
            console.note(note)
    if explain:
        _explain(best, options, console)


def _show_table(
    pick: Recommendation, listed: Sequence[Alternative], engine: EngineRecommendation | None, console: Console
) -> None:
    """Show the pick and the alternatives to it; on top what another engine runs better, if one does."""
    if not (listed or engine):
        return
    console.text("\n")
    rows: list[tuple[str, ...]] = [
        (
            alternative.label,
            alternative.candidate.variant.name,
            _context_cell(alternative.candidate),
            f"{alternative.candidate.placement.total.total / GB:.1f}",
            two_digits(alternative.candidate.speed.expected),
            duration(alternative.candidate.first_token.expected),
            f"{alternative.candidate.quality.points:.1f}" if alternative.candidate.variant.model.generation else "",
        )
        for alternative in (Alternative("on llama.cpp" if engine else "pick", pick), *listed)
    ]
    if engine:
        from hermes_cli.commands.engine_pick import engine_row

        rows.insert(0, engine_row(engine))
    console.table(TITLES, rows, right=TITLES[2:], optional=("POINTS",), styles=("bold green",))


def _engine_pick(
    name: str | None, catalogue: Catalogue, machine: Machine, options: RecommendOptions, pick: Recommendation | None
) -> EngineRecommendation | None:
    """Return what another engine than llama.cpp would run better; it is looked for where it could."""
    if options.users == 1 and len(machine.devices) < 2:  # noqa: PLR2004 - several
        return None
    from hermes_cli.planning.recommend_engine import engine_recommendation

    if name is not None:
        meant = ModelNames(catalogue).parse(name)
        if not isinstance(meant, CatalogueReference) or meant.quantization or meant.repository:
            return None  # it says the format
    return engine_recommendation(catalogue, machine, options, pick)


def _engine_document(pick: EngineRecommendation | None) -> dict[str, Any] | None:
    if pick is None:
        return None
    from hermes_cli.commands.engine_pick import engine_document

    return engine_document(pick)


def _models(name: str, catalogue: Catalogue, machine: Machine, options: RecommendOptions) -> tuple[CatalogModel, ...]:
    """Return the model that a name means, with no files but those that it says; of a repository, each quantization."""
    if re.fullmatch(r"\d+ ?[gG]i?[bB]?", name):
        size = f"{name.rstrip('bBiIgG ')}G"
        hint = f"the memory of a machine is an option: --vram {size} or --ram {size}"
        raise UsageError(f"{name} is not a model.", hint=hint)
    wanted = ModelNames(catalogue).parse(name)
    if isinstance(wanted, WeightsReference):
        raise UsageError(
            f"{name} is for vLLM and SGLang, and nothing of it is left to be chosen.",
            hint=f"see how it runs: hermes plan {name}",
        )
    if not isinstance(wanted, CatalogueReference):
        from hermes_cli.models.any_model import quantizations

        return quantizations(wanted, name, catalogue, machine, options)
    return (only_named(wanted),)


def _show_pick(pick: Recommendation, users: int, console: Console, *, alone: bool) -> None:
    model, kv_type = pick.variant.model, pick.settings.k_type
    kv_note = "" if kv_type == "f16" else f" (KV cache in {kv_type})"
    memory, gpu_layers = memory_size(pick.placement.total.total), pick.placement.gpu_layers
    where = "on the CPU" if not gpu_layers else "all on the GPU"
    if 0 < gpu_layers <= model.architecture.layers:
        where = f"{gpu_layers} of {model.architecture.layers + 1} layers on the GPU"
    bits = f"{pick.variant.bits_per_weight:.1f} bits per weight"
    lines = [
        f"the best that fits, {where}: {model.name} at {bits}",
        f"{where_it_is(pick.variant)}; with {pick.settings.context:,} tokens of context{kv_note} it takes {memory}",
    ]
    console.styled([(pick.variant.name, "bold green")])
    for line in lines:
        console.prose(f"  {line}", hanging="    ")
    _show_bar(pick, console)
    for line in in_words(pick.speed, pick.first_token):
        console.prose(f"  {line}", hanging="    ")
    if users > 1:
        each, share = per_second(shared_speed(pick, users)), pick.settings.context // users
        shared = f"{users} at once share that context, {share:,} tokens each: {each} each at best"
        console.prose(f"  {shared}", hanging="    ")
    if model.generation:
        console.prose(f"  quality {pick.quality.points:.1f} points; --explain has the details")
    gpus = gpus_used(pick)
    if alone and gpus > 1:
        console.note(f"  its {gpus} GPUs take turns in llama.cpp; vLLM's tensor parallelism uses them at once.")
    if (pick.variant.bits_per_weight or LOW_BITS) < LOW_BITS:
        console.warn("below 3 bits per weight answers suffer visibly; a smaller model may serve better.")
    if pick.by_yarn:
        console.warn(
            f"{model.name} was trained for {model.context.usable:,} tokens; beyond them it depends on YaRN, which "
            "its base model documents and this model was never trained with."
        )
    if not is_here(pick.variant):
        console.command(f"  hermes pull {pick.variant.name}")
    console.command(f"  {_next(pick)}")


def _context_cell(candidate: Recommendation) -> str:
    kv_type = candidate.settings.k_type
    return f"{candidate.settings.context:,}{'' if kv_type == 'f16' else f' {kv_type}'}"


def _show_shortfalls(missing: Sequence[Shortfall], purpose: Purpose, console: Console) -> None:
    """Say that the machine is not for the purpose, and why, if even its best pick misses what that needs."""
    reasons = []
    for shortfall in missing:
        has, needs = shortfall.has, shortfall.needs
        match shortfall.need:
            case "gpu":
                reasons.append(f"{has:.0f} of {needs:.0f} layers fit on the GPU")
            case "speed":
                reasons.append(f"{per_second(has)} where {two_digits(needs)} are needed")
            case "wait":
                reasons.append(f"{duration(has)} to the first token where {duration(needs)} are the most")
    if reasons:
        console.warn(f"this machine does not suit {PLURAL.get(purpose, purpose)}: {'; '.join(reasons)}.")


def _next(pick: Recommendation) -> str:
    """Return the command that runs it as planned."""
    flags = [f"--context {pick.settings.context}"]
    if pick.settings.k_type != "f16":
        flags.append(f"--kv-type {pick.settings.k_type}")
    if pick.by_yarn:
        flags.append("--yarn")
    return " ".join(["hermes chat", pick.variant.name, *flags])


def _show_bar(pick: Recommendation, console: Console) -> None:
    """Draw the memory by part, on the device that holds most of the model."""
    share = max(pick.placement.shares, key=lambda share: share.part.weights)
    part, room = share.part, max(share.room, share.part.total)
    rest = part.total - part.weights - part.kv_cache
    pieces = (
        ("weights", part.weights, "█"),
        ("KV cache", part.kv_cache, "▓"),
        ("compute", rest, "▒"),
        ("free", room - part.total, "░"),
    )
    length = min(BAR, console.width - 4)
    drawn, filled = "", 0
    for _, size, mark in pieces:
        filled += size
        drawn += mark * (round(length * filled / room) - len(drawn))
    console.styled([(f"  {drawn}", "cyan")])
    legend = ", ".join(f"{mark}\u00a0{label}\u00a0{size / GB:.2f}" for label, size, mark in pieces)
    console.prose(f"  {legend} GB", hanging="  ")


def _explain(pick: Recommendation, options: RecommendOptions, console: Console) -> None:
    part, costs, need = pick.placement.total, pick.costs, NEEDS[options.purpose]
    wanted = options.wanted(pick.variant.model)
    listed = bool(pick.variant.model.generation)
    mix = f"llama.cpp's mix of {pick.variant.quantization}" if listed else "its header"
    lines = (
        ("weights", memory_size(part.weights), f"tensors of the file, by {mix}"),
        (
            "KV cache",
            memory_size(part.kv_cache),
            f"KV cells x KV heads x head length x layers x 2, {pick.settings.k_type}",
        ),
        ("compute", memory_size(part.compute), "llama.cpp's graph of one micro-batch, by the rules of its allocator"),
        ("output", memory_size(part.output), "vocabulary x slots x 4 bytes"),
        ("overhead", memory_size(part.overhead), "what backends usually take (assumed)"),
        ("decode", per_second(pick.speed.expected), "bytes read for a token over bandwidth"),
        ("prefill", per_second(pick.prefill.expected), "operations of a token over operations per second"),
        ("model", f"{pick.quality.model:.1f} points", "mean of the tests"),
        *(
            (
                f"  {result.test}",
                f"{result.percent:.1f}",
                "published" if result.published else "estimated: not published",
            )
            for result in pick.quality.results
        ),
        ("quantization", _minus(pick.quality.loss), "KL divergence from F16 on Llama 3 8B, scaled to this size"),
        ("context", _minus(costs.context), f"{need.points_per_halving:g} for each halving of {wanted:,}"),
        ("KV type", _minus(costs.kv_type), "8 bits instead of 16 (assumed)"),
        ("slowness", _minus(costs.speed), f"below {need.comfortable:g} tokens/s"),
        ("waiting", _minus(costs.wait), f"more than {need.wait:g} s to the first token"),
        ("leaving the GPU", _minus(costs.leaving_gpu), "layers on the CPU"),
        ("more GPUs", _minus(costs.more_gpus), "more than one GPU"),
        ("no room", _minus(costs.no_room), "less than 8 % of the fullest place left free"),
        ("unusual", _minus(costs.unusual), "another quantization than those that most people run"),
        ("score", f"{pick.score:.1f} points", "decides the order; only differences mean something"),
    )
    console.text("\n")
    # of a model that is not in the catalogue nothing is known of its quality
    of_quality = {"model", "quantization", "score", *(f"  {result.test}" for result in pick.quality.results)}
    shown = [line for line in lines if listed or line[0] not in of_quality]
    console.table(("PART", "VALUE", "FROM"), shown, right=("VALUE",), prose="FROM")


def _minus(points: float) -> str:
    return f"-{points:.1f} points" if points else "0 points"


def _hosted(models: Sequence[CatalogModel]) -> str:
    """Return the models at services, with context and price where they are known; empty for none."""
    by_offer: dict[tuple[int, str], list[str]] = {}
    for cloud in (model.cloud for model in models):
        if cloud.openrouter and (price := cloud.openrouter_price):
            name = f"openrouter:{cloud.openrouter.rpartition('/')[2]} (${price.input:.2f}, ${price.output:.2f})"
            by_offer.setdefault((price.context, price.date), []).append(name)
    ways = [
        f"{', '.join(names)} per million tokens in and out on {date}, {context:,} tokens of context"
        for (context, date), names in by_offer.items()
    ]
    at_nous = [f"nous:{model.cloud.nous_portal}" for model in models if model.cloud.nous_portal]
    ways += [f"{', '.join(at_nous)}, prices at portal.nousresearch.com"] if at_nous else []
    return f"; or chat with a hosted one: {'; '.join(ways)}" if ways else ""


def nothing_fits(
    catalogue: Catalogue, machine: Machine, options: RecommendOptions, name: str | None = None
) -> DoesNotFitError:
    """Return the error that nothing fits, or not the model that was named, with what would and who hosts it."""
    elsewhere = _hosted(options.only or catalogue.models)
    would = smallest_variant(catalogue, options)
    least = options.least(would[0].model) if would else options.context or NEEDS[options.purpose].least
    asked = [f"{least:,} tokens of context"]
    asked += [f"at {options.min_speed:g} tokens/s"] if options.min_speed else []
    asked += [f"with a first token within {duration(options.max_wait)}"] if options.max_wait is not None else []
    asked += ["with all layers on the GPU"] if options.gpu_only else []
    reach = f"{would[0].name} would, with {memory_size(would[1])} of memory; " if would and len(asked) == 1 else ""
    return DoesNotFitError(
        f"no {name or 'Hermes model'} for {options.purpose} with {', '.join(asked)} fits this machine "
        f"({one_line(machine)}).",
        hint=f"{reach}ask for less (--context, --min-speed, --max-wait, no --gpu-only){elsewhere}.",
    )


def _candidate(pick: Recommendation) -> dict[str, Any]:
    total = pick.placement.total
    return {
        "name": pick.variant.name,
        "repository": pick.variant.repository.repo,
        "files": list(pick.variant.files),
        "bytes": pick.variant.bytes,
        "context_length": pick.settings.context,
        "kv_type": pick.settings.k_type,
        "yarn": pick.by_yarn,
        "memory_bytes": total.total,
        "gpu_layers": pick.placement.gpu_layers,
        "tokens_per_second": speed_document(pick.speed),
        "prefill_tokens_per_second": speed_document(pick.prefill),
        "first_token_seconds": asdict(pick.first_token),
        "quality_results": {result.test: round(result.percent, 2) for result in pick.quality.results},
        "quality_published": [result.test for result in pick.quality.results if result.published],
        "quality_points": pick.quality.points,
        "costs_points": asdict(pick.costs),
        "score_points": pick.score,
        "command": _next(pick),
    }
