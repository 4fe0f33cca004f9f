"""What the catalogue says, against the model cards and against llama.cpp."""

from __future__ import annotations

import re

import llama_cpp
import pytest
import sizes
from msgspec import structs

from hermes_cli import paths
from hermes_cli.catalog.check import find_faults
from hermes_cli.catalog.load import read_yaml, shipped_catalogue
from hermes_cli.catalog.models import CatalogModel
from hermes_cli.catalog.variants import Variant, preferred_variants, variants
from hermes_cli.gguf.types import FILE_TYPES
from hermes_cli.planning.tensor_types import LARGE, tensor_types

CATALOGUE = shipped_catalogue()
BY_NAME = {model.short: model for model in CATALOGUE.models}

FAMILY = {
    "Hermes 4.3": "36b",
    "Hermes 4": "14b 70b 405b",
    "DeepHermes 3": "3b 8b 24b",
    "Hermes 3": "3b 8b 70b 405b",
    "Hermes 2 Theta": "8b 70b",
    "Hermes 2 Pro": "7b 8b 70b",
    "Hermes 2": "7b 10.7b 34b 70b 8x7b 8x7b-sft",
    "OpenHermes": "7b 7b 7b 13b",
    "Hermes 1": "7b 13b 13b 70b",
}


def test_no_faults() -> None:
    assert find_faults(paths.catalog().read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(("generation", "sizes_of_models"), FAMILY.items())
def test_no_model_is_missing(generation: str, sizes_of_models: str) -> None:
    found = [model.short.partition(":")[2] for model in CATALOGUE.models if model.generation == generation]
    assert sorted(found) == sorted(sizes_of_models.split())


def test_nothing_else_is_in_it() -> None:
    assert {model.generation for model in CATALOGUE.models} == set(FAMILY)


@pytest.mark.parametrize(
    ("name", "prompt", "architecture", "released"),
    [
        ("nous-hermes:13b", "alpaca", "llama", "2023-06"),
        ("nous-hermes-llama2:13b", "alpaca", "llama", "2023-07-21"),
        ("openhermes-2.5:7b", "chatml", "llama", "2023-10-29"),
        ("hermes-2-pro:7b", "chatml", "llama", "2024-03-12"),
        ("hermes-3:8b", "chatml", "llama", "2024-08-15"),
        ("deephermes-3:8b", "llama-3", "llama", "2025-02"),
        ("hermes-4:14b", "chatml", "qwen3", "2025-08-26"),
        ("hermes-4:70b", "llama-3", "llama", "2025-08-26"),
        ("hermes-4:405b", "llama-3", "llama", "2025-08-26"),
        ("hermes-4.3:36b", "llama-3", "seed_oss", "2025-12-03"),
    ],
)
def test_the_cards_win(name: str, prompt: str, architecture: str, released: str) -> None:
    model = BY_NAME[name]
    assert (model.prompt.format, model.architecture.kind, model.released) == (prompt, architecture, released)


@pytest.mark.parametrize("model", CATALOGUE.models, ids=lambda model: model.short)
def test_tools_and_reasoning_by_generation(model: CatalogModel) -> None:
    early = model.generation in {"Hermes 1", "OpenHermes", "Hermes 2"}
    assert model.tools is model.json_mode is not early
    assert (model.reasoning is not None) is (model.generation in {"DeepHermes 3", "Hermes 4", "Hermes 4.3"})


def test_thirteen_exact_sizes_within_a_tenth_of_a_percent() -> None:
    stated = [one for model in CATALOGUE.models for one in variants(model) if one.entry.bytes]
    assert len(stated) == 13
    for one in stated:
        assert one.computed_bytes == pytest.approx(one.entry.bytes, rel=0.001), one.name


def test_listed_sizes_within_a_percent_but_for_the_known_few() -> None:
    listed = [one for model in CATALOGUE.models for one in variants(model) if one.entry.listed_gb]
    assert len(listed) > 300
    off = {
        f"{one.repository.repo}:{one.quantization}"
        for one in listed
        if one.computed_bytes and abs(one.entry.listed_gb * 1e9 / one.computed_bytes - 1) > 0.01  # type: ignore[operator]
    }
    # llama.cpp's mix of Q2_K became smaller in January 2024; these were made before.
    assert off == {
        "tsunemoto/Nous-Hermes-2-Yi-34B-GGUF:Q2_K",
        "TheBloke/OpenHermes-2.5-Mistral-7B-GGUF:Q2_K",
        "TheBloke/Nous-Hermes-Llama2-70B-GGUF:Q2_K",
        "TheBloke/Nous-Hermes-Llama2-GGUF:Q2_K",
        "TheBloke/Nous-Hermes-13B-GGUF:Q2_K",
        "TheBloke/Nous-Hermes-Llama-2-7B-GGUF:Q2_K",
    }


@pytest.mark.parametrize("model", CATALOGUE.models, ids=lambda model: model.short)
def test_computed_sizes_follow_from_the_types_of_tensors(model: CatalogModel) -> None:
    """That the types are what llama.cpp chooses is shown in planning/test_memory.py, for one model of each kind."""
    a = model.architecture
    for quantization in [*sizes.MIXES, *LARGE]:
        static, imatrix = (
            sizes.file_bytes(
                a, {name: kind.lower() for name, kind in tensor_types(a, quantization, imatrix=flag).items()}
            )
            for flag in (False, True)
        )
        assert model.sizes.static[quantization] == static, quantization
        assert model.sizes.imatrix.get(quantization, static) == imatrix, quantization


@pytest.mark.long
def test_computed_sizes_are_what_llama_cpp_says() -> None:
    text = paths.catalog().read_text(encoding="utf-8")
    assert sizes.rewritten(text) == text


def test_every_file_has_a_size_and_a_name() -> None:
    for model in CATALOGUE.models:
        for one in variants(model):
            assert one.bytes or one.quantization.startswith("UD-"), one.name
            assert all(name.endswith(".gguf") or ".gguf.part" in name for name in one.files), one.files


def test_split_files_are_spelled_out() -> None:
    files = {one.repository.repo + "/" + one.files[-1] for model in CATALOGUE.models for one in variants(model)}
    folder = "Hermes-3-Llama-3.1-405B"
    for expected in (
        "DevQuasar/NousResearch.Hermes-4-405B-GGUF/NousResearch.Hermes-4-405B.Q4_K_M-00018-of-00018.gguf",
        f"bartowski/{folder}-GGUF/{folder}-IQ1_M-10-parts/{folder}-IQ1_M-00010-of-00010.gguf",
        "mradermacher/Nous-Hermes-Llama2-70b-GGUF/Nous-Hermes-Llama2-70b.Q8_0.gguf.part2of2",
        "NousResearch/DeepHermes-3-Llama-3-8B-Preview-GGUF/DeepHermes-3-Llama-3-8B-q4.gguf",
        "NousResearch/Hermes-4.3-36B-GGUF/hermes-4_3_36b-Q4_K_M.gguf",
        "SandLogicTechnologies/Hermes-4-14B-GGUF/Hermes-4-14B_Q4_k_m.gguf",
    ):
        assert expected in files


def test_the_preferred_repository_comes_first_and_seen_files_before_inferred() -> None:
    by_quantization = {one.quantization: one for one in preferred_variants(BY_NAME["hermes-3:8b"])}
    assert by_quantization["Q4_K_M"].repository.repo == "NousResearch/Hermes-3-Llama-3.1-8B-GGUF"
    assert by_quantization["Q4_K_S"].repository.repo == "bartowski/Hermes-3-Llama-3.1-8B-GGUF"
    assert not any(one.entry.inferred for one in preferred_variants(BY_NAME["openhermes-2.5:7b"]))


@pytest.mark.parametrize(
    ("quantization", "imatrix", "nats"),
    [
        ("Q4_K_M", False, 0.031273),
        ("Q4_K_M", True, 0.028152),
        ("Q4_K_L", True, 0.028152),
        ("IQ4_XS", False, 0.036334),
        ("Q6_K", True, 0.005452),
    ],
)
def test_quality_loss_is_that_of_the_kind_of_file(quantization: str, imatrix: bool, nats: float) -> None:  # noqa: FBT001
    some = preferred_variants(BY_NAME["hermes-3:8b"])[0]
    repository = structs.replace(some.repository, imatrix=imatrix)
    assert Variant(some.model, quantization, repository, some.entry).loss(CATALOGUE) == nats


def test_file_types_are_llama_cpp_s() -> None:
    numbers = {
        getattr(llama_cpp, name): name.removeprefix("LLAMA_FTYPE_").removeprefix("MOSTLY_").removeprefix("ALL_")
        for name in dir(llama_cpp)
        if name.startswith("LLAMA_FTYPE_") and name != "LLAMA_FTYPE_GUESSED"
    }
    assert numbers == FILE_TYPES


def test_a_new_model_gets_its_sizes_and_the_others_keep_theirs() -> None:
    text = paths.catalog().read_text(encoding="utf-8")
    head, *entries = re.split(r"^(?=  - id: )", text, flags=re.MULTILINE)
    old = next(entry for entry in entries if "short: hermes-3:3b\n" in entry)
    new = re.sub(
        r"    sizes:\n(?:      .*\n)+", "", old.replace("hermes-3-llama-3.2-3b", "new").replace("hermes-3:3b", "new:3b")
    )
    for order in ([new, old], [old, new]):
        models = read_yaml(sizes.rewritten(head + "".join(order))).models
        assert models[0].sizes == models[1].sizes == read_yaml(head + old).models[0].sizes


@pytest.mark.parametrize(
    ("quantization", "like"),
    [
        *(("UD-Q6_K_XL", "Q6_K"), ("UD-Q8_K_XL", "Q8_0"), ("UD-IQ2_XXS", "IQ2_XXS"), ("Q5_K_XL", "Q5_K_M")),
        *(("Q4_K", "Q4_K_M"), ("Q4_K_M", "Q4_K_M")),
    ],
)
def test_a_quantization_that_nobody_measured_loses_as_much_as_its_like(quantization: str, like: str) -> None:
    some = preferred_variants(BY_NAME["hermes-3:8b"])[0]
    found, expected = (Variant(some.model, name, some.repository, some.entry) for name in (quantization, like))
    assert found.expected_loss(CATALOGUE) == expected.loss(CATALOGUE) is not None
    assert Variant(some.model, "TQ1_0", some.repository, some.entry).expected_loss(CATALOGUE) is None
