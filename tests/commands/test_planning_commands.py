from __future__ import annotations

import json
from pathlib import Path

import pytest
from architectures import write_family
from conftest import RunHermes
from gguf_bytes import entry, gguf, string, tensor

from hermes_cli.gguf.header import read_header

PARTS = ("weights", "kv_cache", "compute", "output", "overhead")


def test_plan_adds_up(hermes: RunHermes) -> None:
    done = hermes("plan", "hermes-3:8b:Q4_K_M", "--context", "32768", "--gpu", "RTX 3060 12GB", "--json")
    assert done.returncode == 0, done.stderr
    page = json.loads(done.stdout)
    assert page["fits"]
    assert page["kv_cache"] == 4 << 30
    assert page["total"] == sum(page[part] for part in PARTS)
    assert page["gpu_layers"] == 33
    for part in (*PARTS, "total"):
        assert page[part] == sum(device[part] for device in page["devices"])


def test_plan_and_recommend_tell_the_same_speeds(hermes: RunHermes) -> None:
    machine = ("--gpu", "RTX 3060 12GB", "--for", "agent", "--json")
    pick = json.loads(hermes("recommend", *machine).stdout)["pick"]
    context, kv_type = str(pick["context_length"]), pick["kv_type"]
    page = json.loads(hermes("plan", pick["name"], "--context", context, "--kv-type", kv_type, *machine).stdout)
    for key in ("tokens_per_second", "prefill_tokens_per_second", "first_token_seconds"):
        assert page[key] == pick[key]
        assert page[key]["low"] < page[key]["expected"] < page[key]["high"]
    assert page["first_token_seconds"]["prompt_tokens"] == 16_384


def test_plan_shows_numbers_even_if_it_does_not_fit(hermes: RunHermes) -> None:
    done = hermes("plan", "hermes-4:405b", "--ram", "8G", "--cpu-only")
    assert done.returncode == 0
    assert "does not fit" in done.stderr
    assert "252" in done.stdout


def test_kv_type_and_slots_count(hermes: RunHermes) -> None:
    def kv(*arguments: str) -> int:
        done = hermes("plan", "hermes-3:8b", "--cpu-only", "--ram", "64G", "--json", *arguments)
        return int(json.loads(done.stdout)["kv_cache"])

    assert kv("--kv-type", "q8_0") * 32 == kv() * 17
    assert kv("--slots", "4") == kv()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("plan", "hermes-3:8b", "--context", "200000"), 2, "longer than the 131,072 tokens"),
        (("plan", "hermes-3:8b", "--for", "poetry"), 2, "--for poetry is unknown"),
        (("plan", "hermes-3:8b", "--kv-type", "q9"), 2, "no KV cache type q9"),
        (("plan", "hermes-3:8b", "--kv-type", "q8_0", "--no-flash-attention"), 2, "needs flash attention"),
        (("plan", "openhermes-1:7b"), 3, "no file of openhermes-1:7b is known"),
        (("plan", "./nowhere.gguf"), 3, "there is no file nowhere.gguf"),
        (("plan", "hermes-3:8b", "--gpu", "RTX 9999"), 2, "RTX 9999"),
        (("plan", "hermes-3:8b", "--vram", "lots"), 2, "lots"),
        (("plan", "hermes-3:8b", "--ram", "0"), 2, "0"),
        (("recommend", ""), 2, "not the name of a model"),
        (("recommend", "hermes-4:14b:Q2_K_S"), 3, "no Q2_K_S of hermes-4:14b is known"),
        (("recommend", "--for", "poetry"), 2, "--for poetry is unknown"),
        (("recommend", "--cpu-only", "--gpu", "RTX 4090"), 2, "gpu"),
        (("recommend", "--cpu-only", "--ram", "1G", "--for", "agent"), 4, "64,000 tokens of context"),
        (("recommend", "--cpu-only", "--ram", "16G", "--min-speed", "5000"), 4, "at 5000 tokens/s"),
    ],
)
def test_bad_input_is_one_clear_error(hermes: RunHermes, arguments: tuple[str, ...], code: int, says: str) -> None:
    done = hermes(*arguments)
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "next: " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("family", ["qwen2", "gemma3"])
def test_plan_of_a_file(hermes: RunHermes, tmp_path: Path, family: str) -> None:
    path = write_family(tmp_path / "some.gguf", family)
    done = hermes("plan", "./some.gguf", "--cpu-only", "--ram", "8G", "--context", "4096", "--json")
    assert done.returncode == 0, done.stderr
    page = json.loads(done.stdout)
    assert page["name"] == "./some.gguf"
    assert page["weights"] == sum(tensor.size for tensor in read_header(path).tensors)
    assert page["kv_cache"] == 6 << 20
    assert page["compute"] / 2**20 == pytest.approx({"qwen2": 8.51, "gemma3": 12.52}[family], abs=0.01)
    assert page["memory_from"] == {"qwen2": "rules", "gemma3": "dry run"}[family]
    assert "RTX 3060" in hermes("plan", "./some.gguf", "--gpu", "RTX 3060").stdout
    assert "longer than the 8,192 tokens" in hermes("plan", "./some.gguf", "--context", "9000").stderr


