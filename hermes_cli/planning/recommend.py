"""Which variant, with which context, is best on a machine for a purpose."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hermes_cli.catalog.variants import best_sources, loss
from hermes_cli.planning.memory import Settings
from hermes_cli.planning.placement import place
from hermes_cli.planning.quality import merit, serves
from hermes_cli.planning.speed import decode_speed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hermes_cli.catalog.models import Catalogue, Model
    from hermes_cli.catalog.variants import Variant
    from hermes_cli.hardware.machine import Machine
    from hermes_cli.planning.placement import Placement
    from hermes_cli.planning.quality import Merit, Purpose
    from hermes_cli.planning.speed import Speed

# Context lengths in tokens that a purpose should have, and can do with. An agent's 64,000 is what Hermes Agent refuses
# to start without; thoughts of 13,000 tokens (DeepHermes' card) and their answer need 16,384.
WANTED: dict[Purpose, tuple[int, int]] = {
    "chat": (16_384, 4096),
    "agent": (64_000, 64_000),
    "reasoning": (32_768, 16_384),
    "json": (8192, 4096),
    "long-context": (131_072, 32_768),
}
POINTS_PER_HALVING = 1.0  # what half of the wanted context costs
# What slowness costs: points for each token per second below a comfortable speed, and more below a bearable one; and
# for leaving the GPU, which makes the speed fall off a cliff that no estimate gets quite right.
COMFORTABLE_SPEED, POINTS_BELOW_COMFORTABLE = 8.0, 1.2
BEARABLE_SPEED, POINTS_BELOW_BEARABLE = 4.0, 8.0
POINTS_FOR_LEAVING_GPU = 9.0
LOW_BITS = 3.0  # bits per weight below which a warning is due


@dataclass(frozen=True)
class Candidate:
    """A variant at a context length on a machine: where it goes, how fast and how good it is, and its score."""

    variant: Variant
    settings: Settings
    placement: Placement
    speed: Speed
    merit: Merit
    score: float

    @property
    def fits(self) -> bool:
        """Whether the machine has room for it."""
        return self.placement.fits


@dataclass(frozen=True)
class Wish:
    """What is asked for: a purpose, and what the user insists on."""

    purpose: Purpose = "chat"
    context: int | None = None
    min_speed: float | None = None


def candidates(catalogue: Catalogue, machine: Machine, wish: Wish) -> list[Candidate]:
    """Every variant that fits, each with the longest context up to the wanted one; the best first."""
    found = []
    for model in catalogue.models:
        if serves(model, wish.purpose):
            found += [one for one in (_at_best_context(v, catalogue, machine, wish) for v in _choices(model)) if one]
    return sorted(found, key=lambda one: -one.score)


def _choices(model: Model) -> Iterator[Variant]:
    """Variants worth looking at: of known size, and loadable as they are."""
    return (one for one in best_sources(model) if one.bytes and one.computed_bytes and not one.entry.parts)


def _at_best_context(variant: Variant, catalogue: Catalogue, machine: Machine, wish: Wish) -> Candidate | None:
    """The variant with the longest of the contexts that fits, or None."""
    if _hopeless(variant, machine):
        return None
    for context in _contexts(variant.model, wish):
        one = evaluate(variant, catalogue, machine, Settings(context), wish)
        if one.fits and (wish.min_speed is None or one.speed.expected >= wish.min_speed):
            return one
    return None


def _contexts(model: Model, wish: Wish) -> list[int]:
    """Context lengths to try, longest first."""
    if wish.context is not None:
        return [wish.context] if wish.context <= model.context.usable else []
    wanted, least = WANTED[wish.purpose]
    longest = min(wanted, model.context.usable)
    lengths = [longest >> halved for halved in range(8)]
    return (
        [length for length in lengths if length >= min(least, model.context.usable)]
        if longest >= least or (wish.purpose in {"chat", "json"})
        else []
    )


def _hopeless(variant: Variant, machine: Machine) -> bool:
    """Whether the file alone is larger than all memory; spares the exact computation."""
    unified = any(device.unified for device in machine.usable_devices)
    memory = machine.ram_available + (0 if unified else sum(device.free for device in machine.usable_devices))
    return (variant.bytes or 0) > memory


def evaluate(variant: Variant, catalogue: Catalogue, machine: Machine, settings: Settings, wish: Wish) -> Candidate:
    """Place a variant with these settings and score it: merit, less what a short context and slowness cost."""
    a, imatrix = variant.model.architecture, variant.repository.imatrix
    placement = place(a, variant.quantization, settings, machine, imatrix=imatrix)
    speed = decode_speed(a, variant.quantization, settings, placement, machine, imatrix=imatrix)
    points = merit(variant.model, loss(catalogue, variant.quantization, imatrix=imatrix), wish.purpose)
    wanted = wish.context or WANTED[wish.purpose][0]
    short = POINTS_PER_HALVING * max(math.log2(wanted / settings.context), 0)
    slow = POINTS_BELOW_COMFORTABLE * max(COMFORTABLE_SPEED - speed.expected, 0)
    slow += POINTS_BELOW_BEARABLE * max(BEARABLE_SPEED - speed.expected, 0)
    left = POINTS_FOR_LEAVING_GPU if machine.usable_devices and placement.gpu_layers <= a.layers else 0
    return Candidate(variant, settings, placement, speed, points, points.points - short - slow - left)
