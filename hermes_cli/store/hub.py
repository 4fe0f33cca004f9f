"""Requests to the Hub by huggingface_hub, with its endpoint, token, proxies and offline switch: file lists and headers.

Every failure becomes one of our errors with the next step. Tokens go to the configured endpoint only.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
from huggingface_hub import HfApi, ModelInfo, constants, get_session, hf_hub_url
from huggingface_hub.errors import (
    DisabledRepoError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_stream_backoff  # type: ignore[attr-defined]  # re-exported without saying so

from hermes_cli.catalog.file_names import models_in, refusal
from hermes_cli.catalog.load import HubFile, HubRepository
from hermes_cli.errors import HermesError, IntegrityError, NetworkError, NotFoundError
from hermes_cli.gguf.header import GGUFHeader, read_source
from hermes_cli.paths import access_error
from hermes_cli.store.connection import check_connection, proxy_fault

TIMEOUT = 20.0  # seconds without an answer
LOG_IN_AGAIN = "your token may have expired; log in again: hf auth login"

# Names and hashes from the Hub become paths here: no part that Windows cannot have or keeps for devices, and none that
# begins as a hidden file, an option or a home folder.
_SAFE_PART = re.compile(
    r"^(?!(?:con|prn|aux|nul|com[\d¹²³]|lpt[\d¹²³])(?:\.|$))[^-~. <>:\"/\\|?*][^<>:\"/\\|?*]*(?<![. ])\Z", re.IGNORECASE
)
_SHA1 = re.compile(r"^[0-9a-f]{40}\Z")
_SHA256 = re.compile(r"^[0-9a-f]{64}\Z")


@dataclass(frozen=True)
class RemoteFile:
    """One file of a repository at one commit, as the Hub states it."""

    repo: str  # the repository as it was requested; names the folder in the cache
    current_repo: str  # its name on the Hub today, another one if it was renamed
    revision: str  # the commit, 40 hexadecimal digits
    ref: str | None  # the requested branch or tag, None for a commit
    path: str  # within the repository
    size: int  # bytes
    etag: str  # name of its blob in the cache: its SHA-256, or git's hash of a small file; empty if the Hub states none
    sha256: str | None  # None for small files, which lie in git itself

    @property
    def url(self) -> str:
        """Return its URL at the configured endpoint."""
        return hf_hub_url(self.current_repo, self.path, revision=self.revision)

    @property
    def renamed(self) -> bool:
        """Return whether the repository has another name today."""
        return self.current_repo.lower() != self.repo.lower()


def list_gguf_files(repo: str) -> HubRepository:
    """Return the GGUF files of a repository, with their sizes and hashes; raises as `list_files`."""
    info = _info(repo, None)
    files = tuple(
        HubFile(path=file.rfilename, bytes=file.size or 0, sha256=file.lfs.sha256 if file.lfs else None)
        for file in info.siblings or ()
        if ".gguf" in file.rfilename.lower() and is_safe(file.rfilename)
    )
    today = datetime.now(UTC).date().isoformat()
    return HubRepository(revision=info.sha or "main", fetched=today, files=files)


def list_files(repo: str, revision: str | None = None) -> tuple[RemoteFile, ...]:
    """Return every file of a repository with size and hash. Their names are as the Hub states them: see `is_safe`.

    Raises:
        NotFoundError: there is no such repository or revision, or it is private or gated.
        NetworkError: the Hub cannot be reached, or refuses to answer.
    """
    info = _info(repo, revision)
    commit = info.sha or ""
    if not _SHA1.match(commit):
        raise NetworkError(f"{endpoint()} states no commit of {repo}.", hint="check HF_ENDPOINT.")
    requested = revision or constants.DEFAULT_REVISION
    ref = requested if is_safe(requested) and requested != commit else None
    current_repo = info.id if is_safe(info.id) else repo
    files = []
    for file in info.siblings or ():
        sha256 = file.lfs.sha256 if file.lfs and _SHA256.match(file.lfs.sha256) else None
        git = file.blob_id if not file.lfs and file.blob_id and _SHA1.match(file.blob_id) else ""
        path, size = file.rfilename, file.size or 0
        files.append(RemoteFile(repo, current_repo, commit, ref, path, size, sha256 or git, sha256))
    return tuple(files)


def read_file(file: RemoteFile) -> bytes:
    """Return the content of a small file; raises as `list_files`, and IntegrityError if it is not small."""
    if file.size > MOST_FETCHED:
        raise IntegrityError(f"{file.path} of {file.repo} is too large to be read.", hint="choose another repository.")
    with hub_errors(file.repo), quiet_hub_log():
        answer = get_session().get(file.url, headers=build_hf_headers(), timeout=TIMEOUT, follow_redirects=True)
        hf_raise_for_status(answer)
        return bytes(answer.content)


@dataclass(frozen=True)
class FoundRepository:
    """A repository with GGUF files that a search found; what the Hub does not say is None."""

    repo: str
    quantizations: tuple[str, ...]  # of its complete models that llama.cpp loads, by their file names
    parameters: int | None
    architecture: str | None
    license: str | None
    downloads: int | None  # in the last 30 days
    updated: str | None  # YYYY-MM-DD
    gated: bool  # its terms must be accepted first


def search_repositories(words: str, limit: int) -> list[FoundRepository]:
    """Return the repositories with GGUF files whose names have some words, the most downloaded first.

    Raise NetworkError if the Hub cannot be reached, or refuses to answer.
    """
    facts = ["cardData", "downloads", "gated", "gguf", "lastModified", "siblings"]
    params: dict[str, Any] = {"search": words, "filter": "gguf", "sort": "downloads", "limit": limit, "expand": facts}
    with hub_errors("a search"), quiet_hub_log(), _hub_answers():
        # Not by HfApi.list_models, which tries for 25 seconds before it says that nobody answers.
        url = f"{endpoint()}/api/models"
        answer = get_session().get(url, params=params, headers=build_hf_headers(), timeout=TIMEOUT)
        hf_raise_for_status(answer)
        return [_found(ModelInfo(**info)) for info in answer.json()]  # type: ignore[no-untyped-call]


def _found(info: ModelInfo) -> FoundRepository:
    gguf, card = info.gguf or {}, info.card_data
    models = models_in(file.rfilename for file in info.siblings or ())[0]
    quantizations = dict.fromkeys(
        model.quantization for model in models if model.quantization and refusal(model) is None
    )
    license_name = card.get("license_name") or card.get("license") if card else None
    return FoundRepository(
        repo=info.id,
        quantizations=tuple(quantizations),
        parameters=gguf.get("total") if isinstance(gguf.get("total"), int) else None,
        architecture=gguf.get("architecture"),
        license=str(license_name) if license_name else None,
        downloads=info.downloads,
        updated=info.last_modified.date().isoformat() if info.last_modified else None,
        gated=bool(info.gated),
    )


def _info(repo: str, revision: str | None) -> ModelInfo:
    with hub_errors(repo), quiet_hub_log(), _hub_answers():
        return HfApi().model_info(repo, revision=revision, files_metadata=True, timeout=TIMEOUT)


@contextmanager
def _hub_answers() -> Iterator[None]:
    """Turn what huggingface_hub makes of an answer that is not the Hub's into our error."""
    try:
        yield
    except HFValidationError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError):
        raise NetworkError(
            f"what answers at {endpoint()} does not speak the Hub's API.",
            hint="check HF_ENDPOINT, and whether this network wants you to log in first.",
        ) from None


