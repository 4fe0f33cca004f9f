"""POST /api/pull, POST /api/copy and DELETE /api/delete: models that come and go while the server runs.

Without the setting `manage_models` a client fetches nothing, renames nothing and deletes nothing; to pull a model that
is served already is a success all the same, since many clients begin with it. With it, only models of the catalogue are
fetched, so that no client chooses an address, and only files of the library are deleted, never others on this disk.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial
from pathlib import Path
from threading import Event as Flag

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from hermes_cli.catalog.load import load_catalogue
from hermes_cli.catalog.names import CatalogueReference, ModelNames
from hermes_cli.errors import NotFoundError, NotReadyError, QueueFullError, UsageError
from hermes_cli.hardware.probe import probe
from hermes_cli.models.pull_target import pull_target
from hermes_cli.server.errors import RefusedError, problem
from hermes_cli.server.ollama.chat import LINES, error_line
from hermes_cli.server.ollama.requests import ollama_route, served_name
from hermes_cli.server.ollama.schemas import NamedModel
from hermes_cli.server.openai.requests import Flag as BooleanField
from hermes_cli.server.openai.requests import LenientModel, Text
from hermes_cli.server.pool import Pool
from hermes_cli.server.served_models import ServedModel, plan_models
from hermes_cli.server.settings import ServerSettings
from hermes_cli.server.streaming_reply import StreamingReply, encode
from hermes_cli.store.inventory import InstalledModel, inventory
from hermes_cli.store.progress import DownloadProgress, Phase
from hermes_cli.store.removal import plan_removal, remove

MOST_ALIASES = 100  # of a model: every list of models has all of them
_CHECKS = {Phase.HASHING, Phase.VERIFYING}


class PullRequest(NamedModel):
    """POST /api/pull."""

    stream: BooleanField | None = None


class CopyRequest(LenientModel):
    """POST /api/copy."""

    source: Text
    destination: Text


class PullProgress(msgspec.Struct, frozen=True, omit_defaults=True):
    """A step of a download, in bytes."""

    status: str
    digest: str = ""
    total: int = 0
    completed: int = 0


class ModelLibrary:
    """The models on this disk, as far as clients may change them."""

    def __init__(self, settings: ServerSettings, pool: Pool) -> None:
        self._settings, self._pool = settings, pool
        self._pulling = False

    def check_allowed(self, what: str) -> None:
        """Raise RefusedError unless clients may do this."""
        if not self._settings.manage_models:
            raise RefusedError(
                403, f"clients may not {what} here, unless the server runs with --manage-models.", "not_allowed"
            )

    async def pull(self, name: str) -> AsyncGenerator[PullProgress, None]:
        """Fetch a model of the catalogue, and add it to those that are served.

        Raises:
            UsageError: it is none of the catalogue.
            QueueFullError: another one is being fetched.
            HermesError: it cannot be fetched, or not be loaded on this machine.
        """
        yield PullProgress("pulling manifest")
        if self._pulling:
            raise QueueFullError("another model is being fetched.", hint="try again when it is here.")
        self._pulling = True
        try:
            async with aclosing(_in_thread(partial(_fetch, name))) as steps:
                async for step in steps:
                    yield step
            yield PullProgress("loading manifest")
            self._pool.add(await asyncio.to_thread(self._planned, name))
        finally:
            self._pulling = False
        yield PullProgress("success")

    def _planned(self, name: str) -> ServedModel:
        entry = msgspec.structs.replace(self._settings.entry(name), aliases=())
        settings = msgspec.structs.replace(self._settings, models=(entry,), for_agent=False)
        (planned,) = plan_models(settings, load_catalogue(), probe(measure=False), lambda _: None)
        return planned

    async def delete(self, name: str) -> None:
        """Stop to serve a model, and delete its files; of an alias, only the name.

        Raise UsageError if its file is not of the library, it is in use, or the last one.
        """
        planned = self._pool.planned(name)
        if name.casefold() != planned.name.casefold():
            await self._pool.remove(name)
            return
        path = planned.model.path
        installed = await asyncio.to_thread(_installed, path) if path else None
        if not installed:
            reason = f"{planned.name} is a file outside the library, which only its owner deletes."
            raise UsageError(reason, field="model", hint="take it out of the server's settings instead.")
        await self._pool.remove(planned.name)
        await asyncio.to_thread(lambda: remove(plan_removal(installed)))


async def pull(request: Request, body: PullRequest) -> Response:
    """Fetch a model."""
    pool: Pool = request.app.state.pool
    library: ModelLibrary = request.app.state.library
    name = served_name(pool, body.named)
    is_served = _is_served(pool, name)
    if not is_served:
        library.check_allowed("fetch models")

    async def work(reply: StreamingReply) -> None:
        step = PullProgress("success")
        if is_served:
            await _write(reply, step)
        else:
            async with aclosing(library.pull(name)) as steps:
                async for step in steps:
                    await _write(reply, step)
        if not reply.stream:
            await reply.whole(step)

    return StreamingReply(
        work,
        stream=body.stream is not False,
        problem=lambda error: problem(error, "ollama"),
        error_event=error_line,
        media_type=LINES,
        ping=encode(PullProgress("pulling manifest")) + b"\n",
    )


async def copy(request: Request, body: CopyRequest) -> Response:
    """Give a model another name, as long as the server runs."""
    pool: Pool = request.app.state.pool
    request.app.state.library.check_allowed("name models anew")
    destination = body.destination.removesuffix(":latest")
    if not destination or any(letter.isspace() or not letter.isprintable() for letter in destination):
        raise UsageError("is not a name.", field="destination", hint="give one without spaces.")
    source = served_name(pool, body.source)
    if len(pool.planned(source).aliases) >= MOST_ALIASES:
        raise UsageError(f"has {MOST_ALIASES} names already.", field="source", hint="delete one first: /api/delete")
    pool.add_alias(source, destination[:200])
    return Response()


async def delete(request: Request, body: NamedModel) -> Response:
    """Delete a model from this disk."""
    request.app.state.library.check_allowed("delete models")
    await request.app.state.library.delete(served_name(request.app.state.pool, body.named))
    return Response()


async def _write(reply: StreamingReply, step: PullProgress) -> None:
    if reply.stream:
        await reply.write(encode(step) + b"\n")


def _is_served(pool: Pool, name: str) -> bool:
    try:
        return bool(pool.planned(name))
    except NotFoundError:
        return False


def _fetch(name: str, report: Callable[[PullProgress], None]) -> None:
    """Fetch the files of a model of the catalogue, in a thread."""
    from hermes_cli.store.download import fetch, resolve  # noqa: PLC0415 - the Hub's code, 0.2 s

    catalogue = load_catalogue()
    reference = ModelNames(catalogue).parse(name)
    if not isinstance(reference, CatalogueReference):
        hint = "names of the catalogue can be: hermes list. For others, on its machine: hermes pull NAME"
        raise UsageError(f"{name[:200]} cannot be fetched for a client.", field="model", hint=hint)
    target = pull_target(reference, catalogue, probe(measure=False), None, None)
    files = resolve(target.repo, target.revision, target.files)
    digests = {file.path: f"sha256:{file.etag}" for file in files if file.etag}

    def on_progress(event: DownloadProgress) -> None:
        digest = digests.get(event.file, "")
        status = "verifying sha256 digest" if event.phase in _CHECKS else f"pulling {digest[7:19] or event.file}"
        report(PullProgress(status, digest, event.size, event.done))

    fetch(files, on_progress)


async def _in_thread(work: Callable[[Callable[[PullProgress], None]], None]) -> AsyncGenerator[PullProgress, None]:
    """Yield what a function reports while it runs in a thread; closing this ends it at its next report."""
    loop, reports, closed = asyncio.get_running_loop(), asyncio.Queue[PullProgress | None](), Flag()

    def report(step: PullProgress) -> None:
        if closed.is_set():
            raise NotReadyError("the client left.", hint="pull again; it goes on from here.")
        loop.call_soon_threadsafe(reports.put_nowait, step)

    running = asyncio.ensure_future(asyncio.to_thread(work, report))
    running.add_done_callback(lambda _: reports.put_nowait(None))
    try:
        while (step := await reports.get()) is not None:
            yield step
        await running
    finally:
        closed.set()
        running.add_done_callback(lambda done: done.cancelled() or done.exception())


def _installed(path: Path) -> list[InstalledModel]:
    """Return the models of the library that have this file."""
    catalogue = load_catalogue()
    return [model for model in inventory(catalogue) if any(path in file.paths for file in model.files)]


ROUTES = [
    ollama_route("POST", "/api/pull", pull, body=PullRequest, reply=PullProgress, stream=PullProgress),
    ollama_route("POST", "/api/copy", copy, body=CopyRequest),
    ollama_route("DELETE", "/api/delete", delete, body=NamedModel),
]
