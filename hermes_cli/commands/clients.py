"""Clients that `hermes connect` knows: the settings that each needs, where they belong, and how it is started then.

Where a client can be given a file of settings, it gets one of its own, so that nothing else of it changes. Only `llm`
and Zed have a single file, to which an entry is added.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import platformdirs

from hermes_cli import paths
from hermes_cli.errors import UsageError

AGENT_TOKENS = 20_000  # of instructions and tools that agents begin with
NO_KEY = "none"  # where a client insists on a key and the server has none
BLOCK = "# hermes connect"  # first and last line of what is ours in a file of somebody else
_JSON_TOKEN = re.compile(r'"(?:\\.|[^"\\])*"?|//[^\n]*|/\*.*?(?:\*/|\Z)|[{}\[\]:,]|[^\s{}\[\]:,"/]+', re.DOTALL)


@dataclass(frozen=True)
class Connection:
    """A server that a client is connected with: its URL without `/v1`, a model, and what that can do."""

    root: str
    model: str
    context: int
    key: str = NO_KEY
    tools: bool = True

    @property
    def url(self) -> str:
        """Return the URL with `/v1`."""
        return f"{self.root}/v1"


@dataclass(frozen=True)
class Client:
    """A client."""

    title: str
    text: Callable[[Connection], str]  # its settings: a whole file, an entry of one, or lines for a shell or a program
    file: Callable[[], Path] | None = None  # where they belong; None if they are only printed
    # a file of its own, an item of a list in YAML, or a member of an object in JSON with comments
    how: Literal["file", "yaml-item", "json-member"] = "file"
    start: str = ""  # what to type, or to do, then; `{file}` is the path
    needs: int = 0  # tokens of context that it begins with
    note: str = ""  # what else a person has to know

    def edited(self, before: str, connection: Connection) -> str:
        """Return the text of its file with our settings in it; raise UsageError if the file is not as expected."""
        text = self.text(connection)
        if self.how == "yaml-item":
            return with_yaml_item(before, text)
        if self.how == "json-member":
            return with_json_member(before, ZED_PATH, json.loads(text))
        return text


def with_yaml_item(before: str, item: str) -> str:
    """Add items to a list in YAML, or replace those that were added before.

    Raise UsageError if the text is not a list in block style.
    """
    import yaml

    kept = re.sub(rf"^{BLOCK}: begin\n.*?^{BLOCK}: end\n", "", before, flags=re.MULTILINE | re.DOTALL)
    after = kept + ("\n" if kept and not kept.endswith("\n") else "") + f"{BLOCK}: begin\n{item}{BLOCK}: end\n"
    try:
        valid = isinstance(yaml.safe_load(after), list)
    except yaml.YAMLError:
        valid = False
    if not valid:
        raise UsageError("the file is not a list in YAML, to which an entry could be added.", hint=_BY_HAND)
    return after


def with_json_member(before: str, path: Sequence[str], value: Any) -> str:  # noqa: ANN401 - what JSON holds
    """Set a member of nested objects in JSON with comments; everything else stays as it is.

    Raise UsageError if the text is not an object, or a name on the path stands for something else.
    """
    if not before.strip():
        before = "{\n}\n"
    tokens = [match for match in _JSON_TOKEN.finditer(before) if not match[0].startswith(("//", "/*"))]
    if tokens[_last(tokens) + 1 :]:
        raise UsageError("the file holds more than one JSON document.", hint=_BY_HAND)
    at = end = 0
    for depth, name in enumerate(path):
        members = _members(tokens, at)
        if name not in members:
            rest: Any = value
            for inner in reversed(path[depth + 1 :]):
                rest = {inner: rest}
            comma = "," if members else ""
            start = tokens[at].end()
            indent = "  " * (depth + 1)
            added = f"\n{indent}{json.dumps(name)}: {_indented(rest, indent)}{comma}"
            close = "" if members or before[start:].lstrip(" \t").startswith("\n") else "\n" + "  " * depth
            return before[:start] + added + close + before[start:]
        at, end = members[name]
    return before[: tokens[at].start()] + _indented(value, "  " * len(path)) + before[tokens[end].end() :]


def _last(tokens: Sequence[re.Match[str]]) -> int:
    """Return the last token of the first object."""
    depth = 0
    for at, token in enumerate(tokens):
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(token[0], 0)
        if depth == 0:
            return at
    raise _built_otherwise()


def _members(tokens: Sequence[re.Match[str]], at: int) -> dict[str, tuple[int, int]]:
    """Return the members of the object that begins at a token: name, and the first and last token of the value."""
    members: dict[str, tuple[int, int]] = {}
    texts = [token[0] for token in tokens]
    try:
        if texts[at] != "{":
            raise _built_otherwise()
        at += 1
        while texts[at] != "}":
            if texts[at] == ",":
                at += 1
                continue
            name = str(json.loads(texts[at]))
            last = at + 2 + _last(tokens[at + 2 :])
            members[name] = at + 2, last
            at = last + 1
    except (ValueError, IndexError):
        raise _built_otherwise() from None
    return members


def _built_otherwise() -> UsageError:
    return UsageError("the file is not JSON, or is built otherwise than expected.", hint=_BY_HAND)


def _indented(value: Any, indent: str) -> str:  # noqa: ANN401 - what JSON holds
    return json.dumps(value, indent=2, ensure_ascii=False).replace("\n", f"\n{indent}")


_BY_HAND = "add them by hand; --print shows them."


def _own_file(name: str) -> Callable[[], Path]:
    """Return the path of a file in our folder that a client is given when it starts."""
    return lambda: paths.config_dir() / "clients" / name


def _in_home(variable: str, default: str, name: str) -> Callable[[], Path]:
    """Return the path of a file in the folder that a variable names, or its usual one in the home folder."""

    def path() -> Path:
        return (Path(os.environ.get(variable) or default) / name).expanduser()

    return path


def _document(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _yaml(value: Any) -> str:  # noqa: ANN401 - what YAML holds
    import yaml

    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=1000)


def _exports(variables: dict[str, str], platform: str = sys.platform) -> str:
    """Return lines for the shell that set variables: PowerShell's on Windows."""
    if platform == "win32":
        quoted = {name: value.replace("'", "''") for name, value in variables.items()}
        return "".join(f"$env:{name} = '{value}'\n" for name, value in quoted.items())
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())


