"""The architecture of a file that no catalogue lists: its tensors as they are, its buffers as llama.cpp tells them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from hermes_cli.catalog.models import Architecture

if TYPE_CHECKING:
    from hermes_cli.planning.memory import ContextSettings, Weights


@dataclass(frozen=True)
class DryRunPoint:
    """Bytes that llama.cpp would allocate on the CPU with these settings, all layers together."""

    settings: ContextSettings
    kv_cache: int
    compute: int


class FileArchitecture(Architecture, frozen=True, cache_hash=True, kw_only=True):
    """An architecture with the weights of each file by quantization.

    Where it `has_rules`, those of planning/compute.py and memory.py hold; else llama.cpp's dry runs, `points`, do, and
    `kind` has no effect. Tokenizer and base of RoPE never have one. `name` is what the file calls it.
    """

    kind: Literal["llama", "qwen3", "seed_oss"] = "llama"
    tokenizer: Literal["llama"] = "llama"
    rope_base: float = 10_000.0
    name: str = ""
    has_rules: bool = False
    tables: tuple[tuple[str, Weights], ...] = ()
    points: tuple[DryRunPoint, ...] = ()

    def table(self, quantization: str) -> Weights:
        """Return the bytes of the tensors in a quantization."""
        return dict(self.tables)[quantization]

    def point(self, settings: ContextSettings) -> DryRunPoint | None:
        """Return the dry run with these settings, or a value on the line between a shorter and a longer context.

        Caches and buffers grow in pieces of straight lines. Beyond the last point the last line goes on.
        """
        alike = sorted(
            (point for point in self.points if replace(point.settings, context=settings.context) == settings),
            key=lambda point: point.settings.context,
        )
        if not alike:
            return None
        after = next((index for index, point in enumerate(alike) if point.settings.context >= settings.context), None)
        high = alike[-1 if after is None else after]
        if after == 0 or high.settings.context == settings.context or len(alike) == 1:
            return high
        low = alike[-2 if after is None else after - 1]
        start, end = low.settings.context, high.settings.context
        part = (settings.context - start) / (end - start)
        kv_cache, compute = (
            round(below + (above - below) * part)
            for below, above in ((low.kv_cache, high.kv_cache), (low.compute, high.compute))
        )
        return DryRunPoint(settings, kv_cache, compute)
