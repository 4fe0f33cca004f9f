"""Models at a service behind `protocol.Engine`, as `hermes serve` has them: at message level, within a limit.

The service makes the prompts and reads the answers. What it is not asked for is refused by name: completions of plain
text, log-probabilities, grammars, tool calls that must come.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, NoReturn, cast

from hermes_cli.chat.conversation import ChatOptions
from hermes_cli.chat.endpoint.address import EndpointAddress
from hermes_cli.chat.endpoint.endpoint_backend import connect
from hermes_cli.engine.protocol import Done, Embeddings, EngineStats, ModelInfo
from hermes_cli.errors import QueueFullError, UsageError
from hermes_cli.generation import ChatModel, Event, TurnRequest
from hermes_cli.models.attached import AttachedModel
from hermes_cli.prompting.choose import TemplateChoice

if TYPE_CHECKING:
    from hermes_cli.engine.protocol import Engine
    from hermes_cli.engine.protocol import Event as EngineEvent
    from hermes_cli.engine.request import EmbeddingRequest, GenerationRequest
    from hermes_cli.prompting.render import Format

CHARACTERS_PER_TOKEN = 3  # to estimate an answer that was cancelled; fewer than texts have
MESSAGE_TOKENS = 16  # that a service may put around a message
_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repeat_penalty", "presence_penalty", "frequency_penalty")


@dataclass
class Budget:
    """USD that may be spent as long as the server runs, by the service's prices for a million tokens."""

    limit: float  # in USD
    prices: tuple[float, float]  # of tokens that are read, and of those that are written
    spent: float = 0.0  # in USD, so far
    reserved: float = 0.0  # in USD, for requests that run

    def cost(self, read: float, written: float) -> float:
        """Return the USD for so many tokens."""
        return (read * self.prices[0] + written * self.prices[1]) / 1e6

    def allowed(self, name: str, read: int, most: int) -> int:
        """Return the tokens that a request may write, at most so many, if it reads so many.

        Raises:
            UsageError: the limit is reached.
            QueueFullError: it will be if the requests that run cost the most that they may.
        """
        left = self.limit - self.spent - self.reserved - self.cost(read, 0)
        allowed = min(most, int(left / self.cost(0, 1))) if self.prices[1] and left > 0 else most if left > 0 else 0
        if allowed > 0:
            return allowed
        if self.reserved and self.spent + self.cost(read, 1) < self.limit:
            raise QueueFullError(
                f"what is left of the limit of {name}, ${self.limit - self.spent:.2f}, is kept for requests that run.",
                hint="ask again when they have ended; a smaller max_tokens keeps less.",
            )
        raise UsageError(
            f"{name} has used up its limit of ${self.limit:.2f} since the server started.",
            hint="the operator can raise spend_limit in serve.yaml and start the server again.",
        )


@dataclass(frozen=True, kw_only=True)
class HostedModel(AttachedModel):
    """A model at a service."""

    identifier: str  # the service's name for it
    endpoint: EndpointAddress = field(repr=False)  # where the service is, with the key
    budget: Budget
    # is called with tool calls that cannot be run
    warn: Callable[[str], object] = field(default=lambda _: None, compare=False)

    @property
    def details(self) -> dict[str, Any]:
        """Return its fields for `--json`."""
        return {"upstream": self.endpoint.base, "upstream_model": self.identifier, "spend_limit": self.budget.limit}

    def engine(self, **_: Any) -> Engine:  # noqa: ANN401 - the arguments of `ServableModel.engine`
        """Make what stands in the place of an engine."""
        return HostedEngine(self)

    async def open_chat(self, engine: Engine) -> ChatModel:
        """Return the model that answers."""
        return HostedChatModel(engine, await engine.load(), self)


@dataclass(frozen=True)
class HostedTurn:
    """A turn for a service, in the place of a request for tokens."""

    turn: TurnRequest
    options: ChatOptions


