"""What `pip install .` and the two distributions hold. `test_install.py` installs and runs them."""

from __future__ import annotations

import configparser
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from conftest import REPOSITORY
from packaging.requirements import Requirement
from packaging.version import Version

import hermes_cli

NAME = f"hermes_llm-{hermes_cli.__version__}"
LARGEST = 5_500_000  # bytes of a wheel; four fifths of it are the demo model


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the sdist and the wheel lie."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", folder], check=True, cwd=REPOSITORY)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(built / f"{NAME}-py3-none-any.whl")


def test_the_wheel_holds_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    package = {path for path in (REPOSITORY / "hermes_cli").rglob("*") if path.is_file() and path.suffix != ".pyc"}
    dist_info = {"METADATA", "WHEEL", "entry_points.txt", "licenses/LICENSE", "RECORD"}
    completions = {
        f"{folder}/{file.format(program)}"
        for folder, file in (
            ("bash-completion/completions", "{}"),
            ("zsh/site-functions", "_{}"),
            ("fish/vendor_completions.d", "{}.fish"),
        )
        for program in ("hermes", "hermes-llm")
    }
    assert set(wheel.namelist()) == {
        "hermes_cli/catalog.yaml",
        *(path.relative_to(REPOSITORY).as_posix() for path in package),
        *(f"{NAME}.dist-info/{name}" for name in dist_info),
        *(f"{NAME}.data/data/share/{name}" for name in completions),
    }


def test_the_wheel_is_small(built: Path) -> None:
    assert (built / f"{NAME}-py3-none-any.whl").stat().st_size < LARGEST


def test_the_model_in_the_wheel_is_the_committed_one(wheel: zipfile.ZipFile, demo_path: Path) -> None:
    assert wheel.read("hermes_cli/assets/demo.gguf") == demo_path.read_bytes()


def test_installs_both_commands(wheel: zipfile.ZipFile) -> None:
    scripts = configparser.ConfigParser()
    scripts.read_string(wheel.read(f"{NAME}.dist-info/entry_points.txt").decode())
    assert dict(scripts["console_scripts"]) == {"hermes": "hermes_cli.cli:main", "hermes-llm": "hermes_cli.cli:main"}


def test_the_sdist_is_the_checkout_and_makes_the_same_wheel(built: Path, tmp_path: Path) -> None:
    with tarfile.open(built / f"{NAME}.tar.gz") as sdist:
        sdist.extractall(tmp_path, filter="data")
    source = tmp_path / NAME
    needed = ("Makefile", "README.md", "constraints.txt", "constraints-clients.txt", "tools/lean-llama.cmake")
    assert all((source / name).is_file() for name in needed)
    again = tmp_path / "dist"
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", again], check=True, cwd=source)
    assert (again / f"{NAME}-py3-none-any.whl").read_bytes() == (built / f"{NAME}-py3-none-any.whl").read_bytes()


def test_runs_from_the_wheel_alone(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    """Unpacked outside the checkout, so that nothing is found beside it."""
    wheel.extractall(tmp_path)  # noqa: S202 - this test's own ZIP file
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


def test_every_constraint_is_a_name_and_a_version() -> None:
    """No address and no hash of a registry's own."""
    for file in ("constraints.txt", "constraints-clients.txt"):
        lines = (REPOSITORY / file).read_text(encoding="utf-8").splitlines()
        versions = [line.partition(";")[0].strip() for line in lines if not line.startswith("#")]
        assert len(versions) > 50
        assert all(line.count("==") == 1 and not set(line) & set(" /@:") for line in versions), file


def test_the_package_in_the_place_of_llama_cpp_python_is_empty_and_satisfies_us(tmp_path: Path) -> None:
    folder = REPOSITORY / "tools" / "without-llama-cpp"
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path], check=True, cwd=folder)
    [file] = tmp_path.iterdir()
    assert all(".dist-info/" in name for name in zipfile.ZipFile(file).namelist())
    version = Version(tomllib.loads((folder / "pyproject.toml").read_text())["project"]["version"])
    needed = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["dependencies"]
    [range_] = [Requirement(text) for text in needed if text.startswith("llama-cpp-python")]
    assert version in range_.specifier
