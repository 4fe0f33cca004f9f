"""`hermes chat`: ask a model one thing, or stay and talk."""

from __future__ import annotations

import math
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from hermes_cli.commands.completing import first_model, models, one_of, session_names
from hermes_cli.commands.config import apply_preset, from_config, names_from_config, preset_names
from hermes_cli.commands.options import (
    CONTEXT,
    DevicesOption,
    DraftOption,
    EngineArgumentOption,
    EngineCommandOption,
    EngineOption,
    EngineUrlOption,
    GpuLayersOption,
    KvTypeOption,
    ReserveOption,
    RpcOption,
    ThreadsOption,
    TokenizerOption,
    VerboseOption,
    argument,
    kv_type_named,
    setting,
    with_console,
)
from hermes_cli.console import Console, Voice, stdin_is_terminal
from hermes_cli.errors import NotFoundError, NotInstalledError, UsageError

if TYPE_CHECKING:
    from hermes_cli.engine.embedded.messages import LoraFile
    from hermes_cli.models.resolve import EngineChoice

PROMPT_HINT = "type it after the model's name, or pipe it in: git diff | hermes chat demo explain"
LONGEST_SPOKEN_NAME = 80  # letters of a name with blanks: "Hermes 3 8B Q5_K_M"; longer texts are prompts
LORA_EXAMPLE = "for example: --lora adapter.gguf or --lora adapter.gguf:0.5"


