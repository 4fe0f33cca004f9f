"""Speeds that `hermes bench` measured on this machine, in place of estimates or as a correction of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from hermes_cli.planning.placement import Placement
from hermes_cli.planning.speed import Speed

S = TypeVar("S", bound=Speed)
SpeedKind = Literal["decode", "prefill"]

MOST_CORRECTION = 2.0  # a factor; what is further away says something about that one model or run
SPREAD = 0.1  # of a measured speed: other lengths of the context, other programs


@dataclass(frozen=True)
class SpeedRatio:
    """Measured over estimated speed of a model that was loaded with so many layers on GPUs, of so many in all."""

    model: str
    kind: SpeedKind
    gpu_layers: int
    all_layers: int
    ratio: float


def corrected(speed: S, kind: SpeedKind, model: str, placement: Placement, ratios: Sequence[SpeedRatio]) -> S:
    """Return an estimate corrected by what was measured.

    The same model with as many layers on GPUs has its own ratio, and its speed counts as measured. Others get the
    median of all that were wholly on GPUs, wholly on the CPU or on both as they are, within bounds.
    """
    if not ratios:
        return speed
    layers, all_layers = placement.gpu_layers, max(share.last for share in placement.shares) + 1
    of_kind = [ratio for ratio in ratios if ratio.kind == kind]
    own = [ratio.ratio for ratio in of_kind if (ratio.model, ratio.gpu_layers) == (model, layers)]
    if own:
        measured = speed.times(own[-1])
        expected = measured.expected
        return replace(measured, low=expected * (1 - SPREAD), high=expected * (1 + SPREAD), source="measured")
    place = _place(layers, all_layers)
    alike = [ratio.ratio for ratio in of_kind if _place(ratio.gpu_layers, ratio.all_layers) == place]
    if not alike:
        return speed
    import statistics  # noqa: PLC0415 - 5 ms, and most machines have no benchmarks

    return speed.times(min(max(statistics.median(alike), 1 / MOST_CORRECTION), MOST_CORRECTION))


def _place(gpu_layers: int, all_layers: int) -> Literal["cpu", "gpu", "both"]:
    return "cpu" if not gpu_layers else "gpu" if gpu_layers >= all_layers else "both"
