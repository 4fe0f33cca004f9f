"""Check of the memory for one more model: llama.cpp answers in a process of its own, as before the start."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from hermes_cli.engine.embedded.fit_check import check_fit
from hermes_cli.errors import DoesNotFitError, EngineError
from hermes_cli.hardware.probe import probe
from hermes_cli.planning.fitted_plan import remaining_machine
from hermes_cli.planning.load_plan import LoadOverrides
from hermes_cli.planning.placement import GIB

if TYPE_CHECKING:
    from hermes_cli.errors import HermesError
    from hermes_cli.planning.load_plan import LoadPlan
    from hermes_cli.server.planning import ServedModel


async def check_room(model: ServedModel) -> HermesError | None:
    """Return None if a model fits into the memory that is free now, else the error."""
    return await asyncio.to_thread(_check, model)


def _check(model: ServedModel) -> HermesError | None:
    machine = probe(measure=False)
    confirmed = check_fit(model.path, model.loading, machine)
    if not confirmed.places:
        return EngineError(f"llama.cpp cannot load {model.name}: {confirmed.note}.", hint="start the server with -v.")
    places = confirmed.places
    if draft := model.options.draft:
        places += check_fit(draft.path, _as_planned(draft.plan), remaining_machine(machine, confirmed)).places
    short = max(places, key=lambda place: place.missing)
    if not short.missing:
        return None
    return DoesNotFitError(
        f"{model.name} does not fit: it needs {short.part.total / GIB:.2f} GiB {short.where}, "
        f"where {short.room / GIB:.2f} GiB are free.",
        hint="end other programs that use this memory, or start the server with a shorter --context.",
    )


def _as_planned(plan: LoadPlan) -> LoadOverrides:
    """Return overrides that give exactly this plan, whether it fits or not."""
    settings = plan.settings
    return LoadOverrides(settings.context, plan.gpu_layers, settings.k_type, plan.threads, settings.slots, force=True)
