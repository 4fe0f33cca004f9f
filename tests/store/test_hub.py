from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from architectures import write_family
from conftest import RunHermes
from gguf_bytes import string
from hub_server import REVISION, Hub, serving
from hypothesis import given
from hypothesis import strategies as st

from hermes_cli.errors import ExitCode
from hermes_cli.gguf.reader import LONGEST_TEXT
from hermes_cli.store.hub import MOST_FETCHED, is_safe

REPO = "somebody/Some-GGUF"


@pytest.fixture
def hub(demo_path: Path) -> Iterator[Hub]:
    demo = demo_path.read_bytes()
    files = {"some-Q8_0.gguf": demo, "some-Q4_K_M.gguf": demo[:-1], "README.md": b"# some", "sub/x-Q2_K.gguf": demo}
    with serving(Hub({REPO: files, "somebody/Empty": {"README.md": b""}}, gated={"somebody/Gated"})) as running:
        yield running


def test_show_a_repository(hermes: RunHermes, hub: Hub) -> None:
    done = hermes("show", REPO + ":q8_0", "--json", env=hub.environment)
    assert done.returncode == 0, done.stderr
    page = json.loads(done.stdout)
    assert page["revision"] == REVISION
    assert page["file"] == "some-Q8_0.gguf"
    assert page["quantization"] == "Q8_0"
    assert page["parameters"] == 3_804_416
    assert [one["quantization"] for one in page["files"]] == ["Q8_0", "Q4_K_M", "Q2_K"]


def test_only_the_header_is_fetched(hermes: RunHermes, demo_path: Path) -> None:
    large = demo_path.read_bytes() + bytes(40_000_000)
    with serving(Hub({REPO: {"some-Q8_0.gguf": large}})) as hub:
        done = hermes("show", REPO, env=hub.environment)
    assert done.returncode == 0, done.stderr
    read = int(done.stderr.split(" bytes of its header")[0].rpartition(" ")[2].replace(",", ""))
    assert 32_000 < read < 500_000
    ranges = [asked for _, path, asked in hub.requests if "/resolve/" in path]
    assert ranges
    assert all(ranges)


def test_header_bomb_of_a_repository(hermes: RunHermes, tmp_path: Path) -> None:
    """Each text is one that is kept; only so much is fetched of them."""
    bomb = tmp_path / "bomb.gguf"
    with bomb.open("wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, 0, 200))
        for number in range(200):
            file.write(string(f"k{number}") + struct.pack("<IQ", 8, LONGEST_TEXT))
            file.truncate(file.seek(LONGEST_TEXT, 1))
    with serving(Hub({REPO: {"some-Q8_0.gguf": bomb}})) as hub:
        done = hermes("show", REPO, env=hub.environment)
    assert done.returncode == ExitCode.INTEGRITY
    assert f"has more than {MOST_FETCHED:,} bytes" in done.stderr
    ranges = [re.fullmatch(r"bytes=(\d+)-(\d+)", asked or "") for _, path, asked in hub.requests if "/resolve/" in path]
    assert sum(int(asked[2]) - int(asked[1]) + 1 for asked in ranges if asked) <= MOST_FETCHED


def test_a_server_without_ranges_is_not_asked_for_everything(hermes: RunHermes, demo_path: Path) -> None:
    large = demo_path.read_bytes() + bytes(40_000_000)
    with serving(Hub({REPO: {"some-Q8_0.gguf": large}}, ranges=False)) as hub:
        done = hermes("show", REPO, env=hub.environment)
    assert done.returncode in {0, 5}
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("name", "code", "says"),
    [
        ("somebody/Nothing", 3, "there is no repository somebody/Nothing"),
        ("somebody/Gated", 3, "somebody/Gated is gated"),
        ("somebody/Empty", 3, "somebody/Empty has no GGUF files"),
        (REPO + ":Q3_K_M", 3, "has no Q3_K_M"),
        (f"https://huggingface.co/{REPO}/blob/main/other.gguf", 3, "has no other.gguf"),
        (REPO + ":Q4_K_M", 6, "is damaged: it is truncated"),
    ],
)
def test_what_cannot_be_shown(hermes: RunHermes, hub: Hub, name: str, code: int, says: str) -> None:
    done = hermes("show", name, env=hub.environment)
    assert done.returncode == code
    assert says in done.stderr
    assert "next: " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("status", "says"),
    [(401, "refuses access"), (403, "refuses access"), (404, "status 404"), (500, "status 500"), (429, "too many")],
)
def test_what_the_hub_refuses(hermes: RunHermes, hub: Hub, status: int, says: str) -> None:
    hub.status = status
    done = hermes("show", REPO, env=hub.environment)
    assert done.returncode in {3, 5}
    assert says in done.stderr or "there is no repository" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_network(hermes: RunHermes) -> None:
    done = hermes("show", REPO, env={"HF_ENDPOINT": "http://127.0.0.1:9"})
    assert done.returncode == 5
    assert "the Hub (http://127.0.0.1:9) cannot be reached" in done.stderr


