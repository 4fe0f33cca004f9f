"""Models come and go as they are asked for; engines are fakes."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

import pytest
from fake_engine import LOADED, FakeEngine
from server_rig import offer

from hermes_cli.engine.protocol import ModelInfo
from hermes_cli.errors import DoesNotFitError, EngineError, HermesError, NotFoundError, NotReadyError, UsageError
from hermes_cli.server.pool import Pool
from hermes_cli.server.served_models import ServedModel

T = TypeVar("T")
FULL = DoesNotFitError("it does not fit.", hint="end other programs.")


class JumpingClock(selectors.DefaultSelector):
    """Where an event loop would wait for its next timer, the clock jumps there: no test waits, however slow it is."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "nothing will ever happen"
        self.now += max(timeout, 0)
        return super().select(0)

    def loop(self) -> asyncio.AbstractEventLoop:
        made = asyncio.SelectorEventLoop(self)
        made.time = lambda: self.now  # type: ignore[method-assign]
        made.set_default_executor(AtOnce())  # a thread would not see the clock jump
        return made


class AtOnce(ThreadPoolExecutor):
    """Runs everything where it is submitted."""

    def submit(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:  # noqa: ANN401 - any
        future: Future[T] = Future()
        try:
            future.set_result(function(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - it belongs to who waits
            future.set_exception(error)
        return future


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=JumpingClock().loop) as runner:
        return runner.run(coroutine)


class SlowEngine(FakeEngine):
    """Loads when it is told to."""

    def __init__(self, refuses: HermesError | None = None) -> None:
        super().__init__(["hi"], refuses=refuses)
        self.may_load = asyncio.Event()
        self.asked = asyncio.Event()

    async def load(self) -> ModelInfo:
        self.asked.set()
        await self.may_load.wait()
        return await super().load()


class House:
    """A pool whose memory has room for so many models."""

    def __init__(
        self, *names: str | ServedModel, room: int = 10, load_timeout: float = 10, **engines: FakeEngine
    ) -> None:
        offers = [one if isinstance(one, ServedModel) else offer(one) for one in names]
        self.engines: dict[str, FakeEngine] = {
            one.name: engines.get(one.name) or FakeEngine(["hi"], loaded=replace(LOADED, context=one.model.context))
            for one in offers
        }
        self.room, self.asked = room, 0
        self.pool = Pool(offers, lambda one: self.engines[one.name], self.check_room, load_timeout=load_timeout)

    async def check_room(self, _: ServedModel) -> HermesError | None:
        self.asked += 1
        return None if len(self.loaded) < self.room else FULL

    @property
    def loaded(self) -> list[str]:
        return [name for name, engine in self.engines.items() if engine._in_memory]  # noqa: SLF001 - the fake's

    async def touch(self, *names: str) -> None:
        for name in names:
            async with self.pool.use(name):
                pass

    def states(self) -> list[str]:
        return [card.state for card in self.pool.describe_all()]


async def settled(turns: int = 20) -> None:
    """Everything that can go on has gone on."""
    for _ in range(turns):
        await asyncio.sleep(0)


def test_the_first_model_is_the_default_and_names_are_not_particular() -> None:
    async def story() -> list[str]:
        house = House("Big", replace(offer("small", "auxiliary", "GPT-4o")))
        names = (None, "", "big", "BIG", "small", "Auxiliary", "gpt-4O")
        used = []
        for name in names:
            async with house.pool.use(name) as served:
                used.append(served.name)
        with pytest.raises(NotFoundError, match="no model 'other' here") as error:
            house.pool.describe("other")
        assert "Big, small" in error.value.hint
        return used

    assert run(story()) == ["Big", "Big", "Big", "Big", "small", "small", "small"]


def test_an_alias_can_stand_for_every_other_name() -> None:
    async def story() -> tuple[str, str]:
        house = House("big", offer("small", "*"))
        return house.pool.describe("whatever").id, house.pool.describe("big").id

    assert run(story()) == ("small", "big")


def test_a_model_is_loaded_once_however_many_ask_for_it() -> None:
    async def story() -> None:
        engine = SlowEngine()
        house = House("demo", demo=engine)
        asked = [asyncio.create_task(house.touch("demo")) for _ in range(5)]
        await engine.asked.wait()
        assert house.states() == ["loading"]
        assert not house.pool.begun
        engine.may_load.set()
        await asyncio.gather(*asked)
        assert (engine.loads, house.states(), house.pool.begun) == (1, ["ready"], True)
        assert house.asked == 0  # it was planned a moment ago

    run(story())


def test_the_context_that_is_told_is_the_one_that_can_be_used() -> None:
    async def story() -> list[int]:
        house = House("demo", demo=FakeEngine(["hi"], loaded=replace(LOADED, context=1280)))
        before = house.pool.describe().context_length
        async with house.pool.use() as served:
            return [before, served.info.context, house.pool.describe().context_length]

    assert run(story()) == [1024, 1280, 1280]


def test_the_least_recently_used_makes_room() -> None:
    async def story() -> None:
        house = House("a", "b", "c", room=2)
        await house.touch("a", "b", "a")
        assert house.loaded == ["a", "b"]
        await house.touch("c")
        assert house.loaded == ["a", "c"]
        assert (house.states(), house.pool.evictions) == (["ready", "unloaded", "ready"], 1)
        await house.touch("b")
        assert house.loaded == ["b", "c"]

    run(story())


def test_a_pinned_model_is_not_unloaded() -> None:
    async def story() -> None:
        house = House(offer("main", pin=True), "a", "b", room=2)
        async with house.pool.use("main", keep_alive=0):
            pass
        await house.touch("a", "b")
        await settled()
        assert house.loaded == ["main", "b"]
        with pytest.raises(UsageError, match="pinned"):
            await house.pool.unload("main")
        house.room = 1
        await house.pool.unload("b")
        with pytest.raises(DoesNotFitError, match="no room for a beside main, which is pinned"):
            await house.touch("a")
        assert house.loaded == ["main"]

    run(story())


def test_who_uses_a_model_that_is_unloaded_may_finish() -> None:
    async def story() -> None:
        house = House("a")
        async with house.pool.use("a"):
            unloading = asyncio.ensure_future(house.pool.unload("A"))
            again = asyncio.ensure_future(house.touch("a"))
            await settled()
            assert house.loaded == ["a"]
        await unloading
        await again
        assert house.engines["a"].loads == 2
        await house.pool.unload("a")
        await house.pool.unload("a")
        assert house.loaded == []

    run(story())


def test_as_many_leave_as_are_needed() -> None:
    async def story() -> None:
        house = House("a", "b", "large", room=3)
        await house.touch("a", "b")
        house.room = 1
        await house.touch("large")
        assert house.loaded == ["large"]

    run(story())


def test_what_works_is_never_sent_away_and_what_comes_meanwhile_takes_its_turn() -> None:
    async def story() -> list[str]:
        house, said = House("a", "b", room=1), []
        leave = asyncio.Event()

        async def first() -> None:
            async with house.pool.use("a"):
                said.append("a works")
                await leave.wait()
                said.append("a is done")

        async def then(name: str) -> None:
            async with house.pool.use(name):
                said.append(f"{name} works")

        working = asyncio.create_task(first())
        await settled()
        others = []
        for name in ("b", "a"):
            others.append(asyncio.create_task(then(name)))
            await settled()
        assert house.loaded == ["a"]
        leave.set()
        await asyncio.gather(working, *others)
        assert (house.loaded, house.pool.evictions) == (["a"], 2)
        return said

    assert run(story()) == ["a works", "a is done", "b works", "a works"]


def test_two_models_that_are_asked_for_all_the_time_both_get_their_turn() -> None:
    async def story() -> dict[str, int]:
        house, turns = House("a", "b", room=1), {"a": 0, "b": 0}

        async def client(name: str) -> None:
            for _ in range(10):
                async with house.pool.use(name):
                    turns[name] += 1
                    await asyncio.sleep(0)

        await asyncio.gather(*(client(name) for name in "aabb"))
        return turns

    assert run(story()) == {"a": 20, "b": 20}


def test_where_nothing_can_leave_the_refusal_says_why() -> None:
    async def story() -> None:
        house = House("a", "b", room=1)
        await house.touch("a")
        house.room = 0
        with pytest.raises(DoesNotFitError, match="it does not fit"):
            await house.touch("b")
        assert house.states() == ["unloaded", "failed"]
        house.room = 1
        await house.touch("b")
        assert house.states() == ["unloaded", "ready"]

    run(story())


def test_a_model_that_is_forced_is_loaded_when_nobody_else_is_left() -> None:
    async def story() -> list[str]:
        house = House("a", offer("b", force=True), room=1)
        await house.touch("a")
        house.room = 0
        await house.touch("b")
        return house.loaded

    assert run(story()) == ["b"]


def test_a_model_that_fails_to_load_is_tried_once_more_without_the_others() -> None:
    class Crowded(FakeEngine):
        async def load(self) -> ModelInfo:
            if "a" in house.loaded:
                raise EngineError("out of memory.", hint="make room.")
            return await super().load()

    house: House

    async def story() -> list[str]:
        nonlocal house
        house = House("a", "b", b=Crowded(["hi"]))
        await house.touch("a", "b")
        return house.loaded

    assert run(story()) == ["b"]


def test_who_waits_too_long_is_told_so_and_the_model_comes_all_the_same() -> None:
    async def story() -> None:
        engine = SlowEngine()
        house = House("demo", load_timeout=0.05, demo=engine)
        with pytest.raises(NotReadyError, match=r"demo is not loaded after 0\.05 seconds"):
            await house.touch("demo")
        engine.may_load.set()
        await house.touch("demo")
        assert engine.loads == 1

    run(story())


def test_the_first_model_is_waited_for_as_long_as_it_takes() -> None:
    async def story() -> bool:
        engine = SlowEngine()
        house = House("demo", load_timeout=0.01, demo=engine)
        starting = asyncio.create_task(house.pool.start())
        with pytest.raises(NotReadyError):
            await house.touch("demo")
        assert not starting.done()
        engine.may_load.set()
        await starting
        return house.pool.begun

    assert run(story())


def test_a_model_that_nobody_wants_any_more_takes_nobody_s_place() -> None:
    async def story() -> None:
        house = House("a", "b", room=1)
        async with house.pool.use("a"):
            waiting = asyncio.create_task(house.touch("b"))
            await settled()
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        await settled()
        await house.touch("a")
        assert house.engines["b"].loads == 0

    run(story())


def test_an_error_is_told_to_everybody_who_waited() -> None:
    async def story() -> list[BaseException | None]:
        engine = SlowEngine(refuses=EngineError("llama.cpp refuses.", hint="try another file."))
        house = House("demo", demo=engine)
        asked = [asyncio.create_task(house.touch("demo")) for _ in range(3)]
        await engine.asked.wait()
        engine.may_load.set()
        return await asyncio.gather(*asked, return_exceptions=True)

    found = run(story())
    assert [str(error) for error in found] == ["llama.cpp refuses."] * 3
    assert len({id(error) for error in found}) == 3  # each with a traceback of its own


@pytest.mark.parametrize(
    ("told", "asked", "stays"), [(0, -1, False), (None, -1, True), (None, 0, False), (0, None, True)]
)
def test_an_idle_model_leaves_when_it_was_told_to(told: float | None, asked: float | None, *, stays: bool) -> None:
    async def story() -> list[str]:
        house = House(offer("demo", idle_seconds=told))
        async with house.pool.use(keep_alive=asked):
            await asyncio.sleep(0.02)
            assert house.loaded
        await asyncio.sleep(0.02)
        return house.loaded

    assert bool(run(story())) is stays


@pytest.mark.parametrize(("asked", "kept"), [(None, 60), (600, 60), (5, 5), (-1, 1800)])
def test_the_operator_limits_how_long_requests_keep_a_model(asked: float | None, kept: float) -> None:
    async def story() -> list[str]:
        engine = FakeEngine(["hi"])
        house = House(offer("demo"))
        offers = [offer("demo", idle_seconds=1800)]
        pool = Pool(offers, lambda _: engine, house.check_room, load_timeout=9, most_idle_seconds=60)
        async with pool.use(keep_alive=asked):
            pass
        states = []
        for seconds in (kept - 1, 2):
            await asyncio.sleep(seconds)
            states.append(str((await engine.stats()).state))
        return states

    assert run(story()) == ["ready", "unloaded"]


def test_a_model_that_is_used_again_in_time_stays() -> None:
    async def story() -> int:
        house = House(offer("demo", idle_seconds=0.2))
        for _ in range(6):
            await house.touch("demo")
            await asyncio.sleep(0.05)
        loads = house.engines["demo"].loads
        await asyncio.sleep(0.3)
        assert house.states() == ["unloaded"]
        await house.touch("demo")
        assert house.engines["demo"].loads == loads + 1
        assert house.asked == 1  # others may have taken the memory meanwhile
        return loads

    assert run(story()) == 1


def test_a_request_that_lets_a_model_go_leaves_it_to_those_that_use_it() -> None:
    async def story() -> None:
        house = House("demo")
        async with house.pool.use():
            async with house.pool.use(keep_alive=0):
                pass
            for _ in range(10):
                await asyncio.sleep(0)
            assert house.loaded == ["demo"]

    run(story())


def test_closing_ends_everything() -> None:
    async def story() -> None:
        slow = SlowEngine()
        house = House("a", "b", b=slow)
        await house.touch("a")
        waiting = asyncio.create_task(house.touch("b"))
        await slow.asked.wait()
        await house.pool.close()
        with pytest.raises(NotReadyError, match="about to stop"):
            await waiting
        with pytest.raises(NotReadyError, match="about to stop"):
            await house.touch("b")
        assert all(engine.closed for engine in house.engines.values())

    run(story())


def test_descriptions_tell_what_is_known_before_a_model_is_loaded() -> None:
    async def story() -> Sequence[Any]:
        house = House(offer("demo", "alias", size=5, quantization="Q8_0", created=7))
        before = house.pool.describe()
        await house.touch("demo")
        return [before, house.pool.describe()]

    before, after = run(story())
    assert (before.id, before.aliases, before.size, before.quantization, before.created) == (
        "demo",
        ["alias"],
        5,
        "Q8_0",
        7,
    )
    assert (before.parameters, before.capabilities.tools, before.slots) == (None, None, 4)
    assert (after.parameters, after.capabilities.tools) == (1000, False)
