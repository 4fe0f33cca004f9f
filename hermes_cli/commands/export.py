"""`hermes export`: give a model to another program, without a second copy."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hermes_cli.catalog.models import Catalogue
from hermes_cli.commands.completing import local_models, one_of
from hermes_cli.commands.options import CONTEXT, argument, with_console
from hermes_cli.console import Console, Voice
from hermes_cli.errors import UsageError

if TYPE_CHECKING:
    from hermes_cli.store.export import Exported, ExportSource


@with_console
def command(
    console: Console,
    name: Annotated[str, argument("NAME", "A model that is on this machine, or the path of a file.", local_models)],
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="ollama|lmstudio|DIR",
            help="A program, or a folder.",
            show_default=False,
            autocompletion=one_of("ollama", "lmstudio"),
        ),
    ],
    into: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Ollama: the folder to make. LM Studio: its folder of models, if not the usual one."
        ),
    ] = None,
    context: Annotated[
        int | None,
        typer.Option(**CONTEXT, help="Ollama: context length in tokens. Default: at most 16384."),
    ] = None,
    copy: Annotated[bool, typer.Option("--copy", help="Copy the files instead of linking to them.")] = False,
) -> None:
    """Give a model to another program by links.

    ollama: a folder with the file and a Modelfile: prompt format, stop texts, sampling. Prints the command that makes
    the model; Ollama then keeps a copy of its own. lmstudio: into its folder of models. DIR: all files of the model,
    under their names.
    """
    plain_name = re.sub(r"[\s_-]", "", to).lower()
    program = plain_name if plain_name in {"ollama", "lmstudio"} else None
    if program is None and into is not None:
        raise UsageError("--into goes with --to ollama or --to lmstudio.", hint="say where with --to alone: --to DIR")
    if program != "ollama" and context is not None:
        raise UsageError("--context goes with --to ollama.", hint="leave it out: the other programs have their own.")

    from hermes_cli.catalog.load import load_catalogue
    from hermes_cli.store import export

    source = _source(name, load_catalogue())
    folder, create = into.expanduser() if into else None, None
    if program == "ollama":
        plain = export.plain_name(source.name)
        done = export.to_ollama(source, folder or Path(plain), context, copy=copy)
        create = shlex.join(["ollama", "create", plain, "-f", str(done.modelfile)])
    elif program == "lmstudio":
        done = export.to_lm_studio(source, folder, copy=copy)
    else:
        done = export.to_folder(source, Path(to).expanduser(), copy=copy)
    _show(source, done, create, console)


def _source(name: str, catalogue: Catalogue) -> ExportSource:
    """Return the files of a name, with their model of the catalogue and repository if known."""
    from hermes_cli.catalog.names import ModelNames
    from hermes_cli.store.export import ExportSource, shards
    from hermes_cli.store.inventory import inventory
    from hermes_cli.store.library import find

    file = find(ModelNames(catalogue).parse(name), catalogue)
    models = (model for model in inventory(catalogue) if any(file.path in part.paths for part in model.files))
    model = next(models, None)
    return ExportSource(file.name, shards(file.path), model.repo if model else None, model.model if model else None)


def _show(source: ExportSource, done: Exported, create: str | None, console: Console) -> None:
    rows: list[tuple[str, str]] = [(how, str(path)) for path, how in done.files]
    if done.modelfile:
        rows.append(("written", str(done.modelfile)))
    if console.voice is Voice.HUMAN:
        console.table(("HOW", "FILE"), rows)
    else:
        console.text("".join(f"{path}\n" for _, path in rows))
    if create:
        console.note("now type:")
        console.text(f"{create}\n")
    console.document(
        {
            "name": source.name,
            "model": source.model.short if source.model else None,
            "folder": str(done.folder),
            "files": [{"path": str(path), "how": how} for path, how in done.files],
            "modelfile": str(done.modelfile) if done.modelfile else None,
            "command": create,
        }
    )
