"""`--engine-url` as a user meets it: hermes in front of llama-server and vLLM, whose answers were recorded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import RunHermes
from openai import OpenAI
from server_rig import hermes_serve
from upstream_rig import recorded_engine

from hermes_cli.errors import ExitCode

WEATHER = "What's the weather in Tokyo?"


@pytest.fixture(scope="module")
def engine() -> Iterator[str]:
    with recorded_engine("llama_server") as url:
        yield url


@pytest.fixture(scope="module")
def vllm() -> Iterator[str]:
    with recorded_engine("vllm") as url:
        yield url


def test_a_chat_with_tools(hermes: RunHermes, engine: str) -> None:
    done = hermes("chat", "demo", "--engine-url", engine, "--tools", "demo", "--yes", "--json", WEATHER)
    answer = json.loads(done.stdout)
    assert (answer["model"], answer["text"]) == ("demo", "It is 13 degrees and rainy in Tokyo.")
    assert answer["tool_calls"][0]["arguments"] == {"city": "Tokyo"}
    assert (answer["context_length"], answer["engine"]) == (1024, engine)
    assert "takes no grammars" in done.stderr


def test_a_chat_with_vllm(hermes: RunHermes, vllm: str, demo_path: Path) -> None:
    done = hermes("chat", "demo", "--engine-url", vllm, "--tools", "demo", "--yes", "--json", WEATHER)
    answer = json.loads(done.stdout)
    assert (answer["model"], answer["text"]) == ("demo", "It is 13 degrees and rainy in Tokyo.")
    assert "takes no grammars" not in done.stderr
    person = '{"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}}'
    asked = ("--schema", person, "--tokenizer", str(demo_path), "Anna is 31 years old.")
    assert json.loads(hermes("chat", "demo", "--engine-url", vllm, *asked).stdout) == {"name": "Anna", "age": 31}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["hermes-3:8b", "hi"], "--tokenizer a folder"),
        (["hermes-3:8b", "--tokenizer", "nowhere", "hi"], "there is nothing"),
        (["demo", "--context-shift", "hi"], "--context-shift: vLLM has nothing like it"),
    ],
)
def test_what_makes_no_sense_with_vllm_is_said(hermes: RunHermes, vllm: str, arguments: list[str], said: str) -> None:
    done = hermes("chat", *arguments, "--engine-url", vllm)
    assert done.returncode in {ExitCode.USAGE, ExitCode.NOT_FOUND}
    assert said in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["demo", "--context", "512", "--yarn"], ExitCode.USAGE, "--context and --yarn: with --engine-url"),
        (["demo", "--schema", '{"type": "object"}'], ExitCode.USAGE, "cannot hold an answer to a schema"),
        (["demo", "--context-shift"], ExitCode.USAGE, "--context-shift: llama-server has nothing like it"),
        (["hermes-3:8b"], ExitCode.USAGE, "0.0038 billion parameters, and hermes-3:8b has 8.03"),
        (["dmo"], ExitCode.NOT_FOUND, "did you mean demo"),
        (["demo", "--endpoint", "127.0.0.1:1"], ExitCode.USAGE, "cannot be used together"),
    ],
)
def test_what_makes_no_sense_is_said(
    hermes: RunHermes, engine: str, arguments: list[str], code: ExitCode, said: str
) -> None:
    done = hermes("chat", *arguments, "--engine-url", engine, "-m" if "--endpoint" in arguments else "hi", "hi")
    assert done.returncode == code
    assert said in done.stderr


def test_where_nobody_listens_is_said(hermes: RunHermes) -> None:
    done = hermes("chat", "demo", "--engine-url", "127.0.0.1:9", "hi")
    assert (done.returncode, done.stdout) == (ExitCode.NETWORK, "")
    assert "the engine at http://127.0.0.1:9 cannot be reached" in done.stderr


def test_it_is_served_to_clients_of_openai(engine: str, tmp_path: Path) -> None:
    with hermes_serve("demo", "--engine-url", engine, cwd=tmp_path) as running:
        client = OpenAI(base_url=f"http://127.0.0.1:{running.port}/v1", api_key="none")
        [model] = client.models.list().data
        assert (model.id, model.to_dict()["context_length"]) == ("demo", 1024)
        assert model.to_dict()["capabilities"] == {"tools": True, "reasoning": None, "json": False, "embeddings": False}
        chunks = client.chat.completions.create(
            model="demo", messages=[{"role": "user", "content": "What can you do?"}], stream=True, temperature=0
        )
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert text.startswith("I can call tools, answer in JSON")
        reply = client.chat.completions.create(
            model="demo", messages=[{"role": "user", "content": "Tell me a story"}], max_tokens=7, temperature=0
        )
        assert (reply.choices[0].finish_reason, reply.usage and reply.usage.completion_tokens) == ("length", 7)


def test_vllm_is_served_to_clients_of_openai(vllm: str, tmp_path: Path) -> None:
    with hermes_serve("demo", "--engine-url", vllm, cwd=tmp_path) as running:
        client = OpenAI(base_url=f"http://127.0.0.1:{running.port}/v1", api_key="none")
        [model] = client.models.list().data
        assert model.to_dict()["capabilities"] == {"tools": True, "reasoning": None, "json": True, "embeddings": False}
        reply = client.chat.completions.create(
            model="demo", messages=[{"role": "user", "content": "What can you do?"}], temperature=0
        )
        assert (reply.choices[0].message.content or "").startswith("I can call tools, answer in JSON")
