"""The format that an answer has to have, and the tool calls that it may make, in all the fields that say so.

OpenAI's `response_format`, `tools` and `tool_choice`; `json_schema` and `grammar` of llama.cpp's server; `guided_…` and
`structured_outputs` of vLLM. Words of a schema or tool that cannot be enforced are refused only where it says `strict`.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from hermes_cli import large_json
from hermes_cli.errors import UsageError
from hermes_cli.prompting import structured_output
from hermes_cli.prompting.families import shown
from hermes_cli.prompting.normalize import MOST_SCHEMA_VALUES, check
from hermes_cli.prompting.turn_grammar import AnswerGrammar, ToolGrammar
from hermes_cli.server.openai.requests import SharedFields
from hermes_cli.server.request_stats import warn
from hermes_cli.threads import in_turn

T = TypeVar("T")

_MODES = {"any": "required", "auto": "auto", "none": "none"}  # of `tool_choice`, by the words for them

_FORMATS = 'there are {"type": "text"}, {"type": "json_object"} and {"type": "json_schema", "json_schema": {…}}.'
_ONE = "ask for one of them."
_LARK = "%llguidance"


@dataclass(frozen=True)
class ResponseFormat:
    """The format of an answer."""

    grammar: AnswerGrammar  # that enforces it
    schema: Mapping[str, Any] | bool = False  # for the prompt: a JSON schema, or True for any JSON object
    notes: tuple[str, ...] = ()  # what of the schema is not enforced


async def parse(body: SharedFields, client: str = "") -> ResponseFormat | None:
    """Return the format that a client's request asks for, None for any text."""
    asked = []
    for name in _PARSERS:
        value = getattr(body, name)
        is_text = isinstance(value, dict) and value.get("type") == "text"
        if value is not None and not is_text and not (value == {} and name == "response_format"):
            asked.append((name, value))
    if not asked:
        return None
    name, value = asked[0]
    if len(asked) > 1:
        raise UsageError(f"cannot go together with {name}.", field=asked[1][0], hint=_ONE)
    parsed = await in_turn(client, lambda: _PARSERS[name](name, value), grammar=True)
    warn(*parsed.notes)
    return parsed


async def parse_calls(
    tools: Sequence[dict[str, Any]],
    tool_choice: object,
    *,
    parallel: bool,
    strict: Container[str] = (),
    client: str = "",
) -> ToolGrammar | None:
    """Return the grammar of the calls that are possible, None where there are no tools; `strict` are names of tools."""
    mode, offered = _allowed_tools(tool_choice, tools)
    notes: list[str] = []
    tool_calls = partial(structured_output.tool_calls, offered, mode, parallel=parallel, notes=notes, strict=strict)
    grammar = await in_turn(client, lambda: _enforced("tools", tool_calls), grammar=True)
    warn(*notes)
    return grammar


