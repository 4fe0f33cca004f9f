"""POST /v1/chat/completions."""

from __future__ import annotations

import secrets
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from itertools import chain

from msgspec import UNSET, structs
from starlette.requests import Request
from starlette.responses import Response

from hermes_cli.errors import UsageError
from hermes_cli.generation import CallArguments, CallStarted, ChatModel, Done, Reasoning, TurnRequest
from hermes_cli.server.choice_stream import ContentDelta, Delta, stream_turn
from hermes_cli.server.openai.objects import (
    ChatChoice,
    ChatChunk,
    ChatCompletion,
    ChatToolCall,
    ChunkChoice,
    ChunkDelta,
    DeltaFunction,
    DeltaToolCall,
    FinishReason,
    FunctionCall,
    InputTokens,
    ReplyMessage,
    ServerToolCall,
    chat_logprobs,
    timings,
    usage,
)
from hermes_cli.server.openai.requests import ChatRequest
from hermes_cli.server.parsed_request import FieldNames, ParsedRequest, parse_chat
from hermes_cli.server.pool import Pool
from hermes_cli.server.pooled_model import ReadyModel
from hermes_cli.server.request_stats import current_warnings
from hermes_cli.server.routing import ApiRoute
from hermes_cli.server.server_tools import ServerTools, ToolRound, run_turns, wants_tools
from hermes_cli.server.streaming_reply import DONE, StreamingReply, event, json_reply, together

Take = Callable[[int, Delta | ToolRound | Done], Awaitable[None]]


async def chat_completions(request: Request, body: ChatRequest) -> Response:
    """Answer a conversation.

    OpenAI's Chat Completions; unknown fields are ignored.
    """
    tools, names = request.app.state.server_tools, frozenset[str]()
    if tools and wants_tools(body):
        body, names = await tools.offer(body)
    elif body.server_tools:
        raise UsageError(
            "cannot be had: this server runs no tools.", field="server_tools", hint="offer tools of your own."
        )
    parsed = await _parse(body, request.state.client)
    chat = _Chat(request.app.state.pool, parsed, tools, names, older=bool(body.functions))
    return StreamingReply(chat.stream if parsed.stream else chat.whole, stream=parsed.stream, problem=parsed.problem)


async def count_chat_tokens(request: Request, body: ChatRequest) -> Response:
    """Count the tokens of a conversation.

    As llama.cpp's server does: tokens of the prompt, however many fit.
    """
    return await count_input(request.app.state.pool, await _parse(body, request.state.client))


async def count_input(pool: Pool, parsed: ParsedRequest) -> Response:
    """Count the tokens of a prompt; nothing is generated."""
    async with pool.use(parsed.model) as model:
        turn = parsed.turns(model)[0]
        return json_reply(InputTokens(input_tokens=await model.chat_model.count(turn) + model.info.adds_bos))


async def _parse(body: ChatRequest, client: str) -> ParsedRequest:
    """Parse a request; in the older form of tools there is one call in a turn."""
    if not body.functions:
        if body.function_call not in (None, "none", "auto"):
            raise UsageError("is given without functions.", field="function_call", hint="say tool_choice instead.")
        return await parse_chat(body, client)
    if body.tools:
        raise UsageError("cannot go together with tools.", field="functions", hint="offer tools.")
    choice = body.function_call
    if isinstance(choice, dict):
        choice = {"type": "function", "function": choice}
    tools = [{"type": "function", "function": function} for function in body.functions]
    newer = body.model_copy(update={"tools": tools, "tool_choice": choice, "parallel_tool_calls": False})
    return await parse_chat(newer, client, FieldNames({"tools": "functions", "tool_choice": "function_call"}))


