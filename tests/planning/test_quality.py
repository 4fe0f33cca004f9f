"""The quality scale: published results as they are, estimates between them, and what quantizations cost."""

from __future__ import annotations

import pytest

from hermes_cli.catalog.load import shipped_catalogue
from hermes_cli.catalog.variants import quantization_loss
from hermes_cli.planning.quality import GENERATION, TESTS, Purpose, quality_score

CATALOGUE = shipped_catalogue()
MODELS = {model.short: model for model in CATALOGUE.models}


def results(name: str, purpose: Purpose) -> dict[str, tuple[float, bool]]:
    score = quality_score(MODELS[name], 0, purpose, CATALOGUE)
    return {result.test: (round(result.percent, 2), result.published) for result in score.results}


def points(name: str, purpose: Purpose = "chat", quantization: str = "F16", *, imatrix: bool = False) -> float:
    nats = quantization_loss(quantization, CATALOGUE, imatrix=imatrix)
    return quality_score(MODELS[name], nats, purpose, CATALOGUE).points


def test_every_generation_has_its_place() -> None:
    assert {model.generation for model in CATALOGUE.models} <= set(GENERATION)


@pytest.mark.parametrize(
    ("name", "purpose", "expected"),
    [
        ("hermes-3:8b", "chat", {"MMLU": (64.79, True), "IFEval": (62.25, True)}),
        ("hermes-3:70b", "chat", {"MMLU": (79.09, True), "IFEval": (81.21, True)}),
        ("hermes-3:405b", "chat", {"MMLU": (85.02, True), "IFEval": (84.87, True)}),
        (
            "hermes-4:405b",
            "reasoning",
            {
                "GPQA Diamond": (70.6, True),
                "MATH-500": (96.2, True),
                "AIME 2024": (81.9, True),
                "LiveCodeBench": (61.4, True),
            },
        ),
    ],
)
def test_published_results_count_as_they_are(
    name: str, purpose: Purpose, expected: dict[str, tuple[float, bool]]
) -> None:
    assert results(name, purpose) == expected


def test_thoughts_count_half_where_others_are_tested_without() -> None:
    assert results("hermes-4:70b", "chat")["MMLU"] == (round((88.4 + 79.09) / 2, 2), True)


def test_missing_results_lie_on_the_line_of_their_generation() -> None:
    found = results("hermes-4.3:36b", "reasoning")
    assert found["MATH-500"] == (93.8, True)
    for test, smaller, larger in (
        ("GPQA Diamond", 60.2, 66.1),
        ("AIME 2024", 55.4, 73.5),
        ("LiveCodeBench", 42.5, 50.5),
    ):
        percent, published = found[test]
        assert smaller < percent < larger
        assert not published


@pytest.mark.parametrize("purpose", TESTS)
def test_larger_is_better_within_a_generation(purpose: Purpose) -> None:
    for family in (
        ("hermes-3:3b", "hermes-3:8b", "hermes-3:70b", "hermes-3:405b"),
        ("deephermes-3:3b", "deephermes-3:8b", "deephermes-3:24b"),
        ("hermes-4:14b", "hermes-4.3:36b", "hermes-4:70b", "hermes-4:405b"),
    ):
        found = [points(name, purpose) for name in family]
        assert found == sorted(found)


def test_a_mixture_of_experts_counts_for_less_than_its_parameters() -> None:
    assert points("hermes-2:34b") > points("hermes-2:8x7b") > points("hermes-2:10.7b")


def test_small_models_lose_as_much_as_was_measured() -> None:
    """0.138 nats at 3.3B, 0.126 at 3.8B, 0.028 at 14B in Q4_K_M; 0.188 at 14B in Q4_0."""

    def nats(name: str, quantization: str) -> float:
        return (points(name) - points(name, "chat", quantization)) / 30

    assert nats("hermes-3:3b", "Q4_K_M") == pytest.approx(0.13, abs=0.015)
    assert nats("hermes-4:14b", "Q4_K_M") == pytest.approx(0.0279, rel=0.1)
    assert nats("hermes-4:14b", "Q4_0") == pytest.approx(0.188, rel=0.01)


def test_agents_lose_more_by_quantization() -> None:
    def loss(purpose: Purpose) -> float:
        return points("hermes-4:14b", purpose) - points("hermes-4:14b", purpose, "Q4_K_M")

    assert loss("agent") == pytest.approx(2 * loss("chat"))


def test_a_larger_model_at_three_bits_beats_a_smaller_one_at_eight() -> None:
    assert points("hermes-3:70b", "chat", "IQ3_M", imatrix=True) > points("hermes-3:8b", "chat", "Q8_0")
