"""Everything that goes wrong with downloads. After each of these tests the library is checked (`download_rig.library`)."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from conftest import HANG, eventually
from download_rig import (  # noqa: F401 - the_* are fixtures
    FILE,
    REPO,
    SIZE,
    environment,
    fetched,
    file_requests,
    hf,
    incomplete,
    interrupted,
    phases,
    the_client,
    the_contents,
    the_hub,
    the_library,
    the_server,
)
from hub_server import Fault, HubProcess
from pull_client import Client

from hermes_cli.units import gigabytes

MIB = 1 << 20


def reasons(outcome: dict[str, list[dict[str, str]]]) -> list[str]:
    return [event["reason"] for event in outcome["events"] if event["phase"] == "retrying"]


# --- One run gets over it


@pytest.mark.parametrize(
    ("faults", "says"),
    [
        ([Fault(cut=0), Fault(cut=1), Fault(cut=1_234_567)], "the connection broke"),
        ([Fault(cut=at) for at in random.Random(1).sample(range(SIZE // 8), 8)], "the connection broke"),
        ([Fault(cut=SIZE - 1)], "the connection broke"),
        ([Fault(short=1_000_000), Fault(short=0)], "ended the file too early"),
        ([Fault(claim=1_000_000, cut=SIZE - 500)], "the connection broke"),
        ([Fault(claim=-1_000_000)], "ended the file too early"),
        ([Fault(stall=2_000_000)], "nothing came for 0.3 s"),
        ([Fault(stall=0)], "nothing came for 0.3 s"),
        ([Fault(drip=20)], "bytes came in"),
        ([Fault(status=500), Fault(status=502), Fault(status=503)], "answers with status 503"),
        ([Fault(status=503, at="hub")], "the Hub (http://127.0.0.1"),
        ([Fault(status=429, headers={"Retry-After": "0"})], "answers with status 429"),
        ([Fault(status=403)], "the storage (localhost) answers with status 403"),
        ([Fault(cut=500_000), Fault(status=416)], "answers with status 416"),
        ([Fault(cut=500_000), Fault(shift=7)], "sends another part of the file"),
    ],
)
def test_one_run_gets_over_it(client: Client, hub: HubProcess, library: Path, faults: list[Fault], says: str) -> None:
    hub.tell(faults=faults)
    policy = {"max_attempts": 9, "read_timeout": 0.3, "speed_window": 0.4}
    done = client.fetch(library, REPO, FILE, policy=policy)
    assert any(says in reason for reason in reasons(done)), done
    assert fetched(done) == SIZE  # nothing came twice
    assert done["after"][0]["verified"]
    assert not incomplete(library)


@pytest.mark.parametrize("faults", [[], [Fault(cut=at) for at in (100_000, 200_000, 300_000, 400_000)]])
def test_a_limit_of_speed_holds_over_all_connections(
    client: Client, hub: HubProcess, library: Path, faults: list[Fault]
) -> None:
    hub.tell(faults=faults)
    start = time.monotonic()
    done = client.fetch(library, REPO, FILE, policy={"max_speed": 10 * SIZE, "max_attempts": 9})
    assert time.monotonic() - start >= 0.1  # no clock can run faster than the limit
    assert len(reasons(done)) == len(faults)
    assert (fetched(done), done["after"][0]["verified"]) == (SIZE, True)


def test_a_limit_below_what_counts_as_dripping(client: Client, library: Path) -> None:
    policy = {"max_speed": 500_000, "min_speed": 10_000_000, "speed_window": 0.1}
    assert reasons(client.fetch(library, REPO, "README.md", "same.gguf", policy=policy)) == []


def test_more_than_the_file_is_cut_off(client: Client, hub: HubProcess, library: Path) -> None:
    hub.tell(faults=[Fault(claim=1_000)])
    assert client.fetch(library, REPO, FILE)["after"][0]["verified"]


def test_a_server_without_ranges_sends_all_of_it_again(client: Client, hub: HubProcess, library: Path) -> None:
    interrupted(client, hub, library, 2_000_000)
    hub.tell(faults=[Fault(ranges=False, cut=1_000_000), Fault(ranges=False)])
    done = client.fetch(library, REPO, FILE)
    assert "skipping" in phases(done)
    assert fetched(done) == SIZE - 2_000_000  # what is here stays, even if the line breaks again before it
    assert done["after"][0]["verified"]


@pytest.mark.parametrize(
    "header",
    [
        {"Retry-After": "3600"},
        {"Retry-After": "in an hour"},  # of when it is sent
        {"RateLimit": '"resolvers";r=0;t=3600'},
    ],
)
def test_a_server_that_wants_an_hour_is_not_waited_for(
    client: Client, hub: HubProcess, library: Path, header: dict[str, str]
) -> None:
    in_an_hour = format_datetime(datetime.now(UTC) + timedelta(hours=1))
    header = {name: in_an_hour if value == "in an hour" else value for name, value in header.items()}
    hub.tell(faults=[Fault(status=429, headers=header)])
    done = client.fetch(library, REPO, FILE)
    assert done["exit"] == 5
    assert "status 429 and asks to wait 3" in done["message"]


def test_the_server_goes_away_and_comes_back(library: Path, served: Path) -> None:
    with HubProcess({REPO: {FILE: served}}, storage=True, pace=5_000_000) as own, Client(environment(own)) as client:
        client.start(library, REPO, FILE, policy={"max_attempts": 200})
        eventually(lambda: bool(incomplete(library)) and incomplete(library)[0].stat().st_size > 500_000)
        own.kill()
        own.start()
        done = client.outcome()
    assert fetched(done) == SIZE
    assert any("onnect" in reason for reason in reasons(done))


@pytest.fixture
def served(contents: dict[str, Path]) -> Path:
    return contents[FILE]


# --- One run does not get over it, the next goes on


def test_it_gives_up_and_goes_on_from_there(client: Client, hub: HubProcess, library: Path) -> None:
    first = interrupted(client, hub, library, 1_500_000)
    assert first["exit"] == 5
    assert "does not get on: the connection broke" in first["message"]
    assert "run the same command again" in first["hint"]
    assert not list(library.glob("models--*/snapshots/*/*"))
    done = client.fetch(library, REPO, FILE)
    assert (done["before"][0]["here"], done["before"][0]["complete"]) == (1_500_000, False)
    assert [one["range"] for one in file_requests(hub)] == ["bytes=1500000-"]
    assert phases(done) == ["resuming", "hashing", "downloading", "verifying", "done"]
    assert fetched(done) == SIZE - 1_500_000
    assert done["after"][0]["verified"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_killed_process_loses_next_to_nothing(
    client: Client, hub: HubProcess, library: Path, number: signal.Signals
) -> None:
    hub.tell(faults=[Fault(stall=2_000_000)])
    with Client(environment(hub)) as victim:
        victim.start(library, REPO, FILE, policy={"read_timeout": HANG})
        eventually(lambda: bool(incomplete(library)) and incomplete(library)[0].stat().st_size >= 2_000_000 - MIB)
        victim.send(number)
        victim.end()
    kept = incomplete(library)[0].stat().st_size
    assert kept >= 2_000_000 - MIB
    done = client.fetch(library, REPO, FILE)
    assert fetched(done) == SIZE - kept
    assert done["after"][0]["verified"]


def test_zeros_that_a_loss_of_power_left_are_fetched_again(client: Client, hub: HubProcess, library: Path) -> None:
    interrupted(client, hub, library, 1_500_000)
    (part,) = incomplete(library)
    with part.open("r+b") as file:
        file.seek(1_200_000)
        file.write(bytes(800_000))
    done = client.fetch(library, REPO, FILE)
    assert fetched(done) == SIZE - 1_200_000
    assert done["after"][0]["verified"]


def test_killed_between_the_last_byte_and_the_name(
    client: Client, hub: HubProcess, library: Path, served: Path
) -> None:
    interrupted(client, hub, library, 1_000)
    shutil.copyfile(served, incomplete(library)[0])
    done = client.fetch(library, REPO, FILE)
    assert fetched(done) == 0
    assert done["after"][0]["verified"]


def test_a_partial_file_longer_than_the_file_is_no_beginning_of_it(
    client: Client, hub: HubProcess, library: Path
) -> None:
    interrupted(client, hub, library, 1_000)
    incomplete(library)[0].write_bytes(b"x" * (SIZE + 1))
    done = client.fetch(library, REPO, FILE)
    assert (done["before"][0]["here"], fetched(done)) == (0, SIZE)


# --- Wrong bytes


def test_a_flipped_byte_is_fetched_again_and_never_has_the_name(client: Client, hub: HubProcess, library: Path) -> None:
    hub.tell(faults=[Fault(flip=2_222_222)])
    done = client.fetch(library, REPO, FILE)
    assert fetched(done) == 2 * SIZE
    assert "repairing" in phases(done)
    assert done["after"][0]["verified"]


def test_what_an_earlier_run_left_is_suspected_first(client: Client, hub: HubProcess, library: Path) -> None:
    interrupted(client, hub, library, 1_000_000, flip=999)
    done = client.fetch(library, REPO, FILE)
    assert fetched(done) == SIZE  # the rest, then what was here
    assert [one["range"] for one in file_requests(hub)] == ["bytes=1000000-", "bytes=0-999999"]


def test_then_what_came_in_this_run(client: Client, hub: HubProcess, library: Path) -> None:
    interrupted(client, hub, library, 1_000_000)
    hub.tell(faults=[Fault(flip=1_000_001)])
    done = client.fetch(library, REPO, FILE)
    assert fetched(done) == 2 * SIZE - 1_000_000
    assert done["after"][0]["verified"]


def test_wrong_twice_is_an_error_with_both_hashes(client: Client, hub: HubProcess, library: Path, served: Path) -> None:
    hub.tell(faults=[Fault(flip=5), Fault(flip=6)])
    done = client.fetch(library, REPO, FILE)
    assert (done["error"], done["exit"]) == ("IntegrityError", 6)
    raw = bytearray(served.read_bytes())
    raw[6] ^= 1
    assert FILE in done["message"]
    for content in (raw, served.read_bytes()):
        assert hashlib.sha256(content).hexdigest() in done["message"]
    assert not list(library.glob("models--*/snapshots/*/*"))
    assert [part.stat().st_size for part in incomplete(library)] == [0]


def test_a_file_that_changed_on_the_server_is_not_mixed_with_ours(
    client: Client, hub: HubProcess, library: Path
) -> None:
    interrupted(client, hub, library, 1_000_000)
    hub.tell(faults=[Fault(etag="a" * 64)])
    done = client.fetch(library, REPO, FILE)
    assert done["exit"] == 6
    assert "has changed on the server" in done["message"]
    assert incomplete(library)[0].stat().st_size == 1_000_000
    assert fetched(client.fetch(library, REPO, FILE)) == SIZE - 1_000_000


# --- The disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    if sys.platform != "linux" or os.getuid() or subprocess.run(mount, check=False).returncode:
        pytest.skip("only root can mount a small disk")
    yield place
    subprocess.run(["umount", str(place)], check=True)  # noqa: S607 - where it is differs


def test_a_file_that_does_not_fit_is_refused_before_any_byte(client: Client, hub: HubProcess, small_disk: Path) -> None:
    done = client.fetch(small_disk / "hub", REPO, FILE)
    assert (done["error"], done["exit"]) == ("DoesNotFitError", 4)
    assert done["message"] == f"3.00 MB are needed in {small_disk / 'hub'}, 2.10 MB are free."
    assert "--force" in done["hint"]
    assert file_requests(hub) == []


def test_a_full_disk_keeps_what_fitted_and_says_how_much_more(
    client: Client, hub: HubProcess, small_disk: Path, library: Path
) -> None:
    full = client.fetch(small_disk / "hub", REPO, FILE, force=True)
    assert full["exit"] == 4
    (part,) = incomplete(small_disk / "hub")
    kept = part.stat().st_size
    assert kept > 1_500_000
    assert f"is full, {gigabytes(SIZE - kept)} more are needed; what is here is kept" in full["message"]
    shutil.copytree(small_disk / "hub", library)  # as if there were room now
    hub.tell(log=[])
    done = client.fetch(library, REPO, FILE)
    assert fetched(done) == SIZE - kept
    assert done["after"][0]["verified"]


def test_a_file_system_with_a_limit_says_so(client: Client, hub: HubProcess, library: Path) -> None:
    with Client(environment(hub), file_limit=1_000_000) as limited:
        full = limited.fetch(library, REPO, FILE)
    assert full["exit"] == 4
    assert "cannot hold a file of this size" in full["message"]
    assert fetched(client.fetch(library, REPO, FILE)) == SIZE - 1_000_000


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX")
def test_a_cache_that_cannot_be_written(client: Client, library: Path) -> None:
    library.mkdir()
    (library / "models--somebody--Some-GGUF").write_text("in the way")
    done = client.fetch(library, REPO, FILE)
    assert done["exit"] == 1
    assert "cannot be read or written" in done["message"]
    assert "models--somebody--Some-GGUF" in done["message"]
    (library / "models--somebody--Some-GGUF").unlink()


# --- Several at once


def test_two_processes_share_one_download(client: Client, hub: HubProcess, library: Path) -> None:
    hub.tell(pace=100_000)
    with Client(environment(hub)) as other:
        other.start(library, REPO, FILE)
        eventually(lambda: bool(incomplete(library)))
        client.start(library, REPO, FILE)
        eventually(lambda: sum(request["path"].startswith("/api/models") for request in hub.tell()) > 1)
        hub.tell(pace=1_000_000)  # slow enough for the second to find the lock
        second, first = client.outcome(), other.outcome()
    assert (fetched(first), fetched(second)) == (SIZE, 0)
    assert len(file_requests(hub)) == 1
    assert phases(second) == ["waiting", "done"]
    done = [event["done"] for event in second["events"] if event["phase"] == "waiting"]
    assert done == sorted(done)
    assert 0 < done[-1] <= SIZE


def test_the_one_who_waits_goes_on_if_the_other_dies(client: Client, hub: HubProcess, library: Path) -> None:
    hub.tell(faults=[Fault(stall=2_000_000)])
    with Client(environment(hub)) as victim:
        victim.start(library, REPO, FILE, policy={"read_timeout": HANG})
        eventually(lambda: bool(incomplete(library)) and incomplete(library)[0].stat().st_size > 500_000)
        client.start(library, REPO, FILE)
        victim.kill()
    done = client.outcome()
    assert done["after"][0]["verified"]
    assert fetched(done) < SIZE


def test_hf_download_waits_for_us(client: Client, hub: HubProcess, library: Path) -> None:
    hub.tell(faults=[Fault(stall=1_000_000)])
    client.start(library, REPO, FILE, policy={"read_timeout": 1.0})  # long enough for hf to come and wait
    eventually(lambda: bool(incomplete(library)))
    theirs, problems = hf(hub, library, REPO, FILE).communicate(timeout=HANG)
    assert theirs.strip() == client.outcome()["paths"][0], problems
    assert len(file_requests(hub)) == 2  # both ours: before and after the stall


def test_we_wait_for_hf_download(client: Client, hub: HubProcess, library: Path) -> None:
    hub.tell(pace=3_000_000)
    theirs = hf(hub, library, REPO, FILE)
    eventually(lambda: bool(incomplete(library)))
    done = client.fetch(library, REPO, FILE)
    assert theirs.communicate(timeout=HANG)[0]
    assert "waiting" in phases(done)
    assert fetched(done) == 0
    assert done["after"][0]["verified"]
    assert len(file_requests(hub)) == 1
