"""Options that several commands take, declared once: of output, of environment variables, of a simulated machine."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, ParamSpec, TypeVar, get_args, get_type_hints

import typer
from typer.core import TyperGroup

from hermes_cli.commands.completing import apple_chips, draft_models, gpu_names, one_of
from hermes_cli.console import Console, Voice
from hermes_cli.errors import UsageError
from hermes_cli.gguf.types import KV_TYPES, KvType
from hermes_cli.planning.quality import Purpose
from hermes_cli.units import GB, counted, memory_size

if TYPE_CHECKING:
    from hermes_cli.hardware.machine import Machine

P = ParamSpec("P")
T = TypeVar("T", bound=str)
MUCH_USED = 0.15  # of a GPU's memory; a desktop takes less
_SPEED = re.compile(r"([0-9]+(?:[.,][0-9]+)?|[.,][0-9]+)\s*(?:([kmg]?)(i?)b?(?:/s)?)?", re.IGNORECASE)
_TOKENS = re.compile(r"([0-9]+(?:\.[0-9]+)?(?:e[0-9]{1,2})?)([km]?)", re.IGNORECASE)
SHORTEST_CONTEXT = 64  # tokens; a prompt format alone takes half of it
SLOWEST = 1000  # bytes per second; with less, no model ever arrives
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)
ENGINE_NAMES = ("llama-server", "vllm", "sglang")  # those of engine/upstream/programs.py, which takes long to import


def setting(variable: str, text: str, *flags: str, **more: Any) -> Any:  # noqa: ANN401 - as Typer's own
    """Declare an option that an environment variable can give, too."""
    return typer.Option(*flags, envvar=variable, help=text, **more)


def argument(
    metavar: str,
    text: str,
    completion: Any = None,  # noqa: ANN401 - as above
    *,
    envvar: str | None = None,
    show_default: bool = False,
) -> Any:  # noqa: ANN401 - as above
    """Declare a word whose place says what it is."""
    return typer.Argument(
        metavar=metavar, help=text, autocompletion=completion, envvar=envvar, show_default=show_default
    )


JsonOption = Annotated[
    bool, typer.Option("--json", envvar="HERMES_LLM_JSON", help="Print one JSON document and nothing else.")
]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", envvar="HERMES_LLM_QUIET", help="Print data only, no notes about it.")
]
NoColorOption = Annotated[
    bool, typer.Option("--no-color", envvar="HERMES_LLM_NO_COLOR", help="No colours (NO_COLOR works too).")
]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", "-v", envvar="HERMES_LLM_VERBOSE", help="Show llama.cpp's own log.")
]
KvTypeOption = Annotated[
    str | None,
    typer.Option(
        help=f"Type of the KV cache: {', '.join(KV_TYPES)}. Default: f16.",
        envvar="HERMES_LLM_KV_TYPE",
        autocompletion=one_of(*KV_TYPES),
    ),
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
GpuOption = Annotated[
    list[str] | None,
    typer.Option(
        "--gpu",
        metavar="NAME",
        help="Plan for another GPU: 'RTX 4090', 2xH100; may be given several times.",
        autocompletion=gpu_names,
    ),
]
PurposeOption = Annotated[
    str, typer.Option("--for", help=f"Purpose: {', '.join(PURPOSES)}.", autocompletion=one_of(*PURPOSES))
]
VramOption = Annotated[
    str | None, typer.Option("--vram", metavar="SIZE", help="Plan for a GPU with this much memory: 24G, or 24G,24G.")
]
RamOption = Annotated[str | None, typer.Option("--ram", metavar="SIZE", help="Plan for this much RAM: 64G.")]
AppleOption = Annotated[
    str | None,
    typer.Option(
        "--apple", metavar="SIZE", help="Plan for Apple silicon: 64G, or 'M4 Max 64G'.", autocompletion=apple_chips
    ),
]
GpuLayersOption = Annotated[
    int | None,
    setting("HERMES_LLM_GPU_LAYERS", "Layers to put on the GPU; -1 is all. Default: as many as fit.", min=-1),
]
ThreadsOption = Annotated[
    int | None, setting("HERMES_LLM_THREADS", "CPU threads. Default: physical cores.", min=1, max=512)
]
DevicesOption = Annotated[
    str | None,
    setting(
        "HERMES_LLM_DEVICES",
        "GPUs that may be used: numbers as in `hermes hardware`, or names. Default: all.",
        metavar="GPU,GPU",
    ),
]
ReserveOption = Annotated[
    str | None,
    setting("HERMES_LLM_RESERVE", "Memory to leave free on each GPU: 2G. Default: 3 %, at most 1G.", metavar="SIZE"),
]
DraftOption = Annotated[
    str | None,
    setting(
        "HERMES_LLM_DRAFT",
        "Draft model for speculative decoding, with the same vocabulary; auto takes one that is installed.",
        metavar="NAME|auto|off",
        autocompletion=draft_models,
    ),
]
EngineUrlOption = Annotated[
    str | None,
    setting(
        "HERMES_LLM_ENGINE_URL",
        "An engine that you run yourself has the model: the address of vLLM, SGLang or llama-server, or unix:PATH.",
        metavar="URL",
    ),
]
TokenizerOption = Annotated[
    str | None,
    setting(
        "HERMES_LLM_TOKENIZER",
        "The tokenizer of the model behind --engine-url: a folder with tokenizer.json, or a GGUF file of it.",
        metavar="PATH",
    ),
]
EngineOption = Annotated[
    str | None,
    setting(
        "HERMES_LLM_ENGINE",
        "Another engine that hermes starts and ends: llama-server, vllm, sglang. See: hermes engine.",
        metavar="NAME",
        autocompletion=one_of(*ENGINE_NAMES),
    ),
]
EngineCommandOption = Annotated[
    str | None,
    setting(
        "HERMES_LLM_ENGINE_COMMAND",
        "With --engine: the program to start. Default: the one that is found here.",
        metavar="COMMAND",
    ),
]
EngineArgumentOption = Annotated[
    list[str] | None,
    setting(
        "HERMES_LLM_ENGINE_ARG",
        "With --engine: an argument of its own, passed on. May be repeated.",
        metavar="ARGUMENT",
    ),
]
RpcOption = Annotated[
    str | None,
    setting(
        "HERMES_LLM_RPC",
        "With --engine llama-server: machines that run ggml-rpc-server compute, too. No key, no encryption: "
        "only in a network of your own.",
        metavar="HOST:PORT,…",
    ),
]
CpuOnlyOption = Annotated[bool, typer.Option("--cpu-only", help="Plan without any GPU.")]


def context_length(text: str) -> int:
    """Return the tokens of `--context`: `16384`, `16,384`, `1e4`, or `16k` and `1M`, where k is 1,024.

    Raise UsageError if it is not a whole number, or less than a prompt needs.
    """
    match = _TOKENS.fullmatch(str(text).strip().replace(",", "").replace("_", ""))
    number = float(match[1]) * {"": 1, "k": 2**10, "m": 2**20}[match[2].lower()] if match else 0.0
    if not SHORTEST_CONTEXT <= number < 2**31 or number % 1:
        raise UsageError(
            f"--context {str(text)[:40]} is not a number of tokens, {SHORTEST_CONTEXT} or more.",
            hint="give it like this: 16384, 16,384 or 16k; without it hermes takes what fits.",
        )
    return int(number)


CONTEXT: dict[str, Any] = {"parser": context_length, "metavar": "TOKENS"}


class ListFirst(TyperGroup):
    """Run `list` where a group of commands is typed without one of them."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - of the click that Typer carries
        """Put `list` before options that stand alone."""
        options_only = all(argument.startswith("-") for argument in args)
        if options_only and not ctx.resilient_parsing and not {"-h", "--help"} & set(args):
            args = ["list", *args]
        return super().parse_args(ctx, args)