def test_offline(hermes: RunHermes) -> None:
    done = hermes("show", REPO, env={"HF_HUB_OFFLINE": "1"})
    assert done.returncode == 5
    assert "offline mode is on" in done.stderr


def test_a_token_is_never_printed(hermes: RunHermes, hub: Hub) -> None:
    hub.status = 401
    done = hermes("show", REPO, env={**hub.environment, "HF_TOKEN": "hf_secret"})
    assert "hf_secret" not in done.stdout + done.stderr


@pytest.mark.parametrize("path", ["a.gguf", "sub/a-b_c.Q4_K_M.gguf", "x (1).gguf", "a+b=c@d.gguf"])
def test_usual_paths_are_safe(path: str) -> None:
    assert is_safe(path)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/a",
        "a/",
        "../a",
        "a/../b",
        "a//b",
        "a\\b",
        "C:a",
        "\\\\server\\x",
        "con",
        "NUL.gguf",
        "a/com1",
        "a\0b",
        "a.",
        ".a",
        "a ",
        "x.gguf\n",
        "COM¹",
    ],
)
def test_other_paths_are_not(path: str) -> None:
    assert not is_safe(path)


@given(st.text("a./\\:~ \0\ncon", max_size=12))
def test_a_safe_path_stays_in_its_folder(path: str) -> None:
    if is_safe(path):
        joined = os.path.normpath(Path("/cache/x") / path)
        assert joined.startswith("/cache/x/")


def refresh(hermes: RunHermes, hub: Hub, tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return hermes(
        "catalog", "refresh", *arguments, env={**hub.environment, "HERMES_LLM_DATA_DIR": str(tmp_path / "data")}
    )


def test_refresh_learns_and_list_shows_it(hermes: RunHermes, tmp_path: Path) -> None:
    repo = "NousResearch/Hermes-4.3-36B-GGUF"
    hub = Hub({repo: {"hermes-4_3_36b-Q4_K_M.gguf": bytes(5), "hermes-4_3_36b-IQ2_M.gguf": bytes(3)}})
    with serving(hub):
        done = refresh(hermes, hub, tmp_path, "hermes-4.3", "--json")
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert told["repositories"] == [repo]
        assert told["missing"] == ["bartowski/NousResearch_Hermes-4.3-36B-GGUF"]
        assert told["files"] == 2
    listed = hermes(
        "list", "--all", "--generation", "4.3", "--json", env={"HERMES_LLM_DATA_DIR": str(tmp_path / "data")}
    )
    official = [one for one in json.loads(listed.stdout)["variants"] if one["repository"] == repo]
    assert {(one["quantization"], one["bytes"], one["revision"]) for one in official} == {
        ("Q4_K_M", 5, REVISION),
        ("IQ2_M", 3, REVISION),
    }
    assert all(one["sha256"] for one in official)


def test_refresh_offline_changes_nothing(hermes: RunHermes, tmp_path: Path) -> None:
    hub = Hub(url="http://127.0.0.1:9")
    done = refresh(hermes, hub, tmp_path)
    assert done.returncode == 5
    assert "cannot be reached" in done.stderr
    assert not (tmp_path / "data").exists()


def test_refresh_of_something_else(hermes: RunHermes, tmp_path: Path) -> None:
    done = refresh(hermes, Hub(url="http://127.0.0.1:9"), tmp_path, "demo")
    assert done.returncode == 3
    assert "demo is not in the catalogue" in done.stderr


def test_the_hub_is_not_imported_without_need() -> None:
    program = "import sys, hermes_cli.commands.list, hermes_cli.commands.show; print('huggingface_hub' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_plan_reads_the_header_of_a_repository(hermes: RunHermes, tmp_path: Path) -> None:
    """A dry run needs no more than the header."""
    large = write_family(tmp_path / "large.gguf", "gemma3").read_bytes() + bytes(4_000_000)
    files = {"some-Q8_0.gguf": large, "some-Q4_K_M.gguf": large, "mmproj-some-F16.gguf": b"GGUF"}
    with serving(Hub({REPO: files})) as hub:
        done = hermes("plan", REPO, "--cpu-only", "--ram", "8G", "--context", "4096", "--json", env=hub.environment)
    assert done.returncode == 0, done.stderr
    page = json.loads(done.stdout)
    assert page["name"] == f"{REPO}:Q4_K_M"
    assert page["memory_from"] == "dry run"
    assert page["kv_cache"] == 6 << 20
    ranges = [asked for _, path, asked in hub.requests if "/resolve/" in path]
    assert ranges
    assert all(ranges)
