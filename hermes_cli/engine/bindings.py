"""llama.cpp's C API in Python, without the rest of the package that it comes in.

`import llama_cpp` also loads a chat layer with NumPy and Jinja, 0.12 s for what hermes has no use for. The module with
the API, `llama_cpp.llama_cpp`, needs none of that; only Python's habit of running a package's `__init__` first does.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from typing import TYPE_CHECKING

from hermes_cli.engine.process import REINSTALL_HINT
from hermes_cli.errors import EngineError

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
    except (ImportError, OSError, RuntimeError) as error:
        raise EngineError(f"llama.cpp cannot be loaded: {error}.", hint=REINSTALL_HINT) from error

__all__ = ["llama_cpp"]
