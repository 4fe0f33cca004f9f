"""Files that start a launch plan under Slurm, Kubernetes (LeaderWorkerSet), Docker Compose, SkyPilot or Ray.

All hold the command line of `LaunchPlan.argv`; rank and head come from the environment of whoever starts the nodes.
When one node ends, all do: the others would wait for it for ever. The engine is for hermes alone, which faces clients;
nothing in it has a password.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from hermes_cli.planning.launch_plan import PORT, LaunchPlan

if TYPE_CHECKING:
    from hermes_cli.hardware.machine import Device

FileKind = Literal["slurm", "lws", "compose", "sky", "ray"]
FILE_KINDS: tuple[FileKind, ...] = get_args(FileKind)

IMAGES = {
    ("vllm", "nvidia"): "vllm/vllm-openai:v0.32.0",
    ("sglang", "nvidia"): "lmsysorg/sglang:v0.5.23",
    ("vllm", "amd"): "rocm/vllm:latest",
    ("sglang", "amd"): "lmsysorg/sglang:v0.5.23-rocm",
}
PACKAGES = {"vllm": "vllm==0.32.0", "sglang": "sglang==0.5.23"}
RAY_PORT = 6379
_INTERFACE = (
    "export GLOO_SOCKET_IFNAME=$INTERFACE NCCL_SOCKET_IFNAME=$INTERFACE",
    'VLLM_HOST_IP=$(ip -o -4 address show dev "$INTERFACE" | awk \'NR == 1 {split($4, a, "/"); print a[1]}\')',
    "export VLLM_HOST_IP",
)


@dataclass(frozen=True)
class LaunchFile:
    """A file to be written: its name, its text, and the command that starts it."""

    name: str
    text: str
    start: str


@dataclass(frozen=True)
class _Setup:
    """A plan with what the files say besides: GPUs of each node, and the command that made the file."""

    plan: LaunchPlan
    gpus: int
    gpu: Device
    made_by: str

    @property
    def image(self) -> str:
        """Return the container image of the engine."""
        return IMAGES[self.plan.engine, "amd" if self.gpu.vendor == "amd" else "nvidia"]

    @property
    def label(self) -> str:
        """Return a name that Slurm, Kubernetes and file systems take."""
        return re.sub(r"[^a-z0-9]+", "-", self.plan.name.lower()).strip("-")

    def heading(self, where: str = "On the head", address: str = "127.0.0.1") -> str:
        """Return the comment at the top of the file; hermes, started there, finds the engine at the address."""
        plan = self.plan
        parallel = f"tensor parallel {plan.tensor}, pipeline parallel {plan.pipeline}, data parallel {plan.data}"
        return (
            f"# {plan.name} ({plan.repo}) on {plan.nodes} x {self.gpus} {self.gpu.name}: {parallel}.\n"
            f"# Made by: {self.made_by}\n"
            f"# The engine has no password: port {PORT} is for hermes alone, and so is the network between the nodes.\n"
            f"# {where}: hermes serve {plan.name} --engine-url http://{address}:{PORT}\n"
        )


def launch_file(
    kind: FileKind,  # whose file
    plan: LaunchPlan,  # to be started
    *,
    gpus: int,  # of each node
    gpu: Device,  # one of them
    made_by: str,  # the command line that made it, for a comment
) -> LaunchFile:
    """Return the file of a kind."""
    makers: dict[FileKind, Callable[[_Setup], LaunchFile]] = {
        "slurm": _slurm,
        "lws": _lws,
        "compose": _compose,
        "sky": _sky,
        "ray": _ray,
    }
    return makers[kind](_Setup(plan, gpus, gpu, made_by.replace("\n", " ")))


def shell_line(argv: Sequence[str], variables: Sequence[str] = ()) -> str:
    """Return a command line for a POSIX shell; of words that contain one of the variables the shell expands it."""
    return " ".join(
        f'"{word}"' if any(variable in word for variable in variables) else shlex.quote(word) for word in argv
    )


def _node_script(setup: _Setup, rank: str, head: str) -> list[str]:
    """Return the lines that start the engine on one node: the head, or another whose rank is a variable."""
    plan = setup.plan
    first = f"exec {shell_line(plan.argv(0, head=head, host='127.0.0.1'), [head])}"
    if plan.nodes == 1:
        return [first]
    other = f"exec {shell_line(plan.argv(rank, head=head), [head, rank])}"
    return [f'if [ "{rank}" = 0 ]; then', f"  {first}", "else", f"  {other}", "fi"]


def _exports(values: Mapping[str, str]) -> list[str]:
    return [f"export {name}={shlex.quote(value)}" for name, value in values.items()]


def _network(setup: _Setup) -> list[str]:
    """Return the lines that bind a node to the network between the nodes."""
    if setup.plan.nodes == 1:
        return []
    return ["INTERFACE=${INTERFACE:-eth0}  # of the network between the nodes: INTERFACE=ib0 …", *_INTERFACE]


def _slurm(setup: _Setup) -> LaunchFile:
    plan, name = setup.plan, f"{setup.label}.sbatch"
    node = [*_network(setup), *_node_script(setup, "$SLURM_PROCID", "$HEAD")]
    lines = [
        "#!/bin/bash",
        f"#SBATCH --job-name={setup.label}",
        f"#SBATCH --nodes={plan.nodes}",
        "#SBATCH --ntasks-per-node=1",
        f"#SBATCH --gpus-per-node={setup.gpus}",
        "#SBATCH --exclusive",
        setup.heading().rstrip(),
        "set -euo pipefail",
        'HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)',
        "export HEAD",
        *_exports(plan.environment()),
        "",
        "run_node() {",
        *(f"  {line}" for line in node),
        "}",
        "export -f run_node",
        f"srun --ntasks-per-node=1 --gpus-per-node={setup.gpus} --kill-on-bad-exit=1 bash -c run_node",
    ]
    return LaunchFile(name, "\n".join(lines) + "\n", f"sbatch {name}")


def _ray(setup: _Setup) -> LaunchFile:
    plan, name = setup.plan, f"{setup.label}-ray.sh"
    lines = [
        "#!/bin/bash",
        setup.heading().rstrip(),
        f"# On the head: bash {name}; on the others: HEAD=ADDRESS bash {name}. A cluster that runs is used as it is.",
        "set -euo pipefail",
        *_network(setup),
        *_exports({key: value for key, value in plan.environment().items() if key != "VLLM_HOST_IP"}),
        'if [ -n "${HEAD:-}" ]; then',
        f'  exec ray start --block --address "$HEAD:{RAY_PORT}"',
        "fi",
        f"ray status >/dev/null 2>&1 || ray start --head --port {RAY_PORT}",
        f'until [ "$(ray list nodes --format json | grep -c ALIVE)" -ge {plan.nodes} ]; do sleep 2; done',
        f"exec {shell_line(plan.argv(ray=True))}",
    ]
    return LaunchFile(name, "\n".join(lines) + "\n", f"bash {name}")


def _sky(setup: _Setup) -> LaunchFile:
    plan, name = setup.plan, f"{setup.label}-sky.yaml"
    run = [
        "set -e",
        'HEAD=$(echo "$SKYPILOT_NODE_IPS" | sed -n 1p)',
        *_network(setup),
        *_node_script(setup, "$SKYPILOT_NODE_RANK", "$HEAD"),
    ]
    document = {
        "name": setup.label,
        "num_nodes": plan.nodes,
        "resources": {"accelerators": f"{sky_name(setup.gpu.name)}:{setup.gpus}", "disk_size": 2048},
        "envs": dict(plan.environment()),
        "setup": f"pip install {PACKAGES[plan.engine]}\n",
        "run": "\n".join(run) + "\n",
    }
    return LaunchFile(name, setup.heading() + _yaml(document), f"sky launch {name}")


def sky_name(gpu_name: str) -> str:
    """Return SkyPilot's name of a GPU: `H100`, `A100-80GB`, `RTX4090`, `L40S`, `MI300X`."""
    words = re.sub(r"GeForce |Instinct |Tesla | SXM| PCIe", "", gpu_name).split()
    if words[0] == "A100":
        return "A100-80GB" if "80GB" in words else "A100"
    if words[0] in {"RTX", "GTX"}:
        return "".join(words).replace("RTX6000Ada", "RTX6000-Ada")
    return words[0]


