"""Where engines come from, and installing one: with a real pip, from a wheel of this machine."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import pytest
from conftest import REPOSITORY

from hermes_cli.engine.upstream import programs
from hermes_cli.engine.upstream.install import default_package, install, remove
from hermes_cli.engine.upstream.programs import EngineProgram, find_program, installed_program, version_of
from hermes_cli.errors import EngineError, NotFoundError, UsageError
from hermes_cli.hardware.probe import probe

DUMMY = REPOSITORY / "tests" / "dummy_engine.py"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HERMES_LLM_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    for variable in programs.VARIABLES.values():
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


def program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_what_is_typed_counts_before_the_environment_and_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFoundError) as caught:
        find_program("vllm")
    assert "hermes engine install vllm" in caught.value.hint
    on_path = program(folder / "bin" / "vllm")
    assert find_program("vllm") == EngineProgram("vllm", (str(on_path),), "PATH")
    monkeypatch.setenv("HERMES_LLM_VLLM", "/opt/vllm serve-it")
    assert find_program("vllm") == EngineProgram("vllm", ("/opt/vllm", "serve-it"), "HERMES_LLM_VLLM")
    with_blank = program(folder / "my engines" / "vllm")
    assert find_program("vllm", str(with_blank)).words == (str(with_blank),)
    assert len(programs.known_programs()) == 2
    with pytest.raises(UsageError, match="is no command"):
        find_program("vllm", "'unfinished")


def test_sglang_is_a_module_of_the_python_beside_it(folder: Path) -> None:
    program(folder / "bin" / "sglang")
    python = program(folder / "bin" / "python")
    assert find_program("sglang").words == (str(python), "-m", "sglang.launch_server")


def test_the_version_is_asked() -> None:
    dummy = EngineProgram("llama-server", (sys.executable, str(DUMMY)), "PATH")
    assert version_of(dummy) == "7.5"
    assert not version_of(EngineProgram("llama-server", ("/no/such/program",), "PATH"))


def wheel(folder: Path, version: str) -> None:
    """A package named as the real one, with nothing in it."""
    info = f"xllamacpp-{version}.dist-info"
    with zipfile.ZipFile(folder / f"xllamacpp-{version}-py3-none-any.whl", "w") as file:
        file.writestr("xllamacpp.py", "")
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: xllamacpp\nVersion: {version}\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")


@pytest.mark.long  # pip, three times
def test_an_engine_is_installed_replaced_and_removed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel(folder, "1.0")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    lines: list[str] = []
    made = install("llama-server", "xllamacpp", lines.append)
    assert (made.package, made.version, made.source) == ("xllamacpp", "1.0", "installed by hermes")
    assert made.takes_grammars
    assert find_program("llama-server") == made
    assert any("xllamacpp" in line for line in lines)
    with pytest.raises(EngineError, match=r"No matching distribution found for xllamacpp==2"):
        install("llama-server", "xllamacpp==2", lines.append)
    assert installed_program("llama-server") == made, "what worked is still there"
    remove("llama-server")
    assert installed_program("llama-server") is None
    with pytest.raises(NotFoundError, match="hermes has installed no llama-server"):
        remove("llama-server")


def test_only_packages_that_are_known_to_start_an_engine() -> None:
    with pytest.raises(UsageError, match="does not know how it starts llama-server"):
        install("llama-server", "left-pad", lambda _: None)
    assert default_package("llama-server", probe(measure=False)) in programs.PACKAGES["llama-server"]
