"""`hermes serve`: one model or several behind an HTTP API."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import Parameter, Signature, signature
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hermes_cli.commands.completing import models, one_of
from hermes_cli.commands.options import (
    CONTEXT,
    DevicesOption,
    DraftOption,
    EngineArgumentOption,
    EngineCommandOption,
    EngineOption,
    EngineUrlOption,
    KvTypeOption,
    ReserveOption,
    RpcOption,
    TokenizerOption,
    VerboseOption,
    argument,
    setting,
    with_console,
)
from hermes_cli.console import Console
from hermes_cli.errors import ExitCode

if TYPE_CHECKING:
    from hermes_cli.server.settings import SettingValue


def _option(name: str, kind: Any, text: str = "", **more: Any) -> Parameter:  # noqa: ANN401 - as Typer's own
    """Declare a setting as an option, and as the environment variable of its name; `kind` may be declared already."""
    if text:
        flag = more.pop("flag", f"--{name.replace('_', '-')}")
        kind = Annotated[kind | None, typer.Option(flag, envvar=f"HERMES_LLM_{name.upper()}", help=text, **more)]
    return Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=kind)


# In the order of the help.
SETTING_OPTIONS = (
    _option("alias", list[str], "Another name for the first model; * is every name that no model has.", metavar="NAME"),
    _option("host", str, "Address to listen on. Default: 127.0.0.1, this machine alone; others need a key."),
    _option("port", int, "Default: 8080, with --ollama 11434; 0 takes any that is free."),
    _option("ollama", bool, "Speak Ollama's API, too, for clients that need it."),
    _option(
        "manage_models",
        bool,
        "With --ollama: clients may fetch models of the catalogue, and delete models from this disk.",
    ),
    _option("context", int, "Tokens that each request can use. Default: the longest that fits.", **CONTEXT),
    _option("for_agent", bool, "At least 65,536 tokens of context, as agents need, or a refusal."),
    _option("slots", int, "Requests at once; they share the context. Default: 4."),
    _option("kv_type", KvTypeOption),
    _option("gpu_layers", int, "Layers to put on the GPU; -1 is all. Default: as many as fit."),
    _option("tensor_split", str, "Proportions in which GPUs share the layers.", metavar="N,N"),
    _option("devices", DevicesOption),
    _option("reserve", ReserveOption),
    _option("threads", int, "CPU threads. Default: physical cores."),
    _option("batch", int, "Tokens in one pass. Default: 512."),
    _option("draft", DraftOption),
    _option("yarn", bool, "Stretch the context as the base model documents it."),
    _option("think", bool, "Reason before answering, or not; a request may say otherwise.", flag="--think/--no-think"),
    _option("strict_think", bool, "Refuse requests for reasoning that a model does not have, instead of a warning."),
    _option("think_end", str, "Sentence that ends reasoning whose budget is used up.", metavar="TEXT"),
    _option(
        "template",
        str,
        "Prompt format: the file's, hermes' own for the model, or yours.",
        metavar="file|model|PATH",
        autocompletion=one_of("file", "model"),
    ),
    _option("engine_url", EngineUrlOption),
    _option("tokenizer", TokenizerOption),
    _option("engine", EngineOption),
    _option("engine_command", EngineCommandOption),
    _option("engine_arg", EngineArgumentOption),
    _option("rpc", RpcOption),
    _option("api_key", list[str], "Clients need one of these. May be repeated.", metavar="KEY"),
    _option("api_key_file", str, "Keys, one on each line.", metavar="FILE"),
    _option("insecure", bool, "Listen beyond this machine without a key."),
    _option("allowed_host", list[str], "Another name that the server answers to.", metavar="NAME"),
    _option("cors", list[str], "Web pages of this origin may use it.", metavar="ORIGIN"),
    _option(
        "mcp",
        list[str],
        "MCP server whose tools are run here for clients that ask: a command, an address, or a name in chat.yaml.",
        metavar="SERVER",
    ),
    _option("allow", list[str], "A tool among them that may be run: server:tool; * is any.", metavar="TOOL"),
    _option(
        "keep_alive",
        str,
        "How long an idle model stays in memory: 300, 5m, never. Default: never leaves by itself.",
        metavar="TIME",
    ),
    _option(
        "max_keep_alive",
        str,
        "The longest that a request may keep its model in memory. Default: never, any time.",
        metavar="TIME",
    ),
    _option(
        "prefix_cache",
        str,
        "Disk for KV caches of prompts that outlive the server, for each model: 4G. Default: off.",
        metavar="SIZE",
    ),
    _option("max_queue", int, "Requests that may wait. Default: 256."),
    _option("max_body", float, "Largest request, in MiB. Default: 32."),
    _option("timeout", float, "Seconds that a request may take. Default: 3600."),
    _option("grace", float, "Seconds that running requests have to finish when the server is stopped. Default: 30."),
    _option("log_json", bool, "Access log as JSON."),
    _option("log_prompts", bool, "Log the bodies of requests, too."),
    _option("force", bool, "Load it even if there is too little memory."),
)
# Parameters of lists, and the settings that they are.
_SETTINGS = {"names": "models", "api_key": "api_keys", "allowed_host": "allowed_hosts", "engine_arg": "engine_args"}


def _with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of the table, behind its arguments."""
    console, call, names, *own, _ = signature(command).parameters.values()
    command.__dict__["__signature__"] = Signature(
        [console, call, names, *(option.replace(kind=Parameter.KEYWORD_ONLY) for option in (*SETTING_OPTIONS, *own))]
    )
    return command


