"""Commands about tools: which the model may call, and servers that have some."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hermes_cli.chat.slash.command import SlashCommand
from hermes_cli.errors import UsageError

if TYPE_CHECKING:
    from hermes_cli.chat.repl_context import ReplContext


def _tools(scene: ReplContext, rest: str) -> None:
    """List them, add those of a file, or switch all of them."""
    if rest in {"on", "off"}:
        scene.talk.offers_tools = rest == "on"
    elif rest:
        scene.toolbox.add_file(rest)
    rows = [list(row) for row in scene.toolbox.described()]
    if not rows:
        raise UsageError("there are no tools.", hint="/tools FILE.py adds typed functions, /mcp COMMAND a server's.")
    scene.console.table(["tool", "from", "does", "run"], rows)
    if not scene.talk.schemas:
        scene.console.note("they are not offered to the model: /tools on")


def _mcp(scene: ReplContext, rest: str) -> None:
    """List servers, or connect to one more."""
    if rest:
        with scene.console.working(f"connecting to {rest}"):
            scene.toolbox.add_server(rest)
    rows = [list(row) for row in scene.toolbox.servers()]
    if not rows:
        raise UsageError("no MCP server is connected.", hint="/mcp COMMAND, /mcp https://… or a name from chat.yaml")
    scene.console.table(["server", "is", "tools"], rows)


COMMANDS = (
    SlashCommand("/tools", "[on|off|FILE.py]", "the tools that the model may call", _tools),
    SlashCommand("/mcp", "[COMMAND|URL|NAME]", "MCP servers, or one more", _mcp),
)
