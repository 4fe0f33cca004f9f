"""A figure of merit for a model in a quantization, in points: higher is better, and only differences mean something.

The points of a model are the mean, in percent, of the published tests that speak for a purpose (docs/quality.md):

- A result in the catalogue's `benchmarks` counts as it is. A model that can think is tested with its thoughts; in tests
  that others take without any (MMLU, IFEval) its result and the one of Hermes 3 of its size count half each, because
  people let it think or not.
- A missing result is estimated: by a straight line over the logarithm of the parameters through the published results
  of one generation, plus what the model's generation is above that one (`GENERATION`). So the step from size to size
  is the published one.
- The quantization costs points for each nat of KL divergence from F16. It was measured on Llama 3 8B; larger models
  lose less, as perplexity does between Llama 2 7B and 70B, and smaller ones much more (`_shrink`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from hermes_cli.catalog.models import CatalogModel, Catalogue

Purpose = Literal["chat", "agent", "reasoning", "json", "long-context"]


@dataclass(frozen=True)
class PublishedTest:
    """A test by the keys that its results have in the catalogue, and whether it is taken with thoughts.

    `of` are the generations whose results give its line over the sizes.
    """

    name: str
    keys: tuple[str, ...]
    thinking: bool
    of: frozenset[str]


_HERMES_3, _HERMES_4 = frozenset({"Hermes 3"}), frozenset({"Hermes 4", "Hermes 4.3"})
MMLU = PublishedTest("MMLU", ("mmlu", "mmlu_reasoning"), thinking=False, of=_HERMES_3)
IFEVAL = PublishedTest("IFEval", ("ifeval",), thinking=False, of=_HERMES_3)
GPQA = PublishedTest("GPQA Diamond", ("gpqa_diamond",), thinking=True, of=_HERMES_4)
MATH = PublishedTest("MATH-500", ("math_500", "math_500_reasoning"), thinking=True, of=_HERMES_4)
AIME = PublishedTest("AIME 2024", ("aime_2024_reasoning",), thinking=True, of=_HERMES_4)
CODE = PublishedTest("LiveCodeBench", ("livecodebench",), thinking=True, of=_HERMES_4)

# Function calling is published for Hermes 2 Pro only (90 % at every size), JSON mode likewise (84 %), tests of long
# contexts for none: the nearest tests stand in.
TESTS: dict[Purpose, tuple[PublishedTest, ...]] = {
    "chat": (MMLU, IFEVAL),
    "agent": (IFEVAL, GPQA, CODE),
    "reasoning": (GPQA, MATH, AIME, CODE),
    "json": (MMLU, IFEVAL),
    "long-context": (MMLU, IFEVAL),
}

# Points above the line of a test: (of those with thoughts, of those without). Hermes 4 405B without its thoughts is 31
# to 70 points lower in tests that want them. Hermes 4.3 36B is 7.8 above Hermes 3 of its size in MMLU and IFEval;
# Hermes 4 70B and 405B are 9.3 and 2.2 above it in MMLU; half of their mean is kept, as above. DeepHermes is assumed to
# be half way. The steps of older generations follow the published MMLU of their base models.
GENERATION: dict[str, tuple[float, float]] = {
    "Hermes 4.3": (0.0, 3.2),
    "Hermes 4": (0.0, 3.2),
    "DeepHermes 3": (-15.0, -0.5),
    "Hermes 3": (-30.0, 0.0),
    "Hermes 2 Theta": (-31.5, -1.5),
    "Hermes 2 Pro": (-32.0, -2.0),
    "Hermes 2": (-35.0, -5.0),
    "OpenHermes": (-37.0, -7.0),
    "Hermes 1": (-43.0, -13.0),
    "": (-30.0, 0.0),  # any other model; its points are not shown
}

# A Q4_K_M of 8B loses 0.9 points, of 3B 3.7. Arguments of tool calls suffer first: on Hermes 4 14B Q4_K_M agrees with
# Q8_0 in 64 % of them, Q5_K_M and Q6_K in 79 % (docs/quality.md).
POINTS_PER_NAT, POINTS_PER_NAT_OF_AGENTS = 30.0, 60.0
SIZE_OF_MEASURED = 8.03e9  # parameters of the model whose divergence was measured
LOSS_EXPONENT = 0.08  # Llama 2: perplexity rises by 1.42 % in Q4_K_M at 7B and by 1.20 % at 70B
LOSS_EXPONENT_BELOW = 1.5  # Q4_K_M diverges by 0.031 at 8B, by 0.126 at 3.8B and by 0.138 at 3.3B
UNMEASURED_LOSS = 0.15  # nats, where nobody measured a quantization


@dataclass(frozen=True)
class TestResult:
    """The result of a model in a test, in percent, published or estimated."""

    test: str
    percent: float
    published: bool


@dataclass(frozen=True)
class QualityScore:
    """Results of the model, points that the quantization costs, and what is left."""

    results: tuple[TestResult, ...]
    loss: float

    @cached_property
    def model(self) -> float:
        """Points of the unquantized model: the mean of its results."""
        return sum(result.percent for result in self.results) / len(self.results)

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


def quality_score(
    model: CatalogModel, divergence: float | None, purpose: Purpose, catalogue: Catalogue
) -> QualityScore:
    """Return the figure of merit of a variant whose quantization diverges by so many nats on Llama 3 8B."""
    return QualityScore(model_results(model, purpose, catalogue), quantization_cost(model, divergence, purpose))


def model_results(model: CatalogModel, purpose: Purpose, catalogue: Catalogue) -> tuple[TestResult, ...]:
    """Return what a model reaches in the tests that speak for a purpose."""
    return tuple(_result(model, test, catalogue) for test in TESTS[purpose])


def quantization_cost(model: CatalogModel, divergence: float | None, purpose: Purpose) -> float:
    """Return the points that a model loses by a quantization that diverges by so many nats on Llama 3 8B."""
    nats = UNMEASURED_LOSS if divergence is None else divergence
    cost = POINTS_PER_NAT_OF_AGENTS if purpose == "agent" else POINTS_PER_NAT
    return cost * nats * _shrink(model.parameters)


def _shrink(parameters: int) -> float:
    """Return how much a model of this size loses, as a share of what one of 8B does."""
    ratio = SIZE_OF_MEASURED / parameters
    return math.pow(ratio, LOSS_EXPONENT_BELOW if ratio > 1 else LOSS_EXPONENT)


def _result(model: CatalogModel, test: PublishedTest, catalogue: Catalogue) -> TestResult:
    """Return the published result of a model in a test, or what the results of others let expect."""
    expected = _on_line(_size(model), _line(test, catalogue))
    published = _published(model, test)
    if published is None:
        with_thoughts, without = GENERATION[model.generation]
        return TestResult(test.name, expected + (with_thoughts if test.thinking else without), published=False)
    if model.reasoning and not test.thinking:
        published = (published + expected) / 2
    return TestResult(test.name, published, published=True)


def _size(model: CatalogModel) -> float:
    """Return the logarithm of the parameters; of a mixture of experts, half way to those that a token meets."""
    architecture = model.architecture
    if not architecture.experts:
        return math.log10(model.parameters)
    idle = (architecture.experts - architecture.experts_used) * 3 * architecture.feed_forward_length
    active = model.parameters - idle * architecture.embedding_length * architecture.layers
    return math.log10(math.sqrt(model.parameters * active))


def _published(model: CatalogModel, test: PublishedTest) -> float | None:
    return next((model.benchmarks[key] for key in test.keys if key in model.benchmarks), None)


def _line(test: PublishedTest, catalogue: Catalogue) -> list[tuple[float, float]]:
    """Return (logarithm of the parameters, result) of those who took the test, the smallest first."""
    return sorted(
        (_size(model), result)
        for model in catalogue.models
        if model.generation in test.of and (result := _published(model, test)) is not None
    )


def _on_line(position: float, points: list[tuple[float, float]]) -> float:
    """Interpolate between the points; beyond them the last pieces go on."""
    pieces = list(pairwise(points))
    (left, low), (right, high) = next((piece for piece in pieces if position <= piece[1][0]), pieces[-1])
    return low + (high - low) * (position - left) / (right - left)
