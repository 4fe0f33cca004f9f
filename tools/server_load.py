"""Many clients at a real `hermes serve` whose engine is killed again and again; counts what becomes of the requests.

    python tools/server_load.py                                   # 200 clients, two minutes, the demo model
    python tools/server_load.py --clients 20 --seconds 10 --kill-every 3
    python tools/server_load.py hermes-3:3b --threads 4

Clients stream from all APIs, read quickly or slowly, keep their connection or not, and often leave. Each request has to
end in an answer, in an HTTP error of its API's shape (with Retry-After where the same may do later), or in an error
event. Afterwards everything has to be as before: slots, connections, open files, memory, processes. Exit code 1 if not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from server_answers import CHAT, MESSAGES, RESPONSES, TEXT, TOO_LONG, Reply, Wire, WrongError, ended

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import Awaitable, Callable, Collection

    from server_answers import Body

START = 120.0  # seconds in which the server has to be ready; a large model takes longer to be read
PATIENCE = 90.0  # seconds; a request that takes longer hangs. The engine's longest pause after deaths is 30
CALM = 30.0  # seconds after the last request in which all has to be free
WARM = 0.1  # of the time, before memory is looked at for the first time
MOST_GROWN = 24 << 20  # bytes that a process may have more than when it was warm; measured were 5 MB
WANTED = ("answered", "left by the client", "engine_died")  # ends that a run has to have seen
QUEUE = 0.8  # of the clients may wait; the others are to be told that too many do
LEAVE, SLOW, KEEP = 0.25, 0.1, 0.5  # of the requests: their client leaves, reads slowly, keeps its connection
ENGINE = "hermes_cli.engine.embedded.worker"  # in the command line of one
SETTLING = 8  # answers of a fresh engine before its memory is compared

QUESTIONS = ("Who are you?", "What can you do?", "What's the weather in Tokyo?", "Count to five.")
SHAPE = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object", "maxProperties": 2}}}
USAGE = {"stream": True, "stream_options": {"include_usage": True}}


@dataclass(frozen=True)
class Snapshot:
    """The server at rest: its open files, and bytes of RAM of it and of an engine that was just started."""

    files: int
    server: int
    engine: int


@dataclass
class Outcome:
    """What came of it.

    Attributes:
        ends: requests by how they ended.
        wrong: how those ended that did not end properly.
        kills: of engines; `restarts` as the server counted them.
        hung: requests that did not end.
        seconds: of the run.
        files: open files of the server that there were not in the beginning.
        grown: bytes of RAM that the server has more than when it was warm; `engine_grown` of a fresh engine.
        left: what the server said or left behind at its end that it should not have.
    """

    ends: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    kills: int = 0
    restarts: int = 0
    hung: int = 0
    seconds: float = 0.0
    files: int = 0
    grown: int = 0
    engine_grown: int = 0
    left: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether nothing hung, leaked or ended otherwise than it may."""
        grown = max(self.grown, self.engine_grown) > MOST_GROWN
        counted = self.restarts == self.kills
        return counted and not (self.wrong or self.hung or self.files > 0 or grown or self.left)

    def __str__(self) -> str:
        rows = [
            ("engines killed", self.kills),
            ("engines started again", self.restarts),
            ("requests", self.ends.total()),
            *((f"  {end}", count) for end, count in self.ends.most_common()),
            ("requests each second", round(self.ends.total() / self.seconds, 1)),
            ("hung", self.hung),
            ("ended otherwise", self.wrong.total()),
            *((f"  {what}", count) for what, count in self.wrong.most_common(10)),
            ("open files more than before", self.files),
            ("memory of the server grown, MB", round(self.grown / 1e6, 1)),
            ("memory of a fresh engine grown, MB", round(self.engine_grown / 1e6, 1)),
            ("left behind", "; ".join(self.left) or "nothing"),
        ]
        return "\n".join(("| what | |", "| --- | ---: |", *(f"| {name} | {value} |" for name, value in rows)))


