"""Find GGUF files outside the library: in plain folders, in LM Studio's folder and in Ollama's blobs.

Ollama: manifests/HOST/OWNER/MODEL/TAG are JSON, whose layer of the type `…image.model` names a blob by its digest
(github.com/ollama/ollama, manifest/); other layers may be LoRA adapters, or a projector for images. LM Studio:
models/OWNER/REPOSITORY/FILE, as on the Hub (lmstudio.ai/docs, and github.com/lmstudio-ai/lms,
src/subcommands/importCmd.ts for where the folder is). Manifests and headers are not trusted: nothing in them becomes a
path.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hermes_cli import paths
from hermes_cli.catalog.file_names import group_files
from hermes_cli.errors import AccessError, HermesError, NotFoundError, UsageError
from hermes_cli.gguf.header import GGUFHeader
from hermes_cli.gguf.shards import pooling_of, read_model, why_no_chat
from hermes_cli.store import layout
from hermes_cli.store.disk import files_below

LARGEST_MANIFEST = 1 << 20  # bytes; real ones have about 1 kB
LAYER = "application/vnd.ollama.image."  # before `model`, `adapter`, `projector`
# Where Ollama's services keep their models: that of its installer, those of distributions, and its snap.
OLLAMA_SERVICES = (
    Path("/usr/share/ollama/.ollama/models"),
    Path("/var/lib/ollama/models"),
    Path("/var/lib/ollama/.ollama/models"),
    Path("/var/snap/ollama/common/models"),
)

_DIGEST = re.compile(r"^sha256[:-]([0-9a-f]{64})\Z")
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
    folder = next(filter(paths.is_dir, folders), home / ".lmstudio")
    downloads = _read_json(folder / "settings.json").get("downloadsFolder")
    return Path(downloads) if isinstance(downloads, str) and downloads else folder / "models"


def ollama_models() -> list[Path]:
    """Return the folders of Ollama's manifests and blobs: the user's and its services', those that hold models.

    One that may not be read is among them. If there is none, the user's is returned.
    """
    if variable := os.environ.get("OLLAMA_MODELS"):
        return [Path(variable).expanduser()]
    own = Path.home() / ".ollama" / "models"
    return [folder for folder in (own, *OLLAMA_SERVICES) if _may_hold_models(folder)] or [own]


def _may_hold_models(tree: Path) -> bool:
    try:
        return any((tree / "manifests").iterdir())
    except OSError as error:
        return isinstance(error, PermissionError)


def find_models(path: Path) -> Iterator[FoundModel | SkippedFile]:
    """Yield every model in a file or folder, linked folders included.

    Raises:
        NotFoundError: there is nothing at that path.
        HermesError: it may not be read, or it is a single file, and no model that can be loaded.
    """
    if paths.is_dir(paths.readable(path)):
        tree = next((folder for folder in (path, path / "models") if paths.is_dir(folder / "manifests")), None)
        if tree:
            yield from _in_ollama(tree)
            return
        closed: list[OSError] = []
        below = files_below(path, follow=True, on_error=closed.append)
        files = (str(file) for file in below if file.suffix.lower() == ".gguf" and file.is_file())
        for first, *_ in sorted(group_files(files)):
            yield _read_model(Path(first), Path(first).name, ())
        yield from map(_skipped_folder, closed)
    elif path.is_file():
        found = _read_model(path, path.name, (), strict=True)
        if isinstance(found, SkippedFile):
            raise UsageError(found.reason, hint="see what is here: hermes list --installed")
        yield found
    else:
        raise NotFoundError(
            f"there is nothing at {path}.",
            hint="give the path of a file or folder; or ollama or lmstudio.",
        )


def _in_ollama(tree: Path) -> Iterator[FoundModel | SkippedFile]:
    """Yield one model for each blob, however many tags it has, named by the longest."""
    tags: dict[str, list[str]] = {}
    closed: list[OSError] = []
    for manifest in files_below(paths.readable(tree / "manifests"), follow=True, on_error=closed.append):
        if manifest.name.startswith("."):  # .DS_Store and its like
            continue
        try:
            layers = _layers(manifest)
        except AccessError as error:
            yield SkippedFile(manifest, f"{error.message} {error.hint}")
            continue
        tag, models = _tag(manifest.relative_to(tree / "manifests").parts), layers.get("model", [])
        if not tag or len(models) != 1:
            yield SkippedFile(manifest, f"{manifest} names no GGUF file, or several.")
        elif adapters := [str(_blob(tree, digest)) for digest in layers.get("adapter", ())]:
            loras = " ".join(f"--lora {adapter}" for adapter in adapters)
            reason = f"{tag} is a model with a LoRA adapter, which would be lost; hermes takes both as they are: "
            yield SkippedFile(manifest, f"{reason}hermes chat {_blob(tree, models[0])} {loras}")
        else:
            tags.setdefault(models[0], []).append(tag)
            for digest in layers.get("projector", ()):
                yield SkippedFile(
                    _blob(tree, digest), f"the projector of {tag}, for images, which hermes does not take."
                )
    yield from map(_skipped_folder, closed)
    for digest, labels in tags.items():
        blob = _blob(tree, digest)
        longest = max(labels, key=len)
        try:
            blob.stat()
        except FileNotFoundError:
            yield SkippedFile(blob, f"{blob} is gone, though {longest} needs it.")
            continue
        except OSError:  # the header cannot be read either, which is told
            pass
        name = _UNSAFE.sub("-", longest.removeprefix("hf.co/")).strip("-.") + ".gguf"
        yield _read_model(blob, name, tuple(labels))


def _layers(manifest: Path) -> dict[str, list[str]]:
    """Return the digests of a manifest's layers by their kind, `model` or `adapter` for instance."""
    layers, found = _read_json(paths.readable(manifest)).get("layers"), dict[str, list[str]]()
    for layer in layers if isinstance(layers, list) else ():
        if isinstance(layer, dict) and (match := _DIGEST.match(str(layer.get("digest")))):
            found.setdefault(str(layer.get("mediaType")).removeprefix(LAYER), []).append(match[1])
    return found


def _blob(tree: Path, digest: str) -> Path:
    return tree / "blobs" / f"sha256-{digest}"


def _skipped_folder(error: OSError) -> SkippedFile:
    path = Path(os.fsdecode(error.filename))
    problem = paths.access_error(path, error)
    return SkippedFile(path, f"{problem.message} {problem.hint}")


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
        if (why := why_no_chat(header)) and not pooling_of(header):
            return SkippedFile(path, f"{path} is not a model to chat with but {why}.")
    except HermesError as error:
        if strict:
            raise
        return SkippedFile(path, f"{error.message} {error.hint}" if isinstance(error, AccessError) else error.message)
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
