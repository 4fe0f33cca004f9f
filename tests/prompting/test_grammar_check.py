"""Grammars that would take gigabytes, minutes or the process, and what may look like them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hermes_cli.errors import UsageError
from hermes_cli.prompting import grammar_check, sandbox
from hermes_cli.prompting.grammar_check import LIMITS, TOO_MUCH, grammar_fault
from hermes_cli.prompting.sandbox import Sandbox
from hermes_cli.prompting.structured_output import gbnf, json_schema, lark, regex, tool_calls

Json = Any


def rules(text: str) -> Json:
    return {"grammars": [{"lark_grammar": text}]}


def chain(count: int, rule: str) -> str:
    return "\n".join(["start: r0", *(f"r{i}: {rule.format(i + 1)}" for i in range(count)), f'r{count}: "e"'])


def all_of(count: int, pattern: str = "x{}.*y") -> Json:
    return {"type": "string", "allOf": [{"pattern": pattern.format(i)} for i in range(count)]}


def parts(count: int, text: str, between: str) -> str:
    return between.join(text.format(i) for i in range(count))


GOOD = rules('start: "a"')
PRIMES = (89, 97, 83, 79)
BOMBS: dict[str, Callable[[], object]] = {  # what each did to the process that compiled it
    "stack of rules": lambda: lark(chain(3000, '(r{} "y")*')),  # segmentation fault
    "stack of terminals": lambda: lark(chain(9000, '"x" | r{}')),  # segmentation fault
    "stack in GBNF": lambda: gbnf(chain(5000, '(r{} "y")*').replace(":", " ::=").replace("start", "root")),
    "stack of references": lambda: lark(  # segmentation fault
        "start: %json "
        + json.dumps(
            {
                "$defs": {f"d{i}": {"type": "array", "items": {"$ref": f"#/$defs/d{i + 1}"}} for i in range(5000)}
                | {"d5000": {"type": "null"}},
                "$ref": "#/$defs/d0",
            }
        )
    ),
    "expressions in allOf": lambda: json_schema(all_of(50)),  # no end; 1.8 GB in 25 s
    "expressions that come late": lambda: json_schema(all_of(50, "^(z|a.*x{}.*y)$")),  # no end; 1.1 GB in 12 s
    "& of expressions": lambda: lark(f"start: A\nA: {parts(50, '/(?s:.*)x{}(?s:.*)y/', ' & ')}"),  # 1.3 GB in 25 s
    "& of counts": lambda: lark(f"start: A\nA: {' & '.join(f'/(a{{{p}}})*b|c/' for p in PRIMES)}"),  # 1.1 GB in 12 s
    "remainders": lambda: json_schema({"type": "integer", "multipleOf": 999_983}),
    "remainders in Lark": lambda: lark(  # 0.6 GB in 25 s
        "start: %json "
        + json.dumps(
            {"type": "array", "prefixItems": [{"type": "integer", "multipleOf": 65521 - 2 * i} for i in range(200)]}
        )
    ),
    "names that may be one": lambda: json_schema(  # 25 s
        {"type": "object", "patternProperties": {f"^{i}z.*[aeiou ].{{14}}$": {"type": "string"} for i in range(300)}}
    ),
    "merged objects": lambda: json_schema(
        {
            "allOf": [
                {"anyOf": [{"properties": {f"p{i}{j}": {}}, "required": [f"p{i}{j}"]} for j in range(8)]}
                for i in range(4)
            ]
        }
    ),
    "doubled references": lambda: json_schema(
        {
            "$defs": {
                f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}, {"anyOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2}]}
                for i in range(25)
            }
            | {"d25": {"type": "object", "properties": {"a": {"type": "string"}}}},
            "$ref": "#/$defs/d0",
        }
    ),
}


MOST_SECONDS = 20.0
"""Of processor time, where one second is usual: what is not limited takes hours."""


def resident(pid: int) -> int:
    with open(f"/proc/{pid}/status", encoding="ascii") as status:  # noqa: PTH123 - it is not a path to anything
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM:"))


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LIMITS, "seconds", 0.3)  # of processor time: so that the tests take less
    before = resident(os.getpid()) if sys.platform == "linux" else 0
    started = time.process_time()
    with pytest.raises(UsageError):
        BOMBS[name]()
    assert time.process_time() - started < MOST_SECONDS
    if sys.platform == "linux":
        assert resident(os.getpid()) - before < 100 << 20
    assert grammar_fault(GOOD) is None


MEASURED = """
import json, resource, sys
from hermes_cli.prompting import grammar_check
said = [grammar_check.grammar_fault({"grammars": [{"lark_grammar": text}]}) for text in json.loads(sys.argv[1])]
grammar_check._sandbox.close()
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([said, used.ru_maxrss << 10, used.ru_utime + used.ru_stime]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only there can memory be limited")
def test_a_trial_takes_little_memory_and_time() -> None:
    bombs = [chain(3000, '(r{} "y")*'), f"start: A\nA: {' & '.join(f'/(a{{{p}}})*b|c/' for p in PRIMES)}"]
    done = subprocess.run([sys.executable, "-c", MEASURED, json.dumps(bombs)], capture_output=True, check=True)
    said, peak, seconds = json.loads(done.stdout)
    assert said == [TOO_MUCH, TOO_MUCH]
    assert peak < 200 << 20
    assert seconds < MOST_SECONDS


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_where_a_process_cannot_limit_itself_its_parent_looks(platform: str) -> None:
    sandbox = Sandbox("hermes_cli.prompting.grammar_check", platform)
    bomb = f"start: A\nA: {' & '.join(f'/(a{{{p}}})*b|c/' for p in PRIMES)}"
    try:
        assert sandbox.call("compile_fault", json.dumps(rules(bomb)), **{**LIMITS, "seconds": 0.3}) is None
        assert sandbox.call("compile_fault", json.dumps(GOOD), **LIMITS) == ""
    finally:
        sandbox.close()


def test_without_proc_memory_is_limited_by_an_estimate() -> None:
    assert sandbox.data_bytes("/nowhere/status") == sandbox.USUAL_BYTES
    if sys.platform == "linux":
        assert 1 << 20 < sandbox.data_bytes() != sandbox.USUAL_BYTES


def test_tools_that_are_too_much_take_any_arguments_and_after_three_no_more_are_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(LIMITS, "seconds", 0.3)
    tools = [
        {
            "type": "function",
            "function": {
                "name": f"f{i}",
                "parameters": {"properties": {"a": all_of(8, f"^(a{{{{{90 + i},}}}}{i}.*{{}}.*)*$")}},
            },
        }
        for i in range(30)
    ]
    tool_calls(tools, notes=[])
    notes: list[str] = []
    crowd = {"type": "function", "function": {"name": "g", "parameters": {"properties": {"a": all_of(50)}}}}
    tool_calls([*tools, crowd], notes=notes)
    assert [note[:40] for note in notes] == ["the parameters of tool g: 50 patterns, fo"[:40]]
    bombs = [
        {"type": "function", "function": {"name": f"h{i}", "parameters": {"properties": {
            "a": {"type": "integer", "multipleOf": 999_983 - 2 * i}}}}}
        for i in range(9)
    ]  # fmt: skip
    notes.clear()
    began = time.process_time()
    tool_calls([*bombs, crowd], notes=notes)
    assert time.process_time() - began < MOST_SECONDS
    assert [TOO_MUCH in note for note in notes] == [True] * 3 + [False] * 7
    assert "several others are too complex; any arguments are taken." in notes[-1]


def test_a_process_that_died_is_started_again() -> None:
    for number in (signal.SIGKILL, signal.SIGTERM):
        assert grammar_fault(GOOD) is None
        process = grammar_check._sandbox._process  # noqa: SLF001 - to kill it
        assert process
        process.send_signal(number)  # the second is for its parent to mind
        if number == signal.SIGKILL:
            process.wait()
        assert grammar_fault(GOOD) is None
        still = grammar_check._sandbox._process  # noqa: SLF001 - as above
        assert (still is process) == (number == signal.SIGTERM)


def test_threads_take_turns() -> None:
    said = {rules("start: b")["grammars"][0]["lark_grammar"]: "unknown name", 'start: "a"': None}

    def ask(number: int) -> bool:
        text, wanted = list(said.items())[number % 2]
        answer = grammar_fault(rules(text))
        return answer is None if wanted is None else wanted in (answer or "")

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(64)))


