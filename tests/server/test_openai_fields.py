"""Every field of a chat request does what it says, or is refused by its name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai_rig import ASKED, CALL, HERMES_3, HERMES_4, TOOL, House, chunks, house
from server_rig import offer

from hermes_cli.catalog.models import RecommendedSampling as Recommended
from hermes_cli.engine.request import MAX_SEED, SamplingOptions
from hermes_cli.server.openai.requests import MOST_CHOICES, MOST_STATED_STOPS, REFUSED, UNANSWERED
from hermes_cli.server.thinking import BUDGETS

SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
OTHER = {"type": "function", "function": {"name": "other"}}


@pytest.fixture(scope="module")
def rig() -> Iterator[House]:
    with house(offer("hermes", "gpt-4o", known=HERMES_4)) as one:
        yield one


def prompt(rig: House, **body: object) -> str:
    return "".join(map(str, rig.asked(**body).prompt))


def grammar(rig: House, **body: object) -> str:
    request = rig.asked(**body)
    return request.grammar or ""


def test_sampling_is_as_the_model_recommends_where_nothing_is_said(rig: House) -> None:
    said = HERMES_4.sampling
    assert isinstance(said, Recommended)
    usual = rig.asked().sampling
    assert (usual.temperature, usual.top_p, usual.top_k) == (said.temperature, said.top_p, said.top_k)
    assert rig.asked(temperature=None, stop=None, n=None, tools=None, tool_choice=None, seed=None).sampling == usual


@pytest.mark.parametrize(
    ("field", "value", "name"),
    [
        ("temperature", 0, "temperature"),
        ("temperature", 1.5, "temperature"),
        ("top_p", 0.3, "top_p"),
        ("top_k", -1, "top_k"),
        ("min_p", 0.2, "min_p"),
        ("typical_p", 0.9, "typical_p"),
        ("repeat_penalty", 1.2, "repeat_penalty"),
        ("repetition_penalty", 1.2, "repeat_penalty"),
        ("repeat_last_n", -1, "penalty_last_n"),
        ("presence_penalty", -2, "presence_penalty"),
        ("frequency_penalty", 2, "frequency_penalty"),
        ("dry_multiplier", 0.8, "dry_multiplier"),
        ("dry_base", 2, "dry_base"),
        ("dry_allowed_length", 3, "dry_allowed_length"),
        ("dry_penalty_last_n", 100, "dry_penalty_last_n"),
        ("mirostat", 2, "mirostat"),
        ("mirostat_tau", 4, "mirostat_tau"),
        ("mirostat_eta", 0.2, "mirostat_eta"),
        ("ignore_eos", True, "ignore_eos"),
        ("seed", 7, "seed"),
    ],
)
def test_sampling_reaches_the_engine(rig: House, field: str, value: float, name: str) -> None:
    assert getattr(rig.asked(**{field: value}).sampling, name) == value


def test_lists_of_sampling_reach_the_engine(rig: House) -> None:
    sampling = rig.asked(logit_bias={"5": -100, "17": 1.5}, dry_sequence_breakers=["\n", "x"]).sampling
    assert [*sampling.logit_bias] == [(5, -100), (17, 1.5)]
    assert sampling.dry_breakers == ("\n", "x")


@pytest.mark.parametrize("seed", [-1, -(2**63)])
def test_a_negative_seed_picks_one(rig: House, seed: int) -> None:
    assert rig.asked(seed=seed).sampling.seed is None


@given(st.integers(0, 2**80))
def test_any_seed_is_one(rig: House, seed: int) -> None:
    found = rig.asked(seed=seed).sampling.seed
    assert found is not None
    assert 0 <= found <= MAX_SEED
    assert found == rig.asked(seed=seed).sampling.seed


def test_limits_are_clamped_to_the_context(rig: House) -> None:
    context = rig.engine.loaded.context
    assert rig.asked().max_tokens is None
    assert rig.asked(max_tokens=-1).max_tokens is None
    assert rig.asked(max_tokens=65_536).max_tokens == context
    assert rig.asked(max_completion_tokens=10**30).max_tokens == context
    assert rig.asked(max_tokens=9, max_completion_tokens=3).max_tokens == 3


@pytest.mark.parametrize(("given", "stops"), [("END", ("END",)), (["a", "", "b", "a"], ("a", "b")), ([], ()), ("", ())])
def test_stops_reach_the_engine(rig: House, given: object, stops: tuple[str, ...]) -> None:
    assert rig.asked(stop=given).stops == ("<|im_end|>", *stops)


@pytest.mark.parametrize(
    ("body", "think", "budget"),
    [
        ({}, False, None),
        ({"reasoning_effort": "none"}, False, None),
        *(({"reasoning_effort": level}, True, budget) for level, budget in BUDGETS.items()),
        ({"reasoning_effort": "none", "think": False}, False, None),
        ({"think": True}, True, None),
        ({"think": "low"}, True, BUDGETS["low"]),
        ({"think": False}, False, None),
        ({"enable_thinking": True}, True, None),
        ({"chat_template_kwargs": {"thinking": True}}, True, None),
        ({"chat_template_kwargs": {"enable_thinking": True, "whatever": [1]}}, True, None),
        ({"chat_template_kwargs": {"enable_thinking": False}, "think": True}, False, None),
        ({"reasoning": {"enabled": True}}, True, None),
        ({"reasoning": {"effort": "high"}}, True, BUDGETS["high"]),
        ({"reasoning": {"max_tokens": 100}}, True, 100),
        ({"reasoning": {"max_tokens": 0}}, False, None),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, True, 1024),
        ({"thinking": {"type": "disabled"}}, False, None),
        ({"think": True, "thinking_budget_tokens": 5}, True, 5),
        ({"think": True, "thinking_budget_tokens": -1}, True, None),
        ({"thinking_budget_tokens": 0}, False, None),
    ],
)
def test_thinking(rig: House, body: dict[str, Any], think: bool, budget: int | None) -> None:  # noqa: FBT001
    request = rig.asked(**body)
    assert ("deep thinking AI" in "".join(map(str, request.prompt))) == think
    assert request.reasoning
    assert request.reasoning.budget == budget


def test_earlier_reasoning_is_kept_where_the_client_says_so(rig: House) -> None:
    rig.says(["Hi"])
    earlier = {"role": "assistant", "content": "Yes", "reasoning_content": "Zq."}
    messages = [*ASKED, earlier, *ASKED]
    for kept in (True, False):
        rig.says(["Hi"])
        rig.post("/v1/chat/completions", {"messages": messages, "chat_template_kwargs": {"keep_cots": kept}})
        assert ("Zq." in "".join(map(str, rig.engine.requests[0].prompt))) == kept


def test_tools_stand_in_the_prompt_and_bind_the_calls(rig: House) -> None:
    request = rig.asked(tools=[TOOL, OTHER])
    assert '"get_weather"' in "".join(map(str, request.prompt))
    for name in ("get_weather", "other"):
        assert json.dumps(name)[1:-1] in (request.grammar or "")
    assert rig.asked().grammar is None


def test_tool_choice(rig: House) -> None:
    tools = [TOOL, OTHER]
    free, required = (grammar(rig, tools=tools, tool_choice=choice) for choice in ("auto", "required"))
    assert free == grammar(rig, tools=tools)
    assert "start: (calls)" in required
    none = grammar(rig, tools=tools, tool_choice="none")
    assert "call_body" not in none
    assert '"get_weather"' in prompt(rig, tools=tools, tool_choice="none")
    named = grammar(rig, tools=tools, tool_choice={"type": "function", "function": {"name": "other"}})
    assert "start: (calls)" in named
    assert "get_weather" not in named
    assert r"call (\"\\n\" call)*" in required
    assert r"call (\"\\n\" call)*" not in grammar(rig, tools=tools, tool_choice="required", parallel_tool_calls=False)


@pytest.mark.parametrize("mode", ["auto", "required"])
def test_allowed_tools_leave_the_others_in_the_prompt(rig: House, mode: str) -> None:
    allowed = {"mode": mode, "tools": [{"type": "function", "function": {"name": "other"}}]}
    body: dict[str, Any] = {"tools": [TOOL, OTHER], "tool_choice": {"type": "allowed_tools", "allowed_tools": allowed}}
    request = rig.asked(**body)
    assert '"get_weather"' in "".join(map(str, request.prompt))
    assert "get_weather" not in (request.grammar or "")
    assert "other" in (request.grammar or "")
    assert ("start: (calls)" in (request.grammar or "")) == (mode == "required")


@pytest.mark.parametrize(
    "body",
    [
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}}},
        {"response_format": {"type": "json_object", "schema": SCHEMA}},
        {"json_schema": SCHEMA},
        {"json_schema": json.dumps(SCHEMA)},
        {"guided_json": SCHEMA},
        {"guided_json": json.dumps(SCHEMA)},
        {"structured_outputs": {"json": SCHEMA}},
    ],
)
def test_a_schema_binds_the_answer_and_is_told_to_the_model(rig: House, body: dict[str, Any]) -> None:
    request = rig.asked(**body)
    assert '\\"name\\"' in (request.grammar or "")
    assert '"name"' in "".join(map(str, request.prompt))


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ({"response_format": {"type": "json_object"}}, 'answer: %json {\\"type\\": \\"object\\"'),
        ({"json_schema": {}}, 'answer: %json {\\"type\\": \\"object\\"'),
        ({"guided_regex": "[ab]+"}, "[ab]+"),
        ({"regex": "[ab]+"}, "[ab]+"),
        ({"ebnf": 'root ::= "zq"'}, "zq"),
        ({"guided_choice": ["yes", "no"]}, '\\"yes\\" | \\"no\\"'),
        ({"grammar": 'root ::= "zq"'}, "zq"),
        ({"grammar": '%llguidance {}\nstart: "zq"'}, "zq"),
        ({"guided_grammar": 'start: "zq"'}, "zq"),
        ({"structured_outputs": {"regex": "[ab]+"}}, "[ab]+"),
    ],
)
def test_other_grammars(rig: House, body: dict[str, Any], part: str) -> None:
    assert part in grammar(rig, **body)


def test_text_is_no_bound(rig: House) -> None:
    assert rig.asked(response_format={"type": "text"}).grammar is None


def test_log_probabilities_are_asked_for(rig: House) -> None:
    assert rig.asked(logprobs=True).top_logprobs == 0
    assert rig.asked(logprobs=True, top_logprobs=20).top_logprobs == 20
    assert rig.asked(logprobs=False, top_logprobs=0).top_logprobs is None


def test_an_alias_and_no_name_at_all(rig: House) -> None:
    for name in ("hermes", "GPT-4o", "", None):
        assert rig.chat(model=name).json["model"] == "hermes"


@pytest.mark.parametrize(
    "body",
    [
        {"user": "me", "store": False, "metadata": {"a": "b"}, "service_tier": "auto", "prompt_cache_key": "x"},
        {"cache_prompt": False, "return_token_ids": True, "min_tokens": 8, "ignore_eos": True},
        {"stream_options": {"include_usage": True, "continuous_usage_stats": True}},
        {"verbosity": "low", "modalities": ["text"], "functions": [], "top_n_sigma": -1, "xtc_probability": 0},
        {"prediction": {"type": "content", "content": "x"}, "safety_identifier": "x", "no such field": [{}]},
    ],
)
def test_what_changes_nothing_is_ignored(rig: House, body: dict[str, Any]) -> None:
    assert rig.chat(**body).status == 200


@pytest.mark.parametrize("field", sorted(UNANSWERED))
def test_what_only_changes_the_reply_is_told_to_be_ignored(rig: House, field: str) -> None:
    head, _, inner = field.partition(".")
    for value, told in ((True, [f"{field} is ignored: the reply is as always."]), (False, None)):
        reply = rig.chat(**{head: {inner: value} if inner else value}).json
        assert reply.get("warnings") == told


@pytest.mark.parametrize("field", sorted(REFUSED))
def test_what_cannot_be_honoured_is_refused_by_name(rig: House, field: str) -> None:
    error = rig.refused(**{field: {"some": "thing"}})
    assert error["param"] == field
    assert error["message"].startswith(f"{field} is not supported")
    for neutral in (*REFUSED[field], None):
        assert rig.chat(**{field: neutral}).status == 200


@pytest.mark.parametrize(
    ("param", "body"),
    [
        ("temperature", {"temperature": -1}),
        ("temperature", {"temperature": 10**400}),
        ("temperature", {"temperature": "hot"}),
        ("temperature", {"temperature": True}),
        ("top_p", {"top_p": 2}),
        ("top_k", {"top_k": 1.5}),
        ("top_k", {"top_k": 2**40}),
        ("repeat_last_n", {"repeat_last_n": 2**31}),
        ("repetition_penalty", {"repetition_penalty": 0}),
        ("repeat_penalty", {"repeat_penalty": -1}),
        ("mirostat", {"mirostat": 3}),
        ("presence_penalty", {"presence_penalty": 1e9}),
        ("dry_base", {"dry_base": -1}),
        ("max_tokens", {"max_tokens": -2}),
        ("max_tokens", {"max_tokens": "many"}),
        ("n", {"n": 0}),
        ("n", {"n": MOST_CHOICES + 1}),
        ("stop", {"stop": ["x"] * (MOST_STATED_STOPS + 1)}),
        ("stop[0]", {"stop": ["x" * 5000]}),
        ("stop[1]", {"stop": ["x", 3]}),
        ("logit_bias", {"logit_bias": {"hello": 1}}),
        ("logit_bias", {"logit_bias": {"-5": 1}}),
        ("logit_bias", {"logit_bias": {str(token): 1 for token in range(2000)}}),
        ("logit_bias.5", {"logit_bias": {"5": 101}}),
        ("seed", {"seed": 1.5}),
        ("stream", {"stream": "yes"}),
        ("stream_options.include_usage", {"stream_options": {"include_usage": 3}}),
        ("top_logprobs", {"top_logprobs": 3}),
        ("top_logprobs", {"logprobs": True, "top_logprobs": 21}),
        ("min_tokens", {"min_tokens": 3}),
        ("keep_alive", {"keep_alive": "a while"}),
        ("keep_alive", {"keep_alive": True}),
        ("think", {"think": 5}),
        ("guided_json", {"guided_json": 3}),
        ("reasoning_effort", {"reasoning_effort": "some"}),
        ("think", {"think": "some"}),
        ("thinking.type", {"thinking": {"type": "maybe"}}),
        ("thinking.budget_tokens", {"thinking": {"type": "enabled", "budget_tokens": "x"}}),
        ("reasoning.max_tokens", {"reasoning": {"max_tokens": True}}),
        ("chat_template_kwargs.thinking", {"chat_template_kwargs": {"thinking": "yes"}}),
        ("tools", {"tools": "all"}),
        ("tool_choice", {"tool_choice": "required"}),
        ("tool_choice", {"tools": [TOOL], "tool_choice": "some"}),
        ("tool_choice", {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "missing"}}}),
        ("tool_choice.allowed_tools", {"tools": [TOOL], "tool_choice": {"type": "allowed_tools"}}),
        (
            "tool_choice.allowed_tools.tools",
            {
                "tools": [TOOL],
                "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [OTHER]}},
            },
        ),
        ("response_format.type", {"response_format": {"type": "xml"}}),
        (
            "response_format.json_schema.schema",
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nothing"}}}},
        ),
        (
            "response_format.json_schema.schema",
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"strict": True, "schema": {"type": "array", "uniqueItems": True}},
                }
            },
        ),
        ("guided_json", {"guided_json": "{"}),
        ("guided_regex", {"guided_regex": "("}),
        ("guided_choice", {"guided_choice": []}),
        ("grammar", {"grammar": "root ::= ("}),
        ("structured_outputs", {"structured_outputs": {}}),
        ("structured_outputs.regex", {"structured_outputs": {"regex": "("}}),
        ("json_schema", {"json_schema": SCHEMA, "response_format": {"type": "json_object"}}),
        ("messages", {"messages": []}),
        ("messages", {"messages": "Hi"}),
        ("messages", {"messages": [{"role": "user", "content": "Hi"}] * 10_001}),
        ("messages[0].role", {"messages": [{"role": "king", "content": "Hi"}]}),
        ("messages[0]", {"messages": ["Hi"]}),
        ("messages[0].content[0]", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_place(rig: House, param: str, body: dict[str, Any]) -> None:
    error = rig.refused(**body)
    assert error["param"] == param
    assert error["message"].startswith(param)


@pytest.mark.parametrize("arguments", ["{'a': 1}", '{"city": "Os', "null", "[1]", '"x"', "1e999999", "[" * 2000])
def test_bad_arguments_in_the_history_are_read_as_they_stand(rig: House, arguments: str) -> None:
    """Refused, they would make an agent send the same request for ever."""
    rig.says(["Sorry."])
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": arguments}}
    messages = [
        *ASKED,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "that was no JSON"},
    ]
    answer = rig.post("/v1/chat/completions", {"messages": messages, "tools": [TOOL]})
    assert answer.json["choices"][0]["message"]["content"] == "Sorry."
    written = "".join(map(str, rig.engine.requests[0].prompt))
    assert json.dumps({"arguments": arguments}) in written


def test_a_conversation_as_hermes_agent_sends_it_back(rig: House) -> None:
    """Arguments written anew, content beside calls, a tool message with a name."""
    rig.says([f"Let me look.\n{CALL}"], ["It rains."])
    first = rig.post("/v1/chat/completions", {"messages": ASKED, "tools": [TOOL], "max_tokens": 65_536}).json
    message = first["choices"][0]["message"]
    assert message["content"] == "Let me look."
    (call,) = message["tool_calls"]
    compact = {**call, "function": {**call["function"], "arguments": '{"city":"Oslo"}'}}
    result = {"role": "tool", "name": "get_weather", "tool_call_id": call["id"], "content": '{"rain": true}'}
    sent = [*ASKED, {"role": "assistant", "content": "Let me look.", "tool_calls": [compact]}, result]
    rig.post("/v1/chat/completions", {"messages": sent, "tools": [TOOL], "max_tokens": 65_536})
    one, two = ("".join(map(str, request.prompt)) for request in rig.engine.requests)
    assert two.startswith(f"{one}Let me look.\n{CALL}<|im_end|>")


@pytest.mark.parametrize("body", [{}, {"tools": []}])
def test_without_tools_nothing_is_a_call(rig: House, body: dict[str, Any]) -> None:
    """Hermes' prompt for tools may be written by hand: as with vLLM and llama.cpp, its author reads the text."""
    asked = [{"role": "system", "content": "You may call <tools>[]</tools>"}, *ASKED]
    choice = rig.chat([CALL], messages=asked, **body).json["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == (CALL, "stop")
    assert "tool_calls" not in choice["message"]


@pytest.mark.parametrize(
    ("body", "same"),
    [
        ({"temperature": "0.5", "max_tokens": "20"}, {"temperature": 0.5, "max_tokens": 20}),
        ({"stop": ["", None, "x"]}, {"stop": "x"}),
        ({"response_format": {}}, {}),
        ({"reasoning_effort": ""}, {}),
        ({"tools": [TOOL], "tool_choice": {"type": "auto"}}, {"tools": [TOOL]}),
        ({"tools": [TOOL], "tool_choice": {"type": "any"}}, {"tools": [TOOL], "tool_choice": "required"}),
        ({"tools": [TOOL], "tool_choice": "any"}, {"tools": [TOOL], "tool_choice": "required"}),
    ],
)
def test_odd_values_that_clients_send_are_read_as_they_are_meant(
    rig: House, body: dict[str, Any], same: dict[str, Any]
) -> None:
    assert rig.asked(**body) == rig.asked(**same)


@pytest.mark.parametrize("samplers", [["top_k", "typical_p", "temperature"], "kyt"])
def test_samplers_that_are_left_out_do_nothing(rig: House, samplers: object) -> None:
    sampling = rig.asked(samplers=samplers, top_k=7, top_p=0.5, min_p=0.2, repeat_penalty=1.5, temperature=0.3).sampling
    assert (sampling.top_k, sampling.temperature) == (7, 0.3)
    assert (sampling.top_p, sampling.min_p, sampling.repeat_penalty, sampling.dry_multiplier) == (1, 0, 1, 0)
    assert rig.asked(samplers=[]) == rig.asked(samplers=None) == rig.asked()


@pytest.mark.parametrize("samplers", [["temperature", "top_k"], ["top_z"], "tk", "?", 5, [5], {"a": 1}, "k" * 99_999])
def test_samplers_in_another_order_are_refused(rig: House, samplers: object) -> None:
    assert rig.refused(samplers=samplers)["param"] == "samplers"


@pytest.mark.parametrize("value", ["", "much", "1e", "0x1", "nan", "1" * 41, True])
def test_what_is_no_number_is_refused(rig: House, value: object) -> None:
    assert rig.refused(temperature=value)["param"] == "temperature"


@pytest.mark.parametrize(("arguments", "read"), [([], "{}"), ("[]", "{}"), ([1], '{"arguments": "[1]"}')])
def test_arguments_that_are_no_object_do_not_end_the_conversation(rig: House, arguments: object, read: str) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "get_weather", "arguments": arguments}}
    history = [
        *ASKED,
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "1"},
    ]
    prompt = "".join(map(str, rig.asked(messages=history, tools=[TOOL]).prompt))
    assert f'{{"name": "get_weather", "arguments": {read}}}' in prompt


