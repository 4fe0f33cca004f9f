"""The catalogue as objects: the shipped catalog.yaml, and over it what `hermes catalog refresh` learned from the Hub.

Reading YAML takes longer than everything else that `hermes list` does, so the result is kept as JSON in the cache
folder, under a name that is the hash of the YAML text: an edited catalogue has another name and is read anew.

The overlay lies in the data folder; the shipped file is never changed. It holds, for each repository, what the Hub
stated about its GGUF files; where it speaks of a file it is newer than the catalogue and wins.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from hermes_cli import paths
from hermes_cli.catalog.file_names import SHARD, UNCOUNTED_PART, base_name, models_in, why_not_loaded
from hermes_cli.catalog.models import CatalogEntry, Catalogue, GgufFile, Repository
from hermes_cli.catalog.variants import variants
from hermes_cli.errors import HermesError

if TYPE_CHECKING:
    import yaml


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


@lru_cache(maxsize=1)
def load_catalogue() -> Catalogue:
    """Return the shipped catalogue, with the overlay laid over it.

    Raises:
        HermesError: catalog.yaml is missing or faulty.
    """
    return merged(shipped_catalogue(), read_overlay())


def shipped_catalogue() -> Catalogue:
    """Return the catalogue as it ships; raise HermesError if catalog.yaml is missing or faulty."""
    path = paths.catalog()
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise HermesError(
            f"the catalogue {path} cannot be read: {error.strerror}.",
            hint="install hermes again: pip install --force-reinstall --no-deps hermes-llm",
        ) from None
    compiled = paths.cache_dir() / f"catalog-{hashlib.sha256(raw).hexdigest()[:32]}.json"
    try:
        return msgspec.json.decode(compiled.read_bytes(), type=Catalogue)
    except (OSError, msgspec.MsgspecError):
        pass  # not compiled yet, or by another version of hermes
    try:
        catalogue = read_yaml(raw.decode("utf-8"))
    except (ValueError, msgspec.ValidationError) as error:
        raise HermesError(
            f"the catalogue {path} is faulty: {error}.",
            hint=f"see every fault by line: hermes catalog check {shlex.quote(str(path))}",
        ) from None
    _keep(compiled, msgspec.json.encode(catalogue))
    return catalogue


def _keep(path: Path, content: bytes) -> None:
    """Write the compiled catalogue whole or not at all; a cache that cannot be written is no reason to fail."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for old in path.parent.glob("catalog-*.json"):
            old.unlink(missing_ok=True)
        paths.write_data(path, content)
    except OSError:
        return


def read_yaml(text: str) -> Catalogue:
    """Return a catalogue from YAML text.

    Raises:
        ValueError: not YAML.
        msgspec.ValidationError: a key is missing, unknown, or of the wrong type.
    """
    import yaml  # noqa: PLC0415 - 20 ms, and a compiled catalogue does without

    try:
        return msgspec.convert(yaml.load(text, Loader=yaml_loader()), Catalogue)  # noqa: S506 - a safe loader
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


@lru_cache(maxsize=1)
def yaml_loader() -> type[yaml.SafeLoader]:
    """Return a safe loader that leaves dates as text; the fast one of libyaml where it is installed."""
    import yaml  # noqa: PLC0415 - as above

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        pass

    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    return Loader


def read_overlay() -> Overlay:
    """Return the overlay; empty if there is none or it cannot be read."""
    try:
        return msgspec.json.decode(paths.catalog_overlay().read_bytes(), type=Overlay)
    except (OSError, msgspec.MsgspecError):
        return {}


def write_overlay(overlay: Overlay) -> Path:
    """Keep an overlay, whole or not at all, and return its path.

    Raise HermesError if the data folder cannot be written.
    """
    path = paths.catalog_overlay()
    try:
        paths.write_data(path, msgspec.json.format(msgspec.json.encode(overlay)))
    except OSError as error:
        raise HermesError(
            f"{path} cannot be written: {error.strerror}.", hint="choose another folder with HERMES_LLM_DATA_DIR."
        ) from None
    return path


def merged(catalogue: Catalogue, overlay: Overlay) -> Catalogue:
    """Return the catalogue with the Hub's files in place of its own for the same repositories."""
    if not overlay:
        return catalogue

    def refreshed(repository: Repository) -> Repository:
        hub = overlay.get(repository.repo)
        if hub is None:
            return repository
        entries = _entries(hub, listed.get(repository.repo, {}))
        return replace(repository, revision=hub.revision, complete=True, quantizations=entries, note="")

    listed = {
        repository.repo: {
            variant.quantization: variant.files for variant in variants(model) if variant.repository is repository
        }
        for model in catalogue.models
        for repository in model.gguf
    }
    models = tuple(replace(model, gguf=tuple(map(refreshed, model.gguf))) for model in catalogue.models)
    return replace(catalogue, models=models)


def _entries(hub: HubRepository, listed: Mapping[str, tuple[str, ...]]) -> dict[str, GgufFile]:
    """Return an entry for each quantization that llama.cpp loads; files whose names say none are left out.

    `listed` are the files that the catalogue names, by quantization: a name goes on to mean them while they are there,
    and only files of the same model come beside them.
    """
    by_path = {file.path: file for file in hub.files}
    models = [model for model in models_in(by_path)[0] if model.quantization and model.is_complete]
    models = [model for model in models if why_not_loaded(model.quantization) is None]
    models = [model for model in models if not UNCOUNTED_PART.search(model.first)]
    known = {path for paths in listed.values() for path in paths}
    titles = {model.title for model in models if model.first in known}
    entries: dict[str, GgufFile] = {}
    for model in sorted(models, key=lambda model: (model.first not in known, base_name(model.first))):
        quantization = next((name for name, paths in listed.items() if model.first in paths), model.quantization or "")
        if not titles or model.title in titles or model.first in known:
            entries.setdefault(quantization, _entry([by_path[path] for path in model.paths]))
    return entries


def _entry(files: Sequence[HubFile]) -> GgufFile:
    folder, _, name = base_name(files[0].path).rpartition("/")
    count = len(files) if len(files) > 1 else None
    is_split = SHARD.search(files[0].path) is not None
    return GgufFile(
        file=name,
        bytes=sum(file.bytes for file in files),
        sha256=None if count else files[0].sha256,
        shards=count if is_split else None,
        parts=None if is_split else count,
        folder=folder or None,
    )
