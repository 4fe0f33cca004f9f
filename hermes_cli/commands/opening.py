"""From the name of a model to a backend that answers: found, planned, loaded, with progress on the way."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from hermes_cli.catalog.load import load_catalogue
from hermes_cli.catalog.names import DEMO, CatalogueReference, ModelNames
from hermes_cli.engine.embedded.fit_check import FitCheck
from hermes_cli.errors import UsageError
from hermes_cli.store.library import find

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from hermes_cli.catalog.models import CatalogModel, Catalogue, Yarn
    from hermes_cli.catalog.names import ModelReference
    from hermes_cli.chat.backend import LocalBackend
    from hermes_cli.commands.head_start import Prewarm
    from hermes_cli.console import Console
    from hermes_cli.engine.embedded.options import DraftPlan, LoraFile
    from hermes_cli.planning.fitted_plan import FittedPlan
    from hermes_cli.planning.load_plan import LoadOverrides
    from hermes_cli.store.library import ModelFile


@dataclass(frozen=True)
class LoadOptions:
    """How models are loaded, whichever they are: what flags say of it.

    Attributes:
        loading: what the user insists on.
        yarn: stretch the context as the base model documents it.
        draft: the draft model: a name, `auto` or `off`.
        adapters: LoRA.
        template: an override of the prompt format.
        prefixes: a folder for caches of prompts that outlive the program.
        verbose: llama.cpp's log on standard error.
    """

    loading: LoadOverrides
    yarn: bool = False
    draft: str = "off"
    adapters: tuple[LoraFile, ...] = ()
    template: str | None = None
    prefixes: Path | None = None
    verbose: bool = False


class ModelLoader:
    """Opens models, all in the same way."""

    def __init__(self, how: LoadOptions, console: Console, start: Prewarm) -> None:
        self._how, self._console, self._start, self._loop = how, console, start, start.event_loop

    def names(self) -> list[str]:
        """Of the models that are on this disk."""
        from hermes_cli.store.inventory import inventory  # noqa: PLC0415 - nobody asks before a model is loaded

        return [DEMO, *sorted({one.name for one in inventory(load_catalogue()) if one.present == one.count})]

    def open(self, name: str | None) -> LocalBackend:
        """Load a model. Whoever gets it has to close it.

        Raises:
            HermesError: as `opening`, and what it yields.
        """
        with self.opening(name) as finish:
            return finish()

    @contextmanager
    def opening(self, name: str | None) -> Iterator[Callable[[], LocalBackend]]:
        """Begin to load a model; what is yielded does the rest, later, as long as the context is open.

        Args:
            name: as `hermes list` shows it, or a path; None is the best that is installed.

        Raises:
            NotFoundError: it is not on this disk.
            DoesNotFitError: there is too little memory; the hint names what would fit.
            HermesError: a file cannot be read, or llama.cpp refuses it.
        """
        catalogue = load_catalogue()
        how = self._how
        if name is None:
            name, how = _best(how, catalogue, self._console)
        named = ModelNames(catalogue).parse(name)
        file = find(named, catalogue)
        wished = replace(how.loading, yarn=_yarn(named)) if how.yarn else how.loading
        child = self._start.child()
        check = FitCheck(child, file.path, wished)

        def finish() -> LocalBackend:
            with self._console.working(f"loading {file.name}"):
                # `_load` needs it, when nobody works meanwhile.
                import hermes_cli.engine.embedded.engine  # noqa: F401, PLC0415
                from hermes_cli.prompting.choose import known_model  # noqa: PLC0415 - while the child works

                known = known_model(named, file.path, catalogue)
                confirmed = self._loop.run(check.result())
                draft = self._draft(known, catalogue, wished, confirmed)
            if confirmed.note:
                self._console.note(confirmed.note)
            return self._load(file, known, confirmed, draft)

        try:
            yield finish
        except BaseException:
            child.kill()  # it may still work on the check
            raise

    def _load(
        self, file: ModelFile, known: CatalogModel | None, confirmed: FittedPlan, draft: DraftPlan | None
    ) -> LocalBackend:
        from hermes_cli.engine.embedded.engine import EmbeddedEngine  # noqa: PLC0415 - imported above, at a better time
        from hermes_cli.engine.embedded.options import EngineOptions  # noqa: PLC0415
        from hermes_cli.prompting.turn_grammar import TAGS  # noqa: PLC0415

        how, name = self._how, file.name
        options = EngineOptions(
            tags=TAGS, adapters=how.adapters, draft=draft, prefixes=how.prefixes, verbose=how.verbose
        )
        with self._console.working(f"loading {name}") as say:
            engine = EmbeddedEngine(
                file.path,
                confirmed.plan,
                options,
                progress=lambda part: say(f"loading {name}: {part:.0%}"),
                child=self._start.take(),
            )
            try:
                loading = self._loop.begin(engine.load())
                from hermes_cli.chat.backend import LocalBackend  # noqa: PLC0415 - while the engine loads
                from hermes_cli.generation import ChatModel  # noqa: PLC0415

                chatter = ChatModel(engine, self._loop.run(loading), known=known, template=how.template)
            except BaseException:
                self._loop.run(engine.close())
                raise
        memory = {**asdict(confirmed.total), "total": confirmed.total.total}
        details = {
            "context_length": chatter.loaded.context,
            "gpu_layers": confirmed.gpu_layers,
            "draft": chatter.loaded.draft or None,
            "memory_bytes": memory,
        }
        return LocalBackend(chatter, name, details, self._console.warn)

    def _draft(
        self, known: CatalogModel | None, catalogue: Catalogue, wished: LoadOverrides, confirmed: FittedPlan
    ) -> DraftPlan | None:
        """Return the draft model; raises as `draft_for` does."""
        if self._how.draft == "off":
            return None
        from hermes_cli.commands.drafting import draft_for  # noqa: PLC0415 - only where one is wanted

        return draft_for(self._how.draft, known, catalogue, wished, confirmed, self._console.note)


def _yarn(named: ModelReference) -> Yarn:
    """How the context of a model can be stretched.

    Raises:
        UsageError: no source documents it.
    """
    documented = named.model.context.yarn if isinstance(named, CatalogueReference) else None
    if documented is None:
        raise UsageError("no source documents YaRN for this model.", hint="leave --yarn out.")
    return documented


def _best(how: LoadOptions, catalogue: Catalogue, console: Console) -> tuple[str, LoadOptions]:
    """The best model that is here, with the KV cache and the YaRN that were counted on where nothing else was said.

    Raises:
        HermesError: there is none, and none was fetched.
    """
    from hermes_cli.commands.choosing import best_installed  # noqa: PLC0415 - only where no model is named
    from hermes_cli.hardware.probe import probe  # noqa: PLC0415
    from hermes_cli.planning.recommend import RecommendOptions  # noqa: PLC0415

    best = best_installed("chat", RecommendOptions(), catalogue, probe(measure=False), console)
    if best.settings.k_type != "f16" and how.loading.kv_type is None:
        how = replace(how, loading=replace(how.loading, kv_type=best.settings.k_type))
    return best.variant.name, replace(how, yarn=how.yarn or best.by_yarn)
