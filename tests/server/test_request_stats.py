"""What a request costs is counted, and its time is limited; engines are fakes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

import pytest
from fake_engine import FakeEngine
from server_rig import served

from hermes_cli.engine.protocol import Done, Event
from hermes_cli.engine.request import GenerationRequest
from hermes_cli.errors import EngineError, NotReadyError
from hermes_cli.server.metrics import Metrics
from hermes_cli.server.request_stats import CURRENT, CountedEngine, RequestStats
from hermes_cli.server.settings import ServerSettings

T = TypeVar("T")
HI = {"messages": [{"role": "user", "content": "Hi"}]}


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(coroutine, 20))


async def all_of(engine: CountedEngine) -> list[Event]:
    async with aclosing(engine.generate(GenerationRequest(("abc",)))) as events:
        return [event async for event in events]


def test_tokens_of_all_generations_of_a_request_are_added_up() -> None:
    async def story() -> RequestStats:
        engine = CountedEngine(FakeEngine([["a", "b"]]), "demo", Metrics())
        tally = RequestStats(float("inf"))
        CURRENT.set(tally)
        found = await asyncio.gather(all_of(engine), all_of(engine))
        assert all(isinstance(events[-1], Done) for events in found)
        return tally

    tally = run(story())
    assert (tally.model, tally.prompt_tokens, tally.completion_tokens) == ("demo", 6, 4)
    assert tally.first_token is not None


def test_without_a_request_there_is_no_limit() -> None:
    engine = CountedEngine(FakeEngine([["a"]]), "demo", Metrics())
    assert len(run(all_of(engine))) == 2


@pytest.mark.parametrize("before", [[], ["a", "b"]])
def test_a_request_ends_when_its_time_is_over(before: list[str]) -> None:
    async def story() -> list[int]:
        fake = FakeEngine([[*before, asyncio.Event()]])
        CURRENT.set(RequestStats(0 if not before else asyncio.get_running_loop().time() + 0.05))
        with pytest.raises(NotReadyError, match="longer than the server allows"):
            await all_of(CountedEngine(fake, "demo", Metrics()))
        assert not getattr(asyncio.current_task(), "cancelling", int)()
        await asyncio.sleep(0)  # nothing is left that would cancel this
        return fake.cancelled

    assert run(story()) in ([0], [])


def test_who_cancels_is_not_told_of_a_limit() -> None:
    async def story() -> list[int]:
        fake = FakeEngine([[asyncio.Event()]])
        CURRENT.set(RequestStats(asyncio.get_running_loop().time() + 100))
        task = asyncio.create_task(all_of(CountedEngine(fake, "demo", Metrics())))
        for _ in range(5):
            await asyncio.sleep(0)
        assert fake.requests
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return fake.cancelled

    assert run(story()) == [0]


def test_errors_pass() -> None:
    engine = CountedEngine(FakeEngine([[EngineError("broken.", hint="-")]]), "demo", Metrics())
    with pytest.raises(EngineError, match="broken"):
        run(all_of(engine))


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_whose_time_is_over_gets_an_error(*, stream: bool) -> None:
    with served(ServerSettings(timeout=0.1), engine=lambda _: FakeEngine([["a", asyncio.Event()]])) as running:
        answer = running.post("/v1/chat/completions", {**HI, "stream": stream})
        if stream:
            events = [line.removeprefix("data: ") for line in answer.body.decode().split("\n\n") if line]
            assert "longer than the server allows" in json.loads(events[-1])["error"]["message"]
        else:
            assert (answer.status, answer.error["code"]) == (503, "not_ready")
        assert running.healthy()
