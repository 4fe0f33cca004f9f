"""The sides of engine.py: hermes' engine by its own protocol, llama-server by HTTP. Each answers the same task.

Pieces are stamped as they arrive in this process. llama-server has its own defaults but for what makes the sides
equal: file, threads, context, slots, one cache for all of them.
"""

import asyncio
import json
import socket
import sys
import tempfile
import time
from asyncio.subprocess import Process
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from benchmarks.material import Json, call_schema
from hermes_cli.engine.embedded.engine import EmbeddedEngine
from hermes_cli.engine.embedded.messages import EngineOptions
from hermes_cli.engine.protocol import TextEvent
from hermes_cli.engine.request import GenerationRequest, SamplingOptions
from hermes_cli.planning.load_plan import LoadPlan
from hermes_cli.planning.memory import ContextSettings
from hermes_cli.prompting.structured_output import json_schema, tool_calls
from hermes_cli.prompting.turn_grammar import TAGS, SpecialTokens, turn_grammar

START_LIMIT = 600.0  # seconds in which a server has to be ready
LONGEST_LINE = 2**24  # bytes; the last event repeats the whole prompt


@dataclass(frozen=True)
class Load:
    """How all sides load the model: `cells` is the context of all `slots` together, `gpu_layers` is -1 for all."""

    path: Path
    threads: int
    cells: int
    slots: int
    gpu_layers: int = 0


@dataclass(frozen=True)
class Task:
    """What is asked: greedy, exactly `tokens` long unless there is a schema or a tool to call, which end it."""

    prompt: str
    tokens: int
    schema: Json | None = None
    tool: Json | None = None
    speculate: bool = True

    @property
    def bound(self) -> bool:
        """Whether a grammar ends the answer."""
        return self.schema is not None or self.tool is not None


class Piece(NamedTuple):
    """Text, when it came (seconds of the monotonic clock), and how many tokens it is."""

    at: float
    text: str
    tokens: int


class Counts(NamedTuple):
    """Tokens, as the side counts them; 0 if it does not."""

    prompt: int
    completion: int
    guessed: int = 0  # and right


UNCOUNTED = Counts(0, 0)


@dataclass
class Answer:
    """One answer with its times, in seconds."""

    sent: float
    pieces: list[Piece] = field(default_factory=list)
    ended: float = 0.0
    counts: Counts = UNCOUNTED

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(piece.text for piece in self.pieces)

    @property
    def tokens(self) -> int:
        """Generated."""
        return self.counts.completion or sum(piece.tokens for piece in self.pieces)

    @property
    def first(self) -> float:
        """From sending to the first piece."""
        return (self.pieces[0].at if self.pieces else self.ended) - self.sent

    @property
    def seconds(self) -> float:
        """From sending to the end."""
        return self.ended - self.sent

    @property
    def rate(self) -> float:
        """Tokens per second from the first piece to the last."""
        return (self.tokens - self.pieces[0].tokens) / (self.pieces[-1].at - self.pieces[0].at)


Stream = AsyncGenerator[Piece | Counts, None]


class Side(Protocol):
    """Something that answers tasks, several at once; closing a stream cancels its answer."""

    name: str

    async def start(self, load: Load) -> None:
        """Load."""

    def stream(self, task: Task) -> Stream:
        """Pieces, then the counts."""

    async def close(self) -> None:
        """End it, and give the memory back."""


async def answer(side: Side, task: Task) -> Answer:
    """The whole answer."""
    result = Answer(time.perf_counter())
    async with aclosing(side.stream(task)) as stream:
        async for item in stream:
            if isinstance(item, Counts):
                result.counts = item
            else:
                result.pieces.append(item)
    result.ended = time.perf_counter()
    return result


class Hermes:
    """hermes' engine in its child process."""

    name = "hermes"

    async def start(self, load: Load) -> None:
        """Load."""
        plan = LoadPlan(ContextSettings(load.cells, load.slots), load.gpu_layers, (), load.threads)
        self._engine = EmbeddedEngine(load.path, plan, EngineOptions(tags=TAGS))
        loaded = await self._engine.load()
        self._special = SpecialTokens(loaded.tags, loaded.others)

    async def stream(self, task: Task) -> Stream:
        """Pieces, then the counts."""
        request = GenerationRequest(
            (task.prompt,),
            SamplingOptions(temperature=0, ignore_eos=not task.bound),
            task.tokens,
            grammar=self._grammar(task),
            speculate=task.speculate,
        )
        async with aclosing(self._engine.generate(request)) as events:
            async for event in events:
                if isinstance(event, TextEvent):
                    yield Piece(time.perf_counter(), event.text, event.tokens)
                else:
                    yield Counts(event.prompt_tokens, event.completion_tokens, event.accepted_tokens)

    async def close(self) -> None:
        """End it."""
        await self._engine.close()

    def _grammar(self, task: Task) -> str | None:
        """As generation.py makes it for a schema and for a call that is asked for."""
        if task.tool:
            name = {"type": "function", "function": {"name": task.tool["function"]["name"]}}
            return turn_grammar(None, tool_calls([task.tool], name, parallel=False), tokens=self._special)
        return turn_grammar(json_schema(task.schema), None, tokens=self._special) if task.schema else None


