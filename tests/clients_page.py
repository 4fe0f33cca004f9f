"""docs/clients.md: its pieces of code, for a server of the tests."""

from __future__ import annotations

import gc
import re
import warnings

import pytest
from conftest import REPOSITORY
from server_rig import Running

PAGE = (REPOSITORY / "docs" / "clients.md").read_text(encoding="utf-8")


def piece(title: str, language: str, server: Running) -> str:
    """Return a section's first piece of code in that language, with this server's address and model."""
    found = re.search(rf"^## {title}\n.*?```{language}\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE)
    assert found, title
    return found[1].replace("127.0.0.1:8080", f"127.0.0.1:{server.port}").replace("hermes-3:8b", "demo")


def run_program(title: str, server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the program of a section, with the variables that stand above it."""
    for variable in piece(title, "console", server).removeprefix("export").split():
        monkeypatch.setenv(*variable.split("=", 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves its connection open until it ends
        exec(piece(title, "python", server), {})  # noqa: S102 - what users are told to type
        gc.collect()
