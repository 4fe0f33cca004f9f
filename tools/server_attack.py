"""Attacks a server of its own with requests that cost far more than their size, and measures who pays.

    python tools/server_attack.py                    # all attacks, a few minutes
    python tools/server_attack.py flood runs         # some of them

Beside each attack 20 honest clients ask short questions. The table has the longest time that the server's event loop
was held, the longest wait for /health, the memory that all processes of the server had more at the peak, how often an
engine was started again, and the honest clients' usual and longest seconds, with and without the attack. Every attack
is a few requests, most of whose clients leave early. They come from a process of their own, made before the clock runs.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

HONEST, QUESTIONS = 20, 4  # clients, and what each asks
PATIENCE = 60.0  # seconds for an answer
LEAVES = 2.0  # seconds after which an attacker leaves
FIRST = 0.5  # seconds that an attack comes earlier than the honest clients
EVERY = 0.02  # seconds between two looks
MIB = 1 << 20
# `hermes serve` that writes, each time it is longer than before, how long its event loop was held into a file.
METERED = """
import asyncio, os, struct, sys, time
from hermes_cli.server import run
file, serve = os.open(sys.argv.pop(1), os.O_RDWR), run._run
async def meter():
    while True:
        asked, worked = time.monotonic(), time.process_time()
        await asyncio.sleep(0.005)
        held = min(time.monotonic() - asked - 0.005, time.process_time() - worked)  # not by other programs
        if held > struct.unpack("d", os.pread(file, 8, 0))[0]:
            os.pwrite(file, struct.pack("d", held), 0)
async def metered(*parts):
    task = asyncio.ensure_future(meter())
    try:
        return await serve(*parts)
    finally:
        task.cancel()
