from __future__ import annotations

import sys
from pathlib import Path

import pytest

from hermes_cli import paths
from hermes_cli.errors import UsageError
from hermes_cli.tools.config import ChatFile, McpAddress, McpCommand, chosen_servers, read_chat_file

FILE = """
mcp_servers:
  files: {command: ["python3", -m, server, ~/team], env: {KEY: "x${CHAT_KEY}y"}}
  line: {command: "python3 'a b.py'"}
  tracker: {url: https://tracker.example/mcp, headers: {Authorization: "Bearer ${CHAT_KEY}"}}
allow: [get_weather, files_*]
"""


@pytest.fixture
def file(tmp_path: Path) -> ChatFile:
    return read_chat_file(written(tmp_path, FILE))


def written(folder: Path, text: str) -> Path:
    path = folder / "chat.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_servers_of_the_file(file: ChatFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAT_KEY", "k${HOME}")
    files, line, tracker = chosen_servers(["files", "line", "tracker"], [], file)
    assert files == McpCommand(
        "files", ("python3", "-m", "server", str(Path("~/team").expanduser())), {"KEY": "xk${HOME}y"}
    )
    assert line == McpCommand("line", ("python3", "a b.py"))
    assert tracker == McpAddress("tracker", "https://tracker.example/mcp", {"Authorization": "Bearer k${HOME}"})
    assert file.allow == ["get_weather", "files_*"]
    assert "k$" not in repr([files, tracker])


def test_a_variable_that_is_not_set(file: ChatFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHAT_KEY", raising=False)
    with pytest.raises(UsageError, match=r"chat.yaml: the MCP server tracker needs the environment variable CHAT_KEY"):
        chosen_servers(["tracker"], [], file)
    assert chosen_servers(["line"], [], file)


@pytest.mark.parametrize(
    ("given", "name", "words"),
    [
        ("npx -y @modelcontextprotocol/server-filesystem /a", "server-filesystem", 4),
        ("npx -y @modelcontextprotocol/server-filesystem@1.2 '/a b'", "server-filesystem", 4),
        ("python3 folder/notes.py --port 1", "notes", 4),
        ("uvx --from a b", "a", 4),
        ("uv run server.py", "server", 3),
        (sys.executable, Path(sys.executable).name.partition("@")[0], 1),
        ("python3 $(rm) ; # |", "rm", 5),
    ],
)
def test_a_command_line_is_split_and_not_obeyed(given: str, name: str, words: int) -> None:
    (server,) = chosen_servers([given], [], ChatFile())
    assert isinstance(server, McpCommand)
    assert (server.name, len(server.words)) == (name, words)


def test_home_is_known_without_a_shell() -> None:
    (server,) = chosen_servers(["npx files ~/team ~ a~"], [], ChatFile())
    assert isinstance(server, McpCommand)
    home = Path.home()
    assert server.words == ("npx", "files", str(home / "team"), str(home), "a~")


def test_headers_are_for_the_one_address() -> None:
    given = ["python3 a.py", "https://host.example/mcp"]
    command, address = chosen_servers(given, ["Authorization: Bearer a:b", "X-Team: 1"], ChatFile())
    assert command == McpCommand("a", ("python3", "a.py"))
    headers = {"Authorization": "Bearer a:b", "X-Team": "1"}
    assert address == McpAddress("host-example", "https://host.example/mcp", headers)


@pytest.mark.parametrize("given", [[], ["python3 a.py"], ["https://a.example", "https://b.example"]])
def test_headers_that_it_is_not_clear_who_gets(given: list[str]) -> None:
    with pytest.raises(UsageError, match="--mcp-header is for one address"):
        chosen_servers(given, ["X: secret"], ChatFile())


@pytest.mark.parametrize("header", ["Bearer secret", ": secret", "A B: secret", "X: sec\nret: secret", "X: secret→"])
def test_a_header_that_is_none_is_not_repeated(header: str) -> None:
    with pytest.raises(UsageError) as caught:
        chosen_servers(["https://a.example"], [header], ChatFile())
    assert "secret" not in caught.value.message


def test_servers_have_names_of_their_own() -> None:
    servers = chosen_servers(["python3 a.py", "python3 a.py b", "python3 a.py c"], [], ChatFile())
    assert [server.name for server in servers] == ["a", "a-2", "a-3"]


@pytest.mark.parametrize(
    ("given", "hint"),
    [("trackr", "did you mean tracker?"), ("no-such-program-here", "--mcp https://host/mcp")],
)
def test_what_is_neither_name_nor_program(file: ChatFile, given: str, hint: str) -> None:
    with pytest.raises(UsageError, match=f"--mcp {given} is neither") as caught:
        chosen_servers([given], [], file)
    assert hint in caught.value.hint


@pytest.mark.parametrize("given", ["", "  ", "npx 'a", "http://", "https://[::1/mcp"])
def test_what_is_nothing(given: str) -> None:
    with pytest.raises(UsageError) as caught:
        chosen_servers([given], [], ChatFile())
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [", "is not YAML"),
        ("[1]", "Expected `object`, got `array`"),
        ("servers: {}", "unknown field `servers`"),
        ("mcp_servers: {a: {comand: [b]}}", "unknown field `comand`"),
        ("mcp_servers: {a: {command: 1}}", "got `int`"),
        ("allow: get_weather", "Expected `array`"),
        ("\x00", "is not YAML"),
    ],
)
def test_a_bad_file(tmp_path: Path, text: str, says: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        read_chat_file(path)
    assert says in caught.value.message
    assert str(path) in caught.value.message


@pytest.mark.parametrize(
    "entry",
    [
        "{}",
        "{command: []}",
        "{command: [a], url: https://a.example}",
        "{url: https://a.example, env: {A: b}}",
        "{command: [a], headers: {A: b}}",
        "{url: ftp://a.example}",
    ],
)
def test_an_entry_is_a_command_or_an_address(tmp_path: Path, entry: str) -> None:
    file = read_chat_file(written(tmp_path, f"mcp_servers: {{one: {entry}}}"))
    with pytest.raises(UsageError, match=r"the MCP server one has to have either a `command`"):
        chosen_servers(["one"], [], file)


def test_a_name_has_to_fit_into_names_of_tools(tmp_path: Path) -> None:
    file = read_chat_file(written(tmp_path, "mcp_servers: {my team: {command: [a]}}"))
    with pytest.raises(UsageError, match="the MCP server my team has a name"):
        chosen_servers(["my team"], [], file)


def test_no_file_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERMES_LLM_CONFIG_DIR", str(tmp_path))
    assert read_chat_file() == ChatFile()
    written(tmp_path, "allow: [a]")
    assert read_chat_file().allow == ["a"]
    assert paths.config_dir() == tmp_path


def test_an_empty_file_says_nothing(tmp_path: Path) -> None:
    assert read_chat_file(written(tmp_path, "# nothing\n")) == ChatFile()
