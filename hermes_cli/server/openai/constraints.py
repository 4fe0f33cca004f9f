"""What an answer is held to, in all the ways in which clients say it, as bounds of a turn.

OpenAI's `response_format`, `tools` and `tool_choice`; `json_schema` and `grammar` of llama.cpp's server; `guided_…` and
`structured_outputs` of vLLM. Words of a schema or tool that cannot be enforced are refused only where it says `strict`.
"""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from hermes_cli.errors import UsageError
from hermes_cli.generation import Constraints
from hermes_cli.prompting import structured_output as constrain
from hermes_cli.prompting.normalize import check

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from hermes_cli.prompting.turn_grammar import AnswerGrammar, ToolGrammar
    from hermes_cli.server.openai.schemas import Asked

T = TypeVar("T")

_FORMATS = 'there are {"type": "text"}, {"type": "json_object"} and {"type": "json_schema", "json_schema": {…}}.'
_ONE = "ask for one of them."
_LARK = "%llguidance"
_checkers = ThreadPoolExecutor(2, "constraints")  # of their own: nothing else waits for many or slow grammars


@dataclass(frozen=True)
class Held:
    """What an answer is held to.

    Attributes:
        field: that says so.
        answer: for the grammar.
        schema: what the model is told of it: a JSON schema, or True for any JSON object.
    """

    field: str
    answer: AnswerGrammar
    schema: Mapping[str, Any] | bool = False


async def held(body: Asked) -> Held | None:
    """What the answer to a request is held to, None for any text.

    Raises:
        UsageError: it makes no sense, or cannot be enforced; the message says why.
    """
    wishes = [(name, wish) for name in _READ if (wish := getattr(body, name)) is not None and not _free(wish)]
    if not wishes:
        return None
    if len(wishes) > 1:
        raise UsageError(f"cannot go together with {wishes[0][0]}.", field=wishes[1][0], hint=_ONE)
    name, wish = wishes[0]
    return await _aside(lambda: _READ[name](name, wish))


async def calls(tools: Sequence[dict[str, Any]], tool_choice: object, *, parallel: bool) -> ToolGrammar | None:
    """Which calls are possible, None where there are no tools.

    Raises:
        UsageError: a tool cannot be used, or the choice makes no sense.
    """
    mode, offered = _chosen(tool_choice, tools)

    def made() -> ToolGrammar | None:
        return _enforced("tools", lambda: constrain.tool_calls(offered, mode, parallel=parallel, notes=[]))

    return await _aside(made)


def bounds(answer: Held | None, possible: ToolGrammar | None) -> Constraints:
    """Both together."""
    return Constraints(answer.answer if answer else None, possible)


def _free(wish: object) -> bool:
    """A `response_format` that asks for nothing."""
    return isinstance(wish, dict) and wish.get("type") == "text"


def _chosen(choice: object, tools: Sequence[dict[str, Any]]) -> tuple[Any, Sequence[dict[str, Any]]]:
    """The choice as `constrain` takes it, and the tools that may be called."""
    if not isinstance(choice, dict) or choice.get("type") != "allowed_tools":
        return "auto" if choice is None else choice, tools
    allowed = choice.get("allowed_tools")
    allowed = allowed if isinstance(allowed, dict) else choice  # Responses have it flat
    mode, listed, where = allowed.get("mode", "auto"), allowed.get("tools"), "tool_choice.allowed_tools"
    if mode not in ("auto", "required") or not isinstance(listed, list) or not listed:
        raise UsageError("needs a mode (auto or required) and tools.", field=where, hint="name some of the tools.")
    known = {tool["function"]["name"]: tool for tool in tools}
    names = [_name(one) for one in listed]
    if missing := [name for name in names if name not in known]:
        raise UsageError(
            f"names {missing[0]}.", field=f"{where}.tools", hint=f"offered are: {', '.join(known) or 'none'}."
        )
    return mode, [known[str(name)] for name in dict.fromkeys(names)]


