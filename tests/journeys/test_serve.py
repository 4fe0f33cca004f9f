"""`hermes serve` as a user meets it: real processes, the real demo model, loopback."""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import HANG, RunHermes, eventually
from server_rig import Process, hermes_serve

from hermes_cli.errors import ExitCode

HI = {"messages": [{"role": "user", "content": "Who are you?"}], "max_tokens": 12}
LONG = {**HI, "max_tokens": 500, "stream": True, "ignore_eos": True}
FEW = ("--threads", "1")
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="signals")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with hermes_serve("demo", *FEW, cwd=tmp_path_factory.mktemp("serve")) as server:
        yield server


class Stream:
    """A streamed answer that is being written."""

    def __init__(self, server: Process) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=HANG)
        self._connection.request("POST", "/v1/chat/completions", json.dumps(LONG), {"Content-Type": "application/json"})
        self.response = self._connection.getresponse()
        assert self.response.status == 200
        self.first = self.response.readline()

    def rest(self) -> list[Any]:
        events = [line.removeprefix(b"data: ").strip() for line in self.response if line.startswith(b"data: ")]
        self.leave()
        return [one.decode() if one == b"[DONE]" else json.loads(one) for one in events]

    def leave(self) -> None:
        self.response.close()
        self._connection.close()


def children(server: Process) -> list[psutil.Process]:
    return psutil.Process(server.process.pid).children(recursive=True)


def all_gone(processes: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, HANG)
    return not alive


def test_it_serves(demo: Process) -> None:
    assert demo.get("/health").json == {"status": "ok"}
    (model,) = demo.get("/v1/models").json["data"]
    assert (model["id"], model["context_length"], model["max_model_len"], model["state"]) == (
        "demo",
        1024,
        1024,
        "ready",
    )
    answer = demo.post("/v1/chat/completions", HI).json
    assert answer["choices"][0]["message"]["content"].startswith("I am the Hermes demo")


def test_a_client_that_leaves_ends_its_work(demo: Process) -> None:
    stream = Stream(demo)
    assert [slot["is_processing"] for slot in demo.get("/slots").json].count(True) == 1
    stream.leave()
    eventually(lambda: not any(slot["is_processing"] for slot in demo.get("/slots").json))


def test_the_banner(tmp_path: Path) -> None:
    with hermes_serve("demo", *FEW, cwd=tmp_path) as server:
        banner = server.banner
        assert f"hermes serves http://127.0.0.1:{server.port}/v1\n\n  demo\n" in banner
        assert "    1,024 tokens of context for each request, 4 at once\n    170 MB of " in banner
        assert f"\n  in a browser    http://127.0.0.1:{server.port}\n" in banner
        assert f"\n  in a terminal   hermes chat --endpoint http://127.0.0.1:{server.port}\n" in banner
        assert f"  export OPENAI_BASE_URL=http://127.0.0.1:{server.port}/v1 OPENAI_API_KEY=none\n" in banner
        server.get("/v1/models")
        server.signal()
        code, said = server.end()
    assert code == 0
    assert "Ctrl-C stops it." in said
    assert " 127.0.0.1 GET /v1/models 200, " in said


def test_the_banner_for_programs_and_quiet_servers(tmp_path: Path) -> None:
    with hermes_serve("demo", *FEW, "--json", "--log-json", cwd=tmp_path) as server:
        told = json.loads(server.banner)
        assert told["address"] == f"http://127.0.0.1:{server.port}/v1"
        assert told["models"][0]["context_length"] == 1024
        assert told["models"][0]["memory"][0]["bytes"]["weights"] > 4_000_000
        server.get("/health")
        server.signal()
        _, said = server.end()
    assert json.loads(said)["route"] == "/health"
    with hermes_serve("demo", *FEW, "--quiet", "--api-key", "k", cwd=tmp_path) as server:
        assert server.banner == f"http://127.0.0.1:{server.port}/v1\n"
        assert server.get("/v1/models").status == 401
        server.signal()
        assert server.end() == (0, "")


