"""Every model file that is on this disk: in the Hub's cache, whoever fetched it, and among the imported ones.

Nothing is read but names and links, so this is quick however large the files are.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from hermes_cli.catalog.overlay import PART, SHARD
from hermes_cli.catalog.quantizations import quantization_in_file_name
from hermes_cli.store import cache, disk, imported, verified
from hermes_cli.store.known import known_files

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from hermes_cli.catalog.models import CatalogModel, Catalogue

State = Literal["verified", "unverified", "damaged", "incomplete"]

_MODEL = re.compile(r"\.gguf(\.part\d+of\d+)?$", re.IGNORECASE)


@dataclass(frozen=True)
class LocalFile:
    """One file of a model.

    Attributes:
        names: its paths in the revisions of its repository, preferred one first; or its path among the imported files.
        content: what these names link to first; the same as the name where there are no links.
        inside: its path within the repository, or its name.
        sha256: what the Hub says it hashes to, if that is known.
    """

    names: tuple[Path, ...]
    content: Path
    inside: str
    sha256: str | None = None

    @property
    def path(self) -> Path:
        """The name to open it by."""
        return self.names[0]

    @property
    def bytes(self) -> int | None:
        """Its length, None if it is gone."""
        try:
            return self.path.stat().st_size
        except OSError:
            return None


@dataclass(frozen=True)
class Installed:
    """A model on this disk, all its shards or parts together.

    Attributes:
        name: what to type for it; no two have the same, unless they are the same file in different revisions.
        files: those that are here, in order.
        count: how many there should be.
        repo: where on the Hub it is from; None if it was imported.
        revisions: the commits of that repository that have it.
        model: the model of the catalogue, None if it is none.
        quantization: as its name says.
    """

    name: str
    files: tuple[LocalFile, ...]
    count: int
    repo: str | None
    revisions: tuple[str, ...]
    model: CatalogModel | None
    quantization: str | None

    @property
    def file(self) -> str:
        """The first file's path within the repository, or its name."""
        return self.files[0].inside

    @property
    def path(self) -> Path:
        """The first file, which llama.cpp opens."""
        return self.files[0].path

    @property
    def present(self) -> int:
        """How many of its files are really here, behind their names."""
        return sum(one.bytes is not None for one in self.files)

    @property
    def bytes(self) -> int:
        """The lengths of its files together."""
        return sum(one.bytes or 0 for one in self.files)

    @property
    def absent(self) -> tuple[LocalFile, ...]:
        """The shards or parts that have no name here at all."""
        first = self.files[0]
        here = {file.inside for file in self.files}
        folders = [name.parents[first.inside.count("/")] for name in first.names]
        expected = [name for name in _siblings(first.inside, self.count) if name not in here]
        files = (tuple(folder / name for folder in folders) for name in expected)
        return tuple(LocalFile(names, names[0], inside) for names, inside in zip(files, expected, strict=True))

    @property
    def state(self) -> State:
        """Whether its files are all here, and whether they were hashed since they last changed and were right."""
        if self.present < self.count:
            return "incomplete"
        found = [(verified.known(one.path), one.sha256) for one in self.files]
        if any(hashed and stated and hashed != stated for hashed, stated in found):
            return "damaged"
        return "verified" if all(hashed and hashed == stated for hashed, stated in found) else "unverified"


@dataclass(frozen=True)
class _Group:
    """Files in one folder that belong together; `whole` is the name without the number of the shard or part."""

    whole: str
    count: int
    files: tuple[LocalFile, ...]


def inventory(catalogue: Catalogue) -> list[Installed]:
    """Everything that is here, by name."""
    quantizations = frozenset(catalogue.quantizations)
    files = list(known_files(catalogue))
    variants = {
        (one.repo.lower(), name): one.variant for one in files for name in {one.path, *cache.loadable([one.path])}
    }
    hashes = {(one.repo.lower(), one.path): one.sha256 for one in files if one.sha256}
    found = []
    for repo in cache.repositories():
        for group, revisions in _in_repository(repo, hashes):
            variant = variants.get((repo.lower(), group.files[0].inside))
            found.append(
                Installed(
                    name="",
                    files=group.files,
                    count=group.count,
                    repo=repo,
                    revisions=revisions,
                    model=variant.model if variant else None,
                    quantization=variant.quantization
                    if variant
                    else quantization_in_file_name(group.whole, quantizations),
                )
            )
    found += _imported(catalogue, quantizations, frozenset(hashes.values()))
    return sorted(_named(found), key=lambda one: (one.name, one.file, one.revisions))


