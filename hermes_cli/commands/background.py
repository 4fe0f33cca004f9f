"""`hermes serve --background`: the same command as a process that outlives the terminal."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from hermes_cli import __version__, paths
from hermes_cli.console import Console, read_error
from hermes_cli.errors import ExitCode, HermesError

LOG_VARIABLE = "_HERMES_LLM_SERVE_LOG"  # tells the process that it is in the background, and where its log is
KEPT_LOGS = 10
SHOWN_LINES = 12  # of the log of a server that did not start


def serve_in_background(console: Console) -> None:
    """Start what was typed again without `--background`, and wait until it serves; show its banner.

    Raise HermesError if it ended before.
    """
    log = _new_log()
    words = [word for word in sys.argv[1:] if word != "--background"]
    detached: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        detached = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.DETACHED_PROCESS}
    with _opened(log) as file:
        process = subprocess.Popen(  # noqa: S603 - this program
            [sys.executable, "-m", "hermes_cli", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=file,
            env={**os.environ, LOG_VARIABLE: str(log)},
            **detached,
        )
    try:
        with console.working("starting the server"):
            # ends when the server is ready, or has ended
            banner = process.stdout.read().decode() if process.stdout else ""
        from hermes_cli.server.running import running_servers

        if not any(server.log == str(log) for server in running_servers()):
            _fail(process.wait(), log)
    except BaseException:  # Ctrl-C, too: nobody knows of a server that was not announced
        process.terminate()
        raise
    console.out.write(banner)
    console.note(f"it runs in the background; its log is {log}")
    console.note("see it with hermes ps, stop it with hermes stop")


def _opened(log: Path) -> BinaryIO:
    """Return the log with its first line; raise HermesError if it cannot be written, as on a full disk."""
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        file = log.open("ab", buffering=0)
        file.write(f"hermes-llm {__version__}, started on {time.strftime('%Y-%m-%d at %H:%M:%S')}\n".encode())
    except OSError as error:
        hint = "make room there, or choose another folder with HERMES_LLM_LOG_DIR."
        raise HermesError(f"the log {log} cannot be written: {error.strerror}.", hint=hint) from None
    return file


def _fail(code: int, log: Path) -> NoReturn:
    """Raise the error that ended the server, which is in its log."""
    lines = log.read_text("utf-8", "replace").splitlines()[1:]
    start = next((at for at, line in enumerate(lines) if line.startswith("error: ")), None)
    if start is None:
        shown = "\n".join(lines[-SHOWN_LINES:]) or "it said nothing."
        raise HermesError(f"the server ended with code {code}: {shown}", hint=f"the whole log is {log}")
    message, hint = read_error("\n".join(lines[start:]))
    error = HermesError(message, hint=hint or f"the whole log is {log}")
    error.exit_code = ExitCode(code) if code in [*ExitCode] else ExitCode.FAILED
    raise error


def _new_log() -> Path:
    """Return the path of a log that does not exist yet, and remove the oldest ones of servers that ended."""
    folder = paths.log_dir()
    from hermes_cli.server.running import running_servers

    used = {server.log for server in running_servers()}
    for path in sorted(folder.glob("serve-*.log"), reverse=True)[KEPT_LOGS - 1 :]:
        if str(path) not in used:
            path.unlink(missing_ok=True)
            path.with_name(f"{path.name}.1").unlink(missing_ok=True)
    return folder / f"serve-{time.strftime('%Y-%m-%d-%H%M%S')}-{os.getpid()}.log"
