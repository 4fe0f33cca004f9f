from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pexpect
import pytest
from conftest import Finished, RunHermes, clean_environment
from hub_cache import REVISION, HubCache
from hub_server import Hub, serving
from terminal_rig import hermes_in_terminal

from hermes_cli.catalog.load import HubFile, HubRepository, write_overlay

OFFICIAL = "NousResearch/Hermes-3-Llama-3.1-8B-GGUF"
FILE = "Hermes-3-Llama-3.1-8B.Q4_K_M.gguf"
REPO = "somebody/Some-GGUF"


class Library:
    """`hermes` with a cache of its own."""

    def __init__(self, run: RunHermes, hub: HubCache) -> None:
        self.run = run
        self.hub = hub

    def __call__(self, *arguments: str, env: dict[str, str] | None = None) -> Finished:
        done = self.run(*arguments, env={**self.hub.environment, **(env or {})})
        assert "Traceback" not in done.stderr
        return done

    def json(
        self, *arguments: str, code: int = 0, env: dict[str, str] | None = None
    ) -> dict[str, list[dict[str, object]]]:
        done = self(*arguments, "--json", env=env)
        assert done.returncode == code, done.stderr
        document: dict[str, list[dict[str, object]]] = json.loads(done.stdout)
        return document

    def names(self) -> list[object]:
        return [one["name"] for one in self.json("list", "--installed")["models"]]


@pytest.fixture
def library(hermes: RunHermes, tmp_path: Path) -> Library:
    (tmp_path / "home").mkdir()
    return Library(hermes, HubCache(tmp_path))


@pytest.fixture
def demo(demo_path: Path) -> bytes:
    return demo_path.read_bytes()


def fetched(library: Library, demo: bytes) -> Path:
    """A file of the catalogue's first repository of Hermes 3 8B; it holds the demo, so that it can really be loaded."""
    return library.hub.put(OFFICIAL, FILE, demo)


# hermes list --installed


def test_nothing_is_installed(library: Library) -> None:
    done = library("list", "--installed")
    assert (done.returncode, done.stdout) == (0, "")
    assert "hermes pull" in done.stderr


def test_list_installed(library: Library, demo: bytes) -> None:
    fetched(library, demo)
    library.hub.put(REPO, "some-Q8_0.gguf", demo + bytes(32))
    table = library("list", "--installed").stdout.splitlines()
    assert table[0].split() == ["NAME", "SIZE", "STATE", "REVISION", "FILE"]
    assert table[1].split() == ["hermes-3:8b:Q4_K_M", "4.09", "MB", "not", "verified", REVISION[:7], FILE]
    assert table[2].split()[0] == f"{REPO}:Q8_0"
    (first, second) = library.json("list", "--installed")["models"]
    assert first == {
        "name": "hermes-3:8b:Q4_K_M",
        "model": "hermes-3:8b",
        "quantization": "Q4_K_M",
        "repository": OFFICIAL,
        "revisions": [REVISION],
        "file": FILE,
        "path": str(library.hub.folder(OFFICIAL) / "snapshots" / REVISION / FILE),
        "paths": [str(library.hub.folder(OFFICIAL) / "snapshots" / REVISION / FILE)],
        "bytes": len(demo),
        "disk_bytes": library.hub.blob(OFFICIAL, demo).stat().st_blocks * 512,
        "files": 1,
        "files_expected": 1,
        "sha256": [hashlib.sha256(demo).hexdigest()],
        "state": "unverified",
    }
    assert second["model"] is None
    assert len(library.json("list", "--installed", "--tools")["models"]) == 1
    assert library("list", "--installed", "--quiet").stdout.startswith("hermes-3:8b:Q4_K_M ")


# hermes rm


def test_rm_says_what_it_would_do_and_needs_a_yes(library: Library, demo: bytes) -> None:
    name = fetched(library, demo)
    done = library("rm", "hermes-3:8b")
    assert done.returncode == 2
    assert "this frees 4.09 MB" in done.stderr
    assert "1 file would be removed, and there is no terminal to ask on" in done.stderr
    assert "--yes" in done.stderr
    assert name.exists()


