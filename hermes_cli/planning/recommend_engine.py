"""Recommendations of vLLM beside those of llama.cpp: where a model outgrows one GPU, or where many use it at once.

For one person a GGUF file on llama.cpp is the answer. On several GPUs, which take turns in it, vLLM is named if it runs
a model at least as good 1.5 times as fast, or a better one at a comfortable speed. For eight people and more it is
named wherever it runs: its KV cache has no slots, and a step is shared by all.

Only equal GPUs work together. All numbers of them are tried, so that one more GPU never makes it worse.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from hermes_cli.catalog.engine_weights import EngineWeights, WeightFormat, engine_weights
from hermes_cli.catalog.variants import quantization_loss
from hermes_cli.planning.best_placement import NEEDS, slowness_cost
from hermes_cli.planning.engine_gpus import computes_fp8, supported_gpus
from hermes_cli.planning.launch_plan import LaunchOptions
from hermes_cli.planning.launch_planner import Launch, fitting_launch
from hermes_cli.planning.launch_speed import BatchSpeed, batch_speed, first_token_of
from hermes_cli.planning.quality import QualityScore, model_results, quantization_cost, supports_purpose
from hermes_cli.planning.recommend import Recommendation, RecommendOptions, gpus_used, shared_speed
from hermes_cli.planning.speed import PROMPTS

if TYPE_CHECKING:
    from hermes_cli.catalog.models import CatalogModel, Catalogue
    from hermes_cli.hardware.machine import Device, Machine

MANY_USERS = 8  # at once; llama.cpp's slots share one context, and its kernels for small batches gain less
FASTER = 1.5  # times llama.cpp's speed for which another engine is worth its installation
ALIKE, BETTER = 1.0, 2.0  # points by which its model may be below llama.cpp's pick, and counts as a better one
POINTS_FOR_FP8_CACHE = 0.2  # as for Q8_0 in llama.cpp
POINTS_FOR_COMMUNITY = 0.5  # weights that others quantized, about which less is known

# The quantization of llama.cpp that loses about as much; assumed.
LOSES_LIKE: dict[WeightFormat, str] = {"bf16": "BF16", "fp8": "Q6_K", "awq": "Q4_K_M", "nvfp4": "Q4_K_S"}


@dataclass(frozen=True)
class EngineRecommendation:
    """A model on vLLM, as the users of the machine would have it."""

    launch: Launch
    quality: QualityScore
    # alone, together: the speed of one request, and with all users at once
    alone: BatchSpeed
    together: BatchSpeed
    first_token: float  # seconds to the first token of a first prompt, alone
    score: float  # points, as those of a `Recommendation`
    reason: Literal["outgrows", "users"]  # llama.cpp's pick needs several GPUs, or many use it at once

    @property
    def rank(self) -> tuple[float, float, float, int]:
        """Return what decides between two: the score, then the speed, then fewer GPUs."""
        return round(self.score, 6), self.together.all.expected, self.alone.each.expected, -self.launch.plan.gpus

    @property
    def weights(self) -> EngineWeights:
        """Return the weights that it loads."""
        return self.launch.weights


def engine_recommendation(
    catalogue: Catalogue, machine: Machine, options: RecommendOptions, pick: Recommendation | None
) -> EngineRecommendation | None:
    """Return what to run on vLLM if that is better than llama.cpp's pick; None if llama.cpp is the answer."""
    if options.users >= MANY_USERS:
        return _best(catalogue, machine, options, -math.inf)
    if pick is None:
        return None
    several = gpus_used(pick) > 1
    best = _best(catalogue, machine, options, pick.quality.points + (-ALIKE if several else BETTER))
    if best is None:
        return None
    each = best.together.each.expected
    faster = several and each >= FASTER * shared_speed(pick, options.users)
    better = best.quality.points >= pick.quality.points + BETTER and each >= NEEDS[options.purpose].comfortable
    return replace(best, reason="outgrows") if faster or better else None


def _best(
    catalogue: Catalogue, machine: Machine, options: RecommendOptions, least: float
) -> EngineRecommendation | None:
    """Return the launch with the most points, of models with so many at least."""
    best: EngineRecommendation | None = None
    groups = Counter(supported_gpus(machine))
    rated = sorted(_rated(catalogue, options), key=lambda pair: -pair[1].points)
    for weights, quality in rated:
        if quality.points < least or (best and quality.points < best.score):
            break
        for launch in _launches(weights, machine, groups, options):
            candidate = _evaluate(launch, quality, options)
            if candidate and (best is None or candidate.rank > best.rank):
                best = candidate
    return best


def _rated(catalogue: Catalogue, options: RecommendOptions) -> Iterator[tuple[EngineWeights, QualityScore]]:
    """Yield the weights of models that serve the purpose, with their quality."""
    for model in options.only or catalogue.models:
        if model.generation and supports_purpose(model, options.purpose) and _long_enough(model, options):
            results = model_results(model, options.purpose, catalogue)
            for weights in engine_weights(model):
                like = "Q8_0" if weights.is_8bit_awq else LOSES_LIKE[weights.format]
                loss = quantization_cost(model, quantization_loss(like, catalogue), options.purpose)
                yield weights, QualityScore(results, loss + (0 if weights.official else POINTS_FOR_COMMUNITY))


def _long_enough(model: CatalogModel, options: RecommendOptions) -> bool:
    return model.context.usable >= options.least(model)


def _launches(
    weights: EngineWeights, machine: Machine, groups: Counter[Device], options: RecommendOptions
) -> Iterator[Launch]:
    """Yield the plans on each number of GPUs of a kind."""
    wanted = LaunchOptions(context=options.context)
    by_authors = any(other.format == "fp8" and other.official for other in engine_weights(weights.model))
    for device, count in groups.items():
        if weights.format == "bf16" and by_authors and computes_fp8(device):
            continue  # FP8 is as good there, and twice as fast
        for used in range(1, count + 1):
            launch = fitting_launch(weights, (device,) * used, machine, wanted)
            if launch and launch.plan.kv_tokens >= options.least(weights.model):
                yield launch


def _evaluate(launch: Launch, quality: QualityScore, options: RecommendOptions) -> EngineRecommendation | None:
    """Count what a plan costs its users; None if it is not what the user insists on."""
    plan, need, prompt = launch.plan, NEEDS[options.purpose], PROMPTS[options.purpose]
    alone, together = batch_speed(launch, 1, prompt.filled), batch_speed(launch, options.users, prompt.filled)
    first_token = first_token_of(launch, prompt.first)
    slow = together.each.expected < (options.min_speed or 0)
    if slow or (options.max_wait is not None and first_token > options.max_wait):
        return None
    context = min(plan.context or 0, options.wanted(launch.weights.model))
    costs = (
        slowness_cost(need, together.each.expected),
        need.points_per_halving * math.log2(options.wanted(launch.weights.model) / max(context, 1)),
        POINTS_FOR_FP8_CACHE if plan.kv_type == "fp8" else 0,
    )
    score = quality.points - sum(costs)
    return EngineRecommendation(launch, quality, alone, together, first_token, score, "users")
