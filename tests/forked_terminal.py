"""`hermes` commands in pseudo-terminals that pexpect reads and writes, as forks of the process of tests/hermes_zygote.py."""

from __future__ import annotations

import os
import pty
import sys
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path

import pexpect
from conftest import HANG
from hermes_zygote import HERMES, Fork, zygote
from ptyprocess import PtyProcess  # type: ignore[import-untyped]


class _ForkedPty(PtyProcess):  # type: ignore[misc] # has no types
    """A pseudo-terminal whose program is a fork of the zygote, and no child of this process."""

    terminated: bool
    exitstatus: int | None
    signalstatus: int | None

    def __init__(self, process: Fork, terminal: int) -> None:
        super().__init__(process.pid, terminal)
        self._process = process

    def isalive(self) -> bool:
        return self.wait(None if self.flag_eof else 0) is None

    def wait(self, timeout: float | None = None) -> int | None:
        code = self._process.wait(timeout)
        if code is not None and not self.terminated:
            self.terminated = True
            self.exitstatus, self.signalstatus = (code, None) if code >= 0 else (None, -code)
        return code


class ForkedTerminal(pexpect.spawn):  # type: ignore[type-arg] # takes none when it runs
    """`hermes`, or other code, in a terminal."""

    def __init__(
        self,
        code: str | None,
        arguments: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        dimensions: tuple[int, int],
        encoding: str | None,
    ) -> None:
        self._code = HERMES if code is None else code
        super().__init__(
            sys.executable,  # which has to be some program
            list(arguments),
            cwd=str(folder),
            env=environment,
            encoding=encoding,
            timeout=HANG,
            dimensions=dimensions,
        )
        self.delaybeforesend = None

    def _spawnpty(
        self, args: list[str | bytes], *, cwd: str, env: Mapping[str, str], dimensions: tuple[int, int], **_: object
    ) -> _ForkedPty:
        ours, theirs = pty.openpty()
        forks = zygote()
        assert forks, "where there are pseudo-terminals, there are forks"
        termios.tcsetwinsize(theirs, dimensions)
        process = forks.start_in_terminal([os.fsdecode(one) for one in args[1:]], Path(cwd), env, theirs, self._code)
        return _ForkedPty(process, ours)
