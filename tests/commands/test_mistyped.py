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
        ("config show", "config list"),
        ("config set temperature=0.5", "config set temperature 0.5"),
        ("config delete temperature", "config unset temperature"),
        ("service list", "service status"),
        ("serve demo -d -p 9090", "serve demo --background --port 9090"),
        ("serve demo --bg", "serve demo --background"),
        ("stop -9", "stop --force"),
        ("serve demo -np 4", "serve demo --slots 4"),
        ("chat demo -ngl 99 hi", "chat demo --gpu-layers 99 hi"),
        ("chat demo -- --temp", "chat demo -- --temp"),
        ("chat -c", "chat -c"),
        ("pull hermes-3:8b", "pull hermes-3:8b"),
        ("chat -hf someone/Some-GGUF hi", "chat -m someone/Some-GGUF hi"),
        ("serve -hf someone/Some-GGUF -c 8192", "serve someone/Some-GGUF --context 8192"),
        ("plan -m demo -c 8k", "plan demo --context 8k"),
        ("chat demo -n 5 -s 1 --top_p=0.9 hi", "chat demo --max-tokens 5 --seed 1 --top-p=0.9 hi"),
        ("chat demo -- --top_p -n", "chat demo -- --top_p -n"),
        ("list --local", "list --installed"),
        ("recommend --cpu --ram 8G", "recommend --cpu-only --ram 8G"),
    ],
)
def test_words_of_other_programs_are_understood(typed: str, meant: str) -> None:
    assert understood(typed.split()) == meant.split()


@pytest.mark.parametrize(
    ("typed", "value", "rest"),
    [
        ("recommend --gpu RTX 4090", "RTX 4090", []),
        ("recommend --gpu 2xRTX 3090 --users 4", "2xRTX 3090", ["--users", "4"]),
        ("plan --gpu RTX 4060 Ti 16GB hermes-3:8b", "RTX 4060 Ti 16GB", ["hermes-3:8b"]),
        ("plan --gpu AMD Radeon RX 7900 XTX ./m.gguf", "AMD Radeon RX 7900 XTX", ["./m.gguf"]),
        ("plan --gpu 4090 hermes-3:8b", "4090", ["hermes-3:8b"]),
        ("recommend --vram 24 GB", "24 GB", []),
        ("recommend --ram 64 hermes-3:8b", "64", ["hermes-3:8b"]),
    ],
)
def test_a_value_of_several_words_needs_no_quotes(typed: str, value: str, rest: list[str]) -> None:
    assert understood(typed.split())[2:] == [value, *rest]


def test_a_question_alone_is_asked() -> None:
    assert understood(["What is GGUF?", "--quiet"]) == ["chat", "What is GGUF?", "--quiet"]


@pytest.mark.parametrize(
    ("typed", "says", "next_step"),
    [
        (["logs"], "hermes has no command logs", "hermes ps shows"),
        (["update"], "no command update", "hermes catalog refresh"),
        (["serve", "--stop"], "hermes serve has no option --stop", "hermes stop"),
        (["serve", "9090"], "9090 is not a model", "--port 9090"),
        (["ps", "-a"], "hermes ps has no option --all", "every server of yours is listed"),
        (["service", "start"], "no command start", "hermes service install NAME"),
        (["sessions", "rename", "a", "b"], "no command rename", "/save NEW"),
        (["paths", "--cache"], "hermes paths has no option --cache", "hermes paths --help"),
        (["chat", "demo", "--sytem", "x"], "no option --sytem", "did you mean --system?"),
        (["connect", "ollama"], "hermes needs no Ollama", "--ollama"),
        (["config", "set", "presets.dry", "x"], "presets.dry is a preset", "presets.dry.system"),
        (["login", "hf"], "there is no service hf", "hf auth login"),
        (["config", "get", "tempreture"], "tempreture is not set", "did you mean temperature?"),
        (["config", "get", "temperature"], "temperature is not set", "hermes config list"),
        (["upgrade"], "no command upgrade", "to update hermes itself: git pull in its checkout"),
        (["connect", "codex", "--url", "ftp://x"], "--url 'ftp://x' is not an address", "--url http://127.0.0.1:8080/v1"),
        (["login", "opnrouter"], "there is no service opnrouter", "openrouter"),
        (["logout", "nous"], "no key of Nous Portal is stored", "hermes login"),
        (["server", "start"], "no command server", "hermes serve NAME --background"),
        (["service", "demo"], "hermes service has no command demo", "hermes service install NAME"),
        (["sessions", "hello"], "hermes sessions has no command hello", "hermes sessions show NAME"),
        (["engine", "use", "vllm"], "hermes engine has no command use", "--engine vllm"),
        (["config", "presets"], "hermes config has no command presets", "--preset NAME"),
        (["load", "demo"], "no command load", "hermes chat NAME"),
        (["chat", "-i", "demo"], "no option -i", "without a prompt you stay"),
        (["serve", "demo", "-fa", "on"], "no option --flash-attn", "on by itself"),
        (["plan", "hermes-3:8b", "--quant", "Q8_0"], "no option --quant", "a part of the name"),
        (["chat", "demo", "--no-gpu", "hi"], "no option --cpu-only", "--gpu-layers 0"),
        (["recommend", "--gpu", "none"], "none is the name of no GPU", "--cpu-only"),
        (["connect", "vscode"], "does not know vscode itself", "hermes connect continue"),
        (["config", "set", "num-ctx", "8192"], "no setting num_ctx", "did you mean context?"),
        (["config", "set", "temp", "0.2"], "no setting temp", "did you mean temperature?"),
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
        (["recommend", "4090"], "4090 is a GPU", "hermes recommend --gpu 4090"),
        (["recommend", "rtx", "4090"], "rtx 4090 is a GPU", "hermes recommend --gpu 'rtx 4090'"),
        (["plan", "hermes-3:8b", "RTX 4090"], "RTX 4090 is a GPU", "hermes plan hermes-3:8b --gpu 'RTX 4090'"),
        (["show", "h100"], "h100 is a GPU", "hermes recommend --gpu h100"),
        (["recommend", "M4 Max"], "M4 Max is a GPU", '--apple "M4 Max 48G"'),
        (["serve", "demo", "-tp", "2"], "no option --tensor-parallel-size", "--engine vllm"),
        (["rm", "--all"], "hermes rm has no option --all", "hermes list --installed"),
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