def _name(tool: object) -> object:
    function = tool.get("function", tool) if isinstance(tool, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else json.dumps(tool, default=str)[:80]


def _response_format(field: str, given: dict[str, Any]) -> Held:
    kind = given.get("type")
    if kind == "json_object":
        schema = given.get("schema")  # as llama.cpp's server and others have it
        return _json(f"{field}.schema", schema) if schema is not None else _any_object(field)
    if kind != "json_schema":
        raise UsageError(f"is {json.dumps(kind, default=str)[:40]}.", field=f"{field}.type", hint=_FORMATS)
    inner = given.get("json_schema", given)
    if not isinstance(inner, dict):
        raise UsageError("must be an object.", field=f"{field}.json_schema", hint=_FORMATS)
    if inner.get("schema") is None:
        return _any_object(field)
    strict = inner.get("strict")
    if not isinstance(strict, bool | None):
        raise UsageError("must be true or false.", field=f"{field}.json_schema.strict", hint="leave it out.")
    where = f"{field}.json_schema.schema" if inner is not given else f"{field}.schema"
    return _json(where, inner["schema"], strict=bool(strict))


def _json(field: str, schema: Any, *, strict: bool = False) -> Held:  # noqa: ANN401 - as it was sent
    if isinstance(schema, str):
        try:
            schema = json.loads(schema)
        except (ValueError, RecursionError):
            raise UsageError("is no JSON.", field=field, hint="send a JSON schema.") from None
    if schema == {}:
        return _any_object(field)

    def made() -> AnswerGrammar:
        check(schema, field)
        return constrain.json_schema(schema, strict=strict, notes=None if strict else [])

    return Held(field, _enforced(field, made), schema if isinstance(schema, dict) else False)


def _any_object(field: str) -> Held:
    return Held(field, constrain.json_object(), schema=True)


def _regex(field: str, pattern: Any) -> Held:  # noqa: ANN401 - as it was sent
    return Held(field, _enforced(field, lambda: constrain.regex(_text(field, pattern))))


def _choice(field: str, options: Any) -> Held:  # noqa: ANN401 - as it was sent
    if not isinstance(options, list):
        raise UsageError("must be a list of texts.", field=field, hint='write it like this: ["yes", "no"].')
    return Held(field, _enforced(field, lambda: constrain.choice(options)))


def _grammar(field: str, grammar: Any) -> Held:  # noqa: ANN401 - as it was sent
    text = _text(field, grammar)
    if text.lstrip().startswith(_LARK):
        first, _, text = text.lstrip().partition("\n")
        if first.strip() != _LARK + " {}" and first.strip() != _LARK:
            raise UsageError("has options for llguidance.", field=field, hint=f"begin it with `{_LARK} {{}}`.")
        return Held(field, _enforced(field, lambda: constrain.lark(text)))
    made = constrain.gbnf if "::=" in text else constrain.lark
    return Held(field, _enforced(field, lambda: made(text)))


def _structured(field: str, given: dict[str, Any]) -> Held:
    said = {name: wish for name, wish in given.items() if name in _STRUCTURED and wish is not None}
    if given.get("json_object") is True:
        return _any_object(field)
    if len(said) != 1:
        raise UsageError(f"must have one of {', '.join(_STRUCTURED)}.", field=field, hint=_ONE)
    ((name, wish),) = said.items()
    return _STRUCTURED[name](f"{field}.{name}", wish)


def _text(field: str, given: object) -> str:
    if not isinstance(given, str):
        raise UsageError("must be a text.", field=field, hint="see docs/constraints.md.")
    return given


def _enforced(field: str, made: Callable[[], T]) -> T:
    """What is made, or an error that names the field."""
    try:
        return made()
    except UsageError as error:
        if error.field:
            raise
        raise UsageError(f"cannot be used: {error.reason}", field=field, hint=error.hint) from None


async def _aside(made: Callable[[], T]) -> T:
    """A grammar may take up to a second, and others are served meanwhile."""
    return await asyncio.get_running_loop().run_in_executor(_checkers, made)


_READ: dict[str, Callable[[str, Any], Held]] = {
    "response_format": _response_format,
    "json_schema": _json,
    "grammar": _grammar,
    "guided_json": _json,
    "guided_regex": _regex,
    "guided_choice": _choice,
    "guided_grammar": _grammar,
    "structured_outputs": _structured,
}
_STRUCTURED: dict[str, Callable[[str, Any], Held]] = {
    "json": _json,
    "regex": _regex,
    "choice": _choice,
    "grammar": _grammar,
}
