"""Models that clients of Ollama's API fetch, name and delete: a real server, the Hub of tests/hub_server.py, the demo's bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_server import Hub, serving
from server_rig import Answer, Process, hermes_serve, offer, served

from hermes_cli.errors import UsageError
from hermes_cli.paths import asset
from hermes_cli.server.run import ServerParts, serve
from hermes_cli.server.settings import ServerSettings, SettingValue, resolve

REPO, FILE = "NousResearch/Hermes-3-Llama-3.2-3B-GGUF", "Hermes-3-Llama-3.2-3B.Q4_K_M.gguf"
NAME = "hermes-3:3b:Q4_K_M"
ASKED = {"messages": [{"role": "user", "content": "Who are you?"}], "stream": False, "options": {"temperature": 0}}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with serving(Hub({REPO: {FILE: asset("demo.gguf").read_bytes()}})) as hub:
        yield hub


@pytest.fixture(scope="module")
def server(hub: Hub, cache: Path) -> Iterator[Process]:
    ours = {f"HERMES_LLM_{name}_DIR": str(cache / name.lower()) for name in ("CACHE", "DATA")}
    environment = {**hub.environment, **ours, "HF_HUB_CACHE": str(cache / "hub"), "HF_HUB_DISABLE_XET": "1"}
    with hermes_serve("demo", "--ollama", "--manage-models", cwd=cache, env=environment) as process:
        yield process


def delete(server: Process, name: str) -> Answer:
    return server.ask("DELETE", "/api/delete", {"model": name})


def lines(answer: Answer) -> list[dict[str, Any]]:
    return [json.loads(line) for line in answer.body.splitlines()]


def test_a_model_comes_gets_another_name_and_goes(server: Process, hub: Hub, cache: Path) -> None:
    assert server.post("/api/chat", {"model": NAME, **ASKED}).status == 404
    steps = lines(server.post("/api/pull", {"model": NAME}))
    assert (steps[0]["status"], steps[-1]) == ("pulling manifest", {"status": "success"})
    size = asset("demo.gguf").stat().st_size
    assert any(step.get("completed") == step.get("total") == size for step in steps)
    assert all(len(step["digest"]) == 71 for step in steps if "digest" in step)
    assert [model["name"] for model in server.get("/api/tags").json["models"]] == ["demo", NAME]
    assert "Hermes demo" in server.post("/api/chat", {"model": NAME, **ASKED}).json["message"]["content"]

    hub.requests.clear()
    assert server.post("/api/pull", {"name": NAME, "stream": False}).json == {"status": "success"}
    assert not hub.requests, "what is served is not fetched again"

    assert server.post("/api/copy", {"source": NAME, "destination": "gpt-4o:latest"}).status == 200
    assert server.post("/v1/chat/completions", {"model": "gpt-4o", **ASKED, "options": None}).status == 200
    assert server.post("/api/copy", {"source": "demo", "destination": "GPT-4o"}).status == 400
    assert delete(server, "gpt-4o").status == 200
    assert server.post("/api/show", {"model": "gpt-4o"}).status == 404

    (file,) = cache.glob(f"hub/**/{FILE}")
    assert file.exists()
    assert delete(server, NAME).status == 200
    assert not list(cache.glob("hub/**/blobs/*"))
    assert [model["name"] for model in server.get("/api/tags").json["models"]] == ["demo"]
    assert delete(server, NAME).status == 404


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("somebody/Some-GGUF", "cannot be fetched for a client"),
        ("/etc/passwd.gguf", "cannot be fetched for a client"),
        ("https://evil.example/x.gguf", ""),
        ("hermes-3:8b:Q4_K_M", ""),  # of the catalogue, but not on this Hub
    ],
)
def test_only_models_of_the_catalogue_are_fetched(server: Process, hub: Hub, name: str, words: str) -> None:
    hub.requests.clear()
    steps = lines(server.post("/api/pull", {"model": name}))
    assert words in steps[-1]["error"]
    assert not any("/resolve/" in path for _, path, _ in hub.requests)
    assert [model["name"] for model in server.get("/api/tags").json["models"]] == ["demo"]


def test_files_outside_the_library_are_not_deleted(server: Process) -> None:
    answer = delete(server, "demo")
    assert answer.status == 400
    assert "only its owner deletes" in answer.json["error"]
    assert asset("demo.gguf").exists()
    assert server.post("/api/copy", {"source": "demo", "destination": "two words"}).status == 400


def test_without_the_setting_nothing_comes_and_nothing_goes() -> None:
    """But a model that is served has been pulled, for clients that begin with that."""
    with served(ServerSettings(ollama=True), [offer("demo", path=asset("demo.gguf"))]) as running:
        assert lines(running.post("/api/pull", {"model": "demo:latest"})) == [{"status": "success"}]
        refused = [
            running.post("/api/pull", {"model": NAME}),
            running.post("/api/copy", {"source": "demo", "destination": "b"}),
            running.ask("DELETE", "/api/delete", {"model": "demo"}),
        ]
        for answer in refused:
            assert (answer.status, answer.json["error"][-18:]) == (403, "(--manage-models).")


def test_the_setting_needs_the_api_and_a_key_beyond_this_machine() -> None:
    told = {"manage_models": SettingValue(True, "--manage-models")}  # noqa: FBT003 - as it is typed
    with pytest.raises(UsageError, match="--manage-models is for Ollama's API"):
        resolve(told, {})
    settings = ServerSettings(ollama=True, manage_models=True, insecure=True, host="0.0.0.0", port=0)  # noqa: S104
    parts = ServerParts(tuple, lambda _: None, None, lambda _: None, lambda _: None, lambda _: None)  # type: ignore[arg-type,return-value]
    with pytest.raises(UsageError, match="needs keys beyond this machine"):
        serve(settings, parts)
