"""POST /v1/chat/completions."""

from __future__ import annotations

import secrets
import time
from contextlib import aclosing
from typing import TYPE_CHECKING

from msgspec import UNSET, structs

from hermes_cli.generation import CallArguments, CallStarted, Done, Reasoning
from hermes_cli.server.choice_stream import ContentDelta, stream_turn
from hermes_cli.server.openai.objects import (
    ChatChoice,
    ChatChunk,
    ChatCompletion,
    ChatLogprobs,
    ChatToolCall,
    ChunkChoice,
    ChunkDelta,
    DeltaFunction,
    DeltaToolCall,
    FunctionCall,
    ReplyMessage,
    chat_logprobs,
    timings,
    usage,
)
from hermes_cli.server.openai.requests import ChatRequest
from hermes_cli.server.parsed_request import parse_chat
from hermes_cli.server.routing import ApiRoute, RouteDescription
from hermes_cli.server.streaming_reply import DONE, StreamingReply, event, together

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from msgspec import UnsetType
    from starlette.requests import Request
    from starlette.responses import Response

    from hermes_cli.engine.protocol import TokenLogprobs
    from hermes_cli.generation import TurnRequest
    from hermes_cli.server.choice_stream import Delta
    from hermes_cli.server.openai.objects import CompletionUsage, Timings
    from hermes_cli.server.parsed_request import ParsedRequest
    from hermes_cli.server.pool import Pool, ReadyModel

    Take = Callable[[int, Delta | Done], Awaitable[None]]


async def chat_completions(request: Request, body: ChatRequest) -> Response:
    """Answer a conversation.

    OpenAI's Chat Completions; unknown fields are ignored.
    """
    parsed = await parse_chat(body, request.state.client)
    chat = _Chat(request.app.state.pool, parsed)
    work = chat.stream if parsed.stream else chat.whole
    return StreamingReply(work, stream=parsed.stream, problem=parsed.problem)


class _Chat:
    """One request at work."""

    def __init__(self, pool: Pool, parsed: ParsedRequest) -> None:
        self._pool, self._parsed = pool, parsed
        self._id, self._created, self._model = f"chatcmpl-{secrets.token_hex(12)}", int(time.time()), ""
        self._dones: list[Done] = []

    async def stream(self, reply: StreamingReply) -> None:
        begun: set[int] = set()

        async def take(index: int, delta: Delta | Done) -> None:
            data = self._last_chunk(index, delta) if isinstance(delta, Done) else self._chunk(index, delta)
            if index not in begun:
                begun.add(index)
                data = self._event(ChunkChoice(index, ChunkDelta(role="assistant", content=""))) + data
            await reply.write(data)

        await self._generate(take)
        if self._parsed.include_usage:
            await reply.write(self._event(None, usage([self._dones]), timings([self._dones])))
        await reply.write(DONE)

    async def whole(self, reply: StreamingReply) -> None:
        choices = [_WholeChoice() for _ in range(self._parsed.choices)]

        async def take(index: int, delta: Delta | Done) -> None:
            choices[index].take(delta)

        await self._generate(take)
        completion = ChatCompletion(
            id=self._id,
            created=self._created,
            model=self._model,
            choices=[choice.result(index) for index, choice in enumerate(choices)],
            usage=usage([self._dones]),
            timings=timings([self._dones]),
        )
        await reply.whole(completion)

    async def _generate(self, take: Take) -> None:
        """Generate all choices at once; the engine decodes the prompt once for all of them."""

        async def choice(index: int, model: ReadyModel, turn: TurnRequest) -> None:
            deltas = stream_turn(model.chat_model, turn, reasoning=self._parsed.thinking.show)
            async with aclosing(deltas):
                async for delta in deltas:
                    if isinstance(delta, Done):
                        self._dones.append(delta)
                    await take(index, delta)

        async with self._pool.use(self._parsed.model, keep_alive=self._parsed.keep_alive) as model:
            self._model = model.name
            await together([choice(index, model, turn) for index, turn in enumerate(self._parsed.turns(model))])

    def _chunk(self, index: int, delta: Delta) -> bytes:
        if isinstance(delta, ContentDelta):
            logprobs = None if delta.logprobs is None else chat_logprobs(delta.logprobs)
            return self._event(ChunkChoice(index, ChunkDelta(content=delta.text), logprobs))
        if isinstance(delta, Reasoning):
            return self._event(ChunkChoice(index, ChunkDelta(reasoning_content=delta.text, reasoning=delta.text)))
        if isinstance(delta, CallStarted):
            call = DeltaToolCall(
                index=delta.index,
                id=delta.id,
                type="function",
                function=DeltaFunction(name=delta.name, arguments=""),
            )
        else:
            call = DeltaToolCall(index=delta.index, function=DeltaFunction(arguments=delta.text))
        return self._event(ChunkChoice(index, ChunkDelta(tool_calls=[call])))

    def _last_chunk(self, index: int, done: Done) -> bytes:
        """Encode the end of a choice, with its timings where no chunk with the usage follows."""
        times = UNSET if self._parsed.include_usage else timings([[done]])
        return self._event(ChunkChoice(index, ChunkDelta(), None, done.reason), times=times)

    def _event(
        self,
        choice: ChunkChoice | None,
        used: CompletionUsage | UnsetType | None = UNSET,
        times: Timings | UnsetType = UNSET,
    ) -> bytes:
        if choice and self._parsed.include_usage:
            used = None  # until the last one
        chunk = ChatChunk(
            id=self._id,
            created=self._created,
            model=self._model,
            choices=[choice] if choice else [],
            usage=used,
            timings=times,
        )
        return event(chunk)


class _WholeChoice:
    """A choice that is put together from its deltas."""

    def __init__(self) -> None:
        self._content: list[str] = []
        self._reasoning: list[str] = []
        self._calls: list[tuple[CallStarted, list[str]]] = []
        self._logprobs: list[TokenLogprobs] | None = None
        self._done: Done | None = None

    def take(self, delta: Delta | Done) -> None:
        if isinstance(delta, ContentDelta):
            self._content.append(delta.text)
            if delta.logprobs is not None:
                self._logprobs = (self._logprobs or []) + delta.logprobs
        elif isinstance(delta, Reasoning):
            self._reasoning.append(delta.text)
        elif isinstance(delta, CallStarted):
            self._calls.append((delta, []))
        elif isinstance(delta, CallArguments):
            self._calls[-1][1].append(delta.text)
        else:
            self._done = delta

    def result(self, index: int) -> ChatChoice:
        message = ReplyMessage(content="".join(self._content) if self._content or not self._calls else None)
        if self._reasoning:
            reasoning = "".join(self._reasoning)
            message = structs.replace(message, reasoning_content=reasoning, reasoning=reasoning)
        if self._calls:
            calls = [ChatToolCall(call.id, FunctionCall(call.name, "".join(texts))) for call, texts in self._calls]
            message = structs.replace(message, tool_calls=calls)
        logprobs: ChatLogprobs | None = None if self._logprobs is None else chat_logprobs(self._logprobs)
        return ChatChoice(index, message, logprobs, self._done.reason if self._done else "stop")


ROUTES = [
    ApiRoute(
        "POST",
        "/v1/chat/completions",
        chat_completions,
        RouteDescription("OpenAI", ChatCompletion, ChatChunk),
        body=ChatRequest,
    )
]
