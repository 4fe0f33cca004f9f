"""litellm, unmodified, against a real server with the demo model.

It needs other versions of packages than hermes (`openai` 2, `huggingface-hub` 1), so `make test` gives it an environment
of its own. Importing it takes seconds: one process does everything, the tests look at what it said.
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
from server_rig import hermes_serve
from tiny_bert import write_tiny_bert

from hermes_cli.paths import asset

PYTHON = Path(sys.prefix, "clients", "bin", "python")  # beside the environment in which the tests run
WHO = "I am the Hermes demo, a tiny model of 3.8 million parameters that comes with the hermes command."
WEATHER = "It is 13 degrees and rainy in Tokyo. It is 22 degrees and clear in Oslo."
FUNCTIONS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Get the weather for a city.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]

SCRIPT = """
import gc
gc.disable()  # a fifth of the import of litellm
import asyncio, json, runpy, sys
import litellm
from pydantic import BaseModel

base, functions, tools = sys.argv[1], json.loads(sys.argv[2]), runpy.run_path(sys.argv[3])
litellm.suppress_debug_info = True
common = {"model": "openai/demo", "api_base": base + "/v1", "api_key": "sk-of-the-test", "temperature": 0}
said = {}


def asked(text):
    return {**common, "messages": [{"role": "user", "content": text}]}


def text(answer):
    return answer.choices[0].message.content


def chat():
    answer = litellm.completion(**asked("Who are you?"))
    said["chat"] = {"text": text(answer), "tokens": answer.usage.total_tokens, "end": answer.choices[0].finish_reason}
    said["async"] = text(asyncio.run(litellm.acompletion(**asked("Who are you?"))))


def stream():
    chunks = list(litellm.completion(**asked("Who are you?"), stream=True, stream_options={"include_usage": True}))
    said["stream"] = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
    said["stream tokens"] = chunks[-1].usage.total_tokens


def until_it_says_something(more):
    asking = asked("What's the weather in Tokyo and in Oslo?")
    while True:
        answer = litellm.completion(**asking, tools=functions, **more)
        if more:
            answer = litellm.stream_chunk_builder(list(answer))
        message = answer.choices[0].message
        if not message.tool_calls:
            return {"text": message.content, "roles": [one["role"] for one in asking["messages"]]}
        asking["messages"].append(message.model_dump())
        for call in message.tool_calls:
            result = tools[call.function.name](**json.loads(call.function.arguments))
            asking["messages"].append({"role": "tool", "tool_call_id": call.id, "content": json.dumps(result)})


class Person(BaseModel):
    name: str
    age: int


def schema():
    said["schema"] = json.loads(text(litellm.completion(**asked("Anna is 34 years old."), response_format=Person)))


def reasoning():
    message = litellm.completion(**asked("What is GGUF?"), reasoning_effort="low").choices[0].message
    said["reasoning"] = [message.reasoning_content, message.content]


def error(name, **wrong):
    try:
        litellm.completion(**{**asked("Hi"), **wrong})
    except Exception as raised:
        said[name] = [type(raised).__name__, str(raised)]


def other_ways():
    for prefix in ("hosted_vllm", "lm_studio", "llamafile"):
        said[prefix] = text(litellm.completion(**{**asked("Who are you?"), "model": prefix + "/demo"}))
    anthropic = {**asked("Who are you?"), "model": "anthropic/demo", "api_base": base}
    said["anthropic"] = text(litellm.completion(**anthropic))
    said["responses"] = litellm.responses(**common, input="Who are you?").output[0].content[0].text


def embeddings():
    # by OpenAI's package, which asks for base64
    answer = litellm.embedding(**{**common, "model": "openai/tiny-bert"}, input=["the cat", "a dog"])
    said["embeddings"] = [[len(one["embedding"]) for one in answer.data], answer.usage.prompt_tokens]


chat()
stream()
embeddings()
said["tools"] = until_it_says_something({})
said["tools in a stream"] = until_it_says_something({"stream": True})
schema()
reasoning()
error("no such model", model="openai/gpt-17")
error("wrong key", api_key="sk-wrong")
error("too long", messages=[{"role": "user", "content": "word " * 2000}])
other_ways()
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What litellm answered, for each thing that the script did."""
    if not PYTHON.exists():
        pytest.skip("litellm has an environment of its own; make it with: make .venv/clients-installed")
    cwd = tmp_path_factory.mktemp("litellm")
    bert = write_tiny_bert(cwd / "tiny-bert.gguf")
    with hermes_serve("demo", str(bert), "--api-key", "sk-of-the-test", cwd=cwd) as server:
        done = subprocess.run(
            [
                *(os.fspath(PYTHON), "-c", SCRIPT, f"http://127.0.0.1:{server.port}"),
                *(json.dumps(FUNCTIONS), os.fspath(asset("demo_tools.py"))),
            ],
            capture_output=True,
            check=False,
            text=True,
            cwd=cwd,
            # Without the first it would fetch a list of prices.
            env={**clean_environment(), "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
            timeout=HANG,
        )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_chat(said: dict[str, Any]) -> None:
    assert said["chat"] == {"text": WHO, "tokens": 70, "end": "stop"}
    assert said["async"] == WHO


def test_a_stream_says_the_same(said: dict[str, Any]) -> None:
    assert "".join(said["stream"]) == WHO
    assert len(said["stream"]) > 10
    assert said["stream tokens"] == said["chat"]["tokens"]


@pytest.mark.parametrize("how", ["tools", "tools in a stream"])
def test_tools_to_the_end(said: dict[str, Any], how: str) -> None:
    assert said[how] == {"text": WEATHER, "roles": ["user", "assistant", "tool", "tool"]}


def test_embeddings_of_a_model_beside_it(said: dict[str, Any]) -> None:
    assert said["embeddings"] == [[32, 32], 8]


def test_an_answer_as_a_pydantic_model(said: dict[str, Any]) -> None:
    assert said["schema"] == {"name": "Anna", "age": 34}


def test_reasoning_comes_beside_the_answer(said: dict[str, Any]) -> None:
    thought, answer = said["reasoning"]
    assert thought.startswith("The user asks about GGUF.")
    assert answer.startswith("GGUF is")


@pytest.mark.parametrize(
    ("what", "kind", "words"),
    [
        ("no such model", "NotFoundError", "there is no model 'gpt-17' here"),
        ("wrong key", "AuthenticationError", "the key is wrong"),
        ("too long", "ContextWindowExceededError", "maximum context length is 1024 tokens"),
    ],
)
def test_errors_have_their_classes(said: dict[str, Any], what: str, kind: str, words: str) -> None:
    name, message = said[what]
    assert name == kind
    assert words in message


@pytest.mark.parametrize("way", ["hosted_vllm", "lm_studio", "llamafile", "anthropic", "responses"])
def test_other_ways_lead_here_too(said: dict[str, Any], way: str) -> None:
    assert said[way] == WHO
