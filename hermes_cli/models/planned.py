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

from hermes_cli.catalog.models import CatalogModel, Catalogue
from hermes_cli.catalog.names import CatalogueReference, ModelNames
from hermes_cli.engine.embedded.child import Child
from hermes_cli.engine.embedded.engine import EmbeddedEngine
from hermes_cli.engine.embedded.fit_check import check_fit
from hermes_cli.engine.embedded.messages import DraftPlan, EngineOptions
from hermes_cli.engine.protocol import Engine
from hermes_cli.errors import DoesNotFitError, EngineError, HermesError, NotFoundError, UsageError
from hermes_cli.hardware.machine import Machine
from hermes_cli.hardware.probe import probe
from hermes_cli.models.attached import AttachedModel
from hermes_cli.models.owned import OwnedModel
from hermes_cli.models.resolve import DRAFT_AUTO, DRAFT_OFF, ResolvedModel
from hermes_cli.planning.fitted_plan import FittedPlan, MemoryUse, remaining_machine
from hermes_cli.planning.load_plan import LoadOverrides
from hermes_cli.planning.memory import Pooling
from hermes_cli.prompting.turn_grammar import TAGS
from hermes_cli.store.library import ModelFile, find
from hermes_cli.units import memory_size


@dataclass(frozen=True)
class PlannedModel:
    """A model that is ready to be loaded."""

    resolved: ResolvedModel
    fitted: FittedPlan
    options: EngineOptions

    @property
    def name(self) -> str:
        """Return the name as it is shown."""
        return self.resolved.file.name

    @property
    def path(self) -> Path:
        """Return the path of its file, or of its first shard."""
        return self.resolved.file.path

    @property
    def pooling(self) -> Pooling | None:
        """Return how it makes embeddings; None if it writes text."""
        return self.fitted.plan.settings.pooling

    @property
    def context(self) -> int:
        """Return the number of tokens that one request can use."""
        return self.fitted.plan.settings.context

    @property
    def known(self) -> CatalogModel | None:
        """Return the model of the catalogue, if it is one."""
        return self.resolved.known

    @property
    def template(self) -> str | None:
        """Return the override of its prompt format."""
        return self.resolved.request.template

    @property
    def slots(self) -> int:
        """Return how many requests it works on at once."""
        return self.fitted.plan.settings.slots

    @property
    def places(self) -> Sequence[MemoryUse]:
        """Return the memory that it takes, place by place."""
        return self.fitted.places

    @property
    def note(self) -> str:
        """Return what was given up for the plan; empty for nothing."""
        return self.fitted.note

    @property
    def forced(self) -> bool:
        """Return whether it is to be loaded even if there is too little memory."""
        return self.resolved.overrides.force

    @property
    def file_name(self) -> str:
        """Return the name of its file."""
        return self.path.name

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
        self, *, verbose: bool = False, progress: Callable[[float], None] = lambda _: None, child: Child | None = None
    ) -> Engine:
        """Make the engine; it loads the model when it is asked to, in a `child` that is ready or a new one.

        `verbose` shows llama.cpp's log on standard error; `progress` gets the part that is loaded, from 0 to 1.
        """
        options = replace(self.options, verbose=verbose)
        return EmbeddedEngine(self.path, self.fitted.plan, options, progress=progress, child=child)


ServableModel = PlannedModel | AttachedModel | OwnedModel


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
    return PlannedModel(resolved, fitted, options)


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


def memory_fault(model: ServableModel) -> HermesError | None:
    """Return what keeps a model from being loaded now, None if there is memory for it, or it takes none of ours."""
    if isinstance(model, AttachedModel):
        return None
    if isinstance(model, OwnedModel):
        return model.room_fault()
    machine = probe(measure=False)
    plan = model.fitted.plan
    overrides = replace(
        model.resolved.overrides, context=model.context, gpu_layers=plan.gpu_layers, force=True, least=0
    )
    fitted = check_fit(model.path, overrides, machine)
    if not fitted.places:
        return EngineError(f"llama.cpp cannot load {model.name}: {fitted.note}.", hint="start the server with -v.")
    places = fitted.places
    if draft := model.options.draft:
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
        f"{model.name} does not fit: it needs {memory_size(short.part.total)} {short.where}, "
        f"where {memory_size(short.room)} are free.",
        hint="end other programs that use this memory, or start the server with a shorter --context.",
    )


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
