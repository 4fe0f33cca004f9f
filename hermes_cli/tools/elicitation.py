"""Questions that MCP servers ask the user in the middle of a call (elicitation).

A server asks for a form of simple fields, or to have an address opened. Its question comes in the event loop of the
connections, and is asked in the thread that waits for the call, as consent is. Where nobody can be asked it is
declined, and the user is told.
"""

from __future__ import annotations

import asyncio
import time
import webbrowser
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any

from mcp_types import ElicitRequestFormParams, ElicitRequestParams, ElicitRequestURLParams, ElicitResult

MAX_FORM = 20_000  # characters of a question as JSON
ATTEMPTS = 3  # at one field, after which the whole question is cancelled
_YES, _NO = ("y", "yes", "true", "1"), ("n", "no", "false", "0")
_KINDS = {"string": "text", "integer": "a whole number", "number": "a number", "boolean": "yes or no"}
_LEAST, _MOST = ("minimum", "minLength", "minItems"), ("maximum", "maxLength", "maxItems")
_CANCEL = "!"
Value = str | int | float | bool | list[str]
Choices = dict[str, str]
"""Values by what the user may type for them."""


@dataclass
class _Question:
    server: str
    params: ElicitRequestParams
    answer: Future[ElicitResult] = field(default_factory=Future)


class Questions:
    """Takes the servers' questions to the user."""

    def __init__(self, ask: Callable[[str], str] | None, tell: Callable[[str], None]) -> None:
        """Begin; `ask` shows a question, returns the typed line, and raises OSError where nobody can type."""
        self._ask, self.tell = ask, tell
        self._waiting: SimpleQueue[_Question] = SimpleQueue()
        self._is_open = False

    async def put(self, server: str, params: ElicitRequestParams) -> ElicitResult:
        """Return the user's answer to a question, from within the event loop."""
        if self._ask is None or not self._is_open:
            return self._declined(server, params, "nobody can be asked here")
        question = _Question(server, params)
        self._waiting.put(question)
        return await asyncio.wrap_future(question.answer)

    @contextmanager
    def open(self) -> Iterator[None]:
        """Take questions meanwhile; whoever opens this calls `answer_all` again and again."""
        self._is_open = True
        try:
            yield
        finally:
            self._is_open = False
            for question in _drained(self._waiting):
                question.answer.cancel()

    def answer_all(self) -> float:
        """Ask the user what waits; return the seconds that this took."""
        began = time.monotonic()
        for question in _drained(self._waiting):
            result = ElicitResult(action="cancel")  # Ctrl-C ends the question, and the call
            try:
                result = self._asked(question.server, question.params)
            finally:
                if question.answer.set_running_or_notify_cancel():
                    question.answer.set_result(result)
        return time.monotonic() - began

    def _asked(self, server: str, params: ElicitRequestParams) -> ElicitResult:
        try:
            if len(params.model_dump_json()) > MAX_FORM:
                return self._declined(server, params, "it is too long")
            if isinstance(params, ElicitRequestURLParams):
                return self._visit(server, params)
            fields = _fields(params)
            if fields is None:
                return self._declined(server, params, "its form has fields that are more than text and numbers")
            return self._form(server, params, fields)
        except OSError:
            return self._declined(server, params, "there is no terminal to ask on")
        except (TypeError, ValueError, AttributeError):
            return self._declined(server, params, "its form is no valid schema")

    def _declined(self, server: str, params: ElicitRequestParams, why: str) -> ElicitResult:
        self.tell(f"the MCP server {server} asks: {params.message[:500]} It was declined: {why}")
        return ElicitResult(action="decline")

    def _visit(self, server: str, params: ElicitRequestURLParams) -> ElicitResult:
        question = (
            f"{server} wants an address opened: {params.message}\n{params.url}\nOpen it in the browser? [y]es, [n]o: "
        )
        if self._line(question).lower() not in _YES:
            return ElicitResult(action="decline")
        if not webbrowser.open(params.url):
            self.tell(f"no browser could be started; open it yourself: {params.url}")
        return ElicitResult(action="accept")

    def _form(
        self, server: str, params: ElicitRequestFormParams, fields: Mapping[str, Mapping[str, Any]]
    ) -> ElicitResult:
        ends = f"; {_CANCEL} at any field cancels" if fields else ""
        answer = self._line(f"{server} asks: {params.message}\nAnswer? [y]es, [n]o{ends}: ").lower()
        if answer not in _YES:
            return ElicitResult(action="cancel" if answer == _CANCEL else "decline")
        required = params.requested_schema.get("required") or []
        content: dict[str, Any] = {}
        for name, schema in fields.items():
            for _ in range(ATTEMPTS):
                typed = self._line(_prompt(name, schema, is_required=name in required))
                if typed == _CANCEL:
                    return ElicitResult(action="cancel")
                if not typed and name not in required:
                    content |= {name: schema["default"]} if schema.get("default") is not None else {}
                    break
                try:
                    content[name] = read_field(typed, schema)
                    break
                except ValueError as error:
                    self.tell(f"{name}: {error}")
            else:
                return ElicitResult(action="cancel")
        return ElicitResult(action="accept", content=content)

    def _line(self, question: str) -> str:
        if self._ask is None:
            raise OSError("nobody can be asked")
        return self._ask(question).strip()


