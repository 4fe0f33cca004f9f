"""What the README shows is what happens, and the pages that are written from the code are as the code is."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import reference
from conftest import REPOSITORY, RunHermes, clean_environment
from hub_cache import HubCache
from hub_server import Hub, serving

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
OFFICIAL, FILE = "NousResearch/Hermes-3-Llama-3.1-8B-GGUF", "Hermes-3-Llama-3.1-8B.Q4_K_M.gguf"
# What builds or installs: `make test-all` and CI do that (tests/test_install.py).
BUILDS = ("make demo", "export CMAKE_ARGS=", "pipx install ", "pip install ", "hermes engine install ")


def console_lines() -> list[str]:
    """The commands of all console blocks, without what is said about them."""
    blocks = re.findall(r"^```console\n(.+?)```$", README, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks if not block.startswith("$") for line in block.splitlines()]
    return [re.split(r"\s+#\s", line)[0].strip() for line in lines]


def transcript() -> tuple[str, str]:
    """The command and the output under "transcript: make demo"."""
    found = re.search(r"<!-- transcript: make demo -->\n```console\n\$ (.+?)\n(.+?)```\n", README, re.DOTALL)
    assert found
    return found[1], found[2]


def test_the_transcript_of_make_demo_is_real(tmp_path: Path) -> None:
    command, shown = transcript()
    program, *arguments = shlex.split(command)
    assert program == ".venv/bin/hermes"
    done = subprocess.run(
        [Path(sys.executable).with_name("hermes"), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        check=True,
        cwd=tmp_path,
        env=clean_environment(),
    )
    assert done.stdout == shown


def test_make_demo_runs_that_command() -> None:
    command, _ = transcript()
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    assert f"export DEMO := {command.replace('.venv/bin', '$(BIN)')}\n" in makefile


def test_the_first_commands_lead_to_a_chat(hermes: RunHermes, tmp_path: Path, demo_path: Path) -> None:
    """Every other console line runs as it stands, in its order; the Hub has the demo under the name of a Hermes."""
    commands = [line for line in console_lines() if not line.startswith((*BUILDS, ". .venv/bin/activate"))]
    assert commands[:3] == ["hermes recommend", "hermes pull hermes-3:8b", "hermes chat hermes-3:8b"]
    (tmp_path / "home").mkdir()
    hub = Hub({OFFICIAL: {FILE: demo_path.read_bytes()}}, revision="1" * 40)
    with serving(hub) as server:
        environment = {**HubCache(tmp_path).environment, **server.environment}
        typed = [shlex.split(command)[1:] for command in commands]
        typed[1] += ["--quant", "Q4_K_M"]  # the file that this Hub has
        done = [hermes(*arguments, stdin="Who are you?", env=environment) for arguments in typed]
    assert [one.returncode for one in done] == [0] * len(commands), done[1].stderr
    assert "I am the Hermes demo" in done[2].stdout


def test_lines_are_short_and_files_exist() -> None:
    assert max(map(len, README.splitlines())) <= 120
    for target in re.findall(r"\]\((?!http)([^)#]+)", README):
        assert (REPOSITORY / target).exists(), target


def test_the_recording_shows_a_run_of_the_demo() -> None:
    root = ET.parse(REPOSITORY / "docs" / "recording.svg").getroot()  # noqa: S314 - a file of ours
    shown = "\n".join("".join(group.itertext()) for group in root)
    for text in ("hermes recommend", "hermes chat demo --tools demo", '→ get_weather(city="Oslo")', "clear in Oslo."):
        assert text in shown


def test_the_page_of_all_commands_is_up_to_date() -> None:
    """Changed on purpose? `make completions` writes it."""
    assert reference.page() == reference.FILE.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["recording.svg", "page.png"])
def test_pictures_are_small(name: str) -> None:
    assert (REPOSITORY / "docs" / name).stat().st_size < 400_000