def test_rm(library: Library, demo: bytes) -> None:
    name = fetched(library, demo)
    size = name.stat().st_blocks * 512
    document = library.json("rm", "hermes-3:8b", "--yes")
    assert document == {"removed": [str(name)], "freed_bytes": size, "not_freed": []}
    assert library.names() == []
    assert library("rm", "hermes-3:8b", "--yes").returncode == 3


def test_rm_several_by_name(library: Library, demo: bytes) -> None:
    fetched(library, demo)
    library.hub.put(OFFICIAL, "Hermes-3-Llama-3.1-8B.Q8_0.gguf", demo)
    library.hub.put(REPO, "some-Q8_0.gguf", demo)
    done = library("rm", "hermes-3:8b", "--yes")
    assert done.returncode == 2
    assert "say which: hermes-3:8b:Q4_K_M, hermes-3:8b:Q8_0" in done.stderr
    done = library("rm", "hermes-3:8b:Q8_0", REPO, "hermes-3:8b:Q8_0", "--yes", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert library.names() == ["hermes-3:8b:Q4_K_M"]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ((), 2, "needs the NAME"),
        (("demo",), 2, "part of hermes itself"),
        (("hermes-4:14b",), 3, "not on this machine"),
        (("/etc/hostname",), 3, "not in the library"),
        (("nonsense",), 3, "no model named nonsense"),
        (("--partial", "/etc/hostname"), 2, "not downloaded from the Hub"),
    ],
)
def test_rm_of_nothing(library: Library, arguments: tuple[str, ...], code: int, says: str) -> None:
    done = library("rm", *arguments, "--yes")
    assert done.returncode == code
    assert says in done.stderr


def test_rm_partial(library: Library, demo: bytes) -> None:
    name = fetched(library, demo)
    part = library.hub.put_part(OFFICIAL, "e" * 64, bytes(100_000))
    other = library.hub.put_part(REPO, "f" * 64, bytes(100_000))
    assert library("rm", "--partial", "hermes-3:8b", "--yes").returncode == 0
    assert (part.exists(), other.exists(), name.exists()) == (False, True, True)
    assert library("rm", "--partial", "--yes").returncode == 0
    assert not other.exists()
    done = library("rm", "--partial")
    assert done.returncode == 0
    assert "nothing to remove" in done.stderr


@pytest.mark.parametrize(("answer", "is_left"), [("y", False), ("n", True), ("", True)])
def test_rm_asks_on_a_terminal(library: Library, demo: bytes, tmp_path: Path, answer: str, *, is_left: bool) -> None:
    name = fetched(library, demo)
    environment = {**clean_environment(), **library.hub.environment, "TERM": "xterm"}
    child = hermes_in_terminal(["rm", "hermes-3:8b"], environment=environment, folder=tmp_path)
    child.expect("this frees 4.09 MB")
    child.expect_exact("Remove 1 file? [y/N] ")
    child.sendline(answer)
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0  # no is no error
    assert name.exists() == is_left


# hermes verify


def test_verify(library: Library, demo: bytes) -> None:
    fetched(library, demo)
    done = library("verify")
    assert done.returncode == 0
    assert done.stdout.splitlines()[1].split() == ["hermes-3:8b:Q4_K_M", "verified", FILE]
    assert library.json("list", "--installed")["models"][0]["state"] == "verified"
    assert library("verify", "hermes-4:14b").returncode == 3


def test_verify_nothing(library: Library) -> None:
    done = library("verify")
    assert (done.returncode, done.stdout) == (0, "")
    assert "nothing to verify" in done.stderr


def test_verify_tells_what_is_damaged_and_it_is_not_loaded(library: Library, demo: bytes) -> None:
    library.hub.put(OFFICIAL, FILE, demo, stored=demo[:-1] + b"x")
    library.hub.put(REPO, "some-Q8_0.gguf", demo)
    done = library("verify")
    assert done.returncode == 6
    assert "1 of 2 files is damaged or incomplete: hermes-3:8b:Q4_K_M" in done.stderr
    assert "hermes verify --repair hermes-3:8b:Q4_K_M" in done.stderr
    (one, other) = library.json("verify", code=6)["files"]
    assert (one["outcome"], one["stated_sha256"]) == ("damaged", hashlib.sha256(demo).hexdigest())
    assert other["outcome"] == "verified"
    chat = library("chat", "hermes-3:8b", "hi")
    assert chat.returncode == 6
    assert "is damaged: its SHA-256 is not the Hub's" in chat.stderr


