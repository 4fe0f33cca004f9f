"""The type of each tensor in a quantization: llama.cpp's mixes, as rules.

After `llama_tensor_get_type_impl` in llama.cpp's src/llama-quant.cpp, for the architectures of the catalogue. The tests
compare every tensor of every model with what llama.cpp's own quantizer says.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from hermes_cli.catalog.models import Architecture, model_tensors

# bartowski's: the same mix, but token embedding and output at Q8_0.
LARGE = {"Q6_K_L": "Q6_K", "Q5_K_L": "Q5_K_M", "Q4_K_L": "Q4_K_M", "Q3_K_XL": "Q3_K_L", "Q2_K_L": "Q2_K"}
# `llama_ftype_get_default_type`, where it is not the quantization's own name.
BASE = {
    "Q2_K_S": "Q2_K",
    "IQ3_XS": "IQ3_S",
    "IQ3_M": "IQ3_S",
    "Q3_K_S": "Q3_K",
    "Q3_K_M": "Q3_K",
    "Q3_K_L": "Q3_K",
    "Q4_K_S": "Q4_K",
    "Q4_K_M": "Q4_K",
    "Q5_K_S": "Q5_K",
    "Q5_K_M": "Q5_K",
    "IQ2_S": "IQ2_XS",
    "IQ2_M": "IQ2_S",
}
UNQUANTIZED = {"F32", "F16", "BF16"}
LOW = {"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M"}
LOW_OUTPUT = LOW | {"IQ3_XXS"}
BETTER_LOW = {"IQ2_S", "IQ2_M"}
MANY_HEADS = 4  # query heads for each KV head from which the values get more bits
EXPERTS = 8
LAYERS_OF_70B = 80
RAISED_OUTPUT_OF_EXPERTS = {
    *("Q2_K", "Q3_K_S", "Q3_K_M", "Q4_K_S", "Q4_K_M"),
    *("IQ3_XS", "IQ3_XXS", "IQ3_S", "IQ3_M", "IQ4_NL", "IQ4_XS"),
}


class LayerClass(NamedTuple):
    """All that the rules ask about a layer's number: layers of one class have tensors of the same types."""

    first_two: bool
    first_four: bool
    first_sixteenth: bool
    first_eighth: bool
    last_eighth: bool
    more_bits: bool  # llama.cpp's `use_more_bits`: the outer layers, and every third of the inner ones


class LayerFacts(NamedTuple):
    """The class of a layer, and the facts of its model and mix that the rules depend on."""

    mix: str
    imatrix: bool
    grouped: bool
    experts: bool
    is_70b: bool
    layer: LayerClass


@lru_cache(maxsize=64)
def layer_classes(layers: int) -> tuple[LayerClass, ...]:
    """The class of each layer of a model with so many."""
    eighth, last = layers // 8, 7 * layers // 8
    return tuple(
        LayerClass(
            first_two=layer < 2,  # noqa: PLR2004
            first_four=layer < 4,  # noqa: PLR2004
            first_sixteenth=layer < layers // 16,
            first_eighth=layer < eighth,
            last_eighth=layer >= last,
            more_bits=layer < eighth or layer >= last or (layer - eighth) % 3 == 2,  # noqa: PLR2004
        )
        for layer in range(layers)
    )


def layer_facts(architecture: Architecture, quantization: str, layer: LayerClass, *, imatrix: bool) -> LayerFacts:
    """Return what the rules ask of a layer of this class."""
    heads, kv_heads = architecture.heads, architecture.kv_heads
    return LayerFacts(
        LARGE.get(quantization, quantization),
        imatrix,
        grouped=heads // kv_heads >= MANY_HEADS,
        experts=architecture.experts == EXPERTS,
        is_70b=architecture.kind == "llama" and architecture.layers == LAYERS_OF_70B and heads != kv_heads,
        layer=layer,
    )


@lru_cache(maxsize=2048)
def tensor_types(architecture: Architecture, quantization: str, *, imatrix: bool) -> dict[str, str]:
    """The type of every tensor, by name."""
    return {
        tensor.name: type_of_tensor(architecture, quantization, tensor.name, len(tensor.shape), imatrix=imatrix)
        for tensor in model_tensors(architecture)
    }


def type_of_tensor(architecture: Architecture, quantization: str, name: str, dimensions: int, *, imatrix: bool) -> str:
    """The type of one tensor, as ggml names it."""
    part = part_of(name)
    if name.startswith("blk."):
        layer = layer_classes(architecture.layers)[int(name.split(".")[1])]
        return type_of_part(part, dimensions, layer_facts(architecture, quantization, layer, imatrix=imatrix))
    mix = LARGE.get(quantization, quantization)
    if dimensions == 1:
        return "F32"
    if mix in UNQUANTIZED:
        return mix
    if quantization in LARGE:
        return "Q8_0"
    if part == "output" or architecture.tied_embeddings:
        return "Q5_K" if mix in LOW_OUTPUT else mix if mix == "Q8_0" else "Q6_K"
    embedding = {**dict.fromkeys(LOW, "Q2_K"), **dict.fromkeys((*BETTER_LOW, "IQ3_XXS"), "IQ3_S")}
    return embedding.get(mix) or BASE.get(mix, mix)


