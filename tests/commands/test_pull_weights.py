"""Weights for vLLM and SGLang: pulled whole from the Hub of tests/hub_server.py, resumed, verified, listed, removed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Finished, RunHermes
from hub_server import Fault, Hub, serving

NAME, REPO = "hermes-4:70b@fp8", "NousResearch/Hermes-4-70B-FP8"
SHARDS = tuple(f"model-{number:05}-of-00003.safetensors" for number in (1, 2, 3))
CONFIG = json.dumps({"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 2}).encode()
INDEX = json.dumps({"weight_map": {f"layer.{number}": shard for number, shard in enumerate(SHARDS)}}).encode()
SMALL = {
    "config.json": CONFIG,
    "generation_config.json": b"{}",
    "tokenizer_config.json": b"{}",
    "special_tokens_map.json": b"{}",
    "chat_template.jinja": b"{{ messages }}",
    "LICENSE": b"A licence.",
    "tokenizer.json": b'{"model": {}}' * 1000,
}
NOT_NEEDED = {
    "README.md": b"# Hermes",
    "original/consolidated.00.pth": b"x" * 100,
    "consolidated.safetensors": b"x" * 100,
    "modeling.py": b"import os",
    ".gitattributes": b"",
}
REPOSITORY = {**SMALL, **NOT_NEEDED, "model.safetensors.index.json": INDEX}
REPOSITORY |= {name: name.encode() * 20_000 for name in SHARDS}
WANTED = {*SMALL, "model.safetensors.index.json", *SHARDS}
Run = Callable[..., Finished]


@pytest.fixture
def hub() -> Iterator[Hub]:
    single = {**SMALL, "model.safetensors": b"w" * 50_000}
    repositories = {REPO: dict(REPOSITORY), "somebody/Small": single, "somebody/Torch": {"config.json": CONFIG}}
    with serving(Hub(dict(repositories))) as hub:
        yield hub


@pytest.fixture
def run(hermes: RunHermes, hub: Hub, tmp_path: Path) -> Run:
    ours = {f"HERMES_LLM_{name}_DIR": str(tmp_path / name.lower()) for name in ("CACHE", "DATA", "CONFIG")}
    environment = {**hub.environment, **ours, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_DISABLE_XET": "1"}

    def run(*arguments: str, **more: str) -> Finished:
        done = hermes(*arguments, env={**environment, **more})
        assert "Traceback" not in done.stderr
        return done

    return run


def pulled(run: Run, *arguments: str) -> Path:
    done = run("pull", *arguments)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


def installed(run: Run) -> list[dict[str, object]]:
    models: list[dict[str, object]] = json.loads(run("list", "--installed", "--json").stdout)["models"]
    return models


def test_a_whole_repository_is_fetched_but_for_what_engines_do_not_load(run: Run) -> None:
    folder = pulled(run, NAME)
    assert {path.name for path in folder.iterdir()} == WANTED
    for name in WANTED:
        assert (folder / name).read_bytes() == REPOSITORY[name]
    [model] = installed(run)
    assert (model["name"], model["state"], model["files"]) == (NAME, "verified", len(WANTED))
    shown = json.loads(run("show", "hermes-4:70b", "--json").stdout)["weights"]
    assert [entry["name"] for entry in shown if entry["installed"]] == [NAME]


def test_what_is_here_is_not_fetched_again(run: Run, hub: Hub) -> None:
    pulled(run, NAME)
    hub.requests.clear()
    again = run("pull", REPO)
    assert "0 B to fetch" in again.stderr
    assert not any("/resolve/" in path for _, path, _ in hub.requests)


def test_a_repository_without_one_of_its_shards_is_not_begun(run: Run, hub: Hub) -> None:
    hub.repositories[REPO] = {name: body for name, body in REPOSITORY.items() if name != SHARDS[2]}
    broken = run("pull", NAME)
    assert broken.returncode == 3
    assert f"{SHARDS[2]} is missing" in broken.stderr


def test_an_interrupted_download_goes_on_where_it_stopped(run: Run, hub: Hub) -> None:
    hub.faults = [Fault(at="hub"), *[Fault(status=404, at="hub")] * 50]  # after the first file
    assert run("pull", NAME).returncode != 0
    hub.faults.clear()
    hub.requests.clear()
    folder = pulled(run, NAME)
    assert {path.name for path in folder.iterdir()} == WANTED
    fetched = [path for method, path, _ in hub.requests if method == "GET" and "/resolve/" in path]
    assert 0 < len(fetched) < len(WANTED)


def test_a_shard_that_is_missing_here_is_told_and_fetched(run: Run) -> None:
    folder = pulled(run, NAME)
    (folder / SHARDS[1]).unlink()
    [model] = installed(run)
    assert model["state"] == "incomplete"
    assert (model["files"], model["files_expected"]) == (len(WANTED) - 1, len(WANTED))
    wrong = run("verify", NAME)
    assert wrong.returncode == 6
    assert SHARDS[1] in wrong.stdout
    assert run("verify", NAME, "--repair").returncode == 0
    assert (folder / SHARDS[1]).read_bytes() == REPOSITORY[SHARDS[1]]


@pytest.mark.parametrize("name", [SHARDS[0], "config.json"])
def test_a_damaged_file_is_found_and_fetched_again(run: Run, name: str) -> None:
    folder = pulled(run, NAME)
    blob = (folder / name).resolve()
    blob.write_bytes(b"{" + blob.read_bytes()[1:-1] + b" ")
    checked = {file["file"]: file["outcome"] for file in json.loads(run("verify", "--json").stdout)["files"]}
    assert checked.pop(name) == "damaged"
    assert set(checked.values()) == {"verified"}
    assert run("verify", NAME, "--repair").returncode == 0
    assert (folder / name).read_bytes() == REPOSITORY[name]


def test_a_wrong_byte_on_the_way_never_gets_a_name(run: Run, hub: Hub, tmp_path: Path) -> None:
    hub.faults = [Fault(flip=1000)] * 40
    done = run("pull", "somebody/Small@safetensors")
    assert done.returncode != 0
    named = [path for path in (tmp_path / "hub").glob("models--*/snapshots/*/*") if path.name == "model.safetensors"]
    assert not named
    hub.faults.clear()
    folder = pulled(run, "somebody/Small@safetensors")
    assert (folder / "model.safetensors").read_bytes() == b"w" * 50_000
    assert installed(run)[0]["name"] == "somebody/Small@safetensors"


def test_only_the_tokenizer(run: Run) -> None:
    folder = pulled(run, NAME, "--tokenizer-only")
    assert {path.name for path in folder.iterdir()} == set(SMALL)
    assert installed(run) == []
    done = run("pull", "hermes-3:8b:Q4_K_M", "--tokenizer-only")
    assert done.returncode == 2
    assert "GGUF file has its tokenizer" in done.stderr


def test_disk_usage_and_removal(run: Run, tmp_path: Path) -> None:
    folder = pulled(run, NAME)
    used = json.loads(run("du", "--json").stdout)
    assert [model["name"] for model in used["models"]] == [NAME]
    assert run("rm", "hermes-4:70b", "--yes").returncode == 3  # that would be a GGUF file
    assert run("rm", NAME, "--yes").returncode == 0
    assert not folder.exists()
    assert installed(run) == []
    assert not [path for path in (tmp_path / "hub").glob("models--*/blobs/*") if path.is_file()]


def test_updates_are_known(run: Run, hub: Hub) -> None:
    pulled(run, NAME)
    [model] = json.loads(run("list", "--updates", "--json").stdout)["models"]
    assert model["update"] == "current"
    hub.revision = "f" * 40
    [model] = json.loads(run("list", "--updates", "--json").stdout)["models"]
    assert model["update"] == "current"
    hub.repositories[REPO] = {**REPOSITORY, "config.json": CONFIG + b"\n"}
    [model] = json.loads(run("list", "--updates", "--json").stdout)["models"]
    assert model["update"] == "outdated"


def test_without_a_network_what_is_here_is_enough(run: Run, hub: Hub) -> None:
    folder = pulled(run, NAME)
    hub.status = 503
    again = run("pull", NAME)
    assert again.returncode == 0, again.stderr
    assert again.stdout.strip() == str(folder)


def test_llama_cpp_says_whose_files_these_are(run: Run) -> None:
    folder = pulled(run, NAME)
    for name in (NAME, str(folder)):
        done = run("chat", name, "Hi")
        assert done.returncode == 2
        assert "llama.cpp loads no safetensors" in done.stderr
        assert "--engine vllm" in done.stderr
    assert "hermes chat hermes-4:70b" in run("chat", NAME, "Hi").stderr


def test_a_repository_without_such_weights_is_told(run: Run) -> None:
    done = run("pull", "somebody/Torch@safetensors")
    assert done.returncode == 3
    assert "no safetensors in it" in done.stderr


def test_a_repository_of_safetensors_alone_says_how_to_fetch_it(run: Run) -> None:
    done = run("pull", "somebody/Small")
    assert done.returncode == 3
    assert "hermes pull somebody/Small@safetensors" in done.stderr


def test_quant_may_name_the_format(run: Run) -> None:
    assert pulled(run, "hermes-4:70b", "--quant", "fp8").parent.parent.name == "models--NousResearch--Hermes-4-70B-FP8"


def test_other_programs_models_are_not_taken_for_ours(run: Run, tmp_path: Path) -> None:
    snapshot = tmp_path / "hub" / "models--somebody--bert" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text('{"architectures": ["BertModel"]}')
    (snapshot / "model.safetensors").write_bytes(b"x")
    (snapshot / "tokenizer.json").write_text("{}")
    assert installed(run) == []


def test_a_repository_on_the_hub_is_planned_by_its_config(run: Run, hub: Hub) -> None:
    config = {
        "model_type": "qwen3",
        "num_hidden_layers": 40,
        "hidden_size": 5120,
        "num_attention_heads": 40,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "intermediate_size": 17408,
        "vocab_size": 151936,
        "max_position_embeddings": 40960,
    }
    hub.repositories["somebody/Small"] = {
        **SMALL,
        "config.json": json.dumps(config).encode(),
        "model.safetensors": b"w",
    }
    done = run("plan", "somebody/Small@safetensors", "--engine", "vllm", "--gpu", "2xH100", "--json")
    plan = json.loads(done.stdout)
    assert plan["bytes"] == 29_536_614_400
    assert plan["commands"][0][2:5] == ["somebody/Small", "--served-model-name", "Small"]
    assert not any("model.safetensors" in path for _, path, _ in hub.requests)
