from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from conftest import REPOSITORY, RunHermes, clean_environment
from terminal_rig import Terminal

import hermes_cli
from hermes_cli import errors
from hermes_cli.catalog.load import load_catalogue
from hermes_cli.cli import prewarm
from hermes_cli.commands.app import COMMANDS, GROUPS, build_app, typed_command
from hermes_cli.commands.serve import SETTING_OPTIONS
from hermes_cli.errors import ExitCode, HermesError
from hermes_cli.platforms import foreign_hermes

HEAVY = {"llama_cpp", "numpy", "huggingface_hub", "httpx", "jinja2", "pydantic", "yaml", "rich", "psutil", "asyncio"}
TYPER_TAKES = {"pydantic"}  # Typer imports it, where installed, to read the types of a command's parameters


def imported_by(*arguments: str, env: dict[str, str] | None = None) -> set[str]:
    """Top-level modules, and ours in full, that a run of hermes imports."""
    spy = "import atexit, sys; atexit.register(lambda: print('MODULES', *sys.modules, file=sys.stderr))"
    run = f"{spy}; sys.argv = ['hermes', *{list(arguments)!r}]; from hermes_cli.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", run],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**clean_environment(), **(env or {})},
    )
    names = set(done.stderr.rpartition("MODULES ")[2].split())
    return {name for name in names if name.startswith("hermes_cli")} | {name.split(".")[0] for name in names}


@pytest.mark.parametrize("arguments", [["--help"], [], ["--version"]])
def test_help_and_version_import_nothing_heavy(arguments: list[str]) -> None:
    modules = imported_by(*arguments)
    assert "typer" in modules
    assert modules & HEAVY == set()
    assert "hermes_cli.commands.chat" not in modules


@pytest.mark.parametrize(
    ("arguments", "more"),
    [
        (["chat", "--help"], set()),
        (["chat", "demo"], {"asyncio"}),  # it starts a process for the engine before the arguments are read
        (["chat", "--no-such-option"], {"asyncio"}),
    ],
)
def test_a_command_imports_nothing_heavy_before_its_arguments_are_right(arguments: list[str], more: set[str]) -> None:
    modules = imported_by(*arguments)
    assert "hermes_cli.commands.chat" in modules
    assert modules & HEAVY <= TYPER_TAKES | {"rich"} | more


def test_a_process_for_the_engine_is_started_before_the_arguments_are_read_and_never_left_behind() -> None:
    with prewarm(["chat", "demo", "hello"]) as started:
        assert started
        pid = started.child().pid
        assert psutil.pid_exists(pid)
    assert not psutil.pid_exists(pid)


