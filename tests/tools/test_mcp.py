"""MCP servers as real processes, over pipes and over HTTP: what they offer, how calls end, and that nothing is left."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from anyio.from_thread import BlockingPortal
from conftest import HANG, REPOSITORY, clean_environment, eventually
from hermes_zygote import HERMES, ForkedProcess, Zygote

from hermes_cli.errors import ExitCode, HermesError, NetworkError, NotFoundError
from hermes_cli.prompting.messages import ToolCall
from hermes_cli.tools.config import ChatFile, McpAddress, McpCommand, McpServer, chosen_servers
from hermes_cli.tools.functions import wait_for
from hermes_cli.tools.toolbox import Consent, Toolbox

if TYPE_CHECKING:
    from hermes_cli.tools.mcp_client import McpServers

TESTS = REPOSITORY / "tests"
RIG = McpCommand("rig", (sys.executable, str(TESTS / "mcp_server.py")))
ANY = {"type": "object", "properties": {"content": {"type": "array"}}}


def plain(*pages: list[dict[str, Any]], flaw: str = "", name: str = "plain") -> McpCommand:
    listed = json.dumps([[{"inputSchema": ANY, **tool} for tool in page] for page in pages])
    return McpCommand(name, (sys.executable, str(TESTS / "plain_mcp_server.py"), listed, flaw))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def connected(*servers: McpServer, warned: list[str] | None = None, seconds: float = HANG) -> Iterator[Toolbox]:
    """A toolbox that asks nobody, with servers that have started; `seconds` is for calls."""
    toolbox = Toolbox(Consent(None, everything=True), ([] if warned is None else warned).append, timeout=seconds)
    try:
        toolbox.begin(servers)
        toolbox.ready()
        yield toolbox
    finally:
        toolbox.close()


def client(tell: Callable[[str], None], **options: Any) -> McpServers:  # noqa: ANN401 - as the client takes them
    """The client, whose SDK takes most of a second to be imported: not in each process that collects tests."""
    from hermes_cli.tools.mcp_client import McpServers  # noqa: PLC0415

    return McpServers(tell, **options)


def names(toolbox: Toolbox) -> list[str]:
    return [schema["function"]["name"] for schema in toolbox.schemas]


def is_helper(process: psutil.Process) -> bool:
    """Whether a process is one of ours that is no server: it tries grammars, or guards servers."""
    try:
        line = " ".join(process.cmdline())
    except psutil.Error:  # it has just ended
        return False
    return "grammar_check" in line or "killpg" in line


def children() -> set[psutil.Process]:
    """Servers that run."""
    return {child for child in psutil.Process().children() if not is_helper(child)}


def ended(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.fixture(scope="module")
def rig() -> Iterator[Toolbox]:
    with connected(RIG) as toolbox:
        yield toolbox


class Programs:
    """Starts programs as forks of one that has imported the SDK, which takes a second."""

    def __init__(self, zygote: Zygote) -> None:
        self._zygote = zygote

    def start(self, code: str, *arguments: object, folder: Path = TESTS, **environment: str) -> ForkedProcess:
        """Start it in a session of its own, so without a terminal, and with a pipe for its input."""
        words, variables = [*map(str, arguments)], {**clean_environment(), **environment}
        return self._zygote.start(words, folder, variables, subprocess.PIPE, f"import os; os.setsid()\n{code}")


@pytest.fixture(scope="module")
def programs() -> Iterator[Programs]:
    with closing(Zygote(("mcp_server", "hermes_cli.tools.mcp_client", "hermes_cli.cli"))) as zygote:
        yield Programs(zygote)


class Web:
    """The same server over HTTP; its key is `open`."""

    def __init__(self, programs: Programs) -> None:
        self._programs, self._port = programs, free_port()
        self.address = f"http://127.0.0.1:{self._port}/mcp"

    def start(self) -> None:
        self._process = self._programs.start("import mcp_server; mcp_server.main()", self._port, "open")
        eventually(lambda: listens(self._port))

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="module")
def web(programs: Programs) -> Iterator[Web]:
    web = Web(programs)
    try:
        web.start()
        yield web
    finally:
        web.kill()


def test_what_a_server_offers(rig: Toolbox) -> None:
    assert rig.schemas[0] == {
        "type": "function",
        "function": {
            "name": "echo",
            "description": "Say it back.\n\nWord for word.",
            "parameters": {
                "type": "object",
                "title": "echoArguments",
                "properties": {"text": {"type": "string", "title": "Text"}},
                "required": ["text"],
            },
        },
    }
    assert rig.listing()[0][1:3] == ["mcp: rig", "Say it back."]


def test_results_are_text(rig: Toolbox) -> None:
    assert rig.run(ToolCall("echo", {"text": "hällo\n\x1b[31m"})).text == "hällo\n\x1b[31m"
    assert json.loads(rig.run(ToolCall("numbers", {})).text) == {"numbers": [1, 2]}
    assert rig.run(ToolCall("picture", {})).text == "Here it is:\n[image, image/png, 5 bytes]"


def test_failures_are_results(rig: Toolbox) -> None:
    failed = rig.run(ToolCall("fail", {"why": "no cheese"}))
    assert failed.failed
    assert "no cheese" in json.loads(failed.text)["error"]
    wrong = rig.run(ToolCall("echo", {}))
    assert wrong.failed
    assert "text" in json.loads(wrong.text)["error"]


def test_a_huge_result_is_cut_soon(rig: Toolbox) -> None:
    started = time.process_time()
    result = rig.run(ToolCall("huge", {"megabytes": 50}))
    taken = time.process_time() - started
    assert not result.failed
    assert result.cut == 50_000_008 - 16_000
    assert result.text.startswith("start0123")
    assert f"[… {result.cut:,} characters left out here]" in result.text
    assert result.text.endswith("789end")
    assert taken < 8  # seconds of processor time; 20 if a long line were read as the SDK does


def test_a_call_that_hangs_is_told_to_stop(tmp_path: Path) -> None:
    file = tmp_path / "state"
    with connected(plain([{"name": "hang"}, {"name": "echo"}]), seconds=0.5) as toolbox:
        result = toolbox.run(ToolCall("hang", {"file": str(file)}))
        assert result.failed
        assert "did not answer within 0.5 s; it was told to stop" in result.text
        eventually(lambda: file.read_text() == "stopped")
        assert "echo" in names(toolbox)
        assert toolbox.run(ToolCall("echo", {"content": [{"type": "text", "text": "on"}]})).text == "on"


@contextmanager
def interrupted(when: Callable[[], object]) -> Iterator[None]:
    """Ctrl-C in the main thread as soon as something is so."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    def wait() -> None:
        eventually(when)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)

    before = signal.signal(signal.SIGALRM, interrupt)
    waiting = threading.Thread(target=wait)
    try:
        waiting.start()
        with pytest.raises(KeyboardInterrupt):
            yield
    finally:
        waiting.join()
        signal.signal(signal.SIGALRM, before)


