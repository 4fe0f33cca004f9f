"""The type of each tensor in a quantization: llama.cpp's mixes, as rules.

After `llama_tensor_get_type_impl` in llama.cpp's src/llama-quant.cpp, for the architectures of the catalogue. The tests
compare every tensor of every model with what llama.cpp's own quantizer says.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from hermes_cli.catalog.models import model_tensors

if TYPE_CHECKING:
    from hermes_cli.catalog.models import Architecture

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


class LayerPosition(NamedTuple):
    """A layer's number, and the facts of its model and mix that the rules depend on."""

    mix: str
    imatrix: bool
    layer: int
    layers: int
    grouped: bool
    experts: bool
    is_70b: bool

    @property
    def first_eighth(self) -> bool:
        """The layer is in the first eighth."""
        return self.layer < self.layers // 8

    @property
    def more_bits(self) -> bool:
        """llama.cpp's `use_more_bits`: the outer layers, and every third of the inner ones."""
        eighth = self.layers // 8
        return self.layer < eighth or self.layer >= 7 * self.layers // 8 or (self.layer - eighth) % 3 == 2  # noqa: PLR2004


def type_of_tensor(a: Architecture, quantization: str, name: str, dimensions: int, *, imatrix: bool) -> str:
    """The type of one tensor, as ggml names it."""
    part = part_of(name)
    if name.startswith("blk."):
        return type_of_part(part, dimensions, layer_position(a, quantization, int(name.split(".")[1]), imatrix=imatrix))
    if dimensions == 1:
        return "F32"
    mix = LARGE.get(quantization, quantization)
    if mix in UNQUANTIZED:
        return mix
    if quantization in LARGE:
        return "Q8_0"
    return _output(mix) if part == "output" or a.tied_embeddings else _embedding(mix)


def layer_position(a: Architecture, quantization: str, layer: int, *, imatrix: bool) -> LayerPosition:
    """Return the position of a layer, as the rules ask for it."""
    return LayerPosition(
        LARGE.get(quantization, quantization),
        imatrix,
        layer=layer,
        layers=a.layers,
        grouped=a.heads // a.kv_heads >= MANY_HEADS,
        experts=a.experts == EXPERTS,
        is_70b=a.kind == "llama" and a.layers == LAYERS_OF_70B and a.heads != a.kv_heads,
    )


def part_of(name: str) -> str:
    """The part of the model that a tensor is: `blk.3.attn_v.weight` is `attn_v`."""
    return name.removesuffix(".weight").rpartition(".")[2]


def type_of_part(part: str, dimensions: int, place: LayerPosition) -> str:
    """The type of one part of a layer."""
    mix = place.mix
    if dimensions == 1 or part == "ffn_gate_inp":
        return "F32"
    if mix in UNQUANTIZED:
        return mix
    rule = _LOW_RULES.get(part) if mix in LOW else _RULES.get(part)
    return (rule(place) if rule else None) or BASE.get(mix, mix)


