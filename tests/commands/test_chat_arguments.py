"""What `--lora` may say, and which first word is the model."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import RunHermes
from hypothesis import given
from hypothesis import strategies as st

from hermes_cli.commands.chat import lora_file, model_and_prompt
from hermes_cli.console import Console
from hermes_cli.engine.embedded.messages import LoraFile
from hermes_cli.errors import NotFoundError, UsageError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my adapter.gguf"
    path.touch()
    return path


def test_the_scale_is_one_unless_given(file: Path) -> None:
    typed = [str(file), f"{file}:0.5", f"{file}:-2"]
    assert [lora_file(text) for text in typed] == [LoraFile(file), LoraFile(file, 0.5), LoraFile(file, -2)]


def test_a_name_may_have_a_colon(tmp_path: Path) -> None:
    path = tmp_path / "a:0.5"
    path.touch()
    assert [lora_file(str(path)), lora_file(f"{path}:0.25")] == [LoraFile(path), LoraFile(path, 0.25)]


@pytest.mark.parametrize("scale", ["", "half", "nan", "inf"])
def test_a_scale_that_is_no_number_is_refused(file: Path, scale: str) -> None:
    with pytest.raises(UsageError, match="is not a number"):
        lora_file(f"{file}:{scale}")


@pytest.fixture(scope="module")
def empty_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with contextlib.chdir(tmp_path_factory.mktemp("empty")):
        yield


@pytest.mark.usefixtures("empty_folder")
@given(st.sampled_from(["", ".", "~0", "~\0", "no.gguf", "no.gguf:0.5", "x" * 5000]) | st.text())
def test_what_is_no_file_is_refused(given: str) -> None:
    with pytest.raises(NotFoundError, match="there is no such file"):
        lora_file(given)


@pytest.mark.parametrize(
    ("words", "model"),
    [
        (["one/Only-GGUF/Only Q.gguf", "hi"], "one/Only-GGUF/Only Q.gguf"),
        (["my model.GGUF", "hi"], "my model.GGUF"),
        (["my adapter", "hi"], "my adapter"),
        (["Hermes 3 8B", "hi"], "Hermes 3 8B"),
        (["Hermes3 8B q5km", "hi"], "Hermes3 8B q5km"),
        (["demo", "hi"], "demo"),
        (["Who is Hermes?", "hi"], None),
        (["which Hermes", "hi"], None),
        (["word " * 5000, "hi"], None),
        ([" ", "hi"], None),
    ],
)
def test_the_first_word_is_the_model_if_it_names_one(
    words: list[str], model: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my adapter").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", None)
    named, prompt = model_and_prompt(words, named=False, console=Console(out=io.StringIO()))
    assert named == model
    assert prompt == "hi" if model else prompt.endswith("hi")


def test_a_file_of_a_repository_may_have_a_blank_in_its_name(hermes: RunHermes, tmp_path: Path) -> None:
    done = hermes("chat", "one/Only-GGUF/Only Q.gguf", "hi", env={"HF_HUB_CACHE": str(tmp_path / "hub")})
    assert done.returncode == 3
    assert "Only Q.gguf of one/Only-GGUF is not on this machine" in done.stderr