@with_console
@_with_settings
def command(
    console: Console,
    call: typer.Context,
    names: Annotated[  # noqa: ARG001 - read from the context, as all settings: it knows who said them
        list[str] | None,
        argument(
            "[NAME]...",
            "Models: names, `demo`, or paths; the first is the default. None: the best that is installed.",
            models,
            envvar="HERMES_LLM_MODELS",
        ),
    ] = None,
    config: Annotated[
        str | None,
        setting(
            "HERMES_LLM_SERVE_CONFIG",
            "Settings in YAML. Default: serve.yaml in the folder that `hermes paths` shows.",
            metavar="FILE",
        ),
    ] = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Show the settings and where each is from; serve nothing.")
    ] = False,
    background: Annotated[
        bool,
        typer.Option("--background", help="Go on when the terminal is closed; this command ends when it answers."),
    ] = False,
    verbose: VerboseOption = False,
    **_settings: object,
) -> None:
    """Serve models: the APIs of OpenAI, Anthropic and llama.cpp's server, and Ollama's if asked to.

    On this machine alone unless told otherwise.

    hermes serve demo

    hermes serve hermes-3:8b --for-agent

    hermes serve hermes-3:8b --background, then: hermes ps, hermes stop

    hermes serve hermes-4:14b hermes-3:3b --host 0.0.0.0 --api-key-file keys.txt
    """
    from pathlib import Path

    from hermes_cli.server.settings import as_yaml, document, read_file, resolve

    resolved = resolve(_typed(call), read_file(Path(config).expanduser() if config else None))
    if print_config:
        console.text(as_yaml(resolved))
        console.document(document(resolved))
        return

    if background:
        from hermes_cli.commands.background import serve_in_background

        serve_in_background(console)
        return

    from hermes_cli.commands.serving import serve_models

    if not serve_models(resolved.settings, console, verbose=verbose):
        raise typer.Exit(ExitCode.INTERRUPTED)


def _typed(call: typer.Context) -> Mapping[str, SettingValue]:
    """Return the settings from flags and the environment."""
    from hermes_cli.server.settings import SettingValue

    given = {}
    for parameter in call.command.params:
        name = parameter.name or ""
        source = call.get_parameter_source(name)
        is_setting = name == "names" or any(name == option.name for option in SETTING_OPTIONS)
        if not is_setting or source is None or source.name not in {"COMMANDLINE", "ENVIRONMENT"}:
            continue
        said_by = parameter.envvar if source.name == "ENVIRONMENT" else max(parameter.opts, key=len)
        shown = "the command line" if said_by == "names" else str(said_by)
        given[_SETTINGS.get(name, name)] = SettingValue(call.params[name], shown)
    return given
