"""The rules of CONTRIBUTING.md that can be read off the source."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from conftest import REPOSITORY

PACKAGE = REPOSITORY / "hermes_cli"
MOST_LINES = 450

# Files beside console.py whose streams are not a user's output, and the reason.
WRITERS = {
    "cli.py": "the last line after Ctrl-C, when nothing may be imported any more",
    "engine/embedded/": "the engine's process: standard error is its log",
    "chat/terminal/": "the prompt that is being edited, and the escape sequence of the clipboard",
}


@cache
def sources() -> dict[str, ast.Module]:
    return {
        str(path.relative_to(PACKAGE)): ast.parse(path.read_text("utf-8")) for path in sorted(PACKAGE.rglob("*.py"))
    }


def floors() -> dict[str, int]:
    """The table of CONTRIBUTING.md: room or file -> floor."""
    text = (REPOSITORY / "CONTRIBUTING.md").read_text("utf-8")
    rows = re.findall(r"^\| (\d) \| ([^|]+) \|", text, re.MULTILINE)
    return {name: int(floor) for floor, names in rows for name in re.findall(r"`([\w./]+)`", names)}


def room(file: str) -> str:
    return f"{file.split('/', maxsplit=1)[0]}/" if "/" in file else file


def without_types(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run: what is imported for types alone is left out."""
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
            yield node
            yield from without_types(node)


def imported(nodes: Iterator[ast.AST]) -> set[str]:
    """Names of all modules that are imported, ours with the name that is taken from them."""
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def own_files(names: set[str]) -> set[str]:
    files: set[str] = set()
    for name in names:
        parts = name.split(".")
        if parts[0] == "hermes_cli":
            ways = ("/".join(parts[1:end]) for end in range(len(parts), 1, -1))
            files.update([next((f"{way}.py" for way in ways if f"{way}.py" in sources()), "__init__.py")])
    return files


def test_every_room_has_its_floor() -> None:
    rooms = {room(file) for file in sources() if file != "__init__.py" and not file.startswith("assets/")}
    assert rooms == set(floors())


def test_imports_lead_down() -> None:
    of = floors()
    upward = [
        f"{file} -> {target}"
        for file, tree in sources().items()
        for target in own_files(imported(ast.walk(tree)))
        if room(file) != room(target) and target != "__init__.py" and file != "__main__.py"
        if of[room(target)] >= of[room(file)] and of[room(file)] > 0
    ]
    assert not upward


def test_no_file_imports_itself_by_way_of_others() -> None:
    graph = {file: own_files(imported(without_types(tree))) - {file} for file, tree in sources().items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_one_file_imports_llama_cpp() -> None:
    found = {
        file
        for file, tree in sources().items()
        if any(name.split(".")[0] == "llama_cpp" for name in imported(ast.walk(tree)))
    }
    assert found == {"engine/embedded/bindings.py"}


def test_only_the_console_writes() -> None:
    writers = {
        file
        for file, tree in sources().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        if re.fullmatch(r"(builtins\.)?print|sys\.(stdout|stderr)\.(buffer\.)?write", ast.unparse(node.func))
    }
    assert not {file for file in writers - {"console.py"} if not any(file.startswith(known) for known in WRITERS)}
    assert all(any(file.startswith(known) for file in writers) for known in WRITERS), "an exception that nobody needs"


@pytest.mark.parametrize("module", ["termios", "fcntl", "resource", "pwd", "grp", "pty", "tty", "msvcrt", "winreg"])
def test_what_not_every_system_has_is_imported_where_it_is_used(module: str) -> None:
    at_once = {
        file
        for file, tree in sources().items()
        if any(name.split(".")[0] == module for name in imported(iter(tree.body)))
    }
    assert not at_once


def test_files_are_short() -> None:
    long = {
        file: lines
        for file in sources()
        if (lines := len(Path(PACKAGE, file).read_text("utf-8").splitlines())) > MOST_LINES
    }
    assert not long


def test_public_classes_have_names_of_their_own() -> None:
    names = Counter(
        node.name
        for tree in sources().values()
        for node in tree.body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert not {name for name, count in names.items() if count > 1}
