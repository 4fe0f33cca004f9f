from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes_cli.catalog.engine_weights import engine_weights
from hermes_cli.catalog.load import shipped_catalogue
from hermes_cli.catalog.models import CatalogModel
from hermes_cli.catalog.names import (
    CatalogueReference,
    DemoReference,
    FileReference,
    HubReference,
    ModelNames,
    WeightsReference,
    spellings,
)
from hermes_cli.catalog.variants import Variant, variants
from hermes_cli.errors import HermesError, NotFoundError, UsageError

CATALOGUE = shipped_catalogue()
NAMES = ModelNames(CATALOGUE)
QUANTIZATIONS = frozenset(CATALOGUE.quantizations)
VARIANTS = [one for model in CATALOGUE.models for one in variants(model)]
OFFICIAL = "NousResearch/Hermes-3-Llama-3.1-8B-GGUF"


@pytest.mark.parametrize(
    ("text", "name", "quantization", "repository"),
    [
        ("hermes-3:8b", "hermes-3:8b", None, None),
        ("hermes-3:8b:Q5_K_M", "hermes-3:8b", "Q5_K_M", None),
        ("Hermes-3:8B:q5-k-m", "hermes-3:8b", "Q5_K_M", None),
        ("hermes 3 8b q5km", "hermes-3:8b", "Q5_K_M", None),
        ("hermes-4.3:36b", "hermes-4.3:36b", None, None),
        ("hermes-4.3", "hermes-4.3:36b", None, None),
        ("deephermes-3:8b", "deephermes-3:8b", None, None),
        ("hermes-2-pro:7b", "hermes-2-pro:7b", None, None),
        ("openhermes-2.5:7b", "openhermes-2.5:7b", None, None),
        ("hermes-3-llama-3.1-8b", "hermes-3:8b", None, None),
        ("Hermes 3 Llama 3.1 8B", "hermes-3:8b", None, None),
        ("NousResearch/Hermes-3-Llama-3.1-8B", "hermes-3:8b", None, None),
        ("hermes3:8b", "hermes-3:8b", None, None),
        ("hermes3:latest", "hermes-3:8b", None, None),
        ("hermes3:8b-llama3.1-q4_K_M", "hermes-3:8b", "Q4_K_M", None),
        ("hermes3:8b-llama3.1-fp16", "hermes-3:8b", "F16", None),
        ("nous-hermes2:10.7b-solar-q2_K", "hermes-2:10.7b", "Q2_K", None),
        ("nous-hermes:7b", "nous-hermes-llama2:7b", None, None),
        ("hermes-3:8b:Q4_K", "hermes-3:8b", "Q4_K_M", None),
        (OFFICIAL, "hermes-3:8b", None, OFFICIAL),
        (OFFICIAL + ":Q4_K_M", "hermes-3:8b", "Q4_K_M", OFFICIAL),
        (OFFICIAL.lower() + ":q4_k_m", "hermes-3:8b", "Q4_K_M", OFFICIAL),
        (f"https://huggingface.co/{OFFICIAL}", "hermes-3:8b", None, OFFICIAL),
        (f"https://huggingface.co/{OFFICIAL}/tree/main?x=1#y", "hermes-3:8b", None, OFFICIAL),
        (f"hf.co/{OFFICIAL}:Q4_K_M", "hermes-3:8b", "Q4_K_M", OFFICIAL),
        (f"hf://{OFFICIAL}", "hermes-3:8b", None, OFFICIAL),
        (
            "bartowski/NousResearch_Hermes-4-14B-GGUF:IQ4_XS",
            "hermes-4:14b",
            "IQ4_XS",
            "bartowski/NousResearch_Hermes-4-14B-GGUF",
        ),
    ],
)
def test_names_of_the_catalogue(text: str, name: str, quantization: str | None, repository: str | None) -> None:
    found = NAMES.parse(text)
    assert isinstance(found, CatalogueReference)
    assert (found.model.short, found.quantization, found.repository) == (name, quantization, repository)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("demo", DemoReference()),
        (" DEMO ", DemoReference()),
        ("./demo", FileReference(Path("demo"))),
        ("some.gguf", FileReference(Path("some.gguf"))),
        ("folder/some.GGUF", FileReference(Path("folder/some.GGUF"))),
        ("/hermes-3:8b", FileReference(Path("/hermes-3:8b"))),
        ("./hermes-3:8b", FileReference(Path("hermes-3:8b"))),
        ("../x", FileReference(Path("../x"))),
        ("C:\\models\\x", FileReference(Path("C:\\models\\x"))),
        ("~/x.gguf", FileReference(Path("~/x.gguf").expanduser())),
        ("somebody/Some-GGUF", HubReference("somebody/Some-GGUF")),
        ("somebody/Some-GGUF:q4_k_m", HubReference("somebody/Some-GGUF", "q4_k_m")),
        ("\u201csomebody/Some\u2013GGUF:Q8_0\u201d", HubReference("somebody/Some-GGUF", "Q8_0")),
        ("hf.co/somebody/Some-GGUF:latest", HubReference("somebody/Some-GGUF")),
        ("somebody/Some-GGUF/some.gguf", HubReference("somebody/Some-GGUF", None, "some.gguf")),
        ("somebody/Some-GGUF/Q8_0/a b.gguf", HubReference("somebody/Some-GGUF", None, "Q8_0/a b.gguf")),
        ("hf.co/somebody/Some-GGUF/some.gguf", HubReference("somebody/Some-GGUF", None, "some.gguf")),
        # the Hub is asked for quantizations that the catalogue does not know of there
        (f"{OFFICIAL}:UD-Q6_K_XL", HubReference(OFFICIAL, "UD-Q6_K_XL")),
        ("https://huggingface.co/a/b/resolve/main/x%20y.gguf?download=true", HubReference("a/b", None, "x y.gguf")),
        ("https://huggingface.co/a/b/blob/main/sub/x.gguf", HubReference("a/b", None, "sub/x.gguf")),
    ],
)
def test_other_names(text: str, expected: object) -> None:
    assert NAMES.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "name", "repo"),
    [
        ("hermes-4:70b@fp8", "hermes-4:70b@fp8", "NousResearch/Hermes-4-70B-FP8"),
        ("Hermes 4 70B@FP8", "hermes-4:70b@fp8", "NousResearch/Hermes-4-70B-FP8"),
        ("hermes-4-70b-fp8", "hermes-4:70b@fp8", "NousResearch/Hermes-4-70B-FP8"),
        ("NousResearch/Hermes-4-70B-FP8", "hermes-4:70b@fp8", "NousResearch/Hermes-4-70B-FP8"),
        ("https://huggingface.co/NousResearch/Hermes-4-70B-FP8", "hermes-4:70b@fp8", "NousResearch/Hermes-4-70B-FP8"),
        ("hermes-4:14b@awq-8bit", "hermes-4:14b@awq-8bit", "cyankiwi/Hermes-4-14B-AWQ-8bit"),
        ("hermes-3:8b@bf16", "hermes-3:8b@bf16", "NousResearch/Hermes-3-Llama-3.1-8B"),
        ("hermes-3:8b@safetensors", "hermes-3:8b@bf16", "NousResearch/Hermes-3-Llama-3.1-8B"),
        ("NousResearch/Hermes-3-Llama-3.1-8B@bf16", "hermes-3:8b@bf16", "NousResearch/Hermes-3-Llama-3.1-8B"),
        ("somebody/Some-Model@safetensors", "somebody/Some-Model@safetensors", "somebody/Some-Model"),
    ],
)
def test_names_of_weights_for_other_engines(text: str, name: str, repo: str) -> None:
    found = NAMES.parse(text)
    assert isinstance(found, WeightsReference)
    assert (found.name, found.repo) == (name, repo)
    assert NAMES.parse(found.name) == found


