"""`hermes connect`: the settings of each client, what becomes of files that are there, and `llm` with its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
import yaml
from conftest import HANG, RunHermes, clean_environment
from server_rig import Running, hermes_serve, served

from hermes_cli.commands.clients import CLIENTS, ZED_PATH, Connection, with_json_member, with_yaml_item
from hermes_cli.errors import ExitCode, UsageError
from hermes_cli.server.settings import Key, ServerSettings

CONNECTION = Connection("http://127.0.0.1:8080", "hermes-3:8b", 65_536, "sk-key")
SECRET = "sk-of-the-test"  # noqa: S105 - of no server
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="folders of POSIX")


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with served(ServerSettings(keys=(Key("me", SECRET),))) as running:
        yield running


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    unset = ("XDG_CONFIG_HOME", "CODEX_HOME", "CONTINUE_GLOBAL_DIR", "LLM_USER_PATH", "APPDATA")
    places = {"HOME": str(tmp_path), "HERMES_LLM_DATA_DIR": str(tmp_path), "HERMES_LLM_ENDPOINT_KEY": SECRET}
    return {**dict.fromkeys(unset, ""), **places, "HERMES_LLM_CONFIG_DIR": str(tmp_path / "ours")}


def test_each_client_gets_settings_in_its_own_format() -> None:
    texts = {name: client.text(CONNECTION) for name, client in CLIENTS.items()}
    codex = tomllib.loads(texts["codex"])
    assert codex["model_providers"][codex["model_provider"]]["base_url"] == CONNECTION.url
    assert codex["model_context_window"] == CONNECTION.context
    opencode = json.loads(texts["opencode"])
    assert opencode["provider"]["hermes"]["models"]["hermes-3:8b"]["limit"]["context"] == CONNECTION.context
    assert json.loads(texts["claude-code"])["env"]["ANTHROPIC_BASE_URL"] == CONNECTION.root
    assert yaml.safe_load(texts["aider"])["openai-api-base"] == CONNECTION.url
    assert yaml.safe_load(texts["continue"])["models"][0]["apiBase"] == CONNECTION.url
    assert yaml.safe_load(texts["hermes-agent"])["model"]["base_url"] == CONNECTION.url
    assert json.loads(texts["zed"])["available_models"][0]["max_tokens"] == CONNECTION.context
    compile(texts["langchain"], "langchain", "exec")
    without_key = {"zed", "llm"}  # these take it from elsewhere
    assert {name for name, text in texts.items() if "sk-key" not in text} == without_key


def test_what_it_prints_is_taken_by_a_shell(hermes: RunHermes, server: Running, home: dict[str, str]) -> None:
    done = hermes("connect", "env", "--url", f"127.0.0.1:{server.port}", env=home)
    script = f"{done.stdout}\necho $OPENAI_BASE_URL $OPENAI_API_KEY $ANTHROPIC_BASE_URL"
    said = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert said == [f"http://127.0.0.1:{server.port}/v1", SECRET, f"http://127.0.0.1:{server.port}"]


def test_the_change_is_shown_made_and_what_was_there_is_kept(
    hermes: RunHermes, server: Running, home: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / ".codex/hermes.config.toml"
    file.parent.mkdir()
    file.write_text("mine = true\n")
    connect = ("connect", "codex", "--url", f"http://127.0.0.1:{server.port}/v1/")
    asked = hermes(*connect, env=home)
    assert asked.returncode == ExitCode.USAGE
    assert "-mine = true\n" in asked.stdout
    assert '+model = "demo"\n' in asked.stdout
    assert SECRET not in asked.stdout
    assert file.read_text() == "mine = true\n"
    printed = hermes(*connect, "--print", env=home)
    assert tomllib.loads(printed.stdout)["model"] == "demo"
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    done = hermes(*connect, "--yes", "--json", env=home)
    document = json.loads(done.stdout)
    assert (document["written"], document["file"]) == (True, str(file))
    assert Path(document["backup"]).read_text() == "mine = true\n"
    assert SECRET in file.read_text()
    assert "Codex needs 20,000 tokens of context or more, and this server has 4,096" in done.stderr
    assert hermes(*connect, env=home).stdout == f"{file} is as it should be\n"


def test_a_file_with_a_key_is_for_its_owner_alone(
    hermes: RunHermes, server: Running, home: dict[str, str], tmp_path: Path
) -> None:
    done = hermes("connect", "aider", "--url", f"127.0.0.1:{server.port}", "--yes", env=home)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "ours/clients/aider.yml").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["opencde"], ExitCode.NOT_FOUND, "did you mean opencode?"),
        (["vim"], ExitCode.NOT_FOUND, "hermes connect env"),
        (["codex"], ExitCode.NOT_FOUND, "no server is running."),
        (["codex", "--url", "127.0.0.1:9"], ExitCode.NETWORK, "127.0.0.1:9 does not answer.\n"),
        (["codex", "--url", "127.0.0.1:9", "--key", ""], ExitCode.NETWORK, "127.0.0.1:9 does not answer.\n"),
        (["codex", "--url", "{}", "--key", ""], ExitCode.USAGE, "wants a key.\n  next: give it: --key KEY"),
        (["codex", "--url", "ftp://x"], ExitCode.USAGE, "--url"),
        (["codex", "--url", "{}", "--model", "x"], ExitCode.NOT_FOUND, "there are: demo"),
        (["codex", "--url", "{}", "--key", "wrong"], ExitCode.NETWORK, "does not take this key"),
    ],
)
def test_mistakes(
    hermes: RunHermes, server: Running, home: dict[str, str], arguments: list[str], code: int, says: str
) -> None:
    done = hermes("connect", *(word.format(f"127.0.0.1:{server.port}") for word in arguments), env=home)
    assert done.returncode == code
    assert says in done.stderr


@pytest.mark.parametrize("text", ['{"theme": "One"}\n{}\n', '{"theme": "One"', "\xff"])
def test_settings_that_cannot_be_changed_are_left_as_they_are(
    hermes: RunHermes, server: Running, home: dict[str, str], tmp_path: Path, text: str
) -> None:
    file = tmp_path / ".config/zed/settings.json"
    file.parent.mkdir(parents=True)
    file.write_text(text, "latin-1")
    done = hermes("connect", "zed", "--url", f"127.0.0.1:{server.port}", "--yes", env=home)
    assert done.returncode == ExitCode.USAGE
    assert done.stderr.startswith(f"error: {file}")
    assert file.read_text("latin-1") == text
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_server_of_another_kind_is_told(hermes: RunHermes, home: dict[str, str]) -> None:
    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Other) as other:
        Thread(target=other.serve_forever, daemon=True).start()
        done = hermes("connect", "codex", "--url", f"127.0.0.1:{other.server_port}", env=home)
        other.shutdown()
    assert done.returncode == ExitCode.NETWORK
    assert "answers, but lists no models (status 404 at /v1/models)" in done.stderr


def test_hermes_agent_s_folder_is_not_written(
    hermes: RunHermes, server: Running, home: dict[str, str], tmp_path: Path
) -> None:
    done = hermes("connect", "hermes-agent", "--url", f"127.0.0.1:{server.port}", "--yes", env=home)
    assert yaml.safe_load(done.stdout)["model"]["provider"] == "custom"
    assert not (tmp_path / ".hermes").exists()


def test_llm_finds_the_server_that_runs(hermes: RunHermes, home: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "llm"
    home = {**home, "LLM_USER_PATH": str(folder), "HERMES_LLM_ENDPOINT_KEY": ""}
    folder.mkdir()
    (folder / "extra-openai-models.yaml").write_text("# mine\n- model_id: other\n  model_name: other\n")
    with hermes_serve("demo", cwd=tmp_path, env=home):
        done = hermes("connect", "llm", "--yes", env=home)
        assert done.returncode == 0, done.stderr
        answer = subprocess.run(
            [sys.executable, "-m", "llm", "-m", "hermes", "-o", "temperature", "0", "Who are you?"],
            capture_output=True,
            text=True,
            check=True,
            stdin=subprocess.DEVNULL,
            env={**clean_environment(), "LLM_USER_PATH": os.fspath(folder)},
            timeout=HANG,
        )
    assert answer.stdout.startswith("I am the Hermes demo")
    assert (folder / "extra-openai-models.yaml").read_text().startswith("# mine\n- model_id: other\n")


def test_an_item_is_added_to_a_list_and_replaced() -> None:
    once = with_yaml_item("- a: 1", "- b: 2\n")
    assert with_yaml_item(once, "- b: 3\n") == once.replace("b: 2", "b: 3")
    assert yaml.safe_load(once) == [{"a": 1}, {"b": 2}]
    for other in ("a: 1\n", "[a]\n", "- [\n"):
        with pytest.raises(UsageError, match="not a list in YAML"):
            with_yaml_item(other, "- b: 2\n")


SETTINGS = """// Zed
{
  "theme": "One", /* mine, "not": 1 */
  "language_models": {
    // "openai_compatible": {},
    "ollama": { "api_url": "http://x/{}" }, // trailing
  },
}
"""


@pytest.mark.parametrize("before", ["", "{}", "{\n}\n", SETTINGS, '{"language_models": {"openai_compatible": {}}}'])
def test_a_member_is_set_in_json_with_comments(before: str) -> None:
    once = with_json_member(before, ZED_PATH, {"a": [1, {"b": 2}]})
    twice = with_json_member(once, ZED_PATH, {"a": 3})
    read = yaml.safe_load(re.sub(r"(?<!:)//.*|/\*.*\*/", "", twice))  # YAML takes trailing commas
    assert read["language_models"]["openai_compatible"]["Hermes"] == {"a": 3}
    assert '{"a": [1' not in once
    if before == SETTINGS:
        assert read["theme"] == "One"
        kept = [line for line in SETTINGS.splitlines() if line not in {"{", "}"}]
        assert all(line in twice for line in kept)


@pytest.mark.parametrize("before", ["[1]", '{"language_models": 3}', '{"a" 1}', '{"a": {', "nonsense", '{"a": "'])
def test_other_json_is_refused(before: str) -> None:
    with pytest.raises(UsageError, match="not JSON, or is built otherwise"):
        with_json_member(before, ZED_PATH, {})


@pytest.mark.parametrize("before", ["{}{}", '{"a": 1}\n// another\n{"b": 2}\n', "{} 3", "{}, {}"])
def test_of_two_documents_in_a_file_none_is_changed(before: str) -> None:
    with pytest.raises(UsageError, match="more than one JSON document"):
        with_json_member(before, ZED_PATH, {})
