"""`hermes service`: start a server whenever this user logs in, by systemd or launchd."""

from __future__ import annotations

import os
import plistlib
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from hermes_cli import paths
from hermes_cli.commands.completing import models
from hermes_cli.commands.options import YesOption, argument, with_console
from hermes_cli.console import Console, read_error
from hermes_cli.errors import ExitCode, HermesError, NotFoundError, UsageError

NAME = "hermes-llm"
# What a server reads that a login does not set by itself; keys stay out, since the file of a service is no secret.
CARRIED = ("HERMES_LLM_", "HF_HOME", "HF_HUB_CACHE", "HF_ENDPOINT", "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")
SECRET = ("KEY", "TOKEN")
FOLDERS = "PATH"  # where MCP servers are found

app = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Start a server whenever you log in, with systemd or launchd: install, remove, status.",
)
PrintOption = Annotated[bool, typer.Option("--print", help="Show the file of the service, and install nothing.")]


@dataclass(frozen=True)
class ServiceManager:
    """Program of the system that starts services of a user."""

    name: str
    file: Path  # the file that describes our service
    # makes it, of the command, the environment and the current folder
    text: Callable[[Sequence[str], Mapping[str, str], Path], str]
    ask: tuple[str, ...]  # the command that succeeds if the manager can be asked
    # install, remove: commands; the file is written before, and removed after
    install: tuple[tuple[str, ...], ...]
    remove: tuple[tuple[str, ...], ...]
    active: tuple[str, ...]  # the command that succeeds if the service runs
    logs: str  # the command that shows its log
    after: str = ""  # the command that lets it run without a login; empty if there is none

    @property
    def present(self) -> bool:
        """Return whether it runs here, for this user."""
        return bool(shutil.which(self.ask[0])) and _run(self.ask).returncode == 0


@app.command("install", context_settings={"ignore_unknown_options": True})
@with_console
def install(
    console: Console,
    words: Annotated[
        list[str] | None, argument("[NAME]... [OPTIONS OF hermes serve]", "As hermes serve takes them.", models)
    ] = None,
    print_only: PrintOption = False,
    yes: YesOption = False,
) -> None:
    """Install a service that runs hermes serve, and start it.

    hermes service install hermes-3:8b --port 8080
    """
    arguments, environment = words or [], _environment(os.environ)
    _check(arguments)
    manager = service_manager()
    text = manager.text([*_program(), "serve", *arguments], environment, Path.cwd())
    if print_only or not manager.present:
        console.text(text)
        if not print_only:
            console.warn(f"{manager.name} does not run here for this user, so nothing was installed.")
        console.note(f"the file belongs to {manager.file}; then: {_shown(manager.install)}")
        console.document({"installed": False, "manager": manager.name, "file": str(manager.file), "text": text})
        return
    before = manager.file.read_text(encoding="utf-8") if manager.file.exists() else None
    if before not in {None, text} and not yes:
        console.note(f"{manager.file} already exists, with another command.")
        if not console.confirm("Replace it?"):
            raise UsageError("nothing was changed.", hint="replace it without a question: --yes")
    for folder in (manager.file.parent, paths.log_dir()):
        folder.mkdir(parents=True, exist_ok=True)
    manager.file.write_text(text, encoding="utf-8")
    if before is not None:
        for command in manager.remove:
            _run(command)
    for command in manager.install:
        _must(command)
    console.text(f"installed {manager.file}\n")
    console.note(f"it runs now, and whenever you log in; see it with hermes ps. Its log: {manager.logs}")
    if manager.after:
        console.note(f"to let it run while you are not logged in: {manager.after}")
    console.document({"installed": True, "manager": manager.name, "file": str(manager.file), "text": text})


@app.command("remove")
@with_console
def remove(console: Console) -> None:
    """Stop the service and remove it. Models and settings stay."""
    manager = service_manager()
    if not manager.file.exists():
        raise NotFoundError("no service is installed.", hint="install one: hermes service install NAME")
    if manager.present:
        for command in manager.remove:
            _run(command)
    manager.file.unlink()
    console.text(f"removed {manager.file}\n")
    console.document({"removed": str(manager.file)})


@app.command("status")
@with_console
def status(console: Console) -> None:
    """Show whether the service runs, and its log.

    Exits with 1 if it does not run.
    """
    manager = service_manager()
    installed = manager.file.exists()
    active = installed and manager.present and _run(manager.active).returncode == 0
    state = "runs" if active else "does not run" if installed else "is not installed"
    facts = [("service", f"{NAME} {state}"), ("file", str(manager.file)), ("log", manager.logs)]
    console.facts(facts if installed else facts[:1])
    if not installed:
        console.note("install it: hermes service install NAME")
    document = {"installed": installed, "running": active, "manager": manager.name, "file": str(manager.file)}
    console.document({**document, "logs": manager.logs})
    if not active:
        raise typer.Exit(ExitCode.FAILED)