def test_every_name_of_weights_means_them() -> None:
    for model in CATALOGUE.models:
        names = [weights.name for weights in engine_weights(model)]
        assert len(set(names)) == len(names)
        for weights in engine_weights(model):
            assert NAMES.parse(weights.name) == WeightsReference(weights.repo, weights)


@pytest.mark.parametrize(
    ("weights", "gb"),
    [
        ("hermes-3:8b@bf16", 16.06),  # as the Hub lists the shards of Llama 3.1 8B
        ("hermes-4:70b@bf16", 141.1),
        ("hermes-4:70b@fp8", 72.6),
        ("hermes-4:405b@fp8", 410),
        ("hermes-4.3:36b@bf16", 72.3),
    ],
)
def test_sizes_of_weights_follow_from_the_architecture(weights: str, gb: float) -> None:
    found = NAMES.parse(weights)
    assert isinstance(found, WeightsReference)
    assert found.weights
    assert found.weights.bytes / 1e9 == pytest.approx(gb, rel=0.002)


def test_a_file_that_exists_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "owner").mkdir()
    (tmp_path / "owner" / "name").touch()
    monkeypatch.chdir(tmp_path)
    assert NAMES.parse("owner/name") == FileReference(Path("owner/name"))
    assert NAMES.parse("owner") == FileReference(Path("owner"))


