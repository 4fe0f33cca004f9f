from __future__ import annotations

import hashlib
import json
import os
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from gguf_bytes import SMALL, entry, gguf, string, tensor
from hub_cache import REVISION, HubCache
from huggingface_hub import scan_cache_dir, try_to_load_from_cache
from hypothesis import given
from hypothesis import strategies as st
from tiny_bert import write_tiny_bert

from hermes_cli.catalog.load import HubFile, HubRepository, load_catalogue, shipped_catalogue, write_overlay
from hermes_cli.catalog.models import CatalogModel, Catalogue
from hermes_cli.catalog.names import ModelNames
from hermes_cli.errors import HermesError, IntegrityError, NotFoundError, UsageError
from hermes_cli.gguf.types import FILE_TYPES
from hermes_cli.store import layout
from hermes_cli.store.hashing import known_sha256, sha256_of
from hermes_cli.store.importing import Identity, ImportedModel, identify, import_model
from hermes_cli.store.inventory import inventory, known_files
from hermes_cli.store.library import find
from hermes_cli.store.other_tools import FoundModel, SkippedFile, find_models, lm_studio_models, ollama_models

CATALOGUE = shipped_catalogue()
OFFICIAL = "NousResearch/Hermes-3-Llama-3.1-8B-GGUF"
FILE = "Hermes-3-Llama-3.1-8B.Q4_K_M.gguf"
MODEL_LAYER = "application/vnd.ollama.image.model"


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HubCache:
    hub = HubCache(tmp_path)
    for name, value in hub.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("OLLAMA_MODELS", raising=False)
    hub.home.mkdir()
    load_catalogue.cache_clear()
    return hub


def model(short: str) -> CatalogModel:
    return next(one for one in CATALOGUE.models if one.short == short)


def weights(
    short: str,
    *,
    title: str = "",
    mix: str = "",
    vocabulary: int = 0,
    kind: str = "",
    split: tuple[int, int] | None = None,
) -> bytes:
    """A file whose header is that of a model of the catalogue, as far as that says what it is."""
    a = model(short).architecture
    figures = {
        "block_count": a.layers,
        "embedding_length": a.embedding_length,
        "feed_forward_length": a.feed_forward_length,
        "attention.head_count": a.heads,
        "attention.head_count_kv": a.kv_heads,
        **({"expert_count": a.experts} if a.experts else {}),
    }
    entries = [entry("general.architecture", 8, string(a.kind))]
    entries += [entry(f"{a.kind}.{key}", 4, struct.pack("<I", value)) for key, value in figures.items()]
    texts = {"general.name": title, "general.type": kind}
    entries += [entry(key, 8, string(text)) for key, text in texts.items() if text]
    if mix:
        number = next(number for number, name in FILE_TYPES.items() if name == mix)
        entries.append(entry("general.file_type", 4, struct.pack("<I", number)))
    if vocabulary:
        entries.append(entry("tokenizer.ggml.scores", 9, struct.pack("<IQ", 6, vocabulary) + bytes(4 * vocabulary)))
        entries.append(entry("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, vocabulary) + bytes(8 * vocabulary)))
    if split:
        entries.append(entry("split.no", 2, struct.pack("<H", split[0])))
        entries.append(entry("split.count", 2, struct.pack("<H", split[1])))
    return gguf(entries, [tensor("token_embd.weight", (8, 2))], bytes(64))


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def found(path: Path) -> FoundModel:
    (one,) = find_models(path)
    assert isinstance(one, FoundModel)
    return one


def identified(path: Path, catalogue: Catalogue = CATALOGUE) -> Identity:
    return identify(found(path), catalogue, list(known_files(catalogue)), sha256_of)


def adopted(path: Path, *, copy: bool = False) -> ImportedModel:
    catalogue = load_catalogue()
    return import_model(found(path), identified(path, catalogue), copy=copy)


def learn(*files: tuple[str, bytes], repo: str = OFFICIAL) -> None:
    """As if `hermes catalog refresh` had asked the Hub."""
    told = tuple(HubFile(path=name, bytes=len(raw), sha256=hashlib.sha256(raw).hexdigest()) for name, raw in files)
    write_overlay({repo: HubRepository(revision=REVISION, fetched="2026-01-01", files=told)})
    load_catalogue.cache_clear()


# What a file is


@pytest.mark.parametrize(
    ("name", "short", "quantization"),
    [
        (FILE, "hermes-3:8b", "Q4_K_M"),
        ("hermes-3-llama-3.1-8b-q4_k_m.gguf", "hermes-3:8b", "Q4_K_M"),
        ("NousResearch_Hermes-4-14B-IQ4_XS.gguf", "hermes-4:14b", "IQ4_XS"),
        ("hermes-4_3_36b-Q4_K_M.gguf", "hermes-4.3:36b", "Q4_K_M"),
        ("DeepHermes-3-Llama-3-8B-q4.gguf", "deephermes-3:8b", "Q4_0"),
        ("openhermes-2.5-mistral-7b.Q4_K_S.gguf", "openhermes-2.5:7b", "Q4_K_S"),
    ],
)
def test_by_name_and_header(tmp_path: Path, name: str, short: str, quantization: str) -> None:
    path = put(tmp_path / "downloads" / name, weights(short))
    one = identified(path)
    assert one.model
    assert (one.evidence, one.model.short, one.quantization) == ("header", short, quantization)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("Hermes-3-Llama-3.1-8B-lorablated.Q4_K_M.gguf", weights("hermes-3:8b", title="Hermes 3 Llama 3.1 8B")),
        (FILE, weights("hermes-3:3b")),
        (FILE, weights("hermes-3:8b", vocabulary=100)),
        (FILE, weights("hermes-3:8b", mix="Q8_0")),
        (FILE, SMALL),
        ("model.gguf", weights("hermes-3:8b", mix="Q8_0")),
        ("Llama-3.1-8B-Q4_K_M.gguf", weights("hermes-3:8b", mix="Q4_K_M")),
    ],
    ids=["variation", "other shape", "other vocabulary", "other mix", "no shape", "no name", "base model"],
)
def test_what_is_not_what_it_seems(tmp_path: Path, name: str, content: bytes) -> None:
    assert identified(put(tmp_path / name, content)).evidence == "unknown"


