"""Loads a model for a program that waits for it, with as much as possible done side by side.

A process for the engine is started before anything else (most of the time until the first word is imports). It makes
the dry runs, then loads; the program imports and asks meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self, TypeVar

from hermes_cli.engine.embedded.child import Child
from hermes_cli.errors import HermesError, NotInstalledError
from hermes_cli.event_loop import EventLoop

if TYPE_CHECKING:
    import asyncio

    from hermes_cli.catalog.models import Catalogue
    from hermes_cli.console import Console
    from hermes_cli.engine.embedded.fit_check import FitCheck
    from hermes_cli.engine.protocol import Engine
    from hermes_cli.generation import ChatModel
    from hermes_cli.models.resolve import ModelRequest, ResolvedModel
    from hermes_cli.models.servable import ServableModel

    Recommend = Callable[[ModelRequest, Catalogue], ModelRequest]

T = TypeVar("T")


class Prewarm:
    """An event loop, and a child that gets ready to be an engine; to be used in `with`, which ends both."""

    def __init__(self, *, engine: bool = True) -> None:
        """Start nothing yet; without `engine` no child is started before one is asked for."""
        self.event_loop = EventLoop()
        self.verbose = False  # show the log of children on standard error
        self._engine = engine
        self._starting: asyncio.Task[Child] | None = None

    def child(self) -> Child:
        """Return the child that runs, or a new one if it has ended; `take` it, or it is ended here.

        Raise EngineError if no process can be started.
        """
        child = self.event_loop.run(self._starting or self._start())
        child = child if child.usable else self.event_loop.run(self._start())
        child.verbose = self.verbose
        return child

    def take(self) -> Child:
        """Return the child, which belongs to the caller then."""
        child, self._starting = self.child(), None
        return child

    def _start(self) -> asyncio.Task[Child]:
        self._starting = self.event_loop.begin(Child.start())
        return self._starting

    def __enter__(self) -> Self:
        self.event_loop.__enter__()
        if self._engine:
            self._start()
        return self

    def __exit__(self, *error: object) -> None:
        try:
            if self._starting:
                with suppress(HermesError):  # it could not be started
                    child = self.event_loop.run(self._starting)
                    child.kill()
                    self.event_loop.run(child.gone())
        finally:
            self.event_loop.__exit__(*error)


@dataclass(frozen=True)
class LoadedModel:
    """A model that answers; its engine belongs to the caller."""

    model: ChatModel
    planned: ServableModel

    @property
    def details(self) -> dict[str, Any]:
        """Return the fields of the model for `--json`; memory in bytes."""
        return {"context_length": self.model.loaded.context, **self.planned.details}


class ModelLoader:
    """Loads models, one after the other, all with the same settings."""

    def __init__(
        self,
        settings: ModelRequest,
        console: Console,
        prewarm: Prewarm,
        recommend: Recommend,
        fetch: Callable[[NotInstalledError], bool],
    ) -> None:
        """Take the settings of all models.

        `recommend` puts the best one in where none is named; `fetch` gets one that is not here, and returns whether.
        """
        self._settings, self._console, self._prewarm = settings, console, prewarm
        self._recommend, self._fetch = recommend, fetch

    @contextmanager
    def begin(
        self,
        name: str | None,  # as `hermes list` shows it, or a path; None is the best that is installed
    ) -> Iterator[Callable[[], LoadedModel]]:
        """Begin to load a model; the yielded function does the rest, as long as the context is open.

        Raises:
            NotFoundError: it is not on this disk.
            NetworkError: the engine that has it does not answer.
            DoesNotFitError: there is too little memory; the hint names what would fit.
            HermesError: a file cannot be read, or llama.cpp refuses it.
        """
        from hermes_cli.catalog.load import load_catalogue  # noqa: PLC0415 - the child is on its way by now
        from hermes_cli.engine.embedded.fit_check import FitCheck  # noqa: PLC0415
        from hermes_cli.models.resolve import resolve  # noqa: PLC0415

        catalogue = load_catalogue()
        if self._settings.engine_url:
            yield lambda: self._attach(replace(self._settings, name=name or ""), catalogue)
            return
        if self._settings.engine:
            yield lambda: self._own(self._named(name, catalogue), catalogue)
            return
        request = self._named(name, catalogue)
        resolved = self._fetching(lambda: resolve(request, catalogue))
        child = self._prewarm.child()
        check = FitCheck(child, resolved.file.path, resolved.overrides, headers=resolved.file.headers)

        try:
            yield lambda: self._finish(check, resolved, catalogue)
        except BaseException:
            child.kill()  # it may still work on the check
            raise

    def _named(self, name: str | None, catalogue: Catalogue) -> ModelRequest:
        named = replace(self._settings, name=name or "")
        return named if name else self._recommend(named, catalogue)

    def _fetching(self, find: Callable[[], T]) -> T:
        """Return what `find` returns, called again once the model is fetched that it missed."""
        try:
            return find()
        except NotInstalledError as missing:
            if not self._fetch(missing):
                raise
            return find()

    @contextmanager
    def _closed_on_error(self, engine: Engine) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._prewarm.event_loop.run(engine.close())
            raise

    def _own(self, request: ModelRequest, catalogue: Catalogue) -> LoadedModel:
        from hermes_cli.generation import ChatModel  # noqa: PLC0415 - as below
        from hermes_cli.models.engine_choice import own  # noqa: PLC0415 - only where an engine is chosen

        planned = self._fetching(lambda: own(request, catalogue))
        if planned.note:
            self._console.note(planned.note)
        loop, what = self._prewarm.event_loop, f"{planned.name} in {planned.program.engine}"
        with self._console.working(f"loading {what}") as show:
            engine = planned.engine(progress=lambda part: show(f"loading {what}: {part:.0%}"), note=self._console.note)
            with self._closed_on_error(engine):
                info = loop.run(engine.load())
                model = ChatModel(engine, info, known=planned.known, template=planned.template)
        return LoadedModel(model, planned)

    def _attach(self, request: ModelRequest, catalogue: Catalogue) -> LoadedModel:
        from hermes_cli.generation import ChatModel  # noqa: PLC0415 - as below
        from hermes_cli.models.attached import attach  # noqa: PLC0415 - HTTP

        with self._console.working(f"asking the engine at {request.engine_url}"):
            planned, engine = self._prewarm.event_loop.run(attach(request, catalogue))
            with self._closed_on_error(engine):
                model = ChatModel(engine, planned.info, known=planned.known, template=planned.template)
        return LoadedModel(model, planned)

    def _finish(self, check: FitCheck, resolved: ResolvedModel, catalogue: Catalogue) -> LoadedModel:
        from hermes_cli.generation import ChatModel  # noqa: PLC0415 - the child works meanwhile
        from hermes_cli.models.planned import planned  # noqa: PLC0415
        from hermes_cli.prompting.choose import prepare  # noqa: PLC0415

        loop, name = self._prewarm.event_loop, resolved.file.name
        with self._console.working(f"loading {name}") as show:
            fitted = loop.run(check.result())
            plan = planned(resolved, fitted, catalogue, self._console.note)
            if fitted.note:
                self._console.note(fitted.note)
            engine = plan.engine(
                verbose=self._prewarm.verbose,
                progress=lambda part: show(f"loading {name}: {part:.0%}"),
                child=self._prewarm.take(),
            )
            with self._closed_on_error(engine):
                loading = loop.begin(engine.load())
                if template := resolved.file.header.text("tokenizer.chat_template"):
                    prepare(template, resolved.known)
                model = ChatModel(engine, loop.run(loading), known=resolved.known, template=resolved.request.template)
        return LoadedModel(model, plan)