def _allowed_tools(choice: object, tools: Sequence[dict[str, Any]]) -> tuple[Any, Sequence[dict[str, Any]]]:
    """Return the choice as `structured_output` takes it, and the tools that may be called."""
    if isinstance(choice, dict) and choice.get("type") in (*_MODES, *_MODES.values()):
        choice = choice["type"]  # as Anthropic has it, and Cursor sends it
    if not isinstance(choice, dict) or choice.get("type") != "allowed_tools":
        return "auto" if choice is None else _MODES.get(choice, choice) if isinstance(choice, str) else choice, tools
    allowed = choice.get("allowed_tools")
    allowed = allowed if isinstance(allowed, dict) else choice  # Responses have it flat
    mode, listed, field = allowed.get("mode", "auto"), allowed.get("tools"), "tool_choice.allowed_tools"
    if mode not in ("auto", "required") or not isinstance(listed, list) or not listed:
        raise UsageError("needs a mode (auto or required) and tools.", field=field, hint="name some of the tools.")
    known = {tool["function"]["name"]: tool for tool in tools}
    names: list[str] = []
    for tool in listed:
        function = tool.get("function", tool) if isinstance(tool, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(name, str) or name not in known:
            named = name if isinstance(name, str) else shown(tool)
            hint = f"offered are: {', '.join(known) or 'none'}."
            raise UsageError(f"names {named}.", field=f"{field}.tools", hint=hint)
        names.append(name)
    return mode, [known[name] for name in dict.fromkeys(names)]


def _response_format(field: str, value: dict[str, Any]) -> ResponseFormat:
    kind = value.get("type")
    if kind == "json_object":
        schema = value.get("schema")  # as llama.cpp's server and others have it
        return _json(f"{field}.schema", schema) if schema is not None else _any_object()
    if kind != "json_schema":
        raise UsageError(f"is {shown(kind, 40)}.", field=f"{field}.type", hint=_FORMATS)
    inner = value.get("json_schema", value)
    if not isinstance(inner, dict):
        raise UsageError("must be an object.", field=f"{field}.json_schema", hint=_FORMATS)
    if inner.get("schema") is None:
        return _any_object()
    strict = inner.get("strict")
    if not isinstance(strict, bool | None):
        raise UsageError("must be true or false.", field=f"{field}.json_schema.strict", hint="leave it out.")
    path = f"{field}.json_schema.schema" if inner is not value else f"{field}.schema"
    return _json(path, inner["schema"], strict=bool(strict))


def _json(field: str, schema: Any, *, strict: bool = False) -> ResponseFormat:  # noqa: ANN401 - as it was sent
    if isinstance(schema, str):
        try:
            schema = large_json.read_text(schema)
        except large_json.TooManyValuesError:
            raise UsageError("has too many values.", field=field, hint="send a smaller schema.") from None
        except (ValueError, RecursionError):
            raise UsageError("is not JSON.", field=field, hint="send a JSON schema.") from None
    if schema == {}:
        return _any_object()

    notes: list[str] = []

    def compile_schema() -> AnswerGrammar:
        check(schema, field, most_values=MOST_SCHEMA_VALUES)
        return structured_output.json_schema(schema, notes=None if strict else notes)

    grammar = _enforced(field, compile_schema)
    return ResponseFormat(grammar, schema if isinstance(schema, dict) else False, tuple(notes))


def _any_object() -> ResponseFormat:
    return ResponseFormat(structured_output.json_object(), schema=True)


def _regex(field: str, pattern: Any) -> ResponseFormat:  # noqa: ANN401 - as it was sent
    return ResponseFormat(_enforced(field, lambda: structured_output.regex(_text(field, pattern))))


def _choice(field: str, options: Any) -> ResponseFormat:  # noqa: ANN401 - as it was sent
    if not isinstance(options, list):
        raise UsageError("must be a list of texts.", field=field, hint='write it like this: ["yes", "no"].')
    return ResponseFormat(_enforced(field, lambda: structured_output.choice(options)))


def _grammar(field: str, grammar: Any) -> ResponseFormat:  # noqa: ANN401 - as it was sent
    text = _text(field, grammar)
    if text.lstrip().startswith(_LARK):
        first, _, text = text.lstrip().partition("\n")
        if first.strip() not in (_LARK, _LARK + " {}"):
            raise UsageError("has options for llguidance.", field=field, hint=f"begin it with `{_LARK} {{}}`.")
        return ResponseFormat(_enforced(field, lambda: structured_output.lark(text)))
    compile_grammar = structured_output.gbnf if "::=" in text else structured_output.lark
    return ResponseFormat(_enforced(field, lambda: compile_grammar(text)))


def _structured(field: str, value: dict[str, Any]) -> ResponseFormat:
    if value.get("json_object") is True:
        return _any_object()
    names = [name for name in _STRUCTURED if value.get(name) is not None]
    if len(names) != 1:
        raise UsageError(f"must have one of {', '.join(_STRUCTURED)}.", field=field, hint=_ONE)
    return _STRUCTURED[names[0]](f"{field}.{names[0]}", value[names[0]])


def _text(field: str, value: object) -> str:
    if not isinstance(value, str):
        raise UsageError("must be a text.", field=field, hint="see docs/constraints.md.")
    return value


def _enforced(field: str, compile_it: Callable[[], T]) -> T:
    """Compile a grammar; errors name the field."""
    try:
        return compile_it()
    except UsageError as error:
        if error.field:
            raise
        raise UsageError(f"cannot be used: {error.reason}", field=field, hint=error.hint) from None


_STRUCTURED: dict[str, Callable[[str, Any], ResponseFormat]] = {
    "json": _json,
    "regex": _regex,
    "choice": _choice,
    "grammar": _grammar,
}
_PARSERS: dict[str, Callable[[str, Any], ResponseFormat]] = {
    "response_format": _response_format,
    "json_schema": _json,
    "grammar": _grammar,
    "regex": _regex,
    "ebnf": _grammar,
    **{f"guided_{name}": parser for name, parser in _STRUCTURED.items()},
    "structured_outputs": _structured,
}
