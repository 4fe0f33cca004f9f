"""Which models are on this disk. The disk is the only record: nothing is remembered elsewhere.

Files lie in the Hub's own cache, so what `hf download` or llama.cpp's `-hf` fetched counts, too; those that `hermes
import` adopted may lie in a folder of their own (imported.py). What is listed, checked or removed is in inventory.py.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hermes_cli import paths
from hermes_cli.catalog.names import CatalogueReference, DemoReference, FileReference, HubReference
from hermes_cli.catalog.quantizations import normalize_name, quantization_in_file_name
from hermes_cli.catalog.variants import Variant, default_variant, matching_variants, variants
from hermes_cli.errors import IntegrityError, NotFoundError, UsageError
from hermes_cli.gguf.header import read_header
from hermes_cli.store import cache, disk, imported, verified

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hermes_cli.catalog.models import CatalogModel, Catalogue, DemoModel
    from hermes_cli.catalog.names import ModelReference


@dataclass(frozen=True)
class ModelFile:
    """A model on this disk: what it is called and where it is (the first shard stands for all)."""

    name: str
    path: Path


def find(reference: ModelReference, catalogue: Catalogue) -> ModelFile:
    """The file that a name stands for.

    Raises:
        NotFoundError: it is not on this disk; the hint says how to get it.
        UsageError: it is a directory, or a repository with several files.
        IntegrityError: not a GGUF, a damaged one, or a shipped file that was altered.
    """
    match reference:
        case DemoReference():
            return _demo(catalogue.demo)
        case FileReference(path):
            return _file(path, catalogue)
        case CatalogueReference():
            return _of_catalogue(reference, catalogue)
        case HubReference():
            return _of_hub(reference, catalogue)


def installed(variant: Variant) -> Path | None:
    """The first file of a variant in the Hub's cache, if all its files are there; raw parts once they are joined."""
    for snapshot in cache.snapshots(variant.repository.repo):
        found = [snapshot / name for name in cache.loadable(variant.files)]
        if all(path.is_file() for path in found):
            return found[0]
    return None


def installed_quantizations(model: CatalogModel) -> set[str]:
    """Every quantization of a model that is here, from whichever repository, or imported."""
    fetched = {variant.quantization for variant in variants(model) if installed(variant)}
    return fetched | {quantization for quantization, _ in _imported(model)}


def _imported(model: CatalogModel) -> Iterator[tuple[str, Path]]:
    """Quantization and first file of everything that was imported as this model."""
    for _, quantization, folder in imported.folders(model.id):
        files = sorted(path for path in folder.glob("*.gguf") if path.is_file())
        if quantization and files:
            yield quantization, files[0]


def _demo(demo: DemoModel) -> ModelFile:
    path = paths.asset(demo.file)
    hint = "install hermes again: pip install --force-reinstall --no-deps hermes-llm"
    if not path.is_file():
        raise NotFoundError(f"the file of the demo, {path}, is missing.", hint=hint)
    if hashlib.sha256(path.read_bytes()).hexdigest() != demo.sha256:
        raise IntegrityError(f"{path} is not the file that shipped with hermes (its SHA-256 differs).", hint=hint)
    return ModelFile("demo", path)


def _file(path: Path, catalogue: Catalogue) -> ModelFile:
    if path.is_dir():
        files = sorted(path.glob("*.gguf"))
        hint = f"give a file: {files[0]}" if files else "give the path of a GGUF file; there is none in it."
        raise UsageError(f"{path} is a directory.", hint=hint)
    if not path.is_file():
        return _called(path, catalogue)
    split = read_header(path).split
    if split and split.number > 1:
        first = path.with_name(path.name.replace(f"-{split.number:05}-of-", "-00001-of-"))
        raise UsageError(f"{path} is shard {split.number} of {split.count}.", hint=f"give the first one: {first}")
    return ModelFile(path.stem, path)


