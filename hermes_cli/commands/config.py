"""`hermes config`: defaults and presets of chats in chat.yaml, and settings of servers in serve.yaml."""

from __future__ import annotations

import json
import math
import os
import shlex
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from typing import Annotated, Any

import typer

from hermes_cli import paths
from hermes_cli.commands.mistyped import OPTIONS, plain_words
from hermes_cli.commands.options import ListFirst, argument, with_console
from hermes_cli.console import Console
from hermes_cli.errors import HermesError, NotFoundError, UsageError, did_you_mean

CHAT, SERVE = "chat.yaml", "serve.yaml"
SERVE_PREFIX, PRESET_PREFIX = "serve.", "presets."
# Options of `hermes chat` that are said each time.
_EACH_TIME = frozenset({"preset", "go_on", "resume", "words", "yes", "force", "json", "quiet", "no_color", "help"})
# Options that change how the words of a command line are read: in presets only, which are named on it.
_PRESETS_ONLY = frozenset({"endpoint", "engine_url"})
EXAMPLES = "hermes config set model hermes-3:8b; hermes config set presets.pirate.system 'You are a pirate.'"

app = typer.Typer(
    cls=ListFirst,
    rich_markup_mode=None,
    help="Defaults and presets of chats, and settings of servers. Without a command: list them.",
)


def _keys(incomplete: str) -> list[str]:  # noqa: ARG001 - Typer passes it by this name
    """Return what can be set, for completion: options of chats and of presets that are there, settings of servers."""
    from hermes_cli.server.settings import ServerKeys

    options = _options(_chat_context(), _EACH_TIME)
    presets = [f"{PRESET_PREFIX}{name}.{option}" for name in preset_names("") for option in options]
    servers = [f"{SERVE_PREFIX}{name}" for name in ServerKeys.__struct_fields__]
    return [*_options(_chat_context(), _EACH_TIME | _PRESETS_ONLY), *presets, *servers]


KeyArgument = Annotated[
    str,
    argument(
        "KEY",
        "An option of hermes chat (temperature), of a preset (presets.NAME.system), of hermes serve (serve.port).",
        _keys,
    ),
]


@app.command("list")
@with_console
def list_(console: Console) -> None:
    """List all that is set, with the files."""
    values = _all_values()
    for name, value in values.items():
        console.text(f"{name} = {_shown(value)}\n")
    if not values:
        console.note(f"nothing is set; for example: {EXAMPLES}")
    console.note(f"in {paths.config_dir()}: {CHAT} and {SERVE}")
    console.document({"settings": values, "folder": str(paths.config_dir())})


@app.command("get")
@with_console
def get(console: Console, key: KeyArgument) -> None:
    """Print one value."""
    values = _all_values()
    if key not in values:
        hint, known = "see what is set: hermes config list", _keys("")
        if _normal(key) not in known:
            hint = did_you_mean(_normal(key), [*values, *known], hint)
        raise NotFoundError(f"{key} is not set.", hint=hint)
    console.text(f"{_shown(values[key])}\n")
    console.document({"key": key, "value": values[key]})


@app.command("set")
@with_console
def set_(
    console: Console,
    key: KeyArgument,
    value: Annotated[str, argument("VALUE", "Text, a number, true or false.")],
) -> None:
    """Set a value. It counts where no option and no variable says otherwise."""
    _change(key, value)
    console.note(f"{key} = {value}")
    console.document({"key": key, "value": _all_values()[_normal(key)]})


@app.command("unset")
@with_console
def unset(console: Console, key: KeyArgument) -> None:
    """Take a value out, or a whole preset: presets.NAME."""
    _change(key, None)
    console.note(f"{key} is no longer set")
    console.document({"key": key, "value": None})


@app.command("edit")
@with_console
def edit(
    console: Console,
    name: Annotated[str, argument("[chat|serve]", "Which file.", show_default=True)] = "chat",
) -> None:
    """Open a file in $VISUAL or $EDITOR, and check it."""
    if name not in {"chat", "serve"}:
        raise UsageError(f"there is no file of settings {name}.", hint="choose one of: chat, serve")
    path = paths.config_dir() / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or ("notepad" if os.name == "nt" else "vi")
    try:
        subprocess.run([*shlex.split(editor), str(path)], check=True)  # noqa: S603 - the user's own editor
    except (OSError, subprocess.CalledProcessError) as error:
        raise HermesError(f"{editor} failed: {error}.", hint=f"set EDITOR, or change the file: {path}") from None
    _all_values()
    console.note(f"{path} is valid")


