"""The repository, revision and files that a name stands for when it is to be fetched, and how they would run here."""

from __future__ import annotations

import shlex
from contextlib import suppress
from dataclasses import dataclass, replace

from hermes_cli.catalog.engine_weights import engine_weights, named_weights
from hermes_cli.catalog.file_names import (
    group_files,
    models_in,
    normalize_name,
    read_quantization,
    why_not_loaded,
)
from hermes_cli.catalog.models import CatalogModel, Catalogue
from hermes_cli.catalog.names import (
    CatalogueReference,
    DemoReference,
    FileReference,
    HubReference,
    ModelReference,
    WeightsReference,
    named_quantization,
    near_quantizations,
)
from hermes_cli.catalog.variants import Variant, default_variant, matching_variants, preferred_variants
from hermes_cli.errors import HermesError, UsageError
from hermes_cli.hardware.machine import Machine
from hermes_cli.planning.best_placement import NEEDS, best_placement
from hermes_cli.planning.memory import ContextSettings, weights
from hermes_cli.planning.placement import Placement
from hermes_cli.planning.recommend import RecommendOptions, recommendations, room_for_files
from hermes_cli.store.benchmarks import speed_ratios
from hermes_cli.store.library import known_variants

SHORTEST_CONTEXT = 2048  # tokens; with less a model is of little use


@dataclass(frozen=True)
class PullTarget:
    """Files to fetch from one repository; `variant` if the catalogue knows them.

    `notes` say why these files, and what is peculiar about them; `runs` whether they are a model that llama.cpp loads;
    `weights` are those for vLLM and SGLang, if it is them.
    """

    name: str
    repo: str
    revision: str | None
    files: tuple[str, ...]
    variant: Variant | None = None
    notes: tuple[str, ...] = ()
    runs: bool = True
    weights: WeightsReference | None = None


def pull_target(
    reference: ModelReference,
    catalogue: Catalogue,
    machine: Machine,
    quant: str | None,
    revision: str | None,
    *,
    tokenizer_only: bool = False,
) -> PullTarget:
    """Return the files of a name. Without a quantization it is the one that fits this machine best.

    `quant` is that of `--quant`; `revision` a branch, tag or commit, or None for that of the catalogue or `main`.
    `tokenizer_only` leaves out the weights, which only those for vLLM and SGLang have beside their tokenizer.

    Raises:
        UsageError: it is not something that can be fetched, or `--quant` contradicts it.
        NotFoundError: no such quantization, or no files of the model are known.
        NetworkError: the Hub had to be asked and cannot be reached.
    """
    if weights := _meant_weights(reference, quant, tokenizer_only=tokenizer_only):
        return _of_weights(weights, revision, tokenizer_only=tokenizer_only)
    match reference:
        case DemoReference():
            hint = 'try it: hermes chat demo "Hi"'
            raise UsageError("the demo ships with hermes; there is nothing to fetch.", hint=hint)
        case FileReference(path):
            hint = f"adopt a file that is here: hermes import {shlex.quote(str(path))}"
            raise UsageError(f"{path} is a path on this disk.", hint=hint)
        case CatalogueReference(model, named, repository):
            quantization = _quantization(named, quant, model)
            listed = {variant.quantization for variant in matching_variants(model, repository=repository)}
            if repository and quantization and quantization not in listed:
                return _of_hub(HubReference(repository, quantization), revision, catalogue, machine)
            variant, reason = _variant(model, quantization, repository, catalogue, machine)
            return target_of(variant, revision, (f"took {variant.quantization}, {reason}",) if reason else ())
        case HubReference(repo, named, file):
            if quant and named and not _same(quant, named):
                raise _contradiction(named, quant)
            return _of_hub(HubReference(repo, quant or named, file), revision, catalogue, machine)
        case WeightsReference():
            raise UsageError(
                f"--quant {quant}: {reference.name} is for vLLM and SGLang and has no quantization.",
                hint="leave it out, or name the model without @.",
            )


def _meant_weights(reference: ModelReference, quant: str | None, *, tokenizer_only: bool) -> WeightsReference | None:
    """Return the weights for vLLM and SGLang that are meant; None if it is something else."""
    if isinstance(reference, WeightsReference):
        return None if quant else reference
    weights = None
    if isinstance(reference, CatalogueReference) and reference.quantization is None:
        model = reference.model
        if quant and not named_quantization(quant, model):
            weights = named_weights(model, quant)
        elif tokenizer_only:
            weights = next(engine_weights(model))
    if tokenizer_only and weights is None:
        raise UsageError(
            "--tokenizer-only is for weights of vLLM and SGLang: a GGUF file has its tokenizer in it.",
            hint="for example: hermes pull hermes-4:70b@fp8 --tokenizer-only",
        )
    return WeightsReference(weights.repo, weights) if weights else None


