"""The process group of an engine that hermes starts itself: its start, its watch and its end.

It runs in a session of its own, listens where only this user or this machine reaches it, and gets none of our keys.
A guard process ends the group if we die; what is left even so is swept up by the next start (run_folder.py).
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

from hermes_cli import paths, process_guard
from hermes_cli.child_process import ExitReport, environment
from hermes_cli.engine.upstream import engine_log
from hermes_cli.engine.upstream.http import EngineAddress, UpstreamClient
from hermes_cli.engine.upstream.run_folder import RunFolder
from hermes_cli.errors import EngineError, NotFoundError

POLL = 0.1  # seconds between looks at a start
WATCH = 1.0  # the same for an engine that is ready
ANSWER = 5.0  # seconds that a look may take
GRACE = 10.0  # seconds from SIGTERM to SIGKILL
IDLE_SHARE = 0.05  # of one core: less is no work


@dataclass(frozen=True)
class Limits:
    """Seconds after which an engine is taken for hung."""

    idle_start: float = 60.0  # of a start that neither logs nor computes
    # of a start that computes and logs nothing: processes that wait for each other use a core, too
    silent_start: float = 900.0
    stalled: float = 45.0  # of requests at work without a token, or of no answer at all
    # of a start that neither logs nor computes, after which the other nodes are said to be waited for, without a limit
    waiting_start: float = 10.0


@dataclass(frozen=True)
class EngineCommand:
    """A program that becomes an engine."""

    engine: str  # the name of its dialect
    words: tuple[str, ...]  # the program and its arguments; `{socket}` and `{port}` become where it has to listen
    # variables beside ours; `{folder}` becomes a private folder
    environment: Mapping[str, str] = field(default_factory=dict)
    # a route whose answer changes while the engine works, and what its lines begin with that count
    activity: tuple[str, str] = ("", "")
    computes_here: bool = False  # the engine computes in its own processes and sleeps when it has nothing to do
    grace: float = GRACE  # seconds that it gets to end by itself
    # the address at which the other nodes of the engine join it; empty for an engine on one node
    meeting: str = ""

    @property
    def heartbeat(self) -> bool:
        """Return whether it needs requests to notice that another node is gone."""
        return bool(self.meeting)


class EngineProcess:
    """A process group that was started; to be ended with `end`."""

    def __init__(self, command: EngineCommand, folder: RunFolder, guard: process_guard.ProcessGuard) -> None:
        """Start the program.

        Raises:
            NotFoundError: there is no such program.
            EngineError: it cannot be run.
        """
        self.command, self.folder, self._guard = command, folder, guard
        self.address, words = _listening(command.words, folder.socket)
        own = {name: text.replace("{folder}", str(folder.path)) for name, text in command.environment.items()}
        variables = {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", **own}
        folder.socket.unlink(missing_ok=True)
        log = folder.open_log()
        try:
            self._process = subprocess.Popen(  # noqa: S603 - the user names the program
                words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder.path,
                env=environment(**variables),
                start_new_session=True,
            )
        except FileNotFoundError:
            raise NotFoundError(
                f"there is no program {words[0]}.", hint="check --engine-command, or see hermes engine list"
            ) from None
        except OSError as error:
            raise EngineError(
                f"{words[0]} cannot be started: {error.strerror}.", hint="see what is wrong: hermes engine doctor"
            ) from None
        finally:
            os.close(log)
        self.pid = self._process.pid
        guard.tell(self.pid)
        self._started = process_guard.started_at(self.pid) or 0.0
        folder.write_process(self.pid, self._started)
        self._client = UpstreamClient(self.address)
        self.fault = ""  # the predicate of a sentence: why it has ended, or has to

    def usage(self) -> tuple[float, int]:
        """Return the CPU time in seconds and the resident bytes of all its processes."""
        return process_guard.usage(self.pid, self._started)

    def has_ended(self) -> bool:
        """Return whether its first process has ended, and note how."""
        code = self._process.poll()
        if code is not None:
            self.fault = self.fault or ExitReport(code, "").how
        return code is not None

    async def wait_until_ready(
        self, report: Callable[[str], None], limits: Limits, note: Callable[[str], None] = lambda _: None
    ) -> None:
        """Wait as long as the start advances, until the engine says that it takes requests.

        One whose other nodes are still to come is waited for without a limit; `note` is told so once.

        Raise EngineError if it ended, or does nothing any more; the message has the first cause.
        """
        size, cpu, noted = -1, 0.0, False
        logged = worked = looked = time.monotonic()
        while not self.has_ended():
            status, _ = await self._client.look("/health", ANSWER)
            if status == HTTPStatus.OK:
                return
            now = time.monotonic()
            if (current := _size(self.folder.log)) != size:
                size, logged = current, now
                report(engine_log.progress(self.folder.read_log()))
            if now - looked >= WATCH:
                seconds, _ = await asyncio.to_thread(self.usage)
                if seconds - cpu > IDLE_SHARE * (now - looked):
                    worked = now
                looked, cpu = now, seconds
                self.folder.trim_log()
            idle = now - max(logged, worked)
            if self.command.meeting:
                if idle > limits.waiting_start and not noted:
                    noted = True
                    note(
                        f"{self.command.engine} waits for its other nodes to join at {self.command.meeting}: "
                        "start them, or end this with Ctrl-C"
                    )
            elif idle > limits.idle_start or now - logged > limits.silent_start:
                self.fault = f"does nothing any more since {idle:.0f} seconds"
                break
            await asyncio.sleep(POLL)
        raise self.start_error()

    def start_error(self) -> EngineError:
        """Return the error for a start that failed, and keep the log."""
        log = self.folder.read_log()
        cause = engine_log.root_cause(log)
        kept, hint = self.keep_log(), engine_log.hint(cause, log)
        return EngineError(
            f"{self.command.engine} did not start: {cause or self.fault}.",
            hint=f"{hint}; its log is {kept}" if hint else f"its log is {kept}",
        )

    async def ask_health(self) -> int:
        """Return the status of the engine's own check, 0 for no answer; a server error is noted as a fault."""
        status, _ = await self._client.look("/health", ANSWER)
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            self.fault = self.fault or "says that it cannot go on"
        return status

    def keep_log(self) -> Path:
        """Copy the log to where it outlives the engine, in place of an earlier one; return the path."""
        kept = paths.cache_dir() / "engines" / f"{self.command.engine}.log"
        self.folder.keep_log(kept)
        return kept

    async def watch(self, work: Callable[[], Awaitable[tuple[int, int]]], limits: Limits) -> None:
        """Return when the engine is dead or hangs, with `fault` set.

        `work` returns how many requests are running, and a number that changes with everything that comes of them.
        Time in which the event loop stood still does not count.
        """
        quiet, stalled = 0.0, 0.0
        seen: tuple[int, str] | None = None
        cpu, _ = await asyncio.to_thread(self.usage)
        before = time.monotonic()
        while not self.has_ended():
            await asyncio.sleep(WATCH)
            self.folder.trim_log()
            status = await self.ask_health()
            running, progress = await work()
            route, beginning = self.command.activity
            activity = await self._client.activity(route, beginning, ANSWER) if running and route else ""
            state = (progress, activity)
            passed, before = min(time.monotonic() - before, WATCH + 2 * ANSWER), time.monotonic()
            quiet = 0 if status else quiet + passed
            stalled = stalled + passed if running and state == seen else 0
            seen = state
            if self.fault:
                break
            if stalled >= limits.stalled or quiet >= limits.stalled:
                seconds, _ = await asyncio.to_thread(self.usage)
                busy = self.command.computes_here and seconds - cpu > IDLE_SHARE * limits.stalled
                cpu, stalled = seconds, 0
                if not busy:
                    self.fault = f"hung: nothing came for {limits.stalled:.0f} seconds"
                    break

    async def end(self, grace: float | None = None) -> None:
        """End all processes of the group: SIGTERM, and SIGKILL for what is left after the grace."""
        seconds = self.command.grace if grace is None else grace
        steps = process_guard.ending(self.pid, self._started, seconds)
        while (pause := await asyncio.to_thread(next, steps, None)) is not None:
            self._process.poll()  # a process that nobody waits for stays in the table
            await asyncio.sleep(pause)
        with suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(self._process.wait, process_guard.TERMINATE_TIMEOUT)
        self._guard.tell(self.pid)
        await self._client.close()
        self.folder.socket.unlink(missing_ok=True)


def _listening(words: Sequence[str], socket: Path) -> tuple[EngineAddress, list[str]]:
    """Return the address that the words are told, a socket file or a free port of loopback, and the words with it."""
    if not any("{port}" in word for word in words):
        return EngineAddress("http://engine", str(socket)), [word.replace("{socket}", str(socket)) for word in words]
    port = str(_free_port())
    return EngineAddress(f"http://127.0.0.1:{port}"), [word.replace("{port}", port) for word in words]


def _free_port() -> int:
    import socket  # noqa: PLC0415 - only engines without sockets in files

    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
