"""Structured output: JSON schemas, regular expressions, choices, grammars and tools become grammar rules.

`turn_grammar` puts these parts together. JSON comes as the models were trained to write it: `{"a": 1, "b": [2, 3]}`.
Everything is compiled once here, without a vocabulary, so that what cannot be enforced is refused before a model works:
all of these functions raise UsageError, whose message names what is wrong, and where.
"""

from __future__ import annotations

import json
from collections.abc import Container, Mapping, Sequence
from typing import Any

from hermes_cli.errors import UsageError
from hermes_cli.prompting.call_block import is_name
from hermes_cli.prompting.families import shown, without_middle
from hermes_cli.prompting.grammar_check import TOO_MUCH, enforceable, rules_fault, to_lark, with_options
from hermes_cli.prompting.normalize import ANY_ARGUMENTS
from hermes_cli.prompting.pattern import PatternError, to_rust
from hermes_cli.prompting.schema_keywords import IN_PLACE, kind_named
from hermes_cli.prompting.turn_grammar import AnswerGrammar, ToolGrammar, quoted

MOST_CHARACTERS = 256 * 1024  # of a grammar or of all choices
MOST_CHOICES = 10_000
MOST_TOOLS = 512
MOST_TOO_COMPLEX = 3  # tools of one request, each of which takes a second; no others are looked at then

_CALL_BEGIN, _CALL_END = '\n{"name": "', "}\n"


def json_schema(schema: object, *, notes: list[str] | None = None) -> AnswerGrammar:
    """Return the grammar of JSON that conforms to a schema, as from `json.loads`; `notes` as of schema.py's `Checker`.

    Objects that name their properties have no others, unless `additionalProperties` says so.
    """
    return AnswerGrammar(f"answer: %json {enforceable(schema, 'the JSON schema', notes=notes)}")


def json_object() -> AnswerGrammar:
    """Return the grammar of any JSON object."""
    return AnswerGrammar(f"answer: %json {with_options({'type': 'object'})}")


def regex(pattern: str) -> AnswerGrammar:
    """Return the grammar of text that a regular expression (in JavaScript's syntax) matches from end to end."""
    try:
        rust = to_rust(pattern)
    except PatternError as error:
        raise _unusable("the regular expression", str(error)) from None
    return _usable(AnswerGrammar(f"answer: /(?:{rust})/"), "the regular expression")


def choice(options: Sequence[str]) -> AnswerGrammar:
    """Return the grammar of one of several texts."""
    if not options or not all(isinstance(option, str) for option in options):
        raise UsageError("the choice needs texts to choose from.", hint='write it like this: ["yes", "no"].')
    if len(options) > MOST_CHOICES:
        raise _unusable("the choice", f"it has {len(options):,} options; at most {MOST_CHOICES:,} are taken")
    rules = f"answer: {' | '.join(map(quoted, dict.fromkeys(options)))}"
    return _usable(AnswerGrammar(rules), "the choice")


def lark(grammar: str) -> AnswerGrammar:
    """Return a grammar in Lark's syntax, as llguidance reads it; its rule `start` is where it begins."""
    return _usable(AnswerGrammar("answer: @given", (("given", grammar),)), "the Lark grammar")


def gbnf(grammar: str) -> AnswerGrammar:
    """Return a grammar in llama.cpp's syntax; its rule `root` is where it begins."""
    try:
        rules = to_lark(grammar)
    except ValueError as error:
        raise _unusable("the GBNF grammar", str(error)) from None
    return _usable(AnswerGrammar("answer: @given", (("given", rules),)), "the GBNF grammar")


def tool_calls(
    tools: Sequence[Any],  # in OpenAI's shape; `parameters` may be missing
    # `auto`, `none`, `required`, or a tool as `{"type": "function", "function": {"name": …}}`
    tool_choice: object = "auto",
    *,
    parallel: bool = True,  # whether a turn may have more than one call
    # gets a line for each word in tools that cannot be read or enforced and is left out; without it, and in tools that
    # say `strict`, such words are refused
    notes: list[str] | None = None,
    strict: Container[str] = (),  # names of more tools that are strict
) -> ToolGrammar | None:
    """Return the grammar of the calls that are possible, each with arguments that conform to its tool's parameters.

    Returns: None where there are no tools and none are asked for.
    """
    if len(tools) > MOST_TOOLS:
        raise UsageError(f"{len(tools):,} tools are too many; at most {MOST_TOOLS:,} are taken.", hint="offer fewer.")
    offered = _offered(tools, notes, strict)
    required = tool_choice not in ("auto", "none")
    if tool_choice == "required" and not offered:
        hint = "offer tools, or say `auto`."
        raise UsageError("is `required`, and there are no tools.", field="tool_choice", hint=hint)
    if required and tool_choice != "required":
        name = _named(tool_choice, offered)
        offered = {name: offered[name]}
    if not offered:
        return None
    return ToolGrammar("" if tool_choice == "none" else _call_rules(offered), required, parallel)


def check_tool(tool: Any) -> None:  # noqa: ANN401 - JSON
    """Raise UsageError if a tool cannot be read, or no grammar can hold its arguments to anything."""
    name, function = _function(tool)
    _arguments(name, function.get("parameters"), [])


