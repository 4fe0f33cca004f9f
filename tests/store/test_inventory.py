from __future__ import annotations

import os
from pathlib import Path

import pytest
from gguf_bytes import SMALL
from hub_cache import OTHER_REVISION, REVISION, HubCache

from hermes_cli.catalog.file_names import joined_name
from hermes_cli.catalog.load import shipped_catalogue
from hermes_cli.catalog.variants import variants
from hermes_cli.errors import NotFoundError, UsageError
from hermes_cli.store import layout
from hermes_cli.store.hashing import remember_sha256
from hermes_cli.store.inventory import InstalledModel, inventory
from hermes_cli.store.library import select, select_one

CATALOGUE = shipped_catalogue()
OFFICIAL = "NousResearch/Hermes-3-Llama-3.1-8B-GGUF"
COMMUNITY = "bartowski/Hermes-3-Llama-3.1-8B-GGUF"
SHARDED = "lmstudio-community/Hermes-4-70B-GGUF"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HubCache:
    cache = HubCache(tmp_path)
    for name, value in cache.environment.items():
        monkeypatch.setenv(name, value)
    return cache


def names() -> list[str]:
    return [one.name for one in inventory(CATALOGUE)]


def named(name: str) -> list[InstalledModel]:
    return select(name, CATALOGUE, inventory(CATALOGUE))


def import_model(model_id: str | None, quantization: str | None, name: str, content: bytes = SMALL) -> Path:
    path = layout.imported_folder(model_id, quantization) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_nothing_is_here(hub: HubCache) -> None:
    assert not inventory(CATALOGUE)
    hub.hub.mkdir()
    (hub.hub / "CACHEDIR.TAG").touch()
    (hub.hub / "models--a--b").mkdir()
    assert not inventory(CATALOGUE)


def test_files_of_the_catalogue_of_others_and_imported_ones(hub: HubCache) -> None:
    hub.put(OFFICIAL, "Hermes-3-Llama-3.1-8B.Q4_K_M.gguf", SMALL)
    hub.put("somebody/Some-GGUF", "sub/some-Q8_0.gguf", SMALL)
    hub.put("somebody/Some-GGUF", "README.md", b"# some")
    import_model("hermes-3-llama-3.1-8b", "Q6_K", "x.gguf")
    import_model(None, None, "strange.gguf")
    found = {one.name: one for one in inventory(CATALOGUE)}
    assert set(found) == {"hermes-3:8b:Q4_K_M", "somebody/Some-GGUF:Q8_0", "hermes-3:8b:Q6_K", "strange.gguf"}
    official, other = found["hermes-3:8b:Q4_K_M"], found["somebody/Some-GGUF:Q8_0"]
    assert official.model
    assert official.model.short == "hermes-3:8b"
    assert (official.repo, official.revisions, official.bytes) == (OFFICIAL, (REVISION,), len(SMALL))
    assert official.files[0].blob == hub.blob(OFFICIAL, SMALL)
    assert official.files[0].sha256 == hub.blob(OFFICIAL, SMALL).name
    assert (other.model, other.quantization, other.file) == (None, "Q8_0", "sub/some-Q8_0.gguf")
    assert found["hermes-3:8b:Q6_K"].repo is None


def test_the_same_file_in_two_revisions_is_one(hub: HubCache) -> None:
    hub.put(OFFICIAL, "Hermes-3-Llama-3.1-8B.Q4_K_M.gguf", SMALL, revision=OTHER_REVISION)
    hub.put(OFFICIAL, "Hermes-3-Llama-3.1-8B.Q4_K_M.gguf", SMALL, revision=REVISION)
    (one,) = inventory(CATALOGUE)
    assert one.revisions == (REVISION, OTHER_REVISION)
    assert [name.parent.name for name in one.files[0].paths] == [REVISION, OTHER_REVISION]


def test_another_file_in_another_revision_is_another_of_the_same_name(hub: HubCache) -> None:
    hub.put(OFFICIAL, "Hermes-3-Llama-3.1-8B.Q4_K_M.gguf", SMALL, revision=REVISION)
    hub.put(OFFICIAL, "Hermes-3-Llama-3.1-8B.Q4_K_M.gguf", SMALL + bytes(32), revision=OTHER_REVISION)
    assert names() == ["hermes-3:8b:Q4_K_M"] * 2
    assert len(select_one("hermes-3:8b", CATALOGUE, inventory(CATALOGUE))) == 2


