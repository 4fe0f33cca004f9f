"""POST /v1/messages and /v1/messages/count_tokens: Anthropic's requests, translated to chats.

Blocks become content, reasoning, calls and their results. Hints for Anthropic's cache (`cache_control`) and signatures
mean nothing here, and are left out.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from hermes_cli.errors import HermesError, UsageError
from hermes_cli.prompting.normalize import check
from hermes_cli.server.anthropic.schemas import (
    CountRequest,
    MessageObject,
    MessageRequest,
    MessageStream,
    MessageUsage,
    TokenCount,
)
from hermes_cli.server.choice_stream import stream_turn
from hermes_cli.server.openai.requests import ChatRequest
from hermes_cli.server.parsed_request import FieldNames, parse_chat
from hermes_cli.server.routing import ApiRoute, RouteDescription
from hermes_cli.server.streaming_reply import StreamingReply, json_reply
from hermes_cli.server.thinking import BUDGETS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from starlette.requests import Request
    from starlette.responses import Response

    from hermes_cli.generation import TurnRequest
    from hermes_cli.server.errors import Problem
    from hermes_cli.server.parsed_request import ParsedRequest
    from hermes_cli.server.pool import Pool, ReadyModel

PING = b'event: ping\ndata: {"type":"ping"}\n\n'
EVENTS = "Events as Anthropic documents them: `message_start` first, and `message_stop` or `error` last."
REFUSED: dict[str, tuple[object, str]] = {
    "container": (None, "nothing is run here; offer tools instead."),
    "mcp_servers": ([], "nothing is fetched here; offer tools instead."),
}
"""Fields that would change the result: the value that asks for nothing, and what to do instead."""
_SAME = MessageRequest.model_fields.keys() & ChatRequest.model_fields.keys() - {"messages", "tools", "tool_choice"}
_JSON = ("messages", "system", "tools", "tool_choice", "output_config", "output_format", "chat_template_kwargs")
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
        shape="anthropic",
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
    """Parse a request; it has no `max_tokens` where it is only to be counted.

    Raises:
        UsageError: a field makes no sense, or cannot be honoured.
    """
    for name, (allowed, hint) in REFUSED.items():
        if (body.model_extra or {}).get(name) not in (None, allowed):
            raise UsageError("is not supported.", field=name, hint=hint)
    for name in _JSON:
        check(getattr(body, name), name)
    conversation = ChatMessages(body.system, body.messages)
    tools = [_tool(tool, f"tools[{index}]") for index, tool in enumerate(body.tools or [])]
    parameters = {f"tools[{index}].parameters": f"tools[{index}].input_schema" for index in range(len(tools))}
    format_field, response_format = _response_format(body)
    names = {
        **conversation.paths,
        **parameters,
        "stop": "stop_sequences",
        "response_format": format_field,
        "thinking_budget_tokens": "output_config.effort",
    }
    choice = body.tool_choice or {}
    chat = ChatRequest.model_construct(
        **{name: value for name in _SAME if (value := getattr(body, name, None)) is not None},
        messages=conversation.messages,
        tools=tools,
        tool_choice=_tool_choice(choice),
        parallel_tool_calls=choice.get("disable_parallel_tool_use") is not True,
        stop=getattr(body, "stop_sequences", None),
        include_reasoning=(body.thinking or {}).get("display") != "omitted",
        thinking_budget_tokens=_budget(body.output_config or {}),
        response_format=response_format,
    )
    return await parse_chat(chat, client, FieldNames(names, "Anthropic's Messages", "anthropic"))


def _tool(given: object, field: str) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise UsageError("must be an object.", field=field, hint="give it a name and an input_schema.")
    if given.get("type") not in (None, "custom"):
        reason = f"is {str(given['type'])[:60]}, which is not supported."
        raise UsageError(reason, field=f"{field}.type", hint="describe the tool by its input_schema.")
    schema = given.get("input_schema")
    function = {"name": given.get("name"), "description": given.get("description"), "parameters": schema}
    return {"type": "function", "function": function}


def _tool_choice(given: Mapping[str, Any]) -> object:
    kind = given.get("type", "auto")
    if kind == "tool":
        return {"type": "function", "function": {"name": given.get("name")}}
    if not isinstance(kind, str) or kind not in _CHOICES:
        raise UsageError(f"is {str(kind)[:40]}.", field="tool_choice.type", hint="there are auto, any, tool and none.")
    return _CHOICES[kind]


def _response_format(body: CountRequest) -> tuple[str, dict[str, Any] | None]:
    """Return the field that has the schema of the answer, and its value."""
    config = body.output_config or {}
    for field, given in (("output_config.format", config.get("format")), ("output_format", body.output_format)):
        if given is not None:
            if not isinstance(given, dict) or given.get("type") != "json_schema":
                raise UsageError("must be of type json_schema.", field=field, hint=_FORMAT)
            return field, given
    return "output_config.format", None


def _budget(config: Mapping[str, Any]) -> int | None:
    """Return the most tokens of reasoning, if there is any."""
    effort = config.get("effort")
    if effort is None:
        return None
    if not isinstance(effort, str) or effort not in BUDGETS:
        hint = f"there are {', '.join(BUDGETS)}."
        raise UsageError(f"is {str(effort)[:40]!r}.", field="output_config.effort", hint=hint)
    return BUDGETS[effort]


async def _prompt_tokens(model: ReadyModel, turn: TurnRequest) -> int:
    """Count tokens as the engine does, with the BOS that begins every prompt."""
    return await model.chat_model.count(turn) + model.info.adds_bos


async def _generate(pool: Pool, parsed: ParsedRequest, reply: StreamingReply) -> None:
    begun = False
    async with pool.use(parsed.model, keep_alive=parsed.keep_alive) as model:
        (turn,) = parsed.turns(model)
        name = f"msg_{secrets.token_hex(12)}"
        message = MessageStream(MessageObject(id=name, model=model.name, usage=MessageUsage(0, 0, 0)))
        deltas = stream_turn(model.chat_model, turn, reasoning=parsed.thinking.show)
        async with _counting(model, turn, wanted=reply.stream) as count, aclosing(deltas):
            async for delta in deltas:
                data = message.take(delta)
                if reply.stream:
                    begin = b"" if begun else message.begin(await count)
                    begun = True
                    await reply.write(begin + data)
    if not reply.stream:
        await reply.whole(message.message)


@asynccontextmanager
async def _counting(model: ReadyModel, turn: TurnRequest, *, wanted: bool) -> AsyncGenerator[asyncio.Task[int], None]:
    """Count the prompt while the engine decodes it: streams begin with that number."""

    async def count() -> int:
        return await _prompt_tokens(model, turn) if wanted else 0

    task = asyncio.create_task(count())
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, HermesError):
            await task


def _error_event(error: Problem) -> bytes:
    return b"event: error\ndata: " + error.body("anthropic") + b"\n\n"


ROUTES = [
    ApiRoute(
        "POST",
        "/v1/messages",
        create_message,
        RouteDescription("Anthropic", MessageObject, EVENTS),
        body=MessageRequest,
    ),
    ApiRoute(
        "POST",
        "/v1/messages/count_tokens",
        count_tokens,
        RouteDescription("Anthropic", TokenCount),
        body=CountRequest,
    ),
]


_BLOCKS = "there are text, thinking, tool_use and tool_result; these models read only text."
# Claude Code writes this line into its system prompt, with a number that is another one each time: nothing behind it
# could be reused from the request before. It means nothing to a model (anthropics/claude-code issue 24168).
_BILLING = re.compile(r"x-anthropic-billing-header:[^\n]*\n?")

Block = dict[str, Any]


class ChatMessages:
    """Messages of a chat, and the paths that their parts had in the request."""

    def __init__(self, system: object, messages: Sequence[object]) -> None:
        """Translate all messages.

        Raises:
            UsageError: a message or a block is not supported.
        """
        self.messages: list[dict[str, Any]] = []
        self.paths: dict[str, str] = {}
        if system is not None:
            self._append({"role": "system", "content": _without_billing(system)}, "system")
            self.paths[f"{self._here}.content"] = "system"
        for index, message in enumerate(messages):
            self._message(message, f"messages[{index}]")
        if self.messages and self.messages[-1]["role"] == "assistant":
            raise UsageError(
                "is of the assistant, and answers cannot be begun for the model.",
                field=f"messages[{len(messages) - 1}]",
                hint="end with a message of the user.",
            )

    def _message(self, message: object, path: str) -> None:
        if not isinstance(message, dict):
            raise UsageError(
                "must be an object.", field=path, hint='write it like this: {"role": "user", "content": "Hi"}.'
            )
        role, content = message.get("role"), message.get("content")
        if role not in ("user", "assistant", "system"):
            raise UsageError(
                "must be user, assistant or system.", field=f"{path}.role", hint="system has a field of its own."
            )
        if not isinstance(content, list):
            self._append({"role": role, "content": content}, path)
        elif role == "assistant":
            self._answer(content, path)
        else:
            self._results_and_content(role, content, path)

    def _results_and_content(self, role: str, content: list[Any], path: str) -> None:
        """Add results of tools first, since they belong to the turn before; then the rest."""
        rest: list[tuple[int, object]] = []
        for index, block in enumerate(content):
            if _kind(block) == "tool_result":
                self._result(block, f"{path}.content[{index}]")
            else:
                rest.append((index, block))
        if rest or not content:
            self._append({"role": role, "content": [block for _, block in rest]}, path)
            for at, (index, _) in enumerate(rest):
                self.paths[f"{self._here}.content[{at}]"] = f"{path}.content[{index}]"

    def _result(self, block: Block, path: str) -> None:
        content = block.get("content")
        if block.get("is_error") is True and not content:
            content = "error"  # an empty text would look like success
        self._append({"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": content}, path)
        self.paths[f"{self._here}.tool_call_id"] = f"{path}.tool_use_id"

    def _answer(self, content: list[Any], path: str) -> None:
        message: dict[str, Any] = {"role": "assistant", "content": None}
        self._append(message, path)
        texts: list[str] = []
        thoughts: list[str] = []
        calls: list[dict[str, Any]] = []
        for index, block in enumerate(content):
            where, kind = f"{path}.content[{index}]", _kind(block)
            if kind == "text":
                texts.append(_text(block, "text", where))
            elif kind == "thinking":
                thoughts.append(_text(block, "thinking", where))
            elif kind == "tool_use":
                self._call(block, where, calls)
            elif kind != "redacted_thinking":
                raise UsageError(f"is a block {_named(kind)}.", field=where, hint=_BLOCKS)
        message |= {"content": "".join(texts) or None, "reasoning_content": "\n\n".join(filter(None, thoughts))}
        if calls:
            message["tool_calls"] = calls

    def _call(self, block: Block, where: str, calls: list[dict[str, Any]]) -> None:
        here = f"{self._here}.tool_calls[{len(calls)}]"
        self.paths |= {here: where, f"{here}.arguments": f"{where}.input"}
        function = {"name": block.get("name"), "arguments": block.get("input")}
        calls.append({"id": block.get("id"), "type": "function", "function": function})

    def _append(self, message: dict[str, Any], path: str) -> None:
        self.messages.append(message)
        self.paths[self._here] = path

    @property
    def _here(self) -> str:
        return f"messages[{len(self.messages) - 1}]"


def _kind(block: object) -> object:
    return block.get("type") if isinstance(block, dict) else None


def _named(kind: object) -> str:
    return f"of type {kind[:60]}, which is not supported" if isinstance(kind, str) else "without a type"


def _text(block: Block, name: str, where: str) -> str:
    text = block.get(name)
    if not isinstance(text, str):
        raise UsageError("must be a text.", field=f"{where}.{name}", hint="send the block as it was given.")
    return text


def _without_billing(system: object) -> object:
    """Leave out what differs in each request."""
    if isinstance(system, str):
        return _BILLING.sub("", system, count=1) if system.startswith("x-anthropic-") else system
    if not isinstance(system, list):
        return system
    return [block for block in system if not (_kind(block) == "text" and _is_billing(block.get("text")))]


def _is_billing(text: object) -> bool:
    return isinstance(text, str) and _BILLING.fullmatch(text) is not None
