"""Texts that the models were trained on, character for character. The source is named beside each."""

from __future__ import annotations

import json
from typing import Any

# The cards of DeepHermes 3 and Hermes 4; `thinking_prompt` in Hermes 4's template.
THINKING_PROMPT = (
    "You are a deep thinking AI, you may use extremely long chains of thought to deeply consider the problem and "
    "deliberate with yourself via systematic reasoning processes to help come to a correct solution prior to "
    "answering. You should enclose your thoughts and internal monologue inside <think> </think> tags, and then "
    "provide your solution or response to the problem."
)

# What stands in the system turn where nobody gave one: `default` of Hermes 3, `standard_prompt` of Hermes 4.
HERMES_3_IDENTITY = "You are a helpful assistant."
HERMES_4_IDENTITY = "You are Hermes, created by Nous Research."

# jsonmode.py and README of NousResearch/Hermes-Function-Calling.
_JSON_MODE = "You are a helpful assistant that answers in JSON."
_SCHEMA = " Here's the json schema you must adhere to:\n<schema>\n{}\n</schema>"

# The template `tool_use` of Hermes 2 Pro and Hermes 3, with its third closing brace and without space before "Use".
_TOOLS_3_BEFORE = (
    "You are a function calling AI model. You are provided with function signatures within <tools></tools> XML tags. "
    "You may call one or more functions to assist with the user query. Don't make assumptions about what values to "
    "plug into functions. Here are the available tools: <tools> "
)
_TOOLS_3_AFTER = (
    " </tools>Use the following pydantic model json schema for each tool call you will make: "
    '{"properties": {"name": {"title": "Name", "type": "string"}, "arguments": {"title": "Arguments", "type": '
    '"object"}}, "required": ["name", "arguments"], "title": "FunctionCall", "type": "object"}}\n'
    "For each function call return a json object with function name and arguments within <tool_call></tool_call> XML "
    'tags as follows:\n<tool_call>\n{"name": <function-name>, "arguments": <args-dict>}\n</tool_call>'
)

# Hermes 4's template, as far as public copies quote it. What they leave open, the lines between `</tools>` and "For",
# is as in Qwen 2.5's template, from which the rest is taken word for word.
_TOOLS_4_BEFORE = (
    "# Tools\n\nYou are a function calling AI model. You may call one or more functions to assist with the user query."
    "\n\nYou are provided with function signatures within <tools></tools> XML tags:\n<tools>\n"
)
_TOOLS_4_AFTER = (
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments within "
    '<tool_call></tool_call> XML tags:\n<tool_call>\n{"name": "<function-name>", "arguments": <args-json-object>}\n'
    "</tool_call>"
)


def canonical(value: Any) -> str:  # noqa: ANN401 - anything of JSON
    """Return JSON as the models write and read it: a space behind each comma and colon, no escapes beyond ASCII."""
    return json.dumps(value, ensure_ascii=False)


def tools_prompt_3(declarations: str) -> str:
    """Return the tools, one declaration a line, and how to call them, in the words of Hermes 2 Pro and 3."""
    return f"{_TOOLS_3_BEFORE}{declarations}{_TOOLS_3_AFTER}"


def tools_prompt_4(declarations: str) -> str:
    """Return the same in the words of Hermes 4."""
    return f"{_TOOLS_4_BEFORE}{declarations}{_TOOLS_4_AFTER}"


def json_prompt(schema: str | None) -> str:
    """Return the words for JSON mode, with the JSON schema of the answer if there is one."""
    return _JSON_MODE if schema is None else _JSON_MODE + _SCHEMA.replace("{}", schema)
