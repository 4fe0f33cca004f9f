"""What is on the wire, byte for byte, and that a stream says the same as a whole answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from fake_engine import Step
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # it has no types
from openai_rig import CALL, TOOL, House, as_put_together, chunks, events, house, plain, put_together
from turns import cut

from hermes_cli.engine.protocol import Done, Logprob, TextEvent, TokenLogprobs
from hermes_cli.server.openai.objects import ChatChunk, ChatCompletion


@pytest.fixture(scope="module")
def rig() -> Iterator[House]:
    with house() as one:
        yield one


def stream(rig: House, *script: Step, **body: object) -> bytes:
    answer = rig.chat(script, stream=True, **body)
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    return answer.body


ENDED = Done("stop", 21, 5, 3, 0.5, 1.5, drafted_tokens=4, accepted_tokens=1)
USAGE = (
    '"usage":{"prompt_tokens":21,"completion_tokens":3,"total_tokens":24,"prompt_tokens_details":{"cached_tokens":5},'
    '"completion_tokens_details":{"reasoning_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}'
)
TIMINGS = (
    '"timings":{"cache_n":5,"prompt_n":16,"prompt_ms":500.0,"prompt_per_token_ms":31.25,"prompt_per_second":32.0,'
    '"predicted_n":3,"predicted_ms":1500.0,"predicted_per_token_ms":750.0,"predicted_per_second":1.333,'
    '"draft_n":4,"draft_n_accepted":1}'
)


def test_text(rig: House) -> None:
    assert plain(stream(rig, "Hel", 'lo "x"\n', "é", ENDED)) == (
        'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]}\n\n'
        'data: {"choices":[{"index":0,"delta":{"content":"Hel"},"logprobs":null,"finish_reason":null}]}\n\n'
        'data: {"choices":[{"index":0,"delta":{"content":"lo \\"x\\""},"logprobs":null,"finish_reason":null}]}\n\n'
        'data: {"choices":[{"index":0,"delta":{"content":"\\né"},"logprobs":null,"finish_reason":null}]}\n\n'
        'data: {"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}],' + TIMINGS + "}\n\n"
        "data: [DONE]\n\n"
    )


def test_usage_comes_last(rig: House) -> None:
    assert plain(stream(rig, "Hi", ENDED, stream_options={"include_usage": True})) == (
        'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]}\n\n'
        'data: {"choices":[{"index":0,"delta":{"content":"Hi"},"logprobs":null,"finish_reason":null}]}\n\n'
        'data: {"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]}\n\n'
        'data: {"choices":[],' + USAGE + "," + TIMINGS + "}\n\n"
        "data: [DONE]\n\n"
    )


def test_calls_with_their_arguments_piece_by_piece(rig: House) -> None:
    said = stream(rig, "Let me see.", *CALL[:-18], CALL[-18:], tools=[TOOL])
    first, *pieces = [
        chunk["choices"][0]["delta"]["tool_calls"][0]
        for chunk in chunks(said)
        if "tool_calls" in chunk["choices"][0]["delta"]
    ]
    assert first["index"] == 0
    assert first["id"].startswith("call_")
    assert first["type"] == "function"
    assert first["function"] == {"name": "get_weather", "arguments": ""}
    assert all(piece.keys() == {"index", "function"} and piece["index"] == 0 for piece in pieces)
    assert len(pieces) == 5
    assert "".join(piece["function"]["arguments"] for piece in pieces) == '{"city": "Oslo"}'
    assert put_together(said)[0]["finish_reason"] == "tool_calls"
    assert put_together(said)[0]["content"] == "Let me see."


def test_one_call_on_the_wire(rig: House) -> None:
    said = plain(stream(rig, CALL, tools=[TOOL])).splitlines()
    assert said[2] == (
        'data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"call_X","type":"function","function":'
        '{"name":"get_weather","arguments":""}}]},"logprobs":null,"finish_reason":null}]}'
    )
    assert said[4] == (
        'data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\\"city\\": '
        '\\"Oslo\\"}"}}]},"logprobs":null,"finish_reason":null}]}'
    )


def test_two_calls_have_their_own_index_and_id(rig: House) -> None:
    (choice,) = put_together(stream(rig, CALL, "\n", CALL.replace("Oslo", "Rome"), tools=[TOOL])).values()
    assert [call["arguments"] for call in choice["calls"].values()] == ['{"city": "Oslo"}', '{"city": "Rome"}']
    assert len({call["id"] for call in choice["calls"].values()}) == 2


def test_reasoning_stands_in_both_fields(rig: House) -> None:
    said = stream(rig, "<think>", "Hm.", "</think>", "\n\nYes", reasoning_effort="high")
    assert '"delta":{"reasoning_content":"Hm.","reasoning":"Hm."}' in plain(said)
    (choice,) = put_together(said).values()
    assert (choice["reasoning"], choice["content"]) == ("Hm.", "Yes")


@pytest.mark.parametrize("hidden", [{"include_reasoning": False}, {"reasoning": {"exclude": True}}])
def test_reasoning_can_be_left_out(rig: House, hidden: dict[str, Any]) -> None:
    (choice,) = put_together(stream(rig, "<think>Hm.</think>", "Yes", **hidden)).values()
    assert (choice["reasoning"], choice["content"]) == ("", "Yes")
    usage = rig.chat(["<think>", "Hm.</think>", "Yes"], **hidden).json["usage"]
    assert usage["completion_tokens_details"]["reasoning_tokens"] > 0


def test_several_choices_are_told_apart_and_share_one_prompt(rig: House) -> None:
    rig.says(["One"], ["Two"], ["Three", "!"])
    body = {"messages": [{"role": "user", "content": "Hi"}], "n": 3, "seed": 7}
    answer = rig.post("/v1/chat/completions", body).json
    assert [choice["message"]["content"] for choice in answer["choices"]] == ["One", "Two", "Three!"]
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert answer["usage"]["completion_tokens"] == 4
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] + 4
    assert [request.sampling.seed for request in rig.engine.requests] == [7, 8, 9]
    assert len({request.prompt for request in rig.engine.requests}) == 1
    rig.says(["One"], ["Two"], ["Three", "!"])
    streamed = put_together(rig.post("/v1/chat/completions", {**body, "stream": True}).body)
    assert {index: choice["content"] for index, choice in streamed.items()} == {0: "One", 1: "Two", 2: "Three!"}


@pytest.mark.parametrize("body", [{"max_tokens": 2}, {"max_completion_tokens": 2, "max_tokens": 9}, {"n_predict": 2}])
def test_an_answer_that_is_cut_off_says_so(rig: House, body: dict[str, Any]) -> None:
    (choice,) = put_together(stream(rig, "One ", "two ", "three", **body)).values()
    assert (choice["content"], choice["finish_reason"]) == ("One two", "length")


def test_a_call_that_is_cut_off_is_no_json(rig: House) -> None:
    """Half a command is another command: clients that look at nothing else must not be able to run it."""
    script = [*'<tool_call>\n{"name": "get_weather", "arguments": {"city": "Os']
    streamed = put_together(stream(rig, *script, tools=[TOOL], max_tokens=len(script)))[0]
    whole = as_put_together(rig.chat(script, tools=[TOOL], max_tokens=len(script)).json["choices"][0])
    for choice in (streamed, whole):
        assert choice["finish_reason"] == "length"
        assert choice["calls"][0]["arguments"].startswith('{"city": "Os')
        with pytest.raises(ValueError, match="Unterminated"):
            json.loads(choice["calls"][0]["arguments"])


def test_stop_texts_are_not_told(rig: House) -> None:
    (choice,) = put_together(stream(rig, "One EN", "D two", stop="END")).values()
    assert (choice["content"], choice["finish_reason"]) == ("One", "stop")


def test_an_empty_answer_is_one(rig: House) -> None:
    assert put_together(stream(rig))[0]["content"] == ""
    assert rig.chat([]).json["choices"][0]["message"]["content"] == ""


def test_what_clients_take_for_the_end_of_a_line_is_escaped(rig: House) -> None:
    said = stream(rig, "a\u2028b\u0085c\u2029d")
    assert put_together(said)[0]["content"] == "a\u2028b\u0085c\u2029d"
    assert "\u2028" not in said.decode()


def test_every_chunk_is_what_the_document_says(rig: House) -> None:
    said = stream(rig, "<think>Hm</think>Hi", CALL, tools=[TOOL], stream_options={"include_usage": True})
    for data in events(said)[:-1]:
        msgspec.json.decode(data, type=ChatChunk)


@pytest.mark.parametrize(
    "body", [{}, {"tools": [TOOL]}, {"logprobs": True, "top_logprobs": 1}, {"n": 2}, {"max_tokens": 1}]
)
def test_every_whole_answer_is_what_the_document_says(rig: House, body: dict[str, Any]) -> None:
    said = rig.chat(["<think>Hm</think>Hi", CALL], **body)
    msgspec.json.decode(said.body, type=ChatCompletion)
    document = rig.running.get("/openapi.json").json
    content = document["paths"]["/v1/chat/completions"]["post"]["responses"]["200"]["content"]
    schema = {**content["application/json"]["schema"], "components": document["components"]}
    Draft202012Validator(schema).validate(said.json)


def token(text: str, logprob: float = -0.5) -> TokenLogprobs:
    data = text.encode()
    return TokenLogprobs(Logprob(1, data, logprob), (Logprob(1, data, logprob), Logprob(2, b"\xe2", float("-inf"))))


def test_log_probabilities_of_the_content_alone(rig: House) -> None:
    script = [
        TextEvent(text, 1, (token(text),))
        for text in ("<think>", "Hm", "</think>", "\n", "He", "y", CALL[:11], CALL[11:-12], CALL[-12:], "\n", "You", "")
    ]
    body = {"logprobs": True, "top_logprobs": 2, "tools": [TOOL]}
    whole = rig.chat(script, **body).json["choices"][0]
    assert [one["token"] for one in whole["logprobs"]["content"]] == ["He", "y", "\n", "You"]
    first = whole["logprobs"]["content"][0]
    assert first["logprob"] == -0.5
    assert first["bytes"] == [72, 101]
    assert first["top_logprobs"][1] == {"token": "\ufffd", "logprob": -9999.0, "bytes": [226]}
    assert same(put_together(stream(rig, *script, **body))[0], as_put_together(whole))


def same(left: dict[str, Any], right: dict[str, Any]) -> bool:
    """Apart from ids, which are made for each answer."""
    return without_ids(left) == without_ids(right)


def without_ids(choice: dict[str, Any]) -> dict[str, Any]:
    assert all(call["id"].startswith("call_") for call in choice["calls"].values())
    return {**choice, "calls": [(call["name"], call["arguments"]) for call in choice["calls"].values()]}


PARTS = st.sampled_from(
    [
        "Hi",
        " ",
        "\n",
        "é",
        "\u2028",
        "😀",
        "<",
        "<think>",
        "</think>",
        "<tool_call>",
        "</tool_call>",
        CALL,
        CALL[:40],
        '{"a"',
        "END",
    ]
)


@given(
    st.lists(PARTS, max_size=8).map("".join), st.lists(st.integers(0, 200), max_size=8), st.sampled_from([[], [TOOL]])
)
def test_a_stream_says_the_same_as_a_whole_answer(rig: House, text: str, cuts: list[int], tools: list[Any]) -> None:
    pieces = cut(text, [min(at, len(text)) for at in cuts])
    script = [TextEvent(piece, 1, (token(piece),)) for piece in pieces]
    whole = as_put_together(rig.chat([text], stop="END", tools=tools).json["choices"][0])
    for limit in (len(pieces) + 1, max(len(pieces) - 1, 1)):
        body = {"stop": "END", "logprobs": True, "tools": tools, "max_tokens": limit}
        in_pieces = as_put_together(rig.chat(script, **body).json["choices"][0])
        assert same(put_together(stream(rig, *script, **body))[0], in_pieces)
        if limit > len(pieces):
            assert same({**in_pieces, "logprobs": []}, whole)
