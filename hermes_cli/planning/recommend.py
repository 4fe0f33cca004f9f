"""Recommendations: the best variant and context for a machine and a purpose, alternatives, and draft models."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hermes_cli.catalog.variants import preferred_variants
from hermes_cli.planning.memory import ContextSettings, on_cpu
from hermes_cli.planning.placement import place
from hermes_cli.planning.quality import quality_score, supports_purpose
from hermes_cli.planning.speed import active_elements, decode_speed, prefill_speed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from hermes_cli.catalog.models import CatalogModel, Catalogue
    from hermes_cli.catalog.variants import Variant
    from hermes_cli.hardware.machine import Machine
    from hermes_cli.planning.memory import KvType
    from hermes_cli.planning.placement import Placement
    from hermes_cli.planning.quality import Purpose, QualityScore
    from hermes_cli.planning.speed import Speed


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
POINTS_FOR_LEAVING_GPU = 9.0
# A plan that fills its room to the last byte depends on overheads that are assumed (placement.OVERHEAD).
ROOM_TO_SPARE, POINTS_FOR_NO_ROOM = 0.08, 1.0
POINTS_FOR_KV_Q8_0 = 0.2  # assumed; weights of 8 bits cost 0.03
# Q4_K_M is what most people run and what is published most; a finer one must be better by more than this.
USUAL, POINTS_FOR_UNUSUAL = "Q4_K_M", 0.45
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


def recommendations(catalogue: Catalogue, machine: Machine, wish: RecommendOptions) -> list[Recommendation]:
    """Return every variant that fits, with its best settings, best first; those that need YaRN come last."""
    worth_it = (variant for variant in _choices(catalogue, wish) if not _hopeless(variant, machine))
    found = [one for variant in worth_it if (one := _at_its_best(variant, catalogue, machine, wish))]
    return sorted(found, key=lambda one: (one.by_yarn, -one.score))


def smallest_variant(catalogue: Catalogue, wish: RecommendOptions) -> tuple[Variant, int] | None:
    """The variant that does what is asked in the least memory, and the bytes; None if no model can."""
    found = []
    for variant in _choices(catalogue, wish):
        contexts = _contexts(variant.model, wish)
        if contexts and (variant.bits_per_weight or 0) >= LOW_BITS:
            a, imatrix = variant.model.architecture, variant.repository.imatrix
            part = on_cpu(a, variant.quantization, ContextSettings(min(contexts)), imatrix=imatrix)
            found.append((variant, part.total))
    return min(found, key=lambda one: one[1], default=None)


def _choices(catalogue: Catalogue, wish: RecommendOptions) -> Iterator[Variant]:
    """Variants that serve the purpose, are of known size, and can be loaded as they are."""
    for model in catalogue.models:
        if supports_purpose(model, wish.purpose):
            yield from (
                one for one in preferred_variants(model) if one.bytes and one.computed_bytes and not one.entry.parts
            )


def _at_its_best(
    variant: Variant, catalogue: Catalogue, machine: Machine, wish: RecommendOptions
) -> Recommendation | None:
    """The variant with the settings that score best, or None if none fits."""
    best = None
    for settings in _settings(variant.model, wish):
        one = evaluate(variant, catalogue, machine, settings, wish)
        if not one.placement.fits or one.speed.expected < (wish.min_speed or 0):
            continue
        if best is None or one.score > best.score:
            best = one
        if not one.costs.avoidable:
            break
    return best


def _settings(model: CatalogModel, wish: RecommendOptions) -> Iterator[ContextSettings]:
    """Settings to try: the longest context first, each with a KV cache of 16 and of 8 bits."""
    kinds: tuple[KvType, KvType] = ("f16", "q8_0")
    return (ContextSettings(context, k_type=kind, v_type=kind) for context in _contexts(model, wish) for kind in kinds)


def _contexts(model: CatalogModel, wish: RecommendOptions) -> list[int]:
    """Context lengths that would do for the wish, longest first; beyond what was trained only if YaRN is documented."""
    reach = model.context.usable
    if reach < wish.least and model.context.yarn:
        reach = model.context.yarn.context
    if reach < wish.least and (wish.context or wish.purpose not in {"chat", "json"}):
        return []
    longest = min(wish.wanted, reach)
    return [length for length in (longest >> halved for halved in range(8)) if length >= min(wish.least, reach)]


def _hopeless(variant: Variant, machine: Machine) -> bool:
    """Return whether the file alone is larger than all memory, which spares the exact computation."""
    unified = any(device.unified for device in machine.usable_devices)
    memory = machine.ram_available + (0 if unified else sum(device.free for device in machine.usable_devices))
    return (variant.bytes or 0) > memory


def _slowness(times: float) -> float:
    """Points for being so many times slower than comfortable."""
    halvings = max(math.log2(times), 0)
    return POINTS_PER_HALVED_SPEED * halvings + POINTS_BELOW_HALF * max(halvings - 1, 0) ** 2


def _spare(placement: Placement) -> float:
    """The part of its room that the fullest place has left."""
    used = (share for share in placement.shares if share.part.total)
    return min((share.room - share.part.total) / max(share.room, 1) for share in used)


def evaluate(
    variant: Variant, catalogue: Catalogue, machine: Machine, settings: ContextSettings, wish: RecommendOptions
) -> Recommendation:
    """Place a variant with these settings and count what they cost; docs/quality.md has the scale."""
    a, imatrix = variant.model.architecture, variant.repository.imatrix
    placement = place(a, variant.quantization, settings, machine, imatrix=imatrix)
    speed = decode_speed(a, variant.quantization, settings, placement, machine, imatrix=imatrix)
    need = NEEDS[wish.purpose]
    costs = Costs(
        context=need.points_per_halving * max(math.log2(wish.wanted / settings.context), 0),
        kv_type=0 if settings.k_type == "f16" else POINTS_FOR_KV_Q8_0,
        speed=_slowness(need.comfortable / speed.expected),
        leaving_gpu=POINTS_FOR_LEAVING_GPU if machine.usable_devices and placement.gpu_layers <= a.layers else 0,
        no_room=POINTS_FOR_NO_ROOM * max(1 - _spare(placement) / ROOM_TO_SPARE, 0),
        unusual=0 if variant.quantization == USUAL else POINTS_FOR_UNUSUAL,
    )
    return Recommendation(
        variant,
        settings,
        placement,
        speed,
        prefill_speed(a, placement, machine),
        quality_score(variant.model, variant.loss(catalogue), wish.purpose),
        costs,
    )


FASTER = 1.5  # times the pick's speed, below which the difference is hardly felt
OTHERS = 3  # models of other kinds
MOST_DEVICES = 16  # llama_max_devices()


@dataclass(frozen=True)
class Alternative:
    """A candidate and in which way it differs from the pick."""

    label: str
    candidate: Recommendation


def alternatives(
    found: Sequence[Recommendation], catalogue: Catalogue, machine: Machine, wish: RecommendOptions
) -> list[Alternative]:
    """Return a short list, each the best of its kind; `found` is what `recommendations` gave, its first the pick."""
    pick = found[0]
    size, speed, quality = pick.variant.model.parameters, pick.speed.expected, pick.quality.points
    kinds: tuple[tuple[str, Callable[[Recommendation], bool]], ...] = (
        ("smaller, faster", lambda one: one.variant.model.parameters < size and one.speed.expected > FASTER * speed),
        ("larger, slower", lambda one: one.variant.model.parameters > size and one.quality.points > quality),
        ("by YaRN", lambda one: one.by_yarn),
    )
    chosen = [Alternative(label, one) for label, fits in kinds if (one := next(filter(fits, found[1:]), None))]
    if longer := _longer(pick, catalogue, machine, wish):
        chosen.append(Alternative("longer context", longer))
    if more := _one_more_gpu(pick, catalogue, machine, wish):
        chosen.append(Alternative("one more GPU", more))
    return chosen + _others(found, {pick.variant.model.id, *(one.candidate.variant.model.id for one in chosen)})


def _longer(
    pick: Recommendation, catalogue: Catalogue, machine: Machine, wish: RecommendOptions
) -> Recommendation | None:
    """The best with twice the pick's context, unless the user said how long it is to be."""
    if wish.context:
        return None
    found = recommendations(catalogue, machine, replace(wish, context=2 * pick.settings.context))
    return next((one for one in found if not one.by_yarn), None)


