"""Models on this disk by name: the file to load for a name, and the installed models that a name selects.

The disk is the only record. Files lie in the Hub's own cache, so those that `hf download` or llama.cpp's `-hf` fetched
count, too, or in the folder of imported files.
"""

from __future__ import annotations

import hashlib
import math
import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from hermes_cli import paths
from hermes_cli.catalog.file_names import joined_name, matching_models, model_files, models_in, normalize_name
from hermes_cli.catalog.models import CatalogModel, Catalogue, DemoModel
from hermes_cli.catalog.names import (
    CatalogueReference,
    DemoReference,
    FileReference,
    HubReference,
    ModelNames,
    ModelReference,
    WeightsReference,
)
from hermes_cli.catalog.variants import Variant, default_variant, matching_variants, quantization_loss, variants
from hermes_cli.errors import IntegrityError, NotFoundError, NotInstalledError, UsageError
from hermes_cli.gguf.header import GGUFHeader, read_header
from hermes_cli.gguf.shards import read_model, shard_paths
from hermes_cli.store import layout
from hermes_cli.store.hashing import known_sha256
from hermes_cli.store.inventory import InstalledModel, inventory

LIST_HINT = "see what is here: hermes list --installed"


@dataclass(frozen=True)
class ModelFile:
    """A model on this disk: its name and its file (the first shard stands for all)."""

    name: str
    path: Path

    @cached_property
    def header(self) -> GGUFHeader:
        """The header of the file, read once; errors are those of `read_header`."""
        return read_header(self.path)

    @property
    def headers(self) -> Sequence[GGUFHeader]:
        """The headers of all shards; errors are those of `read_model`."""
        return read_model(self.path)[1] if self.header.split else [self.header]


def find(reference: ModelReference, catalogue: Catalogue) -> ModelFile:
    """Return the file to load for a name.

    Raises:
        NotFoundError: it is not on this disk; the hint says how to get it.
        UsageError: it is a directory, or a repository with several files.
        IntegrityError: not a GGUF, a damaged one, or a shipped file that was altered.
        AccessError: it, or the Hub's cache, may not be read.
    """
    match reference:
        case DemoReference():
            return _demo(catalogue.demo)
        case FileReference(path):
            return _at_path(path, catalogue)
        case CatalogueReference():
            return _of_catalogue(reference, catalogue)
        case HubReference():
            return _of_repository(reference, catalogue)
        case WeightsReference():
            raise for_other_engines(reference.name, reference.weights.model.short if reference.weights else "")


def for_other_engines(name: str, model: str = "") -> UsageError:
    """Return the error for safetensors, which llama.cpp does not load; `model` has files that it does."""
    instead = f", or take its GGUF file: hermes chat {model}" if model else ""
    return UsageError(
        f"{name} is for vLLM and SGLang: llama.cpp loads no safetensors.",
        hint=f"run it there: hermes chat {shlex.quote(name)} --engine vllm{instead}",
    )


def installed(variant: Variant) -> Path | None:
    """Return the first file of a variant in the Hub's cache, if all are there; raw parts count once they are joined."""
    return _first_file(variant, layout.snapshots(variant.repository.repo))


def _first_file(variant: Variant, snapshots: Sequence[Path]) -> Path | None:
    names = dict.fromkeys(map(joined_name, variant.files))
    for snapshot in snapshots:
        files = [snapshot / name for name in names]
        if all(map(os.path.isfile, files)):  # a folder that may not be entered has none; Path.is_file raises
            return files[0]
    return None


def installed_quantizations(model: CatalogModel) -> set[str]:
    """Return every quantization of a model that is here, from whichever repository, or imported."""
    offered = list(variants(model))
    snapshots = {repo: layout.snapshots(repo) for repo in {variant.repository.repo for variant in offered}}
    fetched = {variant.quantization for variant in offered if _first_file(variant, snapshots[variant.repository.repo])}
    return fetched | {quantization for quantization, _ in _imported(model)}