def test_ctrl_c_ends_a_call_at_once(rig: Toolbox, tmp_path: Path) -> None:
    file = tmp_path / "state"
    with interrupted(lambda: file.exists() and file.read_text()):
        rig.run(ToolCall("hang", {"file": str(file)}))
    eventually(lambda: file.read_text() == "stopped")


def test_ctrl_c_before_the_wait_for_a_call_has_begun(
    rig: Toolbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "state"
    start: Callable[..., object] = BlockingPortal.start_task_soon

    def starting(*arguments: object) -> None:
        """On a busy machine the server may be faster than the thread that asks it."""
        start(*arguments)
        eventually(lambda: file.exists() and file.read_text())
        raise KeyboardInterrupt

    monkeypatch.setattr(BlockingPortal, "start_task_soon", starting)
    with pytest.raises(KeyboardInterrupt):
        rig.run(ToolCall("hang", {"file": str(file)}))
    eventually(lambda: file.read_text() == "stopped")


def test_a_server_that_does_not_stop_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hermes_cli.tools.mcp_connection.LIST_TIMEOUT", 0.5)
    file, before = tmp_path / "state", children()
    warned: list[str] = []
    with connected(plain([{"name": "block"}, {"name": "echo"}]), warned=warned) as toolbox:
        with interrupted(lambda: file.exists() and file.read_text()):
            toolbox.run(ToolCall("block", {"file": str(file)}))
        assert "echo" in names(toolbox)
        (warning,) = warned
        assert "the MCP server plain: it did not list its tools within 0.5 s, and was ended" in warning
        eventually(lambda: ended(int(file.read_text())))
        monkeypatch.undo()
        assert toolbox.run(ToolCall("echo", {"content": [{"type": "text", "text": "back"}]})).text == "back"
        assert len(children() - before) == 1


def test_a_server_that_crashes_is_told_and_started_again() -> None:
    server = plain([{"name": "crash"}, {"name": "echo"}])
    with connected(server) as toolbox:
        result = toolbox.run(ToolCall("crash", {}))
        assert result.failed
        error = json.loads(result.text)["error"]
        assert "the MCP server plain: it ended with exit code 3" in error
        assert "out of cheese" in error
        assert toolbox.servers()[0][1].startswith("gone: ")
        assert toolbox.run(ToolCall("echo", {"content": [{"type": "text", "text": "back"}]})).text == "back"
        assert toolbox.servers()[0][1] == f"connected: {server}"


def test_a_server_that_is_killed_in_a_call(tmp_path: Path) -> None:
    file, before = tmp_path / "state", children()
    killer = f"import os, time, pathlib\nf = pathlib.Path({str(file)!r})\n"
    killer += "while not f.exists() or not f.read_text(): time.sleep(0.01)\nos.kill(int(f.read_text()), 9)"
    with connected(plain([{"name": "hang"}, {"name": "echo"}])) as toolbox:
        with subprocess.Popen([sys.executable, "-S", "-c", killer]):
            result = toolbox.run(ToolCall("hang", {"file": str(file)}))
        assert "it was killed (SIGKILL)" in json.loads(result.text)["error"]
        assert toolbox.run(ToolCall("echo", {"content": [{"type": "text", "text": "back"}]})).text == "back"
        assert len(children() - before) == 1


def test_a_list_that_changes_is_read_again(rig: Toolbox) -> None:
    assert "learned" not in names(rig)
    rig.run(ToolCall("learn", {}))
    eventually(lambda: "learned" in names(rig))
    assert rig.run(ToolCall("learned", {})).text == "new"


def test_an_older_protocol_with_pages_and_noise(capfd: pytest.CaptureFixture[str]) -> None:
    with connected(plain([{"name": "one"}], [{"name": "grow"}])) as toolbox:
        assert names(toolbox) == ["one", "grow"]
        toolbox.run(ToolCall("grow", {}))
        eventually(lambda: names(toolbox) == ["one", "grow", "grown"])
    assert capfd.readouterr() == ("", "")


def test_parts_that_are_no_text_are_named() -> None:
    parts = [
        {"type": "audio", "data": "aGVsbG8h", "mimeType": "audio/wav"},
        {"type": "resource_link", "uri": "file:///a.txt", "name": "a.txt"},
        {"type": "resource", "resource": {"uri": "file:///b.txt", "text": "bee"}},
        {"type": "resource", "resource": {"uri": "file:///c.bin", "blob": "aGk=", "mimeType": "image/gif"}},
    ]
    with connected(plain([{"name": "one"}])) as toolbox:
        assert toolbox.run(ToolCall("one", {"content": parts})).text.splitlines() == [
            "[audio, audio/wav, 6 bytes]",
            "[link to file:///a.txt: a.txt]",
            "[file:///b.txt]",
            "bee",
            "[file:///c.bin, image/gif, 2 bytes]",
        ]
        assert toolbox.run(ToolCall("one", {"content": [{"type": "smell"}]})).failed


def test_names_are_made_to_fit_and_unusable_tools_left_out() -> None:
    long = "x" * 80
    endless = {"type": "object", "properties": {"a": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"$ref": "#/$defs/a"}}}
    first = plain([{"name": "files.read"}, {"name": long}, {"name": "bad", "inputSchema": endless}], name="a")
    second = plain([{"name": "files/read", "description": "second"}, {"name": "files.read"}], name="b")
    warned: list[str] = []
    with connected(first, second, warned=warned) as toolbox:
        assert names(toolbox) == ["a_files_read", long[:64], "b_files_read", "2_b_files_read"]
        (why,) = warned
        assert why.startswith("bad (mcp: a) is left out: the parameters of tool bad")
        content = [{"type": "text", "text": "hi"}]
        assert toolbox.run(ToolCall("b_files_read", {"content": content})).text == "hi"
        assert toolbox.listing()[2][:3] == ["b_files_read", "mcp: b", "second"]
        assert len(toolbox.schemas) == 4
        assert len(warned) == 1


