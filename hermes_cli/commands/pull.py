"""`hermes pull`: fetch models from the Hub."""

from __future__ import annotations

import json as jsonlib
from typing import TYPE_CHECKING, Annotated

import typer

from hermes_cli.commands.asking import agreed
from hermes_cli.commands.options import JsonOption, NoColorOption, QuietOption, console_for
from hermes_cli.console import Voice
from hermes_cli.errors import HermesError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hermes_cli.commands.order import PullTarget
    from hermes_cli.console import Console
    from hermes_cli.hardware.machine import Machine
    from hermes_cli.store.download import State
    from hermes_cli.store.hub import RemoteFile
    from hermes_cli.store.space import Space

TITLES = ("FILE", "SIZE", "HERE", "FROM")


def command(
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
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be fetched.")] = False,
    verify: Annotated[bool, typer.Option(help="Check the SHA-256 of every file.")] = True,
    force: Annotated[bool, typer.Option("--force", help="Try even if the disk seems to be too small.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    no_color: NoColorOption = False,
) -> None:
    """Fetch models, into the cache that all tools of Hugging Face share.

    Interrupted by whatever, the same command goes on where it stopped. A file appears under its name only when its
    SHA-256 is right.

        hermes pull

        hermes pull hermes-3:8b:Q4_K_M

        hermes pull somebody/Some-GGUF --quant Q5_K_M
    """
    console = console_for(json=json, quiet=quiet, no_color=no_color)

    from hermes_cli.catalog.load import load_catalogue  # noqa: PLC0415 - arguments are checked first
    from hermes_cli.catalog.names import ModelNames  # noqa: PLC0415
    from hermes_cli.commands.order import order, recommended  # noqa: PLC0415
    from hermes_cli.hardware.probe import probe  # noqa: PLC0415
    from hermes_cli.store.download import fetch, resolve, room, states  # noqa: PLC0415 - the HTTP stack

    catalogue, machine = load_catalogue(), probe()
    if names:
        read = ModelNames(catalogue)
        orders = [order(read.parse(name), catalogue, machine, quant, revision) for name in names]
    elif quant or revision:
        raise UsageError(
            "--quant and --revision need a name.", hint="for example: hermes pull hermes-3:8b --quant Q4_K_M"
        )
    else:
        orders = [recommended(catalogue, machine)]
    with console.working("asking the Hub"):
        files = [file for one in orders for file in resolve(one.repo, one.revision, one.files)]
    files = list(dict.fromkeys(files))
    here, space = states(files), room(files)
    # What is only shown is data; on the way to a download it is said about it.
    say = (lambda line: console.text(f"{line}\n")) if dry_run else console.note
    _show(orders, files, here, space, say)
    for one in orders:
        _say_if_it_fits(one, machine, say, console)
    if dry_run:
        _say(console, "plan", orders, here, [])
        return
    if not force:
        space.check()
    if not names and not yes and space.needed:
        _confirm(space, console)
    from hermes_cli.commands.pull_view import watching  # noqa: PLC0415

    with watching(here, console) as show:
        found = fetch(files, show, verify=verify, force=force)
    _say(console, "done", orders, here, [str(path) for path in found])
    for path in found:
        console.text(f"{path}\n")
    for one in orders:
        console.note(f"next: hermes chat {one.name}")


def _show(
    orders: Sequence[PullTarget],
    files: Sequence[RemoteFile],
    here: Sequence[State],
    space: Space,
    say: Callable[[str], None],
) -> None:
    """What comes from where, what is here already, and whether the disk has room."""
    from hermes_cli.store.space import amount  # noqa: PLC0415 - as above

    for one in orders:
        source = files[0].revision if len(orders) == 1 and files else ""
        say(f"{one.name} from {one.repo}{f' at {source[:12]}' if source else ''}")
    for old, new in {(file.repo, file.now_at) for file in files if file.renamed}:
        say(f"  {old} is called {new} today")
    for state in here:
        part = "here already" if state.complete else f"{amount(state.here)} here already" if state.here else ""
        say(f"  {state.file}  {amount(state.size)}{f'  {part}' if part else ''}")
    free = "unknown" if space.free is None else amount(space.free)
    say(f"{amount(space.needed)} to fetch into {space.folder}, {free} free there")


def _say_if_it_fits(one: PullTarget, machine: Machine, say: Callable[[str], None], console: Console) -> None:
    """Say before the download whether it can be loaded on this machine."""
    if one.variant is None or not one.variant.computed_bytes:
        return
    from hermes_cli.commands.machine import gibibytes  # noqa: PLC0415 - as above
    from hermes_cli.commands.order import fit  # noqa: PLC0415

    settings, placement = fit(one.variant, machine)
    if placement.fits:
        need = gibibytes(placement.total.total)
        say(f"it fits this machine with {settings.context:,} tokens of context: {need} of memory (computed)")
        return
    short = max(share.part.total - share.room for share in placement.shares)
    console.warn(
        f"{one.name} does not fit this machine: {gibibytes(short)} are missing "
        f"for {settings.context:,} tokens of context (computed). What would: hermes recommend"
    )


def _confirm(space: Space, console: Console) -> None:
    """Ask once.

    Raises:
        UsageError: there is nobody to ask.
        HermesError: the answer was no.
    """
    from hermes_cli.store.space import amount  # noqa: PLC0415 - as above

    wanted = amount(space.needed)
    answer = agreed(f"Fetch {wanted}? [Y/n] ", console, usually=True)
    if answer is None:
        raise UsageError(f"{wanted} would be fetched, and nobody can be asked.", hint="say it is meant: --yes")
    if not answer:
        raise HermesError("nothing was fetched.", hint="name another model: hermes pull NAME, or see them: hermes list")


def _say(console: Console, event: str, orders: Sequence[PullTarget], here: Sequence[State], found: list[str]) -> None:
    """The last line of --json."""
    if console.voice is not Voice.JSON:
        return
    document = {
        "event": event,
        "models": [{"name": one.name, "repository": one.repo} for one in orders],
        "files": [
            {
                "file": one.file,
                "path": str(one.path),
                "bytes": one.size,
                "bytes_here": one.here,
                "verified": one.verified,
            }
            for one in here
        ],
        "paths": found,
    }
    console.out.write(jsonlib.dumps(document) + "\n")
    console.out.flush()
