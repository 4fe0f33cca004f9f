"""`hermes serve`: one model or several behind an HTTP API."""
# ruff: noqa: ARG001 - what was typed is read from the context, which knows who said it

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hermes_cli.commands.options import VerboseOption, with_console
from hermes_cli.errors import ExitCode
from hermes_cli.planning.memory import KV_TYPES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hermes_cli.console import Console
    from hermes_cli.server.settings import SettingValue

# What only this command knows; everything else that is typed is a setting.
_OWN = {"config", "print_config", "json", "quiet", "no_color", "verbose"}
# Parameters of lists, and the settings that they are.
_SETTINGS = {"names": "models", "api_key": "api_keys", "allowed_host": "allowed_hosts"}


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
        ),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(
            help="Address to listen on. Default: 127.0.0.1, this machine alone; others need a key.",
            envvar="HERMES_LLM_HOST",
        ),
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Default: 8080; 0 takes any that is free.", envvar="HERMES_LLM_PORT")
    ] = None,
    context: Annotated[
        int | None,
        typer.Option(
            help="Tokens that each request can use. Default: the longest that fits.", envvar="HERMES_LLM_CONTEXT"
        ),
    ] = None,
    for_agent: Annotated[
        bool | None,
        typer.Option(
            "--for-agent",
            help="At least 65,536 tokens of context, as agents need, or a refusal.",
            envvar="HERMES_LLM_FOR_AGENT",
        ),
    ] = None,
    slots: Annotated[
        int | None,
        typer.Option(help="Requests at once; they share the context. Default: 4.", envvar="HERMES_LLM_SLOTS"),
    ] = None,
    kv_type: Annotated[
        str | None,
        typer.Option(help=f"Type of the KV cache: {', '.join(KV_TYPES)}. Default: f16.", envvar="HERMES_LLM_KV_TYPE"),
    ] = None,
    gpu_layers: Annotated[
        int | None,
        typer.Option(
            help="Layers to put on the GPU; -1 is all. Default: as many as fit.", envvar="HERMES_LLM_GPU_LAYERS"
        ),
    ] = None,
    tensor_split: Annotated[
        str | None,
        typer.Option(
            metavar="N,N", help="In which proportion several GPUs share them.", envvar="HERMES_LLM_TENSOR_SPLIT"
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads. Default: physical cores.", envvar="HERMES_LLM_THREADS")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(help="Tokens in one pass. Default: 512.", envvar="HERMES_LLM_BATCH")
    ] = None,
    draft: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|auto|off",
            help="Draft model for speculative decoding, with the same vocabulary; auto takes one that is installed.",
            envvar="HERMES_LLM_DRAFT",
        ),
    ] = None,
    yarn: Annotated[
        bool | None,
        typer.Option("--yarn", help="Stretch the context as the base model documents it.", envvar="HERMES_LLM_YARN"),
    ] = None,
    think: Annotated[
        bool | None,
        typer.Option(
            "--think/--no-think",
            help="Reason before answering, or not, where a request does not say.",
            envvar="HERMES_LLM_THINK",
        ),
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(
            metavar="file|model|PATH",
            help="Prompt format: the file's, hermes' own for the model, or yours.",
            envvar="HERMES_LLM_TEMPLATE",
        ),
    ] = None,
    api_key: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY", help="Clients need one of these. May be given often.", envvar="HERMES_LLM_API_KEY"),
    ] = None,
    api_key_file: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Keys, one on each line.", envvar="HERMES_LLM_API_KEY_FILE"),
    ] = None,
    insecure: Annotated[
        bool | None,
        typer.Option("--insecure", help="Listen beyond this machine without a key.", envvar="HERMES_LLM_INSECURE"),
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Another name that the server answers to.", envvar="HERMES_LLM_ALLOWED_HOST"),
    ] = None,
    cors: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN", help="Web pages of this origin may use it.", envvar="HERMES_LLM_CORS"),
    ] = None,
    keep_alive: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="How long an idle model stays in memory: 300, 5m, never. Default: never leaves by itself.",
            envvar="HERMES_LLM_KEEP_ALIVE",
        ),
    ] = None,
    max_queue: Annotated[
        int | None, typer.Option(help="Requests that may wait. Default: 256.", envvar="HERMES_LLM_MAX_QUEUE")
    ] = None,
    max_body: Annotated[
        float | None, typer.Option(help="Largest request, in MiB. Default: 32.", envvar="HERMES_LLM_MAX_BODY")
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(help="Seconds that a request may take. Default: 3600.", envvar="HERMES_LLM_TIMEOUT"),
    ] = None,
    grace: Annotated[
        float | None,
        typer.Option(
            help="Seconds that running requests have to finish when it is stopped. Default: 30.",
            envvar="HERMES_LLM_GRACE",
        ),
    ] = None,
    log_json: Annotated[
        bool | None, typer.Option("--log-json", help="Access log as JSON.", envvar="HERMES_LLM_LOG_JSON")
    ] = None,
    log_prompts: Annotated[
        bool | None,
        typer.Option("--log-prompts", help="What clients send in the log, too.", envvar="HERMES_LLM_LOG_PROMPTS"),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Settings in YAML. Default: serve.yaml in the folder that `hermes paths` shows.",
            envvar="HERMES_LLM_SERVE_CONFIG",
        ),
    ] = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Show the settings and where each is from; serve nothing.")
    ] = False,
    force: Annotated[
        bool | None,
        typer.Option("--force", help="Load it even if there is too little memory.", envvar="HERMES_LLM_FORCE"),
    ] = None,
    verbose: VerboseOption = False,
) -> None:
    """Serve models: the APIs of OpenAI, Anthropic and llama.cpp's server, on this machine alone unless told otherwise.

    hermes serve demo

    hermes serve hermes-3:8b --for-agent

    hermes serve hermes-4:14b hermes-3:3b --host 0.0.0.0 --api-key-file keys.txt
    """
    from pathlib import Path

    from hermes_cli.server.settings import as_yaml, document, read_file, resolve

    resolved = resolve(_typed(call), read_file(Path(config).expanduser() if config else None))
    if print_config:
        console.text(as_yaml(resolved))
        console.document(document(resolved))
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
