"""One question on a console, with an engine that is a fake: tools, Ctrl-C, and what is said."""

from __future__ import annotations

import asyncio
import io
import signal
from collections.abc import Callable, Iterable, Iterator
from types import FrameType

import pytest
from fake_engine import LOADED, FakeEngine, Script, Step

from hermes_cli.chat.loop import Loop
from hermes_cli.chat.oneshot import MAX_ROUNDS, Question, ask
from hermes_cli.chat.tools import Tool
from hermes_cli.console import Console
from hermes_cli.engine.protocol import Done
from hermes_cli.engine.request import Request
from hermes_cli.errors import EngineDiedError, HermesError
from hermes_cli.generation import Chatter, Message, Turn
from hermes_cli.prompting.families import HERMES_3
from hermes_cli.prompting.render import OurFormat

CALL = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'


class Interrupted(BaseException):
    """What the program's own handler of SIGINT raises."""


@pytest.fixture(autouse=True)
def raising() -> Iterator[None]:
    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGINT, interrupt)
    yield
    signal.signal(signal.SIGINT, before)


def offered(function: Callable[[], object]) -> dict[str, Tool]:
    schema = {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}}
    return {"now": Tool("now", schema, function)}


def asked(
    *scripts: Script, tool: Callable[[], object] | None = None, engine: FakeEngine | None = None
) -> tuple[dict[str, object], str]:
    engine = engine or FakeEngine(scripts)
    chatter = Chatter(engine, LOADED)
    chatter.choice = type(chatter.choice)(OurFormat(HERMES_3), "for its tools")
    tools = offered(tool) if tool else {}
    turn = Turn([Message("user", "Hi")], [one.schema for one in tools.values()])
    out = io.StringIO()
    with Loop() as loop:
        document = ask(chatter, Question(turn, tools, yes=True), Console(out=out), loop)
    return document, out.getvalue()


def test_the_answer_is_shown_and_counted() -> None:
    document, shown = asked(["Hel", "lo"])
    assert shown == "Hello\n"
    assert document["text"] == "Hello"
    assert document["usage"]["completion_tokens"] == 2  # type: ignore[index]  # JSON


def test_a_tool_may_run_an_event_loop_of_its_own() -> None:
    async def now() -> str:
        await asyncio.sleep(0)
        return "noon"

    document, shown = asked([CALL], ["It is noon."], tool=lambda: asyncio.run(now()))
    assert document["tool_calls"] == [{"name": "now", "arguments": {}, "result": "noon"}]
    assert shown == "It is noon.\n"


def test_the_result_of_a_tool_is_read_behind_the_call() -> None:
    engine = FakeEngine([[CALL], ["Noon."]])
    asked(tool=lambda: "12:00", engine=engine)
    second = "".join(map(str, engine.requests[1].prompt))
    assert second.index(CALL) < second.index("<tool_response>\n12:00\n</tool_response>")


def test_calls_that_never_end_are_an_error() -> None:
    engine = FakeEngine([[CALL]])
    with pytest.raises(HermesError, match=f"called tools {MAX_ROUNDS} times"):
        asked(tool=lambda: "", engine=engine)
    assert len(engine.requests) == MAX_ROUNDS


def test_ctrl_c_cancels_the_request() -> None:
    def script(_: Request) -> Iterable[Step]:
        yield "Hello"
        signal.raise_signal(signal.SIGINT)
        yield asyncio.Event()

    engine = FakeEngine([script])
    with pytest.raises(Interrupted):
        asked(engine=engine)
    assert engine.cancelled == [0]


def test_ctrl_c_ends_a_tool_where_it_is() -> None:
    cleaned = []

    def now() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            cleaned.append(True)

    with pytest.raises(Interrupted):
        asked([CALL], tool=now)
    assert cleaned


def test_ctrl_c_at_the_very_end_is_not_lost() -> None:
    def script(_: Request) -> Iterable[Step]:
        yield "Hello"
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted):
        asked(script)


def test_the_death_of_the_engine_is_told_after_what_it_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(EngineDiedError):
        asked(["Hello", EngineDiedError("the engine was ended (Killed).", hint="ask again.")])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("done", "says"),
    [
        (Done("length", 5, 0, 9, 0.1, 0.1), "--max-tokens 9 is used up"),
        (Done("length", 5, 0, 9, 0.1, 0.1, context_full=True), "the context of 4,096 tokens is used up"),
    ],
)
def test_what_cut_an_answer_off_is_named(capsys: pytest.CaptureFixture[str], done: Done, says: str) -> None:
    chatter = Chatter(FakeEngine([["Hello", done]]), LOADED)
    with Loop() as loop:
        ask(chatter, Question(Turn([Message("user", "Hi")], max_tokens=9)), Console(out=io.StringIO()), loop)
    assert says in capsys.readouterr().err
