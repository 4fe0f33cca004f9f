"""The Responses API on the wire, with an engine that says what a script says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, get_type_hints

import pytest
from fake_engine import Step
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import response_create_params as params
from openai_rig import CALL, HERMES_3, PARAMETERS, House, house
from server_rig import Answer, offer, served
from turns import cut

from hermes_cli.engine.protocol import Done, Logprob, TextEvent, TokenLogprobs
from hermes_cli.errors import EngineDiedError, QueueFullError
from hermes_cli.server.openai.requests import ResponseRequest
from hermes_cli.server.openai.response_store import ResponseStore
from hermes_cli.server.openai.responses import REFUSED
from hermes_cli.server.settings import Key, ServerSettings

TOOL = {"type": "function", "name": "get_weather", "parameters": PARAMETERS, "strict": True}
IMAGE = {"type": "input_image", "image_url": "https://example.com/a.png"}


@pytest.fixture(scope="module")
def rig() -> Iterator[House]:
    with house() as one:
        yield one


def respond(rig: House, *script: Step, **body: object) -> dict[str, Any]:
    rig.says(script or ("Hello",))
    answer = rig.post("/v1/responses", {"input": "Hi", **body})
    assert answer.status == 200, answer.body
    response: dict[str, Any] = answer.json
    return response


def stream(rig: House, *script: Step, **body: object) -> list[dict[str, Any]]:
    rig.says(script or ("Hello",))
    answer = rig.post("/v1/responses", {"input": "Hi", "stream": True, **body})
    assert answer.status == 200, answer.body
    return parsed(answer)


def parsed(answer: Answer) -> list[dict[str, Any]]:
    """The events, each of which says twice what it is and once its number."""
    found: list[dict[str, Any]] = []
    for text in answer.body.decode().removesuffix("\n\n").split("\n\n"):
        kind, data = text.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert kind == f"event: {event['type']}"
        assert event["sequence_number"] == len(found)
        found.append(event)
    return found


def refused(rig: House, **body: object) -> dict[str, Any]:
    rig.says(["Hello"])
    answer = rig.post("/v1/responses", {"input": "Hi", **body})
    assert answer.status == 400, answer.body
    assert not rig.engine.requests
    return answer.error


def prompt(rig: House) -> str:
    """What the engine was given to read, the last time."""
    return "".join(str(piece) for piece in rig.engine.requests[-1].prompt)


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "input_text", "text": text}]}


# What changes nothing in the answer: names for the bill, hints for caches and streams, limits for tools of OpenAI's.
IGNORED = {
    "access_programs",
    "image",
    "max_tool_calls",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
    "stream_options",
    "user",
}


def test_every_documented_field_is_known() -> None:
    documented = set(get_type_hints(params.ResponseCreateParamsStreaming))
    assert documented - IGNORED - REFUSED.keys() <= ResponseRequest.model_fields.keys()


def test_the_events_of_text(rig: House) -> None:
    events = stream(rig, "Hel", "lo")
    assert [event["type"].removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    item = events[2]["item"]
    assert (item["type"], item["role"], item["status"], item["content"]) == ("message", "assistant", "in_progress", [])
    assert events[4] == {
        "type": "response.output_text.delta",
        "sequence_number": 4,
        "item_id": item["id"],
        "output_index": 0,
        "content_index": 0,
        "delta": "Hel",
        "logprobs": [],
    }
    assert events[6]["text"] == events[7]["part"]["text"] == "Hello"
    assert events[-1]["response"]["output"] == [events[8]["item"]]
    assert events[8]["item"]["status"] == "completed"
    assert events[0]["response"]["id"] == events[-1]["response"]["id"]
    assert events[0]["response"]["status"] == "in_progress"


def test_the_events_of_a_thought_and_a_call(rig: House) -> None:
    events = stream(rig, "<think>", "Hm.", "</think>", CALL[:60], CALL[60:], tools=[TOOL])
    assert [event["type"].removeprefix("response.") for event in events][2:-1] == [
        "output_item.added",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
    ]
    thought, call = events[-1]["response"]["output"]
    assert thought["content"] == [{"type": "reasoning_text", "text": "Hm."}]
    assert thought["summary"] == []
    assert (call["type"], call["name"], call["arguments"]) == ("function_call", "get_weather", '{"city": "Oslo"}')
    assert call["id"] != call["call_id"]
    assert [event["output_index"] for event in events[2:-1]] == [0] * 6 + [1] * 5


def test_reasoning_is_told_as_its_summary_where_one_is_wanted(rig: House) -> None:
    wish = {"reasoning": {"effort": "high", "summary": "auto"}}
    events = stream(rig, "<think>", "Hm.", "</think>", "Yes", **wish)
    kinds = [event["type"].removeprefix("response.") for event in events]
    assert kinds[3:7] == [
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
    ]
    assert events[4]["summary_index"] == 0
    item = events[-1]["response"]["output"][0]
    assert (item["summary"], item["content"]) == ([{"type": "summary_text", "text": "Hm."}], [])


def test_usage(rig: House) -> None:
    response = respond(rig, "<think>Hm</think>", "Hi", Done("stop", 21, 5, 3, 0.5, 1.5, reasoning_tokens=1))
    assert response["usage"] == {
        "input_tokens": 21,
        "input_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 0},
        "output_tokens": 3,
        "output_tokens_details": {"reasoning_tokens": 1},
        "total_tokens": 24,
    }
    assert response["timings"]["predicted_ms"] == 1500.0


def test_what_was_asked_for_is_repeated(rig: House) -> None:
    said = {
        "instructions": "Be short.",
        "max_output_tokens": 99_999,
        "temperature": 0.25,
        "top_p": 0.5,
        "metadata": {"a": "b"},
        "parallel_tool_calls": False,
        "tool_choice": "none",
        "tools": [TOOL],
        "store": False,
    }
    response = respond(rig, **said)
    assert {name: response[name] for name in said} == {**said, "tools": [{**TOOL, "description": None}]}
    request = rig.engine.requests[0]
    assert (request.sampling.temperature, request.sampling.top_p) == (0.25, 0.5)
    assert "Be short." in prompt(rig)


def test_every_field_of_open_responses_is_there(rig: House) -> None:
    """Its suite insists on them in each event with a response (openresponses.org, `responseResourceSchema`)."""
    names = {"presence_penalty", "frequency_penalty", "max_tool_calls", "safety_identifier", "prompt_cache_key"}
    body = {"presence_penalty": 0.5, "safety_identifier": "me", "tools": [{"type": "function", "name": "f"}]}
    first, *_, last = stream(rig, **body)
    for response in (first["response"], last["response"]):
        assert response.keys() >= names
        assert response["safety_identifier"] == "me"
        (tool,) = response["tools"]
        assert tool == {"type": "function", "name": "f", "description": None, "parameters": None, "strict": None}
    assert last["response"]["presence_penalty"] == 0.5


def test_too_few_tokens_make_it_incomplete(rig: House) -> None:
    response = respond(rig, "One ", "two ", "three", max_output_tokens=2)
    assert response["status"] == "incomplete"
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert response["output"][0]["status"] == "incomplete"
    assert response["output"][0]["content"][0]["text"] == "One two"
    assert stream(rig, "One ", "two ", "three", max_output_tokens=2)[-1]["type"] == "response.incomplete"


def test_a_call_that_is_cut_off_is_no_json(rig: House) -> None:
    script = [*'<tool_call>\n{"name": "get_weather", "arguments": {"city": "Os']
    (call,) = respond(rig, *script, tools=[TOOL], max_output_tokens=len(script))["output"]
    assert call["status"] == "incomplete"
    with pytest.raises(ValueError, match="Unterminated"):
        json.loads(call["arguments"])


def test_an_error_in_a_stream_ends_it_as_failed(rig: House) -> None:
    events = stream(rig, "One", EngineDiedError("the engine was ended (Killed).", hint="ask again."))
    assert events[-1]["type"] == "response.failed"
    failed = events[-1]["response"]
    assert (failed["status"], failed["error"]["code"]) == ("failed", "engine_died")
    assert failed["output"][0]["content"][0]["text"] == "One"
    assert failed["output"][0]["status"] == "incomplete"


def test_an_error_before_the_first_event_is_an_ordinary_one(rig: House) -> None:
    rig.says([QueueFullError("8 requests are waiting already.", hint="ask again later.")])
    answer = rig.post("/v1/responses", {"input": "Hi", "stream": True})
    assert (answer.status, answer.headers["retry-after"]) == (429, "1")
    rig.says(["Hello"])
    long = rig.post("/v1/responses", {"input": "word " * 1000, "stream": True, "max_output_tokens": 7})
    assert (long.status, long.error["code"], long.error["param"]) == (400, "context_length_exceeded", "input")
    assert "maximum context length is 4096 tokens. However, you requested 7 output tokens" in long.error["message"]


TURN = [
    {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
    {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": "Let me see.", "annotations": []}],
    },
    {"type": "function_call", "call_id": "a", "name": "get_weather", "arguments": '{"city":"Oslo"}'},
    {"type": "function_call", "call_id": "b", "name": "get_weather", "arguments": '{"city":"Rome"}'},
]


def test_items_of_one_turn_are_one_turn_again(rig: House) -> None:
    results = [
        {"type": "function_call_output", "call_id": "b", "output": "30 degrees"},
        {"type": "function_call_output", "call_id": "a", "output": [{"type": "input_text", "text": "5 degrees"}]},
    ]
    respond(rig, input=[user("Weather?"), *TURN, *results, user("And now?")], tools=[TOOL])
    read = prompt(rig)
    assert read.count("<|im_start|>assistant") == 2  # that turn, and the one to come
    said = read[read.index("Let me see.") :]
    assert said.index("Oslo") < said.index("Rome") < said.index("5 degrees") < said.index("30 degrees")
    assert "Hm." not in read


def test_two_messages_of_the_assistant_in_a_row_are_two_turns(rig: House) -> None:
    respond(
        rig,
        input=[user("Hi"), {"role": "assistant", "content": "One"}, {"role": "assistant", "content": "Two"}, user("x")],
    )
    assert prompt(rig).count("<|im_start|>assistant") == 3


def test_bad_arguments_in_the_history_are_read(rig: House) -> None:
    call = {"type": "function_call", "call_id": "a", "name": "get_weather", "arguments": '{"city": "Os'}
    result = {"type": "function_call_output", "call_id": "a", "output": "?"}
    respond(rig, input=[user("Hi"), call, result], tools=[TOOL])
    assert "Os" in prompt(rig)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": []}, "input"),
        ({"input": 3}, "input"),
        ({"input": ["Hi"]}, "input[0]"),
        ({"input": [{"id": 5}]}, "input[0].id"),
        ({"input": [{"name": "f"}]}, "input[0]"),
        ({"input": [user("Hi"), {"type": "item_reference", "id": "msg_9"}]}, "input[1].id"),
        ({"input": [{"role": "user", "content": [{"type": "input_text", "text": "?"}, IMAGE]}]}, "input[0].content[1]"),
        ({"input": [{"role": "robot", "content": "Hi"}]}, "input[0].role"),
        ({"input": [{"type": "function_call", "call_id": "c", "name": 5}]}, "input[0].name"),
        ({"tools": [{"type": "web_search"}], "tool_choice": {"type": "web_search"}}, "tool_choice.type"),
        ({"tools": [{"type": "web_search"}], "tool_choice": "required"}, "tool_choice"),
        ({"tools": [{"type": "namespace", "name": "a", "tools": [TOOL, TOOL]}]}, "tools[0].tools[1]"),
        ({"tools": [{"type": "function", "name": "f", "parameters": 3, "strict": True}]}, "tools[0].parameters"),
        ({"tool_choice": {"type": "function", "name": "f"}}, "tool_choice"),
        ({"text": {"format": {"type": "json_schema", "name": "a", "schema": {"type": "x"}}}}, "text.format.schema"),
        ({"text": {"format": "text"}}, "text.format"),
        ({"reasoning": {"effort": "enormous"}}, "reasoning.effort"),
        ({"reasoning": {"summary": "long"}}, "reasoning.summary"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"metadata": {"a": 1}}, "metadata.a"),
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"truncation": "auto"}, "truncation"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(rig: House, body: dict[str, Any], param: str) -> None:
    assert refused(rig, **body)["param"] == param


def test_an_output_whose_call_is_gone_is_read_and_told(rig: House) -> None:
    output = {"type": "function_call_output", "call_id": "c", "output": "lost"}
    for sent, place in (([output, user("Hi")], "input[0]"), ([*TURN, output], "input[4]")):
        (warning,) = respond(rig, input=sent)["warnings"]
        assert warning.startswith(f"{place} is the result of no call")
        assert "<tool_response>\nlost\n</tool_response>" in "".join(map(str, rig.engine.requests[0].prompt))


def test_tools_that_come_as_an_item_are_offered(rig: House) -> None:
    """Codex sends some so, from 0.150 on, and its `exec` among them."""
    inner = {"type": "namespace", "name": "functions", "tools": [{"type": "custom", "name": "exec"}]}
    item = {"type": "additional_tools", "role": "developer", "tools": [inner, {"type": "web_search"}]}
    response = respond(rig, input=[item, user("Hi")], tools=[TOOL])
    assert response["warnings"] == ["input[0].tools[1] is left out: tools of type web_search are not run here."]
    prompt = "".join(map(str, rig.engine.requests[0].prompt))
    assert prompt.index("get_weather") < prompt.index('"exec"')


def test_an_output_without_the_id_of_its_call_belongs_to_the_next_one(rig: House) -> None:
    call = {"type": "function_call", "name": "f", "arguments": "{}"}
    response = respond(rig, input=[user("Hi"), call, {"type": "function_call_output", "output": "found"}])
    assert "warnings" not in response
    assert "<tool_response>\nfound\n</tool_response>" in "".join(map(str, rig.engine.requests[0].prompt))


def test_models_without_reasoning_answer_without() -> None:
    with house(offer("hermes-3", known=HERMES_3)) as rig:
        (warning,) = respond(rig, reasoning={"effort": "high"})["warnings"]
        assert warning.startswith("reasoning.effort asks for reasoning, and hermes-3 has no reasoning mode")


def test_what_asks_for_nothing_is_taken(rig: House) -> None:
    respond(
        rig,
        background=False,
        truncation="disabled",
        prompt=None,
        text={"verbosity": "low"},
        include=["reasoning.encrypted_content"],
        reasoning={"effort": None, "summary": None},
        service_tier="auto",
        nobody_knows_this=1,
    )


def test_the_answer_is_held_to_a_schema(rig: House) -> None:
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
    form = {"type": "json_schema", "name": "person", "schema": schema, "strict": True}
    respond(rig, '{"age": 3}', text={"format": form})
    assert "age" in (rig.engine.requests[0].grammar or "")


def test_log_probabilities(rig: House) -> None:
    one = Logprob(1, b"He", -0.5)
    script = [TextEvent("He", 1, (TokenLogprobs(one, (one, Logprob(2, b"Ho", -1.0))),)), TextEvent("", 1)]
    body = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    (told,) = respond(rig, *script, **body)["output"][0]["content"][0]["logprobs"]
    assert (told["token"], told["logprob"], len(told["top_logprobs"])) == ("He", -0.5, 2)
    events = stream(rig, *script, **body)
    assert [told] == next(event for event in events if event["type"].endswith("text.delta"))["logprobs"]
    assert rig.engine.requests[0].top_logprobs == 2


PATCH = {
    "type": "custom",
    "name": "apply_patch",
    "description": "Changes files.",
    "format": {"type": "grammar", "syntax": "lark", "definition": 'start: "*** Begin"'},
}
CODEX = [
    {
        "type": "function",
        "name": "exec_command",
        "parameters": {"type": "object", "properties": {"cmd": {"type": "string"}}},
    },
    {
        "type": "namespace",
        "name": "agents",
        "tools": [{"type": "function", "name": "spawn"}, {"type": "function", "name": "wait"}],
    },
    {"type": "namespace", "name": "mcp__clock", "tools": [{"type": "function", "name": "wait"}]},
    {"type": "web_search", "external_web_access": True},
    {"type": "image_generation"},
    {"type": "local_shell"},
    PATCH,
]


def calling(name: str, **arguments: str) -> str:
    return "<tool_call>\n" + json.dumps({"name": name, "arguments": arguments}) + "\n</tool_call>"


def test_tools_that_are_no_functions_take_nothing_from_the_others(rig: House) -> None:
    response = respond(rig, "Hello", tools=CODEX)
    assert [warning.partition(" ")[0] for warning in response["warnings"]] == [
        "tools[3]",
        "tools[4]",
        "tools[6].format",
    ]
    read, grammar = prompt(rig), rig.engine.requests[0].grammar or ""
    for name in ("exec_command", "spawn", "agents.wait", "mcp__clock.wait", "local_shell", "apply_patch"):
        assert f'"name": "{name}"' in read
        assert name in grammar
    assert "*** Begin" in read
    assert "web_search" not in read


@pytest.mark.parametrize(
    ("call", "item"),
    [
        (calling("spawn"), {"type": "function_call", "name": "spawn", "namespace": "agents", "arguments": "{}"}),
        (
            calling("mcp__clock.wait"),
            {"type": "function_call", "name": "wait", "namespace": "mcp__clock", "arguments": "{}"},
        ),
        (
            calling("apply_patch", input='*** "x"\n'),
            {"type": "custom_tool_call", "name": "apply_patch", "input": '*** "x"\n'},
        ),
        (
            calling("local_shell", command="echo 'a b' | wc"),
            {
                "type": "local_shell_call",
                "action": {"type": "exec", "command": ["bash", "-lc", "echo 'a b' | wc"], "env": {}},
            },
        ),
    ],
)
def test_calls_come_back_in_the_shape_of_their_tools(rig: House, call: str, item: dict[str, Any]) -> None:
    events = stream(rig, call[:50], call[50:], tools=CODEX)
    (told,) = events[-1]["response"]["output"]
    assert {name: told[name] for name in told if name not in ("id", "call_id", "status")} == item
    done = [
        event
        for event in events
        if event["type"] in ("response.output_item.done", "response.custom_tool_call_input.done")
    ]
    assert done[-1]["item"] == told
    assert [event["input"] for event in done[:-1]] == ([item["input"]] if "input" in item else [])
    output = {"call_id": told["call_id"], "output": "It is done."}
    kind = f"{item['type']}_output"
    respond(rig, input=[user("Do it."), told, {"type": kind, **output}], tools=CODEX)
    read = prompt(rig)
    assert call in read  # letter by letter as it was generated
    assert "<tool_response>\nIt is done.\n</tool_response>" in read


def test_tool_choice_names_tools_of_any_shape(rig: House) -> None:
    for choice, name in (
        ({"type": "custom", "name": "apply_patch"}, "apply_patch"),
        ({"type": "local_shell"}, "local_shell"),
        ({"type": "function", "name": "wait", "namespace": "agents"}, "agents.wait"),
        (
            {
                "type": "allowed_tools",
                "mode": "required",
                "tools": [{"type": "web_search"}, {"type": "function", "name": "spawn"}],
            },
            "spawn",
        ),
    ):
        respond(rig, calling(name), tools=CODEX, tool_choice=choice)
        assert name in (rig.engine.requests[0].grammar or "")
        assert "exec_command" not in (rig.engine.requests[0].grammar or "")


def test_items_of_tools_that_other_servers_ran_are_read(rig: House) -> None:
    items = [
        {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "Oslo"}},
        {"type": "image_generation_call", "id": "ig_1", "result": "iVBORw0KGgo="},
        {"type": "mcp_call", "id": "m", "name": "clock", "arguments": "{}", "output": "12:00"},
        {"type": "compaction", "encrypted_content": "x" * 99},
        {"type": "reasoning", "summary": "Hm", "content": None},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "It rains."}]},
    ]
    respond(rig, input=[user("Weather?"), *items, user("Thanks")])
    read = prompt(rig)
    assert '[web_search_call, {"type": "search", "query": "Oslo"}]\n[mcp_call, clock, "{}"]\n12:00' in read
    assert "It rains.<|im_end|>" in read
    assert "compaction" not in read


def test_pictures_are_refused_where_they_are_asked_about_and_told_of_elsewhere(rig: House) -> None:
    call = {"type": "function_call", "call_id": "a", "name": "view_image", "arguments": "{}"}
    result = {
        "type": "function_call_output",
        "call_id": "a",
        "output": [{"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo="}],
    }
    response = respond(rig, input=[user("Look."), call, result])
    assert "<tool_response>\n[image, image/png, 8 bytes]\n</tool_response>" in prompt(rig)
    assert response["warnings"] == ["input[2].output[0] is of type input_image: the model reads a line in its place."]
    error = refused(rig, input=[{"role": "user", "content": [{"type": "input_text", "text": "?"}, IMAGE]}])
    assert error["message"].startswith(
        "input[0].content[1] is of type input_image: this model does not support images."
    )


def test_a_conversation_goes_on_from_what_is_kept(rig: House) -> None:
    first = respond(rig, "One", CALL, input="Count.", tools=[TOOL], instructions="Be loud.")
    call = first["output"][1]
    result = [{"type": "function_call_output", "call_id": call["call_id"], "output": "5 degrees"}]
    second = respond(rig, "Three", input=result, previous_response_id=first["id"], tools=[TOOL])
    read = prompt(rig)
    assert [read.index(text) for text in ("Count.", "One", "Oslo", "5 degrees")] == sorted(
        read.index(text) for text in ("Count.", "One", "Oslo", "5 degrees")
    )
    assert "Be loud." not in read
    assert second["previous_response_id"] == first["id"]
    respond(rig, "Four", previous_response_id=second["id"])
    assert "Three" in prompt(rig)
    assert "Count." in prompt(rig)


def test_items_may_be_named_by_their_id(rig: House) -> None:
    first = respond(rig, "Whatever")
    reference = {"type": "item_reference", "id": first["output"][0]["id"]}
    respond(rig, input=[user("Hi"), reference, user("Again")])
    assert "Whatever" in prompt(rig)


def test_responses_are_kept_until_they_are_deleted(rig: House) -> None:
    said = respond(rig)
    path = f"/v1/responses/{said['id']}"
    assert rig.running.get(path).json == said
    assert rig.running.ask("DELETE", path).json == {"id": said["id"], "object": "response", "deleted": True}
    assert rig.running.get(path).status == rig.running.ask("DELETE", path).status == 404
    assert refused(rig, previous_response_id=said["id"])["code"] == "previous_response_not_found"
    unkept = respond(rig, store=False)
    assert rig.running.get(f"/v1/responses/{unkept['id']}").status == 404


def test_the_input_of_what_is_kept(rig: House) -> None:
    first = respond(rig, "One", input="Count.")
    second = respond(rig, "Two", input=[user("Go on.")], previous_response_id=first["id"])
    path = f"/v1/responses/{second['id']}/input_items"
    listed = rig.running.get(f"{path}?order=asc").json
    assert [item["type"] for item in listed["data"]] == ["message"] * 3
    assert listed["data"][0]["content"] == "Count."
    assert listed["data"][1] == first["output"][0]
    assert (listed["has_more"], listed["last_id"]) == (False, "item_2")
    page = rig.running.get(f"{path}?limit=1").json
    assert (page["data"], page["has_more"]) == (listed["data"][2:], True)
    assert rig.running.get(f"{path}?limit=1&after=item_2").json["data"] == listed["data"][1:2]
    assert rig.running.get("/v1/responses/resp_1/input_items").status == 404
    assert rig.running.get(f"{path}?limit=0").status == 400


def test_streamed_responses_are_kept_as_they_ended(rig: House) -> None:
    last = stream(rig)[-1]["response"]
    assert rig.running.get(f"/v1/responses/{last['id']}").json == last


def test_nobody_reads_the_responses_of_others() -> None:
    settings = ServerSettings(keys=(Key("one", "sk-one"), Key("two", "sk-two")))
    with served(settings) as running:
        mine = running.post("/v1/responses", {"input": "Hi"}, x_api_key="sk-one").json
        path = f"/v1/responses/{mine['id']}"
        assert running.get(path, x_api_key="sk-one").status == 200
        assert running.get(path).status == 401
        assert running.get(path, x_api_key="sk-two").status == 404
        assert running.ask("DELETE", path, headers={"x-api-key": "sk-two"}).status == 404
        for body in (
            {"input": "Hi", "previous_response_id": mine["id"]},
            {"input": [{"type": "item_reference", "id": mine["output"][0]["id"]}]},
        ):
            assert running.post("/v1/responses", body, x_api_key="sk-two").status == 400


def test_the_store_forgets_the_oldest() -> None:
    now = 0.0
    store = ResponseStore(most=2, most_bytes=200, seconds=10, clock=lambda: now)

    def put(name: str, size: int = 1) -> None:
        store.put("me", name, b'{"output":[{"id":"i"}]}', ["x" * size], [{"id": f"item-{name}"}])

    def kept() -> list[str]:
        return [name for name in "abcdef" if store.response("me", name)]

    for name in "abc":
        put(name)
    assert kept() == ["b", "c"]
    put("d", 120)  # bytes: with `c` they would be too many
    assert kept() == ["d"]
    put("e", 300)
    assert kept() == []
    put("f")
    assert store.items("me", "f") == ["x", {"id": "item-f"}]
    assert store.items("you", "f") is None
    now = 10.0
    assert kept() == []
    assert len(store) == 0


def test_half_characters_come_back(rig: House) -> None:
    tool = rb'{"type": "function", "name": "f", "description": "\ud800"}'
    said = rig.post("/v1/responses", rb'{"input": "a\ud800b", "tools": [%s]}' % tool)
    assert said.status == 200, said.body
    assert said.json["tools"][0]["description"] == "\ud800"
    respond(rig, previous_response_id=said.json["id"])
    assert "a\ufffdb" in prompt(rig)


PARTS = st.sampled_from(
    ["Hi", " ", "\n", "é\u2028", "<think>", "</think>", "<tool_call>", "</tool_call>", CALL, CALL[:40], "END"]
)


@given(st.lists(PARTS, max_size=8).map("".join), st.lists(st.integers(0, 200), max_size=8), st.integers(1, 12))
def test_a_stream_says_the_same_as_a_whole_answer(rig: House, text: str, cuts: list[int], limit: int) -> None:
    script = cut(text, [min(at, len(text)) for at in cuts])
    body: dict[str, Any] = {"tools": [TOOL], "max_output_tokens": limit, "stop": "END"}
    whole = respond(rig, *script, **body)
    events = stream(rig, *script, **body)
    last = events[-1]["response"]
    for name in ("status", "incomplete_details", "usage"):
        assert last[name] == whole[name]
    assert [without_ids(item) for item in last["output"]] == [without_ids(item) for item in whole["output"]]
    assert [event["item"] for event in events if event["type"] == "response.output_item.done"] == last["output"]
    for index, item in enumerate(last["output"]):
        deltas = "".join(event["delta"] for event in events if event.get("output_index") == index and "delta" in event)
        parts = item.get("content")
        assert deltas == (parts[0]["text"] if parts else item.get("arguments", ""))


def without_ids(item: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in item.items() if name not in {"id", "call_id"}}


@pytest.mark.parametrize(
    "body",
    [
        {"tools": ["x" * 2000] * 1000},
        {"tools": [{"role": "system", "content": "x" * 200}] * 9_000},
        {"tools": [{"type": "web_search", "filters": "x" * 2_000_000}]},
        {"tool_choice": {"type": "auto", "x": "x" * 2_000_000}},
        {"tool_choice": {"type": "auto", "x" * 2_000_000: 1}},
        {"text": {"format": {"type": "text", "x": "x" * 2_000_000}}},
    ],
)
def test_long_tools_and_formats_that_nobody_reads_are_not_repeated(rig: House, body: dict[str, Any]) -> None:
    response = respond(rig, **body)
    said = {"tools": [], "tool_choice": "auto", "text": {"format": {"type": "text"}}}
    assert {name: response[name] for name in said} == said


def test_long_names_that_nobody_reads_are_not_repeated(rig: House) -> None:
    long = "k" * 100_000
    response = respond(rig, prompt_cache_key=long, safety_identifier=[long], text={"verbosity": "low", "x": long})
    assert response["prompt_cache_key"] is None
    assert response["safety_identifier"] is None
    assert response["text"] == {"format": {"type": "text"}, "verbosity": "low"}
