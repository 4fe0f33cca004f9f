"""Verify installed models against the hashes that the Hub publishes, and fetch damaged files again."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from hermes_cli.errors import HermesError
from hermes_cli.gguf.header import read_header
from hermes_cli.store.hashing import ChangedError, sha256_of

if TYPE_CHECKING:
    from hermes_cli.store.inventory import InstalledModel, LocalFile

    Refetch = Callable[[str, str, str], None]  # repository, revision, path within it
    AskHub = Callable[[str, str], dict[str, str]]  # repository, revision -> SHA-256 by path
    Advance = Callable[[str, int], None]  # file, bytes read

Outcome = Literal["verified", "damaged", "unknown", "missing", "unreadable", "repaired"]


@dataclass(frozen=True)
class FileCheck:
    """The outcome for one file."""

    model: InstalledModel
    file: LocalFile
    # `verified`: it has the published hash; `damaged`: it has another one, or is not GGUF; `unknown`: no hash is
    # published to compare with, but header and length are those of a GGUF; `missing`: its name leads nowhere;
    # `unreadable`: it cannot be read, or changed while it was; `repaired`: fetched again, and verified
    outcome: Outcome
    published: str | None = None  # SHA-256 by the Hub
    found: str | None = None  # SHA-256 of the file
    note: str = ""  # the problem, for people

    @property
    def is_wrong(self) -> bool:
        """Return whether the file must not be used."""
        return self.outcome in {"damaged", "missing", "unreadable"}


def verify(
    models: Sequence[InstalledModel],  # to verify
    hashes: Collection[str],  # of files on the Hub; an imported file with one of them is that file
    ask_hub: AskHub,  # called only for files whose hash is not known on this disk
    advance: Advance = lambda _file, _count: None,  # called for every block that was read
) -> Iterator[FileCheck]:
    """Hash every file of these models and compare."""
    for model in models:
        published: dict[str, str] = {}
        if model.repo and model.present and not all(file.sha256 or file.git_hash for file in model.files):
            published = ask_hub(model.repo, model.revisions[0])
        for file in model.files:
            check = _check(model, replace(file, sha256=file.sha256 or published.get(file.repo_path)), advance)
            if check.outcome == "unknown" and model.repo is None and check.found in hashes:
                check = replace(check, outcome="verified", published=check.found, note="")
            yield check
        for file in model.absent:
            yield FileCheck(model, file, "missing", note="it was never fetched, or is gone")


def repair(wrong: FileCheck, refetch: Refetch) -> FileCheck:
    """Fetch a file again and check it. The bad copy is removed first, so that it is never loaded again.

    Raise HermesError if it is not from the Hub, or cannot be fetched or removed.
    """
    model, file = wrong.model, wrong.file
    if not model.repo:
        raise HermesError(
            f"{file.repo_path} was imported, so it cannot be fetched again.",
            hint=f"remove it and import a good copy: hermes rm {shlex.quote(model.name)}",
        )
    try:
        file.blob.unlink(missing_ok=True)
    except OSError as error:
        raise HermesError(
            f"{file.blob} cannot be replaced: {error.strerror}.",
            hint="check who owns it and whether a program has it open.",
        ) from None
    for revision in model.revisions:
        refetch(model.repo, revision, file.repo_path)
    check = _check(model, file, lambda _file, _count: None)
    return replace(check, outcome="repaired") if check.outcome == "verified" else check


def _check(model: InstalledModel, file: LocalFile, advance: Advance) -> FileCheck:
    if file.bytes is None:
        return FileCheck(model, file, "missing", file.sha256, note="its name leads to no file")
    try:
        found = sha256_of(file.path, lambda count: advance(file.repo_path, count))
    except ChangedError:
        return FileCheck(model, file, "unreadable", file.sha256, note="it changed while it was read")
    except OSError as error:
        return FileCheck(model, file, "unreadable", file.sha256, note=error.strerror or str(error))
    if file.sha256 or file.git_hash:
        right = found == file.sha256 if file.sha256 else file.is_as_in_git
        note = "" if right else "its hash is not the Hub's" if file.git_hash else "its SHA-256 is not the Hub's"
        return FileCheck(model, file, "damaged" if note else "verified", file.sha256, found, note)
    if file.repo_path.lower().endswith(".gguf"):  # raw parts have no header
        try:
            read_header(file.path)
        except HermesError as error:
            return FileCheck(model, file, "damaged", None, found, error.message)
    return FileCheck(model, file, "unknown", None, found, "no published hash to compare with")
