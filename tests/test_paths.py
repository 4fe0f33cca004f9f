from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import RunHermes, clean_environment

from hermes_cli import paths
from hermes_cli.errors import UsageError


@pytest.mark.parametrize("name", ["config_dir", "data_dir", "cache_dir", "log_dir"])
def test_our_folders_carry_our_name_and_can_be_moved(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    variable = f"HERMES_LLM_{name.upper()}"
    monkeypatch.delenv(variable, raising=False)
    assert "hermes-llm" in getattr(paths, name)().parts
    monkeypatch.setenv(variable, "~/elsewhere")
    assert getattr(paths, name)() == Path.home() / "elsewhere"


@pytest.mark.parametrize(
    ("variable", "folder"), [("HERMES_LLM_CACHE_DIR", paths.cache_dir), ("HF_HOME", paths.models_dir)]
)
def test_an_unknown_home_folder_is_a_clear_error(
    variable: str, folder: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.delenv("HUGGINGFACE_HUB_CACHE", raising=False)
    monkeypatch.setenv(variable, "~no-such-user/elsewhere")
    with pytest.raises(UsageError) as caught:
        folder()
    assert variable in caught.value.hint


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"HF_HOME": "/a/b"},
        {"HF_HOME": "~/b"},
        {"HF_HUB_CACHE": "/a/c", "HF_HOME": "/a/b"},
        {"HUGGINGFACE_HUB_CACHE": "/a/d"},
        {"XDG_CACHE_HOME": "/a/e"},
        {"HF_HUB_CACHE": "$HOME/f"},
    ],
)
def test_models_are_where_the_hub_library_puts_them(settings: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in settings.items():
        monkeypatch.setenv(variable, value)
    ask = "from huggingface_hub.constants import HF_HUB_CACHE; print(HF_HUB_CACHE)"
    theirs = subprocess.run(
        [sys.executable, "-c", ask], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert str(paths.models_dir()) == theirs.stdout.strip()


def test_hermes_agent_s_folder_is_never_ours(hermes: RunHermes, tmp_path: Path) -> None:
    hermes("chat", "demo", "Who are you?", env={"HOME": str(tmp_path)})
    assert not (tmp_path / ".hermes").exists()
    shown = json.loads(hermes("paths", "--json", env={**clean_environment(), "HOME": str(tmp_path)}).stdout)
    assert set(shown) == {"models", "data", "chats", "config", "logs", "cache", "demo"}
    assert not any("/.hermes" in path for path in shown.values())


def test_paths_for_people_and_for_scripts(hermes: RunHermes) -> None:
    assert "HERMES_LLM_DATA_DIR" in hermes("paths").stdout
    assert all(Path(line).is_absolute() for line in hermes("paths", "-q").stdout.splitlines())
