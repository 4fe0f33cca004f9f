"""The catalogue overlay: file lists from the Hub that `hermes catalog refresh` keeps in the data folder.

The shipped file is never changed. The overlay holds, for each repository, what the Hub stated about its GGUF files;
where it speaks of a file it is newer than the catalogue and wins.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from hermes_cli import paths
from hermes_cli.catalog.models import CatalogEntry, Catalogue, GgufFile, Repository
from hermes_cli.catalog.variants import quantization_in_file_name
from hermes_cli.errors import HermesError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")
PART = re.compile(r"\.gguf\.part(\d+)of(\d+)$")


class HubFile(CatalogEntry, frozen=True):
    """One file as the Hub states it; `path` within the repository."""

    path: str
    bytes: int
    sha256: str | None = None


class HubRepository(CatalogEntry, frozen=True):
    """GGUF files of one repository at one revision; `fetched` is a date, YYYY-MM-DD."""

    revision: str
    fetched: str
    files: tuple[HubFile, ...]


Overlay = dict[str, HubRepository]


def read_overlay() -> Overlay:
    """Return the overlay; empty if there is none or it cannot be read."""
    try:
        return msgspec.json.decode(paths.catalog_overlay().read_bytes(), type=Overlay)
    except (OSError, msgspec.MsgspecError):
        return {}


def write_overlay(overlay: Overlay) -> Path:
    """Keep an overlay, whole or not at all; returns where.

    Raises:
        HermesError: the data folder cannot be written.
    """
    path = paths.catalog_overlay()
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(overlay)))
        temporary.replace(path)
    except OSError as error:
        raise HermesError(
            f"{path} cannot be written: {error.strerror}.", hint="choose another folder with HERMES_LLM_DATA_DIR."
        ) from None
    return path


def merged(catalogue: Catalogue, overlay: Overlay) -> Catalogue:
    """The catalogue with the Hub's files in place of what it says about the same repositories."""
    if not overlay:
        return catalogue
    names = frozenset(catalogue.quantizations)
    models = tuple(
        replace(model, gguf=tuple(_refreshed(one, overlay.get(one.repo), names) for one in model.gguf))
        for model in catalogue.models
    )
    return replace(catalogue, models=models)


def _refreshed(repository: Repository, hub: HubRepository | None, names: frozenset[str]) -> Repository:
    if hub is None:
        return repository
    entries = dict(_entries(hub.files, names))
    return replace(repository, revision=hub.revision, complete=True, quantizations=entries, note="")


def _entries(files: Iterable[HubFile], names: frozenset[str]) -> Iterable[tuple[str, GgufFile]]:
    """A quantization for each file or group of shards or parts whose name says which it is; the rest is left out."""
    groups: dict[tuple[str, str], list[HubFile]] = {}
    for file in files:
        folder, _, name = file.path.rpartition("/")
        whole = PART.sub(".gguf", SHARD.sub(".gguf", name))
        groups.setdefault((folder, whole), []).append(file)
    for (folder, whole), pieces in sorted(groups.items()):
        quantization = quantization_in_file_name(whole, names)
        if quantization is None or not whole.endswith(".gguf"):
            continue
        shards = sum(1 for piece in pieces if SHARD.search(piece.path))
        parts = sum(1 for piece in pieces if PART.search(piece.path))
        yield (
            quantization,
            GgufFile(
                file=whole,
                bytes=sum(piece.bytes for piece in pieces),
                sha256=pieces[0].sha256 if len(pieces) == 1 else None,
                shards=shards if shards > 1 else None,
                parts=parts if parts > 1 else None,
                folder=folder or None,
            ),
        )
