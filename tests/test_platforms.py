"""The branches for macOS and Windows, run here: a platform that is passed in, or a system that behaves like theirs."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from hermes_cli import platforms
from hermes_cli.chat.conversation import Conversation
from hermes_cli.chat.sessions.session_file import SessionFile
from hermes_cli.child_process import ExitReport, command
from hermes_cli.console import Console, Voice
from hermes_cli.engine.embedded.child import Child
from hermes_cli.prompting.messages import Message
from hermes_cli.server import run
from hermes_cli.server.sockets import listen


def test_the_interpreter_of_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "_base_executable", "C:\\Python\\python.exe", raising=False)
    assert platforms.child_python("win32") == "C:\\Python\\python.exe"
    assert platforms.child_python("linux") == platforms.child_python("darwin") == sys.executable
    monkeypatch.delattr(sys, "_base_executable")
    assert platforms.child_python("win32") == sys.executable


def test_children_are_left_alone_by_every_signal_of_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "SIGBREAK", signal.SIGUSR1, raising=False)
    assert platforms.ending_signals() == (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    program = command("signal")[-1].replace(
        "from signal import main; main()", "print(signal.getsignal(signal.SIGUSR1))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(sys.path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() in {"1", "Handlers.SIG_IGN"}


def test_control_break_ends_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "SIGBREAK", signal.SIGUSR1, raising=False)

    async def serve() -> None:
        asked = asyncio.Event()
        with run._signals(asked.set):  # noqa: SLF001 - a server takes long to start
            os.kill(os.getpid(), signal.SIGUSR1)
            await asked.wait()

    asyncio.run(serve())
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL


@pytest.mark.parametrize(
    ("platform", "environment", "encoding"),
    [("win32", {}, "utf-8"), ("win32", {"PYTHONIOENCODING": "cp1252"}, "cp1252"), ("linux", {}, "cp1252")],
)
def test_pipes_of_windows_take_every_character(
    platform: str, environment: dict[str, str], encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONIOENCODING", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, encoding="cp1252")
    platforms.prepare_streams((stream, io.StringIO()), platform)
    stream.write("→ █ 😀 é")
    stream.flush()
    assert stream.encoding == encoding
    assert written.getvalue() == ("→ █ 😀 é" if encoding == "utf-8" else "> # ? é").encode(encoding)


def test_json_loses_no_character_to_a_code_page() -> None:
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, encoding="cp1252", errors="replace")
    Console(Voice.JSON, out=stream).document({"text": "→ 😀"})
    assert json.loads(written.getvalue().decode("cp1252")) == {"text": "→ 😀"}


def test_a_reader_that_left() -> None:
    assert platforms.is_broken_pipe(BrokenPipeError(errno.EPIPE, "x"), "linux")
    assert platforms.is_broken_pipe(OSError(errno.EINVAL, "x"), "win32")
    assert not platforms.is_broken_pipe(OSError(errno.EINVAL, "x"), "linux")
    assert not platforms.is_broken_pipe(OSError(errno.EINVAL, "x", "file"), "win32")


def test_a_session_is_not_open_while_it_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.rename

    def refuse_open_files(path: Path, target: Path) -> Path:  # as Windows does
        if str(path) in {file.path for file in psutil.Process().open_files()}:
            raise PermissionError(errno.EACCES, "the file is in use by another process")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse_open_files)
    conversation = Conversation()
    session = SessionFile.create(tmp_path, conversation, "demo", pytest.fail, "before")
    conversation.add(Message("user", "one"))
    session.rename("after")
    conversation.add(Message("user", "two"))
    session.close()
    opened, reread = SessionFile.open(tmp_path / "after.jsonl", pytest.fail)
    opened.close()
    assert [change.message.content for change in reread.entries] == ["one", "two"]


def test_ending_a_child_that_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    kill = os.kill

    def end_and_refuse(pid: int, number: int) -> None:
        kill(pid, number)
        raise PermissionError(errno.EACCES, "Access is denied")  # as Windows does for a process that has ended

    async def end() -> ExitReport:
        child = await Child.start()
        monkeypatch.setattr(os, "kill", end_and_refuse)
        child.kill()
        return await child.gone()

    assert asyncio.run(end()).code == -signal.SIGKILL


def test_exit_codes_of_windows() -> None:
    assert ExitReport(0xC0000005, "").how == "ended with code 0xC0000005"
    assert ExitReport(3, "").how == "ended with code 3"


def test_a_port_is_not_shared_where_systems_would(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_OOBINLINE, raising=False)  # harmless, and seen below
    (listening,) = listen("127.0.0.1", 0)
    with listening:
        assert listening.getsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE)


def test_all_addresses_means_both_families() -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("there is no IPv6 here")
    (listening,) = (one for one in listen("::", 0) if one.family == socket.AF_INET6)
    with listening:
        assert not listening.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)


def test_the_chat_needs_no_posix_terminal_on_windows() -> None:
    program = (
        "import sys; import prompt_toolkit, prompt_toolkit.input\n"
        "sys.modules.update(dict.fromkeys(['termios', 'fcntl', 'prompt_toolkit.input.vt100']))\n"  # cannot be imported
        "prompt_toolkit.input.create_input = lambda: 'console'\n"
        "sys.platform = 'win32'\n"
        "from hermes_cli.chat.terminal.keyboard import Keyboard\n"
        "print(Keyboard(None, None, None)._input)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "console\n"