def test_the_title_says_what_the_file_name_does_not(tmp_path: Path) -> None:
    path = put(tmp_path / "model.gguf", weights("hermes-3:8b", title="Hermes 3 Llama 3.1 8B", mix="Q6_K"))
    one = identified(path)
    assert one.model
    assert (one.model.short, one.quantization) == ("hermes-3:8b", "Q6_K")


def test_the_folder_of_a_repository_says_what_it_is(tmp_path: Path) -> None:
    one = identified(put(tmp_path / OFFICIAL / "weights-Q4_K_M.gguf", weights("hermes-3:8b", mix="Q4_K_M")))
    assert one.model
    assert (one.model.short, one.quantization) == ("hermes-3:8b", "Q4_K_M")


def test_by_exact_size(tmp_path: Path) -> None:
    path = put(tmp_path / "Hermes-3-Llama-3.2-3B.Q8_0.gguf", weights("hermes-3:3b"))
    os.truncate(path, 3_421_895_488)
    known = [one for one in known_files(CATALOGUE) if not one.sha256]
    assert identify(found(path), CATALOGUE, known, sha256_of).evidence == "size"


def test_by_hash(tmp_path: Path) -> None:
    content = weights("hermes-3:8b")
    learn((FILE, content), ("Hermes-3-Llama-3.1-8B.Q8_0.gguf", content + bytes(32)))
    one = identified(put(tmp_path / "whatever.gguf", content), load_catalogue())
    assert one.model
    assert (one.evidence, one.model.short, one.quantization) == ("hash", "hermes-3:8b", "Q4_K_M")
    assert [(known.repo, known.path, known.revision) for known in one.known] == [(OFFICIAL, FILE, REVISION)]


def test_a_damaged_copy_is_refused(tmp_path: Path) -> None:
    content = weights("hermes-3:8b")
    learn((FILE, content))
    path = put(tmp_path / FILE, content[:-1] + b"x")
    with pytest.raises(IntegrityError, match="damaged or altered") as caught:
        identified(path, load_catalogue())
    assert "hermes pull hermes-3:8b:Q4_K_M" in caught.value.hint


def test_nothing_is_hashed_that_cannot_match(tmp_path: Path) -> None:
    path = put(tmp_path / "whatever.gguf", weights("hermes-3:8b"))

    def hash_of(_path: Path) -> str:
        raise AssertionError

    assert identify(found(path), CATALOGUE, list(known_files(CATALOGUE)), hash_of).evidence == "unknown"


# Where it goes


