"""The draft model for speculative decoding (`--draft`): chosen, and planned beside the target model."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hermes_cli.catalog.names import CatalogueReference, ModelNames
from hermes_cli.engine.embedded.fit_check import check_fit
from hermes_cli.engine.embedded.options import DraftPlan
from hermes_cli.errors import DoesNotFitError, NotFoundError, UsageError
from hermes_cli.hardware.probe import probe
from hermes_cli.planning.fitted_plan import remaining_machine
from hermes_cli.planning.recommend import draft_candidates
from hermes_cli.store.library import find

if TYPE_CHECKING:
    from collections.abc import Callable

    from hermes_cli.catalog.models import CatalogModel, Catalogue
    from hermes_cli.planning.fitted_plan import FittedPlan
    from hermes_cli.planning.load_plan import LoadOverrides
    from hermes_cli.store.library import ModelFile

AUTO, OFF = "auto", "off"


def draft_for(
    wanted: str,
    known: CatalogModel | None,
    catalogue: Catalogue,
    loading: LoadOverrides,
    confirmed: FittedPlan,
    note: Callable[[str], None],
) -> DraftPlan | None:
    """Return the draft model, planned for the memory that the target model leaves.

    Args:
        wanted: a name, `auto` for one that is installed and fits, or `off`.
        known: what the large model is in the catalogue, if it is there.
        catalogue: all models.
        loading: what the user insists on for the large one.
        confirmed: its plan.
        note: is told why `auto` finds none.

    Raises:
        HermesError: the one that is named is not here, cannot be read or does not fit.
    """
    if wanted == OFF:
        return None
    if wanted != AUTO:
        return _planned(find(ModelNames(catalogue).parse(wanted), catalogue), loading, confirmed)
    candidates = draft_candidates(known, catalogue) if known else ()
    file = next(filter(None, (_installed(one, catalogue) for one in candidates)), None)
    if file is None:
        fetch = f"hermes pull {candidates[0].short} gets one" if candidates else "the catalogue knows of none"
        note(f"no draft model for this one is installed; {fetch}")
        return None
    try:
        return _planned(file, replace(loading, force=False), confirmed)
    except DoesNotFitError:
        note(f"{file.name} is not used as a draft model: there is no memory left for it")
        return None


def _installed(model: CatalogModel, catalogue: Catalogue) -> ModelFile | None:
    try:
        return find(CatalogueReference(model), catalogue)
    except NotFoundError:
        return None


def _planned(file: ModelFile, loading: LoadOverrides, confirmed: FittedPlan) -> DraftPlan:
    """With the context of the large one, or all that it was trained for."""
    rest = remaining_machine(probe(measure=False), confirmed)
    wished = replace(loading, context=confirmed.plan.settings.context, gpu_layers=None, yarn=None)
    try:
        confirmed = check_fit(file.path, wished, rest)
    except UsageError:
        confirmed = check_fit(file.path, replace(wished, context=None, longest=True), rest)
    return DraftPlan(file.path, confirmed.plan, confirmed.total.total)