def test_functions_in_their_older_form(rig: House) -> None:
    body = {"functions": [TOOL["function"]], "function_call": {"name": "get_weather"}}
    choice = rig.chat([CALL], **body).json["choices"][0]
    assert choice["message"]["function_call"] == {"name": "get_weather", "arguments": '{"city": "Oslo"}'}
    assert choice["finish_reason"] == "function_call"
    assert "tool_calls" not in choice["message"]
    named = {"type": "function", "function": {"name": "get_weather"}}
    assert grammar(rig, **body) == grammar(rig, tools=[TOOL], tool_choice=named, parallel_tool_calls=False)
    deltas = [chunk["choices"][0] for chunk in chunks(rig.chat([CALL], **body, stream=True).body)]
    calls = [delta["delta"]["function_call"] for delta in deltas if "function_call" in delta["delta"]]
    assert calls[0]["name"] == "get_weather"
    assert "".join(call["arguments"] for call in calls) == '{"city": "Oslo"}'
    assert deltas[-1]["finish_reason"] == "function_call"
    assert rig.chat(["It rains."], **body).json["choices"][0]["finish_reason"] == "stop"
    assert rig.refused(**body, tools=[TOOL])["param"] == "functions"
    assert rig.refused(functions=[TOOL["function"]], function_call={"name": "other"})["param"] == "function_call"
    assert rig.refused(function_call={"name": "other"})["param"] == "function_call"


