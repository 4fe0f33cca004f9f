"""What goes wrong between this program and an engine that somebody else runs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Coroutine, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, cast

import pytest
from conftest import HANG
from endpoint_rig import DONE, Endpoint, Reply, endpoint, event, of_json, refusal, stream

from hermes_cli.engine.protocol import Done, EngineStats, Event, ModelInfo, TextEvent
from hermes_cli.engine.request import GenerationRequest, ReasoningOptions
from hermes_cli.engine.upstream import detect
from hermes_cli.engine.upstream import engine as upstream
from hermes_cli.engine.upstream.dialect import Chunk, Ending, TokenCompletion
from hermes_cli.engine.upstream.engine import UpstreamEngine
from hermes_cli.engine.upstream.http import read_engine_url
from hermes_cli.errors import (
    ContextFullError,
    EngineDiedError,
    EngineError,
    HermesError,
    NetworkError,
    NotReadyError,
    QueueFullError,
    UsageError,
)

T = TypeVar("T")
PROPS = {"default_generation_settings": {"n_ctx": 64, "params": {"temperature": 0.5}}, "total_slots": 3}
PIECE = event({"content": "Hi", "tokens": [1], "tokens_predicted": 1, "stop": False})
LAST = event({"content": "", "tokens_predicted": 1, "stop": True, "stop_type": "limit"})


@pytest.fixture
def server() -> Iterator[Endpoint]:
    with endpoint() as server:
        server.routes["/props"] = of_json(PROPS)
        server.routes["/v1/models"] = of_json({"data": [{"id": "m", "meta": {"n_vocab": 9}}]})
        server.routes["/tokenize"] = of_json({"tokens": [-1] * len(upstream.SPECIAL_TEXTS)})
        yield server


def run(use: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(use, HANG))


async def answer(server: Endpoint, **request: Any) -> list[Event]:  # noqa: ANN401 - any field
    engine, reply = UpstreamEngine(read_engine_url(server.url)), server.routes.pop("/completion", None)
    try:
        await engine.load()
        if reply:
            server.routes["/completion"] = reply
        async with aclosing(engine.generate(GenerationRequest((1, 2), **request))) as events:
            return [one async for one in events]
    finally:
        await engine.close()


def test_an_answer_has_text_and_an_end(server: Endpoint) -> None:
    server.routes["/completion"] = stream(PIECE, LAST)
    events = run(answer(server, max_tokens=1))
    assert [type(one) for one in events] == [TextEvent, Done]
    assert isinstance(done := events[-1], Done)
    assert (done.reason, done.prompt_tokens, done.completion_tokens, done.context_full) == ("length", 2, 1, False)
    assert server.last["prompt"] == [1, 2]
    assert (server.last["n_predict"], server.last["temperature"], server.last["stream"]) == (1, 0.8, True)


@pytest.mark.parametrize(
    ("reply", "kind", "said"),
    [
        (stream(PIECE, event({"error": {"code": 500, "message": "out of memory"}}), DONE), EngineError, "out of memory"),
        (stream(PIECE, DONE), EngineError, "ended before the answer did"),
        (stream(PIECE, end="cut"), EngineDiedError, "broke"),
        (refusal(503, "all slots are busy"), QueueFullError, "all slots are busy"),
        (refusal(401, "Invalid API Key"), UsageError, "HERMES_LLM_ENGINE_KEY"),
        (refusal(400, "seed: no number"), UsageError, "seed: no number"),
        (refusal(500, "a bug"), EngineError, "a bug"),
        (of_json({"error": {"message": "too long", "n_prompt_tokens": 70, "n_ctx": 64}}, 400), ContextFullError, "70 tokens"),
        (refusal(400, "This model's maximum context length is 64 tokens. However, your prompt contains 70 input tokens"),
         ContextFullError, "70 tokens, the context length is 64"),
        (Reply([b"<html>"], kind="text/html"), EngineDiedError, "not an engine that hermes knows"),
    ],
)  # fmt: skip
def test_what_ends_an_answer_is_told_as_what_it_is(
    server: Endpoint, reply: Reply, kind: type[HermesError], said: str
) -> None:
    server.routes["/completion"] = reply
    with pytest.raises(kind) as caught:
        run(answer(server))
    assert said in f"{caught.value.message} {caught.value.hint}"


def test_a_prompt_that_fills_the_context_is_not_sent(server: Endpoint) -> None:
    async def ask() -> None:
        engine = UpstreamEngine(read_engine_url(server.url))
        try:
            async with aclosing(engine.generate(GenerationRequest((1,) * 64))) as events:
                await anext(events)
        finally:
            await engine.close()

    with pytest.raises(ContextFullError, match="64 tokens, the context length is 64"):
        run(ask())
    assert "/completion" not in [asked.path for asked in server.asked if (asked.body or {}).get("stream")]


def test_closing_an_answer_closes_its_connection(server: Endpoint) -> None:
    async def use() -> None:
        engine = UpstreamEngine(read_engine_url(server.url))
        await engine.load()
        server.routes["/completion"] = stream(PIECE, end="open")
        events = engine.generate(GenerationRequest((1,)))
        assert await anext(events) == TextEvent("Hi", 1)
        await events.aclose()
        assert await asyncio.to_thread(server.left.wait, HANG)
        stats = await engine.stats()
        assert (stats.state, stats.requests, stats.cancelled, stats.running) == ("ready", 1, 1, ())
        await engine.close()

    run(use())


def test_unloading_ends_what_runs_and_the_next_request_works(server: Endpoint) -> None:
    async def use() -> list[Event]:
        engine = UpstreamEngine(read_engine_url(server.url))
        await engine.load()
        server.routes["/completion"] = stream(PIECE, end="open")
        events = engine.generate(GenerationRequest((1,)))
        await anext(events)
        await engine.unload()
        with pytest.raises(NotReadyError, match="unloaded"):
            await anext(events)
        assert (await engine.stats()).state == "unloaded"
        server.routes["/completion"] = refusal(400, "llguidance is not enabled")
        await engine.load()
        server.routes["/completion"] = stream(PIECE, LAST)
        async with aclosing(engine.generate(GenerationRequest((1,)))) as again:
            last = [one async for one in again]
        await engine.close()
        with pytest.raises(NotReadyError, match="closed"):
            await engine.load()
        return last

    assert isinstance(run(use())[-1], Done)


def test_an_engine_that_was_started_anew_is_asked_anew(server: Endpoint) -> None:
    async def use() -> int:
        engine = UpstreamEngine(read_engine_url(server.url))
        await engine.load()
        server.routes["/completion"] = stream(PIECE, end="cut")
        with pytest.raises(EngineDiedError):
            async with aclosing(engine.generate(GenerationRequest((1,)))) as events:
                _ = [one async for one in events]
        server.routes["/completion"] = refusal(400, "llguidance is not enabled")
        props = {**PROPS, "default_generation_settings": {"n_ctx": 32}}
        server.routes["/props"] = of_json(props)
        context = (await engine.load()).context
        await engine.close()
        return context

    assert run(use()) == 32


def test_a_model_that_is_being_loaded_is_waited_for(server: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detect, "LOADING_PAUSE", 0.0)
    server.routes["/props"] = refusal(503, "Loading model")
    server.routes["/completion"] = stream(PIECE, LAST)

    async def use() -> None:
        asking = asyncio.ensure_future(answer(server))
        while len(server.asked) < 3:  # noqa: ASYNC110 - the server is in a thread, and tells nobody
            await asyncio.sleep(0.001)
        assert not asking.done()
        server.routes["/props"] = of_json(PROPS)
        assert isinstance((await asking)[-1], Done)

    run(use())


@pytest.mark.parametrize(
    ("props", "kind", "said"),
    [
        (of_json({"build_info": "hermes-llm-1"}), UsageError, "hermes chat --endpoint"),
        (of_json({}), NetworkError, "not an engine that hermes knows"),
        (refusal(404, "Not Found"), NetworkError, "not an engine that hermes knows"),
        (Reply([b"hello"], kind="text/plain"), NetworkError, "not an engine that hermes knows"),
        (refusal(401, "Invalid API Key"), UsageError, "HERMES_LLM_ENGINE_KEY"),
    ],
)
def test_what_is_no_engine_is_said_to_be_none(
    server: Endpoint, props: Reply, kind: type[HermesError], said: str
) -> None:
    server.routes["/props"] = props
    with pytest.raises(kind) as caught:
        run(answer(server))
    assert said in f"{caught.value.message} {caught.value.hint}"


@pytest.mark.parametrize("unknown", ["nothing", "json_allowed_escapes"])
def test_a_grammar_goes_to_a_server_that_takes_one_as_lark(server: Endpoint, unknown: str) -> None:
    """An older llguidance answers without the grammar, and is asked without what it does not know."""

    class Completion:
        def __iter__(self) -> Iterator[bytes]:
            held = unknown not in server.last.get("grammar", "")
            made = '%llguidance {}\nstart: %json {"const": "a"}'  # of a schema
            yield json.dumps({"generation_settings": {"grammar": made}, "content": '"qz"' if held else "What"}).encode()

    async def use(grammar: str) -> None:
        engine = UpstreamEngine(read_engine_url(server.url))
        try:
            server.routes["/completion"] = Reply(cast("list[bytes]", Completion()), kind="application/json")
            assert (await engine.load()).grammars
            server.routes["/completion"] = stream(PIECE, LAST)
            async with aclosing(engine.generate(GenerationRequest((1,), grammar=grammar))) as events:
                _ = [one async for one in events]
        finally:
            await engine.close()

    option = ', "json_allowed_escapes": "nrbtf\\\\\\""'
    rules = 'start: %json {"x-guidance": {"a": 1OPTION}}'
    one = {"name": "turn", "lark_grammar": rules.replace("OPTION", option)}
    run(use(json.dumps({"grammars": [one]})))
    kept = option if unknown == "nothing" else ""
    assert server.last["grammar"] == "%llguidance {}\n" + rules.replace("OPTION", kept)
    with pytest.raises(UsageError, match="a grammar of this kind: llama-server has nothing like it"):
        run(use(json.dumps({"grammars": [one, {"name": "other", "lark_grammar": 'start: "b"'}]})))


def test_a_server_that_does_not_keep_to_a_grammar_takes_none(server: Endpoint) -> None:
    async def use() -> bool:
        engine = UpstreamEngine(read_engine_url(server.url))
        try:
            made = '%llguidance {}\nstart: %json {"const": "a"}'
            server.routes["/completion"] = of_json({"generation_settings": {"grammar": made}, "content": "What"})
            return (await engine.load()).grammars
        finally:
            await engine.close()

    assert not run(use())


@pytest.mark.parametrize("works", [True, False])
def test_an_engine_that_does_nothing_any_more_ends_the_request(
    server: Endpoint, monkeypatch: pytest.MonkeyPatch, *, works: bool
) -> None:
    """As after a cut network between its nodes; one whose counters change is at work."""
    monkeypatch.setattr(upstream, "ACTIVITY", {"llama-server": ("/metrics", "tokens")})
    monkeypatch.setattr(upstream, "STALL_PAUSE", 0.01)

    class Metrics:
        def __iter__(self) -> Iterator[bytes]:
            yield f"uptime {len(server.asked)}\ntokens {len(server.asked) if works else 7}\n".encode()

    async def use() -> list[object]:
        engine = UpstreamEngine(read_engine_url(server.url))
        await engine.load()
        server.routes["/metrics"] = Reply(cast("list[bytes]", Metrics()), kind="text/plain")
        server.routes["/completion"] = stream(PIECE, end="open")
        events: list[object] = []
        try:
            async with aclosing(engine.generate(GenerationRequest((1,)))) as stream_of_events:
                async for event in stream_of_events:
                    events.append(event)
                    if works:
                        looks = 0
                        asking = asyncio.ensure_future(anext(stream_of_events))
                        while looks < 10:
                            looks = sum(asked.path == "/metrics" for asked in list(server.asked))
                            await asyncio.sleep(0.001)
                        assert not asking.done()
                        asking.cancel()
                        await asyncio.gather(asking, return_exceptions=True)
                        break
        except EngineDiedError as error:
            events.append(error.message)
        finally:
            await engine.close()
        return events

    text, *rest = run(use())
    assert isinstance(text, TextEvent)
    assert bool(rest) != works
    assert works or "hangs: nothing came of any request" in str(rest[0])


@pytest.mark.parametrize("lost", [False, True])
def test_an_engine_on_several_nodes_gets_a_request_while_there_are_none(
    server: Endpoint, monkeypatch: pytest.MonkeyPatch, *, lost: bool
) -> None:
    """A beat that fails is not the last one."""
    monkeypatch.setattr(upstream, "HEARTBEAT", 0.001)

    def beats() -> int:
        return sum(asked.path == "/completion" for asked in list(server.asked))

    async def use() -> None:
        engine = UpstreamEngine(read_engine_url(server.url), heartbeat=True)
        try:
            await engine.load()
            before = beats()
            server.routes["/completion"] = refusal(500, "a node is gone") if lost else stream(PIECE, LAST)
            while beats() < before + 3:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.001)
            assert ((await engine.stats()).failed > 0) == lost
        finally:
            await engine.close()

    run(use())
    assert (server.last["prompt"], server.last["n_predict"]) == ([0], 1)


@dataclass
class _Letters:
    """An engine whose tokens are the bytes of a text, and which does not tell all of their ids."""

    pieces: list[Chunk]
    info: ModelInfo
    asked: list[TokenCompletion] = field(default_factory=list)
    name: str = "letters"
    adds_space: bool = False

    async def model_info(self, tags: Sequence[str], texts: Sequence[str]) -> ModelInfo:  # noqa: ARG002 - as the protocol
        return self.info

    async def tokenize(self, texts: Sequence[str], *, special: bool) -> list[list[int]]:  # noqa: ARG002 - as above
        return [list(text.encode()) for text in texts]

    async def detokenize(self, tokens: Sequence[int]) -> bytes:
        return bytes(tokens)

    def check(self, request: GenerationRequest) -> None:
        pass

    async def stats(self) -> EngineStats:
        return EngineStats()

    async def complete(self, completion: TokenCompletion) -> AsyncGenerator[Chunk, None]:
        self.asked.append(completion)
        while self.pieces:
            piece = self.pieces.pop(0)
            yield piece
            if piece.ending:
                return


def answered(letters: _Letters, request: GenerationRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Done]:
    async def dialect_of(*_: object) -> _Letters:
        return letters

    async def use() -> list[Event]:
        engine = UpstreamEngine(read_engine_url("127.0.0.1:9"))
        try:
            async with aclosing(engine.generate(request)) as events:
                return [one async for one in events]
        finally:
            await engine.close()

    monkeypatch.setattr(upstream, "dialect_of", dialect_of)
    *events, done = run(use())
    assert isinstance(done, Done)
    return "".join(one.text for one in events if isinstance(one, TextEvent)), done


INFO = ModelInfo(100, 1, 100, 0, 0, 256)


@pytest.mark.parametrize(("prompt", "sent"), [(("ab", "c"), "^abc"), (("^ab",), "^ab"), ((97, 98), "^ab")])
def test_a_prompt_begins_with_bos_once_where_the_model_wants_it(
    prompt: tuple[str | int, ...], sent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    letters = _Letters([Chunk(ending=Ending(is_cut=False))], replace(INFO, bos="^", adds_bos=True))
    answered(letters, GenerationRequest(prompt), monkeypatch)
    assert bytes(letters.asked[0].prompt).decode() == sent


def test_reasoning_whose_budget_is_used_up_is_closed_and_the_answer_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    # "é" has two tokens, of which the engine tells one
    pieces = [Chunk("hm", 1, (1,)), Chunk("é", 2, (169,)), Chunk("4", 1, (52,)), Chunk(ending=Ending(is_cut=False))]
    reasoning = ReasoningOptions(budget=3, inside=True)
    letters = _Letters(pieces, INFO)
    text, done = answered(letters, GenerationRequest(("?",), reasoning=reasoning, max_tokens=40), monkeypatch)
    assert text == "hmé\n</think>\n4"
    first, second = letters.asked
    assert (bytes(first.prompt).decode(), first.max_tokens) == ("?", 40)
    assert (bytes(second.prompt).decode(), second.max_tokens) == ("?hmé\n</think>\n", 26)
    assert (done.reason, done.completion_tokens, done.reasoning_tokens) == ("stop", 15, 12)


def test_the_key_of_the_environment_is_sent(server: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERMES_LLM_ENGINE_KEY", "secret")
    server.routes["/completion"] = stream(PIECE, LAST)
    run(answer(server))
    assert {asked.headers["authorization"] for asked in server.asked} == {"Bearer secret"}


@pytest.mark.parametrize(
    ("typed", "url", "socket"),
    [
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080", ""),
        (" 127.0.0.1:8080/v1/ ", "http://127.0.0.1:8080", ""),
        ("localhost:80", "http://localhost:80", ""),
        ("https://gpu.example/engine", "https://gpu.example/engine", ""),
        ("http://[::1]:8080", "http://[::1]:8080", ""),
        ("unix:/run/engine.sock", "http://engine", "/run/engine.sock"),
        ("unix:///run/engine.sock", "http://engine", "/run/engine.sock"),
    ],
)
def test_addresses_of_engines(typed: str, url: str, socket: str) -> None:
    address = read_engine_url(typed)
    assert (address.url, address.socket) == (url, socket)


@pytest.mark.parametrize("typed", ["", "ftp://x", "http://", "http://h:99999", "http://h?a=b", "http://a b", "unix:"])
def test_what_is_no_address_of_an_engine_is_refused(typed: str) -> None:
    with pytest.raises(UsageError, match="--engine-url"):
        read_engine_url(typed)


def test_a_key_in_the_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(UsageError) as caught:
        read_engine_url("http://name:secret@host")
    assert "secret" not in f"{caught.value.message} {caught.value.hint}"
