"""The prompt formats of the Hermes family, as far as we write them ourselves.

Texts are those that the models were trained on, character for character; the source is named beside each.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from hermes_cli.catalog.models import CatalogModel

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


def shown(value: Any, most: int = 80) -> str:  # noqa: ANN401 - anything of JSON
    """Return the beginning of JSON, for an error; of a large value the rest is not looked at."""
    return canonical(_beginning(value, most))[:most]


def without_middle(text: str, most: int = 600) -> str:
    """Return a text of an error that may repeat input, without what is too long for anyone to read."""
    return text if len(text) <= most else f"{text[: most * 3 // 4]} … {text[-most // 4 :]}"


def _beginning(value: Any, most: int, levels: int = 3) -> Any:  # noqa: ANN401 - as above
    if isinstance(value, str):
        return value[:most]
    if isinstance(value, list):
        return [_beginning(item, most, levels - 1) for item in value[:most]] if levels else []
    if isinstance(value, dict):
        items = islice(value.items(), most if levels else 0)
        return {str(key)[:most]: _beginning(item, most, levels - 1) for key, item in items}
    return value


def tools_prompt(generation: Literal[3, 4], declarations: str) -> str:
    """Return the tools, one declaration a line, and how to call them, in the words of Hermes 3 (and 2 Pro) or 4."""
    before, after = (_TOOLS_3_BEFORE, _TOOLS_3_AFTER) if generation == 3 else (_TOOLS_4_BEFORE, _TOOLS_4_AFTER)  # noqa: PLR2004
    return f"{before}{declarations}{after}"


def json_prompt(schema: str | None) -> str:
    """Return the words for JSON mode, with the JSON schema of the answer if there is one."""
    return _JSON_MODE if schema is None else _JSON_MODE + _SCHEMA.replace("{}", schema)


Markup = Literal["alpaca", "chatml", "llama-3"]

# What a vocabulary must have as single tokens to read a markup.
TURN_TOKENS: dict[Markup, tuple[str, ...]] = {
    "alpaca": (),
    "chatml": ("<|im_start|>", "<|im_end|>"),
    "llama-3": ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
}
STOPS: dict[Markup, tuple[str, ...]] = {
    "alpaca": ("### Instruction:",),
    "chatml": ("<|im_end|>",),
    "llama-3": ("<|eot_id|>",),
}


def write_turns(
    markup: Markup, turns: Iterable[Mapping[str, str]], bos: str = "", *, generation_prompt: bool = True
) -> str:
    """Return the prompt for turns, up to where the model is to go on; without `generation_prompt`, up to their end.

    Each has `role` and `content`; in Llama 3's markup `gap` may replace the empty line behind the header. `bos` is the
    begin-of-text token, where the markup spells it.
    """
    match markup:
        case "alpaca":
            headers = {"system": "", "assistant": "### Response:\n"}
            texts = [headers.get(turn["role"], "### Instruction:\n") + turn["content"] + "\n\n" for turn in turns]
            return "".join([*texts, *(["### Response:\n"] if generation_prompt else [])])
        case "chatml":
            # The template of Hermes 2 Pro and 3 has no line break behind a tool's turn, whose text ends with one.
            ends = {"tool": ""}
            texts = [
                f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>" + ends.get(turn["role"], "\n")
                for turn in turns
            ]
            return "".join([bos, *texts, *(["<|im_start|>assistant\n"] if generation_prompt else [])])
        case "llama-3":
            gap = "\n\n"
            texts = [
                f"<|start_header_id|>{turn['role']}<|end_header_id|>{turn.get('gap', gap)}{turn['content']}<|eot_id|>"
                for turn in turns
            ]
            header = f"<|start_header_id|>assistant<|end_header_id|>{gap}"
            return "".join([bos, *texts, *([header] if generation_prompt else [])])


@dataclass(frozen=True)
class Family:
    """Models that read the same prompts."""

    title: str  # what to call it
    markup: Markup  # how turns are set apart; the name of one of our templates
    proven: bool = False  # our text equals the published template's (tests/prompting/test_parity.py)
    spells_bos: bool = False  # the template writes the begin-of-text token, not the tokenizer
    identity: str | None = None  # the system prompt where none is given and no tools either
    tools: Literal[3, 4] | None = None  # generation whose words offer tools; None if not trained for them
    reasoning: Literal["system-prompt", "thinking"] | None = None  # what switches thinking on


ALPACA = Family("Alpaca", "alpaca", proven=True)
CHATML = Family("ChatML", "chatml", proven=True)
LLAMA_3 = Family("Llama 3", "llama-3", spells_bos=True)
HERMES_2_PRO = Family("Hermes 2 Pro", "chatml", proven=True, spells_bos=True, tools=3)
HERMES_3 = Family("Hermes 3", "chatml", proven=True, spells_bos=True, identity=HERMES_3_IDENTITY, tools=3)
DEEPHERMES_3 = Family("DeepHermes 3", "llama-3", spells_bos=True, tools=3, reasoning="system-prompt")
HERMES_4 = Family(
    "Hermes 4 (Llama 3 turns)", "llama-3", spells_bos=True, identity=HERMES_4_IDENTITY, tools=4, reasoning="thinking"
)
HERMES_4_QWEN = Family("Hermes 4 (ChatML)", "chatml", identity=HERMES_4_IDENTITY, tools=4, reasoning="thinking")


def family_of(model: CatalogModel) -> Family | None:
    """Return the family of a model of the catalogue, None where its prompt format is unknown."""
    markup, switch = model.prompt.format, model.reasoning.switch if model.reasoning else None
    if markup == "unknown":
        return None
    if markup == "alpaca":
        return ALPACA
    if markup == "llama-3":
        return {"thinking": HERMES_4, "system-prompt": DEEPHERMES_3}.get(switch or "", LLAMA_3)
    if switch == "thinking":
        return HERMES_4_QWEN
    if not model.tools:
        return CHATML
    return HERMES_3 if model.generation == "Hermes 3" else HERMES_2_PRO


_BASIC = {"string": "str", "number": "float", "integer": "int", "boolean": "bool", "null": "None"}
_ANY = "Any"
DEEPEST_TYPE = 8  # levels of a type that a signature spells out


def declaration(tool: Mapping[str, Any]) -> str:
    """Return a tool in OpenAI's shape, normalised, as Hermes 2 Pro and Hermes 3 read it: as an entry of `<tools>`.

    The description begins with a Python signature. The template `tool_use` writes this. Where it fails or writes
    nonsense (lists of anything, unions, missing words, quotes that end the string) we write what was meant: the
    signature that Python would have, as in the training data. Otherwise we write what it writes, odd as it may be.
    """
    function = tool["function"]
    parameters = function.get("parameters") or {}
    properties = parameters.get("properties") or {}
    types = _Types(parameters)
    signature = ", ".join(f"{name}: {types.of(schema)}" for name, schema in properties.items())
    returned = function.get("return")
    text = f"{function['name']}({signature})"
    if returned is not None:
        text += f" -> {types.of(returned)}"
    text += f" - {function.get('description') or ''}\n\n"
    if properties:
        # One behind the other without a break: so the template writes them.
        text += "    Args:\n" + "".join(
            f"        {name}({types.of(schema)}): {_described(schema).strip()}" for name, schema in properties.items()
        )
    if _described(returned):
        text += f"\n    Returns:\n        {_described(returned)}"
    text = text.replace("\\", "\\\\").replace('"', '\\"')  # line breaks stay as they are, as in the template
    return (
        f'{{"type": "function", "function": {{"name": {canonical(function["name"])}, "description": "{text}", '
        f'"parameters": {canonical(parameters) if properties else "{}"}}}'  # one brace too few, as in the template
    )


def _described(schema: object) -> str:
    text = schema.get("description") if isinstance(schema, dict) else None
    return text if isinstance(text, str) else ""


class _Types:
    """JSON schemas of one tool as Python types."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._known: dict[str, str] = {}

    def of(self, schema: object, depth: int = 0) -> str:
        """Return the type; `Any` for what says nothing about its type, and for what lies too deep to be read."""
        if not isinstance(schema, dict) or depth > DEEPEST_TYPE:
            return _ANY
        if isinstance(schema.get("$ref"), str):
            return self._referenced(schema["$ref"], depth)
        kind = schema.get("type")
        if isinstance(kind, str):
            return self._named(kind, schema, depth)
        if isinstance(kind, list):
            kinds = dict.fromkeys(option for option in kind if isinstance(option, str))
            return _union(self.of({**schema, "type": option}, depth + 1) for option in kinds)
        for word in ("anyOf", "oneOf", "allOf"):
            if isinstance(schema.get(word), list):
                types = list(dict.fromkeys(self.of(option, depth + 1) for option in schema[word]))
                return types[0] if word == "allOf" and len(types) == 1 else _union(types)
        return "dict" if "properties" in schema else _ANY

    def _referenced(self, reference: str, depth: int) -> str:
        if reference not in self._known:
            # While it is read: a type that contains itself is called by its name there.
            self._known[reference] = reference.rpartition("/")[2] or _ANY
            target: object = self._root  # of `#/$defs/Name`
            for step in filter(None, reference.removeprefix("#").split("/")):
                key = step.replace("~1", "/").replace("~0", "~")
                target = target.get(key) if isinstance(target, dict) else None
            self._known[reference] = self.of(target, depth + 1)
        return self._known[reference]

    def _named(self, kind: str, schema: Mapping[str, Any], depth: int) -> str:
        if kind == "array":
            items = schema.get("items")
            return f"list[{self.of(items, depth + 1)}]" if isinstance(items, dict) else "list"
        if kind == "object":
            values = schema.get("additionalProperties")
            return f"dict[str, {self.of(values, depth + 1)}]" if isinstance(values, dict) and values else "dict"
        return _BASIC.get(kind, _ANY)


def _union(types: Iterable[str]) -> str:
    return f"Union[{','.join(types)}]"