run._run = metered
from hermes_cli.cli import main
main()
"""

Request = tuple[str, object]  # the path and the body


@dataclass(frozen=True)
class Attack:
    """Requests that are sent at once, each by a client of its own."""

    requests: Callable[[], list[Request]]
    leaves: float = LEAVES  # seconds after which they leave


@dataclass
class Measured:
    """What one round of questions showed, in seconds and bytes."""

    held: float = 0.0
    health: float = 0.0
    memory: int = 0
    restarts: int = 0
    honest: list[float] = field(default_factory=list)
    failed: int = 0
    answers: list[str] = field(default_factory=list)  # of the attackers


def chat(content: object, **more: object) -> Request:
    """Return a short chat."""
    message = {"role": "user", "content": content}
    return "/v1/chat/completions", {"messages": [message], "max_tokens": 4, "temperature": 0, **more}


def tools(parameters: object) -> Request:
    """Return a chat with one tool."""
    return chat("Hi", tools=[{"type": "function", "function": {"name": "f", "parameters": parameters}}])


def history(count: int) -> Request:
    """Return a chat with so many calls and their results."""
    call = {"type": "function", "function": {"name": "f", "arguments": "{}"}}
    calls = [{**call, "id": f"c{number}"} for number in range(count)]
    results = [{"role": "tool", "tool_call_id": f"c{number}", "content": "1"} for number in range(count // 4)]
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": None, "tool_calls": calls}]
    return "/v1/chat/completions", {"messages": [*messages, *results], "max_tokens": 4}


def references(count: int) -> dict[str, Any]:
    """Return a schema with many references that lead nowhere, and much to look through for them."""
    properties = {f"p{number}": {"$ref": f"#x{number}"} for number in range(count)}
    return {"type": "object", "properties": {**properties, "e": {"examples": list(range(200_000))}}}


ATTACKS = {
    "flood": Attack(lambda: [("/tokenize", {"content": "<|im_end|>" * 400_000})] * 4),
    "flood-chat": Attack(lambda: [chat("<think>" * 500_000)] * 2),
    "long": Attack(lambda: [chat("word " * 3_000_000)] * 4, leaves=PATIENCE),
    "tokenize": Attack(lambda: [("/tokenize", {"content": "a" * 31 * MIB})] * 4, leaves=PATIENCE),
    "pieces": Attack(lambda: [("/tokenize", {"content": "a b " * MIB, "with_pieces": True})], leaves=PATIENCE),
    "grammar": Attack(lambda: [chat("Hi", grammar='%llguidance {}\nstart: "' + '\\"' * 64_000)] * 2),
    "history": Attack(lambda: [history(40_000)], leaves=PATIENCE),
    "values": Attack(lambda: [chat([0] * 5_000_000)], leaves=PATIENCE),
    "schema": Attack(lambda: [tools(references(300))] * 2),
    "enum": Attack(lambda: [tools({"enum": [0] * 3_000_000})], leaves=PATIENCE),
    "stops": Attack(lambda: [chat("Hi", stop=["ab" * 500 + str(number) for number in range(16)])] * 8, leaves=PATIENCE),
    "template": Attack(lambda: [chat("Hi", model=name) for name in ("doubles", "powers")], leaves=PATIENCE),
    "runs": Attack(lambda: [chat(letter * 70_000, model="tekken") for letter in "a =-\n"], leaves=PATIENCE),
}
_DOUBLES = "".join(f"{{% set v{n + 1} %}}{{{{v{n}}}}}{{{{v{n}}}}}{{% endset %}}" for n in range(10))
TEMPLATES = {
    "doubles": "{% set v0 = 'x' * 1000000 %}" + _DOUBLES,
    "powers": "{% set x = (10 ** 100000) ** 64 %}{{ messages[0].content }}",
}


def write_models(folder: Path) -> list[str]:
    """Write models that are attacks themselves, made of the demo model; return the arguments for `serve`."""
    from hermes_cli.gguf.header import read_header  # noqa: PLC0415 - of the tree that is tried
    from hermes_cli.paths import asset  # noqa: PLC0415 - as above

    demo = asset("demo.gguf")
    raw, source = demo.read_bytes(), read_header(demo).text("tokenizer.chat_template")

    def write(name: str, key: str, old: str, new: str) -> str:
        before, after = (_text(key, text) for text in (old, new))
        if before not in raw:
            raise SystemExit(f"the demo model has no {key}")
        head = read_header(demo).data_offset
        changed = raw[:head].rstrip(b"\0").replace(before, after, 1)
        (folder / f"{name}.gguf").write_bytes(changed + bytes(-len(changed) % 32) + raw[head:])
        return f"./{name}.gguf"

    models = [
        write(name, "tokenizer.chat_template", source or "", template.ljust(len(source or "")))
        for name, template in TEMPLATES.items()
    ]
    return [*models, write("tekken", "tokenizer.ggml.pre", "gpt-2", "tekken")]


def _text(key: str, text: str) -> bytes:
    name, value = key.encode(), text.encode()
    return struct.pack("<Q", len(name)) + name + struct.pack("<IQ", 8, len(value)) + value


@contextmanager
def serving(folder: Path) -> Iterator[tuple[int, psutil.Process]]:
    """Run a server for the demo model and those that are attacks; its port, and its process."""
    flags = ("--port", "0", "--context", "1024", "--slots", "8", "--quiet")
    (folder / "held").write_bytes(bytes(8))
    command = [sys.executable, "-c", METERED, str(folder / "held"), "serve", "demo", *write_models(folder), *flags]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, cwd=folder, text=True) as server,
    ):
        try:
            address = server.stdout.readline() if server.stdout else ""
            if ":" not in address:
                raise SystemExit((folder / "log").read_text())
            yield int(address.rsplit(":", 1)[1].split("/")[0]), psutil.Process(server.pid)
        finally:
            server.terminate()
            try:
                server.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                server.kill()


def ask(port: int, path: str, body: bytes, seconds: float = PATIENCE) -> str:
    """Send one request; return its status, or why there is none."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
    try:
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        return str(connection.getresponse().status)
    except TimeoutError:
        return "left"
    except OSError as error:
        return type(error).__name__
    finally:
        connection.close()