def _compose(setup: _Setup) -> LaunchFile:
    plan = setup.plan

    def service(command: list[str], **more: Any) -> dict[str, Any]:  # noqa: ANN401 - YAML values
        return {
            "image": f"${{ENGINE_IMAGE:-{setup.image}}}",
            "ipc": "host",
            "entrypoint": [],
            "command": command,
            "environment": {
                **plan.environment(),
                "HF_TOKEN": "${HF_TOKEN:-}",
                **(_compose_network() if plan.nodes > 1 else {}),
            },
            "volumes": ["${HF_HOME:-~/.cache/huggingface}:/root/.cache/huggingface"],
            **_compose_gpus(setup),
            "restart": "unless-stopped",
            "stop_grace_period": "60s",
            **more,
        }

    if plan.nodes == 1:
        published = {"ports": [f"127.0.0.1:{PORT}:{PORT}"]}  # of this machine only
        services = {"engine": service(plan.argv(host="0.0.0.0"), **published)}  # noqa: S104 - inside the container
        return LaunchFile("compose.yaml", setup.heading() + _yaml({"services": services}), "docker compose up")
    head, rank = "${HEAD:?the address of the head}", "${RANK:?the rank of this node}"
    other = plan.argv("$RANK", head=head)
    if any("$((" in word for word in other):  # Compose does not count
        other = ["/bin/bash", "-c", shell_line(other, ["$RANK", head]).replace("$((", "$$((").replace("$RANK", rank)]
    services = {
        "head": service(plan.argv(0, head=head), network_mode="host", profiles=["head"]),
        "node": service([word.replace("$RANK", rank) for word in other], network_mode="host", profiles=["node"]),
    }
    how = (
        "# On the head: HEAD=ADDRESS HOST_IP=ADDRESS INTERFACE=eth0 docker compose --profile head up\n"
        "# On the others: RANK=1 HEAD=ADDRESS HOST_IP=OWN INTERFACE=eth0 docker compose --profile node up\n"
    )
    start = "HEAD=ADDRESS HOST_IP=ADDRESS INTERFACE=eth0 docker compose --profile head up"
    return LaunchFile("compose.yaml", setup.heading() + how + _yaml({"services": services}), start)


