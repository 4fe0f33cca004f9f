"""`hermes serve`: one model or several behind an HTTP API."""
# ruff: noqa: ARG001 - what was typed is read from the context, which knows who said it

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

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
    setting,
    with_console,
)
from hermes_cli.console import Console
from hermes_cli.errors import ExitCode

if TYPE_CHECKING:
    from hermes_cli.server.settings import SettingValue

# What only this command knows; everything else that is typed is a setting.
_OWN = {"config", "print_config", "background", "json", "quiet", "no_color", "verbose"}
# Parameters of lists, and the settings that they are.
_SETTINGS = {"names": "models", "api_key": "api_keys", "allowed_host": "allowed_hosts", "engine_arg": "engine_args"}


@with_console
def command(
    console: Console,
    call: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...",
            help="Models: names, `demo`, or paths; the first is the default. None: the best that is installed.",
            show_default=False,
            envvar="HERMES_LLM_MODELS",
            autocompletion=models,
        ),
    ] = None,
    alias: Annotated[
        list[str] | None,
        setting(
            "HERMES_LLM_ALIAS", "Another name for the first model; * is every name that no model has.", metavar="NAME"
        ),
    ] = None,
    host: Annotated[
        str | None,
        setting("HERMES_LLM_HOST", "Address to listen on. Default: 127.0.0.1, this machine alone; others need a key."),
    ] = None,
    port: Annotated[
        int | None, setting("HERMES_LLM_PORT", "Default: 8080, with --ollama 11434; 0 takes any that is free.")
    ] = None,
    ollama: Annotated[
        bool | None, setting("HERMES_LLM_OLLAMA", "Speak Ollama's API, too, for clients that need it.", "--ollama")
    ] = None,
    manage_models: Annotated[
        bool | None,
        setting(
            "HERMES_LLM_MANAGE_MODELS",
            "With --ollama: clients may fetch models of the catalogue, and delete models from this disk.",
            "--manage-models",
        ),
    ] = None,
    context: Annotated[
        int | None,
        setting(
            "HERMES_LLM_CONTEXT",
            "Tokens that each request can use. Default: the longest that fits.",
            **CONTEXT,
        ),
    ] = None,
    for_agent: Annotated[
        bool | None,
        setting(
            "HERMES_LLM_FOR_AGENT", "At least 65,536 tokens of context, as agents need, or a refusal.", "--for-agent"
        ),
    ] = None,
    slots: Annotated[
        int | None, setting("HERMES_LLM_SLOTS", "Requests at once; they share the context. Default: 4.")
    ] = None,
    kv_type: KvTypeOption = None,
    gpu_layers: Annotated[
        int | None, setting("HERMES_LLM_GPU_LAYERS", "Layers to put on the GPU; -1 is all. Default: as many as fit.")
    ] = None,
    tensor_split: Annotated[
        str | None,
        setting("HERMES_LLM_TENSOR_SPLIT", "Proportions in which GPUs share the layers.", metavar="N,N"),
    ] = None,
    devices: DevicesOption = None,
    reserve: ReserveOption = None,
    threads: Annotated[int | None, setting("HERMES_LLM_THREADS", "CPU threads. Default: physical cores.")] = None,
    batch: Annotated[int | None, setting("HERMES_LLM_BATCH", "Tokens in one pass. Default: 512.")] = None,
    draft: DraftOption = None,
    yarn: Annotated[
        bool | None, setting("HERMES_LLM_YARN", "Stretch the context as the base model documents it.", "--yarn")
    ] = None,
    think: Annotated[
        bool | None,
        setting(
            "HERMES_LLM_THINK", "Reason before answering, or not; a request may say otherwise.", "--think/--no-think"
        ),
    ] = None,
    strict_think: Annotated[
        bool | None,
        setting(
            "HERMES_LLM_STRICT_THINK",
            "Refuse requests for reasoning that a model does not have, instead of a warning.",
            "--strict-think",
        ),
    ] = None,
    think_end: Annotated[
        str | None,
        setting("HERMES_LLM_THINK_END", "Sentence that ends reasoning whose budget is used up.", metavar="TEXT"),
    ] = None,
    template: Annotated[
        str | None,
        setting(
            "HERMES_LLM_TEMPLATE",
            "Prompt format: the file's, hermes' own for the model, or yours.",
            metavar="file|model|PATH",
            autocompletion=one_of("file", "model"),
        ),
    ] = None,
    engine_url: EngineUrlOption = None,
    tokenizer: TokenizerOption = None,
    engine: EngineOption = None,
    engine_command: EngineCommandOption = None,
    engine_arg: EngineArgumentOption = None,
    rpc: RpcOption = None,
    api_key: Annotated[
        list[str] | None,
        setting("HERMES_LLM_API_KEY", "Clients need one of these. May be repeated.", metavar="KEY"),
    ] = None,
    api_key_file: Annotated[
        str | None, setting("HERMES_LLM_API_KEY_FILE", "Keys, one on each line.", metavar="FILE")
    ] = None,
    insecure: Annotated[
        bool | None, setting("HERMES_LLM_INSECURE", "Listen beyond this machine without a key.", "--insecure")
    ] = None,
    allowed_host: Annotated[
        list[str] | None, setting("HERMES_LLM_ALLOWED_HOST", "Another name that the server answers to.", metavar="NAME")
    ] = None,
    cors: Annotated[
        list[str] | None, setting("HERMES_LLM_CORS", "Web pages of this origin may use it.", metavar="ORIGIN")
    ] = None,
    mcp: Annotated[
        list[str] | None,
        setting(
            "HERMES_LLM_MCP",
            "MCP server whose tools are run here for clients that ask: a command, an address, or a name in chat.yaml.",
            metavar="SERVER",
        ),
    ] = None,
    allow: Annotated[
        list[str] | None,
        setting("HERMES_LLM_ALLOW", "A tool among them that may be run: server:tool; * is any.", metavar="TOOL"),
    ] = None,
    keep_alive: Annotated[
        str | None,
        setting(
            "HERMES_LLM_KEEP_ALIVE",
            "How long an idle model stays in memory: 300, 5m, never. Default: never leaves by itself.",
            metavar="TIME",
        ),
    ] = None,
    max_keep_alive: Annotated[
        str | None,
        setting(
            "HERMES_LLM_MAX_KEEP_ALIVE",
            "The longest that a request may keep its model in memory. Default: never, any time.",
            metavar="TIME",
        ),
    ] = None,
    prefix_cache: Annotated[
        str | None,
        setting(
            "HERMES_LLM_PREFIX_CACHE",
            "Disk for KV caches of prompts that outlive the server, for each model: 4G. Default: off.",
            metavar="SIZE",
        ),
    ] = None,
    max_queue: Annotated[int | None, setting("HERMES_LLM_MAX_QUEUE", "Requests that may wait. Default: 256.")] = None,
    max_body: Annotated[float | None, setting("HERMES_LLM_MAX_BODY", "Largest request, in MiB. Default: 32.")] = None,
    timeout: Annotated[
        float | None, setting("HERMES_LLM_TIMEOUT", "Seconds that a request may take. Default: 3600.")
    ] = None,
    grace: Annotated[
        float | None,
        setting("HERMES_LLM_GRACE", "Seconds that running requests have to finish when it is stopped. Default: 30."),
    ] = None,
    log_json: Annotated[bool | None, setting("HERMES_LLM_LOG_JSON", "Access log as JSON.", "--log-json")] = None,
    log_prompts: Annotated[
        bool | None, setting("HERMES_LLM_LOG_PROMPTS", "Log the bodies of requests, too.", "--log-prompts")
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
    force: Annotated[
        bool | None, setting("HERMES_LLM_FORCE", "Load it even if there is too little memory.", "--force")
    ] = None,
    verbose: VerboseOption = False,
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
        if source is None or source.name not in {"COMMANDLINE", "ENVIRONMENT"} or name in _OWN | {"call"}:
            continue
        said_by = parameter.envvar if source.name == "ENVIRONMENT" else max(parameter.opts, key=len)
        shown = "the command line" if said_by == "names" else str(said_by)
        given[_SETTINGS.get(name, name)] = SettingValue(call.params[name], shown)
    return given
