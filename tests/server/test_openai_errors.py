"""What clients are told when something is wrong, before an answer begins and in the middle of it."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
from conftest import HANG, eventually
from fake_engine import FakeEngine, Step
from openai_rig import ASKED, HERMES_4, House, chunks, events, house
from server_rig import Running, offer, read_all, served
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from hermes_cli.engine.protocol import ModelInfo
from hermes_cli.errors import (
    ContextFullError,
    DoesNotFitError,
    EngineDiedError,
    EngineError,
    HermesError,
    IntegrityError,
    NotFoundError,
    NotReadyError,
    QueueFullError,
    UsageError,
)
from hermes_cli.server.errors import problem
from hermes_cli.server.routing import ApiRoute
from hermes_cli.server.streaming_reply import StreamingReply, together

PATHS = ("/v1/chat/completions", "/v1/completions")
LEFT: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": ASKED},
    "/v1/completions": {"prompt": "Once"},
    "/v1/responses": {"input": "Hi"},
    "/v1/messages": {"messages": ASKED, "max_tokens": 900},
}
"""Routes that generate, and the least that they take."""
FULL = ContextFullError("the prompt is long.", hint="shorten it.", prompt_tokens=70_123, context_length=65_536)


@pytest.fixture(scope="module")
def rig() -> Iterator[House]:
    with house(offer("hermes", known=HERMES_4)) as one:
        yield one


def body(path: str, **more: object) -> dict[str, Any]:
    return {**LEFT[path], **more}


ERRORS = [
    (
        UsageError("is 5.", field="temperature", hint="give less."),
        400,
        "invalid_request_error",
        "temperature",
        "invalid_value",
    ),
    (UsageError("the JSON schema is bad.", hint="mend it."), 400, "invalid_request_error", None, "invalid_value"),
    (UsageError("is odd.", field="tools[3].x", hint="."), 400, "invalid_request_error", "tools[3].x", "invalid_value"),
    (FULL, 400, "invalid_request_error", "messages", "context_length_exceeded"),
    (NotFoundError("there is no x.", hint="y."), 404, "invalid_request_error", "model", "model_not_found"),
    (QueueFullError("256 requests wait.", hint="later."), 429, "rate_limit_error", None, "queue_full"),
    (EngineDiedError("the engine was ended.", hint="again."), 503, "server_error", None, "engine_died"),
    (NotReadyError("it is not loaded.", hint="later."), 503, "server_error", None, "not_ready"),
    (DoesNotFitError("it needs 9 GiB.", hint="less."), 503, "server_error", None, "out_of_memory"),
    (EngineError("llama.cpp failed.", hint="?"), 500, "server_error", None, "internal_error"),
    (IntegrityError("the file is cut.", hint="pull."), 500, "server_error", None, "internal_error"),
]


@pytest.mark.parametrize(("error", "status", "kind", "param", "code"), ERRORS)
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", PATHS)
def test_before_the_first_token_an_error_has_its_own_status(
    rig: House,
    path: str,
    stream: bool,  # noqa: FBT001
    error: HermesError,
    status: int,
    kind: str,
    param: str | None,
    code: str,
) -> None:
    rig.says([error])
    answer = rig.post(path, body(path, stream=stream))
    assert answer.status == status
    assert answer.headers["content-type"] == "application/json"
    assert ("retry-after" in answer.headers) == (status in {429, 503})
    told = answer.error
    if error is FULL:
        assert "maximum context length is 65536 tokens" in told["message"]
        param = "messages" if "chat" in path else "prompt"
    else:
        assert told["message"].startswith(error.message)
    assert (told["type"], told["param"], told["code"]) == (kind, param, code)


@pytest.mark.parametrize("path", PATHS)
def test_in_a_stream_an_error_is_the_last_event(rig: House, path: str) -> None:
    rig.says(["One", EngineDiedError("the engine was ended (Killed).", hint="ask again.")])
    answer = rig.post(path, body(path, stream=True))
    assert answer.status == 200
    *before, last = events(answer.body)
    assert before
    assert json.loads(last)["error"]["message"] == "the engine was ended (Killed). Ask again."
    assert json.loads(last)["error"]["code"] == "engine_died"


@pytest.mark.parametrize("path", PATHS)
def test_one_choice_that_fails_ends_all(rig: House, path: str) -> None:
    rig.says(["One", asyncio.Event()], [QueueFullError("256 requests wait.", hint="later.")])
    answer = rig.post(path, body(path, n=2))
    assert answer.status == 429
    assert rig.engine.cancelled == [0]


@pytest.mark.parametrize("path", PATHS)
def test_too_long_a_prompt_is_told_in_the_words_that_agents_read(rig: House, path: str) -> None:
    """The patterns are Hermes Agent's (agent/model_metadata.py, 0.19.0)."""
    long = {"messages": [{"role": "user", "content": "x" * 5000}], "prompt": "x" * 5000}
    answer = rig.post(path, {**long, "max_tokens": 100})
    assert answer.status == 400
    said = answer.error["message"].lower()
    assert re.search(r"maximum context length is (\d+)\s*token", said)[1] == "4096"  # type: ignore[index]
    prompt = int(re.search(r"prompt contains (?:at least )?(\d+)\s*input tokens", said)[1])  # type: ignore[index]
    assert 5000 <= prompt < 5100
    assert "requested 100 output tokens" in said
    assert f"total of at least {prompt + 100} tokens" in said
    assert (answer.error["n_prompt_tokens"], answer.error["n_ctx"]) == (prompt, 4096)  # as llama.cpp's server has them