class Serving:
    """`hermes serve` as a process of its own, on a free port."""

    def __init__(self, model: str, options: tuple[str, ...]) -> None:
        self._command = (sys.executable, "-m", "hermes_cli", "serve", model, "--port", "0", *options)
        self._folder = tempfile.TemporaryDirectory(prefix="server-load-")
        self._log = Path(self._folder.name, "log")
        self._children: dict[int, psutil.Process] = {}  # all that were seen

    async def start(self) -> None:
        """Wait until its model is loaded.

        Exits with what it said if it does not start.
        """
        kept = {key: value for key, value in os.environ.items() if not key.startswith("HERMES_")}
        with self._log.open("wb") as log:
            self._process: Process = await asyncio.create_subprocess_exec(
                *self._command,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env={**kept, "HERMES_LLM_CONFIG_DIR": self._folder.name, "HERMES_LLM_DATA_DIR": self._folder.name},
            )
        assert self._process.stdout  # noqa: S101 - it was asked for
        line = await asyncio.wait_for(self._process.stdout.readline(), START)
        found = re.search(rb"http://127\.0\.0\.1:([0-9]+)/v1", line)
        if not found:
            sys.exit(f"hermes serve did not start:\n{self._log.read_text()}")
        self.port = int(found[1])
        self._itself = psutil.Process(self._process.pid)

    def engines(self) -> list[psutil.Process]:
        """Its children that have a model, and are alive."""
        children = self._itself.children(recursive=True)
        self._children |= {child.pid: child for child in children}
        return [child for child in children if _is_engine(child)]

    def kill_engines(self) -> int:
        """End them as the system does when memory is out; how many there were."""
        killed = 0
        for engine in self.engines():
            with suppress(psutil.NoSuchProcess):
                engine.kill()
                killed += 1
        return killed

    def snapshot(self) -> Snapshot:
        """What it holds now."""
        files = self._itself.num_fds() if hasattr(self._itself, "num_fds") else 0
        engines = sum(engine.memory_info().rss for engine in self.engines())
        return Snapshot(files, self._itself.memory_info().rss, engines)

    async def end(self) -> list[str]:
        """Stop it; what was not as it should be."""
        wrong = []
        self.engines()
        self._process.terminate()
        try:
            code = await asyncio.wait_for(self._process.wait(), CALM)
            wrong += [f"exit code {code}"] if code else []
        except TimeoutError:
            self.kill()
            await self._process.wait()
            wrong.append(f"the server, {CALM:g} s after SIGTERM")
        _, alive = psutil.wait_procs(list(self._children.values()), timeout=5)
        wrong += [f"process {child.pid}" for child in alive]
        log = self._log.read_text(errors="replace")
        # What it says if requests are still at work when it is told to stop.
        wrong += [f"{word!r} in its log" for word in ("stopping:", "Traceback", "Exception") if word in log]
        self._folder.cleanup()
        return wrong

    def kill(self) -> None:
        """End it at once."""
        with suppress(ProcessLookupError):
            self._process.send_signal(getattr(signal, "SIGKILL", signal.SIGTERM))


