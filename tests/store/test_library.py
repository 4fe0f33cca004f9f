from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from gguf_bytes import SMALL_SHARD

from hermes_cli import paths
from hermes_cli.catalog.file_names import joined_name
from hermes_cli.catalog.load import shipped_catalogue
from hermes_cli.catalog.names import CatalogueReference, ModelNames
from hermes_cli.catalog.variants import Variant, variants
from hermes_cli.errors import IntegrityError, NotFoundError, UsageError
from hermes_cli.store import layout
from hermes_cli.store.hashing import remember_sha256
from hermes_cli.store.library import find, installed, installed_quantizations

CATALOGUE = shipped_catalogue()
NAMES = ModelNames(CATALOGUE)
REVISION = "1" * 40


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HERMES_LLM_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("HERMES_LLM_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "hub"


@pytest.fixture
def put(cache: Path, demo_path: Path) -> Put:
    return Put(cache, demo_path)


class Put:
    """Puts files where the Hub's cache would have them: a blob, and a link from the snapshot."""

    def __init__(self, cache: Path, content: Path) -> None:
        self.cache = cache
        self.content = content

    def __call__(self, repo: str, *files: str, revision: str = REVISION) -> Path:
        folder = self.cache / f"models--{repo.replace('/', '--')}"
        (folder / "blobs").mkdir(parents=True, exist_ok=True)
        blob = folder / "blobs" / "content"
        shutil.copyfile(self.content, blob)
        for file in files:
            place = folder / "snapshots" / revision / file
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(os.path.relpath(blob, place.parent))
        return folder / "snapshots" / revision


def variant(name: str, repository: str | None = None) -> Variant:
    wanted = NAMES.parse(name)
    assert isinstance(wanted, CatalogueReference)
    return next(
        one
        for one in variants(wanted.model)
        if one.quantization == wanted.quantization and repository in {None, one.repository.repo}
    )


def test_nothing_is_here_at_first() -> None:
    assert not any(installed_quantizations(model) for model in CATALOGUE.models)


def test_a_fetched_file_is_found(put: Put) -> None:
    one = variant("hermes-3:8b:Q4_K_M")
    folder = put(one.repository.repo, *one.files)
    assert installed(one) == folder / one.files[0]
    file = find(NAMES.parse("hermes-3:8b"), CATALOGUE)
    assert (file.name, file.path) == ("hermes-3:8b:Q4_K_M", folder / one.files[0])


def test_the_best_that_is_here_is_taken(put: Put) -> None:
    for name in ("hermes-3:8b:Q4_K_M", "hermes-3:8b:Q8_0", "hermes-3:8b:Q6_K"):
        one = variant(name)
        put(one.repository.repo, *one.files)
    assert find(NAMES.parse("hermes-3:8b"), CATALOGUE).name == "hermes-3:8b:Q8_0"
    assert find(NAMES.parse("hermes-3:8b:Q6_K"), CATALOGUE).name == "hermes-3:8b:Q6_K"


def test_all_shards_must_be_here_in_one_revision(put: Put) -> None:
    one = variant("hermes-4:70b:Q8_0")
    assert len(one.files) == 2
    put(one.repository.repo, one.files[0])
    put(one.repository.repo, one.files[1], revision="2" * 40)
    assert installed(one) is None
    folder = put(one.repository.repo, one.files[1])
    assert installed(one) == folder / one.files[0]


def test_raw_parts_cannot_be_loaded_until_they_are_joined(put: Put) -> None:
    one = variant("nous-hermes-llama2:70b:Q8_0")
    put(one.repository.repo, *one.files)
    assert installed(one) is None
    (whole,) = dict.fromkeys(map(joined_name, one.files))
    folder = put(one.repository.repo, whole)
    assert installed(one) == folder / whole


def test_a_link_to_nothing_does_not_count(put: Put) -> None:
    one = variant("hermes-3:8b:Q4_K_M")
    folder = put(one.repository.repo, *one.files)
    (folder / one.files[0]).resolve().unlink()
    assert installed(one) is None


def test_main_comes_before_newer_revisions(put: Put, cache: Path) -> None:
    one = variant("hermes-3:8b:Q4_K_M")
    old = put(one.repository.repo, *one.files, revision="a" * 40)
    put(one.repository.repo, *one.files, revision="b" * 40)
    refs = cache / f"models--{one.repository.repo.replace('/', '--')}" / "refs"
    refs.mkdir()
    (refs / "main").write_text("a" * 40)
    assert installed(one) == old / one.files[0]


def test_what_is_not_here_says_how_to_get_it() -> None:
    with pytest.raises(NotFoundError) as caught:
        find(NAMES.parse("hermes-3:8b"), CATALOGUE)
    assert "hermes-3:8b is not on this machine" in caught.value.message
    assert "hermes pull hermes-3:8b:Q4_K_M" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "says", "hint"),
    [
        ("openhermes-1:7b", "no GGUF files of OpenHermes 7B are known", "convert teknium/OpenHermes-7B"),
        ("hermes-4:14b:Q2_K", "no Q2_K of hermes-4:14b is known", "Q4_K_M"),
        ("somebody/Some-GGUF", "somebody/Some-GGUF is not on this machine", "hermes pull somebody/Some-GGUF"),
        ("somebody/Some-GGUF:q8_0", "q8_0 of somebody/Some-GGUF is not", "hermes pull somebody/Some-GGUF:q8_0"),
        ("./nothing.gguf", "there is no file nothing.gguf", "hermes list"),
    ],
)
def test_what_cannot_be_found(name: str, says: str, hint: str) -> None:
    with pytest.raises(NotFoundError) as caught:
        find(NAMES.parse(name), CATALOGUE)
    assert says in caught.value.message
    assert hint in caught.value.hint


