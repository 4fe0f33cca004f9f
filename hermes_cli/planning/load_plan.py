"""Load plans for a file, in order of preference; the engine confirms them (engine/embedded/fit_check.py).

What a user insists on stays as it is. The rest is chosen: the longest of the usual context lengths with which
everything is on GPUs; else the longest with which it fits at all, with as many layers on GPUs as have room.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations, islice
from typing import TYPE_CHECKING

from hermes_cli.catalog.models import Architecture
from hermes_cli.errors import UsageError
from hermes_cli.planning.memory import ContextSettings, Weights
from hermes_cli.planning.placement import place_layers, place_weights, reserved_bytes
from hermes_cli.planning.recommend import NEEDS
from hermes_cli.units import GIB

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Literal

    from hermes_cli.catalog.models import Yarn
    from hermes_cli.gguf.header import GGUFHeader
    from hermes_cli.hardware.machine import Machine
    from hermes_cli.planning.memory import KvType
    from hermes_cli.planning.placement import Placement

# What planning/compute.py knows the graph of, by `general.architecture`.
KINDS: dict[str | None, Literal["llama", "qwen3", "seed_oss"]] = {
    "llama": "llama",
    "qwen3": "qwen3",
    "seed_oss": "seed_oss",
}
MOST_EXPERTS = 1024  # more than any model has; a file may claim any number


@dataclass(frozen=True)
class FileFacts:
    """The facts of a file's header that plans depend on.

    Attributes:
        weights: bytes of its tensors.
        trained_context: tokens; 0 if it does not say.
        architecture: None where the memory of its graph cannot be computed.
    """

    weights: Weights
    trained_context: int
    architecture: Architecture | None


def facts_of(headers: Sequence[GGUFHeader]) -> FileFacts:
    """From the headers of a file, or of all its shards; the first has the metadata."""
    tensors = {tensor.name: tensor for header in headers for tensor in header.tensors}
    weights = Weights.of((name, tensor.size) for name, tensor in tensors.items())
    embedding = tensors.get("token_embd.weight")
    vocabulary = embedding.shape[-1] if embedding else 0
    trained = headers[0].number("context_length") or 0
    return FileFacts(weights, max(trained, 0), _architecture(headers[0], weights, vocabulary))


def _architecture(header: GGUFHeader, weights: Weights, vocabulary: int) -> Architecture | None:
    """The figures that memory depends on. What it does not depend on (tokenizer, base of RoPE) is made up."""
    name = header.text("general.architecture")
    kind = KINDS.get(name)

    def number(key: str, usual: int = 0) -> int:
        """0 stands for what cannot be computed with, such as heads that differ between layers."""
        return usual if f"{name}.{key}" not in header.metadata else header.number(f"{name}.{key}") or 0

    heads, width = number("attention.head_count"), number("embedding_length")
    head_length = number("attention.key_length", width // heads if heads > 0 else 0)
    experts, used = number("expert_count"), number("expert_used_count")
    layers, inner = number("block_count"), number("feed_forward_length")
    kv_heads = number("attention.head_count_kv", heads)
    sound = (
        min(heads, kv_heads, width, head_length, inner, vocabulary) > 0
        and 0 <= used <= experts <= MOST_EXPERTS
        and number("attention.value_length", head_length) == head_length
        and layers == len(weights.layers)
    )
    if kind is None or not sound:
        return None
    return Architecture(
        kind=kind,
        layers=layers,
        embedding_length=width,
        heads=heads,
        kv_heads=kv_heads,
        head_length=head_length,
        feed_forward_length=inner,
        vocabulary=vocabulary,
        tokenizer="llama",
        rope_base=10_000.0,
        tied_embeddings=weights.tied,
        experts=experts,
        experts_used=used,
    )


SHORTEST = 512  # tokens; shorter contexts are of no use, unless the model was trained for less
STEP = 1024  # tokens; how exactly the longest context that fits is looked for
MOST_PLANS, MOST_ALTERNATIVES = 16, 16
SMALLER_KV_TYPE: dict[KvType, KvType] = {"f32": "q8_0", "f16": "q8_0", "bf16": "q8_0", "q8_0": "q4_0"}


@dataclass(frozen=True)
class LoadPlan:
    """The parameters with which llama.cpp loads a model.

    Attributes:
        settings: context, slots, micro-batch, types of the KV cache, flash attention.
        gpu_layers: layers on GPUs, the output matrix counted as one.
        tensor_split: of several GPUs, in which proportion they share those; else empty.
        threads: of the CPU.
    """

    settings: ContextSettings
    gpu_layers: int = 0
    tensor_split: tuple[float, ...] = ()
    threads: int = 1


@dataclass(frozen=True)
class LoadOverrides:
    """The parameters that a user insists on; None leaves one free.

    Attributes:
        context: tokens.
        gpu_layers: as in `LoadPlan`, or -1 for all.
        kv_type: of keys and values.
        threads: of the CPU; the physical cores if free.
        slots: requests at once.
        yarn: how the context may be stretched beyond what the model was trained for.
        force: load the plan that is wanted most even if it does not fit.
        longest: look for the longest context up to all that the model can handle, not only what a chat takes.
        least: tokens of context that it must have, where `context` is free.
        tensor_split: of several GPUs, in which proportion they share the layers; empty is free.
        micro_batch: tokens in one pass; None is as many as usual.
    """

    context: int | None = None
    gpu_layers: int | None = None
    kv_type: KvType | None = None
    threads: int | None = None
    slots: int = 1
    yarn: Yarn | None = None
    force: bool = False
    longest: bool = False
    least: int = 0
    tensor_split: tuple[float, ...] = ()
    micro_batch: int | None = None


def plans_for(facts: FileFacts, machine: Machine, loading: LoadOverrides) -> tuple[LoadPlan, ...]:
    """Plans for a file on a machine, the one that is wanted most first.

    That one is there whether it fits or not, so that its memory can be told. Of the others there are those that fit as
    far as can be computed; if nothing does, the smallest.

    Raises:
        UsageError: a longer context is asked for, or needed, than the model was trained for.
    """
    trained, reach = facts.trained_context, _reach(facts, loading)
    how = "YaRN stretches this model to" if loading.yarn else "this model was trained for"
    if loading.context is not None and trained and loading.context > reach:
        raise UsageError(
            f"--context {loading.context:,} is longer than the {reach:,} tokens {how}.",
            hint=f"use --context {reach} or less.",
        )
    if trained and reach < loading.least:
        raise UsageError(
            f"{loading.least:,} tokens of context are needed, more than the {reach:,} tokens {how}.",
            hint="take a model that can handle them: hermes list",
        )
    steps = _Steps(facts, machine)
    first, *others = steps.preferred(loading, _contexts(loading, reach))
    fitting = list(islice(filter(steps.fits, others), MOST_PLANS))
    smallest = [] if fitting or steps.fits(first) else others[-1:]
    return (first, *fitting, *smallest)


def alternatives_to(facts: FileFacts, machine: Machine, loading: LoadOverrides) -> Iterator[LoadPlan]:
    """Plans that fit, as far as can be computed, with less than what the user insists on; the nearest first."""
    steps, contexts = _Steps(facts, machine), _contexts(loading, _reach(facts, loading))
    known = set(steps.preferred(loading, contexts))
    return islice(_new(steps.alternatives(loading, contexts), known), MOST_ALTERNATIVES)


def _new(plans: Iterable[LoadPlan], known: set[LoadPlan]) -> Iterator[LoadPlan]:
    """Those that have not been there before."""
    for plan in plans:
        if plan not in known:
            known.add(plan)
            yield plan


def _reach(facts: FileFacts, loading: LoadOverrides) -> int:
    """The longest context that the model can handle, in tokens; 0 if its file does not say."""
    return max(facts.trained_context, loading.yarn.context) if loading.yarn else facts.trained_context


def _contexts(loading: LoadOverrides, reach: int) -> tuple[int, ...]:
    """The usual context lengths, longest first; or the one that is asked for."""
    if loading.context is not None:
        return (loading.context,)
    wanted = max(NEEDS["chat"].wanted, loading.least)
    longest = reach if reach and (loading.longest or reach < wanted) else wanted
    enough = [length for length in _halved(longest) if length >= loading.least]
    return tuple(dict.fromkeys((*enough, loading.least) if loading.least else enough))


def _halved(longest: int) -> Iterator[int]:
    yield longest
    while longest >= 2 * SHORTEST:
        longest //= 2
        yield longest


class _Steps:
    """The plans that there can be for a file on a machine."""

    def __init__(self, facts: FileFacts, machine: Machine) -> None:
        self.facts = facts
        self.machine = machine
        self.all_layers = len(facts.weights.layers) + 1

    def preferred(self, loading: LoadOverrides, contexts: Sequence[int]) -> Iterator[LoadPlan]:
        """Every plan, the one wanted most first."""
        if loading.gpu_layers is not None or not self.machine.usable_devices:
            asked = loading.gpu_layers or 0
            layers = self.all_layers if asked < 0 else min(asked, self.all_layers)
            yield from (self._plan(loading, context, layers) for context in contexts)
            return
        long = [context for context in contexts if context >= NEEDS["chat"].least] or contexts[:1]
        for group in (long, contexts[len(long) :]):
            yield from (self._plan(loading, context, self.all_layers) for context in group)
            for context in group:
                yield from (self._plan(loading, context, layers) for layers in self._fewer(loading, context))

    def alternatives(self, loading: LoadOverrides, contexts: Sequence[int]) -> Iterator[LoadPlan]:
        """Plans that fit with less than what is asked for; as little as possible of it given up."""
        smaller = SMALLER_KV_TYPE.get(loading.kv_type or "f16")
        loosened: dict[str, LoadOverrides] = {}
        if loading.gpu_layers is not None:
            loosened["gpu_layers"] = replace(loading, gpu_layers=None)
        if smaller:
            loosened["kv_type"] = replace(loading, kv_type=smaller)
        if loading.context is not None:
            loosened["context"] = replace(loading, context=None)
        for count in range(1, len(loosened) + 1):
            for given_up in combinations(loosened, count):
                looser = replace(loading, **{name: getattr(loosened[name], name) for name in given_up})
                lengths = self._shorter(looser, contexts[0]) if "context" in given_up else contexts
                yield from filter(self.fits, self.preferred(looser, lengths))

    def fits(self, plan: LoadPlan) -> bool:
        """Return whether the plan fits; without an architecture only the weights are counted."""
        if placement := self._placed(plan):
            return placement.fits
        table, layers = self.facts.weights, plan.gpu_layers
        on_gpus = sum(table.layers[max(self.all_layers - layers, 0) :]) + table.head if layers else 0
        return on_gpus <= self._device_room() and table.total - on_gpus <= self.machine.ram_available

    def _placed(self, plan: LoadPlan) -> Placement | None:
        a, table = self.facts.architecture, self.facts.weights
        return place_layers(a, table, plan.settings, self.machine, plan.gpu_layers) if a else None

    def _plan(self, loading: LoadOverrides, context: int, gpu_layers: int) -> LoadPlan:
        kv_type = loading.kv_type or "f16"
        settings = ContextSettings(context, loading.slots, k_type=kv_type, v_type=kv_type)
        if loading.micro_batch:
            settings = replace(settings, micro_batch=loading.micro_batch)
        if loading.yarn and context > self.facts.trained_context:
            settings = replace(settings, yarn_factor=loading.yarn.factor, yarn_original=loading.yarn.original)
        plan = LoadPlan(settings, gpu_layers, threads=loading.threads or self.machine.cores)
        devices = self.machine.usable_devices
        if loading.tensor_split and gpu_layers:
            return replace(plan, tensor_split=loading.tensor_split)
        if not gpu_layers or len(devices) == 1:
            return plan
        placement = self._placed(plan)
        rooms = tuple(round((device.free - reserved_bytes(device)) / GIB, 2) for device in devices)
        return replace(plan, tensor_split=placement.tensor_split if placement else rooms)

    def _fewer(self, loading: LoadOverrides, context: int) -> Iterable[int]:
        """Numbers of layers for GPUs that cannot take all: the most that have room, and less in case that is wrong."""
        most = self._most(self._plan(loading, context, 0).settings)
        counts = (most, most - 1, most - 2, most * 3 // 4, most // 2, most // 4, 0)
        return dict.fromkeys(count for count in counts if 0 <= count < self.all_layers)

    def _most(self, settings: ContextSettings) -> int:
        table = self.facts.weights
        if self.facts.architecture:
            placement = place_weights(self.facts.architecture, table, settings, self.machine)
            return min(placement.gpu_layers, self.all_layers - 1)
        room, count = self._device_room() - table.head, 0
        for size in reversed(table.layers):
            room -= size
            if room < 0:
                break
            count += 1
        return count

    def _device_room(self) -> int:
        return sum(max(device.free - reserved_bytes(device), 0) for device in self.machine.usable_devices)

    def _shorter(self, loading: LoadOverrides, wanted: int) -> Sequence[int]:
        """The longest context that fits and is shorter than what is wanted, then halves of it."""

        def fits(context: int) -> bool:
            return any(map(self.fits, self.preferred(loading, (context,))))

        low, high = 0, (wanted - 1) // STEP  # in steps; `low` fits or is nothing
        while low < high:
            middle = (low + high + 1) // 2
            if fits(middle * STEP):
                low = middle
            else:
                high = middle - 1
        if low:
            return tuple(_halved(low * STEP))
        return (SHORTEST,) if wanted > SHORTEST else ()
