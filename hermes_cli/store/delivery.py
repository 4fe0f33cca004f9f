"""What is missing of a file, fetched and hashed on the way; and what to do if the hash is wrong."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from hermes_cli.errors import IntegrityError
from hermes_cli.store import cache
from hermes_cli.store.hashing import Digest, Hash, new_hash
from hermes_cli.store.progress import Phase
from hermes_cli.store.space import blocks
from hermes_cli.store.target import size_of
from hermes_cli.store.transfer import receive

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hermes_cli.store.hub import RemoteFile
    from hermes_cli.store.partial import Partial
    from hermes_cli.store.progress import Meter
    from hermes_cli.store.retry_policy import RetryPolicy
    from hermes_cli.store.target import Target


class Delivery:
    """Completes a partial file. Raw parts are written one after the other into the file that they make."""

    def __init__(self, target: Target, partial: Partial, meter: Meter, patience: RetryPolicy, *, verify: bool) -> None:
        self._target = target
        self._partial = partial
        self._meter = meter
        self._patience = patience
        self._verify = verify
        # Raw parts have a hash each, but together none that the Hub states.
        self._whole: Hash | None = hashlib.sha256() if target.joined else None

    def complete(self) -> str | None:
        """Fetch what is missing and check everything; returns the file's SHA-256, None if nobody computed it.

        Raises:
            HermesError: it cannot be fetched or written; what came is kept.
            IntegrityError: it came twice and was wrong twice; it is thrown away.
        """
        base = 0
        for piece in self._target.pieces:
            before = self._whole
            here = min(max(0, self._partial.size - base), piece.size)
            found = self._arrive(piece, base, here)
            if self._verify and found != piece.etag:
                self._repair(piece, base, here, before)
            base += piece.size
        if self._whole:
            return self._whole.hexdigest()
        return self._target.pieces[0].sha256 if self._verify else None

    def _arrive(self, piece: RemoteFile, base: int, here: int) -> str:
        """Hash what is here of a piece, fetch the rest of it; returns its hash."""
        hashes = self._hashes(piece, self._whole)
        with Digest(*hashes) as digest:
            if hashes:
                self._read(digest, base, base + here)
            for data in self._fetch(piece, base, (here, piece.size), Phase.DOWNLOADING):
                digest.feed(data)
            self._meter.say(Phase.VERIFYING)
            return digest.results()[0] if self._verify else piece.etag

    def _repair(self, piece: RemoteFile, base: int, here: int, before: Hash | None) -> None:
        """Fetch once more what may be wrong: first what an earlier run had left, then what came in this one."""
        found = ""
        for span in ((0, here), (here, piece.size)):
            if span[0] == span[1]:
                continue
            self._meter.say(Phase.REPAIRING, "its hash is wrong")
            for _ in self._fetch(piece, base, span, Phase.REPAIRING):
                pass
            with Digest(*self._hashes(piece, before)) as digest:
                self._read(digest, base, base + piece.size)
                found = digest.results()[0]
            if found == piece.etag:
                return
        self._partial.cut(base)
        raise IntegrityError(
            f"{piece.path} of {piece.repo} came twice with a wrong hash: {found} instead of {piece.etag}.",
            hint="something on the way alters it; try again later, or over another network or mirror (HF_ENDPOINT).",
        )

    def _hashes(self, piece: RemoteFile, before: Hash | None) -> list[Hash]:
        """What a piece is fed to, from its first byte on; `before` has all pieces before it."""
        self._whole = before.copy() if before else None
        return ([new_hash(piece)] if self._verify else []) + ([self._whole] if self._whole else [])

    def _read(self, digest: Digest, start: int, stop: int) -> None:
        for data in self._partial.read(start, stop):
            digest.feed(data)
            start += len(data)
            self._meter.at(Phase.HASHING, start)

    def _fetch(self, piece: RemoteFile, base: int, span: tuple[int, int], phase: Phase) -> Iterator[bytes | bytearray]:
        """Put a span of a piece into its place, and hand it on."""
        at, stop = span
        part = cache.blob(piece.repo, piece.etag)  # of raw parts another tool may have fetched some
        copied = self._target.joined and phase is Phase.DOWNLOADING and size_of(part) == piece.size
        for data in blocks(part, at, stop) if copied else receive(piece, at, stop, self._meter, self._patience):
            self._partial.write(base + at, data)
            at += len(data)
            self._meter.at(phase, base + at, fetched=0 if copied else len(data))
            yield data
