"""Write the demo model as a Hugging Face folder, which vLLM and SGLang load: `python tools/demo_safetensors.py FOLDER`.

The weights are those of the GGUF file, dequantized to 32-bit floats. Formats: https://github.com/huggingface/safetensors
(8 bytes with the length of a JSON header, the header, the data), and `tokenizer.json` of the library tokenizers.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np

from hermes_cli.gguf.header import GGUFHeader, TensorInfo, read_header
from hermes_cli.paths import asset

ARRAYS = ("tokenizer.ggml.tokens", "tokenizer.ggml.token_type", "tokenizer.ggml.merges")
CONTROL, USER_DEFINED = 3, 4
BLOCK = np.dtype([("scale", "<f2"), ("values", "i1", 32)])  # of Q8_0
LAYER = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
OUTER = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def write_folder(folder: Path, gguf: Path | None = None) -> None:
    """Write weights, tokenizer and settings of a GGUF file with the demo's architecture; None is the demo itself."""
    path = gguf or asset("demo.gguf")
    header = read_header(path, ARRAYS)
    folder.mkdir(parents=True, exist_ok=True)
    heads, kv_heads = (_number(header, f"llama.attention.head_count{kind}") for kind in ("", "_kv"))
    weights = {}
    with path.open("rb") as file:
        for tensor in header.tensors:
            file.seek(header.data_offset + tensor.offset)
            values = _dequantized(tensor, file.read(tensor.size))
            if ".attn_q." in tensor.name or ".attn_k." in tensor.name:
                values = _halves(values, heads if ".attn_q." in tensor.name else kv_heads)
            weights[_name(tensor.name)] = values
    write_safetensors(folder / "model.safetensors", weights)
    for name, value in _settings(header, tied="lm_head.weight" not in weights).items():
        (folder / name).write_text(json.dumps(value, ensure_ascii=False, indent=1), "utf-8")


def write_safetensors(path: Path, tensors: dict[str, np.ndarray[Any, np.dtype[np.float32]]]) -> None:
    """Write tensors of 32-bit floats."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, values in tensors.items():
        start, end = end, end + values.nbytes
        header[name] = {"dtype": "F32", "shape": values.shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for values in tensors.values():
            file.write(np.ascontiguousarray(values).tobytes())


def _dequantized(tensor: TensorInfo, data: bytes) -> np.ndarray[Any, np.dtype[np.float32]]:
    if tensor.type_name == "F32":
        values = np.frombuffer(data, np.float32)
    else:
        blocks = np.frombuffer(data, BLOCK)  # Q8_0
        values = blocks["scale"].astype(np.float32)[:, None] * blocks["values"].astype(np.float32)
    return values.reshape(tensor.shape[::-1])


def _halves(values: np.ndarray[Any, np.dtype[np.float32]], heads: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Reorder the rows of each head: GGUF rotates neighbours (2i, 2i + 1), Hugging Face halves (i, i + size / 2)."""
    rows, columns = values.shape
    return values.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _name(name: str) -> str:
    if layer := re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name):
        return f"model.layers.{layer[1]}.{LAYER[layer[2]]}.weight"
    return f"{OUTER[name.removesuffix('.weight')]}.weight"


def _number(header: GGUFHeader, key: str) -> int:
    value = header.number(key)
    if value is None:
        raise KeyError(key)
    return value


def _settings(header: GGUFHeader, *, tied: bool) -> dict[str, Any]:
    """Return what the JSON files of the folder hold, by name."""
    tokens, kinds, merges = (cast("tuple[Any, ...]", header.metadata[name]) for name in ARRAYS)
    bos, eos, pad = (_number(header, f"tokenizer.ggml.{name}_token_id") for name in ("bos", "eos", "padding"))
    heads, width = _number(header, "llama.attention.head_count"), _number(header, "embedding_length")
    epsilon, base = (header.metadata[f"llama.{key}"] for key in ("attention.layer_norm_rms_epsilon", "rope.freq_base"))
    bytes_ = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    added = [
        {"id": number, "content": text, "special": kind == CONTROL}
        | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        for number, (text, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind in {CONTROL, USER_DEFINED}
    ]
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": width,
        "intermediate_size": _number(header, "feed_forward_length"),
        "num_hidden_layers": _number(header, "block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": _number(header, "llama.attention.head_count_kv"),
        "head_dim": width // heads,
        "max_position_embeddings": _number(header, "context_length"),
        "rms_norm_eps": epsilon,
        "rope_theta": base,
        "tie_word_embeddings": tied,
        "vocab_size": len(tokens),
        "bos_token_id": bos,
        "eos_token_id": eos,
        "pad_token_id": pad,
        "torch_dtype": "float32",
    }
    model = {
        "type": "BPE",
        "vocab": {text: number for number, text in enumerate(tokens)},
        "merges": [str(merge).split(" ") for merge in merges],
    }
    return {
        "config.json": config,
        "generation_config.json": {"bos_token_id": bos, "eos_token_id": [eos, pad], "pad_token_id": pad}
        | {"temperature": 0.0, "do_sample": False},
        "tokenizer.json": {
            "version": "1.0",
            "added_tokens": added,
            "pre_tokenizer": bytes_,
            "decoder": bytes_,
            "model": model,
        },
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": config["max_position_embeddings"],
            "bos_token": tokens[bos],
            "eos_token": tokens[eos],
            "pad_token": tokens[pad],
            "add_bos_token": False,
            "clean_up_tokenization_spaces": False,
            "chat_template": header.text("tokenizer.chat_template"),
        },
    }


if __name__ == "__main__":
    write_folder(Path(sys.argv[1]))
