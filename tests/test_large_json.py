"""Large bodies, which are read in parts: the same values as Python's own reader, and no part holds the interpreter."""

from __future__ import annotations

import json
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes_cli import large_json

TEXTS = st.text(st.characters() | st.sampled_from('"\\\n\ud83d\ude00'), max_size=30)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=30,
)
JSON = st.builds(
    lambda value, ascii_only, indent: json.dumps(value, ensure_ascii=ascii_only, indent=indent),
    VALUES,
    st.booleans(),
    st.sampled_from([None, 1]),
)


def outcome(read: Any, *parts: bytes) -> str:  # noqa: ANN401 - a function
    try:
        return repr(read(*parts))
    except (ValueError, RecursionError) as error:
        return "no text" if isinstance(error, UnicodeDecodeError) else "no JSON"


def in_parts(*parts: bytes) -> Any:  # noqa: ANN401 - as JSON has it
    """Read a short body as if it were a long one."""
    with mock.patch.multiple(large_json, LARGE=0, PIECE=16, BATCH=20):
        return large_json.read(*parts)


@given(JSON, st.integers(0, 40))
def test_the_same_values_as_from_python_s_reader(text: str, cut: int) -> None:
    raw = text.encode("utf-8", "surrogatepass")
    assert outcome(in_parts, raw[:cut], raw[cut:]) == outcome(json.loads, raw)


@given(
    JSON,
    st.integers(0, 200),
    st.integers(0, 2),
    st.sampled_from(['"', "\\", "\\u", "{", "]", ",", ":", "-", "x", "\0"]),
)
def test_the_same_is_refused(text: str, at: int, removed: int, put: str) -> None:
    raw = (text[:at] + put + text[at + removed :]).encode("utf-8", "surrogatepass")
    assert outcome(in_parts, raw) == outcome(json.loads, raw)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32-le"])
def test_other_encodings(encoding: str) -> None:
    raw = '{"a": "\u6f22\U0001f600"}'.encode(encoding)
    assert in_parts(*(raw[at : at + 1] for at in range(len(raw)))) == {"a": "\u6f22\U0001f600"}


LONG = [
    {"text": "word " * 100_000},
    {"lines": 'a "quoted" line\\ \n' * 20_000},
    {"\u00e9\U0001f600" * 50_000: "\u6f22\U0001f600" * 50_000},
    {"tokens": list(range(200_000))},
    {"messages": [{"role": "user", "content": "Hello, you."} for _ in range(9000)]},
    {"numbers": {str(number): [[number], {}] for number in range(20_000)}},
    {"space": " " * 400_000, "text": ["x" * 70_000, 1, "y" * 70_000]},
]


@pytest.mark.parametrize("value", LONG)
@pytest.mark.parametrize("ascii_only", [True, False])
def test_no_call_takes_long(value: Any, *, ascii_only: bool, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ANN401
    """What keeps the interpreter to itself is Python's reader: it is only given some kilobytes at a time."""
    given_to_it: list[int] = []

    def loads(part: str, *, strict: bool) -> Any:  # noqa: ANN401 - as JSON has it
        given_to_it.append(len(part))
        return json.loads(part, strict=strict)

    def scanstring(text: str, start: int, strict: bool) -> tuple[str, int]:  # noqa: FBT001 - as Python has it
        read, end = json.decoder.scanstring(text, start, strict)  # type: ignore[attr-defined]  # as in large_json
        given_to_it.append(end - start)
        return read, end

    raw = json.dumps(value, ensure_ascii=ascii_only).encode()
    monkeypatch.setattr(large_json, "json", mock.Mock(wraps=json, loads=loads, JSONDecodeError=json.JSONDecodeError))
    monkeypatch.setattr(large_json, "scanstring", scanstring)
    assert large_json.read(raw) == value
    assert max(given_to_it) <= large_json.PIECE + 2


@given(JSON, st.integers(0, 200), st.sampled_from(["\0", "\n", "x", '"']))
def test_control_characters_are_read_if_they_may_be(text: str, at: int, put: str) -> None:
    text = text[:at] + put + text[at:]
    with mock.patch.multiple(large_json, LARGE=0, PIECE=16, BATCH=20):
        found = outcome(lambda: large_json.read_text(text, strict=False))
    assert found == outcome(lambda: json.loads(text, strict=False))


@pytest.mark.parametrize(
    "raw",
    [
        b"[" + b"0," * large_json.MOST_VALUES + b"0]",
        b"[" + b"[]," * large_json.MOST_CONTAINERS + b"0]",
        b"[" + b"{}\n ,\n" * large_json.MOST_CONTAINERS + b"0]",
        json.dumps(dict.fromkeys(map(str, range(large_json.MOST_KEYS + 5000)))).encode(),
    ],
)
def test_value_floods(raw: bytes) -> None:
    with pytest.raises(large_json.TooManyValuesError):
        large_json.read(raw)


@pytest.mark.parametrize("raw", [b"[" * 100_000, b'{"a":' * 100_000, b"[" * 600 + b" " * 100_000 + b"]" * 600])
def test_depth(raw: bytes) -> None:
    with pytest.raises(RecursionError):
        large_json.read(raw)


@pytest.mark.parametrize("raw", [b'{"a":' + b" " * 100_000 + b"1}", b'[1,"' + b'\\"' * 100_000 + b'"]'])
def test_what_is_only_long_is_read(raw: bytes) -> None:
    assert large_json.read(raw) == json.loads(raw)


def test_endless_digits() -> None:
    with pytest.raises(ValueError, match=r"Expecting|digits"):
        large_json.read(b"[" + b"1" * 100_000 + b"]")


def test_what_stands_in_texts_is_not_counted() -> None:
    """Nor is anything counted twice: long conversations about code are honest."""
    call = {"id": "c", "function": {"name": "f", "arguments": json.dumps({"a": [1, {}]})}}
    message = {"role": "assistant", "content": "if (a) { b[0] = {}, c[1] = {}; } " * 30, "tool_calls": [call]}
    value = {"messages": [message] * 10_000}
    assert large_json.read(json.dumps(value).encode()) == value