def _drained(queue: SimpleQueue[_Question]) -> Iterator[_Question]:
    """Yield what waits in a queue, until it is empty."""
    with suppress(Empty):
        while True:
            yield queue.get_nowait()


def _fields(params: ElicitRequestFormParams) -> dict[str, dict[str, Any]] | None:
    """Return the fields of a form; None if one is nothing that a line of text can say."""
    fields = params.requested_schema.get("properties") or {}
    known = all(
        isinstance(schema, dict)
        and (schema.get("type", "string") in _KINDS or (schema.get("type") == "array" and _choices(schema)))
        for schema in fields.values()
    )
    return dict(fields) if known else None


def _choices(schema: Mapping[str, Any]) -> Choices:
    """Return the values that a field can have, by their lower-case titles and by themselves; none if any can be."""
    inside = schema["items"] if isinstance(schema.get("items"), dict) else schema
    listed = inside.get("oneOf") or inside.get("anyOf") or []
    values = [str(item["const"]) for item in listed if "const" in item] or [*map(str, inside.get("enum") or [])]
    titles = [str(item.get("title", item["const"])) for item in listed if "const" in item] or inside.get("enumNames")
    names = dict(zip(map(str, titles or values), values, strict=False))
    return {name.lower(): value for name, value in [*names.items(), *zip(values, values, strict=True)]}


def _prompt(name: str, schema: Mapping[str, Any], *, is_required: bool) -> str:
    label = " - ".join(filter(None, [str(schema.get("title") or name), schema.get("description")]))
    choices = ", ".join(dict.fromkeys(_choices(schema)))
    kind = "one of " + choices if choices else _KINDS.get(schema.get("type", "string"), "text")
    if schema.get("type") == "array":
        kind = f"some of {choices}, with commas between"
    default = schema.get("default")
    empty = "" if is_required and default is None else f"; empty is {'nothing' if default is None else default}"
    return f"{label} ({kind}{_bounds(schema)}{empty}): "


def _bounds(schema: Mapping[str, Any]) -> str:
    least, most = (next((schema[name] for name in names if name in schema), None) for names in (_LEAST, _MOST))
    unit = " characters" if schema.get("type", "string") == "string" else ""
    if least is None:
        return "" if most is None else f", up to {most}{unit}"
    return f", from {least}{unit}" if most is None else f", {least} to {most}{unit}"


def read_field(typed: str, schema: Mapping[str, Any]) -> Value:
    """Return the value of a field that was typed; raise ValueError, which says what would do."""
    default = schema.get("default")
    if not typed and default is not None:
        return default  # type: ignore[no-any-return]  # the server's own
    kind, choices = schema.get("type", "string"), _choices(schema)
    if kind == "array":
        return _several(typed, schema, choices)
    if kind == "boolean":
        if typed.lower() not in (*_YES, *_NO):
            raise ValueError("type yes or no")
        return typed.lower() in _YES
    if kind in {"integer", "number"}:
        return _number(typed, schema, whole=kind == "integer")
    if choices:
        if typed.lower() not in choices:
            raise ValueError(f"type one of {', '.join(choices)}")
        return choices[typed.lower()]
    least, most = schema.get("minLength", 1 if not typed else 0), schema.get("maxLength", len(typed))
    if not least <= len(typed) <= most:
        raise ValueError(
            f"type {least} to {most} characters" if "maxLength" in schema else f"type at least {least} characters"
        )
    return typed


def _several(typed: str, schema: Mapping[str, Any], choices: Choices) -> list[str]:
    items = [item.strip().lower() for item in typed.split(",") if item.strip()]
    least, most = schema.get("minItems", 0), schema.get("maxItems", len(choices))
    if any(item not in choices for item in items) or not least <= len(items) <= most:
        raise ValueError(f"type {least} to {most} of {', '.join(choices)}")
    return [choices[item] for item in items]


def _number(typed: str, schema: Mapping[str, Any], *, whole: bool) -> int | float:
    try:
        value = int(typed) if whole else float(typed)
    except ValueError:
        raise ValueError("type a whole number" if whole else "type a number") from None
    least, most = schema.get("minimum", value), schema.get("maximum", value)
    if not least <= value <= most:
        raise ValueError(f"type a number from {schema.get('minimum', '…')} to {schema.get('maximum', '…')}")
    return value
