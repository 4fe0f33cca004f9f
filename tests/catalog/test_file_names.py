from __future__ import annotations

from collections.abc import Callable

import pytest

from hermes_cli.catalog.file_names import (
    matching_models,
    models_in,
    normalize_name,
    quantization_in_file_name,
    read_quantization,
    why_not_loaded,
)
from hermes_cli.catalog.load import shipped_catalogue
from hermes_cli.catalog.variants import variants

CATALOGUE = shipped_catalogue()
VARIANTS = [one for model in CATALOGUE.models for one in variants(model)]


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("Hermes-3-Llama-3.1-8B.Q4_K_M.gguf", "Q4_K_M"),
        ("NousResearch_Hermes-4-14B-Q6_K_L.gguf", "Q6_K_L"),
        ("Model.i1-IQ3_XXS.gguf", "IQ3_XXS"),
        ("hermes-2-pro-llama-3-8b-q4_k_m.gguf", "Q4_K_M"),
        ("Hermes-4-70B-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
        ("DeepHermes-3-Llama-3-8B-q4.gguf", "Q4_0"),
        ("model-fp16.gguf", "F16"),
        ("model.f32.gguf", "F32"),
        ("model-bf16.gguf", "BF16"),
        ("Q4_0-tuned-Q8_0.gguf", "Q8_0"),
        ("Qwen3-14B-UD-Q6_K_XL.gguf", "UD-Q6_K_XL"),
        ("x-UD-IQ2_XXS.gguf", "UD-IQ2_XXS"),
        ("Hermes-3-Llama-3.1-8B-Q4_0_8_8.gguf", "Q4_0_8_8"),
        ("gpt-oss-20b-MXFP4_MOE.gguf", "MXFP4_MOE"),
        ("gpt-oss-20b-mxfp4.gguf", "MXFP4"),
        ("x-NVFP4.gguf", "NVFP4"),
        ("BitNet-TQ1_0.gguf", "TQ1_0"),
        ("x.IQ4_KS_R4.gguf", "IQ4_KS_R4"),
        ("Q4_K_M/model.gguf", "Q4_K_M"),
        ("BF16/x-Q8_0.gguf", "Q8_0"),
        ("BF16/x-00001-of-00002.gguf", "BF16"),
        ("Big.Q6_K.gguf.part1of2", "Q6_K"),
        ("Big.Q6_K.gguf-split-b", "Q6_K"),
        ("x-Q8_0.GGUF", "Q8_0"),
        ("Don\u2019t Panic \u2013 Q4_K_M.gguf", "Q4_K_M"),
        ("Model-Q4_K_M-v2.gguf", "Q4_K_M"),
        ("Jack-of-All-8B.gguf", None),
        ("ggml-model.gguf", None),
        ("mmproj.gguf", None),
        ("aq4_0b.gguf", None),
    ],
)
def test_the_quantization_in_a_file_name(file: str, expected: str | None) -> None:
    assert quantization_in_file_name(file) == expected


def test_every_file_name_of_the_catalogue_says_its_quantization() -> None:
    for one in VARIANTS:
        name = one.files[0].rpartition("/")[2].partition("-00001-of-")[0].partition(".gguf.part")[0]
        assert quantization_in_file_name(name.removesuffix(".gguf") + ".gguf") == one.quantization, one.files


@pytest.mark.parametrize("spell", [str.lower, normalize_name, lambda name: name.replace("_", "-")])
def test_every_spelling_of_a_quantization_is_read(spell: Callable[[str], str]) -> None:
    more = ("UD-Q6_K_XL", "UD-TQ1_0", "Q4_0_4_4", "MXFP4_MOE", "NVFP4", "IQ4_KSS", "IQ4_NL_4_4", "Q6_K_P", "Q8_K_XL")
    for name in (*CATALOGUE.quantizations, *more):
        assert read_quantization(spell(name)) == name


