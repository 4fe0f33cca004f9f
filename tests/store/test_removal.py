from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from gguf_bytes import SMALL
from hub_cache import OTHER_REVISION, REVISION, HubCache
from huggingface_hub import scan_cache_dir

from hermes_cli.catalog.load import shipped_catalogue
from hermes_cli.store import layout
from hermes_cli.store.inventory import inventory
from hermes_cli.store.library import select
from hermes_cli.store.removal import (
    BUSY,
    ORIGINAL,
    OTHER_NAME,
    OTHER_PLACE,
    SHARED,
    Removal,
    plan_partial_removal,
    plan_removal,
    remove,
)

CATALOGUE = shipped_catalogue()
REPO = "somebody/Some-GGUF"
FILE = "some-Q8_0.gguf"
LARGE = SMALL + os.urandom(1 << 20)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HubCache:
    hub = HubCache(tmp_path)
    for name, value in hub.environment.items():
        monkeypatch.setenv(name, value)
    return hub


def removal(name: str) -> Removal:
    return plan_removal(select(name, CATALOGUE, inventory(CATALOGUE)))


def on_disk(path: Path) -> int:
    return path.stat().st_blocks * 512


def reasons(found: Removal) -> set[str]:
    return {one.reason for one in found.kept}


def test_everything_of_a_repository_goes_with_its_last_file(hub: HubCache) -> None:
    name = hub.put(REPO, FILE, LARGE)
    (hub.folder(REPO) / ".no_exist" / REVISION).mkdir(parents=True)
    (hub.folder(REPO) / ".no_exist" / REVISION / "config.json").touch()
    size = on_disk(name)
    found = removal(REPO)
    assert (found.names, found.blobs, found.kept) == ((name,), (hub.blob(REPO, LARGE),), ())
    assert found.frees == size >= len(LARGE)
    assert remove(found) == size
    assert not hub.folder(REPO).exists()
    assert not inventory(CATALOGUE)


def test_nothing_is_removed_by_looking(hub: HubCache) -> None:
    name = hub.put(REPO, FILE, LARGE)
    removal(REPO)
    assert name.read_bytes() == LARGE


def test_other_files_of_a_repository_stay(hub: HubCache) -> None:
    hub.put(REPO, FILE, LARGE)
    other = hub.put(REPO, "some-Q4_0.gguf", SMALL)
    readme = hub.put(REPO, "sub/README.md", b"# some")
    remove(removal(f"{REPO}:Q8_0"))
    assert (other.read_bytes(), readme.read_bytes()) == (SMALL, b"# some")
    assert not hub.blob(REPO, LARGE).exists()
    assert not scan_cache_dir(hub.hub).warnings


def test_all_revisions_of_a_file_go_together(hub: HubCache) -> None:
    hub.put(REPO, FILE, LARGE, revision=REVISION)
    hub.put(REPO, FILE, LARGE, revision=OTHER_REVISION)
    found = removal(REPO)
    assert len(found.names) == 2
    assert remove(found) == found.frees
    assert not hub.folder(REPO).exists()


def test_a_blob_that_another_name_uses_stays(hub: HubCache) -> None:
    hub.put(REPO, FILE, LARGE)
    other = hub.put(REPO, "copy-Q4_0.gguf", LARGE, revision=OTHER_REVISION)
    found = removal(f"{REPO}:Q8_0")
    assert (found.blobs, found.frees, reasons(found)) == ((), 0, {OTHER_NAME})
    assert remove(found) == 0
    assert other.read_bytes() == LARGE
    assert (hub.folder(REPO) / "refs" / "main").read_text() == OTHER_REVISION
    assert not (hub.folder(REPO) / "snapshots" / REVISION).exists()
    assert not scan_cache_dir(hub.hub).warnings


def test_a_reference_to_a_revision_that_is_gone_goes_too(hub: HubCache) -> None:
    hub.put(REPO, "some-Q4_0.gguf", SMALL, revision=OTHER_REVISION)
    hub.put(REPO, FILE, LARGE, revision=REVISION)
    remove(removal(f"{REPO}:Q8_0"))
    assert not (hub.folder(REPO) / "refs").exists()
    assert [one.name for one in inventory(CATALOGUE)] == [f"{REPO}:Q4_0"]
    assert not scan_cache_dir(hub.hub).warnings


