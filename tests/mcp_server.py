"""An MCP server that does what servers do, good and bad. Over stdio, or over HTTP: `mcp_server.py PORT KEY`."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Annotated

import anyio
import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.resolve import Elicit, Resolve
from mcp.types import ImageContent
from pydantic import BaseModel, Field
from starlette.types import ASGIApp, Receive, Scope, Send

server = MCPServer("rig", log_level="ERROR")


@server.tool()
def echo(text: str) -> str:
    """Say it back.

    Word for word.
    """
    return text


@server.tool()
def numbers() -> dict[str, list[int]]:
    """Count."""
    return {"numbers": [1, 2]}


@server.tool()
def fail(why: str) -> str:
    """Fail."""
    raise ToolError(why)


@server.tool()
async def hang(file: str) -> str:
    """Write the process to a file, wait for long, and write there that it was told to stop."""
    note = Path(file).write_text
    try:
        note(str(os.getpid()))
        await asyncio.sleep(600)
    finally:
        note("stopped")
    return "never"


@server.tool(structured_output=False)
def huge(megabytes: int) -> str:
    """Say much."""
    return "start" + "0123456789" * 100_000 * megabytes + "end"


@server.tool(structured_output=False)
def picture() -> list[ImageContent | str]:
    """Show."""
    return ["Here it is:", ImageContent(data="aGVsbG8=", mime_type="image/png")]


@server.tool()
async def learn(ctx: Context) -> str:
    """Have one tool more."""

    def learned() -> str:
        return "new"

    server.add_tool(learned)
    await ctx.notify_tools_changed()
    return "done"


class Order(BaseModel):
    """A form."""

    name: str = Field(min_length=2)
    count: int = Field(ge=1, le=9)


async def wanted() -> Elicit[Order]:
    """Ask the user."""
    return Elicit("What shall it be?", Order)


@server.tool(structured_output=False)
async def order(what: Annotated[Order, Resolve(wanted)]) -> str:
    """Order what the user wants."""
    return what.model_dump_json()


def with_key(app: ASGIApp, key: str) -> ASGIApp:
    """Only for those who have it."""

    async def checked(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (b"authorization", f"Bearer {key}".encode()) not in scope["headers"]:
            await send({"type": "http.response.start", "status": 401, "headers": []})
            await send({"type": "http.response.body", "body": b"who are you?"})
            return
        await app(scope, receive, send)

    return checked


def main() -> None:
    """Serve until it is ended."""
    if len(sys.argv) > 1:
        port, key = sys.argv[1:]
        uvicorn.run(with_key(server.streamable_http_app(), key), port=int(port), log_level="error")
    else:
        anyio.run(server.run_stdio_async)


if __name__ == "__main__":
    main()
