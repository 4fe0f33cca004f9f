from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hermes_cli.errors import UsageError
from hermes_cli.prompting.messages import ToolCall
from hermes_cli.tools.functions import Tool, ToolFailedError
from hermes_cli.tools.toolbox import MAX_RESULT, REFUSED, Consent, Toolbox, open_toolbox

CALL = ToolCall("one", {})


def box(run: Callable[[], str], consent: Consent | None = None, most: int = MAX_RESULT) -> Toolbox:
    schema = {"type": "function", "function": {"name": "one", "description": "First.\nMore."}}
    tool = Tool("one", schema, "tools.py", lambda _, __: run())
    toolbox = Toolbox(consent or Consent(None, everything=True), pytest.fail, max_result=most)
    toolbox.add({"one": tool})
    return toolbox


def fails() -> str:
    raise ToolFailedError('no "cheese" ' + "x" * 50)


def test_what_there_is() -> None:
    toolbox = box(str, Consent(None, allow=["o*"]))
    assert [schema["function"]["name"] for schema in toolbox.schemas] == ["one"]
    assert toolbox.listing() == [["one", "tools.py", "First.", "allowed"]]
    assert box(str, Consent(None)).listing()[0][3] == "asks"


def test_files_are_added_and_replaced(tmp_path: Path) -> None:
    toolbox = Toolbox(Consent(None, everything=True), pytest.fail)
    toolbox.add_file("demo")
    file, other = tmp_path / "mine.py", tmp_path / "yours.py"
    file.write_text("def f() -> str: return 'old'\ndef g() -> str: return ''")
    toolbox.add_file(str(file))
    file.write_text("def f() -> str: return 'new'")
    toolbox.add_file(str(file))
    assert [name for name, *_ in toolbox.listing()] == ["get_weather", "get_time", "f"]
    assert toolbox.run(ToolCall("f", {})).text == "new"
    other.write_text("def f() -> str: return ''")
    with pytest.raises(UsageError, match=r"yours.py and mine.py both have a tool f"):
        toolbox.add_file(str(other))
    assert toolbox.run(ToolCall("f", {})).text == "new"


def test_what_flags_and_the_file_ask_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERMES_LLM_CONFIG_DIR", str(tmp_path))
    (tmp_path / "chat.yaml").write_text("allow: [get_t*]")
    toolbox = open_toolbox(["demo"], [], [], allowed=["get_weather"], yes=False, ask=None, warn=pytest.fail)
    assert [consent for *_, consent in toolbox.listing()] == ["allowed", "allowed"]
    assert json.loads(toolbox.run(ToolCall("get_time", {"city": "Oslo"})).text)["city"] == "Oslo"
    toolbox.close()
    with pytest.raises(UsageError, match="--mcp nowhere-at-all"):
        open_toolbox([], ["nowhere-at-all"], [], allowed=[], yes=True, ask=None, warn=pytest.fail)


def test_a_result_and_its_time() -> None:
    def slow() -> str:
        time.sleep(0.05)
        return "hi"

    def think(_: str) -> str:
        time.sleep(0.5)
        return "y"

    began = time.monotonic()
    result = box(slow, Consent(think)).run(CALL)
    took = time.monotonic() - began
    assert (result.text, result.failed, result.cut) == ("hi", False, 0)
    assert 0.05 <= result.seconds <= took - 0.5  # not those in which the user thinks


def test_failures_are_results() -> None:
    result = box(fails).run(CALL)
    assert result.failed
    assert json.loads(result.text)["error"].startswith('no "cheese"')
    unknown = box(fails).run(ToolCall("two", {}))
    assert unknown.failed
    assert json.loads(unknown.text) == {"error": "there is no tool two; there is one"}


def test_what_the_user_refuses_does_not_run() -> None:
    result = box(lambda: pytest.fail("it ran"), Consent(lambda _: "no, wait")).run(CALL)
    assert result.failed
    assert json.loads(result.text) == {"error": f"{REFUSED}: wait"}


def test_an_unknown_tool_is_not_asked_for() -> None:
    assert box(fails, Consent(None)).run(ToolCall("two", {})).failed


def test_nobody_to_ask_is_an_error() -> None:
    with pytest.raises(UsageError):
        box(str, Consent(None)).run(CALL)


@pytest.mark.parametrize(("length", "cut"), [(99, 0), (100, 0), (101, 1), (1_000, 900)])
def test_long_results_lose_their_middle(length: int, cut: int) -> None:
    text = "".join(chr(0x4E00 + at) for at in range(length))
    result = box(lambda: text, most=100).run(CALL)
    assert result.cut == cut
    if cut:
        assert result.text == f"{text[:75]}\n[… {cut:,} characters left out here]\n{text[-25:]}"
    else:
        assert result.text == text


def test_long_errors_are_cut_and_stay_json() -> None:
    result = box(fails, most=40).run(CALL)
    assert result.cut == 22
    assert "[… 22 characters left out here]" in json.loads(result.text)["error"]


def test_fifty_megabytes_cost_no_time() -> None:
    text = "x" * 50_000_000
    result = box(lambda: text).run(CALL)
    assert result.cut == 50_000_000 - MAX_RESULT
    assert len(result.text) < MAX_RESULT + 100
    assert result.seconds < 1