class Trial:
    """Clients and a killer around one server."""

    def __init__(self, serving: Serving, clients: int, kill_every: float, seed: int) -> None:
        self._serving, self._clients, self._kill_every = serving, clients, kill_every
        self._chance = random.Random(seed)  # noqa: S311 - no secret
        self._until = 0.0
        self.outcome = Outcome()

    async def run(self, seconds: float) -> Outcome:
        """Let them go, and look at what is left."""
        before = await self._rest()
        await self._load(seconds * WARM)
        warm = await self._rest()
        self.outcome, began = Outcome(), time.monotonic()
        await self._load(seconds, WANTED)
        self.outcome.seconds = time.monotonic() - began
        after = await self._rest(before.files)
        self.outcome.restarts = int(await self._metric("hermes_engine_restarts_total"))
        self.outcome.files = after.files - before.files
        self.outcome.grown = after.server - warm.server
        self.outcome.engine_grown = after.engine - warm.engine
        return self.outcome

    async def _load(self, seconds: float, wanted: Collection[str] = ()) -> None:
        """Ask for so many seconds, and longer until requests have ended in each of the wanted ways."""
        self._until, self._wanted = time.monotonic() + seconds, wanted
        killer = asyncio.ensure_future(self._kill())
        await asyncio.gather(*(self._client() for _ in range(self._clients)))
        await killer

    def _goes_on(self) -> bool:
        seen = all(any(wanted in end for end in self.outcome.ends) for wanted in self._wanted)
        return time.monotonic() < self._until or not seen

    async def _kill(self) -> None:
        await asyncio.sleep(self._kill_every)
        while self._goes_on():
            self.outcome.kills += self._serving.kill_engines()
            await asyncio.sleep(self._kill_every)

    async def _client(self) -> None:
        wire = Wire(self._serving.port)
        await asyncio.sleep(self._chance.uniform(0, 0.5))
        while self._goes_on():
            path, body = self._request()
            wait = await self._ask(wire, path, body)
            if self._chance.random() > KEEP:
                wire.leave()
            await asyncio.sleep(wait)
        wire.leave()

    async def _ask(self, wire: Wire, path: str, body: Body) -> float:
        """One request, and how it ends; seconds to wait before the next one."""
        leaves, pause = self._chance.random() < LEAVE, 0.02 if self._chance.random() < SLOW else 0.0
        limit = self._chance.uniform(0, 1.5) if leaves else PATIENCE
        try:
            reply = await asyncio.wait_for(wire.ask(path, body, pause=pause), limit)
            self.outcome.ends[ended(path, body, reply)] += 1
            return float(reply.headers.get("retry-after", 0)) * self._chance.uniform(0.5, 1.5)
        except TimeoutError:
            self.outcome.ends["left by the client" if leaves else "hung"] += 1
            self.outcome.hung += not leaves
            wire.leave(rudely=self._chance.random() < 0.5)  # noqa: PLR2004 - every other one
        except (OSError, EOFError, ValueError, WrongError) as error:
            self.outcome.ends["otherwise"] += 1
            self.outcome.wrong[f"{path}: {error!r}"[:300]] += 1
            wire.leave()
        return 0.0

    def _request(self) -> tuple[str, Body]:
        """Any of what clients send."""
        chance = self._chance
        said = [{"role": "user", "content": chance.choice(QUESTIONS)}]
        most, seed = chance.choice((1, 8, 24, 60)), chance.randrange(9)
        kinds: dict[str, tuple[str, Body]] = {
            "chat": (CHAT, {"messages": said, "max_tokens": most, "stream": True, "seed": seed}),
            "usage": (CHAT, {"messages": said, "max_tokens": most, **USAGE}),
            "long": (CHAT, {"messages": said, "max_tokens": 200, "stream": True, "ignore_eos": True}),
            "two": (CHAT, {"messages": said, "max_tokens": most, "stream": True, "n": 2}),
            "shape": (CHAT, {"messages": said, "max_tokens": 60, "stream": True, "response_format": SHAPE}),
            "whole": (CHAT, {"messages": said, "max_tokens": most}),
            "too long": (CHAT, {"messages": [{"role": "user", "content": TOO_LONG}], "stream": True}),
            "text": (TEXT, {"prompt": "Once", "max_tokens": most, "stream": True}),
            "responses": (RESPONSES, {"input": said, "max_output_tokens": 24, "stream": True, "store": False}),
            "messages": (MESSAGES, {"messages": said, "max_tokens": most, "stream": True}),
        }
        return kinds[chance.choices(list(kinds), (10, 3, 2, 1, 2, 2, 1, 2, 2, 2))[0]]

    async def _rest(self, files: int = 0) -> Snapshot:
        """Wait until nothing is at work, or files are closed; what is held then, with a new engine."""
        await self._within_calm(self._free, "free")
        await self._answer(keep_alive=0)
        await self._within_calm(self._put_away, "put away with keep_alive 0")
        for number in range(SETTLING):
            await self._answer(seed=number)
        await self._answer(response_format=SHAPE)  # what tries grammars stays; have it there from the beginning

        async def closed() -> bool:
            return not files or self._serving.snapshot().files <= files

        await self._within_calm(closed, "closed")
        return self._serving.snapshot()

    async def _within_calm(self, true: Callable[[], Awaitable[bool]], what: str) -> None:
        """Poll: it happens in another process."""
        end = time.monotonic() + CALM
        while not await true():
            if time.monotonic() > end:
                self.outcome.wrong[f"not all {what} within {CALM:g} s"] += 1
                return
            await asyncio.sleep(0.05)

    async def _put_away(self) -> bool:
        return not self._serving.engines()

    async def _answer(self, **more: object) -> None:
        """One more answer, with nothing else at work; `keep_alive=0` puts the model away behind it."""
        said = [{"role": "user", "content": QUESTIONS[0]}]
        wire = Wire(self._serving.port)
        body: Body = {"messages": said, "max_tokens": 24, **more}
        ended(CHAT, body, await asyncio.wait_for(wire.ask(CHAT, body), PATIENCE))
        wire.leave()

    async def _free(self) -> bool:
        """Whether all slots are free and nothing waits."""
        slots = json.loads((await self._get("/slots")).body)
        at_work = [await self._metric(f"hermes_requests_{what}") for what in ("running", "waiting")]
        return not any(slot["is_processing"] for slot in slots) and not any(at_work)

    async def _metric(self, name: str) -> float:
        found = re.search(rf"^{name}{{.*}} (.*)$", (await self._get("/metrics")).body.decode(), re.MULTILINE)
        return float(found[1]) if found else float("nan")

    async def _get(self, path: str) -> Reply:
        wire = Wire(self._serving.port)
        try:
            return await asyncio.wait_for(wire.ask(path), PATIENCE)
        finally:
            wire.leave()


def _is_engine(process: psutil.Process) -> bool:
    """Whether it is one, and alive: the dead have no command line."""
    with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        return any(ENGINE in part for part in process.cmdline())
    return False


async def trial(
    seconds: float, clients: int, kill_every: float, *, model: str = "demo", threads: int = 1, seed: int = 0
) -> Outcome:
    """Load a server for so many seconds."""
    queue = max(int(clients * QUEUE), 1)
    serving = Serving(model, ("--threads", str(threads), "--max-queue", str(queue)))
    await serving.start()
    try:
        outcome = await Trial(serving, clients, kill_every, seed).run(seconds)
    except BaseException:
        serving.kill()
        raise
    outcome.left += await serving.end()
    return outcome


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="demo")
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--kill-every", type=float, default=20, help="seconds")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    outcome = asyncio.run(
        trial(given.seconds, given.clients, given.kill_every, model=given.model, threads=given.threads, seed=given.seed)
    )
    print(outcome)
    sys.exit(not outcome.good)


if __name__ == "__main__":
    main()
