"""POST /v1/responses, and GET and DELETE /v1/responses/{id} for those that are kept."""

from __future__ import annotations

import secrets
import time
from contextlib import aclosing
from typing import TYPE_CHECKING

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from hermes_cli.errors import ContextFullError
from hermes_cli.generation import Done
from hermes_cli.server.answering import Answering
from hermes_cli.server.errors import Problem, too_long
from hermes_cli.server.named_events import described, encoded
from hermes_cli.server.openai.responses_objects import Deleted, ResponseObject
from hermes_cli.server.openai.responses_order import response_order
from hermes_cli.server.openai.responses_schemas import ResponseRequest  # noqa: TC001 - FastAPI reads it
from hermes_cli.server.openai.responses_writing import Writing
from hermes_cli.server.openai.turns import TurnSent
from hermes_cli.server.security import GuardedRoute

if TYPE_CHECKING:
    from hermes_cli.errors import HermesError
    from hermes_cli.generation import TurnRequest
    from hermes_cli.server.answering import Outlet
    from hermes_cli.server.openai.responses_order import ResponseOrder
    from hermes_cli.server.openai.responses_store import Store
    from hermes_cli.server.pool import Pool

router = APIRouter(route_class=GuardedRoute, tags=["OpenAI"])
EVENTS = (
    "Events as OpenAI documents them, `response.created` first and `response.completed`, `response.incomplete` or "
    "`response.failed` last; each has a `type` and a `sequence_number`."
)


@router.post(
    "/v1/responses",
    response_class=Response,
    responses=described(ResponseObject, EVENTS),
    summary="Answer a conversation, and keep it",
)
async def create_response(request: Request, body: ResponseRequest) -> Response:
    """OpenAI's Responses; fields that nobody here knows are ignored."""
    store: Store = request.app.state.responses
    client: str = request.state.client
    previous = body.previous_response_id
    earlier = store.items(client, previous) if previous else []
    if earlier is None:
        return _unknown(previous or "", 400, "previous_response_id", "previous_response_not_found")
    order = await response_order(body, client, earlier, lambda name: store.item(client, name))
    answer = _Answer(request.app.state.pool, store, client, body, order)
    work = answer.stream if body.stream else answer.whole
    return Answering(work, stream=bool(body.stream), error_event=answer.error_event)


@router.get(
    "/v1/responses/{response_id}",
    response_class=Response,
    responses=described(ResponseObject),
    summary="A response that is kept",
)
async def get_response(request: Request, response_id: str) -> Response:
    """As it was given; the ones of other clients are not to be had."""
    kept = request.app.state.responses.response(request.state.client, response_id)
    if kept is None:
        return _unknown(response_id, 404, "response_id", "response_not_found")
    return Response(kept, media_type="application/json")


@router.delete(
    "/v1/responses/{response_id}",
    response_class=Response,
    responses=described(Deleted),
    summary="Forget a response",
)
async def delete_response(request: Request, response_id: str) -> Response:
    """Responses that went on from it stay."""
    if not request.app.state.responses.drop(request.state.client, response_id):
        return _unknown(response_id, 404, "response_id", "response_not_found")
    return Response(encoded(Deleted(response_id)), media_type="application/json")


def _unknown(name: str, status: int, param: str, code: str) -> Response:
    message = f"there is no response {name[:100]!a} here: only the latest are kept, in memory, and each for a day."
    return Problem(status, message, param, code).response()


class _Answer:
    """One request at work."""

    def __init__(self, pool: Pool, store: Store, client: str, body: ResponseRequest, order: ResponseOrder) -> None:
        self._pool, self._store, self._client = pool, store, client
        self._body, self._asked = body, order
        self._name, self._created = f"resp_{secrets.token_hex(24)}", int(time.time())
        self._writing: Writing | None = None

    async def stream(self, outlet: Outlet) -> None:
        """Send every event as it comes."""
        await self._answer(outlet)

    async def whole(self, outlet: Outlet) -> None:
        """Send all of it at the end."""
        await outlet.whole(encoded(await self._answer(None)))

    def error_event(self, error: HermesError) -> bytes:
        """The end of a stream that has begun."""
        writing = self._writing or Writing(self._response("", None), TurnSent(), summary=False)
        return writing.failed(error)

    async def _answer(self, outlet: Outlet | None) -> ResponseObject:
        order = self._asked.chat.chat.order
        async with self._pool.use(order.model, keep_alive=order.keep_alive) as served:
            turn = self._asked.chat.turn(served)
            sent = TurnSent(logprobs=turn.top_logprobs is not None)
            response = self._response(served.name, turn)
            self._writing = writing = Writing(response, sent, summary=self._asked.summary)
            try:
                async with aclosing(served.chatter.answer(turn)) as events:
                    async for event in events:
                        done = event if isinstance(event, Done) else None
                        data = writing.take(sent.feed(event), done)
                        if done:
                            self._keep(writing.response)
                        if outlet and data:
                            await outlet.write(data)
            except ContextFullError as error:
                raise too_long(error, order.requested(served), "input") from None
        return writing.response

    def _keep(self, response: ResponseObject) -> None:
        if response.store:
            output = [msgspec.to_builtins(item) for item in response.output]
            self._store.put(self._client, response.id, encoded(response), self._asked.items, output)

    def _response(self, model: str, turn: TurnRequest | None) -> ResponseObject:
        """What is known before anything is written; `turn` is None before there is a model."""
        body, sampling = self._body, turn.sampling if turn else None
        reasoning = body.reasoning or {}
        chosen = body.tool_choice
        return ResponseObject(
            id=self._name,
            created_at=self._created,
            model=model or body.model or "",
            instructions=body.instructions,
            previous_response_id=body.previous_response_id or None,
            store=body.store is not False,
            max_output_tokens=body.max_output_tokens,
            temperature=sampling.temperature if sampling else 0.0,
            top_p=sampling.top_p if sampling else 0.0,
            top_logprobs=body.top_logprobs or 0,
            text={
                "format": {"type": "text"},
                **{key: one for key, one in (body.text or {}).items() if one is not None},
            },
            reasoning={"effort": reasoning.get("effort"), "summary": reasoning.get("summary")},
            tools=body.tools or [],
            tool_choice="auto" if chosen is None else chosen,
            parallel_tool_calls=body.parallel_tool_calls is not False,
            metadata=body.metadata or {},
        )