def apply_preset(ctx: typer.Context, name: str | None) -> str | None:
    """Take defaults of options from chat.yaml, and above them those of a preset. A callback that is called first."""
    if ctx.resilient_parsing:
        return name
    from hermes_cli.tools.config import read_chat_file

    file = read_chat_file()
    if name is not None and name not in file.presets:
        there_are = f"there are: {', '.join(file.presets)}" if file.presets else f"make one: {EXAMPLES}"
        raise NotFoundError(f"there is no preset {name}.", hint=did_you_mean(name, file.presets, there_are))
    if values := {**file.defaults, **file.presets.get(name or "", {})}:
        ctx.default_map = {**(ctx.default_map or {}), **_checked(values, ctx, _EACH_TIME)}
    return name


def from_config(ctx: typer.Context, name: str) -> bool:
    """Return whether the value of a parameter is from chat.yaml."""
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "DEFAULT_MAP"


def names_from_config(ctx: typer.Context) -> set[str]:
    """Return the names of parameters whose values are defaults of chat.yaml; none if a preset was chosen."""
    if ctx.params.get("preset") is not None:
        return set()
    return {parameter.name for parameter in ctx.command.params if parameter.name and from_config(ctx, parameter.name)}


def preset_names(incomplete: str) -> list[str]:  # noqa: ARG001 - Typer passes it by this name
    """Return the names of presets, for completion."""
    from hermes_cli.tools.config import read_chat_file

    try:
        return list(read_chat_file().presets)
    except HermesError:
        return []


def _checked(values: Mapping[str, Any], ctx: typer.Context, excluded: frozenset[str]) -> dict[str, Any]:
    """Return values by the names of the command's parameters; UsageError for one that no option takes."""
    parameters = _options(ctx, excluded)
    checked = {}
    for name, value in values.items():
        parameter = parameters.get(_normal(name))
        if parameter is None or parameter.name is None:
            ours = OPTIONS.get(f"--{name}", name).removeprefix("--")
            hint = did_you_mean(_normal(ours), parameters, f"there are: {', '.join(parameters)}")
            raise UsageError(f"{CHAT}: hermes chat has no setting {name}.", hint=hint)
        if isinstance(value, bool) and not getattr(parameter, "is_flag", False):
            value = "on" if value else "off"  # noqa: PLW2901 - which YAML takes for true and false
        several = getattr(parameter, "multiple", False)
        _check_kind(name, value, several=several)
        listed = [value] if several and not isinstance(value, list) else value
        try:
            parameter.type_cast_value(ctx, listed)
        except HermesError as error:
            raise UsageError(f"{CHAT}: {error.message}", hint=error.hint) from None
        except Exception as error:  # noqa: BLE001 - Typer's own, which have no public name
            reason = plain_words(str(getattr(error, "message", None) or error))
            raise UsageError(f"{CHAT}: {name}: {reason}", hint="see hermes chat --help") from None
        checked[parameter.name] = listed
    return checked


def _check_kind(name: str, value: object, *, several: bool) -> None:
    """Raise UsageError for what no command line could say: an object, a list for one value, infinity."""
    for part in value if several and isinstance(value, list) else [value]:
        if isinstance(part, (list, dict, bytes)) or (isinstance(part, float) and not math.isfinite(part)):
            wanted = "texts or numbers" if several else "a text or a number"
            raise UsageError(f"{CHAT}: {name}: {part!r:.80} is not {wanted}.", hint="see hermes chat --help")


def _options(ctx: typer.Context, excluded: frozenset[str]) -> dict[str, Any]:
    """Return the parameters of a command by the names of their options."""
    return {
        max(parameter.opts, key=len).lstrip("-").replace("-", "_"): parameter
        for parameter in ctx.command.params
        if parameter.name not in excluded
    }


