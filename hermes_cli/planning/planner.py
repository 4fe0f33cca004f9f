"""Plans for a file in order of preference; one is chosen by its dry run (fitted_plan.py).

What a user insists on stays. The rest is chosen: the longest of the usual context lengths with which everything is on
GPUs; else the longest with which it fits at all, with as many layers on GPUs as have room.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations, islice
from typing import TYPE_CHECKING

from hermes_cli.errors import UsageError
from hermes_cli.gguf.types import KvType
from hermes_cli.planning.best_placement import NEEDS, best_placement
from hermes_cli.planning.load_plan import LoadOverrides, LoadPlan
from hermes_cli.planning.memory import MICRO_BATCH, ContextSettings, FileFacts
from hermes_cli.planning.placement import device_sets, place_layers, place_split, room_on
from hermes_cli.planning.speed import prompt_helpers
from hermes_cli.units import GIB

if TYPE_CHECKING:
    from hermes_cli.hardware.machine import Machine

SHORTEST = 512  # tokens; shorter contexts are of no use, unless the model was trained for less
# Tokens of one text to embed that are planned for unless more are asked for. Where a text is decoded whole, llama.cpp
# makes room for the logits of all its tokens: 2 GiB for 2,048 of them and a vocabulary of 262,144.
LONGEST_EMBEDDED, LONGEST_WHOLE = 8192, 2048
EMBEDDED_AT_ONCE = 32  # texts in one batch
STEP = 1024  # tokens; how exactly the longest context that fits is looked for
MOST_PLANS, MOST_ALTERNATIVES = 16, 16
SMALLER_KV_TYPE: dict[KvType, KvType] = {"f32": "q8_0", "f16": "q8_0", "bf16": "q8_0", "q8_0": "q4_0"}


def plans_for(facts: FileFacts, machine: Machine, overrides: LoadOverrides) -> tuple[LoadPlan, ...]:
    """Plans for a file on a machine, the one that is wanted most first.

    That one is there whether it fits or not, so that its memory can be told. Of the others there are those that fit as
    far as can be computed; if nothing does, the smallest.

    Raise UsageError if a longer context is asked for, or needed, than the model was trained for.
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
    planner = _Planner(facts, machine, overrides)
    first, *others = planner.preferred(overrides, _contexts(facts, overrides))
    fitting = list(islice(filter(planner.fits, others), MOST_PLANS))
    smallest = [] if fitting or planner.fits(first) else others[-1:]
    return (first, *fitting, *smallest)


def computed_plan(facts: FileFacts, machine: Machine, overrides: LoadOverrides) -> LoadPlan | None:
    """Return the plan that is wanted most of those that fit as far as can be computed, for who has no dry run.

    With `overrides.force` it is the one wanted most, whether it fits or not; else None if none fits. Errors are those
    of `plans_for`.
    """
    plans = plans_for(facts, machine, overrides)
    planner = _Planner(facts, machine, overrides)
    return plans[0] if overrides.force else next(filter(planner.fits, plans), None)


def alternatives_to(facts: FileFacts, machine: Machine, overrides: LoadOverrides) -> Iterator[LoadPlan]:
    """Plans that fit, as far as can be computed, with less than what the user insists on; the nearest first."""
    planner, contexts = _Planner(facts, machine, overrides), _contexts(facts, overrides)
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


def _in_batches(facts: FileFacts, overrides: LoadOverrides) -> bool:
    """Return whether a text to embed can be decoded in parts: its last token is enough, and attention is causal."""
    return overrides.pooling == "last" and facts.architecture is not None