def test_plan_of_what_llama_cpp_does_not_know(hermes: RunHermes, tmp_path: Path) -> None:
    (tmp_path / "odd.gguf").write_bytes(
        gguf([entry("general.architecture", 8, string("perceptron"))], [tensor("token_embd.weight", (32,))], bytes(128))
    )
    done = hermes("plan", "./odd.gguf")
    assert done.returncode == 6
    assert "llama.cpp cannot load ./odd.gguf" in done.stderr
    assert "unknown model architecture: 'perceptron'" in done.stderr
    assert "newer llama.cpp" in done.stderr


def test_recommend_says_what_to_type(hermes: RunHermes) -> None:
    done = hermes("recommend", "--gpu", "RTX 4090")
    assert done.returncode == 0, done.stderr
    assert "hermes chat hermes-4" in done.stdout
    assert "tokens of context" in done.stdout
    assert "weights" in done.stdout


def test_recommend_one_model(hermes: RunHermes) -> None:
    page = json.loads(hermes("recommend", "hermes-4:14b", "--vram", "12G", "--json").stdout)
    assert {candidate["name"].rpartition(":")[0] for candidate in page["candidates"]} == {"hermes-4:14b"}
    named = json.loads(hermes("recommend", "hermes-4:14b:Q5_K_M", "--vram", "24G", "--json").stdout)
    assert [candidate["name"] for candidate in named["candidates"]] == ["hermes-4:14b:Q5_K_M"]
    refused = hermes("recommend", "hermes-4:405b", "--cpu-only", "--ram", "16G")
    assert refused.returncode == 4
    assert "no hermes-4:405b for chat" in refused.stderr
    assert "would, with" in refused.stderr


@pytest.mark.parametrize("family", ["qwen2", "gemma3"])
def test_recommend_settings_of_a_file(hermes: RunHermes, tmp_path: Path, family: str) -> None:
    write_family(tmp_path / "some.gguf", family)
    done = hermes("recommend", "./some.gguf", "--vram", "8G")
    assert "hermes chat ./some.gguf --context 8192" in done.stdout, done.stderr
    assert "quality" not in done.stdout, "nothing is known of that"
    page = json.loads(hermes("recommend", "./some.gguf", "--vram", "8G", "--json").stdout)
    planned = json.loads(hermes("plan", "./some.gguf", "--vram", "8G", "--json").stdout)
    assert page["pick"]["memory_bytes"] == planned["total"]


def test_recommend_explains(hermes: RunHermes) -> None:
    done = hermes("recommend", "--gpu", "2x RTX 3090", "--explain", "--for", "agent")
    for part in (
        "weights",
        "KV cache",
        "compute",
        "output",
        "overhead",
        "decode",
        "prefill",
        "model",
        "quantization",
        "slowness",
        "waiting",
        "score",
    ):
        assert f"\n{part}" in done.stdout