def test_verify_repairs_from_the_hub(library: Library, demo: bytes) -> None:
    with serving(Hub({OFFICIAL: {FILE: demo}}, revision=REVISION)) as server:
        name = library.hub.put(OFFICIAL, FILE, demo, stored=demo[:-1] + b"x")
        (one,) = library.json("verify", "--repair", env=server.environment)["files"]
    assert one["outcome"] == "repaired"
    assert name.read_bytes() == demo
    assert library("verify").returncode == 0


def test_verify_fetches_shards_that_are_missing(library: Library, demo: bytes) -> None:
    repo, first, second = (
        "lmstudio-community/Hermes-4-70B-GGUF",
        *(f"Hermes-4-70B-Q8_0-0000{number}-of-00002.gguf" for number in (1, 2)),
    )
    with serving(Hub({repo: {first: demo, second: demo + bytes(32)}}, revision=REVISION)) as server:
        library.hub.put(repo, first, demo)
        done = library("verify", "--repair", env=server.environment)
    assert done.returncode == 0, done.stderr
    assert library.json("list", "--installed")["models"][0]["files"] == 2


def test_verify_cannot_repair_without_the_hub(library: Library, demo: bytes) -> None:
    name = library.hub.put(OFFICIAL, FILE, demo, stored=demo[:-1] + b"x")
    done = library("verify", "--repair", env={"HF_HUB_OFFLINE": "1"})
    assert done.returncode == 6
    assert "offline mode is on" in done.stderr
    assert not name.exists()


def test_verify_asks_the_hub_where_files_are_no_links(library: Library, demo: bytes) -> None:
    path = library.hub.folder(REPO) / "snapshots" / REVISION / "some-Q8_0.gguf"
    path.parent.mkdir(parents=True)
    path.write_bytes(demo)
    assert [one["outcome"] for one in library.json("verify")["files"]] == ["unknown"]
    with serving(Hub({REPO: {"some-Q8_0.gguf": demo}}, revision=REVISION)) as server:
        assert [one["outcome"] for one in library.json("verify", env=server.environment)["files"]] == ["verified"]
    with serving(Hub({REPO: {"some-Q8_0.gguf": demo + bytes(32)}}, revision=REVISION)) as server:
        assert library("verify", env=server.environment).returncode == 6


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 6)])
def test_verify_asks_on_a_terminal(library: Library, demo: bytes, tmp_path: Path, answer: str, code: int) -> None:
    with serving(Hub({OFFICIAL: {FILE: demo}}, revision=REVISION)) as server:
        library.hub.put(OFFICIAL, FILE, demo, stored=demo[:-1] + b"x")
        environment = {**clean_environment(), **library.hub.environment, **server.environment, "TERM": "xterm"}
        child = hermes_in_terminal(["verify"], environment=environment, folder=tmp_path)
        child.expect_exact("Fetch damaged files again? [y/N] ")
        child.sendline(answer)
        child.expect(pexpect.EOF)
        child.close()
    assert child.exitstatus == code


# hermes du


def test_du(library: Library, demo: bytes) -> None:
    name = fetched(library, demo)
    library.hub.put("other/text", "model.safetensors", os.urandom(500_000))
    library.hub.put_part(REPO, "f" * 64, os.urandom(300_000))
    table = library("du").stdout
    assert "hermes-3:8b:Q4_K_M" in table
    assert f"1 unfinished: hermes rm --partial {REPO}" in table
    document: dict[str, object] = dict(library.json("du"))
    size = name.stat().st_blocks * 512
    assert document["models"] == [
        {"name": "hermes-3:8b:Q4_K_M", "repository": OFFICIAL, "disk_bytes": size, "used_elsewhere": False}
    ]
    assert set(document) == {"models", "partial", "other_bytes", "total_bytes", "disk"}


# hermes import, hermes export


