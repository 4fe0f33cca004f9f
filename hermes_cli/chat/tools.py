"""A file of typed Python functions as tools.

Signature and docstring are the declaration; pydantic makes the JSON schema from the type hints and checks the model's
arguments against it before the function runs.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pydantic import PydanticUserError, TypeAdapter, ValidationError, validate_call

from hermes_cli.errors import HermesError, NotFoundError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

    from hermes_cli.prompting.messages import ToolCall

EXAMPLE = 'write functions like this one: def get_weather(city: str) -> str: """Get the weather of a city."""'


@dataclass(frozen=True)
class Tool:
    """A function the model may call; `schema` is its declaration in OpenAI's shape."""

    name: str
    schema: dict[str, Any]
    function: Callable[..., object]


class ToolFailedError(HermesError):
    """A tool raised; the message is what the model is told."""


def load_tools(path: Path) -> dict[str, Tool]:
    """The public functions that a file defines, by name.

    Raises:
        NotFoundError: no such file.
        UsageError: the file does not run, defines no function, or a function's types cannot be told to a model.
    """
    if not path.is_file():
        raise NotFoundError(f"there is no tools file {path}.", hint="give --tools the path of a Python file.")
    module = _run(path)
    tools = {function.__name__: _tool(function, path) for function in _functions(module)}
    if not tools:
        raise UsageError(f"{path} defines no public function, so there is no tool in it.", hint=EXAMPLE)
    return tools


def run_tool(tools: dict[str, Tool], call: ToolCall) -> str:
    """Run a call and return its result as the text the model reads: a string as it is, anything else as JSON.

    Raises:
        ToolFailedError: no such tool, wrong arguments, or the function raised.
    """
    hint = "the model is told; it may try again."
    if call.name not in tools:
        raise ToolFailedError(f"there is no tool {call.name}; there is {', '.join(tools)}", hint=hint)
    try:
        result = tools[call.name].function(**call.arguments)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise ToolFailedError(f"wrong arguments: {problems}", hint=hint) from error
    except Exception as error:  # a tool is the user's code and may raise anything
        raise ToolFailedError(f"{type(error).__name__}: {error}", hint=hint) from error
    return result if isinstance(result, str) else json.dumps(result, ensure_ascii=False, default=str)


def _run(path: Path) -> ModuleType:
    name = f"hermes_tools_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} is not a Python file.", hint="give --tools a file whose name ends in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses and type hints look their module up
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise UsageError(f"{path}, line {error.lineno}: {error.msg}.", hint="correct that line.") from error
    except Exception as error:
        frames = reversed(traceback.extract_tb(error.__traceback__))
        line = next((frame.lineno for frame in frames if Path(frame.filename).resolve() == path.resolve()), "?")
        raise UsageError(
            f"{path}, line {line}: running the file raised {type(error).__name__}: {error}.",
            hint=f"run it by itself to see more: python {path}",
        ) from error
    return module


def _functions(module: ModuleType) -> Iterator[Callable[..., object]]:
    for name, value in vars(module).items():
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_"):
            yield value


def _tool(function: Callable[..., object], path: Path) -> Tool:
    where = f"{path}, function {function.__name__}"
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind not in {parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY}:
            raise UsageError(f"{where}: a model can only give arguments by name, not *{parameter.name}.", hint=EXAMPLE)
        if parameter.annotation is parameter.empty:
            raise UsageError(f"{where}: the parameter {parameter.name} has no type.", hint=EXAMPLE)
    try:
        parameters = TypeAdapter(cast("Any", function)).json_schema()
        checked = validate_call(function)
    except (PydanticUserError, NameError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"{where}: its types cannot be told to a model: {reason}", hint=EXAMPLE) from error
    parameters.pop("additionalProperties", None)
    for declaration in parameters.get("properties", {}).values():
        declaration.pop("title", None)
    description = (inspect.getdoc(function) or "").split("\n\n")[0].replace("\n", " ")
    declared = {"name": function.__name__, "description": description, "parameters": parameters}
    return Tool(function.__name__, {"type": "function", "function": declared}, checked)
