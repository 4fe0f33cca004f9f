"""One model of a server: what is known of it, whether it is loaded, and the requests that wait for it or use it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from hermes_cli.engine.protocol import Engine, ModelInfo
from hermes_cli.generation import THINK_END, ChatModel

if TYPE_CHECKING:
    import asyncio

    from hermes_cli.server.served_models import ServedModel

State = Literal["unloaded", "loading", "ready", "failed"]


@dataclass(frozen=True)
class ReadyModel:
    """A model that stays loaded while a request uses it; `think` is for requests that do not say whether to reason."""

    name: str
    chat_model: ChatModel
    info: ModelInfo
    think: bool | None = None
    strict_think: bool = False  # as in `ServedModel`
    think_end: str = THINK_END


class Capabilities(Struct, frozen=True):
    """Abilities of a model; None where they are not known before it is loaded."""

    tools: bool | None
    reasoning: bool | None
    json: bool = True
    embeddings: bool = False


class ModelObject(Struct, frozen=True, kw_only=True):
    """A model that is served. Size in bytes, `created` in seconds since 1970.

    Clients look for the context length under several names, and some take the first number that looks like one: so
    there are only numbers that a request can really use.
    """

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    context_length: int
    max_model_len: int
    aliases: list[str]
    state: State
    capabilities: Capabilities
    quantization: str | None
    parameters: int | None
    size: int
    slots: int


class PooledModel:
    """A model in the pool, with the requests that wait for it and those that use it."""

    def __init__(self, planned: ServedModel, engine: Engine) -> None:
        self.planned, self.engine = planned, engine
        self.loaded: ReadyModel | None = None
        self.loading: asyncio.Task[None] | None = None
        self.leaving: asyncio.Future[None] | None = None  # another model needs its memory; done when it is unloaded
        self.waiting: set[object] = set()
        self.working: set[object] = set()
        self.used = 0  # last, on the pool's own clock
        self.idle_seconds = planned.idle_seconds
        self.timer: asyncio.TimerHandle | None = None
        self.failed = False

    @property
    def idle(self) -> bool:
        """Return whether it is loaded and no request needs it."""
        return self.loaded is not None and not (self.working or self.waiting or self.loading)

    def describe(self) -> ModelObject:
        """Return what clients are told of it."""
        planned, loaded = self.planned, self.loaded
        known = planned.model.known
        tools = loaded.chat_model.takes_tools if loaded else known.tools if known else None
        context = loaded.info.context if loaded else planned.model.context
        grammars = loaded.info.grammars if loaded else True
        capabilities = Capabilities(tools, known.reasoning is not None if known else None, json=grammars)
        if planned.model.pooling:
            capabilities = Capabilities(tools=False, reasoning=False, json=False, embeddings=True)
        return ModelObject(
            id=planned.name,
            created=planned.created,
            owned_by=planned.owner,
            context_length=context,
            max_model_len=context,
            aliases=list(planned.aliases),
            state="loading" if self.loading else "ready" if loaded else "failed" if self.failed else "unloaded",
            capabilities=capabilities,
            quantization=planned.quantization,
            parameters=loaded.info.parameters if loaded else None,
            size=planned.size,
            slots=planned.model.slots,
        )

    def stop_timer(self) -> None:
        """Let it stay loaded however long it is idle."""
        if self.timer:
            self.timer.cancel()
            self.timer = None
