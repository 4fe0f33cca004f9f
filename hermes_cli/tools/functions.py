"""Tools, and a file of typed Python functions as tools.

Signature and docstring are the declaration; pydantic makes the JSON schema from the type hints and checks the model's
arguments against it before the function runs. It runs in a thread of its own, so that one that hangs can be left alone.
"""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import json
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from concurrent import futures
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from hermes_cli.errors import HermesError, NotFoundError, UsageError
from hermes_cli.prompting.messages import ToolCall

if TYPE_CHECKING:
    from types import ModuleType

T = TypeVar("T")

EXAMPLE = 'write functions like this one: def get_weather(city: str) -> str: """Get the weather of a city."""'
TIMEOUT = 60.0  # seconds of a call
_POLL = 0.1  # seconds: Windows delivers Ctrl-C only between waits


@dataclass(frozen=True)
class Tool:
    """A tool: `name` as the model calls it, `schema` in OpenAI's shape, `origin` such as "tools.py" or "mcp: files".

    `call` takes arguments by name and a timeout in seconds, and returns text; it raises ToolFailedError. `own_name` is
    what a server calls the tool.
    """

    name: str
    schema: dict[str, Any]
    origin: str
    call: Callable[[Mapping[str, Any], float], str]
    own_name: str = ""


class ToolFailedError(HermesError):
    """A call failed; the message is what the model is told."""

    def __init__(self, message: str) -> None:
        super().__init__(message, hint="the model is told; it may try again.")


def load_tools(path: Path) -> dict[str, Tool]:
    """Return the public functions that a file defines, by name; raise NotFoundError if there is no such file.

    Raise UsageError if it does not run, defines no function, or the types of one have no JSON schema.
    """
    if not path.is_file():
        raise NotFoundError(f"there is no tools file {path}.", hint="give --tools the path of a Python file.")
    tools: dict[str, Tool] = {}
    module = _import_file(path)
    for name, value in vars(module).items():
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_"):
            tools[value.__name__] = _tool_of(value, path)
    if not tools:
        raise UsageError(f"{path} defines no public function, so there is no tool in it.", hint=EXAMPLE)
    return tools


def run_tool(tools: Mapping[str, Tool], call: ToolCall, timeout: float = TIMEOUT) -> str:
    """Run a call and return its result as the text that the model reads, or raise ToolFailedError."""
    if call.name not in tools:
        raise ToolFailedError(f"there is no tool {call.name}; there is {', '.join(tools)}")
    return tools[call.name].call(call.arguments, timeout)


def wait_for(future: futures.Future[T], timeout: float, meanwhile: Callable[[], float] = lambda: 0.0) -> T:
    """Return the result of another thread's work. After the timeout, and after Ctrl-C at once, it is cancelled.

    `meanwhile` is called again and again; the seconds that it returns do not count.
    """
    end = time.monotonic() + timeout
    try:
        while not future.done():
            if (remaining := end - time.monotonic()) <= 0:
                raise TimeoutError
            futures.wait([future], min(remaining, _POLL))
            end += meanwhile()
        return future.result()
    finally:
        future.cancel()  # changes nothing if it is done


def _call(function: Callable[..., object], arguments: Mapping[str, Any], timeout: float) -> str:
    """Call a function: a string is the result as it is, anything else as JSON.

    Its prints go to standard error: the answer has standard output for itself.
    """
    future: futures.Future[str] = futures.Future()
    future.set_running_or_notify_cancel()  # so that it can take a late result
    thread = threading.Thread(target=_run_in_thread, args=(future, function, arguments), name="tool", daemon=True)
    try:
        with redirect_stdout(sys.stderr):
            thread.start()
            return wait_for(future, timeout)
    except TimeoutError:
        raise ToolFailedError(f"it did not return within {timeout:g} s; it may still be running") from None


def _run_in_thread(future: futures.Future[str], function: Callable[..., object], arguments: Mapping[str, Any]) -> None:
    from pydantic import ValidationError  # noqa: PLC0415 - 0.1 s, only where there are functions

    try:
        result = function(**arguments)
        if inspect.iscoroutine(result):
            result = asyncio.run(result)
        future.set_result(result if isinstance(result, str) else json.dumps(result, ensure_ascii=False, default=str))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        future.set_exception(ToolFailedError(f"wrong arguments: {problems}"))
    except BaseException as error:  # noqa: BLE001 - a tool is the user's code and may raise anything, SystemExit too
        future.set_exception(ToolFailedError(f"{type(error).__name__}: {error}"))


def _import_file(path: Path) -> ModuleType:
    name = f"hermes_tools_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} is not a Python file.", hint="give --tools a file whose name ends in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses and type hints look their module up
    try:
        with redirect_stdout(sys.stderr):
            spec.loader.exec_module(module)
    except SyntaxError as error:
        raise UsageError(f"{path}, line {error.lineno}: {error.msg}.", hint="correct that line.") from error
    except (Exception, SystemExit) as error:
        frames = reversed(traceback.extract_tb(error.__traceback__))
        line = next((frame.lineno for frame in frames if Path(frame.filename).resolve() == path.resolve()), "?")
        raise UsageError(
            f"{path}, line {line}: running the file raised {type(error).__name__}: {error}.",
            hint=f"run it by itself to see more: python {path}",
        ) from error
    return module


def _tool_of(function: Callable[..., object], path: Path) -> Tool:
    from pydantic import PydanticUserError, TypeAdapter, validate_call  # noqa: PLC0415 - as above

    where = f"{path}, function {function.__name__}"
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind not in {parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY}:
            raise UsageError(f"{where}: a model can only give arguments by name, not *{parameter.name}.", hint=EXAMPLE)
        if parameter.annotation is parameter.empty:
            raise UsageError(f"{where}: the parameter {parameter.name} has no type.", hint=EXAMPLE)
    try:
        parameters = TypeAdapter(cast("Any", function)).json_schema()
        validated = validate_call(function)
    except (PydanticUserError, NameError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"{where}: its types have no JSON schema: {reason}", hint=EXAMPLE) from error
    parameters.pop("additionalProperties", None)
    for declaration in parameters.get("properties", {}).values():
        declaration.pop("title", None)
    description = (inspect.getdoc(function) or "").split("\n\n")[0].replace("\n", " ")
    declared = {"name": function.__name__, "description": description, "parameters": parameters}
    schema = {"type": "function", "function": declared}
    return Tool(function.__name__, schema, path.name, partial(_call, validated))
