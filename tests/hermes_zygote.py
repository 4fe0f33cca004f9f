"""`hermes` commands, and programs of tests that import it, as real processes: each is a fork of one that has imported all.

A command has its own process, pipes, folder, environment and exit code, as if a shell had started it; only the imports
were made before, and what huggingface_hub read from the environment is read again. Other modules that read the environment
while they are imported are left out.
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
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import IO, NoReturn

PRELOADED = (
    *("argparse", "asyncio", "concurrent.futures", "email.parser", "hashlib", "http.client", "logging", "tempfile"),
    *("typer", "click", "yaml", "msgspec", "filelock", "psutil", "platformdirs", "jinja2.sandbox", "h11", "anyio"),
    *("pydantic", "jinja2.ext", "markdown_it", "pygments.lexers", "rich.console", "rich.table", "rich.progress"),
    *("httpcore2", "httpx2", "huggingface_hub.hf_api", "tqdm.auto", "encodings.idna", "rich._emoji_codes"),
    *("hermes_cli.catalog.load", "hermes_cli.hardware.probe", "hermes_cli.planning", "hermes_cli.console"),
    *("hermes_cli.engine.embedded.engine", "hermes_cli.engine.embedded.fit_check", "hermes_cli.generation"),
    *("hermes_cli.models.planned", "hermes_cli.chat.agent_loop", "hermes_cli.chat.backend", "hermes_cli.chat.view"),
    *("hermes_cli.prompting.structured_output", "hermes_cli.gguf.header"),
    *("hermes_cli.server.run", "hermes_cli.server.app", "hermes_cli.server.served_models"),
    *("hermes_cli.chat.terminal.terminal_view", "hermes_cli.chat.terminal.keyboard", "hermes_cli.cli"),
    *("hermes_cli.models.loader", "hermes_cli.catalog.check", "encodings.unicode_escape", "typer._click.decorators"),
    *("pydantic.validate_call_decorator", "ctypes"),
)
HERMES = "from hermes_cli.cli import main; main()"
_LENGTH = 4  # bytes before an order, and of a number in the pipe that tells how a command does


class Fork:
    """A command that runs; as far as it is needed, like `subprocess.Popen`."""

    def __init__(self, state: int) -> None:
        """Take over the pipe that tells its number and, when it ends, its exit status."""
        self.pid, self._state = _number(state), state
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
            with suppress(ProcessLookupError):  # it has ended, which is about to be told
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)


class ForkedProcess(Fork):
    """A command whose output comes through pipes, as text."""

    def __init__(self, state: int, stdout: int, stderr: int, stdin: int | None = None) -> None:
        """Take over the pipes."""
        super().__init__(state)
        self.stdin: IO[str] | None = None if stdin is None else os.fdopen(stdin, "w", encoding="utf-8")
        self.stdout: IO[str] = open(stdout, encoding="utf-8", errors="replace")  # noqa: SIM115 - a pipe
        self.stderr: IO[str] = open(stderr, encoding="utf-8", errors="replace")  # noqa: SIM115 - a pipe

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it writes until it ends, without more on its standard input."""
        texts = ["", ""]
        if self.stdin:
            with suppress(BrokenPipeError):
                self.stdin.close()

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
    """Starts commands as forks of a process that has imported what they need."""

    def __init__(self, modules: Sequence[str] = PRELOADED) -> None:
        """Start the process; it ends with this one."""
        self._lock = threading.Lock()
        self._line, theirs = socket.socketpair()
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "from hermes_zygote import serve; serve()",
                str(theirs.fileno()),
                json.dumps([modules, sys.path]),
            ],
            pass_fds=[theirs.fileno()],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        theirs.close()

    def start(
        self,
        arguments: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        stdin: int | None = None,
        code: str = HERMES,
    ) -> ForkedProcess:
        """Start `hermes ARGUMENTS`, or other code.

        Standard input is at its end, unless a file is given, or subprocess.PIPE for a pipe.
        """
        (out, to_out), (error, to_error) = os.pipe(), os.pipe()
        write = None
        if stdin == subprocess.PIPE:
            given, write = os.pipe()
        else:
            given = os.open(os.devnull, os.O_RDONLY) if stdin is None else os.dup(stdin)
        state = self._order(arguments, folder, environment, [given, to_out, to_error], code)
        return ForkedProcess(state, out, error, write)

    def start_in_terminal(
        self, arguments: Sequence[str], folder: Path, environment: Mapping[str, str], terminal: int, code: str = HERMES
    ) -> Fork:
        """Start `hermes ARGUMENTS`, or other code, in a terminal: the end of a pseudo-terminal that programs get."""
        return Fork(self._order(arguments, folder, environment, [terminal, os.dup(terminal), os.dup(terminal)], code))

    def _order(
        self, arguments: Sequence[str], folder: Path, environment: Mapping[str, str], streams: Sequence[int], code: str
    ) -> int:
        """Hand over the streams of a command; what tells its number and its exit status."""
        state, to_state = os.pipe()
        theirs = [to_state, *streams]
        order = json.dumps([list(arguments), str(folder), dict(environment), code]).encode()
        with self._lock:
            socket.send_fds(self._line, [len(order).to_bytes(_LENGTH, "big")], theirs)
            self._line.sendall(order)
        for file in theirs:
            os.close(file)
        return state

    def close(self) -> None:
        """End the process."""
        self._line.close()
        self._process.wait()