def part_of(name: str) -> str:
    """The part of the model that a tensor is: `blk.3.attn_v.weight` is `attn_v`."""
    return name.removesuffix(".weight").rpartition(".")[2]


def type_of_part(part: str, dimensions: int, facts: LayerFacts) -> str:
    """The type of one part of a layer."""
    mix = facts.mix
    if dimensions == 1 or part == "ffn_gate_inp":
        return "F32"
    if mix in UNQUANTIZED:
        return mix
    return (_low_type(part, facts) if mix in LOW else _usual_type(part, facts)) or BASE.get(mix, mix)


def _low_type(part: str, facts: LayerFacts) -> str | None:
    """The type of a part in a mix of one or two bits; None is its base type."""
    better = facts.mix in BETTER_LOW
    match part:
        case "attn_v":
            return "Q4_K" if facts.grouped or facts.experts else "IQ3_S" if better else "Q2_K"
        case "attn_k" if facts.experts:
            return "Q4_K"
        case "ffn_down" | "ffn_down_exps" if facts.layer.first_eighth:
            return "IQ3_S" if better else "Q2_K"
        case "attn_output" if facts.experts:
            return "Q5_K"
        case "attn_output":
            return "IQ2_XXS" if facts.mix in {"IQ1_S", "IQ1_M"} else "IQ3_S" if better else None
        case _:
            return None


def _usual_type(part: str, facts: LayerFacts) -> str | None:  # noqa: PLR0911 - one for each part
    """The type of a part in a mix of more bits; None is its base type."""
    mix = facts.mix
    match part:
        case "attn_v" | "attn_k" if facts.experts:
            return "Q8_0"
        case "attn_v":
            value = _VALUE[mix](facts) if mix in _VALUE else None
            return "Q5_K" if facts.is_70b and (value or BASE.get(mix, mix)) in {"Q3_K", "Q4_K"} else value
        case "attn_k" | "attn_q":
            return {"IQ3_XS": "IQ3_XXS", "IQ3_XXS": "IQ2_S"}.get(mix)
        case "attn_output" if facts.experts:
            return "Q5_K" if mix in RAISED_OUTPUT_OF_EXPERTS else None
        case "attn_output":
            return {"Q2_K": "Q3_K", "IQ3_XXS": "IQ3_S", "Q3_K_M": "Q4_K", "Q3_K_L": "Q5_K", "IQ3_M": "Q4_K"}.get(mix)
        case "ffn_down" | "ffn_down_exps":
            return _DOWN[mix](facts) if mix in _DOWN else None
        case "ffn_gate" | "ffn_gate_exps" | "ffn_up" | "ffn_up_exps" if mix == "IQ3_XS":
            return None if facts.layer.first_eighth or facts.layer.last_eighth else "IQ3_XXS"
        case _:
            return None


_Rule = Callable[[LayerFacts], "str | None"]

# By mix; None leaves the base type.
_VALUE: dict[str, _Rule] = {
    "Q2_K": lambda f: "Q4_K" if f.grouped else "Q3_K",
    "Q2_K_S": lambda f: "Q4_K" if f.grouped else None,
    "IQ3_XXS": lambda f: "Q4_K" if f.grouped else "IQ3_XXS" if f.imatrix else "IQ3_S",
    "IQ3_XS": lambda f: "Q4_K" if f.grouped else None,
    "IQ3_S": lambda f: "Q4_K" if f.grouped else None,
    "IQ3_M": lambda _: "Q4_K",
    "Q3_K_M": lambda f: "Q5_K" if f.layer.first_two else "Q4_K",
    "Q3_K_L": lambda _: "Q5_K",
    "IQ4_NL": lambda f: "Q5_K" if f.grouped else None,
    "IQ4_XS": lambda f: "Q5_K" if f.grouped else None,
    "Q4_K_S": lambda f: "Q5_K" if f.layer.first_four else None,
    "Q4_K_M": lambda f: "Q6_K" if f.layer.more_bits else None,
    "Q5_K_M": lambda f: "Q6_K" if f.layer.more_bits else None,
}
_DOWN: dict[str, _Rule] = {
    "Q2_K": lambda _: "Q3_K",
    "Q2_K_S": lambda f: "Q4_K" if f.layer.first_eighth else None,
    "IQ3_XXS": lambda f: None if f.imatrix else "Q4_K" if f.layer.first_eighth else "Q3_K",
    "IQ3_M": lambda f: "Q4_K" if f.layer.first_eighth or (f.experts and f.layer.more_bits) else None,
    "Q3_K_M": lambda f: "Q5_K" if f.layer.first_sixteenth else "Q4_K",
    "Q3_K_L": lambda _: "Q5_K",
    "IQ4_NL": lambda f: "Q5_K" if f.layer.first_eighth and not f.imatrix else None,
    "IQ4_XS": lambda f: "Q5_K" if f.layer.first_eighth and not f.imatrix else None,
    "Q4_0": lambda f: "Q4_1" if f.layer.first_eighth and f.imatrix else None,
    "Q4_K_S": lambda f: "Q5_K" if f.layer.first_eighth else None,
    "Q4_K_M": lambda f: "Q6_K" if f.layer.more_bits else None,
    "Q5_0": lambda f: "Q5_1" if f.layer.first_eighth and f.imatrix else None,
    "Q5_K_M": lambda f: "Q6_K" if f.layer.more_bits else None,
}
