from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import HANG
from hypothesis import given
from hypothesis import strategies as st

from hermes_cli import paths
from hermes_cli.errors import NotFoundError, UsageError
from hermes_cli.prompting.messages import ToolCall
from hermes_cli.tools.functions import ToolFailedError, load_tools, run_tool

FILE = '''
from dataclasses import dataclass
from typing import Annotated, Literal
from pydantic import Field

@dataclass
class Place:
    city: str
    country: str | None = None

def weather(
    city: Annotated[str, Field(description="Where.")],
    days: int = 1,
    unit: Literal["celsius", "fahrenheit"] = "celsius",
) -> dict[str, object]:
    """Get the weather
    of a city.

    More about it.
    """
    return {"city": city, "days": days, "unit": unit}

def visit(place: Place) -> str:
    """Visit."""
    return f"{type(place).__name__} {place.city}"

def nothing() -> None:
    pass

def fails(x: int) -> str:
    raise KeyError(x)

def leaves() -> None:
    raise SystemExit("bye")

async def soon(text: str) -> str:
    """Later."""
    import asyncio
    await asyncio.sleep(0)
    return text

def own_loop(text: str) -> str:
    import asyncio
    return asyncio.run(soon(text))

def hangs() -> None:
    import time
    time.sleep(600)

def _private(x: int) -> int:
    return x
'''


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tools.py"
    path.write_text(FILE)
    return path


def run(path: Path, name: str, **arguments: object) -> str:
    return run_tool(load_tools(path), ToolCall(name, arguments))


def test_signature_and_docstring_become_the_declaration(file: Path) -> None:
    tools = load_tools(file)
    assert list(tools) == ["weather", "visit", "nothing", "fails", "leaves", "soon", "own_loop", "hangs"]
    assert tools["weather"].origin == "tools.py"
    assert tools["weather"].schema["function"]["description"] == "Get the weather of a city."
    assert tools["weather"].schema == {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Get the weather of a city.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "Where."},
                    "days": {"type": "integer", "default": 1},
                    "unit": {"type": "string", "enum": ["celsius", "fahrenheit"], "default": "celsius"},
                },
                "required": ["city"],
            },
        },
    }


def test_results_are_strings_as_they_are_and_json_otherwise(file: Path) -> None:
    assert json.loads(run(file, "weather", city="Oslo")) == {"city": "Oslo", "days": 1, "unit": "celsius"}
    assert run(file, "visit", place={"city": "Oslo"}) == "Place Oslo"
    assert run(file, "nothing") == "null"


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("weather", {}, "wrong arguments: city: Missing required argument"),
        ("weather", {"city": "x", "days": "many"}, "wrong arguments: days: "),
        ("weather", {"city": "x", "wind": 1}, "wrong arguments: wind: Unexpected keyword argument"),
        ("weather", {"city": "x", "unit": "kelvin"}, "wrong arguments: unit: "),
        ("fails", {"x": 1}, "KeyError: 1"),
        ("leaves", {}, "SystemExit: bye"),
        ("_private", {"x": 1}, "there is no tool _private; there is weather, visit"),
    ],
)
def test_failures_say_what_the_model_can_mend(file: Path, name: str, arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ToolFailedError) as caught:
        run(file, name, **arguments)
    assert caught.value.message.startswith(says)


@given(
    st.dictionaries(
        st.text(max_size=5),
        st.none() | st.integers() | st.text(max_size=5) | st.lists(st.integers(), max_size=2),
        max_size=3,
    )
)
def test_any_arguments_run_or_fail_in_words(arguments: dict[str, Any]) -> None:
    tools = load_tools(paths.asset("demo_tools.py"))
    try:
        result = run_tool(tools, ToolCall("get_weather", arguments))
    except ToolFailedError as error:
        result = error.message
    assert result.startswith(("wrong arguments", '{"city": '))


@pytest.mark.parametrize("name", ["soon", "own_loop"])
def test_a_tool_may_be_or_run_a_coroutine(file: Path, name: str) -> None:
    assert run(file, name, text="hi") == "hi"


def test_a_tool_that_hangs_is_left_alone(file: Path) -> None:
    tools = load_tools(file)
    with pytest.raises(ToolFailedError, match=r"did not return within 0.05 s; it may still be running"):
        run_tool(tools, ToolCall("hangs", {}), 0.05)
    assert run_tool(tools, ToolCall("nothing", {})) == "null"


INTERRUPTED = """
import signal, threading, time
def hangs() -> None:
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    time.sleep(600)
"""


def test_ctrl_c_leaves_a_tool_alone_at_once(tmp_path: Path) -> None:
    file = tmp_path / "interrupted.py"
    file.write_text(INTERRUPTED)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run(file, "hangs")
    assert time.monotonic() - began < HANG


def test_demo_tools_never_change_their_answers() -> None:
    assert run(paths.asset("demo_tools.py"), "get_weather", city="Tokyo") == (
        '{"city": "Tokyo", "temperature": 13, "condition": "rainy"}'
    )


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("def f(", "line 1: "),
        ("import no_such_module_here", "line 1: running the file raised ModuleNotFoundError"),
        ("x = 1\nraise SystemError('no')", "line 2: running the file raised SystemError: no"),
        ("x = 1", "no public function"),
        ("from json import dumps", "no public function"),
        ("def f(x): ...", "function f: the parameter x has no type"),
        ("def f(*x: int): ...", "only give arguments by name, not *x"),
        ("def f(x: 'Nowhere'): ...", "function f: its types have no JSON schema"),
        ("from typing import Any\nclass C: ...\ndef f(x: C): ...", "function f: its types have no JSON schema"),
    ],
)
def test_a_bad_file_is_one_clear_error(tmp_path: Path, source: str, says: str) -> None:
    path = tmp_path / "bad.py"
    path.write_text(source)
    with pytest.raises(UsageError) as caught:
        load_tools(path)
    assert str(path) in caught.value.message
    assert says in caught.value.message
    assert caught.value.hint


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        load_tools(tmp_path / "nowhere.py")


def test_a_file_that_is_not_python(tmp_path: Path) -> None:
    path = tmp_path / "tools.txt"
    path.write_text("def f() -> int: return 1")
    with pytest.raises(UsageError, match="not a Python file") as caught:
        load_tools(path)
    assert ".py" in caught.value.hint
