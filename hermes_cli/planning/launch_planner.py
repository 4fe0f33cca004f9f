"""Choose the parallel sizes, context, KV type and weights with which vLLM or SGLang runs a model on a machine.

Every node has the same GPUs. A replica is one copy of the model: `tensor` GPUs share each layer, `pipeline` stages
share the layers. Replicas are as small as they can be with room for the whole context, and GPUs left over hold more of
them; a replica goes over several nodes only where one node does not hold the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hermes_cli.catalog.engine_weights import EngineWeights, engine_weights
from hermes_cli.errors import DoesNotFitError, UsageError
from hermes_cli.hardware.machine import MOST_DEVICES
from hermes_cli.planning.engine_gpus import (
    BF16_CAPABILITY,
    FP4_CAPABILITY,
    capability,
    computes_fp8,
    engine_gpus,
    gpu_room,
    is_supported,
    why_not,
)
from hermes_cli.planning.launch_memory import batch_tokens, gpu_memory, kv_bytes_per_token
from hermes_cli.planning.launch_plan import EngineKvType, GpuMemory, LaunchOptions, LaunchPlan
from hermes_cli.planning.parallel_sizes import ParallelSizes, check_sizes, parallel_sizes, splits
from hermes_cli.units import counted, gigabytes, memory_size

if TYPE_CHECKING:
    from hermes_cli.catalog.models import CatalogModel
    from hermes_cli.hardware.machine import Device, Machine

WANTED_CONTEXT = 131_072  # tokens, of models that can handle more
LEAST_COMFORTABLE = 32_768  # tokens below which an 8-bit KV cache or smaller weights are tried
SHORTEST_CONTEXT = 2048
TOKENS_PER_SEQUENCE = 1024  # of KV cache that each request at once should find, at least
SEQUENCES = (256, 128, 64, 32, 16, 8)
ROUND_CONTEXT = 4096


@dataclass(frozen=True)
class Launch:
    """A plan for a machine: its weights, the GPU that limits it, and remarks."""

    plan: LaunchPlan
    weights: EngineWeights
    gpus: tuple[Device, ...]  # those of one node that are used
    room: int  # bytes of each that the engine may use
    notes: tuple[str, ...] = ()

    @property
    def is_comfortable(self) -> bool:
        """Return whether the whole context fits, and the KV cache is at least as large as the weights."""
        memory = self.plan.memory
        return memory.kv_cache >= memory.weights and self.plan.kv_tokens >= wanted_context(self.weights.model)


def wanted_context(model: CatalogModel) -> int:
    """Return the tokens of context that a plan aims at, if the user names none."""
    return min(model.context.usable, WANTED_CONTEXT)


def best_launch(model: CatalogModel, machine: Machine, options: LaunchOptions) -> Launch:
    """Return the plan with the weights that suit the machine best.

    The authors' FP8 comes first where the GPUs compute in FP8, then BF16, then what others quantized. The first with a
    context of 32,768 tokens within a node is taken, then over several, else the one with the longest context.

    Raises:
        UsageError, DoesNotFitError: as `plan_launch`, of the smallest weights.
    """
    gpus = engine_gpus(machine, options.engine)
    plans: list[Launch] = []
    errors: list[tuple[int, DoesNotFitError]] = []
    for weights in _preferred(model, gpus):
        try:
            plans.append(plan_launch(weights, machine, options))
        except DoesNotFitError as problem:
            errors.append((weights.bytes, problem))
    if not plans:
        raise min(errors, key=lambda error: error[0])[1]
    enough = min(wanted_context(model), LEAST_COMFORTABLE)
    long = [launch for launch in plans if launch.plan.kv_tokens >= enough]
    within = [launch for launch in long if not launch.plan.replicas_span_nodes]
    return next(iter(within or long), None) or max(plans, key=lambda launch: launch.plan.kv_tokens)


def _preferred(model: CatalogModel, gpus: tuple[Device, ...]) -> list[EngineWeights]:
    """Return the weights that the GPUs can compute with, the best first."""
    in_hardware = all(computes_fp8(gpu) for gpu in gpus)

    def place(weights: EngineWeights) -> tuple[int, int]:
        first = weights.format == "fp8" and weights.official and in_hardware
        return (0 if first else 1 if weights.official else 2, -weights.bytes)

    return sorted((weights for weights in engine_weights(model) if why_not(weights, gpus) is None), key=place)


def plan_launch(weights: EngineWeights, machine: Machine, options: LaunchOptions) -> Launch:
    """Return the plan for these weights.

    Raises:
        UsageError: the GPUs cannot be used so; the hint says what is next best.
        DoesNotFitError: the GPUs do not hold the weights, or not the context.
    """
    model, architecture = weights.model, weights.model.architecture
    gpus = engine_gpus(machine, options.engine)
    if reason := why_not(weights, gpus):
        raise DoesNotFitError(f"{weights.name}: {reason}.", hint=f"choose other weights: hermes show {model.short}")
    if options.context and options.context > model.context.trained:
        raise UsageError(
            f"--context {options.context:,} is longer than the {model.context.trained:,} tokens that {model.short} "
            "can handle.",
            hint=f"use --context {model.context.trained} or less.",
        )
    check_sizes(architecture, model.short, len(gpus), options)
    best = fitting_launch(weights, gpus, machine, options)
    if best is None:
        raise _does_not_fit(weights, gpus, machine, options)
    idle = len(gpus) * options.nodes - best.plan.gpus
    if idle and options.tensor is options.pipeline is options.data is None:
        raise _indivisible(weights, gpus, machine, options, best)
    return replace(best, notes=tuple(_notes(best, gpus, machine, idle)))


def fitting_launch(
    weights: EngineWeights, gpus: tuple[Device, ...], machine: Machine, options: LaunchOptions
) -> Launch | None:
    """Return the best plan on these GPUs of each node, None if they do not hold the weights and the context."""
    if why_not(weights, gpus):
        return None
    launches = _all_launches(weights, gpus, machine, options)
    holding = [launch for launch in launches if launch.plan.kv_tokens >= (options.context or 0)]
    return _choose(holding, options.context or wanted_context(weights.model))


def _all_launches(
    weights: EngineWeights, gpus: tuple[Device, ...], machine: Machine, options: LaunchOptions
) -> list[Launch]:
    every = parallel_sizes(weights.model.architecture, len(gpus), options)
    launches = (_launch(weights, gpus, machine, sizes, options) for sizes in every)
    return [launch for launch in launches if launch]


def _choose(launches: list[Launch], wanted: int) -> Launch | None:
    """Return the launch with the most GPUs in use, of those the smallest comfortable replica, else the largest cache.

    A replica over several nodes, whose steps wait for the network, comes last.
    """
    if not launches:
        return None
    enough = min(wanted, LEAST_COMFORTABLE)
    within = [launch for launch in launches if not launch.plan.replicas_span_nodes and launch.plan.kv_tokens >= enough]
    offered = within or launches
    most = max(launch.plan.gpus for launch in offered)
    offered = [launch for launch in offered if launch.plan.gpus == most]
    comfortable = [launch for launch in offered if launch.is_comfortable and launch.plan.kv_tokens >= wanted]
    if comfortable:
        return min(comfortable, key=lambda launch: (launch.plan.pipeline, launch.plan.tensor))
    return max(
        offered, key=lambda launch: (min(launch.plan.kv_tokens, wanted), launch.plan.data == 1, launch.plan.kv_tokens)
    )


def _launch(
    weights: EngineWeights, gpus: tuple[Device, ...], machine: Machine, sizes: ParallelSizes, options: LaunchOptions
) -> Launch | None:
    """Return the launch with these sizes; None if the weights leave no room for a short context."""
    architecture, model = weights.model.architecture, weights.model
    simulated = machine.simulated and all(gpu.free == gpu.total for gpu in gpus)
    total, room, share = gpu_room(gpus, simulated=simulated)
    batch = min(batch_tokens(gpu.name, gpu.total) for gpu in gpus)
    enough = min(options.context or wanted_context(model), LEAST_COMFORTABLE)
    eight_bits = all(computes_fp8(gpu) for gpu in gpus)
    kv_types: tuple[EngineKvType, ...] = ("auto", "fp8") if eight_bits else ("auto",)
    best: Launch | None = None
    for kv_type in (options.kv_type,) if options.kv_type else kv_types:
        per_token = kv_bytes_per_token(architecture, sizes.tensor, sizes.pipeline, kv_type)
        sequences, memory = _sequences(weights, sizes, batch, room, per_token, options.sequences)
        tokens = max(memory.kv_cache, 0) // per_token
        if tokens < min(SHORTEST_CONTEXT, model.context.trained):
            continue
        static_share = int((memory.weights + memory.kv_cache) / total * 100) / 100  # of SGLang
        plan = LaunchPlan(
            engine=options.engine,
            repo=weights.repo,
            name=model.short.partition("@")[0].rpartition("/")[2],
            tensor=sizes.tensor,
            pipeline=sizes.pipeline,
            data=sizes.data,
            nodes=options.nodes,
            context=options.context or _round_context(min(tokens, model.context.usable)),
            sequences=sequences,
            kv_type=kv_type,
            weights=weights.format,
            utilization=share if options.engine == "vllm" else static_share,
            memory=memory,
            kv_tokens=tokens,
            more=() if all(capability(gpu) >= BF16_CAPABILITY for gpu in gpus) else ("--dtype", "half"),
        )
        best = Launch(plan, weights, gpus, room)
        if tokens >= enough:
            break
    return best


def _sequences(
    weights: EngineWeights, sizes: ParallelSizes, batch: int, room: int, per_token: int, wanted: int | None
) -> tuple[int, GpuMemory]:
    """Return the requests at once, as many as find some KV cache each unless they are given, and the memory then."""
    tensor, pipeline = sizes.tensor, sizes.pipeline
    alone = gpu_memory(weights, room=room, batch=batch, tensor=tensor, pipeline=pipeline, sequences=1)

    def memory(sequences: int) -> GpuMemory:
        logits = alone.logits * sequences
        return replace(alone, logits=logits, kv_cache=alone.kv_cache + alone.logits - logits)

    for sequences in (wanted,) if wanted else SEQUENCES:
        if memory(sequences).kv_cache >= sequences * TOKENS_PER_SEQUENCE * per_token:
            break
    return sequences, memory(sequences)


def _round_context(tokens: int) -> int:
    """Return a number of tokens that a person can read, no larger."""
    step = ROUND_CONTEXT if tokens >= ROUND_CONTEXT else 256
    return tokens // step * step


def _does_not_fit(
    weights: EngineWeights, gpus: tuple[Device, ...], machine: Machine, options: LaunchOptions
) -> DoesNotFitError:
    """Return the error that nothing fits, with what would."""
    what = f"{weights.name} ({gigabytes(weights.bytes)})"
    on = f"{options.nodes} x {len(gpus)}" if options.nodes > 1 else f"{len(gpus)}"
    where = f"{on} {gpus[0].name} ({memory_size(gpus[0].total)} each)"
    launches = _all_launches(weights, gpus, machine, options)
    if launches and options.context:
        longest = max(launches, key=lambda launch: launch.plan.kv_tokens).plan
        eight = "" if "fp8" in {options.kv_type, longest.kv_type} else ", or --kv-type fp8"
        return DoesNotFitError(
            f"{what} with {options.context:,} tokens of context does not fit {where}.",
            hint=f"--context {_round_context(longest.kv_tokens)} fits{eight}.",
        )
    hints = []
    free = replace(options, tensor=None, pipeline=None, data=None)
    for count in range(len(gpus) + 1, MOST_DEVICES + 1):
        launch = fitting_launch(weights, gpus[:1] * count, machine, free)
        if launch and launch.plan.gpus == count * options.nodes:
            hints.append(f"{count} of these GPUs would hold it")
            break
    smaller = (other for other in engine_weights(weights.model) if other.bytes < weights.bytes)
    if other := next((other for other in smaller if fitting_launch(other, gpus, machine, options)), None):
        hints.append(f"{other.name} fits")
    hints.append(f"llama.cpp runs smaller files: hermes recommend {weights.model.short}")
    return DoesNotFitError(f"{what} does not fit {where}.", hint=f"{'; '.join(hints)}.")


def _indivisible(
    weights: EngineWeights, gpus: tuple[Device, ...], machine: Machine, options: LaunchOptions, best: Launch
) -> UsageError:
    """Return the error for a number of GPUs that the model cannot be split over, with what is next best."""
    plan = best.plan
    per_node = plan.gpus // options.nodes
    stages = replace(options, tensor=1, pipeline=len(gpus), data=1)
    by_stages = options.nodes == 1 and fitting_launch(weights, gpus, machine, stages)
    also = f"; or all {len(gpus)} in turns: --pipeline-parallel {len(gpus)}" if by_stages else ""
    return UsageError(
        f"{weights.name} cannot be split over {counted(len(gpus), 'GPU')}: {_heads(weights)}, of which each "
        "GPU must get as many as the others.",
        hint=f"{per_node} of them are next best, {plan.context or 0:,} tokens: --tensor-parallel {plan.tensor}{also}.",
    )


def _heads(weights: EngineWeights) -> str:
    architecture = weights.model.architecture
    return f"it has {architecture.heads} attention heads and {architecture.kv_heads} KV heads"


def _notes(launch: Launch, gpus: tuple[Device, ...], machine: Machine, idle: int) -> Iterator[str]:
    """Yield what the user should know about a plan."""
    plan, weights = launch.plan, launch.weights
    if left_out := [device for device in machine.devices if device not in gpus and not device.left_out]:
        small = (
            "it has less memory free than the others"
            if any(map(is_supported, left_out))
            else "there are no kernels for it"
        )
        yield f"left out, {small}: {', '.join(dict.fromkeys(device.name for device in left_out))}"
    smallest = min(gpu.total for gpu in gpus)
    if any(gpu.total > smallest for gpu in gpus):
        yield f"the GPUs are not alike; each gives as much as the smallest, {memory_size(smallest)}"
    if plan.data > 1 and not splits(weights.model.architecture, len(gpus)):
        yield f"{_heads(weights)}, so it is not split over {len(gpus)} GPUs: {plan.data} replicas"
    if idle:
        yield f"{counted(idle, 'GPU')} of {len(gpus) * plan.nodes} stay idle"
    yield from _notes_on_weights(weights, gpus)
    if plan.kv_type == "fp8":
        yield "the KV cache has 8 bits; --kv-type auto takes 16, for half as many tokens"
    if plan.tensor > weights.model.architecture.kv_heads:
        yield (
            f"{plan.tensor} GPUs share {weights.model.architecture.kv_heads} KV heads, so each token is kept several "
            f"times; --tensor-parallel {weights.model.architecture.kv_heads} with stages takes less"
        )


def _notes_on_weights(weights: EngineWeights, gpus: tuple[Device, ...]) -> Iterator[str]:
    if weights.format == "fp8" and not all(computes_fp8(gpu) for gpu in gpus):
        yield f"{gpus[0].name} does not compute in FP8: weights are unpacked, which saves memory and no arithmetic"
    if weights.format == "nvfp4" and any(capability(gpu) < FP4_CAPABILITY for gpu in gpus):
        yield f"{gpus[0].name} does not compute in FP4: weights are unpacked, which saves memory and no arithmetic"
    if weights.model.architecture.kind == "seed_oss":
        yield "vLLM 0.32 and SGLang 0.5.23 run this architecture through Transformers, slower than by code of their own"
    if weights.model.generation and not weights.official:
        yield f"{weights.repo} is not by Nous Research"