def endpoint() -> str:
    """Return the configured URL of the Hub, without a name and password that it may hold."""
    return re.sub(r"//[^/@]*@", "//", constants.ENDPOINT)


def is_safe(path: str) -> bool:
    """Return whether a path in a repository can be one on any disk: no `..`, drive, device or odd characters."""
    return len(path) < 1000 and path.isprintable() and all(map(_SAFE_PART.match, path.split("/")))  # noqa: PLR2004 - generous


def read_remote_header(repo: str, file: HubFile, revision: str, skeleton: Path | None = None) -> tuple[GGUFHeader, int]:
    """Return the header of a GGUF file on the Hub, and how many bytes were fetched to read it.

    At the path `skeleton` a file is made that has the header and a hole in place of the weights: llama.cpp tells of it
    what memory the model takes.
    """
    with hub_errors(repo), quiet_hub_log():
        source = _RangeSource(hf_hub_url(repo, file.path, revision=revision), file.bytes)
        header = read_source(source, f"{repo}/{file.path}")
        if skeleton:
            with skeleton.open("wb") as made:
                for offset, part in source.all_parts(header.data_offset):
                    made.seek(offset)
                    made.write(part)
                made.truncate(source.size)
        return header, source.fetched


MOST_FETCHED = 32 << 20  # bytes of a header; vocabularies of 262,144 tokens have 14 MB


