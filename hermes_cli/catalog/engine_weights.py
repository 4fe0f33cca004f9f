"""Weights for vLLM and SGLang: a model of the catalogue in one format, a whole repository of safetensors.

    hermes-4:70b@bf16    hermes-4:70b@fp8    hermes-4:70b@awq    hermes-4:14b@awq-8bit

Sizes are computed from the architecture: weights of matrices in layers have the format's bits, all others (embedding,
output, norms) stay BF16.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from hermes_cli.catalog.models import layer_tensors

if TYPE_CHECKING:
    from hermes_cli.catalog.models import Architecture, CatalogModel, Catalogue

WeightFormat = Literal["bf16", "fp8", "awq", "nvfp4"]

# Bits of a weight with its scales: FP8 has a scale for each row or block, which is next to nothing; 4 bits in groups of
# 32 (compressed-tensors) or 16 (NVFP4), each with a scale of 16 or 8 bits. AWQ in groups of 128 has 4.16.
BITS: dict[WeightFormat, float] = {"bf16": 16, "fp8": 8, "awq": 4.5, "nvfp4": 4.5}
AWQ_8BIT = 8.5
OFFICIAL = "NousResearch/"
TITLES: dict[WeightFormat, str] = {
    "bf16": "BF16, as published",
    "fp8": "FP8",
    "awq": "AWQ",
    "nvfp4": "NVFP4",
}


@dataclass(frozen=True)
class EngineWeights:
    """A model of the catalogue in one format, as vLLM and SGLang load it."""

    model: CatalogModel
    format: WeightFormat
    repo: str  # on the Hub; of a model that is in no catalogue perhaps a folder
    # bytes of its files, where it is in no catalogue and quantized in a way that nothing else tells
    size: int | None = None

    @property
    def is_8bit_awq(self) -> bool:
        """Return whether its weights have 8 bits, where the format usually has 4."""
        return self.format == "awq" and "8bit" in self.repo.lower()

    @property
    def suffix(self) -> str:
        """Return what stands behind the `@` in its name."""
        return "awq-8bit" if self.is_8bit_awq else self.format

    @property
    def name(self) -> str:
        """Return the name on the command line, such as `hermes-4:70b@fp8`."""
        return f"{self.model.short}@{self.suffix}" if self.model.generation else self.model.short

    @property
    def title(self) -> str:
        """Return its format in words."""
        return "AWQ, 8 bits" if self.is_8bit_awq else TITLES[self.format]

    @property
    def official(self) -> bool:
        """Return whether the authors of the model published it."""
        return self.repo == self.model.weights.original or self.repo.startswith(OFFICIAL)

    @property
    def bits(self) -> float:
        """Return the bits of a weight of the layers."""
        if self.size is not None:
            in_layers = matrix_elements(self.model.architecture)
            return max(self.size - 2 * (self.model.parameters - in_layers), 0) * 8 / in_layers
        return AWQ_8BIT if self.is_8bit_awq else BITS[self.format]

    @property
    def bytes(self) -> int:
        """Return the size of all its files, computed."""
        in_layers = matrix_elements(self.model.architecture)
        return round(in_layers * self.bits / 8) + 2 * (self.model.parameters - in_layers)

    @property
    def bits_per_weight(self) -> float:
        """Return the bits of the files per parameter."""
        return self.bytes * 8 / self.model.parameters


@lru_cache(maxsize=256)
def matrix_elements(architecture: Architecture) -> int:
    """Return the number of weights in matrices of layers, which are what a format quantizes."""
    shapes = (tensor.shape for tensor in layer_tensors(architecture, 0))
    return architecture.layers * sum(math.prod(shape) for shape in shapes if len(shape) > 1)


def engine_weights(model: CatalogModel) -> Iterator[EngineWeights]:
    """Yield the weights of a model for vLLM and SGLang, the authors' first, then by size."""
    listed = model.weights
    yield EngineWeights(model, "bf16", listed.original)
    by_format: tuple[tuple[WeightFormat, tuple[str, ...]], ...] = (
        ("fp8", listed.fp8),
        ("awq", listed.awq),
        ("nvfp4", listed.nvfp4),
    )
    for weight_format, repos in by_format:
        for repo in repos:
            yield EngineWeights(model, weight_format, repo)


def named_weights(model: CatalogModel, suffix: str) -> EngineWeights | None:
    """Return the weights of a model that a name means by what is behind its `@`; None if it has no such ones."""
    wanted = suffix.lower().replace("_", "-")
    return next(
        (weights for weights in engine_weights(model) if wanted in {weights.suffix, weights.repo.lower()}), None
    )


def all_weights(catalogue: Catalogue) -> Iterator[EngineWeights]:
    """Yield the weights of all models."""
    return (weights for model in catalogue.models for weights in engine_weights(model))


def listed_weights(repo: str, catalogue: Catalogue) -> EngineWeights | None:
    """Return the weights that a repository holds, if the catalogue lists it."""
    wanted = repo.lower()
    return next((weights for weights in all_weights(catalogue) if weights.repo.lower() == wanted), None)