def _one_more_gpu(
    pick: Recommendation, catalogue: Catalogue, machine: Machine, wish: RecommendOptions
) -> Recommendation | None:
    """The pick of the machine with one more of its last GPU, if that is another variant or a longer context."""
    devices = machine.usable_devices
    if not devices or devices[-1].unified or len(devices) == MOST_DEVICES:
        return None
    another = replace(devices[-1], free=devices[-1].total, users=())
    best = recommendations(catalogue, replace(machine, devices=(*machine.devices, another)), wish)[0]
    same = best.variant == pick.variant and best.settings == pick.settings
    return None if same and best.placement.gpu_layers == pick.placement.gpu_layers else best


def _others(found: Sequence[Recommendation], seen: set[str]) -> list[Alternative]:
    """The best of a few models that were not named yet."""
    chosen: list[Alternative] = []
    for one in found:
        if one.variant.model.id not in seen and len(chosen) < OTHERS:
            seen.add(one.variant.model.id)
            chosen.append(Alternative("", one))
    return chosen


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
    smaller = (one for one in catalogue.models if _same_tokens(one, model) and _share(one, model) <= LARGEST_SHARE)
    return tuple(sorted(smaller, key=_work))


def _same_tokens(one: CatalogModel, other: CatalogModel) -> bool:
    a, b = one.architecture, other.architecture
    return (
        one.generation == other.generation
        and (a.tokenizer, a.vocabulary) == (b.tokenizer, b.vocabulary)
        and "vocabulary" not in {*a.unconfirmed, *b.unconfirmed}
    )


def _share(one: CatalogModel, other: CatalogModel) -> float:
    return _work(one) / _work(other)


def _work(model: CatalogModel) -> float:
    """Weights that one token meets."""
    a = model.architecture
    return a.layers * active_elements(a) + a.vocabulary * a.embedding_length