def with_console(command: Callable[Concatenate[Console, P], None]) -> Callable[..., None]:
    """Give a command the options --json, --quiet and --no-color, and the console that they ask for.

    The console is the command's first parameter; Typer sees the three options in its place, after all others.
    """

    @wraps(command)
    def run(*arguments: Any, json: bool = False, quiet: bool = False, no_color: bool = False, **options: Any) -> None:  # noqa: ANN401
        command(console_for(json=json, quiet=quiet, no_color=no_color), *arguments, **options)

    types = get_type_hints(command, localns={"Console": Console}, include_extras=True)
    every = signature(command).parameters.items()
    own = [parameter.replace(annotation=types.get(name, parameter.annotation)) for name, parameter in every][1:]
    output = {"json": JsonOption, "quiet": QuietOption, "no_color": NoColorOption}
    added = [Parameter(name, Parameter.KEYWORD_ONLY, default=False, annotation=kind) for name, kind in output.items()]
    parameters = [*(parameter.replace(kind=Parameter.KEYWORD_ONLY) for parameter in own), *added]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__dict__["__signature__"] = Signature(parameters)
    return run


def console_for(*, json: bool, quiet: bool, no_color: bool) -> Console:
    """Return the console that these options ask for.

    Raises:
        UsageError: --json and --quiet together.
    """
    if json and quiet:
        raise UsageError("--json and --quiet cannot be used together.", hint="--json alone is already quiet.")
    voice = Voice.JSON if json else Voice.QUIET if quiet else Voice.HUMAN
    return Console(voice, color=False if no_color else None)