@pytest.mark.parametrize("body", [{"reasoning_effort": "low"}, {"think": True}, {"thinking": {"type": "enabled"}}])
def test_reasoning_asked_of_a_model_without_it_is_left_out_and_told(body: dict[str, Any]) -> None:
    with house(offer("hermes", known=HERMES_3)) as rig:
        reply = rig.chat(**body).json
        assert reply["choices"][0]["message"]["content"] == "Hello"
        (warning,) = reply["warnings"]
        assert warning.startswith(next(iter(body)))
        assert "hermes has no reasoning mode" in warning
        assert "warnings" not in rig.chat(reasoning_effort="none", think=False).json
    with house(offer("hermes", known=HERMES_3, strict_think=True)) as rig:
        error = rig.refused(**body)
        assert error["param"].startswith(next(iter(body)))
        assert "hermes has no reasoning mode" in error["message"]
        assert rig.chat(reasoning_effort="none", think=False).status == 200


def test_the_server_says_how_reasoning_ends_at_its_budget() -> None:
    with house(offer("hermes", known=HERMES_4, think_end="Enough.")) as rig:
        reasoning = rig.asked(think=True, thinking_budget_tokens=5).reasoning
        assert reasoning
        assert (reasoning.budget, reasoning.end) == (5, "Enough.")


