"""Ollama's own Python package, unmodified, against a real server with the demo model and a tiny BERT, and a Hub.

It lives in the environment of clients; one process does everything, the tests look at what it was answered.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import HANG, clean_environment
from hub_server import Hub, serving
from server_rig import hermes_serve
from tiny_bert import write_tiny_bert

from hermes_cli.paths import asset

PYTHON = Path(sys.prefix, "clients", "bin", "python")  # beside the environment in which the tests run
REPO, FILE = "NousResearch/Hermes-3-Llama-3.2-3B-GGUF", "Hermes-3-Llama-3.2-3B.Q4_K_M.gguf"  # the demo's bytes
NAME = "hermes-3:3b:Q4_K_M"
WHO = "I am the Hermes demo, a tiny model of 3.8 million parameters that comes with the hermes command."

SCRIPT = """
import asyncio, json, runpy, sys
import ollama

tools = runpy.run_path(sys.argv[1])
said = {}


def get_weather(city: str) -> str:
    \"\"\"Get the weather for a city.

    Args:
      city: The city.
    \"\"\"
    return json.dumps(tools["get_weather"](city))


def asked(text, **more):
    return {"model": "demo", "messages": [{"role": "user", "content": text}], "options": {"temperature": 0}, **more}


def error(call, *arguments, **named):
    try:
        call(*arguments, **named)
    except ollama.ResponseError as raised:
        return [raised.status_code, raised.error]


answer = ollama.chat(**asked("Who are you?"))
said["chat"] = answer.model_dump(exclude_none=True)
pieces = list(ollama.chat(**asked("Who are you?", stream=True)))
said["stream"] = [piece.message.content for piece in pieces]
said["end"] = [pieces[-1].done, pieces[-1].done_reason, pieces[-1].eval_count]
said["async"] = asyncio.run(ollama.AsyncClient().chat(**asked("Who are you?"))).message.content
thoughtful = ollama.chat(**asked("What is GGUF?", think=True)).message
said["think"] = [thoughtful.thinking, thoughtful.content]
said["generate"] = ollama.generate("demo", "Who are you?", options={"temperature": 0}).response
said["generate stream"] = "".join(piece.response for piece in ollama.generate("demo", "Who are you?", stream=True))
person = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
          "required": ["name", "age"]}
said["format"] = ollama.chat(**asked("Anna is 34 years old.", format=person)).message.content

messages = [{"role": "user", "content": "What's the weather in Tokyo and in Oslo?"}]
while True:
    message = ollama.chat(model="demo", messages=messages, tools=[get_weather], options={"temperature": 0}).message
    messages.append(message)
    if not message.tool_calls:
        break
    for call in message.tool_calls:
        result = get_weather(**call.function.arguments)
        messages.append({"role": "tool", "tool_name": call.function.name, "content": result})
said["tools"] = [message.content, len(messages)]

said["embed"] = [len(vector) for vector in ollama.embed("tiny-bert", ["the cat", "a dog"], dimensions=8).embeddings]
said["embeddings"] = len(ollama.embeddings("tiny-bert", "the cat").embedding)
said["list"] = [[model.model, model.details.family, int(model.size)] for model in ollama.list().models]
said["ps"] = [[model.name, model.context_length, model.expires_at.year > 2100] for model in ollama.ps().models]
shown = ollama.show("demo:latest")
said["show"] = [shown.capabilities, shown.modelinfo["llama.context_length"], shown.parameters.split()]
said["no model"] = error(ollama.chat, model="nope", messages=[])
said["no embeddings"] = error(ollama.embed, "demo", "Hi")
said["no text"] = error(ollama.generate, "tiny-bert", "Hi")
said["create"] = error(ollama.create, "mine", from_="demo")
said["push"] = error(ollama.push, "demo")

