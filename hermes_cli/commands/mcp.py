"""`hermes mcp`: an MCP server over standard input and output, so that other agents can use a local Hermes."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer
from pydantic import Field

from hermes_cli.commands.completing import models
from hermes_cli.commands.options import CONTEXT, VerboseOption, argument, with_console
from hermes_cli.console import Console, Voice
from hermes_cli.errors import ExitCode, HermesError
from hermes_cli.planning.quality import Purpose

if TYPE_CHECKING:
    from anyio.abc import ObjectSendStream
    from mcp.shared.message import SessionMessage

    from hermes_cli.server.pool import Pool
    from hermes_cli.server.settings import ServerSettings

MAX_REQUEST = 32 << 20  # bytes, as `hermes serve` has it
MAX_COMMANDS = 2  # of ours that run at once: each is a process
Name = Annotated[str, Field(max_length=4096)]
INSTRUCTIONS = "A Hermes model that runs on this machine, and what is known of which Hermes models fit it."


@with_console
def command(
    console: Console,
    name: Annotated[
        str | None, argument("[NAME]", "Model that answers; none is the best that is installed.", models)
    ] = None,
    context: Annotated[
        int | None,
        typer.Option(**CONTEXT, help="Tokens of context. Default: the longest that fits."),
    ] = None,
    keep_alive: Annotated[
        str, typer.Option(metavar="TIME", help="How long the idle model stays in memory: 300, 5m, never.")
    ] = "10m",
    verbose: VerboseOption = False,
) -> None:
    """Offer the tools chat, recommend and plan to an agent that starts this command as an MCP server.

    claude mcp add hermes -- hermes mcp hermes-3:8b

    hermes chat demo --mcp "hermes mcp demo"
    """
    from hermes_cli.server.settings import ModelEntry, ServerSettings

    entry = ModelEntry(model=name or "", context=context, keep_alive=keep_alive)
    settings = ServerSettings(models=(entry,) if name else (), context=context, keep_alive=keep_alive)
    # Standard output belongs to the protocol; what is said goes to standard error, which agents keep as a log.
    aside = Console(Voice.QUIET, color=False, out=sys.stderr)
    if sys.stdin.isatty():
        console.note("this waits for an agent: start it as an MCP server, as hermes mcp --help shows. Ctrl-C leaves.")
    asyncio.run(_serve(settings, aside, verbose=verbose))


async def _serve(settings: ServerSettings, console: Console, *, verbose: bool) -> None:
    from mcp.server.mcpserver import MCPServer
    from mcp.server.stdio import stdio_server

    import hermes_cli

    server = MCPServer("hermes", instructions=INSTRUCTIONS, version=hermes_cli.__version__, log_level="ERROR")
    model = _Model(settings, console, verbose=verbose)
    server.tool()(model.chat)
    server.tool()(recommend)
    server.tool()(plan)
    protocol, requests = server._lowlevel_server, _Requests(_take_stdin())  # noqa: SLF001 - as its run_stdio_async
    try:
        async with stdio_server(stdin=requests) as (incoming, outgoing):  # type: ignore[arg-type]  # it is iterated
            requests.replies = outgoing
            await protocol.run(incoming, outgoing, protocol.create_initialization_options())
    finally:
        await model.close()


def _take_stdin() -> BinaryIO:
    """Return standard input as a file of its own; children find it empty."""
    requests, empty = os.dup(0), os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    return os.fdopen(requests, "rb", closefd=False)  # a thread may still read it at the end


class _Requests:
    """The lines of a client. The SDK says nothing to one that it cannot read: its caller would wait for ever."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.replies: ObjectSendStream[SessionMessage] | None = None

    async def __aiter__(self) -> AsyncIterator[str]:
        while line := await asyncio.to_thread(self._file.readline, MAX_REQUEST + 1):
            if len(line) > MAX_REQUEST:
                while line and not line.endswith(b"\n"):
                    line = await asyncio.to_thread(self._file.readline, MAX_REQUEST)
                await self._refuse(None, f"a request has at most {MAX_REQUEST:,} bytes")
            elif (text := line.decode("utf-8", "replace").strip()) and (readable := await self._readable(text)):
                yield readable

    async def _readable(self, text: str) -> str | None:
        """Return a request that the SDK can read; None if there is none, which the client is told."""
        from mcp_types import jsonrpc_message_adapter

        from hermes_cli.prompting.normalize import repaired

        value: object = None
        with suppress(ValueError, RecursionError):
            jsonrpc_message_adapter.validate_json(text, by_name=False)
            return text
        with suppress(ValueError, RecursionError):  # halves of characters are JSON for JavaScript, not for the SDK
            value = json.loads(text)
            whole = repaired(json.dumps(value, ensure_ascii=False))
            jsonrpc_message_adapter.validate_json(whole, by_name=False)
            return whole
        number = value.get("id") if isinstance(value, dict) else None
        await self._refuse(number if type(number) in {int, str} else None, "this is no request that can be read")
        return None

    async def _refuse(self, number: int | str | None, reason: str) -> None:
        from mcp.shared.message import SessionMessage
        from mcp_types import PARSE_ERROR, ErrorData, JSONRPCError

        error = JSONRPCError(jsonrpc="2.0", id=number, error=ErrorData(code=PARSE_ERROR, message=reason))
        if self.replies:
            await self.replies.send(SessionMessage(error))


