"""`hermes pull`: fetch models from the Hub."""

from __future__ import annotations

import json
import json as jsonlib
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from hermes_cli.commands.options import YesOption, with_console
from hermes_cli.console import Voice
from hermes_cli.errors import HermesError, NotFoundError, UsageError
from hermes_cli.store.progress import Phase
from hermes_cli.units import gigabytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from hermes_cli.catalog.models import Catalogue
    from hermes_cli.commands.pull_target import PullTarget
    from hermes_cli.console import Console
    from hermes_cli.hardware.machine import Machine
    from hermes_cli.models.resolve import ModelRequest
    from hermes_cli.planning.recommend import Recommendation, RecommendOptions
    from hermes_cli.store.download import FileState, SpaceNeeded
    from hermes_cli.store.hub import RemoteFile
    from hermes_cli.store.progress import DownloadProgress

TITLES = ("FILE", "SIZE", "HERE", "FROM")


@with_console
def command(
    console: Console,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...",
            help="Models of the catalogue, or repositories on the Hub. None: what `hermes recommend` picks.",
            show_default=False,
        ),
    ] = None,
    quant: Annotated[str | None, typer.Option("--quant", help="Quantization, if the name has none: Q4_K_M.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of the repository.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show the files that would be fetched.")] = False,
    verify: Annotated[bool, typer.Option(help="Check the SHA-256 of every file.")] = True,
    force: Annotated[bool, typer.Option("--force", help="Try even if the disk seems to be too small.")] = False,
    yes: YesOption = False,
) -> None:
    """Fetch models, into the cache that all tools of Hugging Face share.

    After an interruption the same command goes on where it stopped. A file gets its name only once its SHA-256 is
    right.

        hermes pull

        hermes pull hermes-3:8b:Q4_K_M

        hermes pull somebody/Some-GGUF --quant Q5_K_M
    """
    from hermes_cli.catalog.load import load_catalogue
    from hermes_cli.catalog.names import ModelNames
    from hermes_cli.commands.pull_target import pull_target, recommended_target
    from hermes_cli.hardware.probe import probe
    from hermes_cli.store.download import fetch, file_states, resolve, space_needed

    catalogue, machine = load_catalogue(), probe()
    if names:
        parser = ModelNames(catalogue)
        targets = [pull_target(parser.parse(name), catalogue, machine, quant, revision) for name in names]
    elif quant or revision:
        raise UsageError(
            "--quant and --revision need a name.", hint="for example: hermes pull hermes-3:8b --quant Q4_K_M"
        )
    else:
        targets = [recommended_target(catalogue, machine)]
    with console.working("asking the Hub"):
        files = [file for target in targets for file in resolve(target.repo, target.revision, target.files)]
    files = list(dict.fromkeys(files))
    states, space = file_states(files), space_needed(files)
    # The plan is the data of a dry run; before a download it is a note.
    write = (lambda line: console.text(f"{line}\n")) if dry_run else console.note
    _show_plan(targets, files, states, space, write)
    for target in targets:
        _show_fit(target, machine, write, console)
    if dry_run:
        _write_document(console, "plan", targets, states, [])
        return
    if not force:
        space.check()
    if not names and not yes and space.needed:
        _confirm(space, console)
    from hermes_cli.commands.pull import show_progress

    with show_progress(states, console) as on_progress:
        paths = fetch(files, on_progress, verify=verify, force=force)
    _write_document(console, "done", targets, states, [str(path) for path in paths])
    for path in paths:
        console.text(f"{path}\n")
    for target in targets:
        console.note(f"next: hermes chat {target.name}")


def _show_plan(
    targets: Sequence[PullTarget],
    files: Sequence[RemoteFile],
    states: Sequence[FileState],
    space: SpaceNeeded,
    write: Callable[[str], None],
) -> None:
    """Write the files, their repositories, the bytes that are here already, and the space that is needed and free."""
    for target in targets:
        revision = files[0].revision if len(targets) == 1 and files else ""
        write(f"{target.name} from {target.repo}{f' at {revision[:12]}' if revision else ''}")
    for old, new in {(file.repo, file.current_repo) for file in files if file.renamed}:
        write(f"  {old} is called {new} today")
    for state in states:
        here = "here already" if state.complete else f"{gigabytes(state.here)} here already" if state.here else ""
        write(f"  {state.file}  {gigabytes(state.size)}{f'  {here}' if here else ''}")
    free = "unknown" if space.free is None else gigabytes(space.free)
    write(f"{gigabytes(space.needed)} to fetch into {space.folder}, {free} free there")


def _show_fit(target: PullTarget, machine: Machine, write: Callable[[str], None], console: Console) -> None:
    """Write before the download whether the model can be loaded on this machine."""
    if target.variant is None or not target.variant.computed_bytes:
        return
    from hermes_cli.commands.pull_target import fit_for_chat
    from hermes_cli.units import gibibytes

    settings, placement = fit_for_chat(target.variant, machine)
    if placement.fits:
        need = gibibytes(placement.total.total)
        write(f"it fits this machine with {settings.context:,} tokens of context: {need} of memory (computed)")
        return
    short = max(share.part.total - share.room for share in placement.shares)
    console.warn(
        f"{target.name} does not fit this machine: {gibibytes(short)} are missing "
        f"for {settings.context:,} tokens of context (computed). What would: hermes recommend"
    )


def _confirm(space: SpaceNeeded, console: Console) -> None:
    """Ask whether to download.

    Raises:
        UsageError: there is nobody to ask.
        HermesError: the answer was no.
    """
    wanted = gigabytes(space.needed)
    answer = console.confirm(f"Fetch {wanted}?", default=True)
    if answer is None:
        raise UsageError(f"{wanted} would be fetched, and nobody can be asked.", hint="say it is meant: --yes")
    if not answer:
        raise HermesError("nothing was fetched.", hint="name another model: hermes pull NAME, or see them: hermes list")