def test_where_no_sizes_are_known_the_message_stays() -> None:
    told = problem(ContextFullError("the KV cache has no room.", hint="x"))
    assert (told.message, told.code) == ("the KV cache has no room.", "context_length_exceeded")


def test_no_more_output_is_named_than_there_is_context() -> None:
    assert "requested 65536 output tokens" in problem(FULL, max_tokens=10**9).message
    assert "requested 1 output tokens" in problem(FULL).message


def test_an_unknown_model_is_told_with_those_there_are(rig: House) -> None:
    answer = rig.chat(model="gpt-17")
    assert (answer.status, answer.error["code"]) == (404, "model_not_found")
    assert "gpt-17" in answer.error["message"]
    assert "hermes" in answer.error["message"]
    assert rig.running.get("/v1/models/gpt-17").error["code"] == "model_not_found"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", "\ud800"),
        ("reasoning_effort", "\udfff"),
        ("logit_bias", {"\ud800": 1}),
        ("logit_bias", {"\ud800": "x"}),
        ("stop", ["\ud800" * 2000]),
        ("response_format", {"type": "\ud800"}),
        ("tool_choice", "\ud800"),
        ("messages", [{"role": "\ud800"}]),
        ("keep_alive", "\ud800"),
    ],
)
def test_half_characters_can_be_complained_about(rig: House, field: str, value: object) -> None:
    answer = rig.chat(**{field: value})
    assert answer.status in {400, 404}
    assert answer.error["message"]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[1]",
        b'"x"',
        b"null",
        b"\xff\xfe",
        b'{"messages": "\xff"}',
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b"1" * 10_000,
    ],
)
@pytest.mark.parametrize("path", PATHS)
def test_a_body_that_is_no_json_object(rig: House, path: str, data: bytes) -> None:
    answer = rig.running.ask("POST", path, data)
    assert answer.status == 400
    assert answer.error["code"] == "invalid_json"


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_a_body_that_does_not_say_that_it_is_json(rig: House, kind: str) -> None:
    """Pages of the web can send such bodies anywhere without asking first."""
    answer = rig.running.ask("POST", PATHS[0], json.dumps(body(PATHS[0])).encode(), {"Content-Type": kind})
    assert answer.status == 400
    assert "Content-Type: application/json" in answer.error["message"]


def test_routes_and_methods_that_there_are_not(rig: House) -> None:
    missing, other = rig.running.get("/v1/nothing"), rig.running.get(PATHS[0])
    assert (missing.status, missing.error["message"]) == (404, "Not Found: GET /v1/nothing.")
    assert (other.status, other.headers["allow"]) == (405, "POST")


def test_a_bug_tells_nothing_of_itself() -> None:
    async def bug(_: Request) -> Response:
        raise RuntimeError("the secret is 17")

    def prepare(app: Starlette) -> None:
        app.router.routes.append(ApiRoute("GET", "/bug", bug))

    with served(prepare=prepare) as running:
        answer = running.get("/bug")
        assert (answer.status, answer.error["code"]) == (500, "internal_error")
        assert b"secret" not in answer.body
        assert running.healthy()


def test_anthropics_shape() -> None:
    for error, status, *_ in ERRORS:
        told = json.loads(problem(error).body("anthropic"))
        assert told["type"] == "error"
        assert told["error"]["message"] == problem(error).message
        kinds = {400: "invalid_request_error", 404: "not_found_error", 429: "rate_limit_error", 500: "api_error"}
        assert told["error"]["type"] == kinds.get(status, "overloaded_error")


