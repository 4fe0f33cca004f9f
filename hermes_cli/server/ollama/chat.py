"""POST /api/chat and /api/generate: turns as Ollama's objects, a line of JSON for each piece of a stream."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Literal

import msgspec
from msgspec import UNSET, structs
from starlette.requests import Request
from starlette.responses import Response

from hermes_cli.engine.protocol import Done, TextEvent
from hermes_cli.generation import CallArguments, CallStarted, Reasoning
from hermes_cli.prompting.normalize import repaired
from hermes_cli.server.choice_stream import ContentDelta, Delta, stream_turn
from hermes_cli.server.errors import Problem
from hermes_cli.server.ollama.requests import ollama_route, parse_chat_request, parse_prompt_request, served_name
from hermes_cli.server.ollama.schemas import (
    NANOSECONDS,
    OllamaCall,
    OllamaChatRequest,
    OllamaMessage,
    OllamaPromptRequest,
    OllamaReply,
    OllamaRequest,
    OllamaToolCall,
    timestamp,
)
from hermes_cli.server.openai.completions import generation_requests
from hermes_cli.server.openai.objects import ChatLogprob, chat_logprobs
from hermes_cli.server.parsed_request import ParsedRequest, parse_keep_alive
from hermes_cli.server.pool import Pool
from hermes_cli.server.pooled_model import ReadyModel
from hermes_cli.server.request_stats import current_warnings, warn
from hermes_cli.server.streaming_reply import StreamingReply, encode, json_reply

LINES = b"application/x-ndjson"


async def chat(request: Request, body: OllamaChatRequest) -> Response:
    """Answer a conversation; without one, load the model or, with `keep_alive` 0, unload it."""
    pool: Pool = request.app.state.pool
    if not body.messages:
        return await _load(pool, body, OllamaReply(model=body.named, created_at="", message=OllamaMessage()))
    parsed = await parse_chat_request(body, request.state.client, pool)
    return _Turn(pool, parsed, body.named, is_chat=True).reply()


async def generate(request: Request, body: OllamaPromptRequest) -> Response:
    """Answer a prompt, or continue it; without one, load the model or, with `keep_alive` 0, unload it."""
    pool: Pool = request.app.state.pool
    if not body.prompt and not body.suffix:
        return await _load(pool, body, OllamaReply(model=body.named, created_at="", response=""))
    parsed = await parse_prompt_request(body, request.state.client, pool)
    return _Turn(pool, parsed, body.named, is_chat=False).reply()


async def _load(pool: Pool, body: OllamaRequest, reply: OllamaReply) -> Response:
    name, keep_alive = served_name(pool, body.named), parse_keep_alive(body.keep_alive)
    reason: Literal["load", "unload"] = "unload" if keep_alive == 0 else "load"
    if keep_alive == 0:
        await pool.unload(name)
    else:
        async with pool.use(name, embeds=None, keep_alive=keep_alive):
            pass
    return json_reply(structs.replace(reply, created_at=timestamp(), done=True, done_reason=reason))


class _Turn:
    """One request at work."""

    def __init__(self, pool: Pool, parsed: ParsedRequest, name: str, *, is_chat: bool) -> None:
        self._pool, self._parsed, self._name, self._is_chat = pool, parsed, name, is_chat
        self._began = self._loaded = time.monotonic()

    def reply(self) -> StreamingReply:
        # While there is nothing to send, a piece without text keeps the connection open: clients skip it.
        nothing = encode(self._piece()) + b"\n"
        stream = self._parsed.stream
        return StreamingReply(
            self._stream if stream else self._whole,
            stream=stream,
            problem=self._parsed.problem,
            error_event=error_line,
            media_type=LINES,
            ping=nothing,
        )

    async def _stream(self, reply: StreamingReply) -> None:
        async with aclosing(self._pieces()) as pieces:
            async for piece in pieces:
                await reply.write(encode(piece) + b"\n")

    async def _whole(self, reply: StreamingReply) -> None:
        texts: list[str] = []
        thoughts: list[str] = []
        calls: list[OllamaToolCall] = []
        logprobs: list[ChatLogprob] = []
        async with aclosing(self._pieces()) as pieces:
            async for piece in pieces:
                message = piece.message or OllamaMessage(content=piece.response or "", thinking=piece.thinking)
                texts.append(message.content)
                thoughts.append(message.thinking or "")
                calls += message.tool_calls or []
                logprobs += piece.logprobs or []
                if piece.done:
                    whole = self._piece("".join(texts), "".join(thoughts), calls, last=piece)
                    await reply.whole(structs.replace(whole, logprobs=logprobs or UNSET))

    async def _pieces(self) -> AsyncGenerator[OllamaReply, None]:
        call: CallStarted | None = None
        arguments: list[str] = []
        async with aclosing(self._deltas()) as deltas:
            async for delta in deltas:
                if isinstance(delta, CallArguments):
                    arguments.append(delta.text)
                    continue
                if call and (finished := _tool_call(call, "".join(arguments))):  # a call is sent whole
                    yield self._piece(calls=[finished])
                call = None
                if isinstance(delta, CallStarted):
                    call, arguments = delta, []
                elif isinstance(delta, Reasoning):
                    yield self._piece(thinking=delta.text)
                elif isinstance(delta, ContentDelta):
                    logprobs = chat_logprobs(delta.logprobs).content if delta.logprobs else UNSET
                    yield structs.replace(self._piece(delta.text), logprobs=logprobs)
                else:
                    yield structs.replace(self._piece(), **self._end(delta))

    async def _deltas(self) -> AsyncGenerator[Delta | Done, None]:
        parsed = self._parsed
        async with self._pool.use(parsed.model, keep_alive=parsed.keep_alive) as model:
            self._loaded = time.monotonic()
            source = _continued(model, parsed) if parsed.prompts else self._answered(model)
            async with aclosing(source) as deltas:
                async for delta in deltas:
                    yield delta

    def _answered(self, model: ReadyModel) -> AsyncGenerator[Delta | Done, None]:
        (turn,) = self._parsed.turns(model)
        return stream_turn(model.chat_model, turn, reasoning=self._parsed.thinking.show)

    def _piece(
        self,
        text: str = "",
        thinking: str = "",
        calls: list[OllamaToolCall] | None = None,
        last: OllamaReply | None = None,  # whose counts are wanted, too
    ) -> OllamaReply:
        thought = thinking or UNSET
        reply = last or OllamaReply(model=self._name, created_at=timestamp())
        if not self._is_chat:
            return structs.replace(reply, response=text, thinking=thought)
        message = OllamaMessage(content=text, thinking=thought, tool_calls=calls or UNSET)
        return structs.replace(reply, message=message)

    def _end(self, done: Done) -> dict[str, object]:
        def nanoseconds(seconds: float) -> int:
            return round(seconds * NANOSECONDS)

        return {
            "done": True,
            "done_reason": "length" if done.reason == "length" else "stop",
            "total_duration": nanoseconds(time.monotonic() - self._began),
            "load_duration": nanoseconds(self._loaded - self._began),
            "prompt_eval_count": done.prompt_tokens,
            "prompt_eval_duration": nanoseconds(done.prompt_seconds),
            "eval_count": done.completion_tokens,
            "eval_duration": nanoseconds(done.completion_seconds),
            "warnings": current_warnings(),
        }


async def _continued(model: ReadyModel, parsed: ParsedRequest) -> AsyncGenerator[Delta | Done, None]:
    """Continue a prompt as it stands."""
    (asked,) = await generation_requests(parsed, model)
    async with aclosing(model.chat_model.engine.generate(asked)) as events:
        async for event in events:
            if isinstance(event, TextEvent):
                yield ContentDelta(repaired(event.text), list(event.logprobs) or None)
            else:
                yield event


def _tool_call(call: CallStarted, arguments: str) -> OllamaToolCall | None:
    """Return a call, or None if it was cut off: half a command is another command."""
    try:
        whole = isinstance(json.loads(arguments), dict)
    except ValueError:
        whole = False
    if not whole:
        warn(f"a call of {call.name[:100]} was cut off, and is left out.")
        return None
    return OllamaToolCall(call.id, OllamaCall(call.index, call.name, msgspec.Raw(arguments.encode())))


def error_line(error: Problem) -> bytes:
    """Encode the error that ends a stream."""
    return error.body("ollama") + b"\n"


ROUTES = [
    ollama_route("POST", "/api/chat", chat, body=OllamaChatRequest, reply=OllamaReply, stream=OllamaReply),
    ollama_route("POST", "/api/generate", generate, body=OllamaPromptRequest, reply=OllamaReply, stream=OllamaReply),
]
