"""Handing a model of the library to other programs, by links in the layout that each expects."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hermes_cli.catalog.overlay import SHARD
from hermes_cli.errors import HermesError, NotFoundError
from hermes_cli.gguf.header import read_header
from hermes_cli.store import links
from hermes_cli.store.modelfile import modelfile
from hermes_cli.store.other_tools import lm_studio_models

if TYPE_CHECKING:
    from pathlib import Path

    from hermes_cli.catalog.models import CatalogModel
    from hermes_cli.store.links import How

MODELFILE = "Modelfile"
IMPORTED = "imported"  # stands for the owner, in LM Studio's layout, of files that are from nowhere on the Hub

_REPO = re.compile(r"^([A-Za-z0-9][\w.-]*)/([A-Za-z0-9][\w.-]*)$")
_OTHER = re.compile(r"[^a-z0-9._-]+")


@dataclass(frozen=True)
class Source:
    """A model to hand over.

    Attributes:
        name: what it is called.
        files: all its shards, in order.
        repo: where on the Hub it is from, None if from nowhere.
        model: of the catalogue, None if it is none.
    """

    name: str
    files: tuple[Path, ...]
    repo: str | None
    model: CatalogModel | None


@dataclass(frozen=True)
class Exported:
    """What was made: `files` and how each came to be, and the Modelfile if there is one."""

    folder: Path
    files: tuple[tuple[Path, How], ...]
    modelfile: Path | None = None


def shards(path: Path) -> tuple[Path, ...]:
    """All files of the model that begins with this one.

    Raises:
        InvalidGGUFError: it is no GGUF.
        NotFoundError: a shard is missing.
    """
    split = read_header(path).split
    if split is None:
        return (path,)
    names = (SHARD.sub(f"-{number:05}-of-{split.count:05}.gguf", path.name) for number in range(1, split.count + 1))
    files = tuple(path.with_name(name) for name in names)
    missing = [one.name for one in files if not one.is_file()]
    if missing:
        raise NotFoundError(
            f"{path.name} has {split.count} shards, and {', '.join(missing[:3])} is missing.",
            hint="see what is here: hermes list --installed",
        )
    return files


def to_folder(source: Source, folder: Path, *, copy: bool) -> Exported:
    """Link all files into a folder, under their own names.

    Raises:
        HermesError: another file of such a name is there, or it cannot be written.
    """
    targets = [folder / path.name for path in source.files]
    hows = [links.place(path, target, copy=copy) for path, target in zip(source.files, targets, strict=True)]
    return Exported(folder, tuple(zip(targets, hows, strict=True)))


def to_lm_studio(source: Source, models: Path | None, *, copy: bool) -> Exported:
    """Link all files into LM Studio's folder of models, or into another one of its layout: OWNER/REPOSITORY/FILE.

    Raises:
        HermesError: as `to_folder`.
    """
    known = source.repo and _REPO.match(source.repo)
    owner, name = (known[1], known[2]) if known else (IMPORTED, plain_name(source.files[0].stem))
    return to_folder(source, (models or lm_studio_models()) / owner / name, copy=copy)


def to_ollama(source: Source, folder: Path, context: int | None, *, copy: bool) -> Exported:
    """Link all files into a folder and write the Modelfile that `ollama create` reads.

    Raises:
        HermesError: as `to_folder`; or there is a Modelfile that says something else.
    """
    target = folder / MODELFILE
    text = modelfile([path.name for path in source.files], source.model, context)
    if target.exists() and _read(target) != text:
        raise HermesError(f"there is another file {target}.", hint="choose another folder: --into FOLDER")
    exported = to_folder(source, folder, copy=copy)
    with links.making(target):
        target.write_text(text, encoding="utf-8")
    return Exported(folder, exported.files, target)


def plain_name(name: str) -> str:
    """A name that can be a folder, and a model of Ollama's, anywhere: `hermes-3:8b:Q4_K_M` -> `hermes-3-8b-q4_k_m`."""
    return _OTHER.sub("-", name.lower()).strip("-._") or "model"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""