def test_other_repositories_are_found_too(put: Put) -> None:
    folder = put("somebody/Some-GGUF", "some-Q4_K_M.gguf", "some-Q8_0.gguf")
    assert find(NAMES.parse("somebody/Some-GGUF:q8_0"), CATALOGUE).path == folder / "some-Q8_0.gguf"
    with pytest.raises(UsageError, match="several files"):
        find(NAMES.parse("somebody/Some-GGUF"), CATALOGUE)


def test_a_file_of_an_older_revision_is_found(put: Put) -> None:
    folder = put("somebody/Some-GGUF", "some-Q4_K_M.gguf", revision="a" * 40)
    put("somebody/Some-GGUF", "some-Q8_0.gguf", revision="b" * 40)
    assert find(NAMES.parse("somebody/Some-GGUF:q4_k_m"), CATALOGUE).path == folder / "some-Q4_K_M.gguf"
    assert find(NAMES.parse("some-Q4_K_M.gguf"), CATALOGUE).path == folder / "some-Q4_K_M.gguf"


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("hermes-3:8b", "hermes-3:8b:Q6_K"),
        ("hermes-3:8b:Q4_0", "hermes-3:8b:Q4_0"),
        ("any.gguf", "any"),
    ],
)
def test_imported_files_are_found(typed: str, found: str, demo_path: Path) -> None:
    for folder, name in (
        (layout.imported_folder("hermes-3-llama-3.1-8b", "Q6_K"), "x.gguf"),
        (layout.imported_folder("hermes-3-llama-3.1-8b", "Q4_0"), "Hermes-3.gguf"),
        (layout.imported_folder("hermes-3-llama-3.1-8b", "no such one"), "y.gguf"),
        (layout.imported_folder(None, None), "any.gguf"),
    ):
        folder.mkdir(parents=True)
        (folder / name).symlink_to(demo_path)
    file = find(NAMES.parse(typed), CATALOGUE)
    assert file.name == found
    assert file.path.resolve() == demo_path
    hermes3 = next(model for model in CATALOGUE.models if model.short == "hermes-3:8b")
    assert {"Q6_K", "Q4_0"} < installed_quantizations(hermes3)


def test_of_fetched_and_imported_ones_the_best_is_taken(put: Put, demo_path: Path) -> None:
    one = variant("hermes-3:8b:Q8_0")
    put(one.repository.repo, *one.files)
    folder = layout.imported_folder("hermes-3-llama-3.1-8b", "Q4_0")
    folder.mkdir(parents=True)
    (folder / "x.gguf").symlink_to(demo_path)
    assert find(NAMES.parse("hermes-3:8b"), CATALOGUE).name == "hermes-3:8b:Q8_0"
    with pytest.raises(NotFoundError):
        find(NAMES.parse(f"{one.repository.repo}:Q4_0"), CATALOGUE)


def test_what_was_found_to_be_damaged_is_not_loaded(put: Put) -> None:
    folder = put("somebody/Some-GGUF", "some-Q4_K_M.gguf")
    name = folder / "some-Q4_K_M.gguf"
    blob = name.resolve().rename(name.resolve().with_name("0" * 64))
    name.unlink()
    name.symlink_to(blob)
    assert find(NAMES.parse("somebody/Some-GGUF"), CATALOGUE).path == name
    remember_sha256(name, "1" * 64)
    with pytest.raises(IntegrityError, match="damaged") as caught:
        find(NAMES.parse("somebody/Some-GGUF"), CATALOGUE)
    assert "hermes verify --repair some-Q4_K_M.gguf" in caught.value.hint
    remember_sha256(name, "0" * 64)
    assert find(NAMES.parse("somebody/Some-GGUF"), CATALOGUE).path == name


def test_a_later_shard_names_the_first(tmp_path: Path) -> None:
    path = tmp_path / "m-00002-of-00003.gguf"
    path.write_bytes(SMALL_SHARD)
    with pytest.raises(UsageError, match="shard 2 of 3") as caught:
        find(NAMES.parse(str(path)), CATALOGUE)
    assert "m-00001-of-00003.gguf" in caught.value.hint


def test_the_demo_is_checked(demo_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "demo.gguf"
    raw = bytearray(demo_path.read_bytes())
    raw[-1] ^= 1
    copy.write_bytes(raw)
    monkeypatch.setattr(paths, "asset", lambda _: copy)
    with pytest.raises(IntegrityError, match="SHA-256 differs"):
        find(NAMES.parse("demo"), CATALOGUE)
    copy.unlink()
    with pytest.raises(NotFoundError, match="missing"):
        find(NAMES.parse("demo"), CATALOGUE)