def test_another_hard_link_keeps_the_bytes(hub: HubCache, tmp_path: Path) -> None:
    name = hub.put(REPO, FILE, LARGE)
    elsewhere = tmp_path / "elsewhere.gguf"
    elsewhere.hardlink_to(name.resolve())
    found = removal(REPO)
    assert (found.frees, reasons(found)) == (0, {OTHER_PLACE})
    assert remove(found) == 0
    assert elsewhere.read_bytes() == LARGE


def test_hard_links_that_all_go_free_the_bytes_once(hub: HubCache) -> None:
    name = hub.put(REPO, FILE, LARGE)
    other = hub.put("somebody/Other-GGUF", "other-Q8_0.gguf", SMALL)
    other.resolve().unlink()
    other.resolve().hardlink_to(name.resolve())
    size = on_disk(name)
    found = plan_removal(inventory(CATALOGUE))
    assert (found.frees, found.kept) == (size, ())
    assert remove(found) == size


def test_holes_are_not_counted(hub: HubCache) -> None:
    name = hub.put(REPO, FILE, SMALL)
    os.truncate(name, 1 << 30)
    found = removal(REPO)
    assert found.frees == on_disk(name) < 1 << 20
    assert remove(found) == found.frees


@pytest.mark.usefixtures("hub")
def test_of_an_imported_file_only_the_link_goes(tmp_path: Path) -> None:
    original = tmp_path / "original.gguf"
    original.write_bytes(LARGE)
    folder = layout.imported_folder("hermes-3-llama-3.1-8b", "Q8_0")
    folder.mkdir(parents=True)
    (folder / "hard.gguf").hardlink_to(original)
    others = layout.imported_folder(None, None)
    others.mkdir(parents=True)
    (others / "soft.gguf").symlink_to(original)
    hard, soft = removal("hermes-3:8b"), removal("soft.gguf")
    assert (hard.frees, reasons(hard)) == (0, {OTHER_PLACE})
    assert (soft.frees, reasons(soft)) == (0, {ORIGINAL})
    assert remove(hard) == remove(soft) == 0
    assert original.read_bytes() == LARGE
    assert not layout.imported_root().exists()


@pytest.mark.usefixtures("hub")
def test_a_copy_that_was_imported_frees_its_bytes() -> None:
    folder = layout.imported_folder(None, None)
    folder.mkdir(parents=True)
    (folder / "copy.gguf").write_bytes(LARGE)
    (folder / "other.gguf").write_bytes(SMALL)
    found = removal("copy.gguf")
    assert found.frees == remove(found) >= len(LARGE)
    assert [one.name for one in inventory(CATALOGUE)] == ["other.gguf"]


def test_of_a_symbolic_link_in_the_cache_the_original_stays(hub: HubCache, tmp_path: Path) -> None:
    name = hub.put(REPO, FILE, LARGE)
    original = name.resolve().rename(tmp_path / "original.gguf")
    hub.blob(REPO, LARGE).symlink_to(original)
    found = removal(REPO)
    assert (found.frees, reasons(found)) == (0, {ORIGINAL})
    assert remove(found) == 0
    assert original.read_bytes() == LARGE
    assert not hub.folder(REPO).exists()


def share(hub: HubCache, *repos: str) -> Path:
    """Put the blobs of some repositories into huggingface_hub's shared store, as it does itself."""
    store = hub.hub / "blobs" / "ab" / ("ab" * 32)
    store.parent.mkdir(parents=True)
    (hub.hub / "blobs" / ".huggingface-shared-blobs").write_text("1\n")
    store.write_bytes(LARGE)
    blobs = [hub.blob(repo, LARGE) for repo in repos]
    for blob in blobs:
        blob.unlink()
        blob.symlink_to(os.path.relpath(store, blob.parent))
    manifest = "".join(f"{blob.relative_to(hub.hub).as_posix()}\n" for blob in blobs)
    store.with_name(f"{store.name}.refs").write_text(manifest)
    return store


