"""Completion: what each option and argument offers, and what bash, zsh and fish make of it at a terminal."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import HANG, REPOSITORY, RunHermes, clean_environment

from hermes_cli.commands.completing import joined_words

SESSION = "2026-01-02-what-is-gguf"
INSTALLED = "somebody/Own-GGUF:Q5_K_M"
Complete = Callable[..., list[str]]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a user with one session and one model that is not of the catalogue."""
    folder = tmp_path_factory.mktemp("user")
    snapshot = folder / "hub/models--somebody--Own-GGUF/snapshots" / ("a" * 40)
    for path in (folder / "data/chats" / f"{SESSION}.jsonl", snapshot / "own-Q5_K_M.gguf"):
        path.parent.mkdir(parents=True)
        path.write_text("")
    (folder / "chat.yaml").write_text("presets: {dry: {system: Be dry.}}")
    places = {"HERMES_LLM_DATA_DIR": str(folder / "data"), "HF_HUB_CACHE": str(folder / "hub")}
    return {**places, "HERMES_LLM_CONFIG_DIR": str(folder)}


@pytest.fixture
def complete(hermes: RunHermes, places: dict[str, str]) -> Complete:
    """Return what bash would insert for a line, whose words are split at blanks, `:` and `=` as bash does."""

    def run(line: str) -> list[str]:
        words = line.replace(":", "\n:\n").replace("=", "\n=\n").replace(" ", "\n").removesuffix("\n\n") or "\n"
        words = words.removesuffix("\n") if line.endswith((":", "=")) else words
        count = str(words.count("\n"))
        asked = {"_HERMES_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": count}
        done = hermes(env={**places, **asked})
        assert done.returncode == 0
        assert done.stderr == ""
        return done.stdout.splitlines()

    return run


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("hermes chat d", {"demo", "deephermes-3:8b"}),
        ("hermes plan hermes-3:", {"8b", "70b"}),
        ("hermes plan hermes-3:8b:Q4", {"Q4_K_M"}),
        ("hermes serve demo some", {INSTALLED}),
        ("hermes pull hermes-3:8b --quant Q5", {"Q5_K_M"}),
        ("hermes rm s", {INSTALLED}),
        ("hermes export d", {"demo"}),
        ("hermes export demo --to=", {"ollama", "lmstudio"}),
        ("hermes sessions show 2", {SESSION}),
        ("hermes chat --resume ", {SESSION}),
        ("hermes sessions export x --format ", {"md", "json"}),
        ("hermes recommend --for ", {"agent", "json", "long-context"}),
        ("hermes plan demo --kv-type q8", {"q8_0"}),
        ("hermes plan demo --gpu RTX", {"RTX\\ 4090"}),
        ("hermes plan demo --gpu GeForce", {"GeForce\\ RTX\\ 4090"}),
        ("hermes plan demo --gpu 2xH1", {"2xH100\\ SXM"}),
        ("hermes recommend --apple M4", {"M4\\ Pro\\ 24G"}),
        ("hermes list --generation Hermes", {"Hermes\\ 4.3"}),
        ("hermes serve --draft a", {"auto"}),
        ("hermes chat --preset d", {"dry"}),
        ("hermes config set t", {"temperature", "top_k", "think"}),
        ("hermes config set presets.dry.sys", {"presets.dry.system"}),
        ("hermes config set serve.p", {"serve.port"}),
        ("hermes connect o", {"opencode", "open-webui"}),
        ("hermes service install d", {"demo"}),
        ("hermes catalog refresh hermes-4.3", {"hermes-4.3:36b"}),
    ],
)
def test_values_are_offered(line: str, expected: set[str], complete: Complete) -> None:
    assert expected <= set(complete(line))


@pytest.mark.parametrize("line", ["hermes chat demo d", "hermes rm d", "hermes pull dem", "hermes chat --model demo d"])
def test_what_would_be_wrong_is_not_offered(line: str, complete: Complete) -> None:
    assert complete(line) == []


