"""`hermes rm`: remove models from this machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from hermes_cli.catalog.models import Catalogue
from hermes_cli.commands.completing import installed_models
from hermes_cli.commands.options import YesOption, argument, confirm_removal, with_console
from hermes_cli.console import Console
from hermes_cli.errors import UsageError
from hermes_cli.units import counted, gigabytes

if TYPE_CHECKING:
    from hermes_cli.store.inventory import InstalledModel
    from hermes_cli.store.removal import Removal


@with_console
def command(
    console: Console,
    names: Annotated[
        list[str] | None, argument("[NAME]...", "As `hermes list --installed` shows them.", installed_models)
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Remove unfinished downloads instead, of everything or of these models.")
    ] = False,
    yes: YesOption = False,
) -> None:
    """Remove models from this machine.

    Says first what would be removed and what the disk gets back. Files that another revision, another repository or
    another program uses stay; of imported files only the link goes, never the original.
    """
    if not names and not partial:
        raise UsageError("hermes rm needs the NAME of a model.", hint="see what is here: hermes list --installed")

    from hermes_cli.catalog.load import load_catalogue
    from hermes_cli.store.inventory import inventory
    from hermes_cli.store.library import select_one
    from hermes_cli.store.removal import plan_removal, remove

    catalogue = load_catalogue()
    models: list[InstalledModel] = []
    if partial:
        removal = _plan_partial(names or [], catalogue)
    else:
        installed = inventory(catalogue)
        selected = [model for name in names or [] for model in select_one(name, catalogue, installed)]
        models = list({id(model): model for model in selected}.values())
        removal = plan_removal(models)
    _show_plan(models, removal, console)
    if not (removal.names or removal.partials):
        console.note("there is nothing to remove")
    elif not yes:
        confirm_removal(counted(len(removal.names) + len(removal.partials), "file"), console)
    freed = remove(removal)
    console.note(f"removed; {gigabytes(freed)} freed")
    console.document(
        {
            "removed": [str(path) for path in (*removal.names, *removal.partials)],
            "freed_bytes": freed,
            "not_freed": [{"path": str(file.path), "reason": file.reason} for file in removal.kept],
        }
    )


def _plan_partial(names: Sequence[str], catalogue: Catalogue) -> Removal:
    """Plan the removal of the unfinished downloads of the named repositories or models, or of all."""
    from hermes_cli.catalog.names import CatalogueReference, HubReference, ModelNames, WeightsReference
    from hermes_cli.store.layout import repositories
    from hermes_cli.store.removal import plan_partial_removal

    repos: list[str] = []
    for name in names:
        reference = ModelNames(catalogue).parse(name)
        if isinstance(reference, HubReference | WeightsReference):
            repos.append(reference.repo)
        elif isinstance(reference, CatalogueReference):
            listed = [repository.repo for repository in reference.model.gguf]
            repos += [reference.repository] if reference.repository else listed
        else:
            raise UsageError(f"{name} is not downloaded from the Hub.", hint="give a model or a repository.")
    return plan_partial_removal(dict.fromkeys(repos) if names else repositories())


def _show_plan(models: Sequence[InstalledModel], removal: Removal, console: Console) -> None:
    """Show the files that would go, and those that would stay and why."""
    for model in models:
        source = f"from {model.repo}" if model.repo else "imported"
        console.note(f"{model.name}  {gigabytes(model.bytes)}  {source}", style="bold")
    for partial in removal.partials:
        console.note(f"unfinished download {partial}")
    for kept in removal.kept:
        console.note(f"not freed: {kept.path}: {kept.reason}")
    if removal.names or removal.partials:
        console.note(f"this frees {gigabytes(removal.frees)}", style="bold")
