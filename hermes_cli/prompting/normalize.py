"""Normalization of what clients send to `Message`s and tools of one shape; what is wrong is refused with its place.

Accepted is all that OpenAI's Chat Completions take, its older form (`functions`, `function_call`) and what clients have
made of it: see docs/prompting.md for the fix-ups. All else is a UsageError whose `field` names the place, as in
`messages[3].content`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from hermes_cli import large_json
from hermes_cli.errors import UsageError
from hermes_cli.prompting.families import canonical, shown
from hermes_cli.prompting.messages import Message, Role, ToolCall
from hermes_cli.prompting.parts import TEXT_FIELDS, THOUGHTS, kind_of, part_text, sense_of

MOST_CHARACTERS = 16_000_000  # in one request: more than the longest context (524,288 tokens) can hold
MOST_VALUES = 500_000  # of JSON in one request: 10,000 messages with a call each have half as many
MOST_SCHEMA_VALUES = 150_000  # of one schema: more than fit into the bytes that it may have, or serve as descriptions
DEEPEST = 100  # levels of nesting in JSON
NAMELESS = "unnamed"  # a tool that was called without a name
LONGEST_NAME = 256  # of a tool; OpenAI allows 64 letters, servers for tools give longer ones

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
# Claude Code writes this line into its system prompt, with a number that is another one each time: nothing behind it
# could be reused from the request before. It means nothing to a model (anthropics/claude-code issue 24168).
_BILLING_HEADER = "x-anthropic-billing-header:"
_BILLING = re.compile(rf"^{_BILLING_HEADER}[^\n]*\n?", re.MULTILINE)
_ANY = ("", "")  # stands for every call
_PLAIN = frozenset({str, int, bool, type(None), list})
_THINK, _END_THINK = "<think>", "</think>"
ANY_ARGUMENTS = {"type": "object", "additionalProperties": True}  # in place of a schema that cannot be read
_HINT = "see the description of messages in OpenAI's Chat Completions API."


Notes = list[tuple[str, str]]
"""Places, and what of them the model does not read."""


def messages(given: object, notes: Notes | None = None) -> list[Message]:
    """Return the messages of a conversation as clients send it; add to `notes` what the model does not read."""
    if not isinstance(given, list) or not given:
        raise _refused("messages", "must be a list with at least one message")
    check(given, "messages")
    conversation = _Conversation([] if notes is None else notes)
    newest = _newest(given)
    for index, item in enumerate(given):
        conversation.add(item, f"messages[{index}]", newest=index >= newest)
    return conversation.finished()


def _newest(given: Sequence[object]) -> int:
    """Return the index of the first message that no turn of the model has answered; it may have begun one."""
    roles = [item.get("role") if isinstance(item, dict) else None for item in given]
    roles = roles[:-1] if roles[-1] == "assistant" else roles
    answered = [index for index, role in enumerate(roles) if role in ("assistant", "tool", "function")]
    return answered[-1] + 1 if answered else 0


def tools(given: object, notes: Notes | None = None) -> list[dict[str, Any]]:
    """Return clients' tools, each `{"type": "function", "function": {"name", "description"?, "parameters"?}}`.

    `notes` gets each tool that is left out, since nobody could call it, and each part that cannot be read. Without it
    they are refused, and so they are in tools that say `strict`.
    """
    if given is None:
        return []
    if not isinstance(given, list):
        raise _refused("tools", "must be a list")
    check(given, "tools", sizes_only=True)
    tools_by_name: dict[str, dict[str, Any]] = {}
    for index, item in enumerate(given):
        where = f"tools[{index}]"
        try:
            tool = _tool(item, where, None if _is_strict(item) else notes)
            name = tool["function"]["name"]
            if name in tools_by_name:
                raise _refused(where, f"there is a tool named {name} already")
        except UsageError as error:
            if notes is None or _is_strict(item):
                raise
            notes.append((error.field or where, f"{error.reason.rstrip('.')}; this tool is left out."))
        else:
            tools_by_name[name] = tool
    return list(tools_by_name.values())


def strict_tools(given: object) -> frozenset[str]:
    """Return the names of the tools that say `strict`, which the model does not read."""
    functions = [_function(item) for item in given if _is_strict(item)] if isinstance(given, list) else []
    return frozenset(str(function.get("name")) for function in functions if function)


def check(given: object, where: str, *, sizes_only: bool = False, most_values: int = MOST_VALUES) -> None:
    """Refuse what is too large, too deep, or no JSON.

    It takes 0.1 µs for a value: places are written only for errors.
    """
    characters = values = depth = 0
    level: list[Any] = [given]
    while level:
        below: list[Any] = []
        for value in level:
            kind = type(value)
            if kind is str:
                characters += len(value)
            elif kind is dict:
                below += value.values()
                characters += sum(map(len, filter(_is_text, value)))
            elif kind is list:
                below += value
            if values + len(below) > most_values:
                raise UsageError(f"hold more than {most_values:,} values.", field=where, hint="send fewer.")
        if not sizes_only and not all(map(_is_json, level)):
            raise next(_faults(given, where))
        values, depth, level = values + len(below), depth + 1, below
        if depth > DEEPEST + 1 and not sizes_only:
            raise _refused(where, f"is nested more than {DEEPEST} levels deep")
    if characters > MOST_CHARACTERS:
        raise UsageError(
            f"hold {characters:,} characters; at most {MOST_CHARACTERS:,} are read.",
            field=where,
            hint="send less text.",
        )


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_json(value: object) -> bool:
    """Return whether a value, without those inside of it, is one of JSON."""
    kind = type(value)
    if kind is dict:
        return all(map(_is_text, value))  # type: ignore[call-overload]  # it is one
    return kind in _PLAIN or (kind is float and math.isfinite(value))  # type: ignore[arg-type]  # as it says


def _faults(value: object, place: str) -> Iterator[UsageError]:
    """Yield the values that are not of JSON, which is not too deep."""
    if not _is_json(value):
        if isinstance(value, dict):
            yield _refused(place, "has a key that is not a string")
        elif isinstance(value, float):
            yield _refused(place, "is not a finite number")
        else:
            yield _refused(place, f"is a {type(value).__name__}, which JSON does not have")
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _faults(item, f"{place}.{str(key)[:40]}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _faults(item, f"{place}[{index}]")


def repaired(text: str) -> str:
    """Return text that can be encoded: halves of a character (lone surrogates) become U+FFFD, pairs the character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _repaired_value(value: Any) -> Any:  # noqa: ANN401 - anything of JSON
    if isinstance(value, str):
        return repaired(value)
    if isinstance(value, dict):
        return {repaired(key): _repaired_value(item) for key, item in value.items()}
    return [_repaired_value(item) for item in value] if isinstance(value, list) else value


