"""llama.cpp's C API without the rest of the Python package that it comes in, and llama.cpp's log.

`import llama_cpp` also loads a chat layer with NumPy and Jinja, 0.12 s for what hermes has no use for. The module with
the API, `llama_cpp.llama_cpp`, needs none of that; only Python's habit of running a package's `__init__` first does.
"""

from __future__ import annotations

import ctypes
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from typing import TYPE_CHECKING

from hermes_cli.errors import EngineError
from hermes_cli.platforms import INSTEAD_HINT, REINSTALL_HINT

if TYPE_CHECKING:
    from types import ModuleType

    from llama_cpp import llama_cpp

PACKAGE = "llama_cpp"


def _api() -> ModuleType:
    spec = find_spec(PACKAGE)
    if PACKAGE in sys.modules or spec is None:
        return import_module(f"{PACKAGE}.{PACKAGE}")
    sys.modules[PACKAGE] = module_from_spec(spec)  # made, but not run
    try:
        return import_module(f"{PACKAGE}.{PACKAGE}")
    finally:
        del sys.modules[PACKAGE]  # whoever wants the whole package still gets it, around the same API


if not TYPE_CHECKING:
    try:
        llama_cpp = _api()
    except ModuleNotFoundError as error:
        raise EngineError("llama.cpp is not installed.", hint=f"{INSTEAD_HINT}; or {REINSTALL_HINT}") from error
    except (ImportError, OSError, RuntimeError) as error:
        raise EngineError(f"llama.cpp cannot be loaded: {error}.", hint=REINSTALL_HINT) from error


ERROR_LEVEL = 4  # GGML_LOG_LEVEL_ERROR (ggml/include/ggml.h)
CONTINUE_LEVEL = 5  # GGML_LOG_LEVEL_CONT: the rest of the line before
KEPT_LINES = 20
LONGEST_LINE = 1000  # bytes; a longer one has what a file says of itself


class Log:
    """Receives every line that llama.cpp writes. There is one for the whole process, as llama.cpp has one log."""

    def __init__(self) -> None:
        self.verbose = False  # True shows the lines on standard error
        self._captured: list[str] | None = None
        self._errors: deque[str] = deque(maxlen=KEPT_LINES)
        self._level = 0
        self._callback = llama_cpp.llama_log_callback(self._receive)  # kept: C holds only a bare pointer to it
        self.install()

    def install(self) -> None:
        """Forget earlier errors; set this log again after another module, as llama_cpp does once it is imported."""
        self._errors.clear()
        llama_cpp.llama_log_set(self._callback, ctypes.c_void_p(0))

    def _receive(self, level: int, text: bytes, _: object) -> None:
        line = text[:LONGEST_LINE].decode("utf-8", "replace") + ("\n" if len(text) > LONGEST_LINE else "")
        if level != CONTINUE_LEVEL:
            self._level = level
        if self._level == ERROR_LEVEL and line.strip():
            self._errors.append(line.strip())
        if self._captured is not None:
            self._captured.append(line)
        if self.verbose:
            sys.stderr.write(line)

    @contextmanager
    def capture(self) -> Iterator[list[str]]:
        """Collect the pieces of text that llama.cpp logs within the context."""
        self._captured = []
        try:
            yield self._captured
        finally:
            self._captured = None

    def take_errors(self) -> str:
        """Return the error lines since the last call, in order, without the names of C functions, as one text."""
        lines = [line.split(": ", 1)[-1] if line.split(": ", 1)[0].isidentifier() else line for line in self._errors]
        self._errors.clear()
        return "; ".join(dict.fromkeys(lines)) or "it gave no reason"


LOG = Log()

__all__ = ["LOG", "llama_cpp"]
