"""Skeletons of models of other families, small but with everything that llama.cpp asks of them: no weights."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from gguf_bytes import entry, gguf, string, tensor

LAYERS, WIDTH, HEADS, KV_HEADS, HEAD, INNER, VOCABULARY, CONTEXT = 6, 256, 8, 2, 32, 512, 1024, 8192
QUERIES, KEYS = HEADS * HEAD, KV_HEADS * HEAD
Shapes = dict[str, tuple[int, ...]]

NORMS: Shapes = {"attn_norm.weight": (WIDTH,), "ffn_norm.weight": (WIDTH,)}
ATTENTION: Shapes = {
    "attn_q.weight": (WIDTH, QUERIES),
    "attn_k.weight": (WIDTH, KEYS),
    "attn_v.weight": (WIDTH, KEYS),
    "attn_output.weight": (QUERIES, WIDTH),
}
BIASES: Shapes = {"attn_q.bias": (QUERIES,), "attn_k.bias": (KEYS,), "attn_v.bias": (KEYS,)}
HEAD_NORMS: Shapes = {"attn_q_norm.weight": (HEAD,), "attn_k_norm.weight": (HEAD,)}
POST_NORMS: Shapes = {"post_attention_norm.weight": (WIDTH,), "post_ffw_norm.weight": (WIDTH,)}
FEED_FORWARD: Shapes = {
    "ffn_gate.weight": (WIDTH, INNER),
    "ffn_up.weight": (WIDTH, INNER),
    "ffn_down.weight": (INNER, WIDTH),
}
EXPERTS, USED, EXPERT_INNER = 16, 4, 128
MIXTURE: Shapes = {
    "ffn_gate_inp.weight": (WIDTH, EXPERTS),
    "ffn_gate_exps.weight": (WIDTH, EXPERT_INNER, EXPERTS),
    "ffn_up_exps.weight": (WIDTH, EXPERT_INNER, EXPERTS),
    "ffn_down_exps.weight": (EXPERT_INNER, WIDTH, EXPERTS),
}
OF_EXPERTS: dict[str, int | float] = {
    "expert_count": EXPERTS,
    "expert_used_count": USED,
    "expert_feed_forward_length": EXPERT_INNER,
}
STATE, CONVOLUTION, STEPS = 16, 4, 16
RECURRENT: Shapes = {
    "attn_norm.weight": (WIDTH,),
    "ssm_in.weight": (WIDTH, 4 * WIDTH),
    "ssm_conv1d.weight": (CONVOLUTION, 2 * WIDTH),
    "ssm_conv1d.bias": (2 * WIDTH,),
    "ssm_x.weight": (2 * WIDTH, STEPS + 2 * STATE),
    "ssm_dt.weight": (STEPS, 2 * WIDTH),
    "ssm_dt.bias": (2 * WIDTH,),
    "ssm_a": (STATE, 2 * WIDTH),
    "ssm_d": (2 * WIDTH,),
    "ssm_out.weight": (2 * WIDTH, WIDTH),
}


@dataclass(frozen=True)
class Family:
    """What is peculiar about an architecture."""

    layer: Shapes
    figures: dict[str, int | float] = field(default_factory=dict)
    tied: bool = False


FAMILIES: dict[str, Family] = {
    "llama": Family(NORMS | ATTENTION | FEED_FORWARD),
    "internlm2": Family(NORMS | ATTENTION | FEED_FORWARD),
    "qwen2": Family(NORMS | ATTENTION | BIASES | FEED_FORWARD),
    "qwen3": Family(NORMS | ATTENTION | HEAD_NORMS | FEED_FORWARD, tied=True),
    "qwen3moe": Family(NORMS | ATTENTION | HEAD_NORMS | MIXTURE, OF_EXPERTS),
    "gemma2": Family(NORMS | ATTENTION | POST_NORMS | FEED_FORWARD, {"attention.sliding_window": 512}, tied=True),
    "gemma3": Family(
        NORMS | ATTENTION | HEAD_NORMS | POST_NORMS | FEED_FORWARD, {"attention.sliding_window": 512}, tied=True
    ),
    "granite": Family(NORMS | ATTENTION | FEED_FORWARD, {"logit_scale": 8.0}),
    "cohere2": Family(
        {"attn_norm.weight": (WIDTH,)} | ATTENTION | FEED_FORWARD,
        {"attention.sliding_window": 512, "logit_scale": 0.25, "attention.layer_norm_epsilon": 1e-5},
        tied=True,
    ),
    "mamba": Family(
        RECURRENT,
        {
            "ssm.conv_kernel": CONVOLUTION,
            "ssm.inner_size": 2 * WIDTH,
            "ssm.state_size": STATE,
            "ssm.time_step_rank": STEPS,
        },
    ),
}


def write_family(path: Path, name: str) -> Path:
    """Write the header of a family's model, and a hole where its weights would be."""
    family = FAMILIES[name]
    figures: dict[str, int | float] = {
        "block_count": LAYERS,
        "context_length": CONTEXT,
        "embedding_length": WIDTH,
        "feed_forward_length": 0 if "ssm_in.weight" in family.layer else INNER,
        "attention.head_count": 0 if "ssm_in.weight" in family.layer else HEADS,
        "attention.head_count_kv": KV_HEADS,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "vocab_size": VOCABULARY,
        **family.figures,
    }
    entries = [entry("general.architecture", 8, string(name)), entry("tokenizer.ggml.model", 8, string("no_vocab"))]
    for key, value in figures.items():
        packed = struct.pack("<I", value) if isinstance(value, int) else struct.pack("<f", value)
        entries.append(entry(f"{name}.{key}", 4 if isinstance(value, int) else 6, packed))
    table, offset = [], 0
    for label, shape in _tensors(family):
        table.append(tensor(label, shape, kind=0, offset=offset))
        offset += math.prod(shape) * 4
    head = gguf(entries, table)
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + offset)
    return path


def _tensors(family: Family) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "token_embd.weight", (WIDTH, VOCABULARY)
    for layer in range(LAYERS):
        yield from ((f"blk.{layer}.{part}", shape) for part, shape in family.layer.items())
    yield "output_norm.weight", (WIDTH,)
    if not family.tied:
        yield "output.weight", (WIDTH, VOCABULARY)