def test_the_server_says_whether_a_model_thinks_where_the_client_does_not() -> None:
    with house(offer("hermes", known=HERMES_4, think=True)) as rig:
        assert "deep thinking AI" in prompt(rig)
        assert "deep thinking AI" not in prompt(rig, reasoning_effort="none")


def test_tools_for_a_model_that_takes_none_are_refused() -> None:
    with house(offer("hermes")) as rig:
        assert rig.refused(tools=[TOOL])["param"] == "tools"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(
    sorted(
        {
            *REFUSED,
            *SamplingOptions.__dataclass_fields__,
            "stop",
            "n",
            "tools",
            "tool_choice",
            "think",
            "response_format",
            "logit_bias",
            "messages",
            "keep_alive",
            "reasoning",
            "thinking",
            "chat_template_kwargs",
            "stream_options",
            "max_tokens",
            "json_schema",
            "guided_choice",
            "structured_outputs",
            "model",
            "grammar",
            "logprobs",
            "top_logprobs",
        }
    )
)


@given(st.dictionaries(FIELDS, JSON, max_size=4))
def test_nothing_that_a_field_holds_is_the_servers_fault(rig: House, body: dict[str, Any]) -> None:
    answer = rig.chat(**body)
    assert answer.status in {200, 400, 404}, (body, answer.body)
    if answer.status != 200:
        assert answer.error.keys() == {"message", "type", "param", "code"}