hermes = "hermes-3:3b:Q4_K_M"
steps = list(ollama.pull(hermes, stream=True))
said["pull"] = [step.model_dump(exclude_none=True) for step in steps]
said["pulled"] = [[model.model for model in ollama.list().models], ollama.chat(**asked("Who are you?", model=hermes)).message.content]
said["pull again"] = ollama.pull(hermes).status
said["copy"] = [ollama.copy(hermes, "gpt-4o").status, ollama.chat(**asked("Who are you?", model="gpt-4o")).model]
said["copy onto another"] = error(ollama.copy, "demo", "GPT-4o")
said["delete the copy"] = [ollama.delete("gpt-4o").status, *error(ollama.show, "gpt-4o")]
said["delete"] = [ollama.delete(hermes).status, [model.model for model in ollama.list().models]]
said["delete again"] = error(ollama.delete, hermes)
said["pull what the catalogue does not name"] = error(ollama.pull, "somebody/Some-GGUF")
said["in a stream"] = error(lambda: list(ollama.chat(**asked("word " * 2000, stream=True))))
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the package was answered, for each thing that the script did."""
    if not PYTHON.exists():
        pytest.skip("the client has an environment of its own; make it with: make .venv/clients-installed")
    cwd = tmp_path_factory.mktemp("ollama")
    bert = write_tiny_bert(cwd / "tiny-bert.gguf")
    ours = {f"HERMES_LLM_{name}_DIR": str(cwd / name.lower()) for name in ("CACHE", "DATA")}
    arguments = ("demo", str(bert), "--ollama", "--manage-models", "--api-key", "sk-of-the-test")
    with (
        serving(Hub({REPO: {FILE: asset("demo.gguf").read_bytes()}})) as hub,
        hermes_serve(
            *arguments,
            cwd=cwd,
            env={**hub.environment, **ours, "HF_HUB_CACHE": str(cwd / "hub"), "HF_HUB_DISABLE_XET": "1"},
        ) as server,
    ):
        done = subprocess.run(
            [os.fspath(PYTHON), "-c", SCRIPT, os.fspath(asset("demo_tools.py"))],
            capture_output=True,
            check=False,
            text=True,
            cwd=cwd,
            env={
                **clean_environment(),
                "OLLAMA_HOST": f"127.0.0.1:{server.port}",
                "OLLAMA_API_KEY": "sk-of-the-test",
            },
            timeout=HANG,
        )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return {**found, "banner": server.banner, "blobs": [path.name for path in cwd.glob("hub/**/blobs/*")]}


def test_a_chat(said: dict[str, Any]) -> None:
    chat = said["chat"]
    assert chat["message"] == {"role": "assistant", "content": WHO}
    assert (chat["model"], chat["done"], chat["done_reason"]) == ("demo", True, "stop")
    assert (chat["prompt_eval_count"], chat["eval_count"]) == (27, 43)
    assert chat["total_duration"] > chat["eval_duration"] > 1_000_000
    assert said["async"] == said["generate"] == said["generate stream"] == WHO


def test_a_stream_says_the_same(said: dict[str, Any]) -> None:
    assert "".join(said["stream"]) == WHO
    assert len(said["stream"]) > 10
    assert said["end"] == [True, "stop", 43]


def test_thinking_comes_beside_the_answer(said: dict[str, Any]) -> None:
    thought, answer = said["think"]
    assert thought.startswith("The user asks about GGUF.")
    assert answer.startswith("GGUF is")


def test_functions_as_tools_to_the_end(said: dict[str, Any]) -> None:
    """The package gives no ids back: results are told apart by the names of functions, and their order."""
    assert said["tools"] == ["It is 13 degrees and rainy in Tokyo. It is 22 degrees and clear in Oslo.", 5]


def test_an_answer_by_a_schema(said: dict[str, Any]) -> None:
    assert json.loads(said["format"]) == {"name": "Anna", "age": 34}


def test_embeddings(said: dict[str, Any]) -> None:
    assert (said["embed"], said["embeddings"]) == ([8, 8], 32)


def test_what_is_here(said: dict[str, Any]) -> None:
    assert "embeddings of texts of up to 64 tokens (mean)" in said["banner"]
    assert [model[:2] for model in said["list"]] == [["demo", "llama"], ["tiny-bert", "bert"]]
    assert said["list"][0][2] == asset("demo.gguf").stat().st_size
    assert said["ps"][0] == ["demo", 1024, True]
    assert said["show"] == [["completion", "tools", "thinking"], 1024, ["num_ctx", "1024"]]


def test_errors_have_their_status_and_words(said: dict[str, Any]) -> None:
    status, words = said["no model"]
    assert status == 404
    assert "not found" in words
    assert said["no embeddings"] == [
        400,
        "model is demo, which writes text and makes no embeddings. Ask tiny-bert.",
    ]
    assert said["no text"][1].endswith("makes embeddings and writes no text. Ask demo.")
    assert said["create"] == [400, "/api/create is not supported. This server makes no models, and uploads none."]
    assert said["push"][0] == 400
    status, words = said["in a stream"]
    assert status == 400
    assert "maximum context length is 1024 tokens" in words


def test_a_model_comes_gets_another_name_and_goes(said: dict[str, Any]) -> None:
    first, *steps, loading, last = said["pull"]
    assert [one["status"] for one in (first, loading, last)] == ["pulling manifest", "loading manifest", "success"]
    assert steps[-1]["completed"] == steps[-1]["total"] == asset("demo.gguf").stat().st_size
    assert all(len(step["digest"]) == len("sha256:") + 64 for step in steps)
    names, answer = said["pulled"]
    assert names == ["demo", "tiny-bert", NAME]
    assert "Hermes demo" in answer
    assert said["pull again"] == "success"
    assert said["copy"] == ["success", "gpt-4o"]
    assert said["copy onto another"][0] == 400
    assert said["delete the copy"][:2] == ["success", 404]
    assert said["delete"] == ["success", ["demo", "tiny-bert"]]
    assert said["delete again"][0] == 404
    assert said["blobs"] == []
    assert "cannot be fetched for a client" in said["pull what the catalogue does not name"][1]
