"""Files of the Hub, brought to this disk: nothing wasted, nothing broken, nothing twice.

    files = resolve("NousResearch/Hermes-3-Llama-3.1-8B-GGUF", None, ["Hermes-3-Llama-3.1-8B.Q4_K_M.gguf"])
    states(files), room(files)        what is here, what is needed: before any byte
    fetch(files, print)               events on the way, paths in the end

They lie in the Hub's own cache, under its own locks, so `hf download`, transformers and llama.cpp share one copy with
us. How one file gets there is in `assembly.py`, what connections do in `transfer.py`.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hermes_cli import paths
from hermes_cli.errors import NetworkError, NotFoundError, UsageError
from hermes_cli.store import cache
from hermes_cli.store.assembly import Assembly
from hermes_cli.store.hub import endpoint, is_safe, listing, quiet
from hermes_cli.store.progress import Meter
from hermes_cli.store.retry_policy import RetryPolicy
from hermes_cli.store.space import Space, space
from hermes_cli.store.target import targets

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from hermes_cli.store.hub import RemoteFile
    from hermes_cli.store.progress import Progress

NAMED = 12  # files that a message names


@dataclass(frozen=True)
class State:
    """What is here of a file, before anything is fetched.

    Attributes:
        file: its path in the repository; of raw parts, of the file that they make.
        path: where it is, or will be.
        size: bytes in the end.
        here: bytes that need not be fetched.
        complete: all of it is here.
        verified: it was hashed, and is what the Hub states; if not, `fetch` hashes it first.
    """

    file: str
    path: Path
    size: int
    here: int
    complete: bool
    verified: bool


def resolve(repo: str, revision: str | None, files: Sequence[str]) -> list[RemoteFile]:
    """What the Hub says about some files of a repository: sizes and hashes, all at one commit.

    Raises:
        UsageError: a name that cannot be a path here.
        NotFoundError: no such repository, revision or file; the hint names the files that there are.
        NetworkError: the Hub cannot be reached, refuses, or states no hash.
    """
    for name in files:
        if not is_safe(name):
            raise UsageError(f"{name!r} cannot be the name of a file here.", hint=f"see the names: hermes show {repo}")
    known = {file.path: file for file in listing(repo, revision)}
    for name in files:
        if name not in known:
            where = f"{repo} at revision {revision}" if revision else repo
            raise NotFoundError(f"{where} has no file {name}.", hint=_names(repo, list(known)))
        if not known[name].etag:
            raise NetworkError(
                f"{endpoint()} states no hash of {name}, so it could not be checked.", hint="check HF_ENDPOINT."
            )
    return [known[name] for name in files]


def states(files: Sequence[RemoteFile]) -> list[State]:
    """What is here of each file; raw parts count as the file that they make."""
    found = []
    for target in targets(files):
        complete = target.complete()
        here = target.size if complete else target.here()
        known = complete and any(target.is_known(path) for path in (target.path, *target.elsewhere()))
        found.append(State(target.name, target.path, target.size, here, complete, known))
    return found


def room(files: Sequence[RemoteFile]) -> Space:
    """How much must still be written, and how much the disk of the cache has free."""
    return space(paths.models_dir(), sum(state.size - state.here for state in states(files)))


def fetch(
    files: Sequence[RemoteFile],
    progress: Callable[[Progress], None],
    *,
    verify: bool = True,
    force: bool = False,
    patience: RetryPolicy | None = None,
) -> list[Path]:
    """Bring files to this disk; returns where they are, in the order in which they were named.

    What is here already is not fetched again, whoever fetched it. Interrupted by anything, it goes on from there when
    called again. With `force` the free disk space is not asked for.

    Raises:
        DoesNotFitError: there is not enough disk space; or the disk got full, and what came is kept.
        NotFoundError, NetworkError: the Hub does not have the files, or refuses, or no connection gets on any more.
        IntegrityError: a file came twice with a wrong hash.
        HermesError: the cache cannot be written.
    """
    wanted = targets(files)
    if not force:
        room(files).check()
    cache.tag()
    with quiet():
        found = [
            Assembly(
                target, Meter(target.name, target.size, progress), patience or RetryPolicy(), verify=verify
            ).bring()
            for target in wanted
        ]
    for repo, ref, revision in {(file.repo, file.ref, file.revision) for file in files}:
        if ref:
            with suppress(OSError):  # a cache that can only be read is good enough
                cache.write_ref(repo, ref, revision)
    return found


def _names(repo: str, known: list[str]) -> str:
    models = [name for name in known if ".gguf" in name.lower()] or known
    if not models:
        return f"it has no files; choose another repository than {repo}."
    more = f" and {len(models) - NAMED} more: hermes show {repo}" if len(models) > NAMED else ""
    return f"it has {', '.join(models[:NAMED])}{more}"