@pytest.mark.parametrize("text", ["", "nope", "Q", "Q4", "hello-Q4_K_M", "Q4_K_M.gguf"])
def test_what_is_no_quantization(text: str) -> None:
    assert read_quantization(text) is None


def test_types_that_llama_cpp_does_not_load() -> None:
    refused = {
        name for name in ("Q4_0_4_4", "Q4_0_8_8", "IQ4_NL_4_4", "IQ4_KS", "IQ2_K", "Q4_K_R4") if why_not_loaded(name)
    }
    assert len(refused) == 6
    assert not [name for name in (*CATALOGUE.quantizations, "NVFP4", "TQ1_0", "UD-IQ1_S", None) if why_not_loaded(name)]


@pytest.mark.parametrize(
    ("file", "is_model"),
    [
        ("mmproj-VL-7B-F16.gguf", False),
        ("VL-7B.mmproj-Q8_0.gguf", False),
        ("mmproj/model-f16.gguf", False),
        ("imatrix.gguf", False),
        ("Qwen_Qwen3-14B-imatrix.gguf", False),
        ("imatrix_unsloth.gguf", False),
        ("Model-imatrix-Q4_K_M.gguf", True),
        ("M-Q4_K_M-mtp.gguf", False),
        ("mtp-M-Q8_0.gguf", False),
        ("Some-F16-LoRA.gguf", False),
        ("ggml-lora-f16.gguf", False),
        ("adapter.gguf", False),
        ("Some-LoRA-merged-F16.gguf", True),
        ("Some-lora-Q4_K_M.gguf", True),
        ("ggml-vocab-llama-bpe.gguf", False),
        ("Explorer-8B-Q4_K_M.gguf", True),
        ("Adapterra-F16.gguf", True),
    ],
)
def test_parts_are_no_models(file: str, is_model: bool) -> None:  # noqa: FBT001
    models, companions = models_in([file, "M-Q4_K_M.gguf", "README.md"])
    assert (file in [model.first for model in models]) is is_model
    assert (file in companions) is not is_model


def test_a_repository_of_models_that_guess_ahead() -> None:
    models, companions = models_in(["M-Q4_K_M-MTP.gguf", "M-Q8_0-MTP.gguf"])
    assert (len(models), companions) == (2, {})


@pytest.mark.parametrize(
    ("wanted", "files"),
    [
        ("Q8_0", ["x-Q8_0.gguf"]),
        ("Q8_K_XL", ["x-UD-Q8_K_XL.gguf"]),
        ("ud-q8-k-xl", ["x-UD-Q8_K_XL.gguf"]),
        ("Q4_0", ["x-Q4_0.gguf"]),
        ("Q4_0_4_4", ["x-Q4_0_4_4.gguf"]),
        ("fp16", ["x-F16.gguf"]),
        ("custom", ["x-custom.gguf"]),
        ("Q8", ["x-Q8_0.gguf", "x-UD-Q8_K_XL.gguf"]),
        ("Q4_0_8_8", []),
        ("Q4_1", []),
        ("", []),
    ],
)
def test_the_exact_name_comes_before_a_likeness(wanted: str, files: list[str]) -> None:
    names = "Q8_0 UD-Q8_K_XL Q4_0 Q4_0_4_4 Q4_0_4_8 F16 BF16 custom"
    models, _ = models_in(f"x-{name}.gguf" for name in names.split())
    assert [model.first for model in matching_models(models, wanted)] == files


def test_shards_and_raw_parts_are_whole_or_not() -> None:
    paths = [
        "a-00001-of-00002.gguf",
        "b.gguf.part1of2",
        "b.gguf.part2of2",
        "c.gguf-split-a",
        "c.gguf-split-b",
        "d.gguf-split-b",
    ]
    models, _ = models_in(paths)
    assert {model.first: (model.is_complete, model.is_raw) for model in models} == {
        "a-00001-of-00002.gguf": (False, False),
        "b.gguf.part1of2": (True, True),
        "c.gguf-split-a": (True, True),
        "d.gguf-split-b": (False, True),
    }
