from __future__ import annotations

from pathlib import Path

import pytest

from hermes_cli import paths
from hermes_cli.catalog.load import (
    HubFile,
    HubRepository,
    Overlay,
    load_catalogue,
    merged,
    read_overlay,
    shipped_catalogue,
    write_overlay,
)
from hermes_cli.catalog.models import Repository
from hermes_cli.catalog.variants import variants
from hermes_cli.errors import HermesError

CATALOGUE = shipped_catalogue()
REPO = "NousResearch/Hermes-4.3-36B-GGUF"
REVISION = "a" * 40


def after(*files: HubFile) -> Repository:
    hub = HubRepository(revision=REVISION, fetched="2026-01-02", files=files)
    models = merged(CATALOGUE, {REPO: hub}).models
    return next(one for model in models for one in model.gguf if one.repo == REPO)


def test_the_hub_wins_where_it_speaks() -> None:
    repository = after(
        HubFile(path="hermes-4_3_36b-Q4_K_M.gguf", bytes=5, sha256="b" * 64),
        HubFile(path="hermes-4_3_36b-Q2_K.gguf", bytes=7),
    )
    assert repository.complete
    assert repository.revision == REVISION
    assert list(repository.quantizations) == ["Q4_K_M", "Q2_K"]
    assert repository.quantizations["Q4_K_M"].bytes == 5
    assert repository.quantizations["Q4_K_M"].sha256 == "b" * 64


def test_shards_and_parts_become_one_entry() -> None:
    repository = after(
        *(HubFile(path=f"Q8/m-Q8_0-{n:05}-of-00003.gguf", bytes=10, sha256="c" * 64) for n in (1, 2, 3)),
        *(HubFile(path=f"m.Q6_K.gguf.part{n}of2", bytes=20) for n in (1, 2)),
        HubFile(path="mmproj.gguf", bytes=1),
    )
    shards, parts = repository.quantizations["Q8_0"], repository.quantizations["Q6_K"]
    assert (shards.shards, shards.folder, shards.bytes, shards.sha256) == (3, "Q8", 30, None)
    assert (parts.parts, parts.bytes) == (2, 40)
    assert len(repository.quantizations) == 2


def test_file_names_survive_the_round_trip() -> None:
    names = ["x/y-Q4_K_M-00001-of-00002.gguf", "x/y-Q4_K_M-00002-of-00002.gguf"]
    hub = HubRepository(
        revision=REVISION, fetched="2026-01-02", files=tuple(HubFile(path=name, bytes=1) for name in names)
    )
    model = next(one for one in merged(CATALOGUE, {REPO: hub}).models if one.short == "hermes-4.3:36b")
    assert next(one.files for one in variants(model) if one.repository.repo == REPO) == tuple(names)


def test_other_repositories_stay_as_they_are() -> None:
    hub = HubRepository(revision=REVISION, fetched="2026-01-02", files=())
    changed = merged(CATALOGUE, {REPO: hub, "not/listed": hub})
    different = [a.short for a, b in zip(CATALOGUE.models, changed.models, strict=True) if a != b]
    assert different == ["hermes-4.3:36b"]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HERMES_LLM_DATA_DIR", str(tmp_path / "data"))
    load_catalogue.cache_clear()
    return tmp_path / "data"


@pytest.mark.usefixtures("data")
def test_what_is_kept_is_read_again() -> None:
    overlay: Overlay = {REPO: HubRepository(revision=REVISION, fetched="2026-01-02", files=())}
    assert write_overlay(overlay) == paths.catalog_overlay()
    assert read_overlay() == overlay
    load_catalogue.cache_clear()
    assert load_catalogue() == merged(CATALOGUE, overlay)
    load_catalogue.cache_clear()


@pytest.mark.parametrize("content", [b"", b"[]", b'{"a": 1}', b"\xff"])
def test_a_damaged_overlay_is_as_none(data: Path, content: bytes) -> None:
    data.mkdir()
    paths.catalog_overlay().write_bytes(content)
    assert read_overlay() == {}


def test_a_folder_that_cannot_be_written_is_one_clear_error(data: Path) -> None:
    data.write_text("a file where the folder should be")
    with pytest.raises(HermesError, match="cannot be written"):
        write_overlay({})