@lru_cache(maxsize=64)
def layer_classes(layers: int) -> tuple[tuple[bool, ...], ...]:
    """For each layer all that the rules ask about its number: layers of one class have tensors of the same types."""

    def of(layer: int) -> tuple[bool, ...]:
        place = LayerPosition("", imatrix=False, layer=layer, layers=layers, grouped=False, experts=False, is_70b=False)
        outer = layer >= 7 * layers // 8
        return (layer < 2, layer < 4, layer < layers // 16, place.first_eighth, outer, place.more_bits)  # noqa: PLR2004

    return tuple(map(of, range(layers)))


@lru_cache(maxsize=2048)
def tensor_types(a: Architecture, quantization: str, *, imatrix: bool) -> dict[str, str]:
    """The type of every tensor, by name."""
    return {
        tensor.name: type_of_tensor(a, quantization, tensor.name, len(tensor.shape), imatrix=imatrix)
        for tensor in model_tensors(a)
    }


def _output(mix: str) -> str:
    if mix in LOW_OUTPUT:
        return "Q5_K"
    return "Q8_0" if mix == "Q8_0" else "Q6_K"


def _embedding(mix: str) -> str:
    if mix in LOW - BETTER_LOW:
        return "Q2_K"
    if mix in BETTER_LOW or mix == "IQ3_XXS":
        return "IQ3_S"
    return BASE.get(mix, mix)


def _value(p: LayerPosition) -> str | None:
    rule = _VALUE.get(p.mix)
    chosen = rule(p) if rule else None
    if p.is_70b and (chosen or BASE.get(p.mix, p.mix)) in {"Q3_K", "Q4_K"}:
        chosen = "Q5_K"
    return "Q8_0" if p.experts else chosen


def _key(p: LayerPosition) -> str | None:
    return "Q8_0" if p.experts else _query(p)


def _query(p: LayerPosition) -> str | None:
    return {"IQ3_XS": "IQ3_XXS", "IQ3_XXS": "IQ2_S"}.get(p.mix)


def _attention_output(p: LayerPosition) -> str | None:
    if not p.experts:
        return {"Q2_K": "Q3_K", "IQ3_XXS": "IQ3_S", "Q3_K_M": "Q4_K", "Q3_K_L": "Q5_K", "IQ3_M": "Q4_K"}.get(p.mix)
    raised = {"Q2_K", "IQ3_XS", "IQ3_XXS", "Q3_K_S", "Q3_K_M", "IQ4_NL", "Q4_K_S", "Q4_K_M", "IQ3_S", "IQ3_M", "IQ4_XS"}
    return "Q5_K" if p.mix in raised else None


def _gate_or_up(p: LayerPosition) -> str | None:
    inner = p.layers // 8 <= p.layer < 7 * p.layers // 8
    return "IQ3_XXS" if p.mix == "IQ3_XS" and inner else None


def _low_value(p: LayerPosition) -> str:
    if p.grouped or p.experts:
        return "Q4_K"
    return "IQ3_S" if p.mix in BETTER_LOW else "Q2_K"


def _low_key(p: LayerPosition) -> str | None:
    return "Q4_K" if p.experts else None


def _low_down(p: LayerPosition) -> str | None:
    if not p.first_eighth:
        return None
    return "IQ3_S" if p.mix in BETTER_LOW else "Q2_K"


def _low_attention_output(p: LayerPosition) -> str | None:
    if p.experts:
        return "Q5_K"
    if p.mix in {"IQ1_S", "IQ1_M"}:
        return "IQ2_XXS"
    return "IQ3_S" if p.mix in BETTER_LOW else None


_Rule = Callable[[LayerPosition], "str | None"]

# By mix; None leaves the base type.
_VALUE: dict[str, _Rule] = {
    "Q2_K": lambda p: "Q4_K" if p.grouped else "Q3_K",
    "Q2_K_S": lambda p: "Q4_K" if p.grouped else None,
    "IQ3_XXS": lambda p: "Q4_K" if p.grouped else "IQ3_XXS" if p.imatrix else "IQ3_S",
    "IQ3_XS": lambda p: "Q4_K" if p.grouped else None,
    "IQ3_S": lambda p: "Q4_K" if p.grouped else None,
    "IQ3_M": lambda _: "Q4_K",
    "Q3_K_M": lambda p: "Q5_K" if p.layer < 2 else "Q4_K",  # noqa: PLR2004 - llama.cpp's number
    "Q3_K_L": lambda _: "Q5_K",
    "IQ4_NL": lambda p: "Q5_K" if p.grouped else None,
    "IQ4_XS": lambda p: "Q5_K" if p.grouped else None,
    "Q4_K_S": lambda p: "Q5_K" if p.layer < 4 else None,  # noqa: PLR2004 - llama.cpp's number
    "Q4_K_M": lambda p: "Q6_K" if p.more_bits else None,
    "Q5_K_M": lambda p: "Q6_K" if p.more_bits else None,
}
_DOWN: dict[str, _Rule] = {
    "Q2_K": lambda _: "Q3_K",
    "Q2_K_S": lambda p: "Q4_K" if p.first_eighth else None,
    "IQ3_XXS": lambda p: None if p.imatrix else "Q4_K" if p.first_eighth else "Q3_K",
    "IQ3_M": lambda p: "Q4_K" if p.first_eighth or (p.experts and p.more_bits) else None,
    "Q3_K_M": lambda p: "Q5_K" if p.layer < p.layers // 16 else "Q4_K",
    "Q3_K_L": lambda _: "Q5_K",
    "IQ4_NL": lambda p: "Q5_K" if p.first_eighth and not p.imatrix else None,
    "IQ4_XS": lambda p: "Q5_K" if p.first_eighth and not p.imatrix else None,
    "Q4_0": lambda p: "Q4_1" if p.first_eighth and p.imatrix else None,
    "Q4_K_S": lambda p: "Q5_K" if p.first_eighth else None,
    "Q4_K_M": lambda p: "Q6_K" if p.more_bits else None,
    "Q5_0": lambda p: "Q5_1" if p.first_eighth and p.imatrix else None,
    "Q5_K_M": lambda p: "Q6_K" if p.more_bits else None,
}


def _down(p: LayerPosition) -> str | None:
    rule = _DOWN.get(p.mix)
    return rule(p) if rule else None


# By part of the model.
_RULES: dict[str, _Rule] = {
    "attn_v": _value,
    "attn_k": _key,
    "attn_q": _query,
    "attn_output": _attention_output,
    "ffn_down": _down,
    "ffn_down_exps": _down,
    "ffn_gate": _gate_or_up,
    "ffn_gate_exps": _gate_or_up,
    "ffn_up": _gate_or_up,
    "ffn_up_exps": _gate_or_up,
}
_LOW_RULES: dict[str, _Rule] = {
    "attn_v": _low_value,
    "attn_k": _low_key,
    "attn_output": _low_attention_output,
    "ffn_down": _low_down,
    "ffn_down_exps": _low_down,
}
