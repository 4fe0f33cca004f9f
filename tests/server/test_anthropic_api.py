"""Anthropic's API on the wire, with an engine that says what a script says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fake_engine import Step
from hypothesis import given
from hypothesis import strategies as st
from openai_rig import CALL, HERMES_3, PARAMETERS, House, house
from pydantic_core import from_json
from server_rig import Answer, offer, served
from turns import cut

from hermes_cli.engine.protocol import Done
from hermes_cli.errors import EngineDiedError, QueueFullError
from hermes_cli.server.settings import Key, ServerSettings

TOOL = {"name": "get_weather", "description": "Tells the weather.", "input_schema": PARAMETERS}
ASKED = [{"role": "user", "content": "Hi"}]
THINK = {"type": "enabled", "budget_tokens": 2000}


@pytest.fixture(scope="module")
def rig() -> Iterator[House]:
    with house() as one:
        yield one


def ask(rig: House, *script: Step, **body: object) -> Answer:
    rig.says(script or ("Hello",))
    return rig.post("/v1/messages", {"messages": ASKED, "max_tokens": 1000, **body})


def message(rig: House, *script: Step, **body: object) -> dict[str, Any]:
    answer = ask(rig, *script, **body)
    assert answer.status == 200, answer.body
    found: dict[str, Any] = answer.json
    return found


def stream(rig: House, *script: Step, **body: object) -> list[dict[str, Any]]:
    answer = ask(rig, *script, stream=True, **body)
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    return parsed(answer.body)


def parsed(stream: bytes) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for text in stream.decode().removesuffix("\n\n").split("\n\n"):
        kind, data = text.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert kind == f"event: {found[-1]['type']}"
    return found


def put_together(events: list[dict[str, Any]]) -> dict[str, Any]:
    """The message of a stream, as a client adds it up."""
    first, *rest, delta, last = events
    assert (first["type"], delta["type"], last) == ("message_start", "message_delta", {"type": "message_stop"})
    found: dict[str, Any] = {**first["message"], **delta["delta"], "usage": delta["usage"]}
    blocks: list[dict[str, Any]] = found["content"]
    written = ""
    for event in rest:
        if event["type"] == "content_block_start":
            assert event["index"] == len(blocks)
            blocks.append(event["content_block"])
            written = ""
        elif event["type"] == "content_block_delta":
            assert event["index"] == len(blocks) - 1
            block, (kind, piece) = blocks[-1], list(event["delta"].items())[-1]
            if kind == "partial_json":
                written += piece
                block["input"] = from_json(written, allow_partial=True)  # as the SDK does
            else:
                block[kind] += piece
        else:
            assert event == {"type": "content_block_stop", "index": len(blocks) - 1}
    return found


def refused(rig: House, **body: object) -> str:
    answer = ask(rig, **body)
    assert answer.status == 400, answer.body
    assert answer.json["type"] == "error"
    assert answer.error["type"] == "invalid_request_error"
    assert not rig.engine.requests
    return str(answer.error["message"])


def prompt(rig: House) -> str:
    """What the engine was given to read, the last time."""
    return "".join(str(piece) for piece in rig.engine.requests[-1].prompt)


def test_the_events_of_a_whole_turn(rig: House) -> None:
    events = stream(rig, "<think>", "Hm.", "</think>", "Let ", "me see.", CALL[:60], CALL[60:], tools=[TOOL])
    assert [event.get("delta", event.get("content_block", event))["type"] for event in events[:-2]] == [
        "message_start",
        "thinking",
        "thinking_delta",
        "signature_delta",
        "content_block_stop",
        "text",
        "text_delta",
        "text_delta",
        "content_block_stop",
        "tool_use",
        "input_json_delta",
        "input_json_delta",
        "content_block_stop",
    ]
    start = events[0]["message"]
    assert (start["role"], start["content"], start["stop_reason"]) == ("assistant", [], None)
    assert start["usage"]["input_tokens"] == events[-2]["usage"]["input_tokens"] > 100
    found = put_together(events)
    assert [block["type"] for block in found["content"]] == ["thinking", "text", "tool_use"]
    assert found["content"][2]["input"] == {"city": "Oslo"}
    assert found["stop_reason"] == "tool_use"


def test_usage_tells_cached_tokens_apart(rig: House) -> None:
    done = Done("stop", 21, 5, 3, 0.5, 1.5, reasoning_tokens=1)
    said = {
        "input_tokens": 16,
        "output_tokens": 3,
        "cache_read_input_tokens": 5,
        "cache_creation_input_tokens": 0,
        "output_tokens_details": {"thinking_tokens": 1},
    }
    assert message(rig, "<think>Hm</think>", "Hi", done)["usage"] == said
    assert stream(rig, "<think>Hm</think>", "Hi", done)[-2]["usage"] == said


@pytest.mark.parametrize(
    ("script", "body", "reason"),
    [
        (["Hi"], {}, "end_turn"),
        (["Hi END there"], {"stop_sequences": ["END"]}, "stop_sequence"),
        (["One ", "two"], {"max_tokens": 1}, "max_tokens"),
        ([CALL], {"tools": [TOOL]}, "tool_use"),
        (["x"] * 5000, {"max_tokens": 999_999}, "model_context_window_exceeded"),
    ],
)
def test_why_a_turn_ended(rig: House, script: list[str], body: dict[str, Any], reason: str) -> None:
    whole = message(rig, *script, **body)
    streamed = put_together(stream(rig, *script, **body))
    assert whole["stop_reason"] == streamed["stop_reason"] == reason
    stopped = "END" if reason == "stop_sequence" else None
    assert whole["stop_sequence"] == streamed["stop_sequence"] == stopped


def test_of_a_call_that_is_cut_off_only_what_is_whole_is_told(rig: House) -> None:
    script = [*'<tool_call>\n{"name": "get_weather", "arguments": {"days": 3, "city": "Os']
    whole = message(rig, *script, tools=[TOOL], max_tokens=len(script))
    assert whole["stop_reason"] == "max_tokens"
    assert whole["content"][0]["input"] == {"days": 3}
    assert put_together(stream(rig, *script, tools=[TOOL], max_tokens=len(script)))["content"][0]["input"] == {
        "days": 3
    }


def test_arguments_are_as_the_model_wrote_them(rig: House) -> None:
    call = CALL.replace('"Oslo"', '"Oslo", "exact": 12345678901234567890.10')
    answer = ask(rig, call, tools=[{"name": "get_weather", "input_schema": {"type": "object"}}])
    assert b'"exact": 12345678901234567890.10' in answer.body


def test_errors_in_a_stream(rig: House) -> None:
    events = parsed(ask(rig, "One", EngineDiedError("the engine was ended.", hint="ask again."), stream=True).body)
    assert events[-1] == {
        "type": "error",
        "error": {"type": "overloaded_error", "message": "the engine was ended. Ask again."},
    }


def test_errors_before_the_first_event_are_ordinary_ones(rig: House) -> None:
    full = ask(rig, QueueFullError("8 requests are waiting already.", hint="ask again later."), stream=True)
    assert (full.status, full.error["type"], full.headers["retry-after"]) == (429, "rate_limit_error", "1")
    for streamed in (True, False):
        long = ask(rig, messages=[{"role": "user", "content": "x" * 5000}], stream=streamed)
        assert long.status == 400
        assert long.error["message"].startswith("prompt is too long: ")
        assert long.error["message"].endswith(" tokens > 4096 maximum")
    missing = ask(rig, model="claude-17")
    assert (missing.status, missing.error["type"]) == (404, "not_found_error")
    assert rig.running.get("/v1/messages").error["type"] == "invalid_request_error"


def test_keys_come_in_anthropics_header() -> None:
    with served(ServerSettings(keys=(Key("one", "sk-one"),))) as running:
        body = {"messages": ASKED, "max_tokens": 5}
        assert running.post("/v1/messages", body, x_api_key="sk-one").status == 200
        wrong = running.post("/v1/messages", body, x_api_key="sk-two")
        assert (wrong.status, wrong.json["type"], wrong.error["type"]) == (401, "error", "authentication_error")


TURN = {
    "role": "assistant",
    "content": [
        {"type": "thinking", "thinking": "Hm.", "signature": "abc"},
        {"type": "redacted_thinking", "data": "abc"},
        {"type": "text", "text": "Let me see.", "cache_control": {"type": "ephemeral"}},
        {"type": "tool_use", "id": "a", "name": "get_weather", "input": {"city": "Oslo"}},
        {"type": "tool_use", "id": "b", "name": "get_weather", "input": {"city": "Rome"}},
    ],
}


def test_blocks_become_what_the_model_reads(rig: House) -> None:
    results = [
        {"type": "tool_result", "tool_use_id": "b", "content": "30 degrees"},
        {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "5 degrees"}]},
        {"type": "text", "text": "And now?"},
    ]
    system = [{"type": "text", "text": "Be short.", "cache_control": {"type": "ephemeral"}}]
    conversation = [*ASKED, TURN, {"role": "user", "content": results}]
    message(rig, messages=conversation, system=system, tools=[TOOL])
    read = prompt(rig)
    places = [read.index(text) for text in ("Be short.", "Let me see.", "Rome", "5 degrees", "30 degrees", "And now?")]
    assert places == sorted(places)
    assert read.count("<|im_start|>assistant") == 2
    assert "Hm." not in read
    assert "Tells the weather." in read


def test_a_tool_that_failed_says_so(rig: House) -> None:
    results = [
        {"type": "tool_result", "tool_use_id": "a", "is_error": True},
        {"type": "tool_result", "tool_use_id": "b", "is_error": True, "content": "no such city"},
    ]
    message(rig, messages=[*ASKED, TURN, {"role": "user", "content": results}])
    assert "<tool_response>\nerror\n</tool_response>" in prompt(rig)
    assert "<tool_response>\nno such city\n</tool_response>" in prompt(rig)


def test_claude_codes_bill_does_not_spoil_the_cache(rig: House) -> None:
    bill = "x-anthropic-billing-header: cc_version=2.1; cch=eb6c6;"
    text = "You are short."
    prompts = []
    for system in ([{"type": "text", "text": bill}, {"type": "text", "text": text}], f"{bill}\n{text}", text):
        message(rig, system=system)
        prompts.append(prompt(rig))
    assert prompts[0] == prompts[1] == prompts[2]


@pytest.mark.parametrize(
    ("choice", "in_chats"),
    [
        ({"type": "auto"}, "auto"),
        ({"type": "any"}, "required"),
        ({"type": "none"}, "none"),
        ({"type": "tool", "name": "get_weather"}, {"type": "function", "function": {"name": "get_weather"}}),
    ],
)
@pytest.mark.parametrize("parallel", [True, False])
def test_tool_choice_is_as_in_chats(rig: House, choice: dict[str, Any], in_chats: object, *, parallel: bool) -> None:
    message(rig, CALL, tools=[TOOL], tool_choice={**choice, "disable_parallel_tool_use": not parallel})
    grammar = rig.engine.requests[0].grammar
    tools = [{"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}}]
    assert grammar == rig.asked(tools=tools, tool_choice=in_chats, parallel_tool_calls=parallel).grammar
    assert grammar


@pytest.mark.parametrize(
    ("thinking", "effort", "budget"),
    [
        (THINK, None, 2000),
        ({"type": "enabled", "budget_tokens": 5000}, "low", 5000),
        ({"type": "adaptive"}, "low", 1024),
        ({"type": "disabled"}, None, None),
    ],
)
def test_thinking_has_a_budget(rig: House, thinking: dict[str, Any], effort: str | None, budget: int | None) -> None:
    message(rig, thinking=thinking, **({"output_config": {"effort": effort}} if effort else {}))
    reasoning = rig.engine.requests[0].reasoning
    assert reasoning
    assert reasoning.budget == budget


def test_thinking_can_be_left_out(rig: House) -> None:
    body = {"thinking": {**THINK, "display": "omitted"}}
    assert [block["type"] for block in message(rig, "<think>Hm</think>Yes", **body)["content"]] == ["text"]


def test_the_answer_is_held_to_a_schema(rig: House) -> None:
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
    form = {"type": "json_schema", "schema": schema}
    for body in ({"output_config": {"format": form}}, {"output_format": form}):
        message(rig, '{"age": 3}', **body)
        assert "age" in (rig.engine.requests[0].grammar or "")


def test_sampling_is_as_asked(rig: House) -> None:
    message(rig, temperature=0.25, top_p=0.5, top_k=7, seed=3)
    sampling = rig.engine.requests[0].sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.seed) == (0.25, 0.5, 7, 3)


IMAGE = {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}
TEXT = {"type": "text", "text": "What is this?"}


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"messages": []}, "messages"),
        ({"messages": ["Hi"]}, "messages[0] "),
        ({"messages": [{"role": "robot", "content": "Hi"}]}, "messages[0].role "),
        (
            {"messages": [{"role": "user", "content": [TEXT, IMAGE]}]},
            "messages.0.content.1.image is of type image: this model does not support images",
        ),
        ({"messages": [*ASKED, TURN]}, "messages[1] ends with calls"),
        (
            {"messages": [{"role": "assistant", "content": [{}]}, *ASKED]},
            "messages[0].content[0] is a block without a type",
        ),
        (
            {"messages": [{"role": "assistant", "content": [{"type": "tool_use", "name": 3, "input": {}}]}, *ASKED]},
            "messages[0].content[0].name ",
        ),
        ({"system": [{}]}, "system[0] "),
        ({"tools": [{"name": "f", "input_schema": 3, "strict": True}]}, "tools[0].input_schema "),
        ({"tool_choice": {"type": "tool", "name": "f"}}, "tool_choice "),
        ({"tool_choice": {"type": "some"}}, "tool_choice.type "),
        ({"thinking": {"type": "often"}}, "thinking.type "),
        ({"output_config": {"effort": "enormous"}}, "output_config.effort "),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": {"type": "x"}}}},
            "output_config.format.schema",
        ),
        ({"output_format": {"type": "xml"}}, "output_format "),
        ({"max_tokens": None}, "max_tokens: "),
        ({"max_tokens": 0}, "max_tokens: "),
        ({"temperature": -1}, "temperature "),
        ({"stop_sequences": ["x"] * 100}, "stop_sequences"),
        ({"container": "container_1"}, "container "),
        ({"mcp_servers": [{"type": "url", "url": "https://example.com"}]}, "mcp_servers "),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(rig: House, body: dict[str, Any], named: str) -> None:
    assert refused(rig, **body).startswith(named)


def test_models_without_reasoning_answer_without() -> None:
    with house(offer("hermes-3", known=HERMES_3)) as rig:
        told = message(rig, thinking=THINK)
        assert told["content"] == [{"type": "text", "text": "Hello"}]
        assert told["warnings"][0].startswith("thinking.type asks for reasoning, and hermes-3 has no reasoning mode")
        assert "warnings" not in message(rig, thinking={"type": "adaptive"})


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"system": "Be short.", "tools": [TOOL], "thinking": THINK},
        {"messages": [*ASKED, TURN, {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a"}]}]},
    ],
)
def test_tokens_are_counted_as_they_are_read(rig: House, body: dict[str, Any]) -> None:
    counted = rig.post("/v1/messages/count_tokens", {"messages": ASKED, **body})
    assert counted.status == 200, counted.body
    assert counted.json == {"input_tokens": message(rig, **body)["usage"]["input_tokens"]}


def test_longer_prompts_than_fit_are_counted_too(rig: House) -> None:
    counted = rig.post("/v1/messages/count_tokens", {"messages": [{"role": "user", "content": "x" * 9000}]})
    assert counted.json["input_tokens"] > 9000


PARTS = st.sampled_from(
    ["Hi", " ", "\n", "é\u2028", "<think>", "</think>", "<tool_call>", "</tool_call>", CALL, CALL[:60], "END"]
)


@given(st.lists(PARTS, max_size=8).map("".join), st.lists(st.integers(0, 200), max_size=8), st.integers(1, 12))
def test_a_stream_says_the_same_as_a_whole_answer(rig: House, text: str, cuts: list[int], limit: int) -> None:
    script = cut(text, [min(at, len(text)) for at in cuts])
    body: dict[str, Any] = {"tools": [TOOL], "max_tokens": limit, "stop_sequences": ["END"]}
    whole, streamed = message(rig, *script, **body), put_together(stream(rig, *script, **body))
    for found in (whole, streamed):
        del found["id"]
        for block in found["content"]:
            block.pop("id", None)
    assert streamed == whole


def test_threads_are_refused_in_the_words_that_make_sdks_send_everything(rig: House) -> None:
    answer = ask(rig, thread={"type": "continue", "previous_message_id": "msg_1"})
    assert (answer.status, answer.error["type"]) == (400, "invalid_request_error")
    assert answer.error["details"] == {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}
    assert ask(rig, thread=None).status == 200


def test_text_without_citations_has_no_such_field(rig: House) -> None:
    assert message(rig)["content"] == [{"type": "text", "text": "Hello"}]


def test_models_in_anthropics_shape(rig: House) -> None:
    listed = rig.running.get("/v1/models", anthropic_version="2023-06-01").json
    (model,) = listed["data"]
    assert (listed["first_id"], listed["last_id"], listed["has_more"]) == ("hermes", "hermes", False)
    assert (model["type"], model["id"], model["display_name"]) == ("model", "hermes", "hermes")
    assert (model["created_at"], model["max_input_tokens"]) == ("1970-01-01T00:00:00+00:00", 4096)
    assert rig.running.get("/v1/models/gpt-4o", anthropic_version="2023-06-01").json == model


def test_fields_that_only_messages_have_do_not_disturb_a_count(rig: House) -> None:
    more = {"stop_sequences": 5, "temperature": "x", "seed": [1], "stream": 3, "keep_alive": {}}
    counted = rig.post("/v1/messages/count_tokens", {"messages": ASKED, **more})
    assert counted.json == rig.post("/v1/messages/count_tokens", {"messages": ASKED}).json
