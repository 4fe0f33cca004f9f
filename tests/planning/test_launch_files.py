"""Files that start launch plans: shells and YAML readers take them, and they hold the commands of the plan."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from hermes_cli.hardware.machine import Device
from hermes_cli.planning.launch_files import FILE_KINDS, FileKind, LaunchFile, launch_file, sky_name
from hermes_cli.planning.launch_plan import LaunchPlan

H100 = Device("nvidia", "H100 SXM", 80 << 30, 80 << 30, 3.35e12, "table", "cuda", compute_capability="9.0")
ONE_NODE = LaunchPlan("vllm", "NousResearch/Hermes-4-405B-FP8", "hermes-4:405b", tensor=8, context=131_072)
STAGES = LaunchPlan("vllm", "NousResearch/Hermes-4-405B", "hermes-4:405b", tensor=8, pipeline=2, nodes=2)
REPLICAS = LaunchPlan("vllm", "NousResearch/Hermes-4-70B-FP8", "hermes-4:70b", tensor=4, data=4, nodes=2)
SGLANG = LaunchPlan("sglang", "NousResearch/Hermes-4-405B", "hermes-4:405b", tensor=8, pipeline=2, nodes=2)
PLANS = {"one node": ONE_NODE, "stages": STAGES, "replicas": REPLICAS, "sglang": SGLANG}

BASH = shutil.which("bash") or ""
pytestmark = pytest.mark.skipif(not BASH, reason="these are scripts for Bash")

# Programs that a script meets, each of which tells its arguments and the environment that matters.
TELL = (
    'printf "%s" "$(basename "$0")" >> "$TOLD"; printf " %s" "$@" >> "$TOLD"; echo " IP=${VLLM_HOST_IP-}" >> "$TOLD"\n'
)
IP = 'echo "2: eth0    inet 10.0.0.$NODE/24 brd 10.0.0.255 scope global eth0"\n'


def made(kind: FileKind, plan: LaunchPlan) -> LaunchFile:
    return launch_file(kind, plan, gpus=8, gpu=H100, made_by="hermes plan … --write")


def documents(file: LaunchFile) -> list[Any]:
    return list(yaml.safe_load_all(file.text))


def run(script: str, folder: Path, **environment: str) -> list[str]:
    """Run a shell script with programs that only tell how they were called; return what they told."""
    programs = {"vllm": TELL, "ray": "exit 1\n" if "RAY_DOWN" in environment else TELL, "ip": IP}
    programs |= {"scontrol": "echo head; echo other\n", "srun": 'while [ "$1" != bash ]; do shift; done; exec "$@"\n'}
    for name, text in programs.items():
        program = folder / name
        program.write_text("#!/bin/bash\n" + text)
        program.chmod(0o755)
    told = folder / "told"
    told.write_text("")
    path = f"{folder}:/usr/bin:/bin"
    subprocess.run([BASH, "-c", script], env={"PATH": path, "TOLD": str(told), **environment}, check=True, timeout=60)
    return told.read_text().splitlines()


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("kind", FILE_KINDS)
def test_shells_and_yaml_readers_take_every_file(kind: FileKind, name: str) -> None:
    file = made(kind, PLANS[name])
    if kind in {"slurm", "ray"}:
        subprocess.run([BASH, "-n"], input=file.text, text=True, check=True, timeout=60)
    else:
        assert all(documents(file))
    if kind == "sky":
        subprocess.run([BASH, "-n"], input=documents(file)[0]["run"], text=True, check=True, timeout=60)
    assert "hermes serve" in file.text
    assert file.name in file.start or kind == "compose"


@pytest.mark.parametrize(("rank", "plan"), [(0, STAGES), (1, STAGES), (0, REPLICAS), (1, REPLICAS), (0, ONE_NODE)])
def test_slurm_starts_each_node_with_its_own_command(rank: int, plan: LaunchPlan, tmp_path: Path) -> None:
    text = made("slurm", plan).text
    assert "--kill-on-bad-exit=1" in text
    assert f"#SBATCH --nodes={plan.nodes}" in text
    [told] = run(text, tmp_path, SLURM_PROCID=str(rank), SLURM_JOB_NODELIST="x", NODE=str(rank + 1))
    address = f"10.0.0.{rank + 1}" if plan.nodes > 1 else "127.0.0.1"
    assert told == " ".join([*plan.argv(rank, head="head"), f"IP={address}"]).replace("$(($RANK", "$((")


@pytest.mark.parametrize("rank", [0, 1])
def test_skypilot_starts_each_node_with_its_own_command(rank: int, tmp_path: Path) -> None:
    [document] = documents(made("sky", REPLICAS))
    assert document["num_nodes"] == 2
    assert document["resources"]["accelerators"] == "H100:8"
    nodes = "10.0.0.1\n10.0.0.2"
    [told] = run(document["run"], tmp_path, SKYPILOT_NODE_RANK=str(rank), SKYPILOT_NODE_IPS=nodes, NODE=str(rank + 1))
    assert told == " ".join([*REPLICAS.argv(rank, head="10.0.0.1"), f"IP=10.0.0.{rank + 1}"])


def test_ray_joins_the_cluster_or_starts_the_engine_on_its_head(tmp_path: Path) -> None:
    text = made("ray", STAGES).text
    assert run(text, tmp_path, HEAD="10.0.0.1", NODE="2") == ["ray start --block --address 10.0.0.1:6379 IP=10.0.0.2"]
    assert " ".join(STAGES.argv(ray=True)) in text


def test_leader_worker_set_starts_the_whole_group_anew_when_one_ends() -> None:
    group, service, policy = documents(made("lws", STAGES))
    template = group["spec"]["leaderWorkerTemplate"]
    assert template["restartPolicy"] == "RecreateGroupOnPodRestart"
    assert template["size"] == 2
    [leader] = template["leaderTemplate"]["spec"]["containers"]
    [worker] = template["workerTemplate"]["spec"]["containers"]
    assert leader["resources"]["limits"] == {"nvidia.com/gpu": "8"}
    assert '--master-addr "$LWS_LEADER_ADDRESS"' in leader["command"][-1]
    assert "--headless" not in leader["command"][-1]
    assert "--headless" in worker["command"][-1]
    assert '--node-rank "$LWS_WORKER_INDEX"' in worker["command"][-1]
    assert {"name": "VLLM_HOST_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}} in worker["env"]
    assert service["spec"]["selector"]["role"] == "leader"
    assert policy["spec"]["policyTypes"] == ["Ingress"]
    assert any(volume["name"] == "shm" for volume in template["leaderTemplate"]["spec"]["volumes"])


def test_compose_keeps_the_port_on_this_machine() -> None:
    [document] = documents(made("compose", ONE_NODE))
    [(_, service)] = document["services"].items()
    assert service["ports"] == ["127.0.0.1:8000:8000"]
    assert service["ipc"] == "host"
    assert service["command"][:3] == ["vllm", "serve", ONE_NODE.repo]
    [document] = documents(made("compose", REPLICAS))
    node = document["services"]["node"]
    assert node["network_mode"] == "host"
    assert "$$((${RANK:?the rank of this node}*2))" in node["command"][-1]  # for the shell in the container


@pytest.mark.parametrize(
    ("gpu", "name"),
    [
        ("H100 SXM", "H100"),
        ("A100 80GB SXM", "A100-80GB"),
        ("A100 40GB", "A100"),
        ("GeForce RTX 4090", "RTX4090"),
        ("L40S", "L40S"),
        ("Instinct MI300X", "MI300X"),
        ("Tesla T4", "T4"),
    ],
)
def test_names_of_gpus_at_skypilot(gpu: str, name: str) -> None:
    assert sky_name(gpu) == name
