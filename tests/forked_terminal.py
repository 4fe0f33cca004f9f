"""`hermes` commands in pseudo-terminals that pexpect reads and writes, as forks of the process of tests/hermes_zygote.py."""

from __future__ import annotations

import os
import pty
import termios
from collections.abc import Mapping
from pathlib import Path

import pexpect
from conftest import zygote
from hermes_zygote import Fork
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
    """`hermes` in a terminal; instead of a program it is given the arguments of the command."""

    def _spawnpty(
        self, args: list[str | bytes], *, cwd: str, env: Mapping[str, str], dimensions: tuple[int, int], **_: object
    ) -> _ForkedPty:
        ours, theirs = pty.openpty()
        forks = zygote()
        assert forks, "where there are pseudo-terminals, there are forks"
        termios.tcsetwinsize(theirs, dimensions)
        process = forks.start_in_terminal([os.fsdecode(one) for one in args[1:]], Path(cwd), env, theirs)
        return _ForkedPty(process, ours)
