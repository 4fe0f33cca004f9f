"""`hermes show` says which chat template is used, and why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import RunHermes

from hermes_cli.commands import show
from hermes_cli.gguf.header import read_header


@pytest.mark.parametrize(
    ("name", "template"),
    [
        ("hermes-3:8b", "hermes' own for Hermes 3, equal to the published one"),
        (
            "hermes-4.3:36b",
            "the file's own, unless it lacks tools or reasoning or is another model's; then hermes' own",
        ),
    ],
)
def test_of_a_model(hermes: RunHermes, name: str, template: str) -> None:
    assert f"\nTemplate: {template}\n" in hermes("show", name).stdout
    assert json.loads(hermes("show", name, "--json").stdout)["template"] == template


def test_of_a_file(hermes: RunHermes, demo_path: Path) -> None:
    assert "chat template  the file's own: no other is known for this model" in hermes("show", str(demo_path)).stdout


def test_of_a_file_whose_vocabulary_was_read(demo_path: Path) -> None:
    header = read_header(demo_path, ("tokenizer.ggml.tokens",))
    assert dict(show._facts(header, "demo"))["chat template"].startswith("the file's own")  # noqa: SLF001
    del header.metadata["tokenizer.chat_template"]
    said = dict(show._facts(header, "demo"))["chat template"]  # noqa: SLF001
    assert said == "hermes' own for ChatML: the file carries none; this goes by its vocabulary"
