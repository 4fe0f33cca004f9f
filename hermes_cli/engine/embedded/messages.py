"""Options of the embedded engine, and the frames between it and its child process.

to the child     dry_run (DryRunRequest) · bench (BenchRequest) · load (LoadRequest) · generate (GenerationRequest)
· embed (EmbeddingRequest) · cancel · tokenize (text, special) · detokenize (tokens) · stats · ping · close
to the engine    fit (DryRunResult) · progress (0 to 1) · loaded (ModelInfo)
· speeds (BenchSpeeds, one frame for each test)
· events (of several requests, from one step) · answer (to tokenize and detokenize)
· failed (error; number 0: a dry run or loading)
· stats (asked for, or with number 0 about once a second while there is work)
· pong (to ping, at once, whatever else it does)
· saving (the child will take a little longer to end)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from hermes_cli.child_process import Frame, decode, pack, read_error
from hermes_cli.engine.protocol import Done, Embeddings, Event, TextEvent
from hermes_cli.errors import HermesError
from hermes_cli.planning.load_plan import LoadPlan
from hermes_cli.planning.memory import MemoryBreakdown, Weights

Output = Event | Embeddings
_EVENTS: dict[str, type[Output]] = {"TextEvent": TextEvent, "Done": Done, "Embeddings": Embeddings}  # or an error


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
    """Options of an embedded engine."""

    tags: tuple[str, ...] = ()  # texts whose tokens are wanted in `ModelInfo.tags`
    adapters: tuple[LoraFile, ...] = ()  # LoRA, all of them on every request
    draft: DraftPlan | None = None  # the draft model
    # read the vocabulary for grammars right after loading (1 s for 128,000 tokens); else that is done when the first
    # grammar comes
    constraints: bool = False
    lookup: bool = True  # draft by prompt lookup, where that pays
    max_queue: int = 256  # requests that may wait; one more is refused
    # seconds without a request after which the memory is given back; None keeps the model
    keep_alive: float | None = None
    prefixes: Path | None = None  # a folder for caches of prompts that outlive the process; None keeps none
    prefix_bytes: int = 8 << 30  # the most that they take on the disk
    # by client, what stands for its key: who is given the name later has other caches
    prefix_owners: dict[str, str] = field(default_factory=dict)
    verbose: bool = False  # llama.cpp's log on standard error


@dataclass(frozen=True)
class LoadRequest:
    """The file to load (the first shard stands for all), how to load it, and how the engine is to work."""

    path: Path
    plan: LoadPlan
    options: EngineOptions


@dataclass(frozen=True)
class DryRunRequest:
    """A plan for a file (or its first shard) with tensors of these sizes, of which the child is to tell the memory."""

    path: Path
    weights: Weights
    plan: LoadPlan
    verbose: bool = False


@dataclass(frozen=True)
class LoggedDevice:
    """A GPU as llama.cpp calls it ("CUDA0"), and the bytes that its driver reports as free."""

    name: str
    free: int


@dataclass(frozen=True)
class DryRunResult:
    """Bytes in RAM and then on each device of the plan; or why llama.cpp refuses it.

    `listed` is the number of all GPUs that llama.cpp finds, 0 if that cannot be asked.
    """

    parts: tuple[MemoryBreakdown, ...] = ()
    devices: tuple[LoggedDevice, ...] = ()
    listed: int = 0
    refusal: str = ""


@dataclass(frozen=True)
class BenchTest:
    """Tokens to prefill at once, or to decode one by one, after `depth` tokens in the KV cache."""

    prefill: int
    decode: int
    depth: int

    @property
    def name(self) -> str:
        """The name that llama-bench gives it."""
        kind = f"pp{self.prefill}" if self.prefill else f"tg{self.decode}"
        return f"{kind} @ d{self.depth}" if self.depth else kind


@dataclass(frozen=True)
class BenchRequest:
    """A plan to load a file with, and the tests to run on it, each so many times at most.

    A test that has taken `seconds` is not repeated any more; one whose depth would take longer to fill is left out,
    unless `patient`.
    """

    path: Path
    plan: LoadPlan
    tests: tuple[BenchTest, ...]
    runs: int
    seconds: float = 60.0
    patient: bool = False
    verbose: bool = False


@dataclass(frozen=True)
class BenchSpeeds:
    """Tokens per second of each run of a test; none if it was left out."""

    test: BenchTest
    speeds: tuple[float, ...]


@dataclass(frozen=True)
class RequestClient:
    """The client of a request, read without the rest."""

    client: str = ""


def pack_events(events: Iterable[tuple[int, Output | HermesError]]) -> bytes:
    """Return one frame with the events of one step, each with the number of its request."""
    return pack("events", 0, [(number, type(event).__name__, event) for number, event in events])


def read_events(frame: Frame) -> list[tuple[int, Output | HermesError]]:
    """Return the events of a frame, each with the number of its request."""
    return [
        (number, decode(body, _EVENTS[name]) if name in _EVENTS else read_error(body))
        for number, name, body in frame.read(list[tuple[int, str, msgspec.Raw]])
    ]