def _contexts(facts: FileFacts, overrides: LoadOverrides) -> tuple[int, ...]:
    """The usual context lengths, longest first; or the one that is asked for."""
    reach = _reach(facts, overrides)
    if overrides.context is not None:
        return (overrides.context,)
    if overrides.pooling:
        usual = LONGEST_EMBEDDED if _in_batches(facts, overrides) else LONGEST_WHOLE
        return tuple(_halved(min(reach or usual, usual)))
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

    def __init__(self, facts: FileFacts, machine: Machine, overrides: LoadOverrides) -> None:
        # Graphs for embeddings are not computed here: weights are counted, and the dry run tells the rest.
        self._in_batches = _in_batches(facts, overrides)
        self.facts = replace(facts, architecture=None) if overrides.pooling else facts
        self.machine = machine
        self.all_layers = len(facts.weights.layers) + 1
        self.rooms = [room_on(device) for device in machine.usable_devices]
        usable = [device for device in machine.devices if device.usable]
        self.positions = [index for index, device in enumerate(usable) if not device.left_out]  # in llama.cpp's list

    def preferred(self, overrides: LoadOverrides, contexts: Sequence[int]) -> Iterator[LoadPlan]:
        """Every plan, the one wanted most first."""
        if overrides.gpu_layers is not None or not self.rooms:
            asked = overrides.gpu_layers or 0
            layers = self.all_layers if asked < 0 else min(asked, self.all_layers)
            for context in contexts:
                yield from self._plans(overrides, context, layers)
            return
        long = [context for context in contexts if context >= NEEDS["chat"].least] or contexts[:1]
        for group in (long, contexts[len(long) :]):
            for context in group:
                yield from self._plans(overrides, context, self.all_layers)
            for context in group:
                # GPUs that cannot take all get the most layers that have room, and less in case that is wrong
                most = self._most_layers(self._settings(overrides, context))
                for layers in dict.fromkeys((most, most - 1, most - 2, most * 3 // 4, most // 2, most // 4, 0)):
                    if 0 <= layers < self.all_layers:
                        yield from self._plans(overrides, context, layers)

    def fits(self, plan: LoadPlan) -> bool:
        """Return whether the plan fits; without an architecture only the weights are counted."""
        architecture, table, layers = self.facts.architecture, self.facts.weights, plan.gpu_layers
        devices = [index for index, position in enumerate(self.positions) if position in (plan.devices or ())]
        devices.sort(key=lambda index: (plan.devices or ()).index(self.positions[index]))
        if architecture:
            split = plan.tensor_split or (1,)
            return place_split(architecture, table, plan.settings, self.machine, layers, devices, split).fits
        on_gpus = self._weights_on_gpus(layers)
        room = sum(self.rooms[index] for index in devices)
        return on_gpus <= room and table.total - on_gpus <= self.machine.ram_available

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

    def _settings(self, overrides: LoadOverrides, context: int) -> ContextSettings:
        kv_type = overrides.kv_type or "f16"
        settings = ContextSettings(context, overrides.slots, k_type=kv_type, v_type=kv_type)
        if overrides.micro_batch:
            settings = replace(settings, micro_batch=overrides.micro_batch)
        if overrides.yarn and context > self.facts.trained_context:
            settings = replace(settings, yarn_factor=overrides.yarn.factor, yarn_original=overrides.yarn.original)
        if overrides.pooling:
            micro_batch = settings.micro_batch if self._in_batches else max(context, MICRO_BATCH)
            settings = replace(settings, slots=EMBEDDED_AT_ONCE, micro_batch=micro_batch, pooling=overrides.pooling)
        return settings

    def _plans(self, overrides: LoadOverrides, context: int, gpu_layers: int) -> Iterator[LoadPlan]:
        """Plans with so many layers on GPUs, on those that do best, and then on all in case that does not fit.

        With none, one GPU still helps to read prompts, if it has room for that.
        """
        settings = self._settings(overrides, context)
        plan = LoadPlan(settings, gpu_layers, threads=overrides.threads or self.machine.cores)
        every = tuple(range(len(self.rooms)))
        if not every:
            yield plan
        elif not gpu_layers:
            yield replace(plan, devices=tuple(self.positions[index] for index in prompt_helpers(self.machine)))
            yield replace(plan, devices=())
        elif overrides.tensor_split:
            yield replace(plan, tensor_split=overrides.tensor_split, devices=tuple(self.positions))
        else:
            some, split = self._best_devices(settings, gpu_layers)
            yield self._on(plan, some, split)
            if some != every:
                yield self._on(plan, every, self._split_by_room(settings, gpu_layers))

    def _on(self, plan: LoadPlan, devices: Sequence[int], split: tuple[float, ...]) -> LoadPlan:
        positions = tuple(self.positions[index] for index in devices)
        return replace(plan, devices=positions, tensor_split=split if len(positions) > 1 else ())

    def _best_devices(self, settings: ContextSettings, gpu_layers: int) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """The devices that do best with so many layers, and how they share them."""
        architecture, table = self.facts.architecture, self.facts.weights
        if architecture:
            placement = best_placement(architecture, "", table, settings, self.machine, gpu_layers)
            return placement.devices, placement.tensor_split
        needed = self._weights_on_gpus(gpu_layers)
        sets = device_sets(self.machine.usable_devices)
        enough = (some for some in sets if sum(self.rooms[index] for index in some) >= needed)
        chosen = next(enough, sets[-1])
        return chosen, tuple(round(self.rooms[index] / GIB, 2) for index in chosen)

    def _split_by_room(self, settings: ContextSettings, gpu_layers: int) -> tuple[float, ...]:
        """Return the split of so many layers over all devices, in proportion to their room."""
        if self.facts.architecture:
            args = (self.facts.architecture, self.facts.weights, settings, self.machine, gpu_layers)
            placement = place_layers(*args)
            by_device = dict(zip(placement.devices, placement.tensor_split, strict=True))
            return tuple(by_device.get(index, 0) for index in range(len(self.rooms)))
        return tuple(round(room / GIB, 2) for room in self.rooms)

    def _weights_on_gpus(self, gpu_layers: int) -> int:
        table = self.facts.weights
        return sum(table.layers[max(self.all_layers - gpu_layers, 0) :]) + table.head if gpu_layers else 0

    def _most_layers(self, settings: ContextSettings) -> int:
        """The most layers that the GPUs have room for, with at least one left to the CPU."""
        table = self.facts.weights
        if self.facts.architecture:
            placement = best_placement(self.facts.architecture, "", table, settings, self.machine)
            return min(placement.gpu_layers, self.all_layers - 1)
        room, count = sum(self.rooms) - table.head, 0
        for size in reversed(table.layers):
            room -= size
            if room < 0:
                break
            count += 1
        return count
