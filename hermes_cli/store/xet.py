"""Files in the Hub's Xet storage, by hf_xet: several connections at once, in order, from any offset on.

hf_xet's own settings let it hold 1.5 GB of a file in memory. Here it holds as little as it can: Xet stores, and hands
over, blocks of 64 MB.
"""

from __future__ import annotations

import os
import queue
import re
import tempfile
import threading
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import constants
from huggingface_hub.utils._xet import (
    XetFileData,
    XetTokenType,
    refresh_xet_connection_info,
    xet_connection_info_refresh_url,
    xet_headers_without_auth,
)

from hermes_cli.store.disk import BLOCK
from hermes_cli.store.hashing import BoundedQueue

if TYPE_CHECKING:
    from hermes_cli.store.hub import RemoteFile

BUFFER = 64 << 20  # bytes
TIMEOUT = 60.0  # seconds for one block; below 1 MB/s plain HTTP, which comes in smaller pieces, is the better way
_URL = re.compile(r"\w+://\S+")  # may be signed: not for messages


class XetError(Exception):
    """The bytes stopped coming; another connection may bring them."""


def stream(
    file: RemoteFile, xet_hash: str, headers: dict[str, str], start: int, stop: int
) -> Generator[tuple[int, bytes]]:
    """Yield offset and bytes of each piece from `start` to `stop`; `xet_hash` is Xet's own hash of the file."""
    reader = _Reader(file, xet_hash, headers, start, stop)
    reader.start()
    try:
        while block := reader.next():
            for at in range(0, len(block), BLOCK):
                yield start + at, block[at : at + BLOCK]
            start += len(block)
            del block  # nobody else holds it, so that there is room for the next
    finally:
        reader.cancel()


class _Reader(threading.Thread):
    """Reads in a thread of its own, because hf_xet neither gives up nor heeds Ctrl-C while it waits for a block."""

    def __init__(self, file: RemoteFile, xet_hash: str, headers: dict[str, str], start: int, stop: int) -> None:
        super().__init__(name="xet", daemon=True)
        self._file = file
        self._xet_hash = xet_hash
        self._headers = headers
        self._span = start, stop
        self._session: Any = None
        self._blocks: BoundedQueue[bytes | Exception] = BoundedQueue(1)
        self._cancelled = False

    def next(self) -> bytes:
        """Return the next block, empty at the end."""
        try:
            block = self._blocks.get(timeout=TIMEOUT)
        except queue.Empty:
            raise XetError(f"nothing came from the Xet storage for {TIMEOUT:g} s") from None
        if isinstance(block, bytes):
            return block
        message = _URL.sub("", str(block)).strip().partition("\n")[0]
        raise XetError(f"the Xet storage cannot be read ({message or type(block).__name__})") from None

    def cancel(self) -> None:
        """Stop the thread and throw away the block that it holds."""
        self._cancelled = True
        if self._session and self.is_alive():
            self._session.sigint_abort()
        self._blocks.add_slot()

    def run(self) -> None:
        try:
            for block in self._open():
                self._blocks.put(block)
                del block
                if self._cancelled:
                    return
            self._blocks.put(b"")
        except Exception as error:  # noqa: BLE001 - `next` raises it in the thread that waits
            self._blocks.put(error)

    def _open(self) -> Any:  # noqa: ANN401 - hf_xet has no types
        _redirect_log()
        import hf_xet  # type: ignore[import-untyped]  # noqa: PLC0415 - an extension that not every platform has

        # The token to read it comes from the configured endpoint only.
        token_url = xet_connection_info_refresh_url(
            token_type=XetTokenType.READ,
            repo_id=self._file.current_repo,
            repo_type="model",
            revision=self._file.revision,
        )
        data = XetFileData(file_hash=self._xet_hash, refresh_route=token_url)
        access = refresh_xet_connection_info(file_data=data, headers=self._headers)
        names = ("download_buffer_size", "download_buffer_perfile_size", "download_buffer_limit", "min_prefetch_buffer")
        config = hf_xet.XetConfig().with_config({f"reconstruction.{name}": BUFFER for name in names})
        self._session = hf_xet.XetSession(config)
        group = self._session.new_download_stream_group(
            endpoint=access.endpoint,
            token=access.access_token,
            token_expiry_unix_secs=access.expiration_unix_epoch,
            token_refresh_url=token_url,
            token_refresh_headers=self._headers,
            custom_headers=xet_headers_without_auth(self._headers),
        )
        start, stop = self._span
        return group.download_stream(hf_xet.XetFileInfo(self._xet_hash, self._file.size), start=start, end=stop)


def _redirect_log() -> None:
    """Give hf_xet a log that can be written; else it logs to standard output, from its import on.

    HF_XET_LOG_DEST is described in xet-core's `xet_runtime/src/config/groups/log.rs`.
    """
    if "HF_XET_LOG_DEST" in os.environ:
        return
    try:
        folder = Path(constants.HF_XET_CACHE, "logs").expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, RuntimeError):  # RuntimeError: this user has no home folder
        os.environ["HF_XET_LOG_DEST"] = os.devnull