def _offered(tools: Sequence[Any], notes: list[str] | None, strict: Container[str]) -> dict[str, str]:
    """Return the schemas of the arguments of all tools, by name."""
    offered: dict[str, str] = {}
    lenient: list[str] = []
    too_complex = 0
    for tool in tools:
        name, function = _function(tool)
        if name in offered:
            raise UsageError(f"there are two tools named {name}.", hint="give each tool a name of its own.")
        is_lenient = notes is not None and function.get("strict") is not True and name not in strict
        try:
            if is_lenient and too_complex == MOST_TOO_COMPLEX:
                raise _unusable(f"the parameters of tool {name}", "several others are too complex")
            offered[name] = _arguments(name, function.get("parameters"), notes if is_lenient else None)
        except UsageError as error:
            too_complex += TOO_MUCH in error.reason
            if not is_lenient or notes is None:
                raise
            notes.append(f"{error.message.rstrip('.')}; any arguments are taken.")
            offered[name] = with_options(ANY_ARGUMENTS)
        lenient += [name] if is_lenient else []
    lenient.sort(key=lambda name: len(offered[name]))
    while (size := sum(map(len, offered.values()))) > MOST_CHARACTERS:
        about = f"their parameters have {size:,} characters; at most {MOST_CHARACTERS:,} are taken"
        if notes is None or not lenient:
            raise _unusable("the tools", about)
        largest = lenient.pop()
        notes.append(f"the tools: {about}; any arguments of tool {largest} are.")
        offered[largest] = with_options(ANY_ARGUMENTS)
    return offered


def _function(tool: Any) -> tuple[str, dict[str, Any]]:  # noqa: ANN401 - JSON
    """Return the name of a tool, and what it says of its function."""
    function = tool.get("function") if isinstance(tool, dict) else None
    function = function if isinstance(function, dict) else {}
    name = function.get("name")
    if not is_name(name):
        hint = 'write tools like this: {"type": "function", "function": {"name": "f", "parameters": {…}}}.'
        raise UsageError(f"a tool has no name: {shown(tool)}.", hint=hint)
    return name, function


def _arguments(name: str, parameters: object, notes: list[str] | None) -> str:
    """Return the schema of a tool's arguments as Lark takes it: an object, empty where no parameters are described."""
    about = f"the parameters of tool {name}"
    if not isinstance(parameters, dict | None):
        raise UsageError(f"{about} are not a JSON schema.", hint='write them like this: {"type": "object", …}.')
    return enforceable(_of_object(parameters or {}, about), about, notes=notes, lenient=notes is not None)


def _of_object(parameters: dict[str, Any], about: str) -> dict[str, Any]:
    parameters = {word: value for word, value in parameters.items() if value is not None}
    kinds = parameters.get("type", "object")
    if "object" not in [kind_named(kind) for kind in (kinds if isinstance(kinds, list) else [kinds])]:
        raise UsageError(f"{about} are of type {kinds}, not object.", hint="put them into an object.")
    described = parameters.keys() & {"properties", "patternProperties", "additionalProperties", "enum", "const"}
    empty: dict[str, Any] = {} if described or parameters.keys() & set(IN_PLACE) else {"properties": {}}
    return {**parameters, **empty, "type": "object"}


def _named(tool_choice: object, offered: Mapping[str, str]) -> str:
    function = tool_choice.get("function", tool_choice) if isinstance(tool_choice, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str):
        hint = 'say "auto", "none", "required" or {"type": "function", "function": {"name": …}}.'
        raise UsageError(f"is {shown(tool_choice)}.", field="tool_choice", hint=hint)
    if name not in offered:
        text = f"names {name}; offered are: {', '.join(offered) or 'none'}."
        raise UsageError(text, field="tool_choice", hint="offer it, or name another one.")
    return name


def _call_rules(tools: Mapping[str, str]) -> str:
    r"""Return rules for the text between the tags: `\n{"name": "f", "arguments": {…}}\n`."""
    names = " | ".join(f"tool{at}" for at in range(len(tools)))
    rules = [f"call_body: {quoted(_CALL_BEGIN)} ({names}) {quoted(_CALL_END)}"]
    for at, (name, arguments) in enumerate(tools.items()):
        begin = json.dumps(name, ensure_ascii=False)[1:] + ', "arguments": '
        rules += [f"tool{at}: {quoted(begin)} arguments{at}", f"arguments{at}: %json {arguments}"]
    return "\n".join(rules)


def _usable(answer: AnswerGrammar, about: str) -> AnswerGrammar:
    """Return the same grammar, if the grammar engine takes it."""
    size = len(answer.rules) + sum(len(text) for _, text in answer.named)
    if size > MOST_CHARACTERS:
        raise _unusable(about, f"it has {size:,} characters; at most {MOST_CHARACTERS:,} are taken")
    if fault := rules_fault({"start": f"start: answer\n{answer.rules}", **dict(answer.named)}):
        raise _unusable(about, " ".join(fault.split()))
    return answer


def _unusable(about: str, why: str) -> UsageError:
    return UsageError(f"{about} cannot be enforced: {without_middle(why)}.", hint="docs/constraints.md says what is.")
