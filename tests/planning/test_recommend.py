"""What is recommended: the golden table, and what must hold whatever the scale."""

from __future__ import annotations

from dataclasses import replace

import golden
import pytest

from hermes_cli.catalog.load import shipped_catalogue
from hermes_cli.catalog.models import CatalogModel
from hermes_cli.planning.best_placement import NEEDS
from hermes_cli.planning.quality import Purpose
from hermes_cli.planning.recommend import (
    Recommendation,
    RecommendOptions,
    alternatives,
    draft_candidates,
    recommendations,
    shortfalls,
    smallest_variant,
)

CATALOGUE = shipped_catalogue()
MACHINES = golden.machines()


def pick(machine: str, purpose: Purpose = "chat") -> Recommendation:
    found = golden.best(machine, purpose)
    assert found
    return found


@pytest.mark.slow
def test_the_golden_table_is_what_is_recommended() -> None:
    """Changed on purpose? Read the difference: python tools/golden.py --write."""
    assert golden.table() == golden.FILE.read_text(encoding="utf-8")


@pytest.mark.parametrize("machine", ["RTX 4060, 32 GB RAM", "2xRTX 3090, 128 GB RAM", "CPU only, 64 GB RAM at 60 GB/s"])
def test_the_best_is_the_first_of_all(machine: str) -> None:
    for purpose in golden.PURPOSES:
        assert golden.best(machine, purpose) == golden.ranked(machine, purpose)[0]


@pytest.mark.parametrize(
    ("machine", "name"),
    [
        ("any card 4G", "hermes-3:3b"),
        ("any card 6G", "hermes-3:8b"),
        ("any card 8G", "hermes-3:8b"),
        ("any card 12G", "hermes-4:14b"),
        ("any card 16G", "hermes-4:14b"),
        ("any card 24G", "hermes-4.3:36b"),
        ("any card 48G", "hermes-4:70b"),
        ("RTX A6000, 128 GB RAM", "hermes-4:70b"),
        ("2xRTX 3090, 128 GB RAM", "hermes-4:70b"),
        ("8xH200, 2048 GB RAM", "hermes-4:405b"),
    ],
)
def test_the_published_sizing_comes_out(machine: str, name: str) -> None:
    found = pick(machine)
    assert found.variant.model.short == name
    assert not found.leaves_gpu
    assert (found.variant.bits_per_weight or 0) > 4


@pytest.mark.parametrize("machine", MACHINES)
def test_hermes_4_has_room_for_its_thoughts(machine: str) -> None:
    found = pick(machine, "reasoning")
    if found.variant.model.generation in {"Hermes 4", "Hermes 4.3"}:
        assert found.settings.context >= 32_768
    assert found.settings.context >= 16_384


@pytest.mark.parametrize("machine", ["RTX 3090, 64 GB RAM", "RTX 4090, 64 GB RAM", "RX 7900 XTX, 64 GB RAM"])
def test_an_agent_stays_on_a_gpu_that_can_hold_one(machine: str) -> None:
    found = pick(machine, "agent")
    assert not found.leaves_gpu
    assert not shortfalls(found, "agent")


@pytest.mark.parametrize("machine", ["CPU only, 16 GB RAM at 45 GB/s", "CPU only, 32 GB RAM at 50 GB/s"])
def test_an_office_computer_is_not_sent_to_a_model_too_slow_to_talk_to(machine: str) -> None:
    found = pick(machine)
    assert found.speed.expected > 5
    assert found.variant.model.parameters < 9e9


@pytest.mark.parametrize("purpose", ["chat", "reasoning"])
def test_left_over_memory_goes_to_better_quantizations_and_longer_contexts(purpose: Purpose) -> None:
    found = pick("H100, 1024 GB RAM", purpose)
    assert found.variant.name == "hermes-4:70b:Q6_K"
    assert found.settings.context >= NEEDS[purpose].wanted * (2 if purpose == "chat" else 1)
    assert found.speed.expected > NEEDS[purpose].comfortable


def test_a_machine_is_told_what_it_is_not_for() -> None:
    assert {missed.need for missed in shortfalls(pick("any card 4G", "agent"), "agent")} >= {"gpu"}
    slow = pick("CPU only, 32 GB RAM at 50 GB/s", "agent")
    assert {missed.need for missed in shortfalls(slow, "agent")} >= {"wait"}
    assert shortfalls(pick("any card 8G"), "chat") == []


def test_what_the_user_will_not_wait_for_is_left_out() -> None:
    machine = MACHINES["RTX 3090, 64 GB RAM"]
    fast = recommendations(CATALOGUE, machine, RecommendOptions("agent", max_wait=5))
    assert fast
    assert all(one.first_token.expected <= 5 for one in fast)
    assert len(fast) < len(golden.ranked("RTX 3090, 64 GB RAM", "agent"))


def test_gpu_only_keeps_to_what_fits_there() -> None:
    machine = MACHINES["any card 8G"]
    whole = recommendations(CATALOGUE, machine, RecommendOptions(gpu_only=True))
    assert whole
    assert not any(one.leaves_gpu for one in whole)
    assert not recommendations(CATALOGUE, MACHINES["CPU only, 64 GB RAM at 60 GB/s"], RecommendOptions(gpu_only=True))


@pytest.mark.parametrize("purpose", NEEDS)
def test_a_gpu_never_makes_it_worse(purpose: Purpose) -> None:
    without = MACHINES["CPU only, 32 GB RAM at 50 GB/s"]
    score = pick("CPU only, 32 GB RAM at 50 GB/s", purpose).score
    for size in (2, 4, 8):
        cards = replace(MACHINES["any card 4G"].devices[0], total=size << 30, free=size << 30)
        found = recommendations(CATALOGUE, replace(without, devices=(cards,)), RecommendOptions(purpose))
        assert found[0].score >= score
        score = found[0].score


@pytest.mark.parametrize("machine", MACHINES)
def test_an_agent_is_never_slow_to_death_nor_short_of_context(machine: str) -> None:
    if found := golden.best(machine, "agent"):
        assert found.settings.context >= 64_000
        assert found.speed.expected > 4 or shortfalls(found, "agent")  # which says that the machine is not for agents
        assert not found.by_yarn


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
@pytest.mark.parametrize(
    "machine",
    [pytest.param(name, marks=() if number % 3 == 0 else pytest.mark.long) for number, name in enumerate(MACHINES)],
)
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


def test_one_more_gpu_is_what_that_machine_would_be_recommended() -> None:
    machine = MACHINES["any card 12G"]
    options = RecommendOptions()
    others = alternatives(golden.ranked("any card 12G", "chat"), CATALOGUE, machine, options)
    more = next(one.candidate for one in others if one.label == "one more GPU")
    assert more == recommendations(CATALOGUE, replace(machine, devices=machine.devices * 2), options)[0]


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
