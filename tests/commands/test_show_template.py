"""`hermes show` says which chat template is used, and why; and what is wrong with the shards of a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import RunHermes
from gguf_bytes import write_shards

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


@pytest.mark.parametrize(
    ("content", "problem", "hint"),
    [
        (None, "shard 2 of 3 is missing: m-00002-of-00003.gguf", "fetch what is missing"),
        (b"", "m-00002-of-00003.gguf is not a GGUF file: it is empty", "fetch the file again"),
        (b"version https://git-lfs.github.com/spec/v1\n", "it is a Git LFS pointer", "git lfs pull"),
    ],
)
def test_a_shard_that_is_no_good_stands_on_the_page(
    hermes: RunHermes, tmp_path: Path, content: bytes | None, problem: str, hint: str
) -> None:
    first, second, _ = write_shards(tmp_path)
    second.unlink()
    if content is not None:
        second.write_bytes(content)
    page = " ".join(hermes("show", str(first)).stdout.split())
    assert "PROBLEM" in page
    assert problem in page
    assert hint in page
    told = json.loads(hermes("show", str(first), "--json").stdout)["problem"]
    assert problem in told
    assert hint in told


def test_a_shard_by_another_name_stands_on_the_page(hermes: RunHermes, tmp_path: Path) -> None:
    first, *_ = write_shards(tmp_path)
    assert json.loads(hermes("show", str(first), "--json").stdout)["problem"] is None
    renamed = first.rename(tmp_path / "model.gguf")
    page = " ".join(hermes("show", str(renamed)).stdout.split())
    assert "is shard 1 of 3, but its name does not say so" in page
    assert "NAME-00001-of-00003.gguf" in page
