"""Who a conversation is with: a model in this program's own engine, or one behind an address (endpoint/)."""

from __future__ import annotations

import json
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from hermes_cli.chat.bounds import bounds_for
from hermes_cli.generation import Message, PromptOptions, TurnRequest

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping, Sequence

    from hermes_cli.chat.options import ChatOptions
    from hermes_cli.generation import ChatModel, Constraints, Event


class ChatBackend(Protocol):
    """What answers. `tools` are declarations in OpenAI's shape; `messages` are without a system prompt."""

    @property
    def name(self) -> str:
        """Of the model, as it is shown."""

    @property
    def context(self) -> int | None:
        """Tokens that one request can use, prompt and answer together; None where nobody says."""

    @property
    def reasons(self) -> bool | None:
        """Whether it can reason before it answers; None where nobody says."""

    @property
    def takes_tools(self) -> bool | None:
        """Whether it can call tools; None where nobody says."""

    @property
    def details(self) -> Mapping[str, Any]:
        """What `--json` tells of it: context_length in tokens, and what else there is to say."""

    def answer(
        self, messages: Sequence[Message], tools: Sequence[dict[str, Any]], manner: ChatOptions
    ) -> AsyncGenerator[Event, None]:
        """The next turn: content, reasoning and calls as they come, and `Done` at the end. Closing it cancels.

        Raises:
            ContextFullError: the messages alone fill the context.
            HermesError: it cannot answer; the message says why.
        """

    async def count(
        self, messages: Sequence[Message], tools: Sequence[dict[str, Any]], manner: ChatOptions
    ) -> int | None:
        """Tokens of the prompt that would be read; None where nobody can count them.

        Raises:
            HermesError: as `answer`.
        """

    async def rest(self) -> None:
        """Give memory back until it is asked again."""

    async def close(self) -> None:
        """Give back what it holds, for good."""


class LocalBackend:
    """A model in an engine of this program, which belongs to it."""

    def __init__(self, chatter: ChatModel, name: str, details: Mapping[str, Any], warn: Callable[[str], None]) -> None:
        """Nothing is asked yet.

        Args:
            chatter: the model.
            name: as it is shown.
            details: what `--json` tells of it.
            warn: is told once what of the tools' declarations cannot be enforced.
        """
        self._chatter, self.name, self.details, self._warn = chatter, name, details, warn
        self._held: tuple[str, Constraints] | None = None

    @property
    def context(self) -> int:
        """Tokens that one request can use."""
        return self._chatter.loaded.context

    @property
    def reasons(self) -> bool:
        """Whether its prompt format has a way to ask for reasoning."""
        return self._chatter.choice.format.reasons

    @property
    def takes_tools(self) -> bool:
        """Whether its prompt format has tools."""
        return self._chatter.choice.format.takes_tools

    async def answer(
        self, messages: Sequence[Message], tools: Sequence[dict[str, Any]], manner: ChatOptions
    ) -> AsyncGenerator[Event, None]:
        """As `ChatBackend` says.

        Raises:
            ContextFullError: the messages alone fill the context.
            HermesError: it cannot answer.
        """
        async with aclosing(self._chatter.answer(self._turn(messages, tools, manner))) as events:
            async for event in events:
                yield event

    async def count(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]], manner: ChatOptions) -> int:
        """Tokens of the prompt, with the one that the engine begins it with.

        Raises:
            HermesError: the template refuses it, or the engine failed.
        """
        turn = self._turn(messages, tools, replace(manner, schema=None))
        return await self._chatter.count(turn) + self._chatter.loaded.adds_bos

    async def rest(self) -> None:
        """Unload the model; the next question loads it again."""
        await self._chatter.engine.unload()

    async def close(self) -> None:
        """Give its memory back, for good."""
        await self._chatter.engine.close()

    def _turn(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]], manner: ChatOptions) -> TurnRequest:
        """What the conversation is for the model."""
        system = [Message("system", manner.system)] if manner.system else []
        return TurnRequest(
            [*system, *messages],
            tools,
            wishes=PromptOptions(think=manner.think, schema=False if manner.schema is None else manner.schema),
            bounds=self._bounds(tools, manner.schema),
            sampling=replace(self._chatter.recommended_sampling(), **_fields(manner)),
            max_tokens=manner.max_tokens,
            think_budget=manner.think_budget,
            stops=manner.stops,
            shift=manner.shift,
        )

    def _bounds(self, tools: Sequence[dict[str, Any]], schema: object) -> Constraints:
        """The bounds of all turns with the same tools and schema."""
        key = json.dumps([list(tools), schema], sort_keys=True, default=str)
        if self._held is None or self._held[0] != key:
            self._held = key, bounds_for(tools, schema, self._warn)
        return self._held[1]


def _fields(manner: ChatOptions) -> dict[str, Any]:
    return dict(manner.sampling)
