"""What people type who know other programs is understood, or answered with what to type."""

from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import RunHermes, clean_environment

from hermes_cli.commands.app import run
from hermes_cli.commands.mistyped import understood
from hermes_cli.errors import ExitCode, HermesError


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("run hermes-3:8b hi", "chat hermes-3:8b hi"),
        ("remove hermes-3:8b", "rm hermes-3:8b"),
        ("ls --all", "list --all"),
        ("version", "--version"),
        ("help", "--help"),
        ("help chat", "chat --help"),
        ("chat demo --temp .5 --num-ctx=4096 hi", "chat demo --temperature .5 --context=4096 hi"),
        ("chat demo --gpu-layers all hi", "chat demo --gpu-layers -1 hi"),
        ("--model demo hi", "chat -m demo hi"),
        ("--help chat", "chat --help"),
        ("serve --model demo --port 1", "serve demo --port 1"),
        ("sessions delete haiku", "sessions rm haiku"),
        ("serve demo -np 4", "serve demo --slots 4"),
        ("chat demo -ngl 99 hi", "chat demo --gpu-layers 99 hi"),
        ("chat demo -- --temp", "chat demo -- --temp"),
        ("chat -c", "chat -c"),
        ("pull hermes-3:8b", "pull hermes-3:8b"),
    ],
)
def test_words_of_other_programs_are_understood(typed: str, meant: str) -> None:
    assert understood(typed.split()) == meant.split()


def test_a_question_alone_is_asked() -> None:
    assert understood(["What is GGUF?", "--quiet"]) == ["chat", "What is GGUF?", "--quiet"]


@pytest.mark.parametrize(
    ("typed", "says", "next_step"),
    [
        (["logs"], "hermes has no command logs", "hermes ps shows"),
        (["update"], "no command update", "hermes catalog refresh"),
        (["lsit"], "no command lsit", "did you mean hermes list?"),
        (["hermes3"], "no command hermes3", "if it is a model: hermes chat hermes3"),
        (["sessions", "shw"], "hermes sessions has no command shw", "did you mean hermes sessions show?"),
        (["paths", "hermes-3"], "hermes paths takes no argument hermes-3", "hermes paths --help"),
        (["export"], "hermes export needs NAME", "type it like this: hermes export NAME"),
        (["chat", "demo", "hi", "-c", "4096"], "-c goes on with the latest", "--context 4096"),
        (["chat", "demo", "hi", "-c", "128k"], "-c goes on with the latest", "--context 128k"),
        (["chat", "demo", "--format", "json", "hi"], "no option --format", "--schema"),
        (["chat", "demo", "--image", "x.png"], "no option --image", "these models read and write text"),
        (["chat", "demo", "--sede", "1", "hi"], "no option --sede", "--seed"),
        (["chat", "demo", "--temperature", "hot", "hi"], "--temperature: 'hot' is not a number", "from 0 to 5"),
        (["chat", "demo", "--max-tokens", "0", "hi"], "--max-tokens: 0 is out of range", "1 or more"),
        (["chat", "demo", "--context", "1.5", "hi"], "--context 1.5 is not a number of tokens", "16384, 16,384 or 16k"),
        (["chat", "demo", "hi", "--temperature", "0,5"], "'0,5' is not a number", "decimals come after a point"),
        (["chat", "demo", "hi", "--json=true"], "--json takes no value", "leave the value out"),
        (["chat", "demo", "hi", "--tools"], "--tools needs a value", "--tools VALUE"),
        (["plan", "demo", "--kv-type", "q8"], "no KV cache type q8", "did you mean q8_0?"),
        (["--list"], "hermes has no option --list", "did you mean hermes list?"),
        (["init"], "no command init", "hermes recommend"),
        (["list", "installed"], "no Hermes model has installed in its name", "hermes list --installed"),
        (["recommend", "24GB"], "24GB is not a model", "--vram 24G or --ram 24G"),
        (["?"], "no command ?", "hermes --help"),
        (["search"], "hermes search needs WORD.", "hermes search WORD..."),
        (["export", "demo"], "hermes export needs --to", "--to ollama|lmstudio|DIR"),
        (["--install-completion", "tcsh"], "no completion for tcsh", "bash, zsh, fish"),
        (["serve", "demo", "--kv-type", "q8"], "there is no such choice", "choose one of: f32, f16"),
        (["serve", "demo", "--port", "80000"], "expected a whole number of at most 65535", "hermes serve --help"),
        (["recommend", "--context", "12"], "--context 12 is not a number of tokens, 64 or more", "16k"),
    ],
)  # fmt: skip
def test_mistakes_are_told_in_our_voice(typed: list[str], says: str, next_step: str) -> None:
    with pytest.raises(HermesError) as caught:
        run(typed)
    assert says in caught.value.message
    assert next_step in caught.value.hint
    assert caught.value.exit_code in {ExitCode.USAGE, ExitCode.NOT_FOUND}


@pytest.mark.parametrize("context", ["16k", "16,384", "16_384", "16384", "1.6384e4"])
def test_numbers_are_taken_as_people_write_them(context: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "hermes-3:8b", "--context", context, "--vram", "24", "--quiet"]) == ExitCode.OK
    assert "16,384" in capsys.readouterr().out


def test_a_question_without_quotes_is_answered_with_quotes(hermes: RunHermes) -> None:
    done = hermes("chat", "What", "is", "GGUF?")
    assert done.returncode == ExitCode.NOT_FOUND
    assert "hermes chat 'What is GGUF?'" in done.stderr


SHELL = f"{sys.executable} -m hermes_cli list --quiet"


@pytest.mark.parametrize(("streams", "code"), [("> /dev/full", 1), (">&-", 0), ("2>&-", 0), ("<&-", 0)])
def test_a_stream_that_is_full_or_closed_is_no_traceback(streams: str, code: int) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f"{SHELL} {streams}"], capture_output=True, text=True, check=False, env=clean_environment()
    )
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert ("No space left on device" in done.stderr) == (code == 1)
