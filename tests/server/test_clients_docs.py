"""docs/clients.md: what it says to type works; its programs run where the tests of their SDK are."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from clients_page import piece
from conftest import HANG
from server_rig import served


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_curl() -> None:
    with served() as server:
        command = ["bash", "-c", "curl --fail --silent " + piece("curl", "console", server).removeprefix("curl")]
        done = subprocess.run(command, capture_output=True, check=False, text=True, timeout=HANG)
    assert done.returncode == 0, done.stderr
    assert '"content":"hi"' in done.stdout