class HttpSide:
    """A server in a process of its own, which streams its answers as server-sent events."""

    name = ""
    health = "/health"
    _child: Process | None = None

    def command(self, load: Load, port: int) -> list[str]:
        """How it is started."""
        raise NotImplementedError

    def request(self, task: Task) -> tuple[str, Json]:
        """Path and body."""
        raise NotImplementedError

    def read(self, event: Any) -> tuple[str, Counts | None]:  # noqa: ANN401 - JSON
        """An event's text, and the counts if it has them."""
        raise NotImplementedError

    async def start(self, load: Load) -> None:
        """Start it, and wait until it is ready.

        Exits with the end of its log if it is not.
        """
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port: int = free.getsockname()[1]
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `close`
        self._child = await asyncio.create_subprocess_exec(
            *self.command(load, self._port), stdout=self._log, stderr=self._log
        )
        limit = time.monotonic() + START_LIMIT
        while not await self._healthy():
            if self._child.returncode is not None or time.monotonic() > limit:
                said = self._logged()
                await self.close()
                sys.exit(f"{self.name} did not start:\n{said}")
            await asyncio.sleep(0.1)

    async def stream(self, task: Task) -> Stream:
        """Pieces, then the counts."""
        path, body = self.request(task)
        reader, writer = await self._send("POST", path, json.dumps(body).encode())
        counts = UNCOUNTED
        try:
            status = await reader.readline()
            if b" 200 " not in status:
                raise RuntimeError(f"{self.name} said {status!r} {await reader.read(2000)!r}")
            while line := await reader.readline():  # an event's line never shares one with HTTP's own chunk sizes
                at = time.perf_counter()
                if line.startswith(b"data: {"):
                    text, known = self.read(json.loads(line[6:]))
                    counts = known or counts
                    if text:
                        yield Piece(at, text, 1)
            yield counts
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def close(self) -> None:
        """End it."""
        if self._child:
            with suppress(ProcessLookupError):
                self._child.terminate()
            try:
                await asyncio.wait_for(self._child.wait(), 10)
            except TimeoutError:
                self._child.kill()
                await self._child.wait()
            self._child = None
            self._log.close()

    async def _healthy(self) -> bool:
        try:
            reader, writer = await self._send("GET", self.health)
            status = await reader.readline()
        except OSError:
            return False
        writer.close()
        return b" 200 " in status

    async def _send(
        self, method: str, path: str, body: bytes = b""
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=LONGEST_LINE)
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        await writer.drain()
        return reader, writer

    def _logged(self) -> str:
        self._log.seek(0)
        return "\n".join(self._log.read().decode("utf-8", "replace").splitlines()[-15:])


class LlamaServer(HttpSide):
    """llama.cpp's own server."""

    def __init__(self, programs: Path, *, speculating: bool = False) -> None:
        """Without speculation, which is its default, or with what it calls its default way to speculate."""
        self.name = "llama-server, speculating" if speculating else "llama-server"
        self._programs, self._extra = programs, ["--spec-default"] if speculating else []

    def command(self, load: Load, port: int) -> list[str]:
        """How it is started."""
        threads, layers = str(load.threads), "all" if load.gpu_layers < 0 else str(load.gpu_layers)
        return [
            str(self._programs / "llama-server"),
            *("--model", str(load.path), "--threads", threads, "--threads-batch", threads),
            *("--ctx-size", str(load.cells), "--parallel", str(load.slots), "--kv-unified", "--gpu-layers", layers),
            *("--flash-attn", "auto", "--no-webui", "--offline", "--host", "127.0.0.1", "--port", str(port)),
            *self._extra,
        ]

    def request(self, task: Task) -> tuple[str, Json]:
        """Path and body."""
        return "/completion", completion(task)

    def read(self, event: Any) -> tuple[str, Counts | None]:  # noqa: ANN401 - JSON
        """An event's text, and the counts if it is the last one."""
        return read_completion(event)


def completion(task: Task) -> Json:
    """What llama-server's own `/completion` takes."""
    schema = call_schema(task.tool) if task.tool else task.schema
    return {
        "prompt": task.prompt,
        "n_predict": task.tokens,
        "temperature": 0,
        "ignore_eos": not task.bound,
        "cache_prompt": True,
        "stream": True,
        **({"json_schema": schema} if schema else {}),
    }


def read_completion(event: Any) -> tuple[str, Counts | None]:  # noqa: ANN401 - JSON
    """One event of `/completion`."""
    if not event.get("stop"):
        return event.get("content", ""), None
    right = event.get("timings", {}).get("draft_n_accepted", 0)
    counts = Counts(event.get("tokens_evaluated", 0), event.get("tokens_predicted", 0), right)
    return event.get("content", ""), counts
