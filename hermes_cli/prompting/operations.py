"""What chat templates can do with values: filters, functions, methods of strings, arithmetic.

All of it is within the budget, and strings keep the origin of their characters. The filters are those that published
chat templates use (llama.cpp's models/templates); those that can make much of little (`center`, `batch`, `round`, …)
are left out.
"""

from __future__ import annotations

import json
import operator
import re
from datetime import datetime
from string import Formatter
from typing import TYPE_CHECKING, Any, NoReturn

import jinja2
from jinja2 import pass_context
from jinja2.exceptions import SecurityError
from jinja2.filters import FILTERS as JINJA_FILTERS
from jinja2.runtime import Undefined
from jinja2.sandbox import safe_range
from jinja2.utils import Namespace

from hermes_cli.prompting.limits import WHOLE, LimitError, budget, check_printable, holds_content
from hermes_cli.prompting.text import METHODS, SourcedText, alike, is_content, joined, origin, plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from jinja2.runtime import Context

LONGEST_FIELD = 2  # digits of a width or precision in a format
LARGEST_INDENT = 16  # of JSON
LARGEST_POWER = 64

_TABLE: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
    "**": operator.pow,
}
_WIDE = re.compile(rf"\d{{{LONGEST_FIELD + 1},}}|\*")


def written(value: Any) -> str:  # noqa: ANN401 - whatever a template prints
    """How a value is printed.

    Raises:
        LimitError: it is too long, or has no written form.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, Undefined):
        return str(value)
    budget().spend(check_printable(value))
    text = str(value)
    return SourcedText(text) if holds_content(value) else text


def binary(sign: str, left: Any, right: Any) -> Any:  # noqa: ANN401 - whatever stands in a template
    """`left sign right`.

    Raises:
        LimitError: the result would be too large.
    """
    allowed = budget()
    if sign == "%" and isinstance(left, str):
        return _percent(left, right)
    if sign == "*" and isinstance(left, int) and not isinstance(right, (int, float)):
        left, right = right, left
    if sign == "*" and isinstance(left, (str, list, tuple)) and isinstance(right, int):
        allowed.spend(len(left) * max(right, 0))
        if isinstance(left, str):
            return SourcedText(str.__mul__(left, right), origin(left) * right)
    if sign == "**" and not (isinstance(right, (int, float)) and abs(right) <= LARGEST_POWER):
        raise LimitError("its numbers are too large")
    if sign == "+" and isinstance(left, str) and isinstance(right, str):
        allowed.spend(len(left) + len(right))
        return joined((left, right))
    return allowed.admit(_TABLE[sign](left, right))


def call_method(text: str, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:  # noqa: ANN401 - many
    """`text.name(*args)`.

    Raises:
        SecurityError: templates may not use this method.
        LimitError: the result would be too large.
    """
    allowed = budget()
    allowed.step()
    if name == "format":
        return _format(text, args, kwargs)
    if name not in METHODS:
        raise SecurityError(f"a template may not use the method {name} of strings")
    if name == "replace":
        allowed.spend(_replaced(text, *args))
    elif name.endswith("split"):
        allowed.spend(len(text) + _PART * _parts(text, *args))
    elif name == "join":
        args = [_strings(args[0])] if args else args
        allowed.spend(sum(map(len, args[0])) + len(text) * len(args[0]) if args else 0)
    else:
        allowed.spend(len(text))
    return METHODS[name](text if isinstance(text, SourcedText) else SourcedText(text, origin(text)), *args, **kwargs)


_PART = 200  # bytes that a small string and its origin take


def _parts(text: str, sep: object = None, maxsplit: object = -1, *_: object) -> int:
    most = maxsplit if isinstance(maxsplit, int) and maxsplit >= 0 else len(text)
    return min(text.count(sep), most) + 1 if isinstance(sep, str) and sep else min(len(text) // 2, most) + 1


def _replaced(text: str, old: str, new: str, count: int = -1, *_: object) -> int:
    times = text.count(old)
    return len(text) + (len(new) + 2 * _PART) * (times if count < 0 else min(times, count))


def _strings(values: Iterable[Any]) -> list[str]:
    return list(values)


def _format(text: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """`str.format` with plain fields: their attributes and indexes are not for templates."""
    parts: list[str] = []
    numbers = iter(range(len(args)))
    for literal, field, spec, conversion in Formatter().parse(text):
        parts.append(SourcedText(literal) if is_content(text) else literal)
        if field is None:
            continue
        if conversion or _WIDE.search(spec or "") or not re.fullmatch(r"\w*", field):
            raise SecurityError("a template may format only plain fields")
        key: Any = field or next(numbers, len(args))
        value = args[int(key)] if isinstance(key, int) or key.isdigit() else kwargs[key]
        made = format(value, spec) if spec else written(value)
        parts.append(SourcedText(made) if spec and holds_content(value) else made)
    budget().spend(sum(map(len, parts)))
    return joined(parts)


def _percent(text: str, values: Any) -> str:  # noqa: ANN401 - as Python's %
    if _WIDE.search(text):
        raise LimitError("it formats too wide")
    budget().spend(len(text) + check_printable(values) * (text.count("%") + 1))
    made = str.__mod__(text, values)
    return SourcedText(made) if is_content(text) or holds_content(values) else made


@pass_context
def _written(_: Context, value: Any) -> str:  # noqa: ANN401 - with a context Jinja never computes it while compiling
    return written(value)


def _joined(values: list[Any]) -> str:
    made = joined(map(written, values))
    budget().spend(len(made))
    return made


def _each(values: Iterable[Any]) -> Iterator[Any]:
    allowed = budget()
    for value in values:
        allowed.step()
        yield value


def _built(value: Any) -> Any:  # noqa: ANN401 - a list, tuple or dictionary
    return budget().admit(value)


def _to_json(
    value: Any,  # noqa: ANN401 - anything
    ensure_ascii: bool = False,  # noqa: FBT001, FBT002
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,  # noqa: FBT001, FBT002
) -> str:
    # Not Jinja's own: that one escapes for HTML, and models were trained on plain JSON.
    if isinstance(value, Undefined):
        raise TypeError("an undefined value has no JSON")
    wide = indent if isinstance(indent, int) else len(indent or "")
    if wide > LARGEST_INDENT:
        raise LimitError("it indents too far")
    budget().spend(check_printable(value) * 2 * (1 + wide))
    text = json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    return SourcedText(text) if holds_content(value) else text


def _from_json(text: str) -> Any:  # noqa: ANN401 - anything
    budget().spend(len(text))
    value = json.loads(text)
    return budget().admit(as_content(value) if is_content(text) else value)


def as_content(value: Any, mark: Callable[[str], SourcedText] = SourcedText) -> Any:  # noqa: ANN401 - anything of JSON
    """The same value with every string in it, keys too, marked as content."""
    if isinstance(value, str):
        return value if isinstance(value, SourcedText) else mark(value)
    if isinstance(value, dict):
        return {as_content(key, mark): as_content(one, mark) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_content(one, mark) for one in value]
    return value


def _method(name: str) -> Callable[..., Any]:
    """A method of strings as a filter."""
    return lambda value, *args, **kwargs: call_method(written(value), name, args, kwargs)


def _title(value: Any) -> str:  # noqa: ANN401 - printed first
    text = written(value)
    budget().spend(len(text))
    return alike(JINJA_FILTERS["title"](plain(text)), text)


@jinja2.pass_environment
def _join(environment: jinja2.Environment, values: Iterable[Any], d: str = "", attribute: str | None = None) -> str:
    if attribute is not None:
        values = (environment.getitem(value, attribute) for value in values)
    return str(call_method(d, "join", ([written(value) for value in values],), {}))


def _indent(
    text: Any,  # noqa: ANN401 - printed first
    width: int | str = 4,
    first: bool = False,  # noqa: FBT001, FBT002 - as Jinja has it
    blank: bool = False,  # noqa: FBT001, FBT002
) -> str:
    space = " " * min(width, LARGEST_INDENT) if isinstance(width, int) else width
    lines = call_method(written(text), "split", ("\n",), {})
    budget().spend(len(space) * len(lines))
    shifted = [joined((space, line)) if (line or blank) and (first or at) else line for at, line in enumerate(lines)]
    return str(call_method("\n", "join", (shifted,), {}))


def _escape(text: Any) -> str:  # noqa: ANN401 - printed first
    made = written(text)
    for sign, name in {"&": "&amp;", "<": "&lt;", ">": "&gt;", "'": "&#39;", '"': "&#34;"}.items():
        made = call_method(made, "replace", (sign, name), {})
    return made


def _counted(made: Callable[..., Any]) -> Callable[..., Any]:
    """One of Jinja's own filters, as a step that is measured."""

    def filtered(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as Jinja's
        budget().step()
        budget().spend(
            _PART * sum(len(value) for value in args if isinstance(value, str))
        )  # it may go letter by letter
        value = made(*args, **kwargs)
        return budget().admit(value) if isinstance(value, (*WHOLE, str, int)) else value

    passed = getattr(made, "jinja_pass_arg", None)  # what Jinja hands in first
    if passed is not None:
        filtered.jinja_pass_arg = passed  # type: ignore[attr-defined]
    return filtered


_OF_JINJA = (
    *("dictsort", "first", "items", "last", "list", "map", "max", "min", "reject", "rejectattr", "reverse", "select"),
    *("selectattr", "sort", "unique"),
)
_OF_JINJA_AT_ONCE = ("abs", "count", "d", "default", "float", "int", "length")
FILTERS: dict[str, Callable[..., Any]] = {
    "#written": _written,
    "#joined": _joined,
    "#each": _each,
    "#built": _built,
    **{name: _counted(JINJA_FILTERS[name]) for name in _OF_JINJA},
    **{name: JINJA_FILTERS[name] for name in _OF_JINJA_AT_ONCE},
    **{name: _method(name) for name in ("upper", "lower", "capitalize", "replace")},
    "title": _title,
    "trim": _method("strip"),
    "string": written,
    "safe": written,
    "e": _escape,
    "escape": _escape,
    "join": _join,
    "indent": _indent,
    "tojson": _to_json,
    "from_json": _from_json,
}


def _raise_exception(message: object) -> NoReturn:
    raise jinja2.TemplateError(str(written(message)))


def _now(layout: str) -> str:
    if len(layout) > LARGEST_POWER:
        raise LimitError("it wants the time in too many words")
    return datetime.now().astimezone().strftime(layout)


GLOBALS: dict[str, Any] = {
    "range": safe_range,
    "dict": dict,
    "namespace": Namespace,
    "raise_exception": _raise_exception,
    "strftime_now": _now,
}