_commands = asyncio.Semaphore(MAX_COMMANDS)


class _Model:
    """The model that answers: planned with the first question, and in memory as `keep_alive` says."""

    def __init__(self, settings: ServerSettings, console: Console, *, verbose: bool) -> None:
        self._settings, self._console, self._verbose = settings, console, verbose
        self._opening: asyncio.Task[Pool] | None = None

    async def chat(
        self,
        prompt: str,
        system: str = "",
        max_tokens: Annotated[int, Field(ge=1)] | None = None,
        think: bool = False,  # noqa: FBT001 - an argument of a tool has a name
    ) -> str:
        """Ask the local Hermes model; it sees this prompt and nothing else.

        Args:
            prompt: the question or task, with all that is needed to answer it.
            system: who the model is to be, or what it has to observe.
            max_tokens: the longest answer, in tokens.
            think: let it reason first, if it can; the reasoning is not returned.
        """
        from mcp.server.mcpserver.exceptions import ToolError

        from hermes_cli.server.choice_stream import ContentDelta, stream_turn
        from hermes_cli.server.openai.requests import ChatRequest
        from hermes_cli.server.parsed_request import parse_chat

        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": prompt})
        body = {"messages": messages, "max_tokens": max_tokens, "chat_template_kwargs": {"enable_thinking": think}}
        answer = ""
        try:
            if self._opening is None or (self._opening.done() and self._opening.exception()):
                self._opening = asyncio.create_task(self._open())
            pool = await asyncio.shield(self._opening)
            parsed = await parse_chat(ChatRequest.model_validate(body), "mcp")
            async with pool.use(parsed.model) as model:
                deltas = stream_turn(model.chat_model, parsed.turns(model)[0], reasoning=False)
                async with aclosing(deltas):
                    async for delta in deltas:
                        if isinstance(delta, ContentDelta):
                            answer += delta.text
        except HermesError as error:
            raise ToolError(f"{error.message} {error.hint}") from None
        return answer

    async def close(self) -> None:
        """Unload the model."""
        if self._opening and self._opening.done() and not self._opening.exception():
            await self._opening.result().close()

    async def _open(self) -> Pool:
        from hermes_cli.commands.serving import check_room, planned_models
        from hermes_cli.server.pool import Pool

        models = await asyncio.to_thread(planned_models, self._settings, self._console)
        return Pool(
            models,
            lambda served: served.model.engine(verbose=self._verbose),
            check_room,
            load_timeout=self._settings.load_timeout,
        )


async def recommend(purpose: Purpose = "chat", model: Name | None = None) -> str:
    """Recommend which Hermes model, quantization and context fit this machine, with speed and memory, as JSON.

    Args:
        purpose: what it is for.
        model: only this model, such as hermes-4:14b.
    """
    document = await _own_command("recommend", "--json", "--for", purpose, *(["--", model] if model else []))
    del document["candidates"]  # all that fit, far more than an agent needs to read
    return json.dumps(document)


async def plan(model: Name, context: int | None = None) -> str:
    """Compute the memory and the speed of a model on this machine before any download, as JSON.

    Args:
        model: its name, such as hermes-3:8b:Q4_K_M, the path of a GGUF file, or owner/repository on the Hub.
        context: the context length in tokens; none is the longest that fits.
    """
    length = ["--context", str(context)] if context else []
    return json.dumps(await _own_command("plan", "--json", *length, "--", model))


async def _own_command(*arguments: str) -> dict[str, Any]:
    """Return the document that a command of ours prints; its error is the tool's."""
    from mcp.server.mcpserver.exceptions import ToolError

    if any("\0" in argument for argument in arguments):
        raise ToolError("a name has no null character")
    command = [sys.executable, "-m", "hermes_cli", *arguments]
    async with _commands:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        try:
            printed, errors = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
    if process.returncode == ExitCode.INTEGRITY:  # whose message quotes the file: not to an agent
        raise ToolError("that is not a GGUF file, or a damaged one")
    if process.returncode:
        raise ToolError(errors.decode("utf-8", "replace").strip())
    document: dict[str, Any] = json.loads(printed)
    return document
