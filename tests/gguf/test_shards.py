"""Shards together, and files that are no models."""

from __future__ import annotations

from pathlib import Path

import pytest
from gguf_bytes import entry, gguf, parse_header, string, tensor, write_shards

from hermes_cli.errors import IntegrityError
from hermes_cli.gguf.shards import pooling_of, read_model, why_no_chat


def test_any_shard_leads_to_all(tmp_path: Path) -> None:
    made = write_shards(tmp_path)
    for path in made:
        paths, headers = read_model(path)
        assert list(paths) == made
        assert [header.tensors[0].name for header in headers] == ["t0", "t1", "t2"]


def test_a_missing_shard_is_told_by_its_number(tmp_path: Path) -> None:
    first, second, third = write_shards(tmp_path)
    second.unlink()
    with pytest.raises(IntegrityError, match=r"shard 2 of 3 is missing: m-00002-of-00003\.gguf") as caught:
        read_model(first)
    assert "fetch what is missing" in caught.value.hint
    third.unlink()
    with pytest.raises(IntegrityError, match="shards 2, 3 of 3 are missing"):
        read_model(first)


def test_an_empty_shard_is_named_and_fetched_again(tmp_path: Path) -> None:
    first, second, _ = write_shards(tmp_path)
    second.write_bytes(b"")
    with pytest.raises(IntegrityError, match=r"m-00002-of-00003\.gguf is not a GGUF file: it is empty") as caught:
        read_model(first)
    assert caught.value.hint == "fetch the file again."


def test_a_first_shard_by_another_name_needs_its_own(tmp_path: Path) -> None:
    renamed = write_shards(tmp_path)[0].rename(tmp_path / "model.gguf")
    with pytest.raises(IntegrityError, match="shard 1 of 3, but its name does not say so") as caught:
        read_model(renamed)
    assert "NAME-00001-of-00003.gguf" in caught.value.hint


def test_a_shard_of_another_place_is_told(tmp_path: Path) -> None:
    first, second, third = write_shards(tmp_path)
    second.write_bytes(third.read_bytes())
    with pytest.raises(IntegrityError, match=r"m-00002-of-00003\.gguf is no shard 2 of 3"):
        read_model(first)


@pytest.mark.parametrize(
    ("texts", "tensors", "says"),
    [
        ({"general.type": "mmproj", "general.architecture": "clip"}, ["v.blk.0.attn_q.weight"], "a projector"),
        ({"general.architecture": "clip"}, ["v.blk.0.attn_q.weight"], "a projector"),
        ({"general.type": "imatrix"}, ["blk.0.attn_q.weight.in_sum2"], "an importance matrix"),
        ({"general.type": "adapter", "general.architecture": "llama"}, ["blk.0.attn_q.weight.lora_a"], "--lora FILE"),
        ({"general.architecture": "llama"}, ["blk.0.attn_q.weight.lora_a"], "a LoRA adapter"),
        ({"general.architecture": "llama", "tokenizer.ggml.model": "gpt2"}, [], "a vocabulary without weights"),
        ({"general.architecture": "controlvector"}, ["direction.1"], "a control vector"),
        ({"general.architecture": "llama"}, ["direction.1"], "a control vector"),
        ({}, ["token_embd.weight"], "states no architecture"),
        ({"general.architecture": "flux"}, ["double_blocks.0.img_attn.qkv.weight"], "for images"),
        ({"general.architecture": "qwen_image"}, ["transformer_blocks.0.attn.to_k.weight"], "for images"),
        ({"general.architecture": "new", "tokenizer.ggml.model": "gpt2"}, ["output.weight"], None),
        ({"general.architecture": "bert"}, ["token_embd.weight"], "a model for embeddings"),
        ({"general.architecture": "t5encoder"}, ["token_embd.weight"], "an encoder"),
        ({"general.architecture": "llama"}, ["token_embd.weight"], None),
    ],
)
def test_what_is_no_model_to_chat_with(texts: dict[str, str], tensors: list[str], says: str | None) -> None:
    entries = [entry(key, 8, string(value)) for key, value in texts.items()]
    why = why_no_chat(parse_header(gguf(entries, [tensor(name, (8,)) for name in tensors], bytes(32))))
    assert why is None if says is None else says in (why or "")


@pytest.mark.parametrize(
    ("architecture", "stated", "pooling"),
    [
        ("bert", 1, "mean"),
        ("bert", 2, "cls"),
        ("qwen3", 3, "last"),
        ("nomic-bert", None, "mean"),
        ("gemma-embedding", None, "mean"),
        ("llama", None, None),
        ("llama", 0, None),
        ("bert", 4, None),
        ("bert", 9, None),
    ],
)
def test_how_a_model_for_embeddings_pools(architecture: str, stated: int | None, pooling: str | None) -> None:
    entries = [entry("general.architecture", 8, string(architecture))]
    if stated is not None:
        entries.append(entry(f"{architecture}.pooling_type", 4, stated.to_bytes(4, "little")))
    header = parse_header(gguf(entries, [tensor("token_embd.weight", (8,))], bytes(32)))
    assert pooling_of(header) == pooling
    reranks = "a reranker" in (why_no_chat(header) or "")
    assert reranks == (stated == 4)