@pytest.mark.parametrize(
    ("words", "joined", "standing"),
    [
        (["hermes", "plan", "a", ":"], ["hermes", "plan", "a:"], "a:"),
        (["hermes", "plan", "a", ":", "b"], ["hermes", "plan", "a:b"], "a:"),
        (["hermes", "plan", "a", ":", "b", ":", "Q"], ["hermes", "plan", "a:b:Q"], "a:b:"),
        (["hermes", "plan", "a", ":", ""], ["hermes", "plan", "a:", ""], ""),
        (["hermes", "--to", "=", "o"], ["hermes", "--to=o"], "--to="),
        (["hermes", '"a:b'], ["hermes", '"a:b'], ""),
        (["hermes", ""], ["hermes", ""], ""),
    ],
)
def test_words_that_bash_split_are_joined(words: list[str], joined: list[str], standing: str) -> None:
    assert joined_words([*words, "behind"], len(words) - 1) == (joined, standing)


SHELLS = {
    "bash": (["--norc", "--noprofile", "-i"], "source {}/hermes.bash; PS1=rea''dy"),
    "zsh": (["-f", "-i"], "bindkey -e; fpath=({} $fpath); autoload -U compinit; compinit -D -u; PS1=rea''dy"),
    "fish": (["--no-config", "-i"], "source {}/hermes.fish; function fish_prompt; echo -n rea''dy; end"),
}


LINES = [
    ("hermes plan hermes-3:7", "hermes plan hermes-3:70b"),
    ("hermes export demo --to=ol", "hermes export demo --to=ollama"),
    ("hermes plan hermes-3:8b:Q4_K_M --gpu 'RTX 3090 T", "hermes plan hermes-3:8b:Q4_K_M --gpu RTX 3090 Ti"),
]


@pytest.mark.skipif(os.name == "nt", reason="these shells, and pseudo-terminals, are those of Unix")
@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_completes_at_a_terminal(shell: str, places: dict[str, str], tmp_path: Path) -> None:
    import pexpect  # noqa: PLC0415 - has no terminals on Windows

    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    arguments, setup = SHELLS[shell]
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    user = {"HOME": str(tmp_path), "PATH": path, "TERM": "xterm"}
    terminal = pexpect.spawn(
        program,
        arguments,
        env={**clean_environment(), **places, **user},
        encoding="utf-8",
        timeout=HANG,
        dimensions=(24, 200),
    )
    with terminal:
        terminal.sendline(setup.format(REPOSITORY / "completions"))
        for typed, words in LINES[: 3 if shell == "bash" else 2]:
            terminal.expect("ready")
            # what is completed becomes the arguments of printf
            terminal.send(f"{typed}\t\x01printf '<%s>' \x05; echo END\r")
            terminal.expect(r"((?:<[^<>%\r\n]*>)+)END")
            assert isinstance(terminal.match, re.Match)
            assert terminal.match[1][1:-1].replace("><", " ") == words


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh_completes_at_the_first_tab_after_the_installation(places: dict[str, str], tmp_path: Path) -> None:
    import pexpect  # noqa: PLC0415 - as above

    (tmp_path / ".zshrc").write_text("bindkey -e; ZSH_DISABLE_COMPFIX=true\n")
    user = {
        "HOME": str(tmp_path),
        "ZDOTDIR": "",
        "TERM": "xterm",
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
    }
    environment = {**clean_environment(), **places, **user}
    del environment["ZDOTDIR"]
    zsh = shutil.which("zsh") or ""
    subprocess.run([zsh, "-c", "hermes --install-completion; true"], env=environment, check=True, capture_output=True)
    assert (tmp_path / ".zfunc/_hermes").exists()
    terminal = pexpect.spawn(zsh, ["-i"], env=environment, encoding="utf-8", timeout=HANG, dimensions=(24, 200))
    with terminal:
        terminal.sendline("PS1=rea''dy")
        terminal.expect("ready")
        terminal.send("hermes plan hermes-3:7\t\x01printf '<%s>' \x05; echo END\r")
        terminal.expect("<hermes><plan><hermes-3:70b>END")
