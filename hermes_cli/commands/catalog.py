"""`hermes catalog`: check a catalogue file, or refresh ours from the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hermes_cli import paths
from hermes_cli.commands.completing import catalogue_models
from hermes_cli.commands.options import argument, with_console
from hermes_cli.console import Console
from hermes_cli.errors import IntegrityError, NetworkError, NotFoundError
from hermes_cli.units import counted

if TYPE_CHECKING:
    from hermes_cli.catalog.load import Overlay

CONCURRENT_REQUESTS = 8

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Check the catalogue, or bring it up to date.")


@app.command()
@with_console
def check(
    console: Console,
    file: Annotated[Path | None, argument("[FILE.yaml]", "Default: the catalogue that ships with hermes.")] = None,
) -> None:
    """Check a catalogue file and explain every fault by line."""
    path = file or paths.catalog()
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise NotFoundError(f"{path} cannot be read: {error.strerror}.", hint="give the path of a YAML file.") from None
    except UnicodeDecodeError:
        raise IntegrityError(f"{path} is not text in UTF-8.", hint="give the path of a YAML file.") from None

    from hermes_cli.catalog.check import find_faults

    faults = find_faults(text)
    for fault in faults:
        place = f"{fault.place}: " if fault.place else ""
        console.text(f"{path}:{fault.line}: {place}{fault.message}\n")
    console.document({"file": str(path), "faults": [fault._asdict() for fault in faults]})
    if faults:
        hint = "the keys are explained in docs/catalogue.md."
        raise IntegrityError(f"{path} has {counted(len(faults), 'fault')}.", hint=hint)
    console.note(f"{path} has no faults")


@app.command()
@with_console
def refresh(
    console: Console,
    name: Annotated[str | None, argument("[MODEL]", "Only this model.", catalogue_models)] = None,
) -> None:
    """Ask the Hub for the real sizes, hashes and revisions of all listed repositories, and for new files in them.

    The result is kept beside the catalogue, which itself is not changed. Offline, nothing changes.
    """
    from hermes_cli.catalog.load import read_overlay, shipped_catalogue, write_overlay
    from hermes_cli.catalog.names import CatalogueReference, ModelNames

    catalogue = shipped_catalogue()
    models = catalogue.models
    if name is not None:
        reference = ModelNames(catalogue).parse(name)
        if not isinstance(reference, CatalogueReference):
            raise NotFoundError(f"{name} is not in the catalogue.", hint="list the models: hermes list")
        models = (reference.model,)
    repos = list(dict.fromkeys(repository.repo for model in models for repository in model.gguf))
    known = read_overlay()
    learned, missing = _ask(repos, console)
    path = write_overlay({**known, **learned})
    files = sum(len(entry.files) for entry in learned.values())
    console.note(f"{len(learned)} of {len(repos)} repositories, {files} files; kept in {path}")
    console.document({"repositories": sorted(learned), "files": files, "missing": missing, "overlay": str(path)})


def _ask(repos: list[str], console: Console) -> tuple[Overlay, list[str]]:
    """Return the files of each repository, and the repositories that the Hub does not show."""
    from concurrent.futures import ThreadPoolExecutor, as_completed

    from hermes_cli.store.hub import list_gguf_files

    learned: Overlay = {}
    missing: list[str] = []
    with console.working("asking the Hub") as show, ThreadPoolExecutor(CONCURRENT_REQUESTS) as pool:
        repo_of = {pool.submit(list_gguf_files, repo): repo for repo in repos}
        for number, answered in enumerate(as_completed(repo_of), 1):
            repo = repo_of[answered]
            show(f"asking the Hub: {number} of {len(repos)}, {repo}")
            try:
                learned[repo] = answered.result()
            except NotFoundError as error:
                missing.append(repo)
                console.warn(error.message)
            except NetworkError:
                pool.shutdown(cancel_futures=True)
                raise
    return learned, sorted(missing)