def test_the_store_that_repositories_share(hub: HubCache) -> None:
    hub.put(REPO, FILE, LARGE)
    hub.put("somebody/Other-GGUF", "other-Q8_0.gguf", LARGE)
    store = share(hub, REPO, "somebody/Other-GGUF")
    first = removal(REPO)
    assert (first.frees, reasons(first)) == (0, {SHARED})
    assert remove(first) == 0
    assert store.read_bytes() == LARGE
    second = removal("somebody/Other-GGUF")
    assert (second.frees, second.kept) == (len(LARGE), ())
    assert remove(second) >= len(LARGE)
    assert not store.exists()


def test_what_is_left_of_an_interrupted_download_goes_too(hub: HubCache) -> None:
    hub.put(REPO, FILE, SMALL)
    part = hub.put_part(REPO, hub.blob(REPO, SMALL).name, LARGE)
    other = hub.put_part(REPO, "f" * 64, LARGE)
    found = removal(REPO)
    assert found.partials == (part,)
    assert remove(found) == found.frees > len(LARGE)
    assert other.exists()


def test_unfinished_downloads_alone(hub: HubCache) -> None:
    name = hub.put(REPO, FILE, SMALL)
    mine, llama = hub.put_part(REPO, "e" * 64, LARGE), hub.blob(REPO, SMALL).with_name("x.downloadInProgress")
    llama.write_bytes(LARGE)
    lonely = hub.put_part("somebody/Lonely", "f" * 64, LARGE)
    found = plan_partial_removal(layout.repositories())
    assert set(found.partials) == {mine, llama, lonely}
    assert remove(found) == found.frees >= 3 * len(LARGE)
    assert name.exists()
    assert not lonely.parent.parent.exists()


HOLD = """
import sys
from huggingface_hub.utils import WeakFileLock
with WeakFileLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_download_under_way_is_left_alone(hub: HubCache) -> None:
    part = hub.put_part(REPO, "e" * 64, LARGE)
    lock = layout.lock_path(REPO, "e" * 64)
    lock.parent.mkdir(parents=True)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout
        assert other.stdin
        assert other.stdout.readline() == "held\n"
        found = plan_partial_removal([REPO])
        other.stdin.close()
    assert (found.partials, found.frees, reasons(found)) == ((), 0, {BUSY})
    assert plan_partial_removal([REPO]).partials == (part,)


def test_files_that_vanish_meanwhile_are_no_harm(hub: HubCache) -> None:
    name = hub.put(REPO, FILE, LARGE)
    found = removal(REPO)
    name.resolve().unlink()
    name.unlink()
    assert remove(found) == 0
    assert not hub.folder(REPO).exists()


def test_a_broken_link_can_be_removed(hub: HubCache) -> None:
    name = hub.put(REPO, FILE, LARGE)
    name.resolve().unlink()
    found = removal(REPO)
    assert found.frees == 0
    remove(found)
    assert not hub.folder(REPO).exists()


def test_a_cache_behind_a_link_and_a_crooked_path(
    hub: HubCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.put(REPO, FILE, LARGE)
    (tmp_path / "link").symlink_to(hub.hub)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "data" / ".." / "link"))
    (tmp_path / "data").mkdir()
    found = removal(REPO)
    assert remove(found) == found.frees >= len(LARGE)
    assert not hub.folder(REPO).exists()


AS_NOBODY = """
import os
from hermes_cli.catalog.load import shipped_catalogue
from hermes_cli.errors import HermesError
from hermes_cli.store.inventory import inventory
from hermes_cli.store.removal import plan_removal, remove

found = plan_removal(inventory(shipped_catalogue()))
if os.geteuid() == 0:  # root may remove everything
    os.setgid(65534)
    os.setuid(65534)
try:
    remove(found)
except HermesError as error:
    print(error.message)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_a_name_that_may_not_be_removed_keeps_its_file() -> None:
    with TemporaryDirectory() as folder:  # pytest's own are nobody's but ours
        Path(folder).chmod(0o755)
        hub = HubCache(Path(folder))
        name = hub.put(REPO, FILE, LARGE)
        name.parent.chmod(0o555)
        program = [sys.executable, "-c", AS_NOBODY]
        environment = {**os.environ, **hub.environment}
        done = subprocess.run(program, capture_output=True, text=True, check=True, env=environment)
        assert f"{name} cannot be removed: Permission denied." in done.stdout
        assert name.read_bytes() == LARGE
        name.parent.chmod(0o755)
