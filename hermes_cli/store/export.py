"""Export a model of the library to other programs, by links in the layout that each expects."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hermes_cli.errors import HermesError, NotFoundError
from hermes_cli.gguf.header import read_header
from hermes_cli.store.disk import link_errors, link_file
from hermes_cli.store.layout import sibling_names
from hermes_cli.store.ollama import modelfile
from hermes_cli.store.other_tools import lm_studio_models

if TYPE_CHECKING:
    from pathlib import Path

    from hermes_cli.catalog.models import CatalogModel
    from hermes_cli.store.disk import LinkKind

MODELFILE = "Modelfile"
IMPORTED = "imported"  # the owner, in LM Studio's layout, of files that are not from the Hub

_REPO = re.compile(r"^([A-Za-z0-9][\w.-]*)/([A-Za-z0-9][\w.-]*)$")
_OTHER = re.compile(r"[^a-z0-9._-]+")


@dataclass(frozen=True)
class ExportSource:
    """A model to export.

    Attributes:
        name: as a user types it.
        files: all its shards, in order.
        repo: its repository on the Hub, None if it has none.
        model: of the catalogue, None if it is not listed there.
    """

    name: str
    files: tuple[Path, ...]
    repo: str | None
    model: CatalogModel | None


@dataclass(frozen=True)
class Exported:
    """The files that were made, each with the kind of link, and the Modelfile if there is one."""

    folder: Path
    files: tuple[tuple[Path, LinkKind], ...]
    modelfile: Path | None = None


def shards(path: Path) -> tuple[Path, ...]:
    """Return all shards of the model that begins with this file.

    Raises:
        InvalidGGUFError: it is no GGUF.
        NotFoundError: a shard is missing.
    """
    split = read_header(path).split
    if split is None:
        return (path,)
    files = tuple(path.with_name(name) for name in sibling_names(path.name, split.count))
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise NotFoundError(
            f"{path.name} has {split.count} shards, and {', '.join(missing[:3])} is missing.",
            hint="see what is here: hermes list --installed",
        )
    return files


def to_folder(source: ExportSource, folder: Path, *, copy: bool) -> Exported:
    """Link all files into a folder, under their own names.

    Raises:
        HermesError: another file of such a name is there, or it cannot be written.
    """
    targets = [folder / path.name for path in source.files]
    kinds = [link_file(path, target, copy=copy) for path, target in zip(source.files, targets, strict=True)]
    return Exported(folder, tuple(zip(targets, kinds, strict=True)))


def to_lm_studio(source: ExportSource, models: Path | None, *, copy: bool) -> Exported:
    """Link all files into LM Studio's folder of models, or into another one of its layout: OWNER/REPOSITORY/FILE.

    Raises:
        HermesError: as `to_folder`.
    """
    match = source.repo and _REPO.match(source.repo)
    owner, name = (match[1], match[2]) if match else (IMPORTED, plain_name(source.files[0].stem))
    return to_folder(source, (models or lm_studio_models()) / owner / name, copy=copy)


def to_ollama(source: ExportSource, folder: Path, context: int | None, *, copy: bool) -> Exported:
    """Link all files into a folder and write the Modelfile that `ollama create` reads.

    Raises:
        HermesError: as `to_folder`; or there is another Modelfile.
    """
    target = folder / MODELFILE
    text = modelfile([path.name for path in source.files], source.model, context)
    if target.exists() and _read(target) != text:
        raise HermesError(f"there is another file {target}.", hint="choose another folder: --into FOLDER")
    exported = to_folder(source, folder, copy=copy)
    with link_errors(target):
        target.write_text(text, encoding="utf-8")
    return Exported(folder, exported.files, target)


def plain_name(name: str) -> str:
    """Return a name that is valid for a folder and for a model of Ollama: `hermes-3:8b` -> `hermes-3-8b`."""
    return _OTHER.sub("-", name.lower()).strip("-._") or "model"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""
