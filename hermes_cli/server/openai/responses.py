"""POST /v1/responses, and GET and DELETE /v1/responses/{id} for those that are kept in memory for a while."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, Literal, NamedTuple

import msgspec
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from hermes_cli.errors import UsageError
from hermes_cli.generation import Done
from hermes_cli.server.choice_stream import stream_turn
from hermes_cli.server.errors import RefusedError
from hermes_cli.server.openai.chat import count_input
from hermes_cli.server.openai.objects import InputTokens
from hermes_cli.server.openai.requests import ChatRequest, ResponseRequest
from hermes_cli.server.openai.response_input import Item, ResponseMessages, input_items
from hermes_cli.server.openai.response_store import ResponseStore
from hermes_cli.server.openai.response_stream import DeletedResponse, ResponseObject, ResponseStream
from hermes_cli.server.openai.response_tools import ResponseTools
from hermes_cli.server.parsed_request import FieldNames, ParsedRequest, check_fields, parse_chat
from hermes_cli.server.pool import Pool
from hermes_cli.server.request_stats import CURRENT, MOST_WARNINGS, aside, current_warnings, warn
from hermes_cli.server.routing import ApiRoute
from hermes_cli.server.streaming_reply import StreamingReply, encode, json_reply
from hermes_cli.threads import in_turn

EVENTS = (
    "Events as OpenAI documents them, `response.created` first and `response.completed`, `response.incomplete` or "
    "`response.failed` last; each has a `type` and a `sequence_number`."
)
LOGPROBS = "message.output_text.logprobs"
_NAMES = {
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
    "max_completion_tokens": "max_output_tokens",
}
_JSON = ("input", "tool_choice", "text", "reasoning", "chat_template_kwargs")
LONGEST_REPEATED = 1_000  # characters of a field that nothing here reads, such as `prompt_cache_key`
MOST_REPEATED = 1 << 20  # characters of the tools, and of a choice or a format: a stream has them in three events
_SUMMARIES = ("auto", "concise", "detailed")
_SAME = ResponseRequest.model_fields.keys() & ChatRequest.model_fields.keys() - {
    "reasoning",
    "tool_choice",
    "tools",
    "top_logprobs",
}
REFUSED: dict[str, tuple[object, str]] = {
    "background": (False, "wait for the response, or stream it."),
    "background_options": (None, "wait for the response, or stream it."),
    "context_management": ([], "nothing is cut or summed up here; send fewer items."),
    "conversation": (None, "give previous_response_id, or the items themselves."),
    "moderation": (None, "leave it out: nothing here would do what it says."),
    "prompt": (None, "give instructions and input."),
    "truncation": ("disabled", "nothing is cut here; send fewer items."),
}
"""Fields that would change the result: the value that asks for nothing, and what to do instead."""


class InputItemsQuery(BaseModel):
    """The query of /v1/responses/{response_id}/input_items."""

    order: Literal["asc", "desc"] = "desc"
    limit: int = Field(20, ge=1, le=100)
    after: str = ""  # the id of the last item that is known


class ResponseParts(NamedTuple):
    """A request, the items of its whole conversation, and its tools."""

    parsed: ParsedRequest
    items: list[Item]
    tools: ResponseTools


async def create_response(request: Request, body: ResponseRequest) -> Response:
    """Answer a conversation, and keep it.

    OpenAI's Responses; unknown fields are ignored.
    """
    parsed, items, tools = await _parse(request, body)
    response = ResponseStream(_response_object(body), tools, summary=_wants_summary(body))
    work = partial(_generate, request.app.state.pool, request.app.state.responses, parsed, items, response)
    return StreamingReply(work, stream=parsed.stream, problem=parsed.problem, error_event=response.failed)


async def count_input_tokens(request: Request, body: ResponseRequest) -> Response:
    """Count the tokens of a request.

    Tokens of the prompt, however many fit.
    """
    return await count_input(request.app.state.pool, (await _parse(request, body)).parsed)


async def get_response(request: Request) -> Response:
    """Return a response that is kept.

    As it was given; the ones of other clients are not found.
    """
    name = request.path_params["response_id"]
    kept = request.app.state.responses.response(request.state.client, name)
    if kept is None:
        raise _unknown(name, 404, "response_id", "response_not_found")
    return Response(kept, media_type="application/json")


async def list_input_items(request: Request, query: InputItemsQuery) -> Response:
    """List the items that a response was an answer to.

    Those of the responses that it goes on from are among them; the latest come first unless `order` is `asc`.
    """
    name = request.path_params["response_id"]
    store: ResponseStore = request.app.state.responses
    client, size = request.state.client, store.size(request.state.client, name)
    items = await in_turn(client, lambda: store.input_items(client, name), size=size)
    if items is None:
        raise _unknown(name, 404, "response_id", "response_not_found")
    items = items if query.order == "asc" else items[::-1]
    ids = [item["id"] for item in items]
    start = ids.index(query.after) + 1 if query.after in ids else 0
    page = items[start : start + query.limit]
    first, last = (page[0]["id"], page[-1]["id"]) if page else (None, None)
    more = start + len(page) < len(items)
    return json_reply({"object": "list", "data": page, "first_id": first, "last_id": last, "has_more": more})


async def delete_response(request: Request) -> Response:
    """Delete a response.

    Responses that continued it stay.
    """
    name = request.path_params["response_id"]
    if not request.app.state.responses.drop(request.state.client, name):
        raise _unknown(name, 404, "response_id", "response_not_found")
    return json_reply(DeletedResponse(name))


def _unknown(name: str, status: int, param: str, code: str) -> RefusedError:
    message = f"there is no response {name[:100]!a} here: only the latest are kept, in memory, and each for a day."
    return RefusedError(status, message, code, param=param)


async def _parse(request: Request, body: ResponseRequest) -> ResponseParts:
    """Parse a request that may go on from a stored response."""
    store: ResponseStore = request.app.state.responses
    client, previous = request.state.client, body.previous_response_id
    earlier: list[Item] | None = []
    if previous:
        if stats := CURRENT.get():
            stats.size += store.size(client, previous)
        earlier = await aside(client, lambda: store.items(client, previous))
    if earlier is None:
        raise _unknown(previous or "", 400, "previous_response_id", "previous_response_not_found")
    return await parse_response(body, client, earlier, lambda name: store.item(client, name))


async def parse_response(
    body: ResponseRequest, client: str, earlier: Sequence[Item], find: Callable[[str], Item | None]
) -> ResponseParts:
    """Parse a request that continues earlier items.

    `find` returns an item by its id, for those that are only referred to.
    """

    def translate() -> tuple[ChatRequest, FieldNames, list[Item], ResponseTools]:
        check_fields(body, REFUSED, _JSON)
        new = input_items(body.input, find)
        tools = ResponseTools(body.tools or (), new)
        warn(*tools.notes[:MOST_WARNINGS])
        conversation = ResponseMessages(body.instructions, tools)
        for item in earlier:
            conversation.add(item, "previous_response_id")
        for index, item in enumerate(new):
            conversation.add(item, f"input[{index}]")
        conversation.finish()
        fields = FieldNames({**_NAMES, **conversation.paths, **tools.paths}, "OpenAI's Responses")
        return _chat_request(body, conversation.messages, tools), fields, new, tools

    chat, fields, new, tools = await aside(client, translate)
    return ResponseParts(await parse_chat(chat, client, fields), [*earlier, *new], tools)


def _chat_request(body: ResponseRequest, messages: list[dict[str, Any]], tools: ResponseTools) -> ChatRequest:
    """Return the same request to Chat Completions. Its fields were checked, with the same types."""
    text, reasoning = body.text or {}, body.reasoning or {}
    effort, text_format = reasoning.get("effort"), text.get("format")
    if effort is not None and not isinstance(effort, str):
        raise UsageError("must be a text.", field="reasoning.effort", hint="leave it out for the default.")
    if text_format is not None and not isinstance(text_format, dict):
        raise UsageError("must be an object.", field="text.format", hint='write it like this: {"type": "text"}.')
    logprobs = bool(body.top_logprobs) or LOGPROBS in (body.include or ())
    return ChatRequest.model_construct(
        **{name: getattr(body, name) for name in _SAME},
        messages=messages,
        add_generation_prompt=True,
        tools=tools.functions,
        tool_choice=tools.choice(body.tool_choice),
        max_completion_tokens=body.max_output_tokens,
        response_format=text_format,
        reasoning_effort=effort,
        logprobs=logprobs,
        top_logprobs=body.top_logprobs if logprobs else None,
    )


def _wants_summary(body: ResponseRequest) -> bool:
    """Return whether reasoning is sent as its summary; there is no other summary than itself."""
    reasoning: Mapping[str, Any] = body.reasoning or {}
    for name in ("summary", "generate_summary"):
        wanted = reasoning.get(name)
        if wanted is not None and wanted not in (*_SUMMARIES, "none"):
            reason = f"must be one of {', '.join(_SUMMARIES)}."
            raise UsageError(reason, field=f"reasoning.{name}", hint="leave it out.")
        if wanted in _SUMMARIES:
            return True
    return False


async def _generate(
    pool: Pool,
    store: ResponseStore,
    parsed: ParsedRequest,
    items: Sequence[Item],
    response: ResponseStream,
    reply: StreamingReply,
) -> None:
    async with pool.use(parsed.model, keep_alive=parsed.keep_alive) as model:
        (turn,) = parsed.turns(model)
        response.use_model(model.name, turn.sampling, current_warnings())
        async with aclosing(stream_turn(model.chat_model, turn)) as deltas:
            async for delta in deltas:
                data = response.take(delta)
                if isinstance(delta, Done) and response.response.store:
                    output = [msgspec.to_builtins(item) for item in response.response.output]
                    kept = encode(response.response)
                    put = partial(store.put, turn.client, response.response.id, kept, items, output)
                    await aside(turn.client, put)
                if reply.stream:
                    await reply.write(data)
    if not reply.stream:
        await reply.whole(response.response)


def _response_object(body: ResponseRequest) -> ResponseObject:
    """Return what is known before there is a model."""
    reasoning = body.reasoning or {}
    named = {name: value for name, value in (body.model_extra or {}).items() if _is_repeated(name, value)}
    text = {key: value for key, value in (body.text or {}).items() if value is not None and _is_repeated(key, value)}
    choice = body.tool_choice if _fits(body.tool_choice) else None
    return ResponseObject(
        id=f"resp_{secrets.token_hex(24)}",
        created_at=int(time.time()),
        model=body.model or "",
        instructions=body.instructions,
        previous_response_id=body.previous_response_id or None,
        store=body.store is not False,
        max_output_tokens=body.max_output_tokens,
        temperature=0.0,
        top_p=0.0,
        presence_penalty=0.0,
        frequency_penalty=0.0,
        top_logprobs=body.top_logprobs or 0,
        text={"format": {"type": "text"}, **text},
        reasoning={"effort": reasoning.get("effort"), "summary": reasoning.get("summary")},
        tools=[_echoed(tool) for tool in body.tools or []] if _fits(body.tools) else [],
        tool_choice="auto" if choice is None else choice,
        parallel_tool_calls=body.parallel_tool_calls is not False,
        metadata=body.metadata or {},
        safety_identifier=named.get("safety_identifier"),
        prompt_cache_key=named.get("prompt_cache_key"),
    )


def _is_repeated(name: str, value: object) -> bool:
    """Return whether a field that nothing here reads is told again: not what would fill each event of a stream."""
    is_plain = isinstance(value, str | int | float | bool)
    return (name == "format" and _fits(value)) or (is_plain and len(name) + len(str(value)) <= LONGEST_REPEATED)


def _fits(value: object) -> bool:
    """Return whether a value has at most MOST_REPEATED characters, without looking at more of it."""
    left, values = MOST_REPEATED, [value]
    while values and left >= 0:
        part = values.pop()
        left -= len(part) if isinstance(part, str | dict | list) else 1
        if isinstance(part, dict):
            left -= sum(map(len, part))
            values.extend(part.values())
        elif isinstance(part, list):
            values.extend(part)
    return left >= 0


def _echoed(tool: Any) -> Any:  # noqa: ANN401 - as it was sent
    """Return a tool with every field that OpenAI's functions have."""
    if not isinstance(tool, dict) or tool.get("type") != "function":
        return tool
    return {"description": None, "parameters": None, "strict": None, **tool}


ITEM_LIST = {"application/json": {"schema": {"type": "object", "required": ["object", "data", "has_more"]}}}
_BY_ID = "/v1/responses/{response_id}"
ROUTES = [
    ApiRoute(
        "POST",
        "/v1/responses",
        create_response,
        tag="OpenAI",
        body=ResponseRequest,
        reply=ResponseObject,
        stream=EVENTS,
    ),
    ApiRoute(
        "POST",
        "/v1/responses/input_tokens",
        count_input_tokens,
        tag="OpenAI",
        body=ResponseRequest,
        reply=InputTokens,
    ),
    ApiRoute("GET", _BY_ID, get_response, tag="OpenAI", reply=ResponseObject),
    ApiRoute("GET", f"{_BY_ID}/input_items", list_input_items, tag="OpenAI", query=InputItemsQuery, reply=ITEM_LIST),
    ApiRoute("DELETE", _BY_ID, delete_response, tag="OpenAI", reply=DeletedResponse),
]