def test_recommend_says_that_a_machine_is_not_for_agents(hermes: RunHermes) -> None:
    machine = ("--gpu", "GTX 1650", "--ram", "16G")
    done = hermes("recommend", "--for", "agent", *machine)
    assert done.returncode == 0
    assert "does not suit agents" in done.stderr
    assert "layers fit on the GPU" in done.stderr
    assert json.loads(hermes("recommend", "--for", "agent", "--json", *machine).stdout)["shortfalls"]
    assert "does not suit" not in hermes("recommend", *machine).stderr


def test_several_gpus_that_take_turns_are_told(hermes: RunHermes) -> None:
    assert "2 GPUs take turns" in hermes("recommend", "--gpu", "2xRTX 3090", "--for", "reasoning").stderr
    assert "take turns" not in hermes("recommend", "--gpu", "H100").stderr


def test_what_the_user_insists_on_is_named_where_nothing_meets_it(hermes: RunHermes) -> None:
    done = hermes("recommend", "--vram", "4G", "--for", "agent", "--max-wait", "0.1", "--gpu-only")
    assert done.returncode == 4
    for words in ("0.1 s", "all layers on the GPU", "--max-wait", "--gpu-only"):
        assert words in done.stderr


def test_recommend_in_json(hermes: RunHermes) -> None:
    page = json.loads(hermes("recommend", "--apple", "64G", "--json").stdout)
    assert page["simulated"]
    assert page["pick"] == page["candidates"][0]
    assert page["pick"]["context_length"] >= 4096


def test_hardware_of_this_machine(hermes: RunHermes) -> None:
    page = json.loads(hermes("hardware", "--json").stdout)
    assert page["ram_total"] >= page["ram_available"] > 0
    assert page["cores"] >= 1
    assert "cpu" in page["backends"]
    assert not page["simulated"]
    assert "RAM" in hermes("hardware").stdout


def test_recommend_names_the_engine_where_a_model_outgrows_one_gpu(hermes: RunHermes) -> None:
    done = hermes("recommend", "--gpu", "8xH200")
    assert done.stdout.index("hermes-4:405b@fp8 with vLLM") < done.stdout.index("Without vLLM, on llama.cpp")
    assert "not measured" in done.stdout
    assert "hermes serve hermes-4:405b@fp8 --engine vllm" in done.stdout
    page = json.loads(hermes("recommend", "--gpu", "8xH200", "--json").stdout)
    assert (page["engine"], page["users"]) == ("vllm", 1)
    assert page["engine_pick"]["gpus"] == 8
    assert page["engine_pick"]["measured"] is False
    assert page["engine_pick"]["tokens_per_second"]["expected"] > 3 * page["pick"]["tokens_per_second"]["expected"]


def test_recommend_for_many_users(hermes: RunHermes) -> None:
    def engine(*arguments: str) -> str:
        return str(json.loads(hermes("recommend", "--json", *arguments).stdout)["engine"])

    assert engine("--gpu", "RTX 4090") == "llama.cpp"
    assert engine("--gpu", "RTX 4090", "--users", "32") == "vllm"
    assert engine("hermes-4:14b", "--gpu", "RTX 4090", "--users", "32") == "vllm"
    assert engine("hermes-4:14b:Q4_K_M", "--gpu", "RTX 4090", "--users", "32") == "llama.cpp"
    done = hermes("recommend", "--cpu-only", "--ram", "64G", "--users", "32")
    assert "32 at once share that context" in done.stdout


def test_recommend_does_not_choose_among_weights(hermes: RunHermes) -> None:
    done = hermes("recommend", "hermes-4:70b@fp8")
    assert done.returncode == 2
    assert "hermes plan hermes-4:70b@fp8" in done.stderr
