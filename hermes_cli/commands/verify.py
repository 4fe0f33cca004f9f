"""`hermes verify`: hash what is here again, and put right what is wrong."""

from __future__ import annotations

import shlex
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from hermes_cli.commands.asking import agreed, somebody_there
from hermes_cli.commands.options import JsonOption, NoColorOption, QuietOption, console_for
from hermes_cli.errors import HermesError, IntegrityError, NetworkError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from hermes_cli.console import Console
    from hermes_cli.store.inventory import Installed
    from hermes_cli.store.verification import Checked


def command(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="Default: every model that is here.", show_default=False),
    ] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Fetch again what is damaged or missing.")] = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    no_color: NoColorOption = False,
) -> None:
    """Hash models again and compare with what the Hub says.

    What it found is remembered as long as a file does not change. Exit code 6 if something is wrong and stays so.
    """
    console = console_for(json=json, quiet=quiet, no_color=no_color)

    from hermes_cli.catalog.load import load_catalogue  # noqa: PLC0415 - arguments are checked first
    from hermes_cli.store.inventory import inventory  # noqa: PLC0415
    from hermes_cli.store.known import known_files  # noqa: PLC0415
    from hermes_cli.store.selection import select  # noqa: PLC0415
    from hermes_cli.store.verification import check  # noqa: PLC0415

    catalogue = load_catalogue()
    models = inventory(catalogue)
    if names:
        chosen = [one for name in names for one in select(name, catalogue, models)]
        models = list({id(one): one for one in chosen}.values())
    hashes = {one.sha256 for one in known_files(catalogue) if one.sha256}
    with _progress(models, console) as advance:
        results = list(check(models, hashes, lambda repo, revision: _stated(repo, revision, console), advance))
    wrong = [one for one in results if one.is_wrong]
    if wrong and (repair or _asked(wrong, console)):
        results = [_repaired(one, console) if one.is_wrong else one for one in results]
    _report(results, console)


def _report(results: Sequence[Checked], console: Console) -> None:
    """The outcome for each file.

    Raises:
        IntegrityError: some are wrong.
    """
    if results:
        rows = [(one.model.name, one.file.inside, one.outcome, one.note) for one in results]
        console.table(("NAME", "FILE", "OUTCOME", ""), rows)
    else:
        console.note("there is nothing to verify")
    if any(one.outcome == "unknown" for one in results):
        console.note("unknown: only header and length were checked · learn the Hub's hashes: hermes catalog refresh")
    console.document({"files": [_document(one) for one in results]})
    wrong = [one for one in results if one.is_wrong]
    if wrong:
        names = list(dict.fromkeys(one.model.name for one in wrong))
        fetchable = list(dict.fromkeys(one.model.name for one in wrong if one.model.repo))
        count = f"{len(wrong)} of {len(results)} files are" if len(wrong) > 1 else f"1 of {len(results)} files is"
        raise IntegrityError(
            f"{count} not as it should be: {', '.join(names)}.",
            hint=f"fetch again what is wrong: {shlex.join(['hermes', 'verify', '--repair', *fetchable])}"
            if fetchable
            else f"remove what is wrong and import a good copy: {shlex.join(['hermes', 'rm', *names])}",
        )


def _document(one: Checked) -> dict[str, object]:
    return {
        "name": one.model.name,
        "repository": one.model.repo,
        "file": one.file.inside,
        "path": str(one.file.path),
        "outcome": one.outcome,
        "stated_sha256": one.stated,
        "sha256": one.found,
        "note": one.note,
    }


@contextmanager
def _progress(models: Sequence[Installed], console: Console) -> Iterator[Callable[[str, int], None]]:
    """A bar over all bytes, on a terminal; what it yields takes a file's name and bytes that were hashed."""
    from hermes_cli.console import Voice  # noqa: PLC0415 - as above

    if console.voice is not Voice.HUMAN or not sys.stderr.isatty():
        yield lambda _name, _count: None
        return
    with console.transfer() as bars:
        task = bars.add_task("hashing", total=sum(one.bytes for one in models), said="")
        yield lambda name, count: bars.update(task, advance=count, said=name.rpartition("/")[2])


def _asked(wrong: Sequence[Checked], console: Console) -> bool:
    """Whether somebody at the terminal wants what is wrong to be fetched again."""
    from hermes_cli.console import Voice  # noqa: PLC0415 - only when something is wrong

    fetchable = [one for one in wrong if one.model.repo]
    if console.voice is not Voice.HUMAN or not fetchable or not somebody_there():
        return False
    for one in wrong:
        console.warn(f"{one.model.name}: {one.file.inside}: {one.note}")
    return agreed("Fetch again what is wrong? [y/N] ", console) is True


def _repaired(wrong: Checked, console: Console) -> Checked:
    from hermes_cli.store.verification import repair  # noqa: PLC0415 - as above

    try:
        return repair(wrong, lambda repo, revision, path: _refetch(repo, revision, path, console))
    except HermesError as error:
        console.warn(f"{wrong.model.name}: {error.message} {error.hint}")
        return wrong


def _refetch(repo: str, revision: str, path: str, console: Console) -> None:
    """Fetch one file of a repository anew; raw parts of it if that is how it is kept there."""
    from hermes_cli.commands.pull_view import watching  # noqa: PLC0415 - huggingface_hub, only to fetch something
    from hermes_cli.console import Console, Voice  # noqa: PLC0415
    from hermes_cli.store import cache  # noqa: PLC0415
    from hermes_cli.store.download import fetch, resolve, states  # noqa: PLC0415
    from hermes_cli.store.hub import listing  # noqa: PLC0415

    names = [file.path for file in listing(repo, revision) if cache.loadable([file.path]) == (path,)]
    files = resolve(repo, revision, names or [path])
    # With --json there is one document in the end, so what happens on the way is not told.
    shown = console if console.voice is Voice.HUMAN else Console(Voice.QUIET)
    with watching(states(files), shown) as tell:
        fetch(files, tell)


def _stated(repo: str, revision: str, console: Console) -> dict[str, str]:
    """What the Hub says that the files of a repository hash to; nothing if it cannot be asked."""
    from hermes_cli.errors import NotFoundError  # noqa: PLC0415 - only where the Hub is asked
    from hermes_cli.store.hub import listing  # noqa: PLC0415

    try:
        return {file.path: file.sha256 for file in listing(repo, revision) if file.sha256}
    except (NetworkError, NotFoundError) as error:
        console.note(f"{repo} cannot be compared with the Hub: {error.message}")
        return {}
