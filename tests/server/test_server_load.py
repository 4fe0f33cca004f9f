"""The load run of tools/server_load.py, shortened; and what it takes for a proper end."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import pytest
from server_answers import CHAT, MESSAGES, RESPONSES, TOO_LONG, Reply, WrongError, ended
from server_load import trial

DONE = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
ERROR = {"message": "the engine died.", "type": "server_error", "code": "engine_died"}
STREAM: dict[str, Any] = {"stream": True}


def said(body: Any, status: int = 200, **headers: str) -> Reply:  # noqa: ANN401 - bytes or what JSON holds
    told = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Reply(status, {name.replace("_", "-"): value for name, value in headers.items()}, told)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_every_request_ends_and_nothing_is_left() -> None:
    outcome = asyncio.run(trial(1, clients=12, kill_every=1, seed=1))
    assert outcome.good, str(outcome)
    assert (
        outcome.kills == outcome.restarts >= 1
    )  # it went on until requests were answered, left, and lost their engine


@pytest.mark.parametrize(
    ("path", "body", "reply", "how"),
    [
        (CHAT, STREAM, said(DONE), "answered"),
        (CHAT, {}, said({"choices": [{"finish_reason": "length"}]}), "answered"),
        (CHAT, STREAM, said({"error": ERROR}, 503, retry_after="1"), "HTTP 503, engine_died"),
        (CHAT, STREAM, said(b'data: {}\n\ndata: {"error":%b}\n\n' % json.dumps(ERROR).encode()), "error in the stream"),
        (MESSAGES, STREAM, said(b'event: message_stop\ndata: {"type":"message_stop"}\n\n'), "answered"),
        (MESSAGES, STREAM, said(b'event: error\ndata: {"error":%b}\n\n' % json.dumps(ERROR).encode()), "error in the"),
        (RESPONSES, STREAM, said(b"event: response.incomplete\ndata: {}\n\n"), "answered"),
        (
            RESPONSES,
            STREAM,
            said(b'event: response.failed\ndata: {"response":{"error":%b}}\n\n' % json.dumps(ERROR).encode()),
            "error in the stream, engine_died",
        ),
        (
            CHAT,
            {"messages": TOO_LONG},
            said({"error": {**ERROR, "code": "context_length_exceeded"}}, 400),
            "HTTP 400, context_length_exceeded",
        ),
    ],
)
def test_these_are_proper_ends(path: str, body: dict[str, Any], reply: Reply, how: str) -> None:
    assert ended(path, body, reply).startswith(how)


@pytest.mark.parametrize(
    ("path", "body", "reply"),
    [
        (CHAT, STREAM, said(b"")),
        (CHAT, STREAM, said(b"data: {}\n\n")),
        (CHAT, STREAM, said(DONE[:-3])),
        (CHAT, STREAM, said(b"data: {}\n\ndata: [DONE]\n\n")),
        (CHAT, {"stream": True, "n": 2}, said(DONE)),
        (CHAT, STREAM, said({"error": ERROR}, 503)),
        (CHAT, STREAM, said({"error": ERROR}, 500)),
        (CHAT, STREAM, said({"error": {**ERROR, "code": "context_length_exceeded"}}, 400)),
        (CHAT, STREAM, said({"error": "no"}, 503, retry_after="1")),
        (CHAT, {}, said({"choices": [{"finish_reason": None}]})),
        (MESSAGES, STREAM, said(b"event: message_delta\ndata: {}\n\n")),
        (MESSAGES, STREAM, said(b"event: error\ndata: {}\n\n")),
        (RESPONSES, STREAM, said(b'event: response.failed\ndata: {"response":{}}\n\n')),
    ],
)
def test_these_are_not(path: str, body: dict[str, Any], reply: Reply) -> None:
    with pytest.raises(WrongError):
        ended(path, body, reply)