def attack(name: str, port: int, pipe: Connection) -> None:
    """Make the requests of an attack, send them when told to, and tell their statuses."""
    requests = [(path, json.dumps(body).encode()) for path, body in ATTACKS[name].requests()]
    with ThreadPoolExecutor(len(requests)) as pool:
        pipe.send(None)
        pipe.recv()
        asked = [pool.submit(ask, port, path, body, ATTACKS[name].leaves) for path, body in requests]
        pipe.send(sorted(future.result() for future in asked))


def measure(port: int, server: psutil.Process, folder: Path, name: str = "") -> Measured:
    """Ask all questions, beside an attack or without."""
    measured, over = Measured(), Event()
    here, there = multiprocessing.Pipe()
    attacker = multiprocessing.get_context("spawn").Process(target=attack, args=(name, port, there))
    if name:
        attacker.start()
        here.recv()
    base = used(server)
    held = os.open(folder / "held", os.O_RDWR)
    os.pwrite(held, bytes(8), 0)
    watchers = [
        Thread(target=watch_health, args=(port, measured, over)),
        Thread(target=watch_memory, args=(server, measured, base, over)),
    ]
    for watcher in watchers:
        watcher.start()
    if name:
        here.send(None)
        time.sleep(FIRST)
    with ThreadPoolExecutor(HONEST) as pool:
        for waited in pool.map(lambda client: honest(port, client), range(HONEST)):
            measured.honest += [seconds for seconds, status in waited if status == "200"]
            measured.failed += sum(status != "200" for _, status in waited)
    if name:
        measured.answers = here.recv()
        attacker.join()
    over.set()
    for watcher in watchers:
        watcher.join()
    (measured.held,) = struct.unpack("d", os.pread(held, 8, 0))
    os.close(held)
    return measured


def honest(port: int, client: int) -> list[tuple[float, str]]:
    """Ask some questions, one after the other; seconds and status of each."""
    waited = []
    for number in range(QUESTIONS):
        path, body = chat(f"What is {client} and {number}?", model="demo")
        started = time.monotonic()
        status = ask(port, path, json.dumps(body).encode())
        waited.append((time.monotonic() - started, status))
    return waited


def watch_health(port: int, measured: Measured, over: Event) -> None:
    """Note the longest wait for /health."""
    while not over.wait(EVERY):
        started = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        with suppress(OSError):
            connection.request("GET", "/health")
            connection.getresponse().read()
        connection.close()
        measured.health = max(measured.health, time.monotonic() - started)


def watch_memory(server: psutil.Process, measured: Measured, base: int, over: Event) -> None:
    """Note the most memory beyond `base`, and engines that were started."""
    known = {child.pid for child in server.children()}
    while not over.wait(EVERY):
        measured.memory = max(measured.memory, used(server) - base)
        now = {child.pid for child in server.children()}
        measured.restarts += len(now - known)
        known |= now


def used(server: psutil.Process) -> int:
    """Return the memory of the server and its children."""
    total = 0
    for process in (server, *server.children()):
        with suppress(psutil.Error):
            total += process.memory_info().rss
    return total


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("attacks", nargs="*", choices=[[], *ATTACKS], help="all, if none is named")
    names = parser.parse_args().attacks or list(ATTACKS)
    print("| attack | loop held | /health | memory | started | usual | longest | failed | attackers |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name in ["", *names]:
        with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as (port, server):
            measure(port, server, Path(folder))  # all is warm
            found = measure(port, server, Path(folder), name)
        usual, longest = (statistics.median(found.honest), max(found.honest)) if found.honest else (0.0, 0.0)
        row = (
            name or "(none)",
            f"{found.held * 1000:.0f} ms",
            f"{found.health:.2f} s",
            f"{found.memory / MIB:.0f} MB",
            found.restarts,
            f"{usual:.2f} s",
            f"{longest:.2f} s",
            found.failed,
            " ".join(found.answers),
        )
        print("|", " | ".join(map(str, row)), "|", flush=True)


if __name__ == "__main__":
    main()
