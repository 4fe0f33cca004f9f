"""What clients of Ollama's API may not do to the models of a server; tests/server/test_ollama_client.py has what they may."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from server_rig import Answer, Running, offer, served

from hermes_cli.errors import UsageError
from hermes_cli.paths import asset
from hermes_cli.server.ollama import library
from hermes_cli.server.run import ServerParts, serve
from hermes_cli.server.settings import ServerSettings, SettingValue, resolve

NAME = "hermes-3:3b:Q4_K_M"


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    """A server whose clients may do all that they ever may."""
    models = [offer(name, path=asset("demo.gguf")) for name in ("demo", "other")]
    with served(ServerSettings(ollama=True, manage_models=True), models) as running:
        yield running


def lines(answer: Answer) -> list[dict[str, Any]]:
    return [json.loads(line) for line in answer.body.splitlines()]


@pytest.mark.parametrize("name", ["somebody/Some-GGUF", "/etc/passwd.gguf", "https://evil.example/x.gguf", "mistral"])
def test_only_models_of_the_catalogue_are_fetched(server: Running, name: str) -> None:
    steps = lines(server.post("/api/pull", {"model": name}))
    assert steps[-1].keys() == {"error"}
    assert server.post("/api/pull", {"model": name, "stream": False}).status in {400, 404}
    assert [model["name"] for model in server.get("/api/tags").json["models"]] == ["demo", "other"]


def test_files_outside_the_library_are_not_deleted(server: Running) -> None:
    answer = server.ask("DELETE", "/api/delete", {"model": "other"})
    assert answer.status == 400
    assert "only its owner deletes" in answer.json["error"]
    assert asset("demo.gguf").exists()
    assert [model["name"] for model in server.get("/api/tags").json["models"]] == ["demo", "other"]


def test_a_name_that_stands_for_any_deletes_nothing() -> None:
    models = [offer("demo", "*", path=asset("demo.gguf")), offer("other", path=asset("demo.gguf"))]
    with served(ServerSettings(ollama=True, manage_models=True), models) as running:
        assert running.ask("DELETE", "/api/delete", {"model": "whatever"}).status == 404
        assert [model["name"] for model in running.get("/api/tags").json["models"]] == ["demo", "other"]


@pytest.mark.parametrize("name", ["two words", "", "demo", "OTHER", "a\nb"])
def test_a_name_that_is_none_or_is_taken_is_refused(server: Running, name: str) -> None:
    assert server.post("/api/copy", {"source": "demo", "destination": name}).status == 400


def test_names_of_a_model_have_a_limit(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "MOST_ALIASES", len(server.get("/v1/models").json["data"][0].get("aliases", [])) + 1)
    assert server.post("/api/copy", {"source": "demo", "destination": "once"}).status == 200
    refused = server.post("/api/copy", {"source": "demo", "destination": "twice"})
    assert refused.status == 400
    assert "names already" in refused.json["error"]
    assert server.ask("DELETE", "/api/delete", {"model": "once"}).status == 200


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
            assert answer.status == 403
            assert answer.json["error"].endswith("here, unless the server runs with --manage-models.")


def test_the_setting_needs_the_api_and_a_key_beyond_this_machine() -> None:
    told = {"manage_models": SettingValue(True, "--manage-models")}  # noqa: FBT003 - as it is typed
    with pytest.raises(UsageError, match="--manage-models is for Ollama's API"):
        resolve(told, {})
    settings = ServerSettings(ollama=True, manage_models=True, insecure=True, host="0.0.0.0", port=0)  # noqa: S104
    parts = ServerParts(tuple, lambda _: None, None, lambda _: None, lambda _: None, lambda _: None)  # type: ignore[arg-type,return-value]
    with pytest.raises(UsageError, match="needs keys beyond this machine"):
        serve(settings, parts)
