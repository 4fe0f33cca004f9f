"""Recommendations: the best variant and context for a machine and a purpose, alternatives, and draft models."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, product
from typing import Literal

from hermes_cli.catalog.models import CatalogModel, Catalogue
from hermes_cli.catalog.variants import Variant, preferred_variants
from hermes_cli.gguf.types import KvType
from hermes_cli.hardware.machine import MOST_DEVICES, Machine
from hermes_cli.planning.best_placement import NEEDS, POINTS_FOR_LEAVING_GPU, PlacedModel, placed_best
from hermes_cli.planning.memory import ContextSettings, on_cpu, weights
from hermes_cli.planning.quality import Purpose, QualityScore, model_results, quantization_cost, supports_purpose
from hermes_cli.planning.speed import SpeedRatio, active_elements

# DeepHermes thinks for up to 13,000 tokens (its card).
WANTED_BY_SHORT_THOUGHTS, LEAST_OF_SHORT_THOUGHTS = 32_768, 16_384
# Left over memory of a GPU's own may hold so many times the wanted context, where that costs nothing.
MORE_CONTEXT = (2, 4)
# Points for the type of the KV cache, from the best on; assumed (weights of 8 bits cost 0.03).
KV_TYPE_COSTS: dict[KvType, float] = {"f16": 0, "q8_0": 0.2}
# What most people run and what is published most; another must be better by more than this.
USUAL, POINTS_FOR_UNUSUAL = frozenset({"Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0"}), 1.0
BESIDE_WEIGHTS = 1 << 30  # bytes of KV cache, compute buffers and overhead
LOW_BITS = 3.0  # bits per weight below which a warning is due


@dataclass(frozen=True, kw_only=True)
class Recommendation(PlacedModel):
    """A variant with settings on a machine: where it goes, how fast and how good it is, and what that costs it."""

    variant: Variant
    settings: ContextSettings
    quality: QualityScore

    @property
    def score(self) -> float:
        """Points: of the model and its quantization, less what the machine costs."""
        return self.quality.points - self.costs.total

    @property
    def by_yarn(self) -> bool:
        """The context is longer than the model was trained for and needs YaRN."""
        return self.settings.context > self.variant.model.context.usable


@dataclass(frozen=True)
class RecommendOptions:
    """The purpose, and what the user insists on."""

    purpose: Purpose = "chat"
    context: int | None = None  # tokens
    min_speed: float | None = None  # tokens per second
    max_wait: float | None = None  # seconds to the first token of the purpose's first prompt
    gpu_only: bool = False  # every layer on GPUs
    measured: tuple[SpeedRatio, ...] = ()  # by `hermes bench`, on the machine that is planned for
    only: tuple[CatalogModel, ...] = ()  # no models but these
    users: int = 1  # people at once; llama.cpp's variants are ranked for one, recommend_engine.py counts them

    def wanted(self, model: CatalogModel) -> int:
        """Context length that a model should have, in tokens."""
        return self.context or (WANTED_BY_SHORT_THOUGHTS if self._short_thoughts(model) else NEEDS[self.purpose].wanted)

    def least(self, model: CatalogModel) -> int:
        """Context length that a model must have, in tokens."""
        return self.context or (LEAST_OF_SHORT_THOUGHTS if self._short_thoughts(model) else NEEDS[self.purpose].least)

    def _short_thoughts(self, model: CatalogModel) -> bool:
        return self.purpose == "reasoning" and model.reasoning is not None and model.reasoning.switch == "system-prompt"

    def met_by(self, candidate: PlacedModel) -> bool:
        """Return whether a candidate is what the user insists on."""
        return (
            candidate.speed.expected >= (self.min_speed or 0)
            and (self.max_wait is None or candidate.first_token.expected <= self.max_wait)
            and not (self.gpu_only and candidate.leaves_gpu)
        )


def recommendations(catalogue: Catalogue, machine: Machine, options: RecommendOptions) -> list[Recommendation]:
    """Return every variant that fits, with its best settings, best first; those that need YaRN come last."""
    fitting = [
        best
        for variant, quality in _rated_variants(catalogue, machine, options)
        if (best := _best_settings(variant, quality, machine, options))
    ]
    return sorted(fitting, key=lambda candidate: (candidate.by_yarn, -candidate.score))


def best_recommendation(catalogue: Catalogue, machine: Machine, options: RecommendOptions) -> Recommendation | None:
    """The first of `recommendations`, without a look at those that cannot be it; None if only YaRN would do."""
    best: Recommendation | None = None
    # without a GPU every variant pays for that
    unavoidable = 0.0 if machine.usable_devices else POINTS_FOR_LEAVING_GPU
    rated = sorted(_rated_variants(catalogue, machine, options), key=lambda pair: -pair[1].points)
    for variant, quality in rated:
        if best and best.score >= quality.points - unavoidable:
            break
        candidate = _best_settings(variant, quality, machine, options)
        if candidate and not candidate.by_yarn and (best is None or candidate.score > best.score):
            best = candidate
    return best


def _rated_variants(
    catalogue: Catalogue, machine: Machine, options: RecommendOptions
) -> Iterator[tuple[Variant, QualityScore]]:
    """Variants that serve the purpose and whose file is no larger than the memory, with their quality."""
    memory, purpose = machine.memory_free, options.purpose
    for model, variants in groupby(_suitable_variants(catalogue, options), key=lambda variant: variant.model):
        results = model_results(model, purpose, catalogue)
        for variant in variants:
            if (variant.bytes or 0) <= memory:
                yield (
                    variant,
                    QualityScore(results, quantization_cost(model, variant.expected_loss(catalogue), purpose)),
                )


def smallest_variant(catalogue: Catalogue, options: RecommendOptions) -> tuple[Variant, int] | None:
    """The variant that does what is asked in the least memory, and the bytes; None if no model can."""
    sizes = []
    for variant in _suitable_variants(catalogue, options):
        contexts = _contexts(variant.model, options)
        if contexts and (variant.bits_per_weight or 0) >= LOW_BITS:
            architecture = variant.model.architecture
            table = weights(architecture, variant.quantization, imatrix=variant.repository.imatrix)
            sizes.append((variant, on_cpu(architecture, table, ContextSettings(min(contexts))).total))
    return min(sizes, key=lambda sized: sized[1], default=None)


def _suitable_variants(catalogue: Catalogue, options: RecommendOptions) -> Iterator[Variant]:
    """Variants that serve the purpose, are of known size, and can be loaded as they are."""
    for model in options.only or catalogue.models:
        if supports_purpose(model, options.purpose):
            for variant in preferred_variants(model):
                if variant.bytes and variant.computed_bytes and not variant.entry.parts:
                    yield variant


def _best_settings(
    variant: Variant, quality: QualityScore, machine: Machine, options: RecommendOptions
) -> Recommendation | None:
    """The variant with the settings that score best, or None if none fits.

    The smallest settings come first: no others fit more easily or are faster, which bounds what these can score. Then
    the longest context is tried first, each with a KV cache of 16 and of 8 bits.
    """
    own_memory = any(not device.unified for device in machine.usable_devices)
    contexts = _contexts(variant.model, options, MORE_CONTEXT if own_memory else ())
    if not contexts:
        return None

    def evaluate(context: int, kv_type: KvType) -> Recommendation | None:
        return _evaluate(variant, quality, machine, ContextSettings(context, k_type=kv_type, v_type=kv_type), options)

    best = smallest = evaluate(contexts[-1], "q8_0")
    if best is None or smallest is None:
        return None
    ceiling = smallest.score + smallest.costs.context + smallest.costs.kv_type
    for context, kv_type in product(contexts, KV_TYPE_COSTS):
        if best.score >= ceiling - _context_cost(variant.model, context, options) - KV_TYPE_COSTS[kv_type]:
            continue
        candidate = evaluate(context, kv_type)
        spills = candidate and candidate.leaves_gpu and context > options.wanted(variant.model)
        if candidate and candidate.score > best.score and not spills:
            best = candidate
    return best


def settings_to_try(variant: Variant, options: RecommendOptions) -> list[ContextSettings]:
    """Return all settings with which a variant may be looked at, and some for twice the context."""
    contexts = _contexts(variant.model, options, MORE_CONTEXT)
    longer = (2 * context for context in contexts if 2 * context <= variant.model.context.usable)
    tried = sorted({*contexts, *longer})
    return [ContextSettings(context, k_type=kind, v_type=kind) for context in tried for kind in KV_TYPE_COSTS]


def room_for_files(machine: Machine) -> int:
    """Return the bytes that a model file may have: free memory, less what a short context takes besides."""
    return max(machine.memory_free - BESIDE_WEIGHTS, 0)


def _contexts(model: CatalogModel, options: RecommendOptions, more: tuple[int, ...] = ()) -> list[int]:
    """Context lengths that would do, longest first, with so many times the wanted one if the model was trained for it.

    Beyond what was trained they are only as long as they must be, and only if YaRN is documented.
    """
    wanted, least, usable = options.wanted(model), options.least(model), model.context.usable
    yarn = model.context.yarn
    reach = yarn.context if usable < least and yarn else usable
    if reach < least and (options.context or options.purpose not in {"chat", "json"}):
        return []
    longest = min(wanted, reach)
    lengths = {least, *(longest >> halved for halved in range(8))}
    if not options.context:
        lengths |= {wanted * times for times in more if wanted * times <= usable}
    return sorted((length for length in lengths if min(least, reach) <= length <= reach), reverse=True)


def _context_cost(model: CatalogModel, context: int, options: RecommendOptions) -> float:
    return NEEDS[options.purpose].points_per_halving * max(math.log2(options.wanted(model) / context), 0)


def _evaluate(
    variant: Variant, quality: QualityScore, machine: Machine, settings: ContextSettings, options: RecommendOptions
) -> Recommendation | None:
    """Place a variant with these settings and count what they cost; docs/quality.md has the scale.

    None if it does not fit, or not as the user insists.
    """
    architecture = variant.model.architecture
    table = weights(architecture, variant.quantization, imatrix=variant.repository.imatrix)
    placed = placed_best(
        (architecture, variant.quantization, table),
        settings,
        machine,
        options.purpose,
        options.met_by,
        variant.name,
        options.measured,
    )
    if placed is None:
        return None
    costs = replace(
        placed.costs,
        context=_context_cost(variant.model, settings.context, options),
        kv_type=KV_TYPE_COSTS[settings.k_type],
        unusual=0 if variant.quantization in USUAL else POINTS_FOR_UNUSUAL,
    )
    return Recommendation(
        placement=placed.placement,
        speed=placed.speed,
        prefill=placed.prefill,
        first_token=placed.first_token,
        costs=costs,
        variant=variant,
        settings=settings,
        quality=quality,
    )


@dataclass(frozen=True)
class Shortfall:
    """A need of a purpose that even the best pick of a machine misses: what it has, and what it would need."""

    need: Literal["speed", "wait", "gpu"]
    has: float
    needs: float


def shortfalls(pick: Recommendation, purpose: Purpose) -> list[Shortfall]:
    """Return the reasons for which the machine is not for the purpose; none if it is.

    An agent needs all layers on the GPU, if there is one that holds any.
    """
    need, architecture = NEEDS[purpose], pick.variant.model.architecture
    missed = []
    if purpose == "agent" and 0 < pick.placement.gpu_layers <= architecture.layers:
        missed.append(Shortfall("gpu", pick.placement.gpu_layers, architecture.layers + 1))
    if pick.speed.expected < need.slowest:
        missed.append(Shortfall("speed", pick.speed.expected, need.slowest))
    if pick.first_token.expected > need.longest_wait:
        missed.append(Shortfall("wait", pick.first_token.expected, need.longest_wait))
    return missed


def gpus_used(pick: Recommendation) -> int:
    """Return the number of GPUs that a pick of llama.cpp lies on."""
    return sum(share.device is not None and share.part.total > 0 for share in pick.placement.shares)


def shared_speed(pick: Recommendation, users: int) -> float:
    """Return the tokens per second of each of so many requests at once in llama.cpp, at best.

    A step reads the weights once, and computes each further token as a prompt's.
    """
    return 1 / (1 / pick.speed.expected + (users - 1) / pick.prefill.expected)


FASTER = 1.5  # times the pick's speed, below which the difference is hardly felt
OTHERS = 3  # models of other kinds


@dataclass(frozen=True)
class Alternative:
    """A candidate and in which way it differs from the pick."""

    label: str
    candidate: Recommendation


def alternatives(
    ranked: Sequence[Recommendation], catalogue: Catalogue, machine: Machine, options: RecommendOptions
) -> list[Alternative]:
    """Return a short list, each the best of its kind; `ranked` is what `recommendations` gave, its first the pick."""
    pick = ranked[0]
    size, speed, quality = pick.variant.model.parameters, pick.speed.expected, pick.quality.points
    kinds: tuple[tuple[str, Callable[[Recommendation], bool]], ...] = (
        (
            "smaller, faster",
            lambda other: other.variant.model.parameters < size and other.speed.expected > FASTER * speed,
        ),
        ("larger, slower", lambda other: other.variant.model.parameters > size and other.quality.points > quality),
        ("by YaRN", lambda other: other.by_yarn),
    )
    firsts = {label: next(filter(belongs, ranked[1:]), None) for label, belongs in kinds}
    firsts["longer context"] = _longer(pick, catalogue, machine, options)
    firsts["one more GPU"] = _one_more_gpu(pick, catalogue, machine, options)
    chosen = [Alternative(label, candidate) for label, candidate in firsts.items() if candidate]
    # and the best of a few models that were not named yet
    named = {pick.variant.model.id, *(alternative.candidate.variant.model.id for alternative in chosen)}
    others: dict[str, Recommendation] = {}
    for candidate in ranked:
        if candidate.variant.model.id not in named:
            others.setdefault(candidate.variant.model.id, candidate)
    return chosen + [Alternative("", candidate) for candidate in list(others.values())[:OTHERS]]


def _longer(
    pick: Recommendation, catalogue: Catalogue, machine: Machine, options: RecommendOptions
) -> Recommendation | None:
    """The best with twice the pick's context, unless the user said how long it is to be."""
    if options.context:
        return None
    return best_recommendation(catalogue, machine, replace(options, context=2 * pick.settings.context))