def _anthropic(connection: Connection) -> dict[str, str]:
    models = [f"ANTHROPIC_DEFAULT_{size}_MODEL" for size in ("OPUS", "SONNET", "HAIKU")]
    return {
        "ANTHROPIC_BASE_URL": connection.root,
        "ANTHROPIC_AUTH_TOKEN": connection.key,
        **dict.fromkeys(["ANTHROPIC_MODEL", *models], connection.model),
    }


def _claude_code(connection: Connection) -> str:
    quiet = {"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"}
    return _document({"env": _anthropic(connection) | quiet})


def _codex(connection: Connection) -> str:
    bearer = [] if connection.key == NO_KEY else [f"experimental_bearer_token = {json.dumps(connection.key)}"]
    return "\n".join(
        [
            f"model = {json.dumps(connection.model)}",
            'model_provider = "hermes"',
            f"model_context_window = {connection.context}  # without it a full context ends the session",
            "",
            "[model_providers.hermes]",
            'name = "hermes"',
            f"base_url = {json.dumps(connection.url)}",
            'wire_api = "responses"',
            *bearer,
            "",
        ]
    )


def _opencode(connection: Connection) -> str:
    model = {
        "name": connection.model,
        "limit": {"context": connection.context, "output": connection.context // 4},
        "tool_call": connection.tools,
    }
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": "hermes serve",
        "options": {"baseURL": connection.url, "apiKey": connection.key},
        "models": {connection.model: model},
    }
    default = f"hermes/{connection.model}"
    return _document(
        {
            "$schema": "https://opencode.ai/config.json",
            "model": default,
            "small_model": default,
            "provider": {"hermes": provider},
        }
    )


def _aider(connection: Connection) -> str:
    return _yaml(
        {
            "model": f"openai/{connection.model}",
            "openai-api-base": connection.url,
            "openai-api-key": connection.key,
            "edit-format": "whole",
            "show-model-warnings": False,
        }
    )


def _continue(connection: Connection) -> str:
    model = {
        "name": f"{connection.model} (hermes)",
        "provider": "openai",
        "model": connection.model,
        "apiBase": connection.url,
        "apiKey": connection.key,
        "roles": ["chat", "edit", "apply"],
        "capabilities": ["tool_use"] if connection.tools else [],
        "defaultCompletionOptions": {"contextLength": connection.context},
    }
    return _yaml({"name": "Hermes", "version": "1.0.0", "schema": "v1", "models": [model]})


