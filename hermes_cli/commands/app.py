"""The application that Typer makes of the commands: only the one that was typed is imported."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Annotated

import typer

from hermes_cli import __version__
from hermes_cli.commands import mistyped
from hermes_cli.commands.help_pages import CommandGroups, use_help_pages
from hermes_cli.errors import ExitCode, UnknownModelError
from hermes_cli.platforms import foreign_hermes

if TYPE_CHECKING:
    from hermes_cli.models.loader import Prewarm

# Heading in `hermes --help`: {command: (module in hermes_cli.commands, one line of help)}. What runs is the module's
# `command` function, or its `app` if the command has commands of its own.
GROUPS = {
    "Start here": {
        "recommend": ("recommend", "Recommend what fits this machine, or another one."),
        "pull": ("pull", "Fetch models from the Hub."),
        "chat": ("chat", "Talk with a Hermes model, or ask it one thing."),
        "sessions": ("sessions", "List, show, export and remove saved conversations."),
    },
    "Models": {
        "list": ("list", "List the Hermes models, with sizes and what they can do."),
        "show": ("show", "Show everything about one model, a file or a repository."),
        "search": ("search", "Search the Hub for GGUF files."),
        "plan": ("plan", "Show the memory that a model takes, before any download."),
        "bench": ("bench", "Measure how fast a model is on this machine."),
        "import": ("import_", "Import models that are on this disk already, without copying."),
        "export": ("export", "Give a model to Ollama, LM Studio or a folder, without copying."),
        "verify": ("verify", "Hash installed models again and repair damaged files."),
        "du": ("du", "Show the disk usage of models."),
        "rm": ("rm", "Remove models from this machine."),
    },
    "Servers": {
        "serve": ("serve", "Serve models to agents, editors and SDKs."),
        "ps": ("ps", "List the servers that run, with their models."),
        "stop": ("stop", "Stop a server that runs."),
        "service": ("service", "Start a server whenever you log in."),
        "connect": ("connect", "Write the settings that a client needs for a server that runs."),
        "mcp": ("mcp", "Offer a local Hermes to other agents, as an MCP server."),
    },
    "Settings and checks": {
        "config": ("config", "Change the defaults and presets of chats, and server settings."),
        "login": ("login", "Store the key of a service that hosts Hermes models."),
        "logout": ("logout", "Remove the key of such a service."),
        "hardware": ("hardware", "Show what this machine has and what hermes can use of it."),
        "engine": ("engine", "List, check and install other engines, such as vLLM."),
        "doctor": ("doctor", "Check this installation, and say what mends each problem."),
        "catalog": ("catalog", "Check the catalogue, or bring it up to date."),
        "paths": ("paths", "Show the folders of hermes."),
    },
}
COMMANDS = {name: module for group in GROUPS.values() for name, (module, _) in group.items()}
NARROWEST_HELP = 52  # columns
EPILOG = "Try it now, without any download: hermes chat demo 'What can you do?'"


def _version(wanted: bool) -> None:  # noqa: FBT001 - Typer calls it so
    if wanted:
        from importlib.metadata import version

        from hermes_cli.console import Console

        console = Console()
        console.text(f"hermes-llm {__version__} (llama-cpp-python {version('llama-cpp-python')})\n")
        if other := foreign_hermes():
            console.warn(f"note: typing hermes starts another program, {other}. Type hermes-llm for this one.")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show versions and leave.")
    ] = False,
) -> None:
    """Run Nous Research's Hermes models on hardware you own."""


def _not_imported() -> None:
    """Stand in for a command that was not typed, so that help can list it without importing it."""


def _help_width() -> dict[str, int]:
    """Return the width of help in a terminal that is narrower than the least that Typer takes."""
    columns = shutil.get_terminal_size().columns
    return {"terminal_width": max(columns - 2, 20)} if columns < NARROWEST_HELP else {}


def build_app(wanted: str | None) -> typer.Typer:
    """Return the application with the command that is `wanted` imported; the others only have their line of help."""
    app = typer.Typer(
        name="hermes",
        cls=CommandGroups,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"], **_help_width()},
        epilog=EPILOG,
    )
    app.callback()(_root)
    for heading, group in GROUPS.items():
        for name, (module, summary) in group.items():
            imported = vars(import_module(f"hermes_cli.commands.{module}")) if name == wanted else {}
            if "app" in imported:
                app.add_typer(imported["app"], name=name, short_help=summary, rich_help_panel=heading)
            else:
                add = app.command(name, short_help=summary, rich_help_panel=heading)
                add(imported.get("command", _not_imported))
    return app


def run(arguments: Sequence[str], started: Prewarm | None = None) -> int:
    """Run what was typed; return the exit code. `started` is what takes long and was begun before.

    Raise HermesError if it failed, or cannot be understood.
    """
    words = list(arguments) if _completing() else mistyped.understood(arguments)
    use_help_pages(words)
    application = build_app(typed_command(words))
    program = os.path.basename(sys.argv[0])  # noqa: PTH119 - hermes or hermes-llm, as it was typed
    name = program if program.startswith("hermes") else "hermes"
    instruction, _, shell = os.environ.get(f"_{name.replace('-', '_').upper()}_COMPLETE", "").partition("_")
    if instruction == "complete" and _completing():
        from hermes_cli.commands.completing import complete

        return complete(application, name, shell)
    if instruction == "source" or {"--install-completion", "--show-completion"} & {*words}:
        from hermes_cli.commands.completing import mend_zsh_script

        mend_zsh_script()
    try:
        return application(words, prog_name=name, obj=started, standalone_mode=False) or ExitCode.OK
    except mistyped.TYPER_ERROR as error:
        told = mistyped.answer(error, list(COMMANDS))
        if told is None:
            typer.echo(error.ctx.get_help())
            return ExitCode.USAGE
        raise told from None
    except UnknownModelError as error:
        raise mistyped.instead_of_model(error.name, words[0]) or error from None


def typed_command(arguments: Sequence[str]) -> str | None:
    """Return the command among what was typed; when the shell asks for completions, among what is being typed."""
    if completing := _completing():
        arguments = completing.split()[1:]
    return next((argument for argument in arguments if not argument.startswith("-")), None)


def _completing() -> str:
    """Return the command line for which a shell asks for completions, empty if none does."""
    # bash sets the first, zsh and fish the second (Typer's completion scripts).
    return os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS") or ""
