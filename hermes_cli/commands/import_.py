"""`hermes import`: add files that are on this disk already to the library."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hermes_cli.catalog.models import Catalogue
from hermes_cli.commands.completing import one_of
from hermes_cli.commands.options import argument, with_console
from hermes_cli.console import Console
from hermes_cli.errors import AccessError, HermesError, NotFoundError

if TYPE_CHECKING:
    from hermes_cli.store.importing import ImportedModel
    from hermes_cli.store.other_tools import FoundModel, SkippedFile

TITLES = ("NAME", "SIZE", "HOW", "IDENTIFIED", "WHERE")


@with_console
def command(
    console: Console,
    path: Annotated[
        str,
        argument(
            "PATH",
            "A GGUF file, a folder of them, or `ollama` or `lmstudio` for what these have.",
            one_of("ollama", "lmstudio"),
        ),
    ],
    copy: Annotated[bool, typer.Option("--copy", help="Copy the files instead of linking to them.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show the models that would be imported.")] = False,
) -> None:
    """Import models that are on this disk already, by links: nothing is copied or moved.

    A file whose hash is known goes into the Hub's cache, where every tool finds it; all others are found by `hermes`,
    by their names in the catalogue if header and file name identify them, or else by their file names.
    """
    from hermes_cli.catalog.load import load_catalogue
    from hermes_cli.store.other_tools import FoundModel, SkippedFile

    found = _find(path)
    catalogue = load_catalogue()
    imported: list[ImportedModel] = []
    skipped = [file for file in found if isinstance(file, SkippedFile)]
    for model in (model for model in found if isinstance(model, FoundModel)):
        try:
            imported.append(_import(model, catalogue, console, copy=copy, dry_run=dry_run))
        except HermesError as error:
            if len(found) == 1:
                raise
            skipped.append(SkippedFile(model.files[0], error.message))
    _show(imported, skipped, console, dry_run=dry_run)


def _find(path: str) -> list[FoundModel | SkippedFile]:
    """Return the models in a file or folder, or in all folders of the program that `path` names."""
    from hermes_cli.store.other_tools import SkippedFile, find_models, lm_studio_models, ollama_models

    folders = [Path(path).expanduser()]
    if not os.path.lexists(folders[0]):
        if path.lower() == "ollama":
            folders = ollama_models()
        elif path.lower() == "lmstudio":
            folders = [lm_studio_models()]
        if path.lower() in {"ollama", "lmstudio"} and all(map(_is_missing, folders)):
            raise NotFoundError(
                f"there are no models of {path} here: {' and '.join(map(str, folders))} is missing.",
                hint="if they are in another folder, give its path: hermes import PATH",
            )
    found: list[FoundModel | SkippedFile] = []
    for folder in folders:
        try:
            found += find_models(folder)
        except AccessError as error:
            if len(folders) == 1:
                raise
            found.append(SkippedFile(folder, f"{error.message} {error.hint}"))
    if not found:
        searched = " or ".join(map(str, folders))
        raise NotFoundError(f"there is no GGUF file in {searched}.", hint="give the folder that holds the models.")
    return found


def _import(found: FoundModel, catalogue: Catalogue, console: Console, *, copy: bool, dry_run: bool) -> ImportedModel:
    """Identify a model and import it."""
    from hermes_cli.paths import access_error
    from hermes_cli.store.hashing import sha256_of
    from hermes_cli.store.importing import identify, import_model
    from hermes_cli.store.inventory import known_files

    try:
        with console.working(f"reading {found.files[0].name}"):  # hashes take minutes
            identity = identify(found, catalogue, list(known_files(catalogue)), sha256_of)
        return import_model(found, identity, copy=copy, dry_run=dry_run)
    except PermissionError as error:
        raise access_error(error.filename or found.files[0], error) from None
    except OSError as error:
        raise HermesError(
            f"{found.files[0]} cannot be read: {error.strerror or error}.", hint="check who owns it."
        ) from None


def _is_missing(folder: Path) -> bool:
    """Return whether a folder is not there; one that may not be seen is, as far as is known."""
    try:
        folder.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        pass
    return False


def _show(imported: list[ImportedModel], skipped: list[SkippedFile], console: Console, *, dry_run: bool) -> None:
    from hermes_cli.store.importing import EVIDENCE_TEXTS
    from hermes_cli.units import gigabytes

    if imported:
        rows = [
            (
                model.name,
                gigabytes(model.bytes),
                model.how or "not yet",
                EVIDENCE_TEXTS[model.identity.evidence],
                str(model.paths[0]),
            )
            for model in imported
        ]
        console.table(TITLES, rows, right=("SIZE",), optional=("WHERE",), prose="IDENTIFIED")
    for file in skipped:
        console.warn(f"left out: {file.reason}")
    if any(model.how == "symbolic link" for model in imported):
        console.note("a symbolic link needs its original: if that goes, so does the model here")
    console.document(
        {
            "imported": [
                {
                    "name": model.name,
                    "model": model.identity.model.short if model.identity.model else None,
                    "quantization": model.identity.quantization,
                    "identified_by": model.identity.evidence,
                    "repository": model.identity.known[0].repo if model.identity.known else None,
                    "how": model.how,
                    "bytes": model.bytes,
                    "originals": [str(path) for path in model.originals],
                    "paths": [str(path) for path in model.paths],
                }
                for model in imported
            ],
            "skipped": [{"path": str(file.path), "reason": file.reason} for file in skipped],
            "dry_run": dry_run,
        }
    )
    if not imported:
        raise NotFoundError("nothing was imported.", hint="give the path of a model in GGUF format.")
