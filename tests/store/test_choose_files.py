"""The file that a pull takes of a repository, for the file lists of real ones (repositories.yaml)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import RunHermes
from hub_server import Hub, serving

from hermes_cli.catalog.file_names import models_in, read_quantization, why_not_loaded
from hermes_cli.catalog.load import HubFile, HubRepository, merged, shipped_catalogue
from hermes_cli.catalog.names import CatalogueReference, ModelNames
from hermes_cli.catalog.variants import variants
from hermes_cli.errors import HermesError, NotFoundError, UsageError
from hermes_cli.store.choose_files import choose_files

REPOSITORIES = yaml.safe_load(Path(__file__).with_name("repositories.yaml").read_text(encoding="utf-8"))
SHIPPED = shipped_catalogue()
REVISION = "a" * 40
GB = 10**9


class Listing:
    """One entry of repositories.yaml."""

    def __init__(self, entry: dict[str, Any]) -> None:
        self.repo: str = entry["repo"]
        self.models = {name: (entry["files"].replace("{}", name),) for name in entry["quantizations"]}
        self.models |= {name: tuple(files) for name, files in entry.get("more", {}).items()}
        self.parts: list[str] = entry.get("parts", [])
        paths = [path for files in self.models.values() for path in files]
        self.sizes = dict.fromkeys([*paths, *self.parts, *entry.get("others", [])], 1)
        self.takes: str = entry["takes"]
        self.typed: dict[str, str | list[str]] = entry.get("typed", {})
        self.missing: list[str] = entry.get("no", [])
        self.refused: list[str] = entry.get("refused", [])

    @property
    def hub(self) -> HubRepository:
        files = tuple(HubFile(path=path, bytes=size) for path, size in self.sizes.items() if ".gguf" in path)
        return HubRepository(revision=REVISION, fetched="2026-11-30", files=files)


LISTINGS = [Listing(entry) for entry in REPOSITORIES]
every_listing = pytest.mark.parametrize("listing", LISTINGS, ids=lambda listing: listing.repo)


@every_listing
def test_without_a_quantization(listing: Listing) -> None:
    choice = choose_files(listing.repo, listing.sizes, None)
    assert choice.files == listing.models[listing.takes]
    if len(listing.models) > 1:
        assert choice.notes[0].startswith("took ")


@every_listing
def test_each_quantization_is_taken_as_typed(listing: Listing) -> None:
    for name, files in listing.models.items():
        for typed in (name, name.lower(), name.upper(), f" {name}\n"):
            choice = choose_files(listing.repo, listing.sizes, typed)
            assert choice.files == files
            assert any("does not load" in note for note in choice.notes) is (name in listing.refused)
            assert any("raw parts" in note for note in choice.notes) is (".gguf" not in files[0][-5:])


@every_listing
def test_what_else_people_type(listing: Listing) -> None:
    for typed, expected in listing.typed.items():
        if isinstance(expected, list):
            with pytest.raises(UsageError, match=f"has {len(expected)} models in {typed}"):
                choose_files(listing.repo, listing.sizes, typed)
        else:
            assert choose_files(listing.repo, listing.sizes, typed).files == listing.models[expected]
    for typed in listing.missing:
        with pytest.raises(NotFoundError, match=f"has no {typed}") as caught:
            choose_files(listing.repo, listing.sizes, typed)
        assert "it has " in caught.value.hint


@every_listing
def test_parts_are_no_models(listing: Listing) -> None:
    models, companions = models_in(listing.sizes)
    assert {model.paths for model in models} == set(listing.models.values())
    assert set(companions) == set(listing.parts)
    assert len({model.title for model in models}) == 1


@every_listing
def test_a_refresh_changes_no_name(listing: Listing) -> None:
    known = {
        variant.name: variant.files
        for model in SHIPPED.models
        for variant in variants(model)
        if variant.repository.repo == listing.repo
    }
    refreshed = merged(SHIPPED, {listing.repo: listing.hub})
    names = ModelNames(refreshed)
    here = [
        variant for model in refreshed.models for variant in variants(model) if variant.repository.repo == listing.repo
    ]
    for variant in here:
        assert known.get(variant.name, variant.files) == variant.files
        reference = names.parse(variant.name)
        assert isinstance(reference, CatalogueReference)
        assert reference.quantization == variant.quantization
    if known:
        offered = {variant.files for variant in here}
        assert offered == {files for name, files in listing.models.items() if name not in listing.refused}
    if known and not listing.refused:
        assert {variant.quantization for variant in here} >= {
            read_quantization(name) or "Q4_0" for name in listing.models
        }


def test_known_names_after_a_refresh(hermes: RunHermes, tmp_path: Path) -> None:
    """b2-092: Q4_0 meant Q4_0_8_8, which llama.cpp cannot load, and Q8_0 another size."""
    hub = Hub({listing.repo: dict.fromkeys(listing.sizes, b"x") for listing in LISTINGS})
    ours = {f"HERMES_LLM_{name}_DIR": str(tmp_path / name) for name in ("DATA", "CACHE")}
    with serving(hub):
        environment = {**hub.environment, **ours, "HF_HUB_CACHE": str(tmp_path / "hub")}
        assert hermes("catalog", "refresh", env=environment).returncode == 0
        for name, files in {
            "hermes-3:8b:Q4_0": ["Hermes-3-Llama-3.1-8B-Q4_0.gguf"],
            "hermes-3:8b:Q6_K_L": ["Hermes-3-Llama-3.1-8B-Q6_K_L.gguf"],
            "hermes-4:70b:Q8_0": [f"Hermes-4-70B-Q8_0-0000{number}-of-00002.gguf" for number in (1, 2)],
            "hermes-4:70b:UD-Q6_K_XL": None,
            "hermes-4:70b:UD-Q3_K_XL": ["Hermes-4-70B-UD-Q3_K_XL.gguf"],
            "hermes-4:70b:UD-Q4_K_XL": ["Hermes-4-70B-UD-Q4_K_XL.gguf"],
            "hermes-3:8b:Q4_0_8_8": None,
        }.items():
            done = hermes("pull", name, "--dry-run", "--json", env=environment)
            found = [file["file"] for file in json.loads(done.stdout)["files"]] if done.returncode == 0 else None
            assert found == files, (name, done.stderr)
        done = hermes("list", "--all", "--json", env=environment)
        offered = {variant["quantization"] for variant in json.loads(done.stdout)["variants"]}
    assert "UD-Q8_K_XL" in offered
    assert not [name for name in offered if why_not_loaded(name)]


def test_the_largest_that_fits() -> None:
    sizes = {"x-Q2_K.gguf": 3 * GB, "x-Q3_K_M.gguf": 4 * GB, "x-Q4_K_M.gguf": 5 * GB, "x-Q8_0.gguf": 9 * GB}
    rooms = {20: "x-Q4_K_M.gguf", 5: "x-Q4_K_M.gguf", 4: "x-Q3_K_M.gguf", 3: "x-Q2_K.gguf", 1: "x-Q2_K.gguf"}
    for room, file in rooms.items():
        assert choose_files("a/b", sizes, None, room * GB).files == (file,)
    assert "larger than the free memory" in choose_files("a/b", sizes, None, GB).notes[0]


@pytest.mark.parametrize(
    ("files", "wanted", "says", "hint"),
    [
        (["README.md"], None, "a/b has no GGUF files.", "hermes search b"),
        (["m.7z.001", "m.7z.002"], None, "has no GGUF files, only archives", "hf download a/b"),
        (["onnx/model_q4.onnx"], None, "only weights for ONNX Runtime", "hermes search b"),
        (["model.safetensors", "config.json"], None, "only weights for other engines", "hermes search b"),
        (["llama.ggmlv3.q4_0.bin"], None, "only GGML files of 2023", "hermes search b"),
        (["x-eagle3-Q4_K_M.gguf"], None, "has no model: x-eagle3-Q4_K_M.gguf is a draft head (EAGLE-3)", "hermes pull"),
        (
            ["mmproj-F16.gguf"],
            None,
            "has no model: mmproj-F16.gguf is the part that",
            "hermes pull a/b/mmproj-F16.gguf",
        ),
        (["a:b-Q4_0.gguf"], None, "'a:b-Q4_0.gguf' is not accepted", "another repository"),
        (["A-Q4_0.gguf", "B-Q4_0.gguf"], None, "has 2 models: A-Q4_0.gguf, B-Q4_0.gguf", "hermes pull a/b/A-Q4_0.gguf"),
        (["A x-Q4_0.gguf", "B-Q4_0.gguf"], "q4_0", "has 2 models in q4_0", "hermes pull 'a/b/A x-Q4_0.gguf'"),
        (["x-Q8_0-00001-of-00002.gguf"], None, "only 1 of 2 files of x-Q8_0.gguf", "hermes show a/b"),
        (
            ["x-IQ3_KS.gguf"],
            None,
            "nothing that llama.cpp loads: IQ3_KS: it is made for ik_llama",
            "hermes pull a/b:IQ3_KS",
        ),
        (["x-Q4_0_8_8.gguf", "x-Q4_0_4_4.gguf"], None, "Q4_0_8_8: it was removed", "hermes pull a/b:Q4_0_8_8"),
        (
            ["x-chunk-001-of-002.gguf", "x-chunk-002-of-002.gguf"],
            None,
            "raw pieces that are not joined here: x-chunk-001-of-002.gguf, x-chunk-002",
            "hf download a/b --include 'x-chunk-00*'",
        ),
        (
            ["x-Q8_0.gguf", "x-Q4_K_M.gguf.00", "x-Q4_K_M.gguf.01"],
            "q4_k_m",
            "not joined here: x-Q4_K_M.gguf.00, x-Q4_K_M.gguf.01",
            "--include 'x-Q4_K_M.gguf.0*'",
        ),
        (
            ["A-Q4_K_M.gguf", "A-Q8_0.gguf", "B-Q4_K_M.gguf", "B-Q8_0.gguf"],
            None,
            "has 2 models: A-Q4_K_M.gguf, B-Q4_K_M.gguf.",
            "hermes pull a/b/A-Q4_K_M.gguf",
        ),
    ],
)
def test_what_cannot_be_taken(files: list[str], wanted: str | None, says: str, hint: str) -> None:
    with pytest.raises(HermesError) as caught:
        choose_files("a/b", dict.fromkeys(files, 1), wanted)
    assert says in caught.value.message
    assert hint in caught.value.hint


def test_what_llama_cpp_does_not_load_is_taken_if_it_is_named() -> None:
    choice = choose_files("a/b", {"x-IQ3_KS.gguf": 1}, "IQ3_KS")
    assert choice.files == ("x-IQ3_KS.gguf",)
    assert choice.notes == ("llama.cpp does not load IQ3_KS: it is made for ik_llama.cpp",)


@pytest.mark.parametrize(
    "companion",
    [
        "x-draft-Q4_K_M.gguf",
        "draft/x-0.5B-Q8_0.gguf",
        "x-eagle3-Q4_0.gguf",
        "EAGLE3-x-f16.gguf",
        "control_vector-happy.gguf",
        "controlvector_x.gguf",
        "x-projector-Q8_0.gguf",
        "clip-vit-f16.gguf",
        "x-vocoder-Q4_0.gguf",
        "tokenizer.gguf",
        "x-Q4_K_M.part01.gguf",
        "x-Q4_K_M.gguf.00",
        "x-Q4_K_M.gguf.partaa",
        "x-Q4_K_M.gguf.part1",
    ],
)
def test_a_companion_is_no_model(companion: str) -> None:
    models, companions = models_in(["x-Q8_0.gguf", companion])
    assert [model.first for model in models] == ["x-Q8_0.gguf"]
    assert list(companions) == [companion]


def test_a_repository_of_draft_models_has_models() -> None:
    assert choose_files("a/b", {"x-draft-Q4_K_M.gguf": 1}, None).files == ("x-draft-Q4_K_M.gguf",)


def test_what_is_not_whole_is_named() -> None:
    sizes = {"x-Q8_0.gguf": 1, "x-Q4_K_M-00001-of-00002.gguf": 1, "x-Q6_K.gguf.partaa": 1, "x-Q6_K.gguf.partab": 1}
    choice = choose_files("a/b", sizes, None)
    assert choice.files == ("x-Q8_0.gguf",)
    left = "x-Q4_K_M.gguf (1 of 2 files are there), x-Q6_K.gguf.partaa (a raw piece), x-Q6_K.gguf.partab (a raw piece)"
    assert choice.notes == (f"left out: {left}",)


def test_two_files_of_one_quantization_go_by_their_names() -> None:
    choice = choose_files("a/b", {"x-Q4_K_M.gguf": 2, "x.i1-Q4_K_M.gguf": 1}, None)
    assert choice.notes == ("took x-Q4_K_M.gguf, what most people run; it also has x.i1-Q4_K_M.gguf",)