class HostedEngine:
    """Implements `protocol.Engine` for a model at a service, which takes messages and no tokens."""

    def __init__(self, model: HostedModel) -> None:
        self._model = model

    async def load(self) -> ModelInfo:
        """Return what is known of the model."""
        return self._model.info

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[EngineEvent, None]:
        """Yield the events of a `HostedTurn`; refuse other requests."""
        if not isinstance(request, HostedTurn):
            self._refuse()
        model, budget, turn = self._model, self._model.budget, request.turn
        options, read = request.options, min(_most_read(turn), model.context)
        most = min(options.max_tokens or model.context, model.context)
        allowed = budget.allowed(model.name, read, most)
        if allowed < most:
            options = replace(options, max_tokens=allowed)
        reserved = budget.cost(read, allowed)
        budget.reserved += reserved
        written, cost, backend = 0, 0.0, None
        try:
            backend = await connect(model.endpoint, model.identifier, lambda _: None, model.warn)
            async with aclosing(backend.generate(turn.messages, turn.tools, options)) as events:
                async for event in events:
                    if isinstance(event, Done) and event.prompt_tokens:
                        cost = budget.cost(event.prompt_tokens, event.completion_tokens)
                    written += len(getattr(event, "text", ""))
                    yield cast("EngineEvent", event)
        finally:
            budget.reserved -= reserved
            if backend is not None and not cost:  # it was cancelled, or the service tells no usage
                characters = sum(len(message.content or "") for message in turn.messages)
                cost = budget.cost(characters / CHARACTERS_PER_TOKEN, written / CHARACTERS_PER_TOKEN)
            budget.spent += cost
            if backend is not None:
                await backend.close()

    async def embed(self, request: EmbeddingRequest) -> Embeddings:  # noqa: ARG002 - as the protocol has it
        """Raise UsageError."""
        self._refuse()

    async def tokenize(self, text: str, *, special: bool = True) -> list[int]:  # noqa: ARG002 - as above
        """Raise UsageError."""
        self._refuse()

    async def detokenize(self, tokens: list[int]) -> bytes:  # noqa: ARG002 - as above
        """Raise UsageError."""
        self._refuse()

    async def stats(self) -> EngineStats:
        """Return that it is there."""
        return EngineStats("ready")

    async def unload(self) -> None:
        """Do nothing: it takes no memory here."""

    async def close(self) -> None:
        """Do nothing."""

    def _refuse(self) -> NoReturn:
        model = self._model
        raise UsageError(
            f"{model.name} is at {model.endpoint.host}, which takes messages and no plain text or tokens.",
            hint="ask for a chat completion.",
        )


@dataclass(frozen=True)
class ServiceFormat:
    """Stand-in for the prompt format of a model that no catalogue knows: the service may do everything."""

    takes_tools: bool = True
    reasons: bool = True
    source: str = ""


class HostedChatModel(ChatModel):
    """A model at a service, in the place of one that is prompted here."""

    def __init__(self, engine: Engine, info: ModelInfo, model: HostedModel) -> None:
        super().__init__(engine, info, known=model.known)
        if model.known is None:
            self.choice = TemplateChoice(cast("Format", ServiceFormat()), "the service's")
        self.takes_tools, self.reasons = self.choice.format.takes_tools, self.choice.format.reasons
        self._model = model

    async def answer(self, turn: TurnRequest) -> AsyncGenerator[Event, None]:
        """Have the service generate the next turn; errors are those of `ChatModel.answer`."""
        asked = cast("GenerationRequest", HostedTurn(turn, _options(turn, self._model)))
        async with aclosing(self.engine.generate(asked)) as events:
            async for event in events:
                yield cast("Event", event)

    async def prompt(self, turn: TurnRequest) -> NoReturn:  # noqa: ARG002 - as the base class has it
        """Raise UsageError: the service makes the prompt."""
        raise UsageError(
            f"the prompt of {self._model.name} is made at {self._model.endpoint.host}, and cannot be told.",
            hint="ask a model that runs here.",
        )


def _most_read(turn: TurnRequest) -> int:
    """Return the most tokens that a turn can have for the service to read: one for each byte."""
    messages = sum(
        MESSAGE_TOKENS + len((message.content or "").encode()) + len((message.reasoning or "").encode())
        for message in turn.messages
    )
    calls = sum(len(str(call).encode()) for message in turn.messages for call in message.tool_calls)
    return messages + calls + len(json.dumps(turn.tools)) + len(json.dumps(turn.options.schema))


def _options(turn: TurnRequest, model: HostedModel) -> ChatOptions:
    """Return the options of a turn for the service; UsageError for what it is not asked for."""
    constraints = turn.constraints
    refused = {
        "log-probabilities": turn.top_logprobs is not None,
        "a grammar": constraints.answer is not None and not turn.options.schema,
        "tool_choice: required": bool(constraints.calls and constraints.calls.required),
        "an answer that goes on with what was begun": turn.continues,
    }
    if asked := [what for what, is_asked in refused.items() if is_asked]:
        raise UsageError(
            f"{' and '.join(asked)}: {model.name} is at {model.endpoint.host}, where hermes does not ask for this.",
            hint="leave it out, or ask a model that runs here.",
        )
    sampling: dict[str, Any] = {}
    if turn.sampling:
        values = asdict(turn.sampling)
        sampling = {name: values[name] for name in _SAMPLING}
        sampling |= {"seed": values["seed"]} if values["seed"] is not None else {}
    return ChatOptions(
        think=turn.options.think,
        think_budget=turn.think_budget,
        schema=turn.options.schema or None,
        sampling=sampling,
        max_tokens=turn.max_tokens,
        stops=turn.stops,
    )
