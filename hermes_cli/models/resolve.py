"""A model as it is asked for becomes files on this disk and, if it is known, a model of the catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hermes_cli.catalog.models import CatalogModel, Catalogue
from hermes_cli.catalog.names import CatalogueReference, ModelNames
from hermes_cli.errors import UsageError
from hermes_cli.planning.load_plan import LoadOverrides
from hermes_cli.store.library import ModelFile, find

if TYPE_CHECKING:
    from hermes_cli.engine.embedded.messages import LoraFile

DRAFT_OFF, DRAFT_AUTO = "off", "auto"


@dataclass(frozen=True)
class EngineChoice:
    """An engine that hermes starts itself."""

    name: str  # `llama-server`, `vllm` or `sglang`
    command: str = ""  # how to start it; empty looks for it
    arguments: tuple[str, ...] = ()  # passed on to it as they are
    rpc: tuple[str, ...] = ()  # `HOST:PORT` of other machines that compute for llama-server


@dataclass(frozen=True)
class ModelRequest:
    """A model and the settings of its loading, from a command line or a file."""

    name: str  # as `hermes list` shows it, `demo`, a repository, or a path
    overrides: LoadOverrides = field(default_factory=LoadOverrides)  # settings that the user insists on, but for YaRN
    yarn: bool = False  # stretch the context as the base model documents it
    draft: str = DRAFT_OFF  # the draft model: a name, `auto` for one that is installed and fits, or `off`
    adapters: tuple[LoraFile, ...] = ()  # LoRA
    template: str | None = None  # an override of the prompt format: `file`, `model` or a path
    prefixes: Path | None = None  # a folder for KV caches of prompts that outlive the program
    embeddings: bool = False  # it may be a model for embeddings, too; `overrides.pooling` makes any model one
    engine_url: str | None = None  # an engine that somebody else runs has it
    # files of its tokenizer, where that engine does not tell what is in them: a folder or a GGUF file
    tokenizer: Path | None = None
    engine: EngineChoice | None = None  # an engine that hermes starts for it; None is the one of this program


def given_flags(
    request: ModelRequest,  # from a command line or a file
    overrides: Mapping[str, str],  # flags of settings of `LoadOverrides`, by their names there
) -> list[str]:
    """Return the flags that a request has of what only the embedded engine loads: YaRN, drafts, adapters, and these."""
    free = LoadOverrides()
    given = [flag for name, flag in overrides.items() if getattr(request.overrides, name) != getattr(free, name)]
    others = {"--yarn": request.yarn, "--draft": request.draft != DRAFT_OFF, "--lora": bool(request.adapters)}
    return [*given, *(flag for flag, is_given in others.items() if is_given)]


@dataclass(frozen=True)
class ResolvedModel:
    """The file of a requested model, the model of the catalogue if it is one, and all settings of its loading."""

    request: ModelRequest
    file: ModelFile
    known: CatalogModel | None
    overrides: LoadOverrides


def resolve(request: ModelRequest, catalogue: Catalogue) -> ResolvedModel:
    """Find the file of a model.

    Raises:
        NotFoundError: it is not on this disk.
        UsageError: no source documents YaRN for it, or its template cannot be used.
        IntegrityError: its header cannot be read, or it is not a model to chat with.
    """
    from hermes_cli.gguf.shards import check_chats, pooling_of  # noqa: PLC0415 - the name is checked first
    from hermes_cli.prompting.choose import identify  # noqa: PLC0415
    from hermes_cli.prompting.template import ChatTemplate, read_template  # noqa: PLC0415

    reference = ModelNames(catalogue).parse(request.name)
    file, overrides = find(reference, catalogue), request.overrides
    if isinstance(reference, CatalogueReference):
        known: CatalogModel | None = reference.model
    else:
        header = file.header
        if request.embeddings and (pooling := pooling_of(header)):
            overrides = replace(overrides, pooling=overrides.pooling or pooling)
        if not overrides.pooling:
            check_chats(header, str(file.path))
        known = identify((header.text("general.name") or "", file.path.stem), header.number, catalogue)
    if request.template not in {None, "file", "model"}:
        ChatTemplate(read_template(Path(request.template)))  # told now, not when the model is there
    yarn = known.context.yarn if request.yarn and known else None
    if request.yarn and yarn is None:
        raise UsageError(f"no source documents YaRN for {file.name}.", hint="leave --yarn out.")
    return ResolvedModel(request, file, known, replace(overrides, yarn=yarn))
