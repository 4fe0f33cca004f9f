from __future__ import annotations

import json
import re
import struct
from pathlib import Path

import pytest
from conftest import RunHermes

ONE_OF_EACH_GENERATION = [
    "hermes-4.3:36b",
    "hermes-4:14b",
    "deephermes-3:8b",
    "hermes-3:8b",
    "hermes-2-theta:8b",
    "hermes-2-pro:7b",
    "hermes-2:8x7b",
    "openhermes-2.5:7b",
    "nous-hermes:13b",
]


def test_list_shows_the_family_newest_first(hermes: RunHermes) -> None:
    done = hermes("list")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["NAME", "PARAMS", "CONTEXT", "TOOLS", "THINKS", "FILES", "FITS", "HERE"]
    names = [line.split()[0] for line in lines[1:]]
    assert (names[0], names[-2:]) == ("hermes-4.3:36b", ["hermes-3:3b", "demo"])
    assert "older ones: hermes list --older" in done.stderr
    assert lines[1].split()[:-2] == ["hermes-4.3:36b", "36.2", "B", "524,288", "yes", "yes", "17.6", "to", "72.3", "GB"]
    everything = hermes("list", "--older").stdout.splitlines()[1:]
    assert len(everything) == 31
    assert len(json.loads(hermes("list", "--json").stdout)["models"]) == 30
    assert len(hermes("list", "--quiet").stdout.splitlines()) == 31


def test_list_marks_what_fits_this_machine(hermes: RunHermes) -> None:
    lines = {line.split()[0]: line for line in hermes("list", "--older").stdout.splitlines()}
    assert "○ no" in lines["hermes-4:405b"]
    assert "● yes" in lines["demo"]
    assert not {"○", "◐", "●"} & set(lines["openhermes-1:7b"]), "no files are known of it"


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["405b"], ["hermes-4:405b", "hermes-3:405b"]),
        (["8b", "deep"], ["deephermes-3:8b"]),
        (["Hermes", "4.3"], ["hermes-4.3:36b"]),
        (["36B"], ["hermes-4.3:36b"]),
        (["10.7b"], ["hermes-2:10.7b"]),
    ],
)
def test_list_with_words(hermes: RunHermes, words: list[str], names: list[str]) -> None:
    done = hermes("list", *words)
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == names
    assert [model["name"] for model in json.loads(hermes("list", *words, "--json").stdout)["models"]] == names


def test_list_without_a_match_says_so(hermes: RunHermes) -> None:
    done = hermes("list", "mistral-large")
    assert (done.returncode, done.stdout) == (3, "")
    assert "no Hermes model has mistral-large in its name" in done.stderr
    assert "hermes search mistral-large" in done.stderr
    assert "no Hermes model matches all of this" in hermes("list", "--reasoning", "--generation", "2").stderr


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        (("--generation", "Hermes 3"), 4),
        (("--generation", "deephermes 3"), 3),
        (("--generation", "4.3"), 1),
        (("--tools",), 16),
        (("--reasoning",), 7),
        (("--reasoning", "--generation", "hermes-4"), 3),
        (("--installed",), 0),
    ],
)
def test_filters(hermes: RunHermes, tmp_path: Path, arguments: tuple[str, ...], count: int) -> None:
    done = hermes("list", "--json", *arguments, env={"HF_HUB_CACHE": str(tmp_path)})
    assert len(json.loads(done.stdout)["models"]) == count


def test_an_unknown_generation_names_the_known(hermes: RunHermes) -> None:
    done = hermes("list", "--generation", "5")
    assert done.returncode == 2
    assert "there is no generation 5" in done.stderr
    assert "Hermes 4.3" in done.stderr


def test_list_all_has_every_file(hermes: RunHermes) -> None:
    done = hermes("list", "--all", "--json")
    found = json.loads(done.stdout)["variants"]
    assert len(found) > 380
    assert {"name", "bytes", "bytes_source", "bits_per_weight", "kl_divergence", "files", "repository"} <= set(found[0])


@pytest.mark.parametrize("name", ONE_OF_EACH_GENERATION)
def test_show_one_of_each_generation(hermes: RunHermes, name: str) -> None:
    short = hermes("show", name)
    assert short.returncode == 0, short.stderr
    assert re.match(r".+\n  fits here: ", short.stdout)
    assert "Sources" not in short.stdout
    done = hermes("show", name, "--sources")
    for heading in ("licence", "architecture", "context", "Files", "Prompt format", "Sources"):
        assert heading in done.stdout
    assert re.search(r"Q4_K_M +[\d.]+ GB .* (stated|computed)", done.stdout)
    cited = set(re.findall(r"\[([a-z0-9., -]+)\]\n", done.stdout))
    legend = done.stdout.partition("\nSources\n")[2]
    for key in {key for keys in cited for key in keys.split(", ")}:
        assert f"  {key} " in legend


def test_show_writes_the_prompt_of_the_model(hermes: RunHermes) -> None:
    alpaca = json.loads(hermes("show", "nous-hermes:13b", "--json").stdout)["prompt_example"]
    chatml = json.loads(hermes("show", "hermes-3:8b", "--json").stdout)["prompt_example"]
    llama = json.loads(hermes("show", "hermes-4:70b", "--json").stdout)["prompt_example"]
    assert alpaca == "You are Hermes.\n\n### Instruction:\nHello!\n\n### Response:\n"
    assert chatml.startswith("<|im_start|>system\nYou are Hermes.<|im_end|>\n<|im_start|>user\nHello!<|im_end|>\n")
    assert llama == (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nYou are Hermes.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHello!<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def test_show_only_what_was_named(hermes: RunHermes) -> None:
    page = json.loads(hermes("show", "bartowski/Hermes-3-Llama-3.1-8B-GGUF:Q4_K_M", "--json").stdout)
    assert [(one["quantization"], one["repository"]) for one in page["variants"]] == [
        ("Q4_K_M", "bartowski/Hermes-3-Llama-3.1-8B-GGUF")
    ]


def test_show_a_file(hermes: RunHermes, demo_path: Path) -> None:
    page = json.loads(hermes("show", str(demo_path), "--json").stdout)
    assert (page["quantization"], page["parameters"], page["context_length"]) == ("Q8_0", 3_804_416, 1024)
    assert hermes("show", "demo").stdout.startswith("demo\n")


def test_show_a_damaged_file(hermes: RunHermes, tmp_path: Path) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0))
    done = hermes("show", str(bad))
    assert done.returncode == 6
    assert "is damaged: at byte 8 it claims" in done.stderr


def test_catalog_check(hermes: RunHermes, tmp_path: Path) -> None:
    assert hermes("catalog", "check").returncode == 0
    bad = tmp_path / "bad.yaml"
    bad.write_text("models: 3\n")
    done = hermes("catalog", "check", str(bad))
    assert done.returncode == 6
    assert f"{bad}:1: " in done.stdout
    assert "5 faults" in done.stderr or "4 faults" in done.stderr
    faults = json.loads(hermes("catalog", "check", str(bad), "--json").stdout)["faults"]
    assert {"line", "place", "message"} == set(faults[0])
    assert hermes("catalog", "check", str(tmp_path / "none.yaml")).returncode == 3
    bad.write_bytes(b"\xff\xfe")
    assert hermes("catalog", "check", str(bad)).returncode == 6


def test_chat_with_a_model_that_is_not_here(hermes: RunHermes, tmp_path: Path) -> None:
    done = hermes("chat", "hermes-3:8b", "hi", env={"HF_HUB_CACHE": str(tmp_path)})
    assert done.returncode == 3
    assert "hermes-3:8b is not on this machine" in done.stderr
