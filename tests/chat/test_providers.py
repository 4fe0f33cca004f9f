"""Models at services, and stored keys."""

from __future__ import annotations

import socket
import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import RunHermes

from hermes_cli.catalog.load import load_catalogue
from hermes_cli.chat.endpoint.address import read_address
from hermes_cli.chat.endpoint.providers import (
    PROVIDERS,
    forget_key,
    hosted,
    hosted_id,
    provider_named,
    store_key,
    stored_key,
)
from hermes_cli.commands.run_chat import open_other
from hermes_cli.console import Console
from hermes_cli.errors import AccessError, ExitCode, HermesError, UsageError
from hermes_cli.models.loader import Prewarm
from hermes_cli.models.resolve import ModelRequest

OPENROUTER, NOUS = PROVIDERS["openrouter"], PROVIDERS["nous"]


@pytest.fixture(autouse=True)
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HERMES_LLM_CONFIG_DIR", str(tmp_path / "settings"))
    return tmp_path / "settings"


@pytest.mark.parametrize(
    ("typed", "service", "model"),
    [
        ("openrouter:hermes-4-405b", "openrouter.ai", "nousresearch/hermes-4-405b"),
        ("OpenRouter:hermes-4:405b", "openrouter.ai", "nousresearch/hermes-4-405b"),
        ("openrouter:nousresearch/hermes-4-70b", "openrouter.ai", "nousresearch/hermes-4-70b"),
        ("openrouter:someone/else:free", "openrouter.ai", "someone/else:free"),
        ("openrouter:hermes-9", "openrouter.ai", "nousresearch/hermes-9"),
        ("nous:hermes-4:70b", "inference-api.nousresearch.com", "Hermes-4-70B"),
        ("nous:Hermes-4.3-36B", "inference-api.nousresearch.com", "Hermes-4.3-36B"),
    ],
)
def test_a_name_at_a_service(typed: str, service: str, model: str) -> None:
    found = hosted(typed)
    assert found
    assert found[0].host == service
    assert hosted_id(*found, load_catalogue()) == model


def test_other_names_are_none_of_a_service() -> None:
    for name in ("hermes-3:8b", "nous-hermes:7b", "demo", "./openrouter:x", "", None):
        assert hosted(name) is None
    with pytest.raises(UsageError, match="names no model"):
        hosted("openrouter:")
    with pytest.raises(UsageError, match="no service opnrouter"):
        provider_named("opnrouter")


def test_a_stored_key_goes_to_its_host_and_the_environment_counts_before_it(settings: Path) -> None:
    assert store_key(OPENROUTER, " sk-stored\n") == str(settings / "keys.json")
    assert stat.S_IMODE((settings / "keys.json").stat().st_mode) == 0o600
    assert read_address("openrouter.ai", {}).key == "sk-stored"
    assert read_address("openrouter.ai", {"OPENROUTER_API_KEY": "sk-typed"}).key == "sk-typed"
    for other in (NOUS.host, "openrouter.ai.example.com", "api.openai.com", "127.0.0.1:1"):
        assert read_address(other, {}).key is None
    store_key(NOUS, "other")
    assert forget_key(OPENROUTER)
    assert not forget_key(OPENROUTER)
    assert (stored_key(OPENROUTER.host), stored_key(NOUS.host)) == (None, "other")
    assert forget_key(NOUS)
    assert not (settings / "keys.json").exists()


@pytest.mark.parametrize("key", ["", "two words", "käse", "a\x07b"])
def test_what_cannot_be_a_key(key: str) -> None:
    with pytest.raises(UsageError, match="that is not a key"):
        store_key(OPENROUTER, key)


def test_a_damaged_file_is_said(settings: Path) -> None:
    settings.mkdir()
    (settings / "keys.json").write_text("[]")
    with pytest.raises(AccessError, match="is damaged"):
        stored_key(OPENROUTER.host)