def _one_more_gpu(
    pick: Recommendation, catalogue: Catalogue, machine: Machine, options: RecommendOptions
) -> Recommendation | None:
    """The pick of the machine with one more of its last GPU, if that is another variant or a longer context."""
    devices = machine.usable_devices
    if not devices or devices[-1].unified or len(devices) == MOST_DEVICES:
        return None
    another = replace(devices[-1], free=devices[-1].total, users=())
    best = best_recommendation(catalogue, replace(machine, devices=(*machine.devices, another)), options)
    if best and best.variant == pick.variant and best.settings == pick.settings:
        return best if best.placement.gpu_layers != pick.placement.gpu_layers else None
    return best


# Share of the large model's work for a token. With four of five drafted tokens accepted and verification for free, a
# draft model of half the work speeds decoding up by 1.22 at most (one drafted token for each step: 1.8 tokens in the
# time of 1.5; two: 2.44 in 2); larger ones soon cost more than they gain.
LARGEST_SHARE = 0.5


def draft_candidates(model: CatalogModel, catalogue: Catalogue) -> tuple[CatalogModel, ...]:
    """Return the models that can draft for this one, the smallest first.

    They have the same tokenizer and number of tokens, both known for sure, and belong to the same generation: others
    give some of the tokens that base models reserve another meaning, and were taught to say other things. The engine
    compares all tokens when it loads them.

    The smallest comes first because its drafts are nearly as good as those of a larger sibling, at a fraction of the
    time and memory.
    """
    architecture, most = model.architecture, LARGEST_SHARE * _work(model)
    smaller = [
        draft
        for draft in catalogue.models
        if draft.generation == model.generation
        and draft.architecture.tokenizer == architecture.tokenizer
        and draft.architecture.vocabulary == architecture.vocabulary
        and "vocabulary" not in {*draft.architecture.unconfirmed, *architecture.unconfirmed}
        and _work(draft) <= most
    ]
    return tuple(sorted(smaller, key=_work))


def _work(model: CatalogModel) -> float:
    """Weights that one token meets."""
    architecture = model.architecture
    return architecture.layers * active_elements(architecture) + architecture.vocabulary * architecture.embedding_length
