"""What a user gets from `pip install .`."""

from __future__ import annotations

import configparser
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import REPOSITORY

import hermes_cli


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    build = [
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        str(folder),
        str(REPOSITORY),
    ]
    subprocess.run([sys.executable, "-m", *build], check=True)
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def test_ships_model_catalogue_templates_and_completions(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    assert {
        "hermes_cli/assets/demo.gguf",
        "hermes_cli/assets/demo_tools.py",
        "hermes_cli/catalog.yaml",
    } <= names
    data = f"hermes_llm-{hermes_cli.__version__}.data/data/share"
    for program in ("hermes", "hermes-llm"):
        assert {
            f"{data}/bash-completion/completions/{program}",
            f"{data}/zsh/site-functions/_{program}",
            f"{data}/fish/vendor_completions.d/{program}.fish",
        } <= names
    assert not [name for name in names if name.startswith(("tests/", "demo/"))]


def test_the_model_in_the_wheel_is_the_committed_one_and_small(wheel: zipfile.ZipFile, demo_path: Path) -> None:
    assert wheel.read("hermes_cli/assets/demo.gguf") == demo_path.read_bytes()
    assert demo_path.stat().st_size <= 5_000_000


def test_installs_both_commands(wheel: zipfile.ZipFile) -> None:
    scripts = configparser.ConfigParser()
    scripts.read_string(wheel.read(f"hermes_llm-{hermes_cli.__version__}.dist-info/entry_points.txt").decode())
    assert dict(scripts["console_scripts"]) == {"hermes": "hermes_cli.cli:main", "hermes-llm": "hermes_cli.cli:main"}


def test_runs_from_the_wheel_alone(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    """Unpacked outside the checkout, so that nothing is found beside it."""
    wheel.extractall(tmp_path)
    run = "import sys; sys.path.insert(0, sys.argv.pop(1)); from hermes_cli.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", run, str(tmp_path), "chat", "demo", "Who are you?"],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        cwd=tmp_path,
    )
    assert done.stdout.startswith("I am the Hermes demo")
