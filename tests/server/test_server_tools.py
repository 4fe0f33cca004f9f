"""Tools that the server runs itself: real functions, for clients that ask, and only those that the operator allows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai_rig
import pytest
from openai_rig import CALL, HERMES_4, TOOL, House, chunks
from server_rig import offer, served

from hermes_cli.generation import MAX_ROUNDS

WEATHER = [{"role": "user", "content": "How is the weather in Oslo?"}]
TIME = '<tool_call>\n{"name": "get_time", "arguments": {"city": "Oslo"}}\n</tool_call>'


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    with openai_rig.house(offer("hermes", known=HERMES_4), tools=True) as made:
        yield made


def ask(house: House, *scripts: list[str], **fields: Any) -> Any:  # noqa: ANN401 - a reply, or a stream
    house.says(*scripts)
    answer = house.post("/v1/chat/completions", {"messages": WEATHER, **fields})
    return answer.body if fields.get("stream") else answer.json


def prompt(house: House, number: int) -> str:
    return "".join(map(str, house.engine.requests[number].prompt))


@pytest.mark.parametrize("how", [{"server_tools": True}, {"model": "hermes+tools"}])
def test_calls_are_run_and_told_and_the_model_goes_on(house: House, how: dict[str, Any]) -> None:
    reply = ask(house, [CALL], ["It is clear."], **how)
    message = reply["choices"][0]["message"]
    assert (message["content"], reply["choices"][0]["finish_reason"]) == ("It is clear.", "stop")
    assert "tool_calls" not in message
    (call,) = message["server_tool_calls"]
    assert (call["name"], call["arguments"], call["failed"]) == ("get_weather", {"city": "Oslo"}, False)
    assert json.loads(call["result"])["city"] == "Oslo"
    assert call["result"] in prompt(house, 1)
    assert reply["usage"]["completion_tokens"] == len(house.engine.requests)  # a piece is a token
    assert reply["model"] == "hermes"


def test_the_list_of_models_has_the_name_that_asks_for_them(house: House) -> None:
    assert [model["id"] for model in house.running.get("/v1/models").json["data"]] == ["hermes", "hermes+tools"]
    assert house.running.get("/v1/models/hermes+tools").status == 200


def test_a_stream_tells_the_same(house: House) -> None:
    stream = ask(house, [CALL], ["It is ", "clear."], server_tools=True, stream=True)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks(stream) if chunk["choices"]]
    assert "".join(delta.get("content", "") for delta in deltas) == "It is clear."
    assert [call["name"] for delta in deltas for call in delta.get("server_tool_calls", ())] == ["get_weather"]
    assert not any("tool_calls" in delta for delta in deltas)


def test_who_does_not_ask_gets_none(house: House) -> None:
    ask(house, ["Hi."])
    assert "get_weather" not in prompt(house, 0)


def test_a_tool_that_is_not_allowed_is_not_offered_and_not_run(house: House) -> None:
    ask(house, ["Hi."], server_tools=True)
    assert "get_weather" in prompt(house, 0)
    assert "get_time" not in prompt(house, 0)
    message = ask(house, [TIME], server_tools=True)["choices"][0]["message"]
    assert "server_tool_calls" not in message


def test_the_client_s_own_tools_are_its_own(house: House) -> None:
    reply = ask(house, [CALL], server_tools=True, tools=[TOOL])
    assert reply["choices"][0]["finish_reason"] == "tool_calls"
    assert [call["function"]["name"] for call in reply["choices"][0]["message"]["tool_calls"]] == ["get_weather"]
    own = {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object"}}}
    both = ask(house, [CALL, "\n", TIME], server_tools=True, tools=[own])
    (call,) = both["choices"][0]["message"]["tool_calls"]
    assert call["function"]["name"] == "get_time"
    assert "were not run" in both["warnings"][0]


def test_calls_without_end_are_an_error(house: House) -> None:
    error = ask(house, [CALL], server_tools=True)["error"]
    assert f"{MAX_ROUNDS} rounds" in error["message"]


def test_without_tools_of_its_own_the_server_says_so() -> None:
    with served(offers=[offer("hermes", known=HERMES_4)]) as running:
        answer = running.post("/v1/chat/completions", {"messages": WEATHER, "server_tools": True})
        assert answer.status == 400
        assert "this server runs no tools" in answer.error["message"]