def fit_for_chat(variant: Variant, machine: Machine) -> tuple[ContextSettings, Placement]:
    """Return settings and placement for a chat: the longest context that fits, or the shortest if none does."""
    usable = variant.model.context.usable
    context = min(NEEDS["chat"].wanted, usable)
    table = weights(variant.model.architecture, variant.quantization, imatrix=variant.repository.imatrix)
    while True:
        settings = ContextSettings(context)
        placement = best_placement(variant.model.architecture, variant.quantization, table, settings, machine)
        if placement.fits or context <= SHORTEST_CONTEXT:
            return settings, placement
        context //= 2


def _quantization(named: str | None, flag: str | None, model: CatalogModel) -> str | None:
    if flag is None:
        return named
    wanted = named_quantization(flag, model) or read_quantization(flag)
    if wanted is None:
        near = near_quantizations(flag, dict.fromkeys(name for files in model.gguf for name in files.quantizations))
        meant = f"did you mean {' or '.join(near)}? All of them" if near else "see what it has"
        raise UsageError(f"--quant {flag} is not a quantization.", hint=f"{meant}: hermes show {model.short}")
    if named not in {None, wanted}:
        raise _contradiction(named or "", wanted)
    return wanted


def _same(first: str, second: str) -> bool:
    return normalize_name(first) == normalize_name(second) or read_quantization(first) == read_quantization(second)


def _contradiction(named: str, flag: str) -> UsageError:
    return UsageError(f"the name says {named}, --quant says {flag}.", hint="give one of them.")


def _variant(
    model: CatalogModel, quantization: str | None, repository: str | None, catalogue: Catalogue, machine: Machine
) -> tuple[Variant, str]:
    """Return the variant to fetch, and why if it was not named."""
    if quantization is None and repository is None:
        options = RecommendOptions(measured=speed_ratios(machine))
        ranked = (recommendation.variant for recommendation in recommendations(catalogue, machine, options))
        if best := next((variant for variant in ranked if variant.model.id == model.id), None):
            return best, "the best that fits this machine (hermes recommend)"
        if usual := default_variant(model):
            return usual, "what most people run; none is known to fit this machine"
    fitting = known_variants(model, quantization, repository)
    preferred = [variant for variant in preferred_variants(model) if variant in fitting]
    chosen = next((variant for variant in fitting if variant.quantization == "Q4_K_M"), (preferred or fitting)[0])
    return chosen, "" if quantization else "the usual one of this repository"


def target_of(variant: Variant, revision: str | None = None, notes: tuple[str, ...] = ()) -> PullTarget:
    """Return the files of a variant of the catalogue."""
    return PullTarget(variant.name, variant.repository.repo, revision, variant.files, variant, notes)


def _of_weights(reference: WeightsReference, revision: str | None, *, tokenizer_only: bool) -> PullTarget:
    from hermes_cli.store.hub import list_files  # noqa: PLC0415 - as above
    from hermes_cli.store.weights import weight_files  # noqa: PLC0415 - the Hub's code

    paths = [file.path for file in list_files(reference.repo, revision)]
    files = weight_files(reference.repo, paths, tokenizer_only=tokenizer_only)
    by_others = reference.weights is not None and not reference.weights.official
    notes = (f"{reference.repo} is not by Nous Research",) if by_others else ()
    return PullTarget(reference.name, reference.repo, revision, files, notes=notes, runs=False, weights=reference)


def _of_hub(name: HubReference, revision: str | None, catalogue: Catalogue, machine: Machine) -> PullTarget:
    from hermes_cli.store.choose_files import choose_files  # noqa: PLC0415 - the Hub's code
    from hermes_cli.store.hub import list_files  # noqa: PLC0415 - as above

    sizes = {file.path: file.size for file in list_files(name.repo, revision)}
    if name.file:
        files = next((group for group in group_files(sizes) if name.file in group), (name.file,))
        kind = models_in(sizes)[1].get(name.file)
        notes = (f"{name.file} is {kind}, not a model to chat with",) if kind else ()
        return PullTarget(f"{name.repo}/{files[0]}", name.repo, revision, files, notes=notes, runs=kind is None)
    choice = choose_files(name.repo, sizes, name.quantization, room_for_files(machine))
    if name.quantization is None and len(choice.others) > 1:
        with suppress(HermesError):  # its headers cannot be read: what the sizes tell will do
            best = _best_of(name, catalogue, machine)
            choice = choose_files(name.repo, sizes, None, room_for_files(machine), best)
    runs = why_not_loaded(choice.others[choice.name][0].quantization) is None
    return PullTarget(choice.name, name.repo, revision, choice.files, notes=choice.notes, runs=runs)


def _best_of(name: HubReference, catalogue: Catalogue, machine: Machine) -> str | None:
    """Return the name of the quantization that `hermes recommend OWNER/REPOSITORY` picks; None if none fits."""
    from hermes_cli.models.any_model import quantizations  # noqa: PLC0415 - only for repositories

    options = RecommendOptions(measured=speed_ratios(machine))
    models = quantizations(name, name.repo, catalogue, machine, options)
    ranked = recommendations(catalogue, machine, replace(options, only=models))
    return ranked[0].variant.name if ranked else None
