"""Weights for vLLM and SGLang that no catalogue lists: what the config.json of a folder or repository says of them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from hermes_cli.catalog.engine_weights import EngineWeights, WeightFormat
from hermes_cli.catalog.models import (
    Architecture,
    CatalogModel,
    ComputedSizes,
    ContextLength,
    License,
    PromptSpec,
    WeightRepositories,
    model_tensors,
)
from hermes_cli.errors import IntegrityError, UsageError
from hermes_cli.store.weights import CONFIG, installed_weights, is_weights

Kind = Literal["llama", "qwen3", "seed_oss"]
# Model types whose tensors are those of one of ours; Qwen 2 has a few biases more.
KINDS: dict[str, Kind] = {
    "llama": "llama",
    "mistral": "llama",
    "mixtral": "llama",
    "qwen2": "llama",
    "qwen3": "qwen3",
    "seed_oss": "seed_oss",
}


def weights_in_folder(folder: Path, name: str) -> EngineWeights:
    """Return the weights of a folder.

    Raises:
        UsageError: the architecture is none whose memory can be computed.
        IntegrityError: its config cannot be read.
    """
    try:
        text = (folder / CONFIG).read_bytes()
        size = sum(path.stat().st_size for path in folder.iterdir() if is_weights(path.name))
    except OSError as error:
        raise UsageError(
            f"{folder / CONFIG} cannot be read: {error.strerror}.", hint="give a folder with a whole model."
        ) from None
    return weights_of(text, size, str(folder), name)


def weights_on_hub(repo: str, name: str) -> EngineWeights:
    """Return the weights of a repository: as they are here, or as the Hub describes them.

    Raises:
        UsageError, IntegrityError: as `weights_in_folder`.
        NotFoundError, NetworkError: there is no such repository, or the Hub cannot be asked.
    """
    if folder := installed_weights(repo):
        return weights_in_folder(folder, name)
    from hermes_cli.store.hub import list_files, read_file  # noqa: PLC0415 - as above
    from hermes_cli.store.weights import weight_files  # noqa: PLC0415 - the Hub's code

    files = {file.path: file for file in list_files(repo)}
    size = sum(files[path].size for path in weight_files(repo, files) if is_weights(path))
    return weights_of(read_file(files[CONFIG]), size, repo, name)


def weights_of(config: bytes, size: int, repo: str, name: str) -> EngineWeights:
    """Return the weights that a config describes; `size` is that of all shards, in bytes.

    Raises:
        UsageError: the architecture is none whose memory can be computed.
        IntegrityError: it is no config.
    """
    try:
        values = json.loads(config)
        architecture, context = _architecture(values), int(values.get("max_position_embeddings") or 0)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise IntegrityError(
            f"the {CONFIG} of {name} describes no model.", hint="fetch it again, or take another."
        ) from None
    model = CatalogModel(
        id=name,
        short=name,
        name=name,
        generation="",  # none of the catalogue's
        released="unknown",
        base_model="unknown",
        license=License("unknown"),
        parameters=sum(math.prod(tensor.shape) for tensor in model_tensors(architecture)),
        architecture=architecture,
        context=ContextLength(max(context, 1), max(context, 1)),
        prompt=PromptSpec("unknown"),
        tools=False,
        json_mode=False,
        sampling="unknown",
        weights=WeightRepositories(repo),
        sources={},
        sizes=ComputedSizes({}, {}),
    )
    weight_format = _format(values.get("quantization_config"))
    return EngineWeights(model, weight_format, repo, None if weight_format == "bf16" else size)


def _architecture(values: Mapping[str, Any]) -> Architecture:
    kind = KINDS.get(str(values.get("model_type")))
    if kind is None:
        raise UsageError(
            f"the memory of the architecture {values.get('model_type')} cannot be computed.",
            hint=f"start the engine yourself; these can be planned: {', '.join(KINDS)}.",
        )
    heads, width = int(values["num_attention_heads"]), int(values["hidden_size"])
    return Architecture(
        kind=kind,
        layers=int(values["num_hidden_layers"]),
        embedding_length=width,
        heads=heads,
        kv_heads=int(values.get("num_key_value_heads") or heads),
        head_length=int(values.get("head_dim") or width // heads),
        feed_forward_length=int(values["intermediate_size"]),
        vocabulary=int(values["vocab_size"]),
        tokenizer="llama",
        rope_base=float(values.get("rope_theta") or 10_000),
        tied_embeddings=bool(values.get("tie_word_embeddings")),
        experts=int(values.get("num_local_experts") or 0),
        experts_used=int(values.get("num_experts_per_tok") or 0) if values.get("num_local_experts") else 0,
    )


def _format(quantization: object) -> WeightFormat:
    """Return the format that a config's `quantization_config` names; integers of 4 and 8 bits count as AWQ."""
    if not isinstance(quantization, Mapping):
        return "bf16"
    text = json.dumps(quantization).lower()
    method = str(quantization.get("quant_method")).lower()
    is_float = "fp8" in method or "nvfp4" in text or '"type": "float"' in text or '"quant_algo": "fp8"' in text
    if not is_float:
        return "awq"
    return "nvfp4" if "nvfp4" in text or '"num_bits": 4' in text else "fp8"