def known_variants(model: CatalogModel, quantization: str | None, repository: str | None) -> list[Variant]:
    """Return the variants of a model with this quantization and from this repository, in order of preference."""
    fitting = matching_variants(model, quantization=quantization, repository=repository)
    offered = dict.fromkeys(variant.quantization for variant in matching_variants(model, repository=repository))
    if not offered:
        raise NotFoundError(
            f"no GGUF files of {model.name} are known.",
            hint=f"convert {model.weights.original} yourself, or choose another model: hermes list",
        )
    if not fitting:
        raise NotFoundError(
            f"no {quantization} of {model.short} is known.", hint=f"choose one of: {', '.join(offered)}"
        )
    return fitting


def select(text: str, catalogue: Catalogue, models: Sequence[InstalledModel]) -> list[InstalledModel]:
    """Return those of the installed models that a name means, by any of their names.

    Raises:
        NotFoundError: none of them.
        UsageError: the name means no model, or one outside the library.
    """
    exact = [entry for entry in models if text in {entry.name, entry.file, entry.file.rpartition("/")[2]}]
    if exact:
        return exact
    plain = normalize_name(text)
    if alike := [entry for entry in models if plain and plain == normalize_name(entry.name.removesuffix(".gguf"))]:
        return alike
    try:
        reference, problem = ModelNames(catalogue).parse(text), f"{text} is not on this machine."
    except NotFoundError as error:
        raise NotFoundError(error.message, hint=LIST_HINT) from None
    match reference:
        case DemoReference():
            raise UsageError("the demo is part of hermes itself, not of the library.", hint=LIST_HINT)
        case FileReference(path):
            problem = f"{path} is not in the library of hermes."
            wanted = _absolute(path)
            selected = [
                entry
                for entry in models
                if any(wanted in map(_absolute, (*file.paths, file.blob)) for file in entry.files)
            ]
        case _:
            selected = named_by(reference, models)
    if not selected:
        raise NotFoundError(problem, hint=LIST_HINT)
    return selected


def select_one(text: str, catalogue: Catalogue, models: Sequence[InstalledModel]) -> list[InstalledModel]:
    """Return those that a name means, if they are all the same file, in whatever revisions."""
    selected = select(text, catalogue, models)
    names = list(dict.fromkeys(entry.name for entry in selected))
    if len(names) > 1:
        raise UsageError(f"{text} means {len(names)} models on this machine.", hint=f"say which: {', '.join(names)}")
    return selected


def _absolute(path: Path) -> str:
    return os.path.abspath(path)  # noqa: PTH100 - not resolved: a link is what may be meant


def named_by(
    reference: CatalogueReference | HubReference | WeightsReference, models: Sequence[InstalledModel]
) -> list[InstalledModel]:
    """Return those of the installed models that are of a model of the catalogue, or of a repository."""
    match reference:
        case WeightsReference(repo):
            return [entry for entry in models if entry.repo == repo and entry.is_weights]
        case CatalogueReference(model, quantization, repository):
            return [
                entry
                for entry in models
                if entry.model
                and not entry.is_weights
                and entry.model.id == model.id
                and quantization in {None, entry.quantization}
                and repository in {None, entry.repo}
            ]
        case _:
            return _by_repository(reference, models)


def _by_repository(name: HubReference, models: Sequence[InstalledModel]) -> list[InstalledModel]:
    of_repo = [entry for entry in models if entry.repo and entry.repo.lower() == name.repo.lower()]
    if name.file:
        return [entry for entry in of_repo if any(file.repo_path == name.file for file in entry.files)]
    if name.quantization is None:
        return of_repo
    by_first = {entry.file: model_files((entry.file,)) for entry in of_repo if not entry.is_weights}
    matching = {model.first for model in matching_models(by_first.values(), name.quantization)}
    return [entry for entry in of_repo if entry.file in matching]


def _demo(demo: DemoModel) -> ModelFile:
    path = paths.asset(demo.file)
    hint = "install hermes again: pip install --force-reinstall --no-deps hermes-llm"
    if not path.is_file():
        raise NotFoundError(f"the file of the demo, {path}, is missing.", hint=hint)
    if hashlib.sha256(path.read_bytes()).hexdigest() != demo.sha256:
        raise IntegrityError(f"{path} is not the file that shipped with hermes (its SHA-256 differs).", hint=hint)
    return ModelFile("demo", path)