@pytest.mark.parametrize(
    "arguments",
    [[], ["serve"], ["--help", "chat"], ["chat", "-h"], ["chat", "--endpoint", "URL", "x"], ["chat", "--endpoint=URL"]],
)
def test_what_will_load_no_model_starts_no_process(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HERMES_LLM_ENDPOINT", raising=False)
    with prewarm(arguments) as started:
        assert started is None


def test_an_endpoint_in_the_environment_needs_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERMES_LLM_ENDPOINT", "URL")
    with prewarm(["chat", "hello"]) as started:
        assert started is None


@pytest.mark.parametrize(
    ("shell", "line"), [("bash", "hermes chat her"), ("zsh", "hermes chat --to"), ("bash", "hermes plan demo --gpu ")]
)
def test_completion_imports_nothing_heavy(shell: str, line: str) -> None:
    load_catalogue()  # compiled once: later runs read no YAML
    modules = imported_by(
        env={
            "_HERMES_COMPLETE": f"complete_{shell}",
            "_TYPER_COMPLETE_ARGS": line,
            "COMP_WORDS": line,
            "COMP_CWORD": str(line.count(" ")),
        }
    )
    assert "typer" in modules
    assert modules & HEAVY <= TYPER_TAKES


def test_every_command_is_there_and_documented(hermes: RunHermes) -> None:
    listed = hermes("--help").stdout
    for name in COMMANDS:
        assert re.search(rf"^  {name} ", listed, re.MULTILINE)
        done = hermes(name, "--help")
        assert done.returncode == 0
        assert done.stdout.startswith(f"Usage: hermes {name}") or "Usage:" in done.stdout


def test_no_arguments_shows_help(hermes: RunHermes) -> None:
    shown = hermes().stdout
    assert [line for line in shown.splitlines() if re.match(r"\w.*:$", line)] == [
        *(f"{name}:" for name in GROUPS),
        "Options:",
    ]
    assert "\x1b" not in shown


@pytest.mark.parametrize("color", [True, False])
def test_help_on_a_terminal_has_colours(tmp_path: Path, *, color: bool) -> None:
    environment = {**clean_environment(), "TERM": "xterm-256color"} | ({} if color else {"NO_COLOR": "1"})
    with Terminal(["sessions", "--help"], environment=environment, folder=tmp_path) as terminal:
        assert terminal.wait_for_end() == 0
        assert (b"\x1b[1mOptions" in terminal.raw and b"\x1b[36m" in terminal.raw) is color


def test_help_tells_values_in_plain_words(hermes: RunHermes) -> None:
    shown = " ".join(hermes("bench", "--help").stdout.split())
    for text in ("--kv-type TEXT", "--depth N", "1 to 100]", "[0 or more]", "-1 or more]", "--engine-url"):
        assert text in shown
    everything = "".join(hermes(name, "--help").stdout for name in ("chat", "serve", "plan", "pull"))
    assert not re.search(r"<\w|x[<>]=|\w-$", everything, re.MULTILINE)


@pytest.mark.parametrize(
    "arguments", [["chat", "--no-such-option"], ["chat", "-c", "4096"], ["chat", "demo", "x", "--temperature", "-1"]]
)
def test_what_cannot_be_understood_is_exit_code_2(hermes: RunHermes, arguments: list[str]) -> None:
    done = hermes(*arguments)
    assert done.returncode == ExitCode.USAGE
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "completing", "expected"),
    [
        (["chat", "demo"], None, "chat"),
        (["--version"], None, None),
        (["-h", "chat"], None, "chat"),
        ([], None, None),
        ([], "hermes chat --to", "chat"),
        ([], "hermes ", None),
    ],
)
def test_finds_the_typed_command(
    arguments: list[str], completing: str | None, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("_TYPER_COMPLETE_ARGS", raising=False)
    if completing is not None:
        monkeypatch.setenv("COMP_WORDS", completing)
    assert typed_command(arguments) == expected


def test_the_app_can_be_built_for_any_command() -> None:
    for name in [None, "no-such-command", *COMMANDS]:
        assert build_app(name).registered_commands


def test_version_names_both_versions(hermes: RunHermes) -> None:
    assert re.fullmatch(
        rf"hermes-llm {re.escape(hermes_cli.__version__)} \(llama-cpp-python \d+\.\d+\.\d+\)\n",
        hermes("--version").stdout,
    )


def test_another_hermes_on_the_path_is_told(tmp_path: Path, hermes: RunHermes) -> None:
    other = tmp_path / "hermes"
    other.write_text("#!/bin/sh\nfrom hermes_cli.main import main\n")
    other.chmod(0o755)
    assert foreign_hermes(str(tmp_path)) == other
    told = hermes("--version", env={"PATH": str(tmp_path)}).stderr
    assert str(other) in told
    assert "hermes-llm" in told


def test_ours_on_the_path_is_fine() -> None:
    folder = Path(sys.executable).parent
    assert foreign_hermes(str(folder)) is None


@pytest.mark.parametrize("program", ["hermes", "hermes-llm"])
def test_both_commands_are_the_same_program(program: str) -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name(program), "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("hermes-llm ")


def test_completion_scripts_are_up_to_date() -> None:
    subprocess.run(
        [sys.executable, REPOSITORY / "tools" / "completions.py", "--check"], check=True, env=clean_environment()
    )


def test_bash_completes() -> None:
    script = (
        f"source {REPOSITORY}/completions/hermes.bash; COMP_WORDS=(hermes chat --too); COMP_CWORD=2; "
        "_hermes_completion hermes; printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    done = subprocess.run(
        ["/bin/bash", "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**clean_environment(), "PATH": path},
    )
    assert done.stdout == "--tools\n"


def all_errors(base: type[HermesError] = HermesError) -> list[type[HermesError]]:
    return [base, *(error for child in base.__subclasses__() for error in all_errors(child))]


def test_the_error_tree_is_drawn_in_its_docstring() -> None:
    drawn = errors.__doc__ or ""
    for error in all_errors():
        if error.__module__ == errors.__name__:
            assert error.__name__ in drawn


def test_exit_codes_are_documented() -> None:
    page = (REPOSITORY / "docs" / "commands.md").read_text(encoding="utf-8")
    for code in ExitCode:
        assert re.search(rf"^\| {code.value} +\|", page, re.MULTILINE), code


def test_environment_variables_are_documented(hermes: RunHermes) -> None:
    pages = "".join((REPOSITORY / name).read_text(encoding="utf-8") for name in ("docs/commands.md", "docs/serve.md"))
    used = set()
    for source in (REPOSITORY / "hermes_cli").rglob("*.py"):
        used |= set(re.findall(r"(?<!_)HERMES_LLM_[A-Z_]*[A-Z]", source.read_text(encoding="utf-8")))
    used |= {f"HERMES_LLM_{option.name.upper()}" for option in SETTING_OPTIONS}
    assert used == set(re.findall(r"^\| `(HERMES_LLM_[A-Z_]+)`", pages, re.MULTILINE))
    assert hermes("chat", "demo", "Who are you?", env={"HERMES_LLM_JSON": "1"}).stdout.startswith("{")
