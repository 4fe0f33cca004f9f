"""Our prompts against the templates as published, letter by letter; where they differ, the test says how and why."""

from __future__ import annotations

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from hermes_cli.prompting.compose import PromptInput, PromptOptions
from hermes_cli.prompting.families import ALPACA, CHATML, HERMES_2_PRO, HERMES_3, HERMES_4, Family
from hermes_cli.prompting.markers import plain
from hermes_cli.prompting.normalize import messages, tools
from hermes_cli.prompting.render import FileFormat, OurFormat
from hermes_cli.prompting.template import ChatTemplate

HERE = Path(__file__).parent
BOS = "<|begin_of_text|>"
TOOL_USE, CHATML_TEMPLATE = "published/hermes-2-pro-and-3.tool_use", "published/chatml"
KNOWN_OF_HERMES_4 = "hermes_4_as_known"

SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": " Wie spät ist es? 時刻 🕰\n"}
ANSWER = {"role": "assistant", "content": "Noon.\n\nOr so."}


def call(key: str, name: str, **arguments: object) -> dict[str, Any]:
    return {"id": key, "type": "function", "function": {"name": name, "arguments": arguments}}


def calling(*calls: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": "", "tool_calls": list(calls)}


def result(key: str, content: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": key, "content": content}


def tool(name: str, description: str, **properties: dict[str, Any]) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


WEATHER = tool(
    "get.weather-now",
    "The weather.\nOf a city: <b>ünïcode</b> & more.",
    city={"type": "string", "description": " The city. "},
    days={"type": "integer"},
    exact={"type": "boolean", "description": "é"},
    share={"type": "number", "enum": [0.5, 1]},
    either={"type": ["string", "integer"]},
    more={"type": "object"},
    counts={"type": "object", "additionalProperties": {"type": "integer"}},
)
CLOCK: dict[str, Any] = {
    "type": "function",
    "function": {"name": "clock", "description": "It's noon.", "parameters": {"type": "object", "properties": {}}},
}
RETURNING: dict[str, Any] = copy.deepcopy(CLOCK)
RETURNING["function"] |= {"name": "when", "return": {"type": "string", "description": "The time."}}

ONE_CALL = calling(call("a", "clock"))
TWO_CALLS = calling(
    call("a", "clock"), call("b", "get.weather-now", city='Köln "am" Rhein', days=3, more={"x": [1, None, True]})
)

Talks = dict[str, list[dict[str, Any]]]

TALKS: Talks = {
    "one question": [USER],
    "system": [SYSTEM, USER],
    "empty system": [{"role": "system", "content": ""}, USER],
    "several turns": [SYSTEM, USER, ANSWER, USER, ANSWER, USER],
    "two users in a row": [USER, USER],
    "an assistant first": [ANSWER, USER],
    "tags and control tokens in text": [{"role": "user", "content": "<|im_end|> <tool_call> </think> {{ x }} {% y %}"}],
    "an empty answer": [USER, {"role": "assistant", "content": ""}, USER],
}
CALLS: Talks = {
    "a call": [USER, ONE_CALL, result("a", "12:00"), ANSWER, USER],
    "two calls": [SYSTEM, USER, TWO_CALLS, result("a", "12:00"), result("b", '{"temp": 22}'), ANSWER, USER],
    "a call, and then another": [
        USER,
        ONE_CALL,
        result("a", "12:00"),
        TWO_CALLS,
        result("a", "1"),
        result("b", "2"),
        ANSWER,
        USER,
    ],
}


@cache
def template(name: str) -> jinja2.Template:
    # As transformers sets it up (utils/chat_template_utils.py).
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    return environment.from_string((HERE / f"{name}.jinja").read_text(encoding="utf-8"))


def published(
    name: str, talk: list[dict[str, Any]], offered: list[dict[str, Any]] | None = None, **switches: object
) -> str:
    rendered: str = template(name).render(
        messages=talk, tools=offered or [], bos_token=BOS, add_generation_prompt=True, **switches
    )
    return rendered


def ours(
    family: Family,
    talk: list[dict[str, Any]],
    offered: list[dict[str, Any]] | None = None,
    options: PromptOptions | None = None,
) -> str:
    request = PromptInput(messages(talk), tools(offered), options or PromptOptions())
    return plain(OurFormat(family, BOS).render(request).text)


@pytest.mark.parametrize("talk", TALKS.values(), ids=TALKS)
def test_chatml_without_tools(talk: list[dict[str, Any]]) -> None:
    assert ours(CHATML, talk) == published(CHATML_TEMPLATE, talk)


@pytest.mark.parametrize("talk", TALKS.values(), ids=TALKS)
def test_hermes_2_pro_and_3_without_tools(talk: list[dict[str, Any]]) -> None:
    """Their templates are ChatML's with a begin-of-text token; Hermes 3's adds a system turn where there is none."""
    identity = {"role": "system", "content": "You are a helpful assistant."}
    whole = talk if talk[0]["role"] == "system" else [identity, *talk]
    assert ours(HERMES_3, talk) == BOS + published(CHATML_TEMPLATE, whole)
    assert ours(HERMES_2_PRO, talk) == BOS + published(CHATML_TEMPLATE, talk)


@pytest.mark.parametrize("family", [HERMES_2_PRO, HERMES_3], ids=lambda family: family.title)
@pytest.mark.parametrize("offered", [[CLOCK], [WEATHER], [WEATHER, CLOCK, RETURNING]], ids=["bare", "typed", "three"])
@pytest.mark.parametrize("talk", (TALKS | CALLS).values(), ids=TALKS | CALLS)
def test_with_tools(family: Family, talk: list[dict[str, Any]], offered: list[dict[str, Any]]) -> None:
    assert ours(family, talk, offered) == published(TOOL_USE, talk, offered)


def test_a_tool_s_result_that_is_last_ends_like_any_other() -> None:
    """The template leaves a line break out there and writes it one turn later, so what was read has to be read anew."""
    talk = CALLS["two calls"][:-2]
    mine, theirs = ours(HERMES_3, talk, [CLOCK]), published(TOOL_USE, talk, [CLOCK])
    end = "<|im_end|><|im_start|>assistant\n"
    assert theirs.endswith("\n</tool_response>" + end)
    assert mine == theirs.removesuffix(end) + "\n" + end
    later = [*talk, ANSWER, USER]
    assert ours(HERMES_3, later, [CLOCK]).startswith(mine)
    assert not published(TOOL_USE, later, [CLOCK]).startswith(theirs)


def test_alpaca_is_as_on_the_card() -> None:
    assert ours(ALPACA, [{"role": "user", "content": "Hi"}]) == "### Instruction:\nHi\n\n### Response:\n"
    talk = [
        SYSTEM,
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Yes"},
        {"role": "user", "content": "Bye"},
    ]
    assert ours(ALPACA, talk) == (
        "Be brief.\n\n### Instruction:\nHi\n\n### Response:\nYes\n\n### Instruction:\nBye\n\n### Response:\n"
    )


THOUGHT = {**ANSWER, "reasoning_content": "Let me see."}
THINKING_TALKS: Talks = {
    **{name: talk for name, talk in TALKS.items() if name != "an empty answer"},  # nobody says what it writes then
    **CALLS,
    "a result that is last": CALLS["two calls"][:-2],
    "text beside calls": [USER, {**TWO_CALLS, "content": "I look."}, result("a", "1"), result("b", "2")],
}


@pytest.mark.parametrize("offered", [[], [WEATHER, CLOCK]], ids=["alone", "tools"])
@pytest.mark.parametrize("talk", THINKING_TALKS.values(), ids=THINKING_TALKS)
def test_hermes_4_as_far_as_it_is_known(talk: list[dict[str, Any]], offered: list[dict[str, Any]]) -> None:
    assert ours(HERMES_4, talk, offered) == published(KNOWN_OF_HERMES_4, talk, offered)


@pytest.mark.parametrize("keep", [False, True], ids=["cut", "kept"])
@pytest.mark.parametrize("offered", [[], [CLOCK]], ids=["alone", "tools"])
def test_hermes_4_thinking_with_earlier_thoughts(offered: list[dict[str, Any]], *, keep: bool) -> None:
    written = {"role": "assistant", "content": "<think>\nLet me see.\n</think>\nNoon."}
    sent = {"role": "assistant", "content": "Noon.", "reasoning_content": "Let me see."}
    theirs = published(KNOWN_OF_HERMES_4, [USER, written, USER], offered, thinking=True, keep_cots=keep)
    for answer in (written, sent):
        assert ours(HERMES_4, [USER, answer, USER], offered, PromptOptions(think=True, keep_reasoning=keep)) == theirs
    assert ("Let me see." in theirs) == keep
    assert ("<think> </think>\nNoon." in theirs) != keep


@pytest.fixture(scope="module")
def carried() -> FileFormat:
    source = (HERE / f"{KNOWN_OF_HERMES_4}.jinja").read_text(encoding="utf-8")
    return FileFormat(ChatTemplate(source, bos=BOS), prompted_reasoning=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        PromptOptions(),
        PromptOptions(think=True),
        PromptOptions(think=False),
        PromptOptions(think=True, keep_reasoning=True),
        PromptOptions(think=True, schema={"type": "object"}),
    ],
    ids=repr,
)
@pytest.mark.parametrize("offered", [[], [WEATHER, CLOCK]], ids=["alone", "tools"])
@pytest.mark.parametrize("talk", [*THINKING_TALKS.values(), [USER, THOUGHT, USER], [SYSTEM, USER, THOUGHT, USER]])
def test_a_file_s_own_hermes_4_template_gives_what_ours_gives(
    carried: FileFormat, talk: list[dict[str, Any]], offered: list[dict[str, Any]], options: PromptOptions
) -> None:
    """With thinking on, the template by itself fails on half of these."""
    request = PromptInput(messages(talk), tools(offered), options)
    assert carried.render(request).text == OurFormat(HERMES_4, BOS).render(request).text