def test_no_server_takes_the_name_of_another() -> None:
    shadow, good = plain([{"name": "grow"}], name="shadow"), plain([{"name": "grown"}], name="good")
    toolbox = Toolbox(Consent(lambda _: "y", allow=["grow*"]), pytest.fail)
    try:
        toolbox.begin([good])
        toolbox.ready()
        toolbox.begin([shadow])
        toolbox.ready()
        toolbox.run(ToolCall("grow", {}))
        eventually(lambda: len(toolbox.schemas) == 3)
        assert [row[:2] + row[3:] for row in toolbox.listing()] == [
            ["grown", "mcp: good", "allowed"],
            ["grow", "mcp: shadow", "asks"],
            ["shadow_grown", "mcp: shadow", "asks"],
        ]
    finally:
        toolbox.close()


def test_more_tools_than_a_model_can_read_on_one_page() -> None:
    many = [{"name": f"tool{at}"} for at in range(513)]
    toolbox = Toolbox(Consent(None), pytest.fail)
    try:
        toolbox.begin([plain(many)])
        with pytest.raises(HermesError, match=r"it lists 513 tools; at most 512"):
            toolbox.ready()
    finally:
        toolbox.close()


def test_a_message_without_end_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hermes_cli.tools.mcp_stdio.MAX_MESSAGE", 10_000)
    with connected(plain([{"name": "one"}], flaw="stubborn")) as toolbox:
        result = toolbox.run(ToolCall("one", {"content": [{"type": "text", "text": "x" * 100_000}]}))
        assert "it sent a message of more than 10,000 bytes" in json.loads(result.text)["error"]
        for _ in range(2):  # at once, while the process of before has still to be ended
            assert toolbox.run(ToolCall("one", {"content": [{"type": "text", "text": "hi"}]})).text == "hi"
        assert toolbox.servers()[0][1].startswith("connected: ")


