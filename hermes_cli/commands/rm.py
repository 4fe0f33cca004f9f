"""`hermes rm`: remove models from this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hermes_cli.commands.asking import agreed_to_remove
from hermes_cli.commands.options import JsonOption, NoColorOption, QuietOption, console_for
from hermes_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hermes_cli.console import Console
    from hermes_cli.store.inventory import Installed
    from hermes_cli.store.removal import Removal


def command(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="As `hermes list --installed` shows them.", show_default=False),
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Remove unfinished downloads instead, of everything or of these models.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    no_color: NoColorOption = False,
) -> None:
    """Remove models from this machine.

    Says first what would be removed and what the disk gets back. Files that another revision, another repository or
    another program uses stay; of imported files only the link goes, never the original.
    """
    console = console_for(json=json, quiet=quiet, no_color=no_color)
    if not names and not partial:
        raise UsageError("there is no name.", hint="see what is here: hermes list --installed")

    from hermes_cli.catalog.load import load_catalogue  # noqa: PLC0415 - arguments are checked first
    from hermes_cli.store.inventory import inventory  # noqa: PLC0415
    from hermes_cli.store.removal import removal_of, remove  # noqa: PLC0415
    from hermes_cli.store.selection import one_of, select  # noqa: PLC0415

    catalogue = load_catalogue()
    if partial:
        models: list[Installed] = []
        removal = _unfinished(names or [])
    else:
        here = inventory(catalogue)
        chosen = [one for name in names or [] for one in one_of(name, select(name, catalogue, here))]
        models = list({id(one): one for one in chosen}.values())
        removal = removal_of(models)
    _show(models, removal, console)
    if not (removal.names or removal.parts):
        console.note("there is nothing to remove")
    elif not yes:
        _confirm(removal, console)
    freed = remove(removal)
    console.note(f"removed; {_amount(freed)} freed")
    console.document(
        {
            "removed": [str(path) for path in (*removal.names, *removal.parts)],
            "freed_bytes": freed,
            "not_freed": [{"path": str(one.path), "reason": one.reason} for one in removal.kept],
        }
    )


def _unfinished(names: Sequence[str]) -> Removal:
    """The unfinished downloads of the named repositories or models, or of everything.

    Raises:
        NotFoundError, UsageError: a name means nothing on the Hub.
    """
    from hermes_cli.catalog.load import load_catalogue  # noqa: PLC0415 - as above
    from hermes_cli.catalog.names import CatalogueReference, HubReference, ModelNames  # noqa: PLC0415
    from hermes_cli.store import cache  # noqa: PLC0415
    from hermes_cli.store.removal import removal_of_parts  # noqa: PLC0415

    repos: list[str] = []
    for name in names:
        meant = ModelNames(load_catalogue()).parse(name)
        if isinstance(meant, HubReference):
            repos.append(meant.repo)
        elif isinstance(meant, CatalogueReference):
            listed = [one.repo for one in meant.model.gguf]
            repos += [meant.repository] if meant.repository else listed
        else:
            raise UsageError(f"{name} is nothing that is downloaded.", hint="give a model or a repository.")
    return removal_of_parts(dict.fromkeys(repos) if names else cache.repositories())


def _show(models: Sequence[Installed], removal: Removal, console: Console) -> None:
    """What would go, what would stay and why. It is about a question, so it goes where the question goes."""
    for one in models:
        where = f"from {one.repo}" if one.repo else "imported"
        console.note(f"{one.name}  {_amount(one.bytes)}  {where}", style="bold")
    for part in removal.parts:
        console.note(f"unfinished download {part}")
    for kept in removal.kept:
        console.note(f"not freed: {kept.path}: {kept.reason}")
    if removal.names or removal.parts:
        console.note(f"this frees {_amount(removal.frees)}", style="bold")


def _confirm(removal: Removal, console: Console) -> None:
    count = len(removal.names) + len(removal.parts)
    agreed_to_remove(f"{count} {'file' if count == 1 else 'files'}", console)


def _amount(size: int) -> str:
    from hermes_cli.commands.units import gigabytes  # noqa: PLC0415 - as above

    return gigabytes(size)
