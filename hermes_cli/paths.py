"""Folders of hermes.

Everything of ours is called `hermes-llm`: `~/.hermes` and most `HERMES_*` variables belong to Nous' Hermes Agent.
Models live in the Hugging Face Hub's own cache, so that every tool that knows it shares one copy.
"""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

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
    return _ours("HERMES_LLM_CONFIG_DIR", platformdirs.user_config_path(APP, appauthor=False))


def data_dir() -> Path:
    """Return the folder of data that a person would miss: conversations, refreshed facts."""
    return _ours("HERMES_LLM_DATA_DIR", platformdirs.user_data_path(APP, appauthor=False))


def chats_dir() -> Path:
    """Saved conversations, a file each."""
    return data_dir() / "chats"


def cache_dir() -> Path:
    """Return the folder of data that can be made anew: measurements, compiled catalogue."""
    return _ours("HERMES_LLM_CACHE_DIR", platformdirs.user_cache_path(APP, appauthor=False))


def models_dir() -> Path:
    """The Hub's cache, found as huggingface_hub finds it (its constants.py) without the cost of importing it."""
    home = os.environ.get("HF_HOME") or str(Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    cache = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or str(Path(home) / "hub")
    return Path(os.path.expandvars(cache)).expanduser()


def existing(folder: Path) -> Path:
    """The folder itself, or the nearest above it that exists: what its disk can be asked through.

    Raises:
        OSError: a folder on the way may not be looked into.
    """
    return next(place for place in (folder, *folder.parents) if place.exists() or place == place.parent)


def _ours(variable: str, usual: Path) -> Path:
    chosen = os.environ.get(variable)
    return Path(chosen).expanduser() if chosen else usual
