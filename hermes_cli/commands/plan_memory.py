"""`hermes plan` for llama.cpp: memory part by part, where the layers go, and how fast that is."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from hermes_cli.catalog.load import load_catalogue
from hermes_cli.catalog.names import CatalogueReference, HubReference, ModelNames
from hermes_cli.catalog.variants import Variant, default_variant, matching_variants
from hermes_cli.commands.options import (
    gpu_notes,
    kv_type_named,
    one_line,
)
from hermes_cli.commands.speeds import speed_document, speed_lines
from hermes_cli.console import Console
from hermes_cli.errors import NotFoundError, UsageError
from hermes_cli.models.any_model import measured, memory_source, open_variant
from hermes_cli.planning.best_placement import NEEDS, best_placement
from hermes_cli.planning.memory import ContextSettings, weights
from hermes_cli.planning.placement import DeviceShare, Placement
from hermes_cli.planning.speed import PROMPTS, corrected, decode_speed, first_token_seconds, prefill_speed
from hermes_cli.store.benchmarks import speed_ratios
from hermes_cli.units import GB, memory_size

if TYPE_CHECKING:
    from hermes_cli.hardware.machine import Machine
    from hermes_cli.planning.quality import Purpose


PARTS = ("weights", "kv_cache", "compute", "output", "overhead", "total")


@dataclass(frozen=True)
class PlanOptions:
    """The settings of loading from the flags of `hermes plan`; None leaves one to hermes."""

    context: int | None
    kv_type: str
    slots: int
    ubatch: int
    flash_attention: bool
    yarn: bool


def plan_memory(
    name: str, options: PlanOptions, probed: Callable[[], Machine], wanted_for: Purpose, console: Console
) -> None:
    """Show the memory that a model takes on a machine, which is probed once its name is known to be one.

    Raise HermesError if there is no such model, or the options contradict each other.
    """
    with console.working(f"reading what {name} needs"):
        variant = _variant(name)
        settings = _settings(variant, options)
        variant = measured(variant, [settings])
    machine = probed()
    table = weights(variant.model.architecture, variant.quantization, imatrix=variant.repository.imatrix)
    architecture = variant.model.architecture
    placement = best_placement(architecture, variant.quantization, table, settings, machine, purpose=wanted_for)
    ratios = speed_ratios(machine)
    prefill = prefill_speed(architecture, table, settings, placement, machine)
    prefill = corrected(prefill, "prefill", variant.name, placement, ratios)
    filled = PROMPTS[wanted_for].filled
    decode = decode_speed(architecture, variant.quantization, table, settings, placement, machine, filled)
    decode = corrected(decode, "decode", variant.name, placement, ratios)
    first_token = first_token_seconds(PROMPTS[wanted_for], prefill, settings.context)
    _show(variant, settings, placement, machine, console)
    console.text("\n")
    for line in speed_lines(decode, prefill, first_token):
        console.prose(line, hanging="  ")
    console.document(
        {
            **_document(variant, settings, placement, machine),
            "tokens_per_second": speed_document(decode),
            "prefill_tokens_per_second": speed_document(prefill),
            "first_token_seconds": asdict(first_token),
        }
    )


def _variant(name: str) -> Variant:
    catalogue = load_catalogue()
    wanted = ModelNames(catalogue).parse(name)
    if not isinstance(wanted, CatalogueReference):
        return open_variant(wanted, name, catalogue)
    named = matching_variants(wanted.model, quantization=wanted.quantization, repository=wanted.repository)
    preferred = [] if wanted.quantization or wanted.repository else [default_variant(wanted.model)]
    known = [variant for variant in (*preferred, *named) if variant and variant.computed_bytes]
    if not known and named:  # its mix follows from no rule: the header tells
        return open_variant(HubReference(named[0].repository.repo, file=named[0].files[0]), name, catalogue)
    if not known:
        hint = f"see what there is: hermes show {shlex.quote(name)}"
        raise NotFoundError(f"no file of {name} is known whose memory can be computed.", hint=hint)
    return known[0]


def _settings(variant: Variant, options: PlanOptions) -> ContextSettings:
    known, yarn = variant.model.context, options.yarn
    length = min(known.usable, NEEDS["chat"].wanted) if options.context is None else options.context
    if yarn and not known.yarn:
        raise UsageError(f"no source documents YaRN for {variant.model.short}.", hint="leave --yarn out.")
    longest = known.yarn.context if yarn and known.yarn else known.trained
    if length > longest:
        further = f", or --yarn for up to {known.yarn.context}" if known.yarn and not yarn else ""
        raise UsageError(
            f"--context {length:,} is longer than the {longest:,} tokens that {variant.model.short} can handle.",
            hint=f"use --context {longest} or less{further}.",
        )
    kind = kv_type_named(options.kv_type)
    if kind not in {"f32", "f16", "bf16"} and not options.flash_attention:
        raise UsageError(f"--kv-type {kind} needs flash attention.", hint="leave --no-flash-attention out.")
    return ContextSettings(length, options.slots, options.ubatch, kind, kind, options.flash_attention)


def _show(
    variant: Variant, settings: ContextSettings, placement: Placement, machine: Machine, console: Console
) -> None:
    console.prose(f"{variant.name} from {variant.repository.repo}", hanging="  ")
    slots = f", {settings.slots} slots" if settings.slots > 1 else ""
    console.prose(one_line(machine), hanging="  ")
    console.prose(f"{settings.context:,} tokens of context in {settings.k_type}{slots}; memory in GB\n")
    rows = [
        (
            _device_name(share, machine).removeprefix("GeForce ").removeprefix("Radeon "),
            f"{share.last - share.first}{'+out' if share.output else ''}",
            f"{share.part.total / GB:.2f}",
            f"{share.room / GB:.2f}",
            *(f"{getattr(share.part, part) / GB:.2f}" for part in PARTS[:-1]),
        )
        for share in placement.shares
        if share.part.total
    ]
    total = placement.total
    all_parts = (f"{getattr(total, part) / GB:.2f}" for part in PARTS[:-1])
    rows.append(("all", "", f"{total.total / GB:.2f}", "", *all_parts))
    titles = ("ON", "LAYERS", "TOTAL", "ROOM", "WEIGHTS", "KV CACHE", "COMPUTE", "OUTPUT", "OVERHEAD")
    console.table(titles, rows, right=titles[1:])
    for note in gpu_notes(machine):
        console.note(note)
    if placement.fits:
        how = "computed as llama.cpp allocates it" if memory_source(variant) == "rules" else "by llama.cpp's dry run"
        console.note(f"it fits · {how}; overhead is what a backend usually takes")
    else:
        short = max(share.part.total - share.room for share in placement.shares)
        console.warn(f"it does not fit: {memory_size(short)} more memory is needed; what fits: hermes recommend")


def _device_name(share: DeviceShare, machine: Machine) -> str:
    return "CPU" if share.device is None else machine.usable_devices[share.device].name


def _document(variant: Variant, settings: ContextSettings, placement: Placement, machine: Machine) -> dict[str, Any]:
    return {
        "name": variant.name,
        "repository": variant.repository.repo,
        "memory_from": memory_source(variant),
        "settings": asdict(settings),
        "fits": placement.fits,
        "gpu_layers": placement.gpu_layers,
        **{part: getattr(placement.total, part) for part in PARTS},
        "devices": [
            {
                "name": _device_name(share, machine),
                "layers": share.last - share.first,
                "holds_output": share.output,
                "room": share.room,
                **{part: getattr(share.part, part) for part in PARTS},
            }
            for share in placement.shares
        ],
        "simulated": machine.simulated,
    }
