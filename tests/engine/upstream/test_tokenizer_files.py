"""What the files of a tokenizer tell, as a folder and as a GGUF."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from demo_safetensors import write_folder

from hermes_cli.engine.upstream.tokenizer_files import config_number, read_tokenizer
from hermes_cli.errors import HermesError, IntegrityError, InvalidGGUFError, NotFoundError
from hermes_cli.paths import asset


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("demo")
    write_folder(path)
    return path


def test_a_folder_tells_what_a_gguf_tells(folder: Path) -> None:
    there, here = read_tokenizer(folder), read_tokenizer(asset("demo.gguf"))
    assert there.parameters == pytest.approx(here.parameters, rel=0.01)
    assert replace(there, source=here.source, parameters=here.parameters, sampling=here.sampling) == here
    assert {name: float(value) for name, value in there.sampling.items()} == {"temp": 0.0}
    assert {*here.ends} == {0, 2}
    assert [config_number(folder, key) for key in ("block_count", "embedding_length", "x")] == [6, 256, None]


def test_tokens_are_bytes(folder: Path) -> None:
    facts = read_tokenizer(folder)
    spelled = {facts.piece(token): token for token in range(facts.size)}
    assert {bytes([byte]) for byte in range(256)} <= {*spelled}
    assert [facts.piece(token) for token in (2, 5, 233, 5000)] == [b"<|im_end|>", b"<tool_call>", b" ", b""]
    words = replace(facts, byte_level=False, tokens={20: "\u2581caf\u00e9", 21: "<0xE9>"})
    assert [words.piece(20), words.piece(21)] == [" caf\u00e9".encode(), b"\xe9"]


def test_templates_by_name_and_numbers_as_they_come(folder: Path, tmp_path: Path) -> None:
    for name in ("tokenizer.json", "config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    named = [{"name": "default", "template": "A"}, {"name": "tool_use", "template": "B"}, "odd"]
    config = {"chat_template": named, "bos_token": {"content": "<|im_start|>"}, "eos_token": None}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 7, "temperature": 0.7, "top_p": null}')
    (tmp_path / "chat_template.jinja").write_text("C")
    facts = read_tokenizer(tmp_path)
    assert facts.templates == {"default": "C", "tool_use": "B"}
    assert (facts.bos, facts.eos, {*facts.ends}, facts.sampling) == ("<|im_start|>", "", {0, 2, 7}, {"temp": "0.7"})


@pytest.mark.parametrize(
    ("name", "text", "kind", "said"),
    [
        ("tokenizer.json", "{", IntegrityError, "is not JSON"),
        ("tokenizer.json", "[]", IntegrityError, "not a JSON object"),
        ("tokenizer.json", '{"model": {"vocab": 3}}', IntegrityError, "is no tokenizer"),
        ("config.json", None, NotFoundError, "has no config.json"),
    ],
)
def test_what_is_wrong_with_a_folder_is_said(
    folder: Path, tmp_path: Path, name: str, text: str | None, kind: type[HermesError], said: str
) -> None:
    for file in folder.glob("*.json"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / name).unlink()
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(kind, match=said):
        read_tokenizer(tmp_path)


def test_what_is_no_tokenizer_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="there is nothing"):
        read_tokenizer(tmp_path / "none")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(InvalidGGUFError):
        read_tokenizer(tmp_path / "text")
