"""Folders of hermes.

Everything of ours is called `hermes-llm`: `~/.hermes` and most `HERMES_*` variables belong to Nous' Hermes Agent.
Models live in the Hugging Face Hub's own cache, so that every tool that knows it shares one copy.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from hermes_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

APP = "hermes-llm"
PACKAGE = Path(__file__).parent


def catalog() -> Path:
    """catalog.yaml: inside the package when installed from a wheel, beside it in a checkout."""
    installed = PACKAGE / "catalog.yaml"
    return installed if installed.exists() else PACKAGE.parent / "catalog.yaml"


def catalog_overlay() -> Path:
    """Return the file with what `hermes catalog refresh` learned from the Hub."""
    return data_dir() / "catalog-overlay.json"


def asset(name: str) -> Path:
    """A file that ships inside the package: the demo model and its tools."""
    return PACKAGE / "assets" / name


def config_dir() -> Path:
    """Settings a person writes."""
    return _ours("HERMES_LLM_CONFIG_DIR", platformdirs.user_config_path)


def data_dir() -> Path:
    """Return the folder of data that a person would miss: conversations, refreshed facts."""
    return _ours("HERMES_LLM_DATA_DIR", platformdirs.user_data_path)


def chats_dir() -> Path:
    """Saved conversations, a file each."""
    return data_dir() / "chats"


def cache_dir() -> Path:
    """Return the folder of data that can be made anew: measurements, compiled catalogue."""
    return _ours("HERMES_LLM_CACHE_DIR", platformdirs.user_cache_path)


def models_dir() -> Path:
    """The Hub's cache, found as huggingface_hub finds it (its constants.py) without the cost of importing it."""
    home = os.environ.get("HF_HOME") or str(Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    cache = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or str(Path(home) / "hub")
    with _home_needed("HF_HOME"):
        return Path(os.path.expandvars(cache)).expanduser()


def existing(folder: Path) -> Path:
    """The folder itself, or the nearest above it that exists: what its disk can be asked through.

    Raises:
        OSError: a folder on the way may not be looked into.
    """
    return next(place for place in (folder, *folder.parents) if place.exists() or place == place.parent)


def _ours(variable: str, default: Callable[..., Path]) -> Path:
    chosen = os.environ.get(variable)
    with _home_needed(variable):
        return Path(chosen).expanduser() if chosen else default(APP, appauthor=False)


@contextmanager
def _home_needed(variable: str) -> Iterator[None]:
    try:
        yield
    except RuntimeError:  # from pathlib and platformdirs
        raise UsageError(
            "the home folder is not known, so hermes does not know where its files are.",
            hint=f"set HOME, or {variable} to an absolute path.",
        ) from None
