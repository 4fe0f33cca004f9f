"""A plugin of pytest: `--quick` leaves out what is slow by nature, which else comes first.

A file is slow if it, or a module of `tests/` or `tools/` that it imports, starts processes or servers or loads a model, which is read
off its imports; none of it is imported then, either. A single test that only computes, but for long, is marked `slow`.

In all tests and what they start, OpenMP has one thread: llama.cpp converts weights with as many as there are cores,
which wait for each other while they spin. Contexts say themselves how many threads they have.
"""

from __future__ import annotations

import gc
import os
import re
from functools import cache
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # here, since this is loaded before anything that loads llama.cpp
TESTS = Path(__file__).parent
HELPERS = (TESTS, TESTS.parent / "tools")
# What starts processes, servers, terminals or models; what other projects' clients import takes as long as a process.
SLOW_MODULES = frozenset(
    [
        "subprocess",
        "multiprocessing",
        "psutil",
        "pexpect",
        "socket",
        "http.server",
        "llama_cpp",
        "schemathesis",
        "openai",
        "anthropic",
        "llm",
        "mcp",
        "hermes_cli.engine.embedded.llama",
        "hermes_cli.engine.embedded.engine",
        "hermes_cli.engine.embedded.child",
    ]
)
SLOW_PARAMETER = re.compile(r"\b(?:hermes|demo_model|demo_chatter): ")
# A module and the names from it, or modules. Parsing each file as Python does takes ten times as long.
IMPORT = re.compile(r"^[ \t]*(?:from ([\w.]+) import (\([^)]*\)|[^\n#]*)|import ([^\n#]*))", re.MULTILINE)


@cache
def is_slow(path: Path) -> bool:
    """Tell whether a file of `tests/` starts processes, servers or models, by its imports and its tests' parameters."""
    imported: set[str] = set()
    text = path.read_text("utf-8")
    for module, names, modules in IMPORT.findall(text):
        if module:
            imported.update({module, *(f"{module}.{name}" for name in re.findall(r"\w+", names))})
        else:
            imported.update(re.findall(r"[\w.]+", modules))
    if imported & SLOW_MODULES or SLOW_PARAMETER.search(text):
        return True
    helpers = (folder / f"{name}.py" for folder in HELPERS for name in imported if name != "conftest")
    return any(is_slow(helper) for helper in helpers if helper.is_file())


def pytest_collection() -> None:
    """Collect no garbage while thousands of objects are made that all stay."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Let no later collection of garbage look at what stays."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="only tests that need no process, server or model")
    parser.addoption("--long", action="store_true", help="the long repetitions of what is else tested shortly, too")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not even import the files that a quick run leaves out."""
    if not config.getoption("quick") or collection_path.suffix != ".py":
        return None
    return is_slow(collection_path) or None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out single tests by their marks; put slow files first, so that no process has a long one left at the end."""
    quick, long = config.getoption("quick"), config.getoption("long")
    kept: list[pytest.Item] = []
    left_out: list[pytest.Item] = []
    with_slow_tests = set()
    for item in items:
        marks = {mark.name for mark in item.iter_markers()}
        if (quick and "slow" in marks) or (not long and "long" in marks):
            left_out.append(item)
            continue
        kept.append(item)
        if "slow" in marks:
            with_slow_tests.add(item.path)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
    kept.sort(key=lambda item: (not is_slow(item.path), item.path not in with_slow_tests))
    items[:] = kept
