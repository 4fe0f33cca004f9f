"""Models in engines that somebody else runs: what a name says of one, and what cannot be asked of it from here."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hermes_cli.catalog.models import CatalogModel, Catalogue
from hermes_cli.catalog.names import CatalogueReference, DemoReference, FileReference, ModelNames
from hermes_cli.engine.protocol import Engine, ModelInfo
from hermes_cli.engine.upstream.engine import UpstreamEngine
from hermes_cli.engine.upstream.http import EngineAddress, read_engine_url
from hermes_cli.engine.upstream.tokenizer_files import config_number
from hermes_cli.errors import HermesError, UsageError
from hermes_cli.gguf.header import read_header
from hermes_cli.models.resolve import ModelRequest, given_flags
from hermes_cli.models.servable import ServableModel
from hermes_cli.prompting.choose import identify
from hermes_cli.prompting.markers import TAGS as PROMPT_TAGS
from hermes_cli.prompting.turn_grammar import TAGS
from hermes_cli.store.library import find

if TYPE_CHECKING:
    from hermes_cli.engine.embedded.child import Child

NODES_VARIABLE = "HERMES_LLM_ENGINE_NODES"
# Settings of loading, which whoever runs the engine has decided, with their flags. Not the threads: those are of the
# CPU here, for all models of this machine, and nothing is computed here.
_LOADING = {
    "context": "--context",
    "gpu_layers": "--gpu-layers",
    "kv_type": "--kv-type",
    "tensor_split": "--tensor-split",
    "micro_batch": "--batch",
    "devices": "--devices",
    "reserve": "--reserve",
    "pooling": "--pooling",
    "force": "--force",
}
_ALIKE = 0.1  # the share by which the parameters of the same model may differ: vocabularies are padded


@dataclass(frozen=True, kw_only=True)
class AttachedModel(ServableModel):
    """A model in an engine that somebody else runs."""

    address: EngineAddress
    info: ModelInfo
    tokenizer: Path | None = None

    @property
    def details(self) -> dict[str, Any]:
        """Return its fields for `--json`."""
        return {"engine": str(self.address)}

    def engine(
        self,
        *,
        verbose: bool = False,  # noqa: ARG002 - its log is elsewhere
        progress: Callable[[float], None] = lambda _: None,  # noqa: ARG002 - it is loaded, or loads by itself
        note: Callable[[str], None] = lambda _: None,  # noqa: ARG002 - whoever started it knows
        child: Child | None = None,  # noqa: ARG002 - no process of ours works for it
    ) -> Engine:
        """Make the engine."""
        return _engine(self.address, self.tokenizer)


async def attach(request: ModelRequest, catalogue: Catalogue) -> tuple[AttachedModel, Engine]:
    """Return the model that a request means in the engine of its `engine_url`, and an open engine, to be closed.

    Raises:
        UsageError: the name or the address is none, a setting is of loading, or the engine has another model.
        NotFoundError: there is no such model.
        NetworkError: the engine does not answer, or is none that is known.
    """
    address = read_engine_url(request.engine_url or "")
    _check_settings(request)
    name, known, tokenizer = _named(request.name, catalogue)
    tokenizer = request.tokenizer or tokenizer
    engine = _engine(address, tokenizer)
    try:
        info = await engine.load()
        _check_same(name, known, info, address)
    except BaseException:
        await engine.close()
        raise
    model = AttachedModel(
        name=name,
        context=info.context,
        slots=info.slots,
        known=known,
        template=request.template,
        address=address,
        info=info,
        tokenizer=tokenizer,
    )
    return model, engine


def _engine(address: EngineAddress, tokenizer: Path | None) -> UpstreamEngine:
    return UpstreamEngine(address, tags=TAGS, texts=PROMPT_TAGS, tokenizer=tokenizer, heartbeat=_nodes() > 1)


def _nodes() -> int:
    """Return how many machines the engine runs on, which it does not tell."""
    text = os.environ.get(NODES_VARIABLE, "").strip() or "1"
    if not text.isdecimal():
        raise UsageError(f"{NODES_VARIABLE}={text} is no number of machines.", hint=f"export {NODES_VARIABLE}=2")
    return int(text)


def _check_settings(request: ModelRequest) -> None:
    if given := given_flags(request, _LOADING):
        raise UsageError(
            f"{' and '.join(given)}: with --engine-url this is for whoever starts the engine.",
            hint="leave it out, and start the engine with what you want.",
        )


def _named(typed: str, catalogue: Catalogue) -> tuple[str, CatalogModel | None, Path | None]:
    """Return the name to be shown, the model of the catalogue, and files on this disk that have its tokenizer.

    The file's own template counts where it is not a model of the catalogue.
    """
    if not typed:
        raise UsageError(
            "--engine-url needs the name of the model that runs there: it decides the prompt format.",
            hint="for example: hermes chat hermes-3:8b --engine-url http://127.0.0.1:8080",
        )
    reference = ModelNames(catalogue).parse(typed)
    if isinstance(reference, DemoReference):
        return "demo", None, find(reference, catalogue).path
    if isinstance(reference, CatalogueReference):
        return reference.model.short, reference.model, _installed(reference, catalogue)
    if isinstance(reference, FileReference):
        path = reference.path
        if path.is_dir():
            known = identify((path.name,), lambda key: config_number(path, key), catalogue)
            return path.name, known, path
        header = read_header(path)
        names = (header.text("general.name") or "", path.stem)
        return path.stem, identify(names, header.number, catalogue), path
    raise UsageError(
        f"{typed} is not a model of the catalogue, and no file here.",
        hint="name the model as `hermes list` does, or give the path of its GGUF file or of its folder.",
    )


def _installed(reference: CatalogueReference, catalogue: Catalogue) -> Path | None:
    """Return a file of the model on this disk; None if there is none that can be read."""
    try:
        return find(reference, catalogue).path
    except HermesError:
        return None


def _check_same(name: str, known: CatalogModel | None, info: ModelInfo, address: EngineAddress) -> None:
    """Raise UsageError if the engine clearly has another model: its prompts would be wrong."""
    if known and info.parameters and abs(info.parameters / known.parameters - 1) > _ALIKE:
        raise UsageError(
            f"the engine at {address} has a model of {info.parameters / 1e9:.3g} billion parameters, and {name} has "
            f"{known.parameters / 1e9:.3g}.",
            hint="name the model that runs there.",
        )