class _RangeSource:
    """A file on the Hub as a `gguf.reader.ByteSource`, read by range requests; `fetched` counts the bytes that came."""

    def __init__(self, url: str, size: int) -> None:
        self._url = url
        self._headers = build_hf_headers()
        self.size = size
        self.fetched = 0
        self._parts: dict[int, bytes] = {}  # by offset
        if not size:  # a mirror does not list it
            self.read(0, 1)

    def all_parts(self, end: int) -> list[tuple[int, bytes]]:
        """Return all bytes up to `end`, with their offsets; fetch what was stepped over."""
        at = 0
        for offset, part in [*sorted(self._parts.items()), (end, b"")]:
            if at < min(offset, end):
                self.read(at, min(offset, end) - at)
            at = max(at, offset + len(part))
        return sorted(self._parts.items())

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset` on; raises what `hub_errors` turns into our errors."""
        if self.fetched + length > MOST_FETCHED:
            raise IntegrityError(
                f"the header of the file has more than {MOST_FETCHED:,} bytes, more than any model's.",
                hint="take another file; or download this one, if you trust it, and give its path.",
            )
        headers = {**self._headers, "Range": f"bytes={offset}-{offset + length - 1}", "Accept-Encoding": "identity"}
        with http_stream_backoff(
            "GET", self._url, headers=headers, follow_redirects=True, timeout=TIMEOUT, max_retries=2
        ) as response:
            hf_raise_for_status(response)
            # A response with the whole file serves the beginning; reading stops after `length` bytes.
            part = response.headers.get("Content-Range", f"bytes 0-/{response.headers.get('Content-Length', '')}")
            total = part.rpartition("/")[2]
            self.size = self.size or int(total if total.isdecimal() else 0)
            if not part.startswith(f"bytes {offset}-"):
                raise NetworkError(
                    "the server answers no range requests, so a header cannot be read without the whole file.",
                    hint="download the file and give its path.",
                )
            body = bytearray()
            for piece in response.iter_raw():
                body += piece
                self.fetched += len(piece)
                if len(body) >= length:
                    break
        self._parts[offset] = bytes(body[:length])
        return self._parts[offset]


@contextmanager
def quiet_hub_log() -> Iterator[None]:
    """Keep huggingface_hub from writing between our own lines; its messages come as errors or events."""
    logger = logging.getLogger("huggingface_hub")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def hub_errors(repo: str) -> Iterator[None]:
    """Turn the errors of a request to the Hub into our own."""
    try:
        check_connection()
        yield
    except HermesError:
        raise
    except OfflineModeIsEnabled:
        raise NetworkError(
            "offline mode is on (HF_HUB_OFFLINE), so the Hub was not asked.", hint="unset HF_HUB_OFFLINE to go online."
        ) from None
    except GatedRepoError:
        raise NotFoundError(
            f"{repo} is gated: its owner wants you to accept terms first.",
            hint=f"accept them on {endpoint()}/{repo}, then log in: hf auth login",
        ) from None
    except RevisionNotFoundError:
        raise NotFoundError(f"{repo} has no such revision.", hint="leave the revision out.") from None
    except (RepositoryNotFoundError, HFValidationError):
        raise NotFoundError(
            f"there is no repository {repo} on the Hub, or it is private.",
            hint="check the spelling; for a private one, log in: hf auth login",
        ) from None
    except EntryNotFoundError:
        raise NotFoundError(f"{repo} has no such file.", hint=f"see what it has: hermes show {repo}") from None
    except DisabledRepoError:
        raise NotFoundError(
            f"the Hub has disabled {repo}.", hint=f"see why on {endpoint()}/{repo}, or choose another one."
        ) from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        message, hint = {
            401: (f"the Hub refuses access to {repo} (status 401).", LOG_IN_AGAIN),
            407: ("the proxy wants a name and password (status 407).", "say them: http://NAME:PASSWORD@HOST:PORT"),
            403: (f"the Hub refuses access to {repo} (status 403).", LOG_IN_AGAIN),
            429: ("the Hub has had too many requests from here.", "try again in a few minutes."),
        }.get(status, (f"the Hub answered with status {status} for {repo}.", "try again later."))
        raise NetworkError(message, hint=hint) from None
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError, OverflowError) as error:
        raise _unreachable(error) from None


def _unreachable(error: Exception) -> HermesError:
    """Return the error for a request that got no answer, or for a file of the Hub's that it needs."""
    if isinstance(error, OSError) and error.filename is not None:
        return access_error(os.fsdecode(error.filename), error)
    if isinstance(error, ValueError | OverflowError):  # huggingface_hub reads Retry-After without a check
        return NetworkError(f"{endpoint()} answers with a header that cannot be read.", hint="try again later.")
    if fault := proxy_fault(error):
        hint = f"check it, or unset {fault[1]}; everything that is already here works without."
        return NetworkError(f"{fault[0]}.", hint=hint)
    reason = re.sub(r"^\[Errno -?\d+\] ", "", str(error)) or type(error).__name__
    return NetworkError(
        f"the Hub ({endpoint()}) cannot be reached: {reason}.",
        hint="check the network and HF_ENDPOINT; everything that is already here works without.",
    )