@with_console
def command(
    console: Console,
    ctx: typer.Context,
    words: Annotated[
        list[str] | None,
        argument(
            "[MODEL] [PROMPT]...",
            "A model (`hermes list` shows them; `demo`, or the path of a file), and what to ask. Without a prompt "
            "you stay and talk. Text piped in is added below the prompt.",
            first_model,
        ),
    ] = None,
    model: Annotated[
        str | None,
        setting(
            "HERMES_LLM_MODEL",
            "The model, in place of the first word. Default: the best that is installed.",
            "--model",
            "-m",
            metavar="MODEL",
            autocompletion=models,
        ),
    ] = None,
    preset: Annotated[  # noqa: ARG001 - its callback has read it
        str | None,
        typer.Option(
            metavar="NAME",
            help="Options that are saved under a name: see hermes config.",
            callback=apply_preset,
            is_eager=True,
            autocompletion=preset_names,
        ),
    ] = None,
    endpoint: Annotated[
        str | None,
        setting(
            "HERMES_LLM_ENDPOINT",
            "Talk to a model behind an OpenAI-compatible server. Its key comes from the environment.",
            metavar="URL",
        ),
    ] = None,
    engine_url: EngineUrlOption = None,
    tokenizer: TokenizerOption = None,
    engine: EngineOption = None,
    engine_command: EngineCommandOption = None,
    engine_arg: EngineArgumentOption = None,
    rpc: RpcOption = None,
    go_on: Annotated[bool, typer.Option("--continue", "-c", help="Go on with the latest conversation.")] = False,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Go on with a saved conversation: hermes sessions.", autocompletion=session_names
        ),
    ] = None,
    save: Annotated[
        bool, typer.Option("--save/--no-save", help="Keep the conversation on this disk. Default: kept, if you stay.")
    ] = True,
    system: Annotated[
        str | None, setting("HERMES_LLM_SYSTEM", "System prompt, or @FILE for the text of a file.")
    ] = None,
    file: Annotated[
        list[str] | None,
        typer.Option(
            "--file", "-f", metavar="PATH", help="Add a text file to the message. May be given more than once."
        ),
    ] = None,
    tools: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE.py", help="Typed Python functions the model may call; `demo` for two harmless ones."
        ),
    ] = None,
    mcp: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COMMAND|URL|NAME",
            help="An MCP server with tools: how to start it, where it is, or its name in chat.yaml.",
        ),
    ] = None,
    mcp_header: Annotated[
        list[str] | None,
        typer.Option(metavar="'NAME: VALUE'", help="Header for MCP servers that are named by a URL on this line."),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="TOOL", help="Run this tool without asking; * stands for any text."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Run all tools without asking.")] = False,
    think: Annotated[
        bool | None,
        typer.Option(
            "--think/--no-think", help="Reason before answering, or not. Default: as the model does by itself."
        ),
    ] = None,
    think_budget: Annotated[
        int | None, typer.Option(min=0, help="Most tokens of reasoning; then the answer has to come.")
    ] = None,
    hide_thinking: Annotated[bool, typer.Option("--hide-thinking", help="Do not show the reasoning.")] = False,
    schema: Annotated[
        str | None, typer.Option(metavar="FILE|JSON", help="JSON schema that the answer has to conform to.")
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(
            metavar="file|model|PATH",
            help="Prompt format: the file's, hermes' own for the model, or yours.",
            autocompletion=one_of("file", "model"),
        ),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(min=0.0, max=5.0, help="0 always takes the most likely token. Default: as the model recommends."),
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option(min=0, max=2**31 - 1, help="Draw among this many likeliest tokens; 0 means all."),
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="Draw among the likeliest tokens whose probabilities add up to this."),
    ] = None,
    min_p: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="Leave out tokens below this share of the likeliest one's probability."),
    ] = None,
    repeat_penalty: Annotated[
        float | None,
        typer.Option(min=0.01, max=100.0, help="More than 1 makes tokens that occurred already less likely."),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, max=2**32 - 2, help="Same seed, same answer.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer, in tokens.")] = None,
    stop: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="End the answer before this text. May be given more than once."),
    ] = None,
    context: Annotated[
        int | None,
        setting(
            "HERMES_LLM_CONTEXT",
            "Context length in tokens. Default: the longest that fits, up to 16384.",
            **CONTEXT,
        ),
    ] = None,
    context_shift: Annotated[
        bool,
        typer.Option(
            "--context-shift", help="Where the context ends, go on without the older half of the conversation."
        ),
    ] = False,
    gpu_layers: GpuLayersOption = None,
    devices: DevicesOption = None,
    reserve: ReserveOption = None,
    kv_type: KvTypeOption = None,
    threads: ThreadsOption = None,
    yarn: Annotated[
        bool, typer.Option("--yarn", help="Stretch the context as the base model documents it (Hermes 4 14B).")
    ] = False,
    draft: DraftOption = "off",
    lora: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH[:SCALE]", help="LoRA adapter, a GGUF file. May be given more than once."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Load it even if there is too little memory.")] = False,
    verbose: VerboseOption = False,
) -> None:
    """Ask a Hermes model something, or talk with it.

        hermes chat

        hermes chat demo "What can you do?"

        git diff | hermes chat ./model.gguf "Explain this change"

        hermes chat demo "Sum this up" --file notes.txt

        hermes chat hermes-3:8b --mcp "uvx mcp-server-time"

    With a prompt, the answer goes to standard output, everything about it to standard error.
    """
    if resume is not None and go_on:
        raise UsageError("--continue and --resume cannot be used together.", hint="--resume NAME is enough.")
    if not save and (resume is not None or go_on):
        raise UsageError("--no-save cannot continue a saved conversation.", hint="leave --no-save out.")
    if "" in (stop or ()):
        raise UsageError("--stop is empty.", hint="give a text, or leave --stop out.")

    named = bool(endpoint or (model and not from_config(ctx, "model")))
    typed, text = model_and_prompt(words or [], named=named, console=console)

    at_service = _hosted(typed or model)
    _check_exclusive(endpoint, engine_url, engine, typed or model if at_service else None)
    endpoint = at_service[0] if at_service else endpoint

    from hermes_cli import paths
    from hermes_cli.chat.attachments import read_attachment, text_or_file, unread_files
    from hermes_cli.chat.conversation import ChatOptions, read_schema
    from hermes_cli.commands.run_chat import ChatArguments, run_interactive, run_oneshot
    from hermes_cli.hardware.selection import device_names, reserve_bytes
    from hermes_cli.models.loader import Prewarm
    from hermes_cli.models.resolve import ModelRequest
    from hermes_cli.planning.load_plan import LoadOverrides

    for name in unread_files(" ".join(words or ())):
        console.warn(f"@{name} is sent as plain text; to send the file: --file {shlex.quote(name)}")
    choice = _engine(engine, engine_command, engine_arg, rpc)
    prewarm: Prewarm = ctx.obj or ctx.with_resource(Prewarm(engine=not (endpoint or engine_url or choice)))
    prewarm.verbose = verbose
    sampling = {
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repeat_penalty": repeat_penalty,
        "seed": seed,
    }
    settled = names_from_config(ctx) if resume is not None or go_on else set()  # which the session has its own of
    options = ChatOptions(
        system=None if system is None or "system" in settled else text_or_file(system),
        think=None if "think" in settled else think,
        think_budget=None if "think_budget" in settled else think_budget,
        schema=None if schema is None or "schema" in settled else read_schema(schema),
        sampling={name: value for name, value in sampling.items() if value is not None and name not in settled},
        max_tokens=None if "max_tokens" in settled else max_tokens,
        stops=() if "stop" in settled else tuple(stop or ()),
        shift=context_shift and "context_shift" not in settled,
    )
    kind = None if kv_type is None else kv_type_named(kv_type)
    allowed, left_free = device_names(devices), reserve_bytes(reserve)
    overrides = LoadOverrides(context, gpu_layers, kind, threads, force=force, devices=allowed, reserve=left_free)
    prefixes = paths.cache_dir() / "prefixes" if save else None
    settings = ModelRequest("", overrides, yarn, draft or "off", tuple(map(lora_file, lora or ())), template, prefixes)
    settings = replace(settings, engine_url=engine_url, engine=choice, tokenizer=Path(tokenizer) if tokenizer else None)
    arguments = ChatArguments(
        model=at_service[1] if at_service else typed or (None if "model" in settled else model),
        endpoint=endpoint,
        resume=resume,
        go_on=go_on,
        save=save,
        options=options,
        files=tuple(map(read_attachment, file or ())),
        tools=tuple(tools or ()),
        servers=tuple(mcp or ()),
        headers=tuple(mcp_header or ()),
        allowed=tuple(allow or ()),
        yes=yes,
        hide_thinking=hide_thinking,
    )
    try:
        if text:
            run_oneshot(text, arguments, settings, console, prewarm)
        else:
            run_interactive(arguments, settings, console, prewarm)
    except NotFoundError as error:
        if not typed or len(words or ()) <= 2 or isinstance(error, NotInstalledError):  # noqa: PLR2004 - name, prompt
            raise
        quoted = shlex.quote(" ".join(words or ()))
        hint = f"if this is a question, put it in quotes: hermes chat {quoted}; if not, {error.hint}"
        raise NotFoundError(error.message, hint=hint) from None