def test_a_port_in_use_is_told_before_anything_is_loaded(hermes: RunHermes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = hermes("serve", "no-such-model", "--port", str(port))
    assert done.returncode == ExitCode.FAILED
    assert done.stderr == (
        f"error: port {port} of 127.0.0.1 is in use by another program.\n"
        "  next: take another one: --port 0 takes any that is free.\n"
    )


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        (("--port", "70000"), "--port 70000: ", ExitCode.USAGE),
        (("--keep-alive", "soon"), "--keep-alive soon: ", ExitCode.USAGE),
        (("--context", "9999999"), "longer than the 1,024 tokens", ExitCode.USAGE),
        (("--host", "no.such.host.invalid"), "there is no host no.such.host.invalid", ExitCode.USAGE),
        (("--host", "192.0.2.1"), "--host 192.0.2.1 is not an address of this machine", ExitCode.USAGE),
        (("--api-key-file", "nowhere"), "the file of keys nowhere cannot be read", ExitCode.USAGE),
        (("--config", "nowhere.yaml"), "there is no file nowhere.yaml", ExitCode.NOT_FOUND),
        (("--for-agent",), "65,536 tokens of context are needed", ExitCode.DOES_NOT_FIT),
        (("no-such-model",), "there is no model named no-such-model", ExitCode.NOT_FOUND),
        (("--draft", "no-such-model"), "there is no model named no-such-model", ExitCode.NOT_FOUND),
        (("--template", "nowhere.jinja"), "nowhere.jinja", ExitCode.USAGE),
    ],
)
def test_a_bad_value_ends_it_with_an_error(hermes: RunHermes, arguments: tuple[str, ...], said: str, code: int) -> None:
    port = () if "--port" in arguments else ("--port", "0")
    done = hermes("serve", "demo", *port, *arguments)
    assert said in done.stderr
    assert done.returncode == code
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_without_a_name_and_without_any_model_it_says_what_to_fetch(hermes: RunHermes, tmp_path: Path) -> None:
    done = hermes("serve", "--port", "0", env={"HF_HUB_CACHE": str(tmp_path), "HERMES_LLM_DATA_DIR": str(tmp_path)})
    assert done.returncode == ExitCode.NOT_FOUND
    assert "no model was named" in done.stderr
    assert "hermes serve demo" in done.stderr


@POSIX
def test_sigterm_lets_a_running_stream_finish_and_refuses_new_requests(tmp_path: Path) -> None:
    with hermes_serve("demo", *FEW, cwd=tmp_path) as server:
        engines = children(server)
        assert engines
        stream = Stream(server)
        server.signal(signal.SIGTERM)
        for engine in engines:  # systemd tells every process of a service
            engine.terminate()
        eventually(lambda: server.get("/health").status == 503)
        refused = server.post("/v1/chat/completions", HI)
        assert (refused.status, refused.error["code"]) == (503, "not_ready")
        assert int(refused.headers["retry-after"]) > 0
        events = stream.rest()
        assert events[-1] == "[DONE]"
        assert events[-2]["choices"][0]["finish_reason"] == "length"
        code, said = server.end()
    assert code == 0
    assert "stopping: 1 requests may finish within 30 seconds" in said
    assert "Traceback" not in said
    assert all_gone(engines)


@POSIX
def test_what_does_not_finish_within_the_grace_ends_with_an_error(tmp_path: Path) -> None:
    with hermes_serve("demo", *FEW, "--grace", "0", cwd=tmp_path) as server:
        engines = children(server)
        stream = Stream(server)
        server.signal(signal.SIGTERM)
        events = stream.rest()
        assert "error" in events[-1] if events[-1] != "[DONE]" else "error" in events[-2]
        code, said = server.end()
    assert code == 0
    assert "Traceback" not in said
    assert all_gone(engines)


@POSIX
def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    with hermes_serve("demo", *FEW, "--grace", "600", cwd=tmp_path) as server:
        engines = children(server)
        stream = Stream(server)
        server.signal(signal.SIGTERM)
        eventually(lambda: server.get("/health").status == 503)
        server.signal(signal.SIGTERM)
        stream.rest()
        code, said = server.end()
    assert code == ExitCode.INTERRUPTED
    assert "Traceback" not in said
    assert all_gone(engines)


