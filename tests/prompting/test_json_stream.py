"""JSON as models write it, against Python's json and literals, cut anywhere."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from turns import cut, strictly

from hermes_cli.prompting.json_reader import MAX_DEPTH, Reader, strict_object

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8)
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
OBJECTS = st.dictionaries(st.text(max_size=5), VALUES, max_size=4)


def read(pieces: Iterable[str]) -> Reader:
    """Feed as the parser does: what was not read comes again, with more behind it."""
    reader, rest = Reader(), ""
    for piece in pieces:
        rest += piece
        rest = rest[reader.read(rest, 0) :]
        if reader.stuck or reader.closed:
            break
    return reader


@given(OBJECTS, st.booleans(), st.sampled_from([None, 1]), st.data())
def test_json_comes_out_as_it_went_in(
    value: dict[str, Any],
    ascii_only: bool,  # noqa: FBT001 - drawn
    indent: int | None,
    data: st.DataObject,
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    reader = read(cut(text, data.draw(st.lists(st.integers(0, len(text)), max_size=5))))
    assert reader.closed
    assert "".join(reader.pieces) == text


@given(OBJECTS)
@example({"a": "'\"\\\n\x1b\u2028\ud800\U000e0001"})
def test_python_comes_out_as_json(value: dict[str, Any]) -> None:
    value = {"name": None, **value}
    text = "".join(read(repr(value)).pieces)
    assert strictly(text) == ast.literal_eval(repr(value)) == value
    text.encode()


@given(OBJECTS, st.booleans(), st.data())
def test_any_beginning_can_be_closed(value: dict[str, Any], python: bool, data: st.DataObject) -> None:  # noqa: FBT001 - drawn
    text = repr(value) if python else json.dumps(value)
    reader = read([text[: data.draw(st.integers(1, len(text)))]])
    assert isinstance(strictly("".join(reader.pieces) + reader.closers()), dict)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ('{"a": [1, 2,], }', '{"a": [1, 2]}'),
        ("{'a': 'it\\'s'}", '{"a": "it\'s"}'),
        ("{'a': 'say \"no\"'}", '{"a": "say \\"no\\""}'),
        ('{"a": "one\n\ttwo\x00"}', '{"a": "one\\n\\ttwo\\u0000"}'),
        ('{"a": "\\d\\.\\ \\é"}', '{"a": "\\\\d\\\\.\\\\ \\\\é"}'),
        ("{'a': '\\x41\\U0001F680', 'b': \"'\\x41\"}", '{"a": "A\\ud83d\\ude80", "b": "\'A"}'),
        ("{'a': '\\x41\\U0001F680'}", '{"a": "A\\ud83d\\ude80"}'),
        ('{"a": [True, False, None, true]}', '{"a": [true, false, null, true]}'),
        ('{"a": [.5, 5., +5, -.5E3, 1E400, -0]}', '{"a": [0.5, 5.0, 5, -0.5E3, 1E400, -0]}'),
        ('{"a": "\ud83d"}', '{"a": "\\ud83d"}'),
        (r'{"a": "C:\Users\name\table.txt"}', r'{"a": "C:\\Users\\name\\table.txt"}'),
        (
            r'{"a": "c:\users", "b": "\users\n", "c": "C:\\Users\n"}',
            r'{"a": "c:\\users", "b": "\\users\n", "c": "C:\\Users\n"}',
        ),
        (r'{"a": "D:\xampp\apps\1\u00e9"}', r'{"a": "D:\\xampp\\apps\\1\\u00e9"}'),
        (r'{"a": "C:\Program Files\bin \"x\" \\"}', r'{"a": "C:\\Program Files\\bin \"x\" \\"}'),
        (r'{"a": "\usr \Umlaut \xyz \u00e9"}', r'{"a": "\\usr \\Umlaut \\xyz \u00e9"}'),
    ],
)
def test_slips_are_read(text: str, meant: str) -> None:
    assert strict_object(text) == meant
    strictly(meant)
    assert "".join(read(text).pieces) == meant


@pytest.mark.parametrize(
    "text",
    [
        *("{a: 1}", "{1: 2}", '{"a"}', '{"a" 1}', '{"a": }', '{"a": 1 "b": 2}', "{,}", '{"a": 1,, "b": 2}', '{"a": 1]'),
        *('{"a": (1, 2)}', '{"a": {1}}', '{"a": f(1)}', '{"a": b"x"}', '{"a": "x" "y"}', '{"a": 1 /* one */}'),
        *(
            '{"a": NaN}',
            '{"a": -Infinity}',
            '{"a": 01}',
            '{"a": 1_0}',
            '{"a": 0x1}',
            '{"a": 1e}',
            '{"a": --1}',
            '{"a": .}',
        ),
        *(
            '{"a": "\\x41"}',
            '{"a": "\\1"}',
            '{"a": "\\a"}',
            '{"a": "\\u12g4"}',
            '{"a": "\\u+123"}',
            "{'a': '\\U00110000'}",
        ),
        *('{"a": "\\\n"}', '{"a": "x}', '{"a": 1', '{"a": 1} 2', '{"a": tru', "", "[1]", '"a"', "{\u00a0}"),
    ],
)
def test_what_is_in_doubt_is_not_read(text: str) -> None:
    assert strict_object(text) is None


@pytest.mark.parametrize(
    ("text", "closed"),
    [
        ('{"a": {"b": [1', '{"a": {"b": [1]}}'),
        ('{"a": {"b": "c"', '{"a": {"b": "c"}}'),
        ('{"a": {', '{"a": {}}'),
        ('{"a": "b', None),
        ('{"a": 1,', None),
        ('{"a":', None),
        ('{"a', None),
    ],
)
def test_missing_brackets_are_added_and_nothing_else(text: str, closed: str | None) -> None:
    reader = read([text, "<"])
    assert reader.stuck is (closed is not None or text[-1] in ",:")
    assert reader.close() is (closed is not None)
    if closed:
        assert "".join(reader.pieces) == closed


def test_depth_ends_somewhere() -> None:
    assert read('{"a":' * MAX_DEPTH).stuck is False
    assert read('{"a":' * (MAX_DEPTH + 1)).stuck
