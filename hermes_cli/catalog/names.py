"""What a user types to name a model, and the file it stands for."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hermes_cli import paths
from hermes_cli.errors import IntegrityError, NotFoundError, UsageError
from hermes_cli.gguf.header import read_header


@dataclass(frozen=True)
class ModelFile:
    """A model on this disk: what it is called and where it is."""

    name: str
    path: Path


def find(name: str) -> ModelFile:
    """The file behind a name: a model of the catalogue that ships with hermes, or a path.

    Raises:
        NotFoundError: neither a known name nor an existing file.
        UsageError: a directory.
        IntegrityError: not a GGUF, a damaged one, or a shipped file that was altered.
    """
    shipped = _shipped()
    if name in shipped:
        return _verified(name, shipped[name])
    path = Path(name).expanduser()
    if path.is_dir():
        raise UsageError(f"{path} is a directory.", hint=_hint_for_directory(path))
    if not path.is_file():
        known = ", ".join(shipped)
        raise NotFoundError(
            f"there is no model named {name} and no such file.",
            hint=f"give the path of a GGUF file, or one of: {known}",
        )
    read_header(path)
    return ModelFile(path.stem, path)


def _shipped() -> dict[str, dict[str, Any]]:
    """Catalogue entries whose file is inside the package, by id."""
    entries = yaml.safe_load(paths.catalog().read_text(encoding="utf-8"))["models"]
    return {entry["id"]: entry for entry in entries if "file" in entry}


def _verified(name: str, entry: dict[str, Any]) -> ModelFile:
    path = paths.asset(entry["file"])
    hint = "install hermes again: pip install --force-reinstall --no-deps hermes-llm"
    if not path.is_file():
        raise NotFoundError(f"the file of {name}, {path}, is missing.", hint=hint)
    if hashlib.sha256(path.read_bytes()).hexdigest() != entry["sha256"]:
        raise IntegrityError(f"{path} is not the file that shipped with hermes (its SHA-256 differs).", hint=hint)
    return ModelFile(name, path)


def _hint_for_directory(path: Path) -> str:
    files = sorted(path.glob("*.gguf"))
    return f"give a file: {files[0]}" if files else "give the path of a GGUF file; there is none in it."