def _at_path(path: Path, catalogue: Catalogue) -> ModelFile:
    """Return the file at a path, or else the installed file of this name."""
    if paths.is_dir(paths.readable(path)):
        files = sorted(path.glob("*.gguf"))
        if not files and any(path.glob("*.safetensors")):
            raise for_other_engines(str(path))
        hint = f"give a file: {files[0]}" if files else "give the path of a GGUF file; there is none in it."
        raise UsageError(f"{path} is a directory.", hint=hint)
    if not path.is_file():
        for model in inventory(catalogue):
            if _is_loadable(model) and model.file == path.as_posix():
                return _check(ModelFile(path.stem, model.path))
        raise NotFoundError(
            f"there is no file {path}.", hint="check the path, or list what is here: hermes list --installed"
        )
    file = ModelFile(path.stem, path)
    split = file.header.split
    if split and split.number > 1:
        first = shard_paths(path, split)[0]
        raise UsageError(f"{path} is shard {split.number} of {split.count}.", hint=f"give the first one: {first}")
    return file


def _is_loadable(model: InstalledModel) -> bool:
    return model.present == model.count and model.file.lower().endswith(".gguf")


def _check(file: ModelFile) -> ModelFile:
    """Return the file, unless it was hashed and found to be damaged; raise what is wrong with its header."""
    _ = file.header
    published, found = layout.published_sha256(layout.blob_of(file.path)), known_sha256(file.path)
    if published and found and published != found:
        raise IntegrityError(
            f"{file.name} is damaged: its SHA-256 is not the Hub's.",
            hint=f"fetch it again: hermes verify --repair {shlex.quote(file.path.name)}",
        )
    return file


def _of_catalogue(name: CatalogueReference, catalogue: Catalogue) -> ModelFile:
    model = name.model
    fitting = matching_variants(model, repository=name.repository, quantization=name.quantization)
    here = [
        (variant.loss(catalogue), variant.bytes or 0, variant.name, path)
        for variant in fitting
        if (path := installed(variant))
    ]
    if name.repository is None:
        here += [
            (quantization_loss(quantization, catalogue), path.stat().st_size, f"{model.short}:{quantization}", path)
            for quantization, path in _imported(model)
            if name.quantization in {None, quantization}
        ]
    if here:  # the one that loses least by its quantization; of equals the smaller
        _, _, label, path = min(here, key=lambda choice: (math.inf if choice[0] is None else choice[0], *choice[1:3]))
        return _check(ModelFile(label, path))
    paths.readable(paths.models_dir())
    fitting = known_variants(model, name.quantization, name.repository)
    example = (None if name.quantization or name.repository else default_variant(model)) or fitting[0]
    label = f"{name.repository}:{example.quantization}" if name.repository else example.name
    raise NotInstalledError(f"{model.short} is not on this machine.", pull=label)


def _imported(model: CatalogModel) -> Iterator[tuple[str, Path]]:
    """Yield quantization and first file of everything that was imported as this model."""
    for _, quantization, folder in layout.imported_folders(model.id):
        files = sorted(path for path in folder.glob("*.gguf") if path.is_file())
        if quantization and files:
            yield quantization, files[0]


def _of_repository(name: HubReference, catalogue: Catalogue) -> ModelFile:
    """Return the only file that fits, in the first revision that has any; that of `main` comes first."""
    models = _by_repository(name, [entry for entry in inventory(catalogue) if _is_loadable(entry)])
    if name.file is None:  # parts, such as the one that reads images, are meant only by their own names
        whole = {model.first for model in models_in(entry.file for entry in models)[0]}
        models = [entry for entry in models if entry.file in whole]
    for snapshot in layout.snapshots(models[0].repo or "") if models else ():
        fitting = [model for model in models if snapshot.name in model.revisions]
        if len(fitting) > 1:
            files = ", ".join(model.path.name for model in fitting)
            which = shlex.quote(f"{name.repo}/{fitting[0].file}")
            raise UsageError(f"{name.repo} has several files here: {files}.", hint=f"say which: {which}")
        if fitting:
            return _check(ModelFile(fitting[0].path.stem, fitting[0].path))
    wanted = name.file or name.quantization
    label = f"{name.repo}/{name.file}" if name.file else name.repo
    raise NotInstalledError(
        f"{f'{wanted} of ' if wanted else ''}{name.repo} is not on this machine.",
        pull=f"{label}{f':{name.quantization}' if name.quantization else ''}",
    )