class _Conversation:
    """Messages so far, the calls that wait for results, and what was said before all of those came."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self._messages: list[Message] = []
        self._calls: list[ToolCall] = []
        self._waiting: dict[tuple[str, str], list[int]] = {}  # indexes of calls by id, by name, and all; the last first
        self._results: dict[int, Message] = {}
        self._between: list[Message] = []
        self._late = False  # the last message is the user's and has only what systems said
        self._joined: list[str] = []  # contents that the last message is to have, one below the other

    def add(self, given: object, where: str, *, newest: bool = False) -> None:
        """Add a message; `newest` is one that the model has not answered yet."""
        if not isinstance(given, dict):
            raise _refused(where, "must be an object")
        role = _ROLES.get(given["role"]) if isinstance(given.get("role"), str) else None
        if role is None:
            raise _refused(f"{where}.role", f"is {shown(given.get('role'))}; there are {', '.join(_ROLES)}")
        if role == "tool":
            self._add_result(given, where)
        elif role == "assistant":
            self._end_results()
            self._add_answer(given, where)
        else:
            content = self._content(given.get("content"), f"{where}.content", asked=newest and role == "user")
            text = _BILLING.sub("", content) if role == "system" and _BILLING_HEADER in content else content
            self._between.append(Message(role, text))
            if len(self._results) == len(self._calls):
                self._end_results()

    def finished(self) -> list[Message]:
        self._end_results()
        self._end_joined()
        return self._messages

    def _say(self, message: Message) -> None:
        """Append a message of the system or the user.

        Models were trained on one system message, the first: others stand in the user's turn, where there is one.
        """
        last = self._messages[-1] if self._messages else None
        late = message.role == "system" and last is not None and last.role != "system"
        if late:
            message = replace(message, role="user")
        if last and last.role == message.role and (late or self._late or message.role == "system"):
            self._late = self._late and late
            self._joined = self._joined or [last.content or ""]
            self._joined.append(message.content or "")
        elif message.content or not late:
            self._end_joined()
            self._late = late
            self._messages.append(message)

    def _end_joined(self) -> None:
        """Give the last message all of its contents."""
        if self._joined:
            self._messages[-1] = replace(self._messages[-1], content="\n\n".join(filter(None, self._joined)))
            self._joined = []

    def _add_answer(self, given: Mapping[str, Any], where: str) -> None:
        parts: Any = given.get("content")
        thoughts: list[Any] = [given.get(key) for key in ("reasoning_content", "reasoning")]
        if isinstance(parts, list):
            thoughts.append("\n\n".join(filter(None, (part_text(part) for part in parts if kind_of(part) in THOUGHTS))))
            parts = [part for part in parts if kind_of(part) not in THOUGHTS]
        content = self._content(parts, f"{where}.content") or self._content(given.get("refusal"), where)
        thought: str = next(filter(None, (item for item in thoughts if isinstance(item, str))), "")
        text = content.lstrip()
        if not thought and text.startswith(_THINK) and _END_THINK in text:  # a client left it there
            thought, _, content = text.removeprefix(_THINK).partition(_END_THINK)
            content = content.lstrip("\n")
        self._calls = list(_calls(given, where))
        for index, call in reversed([*enumerate(self._calls)]):
            for key in (("id", call.id), ("name", call.name), _ANY):
                self._waiting.setdefault(key, []).append(index)
        thought = repaired(thought).strip()
        self._end_joined()
        self._messages.append(Message("assistant", content or None, tuple(self._calls), thought or None))

    def _add_result(self, given: Mapping[str, Any], where: str) -> None:
        """Match a result to a call of the last turn: by id, else by function, else by place.

        Clients that cut histories off leave results whose calls are gone: these stay where they stand.
        """
        wanted, name = given.get("tool_call_id"), given.get("name")
        if isinstance(wanted, str):
            index = self._next("id", wanted)
        else:
            index = self._next("name", name) if isinstance(name, str) else None
            index = self._next(*_ANY) if index is None else index
        content = self._result(given.get("content"), f"{where}.content")
        if index is not None:
            call = self._calls[index]
            self._results[index] = Message("tool", content, tool_call_id=call.id, name=call.name)
            return
        self._notes.append((where, "is the result of no call that stands before it: the model reads it where it is."))
        call_id, function = (value if isinstance(value, str) else None for value in (wanted, name))
        self._between.append(Message("tool", content, tool_call_id=call_id, name=function))
        if len(self._results) == len(self._calls):
            self._end_results()

    def _next(self, *key: str) -> int | None:
        """Return the index of the first call with this id or name that waits for its result."""
        waiting = self._waiting.get((key[0], key[1]), [])
        while waiting and waiting[-1] in self._results:
            waiting.pop()
        return waiting[-1] if waiting else None

    def _end_results(self) -> None:
        # The model matches results to calls by their order: ids never reach it.
        if self._results:
            self._end_joined()
            self._messages += [message for _, message in sorted(self._results.items())]
        for message in self._between:
            self._say(message)
        self._calls, self._waiting, self._results, self._between = [], {}, {}, []

    def _content(self, given: object, where: str, *, asked: bool = False) -> str:
        """Return text from a string or a list of parts, which become lines; `asked` refuses what cannot be seen."""
        if given is None:
            return ""
        if isinstance(given, str):
            return repaired(given)
        if not isinstance(given, list):
            raise _refused(where, "must be a string or a list of parts")
        return "\n".join(self._part(item, f"{where}[{index}]", asked=asked) for index, item in enumerate(given))

    def _part(self, given: object, where: str, *, asked: bool) -> str:
        if isinstance(given, str):
            return repaired(given)
        kind = kind_of(given)
        if not isinstance(given, dict) or not kind:
            raise _refused(where, "is a part without a type")
        if kind in TEXT_FIELDS:
            if given.get(TEXT_FIELDS[kind], "") is None:
                return ""
            if not isinstance(given.get(TEXT_FIELDS[kind]), str):
                raise _refused(f"{where}.{TEXT_FIELDS[kind]}", "must be a string")
        elif sense := sense_of(given):
            things = {"image": "images"}.get(sense, sense)
            if asked:
                reason = f"is of type {kind}: this model does not support {things}."
                raise UsageError(reason, field=where, hint=f"send text; {sense} input is not supported here.")
            self._notes.append((where, f"is of type {kind}: the model reads a line in its place."))
        return repaired(part_text(given))

    def _result(self, given: object, where: str) -> str:
        """Return the result of a tool as text, from text, parts of text, or any JSON."""
        parts = isinstance(given, list) and given and all(isinstance(item, dict) and "type" in item for item in given)
        if given is None or isinstance(given, str) or parts:
            return self._content(given, where)
        return canonical(_repaired_value(given))


def _calls(given: Mapping[str, Any], where: str) -> Iterator[ToolCall]:
    listed = given.get("tool_calls")
    if listed is None and given.get("function_call") is not None:
        yield _call({"function": given["function_call"]}, f"{where}.function_call")
        return
    if not isinstance(listed, (list, type(None))):
        raise _refused(f"{where}.tool_calls", "must be a list")
    for index, item in enumerate(listed or ()):
        yield _call(item, f"{where}.tool_calls[{index}]")


def _call(given: object, where: str) -> ToolCall:
    function = given.get("function", given) if isinstance(given, dict) else None
    if not isinstance(given, dict) or not isinstance(function, dict):
        raise _refused(where, "must be an object with a function")
    if isinstance(custom := given.get("custom"), dict):  # a tool that takes a text
        function = {"name": custom.get("name"), "arguments": {"input": custom.get("input")}}
    name = function.get("name")
    if name in (None, ""):  # a model wrote none, and the client sends back what it got
        name = NAMELESS
    if not isinstance(name, str):
        raise _refused(f"{where}.function.name", "must be a string")
    arguments = _arguments(function.get("arguments"), f"{where}.function.arguments")
    known = given.get("id")
    if isinstance(known, str) and known:
        return ToolCall(repaired(name), arguments, known)
    return ToolCall(repaired(name), arguments)


def _arguments(given: object, where: str) -> dict[str, Any]:
    """Return arguments from an object, or from its JSON; nothing is no arguments."""
    if isinstance(given, str) and given.strip():
        try:
            given = large_json.read_text(given, strict=False)
        except large_json.TooManyValuesError:
            raise _refused(where, "has too many values") from None
        except (ValueError, RecursionError):
            raise _refused(where, "is not JSON") from None
        check(given, where)
    if given is None or (isinstance(given, str) and not given.strip()):
        return {}
    if not isinstance(given, dict):
        raise _refused(where, "must be an object, or an object as JSON")
    return {repaired(key): _repaired_value(value) for key, value in given.items()}


def _function(tool: object) -> dict[str, Any] | None:
    """Return what a tool says of its function, which may stand in it or be itself."""
    function = tool.get("function", tool) if isinstance(tool, dict) else None
    return function if isinstance(function, dict) else None


def _is_strict(tool: object) -> bool:
    return (_function(tool) or {}).get("strict") is True


def _tool(given: object, where: str, notes: Notes | None) -> dict[str, Any]:
    function = _function(given)
    if not isinstance(given, dict) or function is None:
        raise _refused(where, "must be an object with a function")
    if given.get("type") not in (None, "function"):
        raise _refused(f"{where}.type", f"is {shown(given['type'])}; only functions can be called")
    name = function.get("name")
    if not isinstance(name, str) or not name.strip() or len(name) > LONGEST_NAME or not repaired(name).isprintable():
        raise _refused(f"{where}.function.name", f"must be a name of 1 to {LONGEST_NAME} letters")
    # `strict` is for us, not for the model: it was never trained on it. So is `type` inside a flat tool.
    kept: dict[str, Any] = {}
    for key, value in function.items():
        if key in {"strict", "type"} or value is None:
            continue
        try:
            kept[key] = _tool_field(key, value, f"{where}.function.{key}")
        except UsageError as error:
            if notes is None:
                raise
            field = error.field or where
            notes.append((field, f"of tool {name} {error.reason.rstrip('.')}; it is left out."))
            if key == "parameters":
                kept[key] = dict(ANY_ARGUMENTS)
    return {"type": "function", "function": kept}


def _tool_field(key: str, value: object, where: str) -> object:
    check(value, where, most_values=MOST_SCHEMA_VALUES)
    if key == "description" and not isinstance(value, str):
        raise _refused(where, "must be a string")
    if key == "parameters" and not isinstance(value, dict):
        raise _refused(where, "must be a JSON schema")
    return _repaired_value(value)


def _refused(where: str, why: str) -> UsageError:
    return UsageError(f"{why}.", field=where, hint=_HINT)
