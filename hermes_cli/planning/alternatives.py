"""What to offer beside the pick: faster, larger, longer, by YaRN, and what one more GPU would buy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hermes_cli.planning.recommend import recommendations

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hermes_cli.catalog.models import Catalogue
    from hermes_cli.hardware.machine import Machine
    from hermes_cli.planning.recommend import Recommendation, RecommendOptions

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
    """A short list, each the best of its kind; `found` is what `recommendations` gave, its first the pick."""
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
