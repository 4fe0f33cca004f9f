"""What `--lora` may say."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes_cli.commands.chat import lora_file
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
    with pytest.raises(UsageError, match="is no number"):
        lora_file(f"{file}:{scale}")


@given(st.sampled_from(["", ".", "~0", "no.gguf", "no.gguf:0.5", "x" * 5000]) | st.text())
def test_what_is_no_file_is_refused(given: str) -> None:
    with pytest.raises(NotFoundError, match="there is no such file"):
        lora_file(given)
