"""The placement that costs a model the fewest points, by the needs of a purpose.

docs/quality.md has the scale.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hermes_cli.catalog.models import Architecture
from hermes_cli.planning.memory import ContextSettings, Weights
from hermes_cli.planning.placement import ROOMY, Placement, place_layers, placements
from hermes_cli.planning.speed import (
    PROMPTS,
    FirstToken,
    Speed,
    SpeedRatio,
    corrected,
    decode_speed,
    first_token_seconds,
    prefill_speed,
)

if TYPE_CHECKING:
    from hermes_cli.hardware.machine import Machine
    from hermes_cli.planning.quality import Purpose


@dataclass(frozen=True)
class PurposeNeeds:
    """Requirements of a purpose."""

    # wanted, least: context length in tokens that it should have, and can do with
    wanted: int
    least: int
    points_per_halving: float  # what half of the wanted context costs
    # comfortable, slowest: tokens per second below which slowness costs points, and below which a machine is not for it
    comfortable: float
    slowest: float
    # wait, longest_wait: seconds to the first token of the first prompt (speed.PROMPTS), likewise
    wait: float
    longest_wait: float


# An agent's 64,000 tokens are what Hermes Agent refuses to start without. Hermes 4 was taught to close its thought at
# 30,000 tokens and evaluated with 40,960. Thinking and working in many steps should be faster than reading.
NEEDS: dict[Purpose, PurposeNeeds] = {
    "chat": PurposeNeeds(16_384, 4096, 1.5, 10, 3, 4, 60),
    "agent": PurposeNeeds(64_000, 64_000, 0.5, 20, 8, 30, 180),
    "reasoning": PurposeNeeds(40_960, 32_768, 3.0, 15, 4, 8, 120),
    "json": PurposeNeeds(8192, 4096, 0.5, 10, 3, 8, 120),
    "long-context": PurposeNeeds(131_072, 32_768, 7.0, 10, 3, 60, 900),
}
# What slowness costs for each halving of a comfortable speed, and for the cube of the halvings: 12 points at half of it
# and 72 at a quarter.
POINTS_PER_HALVED_SPEED, POINTS_PER_CUBED_HALVING = 4.0, 8.0
POINTS_PER_DOUBLED_WAIT = 1.5
# Layers on the CPU make the speed fall off a cliff, steeper with every token of context, that no estimate gets quite
# right. Without a GPU everything pays it, so that a GPU never makes anything worse.
POINTS_FOR_LEAVING_GPU = 20.0
# A second GPU adds traffic and heat, and it has other uses; four cost as much again, and so on.
POINTS_PER_DOUBLED_GPUS = 1.5
# A plan that fills its room to the last byte depends on overheads that are assumed (placement.OVERHEAD). With layers
# on the CPU the GPUs are always full, and one layer less is a way out.
ROOM_TO_SPARE, POINTS_FOR_NO_ROOM = 1 - ROOMY, 1.0


@dataclass(frozen=True)
class Costs:
    """Points that a variant loses on this machine."""

    context: float = 0.0
    kv_type: float = 0.0
    speed: float = 0.0
    wait: float = 0.0
    leaving_gpu: float = 0.0
    more_gpus: float = 0.0
    no_room: float = 0.0
    unusual: float = 0.0

    @property
    def total(self) -> float:
        """The sum."""
        return self.context + self.kv_type + self.unusual + self.of_machine

    @property
    def of_machine(self) -> float:
        """The costs that depend on where the model lies."""
        return self.speed + self.wait + self.leaving_gpu + self.more_gpus + self.no_room


@dataclass(frozen=True)
class PlacedModel:
    """A model with settings in a place: how fast it is there, and what the machine costs it."""

    placement: Placement
    speed: Speed
    prefill: Speed
    first_token: FirstToken
    costs: Costs

    @property
    def leaves_gpu(self) -> bool:
        """Some layers stay on the CPU."""
        return self.costs.leaving_gpu > 0


def slowness_cost(need: PurposeNeeds, tokens_per_second: float) -> float:
    """Return the points that a decode speed costs."""
    halvings = max(math.log2(need.comfortable / tokens_per_second), 0)
    return POINTS_PER_HALVED_SPEED * halvings + POINTS_PER_CUBED_HALVING * halvings**3


def best_placement(
    architecture: Architecture,
    quantization: str,
    table: Weights,
    settings: ContextSettings,
    machine: Machine,
    gpu_layers: int | None = None,
    purpose: Purpose = "chat",
) -> Placement:
    """Return the placement that costs a purpose least; where nothing fits, one whose numbers tell that.

    With `gpu_layers`, counted as llama.cpp's `n_gpu_layers`, so many are on GPUs.
    """
    best = placed_best((architecture, quantization, table), settings, machine, purpose, gpu_layers=gpu_layers)
    if best:
        return best.placement
    layers = architecture.layers + 1 if gpu_layers is None else gpu_layers
    return place_layers(architecture, table, settings, machine, layers)


def placed_best(
    model: tuple[Architecture, str, Weights],  # its architecture, quantization and weights
    settings: ContextSettings,  # with which it is loaded
    machine: Machine,  # where
    purpose: Purpose = "chat",  # whose needs count
    allows: Callable[[PlacedModel], bool] = lambda _: True,  # tells whether the user allows a place
    name: str = "",  # of the variant, for its own measured speeds
    measured: Sequence[SpeedRatio] = (),  # by `hermes bench`, on this machine
    gpu_layers: int | None = None,  # as many as are to be on GPUs; None is free
) -> PlacedModel | None:
    """Return a model where it costs least, of equal places the fastest on the fewest GPUs; None if none is allowed.

    A machine's further GPUs add to the choice and change none of the costs: more hardware never makes it worse.
    """
    architecture, quantization, table = model
    need = NEEDS[purpose]
    best, best_unavoidable = None, 0.0
    for placement in placements(architecture, table, settings, machine, gpu_layers):
        leaving = POINTS_FOR_LEAVING_GPU if placement.gpu_layers <= architecture.layers else 0.0
        more_gpus = POINTS_PER_DOUBLED_GPUS * math.log2(max(len(placement.devices), 1))
        if best and best_unavoidable < leaving + more_gpus >= best.costs.of_machine:
            break  # those that follow cost no less
        filled = PROMPTS[purpose].filled
        decode = decode_speed(architecture, quantization, table, settings, placement, machine, filled)
        speed = corrected(decode, "decode", name, placement, measured)
        prefill = prefill_speed(architecture, table, settings, placement, machine)
        prefill = corrected(prefill, "prefill", name, placement, measured)
        first_token = first_token_seconds(PROMPTS[purpose], prefill, settings.context)
        # the part of its room that the fullest place has left
        counted = placement.shares[:1] if leaving else placement.shares
        spare = min((share.room - share.part.total) / max(share.room, 1) for share in counted)
        costs = Costs(
            speed=slowness_cost(need, speed.expected),
            wait=POINTS_PER_DOUBLED_WAIT * max(math.log2(first_token.expected / need.wait), 0),
            leaving_gpu=leaving,
            more_gpus=more_gpus,
            no_room=POINTS_FOR_NO_ROOM * max(1 - spare / ROOM_TO_SPARE, 0),
        )
        candidate = PlacedModel(placement, speed, prefill, first_token, costs)
        if allows(candidate) and (
            best is None or (costs.of_machine, -speed.expected) < (best.costs.of_machine, -best.speed.expected)
        ):
            best, best_unavoidable = candidate, leaving + more_gpus
    return best