def test_login_lists_stores_and_removes_and_shows_no_key(hermes: RunHermes) -> None:
    stored = hermes("login", "openrouter", stdin="sk-secret\n")
    assert stored.returncode == ExitCode.OK
    assert "hermes logout openrouter removes it" in stored.stderr
    listed = hermes("login")
    assert "hermes login" in listed.stdout
    assert "sk-secret" not in listed.stdout + listed.stderr
    assert '"key": "hermes login"' in hermes("login", "--json").stdout
    assert hermes("logout", "openrouter").returncode == ExitCode.OK
    assert hermes("logout", "openrouter").returncode == ExitCode.NOT_FOUND
    empty = hermes("login", "nous", stdin="\n")
    assert empty.returncode == ExitCode.USAGE
    assert empty.stderr == "error: there is no key.\n  next: type or pipe it in: hermes login nous < FILE\n"


@pytest.fixture
def proxy() -> Iterator[tuple[int, list[bytes]]]:
    """A proxy that lets nothing through, and what it was asked for."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    asked.append(connection.recv(4096))
                    connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1], asked
        listening.shutdown(socket.SHUT_RDWR)
    thread.join()


def test_a_chat_goes_to_the_service_and_nowhere_else(hermes: RunHermes, proxy: tuple[int, list[bytes]]) -> None:
    port, asked = proxy
    env = {"HTTPS_PROXY": f"http://127.0.0.1:{port}", "OPENROUTER_API_KEY": "sk-secret", "NO_PROXY": ""}
    done = hermes("chat", "openrouter:hermes-4-405b", "hi", env=env)
    assert done.returncode == ExitCode.NETWORK
    assert "openrouter.ai" in done.stderr
    assert asked
    assert all(request.startswith(b"CONNECT openrouter.ai:443") for request in asked)
    assert not any(b"sk-secret" in request for request in asked)


def test_a_service_goes_before_the_model_of_the_settings(hermes: RunHermes, proxy: tuple[int, list[bytes]]) -> None:
    port, asked = proxy
    env = {"HTTPS_PROXY": f"http://127.0.0.1:{port}", "OPENROUTER_API_KEY": "sk-secret", "NO_PROXY": ""}
    assert hermes("config", "set", "model", "demo").returncode == 0
    assert hermes("chat", "openrouter:hermes-4-405b", "hi", env=env).returncode == ExitCode.NETWORK
    assert asked


def test_a_chat_with_a_model_here_goes_on_at_a_service(
    proxy: tuple[int, list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `/model openrouter:NAME` has it; other names are the source's."""
    for name, value in {
        "HTTPS_PROXY": f"http://127.0.0.1:{proxy[0]}",
        "OPENROUTER_API_KEY": "sk",
        "NO_PROXY": "",
    }.items():
        monkeypatch.setenv(name, value)

    class Here:
        def open(self, name: str | None) -> Any:  # noqa: ANN401 - stands for a backend
            return name

    with Prewarm(engine=False) as prewarm:
        rest: tuple[Any, ...] = (Here(), ModelRequest("demo"), Console(), prewarm)
        opened: Any = open_other("hermes-3:8b", *rest)
        assert opened == "hermes-3:8b"
        with pytest.raises(HermesError, match=r"openrouter\.ai"):
            open_other("openrouter:hermes-4-405b", *rest)
    assert all(request.startswith(b"CONNECT openrouter.ai:443") for request in proxy[1])
    assert proxy[1]


def test_a_service_excludes_other_places(hermes: RunHermes) -> None:
    done = hermes("chat", "openrouter:hermes-4-405b", "hi", "--engine", "llama-server")
    assert done.returncode == ExitCode.USAGE
    assert "--engine and openrouter:hermes-4-405b cannot be used together" in done.stderr


@pytest.mark.parametrize("works", [True, False])
def test_a_keyring_that_works_holds_the_key(
    settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, works: bool
) -> None:
    """With a module in the place of the library, which has the same three functions."""
    raises = "" if works else "    raise RuntimeError('no backend')\n"
    (tmp_path / "keyring.py").write_text(
        f"held = {{}}\ndef set_password(app, name, key):\n{raises}    held[app, name] = key\n"
        f"def get_password(app, name):\n{raises}    return held.get((app, name))\n"
        f"def delete_password(app, name):\n{raises}    del held[app, name]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "keyring", raising=False)
    place = store_key(OPENROUTER, "sk-ring")
    assert (place == "the system's keyring") == works
    assert (settings / "keys.json").exists() != works
    assert stored_key(OPENROUTER.host) == "sk-ring"
    assert forget_key(OPENROUTER)
    assert not forget_key(OPENROUTER)
    monkeypatch.delitem(sys.modules, "keyring", raising=False)
