"""`hermes doctor`: one screen about this installation that may be pasted anywhere, with what mends each problem."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from textwrap import TextWrapper
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hermes_cli import __version__, paths
from hermes_cli.commands.options import with_console
from hermes_cli.console import Console, Voice, warning_style
from hermes_cli.errors import ExitCode, HermesError, NotFoundError
from hermes_cli.hardware.advice import REBUILD
from hermes_cli.platforms import foreign_hermes
from hermes_cli.units import counted, gigabytes, memory_size

if TYPE_CHECKING:
    from hermes_cli.hardware.machine import Machine
    from hermes_cli.models.loader import LoadedModel

State = Literal["ok", "warning", "problem"]
PACKAGES = ("llama-cpp-python", "huggingface-hub", "typer", "rich")
PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY")
LITTLE_DISK = 5 * 10**9  # bytes; the Q4_K_M of Hermes 3 8B has 4.92 GB
QUESTION = "What can you do?"
CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@|(?<![\w-])hf_\w+")
WIDEST = 100  # columns


@dataclass(frozen=True)
class Check:
    """A thing that was looked at."""

    about: str  # the thing, in a word
    state: State  # `warning` for what works worse than it could, `problem` for what does not work
    text: str  # a sentence about it
    fix: str = ""  # the one command, or the one thing to do, that mends it; empty if nothing is to be mended


@with_console
def command(
    console: Console,
    offline: Annotated[bool, typer.Option("--offline", help="Do not ask whether the Hub can be reached.")] = False,
) -> None:
    """Check this installation: versions, hardware, disk, the Hub, and whether the demo model answers.

    Exits with 1 if something does not work. The report holds no token, no password, and not the name of the home
    folder.
    """
    from hermes_cli.hardware.probe import probe

    checks: list[Check] = []
    with console.working("looking at the installation") as show:
        checks += guarded("installation", _installation)
        show("looking at the hardware")
        checks += guarded("hardware", lambda: hardware_checks(probe()))
        show("looking at the disk")
        checks += guarded("models", _models)
        checks += guarded("disk", _disk)
        show("asking the Hub")
        checks += guarded("Hub", lambda: _hub(offline=offline))
        show("asking the demo model")
        checks += guarded("demo", _demo)
    checks = [Check(check.about, check.state, private(check.text), private(check.fix)) for check in checks]
    failed = sum(check.state == "problem" for check in checks)
    for check in checks:
        show_check(check, console)
    console.note(f"{failed} of {len(checks)} checks failed." if failed else "Everything works.")
    console.document({"ok": not failed, "checks": [asdict(check) for check in checks]})
    if failed:
        raise typer.Exit(ExitCode.FAILED)


def guarded(about: str, look: Callable[[], Iterable[Check]]) -> Iterator[Check]:
    """Yield checks; the error that ends them, such as a file that may not be read, is a problem among them."""
    try:
        yield from look()
    except HermesError as error:
        yield Check(about, "problem", error.message, error.hint)
    except OSError as error:
        if error.filename is None:
            raise
        problem = paths.access_error(os.fsdecode(error.filename), error)
        yield Check(about, "problem", problem.message, problem.hint)


def private(text: str) -> str:
    """Return a text without passwords in addresses, tokens of the Hub, and the home folder's name."""
    home = str(Path("~").expanduser())
    text = CREDENTIALS.sub("", text)
    return text.replace(home, "~") if len(home) > 1 else text


def show_check(check: Check, console: Console) -> None:
    """Print a check, wrapped at words on a terminal."""
    mark = {"ok": "ok     ", "warning": "warning", "problem": "PROBLEM"}[check.state]
    style = {"ok": "", "warning": warning_style(), "problem": "bold red"}[check.state]
    width = min(shutil.get_terminal_size().columns, WIDEST) if console.out.isatty() else 10_000
    wrapper = TextWrapper(width, subsequent_indent=" " * 9, break_long_words=False, break_on_hyphens=False)
    lines = [(line, style) for line in wrapper.wrap(f"{mark}  {check.about}: {check.text}")]
    lines += [(line, "") for line in wrapper.wrap(f"         next: {check.fix}")] if check.fix else []
    console.styled(lines)


def _installation() -> Iterator[Check]:
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    python = f"{platform.python_implementation()} {platform.python_version()}"
    yield Check("versions", "ok", f"hermes-llm {__version__}, {python} on {platform.system()}, {packages}")
    if other := foreign_hermes():
        yield Check("command", "warning", f"typing hermes starts another program, {other}.", "type hermes-llm instead.")
    else:
        yield Check("command", "ok", str(Path(sys.argv[0]).absolute()))


