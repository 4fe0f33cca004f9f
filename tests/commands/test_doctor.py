"""`hermes doctor` as a process: each problem is said with what mends it, and nothing private is in it."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import RunHermes
from hub_server import Hub, serving

from hermes_cli.commands import doctor
from hermes_cli.commands.doctor import private
from hermes_cli.console import Console
from hermes_cli.hardware.machine import Device, Note
from hermes_cli.hardware.probe import probe

TOKEN = "hf_" + "A" * 34
LOST = "http://127.0.0.1:9"  # nobody listens there (RFC 863's port)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    ours = {f"HERMES_LLM_{name}_DIR": str(tmp_path / name.lower()) for name in ("CACHE", "DATA", "CONFIG")}
    return {**ours, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_TOKEN": TOKEN}


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving(Hub({"somebody/Model": {"a.txt": b""}})) as hub:
        yield hub


def by_name(text: str) -> dict[str, dict[str, Any]]:
    return {check["about"]: check for check in json.loads(text)["checks"]}


def test_all_is_well(hermes: RunHermes, hub: Hub, environment: dict[str, str]) -> None:
    done = hermes("doctor", "--json", env={**hub.environment, **environment})
    checks = by_name(done.stdout)
    assert done.returncode == 0, done.stdout
    assert {check["state"] for check in checks.values()} <= {"ok", "warning"}
    assert "answers" in checks["Hub"]["text"]
    assert "a token is there" in checks["Hub"]["text"]
    assert "I can call tools" in checks["demo"]["text"]
    assert "llama-cpp-python" in checks["versions"]["text"]


def test_what_fails_is_said_with_the_next_step_and_the_rest_goes_on(
    hermes: RunHermes, environment: dict[str, str]
) -> None:
    lost = {
        **environment,
        "HF_ENDPOINT": LOST.replace("//", "//somebody:secret@"),
        "HTTPS_PROXY": "http://u:pw@proxy:1",
    }
    done = hermes("doctor", env=lost)
    assert done.returncode == 1
    assert "PROBLEM  Hub: " in done.stdout
    assert "         next: " in done.stdout
    assert "ok       demo: loads" in done.stdout
    assert "1 of " in done.stderr
    for secret in ("secret", "pw@", TOKEN):
        assert secret not in done.stdout + done.stderr


def test_the_hub_need_not_be_asked(hermes: RunHermes, environment: dict[str, str]) -> None:
    done = hermes("doctor", "--offline", env={**environment, "HF_ENDPOINT": LOST})
    assert done.returncode == 0
    assert "not asked (--offline)" in done.stdout


def test_a_folder_that_cannot_be_written(hermes: RunHermes, environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    lost = {**environment, "HERMES_LLM_DATA_DIR": str(tmp_path / "file/data")}
    checks = by_name(hermes("doctor", "--json", "--offline", env=lost).stdout)
    assert checks["folders"]["state"] == "problem"
    assert checks["demo"]["state"] == "ok"


def test_private_things_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    text = f"http://user:password@proxy:1 /home/somebody/models {TOKEN} socks5h://u@h"
    assert private(text) == "http://proxy:1 ~/models  socks5h://h"


def test_a_gpu_that_is_not_used_comes_with_what_helps() -> None:
    card = Device("nvidia", "GeForce RTX 4090", 24 << 30, 20 << 30, 1e12, "table", "cuda", usable=False)
    card = replace(card, reason="the installed llama-cpp-python was built without CUDA", fix="pip install …")
    machine = replace(probe(measure=False), devices=(card,), notes=(Note("ram", "Its cgroup is limited."),))
    checks = {check.about: check for check in doctor.hardware_checks(machine)}
    assert checks["GPU 0"].state == "warning"
    assert checks["GPU 0"].fix == "pip install …"
    assert "21.47 GB of 25.77 GB free" in checks["GPU 0"].text
    assert checks["hardware"].text == "Its cgroup is limited."
    out = io.StringIO()
    doctor.show_check(checks["GPU 0"], Console(out=out))
    assert out.getvalue().splitlines()[1] == "         next: pip install …"
