"""Writes the trained model as a GGUF that llama.cpp loads: architecture `llama`, tokenizer `gpt2`, Q8_0 matrices."""

import json
from pathlib import Path

import gguf
import numpy as np
import torch
from model import Llama
from plain import SIZE
from rendering import TEMPLATE_FILE
from tokenizer import CONTROL_TOKENS, END_OF_TEXT, END_OF_TURN, START_OF_TURN, TAG_TOKENS
from tokenizers import Tokenizer

DESCRIPTION = (
    f"A toy of {SIZE} trained on synthetic dialogues, to show and test the hermes command without a download. "
    "It is not made by Nous Research and knows next to nothing."
)


def _metadata(writer: gguf.GGUFWriter, model: Llama) -> None:
    shape = model.shape
    writer.add_name("Hermes Demo")
    writer.add_description(DESCRIPTION)
    writer.add_license("mit")
    writer.add_size_label("3.8M")
    writer.add_context_length(shape.context_length)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(shape.norm_epsilon)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_rope_dimension_count(shape.head_size)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_float32("general.sampling.temp", 0.0)


def _tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    described = json.loads(tokenizer.to_str())
    tokens = [token for token, _ in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])]
    kinds = [
        gguf.TokenType.CONTROL
        if token in CONTROL_TOKENS
        else gguf.TokenType.USER_DEFINED
        if token in TAG_TOKENS
        else gguf.TokenType.NORMAL
        for token in tokens
    ]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in described["model"]["merges"]])
    writer.add_bos_token_id(START_OF_TURN)
    writer.add_eos_token_id(END_OF_TURN)
    writer.add_pad_token_id(END_OF_TEXT)
    writer.add_add_bos_token(value=False)
    writer.add_chat_template(TEMPLATE_FILE.read_text(encoding="utf-8"))


def _tensors(writer: gguf.GGUFWriter, model: Llama) -> None:
    for name, tensor in model.state_dict().items():
        values = tensor.detach().numpy().astype(np.float32)
        target = name.replace("layers.", "blk.")
        if values.ndim == 1:
            writer.add_tensor(target, values)
        else:
            packed = gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q8_0)
            writer.add_tensor(target, packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)


def write_gguf(model: Llama, tokenizer: Tokenizer, path: Path) -> None:
    """Write weights, tokenizer and chat template to `path`."""
    writer = gguf.GGUFWriter(path, "llama")
    _metadata(writer, model)
    _tokenizer(writer, tokenizer)
    _tensors(writer, model)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The weights of a GGUF written by `write_gguf`, as the model's state: what a later stage can go on from."""
    state = {}
    for tensor in gguf.GGUFReader(path).tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        state[tensor.name.replace("blk.", "layers.")] = torch.from_numpy(np.array(values, dtype=np.float32))
    return state
