"""The plan that is loaded: the first one whose dry run in llama.cpp fits (engine/embedded/fit_check.py)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hermes_cli.errors import DoesNotFitError, EngineError
from hermes_cli.planning.load_plan import LoadOverrides, LoadPlan
from hermes_cli.planning.memory import MemoryBreakdown
from hermes_cli.units import memory_size

if TYPE_CHECKING:
    from hermes_cli.hardware.machine import Machine

RAM = "RAM"
NOTHING_FITS = "take a smaller quantization or model: hermes recommend"
FORCE_HINT = "--force loads it all the same."
MOST_USERS = 3  # programs named in a sentence


@dataclass(frozen=True)
class MemoryUse:
    """RAM or a GPU: what a plan needs there, and the bytes that are free for it.

    `device` is the position of a GPU in llama.cpp's list, None if hermes does not know it; `users` are the programs
    that hold memory there now.
    """

    name: str
    part: MemoryBreakdown
    room: int
    device: int | None = None
    users: tuple[str, ...] = ()

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
    name: str,  # of the file, for messages
    overrides: LoadOverrides,  # what the user insists on
    plans: Sequence[Tried],  # how the plans did, the one wanted most first
    alternatives: Sequence[Tried],  # the same of plans that are not what the user insists on
) -> FittedPlan:
    """Return the first plan that fits.

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
    on_devices = {place.device: place.part.total for place in taken.places if place.name != RAM}
    listed = [index for index, device in enumerate(machine.devices) if device.usable]
    devices = list(machine.devices)
    for position, size in on_devices.items():
        if position is not None and position < len(listed):
            device = devices[listed[position]]
            in_ram += device.ram_taken(size)
            devices[listed[position]] = replace(
                device, free=max(device.free - size, 0), carve_out=max(device.carve_out - size, 0)
            )
    return replace(machine, devices=tuple(devices), ram_available=max(machine.ram_available - in_ram, 0))


def _needs(places: Iterable[MemoryUse]) -> str:
    """Both numbers for each place, those first where it is short."""
    ordered = sorted((place for place in places if place.part.total), key=lambda place: -place.missing)
    sizes = (
        f"{memory_size(place.part.total)} {place.where}, where {memory_size(place.room)} are free{_held_by(place)}"
        for place in ordered
    )
    return f"needs {', and '.join(sizes)}"


def _held_by(place: MemoryUse) -> str:
    """Return which programs hold memory where it is short."""
    return f" ({', '.join(place.users[:MOST_USERS])} run there)" if place.users and place.missing else ""


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
