import json
import re
import warnings

import pytest
from grammar_walk import accepts, grammar_of
from hypothesis import given
from hypothesis import strategies as st

from hermes_cli.prompting.pattern import PatternError, to_rust
from hermes_cli.prompting.structured_output import json_schema, regex


def matches(pattern: str, text: str) -> bool:
    grammar = grammar_of(json_schema({"type": "string", "pattern": pattern}))
    return accepts(grammar, json.dumps(text, ensure_ascii=False))


# Python reads these as ECMA-262 does, as long as the text is ASCII and has no line break.
COMMON = [
    "a.c", "^a|b$", "^(a|b)+$", "(^a|b$)", "[^ab]", "[a-c-]", r"[\w.-]+@\w+", r"^\d{2,3}$", r"\D", r"\W",
    r"\s", r"\S{2}", r"^a{2}b?$", r"a+?b", "^$", "", r"\.", r"\/", r"[\]\\]", r"\x41", r"[\x41-\x43]", r"^\t", "}",
    "a(?:b|c)*", r"(?P<name>a)b", "[a&&b]", "[a~~b]", "[[]", r"[+--]", "#", " ", r"\-", r"\u0041", "[$^.]",
]  # fmt: skip


@given(st.sampled_from(COMMON), st.text("abcxAB129 .-&~[]$^\\@/#{},\t", max_size=6))
def test_expressions_mean_what_they_mean(pattern: str, text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # Python may read `[[` and `&&` as Rust does one day
        expected = bool(re.search(pattern, text))
    assert matches(pattern, text) == expected


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [
        (r"^\d$", ["5"], ["\u0665"]),
        (r"^\w$", ["w"], ["é"]),
        (r"^\s$", ["\u00a0", "\ufeff", "\u2028"], ["\u0085", "x"]),
        ("^.$", ["é", "😀", "\t"], ["\n", "\r", "\u2028"]),
        ("^[^]$", ["\n", "x"], [""]),
        (r"^\u{1F600}$", ["😀"], ["x"]),
        (r"^\ud83d\ude00$", ["😀"], ["x"]),
        (r"^\p{Lu}\P{L}$", ["É1"], ["éé"]),
        (r"^\cJ$", ["\n"], ["J"]),
        (r"^[\b]$", ["\b"], ["b"]),
        ("^(?<year>[0-9]{4})$", ["2026"], ["26"]),
        ("^a{2,}?$", ["aaa"], ["a"]),
        ("x{a}", ["x{a}"], ["xa"]),
        (r"^[\d-x]$", ["5", "-", "x"], ["a"]),
        ("^é/漢$", ["é/漢"], ["e/漢"]),
    ],
)
def test_expressions_mean_what_ecmascript_says(pattern: str, good: list[str], bad: list[str]) -> None:
    assert all(matches(pattern, text) for text in good)
    assert not any(matches(pattern, text) for text in bad)


@pytest.mark.parametrize(
    "pattern",
    [
        "(?=a)", "(?!a)", "(?<=a)b", "(?<!a)b", "(?i)a", r"\bx", r"\B", r"(a)\1", r"\k<a>", r"\A", r"\Z", r"\z", r"\h",
        "a++", "*", "a|*", "(", ")", "a)(b", "[a", "\\", "[]", "a{,3}", r"\ud800", r"\ud83dx", r"\u{110000}", r"\01",
        "a{20000}", "x" * 5000,
    ],
)  # fmt: skip
def test_what_has_no_equivalent_is_refused(pattern: str) -> None:
    with pytest.raises(PatternError):
        to_rust(pattern)


@given(st.text(max_size=12) | st.text("(){}[]|*+?\\^$.-,abdwsDWS01xuPpk<>=!:&~/", max_size=12))
def test_no_expression_breaks_the_reader(pattern: str) -> None:
    try:
        rust = to_rust(pattern)
    except PatternError:
        return
    assert "/" not in rust
    assert "\n" not in rust


def test_an_answer_is_matched_as_a_whole() -> None:
    for pattern in ("[a-c]+-?", "^[a-c]+-?$"):
        assert accepts(grammar_of(regex(pattern)), "abc-")
        assert not accepts(grammar_of(regex(pattern)), "abc-x")
        assert not accepts(grammar_of(regex(pattern)), "xabc-")
    assert accepts(grammar_of(regex("")), "")