def ask_and_leave(
    rig: House, path: str, begun: Callable[[socket.socket], object], *, rudely: bool = False, **more: object
) -> None:
    """Send a request, and close the connection (rudely: by RST) when its answer has begun."""
    data = json.dumps(body(path, **more)).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    with rig.running.connect() as line:
        line.sendall(head.encode() + data)
        begun(line)
        if rudely:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("choices", [1, 3])
def test_each_choice_of_a_stream_that_is_left_is_cancelled(rig: House, path: str, choices: int) -> None:
    rig.says(["One", asyncio.Event()])
    ask_and_leave(rig, path, lambda line: line.recv(1), stream=True, n=choices)
    eventually(lambda: sorted(rig.engine.cancelled) == list(range(choices)))


@pytest.mark.parametrize("path", LEFT)
@pytest.mark.parametrize("rudely", [True, False])
def test_a_client_that_leaves_a_stream_is_not_worked_for(rig: House, path: str, *, rudely: bool) -> None:
    rig.says(["One", asyncio.Event()])
    ask_and_leave(rig, path, lambda line: line.recv(1), rudely=rudely, stream=True)
    eventually(lambda: rig.engine.cancelled == [0])


@pytest.mark.parametrize("script", [["One", asyncio.Event()], [asyncio.Event()]])
@pytest.mark.parametrize("path", LEFT)
@pytest.mark.parametrize("rudely", [True, False])
def test_a_client_that_does_not_wait_is_not_worked_for(
    rig: House, path: str, script: list[Step], *, rudely: bool
) -> None:
    rig.says(script)
    ask_and_leave(rig, path, lambda _: eventually(lambda: rig.engine.requests), rudely=rudely)
    eventually(lambda: rig.engine.cancelled == [0])


def test_a_client_that_leaves_while_the_model_is_loaded_is_not_waited_for() -> None:
    loading = asyncio.Event()

    class Slow(FakeEngine):
        async def load(self) -> ModelInfo:
            loading.set()
            await asyncio.Event().wait()
            return self.loaded

    engine = Slow()
    with served(engine=lambda _: engine, loaded=False) as running:
        ask_and_leave(House(running, engine), PATHS[0], lambda _: eventually(loading.is_set))
        eventually(lambda: running.app and running.app.state.traffic.running == 0)
        assert not engine.requests


def with_work(work: Callable[[StreamingReply], Any], **how: Any) -> Callable[[Starlette], None]:  # noqa: ANN401 - of the reply
    """A route that does some work."""

    async def answer(_: Request) -> Response:
        return StreamingReply(work, **how)

    def prepare(app: Starlette) -> None:
        app.router.routes.append(ApiRoute("GET", "/work", answer))

    return prepare


def test_comments_are_sent_while_nothing_else_is() -> None:
    go_on = threading.Semaphore(0)

    async def work(reply: StreamingReply) -> None:
        for number in (1, 2):
            await asyncio.to_thread(go_on.acquire)
            await reply.write(b"data: %d\n\n" % number)

    with served(prepare=with_work(work, stream=True, silence=0.02)) as running, reading(running) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for number in (1, 2):
            assert [next_event(answer) for _ in range(3)] == [b": keep-alive"] * 3
            go_on.release()
            while (event := next_event(answer)) == b": keep-alive":
                pass
            assert event == b"data: %d" % number
        assert answer.read() == b""


def test_after_a_comment_an_error_is_an_event() -> None:
    go_on = threading.Event()

    async def work(_: StreamingReply) -> None:
        await asyncio.to_thread(go_on.wait)
        raise FULL

    with served(prepare=with_work(work, stream=True, silence=0.02)) as running, reading(running) as answer:
        assert answer.status == 200
        assert next_event(answer) == b": keep-alive"
        go_on.set()
        assert json.loads(events(answer.read())[0])["error"]["code"] == "context_length_exceeded"


@contextmanager
def reading(running: Running) -> Iterator[http.client.HTTPResponse]:
    """The answer of the route that does some work, to be read while it is written."""
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=HANG)
    with closing(connection):
        connection.request("GET", "/work")
        yield connection.getresponse()


def next_event(answer: http.client.HTTPResponse) -> bytes:
    line = answer.readline()
    assert answer.readline() == b"\n"
    return line.rstrip(b"\n")


def test_a_whole_answer_is_not_begun_with_comments() -> None:
    async def work(reply: StreamingReply) -> None:
        await asyncio.sleep(0.1)
        await reply.whole({})

    with served(prepare=with_work(work, stream=False, silence=0.02)) as running:
        answer = running.get("/work")
    assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"{}", "2")