def test_over_http_with_a_key(web: Web) -> None:
    with connected(McpAddress("web", web.address, {"Authorization": "Bearer open"})) as toolbox:
        assert toolbox.run(ToolCall("echo", {"text": "far"})).text == "far"
        assert toolbox.run(ToolCall("huge", {"megabytes": 5})).cut == 5_000_008 - 16_000
        assert "no cheese" in toolbox.run(ToolCall("fail", {"why": "no cheese"})).text


def test_over_http_without_the_key(web: Web) -> None:
    with pytest.raises(NetworkError) as caught, connected(McpAddress("web", web.address)):
        pass
    assert "the MCP server web at http://127.0.0.1:" in caught.value.message
    assert "(401 Unauthorized)" in caught.value.message
    assert "--mcp-header" in caught.value.hint


def test_over_http_a_server_that_goes_and_comes_back(web: Web) -> None:
    with connected(McpAddress("web", web.address, {"Authorization": "Bearer open"})) as toolbox:
        web.kill()
        for _ in range(2):
            result = toolbox.run(ToolCall("echo", {"text": "far"}))
            assert "the MCP server web at http://127.0.0.1" in json.loads(result.text)["error"]
        web.start()
        assert toolbox.run(ToolCall("echo", {"text": "far"})).text == "far"


