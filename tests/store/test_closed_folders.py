"""Files and folders that may not be read: one line that says which, and what opens it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import HANG, Finished, clean_environment
from hermes_zygote import HERMES, zygote
from hub_cache import HubCache
from hub_server import Hub, serving

Hermes = Callable[..., Finished]


@pytest.fixture
def hub(tmp_path: Path) -> HubCache:
    hub = HubCache(tmp_path)
    hub.home.mkdir()
    return hub


# capabilities(7): CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH are given up, by this process and what it starts.
NO_POWER = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
PR_CAPBSET_DROP, VERSION_3, POWERS = 24, 0x20080522, (1, 2)
for power in POWERS:
    assert libc.prctl(PR_CAPBSET_DROP, power) == 0
head, sets = (ctypes.c_uint32 * 2)(VERSION_3, 0), (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice
assert libc.capget(head, sets) == 0
for at in (0, 1, 2):
    sets[at] &= ~sum(1 << power for power in POWERS)
assert libc.capset(head, sets) == 0
"""


@pytest.fixture
def hermes(hub: HubCache, tmp_path: Path) -> Hermes:
    """Run `hermes` as permissions hold for everybody, also if root runs these tests."""
    if (forks := zygote()) is None:
        pytest.skip("permissions of POSIX")
    is_root = os.geteuid() == 0
    if is_root and sys.platform != "linux":
        pytest.skip("root may read everything, and cannot give that up")

    def run(*arguments: str, **variables: str) -> Finished:
        environment = {**clean_environment(), **hub.environment, **variables}
        process = forks.start(arguments, tmp_path, environment, code=(NO_POWER if is_root else "") + HERMES)
        out, error = process.communicate(HANG)
        return subprocess.CompletedProcess(arguments, process.returncode or 0, out, error)

    return run


def closed(folder: Path, mode: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(mode)
    return folder


@pytest.mark.parametrize(
    "command",
    [
        ("show", "d/x.gguf"),
        ("chat", "d/x.gguf", "Hi"),
        ("serve", "d/x.gguf"),
        ("import", "d/x.gguf"),
        ("import", "d"),
        ("export", "d/x.gguf", "--to", "e"),
    ],
)
def test_a_file_in_a_closed_folder(hermes: Hermes, tmp_path: Path, demo_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / "d").mkdir()
    shutil.copyfile(demo_path, tmp_path / "d" / "x.gguf")
    closed(tmp_path / "d")
    done = hermes(*command)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 2), done.stderr
    assert done.stderr.startswith("error: cannot read d")
    assert f"it is yours, so open it: chmod u+rwX {'d' if command[-1] == 'd' else tmp_path / 'd'}" in done.stderr


def test_a_closed_file(hermes: Hermes, tmp_path: Path, demo_path: Path) -> None:
    shutil.copyfile(demo_path, tmp_path / "x.gguf")
    (tmp_path / "x.gguf").chmod(0)
    assert "error: cannot read x.gguf: it belongs to" in hermes("show", "x.gguf").stderr


@pytest.mark.parametrize(
    "more", [("--to", "d/y"), ("--to", "ollama", "--into", "d/y"), ("--to", "lmstudio", "--into", "d/y")]
)
def test_export_into_a_closed_folder(hermes: Hermes, tmp_path: Path, more: tuple[str, ...]) -> None:
    closed(tmp_path / "d")
    done = hermes("export", "demo", *more)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 2), done.stderr
    assert "Permission denied" in done.stderr or "is closed to you" in done.stderr


def test_one_closed_folder_takes_no_others_along(hermes: Hermes, tmp_path: Path, demo_path: Path) -> None:
    shutil.copyfile(demo_path, tmp_path / "x.gguf")
    closed(tmp_path / "d")
    done = hermes("import", ".")
    assert done.returncode == 0, done.stderr
    assert "left out: cannot read d: it belongs to" in done.stderr


