"""The `hermes` command: finds the command that was typed, imports it alone, and reports errors in one place."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from hermes_cli import __version__
from hermes_cli.errors import ExitCode, HermesError
from hermes_cli.platforms import foreign_hermes, is_broken_pipe, prepare_streams

if TYPE_CHECKING:
    from types import FrameType

# Command: (module in hermes_cli.commands, one line for `hermes --help`). What runs is the module's `command` function,
# or its `app` if the command has commands of its own.
COMMANDS = {
    "chat": ("chat", "Talk with a Hermes model, or ask it one thing."),
    "sessions": ("sessions", "List, show, export and remove saved conversations."),
    "serve": ("serve", "Serve models to agents, editors and SDKs."),
    "list": ("list", "List the Hermes models, with sizes and what they can do."),
    "show": ("show", "Show everything about one model, a file or a repository."),
    "recommend": ("recommend", "Recommend what fits this machine, or another one."),
    "plan": ("plan", "Show the memory that a model takes, before any download."),
    "bench": ("bench", "Measure how fast a model is on this machine."),
    "search": ("search", "Search the Hub for GGUF files."),
    "pull": ("pull", "Fetch models from the Hub."),
    "import": ("import_", "Import models that are on this disk already, without copying."),
    "export": ("export", "Give a model to Ollama, LM Studio or a folder, without copying."),
    "verify": ("verify", "Hash installed models again and repair damaged files."),
    "du": ("du", "Show the disk usage of models."),
    "rm": ("rm", "Remove models from this machine."),
    "hardware": ("hardware", "Show what this machine has and what hermes can use of it."),
    "doctor": ("doctor", "Check this installation, and say what mends each problem."),
    "catalog": ("catalog", "Check the catalogue, or bring it up to date."),
    "paths": ("paths", "Show the folders of hermes."),
}
EPILOG = "Try it now, without any download: hermes chat demo 'What can you do?'"


class _InterruptedError(BaseException):
    """Ctrl-C. Not a KeyboardInterrupt, which Typer would turn into its own message and exit code 1."""


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise _InterruptedError


def _terminate(number: int, _frame: FrameType | None) -> NoReturn:
    # SystemExit runs what has to be done before the end, also from within asyncio: MCP servers end with us.
    sys.exit(128 + number)


def _version(wanted: bool) -> None:  # noqa: FBT001 - Typer calls it so
    if wanted:
        from importlib.metadata import version  # noqa: PLC0415 - only when asked for

        from hermes_cli.console import Console  # noqa: PLC0415

        console = Console()
        console.text(f"hermes-llm {__version__} (llama-cpp-python {version('llama-cpp-python')})\n")
        if other := foreign_hermes():
            console.warn(f"note: typing hermes starts another program, {other}. Type hermes-llm for this one.")
        raise typer.Exit


def _root(
    version: Annotated[  # noqa: FBT002 - a flag is a boolean with a default
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show versions and leave.")
    ] = False,
) -> None:
    """Run Nous Research's Hermes models on hardware you own."""


def _not_imported() -> None:
    """Stand in for a command that was not typed, so that help can list it without importing it."""


def build_app(wanted: str | None) -> typer.Typer:
    """Return the application with the command that is `wanted` imported; the others only have their line of help."""
    app = typer.Typer(
        name="hermes",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
        epilog=EPILOG,
    )
    app.callback()(_root)
    for name, (module, summary) in COMMANDS.items():
        imported = vars(import_module(f"hermes_cli.commands.{module}")) if name == wanted else {}
        if "app" in imported:
            app.add_typer(imported["app"], name=name, short_help=summary)
        else:
            app.command(name, short_help=summary)(imported.get("command", _not_imported))
    return app


def typed_command(arguments: Sequence[str]) -> str | None:
    """Return the command among what was typed; when the shell asks for completions, among what is being typed."""
    # bash sets the first, zsh and fish the second (Typer's completion scripts).
    if completing := os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS"):
        arguments = completing.split()[1:]
    return next((argument for argument in arguments if not argument.startswith("-")), None)


def main() -> NoReturn:
    """Run `hermes` and exit with a code from `ExitCode`."""
    for number in {signal.SIGINT, getattr(signal, "SIGBREAK", signal.SIGINT)}:  # Ctrl-Break, on Windows
        signal.signal(number, _interrupt)
    for name in ("SIGTERM", "SIGHUP"):  # a service that stops, a window that is closed
        if signal.getsignal(getattr(signal, name, signal.SIGTERM)) == signal.SIG_DFL:  # not under nohup
            signal.signal(getattr(signal, name, signal.SIGTERM), _terminate)
    prepare_streams((sys.stdout, sys.stderr))
    try:
        build_app(typed_command(sys.argv[1:]))()
        sys.exit(ExitCode.OK)
    except HermesError as error:
        from hermes_cli.console import Console  # noqa: PLC0415 - only when something is wrong

        Console().error(error)
        sys.exit(error.exit_code)
    except OSError as error:
        if not is_broken_pipe(error):
            if error.filename is None:
                raise
            from hermes_cli.console import Console  # noqa: PLC0415 - as above
            from hermes_cli.paths import access_error  # noqa: PLC0415

            problem = access_error(os.fsdecode(error.filename), error)
            Console().error(problem)
            sys.exit(problem.exit_code)
        # The reader left (`hermes … | head`). Python would complain once more while flushing at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(ExitCode.FAILED)
    except _InterruptedError:
        sys.stderr.write("\ninterrupted\n" if sys.stderr.isatty() else "interrupted\n")
        sys.exit(ExitCode.INTERRUPTED)
