"""How one file comes to be on this disk: found, or fetched, hashed on the way, and named only once it is right.

The order is what makes it safe: bytes go into `ETAG.incomplete`; all are there and the hash matches; they are on the
disk (fsync); the file is renamed to its hash; a link gives it its name. Whatever stops the process leaves one of these
states, and each is a good start for the next run.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]  # re-exported without saying so

from hermes_cli.store import cache, verified
from hermes_cli.store.delivery import Delivery
from hermes_cli.store.hashing import Digest, new_hash
from hermes_cli.store.partial import Partial
from hermes_cli.store.progress import Phase
from hermes_cli.store.space import blocks, writing
from hermes_cli.store.target import size_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hermes_cli.store.progress import Meter
    from hermes_cli.store.retry_policy import RetryPolicy
    from hermes_cli.store.target import Target

POLL = 0.5  # seconds between two looks at a lock that another process holds


class Assembly:
    """Brings one target to this disk."""

    def __init__(self, target: Target, meter: Meter, patience: RetryPolicy, *, verify: bool) -> None:
        self._target = target
        self._meter = meter
        self._patience = patience
        self._verify = verify
        self._wrong: set[tuple[int, int, int]] = set()  # files that were hashed and did not match

    def bring(self) -> Path:
        """The file, complete and right, under its name.

        Raises:
            HermesError: it cannot be fetched or written, or it is not what the Hub states; what is good of it is kept.
        """
        path = self._target.path
        if not self._right(path):
            with self._locked():
                if not self._right(path) and not self._adopt():
                    self._fetch()
        self._meter.done = self._target.size
        self._meter.say(Phase.DONE)
        return path

    def _right(self, path: Path) -> bool:
        """Whether a file is the target. It is read only if nobody knows its hash."""
        if size_of(path) != self._target.size:
            return False
        if not self._verify or self._target.is_known(path):
            return True
        with writing(path):
            stat = path.stat()
        identity = stat.st_dev, stat.st_ino, stat.st_mtime_ns
        if identity not in self._wrong and self._hashes_match(path):
            return True
        self._wrong.add(identity)
        return False

    def _hashes_match(self, path: Path) -> bool:
        whole, done = hashlib.sha256(), 0
        for piece in self._target.pieces:
            with Digest(new_hash(piece), *([whole] if self._target.joined else [])) as digest:
                for data in blocks(path, done, done + piece.size):
                    digest.feed(data)
                    done += len(data)
                    self._meter.at(Phase.HASHING, done)
                if digest.results()[0] != piece.etag:
                    return False
        self._remember(path, whole.hexdigest() if self._target.joined else self._target.pieces[0].sha256)
        return True

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Alone with this file: whoever else wants it waits, `hf download` too."""
        path = cache.lock(self._target.repo, self._target.key)
        with ExitStack() as stack:
            while not self._take(path, stack):
                self._meter.done = self._growing()
                self._meter.say(Phase.WAITING, "another process fetches it")
            yield

    @staticmethod
    def _take(path: Path, stack: ExitStack) -> bool:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(WeakFileLock(path, timeout=POLL))
            except TimeoutError:
                return False
        return True

    def _growing(self) -> int:
        """Bytes that another process has of it, whatever it calls its file."""
        found = self._target.blob.parent.glob(f"{self._target.key}*.incomplete")
        return max((size_of(path) or 0 for path in found), default=0)

    def _adopt(self) -> bool:
        """Whether the content was here under another name, and has this one now, too. Damaged content is removed."""
        target = self._target
        if any(self._right(source) and self._name(source) for source in target.elsewhere()):
            return True
        with writing(target.path):
            target.path.unlink(missing_ok=True)
            target.blob.unlink(missing_ok=True)
        return False

    def _name(self, source: Path) -> bool:
        """Whether a file could be given the name: by a link to its blob, or by a second name for its content."""
        target, known = self._target, verified.known(source)
        blob = cache.blob(target.repo, known) if target.joined and known else target.blob
        if source != blob:
            content = source.resolve()
            if content.parent == blob.parent.resolve():
                blob = content
            elif not _second_name(content, blob):
                return False
        with writing(target.path):
            cache.link(blob, target.path)
        self._remember(target.path, known)
        return True

    def _fetch(self) -> None:
        target = self._target
        with Partial(target.incomplete, target.size) as partial:
            partial.cut_zeros()
            if partial.size > target.size:
                partial.cut(0)  # no beginning of this file
            if partial.size:
                self._meter.done = partial.size
                self._meter.say(Phase.RESUMING)
            sha256 = Delivery(target, partial, self._meter, self._patience, verify=self._verify).complete()
            partial.flush()
        with writing(target.path):
            blob = cache.blob(target.repo, sha256) if target.joined and sha256 else target.blob
            cache.settle(partial.path, blob)
            cache.link(blob, target.path)
        self._remember(target.path, sha256)

    def _remember(self, path: Path, sha256: str | None) -> None:
        if self._verify and sha256:
            verified.remember(path, sha256)


def _second_name(content: Path, blob: Path) -> bool:
    """Whether a file system has hard links, across these two places."""
    try:
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.unlink(missing_ok=True)
        os.link(content, blob)
    except OSError:
        return False
    return True
