"""Real requests to each route with a body, and the same with something in another's place; for server_fuzz.py."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Place = tuple["str | int", ...]

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 9}, "days": {"type": "array", "items": {"enum": [1, 2]}}},
    "required": ["city"],
    "additionalProperties": False,
}
FUNCTION = {"name": "get_weather", "description": "The weather", "parameters": SCHEMA, "strict": True}
TOOLS = [{"type": "function", "function": FUNCTION}]
CALL = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Rome"}'}}
MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "The weather in Rome?"}], "name": "ann"},
    {"role": "assistant", "content": None, "reasoning_content": "Rome", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": "22"},
    {"role": "user", "content": "And now?"},
]
REFUSAL = {"type": "refusal", "refusal": "No."}
ITEMS = [
    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "The weather in Rome?"}]},
    {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "Rome"}]},
    {"type": "function_call", "call_id": "call_1", "name": "get_weather", "arguments": '{"city": "Rome"}'},
    {"type": "function_call_output", "call_id": "call_1", "output": "22"},
    {"role": "assistant", "content": [{"type": "output_text", "text": "22", "annotations": []}, REFUSAL]},
    {"role": "user", "content": "And now?"},
]
TEXT = {"type": "text", "text": "22"}
BLOCKS = [
    {"role": "user", "content": [{**TEXT, "cache_control": {"type": "ephemeral"}}]},
    {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "Rome", "signature": "x"},
            {"type": "text", "text": "I look."},
            {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Rome"}},
        ],
    },
    {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "toolu_1", "is_error": False, "content": [TEXT]},
        ],
    },
]
SAMPLING = {"temperature": 0.7, "top_p": 0.9, "top_k": 40, "min_p": 0.05, "seed": 1, "repeat_penalty": 1.1}
MORE = {
    "presence_penalty": 0.5,
    "frequency_penalty": 0.5,
    "repeat_last_n": 64,
    "dry_multiplier": 0.8,
    "dry_sequence_breakers": ["\n", ":"],
    "mirostat": 2,
    "mirostat_tau": 5.0,
    "mirostat_eta": 0.1,
    "logit_bias": {"12": -100, "13": 1.5},
    "ignore_eos": True,
    "min_tokens": 1,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "weather", "schema": SCHEMA, "strict": True}}
WEATHER = {"type": "function", "function": {"name": "get_weather"}}
TEXT_FORMAT = {"type": "json_schema", "name": "weather", "schema": SCHEMA, "strict": True}
ANTHROPIC_TOOL = {"type": "custom", "name": "get_weather", "description": "The weather", "input_schema": SCHEMA}

EXAMPLES: dict[str, list[dict[str, Any]]] = {
    "/v1/chat/completions": [
        {"messages": MESSAGES, "tools": TOOLS, "tool_choice": WEATHER, "parallel_tool_calls": False, **SAMPLING},
        {"messages": MESSAGES, "response_format": FORMAT, "n": 2, "stop": ["\n\n", "END"], "max_tokens": 4},
        {
            "messages": MESSAGES[:2],
            "stream": True,
            "stream_options": {"include_usage": True},
            "logprobs": True,
            "top_logprobs": 2,
            **MORE,
        },
        {
            "messages": MESSAGES[:2],
            "reasoning": {"effort": "low", "max_tokens": 9, "enabled": True, "exclude": False},
            "chat_template_kwargs": {"thinking": True, "enable_thinking": True, "keep_cots": False},
            "keep_alive": "5m",
        },
        {
            "messages": MESSAGES[:2],
            "thinking": {"type": "enabled", "budget_tokens": 9},
            "think": "high",
            "include_reasoning": False,
        },
        {"messages": MESSAGES[:2], "structured_outputs": {"regex": "[a-z]{1,5}"}},
        {"messages": MESSAGES[:2], "grammar": 'root ::= "yes" | "no"', "tool_choice": "none"},
        {
            "messages": MESSAGES,
            "tools": TOOLS,
            "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": TOOLS}},
        },
    ],
    "/v1/completions": [
        {"prompt": "Once upon", "logprobs": 2, "n": 2, "best_of": 2, **SAMPLING, **MORE},
        {
            "prompt": ["Once", "Twice"],
            "stream": True,
            "echo": True,
            "stream_options": {"include_usage": True},
            "stop": "\n",
        },
        {"prompt": [[12, 13], [14]], "guided_choice": ["yes", "no"], "keep_alive": 300},
        {"prompt": [12, 13, 14], "guided_json": SCHEMA},
    ],
    "/v1/responses": [
        {"input": ITEMS, "tools": [{"type": "function", **FUNCTION}], "tool_choice": "auto", "store": True, **SAMPLING},
        {
            "input": "Hi",
            "instructions": "Be brief.",
            "text": {"format": TEXT_FORMAT, "verbosity": "medium"},
            "reasoning": {"effort": "low", "summary": "auto"},
            "metadata": {"a": "b"},
            "stream": True,
        },
        {"input": ITEMS[:1], "top_logprobs": 2, "include": ["message.output_text.logprobs"], "stop": ["x"]},
        {"input": [{"type": "item_reference", "id": "msg_1"}], "previous_response_id": "resp_1"},
    ],
    "/v1/messages": [
        {"messages": BLOCKS, "max_tokens": 4, "system": [{"type": "text", "text": "Be brief."}], "stream": True},
        {
            "messages": BLOCKS,
            "max_tokens": 4,
            "tools": [ANTHROPIC_TOOL],
            "tool_choice": {"type": "tool", "name": "get_weather", "disable_parallel_tool_use": True},
            "stop_sequences": ["END"],
            **SAMPLING,
        },
        {
            "messages": BLOCKS[:1],
            "max_tokens": 4,
            "thinking": {"type": "enabled", "budget_tokens": 9, "display": "omitted"},
            "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}},
        },
    ],
    "/v1/messages/count_tokens": [
        {"messages": BLOCKS, "system": "Be brief.", "tools": [ANTHROPIC_TOOL], "thinking": {"type": "adaptive"}},
    ],
    "/tokenize": [{"content": "Hi <|im_end|>", "add_special": True, "parse_special": True, "with_pieces": True}],
    "/detokenize": [{"tokens": [12, 13], "model": "demo"}],
    "/apply-template": [{"messages": MESSAGES, "tools": TOOLS, "chat_template_kwargs": {"thinking": True}}],
}


def places(value: object, here: Place = ()) -> Iterator[tuple[Place, object]]:
    """Everything in a JSON value, and where it is; the value itself last."""
    inner: Iterator[tuple[str | int, object]] = iter(())
    if isinstance(value, dict):
        inner = iter(value.items())
    elif isinstance(value, list):
        inner = iter(enumerate(value))
    for name, one in inner:
        yield from places(one, (*here, name))
    yield here, value


PARTS = [part for bodies in EXAMPLES.values() for body in bodies for _, part in places(body)]
NAMES = sorted({name for body in PARTS if isinstance(body, dict) for name in body})
ODD = [
    *(-1, 0, 1, 2**31, 2**32 - 1, 2**63, 2**64, 10**30, 1e308, 10**400, -0.0, 0.5, math.nan, math.inf, -math.inf),
    *("", "\x00", "\ud800", "{}", "{{7*7}}", "<|im_end|>", "</think>", "a" * 5000, "\u202e", "🜁"),
    *([], {}, [[]], [{}], [None], {"": None}, {"type": []}, {"$ref": "#"}),
]
# What stands in another's place: parts of other requests, oddities, and anything else.
ANYTHING = (
    st.sampled_from(PARTS)
    | st.sampled_from(ODD)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=4), inner, max_size=3)
        ),
        max_leaves=6,
    )
)


def edited(path: str) -> st.SearchStrategy[Any]:
    """A real request to a route in which up to three things are replaced, left out or added."""

    @st.composite
    def made(draw: Callable[[st.SearchStrategy[Any]], Any]) -> object:
        body: Any = copy.deepcopy(draw(st.sampled_from(EXAMPLES[path])))
        for _ in range(draw(st.integers(0, 3))):
            place, _ = draw(st.sampled_from([*places(body)]))
            if not place:
                body = {**body, draw(st.sampled_from(NAMES)): copy.deepcopy(draw(ANYTHING))}
            else:
                _edit(draw, body, place)
        return body

    return made()


def _edit(draw: Callable[[st.SearchStrategy[Any]], Any], body: Any, place: Place) -> None:  # noqa: ANN401 - JSON
    """Something else in this place, or nothing."""
    *way, last = place
    for name in way:
        body = body[name]
    if draw(st.integers(0, 4)):
        body[last] = copy.deepcopy(draw(ANYTHING))
    else:
        del body[last]
