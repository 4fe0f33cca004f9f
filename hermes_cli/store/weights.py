"""Weights for vLLM and SGLang: config, tokenizer, templates, safetensors; in repositories and on this disk."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from hermes_cli.errors import NotFoundError
from hermes_cli.store import layout

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
MOST_READ = 16 << 20  # bytes of an index or a config; 405B's index has 0.1 MB
_CHATS = "ForCausalLM"  # the end of the name of every architecture that generates text
_WEIGHTS = re.compile(r"^[^/]+\.safetensors\Z")
_SHARD = re.compile(r"^(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.safetensors\Z")
# Other layouts of the same weights, and what other programs want of them.
_NOT_LOADED = re.compile(r"^(?:consolidated|adapter_model|optimizer|training_args)", re.IGNORECASE)
_BESIDE = re.compile(
    r"^(?:config|generation_config|params|preprocessor_config|hf_quant_config|quant(?:ize)?_config|recipe)\.(?:json|ya?ml)\Z"
    r"|^LICEN[CS]E[^/]*\Z|^NOTICE[^/]*\Z",
    re.IGNORECASE,
)
_TOKENIZER = re.compile(
    r"^(?:(?:tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab|chat_template)\.json|merges\.txt|vocab\.txt"
    r"|[^/]*\.tiktoken|[^/]*\.model|tekken\.json|[^/]*\.jinja|(?:additional_)?chat_templates/[^/]+\.jinja)\Z"
)


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


def weight_files(repo: str, paths: Iterable[str], *, tokenizer_only: bool = False) -> tuple[str, ...]:
    """Return the files to fetch: the small ones first, then the weights in order.

    With `tokenizer_only` all but the weights: what prompts are made of, for an engine that runs elsewhere.

    Raise NotFoundError if the repository has no such weights, or not all of them.
    """
    from hermes_cli.store.hub import is_safe  # noqa: PLC0415 - the Hub's code; what is on this disk needs none

    names = sorted(filter(is_safe, paths))
    small, weights = list(filter(is_beside, names)), list(filter(is_weights, names))
    if CONFIG not in names or (not weights and not tokenizer_only):
        missing = CONFIG if CONFIG not in names else "safetensors"
        raise NotFoundError(
            f"{repo} has no weights for vLLM and SGLang: there is no {missing} in it.",
            hint=f"see what it has: hermes show {shlex.quote(repo)}",
        )
    if not any(_TOKENIZER.match(name) for name in names):
        raise NotFoundError(f"{repo} has no tokenizer.", hint="look for another repository of the same model.")
    if tokenizer_only:
        return tuple(small)
    if absent := absent_shards(weights):
        raise NotFoundError(
            f"{repo} is incomplete: {absent[0]} is missing.",
            hint="look for another repository of the same model.",
        )
    index = [INDEX] if INDEX in names else []
    return (*small, *index, *weights)


def is_weights(name: str) -> bool:
    """Return whether a file holds weights that are loaded."""
    return bool(_WEIGHTS.match(name)) and not _NOT_LOADED.match(name)


def is_beside(name: str) -> bool:
    """Return whether a file is a config, a part of the tokenizer, a template, or the licence."""
    return bool(_BESIDE.match(name) or _TOKENIZER.match(name))


def absent_shards(names: Collection[str]) -> list[str]:
    """Return the shards that the names of the others tell of."""
    absent = []
    for name in names:
        if match := _SHARD.match(name):
            count = int(match["count"])
            expected = (f"{match['stem']}-{number:05}-of-{count:05}.safetensors" for number in range(1, count + 1))
            absent += [other for other in expected if other not in names and other not in absent]
    return sorted(absent)
