"""POST /v1/messages and /v1/messages/count_tokens."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import aclosing, asynccontextmanager, suppress
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request
from starlette.responses import Response

from hermes_cli.errors import ContextFullError, HermesError
from hermes_cli.generation import Done
from hermes_cli.server.answering import Answering
from hermes_cli.server.anthropic.objects import Counted, MessageObject, MessageUsage
from hermes_cli.server.anthropic.order import message_order
from hermes_cli.server.anthropic.schemas import CountRequest, MessageRequest  # noqa: TC001 - FastAPI reads them
from hermes_cli.server.anthropic.writing import Writing, error_event
from hermes_cli.server.errors import TooLongError
from hermes_cli.server.named_events import described, encoded
from hermes_cli.server.openai.turns import TurnSent
from hermes_cli.server.security import GuardedRoute

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from hermes_cli.generation import TurnRequest
    from hermes_cli.server.answering import Outlet
    from hermes_cli.server.openai.as_chat import Ordered
    from hermes_cli.server.pool import Pool, Served

PING = b'event: ping\ndata: {"type":"ping"}\n\n'
EVENTS = "Events as Anthropic documents them: `message_start` first, and `message_stop` or `error` last."

router = APIRouter(route_class=GuardedRoute, tags=["Anthropic"])


@router.post(
    "/v1/messages", response_class=Response, responses=described(MessageObject, EVENTS), summary="Answer a conversation"
)
async def create_message(request: Request, body: MessageRequest) -> Response:
    """Anthropic's Messages; fields that nobody here knows are ignored."""
    answer = _Answer(request.app.state.pool, await message_order(body, request.state.client))
    work = answer.stream if body.stream else answer.whole
    return Answering(work, stream=bool(body.stream), shape="anthropic", error_event=error_event, ping=PING)


@router.post(
    "/v1/messages/count_tokens",
    response_class=Response,
    responses=described(Counted),
    summary="Count the tokens of a conversation",
)
async def count_tokens(request: Request, body: CountRequest) -> Response:
    """Tokens that the model would read, however many fit."""
    pool: Pool = request.app.state.pool
    asked = await message_order(body, request.state.client)
    async with pool.use(asked.chat.order.model) as served:
        counted = Counted(await _prompt_tokens(served, asked.turn(served)))
    return Response(encoded(counted), media_type="application/json")


async def _prompt_tokens(served: Served, turn: TurnRequest) -> int:
    """As the engine counts them, with the token that it begins every prompt with."""
    return await served.chatter.count(turn) + served.loaded.adds_bos


class _Answer:
    """One request at work."""

    def __init__(self, pool: Pool, asked: Ordered) -> None:
        self._pool, self._asked = pool, asked

    async def stream(self, outlet: Outlet) -> None:
        """Send every event as it comes."""
        await self._answer(outlet)

    async def whole(self, outlet: Outlet) -> None:
        """Send all of it at the end."""
        await outlet.whole(encoded(await self._answer(None)))

    async def _answer(self, outlet: Outlet | None) -> MessageObject:
        order = self._asked.chat.order
        async with self._pool.use(order.model, keep_alive=order.keep_alive) as served:
            turn = self._asked.turn(served)
            sent = TurnSent(reasoning=self._asked.chat.thinking.show)
            name = f"msg_{secrets.token_hex(12)}"
            writing = Writing(MessageObject(id=name, model=served.name, usage=MessageUsage(0, 0, 0)))
            try:
                async with (
                    _counting(served, turn, wanted=outlet is not None) as count,
                    aclosing(served.chatter.answer(turn)) as events,
                ):
                    async for event in events:
                        data = writing.take(sent.feed(event), event if isinstance(event, Done) else None)
                        if outlet and data:
                            begin = b"" if writing.begun else writing.begin(await count)
                            await outlet.write(begin + data)
            except ContextFullError as error:
                raise _too_long(error) from None
        return writing.message


@asynccontextmanager
async def _counting(served: Served, turn: TurnRequest, *, wanted: bool) -> AsyncGenerator[asyncio.Task[int], None]:
    """Count the prompt while the model reads it: streams tell that before anything else."""

    async def count() -> int:
        return await _prompt_tokens(served, turn) if wanted else 0

    task = asyncio.create_task(count())
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, HermesError):
            await task


def _too_long(error: ContextFullError) -> ContextFullError:
    """In Anthropic's words, from which Claude Code knows that it has to shorten the conversation."""
    prompt, context = error.prompt_tokens, error.context_length
    if prompt is None or context is None:
        return error
    return TooLongError(f"prompt is too long: {prompt} tokens > {context} maximum", hint=error.hint, field="messages")
