"""Prompt caches on disk, so that a restarted server or a resumed chat starts warm.

Beside each cache lie its hash and its tokens. Only those are read at the start; a cache itself is read when a request
comes whose prompt begins with it. llama.cpp ends the process over a damaged one, so its hash is checked before, in
another thread than the scheduler's.

Each client of a server has a folder of its own, named after its key, and what is read for one was written for the same
one: the time that a request takes tells nobody what others asked before the server was started, not even who is given
another's name.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import time
from array import array
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hermes_cli import paths
from hermes_cli.engine.embedded.kv_cache import KVCache, common_prefix

if TYPE_CHECKING:
    from hermes_cli.engine.embedded.llama import LlamaContext

MIN_TOKENS = 256  # tokens; fewer are computed in the time that reading them takes
MAX_SAVED = 8  # caches of one client; the least recently used goes first
SAMPLES, SAMPLE_BYTES = 32, 64 << 10  # parts of a model's file that its fingerprint is made of
DISK_RESERVE = 4 << 30  # bytes of the disk that are left to others
LEFTOVER_AGE = 3600.0  # seconds without a change after which nobody goes on writing a file
DIGEST_BYTES = hashlib.sha256().digest_size


@dataclass
class _Saved:
    """A prompt cache on disk."""

    path: Path
    client: str  # the name of its folder
    digest: bytes
    tokens: list[int]
    checked: bool = False  # its bytes had this hash


class SavedPrefixes:
    """The prompt caches of one model, loaded in one way."""

    def __init__(
        self, folder: Path, context: LlamaContext, max_bytes: int, owners: Mapping[str, str] | None = None
    ) -> None:
        """Read the list of caches in the folder of this model, loaded in this way (`key`); restore to `context`.

        `owners` has what stands for the key of each client that has one.
        """
        self._folder, self._context, self._max_bytes = folder, context, max_bytes
        self._owners = owners or {}
        self._recent: deque[tuple[str, array[int]]] = deque()  # clients, and what their last requests had cached
        with suppress(OSError):  # caches are a convenience: without a folder there are none
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._saved = [saved for path, _ in self._files() if (saved := self._read(path))]

    def note(self, client: str, tokens: list[int]) -> None:
        """Remember what a request of a client has in the KV cache when it ends."""
        self._recent.append((client, array("i", tokens)))
        while sum(len(kept) for _, kept in self._recent) > 2 * self._context.length:  # more is not in the KV cache
            self._recent.popleft()

    def check(self, client: str, tokens: Sequence[int]) -> None:
        """Check the hash of the cache that `restore` would take: gigabytes take seconds, so not in its thread."""
        best = self._best(client, tokens)
        if best and not best.checked and common_prefix(best.tokens, tokens) >= MIN_TOKENS:
            with suppress(OSError):
                best.checked = _digest(best.path) == best.digest

    def _best(self, client: str, tokens: Sequence[int]) -> _Saved | None:
        own = self._folder_name(client)
        candidates = [saved for saved in list(self._saved) if saved.client == own]
        return max(candidates, key=lambda saved: common_prefix(saved.tokens, tokens), default=None)

    def restore(self, client: str, tokens: list[int], kv_cache: KVCache) -> None:
        """Restore the client's cache that a prompt begins with, if that is much more than the KV cache has of it.

        One that `check` found damaged is removed.
        """
        cached, best = kv_cache.match(tokens), self._best(client, tokens)
        if best is None or common_prefix(best.tokens, tokens) < cached + MIN_TOKENS:
            return
        if not best.checked:
            self._remove(best)
            return
        if len(best.tokens) > kv_cache.free + kv_cache.reusable or not kv_cache.ensure_free(len(best.tokens)):
            return
        sequence, _ = kv_cache.start([])
        restored = self._context.restore(best.path, sequence)
        if restored != best.tokens:  # of another llama.cpp
            kv_cache.discard(sequence)
            self._remove(best)
            return
        kv_cache.extend(sequence, restored)
        kv_cache.finish(sequence)
        with suppress(OSError):
            os.utime(best.path)

    def save(self, kv_cache: KVCache) -> None:
        """Write what the last requests of each client left in the KV cache; delete the oldest beyond the limits.

        What is short, or a part of something on disk, is left out. Failures are ignored. A slot has to be free.
        """
        for client, recent in reversed(self._recent):
            tokens, own = recent.tolist(), self._folder_name(client)
            tokens = tokens[: kv_cache.match(tokens)]
            known = any(saved.client == own and saved.tokens[: len(tokens)] == tokens for saved in self._saved)
            if len(tokens) >= MIN_TOKENS and not known:
                sequence, length = kv_cache.start(tokens)  # llama.cpp writes only sequences that can be decoded
                with suppress(OSError):
                    self._write(own, sequence, tokens[:length])
                kv_cache.discard(sequence)
        self._prune()

    def _prune(self) -> None:
        size, counts = 0, Counter[str]()
        with suppress(OSError):
            for path, info in self._files():
                size += info.st_size
                counts[path.parent.name] += 1
                if counts[path.parent.name] > MAX_SAVED or size > self._max_bytes:
                    path.unlink(missing_ok=True)
                    _tokens_of(path).unlink(missing_ok=True)
            for path, info in _regular_files(self._folder.glob("*/.*.cache.*")):  # of engines that were killed
                if time.time() - info.st_mtime > LEFTOVER_AGE:
                    path.unlink(missing_ok=True)

    def _write(self, client: str, sequence: int, tokens: list[int]) -> None:
        raw = array("i", tokens).tobytes()
        path = self._folder / client / f"{hashlib.sha256(raw).hexdigest()[:32]}.cache"
        if shutil.disk_usage(self._folder).free < DISK_RESERVE:
            return
        # Another engine may write the same: each has a file of its own, which only this user can read.
        with paths.replacing(path, folder_mode=0o700) as partial:
            if not self._context.save(partial, sequence, tokens):
                raise OSError("llama.cpp could not write it")
            digest = _digest(partial)
            paths.write_private(_tokens_of(path), digest + raw)
        self._saved.append(_Saved(path, client, digest, tokens))

    def _read(self, path: Path) -> _Saved | None:
        """Return what lies beside a cache; None for what no cache of this context has."""
        tokens_of, tokens = _tokens_of(path), array("i")
        try:
            info = tokens_of.stat()
            if not stat.S_ISREG(info.st_mode) or info.st_size > DIGEST_BYTES + tokens.itemsize * self._context.length:
                return None
            raw = tokens_of.read_bytes()
            tokens.frombytes(raw[DIGEST_BYTES:])
        except (OSError, ValueError):
            return None
        return _Saved(path, path.parent.name, raw[:DIGEST_BYTES], tokens.tolist())

    def _folder_name(self, client: str) -> str:
        return key(client, self._owners.get(client)) if client else "own"

    def _files(self) -> list[tuple[Path, os.stat_result]]:
        """Return the cache files, the latest first."""
        with suppress(OSError):
            files = _regular_files(self._folder.glob("*/[!.]*.cache"))
            return sorted(files, key=lambda file: file[1].st_mtime_ns, reverse=True)
        return []

    def _remove(self, saved: _Saved) -> None:
        self._saved.remove(saved)
        with suppress(OSError):
            saved.path.unlink(missing_ok=True)
            _tokens_of(saved.path).unlink(missing_ok=True)


def key(*facts: object) -> str:
    """Return the name of the folder for a model and all that its caches depend on."""
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]


def fingerprint(path: Path) -> str:
    """Return a hash of a file's size and of parts of it, its beginning and its end among them.

    It is the same wherever the file lies, and another one for the same file with other weights.
    """
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for number in range(SAMPLES + 1):
            file.seek(max(size - SAMPLE_BYTES, 0) * number // SAMPLES)
            digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()


def _tokens_of(path: Path) -> Path:
    return path.with_suffix(".tokens")


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _regular_files(found: Iterable[Path]) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield those that are files; another engine may remove some meanwhile, and opening a pipe waits for ever."""
    for path in found:
        with suppress(OSError):
            info = path.stat()
            if stat.S_ISREG(info.st_mode):
                yield path, info