@POSIX
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_model_is_loaded(tmp_path: Path, number: int) -> None:
    with hermes_serve("demo", *FEW, cwd=tmp_path, wait=False) as server:
        eventually(lambda: children(server))
        server.signal(number)
        code, said = server.end()
    assert code in {0, ExitCode.INTERRUPTED, 128 + signal.SIGTERM}
    assert "Traceback" not in said


@POSIX
def test_ctrl_c_stops_it(tmp_path: Path) -> None:
    with hermes_serve("demo", *FEW, cwd=tmp_path) as server:
        engines = children(server)
        server.signal(signal.SIGINT)
        assert server.end()[0] == 0
    assert all_gone(engines)


@POSIX
def test_no_engine_survives_a_server_that_is_killed(tmp_path: Path) -> None:
    with hermes_serve("demo", *FEW, cwd=tmp_path) as server:
        engines = children(server)
        stream = Stream(server)
        server.process.kill()
        server.end()
        stream.leave()
    assert all_gone(engines)


@POSIX
def test_an_engine_that_is_killed_ends_its_requests_and_is_replaced(demo: Process) -> None:
    stream = Stream(demo)
    for engine in children(demo):
        engine.kill()
    events = stream.rest()
    assert any("error" in event for event in events if isinstance(event, dict))
    assert demo.healthy()
    assert demo.post("/v1/chat/completions", HI).status == 200
    assert 'hermes_engine_restarts_total{model="demo"} 1.0' in demo.get("/metrics").body.decode()


def test_beyond_this_machine_a_key_is_made_and_shown_once(tmp_path: Path) -> None:
    with hermes_serve("demo", *FEW, "--host", "0.0.0.0", cwd=tmp_path) as server:  # noqa: S104 - with a key
        assert server.key
        assert len(server.key) > 40
        assert f"key, made for this run: {server.key}\n" in server.banner
        assert server.get("/v1/models").status == 401
        assert server.get("/v1/models", Authorization=f"Bearer {server.key}").status == 200
        assert server.get("/v1/models", x_api_key=server.key, Host=f"192.168.1.5:{server.port}").status == 200
        assert server.get("/v1/models", x_api_key=server.key, Host="evil.example").status == 403
        server.signal()
        _, said = server.end()
    assert server.key not in said
    assert " made GET /v1/models 200, " in said


def test_insecure_has_to_be_said_and_is_warned_about(tmp_path: Path) -> None:
    with hermes_serve("demo", *FEW, "--host", "0.0.0.0", "--insecure", cwd=tmp_path) as server:  # noqa: S104 - as said
        assert server.key is None
        assert server.get("/v1/models").status == 200
        server.signal()
        assert "anybody who can reach this address may use it: --insecure" in server.end()[1]


def test_two_models_from_a_file(tmp_path: Path, demo_path: Path) -> None:
    for name in ("a", "b"):
        shutil.copy(demo_path, tmp_path / f"{name}.gguf")
    (tmp_path / "serve.yaml").write_text(
        """
        threads: 1
        models:
          - {model: ./a.gguf, aliases: [main, gpt-4o]}
          - {model: ./b.gguf, name: small, aliases: [auxiliary], context: 512}
        """
    )
    with hermes_serve(cwd=tmp_path) as server:
        assert "  a, also called main, gpt-4o\n" in server.banner
        assert "  small, also called auxiliary\n    512 tokens of context" in server.banner
        assert "free in RAM, loaded when it is asked for\n" in server.banner

        def states() -> dict[str, str]:
            return {model["id"]: model["state"] for model in server.get("/v1/models").json["data"]}

        assert states() == {"a": "ready", "small": "unloaded"}
        assert server.post("/v1/chat/completions", {**HI, "model": "GPT-4o"}).json["model"] == "a"
        assert server.post("/v1/chat/completions", {**HI, "model": "auxiliary"}).json["model"] == "small"
        assert states() == {"a": "ready", "small": "ready"}
        assert server.get("/props?model=small").json["default_generation_settings"]["n_ctx"] == 512
        assert server.post("/v1/chat/completions", {**HI, "model": "small", "keep_alive": 0}).status == 200
        eventually(lambda: states() == {"a": "ready", "small": "unloaded"})
        assert server.post("/v1/chat/completions", {**HI, "model": "nobody"}).status == 404
