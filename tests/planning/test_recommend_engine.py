"""When vLLM is recommended and when llama.cpp is, and that more never makes it worse."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import golden
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace as replace_struct

from hermes_cli.catalog.load import shipped_catalogue
from hermes_cli.planning.quality import Purpose
from hermes_cli.planning.recommend import Recommendation, RecommendOptions, best_recommendation
from hermes_cli.planning.recommend_engine import MANY_USERS, EngineRecommendation, engine_recommendation

CATALOGUE = shipped_catalogue()
CARDS = ("RTX 3090", "RTX 4090", "L4", "L40S", "A100 80GB", "H100", "H200", "MI300X")


@cache
def llama_cpp(gpus: str, purpose: Purpose = "chat") -> Recommendation | None:
    return best_recommendation(CATALOGUE, golden.launch_machine(gpus), RecommendOptions(purpose))


@cache
def engine(gpus: str, users: int = 1, purpose: Purpose = "chat") -> EngineRecommendation | None:
    options = RecommendOptions(purpose, users=users)
    return engine_recommendation(CATALOGUE, golden.launch_machine(gpus), options, llama_cpp(gpus, purpose))


@pytest.mark.parametrize(
    ("gpus", "users", "weights", "used"),
    [
        ("8xH200", 1, "hermes-4:405b@fp8", 8),
        ("8xH200", 64, "hermes-4:405b@fp8", 8),
        ("8xH100", 1, "hermes-4:405b@fp8", 8),
        ("4xRTX 4090", 1, "hermes-4:70b@fp8", 4),
        ("RTX 4090", 32, "hermes-4:14b@fp8", 1),
        ("2xH100", 64, "hermes-4:70b@fp8", 2),
    ],
)
def test_vllm_is_named_with_its_weights(gpus: str, users: int, weights: str, used: int) -> None:
    pick = engine(gpus, users)
    assert pick
    assert (pick.weights.name, pick.launch.plan.gpus) == (weights, used)


@pytest.mark.parametrize("gpus", ["RTX 4090", "H100", "2xRTX 3090", "RTX PRO 6000 Blackwell"])
def test_one_person_stays_with_llama_cpp_where_it_serves_best(gpus: str) -> None:
    assert engine(gpus) is None


def test_405b_is_several_times_as_fast_on_all_of_eight_h200() -> None:
    """The case for which this is here: 4 bits at 11 tokens/s with most of the memory idle."""
    pick, alone = engine("8xH200"), llama_cpp("8xH200")
    assert pick
    assert alone
    assert pick.alone.each.expected > 3 * alone.speed.expected
    assert pick.quality.points > alone.quality.points


@pytest.mark.parametrize("gpus", ["GTX 1060 6GB", "Arc B580", "RX 6600"])
def test_gpus_that_vllm_does_not_use_get_llama_cpp_however_many_ask(gpus: str) -> None:
    assert engine(gpus, 100) is None


def test_without_a_gpu_it_is_llama_cpp() -> None:
    here = replace(golden.launch_machine("H100"), devices=())
    assert engine_recommendation(CATALOGUE, here, RecommendOptions(users=64), None) is None


def test_what_the_user_insists_on_holds_for_vllm_too() -> None:
    here = golden.launch_machine("8xH100")

    def weights(**more: object) -> str | None:
        options = replace(RecommendOptions(users=64), **more)  # type: ignore[arg-type]
        found = engine_recommendation(CATALOGUE, here, options, llama_cpp("8xH100"))
        return found.weights.model.short if found else None

    assert weights() == "hermes-4:405b"
    assert weights(min_speed=60.0) == "hermes-4.3:36b"
    assert weights(min_speed=10_000.0) is None
    assert weights(context=524_288) == "hermes-4.3:36b"
    assert weights(only=(next(model for model in CATALOGUE.models if model.short == "hermes-4:14b"),)) == "hermes-4:14b"


def test_a_file_of_no_catalogue_has_no_weights_for_vllm() -> None:
    [model] = [model for model in CATALOGUE.models if model.short == "hermes-3:8b"]
    options = RecommendOptions(users=64, only=(replace_struct(model, generation=""),))
    assert engine_recommendation(CATALOGUE, golden.launch_machine("H100"), options, None) is None


@pytest.mark.slow
@given(st.sampled_from(CARDS), st.integers(1, 7), st.sampled_from([8, 32, 100, 400]), st.sampled_from(golden.PURPOSES))
def test_one_more_gpu_never_makes_it_worse_for_many(card: str, count: int, users: int, purpose: Purpose) -> None:
    fewer, more = engine(f"{count}x{card}", users, purpose), engine(f"{count + 1}x{card}", users, purpose)
    if fewer:
        assert more
        assert more.rank[:2] >= fewer.rank[:2]


@pytest.mark.slow
@given(st.sampled_from(CARDS), st.sampled_from([1, 2, 4, 8, 16]), st.integers(1, 300), st.integers(1, 300))
def test_more_users_never_turn_it_back_to_llama_cpp_nor_make_it_slower_together(
    card: str, count: int, users: int, more: int
) -> None:
    few, many = engine(f"{count}x{card}", users), engine(f"{count}x{card}", users + more)
    if few and users >= MANY_USERS:
        assert many
        # replicas with one request more than others set the pace, which is a few percent
        assert many.together.all.expected >= 0.9 * few.together.all.expected


@pytest.mark.slow
@given(st.sampled_from(CARDS), st.integers(1, 7))
def test_one_more_gpu_never_gives_one_person_a_worse_model(card: str, count: int) -> None:
    def points(gpus: str) -> float:
        other, own = engine(gpus), llama_cpp(gpus)
        return max(other.quality.points if other else 0, own.quality.points if own else 0)

    assert points(f"{count + 1}x{card}") >= points(f"{count}x{card}") - 1.0
