"""Rows of logits to draw from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Row = NDArray[np.float32]


def distinct(seed: int, size: int, scale: float = 3) -> Row:
    """Random logits, no two of which are equal."""
    random = np.random.default_rng(seed)
    values = np.unique((random.standard_normal(size) * scale).astype(np.float32))
    return random.permutation(values)


def flat(size: int = 1024) -> Row:
    return np.zeros(size, np.float32)
