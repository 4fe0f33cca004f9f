"""`hermes verify`: hash installed models again, and repair damaged files."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from hermes_cli.commands.completing import installed_models
from hermes_cli.commands.options import argument, with_console
from hermes_cli.console import Console, Voice, stdin_is_terminal
from hermes_cli.errors import HermesError, IntegrityError, NetworkError, NotFoundError
from hermes_cli.units import counted

if TYPE_CHECKING:
    from hermes_cli.store.inventory import InstalledModel
    from hermes_cli.store.verification import FileCheck


@with_console
def command(
    console: Console,
    names: Annotated[
        list[str] | None, argument("[NAME]...", "Default: every model that is here.", installed_models)
    ] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Fetch damaged and missing files again.")] = False,
) -> None:
    """Hash models again and compare with the hashes that the Hub publishes.

    The result is remembered as long as a file does not change. Exit code 6 if a file is damaged and stays so.
    """
    from hermes_cli.catalog.load import load_catalogue
    from hermes_cli.store.inventory import inventory, known_files
    from hermes_cli.store.library import select
    from hermes_cli.store.verification import verify

    catalogue = load_catalogue()
    models = inventory(catalogue)
    if names:
        selected = [model for name in names for model in select(name, catalogue, models)]
        models = list({id(model): model for model in selected}.values())
    hashes = {file.sha256 for file in known_files(catalogue) if file.sha256}
    with _progress(models, console) as advance:
        ask_hub = partial(_published_hashes, console=console)
        results = list(verify(models, hashes, ask_hub, advance))
    wrong = [check for check in results if check.is_wrong]
    if wrong and (repair or _wants_repair(wrong, console)):
        results = [_repair(check, console) if check.is_wrong else check for check in results]
    _report(results, console)


def _report(results: Sequence[FileCheck], console: Console) -> None:
    """Show the outcome for each file."""
    if results:
        rows = [(check.model.name, check.outcome, check.note, check.file.repo_path) for check in results]
        styles = ["bold red" if check.is_wrong else "" for check in results]
        console.table(("NAME", "OUTCOME", "NOTE", "FILE"), rows, optional=("FILE",), prose="NOTE", styles=styles)
    else:
        console.note("there is nothing to verify")
    if any(check.outcome == "unknown" for check in results):
        console.note("unknown: only header and length were checked · learn the Hub's hashes: hermes catalog refresh")
    console.document(
        {
            "files": [
                {
                    "name": check.model.name,
                    "repository": check.model.repo,
                    "file": check.file.repo_path,
                    "path": str(check.file.path),
                    "outcome": check.outcome,
                    "stated_sha256": check.published,
                    "sha256": check.found,
                    "note": check.note,
                }
                for check in results
            ]
        }
    )
    wrong = [check for check in results if check.is_wrong]
    if wrong:
        names = list(dict.fromkeys(check.model.name for check in wrong))
        fetchable = list(dict.fromkeys(check.model.name for check in wrong if check.model.repo))
        if fetchable:
            hint = f"fetch damaged files again: {shlex.join(['hermes', 'verify', '--repair', *fetchable])}"
        else:
            hint = f"remove damaged files and import a good copy: {shlex.join(['hermes', 'rm', *names])}"
        wrong_of_all = f"{len(wrong)} of {counted(len(results), 'file')} {'is' if len(wrong) == 1 else 'are'}"
        raise IntegrityError(f"{wrong_of_all} damaged or incomplete: {', '.join(names)}.", hint=hint)


@contextmanager
def _progress(models: Sequence[InstalledModel], console: Console) -> Iterator[Callable[[str, int], None]]:
    """Show a bar over all bytes on a terminal; yield the callback that takes a file's name and the bytes hashed."""
    if not console.animates:
        yield lambda _name, _count: None
        return
    with console.transfer() as bars:
        task = bars.add_task("hashing", total=sum(model.bytes for model in models), remark="")
        yield lambda name, count: bars.update(task, advance=count, remark=name.rpartition("/")[2])


def _wants_repair(wrong: Sequence[FileCheck], console: Console) -> bool:
    """Ask on a terminal whether damaged files shall be fetched again."""
    fetchable = any(check.model.repo for check in wrong)
    if console.voice is not Voice.HUMAN or not fetchable or not stdin_is_terminal():
        return False
    for check in wrong:
        console.warn(f"{check.model.name}: {check.file.repo_path}: {check.note}")
    return console.confirm("Fetch damaged files again?") is True


def _repair(wrong: FileCheck, console: Console) -> FileCheck:
    from hermes_cli.store.verification import repair

    try:
        return repair(wrong, lambda repo, revision, path: _refetch(repo, revision, path, console))
    except HermesError as error:
        console.warn(f"{wrong.model.name}: {error.message} {error.hint}")
        return wrong


def _refetch(repo: str, revision: str, path: str, console: Console) -> None:
    """Fetch one file of a repository again, by its raw parts if the repository has only these."""
    from hermes_cli.catalog.file_names import joined_name
    from hermes_cli.commands.pull_progress import show_progress
    from hermes_cli.store.download import fetch, file_states, resolve
    from hermes_cli.store.hub import list_files

    names = [file.path for file in list_files(repo, revision) if joined_name(file.path) == path]
    files = resolve(repo, revision, names or [path])
    # With --json there is only the document in the end, no events.
    view = console if console.voice is Voice.HUMAN else Console(Voice.QUIET)
    with show_progress(file_states(files), view) as on_progress:
        fetch(files, on_progress)


def _published_hashes(repo: str, revision: str, console: Console) -> dict[str, str]:
    """Return the SHA-256 of a repository's files by path; none if the Hub cannot be asked."""
    from hermes_cli.store.hub import list_files

    try:
        return {file.path: file.sha256 for file in list_files(repo, revision) if file.sha256}
    except (NetworkError, NotFoundError) as error:
        console.note(f"{repo} cannot be compared with the Hub: {error.message}")
        return {}
