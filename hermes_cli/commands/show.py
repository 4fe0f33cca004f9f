"""`hermes show`: one page about a model of the catalogue, a file, or a repository on the Hub."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from hermes_cli.catalog.load import load_catalogue
from hermes_cli.catalog.names import CatalogueReference, HubReference, ModelNames
from hermes_cli.catalog.variants import normalize_name, quantization_in_file_name
from hermes_cli.commands import file_page, model_page
from hermes_cli.commands.options import JsonOption, NoColorOption, QuietOption, console_for
from hermes_cli.errors import NotFoundError
from hermes_cli.gguf.header import read_header
from hermes_cli.store.library import find

if TYPE_CHECKING:
    from hermes_cli.catalog.models import Catalogue
    from hermes_cli.catalog.overlay import HubFile
    from hermes_cli.console import Console


def command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A model, a file.gguf, or owner/repository on the Hub.")],
    json: JsonOption = False,
    quiet: QuietOption = False,
    no_color: NoColorOption = False,
) -> None:
    """Show everything about one model, a file or a repository.

    Of a repository that is not in the catalogue only the list of files and the header of one are fetched, a few MB.
    """
    console = console_for(json=json, quiet=quiet, no_color=no_color)
    catalogue = load_catalogue()
    reference = ModelNames(catalogue).parse(name)
    if isinstance(reference, CatalogueReference):
        model_page.show(reference, catalogue, console)
    elif isinstance(reference, HubReference):
        _show_repository(reference, catalogue, console)
    else:
        file = find(reference, catalogue)
        header = read_header(file.path, ("tokenizer.ggml.tokens",))  # by which a template of another model is noticed
        file_page.show(file.name, header, console)
        console.document({"name": file.name, "path": str(file.path), **file_page.document(header)})


def _show_repository(wanted: HubReference, catalogue: Catalogue, console: Console) -> None:
    """Show the files of a repository that is not in the catalogue, and the header of one of them."""
    with console.working(f"asking the Hub about {wanted.repo}"):
        from hermes_cli.store import hub  # noqa: PLC0415 - huggingface_hub

        listing = hub.list_gguf_files(wanted.repo)
        names = frozenset(catalogue.quantizations)
        file = _choose_file(wanted, list(listing.files), names)
        header, fetched = hub.read_remote_header(wanted.repo, file, listing.revision)
    file_page.show(f"{wanted.repo}/{file.path}", header, console)
    file_page.show_files(listing, names, console)
    console.note(f"read {fetched:,} bytes of its header; nothing else was fetched")
    document: dict[str, Any] = {
        "name": wanted.repo,
        "revision": listing.revision,
        "files": [
            {
                "path": file.path,
                "bytes": file.bytes,
                "sha256": file.sha256,
                "quantization": quantization_in_file_name(file.path.rpartition("/")[2], names),
            }
            for file in listing.files
        ],
        "file": file.path,
        **file_page.document(header),
    }
    console.document(document)


def _choose_file(wanted: HubReference, files: list[HubFile], names: frozenset[str]) -> HubFile:
    """Return the file whose header is shown: the named one, or Q4_K_M, or the first."""
    if not files:
        raise NotFoundError(f"{wanted.repo} has no GGUF files.", hint="look for a repository whose name ends in -GGUF.")
    if wanted.file:
        matching = [file for file in files if file.path == wanted.file]
    else:
        typed = normalize_name(wanted.quantization or "")
        matching = [
            file
            for file in files
            if normalize_name(quantization_in_file_name(file.path.rpartition("/")[2], names) or "") == typed
        ]
    if matching:
        return matching[0]
    if wanted.file or wanted.quantization:
        known = ", ".join(file.path for file in files[:8])
        raise NotFoundError(f"{wanted.repo} has no {wanted.file or wanted.quantization}.", hint=f"it has: {known}")
    usual = (file for file in files if quantization_in_file_name(file.path.rpartition("/")[2], names) == "Q4_K_M")
    return next(usual, files[0])