def _called(path: Path, catalogue: Catalogue) -> ModelFile:
    """A file of the library, by its name alone."""
    from hermes_cli.store.inventory import inventory  # noqa: PLC0415 - most names need no look at everything

    found = [one for one in inventory(catalogue) if one.present == one.count and one.file == path.as_posix()]
    if not found:
        raise NotFoundError(
            f"there is no file {path}.", hint="check the path, or list what is here: hermes list --installed"
        )
    return _sound(ModelFile(path.stem, found[0].path))


def _sound(file: ModelFile) -> ModelFile:
    """The same, unless it was hashed and found to be damaged.

    Raises:
        IntegrityError: it is damaged, or no GGUF at all.
    """
    read_header(file.path)
    stated, found = cache.stated_sha256(cache.content(file.path)), verified.known(file.path)
    if stated and found and stated != found:
        raise IntegrityError(
            f"{file.name} is damaged: its SHA-256 is not the Hub's.",
            hint=f"fetch it again: hermes verify --repair {file.path.name}",
        )
    return file


def _of_catalogue(wanted: CatalogueReference, catalogue: Catalogue) -> ModelFile:
    model = wanted.model
    offered = matching_variants(model, repository=wanted.repository)
    fitting = matching_variants(model, repository=wanted.repository, quantization=wanted.quantization)
    here = [(one.loss(catalogue), one.bytes or 0, one.name, path) for one in fitting if (path := installed(one))]
    if wanted.repository is None:
        here += [
            (_loss(quantization, catalogue), path.stat().st_size, f"{model.short}:{quantization}", path)
            for quantization, path in _imported(model)
            if wanted.quantization in {None, quantization}
        ]
    if here:  # the one that loses least by its quantization; of equals the smaller
        _, _, name, path = min(here, key=lambda one: (math.inf if one[0] is None else one[0], *one[1:3]))
        return _sound(ModelFile(name, path))
    if not offered:
        raise NotFoundError(
            f"no GGUF files of {model.name} are known.",
            hint=f"convert {model.weights.original} yourself, or choose another model: hermes list",
        )
    if not fitting:
        known = ", ".join(dict.fromkeys(one.quantization for one in offered))
        raise NotFoundError(f"no {wanted.quantization} of {model.short} is known.", hint=f"choose one of: {known}")
    example = (None if wanted.quantization or wanted.repository else default_variant(model)) or fitting[0]
    name = f"{wanted.repository}:{example.quantization}" if wanted.repository else example.name
    raise NotFoundError(f"{model.short} is not on this machine.", hint=f"fetch it: hermes pull {name}")


def _loss(quantization: str, catalogue: Catalogue) -> float | None:
    """What a quantization loses, in nats, if nothing is known of how the file was made."""
    entry = catalogue.quantizations.get(quantization)
    if entry and entry.same_as:
        entry = catalogue.quantizations[entry.same_as]
    return entry.kl if entry else None


def _of_hub(wanted: HubReference, catalogue: Catalogue) -> ModelFile:
    found = next((files for files in _in_revisions(wanted, catalogue) if files), [])
    if not found:
        what = wanted.file or wanted.quantization
        raise NotFoundError(
            f"{f'{what} of ' if what else ''}{wanted.repo} is not on this machine.",
            hint=f"fetch it: hermes pull {wanted.repo}{f':{wanted.quantization}' if wanted.quantization else ''}",
        )
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise UsageError(f"{wanted.repo} has several files here: {names}.", hint=f"say which: {wanted.repo}:Q4_K_M")
    return _sound(ModelFile(found[0].stem, found[0]))


def _in_revisions(wanted: HubReference, catalogue: Catalogue) -> Iterator[list[Path]]:
    """What fits in each revision of a repository: files of one piece, and the first shards of others."""
    names = frozenset(catalogue.quantizations)
    for snapshot in cache.snapshots(wanted.repo):
        files = [path for path in disk.files_below(snapshot) if path.suffix == ".gguf" and path.is_file()]
        if wanted.file:
            files = [path for path in files if path == snapshot / wanted.file]
        elif wanted.quantization:
            files = [
                path
                for path in files
                if normalize_name(quantization_in_file_name(path.name, names) or "")
                == normalize_name(wanted.quantization)
            ]
        yield [path for path in files if "-of-" not in path.name or "-00001-of-" in path.name]
