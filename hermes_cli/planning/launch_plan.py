"""The parameters with which vLLM or SGLang loads a model, and the command line and environment that follow from them.

    plan = LaunchPlan("vllm", "NousResearch/Hermes-4-405B-FP8", "hermes-4:405b", tensor=8)
    plan.argv(socket="/run/hermes/engine.sock")       ["vllm", "serve", "NousResearch/Hermes-4-405B-FP8", …]
    plan.argv(1, head="10.0.0.1")                     of the second node, where there are several

launch_planner.py chooses the parameters for a machine. Prompts are made here and sent as token ids, so nothing of an
engine's own chat route (tool parser, reasoning parser, template) is set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal

from hermes_cli.catalog.engine_weights import WeightFormat

EngineName = Literal["vllm", "sglang"]
EngineKvType = Literal["auto", "fp8"]

ENGINE_TITLES: dict[EngineName, str] = {"vllm": "vLLM", "sglang": "SGLang"}

PORT = 8000  # of the HTTP server, where there is no socket
MASTER_PORT = 29501  # at which the nodes of one replica meet
DATA_PARALLEL_PORT = 29550  # at which replicas on several nodes meet
# Seconds after which vLLM gives up a step whose other node does not answer; its default of 300 leaves requests hanging.
STEP_TIMEOUT = 90
SHUTDOWN_TIMEOUT = 30  # seconds in which running requests may end


@dataclass(frozen=True)
class GpuMemory:
    """Bytes on one GPU, by part; `kv_cache` is what the others leave of the share that the engine may use."""

    weights: int = 0
    activations: int = 0
    logits: int = 0
    graphs: int = 0
    context: int = 0
    communication: int = 0
    kv_cache: int = 0

    @property
    def total(self) -> int:
        """Return the bytes of all parts."""
        return sum(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True)
class LaunchOptions:
    """Settings that the user insists on; None leaves one free."""

    engine: EngineName = "vllm"
    nodes: int = 1  # machines of the same kind
    context: int | None = None  # tokens of the longest request
    sequences: int | None = None  # requests at once, per replica
    kv_type: EngineKvType | None = None
    # tensor, pipeline, data: parallel sizes
    tensor: int | None = None
    pipeline: int | None = None
    data: int | None = None


@dataclass(frozen=True)
class LaunchPlan:
    """The parameters with which an engine loads a model."""

    engine: EngineName  # whose command line it is
    repo: str  # a repository on the Hub, or the path of a folder with the same files
    name: str  # the model's name in requests
    # tensor, pipeline, data: parallel sizes: GPUs that share each layer, stages of layers, replicas
    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    nodes: int = 1  # machines; all have the same GPUs
    # tokens of the longest request (prompt and answer); None lets the engine take the most that fits
    context: int | None = None
    sequences: int | None = None  # requests at once, per replica; None leaves it to the engine
    kv_type: EngineKvType = "auto"  # `auto` is that of the activations, 16 bits; `fp8` 8 bits
    # the format of the weights, if known; the repository's config states it, so no flag does
    weights: WeightFormat | None = None
    utilization: float | None = None  # share of each GPU's memory (on a CPU: of the RAM) that the engine may use
    memory: GpuMemory = GpuMemory()  # of one GPU, by part
    kv_tokens: int = 0  # tokens that the KV cache of one replica holds; 0 if that was not computed
    device: Literal["gpu", "cpu"] = "gpu"  # a CPU has other flags
    more: tuple[str, ...] = ()  # further arguments, as typed

    @property
    def gpus(self) -> int:
        """Return the number of GPUs on all nodes together."""
        return self.tensor * self.pipeline * self.data

    @property
    def replicas_span_nodes(self) -> bool:
        """Return whether one replica needs several nodes; else each node has replicas of its own."""
        return self.nodes > 1 and self.data == 1

    def argv(
        self,
        rank: int | str = 0,  # of the node; the head has 0. A text, such as `$RANK`, stands for that of any other node
        *,
        # the Unix socket that the head listens on, in place of `host` and `port`; SGLang has none
        socket: str | None = None,
        host: str = "127.0.0.1",  # address that the head listens on
        port: int | str = PORT,  # its port, or a text that stands for it
        head: str = "127.0.0.1",  # the address at which the other nodes reach the head, or a variable that holds it
        program: Sequence[str] = (),  # what is run, such as `("/opt/vllm/bin/vllm",)`; by default what PATH has
        ray: bool = False,  # the nodes are those of a running Ray cluster, and only the head is started
    ) -> list[str]:
        """Return the command of one node."""
        if self.engine == "sglang":
            return [*(program or ("python3", "-m", "sglang.launch_server")), *self._sglang(rank, host, port, head)]
        listen = ["--uds", socket] if socket else ["--host", host, "--port", str(port)]
        serve = [*(program or ("vllm",)), "serve", self.repo, "--served-model-name", self.name]
        return [*serve, *(listen if rank == 0 else ()), *self._vllm(rank, head, ray=ray), *self.more]

    def _vllm(self, rank: int | str, head: str, *, ray: bool) -> list[str]:
        """Flags of vLLM 0.32 (engines.md in docs has what was tried)."""
        options: list[tuple[str, object]] = []
        if self.tensor > 1:
            options.append(("--tensor-parallel-size", self.tensor))
        if self.pipeline > 1:
            options.append(("--pipeline-parallel-size", self.pipeline))
        if self.data > 1:
            options.append(("--data-parallel-size", self.data))
        options.append(("--max-model-len", self.context or "auto"))
        if self.sequences:
            options.append(("--max-num-seqs", self.sequences))
        if self.kv_type != "auto":
            options.append(("--kv-cache-dtype", self.kv_type))
        if self.utilization is not None:
            options.append(("--gpu-memory-utilization", f"{self.utilization:g}"))
        # xgrammar, the default, fails at run time on hermes' grammars; the model's own sampling defaults are sent
        options += [("--structured-outputs-config.backend", "guidance"), ("--generation-config", "vllm")]
        options.append(("--shutdown-timeout", SHUTDOWN_TIMEOUT))
        words = [str(word) for option in options for word in option]
        words += ["--enable-prompt-tokens-details", "--disable-uvicorn-access-log"]
        if self.device == "cpu" and self.pipeline == 1:  # with stages, vLLM on a CPU fails without compilation
            words.append("--enforce-eager")
        if ray:
            words += ["--distributed-executor-backend", "ray"]
            if self.nodes > 1 and self.data > 1:
                words += ["--data-parallel-size-local", str(self.data // self.nodes), "--data-parallel-backend", "ray"]
            return words
        return words + self._vllm_nodes(rank, head)

    def _vllm_nodes(self, rank: int | str, head: str) -> list[str]:
        if self.nodes == 1:
            return []
        headless = [] if rank == 0 else ["--headless"]
        if self.replicas_span_nodes:
            return [
                *("--nnodes", str(self.nodes), "--node-rank", str(rank)),
                *("--master-addr", head, "--master-port", str(MASTER_PORT), *headless),
            ]
        local = self.data // self.nodes
        first = rank * local if isinstance(rank, int) else rank if local == 1 else f"$(({rank}*{local}))"
        return [
            *("--data-parallel-size-local", str(local), "--data-parallel-address", head),
            *("--data-parallel-rpc-port", str(DATA_PARALLEL_PORT)),
            *(("--data-parallel-start-rank", str(first), *headless) if headless else ()),
        ]

    def _sglang(self, rank: int | str, host: str, port: int | str, head: str) -> list[str]:
        """Flags of SGLang 0.5.23."""
        options: list[tuple[str, object]] = [("--model-path", self.repo), ("--served-model-name", self.name)]
        options += [("--host", host), ("--port", port)]
        sizes = (("--tp-size", self.tensor), ("--pp-size", self.pipeline), ("--dp-size", self.data))
        options += [(flag, size) for flag, size in sizes if size > 1]
        if self.context:
            options.append(("--context-length", self.context))
        if self.sequences:
            options.append(("--max-running-requests", self.sequences))
        if self.kv_type == "fp8":
            options.append(("--kv-cache-dtype", "fp8_e4m3"))
        if self.utilization is not None:
            options.append(("--mem-fraction-static", f"{self.utilization:g}"))
        if self.device == "cpu":  # the only way in which it came up without a GPU
            options += [("--device", "cpu"), ("--attention-backend", "torch_native")]
        options.append(("--grammar-backend", "llguidance"))
        if self.nodes > 1:
            options += [("--nnodes", self.nodes), ("--node-rank", rank), ("--dist-init-addr", f"{head}:{MASTER_PORT}")]
        return [*(str(word) for option in options for word in option), "--enable-metrics", *self.more]

    def environment(self, run_folder: str = "") -> Mapping[str, str]:
        """Return the variables that each node needs, to be added to its own; its address is known only there.

        `run_folder` is a private folder for the sockets that vLLM leaves in `/tmp` otherwise.
        """
        values = {"HF_HUB_DISABLE_TELEMETRY": "1"}
        if self.engine == "sglang":
            return values
        values |= {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
        values["VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS"] = str(STEP_TIMEOUT)
        if self.nodes == 1:
            values["VLLM_HOST_IP"] = "127.0.0.1"
        if run_folder:
            values["VLLM_RPC_BASE_PATH"] = run_folder
        if self.device == "cpu":
            values["VLLM_CPU_KVCACHE_SPACE"] = str(max(self.memory.kv_cache >> 30, 1))
            local = self.gpus // self.nodes
            if local > 1:  # one core set for each process; without it vLLM wants as many NUMA nodes
                values["VLLM_CPU_OMP_THREADS_BIND"] = "|".join(str(core) for core in range(local))
        return values