def _check_exclusive(endpoint: str | None, engine_url: str | None, engine: str | None, service: str | None) -> None:
    """Raise UsageError if more than one of them says where the model is."""
    given = {"--endpoint": endpoint, "--engine-url": engine_url, "--engine": engine, service or "": service}
    flags = [flag for flag, value in given.items() if value]
    if len(flags) > 1:
        raise UsageError(
            f"{' and '.join(flags)} cannot be used together.",
            hint="--endpoint talks with any server; --engine-url uses hermes' own prompts with an engine that "
            "runs; --engine starts one.",
        )


def _hosted(name: str | None) -> tuple[str, str] | None:
    """Return the address and the id of a model at a service, as `openrouter:hermes-4-70b`; None for other names."""
    if not name or not name.lower().startswith(("openrouter:", "nous:")):
        return None
    from hermes_cli.catalog.load import load_catalogue
    from hermes_cli.chat.endpoint.providers import hosted, hosted_id

    found = hosted(name)
    return (found[0].host, hosted_id(*found, load_catalogue())) if found else None


def _engine(name: str | None, command: str | None, arguments: list[str] | None, rpc: str | None) -> EngineChoice | None:
    """Return the engine that is to be started; None for that of this program, without an import."""
    if not (name or command or arguments or rpc) and find_spec("llama_cpp"):
        return None
    from hermes_cli.models.engine_choice import engine_choice

    return engine_choice(name, command, arguments or (), rpc)


def model_and_prompt(words: Sequence[str], *, named: bool, console: Console) -> tuple[str | None, str]:
    """Return the model, if the first word is one, and the prompt; an empty prompt starts a conversation.

    The first word is the model, unless an option has `named` the model or an endpoint, or it is a prompt in quotes: it
    has blanks, and is neither a file nor a model's name. The console is where the answer will be shown.

    Raise UsageError if there is no prompt and nobody to talk with, or what was piped in is not text.
    """
    model, prompt = None, list(words)
    if words and not named and _names_model(words[0]):
        model, *prompt = words
    text = " ".join(prompt).strip()
    stdin: TextIO | None = sys.stdin  # None when it was closed (`<&-`)
    if stdin is not None and not stdin.isatty():
        try:
            piped = stdin.buffer.read().decode("utf-8").strip()
        except UnicodeDecodeError as error:
            raise UsageError(
                f"standard input is not text (byte {error.start:,} is not UTF-8).", hint="pipe text, not a binary file."
            ) from None
        text = "\n\n".join(part for part in (text, piped) if part)
    can_talk = console.voice is Voice.HUMAN and console.out.isatty() and stdin_is_terminal()
    if not text and not can_talk:
        raise UsageError("there is no prompt.", hint=PROMPT_HINT)
    return model, text


def _names_model(word: str) -> bool:
    """Return whether a word is meant as a model, not as a prompt; only those in quotes have blanks."""
    count = len(word.split())
    # Path.exists raises on texts that are too long for a name.
    if count <= 1 or word.strip().lower().endswith(".gguf") or os.path.exists(word):  # noqa: PTH110
        return count > 0
    if len(word) > LONGEST_SPOKEN_NAME:
        return False

    from hermes_cli.catalog.load import load_catalogue
    from hermes_cli.catalog.names import CatalogueReference, ModelNames

    try:
        return isinstance(ModelNames(load_catalogue()).parse(word), CatalogueReference)
    except (NotFoundError, UsageError):
        return False


def lora_file(typed: str) -> LoraFile:
    """Return the adapter given as `PATH` or `PATH:SCALE`.

    Raises:
        NotFoundError: there is no such file.
        UsageError: the scale is not a number.
    """
    from hermes_cli.engine.embedded.messages import LoraFile

    if whole := _existing_file(typed):  # a name may have a colon in it
        return LoraFile(whole)
    path, colon, scale = typed.rpartition(":")
    file = _existing_file(path) if colon else None
    if file is None:
        raise NotFoundError(f"--lora {typed}: there is no such file.", hint=LORA_EXAMPLE)
    try:
        number = float(scale)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f"--lora {typed}: the scale {scale!r} is not a number.", hint=LORA_EXAMPLE)
    return LoraFile(file, number)


def _existing_file(typed: str) -> Path | None:
    try:
        path = Path(typed).expanduser()
        return path if path.is_file() else None
    except (OSError, RuntimeError, ValueError):  # names that are too long, the home of nobody, a zero byte
        return None