@cache
def zygote() -> Zygote | None:
    """The process whose forks are commands, where there are forks."""
    return Zygote() if hasattr(os, "fork") else None


def _number(file: int) -> int:
    return int.from_bytes(os.read(file, _LENGTH), "big", signed=True)


# In the process


def serve() -> NoReturn:
    """Fork for each order, until the other side is closed."""
    gc.disable()  # all that is imported stays
    line = socket.socket(fileno=int(sys.argv[1]))
    modules, sys.path[:] = json.loads(sys.argv[2])
    for module in modules:
        import_module(module)
    if bandwidth := sys.modules.get("hermes_cli.hardware.bandwidth"):
        # tests leave no machine calm, and each has an empty cache: a short look at the RAM does
        vars(bandwidth).update(TRIES=1, WINDOWS=1, SECONDS=0.001, SMALLEST=1 << 24, LARGEST=1 << 24)
    reread = _prepare_hermes() if modules == [*PRELOADED] else lambda: None
    gc.collect()
    gc.enable()
    gc.freeze()  # forks share these objects
    ended, tell = os.pipe()
    os.set_blocking(tell, False)
    states: dict[int, int] = {}
    while True:
        signal.signal(signal.SIGCHLD, lambda *_: None)  # it only has to wake this process
        signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
        if ended in select.select([line.fileno(), ended], [], [])[0]:
            os.read(ended, 1 << 16)
            _tell_ends(states)
            continue
        header, files, *_ = socket.recv_fds(line, _LENGTH, 4)
        if not header:
            os._exit(0)
        order = b""
        while len(order) < int.from_bytes(header, "big"):
            order += line.recv(1 << 16)
        state, *streams = files
        if not (command := os.fork()):
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            line.close()
            for file in (ended, tell, state, *states.values()):
                os.close(file)
            _become(json.loads(order), streams, reread)
        for file in streams:
            os.close(file)
        states[command] = state
        os.write(state, command.to_bytes(_LENGTH, "big", signed=True))


def _tell_ends(states: dict[int, int]) -> None:
    """Tell the exit status of each command that has ended."""
    while states:
        command, status = os.waitpid(-1, os.WNOHANG)
        if not command:
            return
        state = states.pop(command)
        with suppress(BrokenPipeError):  # nobody waited for it
            os.write(state, os.waitstatus_to_exitcode(status).to_bytes(_LENGTH, "big", signed=True))
        os.close(state)


def _take_terminal() -> None:
    """Let the terminal that is standard input be the one that controls this process."""
    import fcntl  # noqa: PLC0415 - not on Windows
    import termios  # noqa: PLC0415

    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _prepare_hermes() -> Callable[[], None]:
    """Import all commands; what lets huggingface_hub read the environment again comes back.

    One module of it does, and others have copies of its values.
    """
    for package in ("hermes_cli.commands", "hermes_cli.store", "hermes_cli.chat.sessions"):
        for found in iter_modules(import_module(package).__path__, f"{package}."):
            import_module(found.name)
    _compute_what_all_share()
    import forked_children  # noqa: PLC0415 - it needs what was imported

    forked_children.preload()
    constants = sys.modules["huggingface_hub.constants"]
    program = compile(Path(str(constants.__file__)).read_text(encoding="utf-8"), str(constants.__file__), "exec")
    copies = [
        (module, name)
        for module in list(sys.modules.values())
        if module.__name__.startswith("huggingface_hub.") and module is not constants
        for name in vars(module).keys() & vars(constants).keys()
        if name.isupper()
    ]

    def read() -> None:
        exec(program, vars(constants))  # noqa: S102 - as an import does
        for module, name in copies:
            setattr(module, name, getattr(constants, name))

    return read


def _compute_what_all_share() -> None:
    """Compile the demo's template, and how the catalogue is read, as the first command of a process does."""
    template = Path(__file__).parent.parent / "demo" / "template.jinja"
    sys.modules["hermes_cli.prompting.template"].compile_fault(template.read_text("utf-8"))
    sys.modules["msgspec"].json.Decoder(sys.modules["hermes_cli.catalog.models"].Catalogue)


def _become(
    order: tuple[list[str], str, dict[str, str], str], files: Sequence[int], reread: Callable[[], None]
) -> NoReturn:
    """Be the command, and end."""
    arguments, folder, environment, program = order
    code = 1
    try:
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        if os.isatty(0):
            _take_terminal()
        reread()
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - as Python opens it
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
        sys.argv = [sys.executable, *arguments]
        sys.path.insert(0, folder)
        sys.modules["__main__"] = main = ModuleType("__main__")
        exec(compile(program, "<program>", "exec"), vars(main))  # noqa: S102 - as Python does with -c
        code = 0
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
