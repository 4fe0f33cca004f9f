"""Commands as real processes that need not import everything anew: each is a fork of one that has.

A command has its own process, pipes, folder, environment and exit code, as if a shell had started it; only the imports
were made before. Modules that read the environment while they are imported are left out.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import IO

PRELOADED = (
    *("argparse", "asyncio", "concurrent.futures", "email.parser", "hashlib", "http.client", "logging", "tempfile"),
    *("typer", "click", "yaml", "msgspec", "filelock", "psutil", "platformdirs", "jinja2", "h11", "anyio", "pydantic"),
    *("markdown_it", "pygments.lexers", "rich.console", "rich.table", "rich.progress", "httpcore2", "httpx2"),
    *("hermes_cli.catalog.load", "hermes_cli.catalog.load", "hermes_cli.hardware.probe", "hermes_cli.planning"),
    *("hermes_cli.engine.embedded.engine", "hermes_cli.engine.embedded.fit_check", "hermes_cli.generation"),
    *("hermes_cli.models.planned", "hermes_cli.chat.agent_loop", "hermes_cli.chat.backend", "hermes_cli.chat.view"),
    *("hermes_cli.prompting.structured_output", "hermes_cli.store.library", "hermes_cli.gguf.header"),
    *("hermes_cli.server.run", "hermes_cli.server.app", "hermes_cli.server.served_models"),
)
_LENGTH = 4  # bytes before an order, and of a number in the pipe that tells how a command does


class ForkedProcess:
    """A command that runs; as far as it is needed, like `subprocess.Popen` with text."""

    def __init__(self, pid: int, state: int, stdout: int, stderr: int) -> None:
        """Take over the pipes: its state (the exit status comes when it ends), and its output."""
        self.pid, self._state = pid, state
        self.stdout: IO[str] = open(stdout, encoding="utf-8", errors="replace")  # noqa: SIM115 - a pipe
        self.stderr: IO[str] = open(stderr, encoding="utf-8", errors="replace")  # noqa: SIM115 - a pipe
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit status, None while it runs."""
        return self.wait(0)

    def wait(self, timeout: float | None = None) -> int | None:
        """Its exit status, None if it runs longer than that."""
        if self.returncode is None and select.select([self._state], [], [], timeout)[0]:
            self.returncode = _number(self._state)
            os.close(self._state)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it writes until it ends."""
        texts = ["", ""]

        def read(index: int, stream: IO[str]) -> None:
            texts[index] = "" if stream.closed else stream.read()

        readers = [threading.Thread(target=read, args=one) for one in enumerate((self.stdout, self.stderr))]
        for reader in readers:
            reader.start()
        if self.wait(timeout) is None:
            self.kill()
            raise subprocess.TimeoutExpired("hermes", timeout or 0)
        for reader in readers:
            reader.join()
        self.stdout.close()
        self.stderr.close()
        return texts[0], texts[1]


class Zygote:
    """Starts commands as forks of a process that has imported what they need.

    Args:
        main: module and function of the command, as an entry point names them.
        modules: are imported before.
    """

    def __init__(self, main: str = "hermes_cli.cli:main", modules: Sequence[str] = PRELOADED) -> None:
        """Start the process; it ends with this one."""
        self._lock = threading.Lock()
        self._line, theirs = socket.socketpair()
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "from hermes_zygote import serve; serve()",
                str(theirs.fileno()),
                json.dumps([main, modules, sys.path]),
            ],
            pass_fds=[theirs.fileno()],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        theirs.close()

    def start(
        self, arguments: Sequence[str], folder: Path, environment: Mapping[str, str], stdin: int | None = None
    ) -> ForkedProcess:
        """Start the command with these arguments; standard input is at its end unless a file is given."""
        (out, to_out), (error, to_error), (state, to_state) = os.pipe(), os.pipe(), os.pipe()
        given = os.open(os.devnull, os.O_RDONLY) if stdin is None else os.dup(stdin)
        theirs = [given, to_out, to_error, to_state]
        order = json.dumps([list(arguments), str(folder), dict(environment)]).encode()
        with self._lock:
            socket.send_fds(self._line, [len(order).to_bytes(_LENGTH, "big")], theirs)
            self._line.sendall(order)
        for file in theirs:
            os.close(file)
        return ForkedProcess(_number(state), state, out, error)

    def close(self) -> None:
        """End the process."""
        self._line.close()
        self._process.wait()


def _number(file: int) -> int:
    return int.from_bytes(os.read(file, _LENGTH), "big", signed=True)


# In the process


def serve() -> None:
    """Fork for each order, until the other side is closed."""
    line = socket.socket(fileno=int(sys.argv[1]))
    main, modules, sys.path[:] = json.loads(sys.argv[2])
    for module in modules:
        __import__(module)
    gc.freeze()  # forks share these objects
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        header, files, *_ = socket.recv_fds(line, _LENGTH, 4)
        if not header:
            return
        order = b""
        while len(order) < int.from_bytes(header, "big"):
            order += line.recv(1 << 16)
        if not os.fork():
            line.close()
            _keep(main, order, files)
        for file in files:
            os.close(file)


def _keep(main: str, order: bytes, files: Sequence[int]) -> None:
    """Be the parent of a command, tell its number and its exit status, and end."""
    *streams, state = files
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    command = os.fork()
    if not command:
        os.close(state)
        arguments, folder, environment = json.loads(order)
        _become(main, arguments, folder, environment, streams)
    for stream in streams:
        os.close(stream)
    os.write(state, command.to_bytes(_LENGTH, "big", signed=True))
    _, status = os.waitpid(command, 0)
    try:
        os.write(state, os.waitstatus_to_exitcode(status).to_bytes(_LENGTH, "big", signed=True))
    finally:
        os._exit(0)


def _become(main: str, arguments: list[str], folder: str, environment: dict[str, str], files: Sequence[int]) -> None:
    """Be the command, and end."""
    code = 1
    try:
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - as Python opens it
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
        sys.argv = [sys.executable, *arguments]
        sys.path.insert(0, folder)
        module, _, function = main.partition(":")
        getattr(import_module(module), function)()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - as Python does at the top
        sys.excepthook(*sys.exc_info())
    finally:
        threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001 - waits for threads, as Python does at its end
        atexit._run_exitfuncs()  # noqa: SLF001
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:
                code = code or 1
        os._exit(code)