ZED_PATH = ("language_models", "openai_compatible", "Hermes")


def _zed(connection: Connection) -> str:
    capabilities = {"tools": connection.tools, "images": False, "parallel_tool_calls": connection.tools}
    model = {"name": connection.model, "max_tokens": connection.context, "capabilities": capabilities}
    return _document({"api_url": connection.url, "available_models": [model]})


def _zed_file() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("APPDATA") or "~/AppData/Roaming").expanduser() / "Zed/settings.json"
    return Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "zed/settings.json"


def _llm(connection: Connection) -> str:
    entry = {
        "model_id": "hermes",
        "model_name": connection.model,
        "api_base": connection.url,
        **({} if connection.key == NO_KEY else {"api_key_name": "hermes"}),
        "supports_tools": connection.tools,
        "supports_schema": True,
    }
    return _yaml([entry])


def _llm_file() -> Path:
    folder = os.environ.get("LLM_USER_PATH")
    place = Path(folder) if folder else platformdirs.user_config_path("io.datasette.llm", appauthor=False, roaming=True)
    return place / "extra-openai-models.yaml"


def _open_webui(connection: Connection) -> str:
    return _exports({"OPENAI_API_BASE_URL": connection.url, "OPENAI_API_KEY": connection.key})


def _langchain(connection: Connection) -> str:
    return (
        "from langchain_openai import ChatOpenAI\n\n"
        f"model = ChatOpenAI(model={connection.model!r}, base_url={connection.url!r}, api_key={connection.key!r})\n"
        'print(model.invoke("What can you do?").content)\n'
    )


def _hermes_agent(connection: Connection) -> str:
    model = {"provider": "custom", "default": connection.model, "base_url": connection.url, "api_key": connection.key}
    return _yaml({"model": model})


def _env(connection: Connection) -> str:
    return _exports({"OPENAI_BASE_URL": connection.url, "OPENAI_API_KEY": connection.key} | _anthropic(connection))


CLIENTS = {
    "aider": Client("aider", _aider, _own_file("aider.yml"), start="aider --config {file}"),
    "claude-code": Client(
        "Claude Code",
        _claude_code,
        _own_file("claude-code.json"),
        start="claude --settings {file}",
        needs=AGENT_TOKENS,
        note="if ANTHROPIC_API_KEY is set, unset it first: it would be used instead",
    ),
    "codex": Client(
        "Codex",
        _codex,
        _in_home("CODEX_HOME", "~/.codex", "hermes.config.toml"),
        start="codex --profile hermes",
        needs=AGENT_TOKENS,
    ),
    "continue": Client(
        "Continue, in editors and as cn",
        _continue,
        _in_home("CONTINUE_GLOBAL_DIR", "~/.continue", "models/hermes.yaml"),
        start="cn --config {file}",
        note="in an editor it is in the list of models of each local configuration",
    ),
    "env": Client(
        "variables of OpenAI's and Anthropic's SDKs", _env, start='eval "$(hermes connect env)" sets them in this shell'
    ),
    "hermes-agent": Client(
        "Hermes Agent",
        _hermes_agent,
        start="it belongs into ~/.hermes/config.yaml of the agent, where hermes never writes",
        needs=64_000,
    ),
    "langchain": Client("LangChain", _langchain, start="pip install langchain-openai, then run it"),
    "llm": Client(
        "llm",
        _llm,
        _llm_file,
        "yaml-item",
        start='llm -m hermes "Hello"',
        note="the key, if there is one: llm keys set hermes",
    ),
    "open-webui": Client(
        "Open WebUI",
        _open_webui,
        start="open-webui serve --port 3000 in the same shell; it reads them at its first start only",
    ),
    "opencode": Client(
        "opencode", _opencode, _own_file("opencode.json"), start="OPENCODE_CONFIG={file} opencode", needs=AGENT_TOKENS
    ),
    "zed": Client(
        "Zed",
        _zed,
        _zed_file,
        "json-member",
        start="HERMES_API_KEY=none zed, and choose the model in its agent panel",
        note="Zed takes keys from the variable HERMES_API_KEY or its own settings of providers, never from this file",
    ),
}
