"""`hermes ps`, `hermes stop` and `hermes serve --background`, with real servers."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from conftest import REPOSITORY, RunHermes, clean_environment, eventually
from server_rig import Process, hermes_serve

from hermes_cli.errors import ExitCode
from hermes_cli.paths import MAX_LOG_BYTES
from hermes_cli.server.running import running_servers

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="signals")
HI = {"messages": [{"role": "user", "content": "Who are you?"}], "max_tokens": 5}


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The folders of a user without servers, for commands and for this process."""
    places = {f"HERMES_LLM_{name}_DIR": str(tmp_path) for name in ("CONFIG", "DATA")}
    places |= {"HERMES_LLM_LOG_DIR": str(tmp_path / "log"), "PYTHONPATH": str(REPOSITORY)}
    for name, value in places.items():
        monkeypatch.setenv(name, value)
    return places


@pytest.fixture
def server(tmp_path: Path, places: dict[str, str]) -> Iterator[Process]:
    with hermes_serve("demo", "--api-key", "secret", cwd=tmp_path, env=places) as server:
        yield server


def test_a_server_is_listed_with_its_models_until_it_ends(
    server: Process, hermes: RunHermes, places: dict[str, str]
) -> None:
    (locked,) = json.loads(hermes("ps", "--json", env=places).stdout)["servers"]
    assert locked["address"] == f"http://127.0.0.1:{server.port}/v1"
    assert (locked["pid"], locked["needs_key"], locked["log"]) == (server.process.pid, True, None)
    assert locked["models"] == [{"name": "demo", "state": None, "context_length": None, "requests": None}]
    assert locked["memory_bytes"] > 50_000_000
    (opened,) = json.loads(hermes("ps", "--json", "--key", "secret", env=places).stdout)["servers"]
    assert opened["models"] == [{"name": "demo", "state": "ready", "context_length": 1024, "requests": 0}]
    table = hermes("ps", env=places).stdout
    assert table.splitlines()[1].startswith("demo   needs a key")
    done = hermes("stop", env=places)
    assert done.returncode == 0
    assert f"stopped http://127.0.0.1:{server.port} (demo)" in done.stderr
    assert server.end()[0] == 0
    assert json.loads(hermes("ps", "--json", env=places).stdout) == {"servers": []}
    assert hermes("stop", env=places).stderr == "no server is running\n"


@POSIX
def test_the_record_of_a_killed_server_is_removed(server: Process, tmp_path: Path) -> None:
    (record,) = (tmp_path / "servers").glob("*.json")
    assert record.stat().st_mode & 0o077 == 0
    fields = json.loads(record.read_text())
    other = record.with_name("1.json")
    other.write_text(json.dumps({**fields, "start": fields["start"] - 1}))  # another process got its number
    assert [running.pid for running in running_servers()] == [server.process.pid]
    assert not other.exists()
    server.signal(signal.SIGKILL)
    server.process.wait()
    assert running_servers() == []
    assert not record.exists()


def test_a_port_that_another_server_of_ours_has(server: Process, hermes: RunHermes, places: dict[str, str]) -> None:
    done = hermes("serve", "demo", "--port", str(server.port), env=places)
    assert done.returncode == ExitCode.FAILED
    assert f"port {server.port} is in use by another hermes serve, of demo." in done.stderr
    assert f"hermes stop {server.port}" in done.stderr


def test_the_key_that_a_server_made_need_not_be_copied(
    tmp_path: Path, hermes: RunHermes, places: dict[str, str]
) -> None:
    with hermes_serve("demo", "--host", "0.0.0.0", cwd=tmp_path, env=places) as server:  # noqa: S104 - with a key
        for address in (f"http://127.0.0.1:{server.port}/v1/", f"localhost:{server.port}"):
            done = hermes("chat", "--endpoint", address, "Who are you?", env=places)
            assert done.stdout.startswith("I am the Hermes demo"), done.stderr
        stranger = hermes(
            "chat", "--endpoint", f"localhost:{server.port}", "hi", env={**places, "HERMES_LLM_DATA_DIR": "/nowhere"}
        )
        assert stranger.returncode != 0


