"""GGUF files that other programs or people keep on this disk: plain folders, LM Studio's tree, Ollama's blobs.

Ollama: manifests/HOST/OWNER/MODEL/TAG are JSON, whose layer of the type `…image.model` names a blob by its digest
(github.com/ollama/ollama, manifest/). LM Studio: models/OWNER/REPOSITORY/FILE, as on the Hub (lmstudio.ai/docs, and
github.com/lmstudio-ai/lms, src/subcommands/importCmd.ts for where the folder is). Nothing here is trusted: what a
manifest or a header says never becomes a path.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hermes_cli import paths
from hermes_cli.catalog.overlay import SHARD
from hermes_cli.errors import HermesError, IntegrityError, NotFoundError, UsageError
from hermes_cli.gguf.header import read_header
from hermes_cli.store import disk, imported

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hermes_cli.gguf.header import GGUFHeader

LARGEST_MANIFEST = 1 << 20  # bytes; real ones have about 1 kB
MODEL_LAYER = "application/vnd.ollama.image.model"
HUB_HOSTS = ("hf.co", "huggingface.co")
NO_MODELS = {"mmproj", "adapter", "imatrix", "projector"}  # values of `general.type` that cannot be loaded alone

_DIGEST = re.compile(r"^sha256[:-]([0-9a-f]{64})$")
_UNSAFE = re.compile(r"[^\w.+@=-]+")


@dataclass(frozen=True)
class Candidate:
    """A model found elsewhere.

    Attributes:
        files: all its shards, in order; links are followed.
        names: the file names to give them, which are safe as such.
        claims: what its surroundings call it.
        repo: owner and repository, where it lies in a folder of LM Studio's kind.
        header: of the first file.
    """

    files: tuple[Path, ...]
    names: tuple[str, ...]
    claims: tuple[str, ...]
    repo: str
    header: GGUFHeader

    @property
    def bytes(self) -> int:
        """The lengths of its files together."""
        return sum(path.stat().st_size for path in self.files)


@dataclass(frozen=True)
class Skipped:
    """A file that was found and is not adopted, and why."""

    path: Path
    reason: str


def lm_studio_models() -> Path:
    """The folder of LM Studio's models, whether it exists or not."""
    home = Path.home()
    pointer = _first_line(home / ".lmstudio-home-pointer")
    places = (Path(pointer) if pointer else None, home / ".lmstudio", home / ".cache" / "lm-studio")
    there = next((place for place in places if place and place.is_dir()), home / ".lmstudio")
    chosen = _json(there / "settings.json").get("downloadsFolder")
    return Path(chosen) if isinstance(chosen, str) and chosen else there / "models"


def ollama_models() -> Path:
    """The folder of Ollama's manifests and blobs, whether it exists or not: its own, or that of its Linux service."""
    if chosen := os.environ.get("OLLAMA_MODELS"):
        return Path(chosen).expanduser()
    own, service = Path.home() / ".ollama" / "models", Path("/usr/share/ollama/.ollama/models")
    return service if not own.is_dir() and service.is_dir() else own


def look(path: Path) -> Iterator[Candidate | Skipped]:
    """Every model in a file or folder.

    Raises:
        NotFoundError: there is nothing at that path.
        HermesError: it is a single file, and no model that can be loaded.
    """
    if path.is_dir():
        tree = next((one for one in (path, path / "models") if (one / "manifests").is_dir()), None)
        yield from _in_ollama(tree) if tree else _in_folder(path)
    elif path.is_file():
        found = _candidate(path, path.name, (), strict=True)
        if isinstance(found, Skipped):
            raise UsageError(f"{path} {found.reason}.", hint="see what is here: hermes list --installed")
        yield found
    else:
        raise NotFoundError(
            f"there is nothing at {path}.", hint="give the path of a file or folder, or say ollama or lmstudio."
        )


def _in_folder(folder: Path) -> Iterator[Candidate | Skipped]:
    models = [path for path in disk.files_below(folder) if path.suffix.lower() == ".gguf"]
    firsts = {SHARD.sub(r"-of-\2", str(path)): path for path in reversed(models)}  # of shards, the first that is here
    for path in sorted(firsts.values()):
        yield _candidate(path, path.name, ())


