"""The backend that answers a conversation: a model in this program's engine, or one behind an address (endpoint/)."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Protocol

from hermes_cli.chat.conversation import ChatOptions
from hermes_cli.generation import NO_GRAMMARS, ChatModel, Constraints, Event, Message, PromptOptions, TurnRequest


class ChatBackend(Protocol):
    """Answers turns. `messages` come without the system prompt; `tools` are declarations in OpenAI's shape."""

    @property
    def name(self) -> str:
        """Name of the model, as it is shown."""

    @property
    def context_length(self) -> int | None:
        """Tokens of prompt and answer together; None if unknown."""

    @property
    def supports_reasoning(self) -> bool | None:
        """Return whether the model can reason before it answers; None if unknown."""

    @property
    def supports_tools(self) -> bool | None:
        """Return whether the model can call tools; None if unknown."""

    @property
    def details(self) -> Mapping[str, Any]:
        """Fields of `--json` about the model: context_length in tokens, and others."""

    def generate(
        self, messages: Sequence[Message], tools: Sequence[dict[str, Any]], options: ChatOptions
    ) -> AsyncGenerator[Event, None]:
        """Yield content, reasoning and calls of the next turn as they come, then `Done`. Closing it cancels.

        Raise ContextFullError if the messages alone fill the context, HermesError if the model cannot answer.
        """

    async def count_tokens(
        self, messages: Sequence[Message], tools: Sequence[dict[str, Any]], options: ChatOptions
    ) -> int | None:
        """Return the number of tokens in the prompt, with BOS; None if it cannot be counted. Raises as `generate`."""

    async def unload(self) -> None:
        """Free memory until the next turn."""

    async def close(self) -> None:
        """Free everything for good."""


class LocalBackend:
    """A model in an engine of this program, which it closes; `warn` gets what a grammar cannot enforce of tools."""

    def __init__(self, model: ChatModel, name: str, details: Mapping[str, Any], warn: Callable[[str], None]) -> None:
        self._model, self.name, self.details, self._warn = model, name, details, warn
        self._constraints: tuple[str, Constraints] | None = None

    @property
    def context_length(self) -> int:
        """Tokens of prompt and answer together."""
        return self._model.loaded.context

    @property
    def supports_reasoning(self) -> bool:
        """Return whether the prompt format can ask for reasoning."""
        return self._model.reasons

    @property
    def supports_tools(self) -> bool:
        """Return whether the prompt format has tools."""
        return self._model.takes_tools

    async def generate(
        self, messages: Sequence[Message], tools: Sequence[dict[str, Any]], options: ChatOptions
    ) -> AsyncGenerator[Event, None]:
        """Yield the events of the next turn."""
        async with aclosing(self._model.answer(self._request(messages, tools, options))) as events:
            async for event in events:
                yield event

    async def count_tokens(
        self, messages: Sequence[Message], tools: Sequence[dict[str, Any]], options: ChatOptions
    ) -> int:
        """Return the number of tokens in the prompt, with BOS."""
        request = self._request(messages, tools, replace(options, schema=None))
        return await self._model.count(request) + self._model.loaded.adds_bos

    async def unload(self) -> None:
        """Unload the model; the next turn loads it again."""
        await self._model.engine.unload()

    async def close(self) -> None:
        """Close the engine."""
        await self._model.engine.close()

    def _request(
        self, messages: Sequence[Message], tools: Sequence[dict[str, Any]], options: ChatOptions
    ) -> TurnRequest:
        system = [Message("system", options.system)] if options.system else []
        sampling: dict[str, Any] = dict(options.sampling)
        return TurnRequest(
            [*system, *messages],
            tools,
            options=PromptOptions(think=options.think, schema=False if options.schema is None else options.schema),
            constraints=self._constraints_for(tools, options.schema),
            sampling=replace(self._model.recommended_sampling(), **sampling),
            max_tokens=options.max_tokens,
            think_budget=options.think_budget,
            stops=options.stops,
            shift=options.shift,
        )

    def _constraints_for(self, tools: Sequence[dict[str, Any]], schema: object) -> Constraints:
        """Return the constraints of a turn; the last ones are cached, as most turns have the same."""
        if schema is None and not tools:
            return Constraints()
        if schema is None and not self._model.loaded.grammars:
            if self._constraints is None:  # told once
                self._warn(NO_GRAMMARS)
                self._constraints = "", Constraints()
            return Constraints()
        key = json.dumps([list(tools), schema], sort_keys=True, default=str)
        if self._constraints is None or self._constraints[0] != key:
            from hermes_cli.prompting.structured_output import json_object, json_schema, tool_calls  # noqa: PLC0415 - llguidance

            notes: list[str] = []
            calls = tool_calls(tools, notes=notes) if tools else None
            answer = json_object() if schema is True else None if schema is None else json_schema(schema)
            for note in notes:
                self._warn(note)
            self._constraints = key, Constraints(answer, calls)
        return self._constraints[1]
