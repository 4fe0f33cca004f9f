"""The command lines and environments of launch plans: vLLM and SGLang, one node and several."""

from __future__ import annotations

from pathlib import Path

import pytest

from hermes_cli.planning.launch_plan import EngineName, GpuMemory, LaunchPlan

FP8 = "NousResearch/Hermes-4-405B-FP8"
FLAGS = Path(__file__).with_name("engine_flags.txt")  # written by the engines' own argument parsers


def known_flags(engine: str) -> set[str]:
    """Return the flags of an engine's server; those that take a value end in =."""
    blocks = FLAGS.read_text(encoding="utf-8").split("# ")
    return set(next(block for block in blocks if block.startswith(engine)).splitlines()[1:])


def flags(argv: list[str]) -> dict[str, str | None]:
    """Return the flags of a command line with their values, None where a flag has none."""
    values = {}
    for word, following in zip(argv, [*argv[1:], "--"], strict=True):
        if word.startswith("--"):
            values[word] = None if following.startswith("--") else following
    return values


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_every_flag_is_one_of_the_engine(engine: EngineName) -> None:
    known, sizes = known_flags(engine), {"context": 8192, "sequences": 8, "utilization": 0.9}
    plans = [
        LaunchPlan(engine, FP8, "x", kv_type="fp8", **sizes),  # type: ignore[arg-type]
        LaunchPlan(engine, FP8, "x", tensor=8, pipeline=2, nodes=2),
        LaunchPlan(engine, FP8, "x", tensor=4, data=4, nodes=2),
        LaunchPlan(engine, FP8, "x", device="cpu"),
    ]
    for plan in plans:
        for argv in (plan.argv(0, socket="/s"), plan.argv(1), plan.argv(ray=engine == "vllm")):
            for flag, value in flags(argv).items():
                name = flag.partition(".")[0]  # --structured-outputs-config.backend is a field of a flag
                assert name + ("" if value is None else "=") in known


def test_one_node_listens_on_a_socket_or_on_loopback() -> None:
    plan = LaunchPlan("vllm", FP8, "hermes-4:405b", tensor=8, context=131_072, sequences=64, kv_type="fp8")
    argv = plan.argv(socket="/run/engine.sock", program=("/opt/bin/vllm",))
    assert argv[:5] == ["/opt/bin/vllm", "serve", FP8, "--served-model-name", "hermes-4:405b"]
    assert flags(argv) == {
        "--served-model-name": "hermes-4:405b",
        "--uds": "/run/engine.sock",
        "--tensor-parallel-size": "8",
        "--max-model-len": "131072",
        "--max-num-seqs": "64",
        "--kv-cache-dtype": "fp8",
        "--structured-outputs-config.backend": "guidance",
        "--generation-config": "vllm",
        "--shutdown-timeout": "30",
        "--enable-prompt-tokens-details": None,
        "--disable-uvicorn-access-log": None,
    }
    assert flags(plan.argv())["--host"] == "127.0.0.1"


def test_a_free_context_is_left_to_the_engine() -> None:
    plan = LaunchPlan("vllm", FP8, "x")
    assert flags(plan.argv())["--max-model-len"] == "auto"
    assert "--max-num-seqs" not in plan.argv()


def test_a_replica_on_two_nodes() -> None:
    plan = LaunchPlan("vllm", "NousResearch/Hermes-4-405B", "x", tensor=8, pipeline=2, nodes=2)
    head, other = flags(plan.argv(0, head="10.0.0.1", socket="/s")), flags(plan.argv(1, head="10.0.0.1", socket="/s"))
    assert "--headless" not in head
    assert head["--uds"] == "/s"
    assert "--headless" in other
    assert "--uds" not in other
    assert "--port" not in other
    assert (head["--node-rank"], other["--node-rank"]) == ("0", "1")
    for node in (head, other):
        assert node["--nnodes"] == "2"
        assert node["--pipeline-parallel-size"] == "2"
        assert (node["--master-addr"], node["--master-port"]) == ("10.0.0.1", "29501")


def test_replicas_on_two_nodes() -> None:
    plan = LaunchPlan("vllm", FP8, "x", tensor=4, data=4, nodes=2)
    head, other = flags(plan.argv(0, head="10.0.0.1")), flags(plan.argv(1, head="10.0.0.1"))
    for node in (head, other):
        assert node["--data-parallel-size"] == "4"
        assert node["--data-parallel-size-local"] == "2"
        assert node["--data-parallel-address"] == "10.0.0.1"
        assert "--nnodes" not in node
    assert "--data-parallel-start-rank" not in head
    assert other["--data-parallel-start-rank"] == "2"
    assert flags(plan.argv("$RANK"))["--data-parallel-start-rank"] == "$(($RANK*2))"


def test_in_a_ray_cluster_only_the_head_is_started() -> None:
    plan = LaunchPlan("vllm", "NousResearch/Hermes-4-405B", "x", tensor=8, pipeline=2, nodes=2)
    argv = flags(plan.argv(ray=True))
    assert argv["--distributed-executor-backend"] == "ray"
    assert "--nnodes" not in argv


def test_sglang() -> None:
    plan = LaunchPlan("sglang", FP8, "x", tensor=8, pipeline=2, nodes=2, context=65_536, sequences=32, kv_type="fp8")
    argv = plan.argv(1, head="10.0.0.1", port=30_000)
    assert argv[:3] == ["python3", "-m", "sglang.launch_server"]
    assert flags(argv[3:]) == {
        "--model-path": FP8,
        "--served-model-name": "x",
        "--host": "127.0.0.1",
        "--port": "30000",
        "--tp-size": "8",
        "--pp-size": "2",
        "--context-length": "65536",
        "--max-running-requests": "32",
        "--kv-cache-dtype": "fp8_e4m3",
        "--grammar-backend": "llguidance",
        "--nnodes": "2",
        "--node-rank": "1",
        "--dist-init-addr": "10.0.0.1:29501",
        "--enable-metrics": None,
    }


def test_arguments_of_the_user_come_last_and_so_win() -> None:
    plan = LaunchPlan("vllm", "folder", "demo", more=("--dtype", "float32"))
    assert plan.argv()[-2:] == ["--dtype", "float32"]


def test_the_environment_of_a_node() -> None:
    plan = LaunchPlan("vllm", FP8, "x", tensor=8, pipeline=2, nodes=2)
    values = plan.environment(run_folder="/run/x")
    assert values["VLLM_RPC_BASE_PATH"] == "/run/x"
    assert values["VLLM_NO_USAGE_STATS"] == "1"
    assert int(values["VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS"]) <= 90
    assert "VLLM_HOST_IP" not in plan.environment()
    assert LaunchPlan("vllm", FP8, "x").environment()["VLLM_HOST_IP"] == "127.0.0.1"


def test_processes_on_a_cpu_get_cores_of_their_own() -> None:
    plan = LaunchPlan("vllm", "demo", "demo", tensor=2, device="cpu", memory=GpuMemory(kv_cache=3 << 30))
    assert plan.environment()["VLLM_CPU_OMP_THREADS_BIND"] == "0|1"
    assert plan.environment()["VLLM_CPU_KVCACHE_SPACE"] == "3"
    assert "--enforce-eager" in plan.argv()