def test_a_file_of_the_hub_goes_into_the_hubs_cache(tmp_path: Path, hub: HubCache) -> None:
    content = weights("hermes-3:8b")
    learn((FILE, content))
    path = put(tmp_path / "whatever.gguf", content)
    one = adopted(path)
    assert (one.name, one.how) == ("hermes-3:8b:Q4_K_M", "hard link")
    name = hub.folder(OFFICIAL) / "snapshots" / REVISION / FILE
    assert one.paths == (name,)
    assert name.resolve() == hub.blob(OFFICIAL, content)
    assert name.stat().st_ino == path.stat().st_ino
    assert try_to_load_from_cache(OFFICIAL, FILE, cache_dir=hub.hub) == str(name)
    assert not scan_cache_dir(hub.hub).warnings
    assert [(here.name, here.state) for here in inventory(load_catalogue())] == [("hermes-3:8b:Q4_K_M", "verified")]
    path.unlink()
    assert name.read_bytes() == content


def test_what_is_in_the_cache_already_is_not_touched(tmp_path: Path, hub: HubCache) -> None:
    content = weights("hermes-3:8b")
    learn((FILE, content))
    name = hub.put(OFFICIAL, FILE, content)
    before = name.stat().st_ino
    assert adopted(put(tmp_path / "whatever.gguf", content)).how == "already here"
    assert name.stat().st_ino == before


def test_a_ref_that_is_there_is_not_moved(tmp_path: Path, hub: HubCache) -> None:
    content = weights("hermes-3:8b")
    learn((FILE, content))
    hub.put(OFFICIAL, "README.md", b"#", revision="f" * 40)
    adopted(put(tmp_path / "whatever.gguf", content))
    assert (hub.folder(OFFICIAL) / "refs" / "main").read_text() == "f" * 40


def test_likely_ones_are_found_by_their_catalogue_name(tmp_path: Path) -> None:
    path = put(tmp_path / FILE, weights("hermes-3:8b"))
    one = adopted(path)
    assert (one.name, one.how) == ("hermes-3:8b:Q4_K_M", "hard link")
    assert one.paths == (layout.imported_folder("hermes-3-llama-3.1-8b", "Q4_K_M") / FILE,)
    assert find(ModelNames(CATALOGUE).parse("hermes-3:8b"), CATALOGUE).path == one.paths[0]
    assert adopted(path).how == "already here"


def test_unknown_ones_are_found_by_their_file_names(tmp_path: Path) -> None:
    one = adopted(put(tmp_path / "strange.gguf", SMALL))
    assert one.paths == (layout.imported_folder(None, None) / "strange.gguf",)
    assert find(ModelNames(CATALOGUE).parse("strange.gguf"), CATALOGUE).path == one.paths[0]


def test_another_file_of_the_same_name_is_not_overwritten(tmp_path: Path) -> None:
    adopted(put(tmp_path / "a" / "strange.gguf", SMALL))
    with pytest.raises(HermesError, match="is another file"):
        adopted(put(tmp_path / "b" / "strange.gguf", SMALL + bytes(32)))
    assert (layout.imported_folder(None, None) / "strange.gguf").read_bytes() == SMALL


def test_across_disks_by_a_symbolic_link(tmp_path: Path) -> None:
    memory = Path("/dev/shm")  # noqa: S108 - another disk, on Linux
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is only one disk")
    path = memory / f"hermes-{os.getpid()}.gguf"
    try:
        path.write_bytes(SMALL)
        one = adopted(path)
        assert one.how == "symbolic link"
        assert one.paths[0].readlink() == path
        assert adopted(path).how == "already here"
    finally:
        path.unlink()
    assert [here.state for here in inventory(CATALOGUE)] == ["incomplete"]


def test_copies_only_when_asked(tmp_path: Path, hub: HubCache) -> None:
    content = weights("hermes-3:8b")
    learn((FILE, content))
    path = put(tmp_path / "whatever.gguf", content)
    one = adopted(path, copy=True)
    assert (one.how, one.paths[0].read_bytes()) == ("copy", content)
    assert one.paths[0].stat().st_ino != path.stat().st_ino
    assert known_sha256(one.paths[0]) == hub.blob(OFFICIAL, content).name
    other = adopted(put(tmp_path / "strange.gguf", SMALL), copy=True)
    assert other.paths[0].stat().st_nlink == 1
    assert sorted(path.name for path in other.paths[0].parent.iterdir()) == ["strange.gguf"]


