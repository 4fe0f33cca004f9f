"""The part of `hermes recommend` about another engine than llama.cpp, where one is the answer."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from hermes_cli.commands.speeds import duration, per_second, speed_document, two_digits
from hermes_cli.planning.launch_plan import ENGINE_TITLES
from hermes_cli.planning.recommend import gpus_used
from hermes_cli.units import GB, counted, gigabytes

if TYPE_CHECKING:
    from hermes_cli.console import Console
    from hermes_cli.planning.recommend import Recommendation
    from hermes_cli.planning.recommend_engine import EngineRecommendation

DERIVED = "derived from bandwidth and arithmetic of the data sheets, not measured"


def show_engine_pick(
    pick: EngineRecommendation,
    instead: Recommendation | None,
    users: int,
    console: Console,
    *,
    simulated: bool,
) -> None:
    """Show the pick on another engine, why it is one, and how to get there; `instead` is llama.cpp's."""
    plan, weights = pick.launch.plan, pick.weights
    engine, gpu = ENGINE_TITLES[plan.engine], pick.launch.gpus[0].name
    where = f"{plan.gpus} x {gpu}" if plan.gpus > 1 else gpu
    at_once = f", {counted(plan.data, 'replica')}" if plan.data > 1 else ""
    shared = (
        f"tensor parallel {plan.tensor}" if plan.tensor > 1 else "on one GPU each" if plan.data > 1 else "on one GPU"
    )
    low, high = two_digits(pick.alone.each.low), two_digits(pick.alone.each.high)
    all_tokens = plan.kv_tokens * plan.data
    alone, wait = per_second(pick.alone.each.expected), duration(pick.first_token)
    lines = [
        f"the best for {_for_whom(pick, users)}: {weights.model.name}, {weights.title}, on {where}: {shared}{at_once}",
        f"{gigabytes(weights.bytes)}; {plan.context or 0:,} tokens for one request, {all_tokens:,} for all",
        f"writes {alone} ({low} to {high}) for one request, the first word after {wait}",
    ]
    if users > 1:
        each, together = pick.together.each.expected, pick.together.all.expected
        lines.append(f"{users} at once: {per_second(each)} each, {per_second(together)} together")
    lines += [DERIVED, f"quality {pick.quality.points:.1f} points"]
    console.styled([(f"{weights.name} with {engine}", "bold green")])
    for line in lines:
        console.prose(f"  {line}", hanging="    ")
    named = simulated and pick.launch.gpus[0].bandwidth_source == "table"
    gpus = f" --gpu {shlex.quote(f'{plan.gpus}x{gpu}')}" if named else ""
    console.command(f"  hermes plan {weights.name} --engine {plan.engine}{gpus}")
    console.command(f"  hermes pull {weights.name}")
    console.command(f"  hermes serve {weights.name} --engine {plan.engine}")
    for note in pick.launch.notes:
        console.note(f"  {note}")
    if instead:
        turns = f", where its {gpus_used(instead)} GPUs take turns" if gpus_used(instead) > 1 else ""
        console.text("\n")
        console.prose(f"Without {engine}, on llama.cpp{turns}:")


def _for_whom(pick: EngineRecommendation, users: int) -> str:
    if pick.reason == "users":
        return f"{users} people at once"
    return "a model that one GPU does not hold"


def engine_row(pick: EngineRecommendation) -> tuple[str, ...]:
    """Return the pick as a row of the table of recommendations; of its memory what it takes of all GPUs."""
    plan = pick.launch.plan
    return (
        "pick",
        pick.weights.name,
        f"{plan.context or 0:,}",
        f"{plan.memory.total * plan.gpus / GB:.1f}",
        two_digits(pick.alone.each.expected),
        duration(pick.first_token),
        f"{pick.quality.points:.1f}",
    )


def engine_document(pick: EngineRecommendation) -> dict[str, Any]:
    """Return the pick on another engine for `--json`; keys are documented in docs/planning.md."""
    plan, weights = pick.launch.plan, pick.weights
    return {
        "name": weights.name,
        "engine": plan.engine,
        "reason": pick.reason,
        "repository": weights.repo,
        "format": weights.suffix,
        "bytes": weights.bytes,
        "gpus": plan.gpus,
        "tensor_parallel": plan.tensor,
        "pipeline_parallel": plan.pipeline,
        "data_parallel": plan.data,
        "context_length": plan.context,
        "kv_type": plan.kv_type,
        "kv_tokens": plan.kv_tokens * plan.data,
        "tokens_per_second": speed_document(pick.alone.each),
        "each_tokens_per_second": speed_document(pick.together.each),
        "all_tokens_per_second": speed_document(pick.together.all),
        "first_token_seconds": pick.first_token,
        "measured": False,
        "quality_points": pick.quality.points,
        "score_points": pick.score,
        "command": f"hermes serve {weights.name} --engine {plan.engine}",
    }
