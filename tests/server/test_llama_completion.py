"""POST /completion: llama.cpp's own shapes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fake_engine import Step
from openai_rig import House, house
from server_rig import Answer

from hermes_cli.engine.protocol import Logprob, TextEvent, TokenLogprobs
from hermes_cli.engine.request import SamplingOptions


@pytest.fixture(scope="module")
def rig() -> Iterator[House]:
    with house() as one:
        yield one


def asked(rig: House, script: list[Step], **body: object) -> Answer:
    rig.says(script)
    return rig.post("/completion", {"prompt": "Once", **body})


def complete(rig: House, script: list[Step], **body: object) -> Any:  # noqa: ANN401 - JSON
    answer = asked(rig, script, **body)
    assert answer.status == 200, answer.body
    return answer.json


def token(text: str, number: int) -> TextEvent:
    chosen = Logprob(number, text.encode(), -0.5)
    return TextEvent(text, 1, (TokenLogprobs(chosen, (chosen, Logprob(9, b"\xe2", float("-inf")))),))


def test_the_whole_reply(rig: House) -> None:
    reply = complete(rig, [" upon", " a\n"], seed=7, stop=["x"])
    assert (reply["content"], reply["stop"], reply["stop_type"], reply["stopping_word"]) == (
        " upon a\n",
        True,
        "eos",
        "",
    )
    assert (reply["tokens_predicted"], reply["has_new_line"], reply["truncated"]) == (2, True, False)
    assert (reply["prompt"], reply["index"], reply["tokens"]) == ("Once", 0, [])
    assert reply["timings"]["predicted_n"] == 2
    settings = reply["generation_settings"]
    assert (settings["seed"], settings["n_predict"], settings["stop"]) == (7, -1, ["x"])
    assert rig.engine.requests[0].max_tokens is None
    assert complete(rig, ["a", "b"], n_predict=1)["stop_type"] == "limit"


def test_a_stream_ends_with_the_piece_that_says_so(rig: House) -> None:
    answer = asked(rig, [" upon", " a"], stream=True)
    pieces = [json.loads(line[6:]) for line in answer.body.decode().split("\n\n") if line]
    assert [(piece["content"], piece["stop"]) for piece in pieces] == [(" upon", False), (" a", False), ("", True)]
    assert "model" not in pieces[0]
    assert pieces[-1]["tokens_predicted"] == 2


def test_tokens_and_their_probabilities_are_told_if_wanted(rig: House) -> None:
    script: list[Step] = [token("a", 1), token("b", 2)]
    assert complete(rig, script, return_tokens=True)["tokens"] == [1, 2]
    assert rig.engine.requests[0].top_logprobs == 0
    reply = complete(rig, script, n_probs=2)
    assert [each["token"] for each in reply["completion_probabilities"]] == ["a", "b"]
    first = reply["completion_probabilities"][0]
    assert (first["id"], first["bytes"], first["logprob"]) == (1, [97], -0.5)
    assert [other["id"] for other in first["top_logprobs"]] == [1, 9]
    assert "completion_probabilities" not in complete(rig, script)


def test_several_prompts_and_pieces_of_one(rig: House) -> None:
    replies = complete(rig, ["x"], prompt=["a", {"prompt_string": "b"}, [99]])
    assert [reply["index"] for reply in replies] == [0, 1, 2]
    assert [request.prompt for request in rig.engine.requests] == [("a",), ("b",), (99,)]
    assert [reply["prompt"] for reply in replies] == ["a", "b", "c"]
    reply = complete(rig, ["x"], prompt=[97, "bc", 100])
    assert rig.engine.requests[0].prompt == (97, 98, 99, 100)
    assert reply["prompt"] == "abcd"


def test_fields_are_picked(rig: House) -> None:
    fields = ["content", "generation_settings/n_predict", "nothing/here"]
    assert complete(rig, ["x"], n_predict=4, response_fields=fields) == {
        "content": "x",
        "generation_settings/n_predict": 4,
    }


def test_biases_as_pairs(rig: House) -> None:
    complete(rig, ["x"], logit_bias=[[5, 1.5], [6, False]])
    sampling = rig.engine.requests[0].sampling
    assert isinstance(sampling, SamplingOptions)
    assert sampling.logit_bias == ((5, 1.5), (6, -100))


@pytest.mark.parametrize(("param", "body"), [("prompt", {"prompt": None}), ("n_probs", {"n_probs": 21})])
def test_what_makes_no_sense_is_refused_by_name(rig: House, param: str, body: dict[str, Any]) -> None:
    answer = asked(rig, ["x"], **body)
    assert (answer.status, answer.error["param"]) == (400, param)
