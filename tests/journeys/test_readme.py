"""What the README shows is what happens."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

from conftest import REPOSITORY, clean_environment


def transcript() -> tuple[str, str]:
    """The command and the output under "transcript: make demo"."""
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- transcript: make demo -->\n```console\n\$ (.+?)\n(.+?)```\n", readme, re.DOTALL)
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