def test_of_several_servers_it_has_to_be_said_which(tmp_path: Path, hermes: RunHermes, places: dict[str, str]) -> None:
    with hermes_serve("demo", cwd=tmp_path, env=places) as one, hermes_serve("demo", cwd=tmp_path, env=places) as two:
        for words in ((), ("demo",)):
            done = hermes("stop", *words, env=places)
            assert done.returncode == ExitCode.USAGE
            assert f"2 servers are running: {one.port} (demo), {two.port} (demo)." in done.stderr
        missing = hermes("stop", "1", env=places)
        assert missing.returncode == ExitCode.NOT_FOUND
        assert "no server of yours is called 1." in missing.stderr
        assert hermes("stop", f"http://127.0.0.1:{two.port}/v1", env=places).returncode == 0
        assert two.end()[0] == 0
        assert hermes("stop", "--all", env=places).returncode == 0
        assert one.end()[0] == 0


@POSIX
def test_by_force_it_does_not_wait_for_requests(tmp_path: Path, hermes: RunHermes, places: dict[str, str]) -> None:
    with hermes_serve("demo", "--grace", "600", cwd=tmp_path, env=places) as server:
        with server.connect() as line:
            body = json.dumps({**HI, "max_tokens": 900, "stream": True, "ignore_eos": True})
            line.sendall(
                f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
            )
            assert line.recv(100)
            for child in psutil.Process(server.process.pid).children():
                child.suspend()  # its engine writes nothing meanwhile
            assert hermes("stop", "--force", env=places).returncode == 0
        assert server.end()[0] in {0, ExitCode.INTERRUPTED}


def test_in_the_background_it_outlives_its_command(hermes: RunHermes, places: dict[str, str]) -> None:
    started = hermes("serve", "demo", "--port", "0", "--background", "--json", env=places)
    try:
        assert started.returncode == 0, started.stderr
        address = json.loads(started.stdout)["address"]
        (server,) = running_servers()
        assert f"{server.address}/v1" == address
        answer = server.get("/v1/models")
        assert answer["data"][0]["id"] == "demo"
        assert server.log
        log = Path(str(server.log))
        eventually(lambda: " GET /v1/models 200, " in log.read_text())
        with log.open("a") as file:
            file.write("long\n" * 2_000_000)
        server.get("/v1/models")
        eventually(lambda: log.with_name(f"{log.name}.1").exists() and log.stat().st_size < MAX_LOG_BYTES)
    finally:
        hermes("stop", "--all", env=places)
    assert running_servers() == []
    assert not psutil.pid_exists(server.pid)


@POSIX
def test_in_the_background_a_log_that_cannot_be_written_is_told(places: dict[str, str]) -> None:
    # No file may have any bytes, as on a full disk.
    line = f"ulimit -f 0; exec {sys.executable} -m hermes_cli serve demo --port 0 --background"
    environment = {**clean_environment(), **places}
    done = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == ExitCode.FAILED
    assert re.search(r"^error: the log .*serve-.*\.log cannot be written: \S.*\.$", done.stderr, re.MULTILINE)
    assert "HERMES_LLM_LOG_DIR" in done.stderr
    assert running_servers() == []


@POSIX
def test_in_the_background_it_says_why_it_does_not_start_and_old_logs_do_not_pile_up(
    hermes: RunHermes, places: dict[str, str]
) -> None:
    folder = Path(places["HERMES_LLM_LOG_DIR"])
    folder.mkdir()
    for number in range(20):
        (folder / f"serve-2026-01-{number + 1:02}-000000-1.log").write_text("")
    done = hermes("serve", "no-such-model", "--background", env=places)
    assert done.returncode == ExitCode.NOT_FOUND
    assert done.stderr == (
        "error: there is no model named no-such-model and no such file.\n"
        "  next: the models of others are on the Hub: hermes search no-such-model; ours: hermes list\n"
    )
    assert running_servers() == []
    kept = sorted(path.name for path in folder.iterdir())
    assert len(kept) == 10
    assert kept[0] == "serve-2026-01-12-000000-1.log"
