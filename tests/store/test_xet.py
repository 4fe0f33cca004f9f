"""Files in Xet storage, by the real hf_xet from a store in a folder; the Hub gives out the token for it."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from download_rig import FILE, REPO, environment, fetched, incomplete, phases
from hub_server import Fault, HubProcess
from huggingface_hub.utils._runtime import is_xet_available
from pull_client import Client, unsound

SIZE = 8_000_000
PUT = """
import sys, hf_xet
with hf_xet.XetSession().new_upload_commit(endpoint="local://" + sys.argv[1]) as commit:
    upload = commit.start_upload_file(sys.argv[2])
print(upload.result().xet_info.hash)
"""

pytestmark = pytest.mark.skipif(not is_xet_available(), reason="hf_xet is not installed or switched off")


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("served") / "content"
    path.write_bytes(random.Random(7).randbytes(SIZE))
    return path


@pytest.fixture(scope="module")
def hub(content: Path) -> Iterator[HubProcess]:
    store = content.with_name("cas")
    store.mkdir()
    command = [sys.executable, "-c", PUT, str(store), str(content)]
    variables = {
        **os.environ,
        "HF_HOME": str(content.with_name("home")),
    }  # a log elsewhere may fail, on standard output
    put = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    xet_names = {FILE: put.stdout.strip()}
    with HubProcess({REPO: {FILE: content}}, storage=True, cas=f"local://{store}", xet=xet_names) as running:
        yield running


@pytest.fixture
def library(tmp_path: Path, hub: HubProcess, content: Path) -> Iterator[Path]:
    hub.tell(log=[], faults=[])
    yield tmp_path / "hub"
    assert unsound(tmp_path / "hub", [content]) == []


@pytest.fixture  # for each test: a process in which Xet failed once does without
def client(hub: HubProcess, content: Path) -> Iterator[Client]:
    more = {"HF_HUB_DISABLE_XET": "0", "HF_HOME": str(content.with_name("home"))}
    with Client(environment(hub, **more)) as running:
        yield running


def asked_of_storage(hub: HubProcess) -> list[str | None]:
    return [one["range"] for one in hub.tell() if one["server"] == "cdn"]


def test_a_file_comes_from_xet(client: Client, hub: HubProcess, library: Path) -> None:
    done = client.fetch(library, REPO, FILE)
    assert fetched(done) == SIZE
    assert done["after"][0]["verified"]
    assert asked_of_storage(hub) == [], [one["reason"] for one in done["events"]]
    assert any("xet-read-token" in one["path"] for one in hub.tell())


def test_xet_goes_on_where_another_connection_ended(client: Client, hub: HubProcess, library: Path) -> None:
    hub.tell(faults=[Fault(cut=5_000_000), *[Fault(cut=0)] * 9])
    with Client(environment(hub)) as without:
        assert without.fetch(library, REPO, FILE)["error"] == "NetworkError"
    (part,) = incomplete(library)
    assert part.stat().st_size == 5_000_000
    hub.tell(log=[], faults=[])
    done = client.fetch(library, REPO, FILE)
    assert fetched(done) == SIZE - 5_000_000
    assert done["after"][0]["verified"]
    assert asked_of_storage(hub) == [], [one["reason"] for one in done["events"]]


def test_what_xet_does_not_give_comes_by_plain_http(
    client: Client, hub: HubProcess, library: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    hub.tell(cas=f"local://{tmp_path / 'empty'}", revision="e" * 40)  # another revision: hf_xet keeps its token
    done = client.fetch(library, REPO, FILE)
    hub.tell(cas=hub.settings["cas"])
    assert "retrying" in phases(done)
    assert done["after"][0]["verified"]
    assert asked_of_storage(hub) == [None]


def test_a_limit_of_speed_is_kept_by_plain_http(client: Client, hub: HubProcess, library: Path) -> None:
    done = client.fetch(library, REPO, FILE, policy={"max_speed": 10 * SIZE})
    assert done["after"][0]["verified"]
    assert asked_of_storage(hub) == [None]


def test_a_log_that_cannot_be_written_is_not_on_standard_output(hub: HubProcess, library: Path, content: Path) -> None:
    with Client(environment(hub, HF_HUB_DISABLE_XET="0", HF_HOME=str(content / "no-folder"))) as client:
        done = client.fetch(library, REPO, FILE)  # reads JSON from standard output
    assert done["after"][0]["verified"]
    assert asked_of_storage(hub) == [], [one["reason"] for one in done["events"]]