def _in_repository(repo: str, hashes: Mapping[tuple[str, str], str]) -> Iterator[tuple[_Group, tuple[str, ...]]]:
    """The models of a repository, each with the revisions in which it is the same."""
    merged: dict[tuple[str, tuple[Path, ...]], tuple[_Group, tuple[str, ...]]] = {}
    for snapshot in cache.snapshots(repo):
        for group in _groups(_files_in(snapshot, snapshot)):
            key = group.files[0].inside, tuple(one.content for one in group.files)
            if key in merged:
                known, revisions = merged[key]
                pairs = zip(known.files, group.files, strict=True)
                files = tuple(replace(old, names=old.names + new.names) for old, new in pairs)
                merged[key] = replace(known, files=files), (*revisions, snapshot.name)
            else:
                merged[key] = group, (snapshot.name,)
    for group, revisions in merged.values():
        stated = tuple(
            replace(one, sha256=cache.stated_sha256(one.content) or hashes.get((repo.lower(), one.inside)))
            for one in group.files
        )
        yield replace(group, files=stated), revisions


def _imported(catalogue: Catalogue, quantizations: frozenset[str], hashes: frozenset[str]) -> Iterator[Installed]:
    models = {model.id: model for model in catalogue.models}
    for model_id, quantization, folder in imported.folders():
        for group in _groups(_files_in(folder, folder)):
            # Nothing says which file of the Hub this is, but if it hashed to one of them, it is that one.
            found = {one: verified.known(one.path) for one in group.files}
            files = tuple(replace(one, sha256=found[one] if found[one] in hashes else None) for one in group.files)
            yield Installed(
                name="",
                files=files,
                count=group.count,
                repo=None,
                revisions=(),
                model=models.get(model_id or ""),
                quantization=quantization or quantization_in_file_name(group.whole, quantizations),
            )


def _files_in(folder: Path, root: Path) -> Iterator[LocalFile]:
    """The model files below a folder, by name. Links that lead nowhere are among them: their names are still there."""
    for path in disk.files_below(folder):
        if _MODEL.search(path.name):
            yield LocalFile((path,), cache.content(path), path.relative_to(root).as_posix())


def _groups(files: Iterable[LocalFile]) -> list[_Group]:
    """Shards and raw parts put together; all other files are alone."""
    groups: dict[tuple[str, int], list[LocalFile]] = {}
    for file in files:
        match = SHARD.search(file.inside) or PART.search(file.inside)
        count = int(match[2]) if match else 1
        groups.setdefault((whole_name(file.inside), count), []).append(file)
    return [_Group(whole, max(count, len(found)), tuple(found)) for (whole, count), found in groups.items()]


def whole_name(name: str) -> str:
    """A file's name without the number of the shard or part."""
    return PART.sub(".gguf", SHARD.sub(".gguf", name))


def _siblings(name: str, count: int) -> list[str]:
    """The names of all shards or parts, given one of them."""
    if SHARD.search(name):
        return [SHARD.sub(f"-{number:05}-of-{count:05}.gguf", name) for number in range(1, count + 1)]
    if PART.search(name):
        return [PART.sub(f".gguf.part{number}of{count}", name) for number in range(1, count + 1)]
    return [name]


def _named(found: list[Installed]) -> Iterator[Installed]:
    """Each with the shortest name that means this file alone, in whichever revision."""
    names = [_short_name(one) for one in found]
    for longer in (_repository_name, _file_name):
        often = Counter(
            name for name, _, _ in {(name, one.repo, one.file) for name, one in zip(names, found, strict=True)}
        )
        names = [longer(one) if often[name] > 1 else name for name, one in zip(names, found, strict=True)]
    return (replace(one, name=name) for name, one in zip(names, found, strict=True))


def _short_name(one: Installed) -> str:
    if one.model and one.quantization:
        return f"{one.model.short}:{one.quantization}"
    return _repository_name(one)


def _repository_name(one: Installed) -> str:
    return f"{one.repo}:{one.quantization}" if one.repo and one.quantization else _file_name(one)


def _file_name(one: Installed) -> str:
    return f"hf.co/{one.repo}/blob/main/{one.file}" if one.repo else one.file