def test_a_link_is_followed_to_its_file(tmp_path: Path) -> None:
    path = put(tmp_path / "real.gguf", SMALL)
    (tmp_path / "name.gguf").symlink_to(path)
    one = adopted(tmp_path / "name.gguf")
    assert one.originals == (path,)
    assert one.paths[0].name == "name.gguf"
    assert one.paths[0].stat().st_ino == path.stat().st_ino


def test_pretending_does_nothing(tmp_path: Path) -> None:
    path = put(tmp_path / FILE, weights("hermes-3:8b"))
    one = import_model(found(path), identified(path), dry_run=True)
    assert (one.how, one.paths[0].name) == (None, FILE)
    assert not layout.imported_root().exists()


def shards(folder: Path, count: int = 2, *, without: int = 0, stem: str = "Hermes-4-70B-Q8_0") -> None:
    for number in range(1, count + 1):
        if number != without:
            content = weights("hermes-4:70b", split=(number - 1, count))
            put(folder / f"{stem}-{number:05}-of-{count:05}.gguf", content + bytes(32 * number))


@pytest.mark.parametrize(
    "given", ["", "Hermes-4-70B-Q8_0-00001-of-00002.gguf", "Hermes-4-70B-Q8_0-00002-of-00002.gguf"]
)
def test_all_shards_come_together(tmp_path: Path, given: str) -> None:
    shards(tmp_path / "shards")
    one = adopted(tmp_path / "shards" / given)
    assert one.name == "hermes-4:70b:Q8_0"
    assert [path.name[-19:] for path in one.paths] == ["-00001-of-00002.gguf"[1:], "-00002-of-00002.gguf"[1:]]
    assert [(here.name, here.present, here.count) for here in inventory(CATALOGUE)] == [("hermes-4:70b:Q8_0", 2, 2)]


def test_shards_of_the_hub_by_hash(tmp_path: Path, hub: HubCache) -> None:
    repo = "lmstudio-community/Hermes-4-70B-GGUF"
    shards(tmp_path / "shards")
    names = sorted(path.name for path in (tmp_path / "shards").iterdir())
    learn(*((name, (tmp_path / "shards" / name).read_bytes()) for name in names), repo=repo)
    one = adopted(tmp_path / "shards")
    assert one.identity.evidence == "hash"
    assert one.paths == tuple(hub.folder(repo) / "snapshots" / REVISION / name for name in names)


def test_shards_that_are_missing_or_misnamed(tmp_path: Path) -> None:
    shards(tmp_path / "a", without=2)
    shards(tmp_path / "b", without=1)
    shards(tmp_path / "c", stem="x")
    (tmp_path / "c" / "x-00001-of-00002.gguf").rename(tmp_path / "c" / "x.gguf")
    reasons = [one.reason for one in find_models(tmp_path) if isinstance(one, SkippedFile)]
    assert len(reasons) == 4
    assert "shard 2 of 2 is missing: Hermes-4-70B-Q8_0-00002-of-00002.gguf" in reasons[0]
    assert "is shard 1 of 2, but its name does not say so" in reasons[-1]
    with pytest.raises(IntegrityError):
        list(find_models(tmp_path / "a" / "Hermes-4-70B-Q8_0-00001-of-00002.gguf"))


# Where other programs keep their files


def test_lm_studios_folder(hub: HubCache, tmp_path: Path) -> None:
    home = hub.home
    assert lm_studio_models() == home / ".lmstudio" / "models"
    (home / ".cache" / "lm-studio").mkdir(parents=True)
    assert lm_studio_models() == home / ".cache" / "lm-studio" / "models"
    (home / ".lmstudio").mkdir()
    assert lm_studio_models() == home / ".lmstudio" / "models"
    (home / ".lmstudio" / "settings.json").write_text("not JSON")
    assert lm_studio_models() == home / ".lmstudio" / "models"
    (home / ".lmstudio" / "settings.json").write_text(json.dumps({"downloadsFolder": str(tmp_path / "big")}))
    assert lm_studio_models() == tmp_path / "big"
    (tmp_path / "moved").mkdir()
    (home / ".lmstudio-home-pointer").write_text(f"{tmp_path / 'moved'}\n")
    assert lm_studio_models() == tmp_path / "moved" / "models"


