"""Speeds that `hermes bench` measured on this machine, in place of estimates or as a correction of them."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeVar

from hermes_cli.planning.speed import Speed

if TYPE_CHECKING:
    from collections.abc import Sequence

S = TypeVar("S", bound=Speed)

MOST_CORRECTION = 2.0  # a factor; what is further away says something about that one model or run
SPREAD = 0.1  # of a measured speed: other lengths of the context, other programs


@dataclass(frozen=True)
class SpeedRatio:
    """Measured over estimated speed of a model that was loaded with so many layers on GPUs."""

    model: str
    kind: Literal["decode", "prefill"]
    gpu_layers: int
    all_layers: int
    ratio: float

    @property
    def place(self) -> Literal["cpu", "gpu", "both"]:
        """Where its layers were."""
        return _place(self.gpu_layers, self.all_layers)


def corrected(speed: S, model: str, gpu_layers: int, all_layers: int, kind: str, ratios: Sequence[SpeedRatio]) -> S:
    """Return an estimate corrected by what was measured.

    The same model in the same place has its own ratio, and its speed counts as measured. Others get the median of all
    that were measured in such a place, within bounds.
    """
    of_kind = [ratio for ratio in ratios if ratio.kind == kind]
    own = [ratio.ratio for ratio in of_kind if (ratio.model, ratio.gpu_layers) == (model, gpu_layers)]
    if own:
        expected = speed.expected * own[-1]
        low, high = expected * (1 - SPREAD), expected * (1 + SPREAD)
        return replace(speed, expected=expected, low=low, high=high, source="measured")
    alike = [ratio.ratio for ratio in of_kind if ratio.place == _place(gpu_layers, all_layers)]
    if not alike:
        return speed
    factor = min(max(statistics.median(alike), 1 / MOST_CORRECTION), MOST_CORRECTION)
    return replace(speed, expected=speed.expected * factor, low=speed.low * factor, high=speed.high * factor)


def _place(gpu_layers: int, all_layers: int) -> Literal["cpu", "gpu", "both"]:
    return "cpu" if not gpu_layers else "gpu" if gpu_layers >= all_layers else "both"
