"""Files of settings, records and keys that are damaged, odd or on a full disk: one error each, and nothing is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import HANG, RunHermes, clean_environment, start_hermes

from hermes_cli import paths
from hermes_cli.commands.app import run
from hermes_cli.errors import ExitCode, UsageError
from hermes_cli.process_guard import started_at
from hermes_cli.server.running import running_servers

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "\n".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 10)}]" for n in range(8)
)


@pytest.fixture
def places(tmp_path: Path) -> dict[str, str]:
    return {f"HERMES_LLM_{name}_DIR": str(tmp_path) for name in ("CONFIG", "DATA", "CACHE", "LOG")}


@pytest.mark.parametrize(
    ("file", "text", "reason"),
    [
        ("serve.yaml", f"port: {'9' * 5000}", "serve.yaml is not YAML: Exceeds the limit"),
        ("serve.yaml", "[" * 20_000, "serve.yaml is not YAML"),
        ("serve.yaml", LAUGHS, "serve.yaml has more than 100,000 values"),
        ("serve.yaml", "keep_alive: .nan", "serve.yaml: keep_alive nan: that is no duration."),
        ("chat.yaml", f"defaults: {{seed: {'9' * 5000}}}", "chat.yaml is not YAML: Exceeds the limit"),
        ("chat.yaml", "presets: &a {b: *a}", "chat.yaml has more than 100,000 values"),
        ("chat.yaml", "defaults: {temperature: .nan}", "temperature: nan is not a text or a number."),
        ("chat.yaml", "defaults: {system: [a, b]}", "system: ['a', 'b'] is not a text or a number."),
        ("chat.yaml", "defaults: {mcp: {a: b}}", "mcp: {'a': 'b'} is not texts or numbers."),
    ],
)
def test_settings_that_cannot_be(
    file: str, text: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HERMES_LLM_CONFIG_DIR", str(tmp_path))
    (tmp_path / file).write_text(text)
    with pytest.raises(UsageError) as error:
        run(["config", "list", "--json"])
    assert reason in error.value.message
    assert (tmp_path / file).read_text() == text


def test_a_change_keeps_line_breaks_mark_mode_and_link(
    tmp_path: Path, hermes: RunHermes, places: dict[str, str]
) -> None:
    kept = tmp_path / "elsewhere.yaml"
    kept.write_bytes(b"\xef\xbb\xbf# mine\r\ndefaults:\r\n  top_k: 5\r\n")
    kept.chmod(0o640)
    (tmp_path / "chat.yaml").symlink_to(kept)
    assert hermes("config", "set", "threads", "2", env=places).returncode == 0
    assert (tmp_path / "chat.yaml").is_symlink()
    assert kept.read_bytes() == b"\xef\xbb\xbf# mine\r\ndefaults:\r\n  top_k: 5\r\n  threads: 2\r\n"
    if os.name == "posix":
        assert kept.stat().st_mode & 0o777 == 0o640


def test_two_changes_at_once_are_both_made(tmp_path: Path, hermes: RunHermes, places: dict[str, str]) -> None:
    names = ("top_k", "seed", "threads", "max_tokens")
    environment = {**clean_environment(), **places}
    running = [start_hermes(("config", "set", name, "7"), tmp_path, environment) for name in names]
    for process in running:
        process.communicate(timeout=HANG)
    listed = json.loads(hermes("config", "list", "--json", env=places).stdout)["settings"]
    assert listed == dict.fromkeys(names, 7)


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a file's size")
def test_a_file_that_cannot_be_written_whole_is_as_before(tmp_path: Path) -> None:
    import resource  # noqa: PLC0415 - not on Windows

    path = tmp_path / "chat.yaml"
    path.write_text("defaults: {top_k: 5}\n")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))  # as a disk that is full after 4 kB
    try:
        for write in (paths.write_settings, paths.write_private):
            with pytest.raises(OSError, match=r"chat\.yaml"):
                write(path, "x" * 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_text() == "defaults: {top_k: 5}\n"
    assert list(tmp_path.iterdir()) == [path]


def test_hermes_stop_leaves_processes_alone_that_are_no_servers(
    tmp_path: Path, hermes: RunHermes, places: dict[str, str]
) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        record = {"pid": other.pid, "start": started_at(other.pid), "started": time.time(), "models": ["demo"]}
        (tmp_path / "servers").mkdir()
        (tmp_path / "servers/1.json").write_text(json.dumps({**record, "address": "http://127.0.0.1:9"}))
        done = hermes("stop", "--all", "--force", env=places)
        assert done.returncode == ExitCode.FAILED
        assert f"process {other.pid} does not listen at http://127.0.0.1:9" in done.stderr
        assert other.poll() is None
        other.communicate(b"\n")
    assert other.returncode == 0


@pytest.mark.parametrize(
    "change",
    [
        {"pid": "1"},
        {"pid": -1},
        {"pid": 1.5},
        {"address": None},
        {"address": "http://127.0.0.1:99999"},
        {"address": "http://[::1"},
        {"address": "http://a\x1b[31m"},
        {"models": [1]},
        {"models": "demo"},
        {"models": ["a\x1b[2J"]},
        {"started": "now"},
        {"started": float("nan")},
        {"grace": 1e300},
        {"key": 5},
    ],
)
def test_records_of_servers_that_cannot_be_are_passed_over(
    change: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HERMES_LLM_DATA_DIR", str(tmp_path))
    own = {"pid": os.getpid(), "start": started_at(os.getpid()), "started": 1.0, "models": ["demo"]}
    record = {**own, "address": "http://127.0.0.1:8080", "newer": [1]}
    (tmp_path / "servers").mkdir()
    (tmp_path / "servers/1.json").write_text(json.dumps(record))
    (tmp_path / "servers/2.json").write_text(json.dumps({**record, **change}))
    (tmp_path / "servers/3.json").write_text("[" * 100_000)
    (tmp_path / "servers/4.json").mkdir()
    assert [server.address for server in running_servers()] == ["http://127.0.0.1:8080"]
