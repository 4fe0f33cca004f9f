"""Load plans for a file in order of preference, and the choice of one by its dry run (engine/embedded/fit_check.py).

What a user insists on stays. The rest is chosen: the longest of the usual context lengths with which everything is on
GPUs; else the longest with which it fits at all, with as many layers on GPUs as have room.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations, islice
from typing import TYPE_CHECKING

from hermes_cli.errors import DoesNotFitError, EngineError, UsageError
from hermes_cli.planning.memory import ContextSettings, MemoryBreakdown
from hermes_cli.planning.placement import place, place_layers, reserved_bytes
from hermes_cli.planning.recommend import NEEDS
from hermes_cli.units import GIB, gibibytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from hermes_cli.catalog.models import Yarn
    from hermes_cli.hardware.machine import Device, Machine
    from hermes_cli.planning.memory import FileFacts, KvType
    from hermes_cli.planning.placement import Placement

SHORTEST = 512  # tokens; shorter contexts are of no use, unless the model was trained for less
STEP = 1024  # tokens; how exactly the longest context that fits is looked for
MOST_PLANS, MOST_ALTERNATIVES = 16, 16
SMALLER_KV_TYPE: dict[KvType, KvType] = {"f32": "q8_0", "f16": "q8_0", "bf16": "q8_0", "q8_0": "q4_0"}

RAM = "RAM"
NOTHING_FITS = "take a smaller quantization or model: hermes recommend"
FORCE_HINT = "--force loads it all the same."


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


def plans_for(facts: FileFacts, machine: Machine, overrides: LoadOverrides) -> tuple[LoadPlan, ...]:
    """Plans for a file on a machine, the one that is wanted most first.

    That one is there whether it fits or not, so that its memory can be told. Of the others there are those that fit as
    far as can be computed; if nothing does, the smallest.

    Raises:
        UsageError: a longer context is asked for, or needed, than the model was trained for.
    """
    trained, reach = facts.trained_context, _reach(facts, overrides)
    how = "YaRN stretches this model to" if overrides.yarn else "this model was trained for"
    if overrides.context is not None and trained and overrides.context > reach:
        raise UsageError(
            f"--context {overrides.context:,} is longer than the {reach:,} tokens {how}.",
            hint=f"use --context {reach} or less.",
        )
    if trained and reach < overrides.least:
        raise UsageError(
            f"{overrides.least:,} tokens of context are needed, more than the {reach:,} tokens {how}.",
            hint="take a model that can handle them: hermes list",
        )
    planner = _Planner(facts, machine)
    first, *others = planner.preferred(overrides, _contexts(overrides, reach))
    fitting = list(islice(filter(planner.fits, others), MOST_PLANS))
    smallest = [] if fitting or planner.fits(first) else others[-1:]
    return (first, *fitting, *smallest)


def alternatives_to(facts: FileFacts, machine: Machine, overrides: LoadOverrides) -> Iterator[LoadPlan]:
    """Plans that fit, as far as can be computed, with less than what the user insists on; the nearest first."""
    planner, contexts = _Planner(facts, machine), _contexts(overrides, _reach(facts, overrides))
    smaller = SMALLER_KV_TYPE.get(overrides.kv_type or "f16")
    loosened: dict[str, LoadOverrides] = {}
    if overrides.gpu_layers is not None:
        loosened["gpu_layers"] = replace(overrides, gpu_layers=None)
    if smaller:
        loosened["kv_type"] = replace(overrides, kv_type=smaller)
    if overrides.context is not None:
        loosened["context"] = replace(overrides, context=None)
    seen = set(planner.preferred(overrides, contexts))
    most = len(seen) + MOST_ALTERNATIVES
    for count in range(1, len(loosened) + 1):
        for given_up in combinations(loosened, count):
            looser = replace(overrides, **{name: getattr(loosened[name], name) for name in given_up})
            lengths = planner.shorter(looser, contexts[0]) if "context" in given_up else contexts
            for plan in filter(planner.fits, planner.preferred(looser, lengths)):
                if len(seen) == most:
                    return
                if plan not in seen:
                    seen.add(plan)
                    yield plan


def _reach(facts: FileFacts, overrides: LoadOverrides) -> int:
    """The longest context that the model can handle, in tokens; 0 if its file does not say."""
    return max(facts.trained_context, overrides.yarn.context) if overrides.yarn else facts.trained_context


def _contexts(overrides: LoadOverrides, reach: int) -> tuple[int, ...]:
    """The usual context lengths, longest first; or the one that is asked for."""
    if overrides.context is not None:
        return (overrides.context,)
    wanted = max(NEEDS["chat"].wanted, overrides.least)
    longest = reach if reach and (overrides.longest or reach < wanted) else wanted
    enough = [length for length in _halved(longest) if length >= overrides.least]
    return tuple(dict.fromkeys((*enough, overrides.least) if overrides.least else enough))


def _halved(longest: int) -> Iterator[int]:
    yield longest
    while longest >= 2 * SHORTEST:
        longest //= 2
        yield longest


class _Planner:
    """The plans that there can be for a file on a machine."""

    def __init__(self, facts: FileFacts, machine: Machine) -> None:
        self.facts = facts
        self.machine = machine
        self.all_layers = len(facts.weights.layers) + 1
        self.device_rooms = [device.free - reserved_bytes(device) for device in machine.usable_devices]
        self.device_room = sum(max(room, 0) for room in self.device_rooms)

    def preferred(self, overrides: LoadOverrides, contexts: Sequence[int]) -> Iterator[LoadPlan]:
        """Every plan, the one wanted most first."""
        if overrides.gpu_layers is not None or not self.machine.usable_devices:
            asked = overrides.gpu_layers or 0
            layers = self.all_layers if asked < 0 else min(asked, self.all_layers)
            yield from (self._plan(overrides, context, layers) for context in contexts)
            return
        long = [context for context in contexts if context >= NEEDS["chat"].least] or contexts[:1]
        for group in (long, contexts[len(long) :]):
            yield from (self._plan(overrides, context, self.all_layers) for context in group)
            for context in group:
                # GPUs that cannot take all get the most layers that have room, and less in case that is wrong
                most = self._most_layers(self._plan(overrides, context, 0).settings)
                for layers in dict.fromkeys((most, most - 1, most - 2, most * 3 // 4, most // 2, most // 4, 0)):
                    if 0 <= layers < self.all_layers:
                        yield self._plan(overrides, context, layers)

    def fits(self, plan: LoadPlan) -> bool:
        """Return whether the plan fits; without an architecture only the weights are counted."""
        if placement := self._placed(plan):
            return placement.fits
        table, layers = self.facts.weights, plan.gpu_layers
        on_gpus = sum(table.layers[max(self.all_layers - layers, 0) :]) + table.head if layers else 0
        return on_gpus <= self.device_room and table.total - on_gpus <= self.machine.ram_available

    def shorter(self, overrides: LoadOverrides, wanted: int) -> Sequence[int]:
        """The longest context that fits and is shorter than what is wanted, then halves of it."""
        low, high = 0, (wanted - 1) // STEP  # in steps; `low` fits or is nothing
        while low < high:
            middle = (low + high + 1) // 2
            if any(map(self.fits, self.preferred(overrides, (middle * STEP,)))):
                low = middle
            else:
                high = middle - 1
        if low:
            return tuple(_halved(low * STEP))
        return (SHORTEST,) if wanted > SHORTEST else ()

    def _placed(self, plan: LoadPlan) -> Placement | None:
        architecture, table = self.facts.architecture, self.facts.weights
        if architecture is None:
            return None
        return place_layers(architecture, table, plan.settings, self.machine, plan.gpu_layers)

    def _plan(self, overrides: LoadOverrides, context: int, gpu_layers: int) -> LoadPlan:
        kv_type = overrides.kv_type or "f16"
        settings = ContextSettings(context, overrides.slots, k_type=kv_type, v_type=kv_type)
        if overrides.micro_batch:
            settings = replace(settings, micro_batch=overrides.micro_batch)
        if overrides.yarn and context > self.facts.trained_context:
            settings = replace(settings, yarn_factor=overrides.yarn.factor, yarn_original=overrides.yarn.original)
        plan = LoadPlan(settings, gpu_layers, threads=overrides.threads or self.machine.cores)
        if overrides.tensor_split and gpu_layers:
            return replace(plan, tensor_split=overrides.tensor_split)
        if not gpu_layers or len(self.device_rooms) == 1:
            return plan
        placement = self._placed(plan)
        rooms = tuple(round(room / GIB, 2) for room in self.device_rooms)
        return replace(plan, tensor_split=placement.tensor_split if placement else rooms)

    def _most_layers(self, settings: ContextSettings) -> int:
        """The most layers that the GPUs have room for, with at least one left to the CPU."""
        table = self.facts.weights
        if self.facts.architecture:
            placement = place(self.facts.architecture, table, settings, self.machine)
            return min(placement.gpu_layers, self.all_layers - 1)
        room, count = self.device_room - table.head, 0
        for size in reversed(table.layers):
            room -= size
            if room < 0:
                break
            count += 1
        return count


@dataclass(frozen=True)
class MemoryUse:
    """RAM or a GPU: what a plan needs there, and the bytes that are free for it."""

    name: str
    part: MemoryBreakdown
    room: int

    @property
    def where(self) -> str:
        """For sentences: "in RAM", "on GeForce RTX 4090"."""
        return f"{'in' if self.name == RAM else 'on'} {self.name}"

    @property
    def missing(self) -> int:
        """Bytes that it is short of; 0 if the plan fits."""
        return max(self.part.total - self.room, 0)


@dataclass(frozen=True)
class DryRun:
    """The result of a dry run in llama.cpp: memory in RAM and on each GPU, or the reason for a refusal."""

    places: tuple[MemoryUse, ...] = ()
    refusal: str = ""

    @property
    def missing(self) -> int:
        """Bytes that it is short of, where it is short of most."""
        return max((place.missing for place in self.places), default=0)

    @property
    def fits(self) -> bool:
        """The plan can be loaded."""
        return not self.refusal and not self.missing


Tried = tuple[LoadPlan, DryRun]


@dataclass(frozen=True)
class FittedPlan:
    """A plan to load, what it needs, and what was given up for it (empty if nothing was)."""

    plan: LoadPlan
    places: tuple[MemoryUse, ...]
    note: str = ""

    @property
    def gpu_layers(self) -> int:
        """Layers on GPUs; none if llama.cpp finds no GPU, whatever the plan says."""
        return self.plan.gpu_layers if len(self.places) > 1 else 0

    @property
    def total(self) -> MemoryBreakdown:
        """Memory of all places together."""
        return sum((place.part for place in self.places), MemoryBreakdown())


def choose_plan(
    name: str, overrides: LoadOverrides, plans: Sequence[Tried], alternatives: Sequence[Tried]
) -> FittedPlan:
    """Return the first plan that fits.

    Args:
        name: of the file, for messages.
        overrides: what the user insists on.
        plans: how the plans did, the one wanted most first.
        alternatives: the same of plans that are not what the user insists on.

    Raises:
        DoesNotFitError: none of the plans fits; the hint names the nearest that would.
        EngineError: llama.cpp refused them all.
    """
    wanted, first = plans[0]
    for plan, result in plans:
        if result.fits:
            return FittedPlan(plan, result.places, _note(plan, wanted, first))
    if overrides.force:
        reason = first.refusal or f"it {_needs(first.places)}"
        return FittedPlan(wanted, first.places, f"loaded because of --force: {reason}")
    short = [(plan, result) for plan, result in plans if not result.refusal]
    if not short:
        raise EngineError(
            f"llama.cpp cannot load {name} like this: {first.refusal}",
            hint=f"leave out --kv-type and --context if they are given; `-v` shows llama.cpp's log. {FORCE_HINT}",
        )
    nearest, result = min(short, key=lambda tried: tried[1].missing)
    fitting = next((plan for plan, alternative in alternatives if alternative.fits), None)
    flags = f"this would fit: {_flags(overrides, wanted, fitting)}" if fitting else ""
    raise DoesNotFitError(
        f"{name} does not fit: with {nearest.settings.context:,} tokens of context it {_needs(result.places)}.",
        hint=f"{flags or NOTHING_FITS}. {FORCE_HINT}",
        alternative=flags,
    )


def remaining_machine(machine: Machine, taken: FittedPlan) -> Machine:
    """Return the machine with the memory that a loaded plan leaves."""
    in_ram = sum(place.part.total for place in taken.places if place.name == RAM)
    on_devices = [place.part.total for place in taken.places if place.name != RAM]
    in_ram += sum(device.ram_taken(size) for device, size in zip(machine.usable_devices, on_devices, strict=False))
    each = iter(on_devices)
    devices = tuple(_with_less(device, next(each, 0)) if device.usable else device for device in machine.devices)
    return replace(machine, devices=devices, ram_available=max(machine.ram_available - in_ram, 0))


def _with_less(device: Device, taken: int) -> Device:
    return replace(device, free=max(device.free - taken, 0), carve_out=max(device.carve_out - taken, 0))


def _needs(places: Iterable[MemoryUse]) -> str:
    """Both numbers for each place, those first where it is short."""
    ordered = sorted((place for place in places if place.part.total), key=lambda place: -place.missing)
    sizes = (
        f"{gibibytes(place.part.total)} {place.where}, where {gibibytes(place.room)} are free" for place in ordered
    )
    return f"needs {', and '.join(sizes)}"


def _note(plan: LoadPlan, wanted: LoadPlan, result: DryRun) -> str:
    """Return what the plan gives up against the preferred one, and why; empty if nothing."""
    given_up = []
    if plan.settings.context < wanted.settings.context:
        given_up.append(f"context {plan.settings.context:,} instead of {wanted.settings.context:,} tokens")
    if plan.gpu_layers < wanted.gpu_layers:
        given_up.append(f"{plan.gpu_layers} of {wanted.gpu_layers} layers on the GPU, the rest on the CPU")
    if not given_up:
        return ""
    if result.refusal:
        return f"{', '.join(given_up)}: llama.cpp refused more ({result.refusal})"
    worst = max(result.places, key=lambda place: place.missing)
    return f"{', '.join(given_up)}: what was wanted {_needs([worst])}"


def _flags(overrides: LoadOverrides, wanted: LoadPlan, plan: LoadPlan) -> str:
    """Return the flags that ask for this plan."""
    flags = []
    if overrides.context is not None and plan.settings.context != wanted.settings.context:
        flags.append(f"--context {plan.settings.context}")
    if plan.settings.k_type != wanted.settings.k_type:
        flags.append(f"--kv-type {plan.settings.k_type}")
    if overrides.gpu_layers is not None and plan.gpu_layers != wanted.gpu_layers:
        flags.append(f"--gpu-layers {plan.gpu_layers}")
    return " ".join(flags)