def _write_document(
    console: Console, event: str, targets: Sequence[PullTarget], states: Sequence[FileState], paths: list[str]
) -> None:
    """Write the last line of --json."""
    if console.voice is not Voice.JSON:
        return
    document = {
        "event": event,
        "models": [{"name": target.name, "repository": target.repo} for target in targets],
        "files": [
            {
                "file": state.file,
                "path": str(state.path),
                "bytes": state.size,
                "bytes_here": state.here,
                "verified": state.verified,
            }
            for state in states
        ],
        "paths": paths,
    }
    console.out.write(jsonlib.dumps(document) + "\n")
    console.out.flush()


LINE_INTERVAL = 10.0  # seconds between two lines of the same file where there is no terminal
PHASE_TEXTS = {
    Phase.HASHING: "hashing the bytes that are here",
    Phase.SKIPPING: "the server sends bytes again that are here",
    Phase.VERIFYING: "checking the hash",
    Phase.REPAIRING: "the hash is wrong: fetching again",
    Phase.WAITING: "another process fetches it; waiting",
    Phase.RESUMING: "going on",
    Phase.DOWNLOADING: "",
    Phase.DONE: "done",
}


@contextmanager
def show_progress(states: list[FileState], console: Console) -> Iterator[Callable[[DownloadProgress], None]]:
    """Yield the callback that shows the events of the download of these files."""
    if console.voice is Voice.JSON:
        yield lambda event: _write(console, event)
    elif console.voice is Voice.QUIET:
        yield lambda _: None
    elif sys.stderr.isatty():
        with console.transfer() as bars:
            yield _Bars(bars, states).show
    else:
        yield _Lines(console).show


def _write(console: Console, event: DownloadProgress) -> None:
    line = json.dumps({"event": "progress", **asdict(event), "phase": event.phase.value})
    console.out.write(f"{line}\n")
    console.out.flush()


class _Bars:
    """One bar for each file, and one for all if there are several."""

    def __init__(self, bars: Bars, states: list[FileState]) -> None:
        self._bars = bars
        self._here = {state.file: state.here for state in states}
        self._tasks = {state.file: self._add(state.file, state.size, state.here) for state in states}
        self._total: TaskID | None = None
        if len(states) > 1:
            self._total = self._add("all", sum(state.size for state in states), sum(self._here.values()))

    def _add(self, label: str, size: int, here: int) -> TaskID:
        name = label.rpartition("/")[2]
        return self._bars.add_task(name, total=size, completed=here, said="")

    def show(self, event: DownloadProgress) -> None:
        text = _phase_text(event)
        if event.phase in {Phase.HASHING, Phase.REPAIRING}:
            text = f"{text} {event.done * 100 // max(event.size, 1)} %"
        else:
            self._here[event.file] = event.done
            self._bars.update(self._tasks[event.file], completed=event.done)
            if self._total is not None:
                self._bars.update(self._total, completed=sum(self._here.values()))
        self._bars.update(self._tasks[event.file], said=text)


class _Lines:
    """A line for each new phase of a file, and every ten seconds within one."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last: tuple[str, Phase] | None = None
        self._when = 0.0

    def show(self, event: DownloadProgress) -> None:
        now = time.monotonic()
        if (
            (event.file, event.phase) == self._last
            and now - self._when < LINE_INTERVAL
            and event.phase is not Phase.RETRYING
        ):
            return
        self._last, self._when = (event.file, event.phase), now
        text = _phase_text(event)
        amount = f"{gigabytes(event.done)} of {gigabytes(event.size)}"
        self._console.note(f"{event.file}: {amount}{f', {text}' if text else ''}")


def _phase_text(event: DownloadProgress) -> str:
    if event.phase is Phase.RETRYING:
        return f"{event.reason}; again in {event.wait:.0f} s"
    return PHASE_TEXTS[event.phase]


def default_model(
    command: str,
    settings: ModelRequest,
    options: RecommendOptions,
    catalogue: Catalogue,
    machine: Machine,
    console: Console,
) -> ModelRequest:
    """Return the settings with the best model that is installed; else with the best there is, once it is fetched.

    Args:
        command: that is to run it, for hints.
        settings: of its loading.
        options: the purpose of the model.
        catalogue: all models.
        machine: where the model is to run, with the memory that is free now.
        console: asks and tells.

    Raises:
        NotFoundError: none is installed, and nobody can be asked.
        HermesError: the answer was no.
    """
    from hermes_cli.models.resolve import recommended

    hint = f"try the one that ships with hermes: hermes {command} demo"
    fetched = False

    def fetch(best: Recommendation | None) -> None:
        nonlocal fetched
        if best is None:
            raise NotFoundError("no model was named, and no Hermes model fits this machine.", hint=hint)
        _fetch(best, hint, console)
        fetched = True

    request = recommended(settings, options, catalogue, machine, fetch)
    if not fetched:
        console.note(f"{request.name}, the best that is installed (hermes recommend)")
    return request


def _fetch(best: Recommendation, hint: str, console: Console) -> None:
    name, size = best.variant.name, gigabytes(best.variant.bytes)
    question = f"No model is here. Fetch {name}, {size}, the best that fits?"
    answer = console.confirm(question, default=True) if console.voice is Voice.HUMAN else None
    if answer is None:
        raise NotFoundError(
            "no model was named, and no Hermes model that fits is here.", hint=f"hermes pull {name} ({size}). {hint}"
        )
    if not answer:
        raise HermesError("nothing was fetched.", hint=hint)
    command([name], yes=True)