def test_a_bug_in_a_stream_breaks_the_connection_and_not_the_server() -> None:
    async def work(reply: StreamingReply) -> None:
        await reply.write(b"data: 1\n\n")
        raise RuntimeError("the secret is 17")

    with served(prepare=with_work(work, stream=True)) as running:
        with running.connect() as line:
            line.sendall(b"GET /work HTTP/1.1\r\nHost: localhost\r\n\r\n")
            said = read_all(line)
        assert b"data: 1" in said
        assert b"secret" not in said
        assert not said.endswith(b"0\r\n\r\n")
        assert running.healthy()


def test_the_first_error_ends_what_runs_beside_it() -> None:
    ended: list[str] = []

    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("waited")

    async def fails() -> None:
        await asyncio.sleep(0)
        raise FULL

    with pytest.raises(ContextFullError):
        asyncio.run(together([waits(), fails(), waits()]))
    assert ended == ["waited", "waited"]


def test_many_choices_at_once_are_all_answered(rig: House) -> None:
    rig.says(*(["word"] * number for number in range(1, 17)))
    answer = rig.post(PATHS[0], body(PATHS[0], n=16, stream=True))
    assert len({piece["index"] for chunk in chunks(answer.body) for piece in chunk["choices"]}) == 16


@pytest.mark.parametrize(
    ("method", "path", "right", "base"),
    [
        ("POST", "/chat/completions", "/v1/chat/completions", "/v1"),
        ("POST", "/v1/v1/messages", "/v1/messages", ""),
        ("POST", "/v1/v1/messages/count_tokens", "/v1/messages/count_tokens", ""),
        ("POST", "/messages", "/v1/messages", ""),
        ("POST", "/api/v1/responses", "/v1/responses", "/v1"),
        ("GET", "/v1/v1/models", "/v1/models", "/v1"),
        ("POST", "/v1/chat/completions/chat/completions", "/v1/chat/completions", "/v1"),
        ("POST", "/v1/tokenize", "/tokenize", ""),
    ],
)
def test_a_wrong_base_url_is_told_the_right_one(rig: House, method: str, path: str, right: str, base: str) -> None:
    answer = rig.running.ask(method, path, {} if method == "POST" else None)
    assert answer.status == 404
    address = f"http://127.0.0.1:{rig.running.port}{base}"
    assert answer.error["message"].endswith(f"It is here at {right}: the base URL for this client is {address}")
    assert ("type" in answer.json) == ("messages" in path)


def test_paths_that_are_like_nothing_here_get_no_advice(rig: House) -> None:
    for path in ("/api/v1/models/x", "/version", "/v1/embed", "/" + "v1/" * 5000 + "models"):
        assert rig.running.get(path).error["message"].endswith(".")


def test_errors_repeat_little_of_a_request(rig: House) -> None:
    for body in ({"model": "x" * 10**6}, {"grammar": "x" * 10**5}, {"messages": [{"role": "x" * 10**6}]}):
        assert len(rig.chat(**body).body) < 5000


def test_a_limit_that_completions_do_not_have_is_ignored(rig: House) -> None:
    for value in ("x", [1], {"a": 1}, -5):
        assert rig.complete(max_completion_tokens=value).status == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [("/v1/chat/completions/input_tokens", {"messages": ASKED}), ("/v1/responses/input_tokens", {"input": "Hi"})],
)
def test_tokens_of_a_prompt_are_counted(rig: House, path: str, body: dict[str, Any]) -> None:
    counted = rig.post(path, body)
    assert counted.json == {
        "object": "response.input_tokens",
        "input_tokens": rig.chat().json["usage"]["prompt_tokens"],
    }


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        ("/v1/chat/completions", {"stop": [0] * 300_000}, "stop[0]"),
        ("/v1/chat/completions", {"guided_choice": [0] * 300_000}, "guided_choice[0]"),
        ("/v1/chat/completions", {"logit_bias": dict.fromkeys(map(str, range(90_000)), "x")}, "logit_bias.0"),
        ("/v1/chat/completions", {"tools": [0] * 300_000}, "tools"),
        ("/v1/chat/completions", {"tool_choice": [0] * 300_000}, "tool_choice"),
        ("/detokenize", {"tokens": ["x"] * 300_000}, "tokens[0]"),
        ("/apply-template", {"tools": [0] * 300_000}, "tools[0]"),
    ],
)
def test_of_a_flood_of_errors_the_first_is_told(rig: House, path: str, fields: dict[str, Any], param: str) -> None:
    answer = rig.running.post(path, {"messages": [{"role": "user", "content": "Hi"}], **fields})
    assert (answer.status, answer.error["param"]) == (400, param)
    assert len(answer.body) < 1000