def test_lm_studios_tree(hub: HubCache) -> None:
    tree = hub.home / ".lmstudio" / "models"
    put(tree / OFFICIAL / FILE, weights("hermes-3:8b"))
    put(tree / "someone" / "Vision-GGUF" / "mmproj-x.gguf", weights("hermes-3:8b", kind="mmproj"))
    put(tree / "someone" / "Vision-GGUF" / "broken.gguf", b"GGUF")
    put(tree / "someone" / "Vision-GGUF" / "notes.txt", b"")
    seen = list(find_models(tree))
    assert [one.names for one in seen if isinstance(one, FoundModel)] == [(FILE,)]
    assert [one.path.name for one in seen if isinstance(one, SkippedFile)] == ["broken.gguf", "mmproj-x.gguf"]


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need a privilege")
def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    tree, disk = tmp_path / "models", tmp_path / "disk"
    put(disk / "Repo-GGUF" / "one.gguf", SMALL)
    put(tree / "other" / "Repo-GGUF" / "two.gguf", SMALL)
    (tree / "pub").symlink_to(disk)
    (tree / "pub-again").symlink_to(disk)
    (disk / "Repo-GGUF" / "up").symlink_to(tree)
    (tree / "nowhere").symlink_to(tmp_path / "gone")
    found = list(find_models(tree))
    assert [one.names for one in found if isinstance(one, FoundModel)] == [("two.gguf",), ("one.gguf",)]
    assert [one.repo for one in found if isinstance(one, FoundModel)] == ["other/Repo-GGUF", "pub/Repo-GGUF"]


def test_ollamas_folders(hub: HubCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, service, empty = hub.home / ".ollama" / "models", tmp_path / "service", tmp_path / "snap"
    monkeypatch.setattr("hermes_cli.store.other_tools.OLLAMA_SERVICES", (service, empty))
    (empty / "manifests").mkdir(parents=True)
    assert ollama_models() == [own]
    own.mkdir(parents=True)
    pulled(service, "registry.ollama.ai/library/x/y", SMALL)
    assert ollama_models() == [service], "an empty folder hides nothing"
    pulled(own, "registry.ollama.ai/library/x/y", SMALL)
    assert ollama_models() == [own, service]
    monkeypatch.setenv("OLLAMA_MODELS", "~/elsewhere")
    assert ollama_models() == [hub.home / "elsewhere"]


def pulled(tree: Path, tag: str, content: bytes, others: Sequence[str] = (), **layer: object) -> Path:
    """A model as Ollama keeps it; `others` are the kinds of further layers."""
    digest = hashlib.sha256(content).hexdigest()
    manifest = {
        "schemaVersion": 2,
        "layers": [
            {"mediaType": "application/vnd.ollama.image.template", "digest": f"sha256:{'0' * 64}"},
            {"mediaType": MODEL_LAYER, "digest": f"sha256:{digest}", "size": len(content), **layer},
            *({"mediaType": f"application/vnd.ollama.image.{kind}", "digest": f"sha256:{'a' * 64}"} for kind in others),
        ],
    }
    put(tree / "manifests" / tag, json.dumps(manifest).encode())
    return put(tree / "blobs" / f"sha256-{digest}", content)


def test_ollamas_tree(hub: HubCache) -> None:
    tree = hub.home / ".ollama" / "models"
    known, strange = weights("hermes-3:8b", mix="Q4_K_M"), SMALL
    blob = pulled(tree, "registry.ollama.ai/library/hermes3/8b", known)
    pulled(tree, "registry.ollama.ai/library/hermes3/latest", known)
    pulled(tree, "registry.ollama.ai/someone/thing/q8", strange)
    pulled(tree, "hf.co/owner/Repo-GGUF/Q4_K_M", SMALL + bytes(32))
    one, other, third = find_models(hub.home / ".ollama")
    assert isinstance(one, FoundModel)
    assert isinstance(other, FoundModel)
    assert isinstance(third, FoundModel)
    assert {names[0] for names in (one.names, other.names, third.names)} == {
        "hermes3-latest.gguf",
        "someone-thing-q8.gguf",
        "owner-Repo-GGUF-Q4_K_M.gguf",
    }
    hermes = next(found for found in (one, other, third) if "hermes3:8b" in found.labels)
    identity = identify(hermes, CATALOGUE, list(known_files(CATALOGUE)), sha256_of)
    assert identity.model
    assert (identity.evidence, identity.model.short, identity.quantization) == ("header", "hermes-3:8b", "Q4_K_M")
    assert import_model(hermes, identity).paths[0].stat().st_ino == blob.stat().st_ino


def test_an_adapter_of_ollama_is_not_dropped_in_silence(hub: HubCache) -> None:
    blob = pulled(hub.home, "registry.ollama.ai/library/tuned/8b", SMALL, others=["adapter"])
    (one,) = find_models(hub.home)
    assert isinstance(one, SkippedFile)
    assert "tuned:8b is a model with a LoRA adapter, which would be lost" in one.reason
    assert f"hermes chat {blob} --lora {blob.with_name('sha256-' + 'a' * 64)}" in one.reason
    pulled(hub.home, "registry.ollama.ai/library/plain/8b", SMALL)
    assert [found.names for found in find_models(hub.home) if isinstance(found, FoundModel)] == [("plain-8b.gguf",)]


def test_a_projector_of_ollama_is_told(hub: HubCache) -> None:
    pulled(hub.home, "registry.ollama.ai/library/seeing/8b", SMALL, others=["projector", "license"])
    skipped, one = find_models(hub.home)
    assert isinstance(one, FoundModel)
    assert isinstance(skipped, SkippedFile)
    assert "the projector of seeing:8b, for images" in skipped.reason


@pytest.mark.parametrize(
    "layer",
    [
        {"digest": "sha256:../../../../etc/passwd"},
        {"digest": "sha256:" + "A" * 64},
        {"digest": 3},
        {"mediaType": "application/vnd.ollama.image.tensor"},
        {"digest": "sha256:" + "1" * 64},
    ],
)
def test_manifests_are_not_trusted(hub: HubCache, layer: dict[str, object]) -> None:
    pulled(hub.home / "models", "registry.ollama.ai/library/x/y", SMALL, (), **layer)
    assert [type(one) for one in find_models(hub.home / "models")] == [SkippedFile]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"layers": 3}', '{"layers": [3, {}]}', "[" * 100_000, "\udc80"])
