"""What is recommended: the golden table, and what must hold whatever the scale."""

from __future__ import annotations

import golden
import pytest

from hermes_cli.catalog.load import shipped_catalogue
from hermes_cli.catalog.models import CatalogModel
from hermes_cli.planning.quality import Purpose
from hermes_cli.planning.recommend import (
    Recommendation,
    RecommendOptions,
    alternatives,
    draft_candidates,
    recommendations,
    smallest_variant,
)

CATALOGUE = shipped_catalogue()
MACHINES = golden.machines()


def pick(machine: str, purpose: Purpose = "chat") -> Recommendation:
    return golden.ranked(machine, purpose)[0]


@pytest.mark.slow
def test_the_golden_table_is_what_is_recommended() -> None:
    """Changed on purpose? Read the difference: python tools/golden.py --write."""
    assert golden.table() == golden.FILE.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("machine", "name"),
    [
        ("any card 4G", "hermes-3:3b:Q4_K_M"),
        ("any card 6G", "hermes-3:8b:Q4_K_M"),
        ("any card 8G", "hermes-3:8b:Q4_K_M"),
        ("any card 48G", "hermes-4:70b:Q4_K_M"),
        ("RTX A6000, 128 GB RAM", "hermes-4:70b:Q4_K_M"),
        ("2xRTX 3090, 128 GB RAM", "hermes-4:70b:Q4_K_M"),
        ("4xH100, 1024 GB RAM", "hermes-4:405b:Q4_K_M"),
    ],
)
def test_the_published_sizing_comes_out(machine: str, name: str) -> None:
    found = pick(machine)
    assert found.variant.name == name
    assert found.placement.gpu_layers == found.variant.model.architecture.layers + 1


@pytest.mark.parametrize("machine", MACHINES)
def test_an_agent_is_never_slow_to_death_nor_short_of_context(machine: str) -> None:
    for one in golden.ranked(machine, "agent")[:1]:
        assert one.settings.context >= 64_000
        assert one.speed.expected > 4
        assert not one.by_yarn


def test_yarn_is_offered_and_marked_never_picked_before_a_trained_context() -> None:
    found = recommendations(CATALOGUE, MACHINES["RTX 4090, 64 GB RAM"], RecommendOptions("agent"))
    by_yarn = [one for one in found if one.by_yarn]
    assert {one.variant.model.short for one in by_yarn} == {"hermes-4:14b"}
    assert found[-len(by_yarn) :] == by_yarn
    labels = {
        one.label for one in alternatives(found, CATALOGUE, MACHINES["RTX 4090, 64 GB RAM"], RecommendOptions("agent"))
    }
    assert "by YaRN" in labels


@pytest.mark.slow
@pytest.mark.parametrize("machine", MACHINES)
def test_alternatives_are_what_their_labels_say(machine: str) -> None:
    found = golden.ranked(machine, "chat")
    best = found[0]
    for one in alternatives(found, CATALOGUE, MACHINES[machine], RecommendOptions()):
        other = one.candidate
        assert other.placement.fits
        match one.label:
            case "smaller, faster":
                assert other.variant.model.parameters < best.variant.model.parameters
                assert other.speed.expected > best.speed.expected
            case "larger, slower":
                assert other.variant.model.parameters > best.variant.model.parameters
                assert other.quality.points > best.quality.points
            case "longer context":
                assert other.settings.context == 2 * best.settings.context
            case "one more GPU":
                assert other.score >= best.score
            case "by YaRN":
                assert other.by_yarn
            case label:
                assert label == ""


def test_what_would_reach_an_agent_s_context_is_named() -> None:
    found = smallest_variant(CATALOGUE, RecommendOptions("agent"))
    assert found is not None
    variant, size = found
    assert variant.model.tools
    assert variant.model.context.usable >= 64_000
    assert 8 << 30 < size < 10 << 30


def test_no_model_reaches_a_million_tokens() -> None:
    assert smallest_variant(CATALOGUE, RecommendOptions(context=1_000_000)) is None


EXPECTED = {
    "hermes-3:405b": ["hermes-3:3b", "hermes-3:8b", "hermes-3:70b"],
    "hermes-3:70b": ["hermes-3:3b", "hermes-3:8b"],
    "hermes-3:8b": ["hermes-3:3b"],
    "hermes-4:405b": ["hermes-4:70b"],
    "deephermes-3:8b": ["deephermes-3:3b"],
}


@pytest.mark.parametrize("model", CATALOGUE.models, ids=lambda model: model.short)
def test_who_drafts_for_whom(model: CatalogModel) -> None:
    candidates = draft_candidates(model, CATALOGUE)
    assert [one.short for one in candidates] == EXPECTED.get(model.short, [])
    for one in candidates:
        assert one.parameters <= model.parameters / 2
        assert one.architecture.tokenizer == model.architecture.tokenizer
        assert one.architecture.vocabulary == model.architecture.vocabulary
        assert one.prompt.format == model.prompt.format