def test_what_is_large_and_honest_passes() -> None:
    columns = {f"column_{i}": {"type": ["string", "null"], "maxLength": 100 + i} for i in range(300)}
    json_schema({"type": "object", "properties": columns, "additionalProperties": False})
    json_schema({"enum": [f"value {i} of many" for i in range(5000)]})
    json_schema({"$defs": {f"d{i}": {"type": "array", "items": {"$ref": f"#/$defs/d{i + 1}"}} for i in range(900)}
                 | {"d900": {"type": "null"}}, "$ref": "#/$defs/d0"})  # fmt: skip
    json_schema(all_of(5, "^.*x{}.*$"))
    regex(r"(.|\n){0,4000}")
    lark("start: A\nA: /[a-z]+/ & ~/foo|bar/ & /.{2,9}/ // & & & & & & & & & &\n")
    lark('start: "' + "&~" * 50 + '" /[&~]{9}' + "&" * 50 + "/")


def test_properties_may_have_the_names_of_words() -> None:
    text = {"type": "string", "pattern": "^a+$", "maxLength": 5}
    for name in ("$ref", "allOf", "anyOf", "oneOf", "pattern", "format", "$defs"):
        json_schema({"type": "object", "properties": {name: text, "b": {"allOf": [text]}}})
        json_schema({"type": "object", "properties": {name: True, "b": {"allOf": [text]}}})
        json_schema({"const": {name: ["x"], "allOf": True, "$ref": 1}})


