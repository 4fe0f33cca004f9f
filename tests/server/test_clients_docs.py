"""docs/clients.md: what it says to type works."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest
from conftest import HANG, REPOSITORY, clean_environment
from server_rig import Process, the_server  # noqa: F401 - a fixture

PAGE = (REPOSITORY / "docs" / "clients.md").read_text(encoding="utf-8")


def here(text: str, server: Process) -> str:
    """For this server and its model."""
    return text.replace("127.0.0.1:8080", f"127.0.0.1:{server.port}").replace("hermes-3:8b", "demo")


def section(title: str, server: Process, language: str) -> str:
    """Its first piece of code in that language."""
    found = re.search(rf"^## {title}\n.*?```{language}\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE)
    assert found, title
    return here(found[1], server)


@pytest.mark.parametrize("title", ["OpenAI's SDKs", "Anthropic's SDKs, Claude Code"])
def test_a_program_and_its_variables(server: Process, title: str) -> None:
    variables = section(title, server, "console").removeprefix("export").split()
    done = subprocess.run(
        [sys.executable, "-c", section(title, server, "python")],
        capture_output=True,
        check=False,
        text=True,
        env={**clean_environment(), **dict(one.split("=", 1) for one in variables)},
        timeout=HANG,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_curl(server: Process) -> None:
    command = ["bash", "-c", "curl --fail --silent " + section("curl", server, "console").removeprefix("curl")]
    done = subprocess.run(command, capture_output=True, check=False, text=True, timeout=HANG)
    assert done.returncode == 0, done.stderr
    assert '"content":"' in done.stdout