def test_ollamas_service_wants_its_group(hermes: Hermes, tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root can give a folder away")
    service = tmp_path / "service"
    (service / "models" / "manifests").mkdir(parents=True)
    os.chown(service, 65_534, 65_534)
    service.chmod(0o750)
    done = hermes("import", "ollama", OLLAMA_MODELS=str(service / "models"))
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: cannot read {service / 'models'}: {service} belongs to ")
    assert "next: add yourself to the group nogroup, then log in again: sudo usermod -aG nogroup " in done.stderr
    service.chmod(0o700)
    assert "ask its owner for access" in hermes("import", "ollama", OLLAMA_MODELS=str(service / "models")).stderr


def test_a_closed_manifest_and_a_closed_blob_are_told(hermes: Hermes, tmp_path: Path) -> None:
    manifests, blobs = tmp_path / "models" / "manifests" / "host" / "library" / "x", tmp_path / "models" / "blobs"
    manifests.mkdir(parents=True)
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{'b' * 64}"}
    (manifests / "open").write_text(json.dumps({"layers": [layer]}))
    (manifests / "closed").touch(0)
    blobs.mkdir()
    (blobs / f"sha256-{'b' * 64}").write_bytes(b"GGUF")
    closed(blobs)
    done = hermes("import", "models")
    assert done.returncode == 3
    assert done.stderr.count("left out: cannot read ") == 2
    assert "is gone" not in done.stderr


@pytest.mark.parametrize(
    "command", [("list", "--installed"), ("du",), ("chat", "hermes-3:3b", "Hi"), ("pull", "hermes-3:3b"), ("rm", "x")]
)
def test_a_closed_cache_is_not_an_empty_one(hermes: Hermes, tmp_path: Path, command: tuple[str, ...]) -> None:
    closed(tmp_path / "hf")
    done = hermes(*command, HF_HOME=str(tmp_path / "hf"), HF_HUB_CACHE="")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 2), done.stderr
    assert done.stderr.startswith(f"error: cannot read HF_HOME ({tmp_path / 'hf'}")


def test_the_catalogue_is_listed_with_a_closed_cache(hermes: Hermes, tmp_path: Path) -> None:
    closed(tmp_path / "hub")
    done = hermes("list")
    assert done.returncode == 0
    assert "hermes-3:8b" in done.stdout
    assert f"\ncannot read HF_HUB_CACHE ({tmp_path / 'hub'})" in done.stderr


def test_a_closed_token_is_warned_of_and_public_files_come(hermes: Hermes, tmp_path: Path, demo_path: Path) -> None:
    token = closed(tmp_path / "hf") / "token"
    with serving(Hub({"somebody/Some-GGUF": {"some-Q8_0.gguf": demo_path}})) as hub:
        done = hermes("pull", "somebody/Some-GGUF", **hub.environment, HF_TOKEN_PATH=str(token))
        assert (done.returncode, done.stderr.count("cannot read")) == (0, 1), done.stderr
        assert done.stderr.startswith(f"cannot read {token}: {tmp_path / 'hf'} belongs to")
        assert "Going on without it" in done.stderr


def test_doctor_goes_on_where_something_is_closed(hermes: Hermes, tmp_path: Path) -> None:
    token = closed(tmp_path / "hf") / "token"
    done = hermes("doctor", "--offline", HF_TOKEN_PATH=str(token), HF_HUB_CACHE=str(closed(tmp_path / "closed")))
    assert done.returncode == 1
    assert f"PROBLEM  token: cannot read {token}" in done.stdout
    assert "PROBLEM  models: cannot read HF_HUB_CACHE" in done.stdout
    assert "ok       Hub: " in done.stdout
    assert "ok       demo: loads" in done.stdout
    assert "cannot read" not in done.stderr


def test_a_token_that_is_no_text(hermes: Hermes, tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(b"\xff\xfe")
    done = hermes("show", "somebody/Some-GGUF", HF_TOKEN_PATH=str(tmp_path / "token"))
    assert done.returncode == 5
    assert done.stderr.startswith(f"error: the token in {tmp_path / 'token'} is not text.")
