"""POST /v1/completions: prompts as they stand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from fake_engine import LOADED, Step
from hypothesis import given
from hypothesis import strategies as st
from openai_rig import House, chunks, events, house
from turns import cut

from hermes_cli.engine.protocol import Logprob, TextEvent, TokenLogprobs
from hermes_cli.server.openai.completions import DEFAULT_TOKENS
from hermes_cli.server.openai.objects import Completion
from hermes_cli.server.openai.requests import MOST_PROMPTS


@pytest.fixture(scope="module")
def rig() -> Iterator[House]:
    with house() as one:
        yield one


def streamed(rig: House, script: list[Step], **body: object) -> list[dict[str, Any]]:
    answer = rig.complete(script, stream=True, **body)
    assert answer.status == 200, answer.body
    return chunks(answer.body)


def texts(pieces: list[dict[str, Any]]) -> dict[int, str]:
    found: dict[int, str] = {}
    for piece in pieces:
        for choice in piece["choices"]:
            found[choice["index"]] = found.get(choice["index"], "") + choice["text"]
    return found


def test_a_prompt_is_read_as_it_stands(rig: House) -> None:
    answer = rig.complete([" upon", "\n\n a time "]).json
    assert rig.engine.requests[0].prompt == ("Once",)
    assert rig.engine.requests[0].stops == ()
    assert rig.engine.requests[0].max_tokens == DEFAULT_TOKENS
    assert answer["object"] == "text_completion"
    assert answer["id"].startswith("cmpl-")
    assert answer["choices"] == [{"index": 0, "text": " upon\n\n a time ", "logprobs": None, "finish_reason": "stop"}]
    assert answer["usage"]["total_tokens"] == 4 + 2
    assert answer["timings"]["predicted_n"] == 2


def test_the_stream_on_the_wire(rig: House) -> None:
    data = events(rig.complete([" upon", " a\u2028"], stream=True, max_tokens=2).body)
    first, second, end, done = data
    head = first[: first.index('"choices"')]
    assert head.startswith('{"id":"cmpl-')
    assert first == head + '"choices":[{"index":0,"text":" upon","logprobs":null,"finish_reason":null}]}'
    assert second == head + '"choices":[{"index":0,"text":" a\\u2028","logprobs":null,"finish_reason":null}]}'
    assert end.startswith(
        head + '"choices":[{"index":0,"text":"","logprobs":null,"finish_reason":"length"}],"timings":'
    )
    assert done == "[DONE]"
    for one in (first, second, end):
        msgspec.json.decode(one, type=Completion)


def test_usage_in_the_stream(rig: House) -> None:
    *before, last = streamed(rig, ["a", "b"], stream_options={"include_usage": True})
    assert not any("usage" in one for one in before)
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 2
    assert last["timings"]["predicted_n"] == 2


@pytest.mark.parametrize(
    ("prompt", "read"),
    [
        ("a", [("a",)]),
        (["a", "b"], [("a",), ("b",)]),
        ([1, 2, 3], [(1, 2, 3)]),
        ([[1, 2], [3]], [(1, 2), (3,)]),
        ("half \ud83d a character", [("half \ufffd a character",)]),
    ],
)
def test_kinds_of_prompts(rig: House, prompt: object, read: list[tuple[object, ...]]) -> None:
    answer = rig.complete(["x"], prompt=prompt)
    assert answer.status == 200, answer.body
    assert [request.prompt for request in rig.engine.requests] == read
    assert [choice["index"] for choice in answer.json["choices"]] == list(range(len(read)))


def test_choices_of_several_prompts_stand_in_order(rig: House) -> None:
    rig.says(*([str(number)] for number in range(4)))
    answer = rig.post("/v1/completions", {"prompt": ["a", "bb"], "n": 2, "seed": 5}).json
    assert [choice["text"] for choice in answer["choices"]] == ["0", "1", "2", "3"]
    assert [(request.prompt, request.sampling.seed) for request in rig.engine.requests] == [
        (("a",), 5),
        (("a",), 6),
        (("bb",), 5),
        (("bb",), 6),
    ]
    assert answer["usage"]["prompt_tokens"] == 3


@pytest.mark.parametrize("prompt", ["Once", [79, 110, 99, 101]])
def test_echo_gives_the_prompt_back(rig: House, prompt: object) -> None:
    assert rig.complete([" upon"], prompt=prompt, echo=True).json["choices"][0]["text"] == "Once upon"
    assert texts(streamed(rig, [" upon"], prompt=prompt, echo=True)) == {0: "Once upon"}
    assert texts(streamed(rig, [], prompt=prompt, echo=True)) == {0: "Once"}


def token(text: str) -> TokenLogprobs:
    data = text.encode()
    return TokenLogprobs(Logprob(1, data, -0.5), (Logprob(1, data, -0.5), Logprob(2, b"\xe2\x80", -1.5)))


def test_log_probabilities(rig: House) -> None:
    script: list[Step] = [TextEvent(part, 1, (token(part),)) for part in ("He", "\u00e9", "y", "")]
    choice = rig.complete(script, logprobs=2).json["choices"][0]
    assert choice["logprobs"] == {
        "tokens": ["He", "\u00e9", "y"],
        "token_logprobs": [-0.5] * 3,
        "top_logprobs": [{part: -0.5, "bytes:\\xe2\\x80": -1.5} for part in ("He", "\u00e9", "y")],
        "text_offset": [0, 2, 3],
    }
    pieces = [one["choices"][0]["logprobs"] for one in streamed(rig, script, logprobs=0)]
    assert [piece["text_offset"] for piece in pieces] == [[0], [2], [3], []]
    assert all(piece["top_logprobs"] is None for piece in pieces)


@given(st.text("ab<tool_cal>\u00e9 \n", max_size=20), st.lists(st.integers(0, 20), max_size=6))
def test_a_stream_says_the_same_as_a_whole_answer(rig: House, text: str, cuts: list[int]) -> None:
    script: list[Step] = [TextEvent(part, 1, (token(part),)) for part in cut(text, [min(at, len(text)) for at in cuts])]
    body = {"stop": "<", "logprobs": 1, "max_tokens": 100}
    (whole,) = rig.complete(script, **body).json["choices"]
    pieces = streamed(rig, script, **body)
    assert texts(pieces) == {0: whole["text"]} == {0: text.partition("<")[0]}
    for name in ("tokens", "text_offset"):
        assert [one for piece in pieces for one in piece["choices"][0]["logprobs"][name]] == whole["logprobs"][name]
    assert "".join(whole["logprobs"]["tokens"]).startswith(whole["text"])


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ({"json_schema": {"type": "integer"}}, '\\"integer\\"'),
        ({"response_format": {"type": "json_object"}}, '\\"object\\"'),
        ({"grammar": 'root ::= "zq"'}, "zq"),
    ],
)
def test_answers_can_be_bound(rig: House, body: dict[str, Any], part: str) -> None:
    assert rig.complete(["x"], **body).status == 200
    assert part in (rig.engine.requests[0].grammar or "")


@pytest.mark.parametrize(
    ("param", "body"),
    [
        ("prompt", {"prompt": []}),
        ("prompt", {"prompt": None}),
        ("prompt", {"prompt": {"a": 1}}),
        ("prompt", {"prompt": [1, None]}),
        ("prompt", {"prompt": {"prompt_string": "a", "multimodal_data": ["iVBO"]}}),
        ("prompt", {"prompt": [True]}),
        ("prompt", {"prompt": ["a"] * (MOST_PROMPTS + 1)}),
        ("prompt[1]", {"prompt": ["a", []]}),
        ("prompt[0]", {"prompt": [[["a"]], [1]]}),
        ("suffix", {"suffix": "end"}),
        ("best_of", {"best_of": 3}),
        ("prompt_logprobs", {"prompt_logprobs": 21}),
        ("prompt_logprobs", {"prompt_logprobs": -1}),
        ("logprobs", {"logprobs": 21}),
        ("n", {"n": 17}),
        ("n", {"n": 16, "prompt": ["a"] * 9}),
        ("temperature", {"temperature": -1}),
        ("guided_regex", {"guided_regex": "("}),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(rig: House, param: str, body: dict[str, Any]) -> None:
    answer = rig.complete(["x"], **body)
    assert answer.status == 400
    assert answer.error["param"] == param
    assert not rig.engine.requests


def test_what_says_the_same_twice_is_fine(rig: House) -> None:
    assert rig.complete(["x"], n=2, best_of=2, suffix=None, suffixes="?").status == 200


def test_tokens_that_are_too_large_to_send_are_the_clients_fault(rig: House) -> None:
    answer = rig.complete(["x"], prompt=[10**30])
    assert answer.status == 400
    assert answer.error["param"] == "prompt"


def test_json_is_text_too(rig: House) -> None:
    said = json.dumps({"a": [1, "\u2028"]}, ensure_ascii=False)
    assert rig.complete(list(said)).json["choices"][0]["text"] == said[:DEFAULT_TOKENS]


@pytest.mark.parametrize(("bos", "begin"), [("<s>", "<s>"), ("", "<|im_end|>")])
def test_an_empty_prompt_is_the_beginning_of_a_text(bos: str, begin: str) -> None:
    with house(loaded=replace(LOADED, bos=bos)) as one:
        answer = one.complete(["x"], prompt=["", "a"], echo=True).json
        assert [request.prompt for request in one.engine.requests] == [(begin,), ("a",)]
    assert [choice["text"] for choice in answer["choices"]] == ["x", "ax"]


def test_a_suffix_is_for_models_that_can_fill_in() -> None:
    with house(loaded=replace(LOADED, fim=(257, 258, 259))) as one:
        assert one.complete(["mid"], prompt="ab", suffix="yz").status == 200
        assert one.engine.requests[0].prompt == (257, 97, 98, 258, 121, 122, 259)
        assert one.complete(["mid"], prompt=["", [99]], suffix="z", echo=True).json["choices"][1]["text"] == "cmid"
        assert [request.prompt for request in one.engine.requests] == [(257, 258, 122, 259), (257, 99, 258, 122, 259)]
        assert one.complete(["x"], prompt=[], suffix="").status == 400


def test_other_models_refuse_a_suffix_by_its_name(rig: House) -> None:
    error = rig.complete(["x"], suffix="end").error
    assert (error["param"], error["code"]) == ("suffix", "invalid_value")
    assert "no tokens for filling in the middle" in error["message"]
