"""Newer revisions of installed files: what their repositories hold today under the same names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Literal, NamedTuple

from hermes_cli.errors import NetworkError, NotFoundError

if TYPE_CHECKING:
    from hermes_cli.store.hub import RemoteFile
    from hermes_cli.store.inventory import InstalledModel

CONCURRENT_REQUESTS = 8

UpdateState = Literal["current", "outdated", "superseded", "removed", "unknown"]


class Update(NamedTuple):
    """An installed model against its repository; `revision` is the commit of its main branch today.

    It is superseded if today's files are here as well, removed if the Hub has no file of that name any more, and
    unknown if the Hub did not answer, if it states no hash, or if the model was imported.
    """

    model: InstalledModel
    state: UpdateState
    revision: str | None = None


def find_updates(models: Sequence[InstalledModel], warn: Callable[[str], None]) -> list[Update]:
    """Ask the Hub for newer revisions of installed models; `warn` is told where there is no answer.

    Once the Hub cannot be reached, no other repository is asked for.
    """
    repos = list(dict.fromkeys(model.repo for model in models if model.repo))
    listed: dict[str, tuple[RemoteFile, ...] | None] = {}
    with ThreadPoolExecutor(CONCURRENT_REQUESTS) as pool:
        from hermes_cli.store.hub import list_files  # noqa: PLC0415 - only where there is something to ask

        answers = {repo: pool.submit(list_files, repo) for repo in repos}
        for repo, answer in answers.items():
            try:
                listed[repo] = answer.result()
            except NotFoundError as error:
                warn(error.message)
                listed[repo] = None
            except NetworkError as error:
                pool.shutdown(cancel_futures=True)
                warn(f"{error.message} What is newer is not known.")
                break
    updates = [_update(model, listed) for model in models]
    current = defaultdict(set)
    for update in updates:
        if update.state == "current":
            current[update.model.repo].add(update.model.file)
    return [
        update._replace(state="superseded")
        if update.state == "outdated" and update.model.file in current[update.model.repo]
        else update
        for update in updates
    ]


def _update(model: InstalledModel, listed: Mapping[str, tuple[RemoteFile, ...] | None]) -> Update:
    files = listed.get(model.repo or "")
    if not files:
        return Update(model, "unknown")
    by_path = {file.path: file for file in files}
    revision = files[0].revision
    if revision in model.revisions:
        return Update(model, "current", revision)
    if model.file not in by_path:
        return Update(model, "removed", revision)
    pairs = [
        (file.sha256 or file.git_hash, by_path[file.repo_path].etag)
        for file in model.files
        if file.repo_path in by_path
    ]
    if not all(here and there for here, there in pairs):
        return Update(model, "unknown", revision)
    same = len(pairs) == len(model.files) and all(here == there for here, there in pairs)
    return Update(model, "current" if same else "outdated", revision)
