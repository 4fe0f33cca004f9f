"""Fixtures: the demo model, and `hermes` as a real process."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Protocol, TypeVar

import pytest
from hermes_zygote import ForkedProcess, zygote
from hypothesis import settings

from hermes_cli import paths
from hermes_cli.engine.embedded.engine import EmbeddedEngine
from hermes_cli.engine.embedded.llama import LlamaModel
from hermes_cli.engine.embedded.messages import EngineOptions
from hermes_cli.generation import TAGS, ChatModel
from hermes_cli.planning.load_plan import LoadPlan
from hermes_cli.planning.memory import ContextSettings

# Machines differ in speed, results must not: no deadline, and the same examples every time; --long tries more of them.
settings.register_profile("hermes", deadline=None, max_examples=40, derandomize=True)
settings.register_profile("long", deadline=None, max_examples=200, derandomize=True)
settings.load_profile("hermes")

HANG = 300.0
"""Seconds after which something that has to happen is taken to never happen. No test passes or fails by less."""

# Ctrl-C and hang-ups reach tests and the processes that they start, also where whoever started pytest ignores them
# (nohup, many CI runners, a job in the background of a script): Python hands on to a child only that they are ignored.
for _number, _handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
    signal.signal(_number, _handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

READ_AT_START = {"PYTHONIOENCODING", "PYTHONUTF8", "PYTHONCOERCECLOCALE", "LLAMA_CPP_LIB_PATH"}
"""Variables that Python and llama.cpp's package read when they start, and forks do not any more."""

REPOSITORY = Path(__file__).parent.parent
Finished = subprocess.CompletedProcess[str]
RunHermes = Callable[..., Finished]
T = TypeVar("T")


class WaitFor(Protocol):
    """What a coroutine returns."""

    def __call__(self, coroutine: Coroutine[Any, Any, T], /) -> T: ...


def clean_environment() -> dict[str, str]:
    """The environment without anything that changes what hermes prints, and with one thread for models."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("HERMES_", "_HERMES"))
        and key not in {"NO_COLOR", "FORCE_COLOR", "COMP_WORDS", "COLUMNS", "LINES"}
    }
    # The demo is no faster on two threads, and those wait for each other whenever anything else runs.
    return {**kept, "HERMES_LLM_THREADS": "1"}


def eventually(condition: Callable[[], object]) -> None:
    """Wait for what happens in another process or thread and stays so, where nothing announces it."""
    end = time.monotonic() + HANG
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)


def pytest_configure(config: pytest.Config) -> None:
    """Try more examples in a long run."""
    if config.getoption("long"):
        settings.load_profile("long")


@pytest.fixture(scope="session")
def demo_path() -> Path:
    return paths.asset("demo.gguf")


@pytest.fixture(scope="session")
def demo_model(demo_path: Path) -> Iterator[LlamaModel]:
    with LlamaModel(demo_path) as model:
        yield model


@pytest.fixture(scope="session")
def wait_for() -> Iterator[WaitFor]:
    """Runs coroutines, all on one event loop, since an engine belongs to one."""
    loop = asyncio.new_event_loop()
    yield loop.run_until_complete
    loop.close()


@pytest.fixture(scope="module")  # not longer: other tests count the processes that engines leave
def demo_chatter(demo_path: Path, wait_for: WaitFor) -> Iterator[ChatModel]:
    engine = EmbeddedEngine(demo_path, LoadPlan(ContextSettings(1024), threads=1), EngineOptions(tags=TAGS))
    yield wait_for(ChatModel.open(engine))
    wait_for(engine.close())


def pytest_unconfigure() -> None:
    if zygote.cache_info().currsize and (made := zygote()):
        made.close()


@pytest.fixture
def hermes(tmp_path: Path) -> RunHermes:
    """Run `hermes ARGUMENTS` in an empty folder, with standard input at its end unless given."""

    def run(*arguments: str, stdin: str | bytes = "", env: dict[str, str] | None = None) -> Finished:
        settings = {"HERMES_LLM_CONFIG_DIR": str(tmp_path / "config")}  # not those of who runs the tests
        environment = {**clean_environment(), **settings, **(env or {})}
        with TemporaryFile() as given:
            given.write(stdin.encode() if isinstance(stdin, str) else stdin)
            given.seek(0)
            process = start_hermes(arguments, tmp_path, environment, given.fileno())
            out, error = process.communicate(timeout=HANG)
        return subprocess.CompletedProcess(arguments, process.returncode or 0, out, error)

    return run


def start_hermes(
    arguments: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    stdin: int | None = None,
    program: Sequence[str] = (),
) -> ForkedProcess | subprocess.Popen[str]:
    """Start `hermes ARGUMENTS`: another `program`, or a fork if nothing is said that only a start of Python reads."""
    forks = None if program or environment.keys() & READ_AT_START else zygote()
    if forks:
        return forks.start(arguments, folder, environment, stdin)
    return subprocess.Popen(
        [*(program or (sys.executable, "-m", "hermes_cli")), *arguments],
        stdin=subprocess.DEVNULL if stdin is None else stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=environment,
    )


@pytest.fixture
def tree(tmp_path: Path) -> Callable[[Mapping[str, str | bytes]], Path]:
    """Makes files under one root, as /sys and /proc would have them; the root comes back."""

    def grow(files: Mapping[str, str | bytes]) -> Path:
        root = tmp_path / "root"
        root.mkdir(exist_ok=True)
        for name, content in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return root

    return grow
