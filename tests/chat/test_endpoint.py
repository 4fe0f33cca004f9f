"""Answers of a scripted server on loopback, in all the shapes that servers give them."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from conftest import HANG
from endpoint_rig import (
    DONE,
    STOP,
    TOOL,
    Endpoint,
    Reply,
    ask,
    delta,
    endpoint,
    event,
    of_json,
    stream,
)
from hypothesis import given
from hypothesis import strategies as st

from hermes_cli.chat.conversation import ChatOptions
from hermes_cli.chat.endpoint import http_client
from hermes_cli.chat.endpoint.chat_completions import CompletionReader
from hermes_cli.chat.endpoint.http_client import EndpointError
from hermes_cli.engine.protocol import Done
from hermes_cli.generation import Event, LogprobsEvent
from hermes_cli.prompting.messages import CallFinished, CallStarted


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    monkeypatch.setattr(http_client, "PAUSE", 0.01)
    with endpoint() as server:
        yield server


WHOLE = (
    b": comment\n\n" + delta(role="assistant", content="") + delta(content="Grüße, ") + b"event: message\nid: 7\n"
    + delta(content="東京 \u2028 🙂".encode().decode()) + delta("stop")
    + event({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12,
                                      "prompt_tokens_details": {"cached_tokens": 3},
                                      "completion_tokens_details": {"reasoning_tokens": 2}}})
    + DONE
)  # fmt: skip


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 10_000])
@pytest.mark.parametrize("line", [b"\n", b"\r\n", b"\r"])
def test_how_a_stream_is_cut_never_matters(server: Endpoint, size: int, line: bytes) -> None:
    whole = WHOLE.replace(b"\n", line)
    heard = ask(server.answers(stream(*(whole[at : at + size] for at in range(0, len(whole), size)))).url)
    assert heard.text == "Grüße, 東京 \u2028 🙂"
    done = heard.done
    assert (done.reason, done.prompt_tokens, done.cached_tokens, done.completion_tokens) == ("stop", 7, 3, 5)
    assert done.reasoning_tokens == 2


def test_a_compressed_stream_is_read(server: Endpoint) -> None:
    reply = Reply([gzip.compress(WHOLE)], headers={"Content-Encoding": "gzip"})
    assert ask(server.answers(reply).url).text.startswith("Grüße")


@pytest.mark.parametrize(
    "reply",
    [
        stream(delta(content="Hi"), delta("stop")),
        stream(delta(content="Hi"), DONE),
        stream(delta("stop", content="Hi"), event({"choices": []}), event({"choices": [], "usage": None})),
        stream(delta(content=[{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]), STOP),
        stream(delta(content=None, refusal="Hi"), STOP),
        stream(event([1, 2]), event({}), delta(content="Hi"), STOP),
        of_json({"choices": [{"message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}]}),
        stream(delta(content="Hi"), STOP, end="open"),
        stream(delta("stop", content="Hi"), end="open"),
        stream(delta("stop", content="Hi"), end="cut"),
    ],
)
def test_answers_in_odd_shapes_are_answers(server: Endpoint, reply: Reply, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "USAGE", 0.2)
    began = time.monotonic()
    heard = ask(server.answers(reply).url)
    assert (heard.text, heard.done.reason, heard.error) == ("Hi", "stop", None)
    assert time.monotonic() - began < HANG / 4


def test_times_are_the_servers_where_it_tells_them_and_else_measured(server: Endpoint) -> None:
    timings = {"cache_n": 4, "prompt_n": 6, "prompt_ms": 250.0, "predicted_n": 3, "predicted_ms": 1500.0}
    server.answers(stream(delta("stop", content="Hi"), event({"choices": [], "timings": timings}), DONE))
    done = ask(server.url).done
    assert (done.prompt_seconds, done.completion_seconds) == (0.25, 1.5)
    assert (done.prompt_tokens, done.cached_tokens, done.completion_tokens) == (10, 4, 3)
    began = time.monotonic()
    done = ask(server.answers(stream(delta(content="Hi"), STOP)).url).done
    assert 0 < done.prompt_seconds + done.completion_seconds < time.monotonic() - began


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking"])
def test_reasoning_is_found_under_all_its_names(server: Endpoint, name: str) -> None:
    server.answers(stream(delta(**{name: "h"}), delta(**{name: "m", "content": ""}), delta(content="<think> 4"), STOP))
    heard = ask(server.url)
    assert (heard.thought, heard.text) == ("hm", "<think> 4")


def test_reasoning_that_is_told_twice_is_heard_once(server: Endpoint) -> None:
    heard = ask(server.answers(stream(delta(reasoning="h", reasoning_content="h"), STOP)).url)
    assert heard.thought == "h"


@pytest.mark.parametrize("size", [1, 5, 100])
def test_reasoning_in_tags_is_told_from_the_answer(server: Endpoint, size: int) -> None:
    text = "\n<think>\nh < m\n</think>\n\n4 < 5, <b>"
    server.answers(stream(*(delta(content=text[at : at + size]) for at in range(0, len(text), size)), STOP))
    heard = ask(server.url)
    assert (heard.thought, heard.text) == ("h < m", "4 < 5, <b>")


@pytest.mark.parametrize("text", ["<thin", "< a", "a\n<think> b", "  x", "<"])
def test_what_is_no_thought_is_content_letter_for_letter(server: Endpoint, text: str) -> None:
    heard = ask(server.answers(stream(*(delta(content=letter) for letter in text), STOP)).url)
    assert (heard.thought, heard.text) == ("", text)


@pytest.mark.parametrize("size", [1, 4, 100])
@pytest.mark.parametrize(("text", "shown"), [("\n\n  a\n", "  a\n"), (" \n\r\nb", "b"), ("\n \n", "")])
def test_line_breaks_before_an_answer_are_dropped(server: Endpoint, text: str, shown: str, size: int) -> None:
    parts = [delta(content=text[at : at + size]) for at in range(0, len(text), size)]
    server.answers(stream(*parts, STOP), stream(delta(reasoning="hm"), *parts, STOP))
    assert (ask(server.url).text, ask(server.url).text) == (shown, shown)


@pytest.mark.parametrize("size", [1, 3, 100])
@pytest.mark.parametrize("separated", [True, False])
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\n</think>\n\n4", "4"),
        ("so 4.\n</think>\n\n4 < 5", "so 4.\n\n\n4 < 5"),
        ("4</think> </think>", "4 </think>"),
        ("4 </thin", "4 </thin"),
    ],
)
def test_a_thought_that_its_budget_ended_is_not_closed_once_more(
    server: Endpoint, text: str, shown: str, size: int, *, separated: bool
) -> None:
    pieces = [delta(content=text[at : at + size]) for at in range(0, len(text), size)]
    thought = delta(reasoning="hm") if separated else delta(content="<think>\nhm\n</think>")
    server.answers(stream(thought, *pieces, STOP))
    heard = ask(server.url, options=ChatOptions(think=True, think_budget=1))
    assert (heard.thought, heard.text) == ("hm", shown)


def test_without_a_budget_a_closing_tag_is_content(server: Endpoint) -> None:
    server.answers(stream(delta(reasoning="hm"), delta(content="it ends with </think>."), STOP))
    assert ask(server.url).text == "it ends with </think>."


def call(arguments: object = None, *, name: str | None = None, **more: object) -> bytes:
    function = {key: value for key, value in {"name": name, "arguments": arguments}.items() if value is not None}
    return delta(tool_calls=[{**more, "function": function}])


PARIS, ROME = ("get_weather", {"city": "Paris"}), ("get_weather", {"city": "Rome"})


@pytest.mark.parametrize(
    ("parts", "calls"),
    [
        ([call("", name="get_weather", index=0, id="a"), call('{"city"', index=0), call(': "Paris"}', index=0)], [PARIS]),
        ([call('{"city": "Paris"}', name="get_weather", index=0, id="a"),
          call('{"city": "Rome"}', name="get_weather", index=1, id="b")], [PARIS, ROME]),
        ([call('{"city": "Paris"}', name="get_weather", index=0, id="a"),  # Ollama: all have the same number
          call('{"city": "Rome"}', name="get_weather", index=0, id="b")], [PARIS, ROME]),
        ([call('{"city": "Paris"}', name="get_weather", id="a"), call('{"city": "Rome"}', name="get_weather", id="b")],
         [PARIS, ROME]),
        ([call('{"city": "Paris"}', name="get_weather"), call('{"city": "Rome"}', name="get_weather")], [PARIS, ROME]),
        ([call('{"city": ', name="get_weather"), call('"Paris"}')], [PARIS]),
        ([call({"city": "Paris"}, name="get_weather", index=0)], [PARIS]),
        ([delta(tool_calls=[{"function": {"name": "get_weather", "arguments": {"city": one}}} for one in ("Paris", "Rome")])],
         [PARIS, ROME]),
        ([call('{"ci', name="get_weather", index=0), call('{"city": ', name="get_weather", index=1),  # interleaved
          call('ty": "Paris"}', index=0), call('"Rome"}', index=1)], [PARIS, ROME]),
        ([call('{"city": ', name="get_weather", index=0, id="a"), call('"Paris"}', name="", index=0, id="a")], [PARIS]),
        ([call("", name="now", index=0)], [("now", {})]),
        ([call("null", name="now", index=0), call("{}", name="now", index=1)], [("now", {}), ("now", {})]),
    ],
)  # fmt: skip
def test_calls_in_all_their_shapes(
    server: Endpoint, parts: list[bytes], calls: list[tuple[str, dict[str, Any]]]
) -> None:
    heard = ask(server.answers(stream(*parts, delta("tool_calls"), DONE)).url, tools=[TOOL])
    assert heard.calls == calls
    assert heard.done.reason == "tool_calls"
    assert len({one.call.id for one in heard.finished}) == len(calls)
    assert not heard.says
    started = [event for event in heard.events if isinstance(event, CallStarted)]
    assert [(event.index, event.id) for event in started] == [(event.index, event.call.id) for event in heard.finished]


def test_a_call_is_announced_before_its_arguments_are_written() -> None:
    reader = CompletionReader(reasoning_separated=False, warn=pytest.fail)
    function = {"name": "f", "arguments": '{"a":'}
    (started,) = reader.feed({"choices": [{"delta": {"tool_calls": [{"index": 0, "function": function}]}}]})
    assert isinstance(started, CallStarted)
    assert started.name == "f"


@pytest.mark.parametrize("written", ['{"rm": "-rf /', "", "nu"])
def test_a_call_that_is_cut_off_is_not_complete(server: Endpoint, written: str) -> None:
    heard = ask(server.answers(stream(call(written, name="f", index=0), delta("length"), DONE)).url)
    assert [one.complete for one in heard.finished] == [False]
    assert (heard.calls, heard.done.reason, heard.says) == ([], "length", [])


def test_a_call_that_is_no_json_is_not_run_and_said(server: Endpoint) -> None:
    heard = ask(server.answers(stream(call("rm -rf /", name="f", index=0), delta("tool_calls"), DONE)).url)
    assert (heard.calls, heard.done.reason) == ([], "stop")
    assert heard.says == ["the model's call of f cannot be read; it is not run."]


@pytest.mark.parametrize(
    ("usage", "asked", "full"),
    [((10, 5), 5, False), ((10, 6), 50, True), ((10, 5), None, True), ((0, 0), 5, False)],
)
def test_why_an_answer_is_too_short_is_known(
    server: Endpoint, usage: tuple[int, int], asked: int | None, *, full: bool
) -> None:
    server.lists({"id": "m", "context_length": 16})
    told = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
    server.answers(stream(delta("length", content="a"), event({"choices": [], "usage": told}), DONE))
    done = ask(server.url, options=ChatOptions(max_tokens=asked)).done
    assert (done.reason, done.context_full) == ("length", full)


NAMES = ("choices", "delta", "message", "content", "reasoning", "tool_calls", "function", "name", "arguments", "index",
         "id", "finish_reason", "usage", "timings", "prompt_tokens", "prompt_tokens_details", "cached_tokens",
         "predicted_ms", "text", "error")  # fmt: skip
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.sampled_from(["<think>", "stop", "\ud83d", "{}"])
)
ANY = st.recursive(VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner))
CHUNK = st.fixed_dictionaries(
    {}, optional={"choices": st.lists(st.dictionaries(st.sampled_from(["delta", "finish_reason"]), ANY), max_size=2) | ANY,
                  "usage": ANY, "timings": ANY}
)  # fmt: skip


@given(st.lists(CHUNK, max_size=5))
def test_whatever_chunks_hold_it_is_read_or_refused(chunks: list[dict[str, Any]]) -> None:
    says: list[str] = []
    reply = CompletionReader(reasoning_separated=False, warn=says.append)
    events: list[Event] = []
    with suppress(EndpointError):
        for chunk in chunks:
            events += reply.feed(chunk)
    events += reply.finish(16, None)
    for one in events:
        if isinstance(one, CallFinished):
            json.dumps(one.call.arguments, ensure_ascii=False).encode()
        elif not isinstance(one, Done | LogprobsEvent):
            (one.name if isinstance(one, CallStarted) else one.text).encode()
    assert isinstance(events[-1], Done)