def test_import_and_export_and_back(library: Library, demo: bytes, tmp_path: Path) -> None:
    path = tmp_path / "mine.gguf"
    path.write_bytes(demo)
    (one,) = library.json("import", str(path))["imported"]
    assert (one["name"], one["how"], one["identified_by"]) == ("mine.gguf", "hard link", "unknown")
    assert library.names() == ["mine.gguf"]
    path.unlink()
    assert library("show", "mine.gguf").returncode == 0
    document: dict[str, object] = dict(library.json("export", "mine.gguf", "--to", "out"))
    assert document["files"] == [{"path": "out/mine.gguf", "how": "hard link"}]
    done = library("rm", "mine.gguf", "--yes")
    assert "another name elsewhere" in done.stderr
    assert "0 B freed" in done.stderr
    assert (tmp_path / "out" / "mine.gguf").read_bytes() == demo


def test_import_of_a_known_file(library: Library, demo: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERMES_LLM_DATA_DIR", str(library.hub.data))
    known = HubFile(path=FILE, bytes=len(demo), sha256=hashlib.sha256(demo).hexdigest())
    write_overlay({OFFICIAL: HubRepository(revision=REVISION, fetched="2026-01-01", files=(known,))})
    tree = library.hub.home / ".lmstudio" / "models" / OFFICIAL
    tree.mkdir(parents=True)
    (tree / FILE).write_bytes(demo)
    (tree / "broken.gguf").write_bytes(b"GGUF")
    pretended = library("import", "lmstudio", "--dry-run")
    assert pretended.returncode == 0
    assert "certain: its SHA-256 is the Hub's" in pretended.stdout
    assert not library.names()
    done = library("import", "lmstudio")
    assert done.returncode == 0
    assert f"left out: {tree / 'broken.gguf'} is damaged" in done.stderr
    assert (library.hub.folder(OFFICIAL) / "snapshots" / REVISION / FILE).read_bytes() == demo
    assert library.json("list", "--installed")["models"][0]["state"] == "verified"
    assert library("show", "hermes-3:8b").returncode == 0


@pytest.mark.parametrize(
    ("path", "code", "says"),
    [
        ("nothing.gguf", 3, "there is nothing at nothing.gguf"),
        ("home", 3, "there is no GGUF file in home"),
        ("ollama", 3, "there are no models of ollama here"),
        ("bad.gguf", 6, "is not a GGUF file"),
    ],
)
def test_imports_of_nothing(library: Library, tmp_path: Path, path: str, code: int, says: str) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"nothing")
    done = library("import", path, env={"OLLAMA_MODELS": str(tmp_path / "none")})
    assert done.returncode == code
    assert says in done.stderr


def test_export_to_ollama(library: Library, demo: bytes, tmp_path: Path) -> None:
    fetched(library, demo)
    done = library("export", "hermes-3:8b", "--to", "ollama")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "ollama create hermes-3-8b-q4_k_m -f hermes-3-8b-q4_k_m/Modelfile"
    folder = tmp_path / "hermes-3-8b-q4_k_m"
    assert (folder / FILE).read_bytes() == demo
    text = (folder / "Modelfile").read_text()
    assert text.startswith(f'FROM ./{FILE}\nTEMPLATE """{{{{- if .Tools }}}}<|im_start|>system\n')
    assert 'PARAMETER stop "<|im_end|>"' in text
    again = library("export", "hermes-3:8b", "--to", "ollama", "--context", "1000")
    assert again.returncode == 1
    assert "another file" in again.stderr


def test_export_to_lm_studio(library: Library, demo: bytes) -> None:
    fetched(library, demo)
    done = library("export", "hermes-3:8b", "--to", "lmstudio", "--quiet")
    path = library.hub.home / ".lmstudio" / "models" / OFFICIAL / FILE
    assert done.stdout == f"{path}\n"
    assert path.read_bytes() == demo


def test_export_of_the_demo(library: Library, demo: bytes, tmp_path: Path) -> None:
    assert library("export", "demo", "--to", str(tmp_path / "x"), "--copy").returncode == 0
    assert (tmp_path / "x" / "demo.gguf").read_bytes() == demo


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("hermes-3:8b", "--to", "ollama"), 3, "hermes pull hermes-3:8b:Q4_K_M"),
        (("demo", "--to", "x", "--into", "y"), 2, "--into goes with"),
        (("demo", "--to", "lmstudio", "--context", "100"), 2, "--context goes with"),
        (("demo",), 2, "--to"),
    ],
)
def test_exports_of_nothing(library: Library, arguments: tuple[str, ...], code: int, says: str) -> None:
    done = library("export", *arguments)
    assert done.returncode == code
    assert says in done.stderr
