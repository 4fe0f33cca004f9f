"""All files of a model, and whether it is one to chat with.

llama.cpp finds the shards of a model by their names, NAME-00001-of-00003.gguf, and opens the first.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Literal

from hermes_cli.errors import IntegrityError
from hermes_cli.gguf.header import GGUFHeader, Split, read_header

ENDING = "-{:05}-of-{:05}.gguf"
# Values of `general.type`, and architectures, that are no language models.
PARTS = {
    "mmproj": "a projector, which gives images or sound to another model (--mmproj of llama.cpp)",
    "projector": "a projector, which gives images or sound to another model (--mmproj of llama.cpp)",
    "clip": "a projector, which gives images or sound to another model (--mmproj of llama.cpp)",
    "adapter": "a LoRA adapter for another model: hermes chat MODEL --lora FILE",
    "controlvector": "a control vector for another model (--control-vector of llama.cpp)",
    "imatrix": "an importance matrix, which llama-quantize uses",
}
ENCODERS = {"bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3", "neo-bert", "modern-bert"}
EMBEDDERS = ENCODERS | {"gemma-embedding", "llama-embed", "eurobert", "t5encoder", "wavtokenizer-dec"}

# Values of `pooling_type` (llama.h, enum llama_pooling_type).
POOLING: dict[int | None, Literal["mean", "cls", "last"]] = {1: "mean", 2: "cls", 3: "last"}
RERANKER = 4


def pooling_of(header: GGUFHeader) -> Literal["mean", "cls", "last"] | None:
    """Return how a model for embeddings makes one vector of a text, as the file states it; None for any other model.

    Encoders that state nothing take the mean, as sentence-transformers does.
    """
    stated = header.number("pooling_type")
    if stated in POOLING:
        return POOLING[stated]
    return "mean" if stated is None and header.text("general.architecture") in ENCODERS | {"gemma-embedding"} else None


def why_no_chat(header: GGUFHeader) -> str | None:
    """Return what a file is that is not a model to chat with, None if it is one or a shard of one."""
    kind = header.text("general.type") or ""
    architecture = header.text("general.architecture") or ""
    if part := PARTS.get(kind) or PARTS.get(architecture):
        return part
    if any(key.startswith("imatrix.") for key in header.metadata):
        return PARTS["imatrix"]
    if header.number("pooling_type") == RERANKER:
        return "a reranker, which gives points to texts and writes none"
    if pooling_of(header):
        return "a model for embeddings, which writes no text"
    if architecture in EMBEDDERS:
        return "an encoder, which writes no text"
    return None if header.split else _why_no_chat_by_tensors(header, architecture)


def _why_no_chat_by_tensors(header: GGUFHeader, architecture: str) -> str | None:
    names = [tensor.name for tensor in header.tensors]
    vocabulary = any(key.startswith("tokenizer.") for key in header.metadata)
    if not names:
        return "a vocabulary without weights" if vocabulary else "without weights"
    if all(name.endswith((".lora_a", ".lora_b")) for name in names):
        return PARTS["adapter"]
    if all(name.startswith("direction.") for name in names):
        return PARTS["controlvector"]
    if not architecture:
        return "a file that states no architecture, as those of stable-diffusion.cpp"
    if not vocabulary and "token_embd.weight" not in names:
        return f"a model ({architecture}) without a vocabulary, as those for images, video and sound are"
    return None


def check_chats(header: GGUFHeader, name: str) -> None:
    """Raise IntegrityError if a file is not a model to chat with; `name` is for the message."""
    if why := why_no_chat(header):
        usual = "give the model's own file; hermes show tells them apart."
        hint = f"offer it to programs: hermes serve {name}" if pooling_of(header) else usual
        raise IntegrityError(f"{name} is not a model to chat with: it is {why}.", hint=hint)


def shard_paths(path: Path, split: Split) -> tuple[Path, ...]:
    """Return the paths of all shards, given one of them, whether they are there or not.

    Raise IntegrityError if its name does not say which shard it is, so that llama.cpp cannot find the others.
    """
    ending = ENDING.format(split.number, split.count)
    if not path.name.endswith(ending):
        raise IntegrityError(
            f"{path} is shard {split.number} of {split.count}, but its name does not say so: without it the others "
            "cannot be found.",
            hint=f"give all of them the names that they were published under: NAME{ending} and so on, in one folder.",
        )
    name = path.name.removesuffix(ending)
    numbers = range(1, split.count + 1)
    return tuple(path.with_name(name + ENDING.format(number, split.count)) for number in numbers)


def read_model(path: Path, arrays: Collection[str] = ()) -> tuple[tuple[Path, ...], list[GGUFHeader]]:
    """Return the paths and headers of a file, or of all its shards, given one of them; `arrays` as in `read_header`.

    Raises:
        InvalidGGUFError: a file is damaged, empty, or cannot be loaded by llama.cpp.
        IntegrityError: a shard is missing, or another one than its name says; or a file cannot be read.
    """
    header = read_header(path, arrays)
    if header.split is None:
        return (path,), [header]
    paths, count = shard_paths(path, header.split), header.split.count
    missing = [number for number, shard in enumerate(paths, 1) if not os.path.exists(shard)]  # noqa: PTH110 - Path.exists raises in folders that are closed
    if missing:
        numbers = ", ".join(map(str, missing))
        which = f"shard {numbers} of {count} is" if len(missing) == 1 else f"shards {numbers} of {count} are"
        raise IntegrityError(
            f"{path}: {which} missing: {paths[missing[0] - 1].name}{' …' * (len(missing) > 1)}.",
            hint="fetch what is missing, into the same folder.",
        )
    headers = [header if shard == path else read_header(shard, arrays) for shard in paths]
    for number, (shard, read) in enumerate(zip(paths, headers, strict=True), 1):
        if read.split is None or (read.split.number, read.split.count) != (number, count):
            raise IntegrityError(
                f"{shard} is no shard {number} of {count}, though its name says so.",
                hint="put the right shards into one folder.",
            )
    return paths, headers