def test_a_name_means_one_file_only(hub: HubCache) -> None:
    hub.put(OFFICIAL, "Hermes-3-Llama-3.1-8B.Q4_K_M.gguf", SMALL)
    hub.put(COMMUNITY, "Hermes-3-Llama-3.1-8B-Q4_K_M.gguf", SMALL)
    hub.put("somebody/Some-GGUF", "a-Q8_0.gguf", SMALL)
    hub.put("somebody/Some-GGUF", "b-Q8_0.gguf", SMALL)
    assert names() == [
        f"{OFFICIAL}:Q4_K_M",
        f"{COMMUNITY}:Q4_K_M",
        "hf.co/somebody/Some-GGUF/blob/main/a-Q8_0.gguf",
        "hf.co/somebody/Some-GGUF/blob/main/b-Q8_0.gguf",
    ]
    for name in names():
        assert [one.name for one in named(name)] == [name]


@pytest.mark.parametrize(
    ("typed", "count"),
    [
        ("hermes-3:8b", 2),
        ("Hermes3 8B q4km", 1),
        ("hermes3:8b-llama3.1-q4_K_M", 1),
        ("nousresearch/hermes-3-llama-3.1-8b-gguf", 1),
        ("somebody/some-gguf", 1),
        ("somebody/Some-GGUF:q8_0", 1),
        ("https://huggingface.co/somebody/Some-GGUF/blob/main/some-Q8_0.gguf", 1),
        ("some-Q8_0.gguf", 1),
        ("strange.gguf", 1),
    ],
)
def test_every_name_finds_its_files(hub: HubCache, typed: str, count: int) -> None:
    hub.put(OFFICIAL, "Hermes-3-Llama-3.1-8B.Q4_K_M.gguf", SMALL)
    hub.put("somebody/Some-GGUF", "some-Q8_0.gguf", SMALL)
    import_model("hermes-3-llama-3.1-8b", "Q6_K", "x.gguf")
    import_model(None, None, "strange.gguf")
    assert len(named(typed)) == count


def test_a_path_finds_its_file(hub: HubCache, monkeypatch: pytest.MonkeyPatch) -> None:
    name = hub.put("somebody/Some-GGUF", "some-Q8_0.gguf", SMALL)
    assert len(named(str(name))) == 1
    assert len(named(str(name.resolve()))) == 1
    monkeypatch.chdir(name.parent)
    assert len(named("./some-Q8_0.gguf")) == 1


@pytest.mark.parametrize(
    ("typed", "error", "says"),
    [
        ("hermes-3:8b", NotFoundError, "hermes-3:8b is not on this machine"),
        ("somebody/Other", NotFoundError, "somebody/Other is not on this machine"),
        ("./other.gguf", NotFoundError, "other.gguf is not in the library"),
        ("demo", UsageError, "part of hermes itself"),
        ("nonsense", NotFoundError, "no model named nonsense"),
        ("", UsageError, "not the name of a model"),
    ],
)
def test_names_of_nothing(hub: HubCache, typed: str, error: type[Exception], says: str) -> None:
    hub.put("somebody/Some-GGUF", "some-Q8_0.gguf", SMALL)
    with pytest.raises(error, match=says):
        named(typed)


def test_names_of_several_are_listed(hub: HubCache) -> None:
    hub.put(OFFICIAL, "Hermes-3-Llama-3.1-8B.Q4_K_M.gguf", SMALL)
    hub.put(OFFICIAL, "Hermes-3-Llama-3.1-8B.Q8_0.gguf", SMALL + bytes(32))
    with pytest.raises(UsageError, match="2 models on this machine") as caught:
        select_one("hermes-3:8b", CATALOGUE, inventory(CATALOGUE))
    assert caught.value.hint == "say which: hermes-3:8b:Q4_K_M, hermes-3:8b:Q8_0"


def test_shards_are_one_model(hub: HubCache) -> None:
    for number in (1, 2):
        hub.put(SHARDED, f"Hermes-4-70B-Q8_0-0000{number}-of-00002.gguf", SMALL + bytes(32 * number))
    (one,) = inventory(CATALOGUE)
    assert one.name == "hermes-4:70b:Q8_0"
    assert (one.present, one.count, one.absent) == (2, 2, ())
    assert one.path.name.endswith("00001-of-00002.gguf")
    assert one.bytes == 2 * len(SMALL) + 96


