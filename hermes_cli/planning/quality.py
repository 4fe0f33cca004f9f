"""A figure of merit for a model in a quantization, in points: higher is better, and only differences mean something.

No one test has been published for the whole family, so the scale is built from what has been (docs/quality.md):

- Two published MMLU results anchor it: Hermes 3 405B with 85.02 (arXiv 2408.11857) and Hermes 4.3 36B with 87.7 (card).
- Size: 10 points for ten times the parameters, between the 13 that Llama 3.1 gains from 8B to 70B and the 8 from 70B
  to 405B (MMLU 66.7, 79.3, 85.2; arXiv 2407.21783).
- Generation: the anchors put Hermes 4.3 13 points above Hermes 3 of equal size when it reasons; half of that is kept
  for tasks without reasoning. Older generations step down by as much as their base models' published MMLU.
- Quantization: 20 points for each nat of KL divergence from F16, which makes Q4_K_M cost half a point and Q2_K seven;
  the divergence was measured on Llama 3 8B and shrinks with size as perplexity does between Llama 2 7B and 70B.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from hermes_cli.catalog.models import CatalogModel

Purpose = Literal["chat", "agent", "reasoning", "json", "long-context"]

ANCHOR_POINTS, ANCHOR_PARAMETERS = 85.02, 405.85e9  # Hermes 3 405B
POINTS_PER_DECADE = 10.0
POINTS_PER_NAT = 20.0
SIZE_OF_MEASURED = 8.03e9  # parameters of the model whose divergence was measured
LOSS_EXPONENT = 0.08  # Llama 2: perplexity rises by 1.42 % in Q4_K_M at 7B and by 1.20 % at 70B
UNMEASURED_LOSS = 0.15  # nats, where nobody measured a quantization

# Points above Hermes 3 of the same size: (with reasoning, without).
GENERATION: dict[str, tuple[float, float]] = {
    "Hermes 4.3": (13.2, 6.6),
    "Hermes 4": (13.2, 6.6),
    "DeepHermes 3": (4.0, -0.5),
    "Hermes 3": (0.0, 0.0),
    "Hermes 2 Theta": (-1.5, -1.5),
    "Hermes 2 Pro": (-2.0, -2.0),
    "Hermes 2": (-5.0, -5.0),
    "OpenHermes": (-7.0, -7.0),
    "Hermes 1": (-13.0, -13.0),
    "": (0.0, 0.0),  # any other model; its points are not shown
}


@dataclass(frozen=True)
class QualityScore:
    """Points of the model, points that the quantization costs, and what is left."""

    model: float
    loss: float

    @property
    def points(self) -> float:
        """The figure of merit."""
        return self.model - self.loss


def supports_purpose(model: CatalogModel, purpose: Purpose) -> bool:
    """Return whether the model was trained for a purpose."""
    if purpose == "reasoning":
        return model.reasoning is not None
    if purpose == "agent":
        return model.tools
    return model.json_mode or purpose != "json"


def quality_score(model: CatalogModel, divergence: float | None, purpose: Purpose) -> QualityScore:
    """The figure of merit of a variant whose quantization diverges by so many nats on Llama 3 8B."""
    thinking, plain = GENERATION[model.generation]
    generation = thinking if purpose in {"reasoning", "agent"} and model.reasoning else plain
    size = POINTS_PER_DECADE * math.log10(model.parameters / ANCHOR_PARAMETERS)
    nats = UNMEASURED_LOSS if divergence is None else divergence
    shrunk = nats * (SIZE_OF_MEASURED / model.parameters) ** LOSS_EXPONENT
    return QualityScore(ANCHOR_POINTS + generation + size, POINTS_PER_NAT * shrunk)
