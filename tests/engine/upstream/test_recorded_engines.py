"""Answers of llama-server, vLLM and SGLang, recorded (tests/upstream_rig.py), beside those of the embedded engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import WaitFor
from endpoint_rig import TOOL
from parity_turns import HELD_TURNS, TURNS, asked, events_of, told
from upstream_rig import recorded_engine

from hermes_cli.engine.request import GenerationRequest, SamplingOptions
from hermes_cli.engine.upstream.engine import UpstreamEngine
from hermes_cli.engine.upstream.http import read_engine_url
from hermes_cli.errors import ContextFullError, UsageError
from hermes_cli.generation import TAGS, ChatModel, Constraints, LogprobsEvent, TurnRequest
from hermes_cli.prompting.structured_output import json_schema, tool_calls

KINDS = ("llama_server", "vllm", "sglang")


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def upstream(kind: str, demo_path: Path, wait_for: WaitFor) -> Iterator[ChatModel]:
    with recorded_engine(kind) as url:
        engine = UpstreamEngine(read_engine_url(url), tags=TAGS, tokenizer=demo_path)
        yield wait_for(ChatModel.open(engine))
        wait_for(engine.close())


@pytest.fixture(scope="module")
def here(wait_for: WaitFor, demo_chatter: ChatModel) -> Callable[[TurnRequest], dict[str, Any]]:
    """What the embedded engine answers to a turn, which it is asked once for all kinds."""
    answers: dict[int, dict[str, Any]] = {}

    def answer(turn: TurnRequest) -> dict[str, Any]:
        if id(turn) not in answers:
            answers[id(turn)] = told(wait_for(events_of(demo_chatter, turn)))
        return answers[id(turn)]

    return answer


@pytest.mark.parametrize("name", TURNS)
def test_a_turn_is_the_same_as_in_this_program(
    name: str, kind: str, wait_for: WaitFor, upstream: ChatModel, here: Callable[[TurnRequest], dict[str, Any]]
) -> None:
    if name == "DRY" and kind != "llama_server":
        with pytest.raises(UsageError, match="dry_multiplier"):
            wait_for(events_of(upstream, TURNS[name]))
        return
    check_same(TURNS[name], wait_for, upstream, here)


@pytest.mark.parametrize("name", HELD_TURNS)
def test_a_turn_that_is_held_to_a_grammar_is_the_same_as_in_this_program(
    name: str, kind: str, wait_for: WaitFor, upstream: ChatModel, here: Callable[[TurnRequest], dict[str, Any]]
) -> None:
    if kind == "llama_server":
        assert not upstream.loaded.grammars
        return
    check_same(HELD_TURNS[name], wait_for, upstream, here)


def check_same(
    turn: TurnRequest, wait_for: WaitFor, upstream: ChatModel, here: Callable[[TurnRequest], dict[str, Any]]
) -> None:
    there = told(wait_for(events_of(upstream, turn)))
    assert there == here(turn)
    assert there["content"] or there["calls"]


def test_log_probabilities_are_the_same_but_for_rounding(
    wait_for: WaitFor, upstream: ChatModel, demo_chatter: ChatModel
) -> None:
    turn = asked("Who are you?", top_logprobs=2, max_tokens=6)
    here, there = (
        [one for event in events if isinstance(event, LogprobsEvent) for one in event.logprobs]
        for events in (wait_for(events_of(demo_chatter, turn)), wait_for(events_of(upstream, turn)))
    )
    assert len(there) == 6
    for one, other in zip(here, there, strict=True):
        assert [top.token for top in one.top] == [top.token for top in other.top]
        assert (one.chosen.token, one.chosen.bytes) == (other.chosen.token, other.chosen.bytes)
        assert one.chosen.logprob == pytest.approx(other.chosen.logprob, abs=1e-3)


def test_its_model_is_described_as_in_this_program(kind: str, upstream: ChatModel, demo_chatter: ChatModel) -> None:
    here, there = demo_chatter.loaded, upstream.loaded
    same = ("context", "trained_context", "parameters", "vocabulary", "bos", "eos", "adds_bos", "tags")
    assert {name: getattr(there, name) for name in same} == {name: getattr(here, name) for name in same}
    assert {*there.control} == {*here.control}
    assert {*there.added} <= {*here.added}
    assert upstream.recommended_sampling() == demo_chatter.recommended_sampling()
    if kind == "llama_server":
        assert (there.slots, there.grammars, there.weight_bytes) == (2, False, here.weight_bytes)
    else:
        assert (there.slots, there.grammars, there.others) == (256, True, here.others)


def test_texts_are_tokenized_as_in_this_program(
    wait_for: WaitFor, upstream: ChatModel, demo_chatter: ChatModel
) -> None:
    async def both(model: ChatModel) -> list[object]:
        text = "<|im_start|>user\nHi <tool_call> 東京<|im_end|>\n"
        tokens = await model.engine.tokenize(text)
        return [tokens, await model.engine.tokenize(text, special=False), await model.engine.detokenize(tokens)]

    assert wait_for(both(upstream)) == wait_for(both(demo_chatter))


def test_a_prompt_that_is_too_long_is_told_with_both_numbers(wait_for: WaitFor, upstream: ChatModel) -> None:
    with pytest.raises(ContextFullError, match=r"the prompt has 1,221 tokens, the context length is 1,024 tokens\."):
        wait_for(events_of(upstream, asked("hi " * 600)))


@pytest.mark.parametrize("kind", ["llama_server"], indirect=True)
@pytest.mark.parametrize(
    ("turn", "said"),
    [
        (asked("Hi", constraints=Constraints(json_schema({"type": "object"}))), "to a schema"),
        (asked("Hi", tools=[TOOL], constraints=Constraints(None, tool_calls([TOOL], "required"))), "to a call"),
        (asked("Hi", tools=[TOOL], constraints=Constraints(None, tool_calls([TOOL], parallel=False))), "to one call"),
    ],
)
def test_what_an_engine_without_grammars_cannot_do_is_refused(
    wait_for: WaitFor, upstream: ChatModel, turn: TurnRequest, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        wait_for(events_of(upstream, turn))


SHARED = ("llama_server", "vllm", "sglang")
LARK = '{"grammars": [{"lark_grammar": "start: /a/"}]}'
NAMED = '{"grammars": [{"lark_grammar": "start: @b"}, {"name": "b", "lark_grammar": "start: /a/"}]}'


@pytest.mark.parametrize(
    ("change", "engines", "said"),
    [
        ({"shift": True}, SHARED, "--context-shift"),
        ({"prompt_logprobs": 1}, SHARED, "log-probabilities of the prompt"),
        ({"grammar_prefix": ("a",)}, SHARED, "begun"),
        ({"prompt": (5000,)}, SHARED, "5000 is not a token"),
        ({"grammar": LARK}, ("llama_server",), "built without llguidance"),
        ({"grammar": NAMED}, ("vllm", "sglang"), "a grammar of this kind"),
        ({"sampling": SamplingOptions(mirostat=2)}, ("vllm", "sglang"), "mirostat"),
        ({"sampling": SamplingOptions(typical_p=0.5)}, ("vllm", "sglang"), "typical_p"),
        (
            {"sampling": SamplingOptions(repeat_penalty=1.1, penalty_last_n=8, dry_multiplier=1.0)},
            ("vllm", "sglang"),
            "dry_multiplier and penalty_last_n",
        ),
    ],
)
def test_what_an_engine_cannot_do_is_refused_by_name(
    kind: str, wait_for: WaitFor, upstream: ChatModel, change: dict[str, Any], engines: tuple[str, ...], said: str
) -> None:
    async def ask(request: GenerationRequest) -> None:
        async with aclosing(upstream.engine.generate(request)) as events:
            async for _ in events:
                pass

    if kind in engines:
        with pytest.raises(UsageError, match=said):
            wait_for(ask(replace(GenerationRequest(("Hi",), max_tokens=1), **change)))