def test_all_of_is_counted_through_references() -> None:
    definitions = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}, {"pattern": f"a{i}"}]} for i in range(9)}
    schema = {"$defs": {**definitions, "d9": {"type": "string"}}, "type": "object", "properties": {}}
    with pytest.raises(UsageError, match="9 patterns, formats or lengths apply to one text; at most 8"):
        json_schema({**schema, "properties": {"a": {"$ref": "#/$defs/d0"}}})
    branches = [{"type": "string", "pattern": f"^a{i}$"} for i in range(50)]  # only one of them applies
    json_schema({"anyOf": branches})
    deep = {f"d{i}": {"$ref": f"#/$defs/d{i + 1}"} for i in range(990)} | {"d990": {"type": "null"}}
    with pytest.raises(UsageError, match="lead through too many"):
        json_schema({"$defs": deep, "$ref": "#/$defs/d0"})


PIECES = st.sampled_from(["a", ".", "[a-z]", "(a|b)", r"\p{L}", "x+", "(?:y*z)"])
COUNTS = st.sampled_from(["", "*", "+", "?", "{0,500}", "{1000}", "{3,10000}"])
PATTERNS = st.recursive(
    st.builds("{}{}".format, PIECES, COUNTS),
    lambda inner: st.builds("(?:{}{}|{}){}".format, inner, inner, inner, COUNTS),
    max_leaves=8,
)


@settings(max_examples=settings().max_examples // 4)
@given(PATTERNS, st.lists(PATTERNS, max_size=3))
def test_any_expression_is_taken_or_refused_soon(pattern: str, more: list[str]) -> None:
    started = time.process_time()
    makers: list[Callable[[], object]] = [
        lambda: regex(pattern),
        lambda: json_schema(
            {"type": "string", "maxLength": 9999, "allOf": [{"pattern": one} for one in [pattern, *more]]}
        ),
        lambda: lark(f"start: A\nA: {' & '.join(f'/{one}/' for one in [pattern, *more])}"),
    ]
    for make in makers:
        with suppress(UsageError):
            make()
    assert time.process_time() - started < MOST_SECONDS
