"""`hermes config`, and the defaults and presets of chat.yaml: what is set counts, and what cannot be is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml
from conftest import Finished, RunHermes

from hermes_cli.errors import ExitCode, UsageError
from hermes_cli.settings_file import with_section

HI = "I am the Hermes demo"


@pytest.fixture
def places(tmp_path: Path) -> dict[str, str]:
    return {f"HERMES_LLM_{name}_DIR": str(tmp_path) for name in ("CONFIG", "DATA")}


@pytest.fixture
def config(hermes: RunHermes, places: dict[str, str]) -> RunHermes:
    def run(*arguments: str) -> Finished:
        return hermes("config", *arguments, env=places)

    return run


def test_what_is_set_is_listed_and_taken_out(config: RunHermes, tmp_path: Path) -> None:
    for key, value in {
        "model": "demo",
        "top-k": "7",
        "stop": "[a, b]",
        "presets.dry.system": "Be: dry",
        "presets.dry.temperature": "0.5",
        "serve.port": "8099",
    }.items():
        done = config("set", key, value)
        assert done.returncode == 0, done.stderr
    settings = json.loads(config("list", "--json").stdout)["settings"]
    assert settings == {
        "model": "demo",
        "top_k": 7,
        "stop": ["a", "b"],
        "presets.dry.system": "Be: dry",
        "presets.dry.temperature": 0.5,
        "serve.port": 8099,
    }
    assert config().stdout.startswith("model = demo\ntop_k = 7\n")
    assert config("get", "presets.dry.system").stdout == "Be: dry\n"
    assert yaml.safe_load((tmp_path / "serve.yaml").read_text()) == {"port": 8099}
    for key in ("model", "top_k", "stop", "presets.dry", "serve.port"):
        assert config("unset", key).returncode == 0
    assert config("list").stdout == ""
    assert config("get", "model").returncode == ExitCode.NOT_FOUND
    assert config("unset", "model").returncode == ExitCode.NOT_FOUND


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("temperatur", "1", "did you mean temperature?"),
        ("temperature", "hot", "temperature: 'hot' is not a number."),
        ("context", "1.5", "not a number of tokens"),
        ("yes", "true", "no setting yes"),
        ("endpoint", "http://127.0.0.1", "no setting endpoint"),
        ("presets.a.b.c", "1", "presets.a.b.c is not a setting."),
        ("presets.", "1", "is not a setting."),
        ("presets.a.tempo", "1", "no setting tempo"),
        ("serve.prt", "1", "did you mean port?"),
        ("serve.port", "70000", "70000"),
        ("other.port", "1", "is not a setting."),
    ],
)
def test_what_cannot_be_is_refused(config: RunHermes, tmp_path: Path, key: str, value: str, says: str) -> None:
    done = config("set", key, value)
    assert done.returncode == ExitCode.USAGE
    assert says in done.stderr
    assert not list(tmp_path.glob("*.yaml"))


def test_the_default_model_is_chatted_with_and_served(
    hermes: RunHermes, places: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "chat.yaml").write_text("defaults: {model: demo, temperature: 0, max-tokens: 4}\n")
    asked = json.loads(hermes("Who are you?", "--json", env=places).stdout)
    assert asked["model"] == "demo"
    assert asked["usage"]["completion_tokens"] == 4
    typed = hermes("chat", "demo", "Who are you?", "--max-tokens", "100", env=places)
    assert typed.stdout.startswith(HI)


def test_a_preset_goes_before_defaults_and_after_flags(
    hermes: RunHermes, places: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "chat.yaml").write_text(
        "defaults: {max_tokens: 4}\npresets: {long: {model: demo, max_tokens: 6, draft: off}, bad: {heat: 1}}\n"
    )

    def tokens(*arguments: str) -> int:
        done = hermes("chat", *arguments, "Who are you?", "--json", env=places)
        assert done.returncode == 0, done.stderr
        count: int = json.loads(done.stdout)["usage"]["completion_tokens"]
        return count

    assert tokens("demo") == 4
    assert tokens("--preset", "long") == 6
    assert tokens("--preset", "long", "--max-tokens", "5") == 5
    missing = hermes("chat", "demo", "hi", "--preset", "lng", env=places)
    assert missing.returncode == ExitCode.NOT_FOUND
    assert "did you mean long?" in missing.stderr
    wrong = hermes("chat", "demo", "hi", "--preset", "bad", env=places)
    assert wrong.returncode == ExitCode.USAGE
    assert "hermes chat has no setting heat" in wrong.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script")
def test_an_edited_file_is_checked(hermes: RunHermes, places: dict[str, str], tmp_path: Path) -> None:
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\necho "defaults: {heat: 1}" > "$1"\n')
    editor.chmod(0o755)
    done = hermes("config", "edit", env={**places, "VISUAL": "", "EDITOR": str(editor)})
    assert done.returncode == ExitCode.USAGE
    assert "no setting heat" in done.stderr
    assert hermes("config", "edit", env={**places, "EDITOR": str(tmp_path / "none")}).returncode == ExitCode.FAILED


@pytest.mark.parametrize(
    "before",
    ["", "a: 1\n", "# mine\na: 1 # this\nb:\n  c: 2\n\n  d: 3\n# end\ne: [1]\n", "b: 1", "b:\n- 1\n- 2\na: 1\n"],
)
def test_everything_else_in_a_file_stays(before: str) -> None:
    changed = with_section(before, "b", {"x": [1, {"y": "z: 1"}]})
    expected = {**(yaml.safe_load(before) or {}), "b": {"x": [1, {"y": "z: 1"}]}}
    assert yaml.safe_load(changed) == expected
    assert [line for line in before.splitlines() if line.startswith(("#", "a", "e"))] == [
        line for line in changed.splitlines() if line.startswith(("#", "a", "e"))
    ]
    without = with_section(changed, "b", None)
    assert "b" not in (yaml.safe_load(without) or {})


@pytest.mark.parametrize("before", ["[1]", "{a: 1, b: 2}", "b:\n  c: 1\n# in between\n  d: 2\n", "a: ["])
def test_what_cannot_be_changed_safely_is_left(before: str) -> None:
    with pytest.raises(UsageError, match="cannot be changed in this file"):
        with_section(before, "b", 1)