def _compose_gpus(setup: _Setup) -> dict[str, Any]:
    if setup.gpu.vendor == "amd":
        return {"devices": ["/dev/kfd", "/dev/dri"], "group_add": ["video"]}
    device = {"driver": "nvidia", "count": setup.gpus, "capabilities": ["gpu"]}
    return {"deploy": {"resources": {"reservations": {"devices": [device]}}}}


def _compose_network() -> dict[str, str]:
    return {
        "VLLM_HOST_IP": "${HOST_IP:?this node's address}",
        "GLOO_SOCKET_IFNAME": "${INTERFACE:?the network interface between the nodes}",
        "NCCL_SOCKET_IFNAME": "${INTERFACE:?the network interface between the nodes}",
    }


def _lws(setup: _Setup) -> LaunchFile:
    plan, label = setup.plan, setup.label
    head, rank = "$LWS_LEADER_ADDRESS", "$LWS_WORKER_INDEX"
    environment: list[dict[str, Any]] = [
        {"name": name, "value": value} for name, value in plan.environment().items() if name != "VLLM_HOST_IP"
    ]
    environment += [
        {"name": "VLLM_HOST_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "GLOO_SOCKET_IFNAME", "value": "eth0"},
        {"name": "NCCL_SOCKET_IFNAME", "value": "eth0"},
        {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "huggingface", "key": "token", "optional": True}}},
    ]

    def pod(role: str, argv: list[str], **more: Any) -> dict[str, Any]:  # noqa: ANN401 - YAML values
        container = {
            "name": "engine",
            "image": setup.image,
            "command": ["/bin/bash", "-c", f"exec {shell_line(argv, [head, rank])}"],
            "env": environment,
            "resources": {"limits": {f"{setup.gpu.vendor}.com/gpu": str(setup.gpus)}},
            "volumeMounts": [
                {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 - NCCL's own place
                {"name": "models", "mountPath": "/root/.cache/huggingface"},
            ],
            **more,
        }
        volumes = [
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "16Gi"}},
            {"name": "models", "hostPath": {"path": "/var/lib/hermes-models", "type": "DirectoryOrCreate"}},
        ]
        return {
            "metadata": {"labels": {"app": label, "role": role}},
            "spec": {"containers": [container], "volumes": volumes, "terminationGracePeriodSeconds": 60},
        }

    probe = {"httpGet": {"path": "/health", "port": PORT}, "periodSeconds": 10}
    template: dict[str, Any] = {
        "size": plan.nodes,
        "restartPolicy": "RecreateGroupOnPodRestart",  # a rank that lost its head never ends by itself
        "leaderTemplate": pod(
            "leader",
            plan.argv(0, head=head, host="0.0.0.0"),  # noqa: S104 - the pod's; the policy below admits hermes only
            ports=[{"containerPort": PORT}],
            readinessProbe=probe,
        ),
        "workerTemplate": pod("worker", plan.argv(rank, head=head) if plan.nodes > 1 else plan.argv(head=head)),
    }
    documents = [
        {
            "apiVersion": "leaderworkerset.x-k8s.io/v1",
            "kind": "LeaderWorkerSet",
            "metadata": {"name": label},
            "spec": {"replicas": 1, "leaderWorkerTemplate": template},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": label},
            "spec": {"selector": {"app": label, "role": "leader"}, "ports": [{"port": PORT}]},
        },
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": label},
            "spec": {
                "podSelector": {"matchLabels": {"app": label}},
                "policyTypes": ["Ingress"],
                "ingress": [
                    {"from": [{"podSelector": {"matchLabels": {"app": label}}}]},
                    {
                        "from": [{"podSelector": {"matchLabels": {"app": "hermes"}}}],
                        "ports": [{"port": PORT}],
                    },
                ],
            },
        },
    ]
    name = f"{label}-lws.yaml"
    return LaunchFile(
        name,
        setup.heading("In a pod with the label app: hermes", label)
        + "---\n".join(_yaml(document) for document in documents),
        f"kubectl apply -f {name}",
    )


def _yaml(document: Mapping[str, Any]) -> str:
    """Return YAML with keys in their order and texts of several lines as they are."""
    import yaml  # noqa: PLC0415 - 20 ms, and only these files need it

    class Dumper(yaml.SafeDumper):
        pass

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)

    Dumper.add_representer(str, text)
    Dumper.ignore_aliases = lambda *_: True  # type: ignore[method-assign]
    return str(yaml.dump(dict(document), Dumper=Dumper, sort_keys=False, width=1000, allow_unicode=True))
