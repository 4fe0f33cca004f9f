"""`hermes chat`: ask a model one thing."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from hermes_cli import paths
from hermes_cli.commands.adapters import adapters
from hermes_cli.commands.options import JsonOption, NoColorOption, QuietOption, VerboseOption, console_for
from hermes_cli.errors import UsageError
from hermes_cli.planning.memory import KV_TYPES
from hermes_cli.planning.run_plan import Loading

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hermes_cli.catalog.models import Catalogue, Model, Yarn
    from hermes_cli.catalog.names import Reference
    from hermes_cli.chat.tools import Tool
    from hermes_cli.console import Console
    from hermes_cli.engine.options import Draft
    from hermes_cli.planning.memory import KvType
    from hermes_cli.planning.verdict import Confirmed
    from hermes_cli.store.library import ModelFile

OWN_PROMPT_HINT = "type it after the model's name, or pipe it in: git diff | hermes chat demo explain"


def command(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A name (`hermes list` shows them), `demo`, or the path of a file.",
            show_default=False,
        ),
    ],
    prompt: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PROMPT]...", help="What to ask. Text piped in is added below it.", show_default=False),
    ] = None,
    system: Annotated[str | None, typer.Option(help="System prompt.", envvar="HERMES_LLM_SYSTEM")] = None,
    tools: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.py", help="Typed Python functions the model may call; `demo` for two harmless ones."
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Run tools without asking.")] = False,
    think: Annotated[
        bool | None,
        typer.Option(
            "--think/--no-think", help="Reason before answering, or not. Default: as the model does by itself."
        ),
    ] = None,
    think_budget: Annotated[
        int | None, typer.Option(min=0, help="Most tokens of reasoning; then the answer has to come.")
    ] = None,
    schema: Annotated[
        str | None, typer.Option(metavar="FILE|JSON", help="JSON schema that the answer has to conform to.")
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(metavar="file|model|PATH", help="Prompt format: the file's, hermes' own for the model, or yours."),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(min=0.0, max=5.0, help="0 always takes the most likely token. Default: as the model recommends."),
    ] = None,
    top_k: Annotated[
        int | None, typer.Option(min=0, max=2**31 - 1, help="Draw among so many likeliest tokens; 0 is all.")
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="Draw among the likeliest tokens that have this probability together."),
    ] = None,
    min_p: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="Leave out tokens below this share of the likeliest one's probability."),
    ] = None,
    repeat_penalty: Annotated[
        float | None,
        typer.Option(min=0.01, max=100.0, help="More than 1 makes tokens less likely that were there already."),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, max=2**32 - 2, help="Same seed, same answer.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer, in tokens.")] = None,
    stop: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="End the answer before this text. May be given more than once."),
    ] = None,
    context: Annotated[
        int | None,
        typer.Option(
            min=64,
            help="Context length in tokens. Default: the longest that fits, up to 16384.",
            envvar="HERMES_LLM_CONTEXT",
        ),
    ] = None,
    context_shift: Annotated[
        bool,
        typer.Option(
            "--context-shift", help="Where the context ends, go on without the older half of the conversation."
        ),
    ] = False,
    gpu_layers: Annotated[
        int | None,
        typer.Option(
            min=-1,
            help="Layers to put on the GPU; -1 is all. Default: as many as fit.",
            envvar="HERMES_LLM_GPU_LAYERS",
        ),
    ] = None,
    kv_type: Annotated[
        str | None,
        typer.Option(help=f"Type of the KV cache: {', '.join(KV_TYPES)}. Default: f16.", envvar="HERMES_LLM_KV_TYPE"),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, max=512, help="CPU threads. Default: physical cores.", envvar="HERMES_LLM_THREADS"),
    ] = None,
    yarn: Annotated[
        bool, typer.Option("--yarn", help="Stretch the context as the base model documents it (Hermes 4 14B).")
    ] = False,
    draft: Annotated[
        str,
        typer.Option(
            metavar="NAME|auto|off",
            help="Small model with the same vocabulary that guesses tokens ahead; auto takes one that is installed.",
            envvar="HERMES_LLM_DRAFT",
        ),
    ] = "off",
    lora: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH[:SCALE]", help="LoRA adapter, a GGUF file. May be given more than once."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Load it even if there is too little memory.")] = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    no_color: NoColorOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Ask a Hermes model something.

    The answer goes to standard output, everything about it to standard error.

        hermes chat demo "What can you do?"

        git diff | hermes chat ./model.gguf "Explain this change"

        hermes chat demo --tools demo "What's the weather in Tokyo?"
    """
    console = console_for(json=json, quiet=quiet, no_color=no_color)
    text = _whole_prompt(prompt or [])
    _check_stops(stop or [])

    wished = Loading(context, gpu_layers, _kv_type(kv_type), threads, force=force)

    from hermes_cli.catalog.load import load  # noqa: PLC0415 - arguments are checked before anything heavy is imported
    from hermes_cli.catalog.names import Names  # noqa: PLC0415
    from hermes_cli.engine.confirm import Confirmation  # noqa: PLC0415
    from hermes_cli.store.library import find  # noqa: PLC0415

    with Confirmation(verbose=verbose) as confirmation:
        catalogue = load()
        named = Names(catalogue).parse(model)
        file = find(named, catalogue)
        if yarn:
            wished = replace(wished, yarn=_yarn(named))
        offered = _tools(tools)
        loras = adapters(lora or [])
        with console.working(f"loading {file.name}"):
            confirmation.begin(file.path, wished)
            from hermes_cli.chat.bounds import bounds_for, read_schema  # noqa: PLC0415 - while the child works
            from hermes_cli.chat.loop import Loop  # noqa: PLC0415
            from hermes_cli.engine.client import WorkerEngine  # noqa: PLC0415
            from hermes_cli.engine.options import Options  # noqa: PLC0415
            from hermes_cli.prompting.turn_grammar import TAGS  # noqa: PLC0415

            wanted = None if schema is None else read_schema(schema)
            confirmed = confirmation.result()
            guesser = None if draft == "off" else _draft(draft, named, file, catalogue, wished, confirmed, console)
    if confirmed.note:
        console.note(confirmed.note)
    with ExitStack() as stack:
        loop = stack.enter_context(Loop())
        with console.working(f"loading {file.name}") as say:
            engine = WorkerEngine(
                file.path,
                confirmed.plan,
                Options(tags=TAGS, adapters=loras, draft=guesser, verbose=verbose),
                progress=lambda part: say(f"loading {file.name}: {part:.0%}"),
            )
            stack.callback(lambda: loop.run(engine.close()))
            loading = loop.begin(engine.load())
            from hermes_cli.chat.oneshot import Question, ask  # noqa: PLC0415 - while the engine loads
            from hermes_cli.generation import Chatter, Message, Turn, Wishes  # noqa: PLC0415

            schemas = [tool.schema for tool in offered.values()]
            bounds = bounds_for(schemas, wanted, console.warn)
            known = _known(named, file, catalogue)
            chatter = Chatter(engine, loop.run(loading), known=known, template=template)
        given: dict[str, Any] = {
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
            "min_p": min_p,
            "repeat_penalty": repeat_penalty,
            "seed": seed,
        }
        insisted = {name: value for name, value in given.items() if value is not None}
        turn = Turn(
            [*([Message("system", system)] if system else []), Message("user", text)],
            schemas,
            wishes=Wishes(think=think, schema=False if wanted is None else wanted),
            bounds=bounds,
            sampling=replace(chatter.recommended_sampling(), **insisted),
            max_tokens=max_tokens,
            think_budget=think_budget,
            stops=tuple(stop or ()),
            shift=context_shift,
        )
        document = ask(chatter, Question(turn, offered, yes), console, loop)
        loaded = {
            "context_length": chatter.loaded.context,
            "gpu_layers": confirmed.gpu_layers,
            "draft": chatter.loaded.draft or None,
        }
        memory = {**asdict(confirmed.total), "total": confirmed.total.total}
        console.document({"model": file.name, **document, **loaded, "memory_bytes": memory})


