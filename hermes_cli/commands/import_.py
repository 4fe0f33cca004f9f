"""`hermes import`: make files that are on this disk already part of the library."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hermes_cli.commands.options import JsonOption, NoColorOption, QuietOption, console_for
from hermes_cli.errors import HermesError, NotFoundError

if TYPE_CHECKING:
    from hermes_cli.catalog.models import Catalogue
    from hermes_cli.console import Console
    from hermes_cli.store.adopt import Adopted
    from hermes_cli.store.other_tools import Candidate, Skipped

TITLES = ("NAME", "SIZE", "HOW", "IDENTIFIED", "WHERE")


def command(
    path: Annotated[
        str,
        typer.Argument(
            metavar="PATH", help="A GGUF file, a folder of them, or `ollama` or `lmstudio` for what these have."
        ),
    ],
    copy: Annotated[bool, typer.Option("--copy", help="Copy the files instead of linking to them.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    no_color: NoColorOption = False,
) -> None:
    """Adopt models that are on this disk already, by links: nothing is copied or moved.

    A file whose hash is known goes into the Hub's cache, where every tool finds it; all others are found by `hermes`,
    by their names in the catalogue if header and name say what they are, or else by their file names.
    """
    console = console_for(json=json, quiet=quiet, no_color=no_color)

    from hermes_cli.catalog.load import load_catalogue  # noqa: PLC0415 - arguments are checked first
    from hermes_cli.store.other_tools import Skipped, look  # noqa: PLC0415

    place = _place(path)
    found = list(look(place))
    if not found:
        raise NotFoundError(f"there is no GGUF file in {place}.", hint="give the folder that holds the models.")
    catalogue = load_catalogue()
    done = [_tried(one, catalogue, console, copy=copy, dry_run=dry_run, alone=len(found) == 1) for one in found]
    adopted = [one for one in done if not isinstance(one, Skipped)]
    _show(adopted, [one for one in done if isinstance(one, Skipped)], console, dry_run=dry_run)


def _place(path: str) -> Path:
    from hermes_cli.store.other_tools import lm_studio_models, ollama_models  # noqa: PLC0415 - as above

    given = Path(path).expanduser()
    programs = {"ollama": ollama_models, "lmstudio": lm_studio_models}
    return programs[path.lower()]() if path.lower() in programs and not given.exists() else given


def _tried(
    found: Candidate | Skipped, catalogue: Catalogue, console: Console, *, copy: bool, dry_run: bool, alone: bool
) -> Adopted | Skipped:
    """What became of one thing that was found. Among several, one that cannot be adopted is only left out.

    Raises:
        HermesError: it cannot be adopted, and there is nothing else.
    """
    from hermes_cli.store.other_tools import Skipped  # noqa: PLC0415 - as above

    if isinstance(found, Skipped):
        return found
    try:
        return _adopted(found, catalogue, console, copy=copy, dry_run=dry_run)
    except HermesError as error:
        if alone:
            raise
        return Skipped(found.files[0], error.message.removeprefix(f"{found.files[0]} ").rstrip("."))


def _adopted(candidate: Candidate, catalogue: Catalogue, console: Console, *, copy: bool, dry_run: bool) -> Adopted:
    """Find out what a file is and adopt it.

    Raises:
        HermesError: it is damaged, cannot be read, or cannot be linked.
    """
    from hermes_cli.store.adopt import adopt  # noqa: PLC0415 - as above
    from hermes_cli.store.identify import identify  # noqa: PLC0415
    from hermes_cli.store.known import known_files  # noqa: PLC0415
    from hermes_cli.store.verification import ChangedError, sha256_of  # noqa: PLC0415

    try:
        with console.working(f"reading {candidate.files[0].name}"):
            identity = identify(candidate, catalogue, list(known_files(catalogue)), sha256_of)
        return adopt(candidate, identity, copy=copy, pretend=dry_run)
    except ChangedError:
        raise HermesError(f"{candidate.files[0]} changed while it was read.", hint="wait until it is whole.") from None
    except OSError as error:
        raise HermesError(
            f"{candidate.files[0]} cannot be read: {error.strerror or error}.", hint="check who owns it."
        ) from None


def _show(adopted: list[Adopted], skipped: list[Skipped], console: Console, *, dry_run: bool) -> None:
    from hermes_cli.commands.units import gigabytes  # noqa: PLC0415 - as above
    from hermes_cli.store.identify import SAID  # noqa: PLC0415

    if adopted:
        rows = [
            (one.name, gigabytes(one.bytes), one.how or "not yet", SAID[one.identity.sureness], str(one.paths[0]))
            for one in adopted
        ]
        console.table(TITLES, rows, right=("SIZE",))
    for left in skipped:
        console.warn(f"left out: {left.path}: {left.reason}")
    if any(one.how == "symbolic link" for one in adopted):
        console.note("a symbolic link needs its original: if that goes, so does the model here")
    console.document(
        {
            "imported": [_document(one) for one in adopted],
            "skipped": [{"path": str(one.path), "reason": one.reason} for one in skipped],
            "dry_run": dry_run,
        }
    )
    if not adopted:
        raise NotFoundError("nothing was imported.", hint="give the path of a model in GGUF format.")


def _document(one: Adopted) -> dict[str, object]:
    identity = one.identity
    return {
        "name": one.name,
        "model": identity.model.short if identity.model else None,
        "quantization": identity.quantization,
        "identified_by": identity.sureness,
        "repository": identity.known[0].repo if identity.known else None,
        "how": one.how,
        "bytes": one.bytes,
        "originals": [str(path) for path in one.originals],
        "paths": [str(path) for path in one.paths],
    }
