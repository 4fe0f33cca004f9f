"""Servers that refuse, break off, fall silent, or are none; and users who have heard enough."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import aclosing

import pytest
from conftest import HANG
from endpoint_rig import (
    DONE,
    HI,
    STOP,
    Endpoint,
    Reply,
    ask,
    delta,
    endpoint,
    event,
    refusal,
    stream,
)

from hermes_cli.chat.agent_loop import AgentLoop
from hermes_cli.chat.backend import ChatBackend
from hermes_cli.chat.conversation import ChatOptions, Conversation
from hermes_cli.chat.endpoint import http_client
from hermes_cli.chat.endpoint.address import read_address
from hermes_cli.chat.endpoint.endpoint_backend import EndpointBackend, connect
from hermes_cli.chat.view import PlainView
from hermes_cli.console import Console
from hermes_cli.errors import ContextFullError, HermesError, NetworkError
from hermes_cli.event_loop import EventLoop
from hermes_cli.prompting.messages import Content


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    monkeypatch.setattr(http_client, "PAUSE", 0.01)
    with endpoint() as server:
        yield server


LONG = "This model's maximum context length is 16 tokens and your request has 99 input tokens"


@pytest.mark.parametrize("reply", [refusal(400, LONG), stream(event({"error": {"message": LONG, "code": 400}}))])
def test_a_conversation_that_is_too_long_is_told_at_once(server: Endpoint, reply: Reply) -> None:
    heard = ask(server.answers(reply).url)
    assert isinstance(heard.error, ContextFullError)
    assert "99 tokens, the context length is 16 tokens" in heard.error.message


@pytest.mark.parametrize(
    "fault",
    [
        stream(end="cut"),
        stream(),
        refusal(500, "oh"),
        refusal(502, "oh", Retry_After="0"),
        refusal(429, "slow down", Retry_After="0"),
        stream(event({"error": {"message": "overloaded", "code": 502}})),
        stream(event({"error": "overloaded"})),
        Reply([b"<html>Bad Gateway</html>"], 502, "text/html"),
    ],
)
def test_what_may_go_well_the_next_time_is_tried_again(server: Endpoint, fault: Reply) -> None:
    heard = ask(server.answers(fault, fault, stream(delta(content="Hi"), STOP)).url)
    assert heard.text == "Hi"
    assert len(heard.says) == 2
    assert all(re.fullmatch(r"127\.0\.0\.1: .*; asking again in 0 s\.", note) for note in heard.says)
    assert len({json.dumps(one.body) for one in server.asked if one.method == "POST"}) == 1


def test_numbers_that_no_server_means_end_nothing(server: Endpoint) -> None:
    huge = {"prompt_n": 10**400, "prompt_ms": 10**400, "predicted_ms": -1}
    end = event({"choices": [], "usage": {"prompt_tokens": 10**400, "completion_tokens": 7}, "timings": huge})
    heard = ask(server.answers(stream(delta(content="Hi"), STOP, end, DONE)).url)
    assert (heard.text, heard.error) == ("Hi", None)
    odd = ask(server.answers(refusal(400, "maximum context length is , and more")).url)
    assert isinstance(odd.error, HermesError)


def test_it_is_not_tried_for_ever(server: Endpoint) -> None:
    heard = ask(server.answers(*[refusal(500, "oh no")] * 9).url)
    assert isinstance(heard.error, NetworkError)
    assert "status 500: oh no" in heard.error.message
    assert len(server.replies) == 6


def test_a_wait_that_is_too_long_is_not_waited(server: Endpoint) -> None:
    heard = ask(server.answers(refusal(429, "come back tomorrow", Retry_After="86400")).url)
    assert isinstance(heard.error, NetworkError)
    assert "come back tomorrow" in heard.error.message
    assert not heard.says


@pytest.mark.parametrize(
    "fault",
    [
        stream(delta(content="Hi"), end="cut"),
        stream(delta(content="Hi")),
        stream(delta(content="Hi"), event({"error": {"message": "CUDA error", "code": 500}})),
        stream(delta(content="Hi"), event({"error": {"message": "x"}, "choices": [{"delta": {}, "finish_reason": "error"}]})),
        stream(delta(content="Hi"), delta("content_filter"), DONE),
    ],
)  # fmt: skip
def test_what_breaks_off_keeps_what_came_and_says_so(server: Endpoint, fault: Reply) -> None:
    heard = ask(server.answers(fault, stream(delta(content="again"), STOP)).url)
    assert heard.text == "Hi"
    assert isinstance(heard.error, NetworkError)
    assert "127.0.0.1 broke the connection in the middle of the answer" in heard.error.message


def test_a_server_that_falls_silent_is_given_up(server: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "BETWEEN", 0.2)
    heard = ask(server.answers(stream(delta(content="Hi"), end="open")).url)
    assert heard.text == "Hi"
    assert isinstance(heard.error, NetworkError)
    assert server.left.wait(HANG)
    monkeypatch.setattr(http_client, "FIRST_BYTE", 0.2)
    heard = ask(server.answers(stream(b": patience\n\n", end="open")).url)
    assert isinstance(heard.error, NetworkError)
    assert "nothing came for" in heard.error.message


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Reply([b"<!DOCTYPE html><p>Welcome"], kind="text/html"), "a web page"),
        (Reply([b"hello"], kind="text/plain"), "no JSON: 'hello'"),
        (Reply([b"{"], kind="application/json"), "no JSON"),
        (stream(event(b"{nonsense")), "no JSON: '{nonsense'"),
        (stream(event(b"[" * 100_000)), "no JSON"),
    ],
)
def test_what_is_no_api_is_said_to_be_none(server: Endpoint, reply: Reply, said: str) -> None:
    heard = ask(server.answers(reply).url)
    assert isinstance(heard.error, NetworkError)
    assert said in heard.error.message
    server.routes["/v1/models"] = reply
    assert ask(server.url).error


def test_where_nobody_listens_is_said_at_once(server: Endpoint) -> None:
    with endpoint() as gone:
        url = gone.url
    heard = ask(url)
    assert isinstance(heard.error, NetworkError)
    assert re.search(rf"{re.escape(url)}/v1 cannot be reached: .*refused", heard.error.message, re.IGNORECASE)
    tls = ask(server.url.replace("http:", "https:"))
    assert isinstance(tls.error, NetworkError)
    assert "SSL" in tls.error.message


def test_neither_key_nor_conversation_follows_a_redirect(server: Endpoint) -> None:
    environ = {"HERMES_LLM_ENDPOINT_KEY": "sk-secret"}
    with endpoint() as other:
        there = f"http://localhost:{other.port}/v1/chat/completions"
        heard = ask(server.answers(Reply(status=307, headers={"Location": there})).url, environ=environ)
        assert not other.asked
    assert server.asked[-1].headers["authorization"] == "Bearer sk-secret"
    assert isinstance(heard.error, NetworkError)
    assert there in heard.error.hint


def test_a_conversation_keeps_what_came_before_it_broke_off(server: Endpoint) -> None:
    server.answers(stream(delta(content="Half an"), end="cut"), stream(delta(content="A whole one."), STOP))

    conversation = Conversation()
    with EventLoop() as loop:
        backend: ChatBackend = loop.run(connect(read_address(server.url, {}), None, str, str))
        view = PlainView(Console(out=io.StringIO()), backend, ChatOptions())
        agent = AgentLoop(conversation, backend, None, view, loop)
        with pytest.raises(NetworkError):
            agent.ask("One?")
        agent.ask("Another?")
        loop.run(backend.close())
    assert [(entry.message.content, entry.unfinished) for entry in conversation.entries] == [
        ("One?", False), ("Half an", True), ("Another?", False), ("A whole one.", False),
    ]  # fmt: skip
    assert [one["content"] for one in server.last["messages"]] == ["One?", "Half an", "Another?"]


def test_closing_an_answer_closes_its_connection(server: Endpoint) -> None:
    server.answers(stream(delta(content="Hi"), end="open"))

    async def first() -> float:
        backend = await connect(read_address(server.url, {}), None, str, str)
        events = backend.generate(HI, [], ChatOptions())
        assert await anext(events) == Content("Hi")
        began = time.monotonic()
        await events.aclose()
        took = time.monotonic() - began
        assert await asyncio.to_thread(server.left.wait, HANG)
        await backend.close()
        return took

    assert asyncio.run(first()) < http_client.BETWEEN  # which it would wait for the rest


def test_ctrl_c_ends_it_at_once(server: Endpoint) -> None:
    server.answers(stream(delta(content="Hi"), end="open"))

    async def answer(backend: EndpointBackend) -> None:
        async with aclosing(backend.generate(HI, [], ChatOptions())) as events:
            async for _ in events:
                os.kill(os.getpid(), signal.SIGINT)

    with EventLoop() as loop:
        backend = loop.run(connect(read_address(server.url, {}), None, str, str))
        with pytest.raises(KeyboardInterrupt):
            loop.run(answer(backend))
        assert server.left.wait(HANG)
        loop.run(backend.close())
