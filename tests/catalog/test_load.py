from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from hermes_cli import paths
from hermes_cli.catalog import load
from hermes_cli.errors import HermesError

TEXT = paths.catalog().read_text(encoding="utf-8")


@pytest.fixture
def catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of catalog.yaml that hermes takes for its own, with an empty cache folder."""
    path = tmp_path / "catalog.yaml"
    path.write_text(TEXT, encoding="utf-8")
    monkeypatch.setattr(paths, "catalog", lambda: path)
    monkeypatch.setenv("HERMES_LLM_CACHE_DIR", str(tmp_path / "cache"))
    return path


def compiled(path: Path) -> list[Path]:
    return sorted((path.parent / "cache").glob("*"))


def test_compiled_is_what_yaml_says(catalogue: Path) -> None:
    first = load.shipped_catalogue()
    assert len(compiled(catalogue)) == 1
    assert load.shipped_catalogue() == first == load.read_yaml(TEXT)


@pytest.mark.usefixtures("catalogue")
def test_second_load_reads_no_yaml(monkeypatch: pytest.MonkeyPatch) -> None:
    first = load.shipped_catalogue()
    monkeypatch.setattr(load, "read_yaml", lambda _: pytest.fail("read YAML again"))
    assert load.shipped_catalogue() == first


def test_an_edit_is_seen_at_once_even_with_the_old_time(catalogue: Path) -> None:
    load.shipped_catalogue()
    before = catalogue.stat()
    catalogue.write_text(TEXT.replace("name: Hermes 3 Llama 3.1 8B", "name: Hermes 3 Llama 3.1 8b"), encoding="utf-8")
    os.utime(catalogue, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert any(model.name == "Hermes 3 Llama 3.1 8b" for model in load.shipped_catalogue().models)
    assert len(compiled(catalogue)) == 1  # the old one is gone


@pytest.mark.parametrize("content", [b"", b"{", b'{"models": []}', b"\xff\xfe", b"null"])
def test_a_damaged_cache_is_made_again(catalogue: Path, content: bytes) -> None:
    first = load.shipped_catalogue()
    compiled(catalogue)[0].write_bytes(content)
    assert load.shipped_catalogue() == first
    assert compiled(catalogue)[0].read_bytes() != content


def test_a_cache_that_cannot_be_written_does_not_matter(catalogue: Path) -> None:
    (catalogue.parent / "cache").write_text("a file where the folder should be")
    assert load.shipped_catalogue().models


def test_a_faulty_catalogue_is_one_clear_error(catalogue: Path) -> None:
    catalogue.write_text(TEXT.replace("layers: 64", "layers: many"), encoding="utf-8")
    with pytest.raises(HermesError, match=r"Expected `int`, got `str`.*layers") as caught:
        load.shipped_catalogue()
    assert "hermes catalog check" in caught.value.hint


def test_a_missing_catalogue_is_one_clear_error(catalogue: Path) -> None:
    catalogue.unlink()
    with pytest.raises(HermesError, match="cannot be read"):
        load.shipped_catalogue()


def test_dates_stay_text() -> None:
    assert yaml.load("a: 2024-08-15", Loader=load.yaml_loader()) == {"a": "2024-08-15"}  # noqa: S506 - a safe loader