def service_manager(platform: str = sys.platform) -> ServiceManager:
    """Return the service manager of a platform; raise HermesError if we know none for it."""
    home = Path("~").expanduser()
    if platform == "win32":
        raise HermesError(
            "hermes knows no services of Windows.",
            hint=f'let its Task Scheduler do it: schtasks /create /tn {NAME} /sc onlogon /tr "hermes serve NAME"',
        )
    if platform == "darwin":
        label, domain = f"{NAME}.serve", f"gui/{os.getuid()}"
        file = home / "Library/LaunchAgents" / f"{label}.plist"
        return ServiceManager(
            "launchd",
            file,
            lambda *what: launch_agent(label, *what),
            ("launchctl", "print", domain),
            (("launchctl", "bootstrap", domain, str(file)),),
            (("launchctl", "bootout", f"{domain}/{label}"),),
            ("launchctl", "print", f"{domain}/{label}"),
            f"tail -f {shlex.quote(str(paths.log_dir() / 'service.log'))}",
        )
    control = ("systemctl", "--user")
    folder = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "systemd/user"
    return ServiceManager(
        "systemd",
        folder / f"{NAME}.service",
        systemd_unit,
        (*control, "show-environment"),
        ((*control, "daemon-reload"), (*control, "enable", "--now", f"{NAME}.service")),
        ((*control, "disable", "--now", f"{NAME}.service"), (*control, "daemon-reload")),
        (*control, "is-active", "--quiet", f"{NAME}.service"),
        f"journalctl --user -u {NAME} -f",
        "loginctl enable-linger",
    )


def systemd_unit(command: Sequence[str], environment: Mapping[str, str], folder: Path) -> str:
    """Return the unit of a command; see systemd.service(5) and, for quoting, systemd.syntax(7)."""
    lines = [f"Environment={_systemd_word(f'{name}={value}')}" for name, value in environment.items()]
    return "\n".join(
        [
            "[Unit]",
            "Description=Hermes models (hermes serve)",
            "After=network-online.target",
            "",
            "[Service]",
            f"ExecStart={' '.join(_systemd_word(word).replace('$', '$$') for word in command)}",
            f"WorkingDirectory={str(folder).replace('%', '%%')}",
            *lines,
            "Restart=on-failure",
            "RestartSec=5",
            "TimeoutStopSec=60",
            "",
            "[Install]",
            "WantedBy=default.target",
            "",
        ]
    )


def _systemd_word(word: str) -> str:
    """Quote a word, in which `%` stands for itself."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"' if not escaped or set(escaped) & set(" \t\"';\\") else escaped


def launch_agent(label: str, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> str:
    """Return the property list of a launch agent; see launchd.plist(5)."""
    log = str(paths.log_dir() / "service.log")
    described = {
        "Label": label,
        "ProgramArguments": list(command),
        "EnvironmentVariables": dict(environment),
        "WorkingDirectory": str(folder),
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "StandardOutPath": log,
        "StandardErrorPath": log,
    }
    return plistlib.dumps(described).decode()


def _program() -> list[str]:
    """Return the command that runs this program, which does not depend on the current folder or on PATH."""
    script = Path(sys.argv[0]).absolute()
    is_script = script.stem.startswith("hermes") and os.access(script, os.X_OK)
    return [str(script)] if is_script else [sys.executable, "-m", "hermes_cli"]


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    names = [name for name in environ if name.startswith(CARRIED) and not any(word in name for word in SECRET)]
    return {name: environ[name] for name in [*sorted(names), FOLDERS] if environ.get(name)}


def _check(arguments: Sequence[str]) -> None:
    """Raise UsageError if `hermes serve` would not take these arguments, or a key is among them."""
    if any(argument.partition("=")[0] == "--api-key" for argument in arguments):
        raise UsageError("the file of a service is no place for a key.", hint="put it into a file: --api-key-file FILE")
    if "--background" in arguments:
        raise UsageError("a service is in the background anyway.", hint="leave --background out.")
    done = _run((sys.executable, "-m", "hermes_cli", "serve", *arguments, "--print-config"))
    if done.returncode:
        message, hint = read_error(done.stderr.strip())
        raise UsageError(message, hint=hint or "see what there can be: hermes serve --help")


def _must(command: Sequence[str]) -> None:
    done = _run(command)
    if done.returncode:
        said = done.stderr.strip() or f"code {done.returncode}"
        raise HermesError(f"{shlex.join(command)} failed: {said}", hint="see the log of the system, then try again.")


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)  # noqa: S603


def _shown(commands: Sequence[Sequence[str]]) -> str:
    return " && ".join(map(shlex.join, commands))
