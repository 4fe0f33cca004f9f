"""Downloads from a real server process, by a real client process; the library in between is real files, too."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import HANG
from download_rig import (  # noqa: F401 - the_* are fixtures
    FILE,
    PARTS,
    REPO,
    SHARDS,
    SIZE,
    environment,
    fetched,
    file_requests,
    hf,
    interrupted,
    phases,
    the_client,
    the_contents,
    the_hub,
    the_library,
    the_server,
)
from hub_server import REVISION, Fault, HubProcess
from hypothesis import given
from hypothesis import strategies as st
from pull_client import Client

from hermes_cli.errors import DoesNotFitError
from hermes_cli.store.disk import disk_space
from hermes_cli.store.download import SpaceNeeded
from hermes_cli.store.file_download import PartialFile
from hermes_cli.store.hashing import BackgroundHasher
from hermes_cli.store.layout import published_sha256

# --- What comes out


def test_a_file_comes_as_the_hub_would_lay_it_out(client: Client, library: Path, contents: dict[str, Path]) -> None:
    done = client.fetch(library, REPO, FILE)
    folder = library / "models--somebody--Some-GGUF"
    sha256 = hashlib.sha256(contents[FILE].read_bytes()).hexdigest()
    (path,) = done["paths"]
    assert path == str(folder / "snapshots" / REVISION / FILE)
    assert str(Path(path).readlink()) == f"../../blobs/{sha256}"
    assert Path(path).read_bytes() == contents[FILE].read_bytes()
    assert (folder / "refs" / "main").read_text() == REVISION
    assert (library / "CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55")
    assert [one.name for one in (folder / "blobs").iterdir()] == [sha256]
    assert (library / ".locks" / folder.name / f"{sha256}.lock").exists()
    assert (done["before"][0]["here"], done["before"][0]["complete"]) == (0, False)
    assert (done["after"][0]["here"], done["after"][0]["complete"], done["after"][0]["verified"]) == (SIZE, True, True)
    assert phases(done) == ["downloading", "verifying", "done"]
    assert fetched(done) == SIZE


def test_it_is_on_the_disk_before_it_has_its_name(client: Client, library: Path) -> None:
    steps = client.fetch(library, REPO, FILE)["steps"]
    flushed = next(index for index, step in enumerate(steps) if step.startswith("fsync") and "incomplete" in step)
    renamed = next(index for index, step in enumerate(steps) if step.startswith("replace") and "incomplete" in step)
    folder = next(index for index, step in enumerate(steps) if step == "fsync blobs")
    linked = next(index for index, step in enumerate(steps) if step.startswith(f"replace .{FILE}"))
    assert flushed < renamed < folder < linked


def test_what_is_here_is_not_asked_for_again(client: Client, hub: HubProcess, library: Path) -> None:
    client.fetch(library, REPO, FILE)
    hub.tell(log=[])
    again = client.fetch(library, REPO, FILE)
    assert phases(again) == ["done"]
    assert [one["path"] for one in hub.tell()] == [f"/api/models/{REPO}"]


def test_shards_and_small_files_come_in_the_order_asked_for(client: Client, library: Path) -> None:
    done = client.fetch(library, REPO, *SHARDS, "README.md")
    assert [Path(path).name for path in done["paths"]] == [Path(name).name for name in (*SHARDS, "README.md")]
    assert str(Path(done["paths"][0]).readlink()).startswith("../../../blobs/")
    assert [one["verified"] for one in done["after"]] == [True, True, False]  # git's hash is no SHA-256
    again = client.fetch(library, REPO, *SHARDS, "README.md")
    assert fetched(again) == 0


def test_a_commit_instead_of_a_branch_leaves_no_ref(client: Client, library: Path) -> None:
    client.fetch(library, REPO, FILE, revision=REVISION)
    assert not list(library.glob("models--*/refs/*"))


def test_without_verification_nothing_is_hashed(client: Client, library: Path, hub: HubProcess) -> None:
    interrupted(client, hub, library, 1_000_000)
    done = client.fetch(library, REPO, FILE, verify=False)
    assert "hashing" not in phases(done)
    assert done["after"][0]["complete"]
    assert not done["after"][0]["verified"]
    later = client.fetch(library, REPO, FILE)
    assert (fetched(later), later["after"][0]["verified"]) == (0, True)


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    large = tmp_path / "large.gguf"
    with large.open("wb") as file:
        file.truncate(200_000_000)
    with HubProcess({REPO: {FILE: large}}) as hub, Client(environment(hub)) as client:
        done = client.fetch(tmp_path / "hub", REPO, FILE)
    assert done["after"][0]["verified"]
    assert done["memory"] < 150_000_000


# --- Other tools, other names, other commits


def test_hf_download_takes_what_we_fetched_and_we_take_what_it_fetched(
    client: Client, hub: HubProcess, library: Path
) -> None:
    theirs = hf(hub, library, REPO, FILE)
    assert theirs.communicate(timeout=HANG)[0], "hf download failed"
    hub.tell(log=[])
    done = client.fetch(library, REPO, FILE, SHARDS[0])
    assert done["before"][0] | {"path": ""} == {**done["before"][0], "path": "", "complete": True, "verified": False}
    assert "hashing" in phases(done)
    assert [one["path"] for one in file_requests(hub)] == [f"/{REPO}/{SHARDS[0]}"]
    offline, problems = hf(hub, library, REPO, SHARDS[0], HF_HUB_OFFLINE="1").communicate(timeout=HANG)
    assert offline.strip() == done["paths"][1], problems


def test_the_hub_library_finds_no_fault_with_the_cache(client: Client, library: Path) -> None:
    client.fetch(library, REPO, FILE, "README.md", *PARTS)
    program = (
        "import sys, huggingface_hub as h; i = h.scan_cache_dir(sys.argv[1]); print(len(i.warnings), i.size_on_disk)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(library)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", str(SIZE + 2_000 + 3 * 700_000)]


def test_the_same_content_elsewhere_is_linked(client: Client, library: Path, hub: HubProcess) -> None:
    (first,) = client.fetch(library, REPO, "same.gguf")["paths"]
    hub.tell(log=[])
    done = client.fetch(library, "other/Copy", "copy.gguf")
    assert Path(done["paths"][0]).samefile(first)
    assert file_requests(hub) == []
    assert done["after"][0]["verified"]


def test_a_new_commit_with_the_same_file_only_gets_a_link(client: Client, library: Path, hub: HubProcess) -> None:
    client.fetch(library, REPO, FILE, *PARTS)
    hub.tell(revision="f" * 40, log=[])
    done = client.fetch(library, REPO, FILE, *PARTS)
    assert file_requests(hub) == []
    assert all("f" * 40 in path for path in done["paths"])
    assert [one["verified"] for one in done["after"]] == [True, True]
    assert len(list(library.glob("models--*/blobs/*"))) == 2


def test_where_links_are_not_supported_the_file_itself_gets_the_name(library: Path, hub: HubProcess) -> None:
    with Client(environment(hub, HF_HUB_DISABLE_SYMLINKS="1")) as client:
        (path,) = client.fetch(library, REPO, FILE)["paths"]
        assert not Path(path).is_symlink()
        assert phases(client.fetch(library, REPO, FILE)) == ["done"]
        hub.tell(revision="f" * 40, log=[])
        (other,) = client.fetch(library, REPO, FILE)["paths"]
    assert file_requests(hub) == []
    assert Path(other).samefile(path)


@pytest.mark.parametrize("damage", ["a byte", "its size", "the link"])
def test_a_damaged_file_is_fetched_anew(client: Client, library: Path, damage: str) -> None:
    (name,) = client.fetch(library, REPO, FILE)["paths"]
    if damage == "the link":
        Path(name).resolve().unlink()
    else:
        with Path(name).open("r+b") as file:
            file.truncate(SIZE // 2) if damage == "its size" else file.write(b"damaged")
    done = client.fetch(library, REPO, FILE)
    assert fetched(done) == SIZE
    assert done["after"][0]["verified"]


# --- Raw parts


def test_raw_parts_become_one_file(client: Client, library: Path, contents: dict[str, Path]) -> None:
    done = client.fetch(library, REPO, *reversed(PARTS))
    (path,) = done["paths"]
    assert Path(path).name == "raw-Q8_0.gguf"
    assert Path(path).read_bytes() == b"".join(contents[part].read_bytes() for part in PARTS)
    assert [one.name for one in Path(path).parent.iterdir()] == ["raw-Q8_0.gguf"]  # no second copy on the disk
    assert done["after"][0] | {"path": ""} == {
        "file": "raw-Q8_0.gguf",
        "path": "",
        "size": 2_100_000,
        "here": 2_100_000,
        "complete": True,
        "verified": True,
    }
    assert sorted(path.name for path in (library / "models--somebody--Some-GGUF" / "blobs").iterdir()) == [
        hashlib.sha256(Path(path).read_bytes()).hexdigest()
    ]
    assert phases(client.fetch(library, REPO, *PARTS)) == ["done"]


def test_only_the_wrong_part_is_fetched_again(client: Client, library: Path, hub: HubProcess) -> None:
    hub.tell(faults=[Fault(), Fault(flip=10), Fault(), Fault()])
    done = client.fetch(library, REPO, *PARTS)
    assert fetched(done) == 4 * 700_000
    assert done["after"][0]["verified"]


def test_parts_go_on_in_the_middle_of_one(client: Client, library: Path, hub: HubProcess) -> None:
    hub.tell(faults=[Fault(), Fault(cut=300_000), *[Fault(cut=0)] * 9])
    assert client.fetch(library, REPO, *PARTS)["error"] == "NetworkError"
    hub.tell(faults=[], log=[])
    done = client.fetch(library, REPO, *PARTS)
    assert done["before"][0]["here"] == 1_000_000
    assert [one["range"] for one in file_requests(hub)] == ["bytes=300000-", None]
    assert done["after"][0]["verified"]


def test_a_part_that_is_here_is_not_fetched(client: Client, library: Path, contents: dict[str, Path]) -> None:
    sha256 = hashlib.sha256(contents[PARTS[1]].read_bytes()).hexdigest()
    blob = library / "models--somebody--Some-GGUF" / "blobs" / sha256
    blob.parent.mkdir(parents=True)
    shutil.copyfile(contents[PARTS[1]], blob)
    done = client.fetch(library, REPO, *PARTS)
    assert fetched(done) == 2 * 700_000
    assert done["after"][0]["verified"]


def test_a_part_that_another_tool_fetched_stays(client: Client, library: Path, hub: HubProcess) -> None:
    assert hf(hub, library, REPO, PARTS[1]).communicate(timeout=60)[0], "hf download failed"
    done = client.fetch(library, REPO, *PARTS)
    assert fetched(done) == 2 * 700_000
    assert {path.name for path in Path(done["paths"][0]).parent.iterdir()} == {"raw-Q8_0.gguf", PARTS[1]}
    assert len(list(library.glob("models--*/blobs/*"))) == 2


@pytest.mark.parametrize(("begins_with", "parts"), [(PARTS[0], 2), (PARTS[1], 3)])
def test_joining_goes_on_after_the_last_part_that_is_right(
    client: Client, library: Path, contents: dict[str, Path], begins_with: str, parts: int
) -> None:
    etags = [hashlib.sha256(contents[part].read_bytes()).hexdigest() for part in PARTS]
    joined = hashlib.sha256("\n".join(etags).encode()).hexdigest()
    partial = library / "models--somebody--Some-GGUF" / "blobs" / f"{joined}.incomplete"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(contents[begins_with].read_bytes() + b"half a part")
    done = client.fetch(library, REPO, *PARTS)
    assert fetched(done) == parts * 700_000
    assert done["after"][0]["verified"]


def test_parts_must_be_complete(client: Client, library: Path) -> None:
    done = client.fetch(library, REPO, *PARTS[1:])
    assert (done["error"], done["exit"]) == ("NotFoundError", 3)
    assert "comes in 3 parts, but part 1 is not among" in done["message"]


# --- What the Hub does not have, or does not give


@pytest.mark.parametrize(
    ("repo", "file", "options", "code", "says", "hint"),
    [
        (REPO, "some-Q3_K.gguf", {}, 3, f"{REPO} has no file some-Q3_K.gguf", FILE),
        (REPO, "../x", {}, 2, "'../x' cannot be the name of a file", "hermes show"),
        (REPO, "x/con.gguf", {}, 2, "cannot be the name of a file", "hermes show"),
        (REPO, FILE, {"revision": "v9"}, 3, "has no such revision", "leave the revision out"),
        ("nobody/Nothing", FILE, {}, 3, "there is no repository nobody/Nothing", "hf auth login"),
        ("a b c", FILE, {}, 3, "there is no repository a b c", "check the spelling"),
    ],
)
def test_what_is_not_there(
    client: Client, library: Path, repo: str, file: str, options: dict[str, str], code: int, says: str, hint: str
) -> None:
    done = client.fetch(library, repo, file, **options)
    assert done["exit"] == code
    assert says in done["message"]
    assert hint in done["hint"]
    assert not library.exists()


def test_a_gated_repository_says_where_to_accept(client: Client, library: Path, hub: HubProcess) -> None:
    hub.tell(gated=[REPO])
    done = client.fetch(library, REPO, FILE)
    hub.tell(gated=[])
    assert done["exit"] == 3
    assert "is gated" in done["message"]
    assert f"{hub.url}/{REPO}" in done["hint"]


def test_files_can_be_gated_where_their_list_is_not(client: Client, library: Path, hub: HubProcess) -> None:
    hub.tell(faults=[Fault(at="hub", status=403, headers={"X-Error-Code": "GatedRepo"})])
    done = client.fetch(library, REPO, FILE)
    assert (done["exit"], "is gated" in done["message"]) == (3, True)


def test_a_disabled_repository(client: Client, library: Path, hub: HubProcess) -> None:
    hub.tell(faults=[Fault(at="hub", status=403, headers={"X-Error-Message": "Access to this resource is disabled."})])
    done = client.fetch(library, REPO, FILE)
    assert (done["exit"], f"the Hub has disabled {REPO}" in done["message"]) == (3, True)


def test_a_page_of_the_network_is_not_taken_for_the_hub(client: Client, library: Path, hub: HubProcess) -> None:
    hub.tell(portal=True)
    done = client.fetch(library, REPO, FILE)
    assert done["exit"] == 5
    assert "does not speak the Hub's API" in done["message"]
    assert "log in first" in done["hint"]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"stated": {"lfs": {"sha": 1}}}, "does not speak the Hub's API"),
        ({"revision": "../../x"}, f"states no commit of {REPO}"),
    ],
)
def test_what_a_server_says_becomes_no_path_unchecked(
    client: Client, library: Path, hub: HubProcess, settings: dict[str, object], says: str
) -> None:
    hub.tell(**settings)
    done = client.fetch(library, REPO, FILE)
    assert done["exit"] == 5
    assert says in done["message"]
    assert not library.exists()


@pytest.mark.parametrize(
    "stated", [{"lfs": {"sha256": "../../../x", "size": 1, "pointerSize": 1}}, {"lfs": None, "blobId": "a/b"}]
)
def test_a_hash_that_is_none_is_asked_of_the_file(
    client: Client, library: Path, hub: HubProcess, stated: dict[str, object]
) -> None:
    hub.tell(stated=stated)
    done = client.fetch(library, REPO, FILE)
    assert done["after"][0]["verified"]
    assert published_sha256(Path(done["paths"][0]).resolve())


def test_a_renamed_repository_is_followed_and_kept_under_its_old_name(client: Client, library: Path) -> None:
    (path,) = client.fetch(library, "old/Name", FILE)["paths"]
    assert "models--old--Name" in path


def test_an_expired_token(client: Client, library: Path, hub: HubProcess) -> None:
    hub.tell(token="hf_another")  # noqa: S106 - it opens a loopback server of these tests
    done = client.fetch(library, REPO, FILE)
    assert done["exit"] == 5
    assert "refuses access" in done["message"]
    assert "your token may have expired" in done["hint"]
    assert "hf_secret" not in json.dumps(done)


def test_the_token_goes_to_the_hub_only(client: Client, library: Path, hub: HubProcess) -> None:
    done = client.fetch(library, REPO, FILE)
    log = hub.tell()
    assert {one["authorization"] for one in log if one["server"] == "hub"} == {"Bearer hf_secret"}
    assert [one["authorization"] for one in log if one["server"] == "cdn"] == [None]
    assert "hf_secret" not in json.dumps(done)


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("HF_HUB_OFFLINE", "1", "offline mode is on"),
        ("HF_ENDPOINT", "http://me:hf_secret@127.0.0.1:9", "the Hub (http://127.0.0.1:9) cannot be reached"),
        ("HTTP_PROXY", "http://127.0.0.1:9", "cannot be reached"),
    ],
)
def test_no_way_to_the_hub(hub: HubProcess, library: Path, variable: str, value: str, says: str) -> None:
    with Client(environment(hub, **{variable: value})) as client:
        done = client.fetch(library, REPO, FILE)
    assert done["exit"] == 5
    assert says in done["message"]
    assert "hf_secret" not in json.dumps(done)


# --- Pieces


@given(st.lists(st.binary(max_size=64), max_size=30))
def test_a_thread_hashes_the_same(pieces: list[bytes]) -> None:
    with BackgroundHasher(hashlib.sha256()) as hasher:
        for piece in pieces:
            hasher.update(piece)
        assert hasher.hexdigest() == hashlib.sha256(b"".join(pieces)).hexdigest()


@given(st.binary(max_size=40), st.integers(0, 3_000_000))
def test_zeros_at_the_end_are_dropped(tmp_path_factory: pytest.TempPathFactory, data: bytes, zeros: int) -> None:
    path = tmp_path_factory.getbasetemp() / "zeros"
    path.unlink(missing_ok=True)
    with PartialFile(path, 10**9) as partial:
        partial.write(0, data)
        partial.write(len(data) + zeros, b"\0")
        partial.drop_zeros()
    assert path.read_bytes() == data.rstrip(b"\0")


def test_space_is_measured_where_the_folder_will_be(tmp_path: Path) -> None:
    space = disk_space(tmp_path / "not" / "yet")
    assert space
    SpaceNeeded(tmp_path, space.free, space.free).check()
    SpaceNeeded(tmp_path, 10, None).check()
    with pytest.raises(DoesNotFitError):
        SpaceNeeded(tmp_path, space.free + 1, space.free).check()
