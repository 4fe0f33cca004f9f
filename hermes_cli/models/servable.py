"""The one form of a model on its way into an engine, whichever engine that is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hermes_cli.catalog.models import CatalogModel
from hermes_cli.engine.protocol import Engine
from hermes_cli.errors import HermesError

if TYPE_CHECKING:
    from hermes_cli.engine.embedded.child import Child
    from hermes_cli.planning.fitted_plan import MemoryUse
    from hermes_cli.planning.memory import Pooling


@dataclass(frozen=True, kw_only=True)
class ServableModel(ABC):
    """A model that an engine can be made for."""

    name: str  # as it is shown
    context: int  # tokens that one request can use
    slots: int  # requests at once
    path: Path | None = None  # its file, or its first shard; None where that is not on this machine
    known: CatalogModel | None = None  # the model of the catalogue, if it is one
    template: str | None = None  # the override of its prompt format
    pooling: Pooling | None = None  # how it makes embeddings; None if it writes text
    places: Sequence[MemoryUse] = ()  # the memory that it takes, place by place, as far as that is known here
    note: str = ""  # what was given up for its plan; empty for nothing
    forced: bool = False  # it is to be loaded even if there is too little memory

    @property
    def file_name(self) -> str:
        """Return the name of its file, or its own where there is none."""
        return self.path.name if self.path else self.name

    @property
    @abstractmethod
    def details(self) -> dict[str, Any]:
        """Return its fields for `--json`; memory in bytes."""

    @abstractmethod
    def engine(
        self,
        *,
        verbose: bool = False,  # show llama.cpp's log on standard error
        progress: Callable[[float], None] = lambda _: None,  # gets the part that is loaded, from 0 to 1
        # is told what a start waits for that only a person can bring about
        note: Callable[[str], None] = lambda _: None,
        child: Child | None = None,  # a process that is ready to be this program's own engine
    ) -> Engine:
        """Make the engine; it loads the model when it is asked to."""

    def memory_fault(self) -> HermesError | None:
        """Return what keeps it from being loaded now; None if there is memory for it, or it takes none of ours."""
        return None
