"""Plans of the models to serve: from their names to files and fitted load plans.

Several models are planned so that all of them fit beside each other, if they can: those after the first get the context
of a chat, and the first gets the memory that is left. If they cannot, each is planned as if it were alone, and the pool
lets them take turns.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hermes_cli.catalog.names import ModelNames
from hermes_cli.catalog.variants import quantization_in_file_name
from hermes_cli.engine.embedded.fit_check import check_fit
from hermes_cli.engine.embedded.options import EngineOptions
from hermes_cli.errors import DoesNotFitError, EngineError, UsageError
from hermes_cli.gguf.header import read_header
from hermes_cli.gguf.types import FILE_TYPES
from hermes_cli.hardware.probe import probe
from hermes_cli.planning.fitted_plan import remaining_machine
from hermes_cli.planning.load_plan import LoadOverrides
from hermes_cli.planning.recommend import RecommendOptions, recommendations, smallest_variant
from hermes_cli.prompting.choose import known_model
from hermes_cli.prompting.template import ChatTemplate, read_template
from hermes_cli.prompting.turn_grammar import TAGS
from hermes_cli.server.settings import SLOTS
from hermes_cli.store.library import find, installed
from hermes_cli.units import gibibytes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hermes_cli.catalog.models import CatalogModel, Catalogue
    from hermes_cli.engine.embedded.options import DraftPlan
    from hermes_cli.errors import HermesError
    from hermes_cli.hardware.machine import Machine
    from hermes_cli.planning.fitted_plan import FittedPlan
    from hermes_cli.planning.load_plan import LoadPlan
    from hermes_cli.server.settings import ModelEntry, ServerSettings
    from hermes_cli.store.library import ModelFile

    DraftFor = Callable[[str, CatalogModel | None, LoadOverrides, FittedPlan], DraftPlan | None]

AGENT_CONTEXT = 65_536  # tokens; Hermes Agent refuses less than 64,000 (NEEDS["agent"]), and this is the usual length


@dataclass(frozen=True)
class ServedModel:
    """A model that clients can ask for.

    Attributes:
        name: its id in the API.
        aliases: other names that clients may use.
        path: of its file, or its first shard.
        known: its entry in the catalogue, if it has one.
        loading: the overrides, narrowed down to the plan, for checks whether there is room.
        confirmed: the plan, and the memory that it needs; it stays the same as long as the server runs.
        options: for its engine.
        template: an override of its prompt format.
        think: whether it reasons where no request decides.
        idle_seconds: how long it stays in memory without a request; None for ever.
        forced: load it even if there is too little memory.
        size: bytes of its first file.
        quantization: of its name or its header, if known.
        created: when its file was written, in seconds since 1970.
    """

    name: str
    aliases: tuple[str, ...]
    path: Path
    known: CatalogModel | None
    loading: LoadOverrides
    confirmed: FittedPlan
    options: EngineOptions
    template: str | None = None
    think: bool | None = None
    idle_seconds: float | None = None
    forced: bool = False
    size: int = 0
    quantization: str | None = None
    created: int = 0

    @property
    def context(self) -> int:
        """Return the tokens that one request can use."""
        return self.confirmed.plan.settings.context


@dataclass(frozen=True)
class _UnplannedModel:
    """A model before it is planned."""

    entry: ModelEntry
    file: ModelFile
    known: CatalogModel | None
    loading: LoadOverrides


def plan_models(
    settings: ServerSettings,
    catalogue: Catalogue,
    machine: Machine,
    draft_for: DraftFor,
    say: Callable[[str], None],
) -> tuple[ServedModel, ...]:
    """Plan the models of the settings, in their order.

    Args:
        settings: with one model at least.
        catalogue: of known models.
        machine: with the memory that is free now.
        draft_for: finds the draft model for a model, by name.
        say: takes notes on what was given up.

    Raises:
        NotFoundError: a model is not on this disk.
        DoesNotFitError: a model does not fit, even alone.
        UsageError: a model's settings make no sense, or two models have the same name.
        HermesError: a file cannot be read, or llama.cpp refuses it.
    """
    names = ModelNames(catalogue)
    least = AGENT_CONTEXT if settings.for_agent else 0
    named = [_named(entry, 0 if number else least, names, catalogue) for number, entry in enumerate(settings.models)]
    try:
        plans = _plans(named, machine, say)
    except (DoesNotFitError, UsageError) as error:
        if least and not (isinstance(error, DoesNotFitError) and error.alternative):
            raise _no_agent(error, catalogue, machine) from None
        raise
    models = tuple(
        _served_model(model, confirmed, catalogue, settings.max_queue, draft_for)
        for model, confirmed in zip(named, plans, strict=True)
    )
    _check_unique_names(models)
    return models


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
        f"{model.name} does not fit: it needs {gibibytes(short.part.total)} {short.where}, "
        f"where {gibibytes(short.room)} are free.",
        hint="end other programs that use this memory, or start the server with a shorter --context.",
    )


def _as_planned(plan: LoadPlan) -> LoadOverrides:
    """Return overrides that give exactly this plan, whether it fits or not."""
    settings = plan.settings
    return LoadOverrides(settings.context, plan.gpu_layers, settings.k_type, plan.threads, settings.slots, force=True)


def _named(entry: ModelEntry, least: int, names: ModelNames, catalogue: Catalogue) -> _UnplannedModel:
    named = names.parse(entry.model)
    file = find(named, catalogue)
    known = known_model(named, file.path, catalogue)
    if entry.context is not None and entry.context < least:
        raise UsageError(
            f"--context {entry.context:,} is less than the {least:,} tokens that --for-agent insists on.",
            hint="leave one of them out.",
        )
    if entry.template not in {None, "file", "model"}:
        ChatTemplate(read_template(Path(entry.template)))  # errors now, not when the model is loaded
    yarn = None
    if entry.yarn:
        yarn = known.context.yarn if known else None
        if yarn is None:
            raise UsageError(f"no source documents YaRN for {file.name}.", hint="leave --yarn out.")
    loading = LoadOverrides(
        entry.context,
        entry.gpu_layers,
        entry.kv_type,
        entry.threads,
        entry.slots or SLOTS,
        yarn,
        force=bool(entry.force),
        longest=True,
        least=least,
        tensor_split=entry.tensor_split or (),
        micro_batch=entry.batch,
    )
    return _UnplannedModel(entry, file, known, loading)


def _plans(named: Sequence[_UnplannedModel], machine: Machine, say: Callable[[str], None]) -> list[FittedPlan]:
    """Return plans with which all models fit beside each other; else plan each as if it were alone."""
    first, *others = named
    if others:
        with suppress(DoesNotFitError):
            return _beside(first, others, machine)
        say("these models do not fit into memory together: they take turns, as they are asked for")
    return [check_fit(model.file.path, model.loading, machine) for model in named]


def _beside(first: _UnplannedModel, others: Sequence[_UnplannedModel], machine: Machine) -> list[FittedPlan]:
    confirmed = []
    for model in others:
        modest = replace(model.loading, longest=False, force=False)
        confirmed.append(check_fit(model.file.path, modest, machine))
        machine = remaining_machine(machine, confirmed[-1])
    return [check_fit(first.file.path, replace(first.loading, force=False), machine), *confirmed]


def _served_model(
    model: _UnplannedModel, confirmed: FittedPlan, catalogue: Catalogue, max_queue: int, draft_for: DraftFor
) -> ServedModel:
    entry, plan = model.entry, confirmed.plan
    own = model.file.name
    spelled = (entry.model,) if entry.name is None and entry.model != own and _is_a_name(entry.model) else ()
    narrowed = replace(model.loading, context=plan.settings.context, gpu_layers=plan.gpu_layers, force=True, least=0)
    status = model.file.path.stat()
    return ServedModel(
        name=entry.name or own,
        aliases=tuple(dict.fromkeys((*spelled, *entry.aliases))),
        path=model.file.path,
        known=model.known,
        loading=narrowed,
        confirmed=confirmed,
        options=EngineOptions(
            tags=TAGS,
            draft=draft_for(entry.draft, model.known, model.loading, confirmed) if entry.draft else None,
            constraints=True,
            max_queue=max_queue,
        ),
        template=entry.template,
        think=entry.think,
        idle_seconds=entry.idle_seconds,
        forced=model.loading.force,
        size=status.st_size,
        quantization=_quantization(model.file, catalogue),
        created=int(status.st_mtime),
    )


def _no_agent(error: HermesError, catalogue: Catalogue, machine: Machine) -> DoesNotFitError:
    """Return the refusal of `--for-agent`, with a model that has enough context here."""
    options = RecommendOptions("agent", AGENT_CONTEXT)
    recommended = recommendations(catalogue, machine, options)
    if not recommended:
        least = smallest_variant(catalogue, options)
        would = f"; {least[0].name} would, with {gibibytes(least[1])} of memory" if least else ""
        return DoesNotFitError(
            error.message, hint=f"no Hermes model has {AGENT_CONTEXT:,} tokens of context on this machine{would}."
        )
    best = recommended[0]
    kv_type = "" if best.settings.k_type == "f16" else f" --kv-type {best.settings.k_type}"
    yarn = " --yarn" if best.by_yarn else ""
    name = best.variant.name
    fetch = "" if installed(best.variant) else f", after hermes pull {name}"
    return DoesNotFitError(error.message, hint=f"this has it: hermes serve {name} --for-agent{kv_type}{yarn}{fetch}")


def _quantization(file: ModelFile, catalogue: Catalogue) -> str | None:
    number = read_header(file.path).number("general.file_type")
    stated = None if number is None else FILE_TYPES.get(number)
    return quantization_in_file_name(file.path.name, frozenset(catalogue.quantizations)) or stated


def _is_a_name(text: str) -> bool:
    """Return whether a text is no path: nobody types those into clients."""
    return "/" not in text and "\\" not in text and not text.lower().endswith(".gguf")


def _check_unique_names(models: Sequence[ServedModel]) -> None:
    """Check that every name stands for one model.

    Raises:
        UsageError: a name stands for two.
    """
    owner: dict[str, ServedModel] = {}
    for model in models:
        for name in {model.name, *model.aliases}:
            other = owner.setdefault(name.casefold(), model)
            if other is not model:
                raise UsageError(
                    f"{name} would stand for both {other.path.name} and {model.path.name}.",
                    hint="give one of them another name in the file: models: [{model: …, name: …}]",
                )