def _draft(
    wanted: str,
    named: Reference,
    file: ModelFile,
    catalogue: Catalogue,
    wished: Loading,
    confirmed: Confirmed,
    console: Console,
) -> Draft | None:
    """The model that is to guess tokens; raises as `draft_for` does."""
    from hermes_cli.commands.drafting import draft_for  # noqa: PLC0415 - only where one is wanted

    return draft_for(wanted, _known(named, file, catalogue), catalogue, wished, confirmed, console.note)


def _check_stops(stops: Sequence[str]) -> None:
    """Raises UsageError: one would end every answer before it begins."""
    if "" in stops:
        raise UsageError("--stop is empty.", hint="give a text, or leave --stop out.")


def _kv_type(name: str | None) -> KvType | None:
    """The type of the KV cache that a name stands for.

    Raises:
        UsageError: there is no such type.
    """
    found = next((kind for kind in KV_TYPES if name and kind == name.lower()), None)
    if name is not None and found is None:
        raise UsageError(f"there is no KV cache type {name}.", hint=f"choose one of: {', '.join(KV_TYPES)}")
    return found


def _known(named: Reference, file: ModelFile, catalogue: Catalogue) -> Model | None:
    """What the file is in the catalogue: as it was named, or as it calls itself."""
    from hermes_cli.catalog.names import CatalogueName  # noqa: PLC0415 - as above
    from hermes_cli.gguf.header import read_header  # noqa: PLC0415
    from hermes_cli.prompting.choose import identify  # noqa: PLC0415

    if isinstance(named, CatalogueName):
        return named.model
    header = read_header(file.path)
    return identify((header.text("general.name") or "", file.path.stem), header.number, catalogue)


def _yarn(named: Reference) -> Yarn:
    """How the context of a model can be stretched.

    Raises:
        UsageError: no source documents it.
    """
    from hermes_cli.catalog.names import CatalogueName  # noqa: PLC0415 - as above

    documented = named.model.context.yarn if isinstance(named, CatalogueName) else None
    if documented is None:
        raise UsageError("no source documents YaRN for this model.", hint="leave --yarn out.")
    return documented


def _whole_prompt(words: list[str]) -> str:
    """What was typed, with what was piped in below it.

    Raises:
        UsageError: there is neither, or what was piped in is not text.
    """
    parts = [" ".join(words).strip()]
    stdin: TextIO | None = sys.stdin  # None when it was closed (`<&-`)
    if stdin is not None and not stdin.isatty():
        try:
            parts.append(stdin.buffer.read().decode("utf-8").strip())
        except UnicodeDecodeError as error:
            raise UsageError(
                f"standard input is not text (byte {error.start:,} is not UTF-8).", hint="pipe text, not a binary file."
            ) from None
    text = "\n\n".join(part for part in parts if part)
    if not text:
        raise UsageError("there is no prompt.", hint=OWN_PROMPT_HINT)
    return text


def _tools(name: str | None) -> dict[str, Tool]:
    """The tools of a file; `demo` stands for the file that ships with hermes."""
    if name is None:
        return {}
    from hermes_cli.chat.tools import load_tools  # noqa: PLC0415 - pydantic, only when there are tools

    return load_tools(paths.asset("demo_tools.py") if name == "demo" else Path(name).expanduser())
