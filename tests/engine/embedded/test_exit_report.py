"""What is said of a process that ended."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from hermes_cli.engine.embedded.child import AMX_HINT, LlamaExit
from hermes_cli.platforms import REINSTALL_HINT

MODEL = Path("some.gguf")
LINES = "processor\t: 0\nflags\t\t: fpu sse2 avx512f {}\nbugs\t\t: spectre_v1\n"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="processes end by signals on POSIX systems")


@pytest.mark.parametrize(
    ("flags", "code", "amx"),
    [
        ("amx_bf16 amx_tile amx_int8", -signal.SIGSEGV, True),
        ("avx2", -signal.SIGSEGV, False),
        ("amx_tile", -signal.SIGABRT, False),
        ("amx_tile", 3, False),
    ],
)
def test_a_crash_on_a_processor_with_amx_says_how_to_build_again(
    tmp_path: Path, flags: str, code: int, *, amx: bool
) -> None:
    (tmp_path / "cpuinfo").write_text(LINES.format(flags))
    error = LlamaExit(code, "the last line").while_running(MODEL, changed=False, cpuinfo=tmp_path / "cpuinfo")
    assert ": the last line." in error.message
    assert (error.hint == AMX_HINT) is amx


def test_a_crash_without_proc_says_what_it_always_says(tmp_path: Path) -> None:
    error = LlamaExit(-signal.SIGSEGV, "").while_running(MODEL, changed=False, cpuinfo=tmp_path / "cpuinfo")
    assert error.hint
    assert error.hint.startswith("the next request starts it again")


def test_an_instruction_that_is_missing_says_to_install_again() -> None:
    error = LlamaExit(-signal.SIGILL, "").while_running(MODEL, changed=False)
    assert "llama.cpp was built on another machine" in error.message
    assert error.hint == REINSTALL_HINT
