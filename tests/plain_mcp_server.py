"""An MCP server without the SDK, as there were before the protocol of 2026. `plain_mcp_server.py LISTED [FLAW]`.

LISTED is a JSON list of pages, each a list of tools. A call of any tool returns the content that stands in its
argument `content`; `grow` adds a tool and says so. FLAW: `mute` never answers, `stubborn` ignores the end of its input
and SIGTERM.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from typing import Any

PAGES: list[list[dict[str, Any]]] = json.loads(sys.argv[1])
FLAW = sys.argv[2] if len(sys.argv) > 2 else ""


def say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def answer(method: str, params: dict[str, Any]) -> dict[str, Any] | None:
    if method == "initialize":
        capabilities = {"tools": {"listChanged": True}}
        info = {"name": "plain", "version": "1"}
        return {"protocolVersion": "2025-06-18", "capabilities": capabilities, "serverInfo": info}
    if method == "tools/list":
        page = int(params.get("cursor") or 0)
        more = {"nextCursor": str(page + 1)} if page + 1 < len(PAGES) else {}
        return {"tools": PAGES[page], **more}
    if method == "tools/call":
        if params["name"] == "grow":
            PAGES[-1].append({"name": "grown", "inputSchema": {"type": "object"}})
            say({"method": "notifications/tools/list_changed"})
        return {"content": params["arguments"].get("content", [])}
    return None


def main() -> None:
    if FLAW == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.stdout.write("This is no message.\n")
    say({"method": "notifications/message", "params": {"level": "info", "data": "hello"}})
    for line in sys.stdin:
        message = json.loads(line)
        if "id" not in message or FLAW == "mute":
            continue
        result = answer(message["method"], message.get("params") or {})
        missing = {"error": {"code": -32601, "message": "Method not found"}}
        say({"id": message["id"], **({"result": result} if result is not None else missing)})
    while FLAW == "stubborn":
        time.sleep(60)


if __name__ == "__main__":
    main()
