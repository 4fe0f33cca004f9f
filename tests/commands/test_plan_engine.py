"""`hermes plan --engine`: the screen, the document, the files that it writes, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import RunHermes

NODES = ("plan", "hermes-4:405b@bf16", "--gpu", "8xH100", "--nodes", "2")


def test_a_plan_shows_sizes_memory_and_the_command_of_each_node(hermes: RunHermes) -> None:
    done = hermes(*NODES)
    assert done.returncode == 0, done.stderr
    assert "tensor parallel 8, pipeline 2" in done.stdout
    commands = [line for line in done.stdout.splitlines() if line.startswith("vllm serve")]
    assert len(commands) == 2
    assert "--headless" in commands[1]
    assert "not measured" in done.stderr or "nothing of it was measured" in done.stderr


def test_the_document_of_a_plan(hermes: RunHermes) -> None:
    done = hermes("plan", "hermes-4:70b", "--engine", "vllm", "--gpu", "2xH100", "--json")
    document = json.loads(done.stdout)
    assert document["repository"] == "NousResearch/Hermes-4-70B-FP8"
    assert (document["tensor_parallel"], document["data_parallel"]) == (2, 1)
    memory = document["memory"]
    assert memory["total"] == memory["room"]
    assert document["measured"] is False
    assert document["commands"][0][:2] == ["vllm", "serve"]
    assert document["environment"]["VLLM_HOST_IP"] == "127.0.0.1"


def test_sglang_has_its_own_command(hermes: RunHermes) -> None:
    done = hermes("plan", "hermes-4:70b", "--engine", "sglang", "--gpu", "2xH100", "--json")
    assert json.loads(done.stdout)["commands"][0][:3] == ["python3", "-m", "sglang.launch_server"]


def test_a_file_is_written_once(hermes: RunHermes, tmp_path: Path) -> None:
    file = tmp_path / "run.sbatch"
    done = hermes(*NODES, "--write", "slurm", "-o", str(file))
    assert done.returncode == 0, done.stderr
    text = file.read_text()
    assert done.stdout == f"{file}\n"
    file.write_text("mine")
    again = hermes(*NODES, "--write", "slurm", "-o", str(file))
    assert again.returncode == 2
    assert "--force" in again.stderr
    assert file.read_text() == "mine"
    assert hermes(*NODES, "--write", "slurm", "-o", str(file), "--force").returncode == 0
    assert file.read_text() == text.replace("run.sbatch", "run.sbatch --force")


def test_a_file_goes_to_standard_output(hermes: RunHermes) -> None:
    done = hermes(*NODES, "--write", "lws", "-o", "-")
    assert "kind: LeaderWorkerSet" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("hermes-4:14b@bf16", "--gpu", "3xRTX 4090"), 2, "cannot be split over 3 GPUs"),
        (("hermes-4:14b", "--engine", "vllm", "--gpu", "3xH100", "--tensor-parallel", "3"), 2, "split evenly"),
        (("hermes-4:405b@bf16", "--gpu", "8xH100"), 4, "does not fit"),
        (("hermes-4:70b@gptq",), 3, "has no weights gptq"),
        (("hermes-4:70b", "--engine", "vlm"), 2, "--engine vlm is unknown"),
        (("hermes-4:70b", "--nodes", "2"), 2, "--nodes: llama.cpp has nothing like it"),
        (("hermes-4:70b", "--write", "slurm"), 2, "--write: llama.cpp has nothing like it"),
        (("hermes-4:70b@fp8", "--gpu", "H100", "--yarn"), 2, "--yarn: vllm has nothing like it"),
        (("hermes-4:70b@fp8", "--gpu", "2xH100", "--kv-type", "q8_0"), 2, "no such type"),
        (("hermes-4:70b@fp8", "--gpu", "2xH100", "--write", "helm"), 2, "--write helm is unknown"),
        (("hermes-4:70b:Q4_K_M", "--engine", "vllm", "--gpu", "H100"), 2, "is a GGUF file"),
        (("demo", "--engine", "vllm", "--gpu", "H100"), 2, "demo is a GGUF file"),
        (("./nowhere", "--engine", "vllm", "--gpu", "H100"), 3, "there is no folder nowhere"),
        (("hermes-4:70b", "--engine", "vllm", "--apple", "64G"), 2, "needs GPUs of NVIDIA"),
        (("hermes-4:70b", "--engine", "vllm", "--gpu", "8xH100", "--nodes", "100"), 2, "--nodes 100"),
    ],
)
def test_what_cannot_be_is_refused_with_the_next_step(
    hermes: RunHermes, arguments: tuple[str, ...], code: int, message: str
) -> None:
    done = hermes("plan", *arguments)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "next: " in done.stderr


LLAMA_8B = {
    "model_type": "llama",
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
}


def folder_of(path: Path, config: dict[str, object], size: int = 0) -> str:
    """Make a folder with a config and a shard of this size, which is a hole."""
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    with (path / "model.safetensors").open("wb") as file:
        file.truncate(size)
    return str(path)


def test_a_folder_of_safetensors_is_planned_by_its_config(hermes: RunHermes, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "mine", LLAMA_8B)
    own = json.loads(hermes("plan", folder, "--engine", "vllm", "--gpu", "RTX 4090", "--json").stdout)
    listed = json.loads(hermes("plan", "hermes-3:8b@bf16", "--gpu", "RTX 4090", "--json").stdout)
    for key in ("memory", "context", "kv_tokens", "speeds"):
        assert own[key] == listed[key]
    assert own["commands"][0][2:5] == [folder, "--served-model-name", "mine"]


def test_quantized_weights_of_a_folder_are_counted_by_its_files(hermes: RunHermes, tmp_path: Path) -> None:
    config = {**LLAMA_8B, "quantization_config": {"quant_method": "compressed-tensors", "config_groups": {}}}
    folder = folder_of(tmp_path / "mine", config, 5_700_000_000)
    done = hermes("plan", folder, "--engine", "vllm", "--gpu", "RTX 4090", "--json")
    assert json.loads(done.stdout)["memory"]["weights"] == pytest.approx(5_700_000_000, rel=1e-6)


@pytest.mark.parametrize(
    ("config", "code", "message"),
    [({"model_type": "deepseek_v3"}, 2, "cannot be computed"), ({"model_type": "llama"}, 6, "describes no model")],
)
def test_a_folder_that_cannot_be_planned_says_why(
    hermes: RunHermes, tmp_path: Path, config: dict[str, object], code: int, message: str
) -> None:
    done = hermes("plan", folder_of(tmp_path / "mine", config), "--engine", "vllm", "--gpu", "RTX 4090")
    assert done.returncode == code
    assert message in done.stderr
