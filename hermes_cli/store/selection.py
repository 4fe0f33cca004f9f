"""Which of the models on this disk a name means."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from hermes_cli.catalog.names import CatalogueReference, DemoReference, FileReference, HubReference, ModelNames
from hermes_cli.catalog.quantizations import normalize_name
from hermes_cli.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from hermes_cli.catalog.models import Catalogue
    from hermes_cli.store.inventory import Installed

SEE = "see what is here: hermes list --installed"


def select(text: str, catalogue: Catalogue, here: Sequence[Installed]) -> list[Installed]:
    """Those of `here` that a name means: by what `hermes list --installed` calls them, or any other of their names.

    Raises:
        NotFoundError: none of them.
        UsageError: the name means no model, or one that is no part of the library.
    """
    called = [one for one in here if text in {one.name, one.file, one.file.rpartition("/")[2]}]
    if called:
        return called
    meant = ModelNames(catalogue).parse(text)
    if isinstance(meant, DemoReference):
        raise UsageError("the demo is part of hermes itself, not of the library.", hint=SEE)
    if isinstance(meant, FileReference):
        found, problem = _by_path(meant.path, here), f"{meant.path} is not in the library of hermes."
    else:
        found = _by_model(meant, here) if isinstance(meant, CatalogueReference) else _by_repository(meant, here)
        problem = f"{text} is not on this machine."
    if not found:
        raise NotFoundError(problem, hint=SEE)
    return found


def one_of(text: str, found: Sequence[Installed]) -> Sequence[Installed]:
    """The same, if they are all the same file, in whatever revisions.

    Raises:
        UsageError: they are several; the hint lists their names.
    """
    names = list(dict.fromkeys(one.name for one in found))
    if len(names) > 1:
        raise UsageError(f"{text} means {len(names)} models on this machine.", hint=f"say which: {', '.join(names)}")
    return found


def _by_path(path: Path, here: Sequence[Installed]) -> list[Installed]:
    wanted = os.path.abspath(path)  # noqa: PTH100 - not resolved: a link is what may be meant
    return [
        one
        for one in here
        if any(wanted in {os.path.abspath(known) for known in (*file.names, file.content)} for file in one.files)  # noqa: PTH100 - as above
    ]


def _by_model(name: CatalogueReference, here: Sequence[Installed]) -> list[Installed]:
    return [
        one
        for one in here
        if one.model
        and one.model.id == name.model.id
        and name.quantization in {None, one.quantization}
        and name.repository in {None, one.repo}
    ]


def _by_repository(name: HubReference, here: Sequence[Installed]) -> list[Installed]:
    of_repo = [one for one in here if one.repo and one.repo.lower() == name.repo.lower()]
    if name.file:
        return [one for one in of_repo if any(file.inside == name.file for file in one.files)]
    wanted = normalize_name(name.quantization or "")
    return [one for one in of_repo if wanted in {"", normalize_name(one.quantization or "")}]