def test_a_mirror_is_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example/hub/")
    assert NAMES.parse("https://mirror.example/hub/a/b") == HubReference("a/b")


@pytest.mark.parametrize(
    ("text", "error", "says", "hint"),
    [
        ("hermes-3", UsageError, "the name of 4 models", "hermes-3:405b, hermes-3:70b, hermes-3:8b, hermes-3:3b"),
        ("hermes-4", UsageError, "the name of 3 models", "hermes-4:14b"),
        ("hermes", UsageError, "models", "hermes list"),
        ("hermez-3:8b", NotFoundError, "no model named hermez-3:8b", "did you mean hermes-3:8b"),
        ("deephermes:8b", NotFoundError, "no model named deephermes:8b", "deephermes-3:8b"),
        ("hermes-3:8b:Q9_K", NotFoundError, "hermes-3:8b has no quantization Q9_K", "did you mean Q6_K or"),
        ("hermes-3:8b:q4", NotFoundError, "no quantization q4", "did you mean Q4_K_M or Q4_K_S or Q4_0?"),
        ("hermes-2:70b:Q9_K", NotFoundError, "no quantization Q9_K", "leave the quantization out"),
        ("zzz", NotFoundError, "no model named zzz", "hermes list"),
        ("", UsageError, "not the name", "hermes list"),
        ("a\0b", UsageError, "not the name", "hermes list"),
        ("x" * 5000, UsageError, "not the name", "hermes list"),
        ("https://example.com/a/b", NotFoundError, "no model named", "hermes list"),
        ("hermes-4:70b@gptq", NotFoundError, "has no weights gptq", "hermes-4:70b@fp8"),
        ("hermes-4:70b:fp8", NotFoundError, "no quantization fp8", "hermes-4:70b@fp8"),
        ("hermes-9@fp8", NotFoundError, "no model named", "hermes list"),
    ],
)
def test_what_is_no_name(text: str, error: type[HermesError], says: str, hint: str) -> None:
    with pytest.raises(error) as caught:
        NAMES.parse(text)
    assert says in caught.value.message
    assert hint in caught.value.hint


@given(
    st.sampled_from(CATALOGUE.models).flatmap(
        lambda model: st.tuples(st.just(model), st.sampled_from(sorted(spellings(model).values())))
    ),
    st.one_of(st.none(), st.sampled_from(sorted(QUANTIZATIONS))),
    st.data(),
)
def test_case_and_punctuation_do_not_matter(
    named: tuple[CatalogModel, str], quantization: str | None, data: st.DataObject
) -> None:
    model, spelling = named
    separator = st.sampled_from(["-", ".", "_", " ", ":", ""])
    typed = ""
    for letter in spelling:
        if letter.isalnum():
            typed += letter.upper() if data.draw(st.booleans()) else letter
        else:
            typed += data.draw(separator)
    if quantization:
        typed += ":" + (quantization.lower() if data.draw(st.booleans()) else quantization)
    found = NAMES.parse(typed)
    assert isinstance(found, CatalogueReference)
    assert (found.model, found.quantization) == (model, quantization)


@given(st.one_of(st.text(max_size=60), st.text("hermes-3:8bqkm/.\\~ ", max_size=30)))
def test_any_text_is_a_name_or_an_error(text: str) -> None:
    with contextlib.suppress(HermesError):
        NAMES.parse(text)


@given(st.sampled_from(VARIANTS))
def test_what_is_shown_can_be_typed(variant: Variant) -> None:
    found = NAMES.parse(variant.name)
    assert isinstance(found, CatalogueReference)
    assert (found.model, found.quantization) == (variant.model, variant.quantization)