def _all_values() -> dict[str, Any]:
    """Return all that is set, by key. Raise UsageError if a file is not as it should be."""
    chat, serve = (_read(name) for name in (CHAT, SERVE))
    for name, document in ((CHAT, chat), (SERVE, serve)):
        _check(name, document)
    values = {_normal(key): value for key, value in chat.get("defaults", {}).items()}
    for preset, options in chat.get("presets", {}).items():
        values |= {f"{PRESET_PREFIX}{preset}.{_normal(key)}": value for key, value in options.items()}
    return values | {f"{SERVE_PREFIX}{key}": value for key, value in serve.items()}


def _change(key: str, text: str | None) -> None:
    """Set a value, or take it out if the text is None."""
    from hermes_cli.settings_file import changing

    file, path = _place(key)
    with changing(paths.config_dir() / file):
        _write(key, text, file, path)


def _write(key: str, text: str | None, file: str, path: list[str]) -> None:
    from hermes_cli.settings_file import write_section

    document = _read(file)
    inner = document
    for name in path[:-1]:
        inner = inner.setdefault(name, {})
    if text is not None and path[0] == "presets" and len(path) == 2:  # noqa: PLR2004 - without an option
        raise UsageError(f"{key} is a preset, which has options.", hint=f"set one of them: {key}.system 'TEXT'")
    if text is None:
        if path[-1] not in inner:
            raise NotFoundError(f"{key} is not set.", hint="see what is set: hermes config list")
        del inner[path[-1]]
    else:
        inner[path[-1]] = _value(text)
    _check(file, document)
    section = document.get(path[0])
    if isinstance(section, dict):
        section = {name: value for name, value in section.items() if value != {}} or None
    write_section(paths.config_dir() / file, path[0], section)


def _place(key: str) -> tuple[str, list[str]]:
    """Return the file of a key, and the path in its document. Raise UsageError if it is not a key."""
    head, dot, rest = key.partition(".")
    if not dot:
        return CHAT, ["defaults", _normal(key)]
    if f"{head}." == SERVE_PREFIX and rest and "." not in rest:
        return SERVE, [_normal(rest)]
    name, dot, option = rest.partition(".")
    if f"{head}." == PRESET_PREFIX and name and bool(option) == bool(dot) and "." not in option:
        return CHAT, ["presets", name, *([_normal(option)] if option else [])]
    raise UsageError(f"{key} is not a setting.", hint=f"for example: {EXAMPLES}")


def _read(file: str) -> dict[str, Any]:
    """Return the document of a file, empty if there is none. Raise UsageError if it cannot be read."""
    from hermes_cli.server.settings import read_file
    from hermes_cli.tools.config import read_chat_file

    if file == SERVE:
        return {key: setting.value for key, setting in read_file(None).items()}
    import msgspec

    return {key: value for key, value in msgspec.to_builtins(read_chat_file()).items() if value}


def _check(file: str, document: Mapping[str, Any]) -> None:
    """Raise UsageError if the document of a file is not as it should be."""
    place = str(paths.config_dir() / file)
    if file == SERVE:
        from hermes_cli.server.settings import from_document, resolve

        resolve({}, from_document(document, place))
        return
    from hermes_cli.tools import config

    chat = config.from_document(document, place)
    for values, excluded in [
        (chat.defaults, _EACH_TIME | _PRESETS_ONLY),
        *((preset, _EACH_TIME) for preset in chat.presets.values()),
    ]:
        if values:
            _checked(values, _chat_context(), excluded)


@cache
def _chat_context() -> typer.Context:
    """Return a context of `hermes chat`, which knows its options."""
    from hermes_cli.commands.app import build_app

    group: Any = typer.main.get_command(build_app("chat"))
    return typer.Context(group.commands["chat"])


def _normal(option: str) -> str:
    return option.replace("-", "_")


def _value(text: str) -> Any:  # noqa: ANN401 - what YAML holds
    """Return what was typed as a number, true, false or a list in brackets, else as text."""
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    if text.startswith("["):
        import yaml

        with suppress(yaml.YAMLError):
            return yaml.safe_load(text)
    return {"true": True, "false": False}.get(text, text)


def _shown(value: object) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (bool, list, dict)) else str(value)
