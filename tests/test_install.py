"""The two distributions, installed into a fresh environment with what they ask for and without the checkout, and run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY, clean_environment
from openai import OpenAI
from server_rig import hermes_serve

pytestmark = pytest.mark.long

PROGRAMS = "Scripts" if os.name == "nt" else "bin"

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
}


@pytest.fixture(scope="module", params=["wheel", "sdist"])
def installed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of an environment in which `pip install FILE` was done."""
    folder = tmp_path_factory.mktemp(request.param)
    build = [sys.executable, "-m", "hatchling", "build", "-t", request.param, "-d", folder / "dist"]
    subprocess.run(build, check=True, cwd=REPOSITORY)
    (distribution,) = (folder / "dist").iterdir()
    environment, constraints = folder / "environment", str(REPOSITORY / "constraints.txt")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(environment), "install", "--quiet"]
    versions = ["--constraint", constraints, "--build-constraint", constraints]
    subprocess.run([*pip, *versions, str(distribution)], check=True, cwd=folder)
    return environment


def run(installed: Path, *command: str | os.PathLike[str]) -> str:
    """Run a program of the environment, away from the checkout; what it prints."""
    done = subprocess.run(
        [installed / PROGRAMS / command[0], *command[1:]],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        cwd=installed.parent,
        env=clean_environment(),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_checkout_is_not_used(installed: Path) -> None:
    place = run(installed, "python", "-c", "import hermes_cli; print(hermes_cli.__file__)")
    assert Path(place).is_relative_to(installed)


def test_the_demo_calls_a_tool(installed: Path) -> None:
    answer = run(installed, "hermes", "chat", "demo", "--tools", "demo", "--yes", "What's the weather in Tokyo?")
    assert answer == "It is 13 degrees and rainy in Tokyo.\n"


def test_the_demo_keeps_to_a_schema(installed: Path) -> None:
    answer = run(installed, "hermes-llm", "chat", "demo", "--schema", json.dumps(SCHEMA), "Anna is 34 years old.")
    assert json.loads(answer) == {"name": "Anna", "age": 34}


def test_serves_an_sdk(installed: Path) -> None:
    with (
        hermes_serve("demo", cwd=installed.parent, program=[str(installed / PROGRAMS / "hermes")]) as server,
        OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="x", max_retries=0) as client,
    ):
        answer = client.chat.completions.create(model="demo", messages=[{"role": "user", "content": "Who are you?"}])
    assert (answer.choices[0].message.content or "").startswith("I am the Hermes demo")


def test_the_catalogue_has_no_faults(installed: Path) -> None:
    run(installed, "hermes", "catalog", "check")


@pytest.mark.skipif(os.name == "nt", reason="the shells with completion files are those of Unix")
def test_completions_are_in_place(installed: Path) -> None:
    share = installed / "share"
    assert (share / "zsh/site-functions/_hermes").is_file()
    assert (share / "fish/vendor_completions.d/hermes.fish").is_file()
    script = f"source {share}/bash-completion/completions/hermes; COMP_WORDS=(hermes chat --too); COMP_CWORD=2; "
    completed = subprocess.run(
        ["bash", "-c", script + "_hermes_completion hermes; printf '%s\\n' \"${COMPREPLY[@]}\""],  # noqa: S607 - on PATH
        capture_output=True,
        text=True,
        check=True,
        env={**clean_environment(), "PATH": f"{installed / PROGRAMS}{os.pathsep}{os.environ['PATH']}"},
    )
    assert completed.stdout == "--tools\n"