def hardware_checks(machine: Machine) -> Iterator[Check]:
    """Yield the checks of a probed machine: system, RAM, GPUs, the build of llama.cpp, and the probe's notes."""
    speed = machine.ram_bandwidth
    bandwidth = f"{speed / 1e9:.0f} GB/s ({machine.ram_bandwidth_source})" if speed else "bandwidth unknown"
    cores = f"{machine.cpu}, {counted(machine.cores, 'core')}, {' '.join(machine.simd) or 'no SIMD known'}"
    yield Check("system", "ok", f"{machine.os}; {cores}")
    memory = f"{memory_size(machine.ram_available)} of {memory_size(machine.ram_total)} available"
    yield Check("RAM", "ok", f"{memory}, {bandwidth}")
    for number, device in enumerate(machine.devices):
        about = f"GPU {number}"
        text = f"{device.name}, {memory_size(device.free)} of {memory_size(device.total)} free"
        if device.usable:
            driver = f", driver {device.driver}" if device.driver else ""
            yield Check(about, "ok", f"{text}, used with {device.backend}{driver}")
        else:
            yield Check(about, "warning" if device.fix else "ok", f"{text}; not used: {device.reason}.", device.fix)
    if not machine.devices:
        yield Check("GPU", "ok", "none found")
    yield Check("llama.cpp", "ok", f"built for {', '.join(machine.backends)}")
    for note in machine.notes:
        yield Check("hardware", "warning", note.text, note.fix)


def _models() -> Iterator[Check]:
    from hermes_cli.catalog.load import load_catalogue
    from hermes_cli.store.inventory import inventory

    models = inventory(load_catalogue())
    held = f"{len(models)} installed, {gigabytes(sum(model.bytes for model in models))}, in {paths.models_dir()}"
    yield Check("models", "ok", held)


def _disk() -> Iterator[Check]:
    from hermes_cli.store.disk import disk_space

    folder = paths.models_dir()
    if space := disk_space(folder):
        little = space.free < LITTLE_DISK
        text = f"{gigabytes(space.free)} of {gigabytes(space.total)} free where models are kept"
        fix = "hermes du shows what takes the space; hermes rm frees it."
        yield Check("disk", "warning" if little else "ok", text, fix if little else "")
    folders = {"models": folder, "data": paths.data_dir(), "cache": paths.cache_dir()}
    for name, path in folders.items():
        if not _writable(path):
            fix = f"make it yours: sudo chown -R $USER {path}"
            yield Check("folders", "problem", f"the folder of {name}, {path}, cannot be written.", fix)


def _writable(folder: Path) -> bool:
    try:
        return os.access(paths.existing(folder), os.W_OK | os.X_OK)
    except OSError:
        return False


def _hub(*, offline: bool) -> Iterator[Check]:
    from huggingface_hub import constants

    from hermes_cli.catalog.load import load_catalogue
    from hermes_cli.store.connection import hub_token
    from hermes_cli.store.hub import endpoint, list_gguf_files

    proxies = {name: os.environ.get(name) or os.environ.get(name.lower()) for name in PROXIES}
    named = ", ".join(f"{name}={value}" for name, value in proxies.items() if value)
    yield Check("proxy", "ok", named or "none")
    try:
        login = "a token is there" if hub_token() else "no token, which public models do not need"
    except HermesError as error:
        login = "its token cannot be used"
        yield Check("token", "problem", error.message, error.hint)
    if offline or constants.HF_HUB_OFFLINE:
        by = "--offline" if offline else "HF_HUB_OFFLINE"
        yield Check("Hub", "ok", f"{endpoint()}, not asked ({by}); {login}")
        return
    try:
        list_gguf_files(load_catalogue().models[0].gguf[0].repo)
    except NotFoundError:  # a mirror that lacks it has answered, too
        pass
    except HermesError as error:
        yield Check("Hub", "problem", f"{error.message} ({login})", error.hint)
        return
    yield Check("Hub", "ok", f"{endpoint()} answers; {login}")


def _demo() -> Iterator[Check]:
    """Load the demo model and ask it a question, as `hermes chat demo` does."""
    from hermes_cli.models.engine_choice import default_engine
    from hermes_cli.models.loader import ModelLoader, Prewarm
    from hermes_cli.models.resolve import ModelRequest

    started = time.perf_counter()
    with Prewarm() as prewarm:
        loader = ModelLoader(
            ModelRequest("demo", engine=default_engine()),
            Console(Voice.QUIET),
            prewarm,
            lambda request, _: request,
            lambda _: False,
        )
        with loader.begin("demo") as finish:
            loaded = finish()
        ready = time.perf_counter()
        try:
            answer = prewarm.event_loop.run(_answer(loaded))
        finally:
            prewarm.event_loop.run(loaded.model.engine.close())
    if not answer.strip():
        yield Check("demo", "problem", "the demo model loads and says nothing.", REBUILD)
        return
    seconds = time.perf_counter() - ready
    text = f"loads in {ready - started:.1f} s and answers in {seconds:.1f} s: {answer.strip().splitlines()[0]}"
    yield Check("demo", "ok", text)


async def _answer(loaded: LoadedModel) -> str:
    from hermes_cli.generation import Content, Message, SamplingOptions, TurnRequest

    turn = TurnRequest([Message("user", QUESTION)], sampling=SamplingOptions(temperature=0.0), max_tokens=100)
    return "".join([event.text async for event in loaded.model.answer(turn) if isinstance(event, Content)])
