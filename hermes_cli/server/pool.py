"""The models of a server: loaded when they are asked for, and put away when another one needs their memory.

    unloaded ──use──► loading ──► ready ──idle too long, or the least recently used when room is needed──► unloaded

One model is loaded at a time. Who works with a model keeps it: nothing in use is ever put away. All of it belongs to
one event loop.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from contextlib import asynccontextmanager, contextmanager
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from hermes_cli.errors import EngineError, HermesError, NotFoundError, NotReadyError
from hermes_cli.generation import ChatModel

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator, Sequence

    from hermes_cli.catalog.models import CatalogModel
    from hermes_cli.engine.protocol import Engine, EngineStats, ModelInfo
    from hermes_cli.server.planning import ServedModel

    Room = Callable[[ServedModel], Awaitable[HermesError | None]]

ANY = "*"  # the alias that stands for every name that no model has
AS_TOLD = -1.0

State = Literal["unloaded", "loading", "ready", "failed"]


@dataclass(frozen=True)
class Served:
    """A model that stays loaded while it is held.

    Attributes:
        name: its id in the API.
        chatter: what answers.
        context: tokens that one request can use, prompt and answer together.
        known: what it is in the catalogue, if it is there.
        loaded: what it says of itself.
        think: whether it reasons where a request does not say.
    """

    name: str
    chatter: ChatModel
    context: int
    known: CatalogModel | None
    loaded: ModelInfo
    think: bool | None = None


@dataclass(frozen=True)
class Capabilities:
    """What a model can do; None where that is not known before it is loaded."""

    tools: bool | None
    reasoning: bool | None
    json: bool = True


@dataclass(frozen=True)
class ModelCard:
    """What is told of a model. Context in tokens, size in bytes, times in seconds since 1970."""

    name: str
    aliases: tuple[str, ...]
    state: State
    context_length: int
    capabilities: Capabilities
    created: int
    size: int
    quantization: str | None
    parameters: int | None
    slots: int
    owned_by: str = "hermes-llm"


class _Place:
    """A model in the pool. Requests for it wait until it is loaded, and then work."""

    def __init__(self, offer: ServedModel, engine: Engine) -> None:
        self.offer, self.engine = offer, engine
        self.served: Served | None = None
        self.loading: asyncio.Task[None] | None = None
        self.leaving: asyncio.Future[None] | None = None  # another model needs its memory; done when it has left
        self.waiting: set[object] = set()
        self.working: set[object] = set()
        self.used = 0  # when last, on the pool's own clock
        self.idle_seconds = offer.idle_seconds
        self.timer: asyncio.TimerHandle | None = None
        self.failed = False

    @property
    def idle(self) -> bool:
        """Whether it holds memory that nobody wants."""
        return self.served is not None and not (self.working or self.waiting or self.loading)

    @property
    def state(self) -> State:
        """For people and `/v1/models`."""
        if self.loading:
            return "loading"
        return "ready" if self.served else "failed" if self.failed else "unloaded"

    def stop_timer(self) -> None:
        """Somebody wants it again."""
        if self.timer:
            self.timer.cancel()
            self.timer = None


class Pool:
    """Loads, lends and puts away; `close` ends it."""

    def __init__(
        self, offers: Sequence[ServedModel], engine: Callable[[ServedModel], Engine], room: Room, *, load_timeout: float
    ) -> None:
        """Nothing is loaded yet.

        Args:
            offers: one at least, the default first; every name stands for one of them.
            engine: makes the engine of a model, which is kept as long as the pool.
            room: None if there is memory for one more now, else why not (room.py asks llama.cpp).
            load_timeout: seconds that `use` waits for a model.
        """
        self._places = {offer.name: _Place(offer, engine(offer)) for offer in offers}
        self._names = {
            name.casefold(): place
            for place in self._places.values()
            for name in (*place.offer.aliases, place.offer.name)
        }
        self._room, self._load_timeout = room, load_timeout
        self._clock = itertools.count(1)
        self._one_at_a_time = asyncio.Lock()
        self._released = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._untouched = True
        self._closed = False
        self.begun = False  # a model has been loaded
        self.evictions = 0

    @property
    def default(self) -> str:
        """The model of requests that name none."""
        return next(iter(self._places))

    @asynccontextmanager
    async def use(self, name: str | None = None, *, keep_alive: float | None = AS_TOLD) -> AsyncGenerator[Served, None]:
        """A model, loaded and kept so until the end of `async with`.

        Args:
            name: a name or an alias; None or empty is the default.
            keep_alive: seconds that it stays in memory afterwards, None for ever; negative is as the server was told.

        Raises:
            NotFoundError: no model has this name.
            NotReadyError: it is not loaded in time, or the server stops.
            HermesError: it cannot be loaded.
        """
        place = self._find(name)
        with self._holding(place, self._load_timeout) as ready:
            served = await ready
            as_told = keep_alive is not None and keep_alive < 0
            place.idle_seconds = place.offer.idle_seconds if as_told else keep_alive
            yield served

    async def start(self) -> None:
        """Load the default model, however long that takes.

        Raises:
            HermesError: it cannot be loaded.
        """
        with self._holding(self._find(None), math.inf) as ready:
            await ready

    def cards(self) -> list[ModelCard]:
        """All models, the default first."""
        return [_card(place) for place in self._places.values()]

    def card(self, name: str | None = None) -> ModelCard:
        """One model, by name or alias; None or empty is the default.

        Raises:
            NotFoundError: no model has this name.
        """
        return _card(self._find(name))

    def served(self, name: str | None = None) -> Served | None:
        """A model if it is loaded; nothing keeps it so.

        Raises:
            NotFoundError: no model has this name.
        """
        return self._find(name).served

    def offer(self, name: str | None = None) -> ServedModel:
        """How a model was planned.

        Raises:
            NotFoundError: no model has this name.
        """
        return self._find(name).offer

    async def stats(self) -> dict[str, EngineStats]:
        """Of every engine, by model."""
        found = await asyncio.gather(*(place.engine.stats() for place in self._places.values()))
        return dict(zip(self._places, found, strict=True))

    async def unload(self, name: str) -> None:
        """Put a model away if nobody wants it.

        Raises:
            NotFoundError: no model has this name.
        """
        place = self._find(name)
        if place.idle:
            await self._put_away(place)

    async def close(self) -> None:
        """Put everything away, for good; what runs ends with an error."""
        self._closed = True
        for place in self._places.values():
            place.stop_timer()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(place.engine.close() for place in self._places.values()))

    def _find(self, name: str | None) -> _Place:
        place = self._names.get((name or self.default).casefold()) or self._names.get(ANY)
        if place is None:
            raise NotFoundError(
                f"there is no model {name!r} here.", hint=f"there is {', '.join(self._places)}; see GET /v1/models"
            )
        return place

    @contextmanager
    def _holding(self, place: _Place, patience: float) -> Iterator[Coroutine[Any, Any, Served]]:
        """Wait for a model, so many seconds, and then keep it; what is yielded has to be awaited."""
        ticket = object()
        place.stop_timer()
        place.waiting.add(ticket)
        try:
            yield self._ready(place, ticket, patience)
        finally:
            place.waiting.discard(ticket)
            place.working.discard(ticket)
            place.used = next(self._clock)
            self._released.set()
            self._start_timer(place)

    async def _ready(self, place: _Place, ticket: object, patience: float) -> Served:
        """The model in memory, and its place among those that work with it."""
        end = asyncio.get_running_loop().time() + patience
        while ticket not in place.working or place.served is None:
            if self._closed:
                raise _stopping()
            if place.leaving:
                await self._patiently(place, place.leaving, end)
            elif place.served and place.loading is None:
                place.waiting.discard(ticket)
                place.working.add(ticket)
            else:
                await self._patiently(place, place.loading or self._begin_loading(place), end)
        return place.served

    async def _patiently(self, place: _Place, future: asyncio.Future[Any], end: float) -> None:
        """Wait for what others may wait for, too."""
        left = max(end - asyncio.get_running_loop().time(), 0)
        done, _ = await asyncio.wait({future}, timeout=None if math.isinf(left) else left)
        if not done:
            raise NotReadyError(
                f"{place.offer.name} is not loaded after {self._load_timeout:g} seconds.",
                hint="try again; it may be loaded by then.",
            )
        if future.cancelled():
            raise _stopping()
        if error := future.exception():
            raise _again(error)

    def _begin_loading(self, place: _Place) -> asyncio.Task[None]:
        place.loading = self._begin(self._load(place))
        return place.loading

    async def _load(self, place: _Place) -> None:
        try:
            async with self._one_at_a_time:
                await self._make_room(place)
                place.served = await self._open(place)
            place.failed, self.begun = False, True
            place.working |= place.waiting  # before anybody can take its memory away again
            place.waiting.clear()
        except HermesError as error:
            place.failed = not isinstance(error, NotReadyError)
            raise
        finally:
            place.loading = None
            self._start_timer(place)

    async def _open(self, place: _Place) -> Served:
        """Load it; if that fails while others hold memory, once more without them."""
        offer = place.offer
        try:
            chatter = await ChatModel.open(place.engine, known=offer.known, template=offer.template)
        except EngineError:
            idle = [other for other in self._places.values() if other.idle]
            if not idle:
                raise
            for other in idle:
                await self._put_away(other)
            chatter = await ChatModel.open(place.engine, known=offer.known, template=offer.template)
        return Served(offer.name, chatter, chatter.loaded.context, offer.known, chatter.loaded, offer.think)

    async def _make_room(self, place: _Place) -> None:
        """Put models away, the least recently used first, until there is room; wait for one that is at work.

        Raises:
            HermesError: there is no room though no other model is loaded.
            NotReadyError: nobody wants it any more.
        """
        if self._untouched:  # planned a moment ago, when nothing was loaded
            self._untouched = False
            return
        while (error := await self._room(place.offer)) is not None:
            others = [other for other in self._places.values() if other is not place and other.served]
            if not others:
                if place.offer.forced:
                    return
                raise error
            await self._send_away(min(others, key=lambda other: (not other.idle, other.used)), place)

    async def _send_away(self, place: _Place, wanted: _Place) -> None:
        """Have a model leave when those that work with it are done; who comes now waits until it is back.

        Raises:
            NotReadyError: nobody wants the other one any more.
        """
        place.leaving = left = asyncio.get_running_loop().create_future()
        try:
            while place.working and wanted.waiting:
                self._released.clear()
                await self._released.wait()
            if not wanted.waiting:
                raise NotReadyError(f"nobody waits for {wanted.offer.name} any more.", hint="ask again.")
            await self._put_away(place)
            self.evictions += 1
        finally:
            left.set_result(None)
            place.leaving = None

    async def _put_away(self, place: _Place) -> None:
        place.stop_timer()
        place.served = None
        await place.engine.unload()

    def _start_timer(self, place: _Place) -> None:
        if place.idle and place.idle_seconds is not None and not self._closed:
            place.stop_timer()
            loop = asyncio.get_running_loop()
            place.timer = loop.call_later(place.idle_seconds, lambda: self._begin(self._expire(place)))

    async def _expire(self, place: _Place) -> None:
        if place.idle:
            await self._put_away(place)

    def _begin(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # told to those who waited; perhaps nobody did


def _card(place: _Place) -> ModelCard:
    offer, served = place.offer, place.served
    return ModelCard(
        name=offer.name,
        aliases=offer.aliases,
        state=place.state,
        context_length=served.context if served else offer.context,
        capabilities=_capabilities(offer, served),
        created=offer.created,
        size=offer.size,
        quantization=offer.quantization,
        parameters=served.loaded.parameters if served else None,
        slots=offer.confirmed.plan.settings.slots,
    )


def _capabilities(offer: ServedModel, served: Served | None) -> Capabilities:
    known = offer.known
    tools = served.chatter.choice.format.takes_tools if served else known.tools if known else None
    return Capabilities(tools, known.reasoning is not None if known else None)


def _again(error: BaseException) -> BaseException:
    """Return a copy of an error: raising one in several tasks would mix their tracebacks."""
    return copy(error) if isinstance(error, HermesError) else error


def _stopping() -> NotReadyError:
    return NotReadyError("the server is about to stop.", hint="ask again when it is back.")
