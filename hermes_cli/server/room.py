"""Whether there is memory for a model now: llama.cpp is asked in a process of its own, as before the start."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from hermes_cli.engine.embedded.fit_check import confirm
from hermes_cli.errors import DoesNotFitError, EngineError
from hermes_cli.hardware.probe import probe
from hermes_cli.planning.fitted_plan import remaining_machine
from hermes_cli.planning.load_plan import LoadOverrides
from hermes_cli.units import gibibytes

if TYPE_CHECKING:
    from hermes_cli.errors import HermesError
    from hermes_cli.planning.load_plan import LoadPlan
    from hermes_cli.server.planning import ServedModel


async def has_room(offer: ServedModel) -> HermesError | None:
    """None if a model fits into what is free, else what is short of how much."""
    return await asyncio.to_thread(_ask, offer)


def _ask(offer: ServedModel) -> HermesError | None:
    machine = probe(measure=False)
    confirmed = confirm(offer.path, offer.loading, machine)
    if not confirmed.places:
        return EngineError(f"llama.cpp cannot load {offer.name}: {confirmed.note}.", hint="start the server with -v.")
    places = confirmed.places
    if draft := offer.options.draft:
        places += confirm(draft.path, _as_planned(draft.plan), remaining_machine(machine, confirmed)).places
    short = max(places, key=lambda place: place.missing)
    if not short.missing:
        return None
    return DoesNotFitError(
        f"{offer.name} does not fit: it needs {gibibytes(short.part.total)} {short.where}, "
        f"where {gibibytes(short.room)} are free.",
        hint="end other programs that use this memory, or start the server with a shorter --context.",
    )


def _as_planned(plan: LoadPlan) -> LoadOverrides:
    """What to ask for to be told of exactly this plan, whether it fits or not."""
    settings = plan.settings
    return LoadOverrides(settings.context, plan.gpu_layers, settings.k_type, plan.threads, settings.slots, force=True)
