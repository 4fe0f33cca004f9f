"""`hermes search` and `hermes list --updates`, against the Hub of tests/hub_server.py."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Finished, RunHermes
from hub_server import REVISION, Hub, serving

NEWER = "f" * 40
Run = Callable[..., Finished]


@pytest.fixture
def hub() -> Iterator[Hub]:
    repositories = {
        "bartowski/Some-Hermes-4-14B-GGUF": {"H-Q4_K_M.gguf": b"a", "H-Q8_0.gguf": b"b", "H-Q4_0_4_4.gguf": b"c"},
        "small/hermes-GGUF": {"h-Q8_0.gguf": b"a", "mmproj-F16.gguf": b"b"},
        "other/Thing-GGUF": {"t-Q8_0.gguf": b"a"},
        "no/Hermes": {"model.safetensors": b"a"},
    }
    described = {
        "bartowski/Some-Hermes-4-14B-GGUF": {
            "downloads": 12345,
            "gguf": {"total": 14_768_307_200, "architecture": "qwen3", "context_length": 40960},
            "cardData": {"license": "apache-2.0"},
            "lastModified": "2025-09-02T10:11:12.000Z",
            "gated": "auto",
        },
        "small/hermes-GGUF": {"downloads": 7, "cardData": {"license": "other", "license_name": "llama3.1"}},
    }
    with serving(Hub({name: dict(files) for name, files in repositories.items()}, described=described)) as running:
        yield running


@pytest.fixture
def run(hermes: RunHermes, hub: Hub, tmp_path: Path) -> Run:
    ours = {f"HERMES_LLM_{name}_DIR": str(tmp_path / name.lower()) for name in ("CACHE", "DATA", "CONFIG")}
    environment = {**hub.environment, **ours, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_DISABLE_XET": "1"}

    def command(*arguments: str, env: dict[str, str] | None = None) -> Finished:
        done = hermes(*arguments, env={**environment, **(env or {})})
        assert "Traceback" not in done.stderr
        return done

    return command


def test_a_search_is_a_table(run: Run) -> None:
    done = run("search", "hermes")
    assert done.returncode == 0, done.stderr
    titles, first, second = done.stdout.splitlines()
    assert titles.split() == ["NAME", "PARAMETERS", "DOWNLOADS", "LICENSE", "QUANTIZATIONS", "UPDATED"]
    name = "bartowski/Some-Hermes-4-14B-GGUF"
    assert first.split() == [name, "14.8", "B", "12,345", "apache-2.0", "(gated)", "2", "2025-09-02"]
    assert second.split() == ["small/hermes-GGUF", "7", "llama3.1", "1"]
    assert f"hermes pull {name}" in done.stderr


def test_a_search_as_json(run: Run) -> None:
    found = json.loads(run("search", "hermes", "14b", "--json").stdout)["repositories"]
    assert found == [
        {
            "repo": "bartowski/Some-Hermes-4-14B-GGUF",
            "quantizations": ["Q4_K_M", "Q8_0"],
            "parameters": 14_768_307_200,
            "architecture": "qwen3",
            "license": "apache-2.0",
            "downloads": 12345,
            "updated": "2025-09-02",
            "gated": True,
        }
    ]
    assert len(json.loads(run("search", "hermes", "--limit", "1", "--json").stdout)["repositories"]) == 1


@pytest.mark.parametrize(
    ("env", "status", "code", "says"),
    [
        ({}, None, 3, "no GGUF files under the name nothing"),
        ({"HF_HUB_OFFLINE": "1"}, None, 5, "HF_HUB_OFFLINE"),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, None, 5, "cannot be reached"),
        ({}, 503, 5, "status 503"),
        ({}, 429, 5, "too many requests"),
    ],
)
def test_a_search_that_fails(run: Run, hub: Hub, env: dict[str, str], status: int | None, code: int, says: str) -> None:
    hub.status = status
    done = run("search", "nothing", env=env)
    assert (done.returncode, done.stdout) == (code, "")
    assert says in done.stderr
    assert "next: " in done.stderr


def test_a_page_that_is_not_the_hubs(run: Run, hub: Hub) -> None:
    hub.portal = True
    assert "does not speak the Hub's API" in run("search", "hermes").stderr


def states(done: Finished) -> dict[str, str]:
    assert done.returncode == 0, done.stderr
    return {model["name"]: model["update"] for model in json.loads(done.stdout)["models"]}


def test_updates(run: Run, hub: Hub) -> None:
    some, small, other = "bartowski/Some-Hermes-4-14B-GGUF", "small/hermes-GGUF", "other/Thing-GGUF"
    assert run("pull", f"{some}:Q4_K_M", f"{some}:Q8_0", small, other).returncode == 0
    listed = (f"{some}:Q4_K_M", f"{some}:Q8_0", f"{small}:Q8_0", f"{other}:Q8_0")
    assert states(run("list", "--updates", "--json")) == dict.fromkeys(listed, "current")
    hub.revision = NEWER
    hub.repositories[some] = {"H-Q4_K_M.gguf": b"a", "H-Q8_0.gguf": b"newer"}
    hub.repositories[small] = {"renamed-Q8_0.gguf": b"a"}
    del hub.repositories[other]
    expected = dict(zip(listed, ("current", "outdated", "removed", "unknown"), strict=True))
    assert states(run("list", "--updates", "--json")) == expected
    done = run("list", "--updates")
    assert done.stdout.splitlines()[0].split() == ["NAME", "UPDATE", "SIZE", "REVISION"]
    assert f"newer at {NEWER[:7]}" in done.stdout
    assert f"fetch what is newer: hermes pull {some}:Q8_0\n" in done.stderr
    assert f"there is no repository {other}" in done.stderr
    assert run("pull", f"{some}:Q8_0").returncode == 0
    both = json.loads(run("list", "--updates", "--json").stdout)["models"]
    found = [(model["revisions"], model["update"]) for model in both if model["name"] == f"{some}:Q8_0"]
    assert sorted(found) == [([REVISION], "superseded"), ([NEWER], "current")]


@pytest.mark.parametrize("env", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}])
def test_updates_without_a_network(run: Run, env: dict[str, str]) -> None:
    assert run("pull", "other/Thing-GGUF").returncode == 0
    done = run("list", "--updates", env=env)
    assert done.returncode == 0
    assert "other/Thing-GGUF:Q8_0" in done.stdout
    assert "unknown" in done.stdout
    assert "What is newer is not known." in done.stderr


def test_nothing_to_update(run: Run) -> None:
    done = run("list", "--updates", env={"HF_HUB_OFFLINE": "1"})
    assert (done.returncode, done.stdout) == (0, "")
    assert "hermes pull" in done.stderr
