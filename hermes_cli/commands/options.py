"""Options that every command takes, declared once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hermes_cli.console import Console, Voice
from hermes_cli.errors import UsageError
from hermes_cli.units import gibibytes

if TYPE_CHECKING:
    from hermes_cli.hardware.machine import Device, Machine

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


def console_for(*, json: bool, quiet: bool, no_color: bool) -> Console:
    """The console that these options ask for.

    Raises:
        UsageError: --json and --quiet together.
    """
    if json and quiet:
        raise UsageError("--json and --quiet exclude each other.", hint="--json alone is already quiet.")
    voice = Voice.JSON if json else Voice.QUIET if quiet else Voice.HUMAN
    return Console(voice, color=False if no_color else None)


GpuOption = Annotated[
    list[str] | None,
    typer.Option("--gpu", metavar="NAME", help="Plan for another GPU: 'RTX 4090', 2xH100; may be given several times."),
]
VramOption = Annotated[
    str | None, typer.Option("--vram", metavar="SIZE", help="Plan for a GPU with this much memory: 24G, or 24G,24G.")
]
RamOption = Annotated[str | None, typer.Option("--ram", metavar="SIZE", help="Plan for this much RAM: 64G.")]
AppleOption = Annotated[
    str | None, typer.Option("--apple", metavar="SIZE", help="Plan for Apple silicon: 64G, or 'M4 Max 64G'.")
]
CpuOnlyOption = Annotated[bool, typer.Option("--cpu-only", help="Plan without any GPU.")]


def machine_for(
    gpu: list[str] | None, vram: str | None, ram: str | None, apple: str | None, *, cpu_only: bool
) -> Machine:
    """Probe the machine at hand, or simulate the one that the flags describe.

    Raises:
        UsageError: nonsense sizes, unknown GPUs, or flags that exclude each other.
    """
    from hermes_cli.hardware.probe import probe

    here = probe()
    if not gpu and not cpu_only and vram is ram is apple is None:
        return here
    from hermes_cli.hardware.simulate import simulate

    return simulate(here, gpu=gpu or [], vram=vram, ram=ram, apple=apple, cpu_only=cpu_only)


def one_line(machine: Machine) -> str:
    """The machine in one line."""
    devices = [_device(device) for device in machine.devices]
    ram = f"{gibibytes(machine.ram_available)} of {gibibytes(machine.ram_total)} RAM free"
    parts = [*devices, ram, f"{machine.cores} cores"]
    return ("simulated: " if machine.simulated else "") + ", ".join(parts)


def _device(device: Device) -> str:
    unusable = "" if device.usable else ", not used: hermes hardware says why"
    return f"{device.name} ({gibibytes(device.free)} of {gibibytes(device.total)} free{unusable})"
