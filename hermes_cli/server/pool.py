"""The models of a server: loaded when a request asks for them, unloaded when another one needs their memory.

    unloaded ──use──► loading ──► ready ──idle too long, or the least recently used when room is needed──► unloaded

One model is loaded at a time, and none is unloaded while a request uses it. All methods belong to one event loop.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hermes_cli.engine.protocol import Engine, EngineStats
from hermes_cli.errors import DoesNotFitError, EngineError, HermesError, NotFoundError, NotReadyError, UsageError
from hermes_cli.generation import ChatModel
from hermes_cli.server.pooled_model import ModelObject, PooledModel, ReadyModel

if TYPE_CHECKING:
    from hermes_cli.server.served_models import ServedModel

CheckRoom = Callable[["ServedModel"], Awaitable[HermesError | None]]

ANY = "*"  # the alias that stands for every name that no model has
SERVER_KEEP_ALIVE = -1.0  # as the server's settings say


class Pool:
    """Loads models, lends them to requests and unloads them."""

    def __init__(
        self,
        models: Sequence[ServedModel],
        engine: Callable[[ServedModel], Engine],
        check_room: CheckRoom,
        *,
        load_timeout: float,  # seconds that `use` waits for a model
        most_idle_seconds: float | None = None,  # that `keep_alive` may ask for; None is any time
    ) -> None:
        """Make a pool of models, the default first, without loading anything; each keeps its engine.

        `check_room` returns None if there is memory for one more now, else the error.
        """
        self._models: dict[str, PooledModel] = {}
        self._names: dict[str, PooledModel] = {}
        self._engine = engine
        for model in models:
            self.add(model)
        self._check_room, self._load_timeout = check_room, load_timeout
        self._most_idle_seconds = most_idle_seconds
        self._clock = itertools.count(1)
        self._one_at_a_time = asyncio.Lock()
        self._released = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._untouched = True
        self._closed = False
        self.begun = False  # a model has been loaded
        self.evictions = 0

    @asynccontextmanager
    async def use(
        self,
        name: str | None = None,  # or an alias; None or empty is the default model
        *,
        embeds: bool | None = False,  # whether it is to make embeddings, or to write text; None is either
        keep_alive: float | None = SERVER_KEEP_ALIVE,  # seconds in memory afterwards; None for ever, < 0 as set
        load_timeout: float | None = None,  # seconds to wait for it; None is the server's setting
    ) -> AsyncGenerator[ReadyModel, None]:
        """Load a model and keep it loaded until the end of `async with`.

        Raises:
            NotFoundError: no model has this name.
            UsageError: it makes embeddings, or does not, other than is asked for.
            NotReadyError: it is not loaded in time, or the server stops.
            HermesError: it cannot be loaded.
        """
        model, ticket = self._find(name, embeds), object()
        end = asyncio.get_running_loop().time() + (self._load_timeout if load_timeout is None else load_timeout)
        model.stop_timer()
        model.waiting.add(ticket)
        try:
            loaded = await self._ready(model, ticket, end)
            if model.planned.pin or (keep_alive is not None and keep_alive < 0):
                model.idle_seconds = model.planned.idle_seconds
            elif self._most_idle_seconds is None:
                model.idle_seconds = keep_alive
            else:
                model.idle_seconds = min(math.inf if keep_alive is None else keep_alive, self._most_idle_seconds)
            yield loaded
        finally:
            model.waiting.discard(ticket)
            model.working.discard(ticket)
            model.used = next(self._clock)
            self._released.set()
            self._start_timer(model)

    def add(self, planned: ServedModel) -> None:
        """Add a model behind the others, without loading it; raise UsageError if one of its names is taken."""
        names = [name.casefold() for name in (planned.name, *planned.aliases)]
        self._check_free(*names)
        model = PooledModel(planned, self._engine(planned))
        self._models[planned.name] = model
        self._names |= dict.fromkeys(names, model)

    def add_alias(self, name: str | None, alias: str) -> None:
        """Give a model one more name, as long as the server runs; raise UsageError if it is taken."""
        model = self._find(name)
        self._check_free(alias.casefold())
        self._names[alias.casefold()] = model
        model.planned = replace(model.planned, aliases=(*model.planned.aliases, alias))

    async def remove(self, name: str) -> None:
        """Remove a model, or an alias of one.

        Raises:
            NotFoundError: there is no such model.
            UsageError: it is the last one, or requests use it.
        """
        model = self._find(name)
        planned, spelled = model.planned, name.casefold()
        if spelled != planned.name.casefold():
            if self._names.pop(spelled, None) is None:  # found by `*`, which is not a name of a model
                raise NotFoundError(f"there is no model {name[:200]!r} here.", hint="see GET /v1/models")
            aliases = tuple(alias for alias in planned.aliases if alias.casefold() != spelled)
            model.planned = replace(planned, aliases=aliases)
            return
        if len(self._models) == 1 or planned.pin or model.working or model.waiting or model.loading or model.leaving:
            why = "the only model here" if len(self._models) == 1 else "pinned" if planned.pin else "in use"
            raise UsageError(f"{planned.name} is {why}.", field="model", hint="it stays.")
        del self._models[planned.name]
        self._names = {name: other for name, other in self._names.items() if other is not model}
        model.stop_timer()
        model.loaded = None
        await model.engine.close()

    def _check_free(self, *names: str) -> None:
        if taken := [name for name in names if name in self._names]:
            raise UsageError(f"{taken[0]} is a model here already.", field="model", hint="choose another name.")

    async def start(self) -> None:
        """Load the default model, however long that takes."""
        async with self.use(embeds=None, load_timeout=math.inf):
            pass

    async def unload(self, name: str | None = None) -> None:
        """Unload a model when the requests that use it are done; do nothing if it is not loaded.

        Raises:
            NotFoundError: no model has this name.
            UsageError: it is pinned.
        """
        model = self._find(name)
        if model.planned.pin:
            raise UsageError("is pinned, so it stays in memory.", field="model", hint="take `pin` out of the settings.")
        async with self._one_at_a_time:
            if model.loaded and not model.leaving:
                await self._evict(model)

    def describe_all(self) -> list[ModelObject]:
        """Describe all models, the default first."""
        return [model.describe() for model in self._models.values()]

    def describe(self, name: str | None = None) -> ModelObject:
        """Describe one model, by name or alias; None or empty is the default."""
        return self._find(name).describe()

    def loaded(self, name: str | None = None) -> ReadyModel | None:
        """Return a model if it is loaded; nothing keeps it so."""
        return self._find(name).loaded

    def seconds_left(self, name: str | None = None) -> float | None:
        """Return how long a loaded model stays in memory if nothing asks for it; None for ever."""
        model = self._find(name)
        if model.timer:
            return max(model.timer.when() - asyncio.get_running_loop().time(), 0)
        return model.idle_seconds

    def planned(self, name: str | None = None) -> ServedModel:
        """Return the plan of a model."""
        return self._find(name).planned

    async def stats(self) -> dict[str, EngineStats]:
        """Return the counters of every engine, by model."""
        stats = await asyncio.gather(*(model.engine.stats() for model in self._models.values()))
        return dict(zip(self._models, stats, strict=True))

    async def close(self) -> None:
        """Unload everything, for good; running requests end with an error."""
        self._closed = True
        for model in self._models.values():
            model.stop_timer()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(model.engine.close() for model in self._models.values()))

    def _find(self, name: str | None, embeds: bool | None = None) -> PooledModel:  # noqa: FBT001 - as `use` has it
        """Return a model by name or alias, the first that does what is asked for if there is none."""
        fitting = [
            model.planned.name
            for model in self._models.values()
            if embeds is None or embeds == (model.planned.model.pooling is not None)
        ]
        default = next(iter(fitting or self._models))
        model = self._names.get((name or default)[:512].casefold()) or self._names.get(ANY)
        if model is None:
            hint = f"there is {', '.join(self._models)}; see GET /v1/models"
            raise NotFoundError(f"there is no model {(name or '')[:200]!r} here.", hint=hint)
        if model.planned.name not in fitting:
            beside = f"serve one beside it: hermes serve {model.planned.name} FILE.gguf"
            raise UsageError(
                f"is {model.planned.name}, which "
                + ("writes text and makes no embeddings." if embeds else "makes embeddings and writes no text."),
                field="model",
                hint=f"ask {' or '.join(fitting)}." if fitting else beside if embeds else "serve one that writes text.",
            )
        return model

    async def _ready(self, model: PooledModel, ticket: object, end: float) -> ReadyModel:
        """Wait for the model, and count the request among those that use it."""
        while ticket not in model.working or model.loaded is None:
            if self._closed:
                raise _stopping()
            if model.leaving:
                await self._wait_until(model, model.leaving, end)
            elif model.loaded and model.loading is None:
                model.waiting.discard(ticket)
                model.working.add(ticket)
            else:
                model.loading = model.loading or self._begin(self._load(model))
                await self._wait_until(model, model.loading, end)
        return model.loaded

    async def _wait_until(self, model: PooledModel, future: asyncio.Future[Any], end: float) -> None:
        """Wait for a future that others may wait for, too."""
        left = max(end - asyncio.get_running_loop().time(), 0)
        done, _ = await asyncio.wait({future}, timeout=None if math.isinf(left) else left)
        if not done:
            raise NotReadyError(
                f"{model.planned.name} is not loaded after {self._load_timeout:g} seconds.",
                hint="try again; it may be loaded by then.",
            )
        if future.cancelled():
            raise _stopping()
        if error := future.exception():
            # A copy: raising one error in several tasks would mix their tracebacks.
            raise copy(error) if isinstance(error, HermesError) else error

    async def _load(self, model: PooledModel) -> None:
        try:
            async with self._one_at_a_time:
                await self._make_room(model)
                model.loaded = await self._open(model)
            model.failed, self.begun = False, True
            model.working |= model.waiting  # before anybody can take its memory away again
            model.waiting.clear()
        except HermesError as error:
            model.failed = not isinstance(error, NotReadyError)
            raise
        finally:
            model.loading = None
            self._start_timer(model)

    async def _open(self, model: PooledModel) -> ReadyModel:
        """Load a model; if that fails while others hold memory, once more without them."""
        planned, known = model.planned, model.planned.model.known
        template = None if planned.model.pooling else planned.model.template
        opening = planned.open_chat or (lambda engine: ChatModel.open(engine, known=known, template=template))
        try:
            chat_model = await opening(model.engine)
        except EngineError:
            idle = [other for other in self._models.values() if other.idle and not other.planned.pin]
            if not idle:
                raise
            for other in idle:
                await self._unload(other)
            chat_model = await opening(model.engine)
        return ReadyModel(
            planned.name, chat_model, chat_model.loaded, planned.think, planned.strict_think, planned.think_end
        )

    async def _make_room(self, model: PooledModel) -> None:
        """Unload models, the least recently used first, until there is room; wait for one that is in use.

        Raise HermesError if there is none without other models, NotReadyError if no request wants it any more.
        """
        if self._untouched:  # planned just before, when nothing was loaded
            self._untouched = False
            return
        while (error := await self._check_room(model.planned)) is not None:
            others = [other for other in self._models.values() if other is not model and other.loaded]
            pinned = [other.planned.name for other in others if other.planned.pin]
            others = [other for other in others if not other.planned.pin]
            if not others:
                if model.planned.model.forced:
                    return
                if pinned:
                    raise DoesNotFitError(
                        f"there is no room for {model.planned.name} beside {', '.join(pinned)}, which "
                        f"{'is' if len(pinned) == 1 else 'are'} pinned.",
                        hint=error.hint,
                    )
                raise error
            await self._evict(min(others, key=lambda other: (not other.idle, other.used)), model)

    async def _evict(self, model: PooledModel, wanted: PooledModel | None = None) -> None:
        """Unload a model when the requests that use it are done; new ones wait until it is back.

        Give up if no request waits for the model that is wanted in its place.
        """
        model.leaving = left = asyncio.get_running_loop().create_future()
        try:
            while model.working and (wanted is None or wanted.waiting):
                self._released.clear()
                await self._released.wait()
            if wanted and not wanted.waiting:
                raise NotReadyError(f"no request waits for {wanted.planned.name} any more.", hint="ask again.")
            await self._unload(model)
            self.evictions += wanted is not None
        finally:
            left.set_result(None)
            model.leaving = None

    async def _unload(self, model: PooledModel) -> None:
        model.stop_timer()
        model.loaded = None
        await model.engine.unload()

    def _start_timer(self, model: PooledModel) -> None:
        if model.idle and model.idle_seconds is not None and not self._closed:
            model.stop_timer()

            async def expire() -> None:
                if model.idle:
                    await self._unload(model)

            loop = asyncio.get_running_loop()
            model.timer = loop.call_later(model.idle_seconds, lambda: self._begin(expire()))

    def _begin(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # Those who waited have its error; perhaps none did.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task


def _stopping() -> NotReadyError:
    return NotReadyError("the server is about to stop.", hint="ask again when it is back.")
