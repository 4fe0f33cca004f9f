"""How quantizations are spelled, by people and in file names."""

from __future__ import annotations

import re
from functools import lru_cache

# Names for the same thing, as listings and people write them (llama.cpp's own aliases, and `fp16`).
ALIASES = {"fp32": "F32", "fp16": "F16", "q3k": "Q3_K_M", "q4k": "Q4_K_M", "q5k": "Q5_K_M"}
# Bare bits in a file name: what DeepHermes' official files mean by them (their sizes fit).
BITS_IN_FILE_NAMES = {"q4": "Q4_0", "q5": "Q5_0", "q6": "Q6_K", "q8": "Q8_0"}

_NOT_ALPHANUMERIC = re.compile(r"[^a-z0-9]+")


def normalize_name(text: str) -> str:
    """Lower case, letters and digits only: `Q4_K_M` and `q4-k-m` are the same."""
    return _NOT_ALPHANUMERIC.sub("", text.lower())


def find_quantization(text: str, names: frozenset[str]) -> str | None:
    """The quantization that a person means, or None."""
    return _typed(names).get(normalize_name(text))


def quantization_in_file_name(file_name: str, names: frozenset[str]) -> str | None:
    """The quantization that a file name says: the last one in it between dots, dashes or underscores."""
    stem = file_name.removesuffix(".gguf")
    found = _pattern(names).findall(stem)
    if not found:
        return None
    word = normalize_name(found[-1])
    return _typed(names).get(word) or BITS_IN_FILE_NAMES.get(word)


@lru_cache(maxsize=4)
def _typed(names: frozenset[str]) -> dict[str, str]:
    return {**ALIASES, **{normalize_name(name): name for name in names}}


@lru_cache(maxsize=4)
def _pattern(names: frozenset[str]) -> re.Pattern[str]:
    words = {*names, "fp32", "fp16", "Q3_K", "Q4_K", "Q5_K", *BITS_IN_FILE_NAMES}
    longest_first = sorted(words, key=len, reverse=True)
    # Overlapping matches are not wanted, but neighbouring ones share a separator: hence the look-ahead at the end.
    inside = "|".join(re.escape(word).replace("_", "[_-]") for word in longest_first)
    return re.compile(rf"(?:^|[-._])({inside})(?=$|[-._])", re.IGNORECASE)