@pytest.mark.parametrize(
    ("server", "error", "says"),
    [
        (McpCommand("a", ("no-such-program-here",)), NotFoundError, "a: there is no program no-such-program-here"),
        (
            McpCommand("b", (sys.executable, "-c", "import sys; sys.exit('no \\x1b[31mcheese')")),
            HermesError,
            "b: it ended with exit code 1.\n  | no \x1b[31mcheese",
        ),
        (McpAddress("d", f"http://127.0.0.1:{free_port()}/mcp"), NetworkError, "d at http://127.0.0.1"),
    ],
)
def test_a_server_that_does_not_start_is_one_error(server: McpServer, error: type[HermesError], says: str) -> None:
    before = children()
    servers = client(print, start_timeout=HANG)
    try:
        servers.begin([plain([{"name": "one"}], name="fine"), server])
        with pytest.raises(error) as caught:
            servers.ready()
        assert caught.value.message.startswith(f"the MCP server {says}")
        assert [name for name, *_ in servers.statuses] == ["fine"]
    finally:
        servers.close()
    assert children() == before


def test_a_server_that_does_not_answer_is_an_error() -> None:
    servers = client(print, start_timeout=0.5)
    try:
        servers.begin([plain([], flaw="mute", name="c")])
        with pytest.raises(HermesError) as caught:
            servers.ready()
        assert caught.value.message.startswith("the MCP server c: it did not answer within 0.5 s")
        assert servers.statuses == []
    finally:
        servers.close()


def test_keys_are_in_no_error_and_no_list() -> None:
    address = McpAddress("d", f"http://me:secret@127.0.0.1:{free_port()}/mcp?key=secret", {"Authorization": "secret"})
    with pytest.raises(NetworkError) as caught, connected(address):
        pass
    assert "secret" not in f"{caught.value.message}{caught.value.hint}{address!s}{address!r}"


def test_a_server_that_will_not_end_is_ended_and_so_is_what_it_started(tmp_path: Path) -> None:
    file, before = tmp_path / "pid", children()
    polite = plain([{"name": "spawn"}], name="polite")
    with connected(plain([{"name": "one"}], flaw="stubborn"), polite) as toolbox:
        toolbox.run(ToolCall("spawn", {"file": str(file)}))
        pids = [child.pid for child in children() - before]
        assert len(pids) == 2
    assert all(map(ended, [*pids, int(file.read_text())]))


def announced(monkeypatch: pytest.MonkeyPatch, function: Callable[..., object]) -> threading.Event:
    """Is set when the client calls this function, in which it waits."""
    waits = threading.Event()

    def announcing(*arguments: object) -> object:
        waits.set()
        return function(*arguments)

    monkeypatch.setattr(f"hermes_cli.tools.mcp_client.{function.__name__}", announcing)
    return waits


def test_ctrl_c_while_they_end_ends_them_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hermes_cli.tools.mcp_client.END_TIMEOUT", HANG)
    monkeypatch.setattr("hermes_cli.tools.mcp_stdio.TERMINATE_TIMEOUT", HANG)
    before = children()
    servers = client(print)
    servers.begin([plain([{"name": "one"}], flaw="stubborn")])
    servers.ready()
    began = time.monotonic()
    with interrupted(announced(monkeypatch, wait).is_set):
        servers.close()
    assert time.monotonic() - began < HANG
    assert children() == before


def test_what_is_still_starting_is_ended_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hermes_cli.tools.mcp_client.END_TIMEOUT", HANG)
    before, servers = children(), client(print)
    servers.begin([plain([], flaw="mute")])
    eventually(lambda: children() - before)
    began = time.monotonic()
    servers.close()
    assert time.monotonic() - began < HANG
    assert children() == before


def test_ctrl_c_while_one_starts_forgets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before = children()
    with connected() as toolbox:
        toolbox.begin([plain([], flaw="mute")])
        with interrupted(announced(monkeypatch, wait_for).is_set):
            toolbox.ready()
        assert toolbox.servers() == []
        eventually(lambda: children() == before)


