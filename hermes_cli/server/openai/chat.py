"""POST /v1/chat/completions."""

from __future__ import annotations

import secrets
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Protocol

import msgspec
from fastapi import APIRouter, Request
from msgspec import structs
from starlette.responses import Response

from hermes_cli.errors import ContextFullError
from hermes_cli.generation import CallStarted, Content, Done, Reasoning
from hermes_cli.prompting.normalize import repaired
from hermes_cli.server.answering import Answering, together
from hermes_cli.server.errors import too_long
from hermes_cli.server.openai.logprobs import for_chat
from hermes_cli.server.openai.replies import (
    ChatCompletion,
    Choice,
    Chunk,
    Function,
    ReplyMessage,
    ToolCall,
    answers,
)
from hermes_cli.server.openai.schemas import ChatRequest  # noqa: TC001 - FastAPI reads it
from hermes_cli.server.openai.sse import ChoiceChunks, Stream, error_event
from hermes_cli.server.openai.translate import chat_order
from hermes_cli.server.openai.turns import TurnSent
from hermes_cli.server.openai.usage import timings, usage
from hermes_cli.server.security import GuardedRoute

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from hermes_cli.engine.protocol import TokenLogprobs
    from hermes_cli.generation import TurnRequest
    from hermes_cli.server.answering import Outlet
    from hermes_cli.server.openai.translate import ChatOrder
    from hermes_cli.server.openai.turns import Sent
    from hermes_cli.server.pool import Pool, Served


router = APIRouter(route_class=GuardedRoute, tags=["OpenAI"])


@router.post(
    "/v1/chat/completions",
    response_class=Response,
    responses=answers(ChatCompletion, Chunk),
    summary="Answer a conversation",
)
async def chat_completions(request: Request, body: ChatRequest) -> Response:
    """OpenAI's Chat Completions; fields that nobody here knows are ignored."""
    chat = _Chat(request.app.state.pool, await chat_order(body, request.state.client))
    work = chat.stream if chat.order.stream else chat.whole
    return Answering(work, stream=chat.order.stream, error_event=error_event)


class _Chat:
    """One request at work."""

    def __init__(self, pool: Pool, asked: ChatOrder) -> None:
        self._pool, self._asked, self.order = pool, asked, asked.order
        self._name = f"chatcmpl-{secrets.token_hex(12)}"
        self._created = int(time.time())
        self._dones: list[Done] = []

    async def stream(self, outlet: Outlet) -> None:
        """Send every event as it comes."""
        async with self._served() as served:
            stream = Stream(self._name, self._created, served.name, usage=self.order.usage)
            await self._answer(served, lambda index, turn: _Streamed(outlet, stream, index, turn))
        await outlet.write(stream.end(usage([self._dones]), timings([self._dones])))

    async def whole(self, outlet: Outlet) -> None:
        """Send all of it at the end."""
        choices: dict[int, _Whole] = {}

        def choice(index: int, turn: TurnSent) -> _Whole:
            return choices.setdefault(index, _Whole(index, turn))

        async with self._served() as served:
            await self._answer(served, choice)
        answer = ChatCompletion(
            id=self._name,
            created=self._created,
            model=served.name,
            choices=[choices[index].choice() for index in sorted(choices)],
            usage=usage([self._dones]),
            timings=timings([self._dones]),
        )
        await outlet.whole(msgspec.json.encode(answer))

    def _served(self) -> AbstractAsyncContextManager[Served]:
        return self._pool.use(self.order.model, keep_alive=self.order.keep_alive)

    async def _answer(self, served: Served, choice: Callable[[int, TurnSent], _Choice]) -> None:
        """All choices at once; the prompt is read once for all of them."""

        async def one(index: int, turn: TurnRequest) -> None:
            told = turn.top_logprobs is not None
            sent = TurnSent(reasoning=self._asked.thinking.show, logprobs=told)
            taker = choice(index, sent)
            async with aclosing(served.chatter.answer(turn)) as events:
                async for event in events:
                    done = event if isinstance(event, Done) else None
                    await taker.take(sent.feed(event), done)
                    self._dones += [done] if done else []

        try:
            await together([one(index, turn) for index, turn in enumerate(self._asked.turns(served))])
        except ContextFullError as error:
            raise too_long(error, self.order.requested(served)) from None


class _Choice(Protocol):
    """Takes what one choice says."""

    async def take(self, parts: Sequence[Sent], done: Done | None) -> None:
        """Some of it; `done` at the end."""


class _Streamed:
    """Sends it on."""

    def __init__(self, outlet: Outlet, stream: Stream, index: int, turn: TurnSent) -> None:
        self._outlet, self._stream, self._index = outlet, stream, index
        self._chunks = ChoiceChunks(stream, index, turn)
        self._begun = False

    async def take(self, parts: Sequence[Sent], done: Done | None) -> None:
        """One write for each event of the model."""
        data = b"".join(map(self._chunks.chunk, parts))
        if done:
            data += self._stream.last(self._index, done)
        if data:
            if not self._begun:
                self._begun, data = True, self._chunks.begin() + data
            await self._outlet.write(data)


class _Whole:
    """Puts it together."""

    def __init__(self, index: int, turn: TurnSent) -> None:
        self._index, self._turn = index, turn
        self._content: list[str] = []
        self._reasoning: list[str] = []
        self._calls: list[tuple[CallStarted, list[str]]] = []
        self._logprobs: list[TokenLogprobs] | None = None
        self._done: Done | None = None

    async def take(self, parts: Sequence[Sent], done: Done | None) -> None:
        """Keep it."""
        self._done = done
        for part in parts:
            if isinstance(part, Content):
                self._content.append(part.text)
                if (tokens := self._turn.logprobs(part)) is not None:
                    self._logprobs = (self._logprobs or []) + tokens
            elif isinstance(part, Reasoning):
                self._reasoning.append(part.text)
            elif isinstance(part, CallStarted):
                self._calls.append((part, []))
            else:
                self._calls[-1][1].append(part.text)

    def choice(self) -> Choice:
        """All of it."""
        message = ReplyMessage(content=whole_text(self._content) if self._content or not self._calls else None)
        if self._reasoning:
            thought = whole_text(self._reasoning)
            message = structs.replace(message, reasoning_content=thought, reasoning=thought)
        if self._calls:
            calls = [
                ToolCall(call.id, Function(repaired(call.name), whole_text(arguments)))
                for call, arguments in self._calls
            ]
            message = structs.replace(message, tool_calls=calls)
        logprobs = None if self._logprobs is None else for_chat(self._logprobs)
        return Choice(self._index, message, logprobs, self._done.reason if self._done else "stop")


def whole_text(parts: Sequence[str]) -> str:
    """Parts as one text that can be sent."""
    return repaired("".join(parts))
