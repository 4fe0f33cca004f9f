"""`hermes engine`: what is here, what is wrong, and what to type next."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY, RunHermes

from hermes_cli.errors import ExitCode

DUMMY = f"{sys.executable} {REPOSITORY / 'tests' / 'dummy_engine.py'}"


@pytest.fixture
def here(tmp_path: Path) -> dict[str, str]:
    """An environment with one engine, which is named by a variable."""
    return {"HERMES_LLM_LLAMA_SERVER": DUMMY, "HERMES_LLM_DATA_DIR": str(tmp_path), "PATH": "/usr/bin:/bin"}


def test_the_list(hermes: RunHermes, here: dict[str, str]) -> None:
    document = json.loads(hermes("engine", "list", "--json", env=here).stdout)
    [engine] = document["engines"]
    assert (engine["engine"], engine["source"]) == ("llama-server", "HERMES_LLM_LLAMA_SERVER")
    assert (engine["words"], engine["grammars"]) == (DUMMY.split(), None)
    assert document["llama_cpp"]
    assert "HERMES_LLM_LLAMA_SERVER" in hermes("engine", "list", env=here).stdout


def test_the_doctor(hermes: RunHermes, here: dict[str, str]) -> None:
    done = hermes("engine", "doctor", "--json", env=here)
    checks = {check["about"]: check for check in json.loads(done.stdout)["checks"]}
    assert checks["llama-server"]["text"].startswith("7.5, ")
    assert "hermes engine install vllm" in checks["vllm"]["text"]
    assert checks["runs"]["state"] == "ok"
    broken = hermes("engine", "doctor", env=here | {"HERMES_LLM_VLLM": "/no/such/vllm"})
    assert "it does not tell its version" in broken.stdout
    assert "next: try it: /no/such/vllm --version" in broken.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["install", "vlm"], ExitCode.USAGE, "choose one of: llama-server, vllm, sglang"),
        (["install", "vllm"], ExitCode.USAGE, "add --yes"),
        (["install", "llama-server", "--package", "left-pad"], ExitCode.USAGE, "does not know how it starts"),
        (["rm", "vllm"], ExitCode.NOT_FOUND, "hermes has installed no vllm"),
        (["instal"], ExitCode.NOT_FOUND, "did you mean hermes engine install"),
    ],
)
def test_what_makes_no_sense_is_said(
    hermes: RunHermes, here: dict[str, str], arguments: list[str], code: ExitCode, said: str
) -> None:
    done = hermes("engine", *arguments, env=here)
    assert done.returncode == code
    assert said in done.stderr
