"""`hermes` commands as real processes that need not import everything anew: each is a fork of one that has.

A command has its own process, pipes, folder, environment and exit code, as if the shell had started it; only the
imports were made before. Modules that read the environment while they are imported are left out.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

PRELOADED = (
    *("argparse", "asyncio", "concurrent.futures", "email.parser", "hashlib", "http.client", "logging", "tempfile"),
    *("typer", "click", "yaml", "msgspec", "filelock", "psutil", "platformdirs", "jinja2", "h11", "anyio", "pydantic"),
    *("markdown_it", "pygments.lexers", "rich.console", "rich.table", "rich.progress", "httpcore2", "httpx2"),
    *("hermes_cli.catalog.load", "hermes_cli.catalog.overlay", "hermes_cli.hardware.probe", "hermes_cli.planning"),
    *("hermes_cli.engine.embedded.engine", "hermes_cli.engine.embedded.fit_check", "hermes_cli.generation"),
    *("hermes_cli.models.planned", "hermes_cli.chat.agent_loop", "hermes_cli.chat.backend", "hermes_cli.chat.view"),
    *("hermes_cli.prompting.structured_output", "hermes_cli.store.library", "hermes_cli.gguf.header"),
)
_LENGTH = 4  # bytes before each message


class Zygote:
    """Runs commands in forks of a process that has imported what they need."""

    def __init__(self) -> None:
        """Start the process; it ends with this one."""
        self._lock = threading.Lock()
        self._line, theirs = socket.socketpair()
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "from hermes_zygote import serve; serve()",
                str(theirs.fileno()),
                json.dumps(sys.path),
            ],
            pass_fds=[theirs.fileno()],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        theirs.close()

    def run(
        self, arguments: Sequence[str], stdin: bytes, folder: Path, environment: Mapping[str, str], limit: float
    ) -> subprocess.CompletedProcess[bytes]:
        """Run `hermes ARGUMENTS` to its end."""
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as error:
            given.write(stdin)
            given.seek(0)
            order = json.dumps([list(arguments), str(folder), dict(environment), limit]).encode()
            with self._lock:
                header = len(order).to_bytes(_LENGTH, "big")
                socket.send_fds(self._line, [header], [given.fileno(), out.fileno(), error.fileno()])
                self._line.sendall(order)
                status = int.from_bytes(_exactly(self._line, _LENGTH), "big", signed=True)
            out.seek(0)
            error.seek(0)
            return subprocess.CompletedProcess(["hermes", *arguments], status, out.read(), error.read())

    def close(self) -> None:
        """End the process."""
        self._line.close()
        self._process.wait()


def _exactly(line: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = line.recv(size - len(data))
        assert part, "the zygote has ended"
        data += part
    return data


# In the process


def serve() -> None:
    """Fork for each order, until the other side is closed."""
    line = socket.socket(fileno=int(sys.argv[1]))
    sys.path[:] = json.loads(sys.argv[2])
    for module in PRELOADED:
        __import__(module)
    gc.freeze()  # forks share these objects
    while True:
        header, files, *_ = socket.recv_fds(line, _LENGTH, 3)
        if not header:
            return
        arguments, folder, environment, limit = json.loads(_exactly(line, int.from_bytes(header, "big")))
        child = os.fork()
        if not child:
            line.close()
            _become(arguments, folder, environment, files)
        for file in files:
            os.close(file)
        line.sendall(_status(child, limit).to_bytes(_LENGTH, "big", signed=True))


def _status(child: int, limit: float) -> int:
    signal.signal(signal.SIGALRM, lambda *_: os.kill(child, signal.SIGKILL))
    signal.setitimer(signal.ITIMER_REAL, limit)
    _, status = os.waitpid(child, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    return os.waitstatus_to_exitcode(status)


def _become(arguments: list[str], folder: str, environment: dict[str, str], files: Sequence[int]) -> None:
    """Be the command, and end."""
    code = 1
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        for file, number in zip(files, (0, 1, 2), strict=True):
            os.dup2(file, number)
            os.close(file)
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - as Python opens it
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
        sys.argv = [sys.executable, *arguments]
        sys.path.insert(0, folder)
        from hermes_cli.cli import main  # noqa: PLC0415 - it looks at sys.argv

        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - as Python does at the top
        sys.excepthook(*sys.exc_info())
    finally:
        threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001 - waits for threads, as Python does at its end
        import atexit  # noqa: PLC0415

        atexit._run_exitfuncs()  # noqa: SLF001
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:
                code = code or 1
        os._exit(code)
