"""Options of the embedded engine, beside the plan to load a model (planning/load_plan.py)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 - msgspec reads the annotations

from hermes_cli.planning.load_plan import LoadPlan  # noqa: TC001 - as above


@dataclass(frozen=True)
class LoraFile:
    """The GGUF file of a LoRA adapter, and its scale (1 is as it was trained)."""

    path: Path
    scale: float = 1.0


@dataclass(frozen=True)
class DraftPlan:
    """A draft model: its file, the plan to load it, and the memory in bytes that the plan takes."""

    path: Path
    plan: LoadPlan
    bytes: int = 0


@dataclass(frozen=True)
class EngineOptions:
    """Options of an embedded engine.

    Attributes:
        tags: texts whose tokens are wanted in `ModelInfo.tags`.
        adapters: LoRA, all of them on every request.
        draft: the draft model.
        constraints: read the vocabulary for grammars right after loading (1 s for 128,000 tokens); else that is
            done when the first grammar comes.
        lookup: draft by prompt lookup, where that pays.
        max_queue: requests that may wait; one more is refused.
        keep_alive: seconds without a request after which the memory is given back; None keeps the model.
        prefixes: a folder for caches of prompts that outlive the process; None keeps none.
        verbose: llama.cpp's log on standard error.
    """

    tags: tuple[str, ...] = ()
    adapters: tuple[LoraFile, ...] = ()
    draft: DraftPlan | None = None
    constraints: bool = False
    lookup: bool = True
    max_queue: int = 256
    keep_alive: float | None = None
    prefixes: Path | None = None
    verbose: bool = False
