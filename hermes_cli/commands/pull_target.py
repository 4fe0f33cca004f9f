"""The repository, revision and files that a name stands for in `hermes pull`, and how they would run here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hermes_cli.catalog.names import CatalogueReference, DemoReference, FileReference, HubReference
from hermes_cli.catalog.variants import (
    Variant,
    default_variant,
    find_quantization,
    group_files,
    preferred_variants,
    quantization_in_file_name,
)
from hermes_cli.errors import UsageError
from hermes_cli.planning.memory import ContextSettings, weights
from hermes_cli.planning.placement import place
from hermes_cli.planning.recommend import NEEDS, RecommendOptions, recommendations
from hermes_cli.store.library import known_variants

if TYPE_CHECKING:
    from hermes_cli.catalog.models import CatalogModel, Catalogue
    from hermes_cli.catalog.names import ModelReference
    from hermes_cli.hardware.machine import Machine
    from hermes_cli.planning.placement import Placement

SHORTEST_CONTEXT = 2048  # tokens; with less a model is of little use


@dataclass(frozen=True)
class PullTarget:
    """Files to fetch from one repository; `variant` if the catalogue knows them."""

    name: str
    repo: str
    revision: str | None
    files: tuple[str, ...]
    variant: Variant | None = None


def recommended_target(catalogue: Catalogue, machine: Machine) -> PullTarget:
    """Return the pick of `hermes recommend`.

    Raises:
        DoesNotFitError: nothing fits; the hint says what would.
    """
    fitting = recommendations(catalogue, machine, RecommendOptions())
    if not fitting:
        from hermes_cli.commands.recommend import nothing_fits

        raise nothing_fits(catalogue, machine, RecommendOptions())
    return _of_variant(fitting[0].variant, None)


def pull_target(
    reference: ModelReference, catalogue: Catalogue, machine: Machine, quant: str | None, revision: str | None
) -> PullTarget:
    """Return the files of a name. Without a quantization it is the one that fits this machine best.

    `quant` is that of `--quant`; `revision` a branch, tag or commit, or None for that of the catalogue or `main`.

    Raises:
        UsageError: it is not something that can be fetched, or `--quant` contradicts it.
        NotFoundError: no such quantization, or no files of the model are known.
        NetworkError: the Hub had to be asked and cannot be reached.
    """
    match reference:
        case DemoReference():
            hint = 'try it: hermes chat demo "Hi"'
            raise UsageError("the demo ships with hermes; there is nothing to fetch.", hint=hint)
        case FileReference(path):
            raise UsageError(f"{path} is a path on this disk.", hint=f"adopt a file that is here: hermes import {path}")
        case CatalogueReference(model, named, repository):
            quantization = _quantization(named, quant, frozenset(catalogue.quantizations))
            return _of_variant(_variant(model, quantization, repository, catalogue, machine), revision)
        case HubReference():
            return _of_hub(reference, quant, revision, frozenset(catalogue.quantizations))


def fit_for_chat(variant: Variant, machine: Machine) -> tuple[ContextSettings, Placement]:
    """Return settings and placement for a chat: the longest context that fits, or the shortest if none does."""
    usable = variant.model.context.usable
    context = min(NEEDS["chat"].wanted, usable)
    table = weights(variant.model.architecture, variant.quantization, imatrix=variant.repository.imatrix)
    while True:
        settings = ContextSettings(context)
        placement = place(variant.model.architecture, table, settings, machine)
        if placement.fits or context <= SHORTEST_CONTEXT:
            return settings, placement
        context //= 2


def _quantization(named: str | None, flag: str | None, names: frozenset[str]) -> str | None:
    if flag is None:
        return named
    wanted = find_quantization(flag, names)
    if wanted is None:
        raise UsageError(f"--quant {flag} is no quantization.", hint="see those of a model: hermes show NAME")
    if named not in {None, wanted}:
        raise UsageError(f"the name says {named}, --quant says {wanted}.", hint="give one of them.")
    return wanted


def _variant(
    model: CatalogModel, quantization: str | None, repository: str | None, catalogue: Catalogue, machine: Machine
) -> Variant:
    if quantization is None and repository is None:
        ranked = (recommendation.variant for recommendation in recommendations(catalogue, machine, RecommendOptions()))
        best = next((variant for variant in ranked if variant.model.id == model.id), None) or default_variant(model)
        if best:
            return best
    fitting = known_variants(model, quantization, repository)
    preferred = [variant for variant in preferred_variants(model) if variant in fitting]
    return next((variant for variant in fitting if variant.quantization == "Q4_K_M"), (preferred or fitting)[0])


def _of_variant(variant: Variant, revision: str | None) -> PullTarget:
    return PullTarget(variant.name, variant.repository.repo, revision, variant.files, variant)


def _of_hub(name: HubReference, quant: str | None, revision: str | None, names: frozenset[str]) -> PullTarget:
    from hermes_cli.store.hub import choose_files, list_files

    listed = [file.path for file in list_files(name.repo, revision)]
    if name.file:
        files = next((group for group in group_files(listed) if name.file in group), (name.file,))
        return PullTarget(f"{name.repo}/{name.file}", name.repo, revision, files)
    files = choose_files(name.repo, listed, quant or name.quantization, names)
    quantization = quantization_in_file_name(files[0], names)
    label = f"{name.repo}:{quantization}" if quantization else f"{name.repo}/{files[0]}"
    return PullTarget(label, name.repo, revision, files)
