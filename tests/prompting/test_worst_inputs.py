"""Work per byte: what a request can make the server read takes time in proportion to its size, whatever it is.

Named after what took seconds for kilobytes: quotes without an end, references to anchors that are nowhere, results of
tools without ids, long lists of numbers.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from hermes_cli.errors import UsageError
from hermes_cli.prompting import grammar_check, normalize, pattern, structured_output
from hermes_cli.prompting.json_reader import strict_object
from hermes_cli.prompting.normalize import MOST_VALUES
from hermes_cli.prompting.schema import Checker

Json = Any


def calls_and_results(count: int) -> Json:
    calls = [{"id": f"c{at}", "function": {"name": f"f{at}", "arguments": "{}"}} for at in range(count)]
    results = [{"role": "tool", "content": "x", "name": "unknown"}] * count
    return [{"role": "user", "content": "Hi"}, {"role": "assistant", "tool_calls": calls}, *results]


def lost_anchors(count: int) -> Json:
    properties = {f"p{at}": {"$ref": f"#lost{at}"} for at in range(min(count // 100, 900))}
    return {"properties": properties, "examples": [0] * count}


def chained(count: int) -> Json:
    chain = {f"d{at}": {"allOf": [{"$ref": f"#/$defs/d{at + 1}"}]} for at in range(count)}
    return {"$defs": {**chain, f"d{count}": {"type": "null"}}, "$ref": "#/$defs/d0"}


def alike(count: int) -> Json:
    either = {"anyOf": [{"anyOf": [{"type": "object"}] * 10}] * 10}
    return {"oneOf": [either] * min(count, 100)}


CASES: dict[str, tuple[int, Callable[[int], object]]] = {  # a size that takes some milliseconds, and what is done
    "quotes without an end in Lark": (100_000, lambda n: grammar_check._QUOTED.sub("", 'start: "' + '\\"' * n)),  # noqa: SLF001 - what sees it
    "slashes without an end in Lark": (100_000, lambda n: grammar_check._QUOTED.sub("", "start: /" + "\\/" * n)),  # noqa: SLF001
    "quotes without an end in GBNF": (100_000, lambda n: grammar_check._START.sub("", 'root ::= "' + '\\"' * n)),  # noqa: SLF001
    "brackets without an end in GBNF": (100_000, lambda n: grammar_check._START.sub("", "[\\" * n)),  # noqa: SLF001
    "numbers in GBNF": (100_000, lambda n: grammar_check._NUMBER.sub("", "\\U0" * n)),  # noqa: SLF001
    "a pattern": (1_000, lambda n: pattern.to_rust("[a-" * n)),
    "backslashes in a call": (5_000, lambda n: strict_object('{"a": "C:' + "\\U" * n)),
    "a list of numbers": (50_000, lambda n: normalize.check([0] * n, "x")),
    "objects": (10_000, lambda n: normalize.check([{"a": 1}] * n, "x")),
    "results without ids": (500, lambda n: normalize.messages(calls_and_results(n))),
    "tools": (1_000, lambda n: normalize.tools([{"function": {"name": f"f{at}"}} for at in range(n)], [])),
    "anchors that are nowhere": (10_000, lambda n: Checker(lost_anchors(n), notes=[]).result()),
    "references through others": (50, lambda n: Checker(chained(n), notes=[]).result()),
    "schemas that are compared": (10, lambda n: Checker(alike(n), notes=[]).result()),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_four_times_the_input_takes_no_more_than_about_four_times_as_long(name: str) -> None:
    size, work = CASES[name]

    def seconds(count: int) -> float:
        taken = []
        for _ in range(3):
            began = time.thread_time()
            with suppress(UsageError, pattern.PatternError):
                work(count)
            taken.append(time.thread_time() - began)
        return min(taken)

    assert seconds(4 * size) < 10 * seconds(size) + 0.02  # a square would take 16 times as long


def test_a_request_has_a_limit_of_values() -> None:
    with pytest.raises(UsageError, match=f"messages hold more than {MOST_VALUES:,} values"):
        normalize.messages([{"role": "user", "content": [0] * MOST_VALUES}])


def test_a_schema_has_a_limit_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10_000))
    monkeypatch.setattr(time, "thread_time", lambda: float(next(clock)))
    with pytest.raises(UsageError, match="it takes too much time to read"):
        Checker({"properties": {"a": {}, "b": {}}}).result()


def test_many_words_that_nobody_knows_are_read_in_time() -> None:
    """Each is compared with all words that it may misspell."""
    clock = time.thread_time()
    with pytest.raises(UsageError, match="it takes too much time to read"):
        structured_output.json_schema({f"propertys{number}": 1 for number in range(100_000)})
    assert time.thread_time() - clock < 10


@pytest.mark.parametrize(
    "constrain",
    [
        lambda: structured_output.json_schema({"patternProperties": {"a|" * 5000: {}}}),
        lambda: structured_output.json_schema({"properties": {"a" * 5000: {"type": 5}}}),
        lambda: structured_output.gbnf("root ::= " + "x" * 9000),
        lambda: structured_output.lark("start: " + "(" * 1000 + '"a"' + ")" * 1000),
    ],
)
def test_an_error_repeats_little_of_what_is_wrong(constrain: Callable[[], object]) -> None:
    with pytest.raises(UsageError) as caught:
        constrain()
    assert len(caught.value.message) < 1000
