"""Commands of a conversation, without a terminal."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from chat_rig import scripted_backend
from conftest import REPOSITORY
from fake_engine import FakeEngine, Script
from hypothesis import given
from hypothesis import strategies as st
from terminal_rig import ScreenFile

from hermes_cli.chat.agent_loop import AgentLoop
from hermes_cli.chat.backend import LocalBackend
from hermes_cli.chat.conversation import Conversation
from hermes_cli.chat.repl import ReplContext, handle_line, status_line
from hermes_cli.chat.sessions.store import CurrentSession
from hermes_cli.chat.slash import command
from hermes_cli.chat.slash.command import COMMANDS
from hermes_cli.chat.terminal.terminal_view import TerminalView
from hermes_cli.console import Console
from hermes_cli.errors import HermesError, NotFoundError, UsageError
from hermes_cli.event_loop import EventLoop
from hermes_cli.prompting.families import CHATML, HERMES_4, Family
from hermes_cli.tools.toolbox import Consent, Toolbox

SCRIPTS: tuple[Script, ...] = (["One."], ["Two."], ["Three."], ["Four."])


@contextmanager
def scene(
    tmp_path: Path,
    *scripts: Script,
    family: Family = HERMES_4,
    others: Callable[[str], LocalBackend] | None = None,
) -> Iterator[ReplContext]:
    def open_backend(name: str) -> LocalBackend:
        if others is None:
            raise NotFoundError(f"there is no model named {name}.", hint="list them: hermes list")
        return others(name)

    out = ScreenFile(100, 50)
    console = Console(out=out)
    session = CurrentSession(tmp_path / "chats", console.warn)
    toolbox = Toolbox(Consent(None), console.warn)
    with EventLoop() as loop, closing(session), closing(toolbox):
        view = TerminalView(console)
        backend = scripted_backend(scripts or SCRIPTS, family=family)
        conversation = Conversation()
        session.create(conversation, backend.name)
        agent = AgentLoop(conversation, backend, toolbox, view, loop)
        yield ReplContext(agent, view, console, loop, toolbox, session, open_backend, lambda: ["fake", "other"])


def run(here: ReplContext, line: str) -> None:
    command.run_command(here, line)


def shown(here: ReplContext) -> str:
    assert isinstance(here.console.out, ScreenFile)
    return "\n".join(here.console.out.shown.everything)


def contents(here: ReplContext) -> list[str | None]:
    return [one.message.content for one in here.conversation.entries]


def test_every_command_is_in_the_help(tmp_path: Path) -> None:
    with scene(tmp_path) as here:
        run(here, "/help")
        for one in COMMANDS.values():
            assert f"{one.name} {one.usage}".strip() in shown(here)


@pytest.mark.parametrize("columns", [24, 40])
def test_the_help_breaks_between_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    with scene(tmp_path) as here:
        run(here, "/help")
        lines = [line for line in shown(here).splitlines() if line.startswith("    ")]
        assert all(len(line) <= columns for line in lines)
        text = " ".join(" ".join(lines).split())
        assert all(one.summary in text for one in COMMANDS.values())


def test_a_new_conversation_keeps_the_old_one(tmp_path: Path) -> None:
    with scene(tmp_path) as here:
        handle_line(here, "/set temperature 0.2")
        handle_line(here, "What is one?")
        name = here.session.name
        handle_line(here, "/clear")
        assert contents(here) == []
        assert here.conversation.options.sampling == {"temperature": 0.2}
        handle_line(here, "And two?")
        assert here.session.name != name
        assert {session.name for session in here.session.sessions()} == {name, here.session.name}
        handle_line(here, f"/load {name}")
        assert contents(here) == ["What is one?", "One."]


@pytest.mark.parametrize("line", ["/bye", "/exit", "/quit", "/QUIT"])
def test_the_words_of_other_programs_leave(tmp_path: Path, line: str) -> None:
    with scene(tmp_path) as here:
        handle_line(here, line)
        assert here.is_over


def test_a_question_mark_is_help(tmp_path: Path) -> None:
    with scene(tmp_path) as here:
        handle_line(here, "/?")
        assert "/compact [undo]" in shown(here)


def test_again_back_and_otherwise(tmp_path: Path) -> None:
    with scene(tmp_path) as here:
        here.agent.ask("a")
        run(here, "/retry")
        assert contents(here) == ["a", "Two."]
        here.agent.ask("b")
        run(here, "/edit")
        assert here.draft == "b"
        assert contents(here) == ["a", "Two."]
        run(here, "/undo")
        assert contents(here) == []
        for line in ("/undo", "/edit", "/retry", "/stats", "/copy"):
            with pytest.raises(HermesError):
                run(here, line)


def test_a_summary_is_shown_and_can_be_taken_back(tmp_path: Path) -> None:
    with scene(tmp_path, ["1"], ["2"], ["3"], ["In short."]) as here:
        for text in "abc":
            here.agent.ask(text)
        run(here, "/compact")
        assert "In short." in shown(here)
        assert [message.content for message in here.conversation.messages] == ["b", "2", "c", "3"]
        run(here, "/compact undo")
        assert len(here.conversation.messages) == 6
        with pytest.raises(UsageError):
            run(here, "/compact undo")


def test_what_fills_the_context(tmp_path: Path) -> None:
    with scene(tmp_path) as here:
        run(here, "/system Be brief.")
        here.agent.ask("Hello there")
        run(here, "/context")
        for part in ("system prompt", "your messages", "answers and calls", "markup of the template", "free"):
            assert part in shown(here)


def test_a_model_is_switched_and_the_conversation_stays(tmp_path: Path) -> None:
    engine = FakeEngine([["From the other."]])
    with scene(tmp_path, others=lambda name: scripted_backend(engine=engine, name=name)) as here:
        here.agent.ask("a")
        before = here.backend
        run(here, "/model other")
        assert here.backend.name == "other"
        here.agent.ask("b")
        assert contents(here) == ["a", "One.", "b", "From the other."]
        assert "One." in "".join(map(str, engine.requests[0].prompt))
        assert before is not here.backend


def test_a_model_that_cannot_be_opened_changes_nothing(tmp_path: Path) -> None:
    with scene(tmp_path) as here:
        before = here.backend
        with pytest.raises(NotFoundError):
            run(here, "/model nowhere")
        assert here.backend is before
        here.agent.ask("a")
        assert contents(here) == ["a", "One."]


def test_a_model_without_reasoning_switches_it_off(tmp_path: Path) -> None:
    with scene(tmp_path, others=lambda name: scripted_backend(SCRIPTS, family=CHATML, name=name)) as here:
        run(here, "/think on")
        run(here, "/model plain")
        assert here.conversation.options.think is None
        here.agent.ask("a")
        with pytest.raises(UsageError, match="no reasoning mode"):
            run(here, "/think on")


@pytest.mark.parametrize(
    ("line", "think", "budget"),
    [("on", True, None), ("off", False, None), ("budget 1,000", True, 1000), ("default", None, None)],
)
def test_thinking(tmp_path: Path, line: str, think: bool | None, budget: int | None) -> None:  # noqa: FBT001 - a table
    with scene(tmp_path) as here:
        run(here, f"/think {line}")
        options = here.conversation.options
        assert (options.think, options.think_budget) == (think, budget)


def test_settings_reach_the_model(tmp_path: Path) -> None:
    with scene(tmp_path) as here:
        run(here, "/set temperature 0.25")
        run(here, "/set top-k 7")
        run(here, "/set max_tokens 5")
        engine = here.backend._model.engine  # type: ignore[attr-defined]  # noqa: SLF001 - what it was asked
        here.agent.ask("a")
        request = engine.requests[0]
        assert (request.sampling.temperature, request.sampling.top_k, request.max_tokens) == (0.25, 7, 5)
        run(here, "/set temperature default")
        assert here.conversation.options.sampling == {"top_k": 7}
        run(here, "/set")
        assert "top_k" in shown(here)


@pytest.mark.parametrize(
    "line",
    [
        "/set heat 3",
        "/set temperature",
        "/set temperature warm",
        "/set temperature -1",
        "/set max_tokens 0",
        "/think maybe",
        "/think budget",
        "/think off now",
        "/json {",
        "/json nowhere.json",
        "/json ~nobody-at-all/x.json",
        "/json a\0b",
        "/export md ~nobody-at-all/x",
        "/export md a\0b",
        "/file nowhere.txt",
        "/load",
        "/load nowhere",
        "/export pdf",
        "/save a/b",
        "/tools nowhere.py",
        "/tools",
        "/mcp",
        "/mcp no-such-program-anywhere",
        "/bye now",
        "/hlep",
        "/context",
    ],
)
def test_what_makes_no_sense_is_an_error_that_says_what_to_type(tmp_path: Path, line: str) -> None:
    with scene(tmp_path) as here:
        if line == "/context":
            here.backend.count_tokens = nobody_counts  # type: ignore[assignment,method-assign]
        with pytest.raises(HermesError) as caught:
            run(here, line)
        assert caught.value.hint
        assert not here.is_over


async def nobody_counts(*_: object) -> None:
    """As endpoints that cannot."""


def schema(here: ReplContext) -> object:
    return here.conversation.options.schema


def test_json_by_schema_and_off(tmp_path: Path) -> None:
    with scene(tmp_path) as here:
        run(here, '/json {"type": "integer"}')
        assert schema(here) == {"type": "integer"}
        here.agent.ask("a")
        run(here, "/json any")
        assert schema(here) is True
        here.agent.ask("b")
        run(here, "/json off")
        assert schema(here) is None


def test_presets_are_saved_taken_and_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERMES_LLM_CONFIG_DIR", str(tmp_path))
    (tmp_path / "chat.yaml").write_text("# mine\nallow: [a]\n")
    with scene(tmp_path) as here:
        run(here, "/system Be terse.")
        run(here, "/set temperature 0.25")
        run(here, '/json {"type": "integer"}')
        run(here, "/preset save terse")
        kept = here.conversation.options
        run(here, "/system default")
        run(here, "/set temperature default")
        run(here, "/json off")
        run(here, "/preset terse")
        assert here.conversation.options == kept
        run(here, "/preset")
        assert "terse: model fake, system Be terse." in shown(here)
        with pytest.raises(UsageError, match="there is no preset other"):
            run(here, "/preset other")
    assert (tmp_path / "chat.yaml").read_text().startswith("# mine\nallow: [a]\n")


def test_a_preset_has_a_model_and_what_counts_from_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HERMES_LLM_CONFIG_DIR", str(tmp_path))
    (tmp_path / "chat.yaml").write_text(
        "presets: {a: {model: other, context: 512, top-k: 3, stop: END}, b: {temperature: -1}, c: {top_k: many}}"
    )
    with scene(tmp_path, others=lambda name: scripted_backend(SCRIPTS, family=CHATML, name=name)) as here:
        run(here, "/preset a")
        assert here.backend.name == "other"
        assert here.conversation.options.sampling == {"top_k": 3}
        assert here.conversation.options.stops == ("END",)
        assert "context count from the start" in capsys.readouterr().err
        for name in ("b", "c"):
            with pytest.raises(UsageError):
                run(here, f"/preset {name}")


def test_files_go_with_the_next_message_once(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("milk")
    with scene(tmp_path) as here:
        run(here, f"/file {tmp_path / 'notes.txt'}")
        assert "with notes.txt" in status_line(here)
        assert "milk" in here.take_attachments("What do I need?")
        assert here.take_attachments("And now?") == "And now?"


def test_sessions_are_named_left_and_found_again(tmp_path: Path) -> None:
    with scene(tmp_path) as here:
        here.agent.ask("a")
        run(here, "/save first")
        here.session.create(Conversation(), "fake")
        run(here, "/load first")
        assert contents(here) == ["a", "One."]
        here.agent.ask("b")
        run(here, "/list")
        assert "first" in shown(here)
        with pytest.raises(UsageError, match="the session that you are in"):
            run(here, "/load first")
    again = CurrentSession(tmp_path / "chats", print)
    assert [one.message.content for one in again.load("first").entries] == ["a", "One.", "b", "Two."]
    again.close()


def test_exports_are_never_written_over_something(tmp_path: Path) -> None:
    with scene(tmp_path) as here:
        here.agent.ask("a")
        path = tmp_path / "talk.json"
        run(here, f"/export json {path}")
        assert [one["content"] for one in json.loads(path.read_text())["messages"]] == ["a", "One."]
        with pytest.raises(UsageError, match="already exists"):
            run(here, f"/export json {path}")
        run(here, "/export md")
        assert "One." in shown(here)


def test_tools_are_added_listed_and_switched_off(tmp_path: Path) -> None:
    with scene(tmp_path) as here:
        run(here, "/tools demo")
        assert "get_weather" in shown(here)
        assert here.agent.schemas
        run(here, "/tools off")
        assert not here.agent.schemas
        run(here, "/tools on")
        assert here.agent.schemas


def test_errors_are_shown_and_it_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with scene(tmp_path) as here:
        handle_line(here, "/hlep")
        assert "did you mean /help" in capsys.readouterr().err
        handle_line(here, "word " * 3000)
        stderr = capsys.readouterr().err
        assert "4,096" in stderr
        assert "/compact" in stderr
        assert here.draft.startswith("word word")
        assert contents(here) == []
        handle_line(here, "a")
        assert contents(here) == ["a", "Two."]


def test_it_is_said_when_the_context_gets_full(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with scene(tmp_path) as here:
        handle_line(here, "x" * 3000)
        assert "/compact" not in capsys.readouterr().err
        handle_line(here, "y" * 400)
        stderr = capsys.readouterr().err
        assert "of 4,096 tokens of context are used" in " ".join(stderr.split())
        assert "/compact" in stderr


@pytest.mark.parametrize("line", ["/usr/bin is full", "/* a comment */", "//help", "/", "/ what", "/42 is odd"])
def test_messages_that_begin_with_a_slash_are_messages(line: str) -> None:
    assert not command.is_command(line)


def test_two_slashes_say_one() -> None:
    assert command.unescaped("//help me") == "/help me"


@given(st.sampled_from([*COMMANDS, "/nothing"]), st.text(max_size=20))
def test_no_completion_fails(name: str, typed: str) -> None:
    class Nothing:
        model_names = staticmethod(lambda: ["demo"])
        session = type("NoSession", (), {"sessions": staticmethod(list)})

    if name in COMMANDS:
        offered = COMMANDS[name].complete(Nothing(), typed)  # type: ignore[arg-type]  # what completions need of it
        assert all(isinstance(one, str) for one in offered)


def test_the_page_lists_every_command() -> None:
    page = (REPOSITORY / "docs" / "chat.md").read_text(encoding="utf-8")
    rows = [
        line.split(" | ")[0].removeprefix("| ").strip("` ") for line in page.splitlines() if line.startswith("| `/")
    ]
    documented = [f"{one.name} {one.usage}".strip().replace("|", "\\|") for one in COMMANDS.values()]
    assert sorted(rows) == sorted(documented)
