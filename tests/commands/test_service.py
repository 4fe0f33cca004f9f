"""`hermes service`: the files for systemd and launchd, and the commands that are given to them.

Neither runs where tests run: a program that writes down its arguments stands in for `systemctl`.
"""

from __future__ import annotations

import json
import plistlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import RunHermes

from hermes_cli.commands.service import launch_agent, service_manager, systemd_unit
from hermes_cli.errors import ExitCode, HermesError

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="systemd and launchd")
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="systemd")
ANALYZE = shutil.which("systemd-analyze")
COMMAND = ["/opt/my tools/hermes", "serve", "demo", "--alias", "50%$x", '--think-end="so"']
ENVIRONMENT = {"HF_HOME": "/data/50%$x", "PATH": "/usr/bin"}


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """The environment of a user whose `systemctl` writes down what it is told; `is-active` is what a file says."""
    program = tmp_path / "bin/systemctl"
    program.parent.mkdir()
    told = tmp_path / "told"
    program.write_text(
        f'#!/bin/sh\necho "$@" >> {told}\ncase "$*" in *is-active*) test -e {tmp_path}/active;; '
        f"*enable*--now*) touch {tmp_path}/active;; *disable*) rm {tmp_path}/active;; esac\n"
    )
    program.chmod(0o755)
    places = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": "", "HERMES_LLM_LOG_DIR": str(tmp_path / "log")}
    return {**places, "PATH": f"{program.parent}:/usr/bin:/bin", "HERMES_LLM_API_KEY": "secret", "HF_HOME": "/hf"}


@LINUX
def test_it_is_installed_shown_replaced_and_removed(hermes: RunHermes, home: dict[str, str], tmp_path: Path) -> None:
    unit = tmp_path / ".config/systemd/user/hermes-llm.service"
    done = hermes("service", "install", "demo", "--port", "0", env=home)
    assert (done.returncode, done.stdout) == (0, f"installed {unit}\n")
    text = unit.read_text()
    assert " serve demo --port 0\n" in text
    assert "Environment=HF_HOME=/hf\n" in text
    assert "secret" not in text
    assert (tmp_path / "told").read_text().splitlines() == [
        "--user show-environment",
        "--user daemon-reload",
        "--user enable --now hermes-llm.service",
    ]
    shown = hermes("service", "status", "--json", env=home)
    assert shown.returncode == 0
    assert json.loads(shown.stdout)["running"] is True
    refused = hermes("service", "install", "demo", env=home)
    assert refused.returncode == ExitCode.USAGE
    assert "--yes" in refused.stderr
    assert hermes("service", "install", "demo", "--yes", env=home).returncode == 0
    assert " serve demo\n" in unit.read_text()
    assert hermes("service", "remove", env=home).returncode == 0
    assert not unit.exists()
    assert hermes("service", "remove", env=home).returncode == ExitCode.NOT_FOUND
    assert hermes("service", "status", env=home).returncode == ExitCode.FAILED


@POSIX
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["demo", "--prot", "1"], "hermes serve has no option --prot."),
        (["demo", "--port", "70000"], "--port 70000"),
        (["demo", "--api-key", "x"], "no place for a key"),
        (["demo", "--background"], "in the background anyway"),
    ],
)
def test_what_the_server_would_not_take_is_refused(
    hermes: RunHermes, home: dict[str, str], arguments: list[str], says: str
) -> None:
    done = hermes("service", "install", *arguments, env=home)
    assert done.returncode == ExitCode.USAGE
    assert says in done.stderr


@LINUX
def test_without_a_manager_the_file_is_printed(hermes: RunHermes, home: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "bin/systemctl").write_text("#!/bin/sh\nexit 1\n")
    done = hermes("service", "install", "demo", env=home)
    assert done.stdout.startswith("[Unit]\n")
    assert "systemd does not run here for this user, so nothing was installed." in done.stderr
    assert not (tmp_path / ".config").exists()


@pytest.mark.skipif(not ANALYZE, reason="systemd")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    program = tmp_path / "my tools" / "hermes"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / "hermes-llm.service"
    unit.write_text(systemd_unit([str(program), *COMMAND[1:]], ENVIRONMENT, tmp_path))
    done = subprocess.run([ANALYZE or "", "verify", unit], capture_output=True, text=True, check=False)
    assert "hermes-llm.service" not in done.stderr
    assert 'ExecStart="' in unit.read_text()
    assert "--alias 50%%$$x" in unit.read_text()
    assert "Environment=HF_HOME=/data/50%%$x\n" in unit.read_text()


@POSIX
def test_launchd_gets_a_property_list(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HERMES_LLM_LOG_DIR", str(tmp_path))
    agent = plistlib.loads(launch_agent("hermes-llm.serve", COMMAND, ENVIRONMENT, tmp_path).encode())
    assert agent["ProgramArguments"] == COMMAND
    assert agent["EnvironmentVariables"] == ENVIRONMENT
    assert agent["StandardErrorPath"] == str(tmp_path / "service.log")
    manager = service_manager("darwin")
    assert manager.file.name == "hermes-llm.serve.plist"
    assert manager.install[0][:2] == ("launchctl", "bootstrap")


def test_on_windows_it_says_what_to_do() -> None:
    with pytest.raises(HermesError, match="hermes knows no services of Windows") as caught:
        service_manager("win32")
    assert "schtasks" in caught.value.hint
