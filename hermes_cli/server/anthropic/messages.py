"""POST /v1/messages and /v1/messages/count_tokens: Anthropic's requests, translated to chats.

Blocks become content, reasoning, calls and their results. Hints for Anthropic's cache (`cache_control`) and signatures
mean nothing here, and are left out.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from hermes_cli.errors import UsageError
from hermes_cli.generation import TurnRequest
from hermes_cli.prompting.families import shown
from hermes_cli.prompting.parts import part_text, sense_of
from hermes_cli.server.anthropic.schemas import (
    CountRequest,
    MessageObject,
    MessageRequest,
    MessageStream,
    MessageUsage,
    TokenCount,
)
from hermes_cli.server.choice_stream import stream_turn
from hermes_cli.server.errors import Problem, RefusedError
from hermes_cli.server.openai.requests import ChatRequest
from hermes_cli.server.parsed_request import ChatMessages, FieldNames, ParsedRequest, check_fields, parse_chat
from hermes_cli.server.pool import Pool
from hermes_cli.server.pooled_model import ReadyModel
from hermes_cli.server.request_stats import aside, current_warnings
from hermes_cli.server.routing import ApiRoute
from hermes_cli.server.streaming_reply import StreamingReply, cancel, json_reply
from hermes_cli.server.thinking import BUDGETS

PING = b'event: ping\ndata: {"type":"ping"}\n\n'
EVENTS = "Events as Anthropic documents them: `message_start` first, and `message_stop` or `error` last."
REFUSED: dict[str, tuple[object, str]] = {
    "container": (None, "nothing is run here; offer tools instead."),
    "mcp_servers": ([], "nothing is fetched here; offer tools instead."),
}
"""Fields that would change the result: the value that asks for nothing, and what to do instead."""
_SAME = MessageRequest.model_fields.keys() & ChatRequest.model_fields.keys() - {"messages", "tools", "tool_choice"}
_JSON = ("messages", "system", "tool_choice", "output_config", "output_format", "chat_template_kwargs")
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
_FORMAT = 'write it like this: {"type": "json_schema", "schema": {…}}.'


async def create_message(request: Request, body: MessageRequest) -> Response:
    """Answer a conversation.

    Anthropic's Messages; unknown fields are ignored.
    """
    parsed = await parse_message(body, request.state.client)
    return StreamingReply(
        partial(_generate, request.app.state.pool, parsed),
        stream=parsed.stream,
        problem=parsed.problem,
        error_event=_error_event,
        ping=PING,
    )


async def count_tokens(request: Request, body: CountRequest) -> Response:
    """Count the tokens of a conversation.

    Tokens of the prompt, however many fit.
    """
    pool: Pool = request.app.state.pool
    parsed = await parse_message(body, request.state.client)
    async with pool.use(parsed.model) as model:
        (turn,) = parsed.turns(model)
        return json_reply(TokenCount(await _prompt_tokens(model, turn)))


async def parse_message(body: CountRequest, client: str) -> ParsedRequest:
    """Parse a request; it has no `max_tokens` where it is only to be counted."""
    if (body.model_extra or {}).get("thread") is not None:
        # With this code the SDKs send the whole conversation instead, by themselves.
        details = {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}
        message = "thread is not supported: send all messages of the conversation."
        raise RefusedError(400, message, "thread_unsupported_request", param="thread", details=details)
    chat, fields = await aside(client, lambda: _translated(body))
    return await parse_chat(chat, client, fields)


def _translated(body: CountRequest) -> tuple[ChatRequest, FieldNames]:
    """Return the same request to Chat Completions, and the names of its fields."""
    check_fields(body, REFUSED, _JSON)
    conversation = MessagesInput(body.system, body.messages)
    tools = [_tool(tool) for tool in body.tools or []]
    format_field, response_format = _response_format(body)
    names = {
        **conversation.paths,
        **{f"tools[{index}].parameters": f"tools[{index}].input_schema" for index in range(len(tools))},
        "stop": "stop_sequences",
        "response_format": format_field,
        "thinking_budget_tokens": "output_config.effort",
    }
    choice = body.tool_choice or {}
    effort = (body.output_config or {}).get("effort")
    if effort is not None and (not isinstance(effort, str) or effort not in BUDGETS):
        hint = f"there are {', '.join(BUDGETS)}."
        raise UsageError(f"is {shown(effort, 40)}.", field="output_config.effort", hint=hint)
    chat = ChatRequest.model_construct(
        **{name: getattr(body, name) for name in _SAME & type(body).model_fields.keys()},
        messages=conversation.messages,
        tools=tools,
        tool_choice=_tool_choice(choice),
        parallel_tool_calls=choice.get("disable_parallel_tool_use") is not True,
        stop=body.stop_sequences if isinstance(body, MessageRequest) else None,
        include_reasoning=(body.thinking or {}).get("display") != "omitted",
        thinking_budget_tokens=None if effort is None else BUDGETS[effort],
        response_format=response_format,
    )
    return chat, FieldNames(names, "Anthropic's Messages", "anthropic")


def _tool(tool: object) -> object:
    """Return a tool in the shape of chats; one that Anthropic runs as it is, which is left out there."""
    if not isinstance(tool, dict) or tool.get("type") not in (None, "custom"):
        return tool
    function = {name: tool.get(name) for name in ("name", "description", "strict")}
    return {"type": "function", "function": {**function, "parameters": tool.get("input_schema")}}


def _tool_choice(choice: Mapping[str, Any]) -> object:
    kind = choice.get("type", "auto")
    if kind == "tool":
        return {"type": "function", "function": {"name": choice.get("name")}}
    if not isinstance(kind, str) or kind not in _CHOICES:
        raise UsageError(f"is {shown(kind, 40)}.", field="tool_choice.type", hint="there are auto, any, tool and none.")
    return _CHOICES[kind]


def _response_format(body: CountRequest) -> tuple[str, dict[str, Any] | None]:
    """Return the field that has the schema of the answer, and its value."""
    config = body.output_config or {}
    for field, value in (("output_config.format", config.get("format")), ("output_format", body.output_format)):
        if value is not None:
            if not isinstance(value, dict) or value.get("type") != "json_schema":
                raise UsageError("must be of type json_schema.", field=field, hint=_FORMAT)
            return field, value
    return "output_config.format", None


async def _prompt_tokens(model: ReadyModel, turn: TurnRequest) -> int:
    """Count tokens as the engine does, with the BOS that begins every prompt."""
    return await model.chat_model.count(turn) + model.info.adds_bos


async def _generate(pool: Pool, parsed: ParsedRequest, reply: StreamingReply) -> None:
    begun = False
    async with pool.use(parsed.model, keep_alive=parsed.keep_alive) as model:
        (turn,) = parsed.turns(model)
        message_id = f"msg_{secrets.token_hex(12)}"
        start = MessageObject(id=message_id, model=model.name, usage=MessageUsage(0, 0, 0), warnings=current_warnings())
        message = MessageStream(start)
        # Streams begin with the tokens of the prompt: they are counted while the engine decodes it.
        counting = asyncio.create_task(_prompt_tokens(model, turn)) if reply.stream else None
        try:
            async with aclosing(stream_turn(model.chat_model, turn, reasoning=parsed.thinking.show)) as deltas:
                async for delta in deltas:
                    data = message.take(delta)
                    if counting:
                        begin = b"" if begun else message.begin(await counting)
                        begun = True
                        await reply.write(begin + data)
        finally:
            if counting:
                await cancel(counting)
    if not reply.stream:
        await reply.whole(message.message)


def _error_event(error: Problem) -> bytes:
    return b"event: error\ndata: " + error.body("anthropic") + b"\n\n"


Block = dict[str, Any]


class MessagesInput(ChatMessages):
    """Anthropic's messages as those of a chat."""

    def __init__(self, system: object, messages: Sequence[object]) -> None:
        """Translate all messages."""
        super().__init__()
        if system is not None:
            self.append({"role": "system", "content": system}, "system", content="system")
        for index, message in enumerate(messages):
            self._add(message, f"messages[{index}]")
        if self.messages and self.messages[-1].get("tool_calls"):
            raise UsageError(
                "ends with calls, whose results are not there.",
                field=f"messages[{len(messages) - 1}]",
                hint="end with a message of the user.",
            )

    def _add(self, message: object, path: str) -> None:
        if not isinstance(message, dict):
            hint = 'write it like this: {"role": "user", "content": "Hi"}.'
            raise UsageError("must be an object.", field=path, hint=hint)
        role, content = message.get("role"), message.get("content")
        if role not in ("user", "assistant", "system"):
            hint = "system has a field of its own."
            raise UsageError("must be user, assistant or system.", field=f"{path}.role", hint=hint)
        if not isinstance(content, list):
            self.append({"role": role, "content": content}, path)
            return
        blocks = [(block, f"{path}.content[{index}]") for index, block in enumerate(content)]
        if role == "assistant":
            self._add_answer(blocks, path)
            return
        # Results of tools come first, since they belong to the turn before.
        for block, where in blocks:
            if _kind(block) == "tool_result":
                self._add_result(block, where)
        rest = [(block, where) for block, where in blocks if _kind(block) != "tool_result"]
        if rest or not content:
            self.append({"role": role, "content": [block for block, _ in rest]}, path)
            self.paths |= {
                f"{self.here}.content[{index}]": _place(block, where) for index, (block, where) in enumerate(rest)
            }

    def _add_result(self, block: Block, path: str) -> None:
        content = block.get("content")
        if block.get("is_error") is True and not content:
            content = "error"  # an empty text would look like success
        message = {"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": content}
        self.append(message, path, tool_call_id=f"{path}.tool_use_id")

    def _add_answer(self, blocks: Sequence[tuple[Any, str]], path: str) -> None:
        message: dict[str, Any] = {"role": "assistant"}
        self.append(message, path)
        texts: list[str] = []
        thoughts: list[str] = []
        calls: list[dict[str, Any]] = []
        for block, where in blocks:
            kind = _kind(block)
            if kind == "text":
                texts.append(_text(block, "text", where))
            elif kind == "thinking":
                thoughts.append(_text(block, "thinking", where))
            elif kind == "tool_use":
                call_path = f"{self.here}.tool_calls[{len(calls)}]"
                self.paths |= {call_path: where, f"{call_path}.arguments": f"{where}.input"}
                function = {"name": block.get("name"), "arguments": block.get("input")}
                calls.append({"id": block.get("id"), "type": "function", "function": function})
            elif not isinstance(kind, str):
                raise UsageError("is a block without a type.", field=where, hint="send the block as it was given.")
            elif kind != "redacted_thinking":
                texts.append(f"\n{part_text(block)}\n")
        message |= {"content": "".join(texts) or None, "reasoning_content": "\n\n".join(filter(None, thoughts))}
        if calls:
            message["tool_calls"] = calls


def _kind(block: object) -> object:
    return block.get("type") if isinstance(block, dict) else None


def _place(block: object, path: str) -> str:
    """Return the path of a block of a user, of pictures as Anthropic writes it.

    By that Claude Code knows which one it has to leave out, and goes on.
    """
    if not isinstance(block, dict) or not sense_of(block):
        return path
    return f"{path.replace('[', '.').replace(']', '')}.{_kind(block)}"


def _text(block: Block, name: str, where: str) -> str:
    text = block.get(name)
    if not isinstance(text, str):
        raise UsageError("must be a text.", field=f"{where}.{name}", hint="send the block as it was given.")
    return text


ROUTES = [
    ApiRoute(
        "POST", "/v1/messages", create_message, tag="Anthropic", body=MessageRequest, reply=MessageObject, stream=EVENTS
    ),
    ApiRoute("POST", "/v1/messages/count_tokens", count_tokens, tag="Anthropic", body=CountRequest, reply=TokenCount),
]