def test_a_missing_shard_is_noticed(hub: HubCache) -> None:
    hub.put(SHARDED, "Hermes-4-70B-Q8_0-00002-of-00002.gguf", SMALL)
    (one,) = inventory(CATALOGUE)
    assert (one.present, one.count, one.state) == (1, 2, "incomplete")
    assert [file.repo_path for file in one.absent] == ["Hermes-4-70B-Q8_0-00001-of-00002.gguf"]
    assert one.absent[0].path == one.path.with_name("Hermes-4-70B-Q8_0-00001-of-00002.gguf")


def test_raw_parts_and_what_they_are_joined_to(hub: HubCache) -> None:
    variant = next(one for model in CATALOGUE.models for one in variants(model) if one.entry.parts)
    repo, (whole,) = variant.repository.repo, dict.fromkeys(map(joined_name, variant.files))
    hub.put(repo, variant.files[1], SMALL)
    (parts,) = inventory(CATALOGUE)
    assert (parts.present, parts.count, parts.state) == (1, len(variant.files), "incomplete")
    assert variant.files[0] in [file.repo_path for file in parts.absent]
    hub.put(repo, whole, SMALL + bytes(32))
    joined = next(one for one in inventory(CATALOGUE) if one.file == whole)
    assert joined.model
    assert (joined.count, joined.quantization) == (1, variant.quantization)


def test_a_link_to_nothing_is_told(hub: HubCache) -> None:
    name = hub.put("somebody/Some-GGUF", "some-Q8_0.gguf", SMALL)
    name.resolve().unlink()
    (one,) = inventory(CATALOGUE)
    assert (one.present, one.bytes, one.state) == (0, 0, "incomplete")


def test_plain_files_instead_of_links(hub: HubCache) -> None:
    """As huggingface_hub lays them out where there are no symbolic links."""
    path = hub.folder("somebody/Some-GGUF") / "snapshots" / REVISION / "some-Q8_0.gguf"
    path.parent.mkdir(parents=True)
    path.write_bytes(SMALL)
    (one,) = inventory(CATALOGUE)
    assert (one.files[0].blob, one.files[0].sha256) == (path, None)


def test_a_blob_in_the_store_that_repositories_share(hub: HubCache) -> None:
    name = hub.put("somebody/Some-GGUF", "some-Q8_0.gguf", SMALL)
    blob, store = hub.blob("somebody/Some-GGUF", SMALL), hub.hub / "blobs" / "ab" / ("ab" * 32)
    store.parent.mkdir(parents=True)
    blob.rename(store)
    blob.symlink_to(os.path.relpath(store, blob.parent))
    (one,) = inventory(CATALOGUE)
    assert (one.files[0].blob, one.files[0].sha256, one.path) == (blob, blob.name, name)


def test_the_state_follows_what_was_hashed(hub: HubCache) -> None:
    name = hub.put("somebody/Some-GGUF", "some-Q8_0.gguf", SMALL)
    assert [one.state for one in inventory(CATALOGUE)] == ["unverified"]
    remember_sha256(name, hub.blob("somebody/Some-GGUF", SMALL).name)
    assert [one.state for one in inventory(CATALOGUE)] == ["verified"]
    os.utime(name.resolve(), ns=(1, 1))
    assert [one.state for one in inventory(CATALOGUE)] == ["unverified"]
    remember_sha256(name, "0" * 64)
    assert [one.state for one in inventory(CATALOGUE)] == ["damaged"]


@pytest.mark.usefixtures("hub")
def test_an_imported_file_is_verified_by_any_hash_of_the_hub() -> None:
    path = import_model("hermes-4-70b", "Q4_K_M", "x.gguf")
    known = "ab9b59dd1df27c039952915aa4669a82b5f45e5e9532b98679c65dffe2fe9ee2"  # in catalog.yaml
    remember_sha256(path, "0" * 64)
    assert [one.state for one in inventory(CATALOGUE)] == ["unverified"]
    remember_sha256(path, known)
    assert [one.state for one in inventory(CATALOGUE)] == ["verified"]
