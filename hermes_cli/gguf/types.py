"""Tensor types: elements per block and bytes per block (ggml's `type_traits`, llama.cpp ggml/src/ggml.c)."""

from typing import Literal, NamedTuple, get_args

KvType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"]  # that a KV cache can have
KV_TYPES: tuple[KvType, ...] = get_args(KvType)


class TensorType(NamedTuple):
    """A ggml tensor type; rows are stored as whole blocks."""

    name: str
    block_elements: int
    block_bytes: int

    def size(self, elements: int) -> int:
        """Return the bytes of `elements` elements, which must be whole blocks."""
        return elements // self.block_elements * self.block_bytes


TENSOR_TYPES: dict[int, TensorType] = {
    0: TensorType("F32", 1, 4),
    1: TensorType("F16", 1, 2),
    2: TensorType("Q4_0", 32, 18),
    3: TensorType("Q4_1", 32, 20),
    6: TensorType("Q5_0", 32, 22),
    7: TensorType("Q5_1", 32, 24),
    8: TensorType("Q8_0", 32, 34),
    9: TensorType("Q8_1", 32, 36),
    10: TensorType("Q2_K", 256, 84),
    11: TensorType("Q3_K", 256, 110),
    12: TensorType("Q4_K", 256, 144),
    13: TensorType("Q5_K", 256, 176),
    14: TensorType("Q6_K", 256, 210),
    15: TensorType("Q8_K", 256, 292),
    16: TensorType("IQ2_XXS", 256, 66),
    17: TensorType("IQ2_XS", 256, 74),
    18: TensorType("IQ3_XXS", 256, 98),
    19: TensorType("IQ1_S", 256, 50),
    20: TensorType("IQ4_NL", 32, 18),
    21: TensorType("IQ3_S", 256, 110),
    22: TensorType("IQ2_S", 256, 82),
    23: TensorType("IQ4_XS", 256, 136),
    24: TensorType("I8", 1, 1),
    25: TensorType("I16", 1, 2),
    26: TensorType("I32", 1, 4),
    27: TensorType("I64", 1, 8),
    28: TensorType("F64", 1, 8),
    29: TensorType("IQ1_M", 256, 56),
    30: TensorType("BF16", 1, 2),
    34: TensorType("TQ1_0", 256, 54),
    35: TensorType("TQ2_0", 256, 66),
    39: TensorType("MXFP4", 32, 17),
    40: TensorType("NVFP4", 64, 36),
    41: TensorType("Q1_0", 128, 18),
    42: TensorType("Q2_0", 64, 18),
}

# Numbers that llama.cpp has given up: two of 2023, and weights arranged for one kind of CPU, as it does itself by now.
REMOVED_TYPES: dict[int, str] = {
    4: "Q4_2",
    5: "Q4_3",
    31: "Q4_0_4_4",
    32: "Q4_0_4_8",
    33: "Q4_0_8_8",
    36: "IQ4_NL_4_4",
    37: "IQ4_NL_4_8",
    38: "IQ4_NL_8_8",
}
UPGRADE = "pip install --upgrade llama-cpp-python"
BITNET_TYPE = 36  # bitnet.cpp has taken this number for its I2_S
IK_TYPES = range(96, 400)  # of ik_llama.cpp, a fork: IQ4_KS is 144


def why_not_loadable(number: int) -> tuple[str, str] | None:
    """Return why llama.cpp cannot load a type that is not in `TENSOR_TYPES`, and what to do; None if it is no type."""
    if number in REMOVED_TYPES:
        name = REMOVED_TYPES[number]
        if name in {"Q4_2", "Q4_3"}:
            return f"{name}, which llama.cpp removed in 2023", "fetch a newer conversion, such as Q4_K_M."
        plain = "IQ4_NL" if name.startswith("IQ4") else "Q4_0"
        bitnet = ", or I2_S of bitnet.cpp" if number == BITNET_TYPE else ""
        return (
            f"{name}, which llama.cpp has removed{bitnet}",
            f"take {plain}, which llama.cpp arranges for the CPU as it loads.",
        )
    if number in IK_TYPES:
        return "which only ik_llama.cpp knows", "it is made for ik_llama.cpp; take a quantization such as Q4_K_M."
    if max(TENSOR_TYPES) < number < IK_TYPES.start:
        return "which needs a newer llama.cpp", f"{UPGRADE}; or take a quantization such as Q4_K_M."
    return None


# By name in lower case, which is how llama.cpp's log and its options write most of them.
TYPE_NUMBERS: dict[str, int] = {kind.name.lower(): number for number, kind in TENSOR_TYPES.items()}


def type_named(name: str) -> TensorType:
    """Return the tensor type of that name, in upper or lower case ("Q4_K", "q4_K").

    Raise KeyError if llama.cpp has no such type.
    """
    return TENSOR_TYPES[TYPE_NUMBERS[name.lower()]]


# `general.file_type` (llama_ftype, llama.cpp include/llama.h): which mix of types a file was made with.
FILE_TYPES: dict[int, str] = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    8: "Q5_0",
    9: "Q5_1",
    10: "Q2_K",
    11: "Q3_K_S",
    12: "Q3_K_M",
    13: "Q3_K_L",
    14: "Q4_K_S",
    15: "Q4_K_M",
    16: "Q5_K_S",
    17: "Q5_K_M",
    18: "Q6_K",
    19: "IQ2_XXS",
    20: "IQ2_XS",
    21: "Q2_K_S",
    22: "IQ3_XS",
    23: "IQ3_XXS",
    24: "IQ1_S",
    25: "IQ4_NL",
    26: "IQ3_S",
    27: "IQ3_M",
    28: "IQ2_S",
    29: "IQ2_M",
    30: "IQ4_XS",
    31: "IQ1_M",
    32: "BF16",
    36: "TQ1_0",
    37: "TQ2_0",
    38: "MXFP4_MOE",
    39: "NVFP4",
    40: "Q1_0",
    41: "Q2_0",
}
