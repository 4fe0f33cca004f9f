"""`hermes serve --engine-url` in front of vLLM, next to that vLLM alone: many chats at once, in one run, in turns.

    python benchmarks/upstream.py http://127.0.0.1:8000
    python benchmarks/upstream.py http://127.0.0.1:8000 --model hermes-3:8b --tokens 256 --streams 16,64,256

Both sides are asked for the same chats by the same client, which reads a stream without parsing it: tokens per second
of all together, from the first byte sent to the last byte read. CONTRIBUTING.md tells how to start a vLLM with the demo
on a CPU (`make test-engines`).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import statistics
import subprocess
import sys
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).parent.parent))

import psutil

from hermes_cli.server.sockets import listen, port_of

TARGET = 0.95
USAGE = re.compile(rb'"completion_tokens": ?(\d+)')


@dataclass(frozen=True)
class Side:
    """A server: what it is called, where it listens, the name of its model, and all processes that work for it."""

    name: str
    port: int
    model: str
    processes: tuple[psutil.Process, ...]

    @property
    def cpu_seconds(self) -> float:
        """The CPU time of its processes so far."""
        return sum(times.user + times.system for process in self.processes for times in (process.cpu_times(),))


def processes_at(port: int) -> tuple[psutil.Process, ...]:
    """Return what listens at a port of this machine, with its children."""
    listening = (one for one in psutil.net_connections("tcp") if one.status == psutil.CONN_LISTEN)
    pid = next(one.pid for one in listening if one.laddr and one.laddr.port == port)
    front = psutil.Process(pid)
    return (front, *front.children(recursive=True))


@dataclass(frozen=True)
class Round:
    """Tokens per second, and CPU time of all processes for each token, in milliseconds.

    On a machine that others use, too, the CPU times say more than the speeds: engine, server and client share it.
    """

    rate: float
    cpu: float


async def chat(side: Side, number: int, tokens: int) -> int:
    """Return the tokens of one streamed chat."""
    body = json.dumps(
        {
            "model": side.model,
            "messages": [{"role": "user", "content": f"Tell me story number {number}."}],
            "max_tokens": tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    ).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", side.port)
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    tail = b""
    while part := await reader.read(1 << 16):
        tail = (tail + part)[-4096:]
    writer.close()
    counted = USAGE.findall(tail)
    if not counted or b"[DONE]" not in tail:
        raise SystemExit(f"{side.name} failed: {tail.decode('utf-8', 'replace')[-500:]}")
    return int(counted[-1])


async def measured(side: Side, streams: int, tokens: int, seed: int) -> Round:
    """Run so many chats at once."""
    cpu, start = side.cpu_seconds, perf_counter()
    counts = await asyncio.gather(*(chat(side, seed * streams + number, tokens) for number in range(streams)))
    seconds, total = perf_counter() - start, sum(counts)
    return Round(total / seconds, 1000 * (side.cpu_seconds - cpu) / total)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("url", help="where vLLM listens, on this machine")
    parser.add_argument("--model", default="demo", help="what it has, as hermes names it")
    parser.add_argument("--tokenizer", help="as hermes serve takes it")
    parser.add_argument("--streams", default="16,64")
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with urllib.request.urlopen(f"{given.url}/v1/models") as reply:  # noqa: S310 - as it is given
        served = json.load(reply)["data"][0]["id"]
    sockets = listen("127.0.0.1", 0)
    port = port_of(sockets)
    for socket in sockets:
        socket.close()
    command = [sys.executable, "-m", "hermes_cli", "serve", given.model, "--engine-url", given.url, "--port", str(port)]
    command += ["--tokenizer", given.tokenizer] if given.tokenizer else []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            while line := (process.stdout.readline() if process.stdout else ""):  # its banner tells that it listens
                if "in a browser" in line:
                    break
            engine_port = urlsplit(given.url).port or 80
            engine, front = processes_at(engine_port), psutil.Process(process.pid)
            plain = Side("vLLM alone", engine_port, served, engine)
            hermes = Side("hermes in front", port, given.model, (front, *engine))
            results = asyncio.run(contest(plain, hermes, given))
        finally:
            process.terminate()
    if given.json:
        print(json.dumps(results))


async def contest(plain: Side, hermes: Side, given: argparse.Namespace) -> dict[str, object]:
    """Run all rounds, the sides in turn; print a line for each number of streams."""
    results: dict[str, object] = {}
    for side in (plain, hermes):
        await measured(side, 2, 8, 1000)
    for streams in map(int, given.streams.split(",")):
        pairs = []
        for number in range(given.rounds):
            order = (plain, hermes) if number % 2 else (hermes, plain)
            rounds = {side.name: await measured(side, streams, given.tokens, number) for side in order}
            pairs.append((rounds[plain.name], rounds[hermes.name]))
        ratios = sorted(front.rate / alone.rate for alone, front in pairs)
        ratio = statistics.median(ratios)
        alone, front = (statistics.median(pair[at].rate for pair in pairs) for at in (0, 1))
        work, less = (statistics.median(pair[at].cpu for pair in pairs) for at in (1, 0))
        print(
            f"{streams:3} streams  {ratio:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}) of {TARGET}  "
            f"{front:8.1f} next to {alone:8.1f} tokens/s, {work:.3f} next to {less:.3f} ms of CPU for each token",
            flush=True,
        )
        results[str(streams)] = {"ratio": ratio, "rounds": [[asdict(one) for one in pair] for pair in pairs]}
    return results


if __name__ == "__main__":
    main()