def _in_ollama(tree: Path) -> Iterator[Candidate | Skipped]:
    """One candidate for each blob, however many tags it has; the longest says most about it."""
    tags: dict[str, list[str]] = {}
    for manifest in disk.files_below(tree / "manifests"):
        digests = list(_model_layers(manifest))
        tag = _tag(manifest.relative_to(tree / "manifests").parts)
        if tag and len(digests) == 1:
            tags.setdefault(digests[0], []).append(tag)
        else:
            yield Skipped(manifest, "names no GGUF file, or several")
    for digest, claims in tags.items():
        blob = tree / "blobs" / f"sha256-{digest}"
        best = max(claims, key=len)
        name = _UNSAFE.sub("-", best.removeprefix("hf.co/")).strip("-.") + ".gguf"
        yield (
            _candidate(blob, name, tuple(claims))
            if blob.is_file()
            else Skipped(blob, f"is gone, though {best} needs it")
        )


def _model_layers(manifest: Path) -> Iterator[str]:
    layers = _json(manifest).get("layers")
    for layer in layers if isinstance(layers, list) else ():
        digest = layer.get("digest") if isinstance(layer, dict) and layer.get("mediaType") == MODEL_LAYER else None
        if isinstance(digest, str) and (match := _DIGEST.match(digest)):
            yield match[1]


def _tag(parts: tuple[str, ...]) -> str | None:
    """`registry.ollama.ai/library/hermes3/8b` -> `hermes3:8b`; what Ollama fetched from the Hub -> `hf.co/…`."""
    if len(parts) != 4:  # noqa: PLR2004 - host, owner, model, tag
        return None
    host, owner, model, tag = parts
    if host in HUB_HOSTS:
        return f"hf.co/{owner}/{model}:{tag}"
    return f"{model}:{tag}" if owner == "library" else f"{owner}/{model}:{tag}"


def _candidate(path: Path, name: str, claims: tuple[str, ...], *, strict: bool = False) -> Candidate | Skipped:
    """The model that begins with this file. With `strict`, what is wrong with it is raised instead of told."""
    from hermes_cli.store.hub import is_safe  # noqa: PLC0415 - huggingface_hub, only when importing

    if any(root.resolve() in path.resolve().parents for root in (paths.models_dir(), imported.root())):
        return Skipped(path, "is in the library already")
    try:
        header = read_header(path)
        kind = header.text("general.type")
        if kind in NO_MODELS or header.text("general.architecture") == "clip":
            return Skipped(path, f"is no model of its own but a part of one ({kind or 'projector'})")
        files = _shards(path, header)
        if files[0] != path:
            header = read_header(files[0])
    except HermesError as error:
        if strict:
            raise
        return Skipped(path, error.message.removeprefix(f"{path} ").rstrip("."))
    names = tuple(one.name for one in files) if len(files) > 1 else (name,)
    if not all(is_safe(one) for one in names):
        names = tuple(_UNSAFE.sub("_", one).lstrip(".-_") for one in names)
    if not all(is_safe(one) for one in names):
        return Skipped(path, "has a name that cannot be used on every disk")
    repo = f"{path.parent.parent.name}/{path.parent.name}"
    return Candidate(tuple(one.resolve() for one in files), names, (*claims, repo), repo, header)


def _shards(path: Path, header: GGUFHeader) -> tuple[Path, ...]:
    """All files of a model, of which one was given.

    Raises:
        IntegrityError: some of them are missing, or are shards of something else.
    """
    if header.split is None:
        return (path,)
    count = header.split.count
    match = SHARD.search(path.name)
    if match is None or (int(match[1]), int(match[2])) != (header.split.number, count):
        raise IntegrityError(
            f"{path} is shard {header.split.number} of {count}, but its name does not say so.",
            hint="give it back the name it was downloaded under.",
        )
    names = [SHARD.sub(f"-{number:05}-of-{count:05}.gguf", path.name) for number in range(1, count + 1)]
    files = tuple(path.with_name(name) for name in names)
    missing = [one.name for one in files if not one.is_file()]
    if missing:
        raise IntegrityError(
            f"{path} is one of {count} shards; missing are: {', '.join(missing)}.",
            hint="put all shards into one folder.",
        )
    for one in files:
        split = read_header(one).split
        if split is None or split.count != count:
            raise IntegrityError(f"{one} is no shard of {path}.", hint="put the right shards into one folder.")
    return files


def _first_line(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip().partition("\n")[0]
    except (OSError, ValueError):
        return ""


def _json(path: Path) -> dict[str, Any]:
    """A JSON object of another program; empty if it is none."""
    try:
        if path.stat().st_size > LARGEST_MANIFEST:
            return {}
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
