"""OpenAI's API on loopback with an engine that says what a script says, and what a client makes of its answers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from fake_engine import LOADED, FakeEngine, Script, Step
from server_rig import Answer, Running, offer, served
from starlette.applications import Starlette

from hermes_cli.catalog.load import shipped_catalogue
from hermes_cli.engine.protocol import ModelInfo
from hermes_cli.engine.request import GenerationRequest
from hermes_cli.server.served_models import ServedModel
from hermes_cli.server.server_tools import ServerTools
from hermes_cli.tools.toolbox import Consent, Toolbox

HERMES_3 = next(model for model in shipped_catalogue().models if model.short == "hermes-3:8b")
HERMES_4 = next(model for model in shipped_catalogue().models if model.short == "hermes-4:14b")
ASKED = [{"role": "user", "content": "Hi"}]
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}}
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>'


@dataclass(repr=False)
class House:
    """A server, and the one engine behind it."""

    running: Running
    engine: FakeEngine

    def says(self, *scripts: Script) -> None:
        """What the next requests to the engine are answered with."""
        self.engine.scripts = scripts
        self.engine.requests.clear()
        self.engine.cancelled.clear()
        self.running.lines.clear()

    def post(self, path: str, body: object) -> Answer:
        return self.running.post(path, body)

    def chat(self, script: Sequence[Step] = ("Hello",), /, **body: object) -> Answer:
        self.says(script)
        return self.post("/v1/chat/completions", {"messages": ASKED, **body})

    def complete(self, script: Sequence[Step] = ("Hello",), /, **body: object) -> Answer:
        self.says(script)
        return self.post("/v1/completions", {"prompt": "Once", **body})

    def asked(self, **body: object) -> GenerationRequest:
        """What the engine is asked for a chat request."""
        answer = self.chat(**body)
        assert answer.status == 200, answer.body
        return self.engine.requests[0]

    def refused(self, **body: object) -> dict[str, Any]:
        """The error for a chat request that makes no sense."""
        answer = self.chat(**body)
        assert answer.status == 400, answer.body
        assert answer.error["type"] == "invalid_request_error"
        assert not self.engine.requests
        return answer.error


@contextmanager
def house(*offers: ServedModel, loaded: ModelInfo = LOADED, tools: bool = False) -> Iterator[House]:
    """A server with a scripted engine; with `tools` it runs get_weather itself, and may not run get_time."""
    engine = FakeEngine([["Hello"]], loaded)
    all_of_them = offers or (offer("hermes", "gpt-4o", known=HERMES_4),)
    toolbox = Toolbox(Consent(None, allow=["get_weather"]), pytest.fail)
    toolbox.add_file("demo")

    def prepare(app: Starlette) -> None:
        app.state.server_tools = ServerTools(toolbox) if tools else app.state.server_tools

    with served(offers=all_of_them, engine=lambda _: engine, prepare=prepare) as running:
        yield House(running, engine)


def events(stream: bytes) -> list[str]:
    """The data of every event, as a client reads it that takes all of Unicode's line ends for one."""
    lines = stream.decode().splitlines()
    return [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]


def chunks(stream: bytes) -> list[dict[str, Any]]:
    """Every object of a stream that ends as it should."""
    *objects, last = events(stream)
    assert last == "[DONE]"
    return [json.loads(one) for one in objects]


def plain(stream: bytes) -> str:
    """A stream without what differs each time, and without what is the same in each chunk."""
    text = re.sub(r'"id":"chatcmpl-[0-9a-f]{24}",', "", stream.decode())
    text = re.sub(
        r'"object":"chat.completion.chunk","created":\d+,"model":"hermes","system_fingerprint":"[^"]+",', "", text
    )
    return re.sub(r'"id":"call_[0-9a-f]{24}"', '"id":"call_X"', text)


def put_together(stream: bytes) -> dict[int, dict[str, Any]]:
    """The choices of a stream, as a client adds them up."""
    found: dict[int, dict[str, Any]] = {}
    for chunk in chunks(stream):
        for piece in chunk["choices"]:
            choice = found.setdefault(
                piece["index"], {"content": "", "reasoning": "", "calls": {}, "logprobs": [], "finish_reason": None}
            )
            assert choice["finish_reason"] is None
            delta = piece["delta"]
            choice["content"] += delta.get("content") or ""
            choice["reasoning"] += delta.get("reasoning_content", "")
            assert delta.get("reasoning_content") == delta.get("reasoning")
            choice["logprobs"] += (piece["logprobs"] or {}).get("content", [])
            choice["finish_reason"] = piece["finish_reason"]
            for call in delta.get("tool_calls", []):
                _add(choice["calls"], call)
    return found


def _add(calls: dict[int, dict[str, str]], piece: dict[str, Any]) -> None:
    index, function = piece["index"], piece["function"]
    if index not in calls:
        assert index == len(calls)
        assert piece["type"] == "function"
        assert function["arguments"] == ""
        calls[index] = {"id": piece["id"], "name": function["name"], "arguments": ""}
        return
    assert piece.keys() == {"index", "function"}
    calls[index]["arguments"] += function["arguments"]


def as_put_together(choice: dict[str, Any]) -> dict[str, Any]:
    """A choice of a whole answer, in the same shape."""
    message = choice["message"]
    assert message.get("reasoning_content") == message.get("reasoning")
    calls = [
        {"id": call["id"], "name": call["function"]["name"], "arguments": call["function"]["arguments"]}
        for call in message.get("tool_calls", [])
    ]
    return {
        "content": message["content"] or "",
        "reasoning": message.get("reasoning_content", ""),
        "calls": dict(enumerate(calls)),
        "logprobs": (choice["logprobs"] or {}).get("content", []),
        "finish_reason": choice["finish_reason"],
    }
