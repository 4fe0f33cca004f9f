"""Prompt caches on disk, so that a restarted server or a resumed chat starts warm.

Beside each cache lie its hash and its tokens. Only those are read at the start; a cache itself is read when a request
comes whose prompt begins with it. llama.cpp ends the process over a damaged one, so its hash is checked before.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from array import array
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hermes_cli.engine.embedded.kv_cache import KVCache, common_prefix

if TYPE_CHECKING:
    from hermes_cli.engine.embedded.llama import LlamaContext

MIN_TOKENS = 256  # tokens; fewer are computed in the time that reading them takes
MAX_SAVED = 8  # caches of one model; the least recently used goes first
MAX_BYTES = 8 << 30  # of one model
DISK_RESERVE = 4 << 30  # bytes of the disk that are left to others


@dataclass
class _Saved:
    """A prompt cache on disk."""

    path: Path
    digest: bytes
    tokens: list[int]


class SavedPrefixes:
    """The prompt caches of one model, loaded in one way."""

    def __init__(self, folder: Path, context: LlamaContext) -> None:
        """Read the list of caches in the folder of this model, loaded in this way (`key`); restore to `context`."""
        self._folder, self._context = folder, context
        with suppress(OSError):  # caches are a convenience: without a folder there are none
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._saved = [saved for path in self._files() if (saved := _read(path))]

    def restore(self, tokens: list[int], kv_cache: KVCache) -> None:
        """Restore the cache that a prompt begins with, if that is much more than the KV cache has of it."""
        cached = kv_cache.match(tokens)
        best = max(self._saved, key=lambda saved: common_prefix(saved.tokens, tokens), default=None)
        if best is None or common_prefix(best.tokens, tokens) < cached + MIN_TOKENS:
            return
        try:
            whole = _digest(best.path) == best.digest
        except OSError:
            whole = False
        if not whole:
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
        """Write the cached sequences that are worth it and not on disk yet; delete the oldest beyond the limits.

        Failures are ignored. A slot has to be free.
        """
        for _, tokens in list(kv_cache.cached())[:MAX_SAVED]:
            known = any(saved.tokens[: len(tokens)] == tokens for saved in self._saved)
            if len(tokens) >= MIN_TOKENS and not known:
                sequence, _ = kv_cache.start(tokens)  # llama.cpp writes only sequences that can be decoded
                with suppress(OSError):
                    self._write(sequence, tokens)
                kv_cache.discard(sequence)
        size = 0
        with suppress(OSError):
            for number, path in enumerate(self._files()):
                size += path.stat().st_size
                if number >= MAX_SAVED or size > MAX_BYTES:
                    path.unlink(missing_ok=True)
                    _tokens_of(path).unlink(missing_ok=True)

    def _write(self, sequence: int, tokens: list[int]) -> None:
        raw = array("i", tokens).tobytes()
        path = self._folder / f"{hashlib.sha256(raw).hexdigest()[:32]}.cache"
        partial = path.with_suffix(".partial")
        if shutil.disk_usage(self._folder).free < DISK_RESERVE:
            return
        try:
            os.close(os.open(partial, os.O_CREAT | os.O_WRONLY, 0o600))  # conversations are nobody else's business
            if not self._context.save(partial, sequence, tokens):
                return
            digest = _digest(partial)
            _tokens_of(path).write_bytes(digest + raw)
            _tokens_of(path).chmod(0o600)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        self._saved.append(_Saved(path, digest, tokens))

    def _files(self) -> list[Path]:
        """Return the cache files, the latest first."""
        with suppress(OSError):
            return sorted(self._folder.glob("*.cache"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
        return []

    def _remove(self, saved: _Saved) -> None:
        self._saved.remove(saved)
        with suppress(OSError):
            saved.path.unlink(missing_ok=True)
            _tokens_of(saved.path).unlink(missing_ok=True)


def key(*facts: object) -> str:
    """Return the name of the folder for a model and all that its caches depend on."""
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]


def _tokens_of(path: Path) -> Path:
    return path.with_suffix(".tokens")


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _read(path: Path) -> _Saved | None:
    tokens = array("i")
    try:
        raw = _tokens_of(path).read_bytes()
        tokens.frombytes(raw[hashlib.sha256().digest_size :])
    except (OSError, ValueError):
        return None
    return _Saved(path, raw[: hashlib.sha256().digest_size], tokens.tolist())
