"""LoRA adapters, on the real demo model."""

from __future__ import annotations

import gc
import struct
from pathlib import Path

import numpy as np
import pytest
from gguf_bytes import entry, gguf, string, tensor
from numpy.typing import NDArray

from hermes_cli.engine.embedded.llama import Batch, LlamaContext, LlamaModel, LoraAdapter
from hermes_cli.errors import EngineError, IntegrityError
from hermes_cli.planning.memory import ContextSettings

WIDTH, RANK, ALPHA = 256, 2, 4.0  # of the demo model, of the adapters, and what llama.cpp multiplies by (alpha / rank)


def adapter_bytes(
    seed: int = 1, *, architecture: str = "llama", kind: str = "adapter", name: str = "blk.0.attn_q", width: int = WIDTH
) -> bytes:
    random = np.random.default_rng(seed)
    lower = random.standard_normal((RANK, width)).astype(np.float32).tobytes()
    upper = random.standard_normal((WIDTH, RANK)).astype(np.float32).tobytes()
    return gguf(
        [
            entry("general.type", 8, string(kind)),
            entry("general.architecture", 8, string(architecture)),
            entry("adapter.type", 8, string("lora")),
            entry("adapter.lora.alpha", 6, struct.pack("<f", ALPHA)),
        ],
        [
            tensor(f"{name}.weight.lora_a", (width, RANK)),
            tensor(f"{name}.weight.lora_b", (RANK, WIDTH), offset=len(lower)),
        ],
        lower + upper,
    )


@pytest.fixture
def adapter_path(tmp_path: Path) -> Path:
    path = tmp_path / "adapter.gguf"
    path.write_bytes(adapter_bytes())
    return path


def logits(
    model: LlamaModel, *adapters: tuple[LoraAdapter, float], context: LlamaContext | None = None
) -> NDArray[np.float32]:
    context = context or LlamaContext(model, ContextSettings(256), threads=1)
    context.apply_adapters(adapters)
    context.forget(0)
    tokens = model.vocabulary.tokenize("<|im_start|>user\nWho are you?", special=True)
    batch = Batch(context.batch_tokens)
    batch.add(tokens, 0, 0, 1)
    context.decode(batch)
    row: NDArray[np.float32] = context.logits()[0]
    return row.copy()


def test_an_adapter_works_as_strongly_as_its_scale(demo_model: LlamaModel, adapter_path: Path) -> None:
    plain = logits(demo_model)
    with LoraAdapter(demo_model, adapter_path) as adapter:
        assert (logits(demo_model, (adapter, 0)) == plain).all()
        changes = [np.abs(logits(demo_model, (adapter, scale)) - plain).max() for scale in (0.001, 0.01, 0.1)]
    assert 0 < changes[0] < changes[1] < changes[2]


def test_adapters_add_up_and_are_taken_off_again(demo_model: LlamaModel, adapter_path: Path, tmp_path: Path) -> None:
    second = tmp_path / "second.gguf"
    second.write_bytes(adapter_bytes(2))
    context = LlamaContext(demo_model, ContextSettings(256), threads=1)
    plain = logits(demo_model, context=context)
    with LoraAdapter(demo_model, adapter_path) as first, LoraAdapter(demo_model, second) as other:
        alone = logits(demo_model, (first, 1), context=context)
        both = logits(demo_model, (first, 1), (other, 1), context=context)
        opposite = logits(demo_model, (first, -1), context=context)
        assert not np.allclose(alone, plain)
        assert not np.allclose(both, alone)
        assert not np.allclose(opposite, alone)
        assert (logits(demo_model, context=context) == plain).all()


def test_a_factor_of_zeros_changes_nothing(demo_model: LlamaModel, tmp_path: Path) -> None:
    raw = adapter_bytes()
    size = WIDTH * RANK * 4
    path = tmp_path / "zeros.gguf"
    path.write_bytes(raw[:-size] + bytes(size))
    with LoraAdapter(demo_model, path) as adapter:
        assert (logits(demo_model, (adapter, 1)) == logits(demo_model)).all()


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "failed to"),
        (b"not a GGUF file at all, but long enough to look into", "failed to"),
        (adapter_bytes(kind="model"), "adapter"),
        (adapter_bytes(architecture="qwen2"), "arch mismatch"),
        (adapter_bytes(name="blk.99.attn_q"), r"blk\.99\.attn_q.* does not exist in base model"),
        (adapter_bytes(width=WIDTH // 2), "incorrect shape"),
        (adapter_bytes()[:-100], ""),
    ],
)
def test_what_is_no_adapter_for_this_model(demo_model: LlamaModel, tmp_path: Path, raw: bytes, reason: str) -> None:
    path = tmp_path / "wrong.gguf"
    path.write_bytes(raw)
    with pytest.raises(IntegrityError, match=rf"cannot load the LoRA adapter .*wrong\.gguf: .*{reason}"):
        LoraAdapter(demo_model, path)


def test_the_model_itself_is_no_adapter(demo_model: LlamaModel, demo_path: Path, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match=r"expect general\.type to be 'adapter'"):
        LoraAdapter(demo_model, demo_path)
    with pytest.raises(IntegrityError, match="cannot load the LoRA adapter"):
        LoraAdapter(demo_model, tmp_path / "missing.gguf")


def test_closing_in_any_order(demo_path: Path, adapter_path: Path) -> None:
    model = LlamaModel(demo_path)
    adapter = LoraAdapter(model, adapter_path)
    context = LlamaContext(model, ContextSettings(256), threads=1)
    logits(model, (adapter, 1), context=context)
    adapter.close()
    adapter.close()
    with pytest.raises(EngineError, match="adapter is closed"):
        context.apply_adapters([(adapter, 1)])
    kept = LoraAdapter(model, adapter_path)
    model.close()
    kept.close()
    del kept, context
    gc.collect()