def test_servers_come_later_and_come_back() -> None:
    with connected() as toolbox:
        assert toolbox.servers() == []
        one, two = plain([{"name": "one"}], name="one"), plain([{"name": "two"}], name="two")
        with pytest.raises(HermesError, match="there is no program no-such"):
            toolbox.add_server("no-such-program-here --really")
        for server in (one, two, one):  # the third is there already
            toolbox.begin([server])
            toolbox.ready()
        assert names(toolbox) == ["one", "two"]
        assert [(name, tools) for name, _, tools in toolbox.servers()] == [("one", "1"), ("two", "1")]


CHAT = """
import signal, sys
from hermes_cli.tools.config import McpCommand
from hermes_cli.tools.toolbox import Consent
from hermes_cli.tools.toolbox import Toolbox
from hermes_cli.prompting.messages import ToolCall
signal.signal(signal.SIGINT, signal.default_int_handler)
toolbox = Toolbox(Consent(None, everything=True), print)
try:
    toolbox.begin([McpCommand("plain", tuple(sys.argv[2:]))])
    toolbox.ready()
    toolbox.run(ToolCall("hang", {"file": sys.argv[1]}))
finally:
    toolbox.close()
"""


CHAT_THAT_WAITS = """
import sys
from hermes_cli.tools.config import McpCommand
from hermes_cli.tools.mcp_client import McpServers
servers = McpServers(print)
servers.begin([McpCommand("rig", tuple(sys.argv[1:]))])
servers.ready()
print(servers._connections[0]._process._process.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_server_outlives_the_chat(programs: Programs, tmp_path: Path, how: signal.Signals) -> None:
    file = tmp_path / "state"
    chat = programs.start(CHAT, file, *plain([{"name": "hang"}]).words)
    eventually(lambda: file.exists() and file.read_text())
    server = int(file.read_text())
    os.killpg(chat.pid, how)
    _, said = chat.communicate(timeout=HANG)
    assert ("KeyboardInterrupt" in said) == (how == signal.SIGINT)
    eventually(lambda: ended(server))
    assert file.read_text() == "stopped"


def test_a_server_that_ignores_the_end_of_its_input_ends_with_us(programs: Programs) -> None:
    chat = programs.start(CHAT_THAT_WAITS, *plain([{"name": "one"}], flaw="stubborn").words)
    server = int(chat.stdout.readline())
    chat.kill()
    chat.communicate(timeout=HANG)
    eventually(lambda: ended(server))


def test_a_command_line_is_what_is_started(tmp_path: Path) -> None:
    folder = tmp_path / "with space"
    folder.mkdir()
    copy = folder / "server.py"
    copy.write_text((TESTS / "plain_mcp_server.py").read_text())
    line = shlex.join([sys.executable, str(copy), '[[{"name": "one", "inputSchema": {"type": "object"}}]]'])
    with connected(*chosen_servers([line], [], ChatFile())) as toolbox:
        assert names(toolbox) == ["one"]
        assert toolbox.servers()[0][0] == "server"


def test_the_guide_is_what_happens(tmp_path: Path, programs: Programs) -> None:
    page = (REPOSITORY / "docs" / "mcp.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    ((typed, shown, kept),) = re.findall(
        r"\$ hermes (chat demo .*?)\n(.*?)\$ cat ~/team/notes.md\n(.*?)```", page, re.DOTALL
    )
    (tmp_path / "notes.py").write_text(program, encoding="utf-8")
    (tmp_path / "team").mkdir()
    arguments = [one.replace("python3", shlex.quote(sys.executable)) for one in shlex.split(typed)]
    settings = {"HERMES_LLM_CONFIG_DIR": str(tmp_path / "config")}
    out, said = programs.start(HERMES, *arguments, folder=tmp_path, HOME=str(tmp_path), **settings).communicate(HANG)
    assert said + out == shown
    assert (tmp_path / "team" / "notes.md").read_text(encoding="utf-8") == kept


def test_a_call_that_nobody_can_allow_ends_the_chat_and_its_servers(programs: Programs, tmp_path: Path) -> None:
    tool = {"name": "get_weather", "inputSchema": {"type": "object", "properties": {"city": {"type": "string"}}}}
    server = shlex.join(plain([{**tool, "description": str(tmp_path)}]).words[:3])
    chat = programs.start(HERMES, "chat", "demo", "--mcp", server, "What's the weather in Tokyo?")
    _, said = chat.communicate(HANG)
    assert chat.returncode == ExitCode.USAGE
    assert 'get_weather(city="Tokyo")' in said
    assert "--allow" in said
    assert not [one for one in psutil.process_iter(["cmdline"]) if str(tmp_path) in str(one.info["cmdline"])]


@pytest.mark.parametrize(
    "content",
    ["[" + "[]," * 101_000 + "1]", "[" + ",".join(['{"type": "text", "text": "a"}'] * 10_001) + "]"],
    ids=["values", "parts"],
)
def test_a_flood_of_values_ends_the_connection(content: str) -> None:
    with connected(plain([{"name": "one"}])) as toolbox:
        result = toolbox.run(ToolCall("one", {"content": json.loads(content)}))
        assert "it sent a message of too many values" in json.loads(result.text)["error"]
        assert toolbox.run(ToolCall("one", {"content": [{"type": "text", "text": "hi"}]})).text == "hi"


HI = '{"jsonrpc": "2.0", "id": ID, "result": {"content": [{"type": "text", "text": "hi"}]}}'


@pytest.fixture(scope="module")
def writer() -> Iterator[Toolbox]:
    with connected(plain([{"name": "write"}])) as toolbox:
        yield toolbox


@pytest.mark.parametrize(
    "line",
    [
        '{"jsonrpc": "2.0", "id": ID, "result": {"content": [}',
        '{"jsonrpc": "2.0", "id": ID, "result": [1, 2]}',
        '{"jsonrpc": "2.0", "id": ID}',
        '{"jsonrpc": "2.0", "id": ID.0, "result": {"content": []}}',
        '{"jsonrpc": "1.0", "result": {"content": []}, "id": ID}',
        '{"jsonrpc": "2.0", "id": ID, "result": {"content": ' + "[" * 200_000,
        '{"jsonrpc": "2.0", "id": ID, "error": "no"}',
        '{"jsonrpc": "2.0", "id": null, "error": {"code": -32700, "message": "its answer cannot be read"}}',
    ],
)
def test_an_answer_that_cannot_be_read_is_an_answer(writer: Toolbox, line: str) -> None:
    error = json.loads(writer.run(ToolCall("write", {"line": line})).text)["error"]
    assert "its answer cannot be read" in error
    assert line[:20] in error or "null" in line
    assert writer.run(ToolCall("write", {"line": HI})).text == "hi"


@pytest.mark.parametrize(
    "line",
    [
        '{"jsonrpc": "2.0", "id": 999, "result": [}',  # of no request
        '{"jsonrpc": "2.0", "id": ID, "method": 5}',  # no answer
        "ready: {'id': ID}",
        "\x00",
    ],
)
def test_what_answers_nothing_ends_nothing(writer: Toolbox, line: str) -> None:
    assert writer.run(ToolCall("write", {"line": f"{line}\n{HI}"})).text == "hi"


def test_a_flood_in_an_error_message_is_cut(writer: Toolbox) -> None:
    error = {"code": -1, "message": "no " + "x" * 500_000, "data": [0] * 100_000}
    line = '{"jsonrpc": "2.0", "id": ID, "error": ' + json.dumps(error) + "}"
    text = json.loads(writer.run(ToolCall("write", {"line": line})).text)["error"]
    assert (text[:5], len(text)) == ("no xx", 10_000)


def test_an_error_costs_nothing_for_the_length_of_its_message() -> None:
    text, before = "x." * 5_000_000, time.process_time()
    assert HermesError(f"{text}.", hint="").message == text
    assert time.process_time() - before < 0.2  # seconds; a search for its end takes 0.6