def test_manifests_that_are_none(hub: HubCache, text: str) -> None:
    put(hub.home / "manifests" / "a" / "b" / "c" / "d", text.encode(errors="surrogateescape"))
    assert [type(one) for one in find_models(hub.home)] == [SkippedFile]


def test_a_blob_that_is_not_what_its_name_says_is_not_taken_for_it(hub: HubCache) -> None:
    content = weights("hermes-3:8b")
    learn((FILE, content))
    tree = hub.home / ".ollama" / "models"
    pulled(tree, "registry.ollama.ai/library/x/y", content).write_bytes(content[:-1] + b"x")
    assert identified(tree, load_catalogue()).evidence == "unknown"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("none.gguf", "there is nothing at"),
        ("bad.gguf", "not a GGUF file"),
        ("mmproj.gguf", "is not a model to chat with"),
    ],
)
def test_paths_of_no_model(tmp_path: Path, name: str, says: str) -> None:
    put(tmp_path / "bad.gguf", b"nothing")
    put(tmp_path / "mmproj.gguf", weights("hermes-3:8b", kind="mmproj"))
    with pytest.raises((NotFoundError, IntegrityError, UsageError), match=says):
        list(find_models(tmp_path / name))


def test_a_model_for_embeddings_is_a_model(tmp_path: Path) -> None:
    """To serve, not to chat with."""
    assert found(write_tiny_bert(tmp_path / "bert.gguf")).names == ("bert.gguf",)
    with pytest.raises(UsageError, match="a reranker"):
        list(find_models(write_tiny_bert(tmp_path / "rank.gguf", "rank")))


def test_what_is_in_the_library_is_not_imported_again(hub: HubCache, tmp_path: Path) -> None:
    name = hub.put(OFFICIAL, FILE, SMALL)
    adopted(put(tmp_path / "strange.gguf", SMALL + bytes(32)))
    with pytest.raises(UsageError, match="is in the library already"):
        list(find_models(name))
    assert [one.reason for one in find_models(hub.hub) if isinstance(one, SkippedFile)] == [
        f"{name} is in the library already."
    ]
    assert [type(one) for one in find_models(hub.data)] == [SkippedFile]


@given(st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=30))
def test_any_file_name_becomes_a_safe_one_or_none(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    folder = tmp_path_factory.mktemp("names")
    try:
        put(folder / f"{name}.gguf", SMALL)
    except OSError:
        return  # this disk knows no such name
    for one in find_models(folder):
        if isinstance(one, FoundModel):
            place = Path("/library") / one.names[0]
            assert Path(os.path.normpath(place)) == place
            assert not set(one.names[0]) & set('\\:*?"<>|\n\r')


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_pipe_is_no_model(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.gguf")
    assert list(find_models(tmp_path)) == []
