"""Computes the size of every quantization of every model and writes it into catalog.yaml.

    python tools/sizes.py            # says what would change
    python tools/sizes.py --write    # changes it

llama.cpp itself decides which tensor gets which type (`dry_run` of its quantizer on a skeleton file); the bytes follow
from the types' block sizes. What is left of a file, its header, is the tensor table plus a constant of the tokenizer.
"""

from __future__ import annotations

import argparse
import ctypes
import math
import re
import sys
import tempfile
import textwrap
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import llama_cpp
from skeleton import write_skeleton

from hermes_cli import paths
from hermes_cli.catalog.load import read_yaml
from hermes_cli.catalog.models import model_tensors
from hermes_cli.engine.embedded.bindings import LOG
from hermes_cli.gguf.header import DEFAULT_ALIGNMENT
from hermes_cli.gguf.types import FILE_TYPES, TYPE_NUMBERS, type_named
from hermes_cli.planning.tensor_types import LARGE

if TYPE_CHECKING:
    from hermes_cli.catalog.models import Architecture

# What publishers ship, all by llama.cpp's own mixes.
MIXES = (  # noqa: SIM905 - a list to read
    "F32 F16 BF16 Q8_0 Q6_K Q5_K_M Q5_K_S Q5_1 Q5_0 Q4_K_M Q4_K_S Q4_1 Q4_0 IQ4_NL IQ4_XS Q3_K_L Q3_K_M Q3_K_S "
    "IQ3_M IQ3_S IQ3_XS IQ3_XXS Q2_K Q2_K_S IQ2_M IQ2_S IQ2_XS IQ2_XXS IQ1_M IQ1_S"
).split()
FILE_TYPE_NUMBERS = {name: number for number, name in FILE_TYPES.items()}

# Bytes of a header without its tensor table: real files' sizes (see `rest of a file` in docs/catalogue.md) minus their
# tensors and tensor table. Yi's and Tekken's are estimates, 0.01 % of their files.
TOKENIZER_BYTES = {
    "llama": 720_000,
    "yi": 1_500_000,
    "llama-3": 7_819_000,
    "tekken": 7_800_000,
    "qwen": 5_936_000,
    "seed": 6_245_000,
}

_TENSOR = re.compile(
    rb"^\[[ \d/]*\] *(?P<name>[\w.]+) +- \[.*type = +(?P<old>\w+), size = .*?(?:\((?P<new>\w+)\))?$", re.MULTILINE
)


class _TypeLog:
    """Collects what llama.cpp logs in a dry run, which has the type of each tensor."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._callback = llama_cpp.llama_log_callback(lambda _level, text, _: self._parts.append(text))

    def listen(self) -> None:
        """Forget what was heard, and hear what follows."""
        self._parts.clear()
        llama_cpp.llama_log_set(self._callback, ctypes.c_void_p(0))

    def types(self) -> dict[str, str]:
        """The type that llama.cpp chose for each tensor."""
        said = _TENSOR.findall(b"".join(self._parts))
        return {name.decode(): (new or old).decode().lower() for name, old, new in said}


@lru_cache(maxsize=1)
def _log() -> _TypeLog:
    return _TypeLog()


def tensor_types(skeleton: Path, quantization: str, *, imatrix: bool) -> dict[str, str]:
    """The type of every tensor that llama.cpp's quantizer would write, by name."""
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = FILE_TYPE_NUMBERS[LARGE.get(quantization, quantization)]
    params.dry_run, params.nthread = True, 1
    if quantization in LARGE:
        params.token_embedding_type = params.output_tensor_type = TYPE_NUMBERS["q8_0"]
    if imatrix:
        params.imatrix = (llama_cpp.llama_model_imatrix_data * 1)()  # an empty list still counts as having one
    log = _log()
    log.listen()
    try:
        if llama_cpp.llama_model_quantize(str(skeleton).encode(), b"", ctypes.byref(params)) != 0:
            raise RuntimeError(f"llama.cpp refused {quantization} for {skeleton}")
    finally:
        LOG.install()
    return log.types()


def file_bytes(architecture: Architecture, types: dict[str, str]) -> int:
    """Bytes of the whole file."""
    elements, table_bytes = _tensors(architecture)
    tensors = sum(_aligned(types[name], count) for name, count in elements.items())
    return TOKENIZER_BYTES[architecture.tokenizer] + table_bytes + tensors


@cache
def _tensors(architecture: Architecture) -> tuple[dict[str, int], int]:
    """Elements of each tensor, and the bytes of the tensor table."""
    shapes = dict(model_tensors(architecture))
    table_bytes = sum(8 + len(name) + 4 + 8 * len(shape) + 4 + 8 for name, shape in shapes.items())
    return {name: math.prod(shape) for name, shape in shapes.items()}, table_bytes


@cache
def _aligned(type_name: str, elements: int) -> int:
    """Bytes of a tensor in a file."""
    return math.ceil(type_named(type_name).size(elements) / DEFAULT_ALIGNMENT) * DEFAULT_ALIGNMENT


@cache
def computed(architecture: Architecture) -> tuple[dict[str, int], dict[str, int]]:
    """Sizes without an importance matrix, and those that one changes."""
    with tempfile.TemporaryDirectory() as folder:
        skeleton = Path(folder) / "skeleton.gguf"
        write_skeleton(skeleton, architecture, 4096)
        names = [*MIXES, *LARGE]
        static, imatrix = (
            {name: file_bytes(architecture, tensor_types(skeleton, name, imatrix=flag)) for name in names}
            for flag in (False, True)
        )
    static = dict(sorted(static.items(), key=lambda item: -item[1]))
    return static, {name: imatrix[name] for name in static if imatrix[name] != static[name]}


def block(static: dict[str, int], imatrix: dict[str, int]) -> str:
    """The `sizes` of one model as YAML."""
    lines = ["    sizes:"]
    for key, sizes in (("static", static), ("imatrix", imatrix)):
        # "+" stands for the blank behind a colon while wrapping, so that no line ends in a name without its size.
        inside = ", ".join(f"{name}:+{size}" for name, size in sizes.items())
        lines += textwrap.wrap(f"{key}: {{{inside}}}", 118, initial_indent=" " * 6, subsequent_indent=" " * 8)
    return "\n".join(lines).replace("+", " ") + "\n"


def rewritten(text: str) -> str:
    """The text of catalog.yaml with the `sizes` of every model made anew; a model that has none gets them."""
    head, *entries = re.split(r"^(?=  - id: )", text, flags=re.MULTILINE)
    for index, entry in enumerate(entries):
        body = entry.rstrip()
        if "\n    sizes:" not in entry:
            entries[index] = f"{body}\n    sizes: {{static: {{}}, imatrix: {{}}}}{entry[len(body) :] or chr(10)}"
    text = head + "".join(entries)
    blocks = iter([block(*computed(model.architecture)) for model in read_yaml(text).models])
    return re.sub(r"^    sizes:.*\n(?:      .*\n)*", lambda _: next(blocks), text, flags=re.MULTILINE)


def main() -> None:
    """Compare, and write if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the sizes into catalog.yaml")
    options = parser.parse_args()
    path = paths.catalog()
    text = path.read_text(encoding="utf-8")
    new = rewritten(text)
    if new == text:
        print("every computed size is as llama.cpp says")
    elif options.write:
        path.write_text(new, encoding="utf-8")
        print("catalog.yaml was brought up to date")
    else:
        sys.exit("catalog.yaml differs from what llama.cpp says; run with --write")


if __name__ == "__main__":
    main()