def confirm_or_exit(
    console: Console,
    question: str,
    *,
    unasked: str,
    refused: str,
    hint: str = "to go ahead without the question, add --yes",
    default: bool = False,
) -> None:
    """Go on only if the user says yes; `refused` is shown after a no.

    Raises:
        UsageError: nobody can be asked; its message is `unasked`.
        typer.Exit: the answer was no, which is no error.
    """
    answer = console.confirm(question, default=default)
    if answer is None:
        raise UsageError(unasked, hint=hint)
    if not answer:
        console.note(refused)
        raise typer.Exit


def confirm_removal(what: str, console: Console) -> None:
    """Go on only if the user says yes to a removal; errors are those of `confirm_or_exit`."""
    confirm_or_exit(
        console,
        f"Remove {what}?",
        unasked=f"{what} would be removed, and there is no terminal to ask on.",
        refused="nothing was removed",
    )


def bytes_per_second(text: str) -> float:
    """Return the speed that `--limit-rate` gives: in MB/s, or with a unit, as in `500k`, `2.5M` and `1 GB/s`.

    Raise UsageError if it is not a speed, or less than 1 kB/s.
    """
    match = _SPEED.fullmatch(text.strip())
    example = "for example: --limit-rate 5 for 5 MB/s, or 500k, or 2.5M; bytes, not bits"
    if match is None:
        raise UsageError(f"--limit-rate {text} is not a speed.", hint=example)
    base = 1024 if match[3] else 1000
    speed = float(match[1].replace(",", ".")) * float(base ** ("kmg".index((match[2] or "m").lower()) + 1))
    if speed < SLOWEST:
        raise UsageError(f"--limit-rate {text} is less than 1 kB/s.", hint=f"{example}. Without it there is no limit.")
    return speed


def kv_type_named(name: str) -> KvType:
    """Return the type of the KV cache with a name; UsageError if there is no such type."""
    return _named(name, KV_TYPES, f"there is no KV cache type {name}.")


def purpose_named(name: str) -> Purpose:
    """Return the purpose with a name; UsageError if there is no such purpose."""
    return _named(name, PURPOSES, f"--for {name} is unknown.")


def _named(text: str, known: Sequence[T], fault: str) -> T:
    found = next((name for name in known if name == text.lower()), None)
    if found is None:
        near = next((name for name in known if name.startswith(text.lower())), None) if text else None
        raise UsageError(fault, hint=f"{f'did you mean {near}? ' if near else ''}choose one of: {', '.join(known)}")
    return found


def machine_for(
    gpu: list[str] | None,
    vram: str | None,
    ram: str | None,
    apple: str | None,
    *,
    cpu_only: bool,
    devices: str | None = None,
    reserve: str | None = None,
) -> Machine:
    """Probe the machine at hand, or simulate the one that the flags describe; with the GPUs that may be used.

    Raises:
        UsageError: nonsense sizes, unknown GPUs, or flags that cannot be used together.
    """
    from hermes_cli.hardware.probe import probe
    from hermes_cli.hardware.selection import device_names, reserve_bytes, select_devices

    machine = probe()
    if gpu or cpu_only or not vram is ram is apple is None:
        from hermes_cli.hardware.simulate import simulate

        machine = simulate(machine, gpu=gpu or [], vram=vram, ram=ram, apple=apple, cpu_only=cpu_only)
    return select_devices(machine, device_names(devices), reserve_bytes(reserve))


def gpu_notes(machine: Machine) -> list[str]:
    """Return how a simulated GPU is named exactly, and who holds much of the memory of one."""
    named = (note for note in machine.notes if machine.simulated and note.about == "devices" and note.fix)
    notes = [f"{note.text}: {note.fix}" for note in named]
    for device in machine.usable_devices:
        used = device.total - device.free
        if not device.unified and used > MUCH_USED * device.total:
            users = ", ".join(device.users) or "programs that its driver does not name"
            notes.append(f"{memory_size(used)} of {device.name} are in use: {users}")
    return notes


def one_line(machine: Machine) -> str:
    """Return the machine in one line."""
    parts: Counter[str] = Counter()
    for device in machine.devices:
        unusable = f", left out by {device.left_out}" if device.left_out else ""
        unusable = unusable if device.usable else ", not used: hermes hardware says why"
        used = "" if device.free == device.total else f"{device.free / GB:.2f} of "
        free = f"{used}{memory_size(device.total)}{' free' if used else ''}"
        parts[f"{device.name} ({free}{unusable})"] += 1
    devices = [f"{count}x {text}" if count > 1 else text for text, count in parts.items()]
    ram = f"{machine.ram_available / GB:.2f} of {memory_size(machine.ram_total)} RAM free"
    return ("simulated: " if machine.simulated else "") + ", ".join([*devices, ram, counted(machine.cores, "core")])
