"""An MCP server without the SDK, as there were before the protocol of 2026. `plain_mcp_server.py LISTED [FLAW]`.

LISTED is a JSON list of pages, each a list of tools. A call of any tool returns the content that stands in its
argument `content`. `ask` asks the user what its argument `request` says, and returns the reply; `grow` adds a tool and
says so; `crash` complains and ends this program; `spawn` starts a process that does not end with this one, and writes
its number to `file`; `hang` writes its own there and does not answer, and "stopped" when it is told to stop or its input
ends; `block` writes it, too, and then attends to nothing; `write` answers with the line `line`, in which ID stands for
that of the call. FLAW: `mute` never answers, `stubborn` ignores the end of its
input and SIGTERM.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PAGES: list[list[dict[str, Any]]] = json.loads(sys.argv[1])
FLAW = sys.argv[2] if len(sys.argv) > 2 else ""
hanging: dict[int, str] = {}  # request -> its file


def say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def answer(method: str, params: dict[str, Any]) -> dict[str, Any] | None:
    if method == "initialize":
        capabilities = {"tools": {"listChanged": True}}
        info = {"name": "plain", "version": "1"}
        return {"protocolVersion": "2025-11-25", "capabilities": capabilities, "serverInfo": info}
    if method == "tools/list":
        page = int(params.get("cursor") or 0)
        more = {"nextCursor": str(page + 1)} if page + 1 < len(PAGES) else {}
        return {"tools": PAGES[page], **more}
    if method == "tools/call":
        if params["name"] == "ask":
            return {"content": [{"type": "text", "text": json.dumps(ask(params["arguments"]["request"]))}]}
        if params["name"] == "grow":
            PAGES[-1].append({"name": "grown", "inputSchema": {"type": "object"}})
            say({"method": "notifications/tools/list_changed"})
        if params["name"] == "crash":
            sys.stderr.write("\x1b[31mout of cheese\n")
            sys.exit(3)
        if params["name"] == "spawn":
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
            Path(params["arguments"]["file"]).write_text(str(child.pid))
        return {"content": params["arguments"].get("content", [])}
    return None


def ask(request: dict[str, Any]) -> object:
    say({"id": "question", "method": "elicitation/create", "params": request})
    replies = map(json.loads, sys.stdin)
    return next(reply.get("result") for reply in replies if reply.get("id") == "question")


def hang(number: int, call: dict[str, Any]) -> None:
    hanging[number] = call["arguments"]["file"]
    Path(hanging[number]).write_text(str(os.getpid()))
    if call["name"] == "block":
        time.sleep(600)


def stop(number: int) -> None:
    if file := hanging.pop(number, None):
        Path(file).write_text("stopped")


def main() -> None:
    if FLAW == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.stdout.write("This is no message.\n")
    say({"method": "notifications/message", "params": {"level": "info", "data": "hello"}})
    for line in sys.stdin:
        message = json.loads(line)
        params = message.get("params") or {}
        if message.get("method") == "notifications/cancelled":
            stop(params["requestId"])
        if "id" not in message or FLAW == "mute":
            continue
        if params.get("name") in {"hang", "block"}:
            hang(message["id"], params)
            continue
        if params.get("name") == "write":
            sys.stdout.write(params["arguments"]["line"].replace("ID", str(message["id"])) + "\n")
            sys.stdout.flush()
            continue
        result = answer(message["method"], params)
        missing = {"error": {"code": -32601, "message": "Method not found"}}
        say({"id": message["id"], **({"result": result} if result is not None else missing)})
    for number in list(hanging):
        stop(number)
    while FLAW == "stubborn":
        time.sleep(60)


if __name__ == "__main__":
    main()
