"""Plans for models that are to be loaded: confirmed by llama.cpp's dry run, draft models among them.

Several models are planned so that all of them fit beside each other, if they can: those after the first are content
with the context of a chat, and the first gets the memory that is left. If they cannot, each is planned as if it were
alone, and they take turns. DoesNotFitError says that one does not fit, even alone, or that a draft model does not that
is named; other HermesErrors that a file is not here or cannot be read, or that llama.cpp refuses it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hermes_cli.catalog.models import Catalogue
from hermes_cli.catalog.names import CatalogueReference, ModelNames
from hermes_cli.engine.embedded.child import Child
from hermes_cli.engine.embedded.engine import EmbeddedEngine
from hermes_cli.engine.embedded.fit_check import check_fit
from hermes_cli.engine.embedded.messages import DraftPlan, EngineOptions
from hermes_cli.engine.protocol import Engine
from hermes_cli.errors import DoesNotFitError, EngineError, HermesError, NotFoundError, UsageError
from hermes_cli.hardware.machine import Machine
from hermes_cli.hardware.probe import probe
from hermes_cli.models.resolve import DRAFT_AUTO, DRAFT_OFF, ResolvedModel
from hermes_cli.models.servable import ServableModel
from hermes_cli.planning.fitted_plan import FittedPlan, remaining_machine
from hermes_cli.planning.load_plan import LoadOverrides
from hermes_cli.prompting.turn_grammar import TAGS
from hermes_cli.store.library import ModelFile, find
from hermes_cli.units import memory_size


@dataclass(frozen=True, kw_only=True)
class PlannedModel(ServableModel):
    """A model for the engine of this program."""

    path: Path
    resolved: ResolvedModel
    fitted: FittedPlan
    options: EngineOptions

    @classmethod
    def of(cls, resolved: ResolvedModel, fitted: FittedPlan, options: EngineOptions) -> PlannedModel:
        """Return the model of a file with its plan."""
        settings = fitted.plan.settings
        return cls(
            name=resolved.file.name,
            context=settings.context,
            slots=settings.slots,
            path=resolved.file.path,
            known=resolved.known,
            template=resolved.request.template,
            pooling=settings.pooling,
            places=fitted.places,
            note=fitted.note,
            forced=resolved.overrides.force,
            resolved=resolved,
            fitted=fitted,
            options=options,
        )

    @property
    def details(self) -> dict[str, Any]:
        """Return its fields for `--json`; memory in bytes."""
        total, draft = self.fitted.total, self.options.draft
        return {
            "gpu_layers": self.fitted.gpu_layers,
            "draft": draft.path.name if draft else None,
            "memory_bytes": {**asdict(total), "total": total.total},
        }

    def engine(
        self,
        *,
        verbose: bool = False,
        progress: Callable[[float], None] = lambda _: None,
        note: Callable[[str], None] = lambda _: None,  # noqa: ARG002 - it waits for nobody
        child: Child | None = None,
    ) -> Engine:
        """Make the engine; it works in the `child`, or starts one."""
        options = replace(self.options, verbose=verbose)
        return EmbeddedEngine(self.path, self.fitted.plan, options, progress=progress, child=child)

    def memory_fault(self) -> HermesError | None:
        """Return the error if a dry run finds too little memory now."""
        machine = probe(measure=False)
        plan = self.fitted.plan
        overrides = replace(
            self.resolved.overrides, context=self.context, gpu_layers=plan.gpu_layers, force=True, least=0
        )
        fitted = check_fit(self.path, overrides, machine)
        if not fitted.places:
            return EngineError(f"llama.cpp cannot load {self.name}: {fitted.note}.", hint="start the server with -v.")
        places = fitted.places
        if draft := self.options.draft:
            settings = draft.plan.settings  # exactly this plan, whether it fits or not
            exact = LoadOverrides(
                settings.context, draft.plan.gpu_layers, settings.k_type, draft.plan.threads, settings.slots, force=True
            )
            exact = replace(exact, devices=overrides.devices, reserve=overrides.reserve)
            places += check_fit(draft.path, exact, remaining_machine(machine, fitted)).places
        short = max(places, key=lambda place: place.missing)
        if not short.missing:
            return None
        return DoesNotFitError(
            f"{self.name} does not fit: it needs {memory_size(short.part.total)} {short.where}, "
            f"where {memory_size(short.room)} are free.",
            hint="end other programs that use this memory, or start the server with a shorter --context.",
        )


def planned(
    resolved: ResolvedModel,
    fitted: FittedPlan,
    catalogue: Catalogue,
    note: Callable[[str], None],
    options: EngineOptions | None = None,
) -> PlannedModel:
    """Add the draft model and the engine's options to a plan; `note` is told why `auto` finds no draft model."""
    request = resolved.request
    options = options or EngineOptions()
    options = replace(
        options,
        tags=TAGS,
        adapters=request.adapters,
        draft=draft_plan(resolved, fitted, catalogue, note),
        prefixes=request.prefixes or options.prefixes,
    )
    return PlannedModel.of(resolved, fitted, options)


def fit_all(models: Sequence[ResolvedModel], machine: Machine, note: Callable[[str], None]) -> list[FittedPlan]:
    """Return a plan for each model, such that all fit beside each other; else each as if it were alone."""
    first, *others = models
    if others:
        fitted: list[FittedPlan] = []
        rest = machine
        with suppress(DoesNotFitError):
            for model in others:
                modest = replace(model.overrides, longest=False, force=False)
                fitted.append(check_fit(model.file.path, modest, rest))
                rest = remaining_machine(rest, fitted[-1])
            return [check_fit(first.file.path, replace(first.overrides, force=False), rest), *fitted]
        note("these models do not fit into memory together: they take turns, as they are asked for")
    return [check_fit(model.file.path, model.overrides, machine) for model in models]


def draft_plan(
    resolved: ResolvedModel, fitted: FittedPlan, catalogue: Catalogue, note: Callable[[str], None]
) -> DraftPlan | None:
    """Return the draft model of a request, planned for the memory that the large model leaves; None for none."""
    wanted = resolved.request.draft
    if wanted == DRAFT_OFF or fitted.plan.settings.pooling:
        return None
    if wanted != DRAFT_AUTO:
        return _fit_draft(find(ModelNames(catalogue).parse(wanted), catalogue), resolved.overrides, fitted)
    from hermes_cli.planning.recommend import draft_candidates  # noqa: PLC0415 - only where one is wanted

    candidates = draft_candidates(resolved.known, catalogue) if resolved.known else ()
    for candidate in candidates:
        with suppress(NotFoundError):
            file = find(CatalogueReference(candidate), catalogue)
            break
    else:
        fetch = f"hermes pull {candidates[0].short} gets one" if candidates else "the catalogue knows of none"
        note(f"no draft model for this one is installed; {fetch}")
        return None
    try:
        return _fit_draft(file, replace(resolved.overrides, force=False), fitted)
    except DoesNotFitError:
        note(f"{file.name} is not used as a draft model: there is no memory left for it")
        return None


def _fit_draft(file: ModelFile, overrides: LoadOverrides, fitted: FittedPlan) -> DraftPlan:
    """Plan a draft model with the context of the large one, or with all that it was trained for."""
    rest = remaining_machine(probe(measure=False), fitted)
    overrides = replace(overrides, context=fitted.plan.settings.context, gpu_layers=None, yarn=None)
    try:
        draft = check_fit(file.path, overrides, rest)
    except UsageError:
        draft = check_fit(file.path, replace(overrides, context=None, longest=True), rest)
    return DraftPlan(file.path, draft.plan, draft.total.total)
