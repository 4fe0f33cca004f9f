"""Find GGUF files outside the library: in plain folders, in LM Studio's folder and in Ollama's blobs.

Ollama: manifests/HOST/OWNER/MODEL/TAG are JSON, whose layer of the type `…image.model` names a blob by its digest
(github.com/ollama/ollama, manifest/). LM Studio: models/OWNER/REPOSITORY/FILE, as on the Hub (lmstudio.ai/docs, and
github.com/lmstudio-ai/lms, src/subcommands/importCmd.ts for where the folder is). Manifests and headers are not
trusted: nothing in them becomes a path.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hermes_cli import paths
from hermes_cli.catalog.file_names import group_files
from hermes_cli.errors import HermesError, NotFoundError, UsageError
from hermes_cli.gguf.shards import read_model, why_no_chat
from hermes_cli.store import layout
from hermes_cli.store.disk import files_below

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hermes_cli.gguf.header import GGUFHeader

LARGEST_MANIFEST = 1 << 20  # bytes; real ones have about 1 kB
MODEL_LAYER = "application/vnd.ollama.image.model"

_DIGEST = re.compile(r"^sha256[:-]([0-9a-f]{64})$")
_UNSAFE = re.compile(r"[^\w.+@=-]+")


@dataclass(frozen=True)
class FoundModel:
    """A model outside the library."""

    files: tuple[Path, ...]  # all its shards, in order; links are followed
    names: tuple[str, ...]  # file names for them in the library, safe on every disk
    labels: tuple[str, ...]  # names by its surroundings: tags in Ollama, its folder
    repo: str  # owner and repository, where it lies in a folder of LM Studio's kind
    header: GGUFHeader  # of the first file

    @property
    def bytes(self) -> int:
        """Return the lengths of its files together."""
        return sum(path.stat().st_size for path in self.files)


@dataclass(frozen=True)
class SkippedFile:
    """A file that cannot be imported, and why."""

    path: Path
    reason: str


def lm_studio_models() -> Path:
    """Return the folder of LM Studio's models, whether it exists or not."""
    home = Path.home()
    folders = [home / ".lmstudio", home / ".cache" / "lm-studio"]
    with suppress(OSError, ValueError):
        pointer = (home / ".lmstudio-home-pointer").read_text(encoding="utf-8").strip().partition("\n")[0]
        folders[:0] = [Path(pointer)] if pointer else []
    folder = next((folder for folder in folders if folder.is_dir()), home / ".lmstudio")
    downloads = _read_json(folder / "settings.json").get("downloadsFolder")
    return Path(downloads) if isinstance(downloads, str) and downloads else folder / "models"


def ollama_models() -> Path:
    """Return the folder of Ollama's manifests and blobs, whether it exists or not: the user's, or its service's."""
    if variable := os.environ.get("OLLAMA_MODELS"):
        return Path(variable).expanduser()
    own, service = Path.home() / ".ollama" / "models", Path("/usr/share/ollama/.ollama/models")
    return service if not own.is_dir() and service.is_dir() else own


def find_models(path: Path) -> Iterator[FoundModel | SkippedFile]:
    """Yield every model in a file or folder.

    Raises:
        NotFoundError: there is nothing at that path.
        HermesError: it is a single file, and no model that can be loaded.
    """
    if path.is_dir():
        tree = next((folder for folder in (path, path / "models") if (folder / "manifests").is_dir()), None)
        if tree:
            yield from _in_ollama(tree)
            return
        files = (str(file) for file in files_below(path) if file.suffix.lower() == ".gguf")
        for first, *_ in sorted(group_files(files)):
            yield _read_model(Path(first), Path(first).name, ())
    elif path.is_file():
        found = _read_model(path, path.name, (), strict=True)
        if isinstance(found, SkippedFile):
            raise UsageError(found.reason, hint="see what is here: hermes list --installed")
        yield found
    else:
        raise NotFoundError(
            f"there is nothing at {path}.", hint="give the path of a file or folder, or say ollama or lmstudio."
        )


def _in_ollama(tree: Path) -> Iterator[FoundModel | SkippedFile]:
    """Yield one model for each blob, however many tags it has, named by the longest."""
    tags: dict[str, list[str]] = {}
    for manifest in files_below(tree / "manifests"):
        layers = _read_json(manifest).get("layers")
        models = [
            str(layer.get("digest"))
            for layer in (layers if isinstance(layers, list) else ())
            if isinstance(layer, dict) and layer.get("mediaType") == MODEL_LAYER
        ]
        digests = [match[1] for digest in models if (match := _DIGEST.match(digest))]
        tag = _tag(manifest.relative_to(tree / "manifests").parts)
        if tag and len(digests) == 1:
            tags.setdefault(digests[0], []).append(tag)
        else:
            yield SkippedFile(manifest, f"{manifest} names no GGUF file, or several.")
    for digest, labels in tags.items():
        blob = tree / "blobs" / f"sha256-{digest}"
        longest = max(labels, key=len)
        if blob.is_file():
            name = _UNSAFE.sub("-", longest.removeprefix("hf.co/")).strip("-.") + ".gguf"
            yield _read_model(blob, name, tuple(labels))
        else:
            yield SkippedFile(blob, f"{blob} is gone, though {longest} needs it.")


def _tag(parts: tuple[str, ...]) -> str | None:
    """Return the tag of a manifest: `registry.ollama.ai/library/hermes3/8b` -> `hermes3:8b`; of the Hub `hf.co/…`."""
    match parts:
        case (("hf.co" | "huggingface.co"), owner, model, tag):
            return f"hf.co/{owner}/{model}:{tag}"
        case (_, "library", model, tag):
            return f"{model}:{tag}"
        case (_, owner, model, tag):
            return f"{owner}/{model}:{tag}"
        case _:
            return None


def _read_model(path: Path, name: str, labels: tuple[str, ...], *, strict: bool = False) -> FoundModel | SkippedFile:
    """Return the model that begins with this file. With `strict` a fault is raised instead of returned."""
    from hermes_cli.store.hub import is_safe  # noqa: PLC0415 - huggingface_hub, only when importing

    if any(root.resolve() in path.resolve().parents for root in (paths.models_dir(), layout.imported_root())):
        return SkippedFile(path, f"{path} is in the library already.")
    try:
        files, (header, *_) = read_model(path)
        if why := why_no_chat(header):
            return SkippedFile(path, f"{path} is no model to chat with but {why}.")
    except HermesError as error:
        if strict:
            raise
        return SkippedFile(path, error.message)
    names = tuple(file.name for file in files) if len(files) > 1 else (name,)
    if not all(map(is_safe, names)):
        names = tuple(_UNSAFE.sub("_", name).lstrip(".-_") for name in names)
    if not all(map(is_safe, names)):
        return SkippedFile(path, f"{path} has a name that cannot be used on every disk.")
    repo = f"{path.parent.parent.name}/{path.parent.name}"
    return FoundModel(tuple(file.resolve() for file in files), names, (*labels, repo), repo, header)


def _read_json(path: Path) -> dict[str, Any]:
    """Return a JSON object that another program wrote; empty if it is none."""
    try:
        if path.stat().st_size > LARGEST_MANIFEST:
            return {}
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
