"""Weights for vLLM and SGLang on this disk: folders of the Hub's cache with a config, a tokenizer and safetensors."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from hermes_cli.store import layout
from hermes_cli.store.choose_weights import CONFIG, INDEX, absent_shards, is_beside, is_weights

MOST_READ = 16 << 20  # bytes of an index or a config; 405B's index has 0.1 MB
_CHATS = "ForCausalLM"  # the end of the name of every architecture that generates text


@dataclass(frozen=True)
class WeightFolder:
    """The weights of one revision: names of the files that are here, and of those that its index names besides."""

    path: Path
    files: tuple[str, ...]
    absent: tuple[str, ...]

    @property
    def is_whole(self) -> bool:
        """Return whether nothing of it is missing."""
        here = all((self.path / name).is_file() for name in self.files)
        return here and not self.absent and any(map(is_weights, self.files))


def weight_folders(repo: str) -> list[WeightFolder]:
    """Return the revisions of a repository that hold weights of a language model, the preferred one first."""
    folders = filter(None, map(read_weight_folder, layout.snapshots(repo)))
    return [folder for folder in folders if _is_language_model(folder.path / CONFIG)]


def read_weight_folder(path: Path) -> WeightFolder | None:
    """Return the weights in a folder; None if it holds none."""
    try:
        names = sorted(entry.name for entry in os.scandir(path))
    except OSError:
        return None
    if CONFIG not in names or not any(is_weights(name) or name == INDEX for name in names):
        return None
    weights = [name for name in names if is_weights(name)]
    shards = (_read(path / INDEX) or {}).get("weight_map")
    named = {str(shard) for shard in shards.values()} if isinstance(shards, dict) else set()
    absent = sorted(named - set(weights)) if named else absent_shards(weights)
    small = [name for name in names if is_beside(name)]
    return WeightFolder(path, (*small, *([INDEX] if INDEX in names else []), *weights), tuple(absent))


def installed_weights(repo: str) -> Path | None:
    """Return the folder with all the weights of a repository, None if it is not here as a whole."""
    folders = filter(None, map(read_weight_folder, layout.snapshots(repo)))
    return next((folder.path for folder in folders if folder.is_whole), None)


def _is_language_model(config: Path) -> bool:
    values = _read(config)
    if values is None:  # a damaged one tells nothing
        return True
    architectures = values.get("architectures")
    return isinstance(architectures, list) and any(str(name).endswith(_CHATS) for name in architectures)


def _read(path: Path) -> dict[str, object] | None:
    try:
        with path.open("rb") as file:
            value = json.loads(file.read(MOST_READ))
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