class _Chat:
    """One request at work; `older` is one with `functions`."""

    def __init__(
        self, pool: Pool, parsed: ParsedRequest, tools: ServerTools | None, tool_names: frozenset[str], *, older: bool
    ) -> None:
        self._pool, self._parsed, self._older = pool, parsed, older
        self._tools, self._tool_names = tools, tool_names
        self._dones: list[Done] = []
        self._rounds: list[list[Done]] = []  # of turns whose calls the server ran
        self._chunk = ChatChunk(
            id=f"chatcmpl-{secrets.token_hex(12)}",
            created=int(time.time()),
            model="",  # known when the pool has lent it
            choices=[],
        )

    async def stream(self, reply: StreamingReply) -> None:
        begun: set[int] = set()

        async def take(index: int, delta: Delta | ToolRound | Done) -> None:
            if isinstance(delta, Done):  # with its timings where no chunk with the usage follows
                reason = _finish_reason(delta, older=self._older)
                chunk = structs.replace(self._chunk, choices=[ChunkChoice(index, ChunkDelta(), None, reason)])
                if not self._parsed.include_usage:
                    chunk = structs.replace(
                        chunk, timings=timings([*self._rounds, [delta]]), warnings=current_warnings()
                    )
                data = event(chunk)
            else:
                data = event(structs.replace(self._chunk, choices=[_chunk_choice(index, delta, older=self._older)]))
            if index not in begun:
                begun.add(index)
                first = ChunkChoice(index, ChunkDelta(role="assistant", content=""))
                data = event(structs.replace(self._chunk, choices=[first])) + data
            await reply.write(data)

        await self._generate(take)
        if self._parsed.include_usage:
            dones = [*self._rounds, self._dones]
            chunk = structs.replace(self._chunk, usage=usage(dones), timings=timings(dones))
            await reply.write(event(structs.replace(chunk, warnings=current_warnings())))
        await reply.write(DONE)

    async def whole(self, reply: StreamingReply) -> None:
        choices: list[list[Delta | ToolRound | Done]] = [[] for _ in range(self._parsed.choices)]

        async def take(index: int, delta: Delta | ToolRound | Done) -> None:
            choices[index].append(delta)

        await self._generate(take)
        completion = ChatCompletion(
            id=self._chunk.id,
            created=self._chunk.created,
            model=self._chunk.model,
            choices=[_whole_choice(index, deltas, older=self._older) for index, deltas in enumerate(choices)],
            usage=usage([*self._rounds, self._dones]),
            timings=timings([*self._rounds, self._dones]),
            warnings=current_warnings(),
        )
        await reply.whole(completion)

    async def _generate(self, take: Take) -> None:
        """Generate all choices at once; the engine decodes the prompt once for all of them."""

        async def generate(index: int, model: ReadyModel, turn: TurnRequest) -> None:
            if self._parsed.echo and (begun := turn.messages[-1].content):
                await take(index, ContentDelta(begun))
            deltas = self._deltas(model.chat_model, turn)
            async with aclosing(deltas):
                async for delta in deltas:
                    if isinstance(delta, ToolRound):
                        self._rounds.append([delta.done])
                    elif isinstance(delta, Done):
                        self._dones.append(delta)
                    await take(index, delta)

        async with self._pool.use(self._parsed.model, keep_alive=self._parsed.keep_alive) as model:
            self._chunk = structs.replace(self._chunk, model=model.name)
            await together([generate(index, model, turn) for index, turn in enumerate(self._parsed.turns(model))])

    def _deltas(self, model: ChatModel, turn: TurnRequest) -> AsyncGenerator[Delta | ToolRound | Done, None]:
        show = self._parsed.thinking.show
        if self._tools and self._tool_names:
            return run_turns(model, turn, self._tools, self._tool_names, reasoning=show)
        return stream_turn(model, turn, reasoning=show)


def _server_calls(delta: ToolRound) -> list[ServerToolCall]:
    return [
        ServerToolCall(call.name, call.arguments, result.text, result.failed, round(result.seconds, 3))
        for call, result in delta.runs
    ]


def _finish_reason(done: Done, *, older: bool) -> FinishReason:
    return "function_call" if older and done.reason == "tool_calls" else done.reason


def _chunk_choice(index: int, delta: Delta | ToolRound, *, older: bool) -> ChunkChoice:
    if isinstance(delta, ToolRound):
        return ChunkChoice(index, ChunkDelta(server_tool_calls=_server_calls(delta)))
    if isinstance(delta, ContentDelta):
        logprobs = None if delta.logprobs is None else chat_logprobs(delta.logprobs)
        return ChunkChoice(index, ChunkDelta(content=delta.text), logprobs)
    if isinstance(delta, Reasoning):
        return ChunkChoice(index, ChunkDelta(reasoning_content=delta.text, reasoning=delta.text))
    if isinstance(delta, CallStarted):
        function = DeltaFunction(name=delta.name, arguments="")
        call = DeltaToolCall(index=delta.index, id=delta.id, type="function", function=function)
    else:
        call = DeltaToolCall(index=delta.index, function=DeltaFunction(arguments=delta.text))
    if older:
        return ChunkChoice(index, ChunkDelta(function_call=call.function))
    return ChunkChoice(index, ChunkDelta(tool_calls=[call]))


def _whole_choice(index: int, deltas: Sequence[Delta | ToolRound | Done], *, older: bool) -> ChatChoice:
    contents = [delta for delta in deltas if isinstance(delta, ContentDelta)]
    reasoning = "".join(delta.text for delta in deltas if isinstance(delta, Reasoning)) or UNSET
    arguments: dict[int, list[str]] = defaultdict(list)
    for delta in deltas:
        if isinstance(delta, CallArguments):
            arguments[delta.index].append(delta.text)
    calls = [
        ChatToolCall(delta.id, FunctionCall(delta.name, "".join(arguments[delta.index])))
        for delta in deltas
        if isinstance(delta, CallStarted)
    ]
    message = ReplyMessage(
        content="".join(delta.text for delta in contents) if contents or not calls else None,
        reasoning_content=reasoning,
        reasoning=reasoning,
        tool_calls=UNSET if older else calls or UNSET,
        function_call=calls[0].function if older and calls else UNSET,
        server_tool_calls=[call for delta in deltas if isinstance(delta, ToolRound) for call in _server_calls(delta)]
        or UNSET,
    )
    tokens = [delta.logprobs for delta in contents if delta.logprobs is not None]
    logprobs = chat_logprobs(chain.from_iterable(tokens)) if tokens else None
    done = next(delta for delta in deltas if isinstance(delta, Done))
    return ChatChoice(index, message, logprobs, _finish_reason(done, older=older))


ROUTES = [
    ApiRoute(
        "POST",
        "/v1/chat/completions",
        chat_completions,
        tag="OpenAI",
        body=ChatRequest,
        reply=ChatCompletion,
        stream=ChatChunk,
    ),
    ApiRoute(
        "POST",
        "/v1/chat/completions/input_tokens",
        count_chat_tokens,
        tag="OpenAI",
        body=ChatRequest,
        reply=InputTokens,
    ),
]
