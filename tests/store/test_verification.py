from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

import pytest
from conftest import HANG
from gguf_bytes import SMALL
from hub_cache import OTHER_REVISION, REVISION, HubCache
from hypothesis import given
from hypothesis import strategies as st

from hermes_cli.catalog.load import shipped_catalogue
from hermes_cli.errors import HermesError, NetworkError
from hermes_cli.store import layout
from hermes_cli.store.hashing import ChangedError, known_sha256, sha256_of
from hermes_cli.store.inventory import inventory, usage
from hermes_cli.store.verification import FileCheck, repair, verify

CATALOGUE = shipped_catalogue()
REPO = "somebody/Some-GGUF"
FILE = "some-Q8_0.gguf"
BAD = SMALL[:-1] + b"x"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HubCache:
    hub = HubCache(tmp_path)
    for name, value in hub.environment.items():
        monkeypatch.setenv(name, value)
    return hub


def outcomes(stated: dict[str, str] | None = None, hashes: frozenset[str] = frozenset()) -> list[FileCheck]:
    return list(verify(inventory(CATALOGUE), hashes, lambda _repo, _revision: stated or {}))


@given(st.binary(max_size=3_000_000))
def test_hashing_is_sha256(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("hash") / "file"
    path.write_bytes(content)
    read: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HERMES_LLM_CACHE_DIR", str(path.parent))
        assert sha256_of(path, read.append) == hashlib.sha256(content).hexdigest() == known_sha256(path)
    assert sum(read) == len(content)


@pytest.mark.usefixtures("hub")
def test_a_file_that_changes_while_it_is_read_is_not_remembered(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(SMALL)
    with pytest.raises(ChangedError):
        sha256_of(path, lambda _: os.utime(path, ns=(1, 1)))
    assert known_sha256(path) is None


def test_a_good_file(hub: HubCache) -> None:
    hub.put(REPO, FILE, SMALL)
    (one,) = outcomes()
    assert (one.outcome, one.found, one.is_wrong) == ("verified", hashlib.sha256(SMALL).hexdigest(), False)
    assert [model.state for model in inventory(CATALOGUE)] == ["verified"]


def test_a_damaged_file(hub: HubCache) -> None:
    hub.put(REPO, FILE, SMALL, stored=BAD)
    (one,) = outcomes()
    assert (one.outcome, one.published, one.found) == (
        "damaged",
        hashlib.sha256(SMALL).hexdigest(),
        hashlib.sha256(BAD).hexdigest(),
    )
    assert [model.state for model in inventory(CATALOGUE)] == ["damaged"]


def test_damage_of_the_same_size_and_time_is_found(hub: HubCache) -> None:
    name = hub.put(REPO, FILE, SMALL)
    outcomes()
    before = name.stat()
    name.resolve().write_bytes(BAD)
    os.utime(name.resolve(), ns=(before.st_atime_ns, before.st_mtime_ns))
    assert [model.state for model in inventory(CATALOGUE)] == ["verified"]
    assert [one.outcome for one in outcomes()] == ["damaged"]
    assert [model.state for model in inventory(CATALOGUE)] == ["damaged"]


def test_what_is_missing(hub: HubCache) -> None:
    hub.put(REPO, FILE, SMALL).resolve().unlink()
    hub.put(REPO, "x-Q4_0-00002-of-00002.gguf", SMALL + bytes(32))
    assert {(one.file.repo_path, one.outcome) for one in outcomes()} == {
        (FILE, "missing"),
        ("x-Q4_0-00001-of-00002.gguf", "missing"),
        ("x-Q4_0-00002-of-00002.gguf", "verified"),
    }


def plain_file(hub: HubCache, content: bytes) -> Path:
    path = hub.folder(REPO) / "snapshots" / REVISION / FILE
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("content", "stated", "outcome"),
    [
        (SMALL, {}, "unknown"),
        (SMALL, {FILE: hashlib.sha256(SMALL).hexdigest()}, "verified"),
        (BAD, {FILE: hashlib.sha256(SMALL).hexdigest()}, "damaged"),
        (SMALL[:-1], {}, "damaged"),
        (b"no GGUF at all", {}, "damaged"),
    ],
)
def test_without_links_the_hub_is_asked(hub: HubCache, content: bytes, stated: dict[str, str], outcome: str) -> None:
    plain_file(hub, content)
    assert [one.outcome for one in outcomes(stated)] == [outcome]


@pytest.mark.usefixtures("hub")
def test_an_imported_file_is_right_if_the_hub_has_it() -> None:
    folder = layout.imported_folder(None, None)
    folder.mkdir(parents=True)
    (folder / "x.gguf").write_bytes(SMALL)
    assert [one.outcome for one in outcomes()] == ["unknown"]
    assert [one.outcome for one in outcomes(hashes=frozenset({hashlib.sha256(SMALL).hexdigest()}))] == ["verified"]


def test_a_file_that_cannot_be_read(hub: HubCache) -> None:
    name = hub.put(REPO, FILE, SMALL)
    blob = name.resolve()
    blob.unlink()
    blob.symlink_to(blob)  # a link to itself
    hub.put(REPO, "x-Q4_0.gguf", BAD)
    found = {one.file.repo_path: one for one in outcomes()}
    assert found[FILE].is_wrong
    assert found["x-Q4_0.gguf"].outcome == "verified"


def test_repair(hub: HubCache) -> None:
    for revision in (REVISION, OTHER_REVISION):
        hub.put(REPO, FILE, SMALL, stored=BAD, revision=revision)
    (wrong,) = outcomes()
    asked: list[tuple[str, str, str]] = []

    def refetch(repo: str, revision: str, path: str) -> None:
        assert asked or not wrong.file.path.exists()  # the bad copy is gone before anything is fetched
        asked.append((repo, revision, path))
        wrong.file.blob.write_bytes(SMALL)

    again = repair(wrong, refetch)
    assert (again.outcome, again.is_wrong) == ("repaired", False)
    assert asked == [(REPO, OTHER_REVISION, FILE), (REPO, REVISION, FILE)]


def test_what_cannot_be_fetched_is_not_loaded_either(hub: HubCache) -> None:
    hub.put(REPO, FILE, SMALL, stored=BAD)
    (wrong,) = outcomes()

    def refetch(_repo: str, _revision: str, _path: str) -> None:
        raise NetworkError("no network.", hint="wait.")

    with pytest.raises(NetworkError):
        repair(wrong, refetch)
    assert not wrong.file.path.exists()
    assert [model.state for model in inventory(CATALOGUE)] == ["incomplete"]


@pytest.mark.usefixtures("hub")
def test_what_was_imported_cannot_be_fetched_again() -> None:
    folder = layout.imported_folder(None, None)
    folder.mkdir(parents=True)
    (folder / "x.gguf").write_bytes(b"no GGUF")
    (wrong,) = outcomes()
    with pytest.raises(HermesError, match="was imported") as caught:
        repair(wrong, lambda _repo, _revision, _path: None)
    assert caught.value.hint.endswith("hermes rm x.gguf")
    assert (folder / "x.gguf").exists()


def test_a_file_that_grows_under_the_hash(hub: HubCache) -> None:
    """A real writer, not at any particular moment: whatever comes out, nothing wrong is remembered."""
    name = hub.put(REPO, FILE, SMALL)
    stop, begun = threading.Event(), threading.Event()

    def write() -> None:
        with name.resolve().open("ab", buffering=0) as file:
            while not stop.is_set():
                file.write(bytes(4096))
                begun.set()

    writer = threading.Thread(target=write)
    writer.start()
    assert begun.wait(HANG)
    try:
        (one,) = outcomes()
    finally:
        stop.set()
        writer.join()
    assert one.outcome in {"damaged", "unreadable"}
    assert [model.state for model in inventory(CATALOGUE)] != ["verified"]


def test_usage_counts_each_file_once(hub: HubCache, tmp_path: Path) -> None:
    large = SMALL + os.urandom(1 << 20)
    first = hub.put(REPO, FILE, large)
    hub.put(REPO, "copy-Q4_0.gguf", large)
    hub.put(REPO, "README.md", os.urandom(50_000))
    hub.put("other/text", "model.safetensors", os.urandom(500_000))
    hub.put_part(REPO, "f" * 64, os.urandom(300_000))
    (tmp_path / "elsewhere").hardlink_to(first.resolve())
    found = usage(inventory(CATALOGUE))
    assert sum(one.bytes for one in found.models) == first.stat().st_blocks * 512
    assert sorted(one.bytes > 0 for one in found.models) == [False, True]
    assert all(one.used_elsewhere for one in found.models)
    assert [(one.repo, one.count) for one in found.partial] == [(REPO, 1)]
    assert 300_000 <= found.partial[0].bytes < 320_000
    assert 550_000 <= found.other < 600_000
    assert found.disk.total >= found.disk.free > 0


@pytest.mark.usefixtures("hub")
def test_usage_of_nothing() -> None:
    found = usage([])
    assert (found.models, found.partial, found.other) == ((), (), 0)
    assert found.disk.free > 0
