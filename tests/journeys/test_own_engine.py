"""`--engine` as a user meets it: hermes starts, watches and ends an engine, here tests/dummy_engine.py."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from conftest import REPOSITORY, RunHermes, clean_environment, eventually, start_hermes
from openai import APIStatusError, OpenAI
from server_rig import hermes_serve

from hermes_cli.errors import ExitCode

DUMMY = f"{sys.executable} {REPOSITORY / 'tests' / 'dummy_engine.py'}"


@pytest.fixture
def pids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[int]]:
    """The processes of the engine, for which the environment is set."""
    monkeypatch.setenv("DUMMY_PIDS", str(tmp_path / "pids"))
    return lambda: [int(word) for word in (tmp_path / "pids").read_text().split()]


def are_gone(pids: list[int]) -> bool:
    return not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids)


def test_a_chat(hermes: RunHermes, pids: Callable[[], list[int]]) -> None:
    done = hermes("chat", "demo", "--engine", "llama-server", "--engine-command", DUMMY, "--json", "hi")
    answer = json.loads(done.stdout)
    assert (answer["model"], answer["text"], answer["engine"]) == ("demo", "ok", "llama-server")
    assert are_gone(pids())


def test_a_benchmark(hermes: RunHermes, pids: Callable[[], list[int]]) -> None:
    engine = ("--engine", "llama-server", "--engine-command", DUMMY)
    done = hermes("bench", "demo", *engine, "--depth", "0", "--runs", "1", "--json")
    result = json.loads(done.stdout)
    assert (result["model"], result["engine"]) == ("demo", "llama-server")
    assert all(test["tokens_per_second"] > 0 for test in result["tests"])
    assert are_gone(pids())
    assert "needs the name of a model" in hermes("bench", *engine).stderr


def test_a_start_that_fails(hermes: RunHermes, pids: Callable[[], list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUMMY_START", "fail")
    done = hermes("chat", "demo", "--engine", "llama-server", "--engine-command", DUMMY, "hi")
    assert done.returncode == ExitCode.FAILED
    assert "llama-server did not start: ValueError: there is no such thing" in done.stderr
    assert "llama-server.log" in done.stderr
    assert are_gone(pids())


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--engine", "llamaserver2"], ExitCode.USAGE, "choose one of: llama-server, vllm, sglang"),
        (["--engine", "vllm", "--rpc", "a:1"], ExitCode.USAGE, "--rpc: vllm has nothing like it"),
        (["--engine", "llama-server", "--rpc", "a"], ExitCode.USAGE, "--rpc a is no HOST:PORT"),
        (["--engine-arg", "x"], ExitCode.USAGE, "--engine-arg: this is for an engine that hermes starts"),
        (["--engine", "llama-server", "--engine-url", "127.0.0.1:1"], ExitCode.USAGE, "cannot be used together"),
        (["--engine", "llama-server", "--yarn"], ExitCode.USAGE, "--yarn: hermes does not set this for llama-server"),
        (["--engine", "llama-server", "--engine-command", "/no/such"], ExitCode.NOT_FOUND, "no program /no/such"),
        (
            ["--engine", "llama-server", "--engine-command", "x", "--context", "9999"],
            ExitCode.USAGE,
            "--context 9,999 is longer than",
        ),
    ],
)
def test_what_makes_no_sense_is_said(hermes: RunHermes, arguments: list[str], code: ExitCode, said: str) -> None:
    done = hermes("chat", "demo", *arguments, "hi")
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr


def test_a_server_outlives_its_engine(tmp_path: Path, pids: Callable[[], list[int]]) -> None:
    arguments = ("demo", "--engine", "llama-server", "--engine-command", DUMMY, "--slots", "2")
    with hermes_serve(*arguments, cwd=tmp_path) as running:
        client = OpenAI(base_url=f"http://127.0.0.1:{running.port}/v1", api_key="none", max_retries=0)

        def ask(text: str) -> str | None:
            messages = [{"role": "user", "content": text}]
            reply = client.chat.completions.create(model="demo", messages=messages)  # type: ignore[arg-type]
            return reply.choices[0].message.content

        assert ask("hi") == "ok"
        before = pids()
        with pytest.raises(APIStatusError, match=r"llama-server was ended \(Killed\) while it worked on this"):
            ask("die")
        assert ask("hi") == "ok"
        assert are_gone(before)
        os.kill(pids()[0], signal.SIGKILL)
        assert ask("hi") == "ok"
    eventually(lambda: are_gone(pids()))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_chat_that_is_ended_while_the_engine_starts(
    tmp_path: Path, pids: Callable[[], list[int]], monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    monkeypatch.setenv("DUMMY_START", "silent")
    arguments = ("chat", "demo", "--engine", "llama-server", "--engine-command", DUMMY, "hi")
    process = start_hermes(arguments, tmp_path, clean_environment())
    eventually(lambda: (tmp_path / "pids").exists() and len((tmp_path / "pids").read_text().split()) == 2)
    process.send_signal(number)
    process.communicate()
    eventually(lambda: are_gone(pids()))
