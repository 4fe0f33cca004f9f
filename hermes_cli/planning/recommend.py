"""Recommendations: the best variant and context for a machine and a purpose, alternatives, and draft models."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

from hermes_cli.catalog.variants import preferred_variants
from hermes_cli.hardware.machine import MOST_DEVICES
from hermes_cli.planning.memory import ContextSettings, on_cpu, weights
from hermes_cli.planning.placement import place
from hermes_cli.planning.quality import quality_score, supports_purpose
from hermes_cli.planning.speed import PROMPTS, active_elements, decode_speed, first_token_seconds, prefill_speed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from hermes_cli.catalog.models import CatalogModel, Catalogue
    from hermes_cli.catalog.variants import Variant
    from hermes_cli.hardware.machine import Machine
    from hermes_cli.planning.memory import KvType
    from hermes_cli.planning.placement import Placement
    from hermes_cli.planning.quality import Purpose, QualityScore
    from hermes_cli.planning.speed import FirstToken, Speed


@dataclass(frozen=True)
class PurposeNeeds:
    """Requirements of a purpose.

    Attributes:
        wanted, least: context length in tokens that it should have, and can do with.
        points_per_halving: what half of the wanted context costs.
        comfortable: tokens per second below which slowness costs points.
    """

    wanted: int
    least: int
    points_per_halving: float
    comfortable: float


# An agent's 64,000 tokens are what Hermes Agent refuses to start without. Thoughts of 13,000 tokens (DeepHermes' card)
# and their answer need 16,384; thinking and working in many steps should be faster than reading.
NEEDS: dict[Purpose, PurposeNeeds] = {
    "chat": PurposeNeeds(16_384, 4096, 0.5, 10),
    "agent": PurposeNeeds(64_000, 64_000, 0.5, 20),
    "reasoning": PurposeNeeds(32_768, 16_384, 0.5, 20),
    "json": PurposeNeeds(8192, 4096, 0.5, 10),
    "long-context": PurposeNeeds(131_072, 32_768, 6.0, 10),
}
# What slowness costs for each time that a comfortable speed is halved, and more from the second time on.
POINTS_PER_HALVED_SPEED, POINTS_BELOW_HALF = 4.0, 3.0
# Leaving the GPU makes the speed fall off a cliff that no estimate gets quite right.
POINTS_FOR_LEAVING_GPU = 10.0
# A plan that fills its room to the last byte depends on overheads that are assumed (placement.OVERHEAD).
ROOM_TO_SPARE, POINTS_FOR_NO_ROOM = 0.08, 1.0
POINTS_FOR_KV_Q8_0 = 0.2  # assumed; weights of 8 bits cost 0.03
# Q4_K_M is what most people run and what is published most; a finer one must be better by more than this.
USUAL, POINTS_FOR_UNUSUAL = "Q4_K_M", 0.45
KV_TYPES_TRIED: tuple[KvType, ...] = ("f16", "q8_0")
LOW_BITS = 3.0  # bits per weight below which a warning is due


@dataclass(frozen=True)
class Costs:
    """Points that a variant loses on this machine."""

    context: float
    kv_type: float
    speed: float
    leaving_gpu: float
    no_room: float
    unusual: float

    @property
    def total(self) -> float:
        """The sum."""
        return self.context + self.kv_type + self.speed + self.leaving_gpu + self.no_room + self.unusual

    @property
    def avoidable(self) -> bool:
        """A shorter context or a smaller KV cache may lower them."""
        return self.leaving_gpu > 0 or self.no_room > 0


@dataclass(frozen=True)
class Recommendation:
    """A variant with settings on a machine: where it goes, how fast and how good it is, and what that costs it."""

    variant: Variant
    settings: ContextSettings
    placement: Placement
    speed: Speed
    prefill: Speed
    first_token: FirstToken
    quality: QualityScore
    costs: Costs

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
    """The purpose, and the context (tokens) and speed (tokens per second) that the user insists on."""

    purpose: Purpose = "chat"
    context: int | None = None
    min_speed: float | None = None

    @property
    def least(self) -> int:
        """Context length that it must have, in tokens."""
        return self.context or NEEDS[self.purpose].least

    @property
    def wanted(self) -> int:
        """Context length that it should have, in tokens."""
        return self.context or NEEDS[self.purpose].wanted


def recommendations(catalogue: Catalogue, machine: Machine, options: RecommendOptions) -> list[Recommendation]:
    """Return every variant that fits, with its best settings, best first; those that need YaRN come last."""
    unified = any(device.unified for device in machine.usable_devices)
    memory = machine.ram_available + (0 if unified else sum(device.free for device in machine.usable_devices))
    fitting = [
        best
        for variant in _suitable_variants(catalogue, options)
        if (variant.bytes or 0) <= memory  # a larger file needs no exact computation
        if (best := _best_settings(variant, catalogue, machine, options))
    ]
    return sorted(fitting, key=lambda candidate: (candidate.by_yarn, -candidate.score))


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
    for model in catalogue.models:
        if supports_purpose(model, options.purpose):
            for variant in preferred_variants(model):
                if variant.bytes and variant.computed_bytes and not variant.entry.parts:
                    yield variant


def _best_settings(
    variant: Variant, catalogue: Catalogue, machine: Machine, options: RecommendOptions
) -> Recommendation | None:
    """The variant with the settings that score best, or None if none fits.

    The longest context is tried first, each with a KV cache of 16 and of 8 bits.
    """
    best = None
    for context, kv_type in product(_contexts(variant.model, options), KV_TYPES_TRIED):
        settings = ContextSettings(context, k_type=kv_type, v_type=kv_type)
        candidate = _evaluate(variant, catalogue, machine, settings, options)
        if not candidate.placement.fits or candidate.speed.expected < (options.min_speed or 0):
            continue
        if best is None or candidate.score > best.score:
            best = candidate
        if not candidate.costs.avoidable:
            break
    return best


def settings_to_try(variant: Variant, options: RecommendOptions) -> list[ContextSettings]:
    """Return all settings that may be looked at for a variant: contexts of the purpose and twice as long, KV types."""
    longest = [min(length, variant.model.context.usable) for length in (options.wanted, 2 * options.wanted)]
    contexts = sorted({length >> halved for length in longest for halved in range(8) if length >> halved})
    return [ContextSettings(context, k_type=kind, v_type=kind) for context in contexts for kind in KV_TYPES_TRIED]


def _contexts(model: CatalogModel, options: RecommendOptions) -> list[int]:
    """Context lengths that would do, longest first; beyond what was trained only if YaRN is documented."""
    reach = model.context.usable
    if reach < options.least and model.context.yarn:
        reach = model.context.yarn.context
    if reach < options.least and (options.context or options.purpose not in {"chat", "json"}):
        return []
    longest = min(options.wanted, reach)
    return [length for length in (longest >> halved for halved in range(8)) if length >= min(options.least, reach)]


def _evaluate(
    variant: Variant, catalogue: Catalogue, machine: Machine, settings: ContextSettings, options: RecommendOptions
) -> Recommendation:
    """Place a variant with these settings and count what they cost; docs/quality.md has the scale."""
    architecture = variant.model.architecture
    table = weights(architecture, variant.quantization, imatrix=variant.repository.imatrix)
    placement = place(architecture, table, settings, machine)
    speed = decode_speed(architecture, variant.quantization, table, settings, placement, machine)
    prefill = prefill_speed(architecture, table, settings, placement, machine)
    need = NEEDS[options.purpose]
    leaves_gpu = machine.usable_devices and placement.gpu_layers <= architecture.layers
    # the part of its room that the fullest place has left
    spare = min((share.room - share.part.total) / max(share.room, 1) for share in placement.shares if share.part.total)
    halvings = max(math.log2(need.comfortable / speed.expected), 0)
    costs = Costs(
        context=need.points_per_halving * max(math.log2(options.wanted / settings.context), 0),
        kv_type=0 if settings.k_type == "f16" else POINTS_FOR_KV_Q8_0,
        speed=POINTS_PER_HALVED_SPEED * halvings + POINTS_BELOW_HALF * max(halvings - 1, 0) ** 2,
        leaving_gpu=POINTS_FOR_LEAVING_GPU if leaves_gpu else 0,
        no_room=POINTS_FOR_NO_ROOM * max(1 - spare / ROOM_TO_SPARE, 0),
        unusual=0 if variant.quantization == USUAL else POINTS_FOR_UNUSUAL,
    )
    return Recommendation(
        variant,
        settings,
        placement,
        speed,
        prefill,
        first_token_seconds(PROMPTS[options.purpose], prefill, settings.context),
        quality_score(variant.model, variant.loss(catalogue), options.purpose),
        costs,
    )


BESIDE_WEIGHTS = 1 << 30  # bytes of KV cache, compute buffers and overhead


def room_for_files(machine: Machine) -> int:
    """Return the bytes that a model file may have here: free memory, less what a short context takes besides."""
    devices = sum(device.free for device in machine.usable_devices if not device.unified)
    return max(machine.ram_available + devices - BESIDE_WEIGHTS, 0)


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
    longer = recommendations(catalogue, machine, replace(options, context=2 * pick.settings.context))
    return next((candidate for candidate in longer if not candidate.by_yarn), None)


def _one_more_gpu(
    pick: Recommendation, catalogue: Catalogue, machine: Machine, options: RecommendOptions
) -> Recommendation | None:
    """The pick of the machine with one more of its last GPU, if that is another variant or a longer context."""
    devices = machine.usable_devices
    if not devices or devices[-1].unified or len(devices) == MOST_DEVICES:
        return None
    another = replace(devices[-1], free=devices[-1].total, users=())
    best = recommendations(catalogue, replace(machine, devices=(*machine.devices, another)), options)[0]
    same = best.variant == pick.variant and best.settings == pick.settings
    return None if same and best.placement.gpu_layers == pick.placement.gpu_layers else best


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
