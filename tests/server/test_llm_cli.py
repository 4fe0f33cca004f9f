"""Simon Willison's `llm`, unmodified, against a real server with the demo model."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest
from clients_page import piece
from conftest import HANG, clean_environment
from hermes_zygote import Zygote
from server_rig import hermes_serve

from hermes_cli.paths import asset

WHO = "I am the Hermes demo, a tiny model of 3.8 million parameters that comes with the hermes command.\n"
WEATHER = "It is 13 degrees and rainy in Tokyo. It is 22 degrees and clear in Oslo.\n"
GREEDY = ("-o", "temperature", "0")
KEY = "sk-of-the-test"
IMPORTED = (  # once, for all commands
    *("llm.cli", "llm.default_plugins.openai_models", "openai.resources", "httpcore2", "truststore"),
    *("openai.lib._chat_completion_resources", "openai.lib._response_resources"),
)
BOTH_APIS = pytest.mark.parametrize("model", ["hermes", "hermes-responses"])


@dataclass
class Llm:
    """`llm` with a folder of its own, in which it remembers, and the address of the server."""

    home: Path
    address: str
    zygote: Zygote | None

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**clean_environment(), "LLM_USER_PATH": os.fspath(self.home)}
        if self.zygote:
            process = self.zygote.start(arguments, self.home, environment, code="from llm.cli import cli; cli()")
            out, error = process.communicate(HANG)
            return subprocess.CompletedProcess(arguments, process.returncode or 0, out, error)
        return subprocess.run(
            [sys.executable, "-m", "llm", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            text=True,
            cwd=self.home,
            env=environment,
            timeout=HANG,
        )

    def says(self, *arguments: str) -> str:
        done = self(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Llm]:
    """Set up as docs/clients.md tells."""
    home = tmp_path_factory.mktemp("llm")
    with (
        closing(Zygote(IMPORTED)) if hasattr(os, "fork") else nullcontext() as zygote,
        hermes_serve("demo", "--api-key", KEY, cwd=tmp_path_factory.mktemp("serve")) as server,
    ):
        one = Llm(home, f"http://127.0.0.1:{server.port}/v1", zygote)
        chats = piece("llm", "yaml", server)
        responses = chats.replace("model_id: hermes", "model_id: hermes-responses")
        responses += "  responses: true\n  reasoning: true\n"
        (home / "extra-openai-models.yaml").write_text(chats + responses, encoding="utf-8")
        one.says("keys", "set", "hermes", "--value", KEY)
        yield one


def test_a_stream_a_whole_answer_and_what_is_said_next(llm: Llm) -> None:
    first = llm("-m", "hermes", "--usage", *GREEDY, "Who are you?")
    assert (first.returncode, first.stdout) == (0, WHO), first.stderr
    assert read(first) > 10
    assert llm.says("-m", "hermes", "--no-stream", *GREEDY, "Who are you?") == WHO
    second = llm("-c", "--usage", *GREEDY, "What is GGUF?")
    assert "llama.cpp" in second.stdout
    assert read(second) > 2 * read(first)  # the dialogue so far, too


def read(done: subprocess.CompletedProcess[str]) -> int:
    """How many tokens the model read, as `--usage` tells."""
    told = re.search(r"Token usage: ([\d,]+) input", done.stderr)
    assert told, done.stderr
    return int(told[1].replace(",", ""))


@BOTH_APIS
def test_tools_to_the_end(llm: Llm, model: str) -> None:
    tools = ("--functions", os.fspath(asset("demo_tools.py")), "--td")
    done = llm("-m", model, *GREEDY, *tools, "What's the weather in Tokyo and in Oslo?")
    assert (done.returncode, done.stdout) == (0, WEATHER), done.stderr
    assert "get_weather({'city': 'Tokyo'})" in done.stderr
    assert "get_weather({'city': 'Oslo'})" in done.stderr


@BOTH_APIS
def test_a_schema_binds_the_answer(llm: Llm, model: str) -> None:
    said = llm.says("-m", model, *GREEDY, "--schema", "name, age int", "Anna is 34 years old.")
    assert json.loads(said) == {"name": "Anna", "age": 34}


def test_reasoning_is_shown_beside_the_answer(llm: Llm) -> None:
    done = llm("-m", "hermes-responses", *GREEDY, "-o", "reasoning_effort", "low", "What is GGUF?")
    assert (done.returncode, done.stdout.startswith("GGUF is")) == (0, True), done.stderr
    assert "The user asks about GGUF." in done.stderr


def test_without_any_settings(llm: Llm) -> None:
    endpoint = ("openai", "endpoint", llm.address, "--key", KEY)
    assert llm.says(*endpoint, "--models") == "demo\n"
    assert llm.says(*endpoint, "-m", "demo", *GREEDY, "Who are you?") == WHO


def test_an_error_is_told(llm: Llm) -> None:
    refused = llm("-m", "hermes", "--key", "sk-wrong", "Who are you?")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "the key is wrong" in refused.stderr
    long = llm("-m", "hermes", "word " * 2000)
    assert (long.returncode, long.stdout) == (1, "")
    assert "maximum context length is 1024 tokens" in long.stderr
