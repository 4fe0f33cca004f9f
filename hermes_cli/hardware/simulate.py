"""Simulated machines, such as one to buy: this machine, changed as the flags say.

    --gpu "RTX 4090"    --gpu 2xH100    --gpu "AGX Orin 32GB"    --gpu "RTX 4090" --gpu "RTX 3060 12GB"
    --vram 24G          --vram 24G,12G        cards of any kind with that much memory; their bandwidth is unknown
    --apple 64G         --apple "M4 Max 64G"  a Mac; the chip tells the bandwidth
    --ram 64G           --cpu-only

Sizes are in bytes with M, G, T for powers of 1,024, because that is what "GB" means in the name of a memory module.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from hermes_cli.errors import UsageError
from hermes_cli.hardware.advice import advice
from hermes_cli.hardware.apple import gpu_limit, usually_free
from hermes_cli.hardware.gpus import GPUS, Gpu, find_gpu, gpus_named, typical_bandwidth
from hermes_cli.hardware.machine import MOST_DEVICES, SERVED_BY, Backend, Device, Machine, Note, NoteSubject, Vendor
from hermes_cli.units import GIB, MIB

LARGEST_SIZE = 100 * 2**40
MOST_WITHOUT_UNIT = 4096  # a larger number may be one of M
AVAILABLE = 0.9  # of the RAM, when nothing but the system runs

# What a GPU may take of the RAM that it shares: AMD gives up to 96 of 128 GB, CUDA on GB10 whatever is free.
_SHARE: dict[Vendor, float] = {"amd": 0.75, "intel": 0.75, "nvidia": AVAILABLE}

_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*(?:([MGT])(?:I?B)?)?", re.IGNORECASE | re.ASCII)
_FACTOR = {"M": MIB, "G": GIB, "T": 2**40}
_COUNTED = re.compile(r"([0-9]{1,3})\s*[x\u00d7*]\s*(\S.*)", re.IGNORECASE | re.ASCII)
_COUNTED_BEHIND = re.compile(r"(\S.+[0-9\s])[x\u00d7*]\s*([0-9]{1,2})", re.IGNORECASE | re.ASCII)
_SIZE_IN_NAME = re.compile(r"(.*\S)[\s-]*\b([0-9]{1,3})\s*GB?", re.IGNORECASE | re.ASCII)
_CHIP_AND_SIZE = re.compile(r"(?:(?P<chip>.*\S)\s+)?(?P<size>[0-9.]+\s*[a-z]+)", re.IGNORECASE | re.ASCII)

MACS_FREE = Note("devices", "Of a simulated Mac's memory counts as free what macOS and a few programs leave.")
ALL_FREE = Note("devices", "The memory of simulated GPUs counts as free, all of it.")
REST_IS_HERE = Note("simulation", "Processor, disk and what no flag mentions are those of this machine.")
MAC_REST_IS_HERE = Note("simulation", "Cores and disk are those of this machine.")
ONLY_VULKAN = Note("simulation", "llama.cpp uses cards of different vendors together only with Vulkan.")


def simulate(
    here: Machine,  # the machine at hand
    *,
    gpu: Sequence[str],  # names of GPUs, each with a number in front if there are several of it
    vram: str | None,  # memory of GPUs of any kind, with commas between them
    ram: str | None,  # total RAM
    apple: str | None,  # unified memory of a Mac, with the chip in front if it is known
    cpu_only: bool,  # no GPU at all
) -> Machine:
    """The machine that the flags describe; `here` itself if there are none.

    GPUs that are named take the place of this machine's. RAM stays this machine's unless `ram` says another size.
    What was noted about what is replaced goes with it.

    Raise UsageError if the flags contradict each other, or one of them cannot be understood.
    """
    given = {"--gpu": bool(gpu), "--vram": vram is not None, "--apple": apple is not None, "--cpu-only": cpu_only}
    flags = [flag for flag, present in given.items() if present]
    if len(flags) > 1:
        raise UsageError(
            f"{' and '.join(flags)} contradict each other.",
            hint="give one of them: --gpu names cards, --vram only their memory, --apple a Mac, --cpu-only none",
        )
    if ram is not None and apple is not None:
        raise UsageError(
            "--ram and --apple contradict each other.",
            hint='a Mac\'s RAM stands in --apple, as in: --apple "M4 Max 64G"',
        )
    if apple is not None:
        return _mac(here, apple)
    machine = here if ram is None else _with_ram(here, parse_size(ram, "--ram"))
    if cpu_only:
        return replace(_replaced(machine, "devices", notes=[REST_IS_HERE]), devices=())
    if gpu:
        return _with_gpus(machine, gpu, ram_given=ram is not None)
    if vram is not None:
        return _with_devices(machine, [_unnamed(parse_size(size, "--vram")) for size in vram.split(",")])
    return machine


def parse_size(
    text: str,  # as typed
    what: str,  # where it was typed, for the message ("--ram")
) -> int:
    """Bytes of memory from `24G`, `24 GiB`, `24576M`, `0.5T`, or `24`, which can only be G.

    G is 2^30, with or without "B" or "iB" behind it.

    Raise UsageError if it is not a size, less than 1 MiB, or more than 100 TiB.
    """
    shown = f"{text[:40]}…" if len(text) > 40 else text  # noqa: PLR2004 - more does not help to recognise it
    match = _SIZE.fullmatch(text.strip())
    if match and not match[2] and float(match[1]) > MOST_WITHOUT_UNIT:  # 24576 may be meant as M
        match = None
    size = int(float(match[1]) * _FACTOR[(match[2] or "G").upper()]) if match else 0
    if not match:
        fault, limit = f"{shown!r} is not a size of memory", "a number with M, G or T"
    elif size < MIB:
        fault, limit = f"{shown} is too little", "at least 1M"
    elif size > LARGEST_SIZE:
        fault, limit = f"{shown} is more than any machine has", "at most 100T"
    else:
        return size
    raise UsageError(f"{what}: {fault}.", hint=f"{limit}, for example: {what} 24G")


def _replaced(machine: Machine, *subjects: NoteSubject, notes: Sequence[Note] = ()) -> Machine:
    """The machine marked as one that is not at hand, without what was noted about the parts that are replaced."""
    kept = (note for note in machine.notes if note.about not in subjects)
    return replace(machine, simulated=True, notes=tuple(dict.fromkeys((*kept, *notes))))


def _with_ram(here: Machine, ram: int) -> Machine:
    """The machine with other memory modules; GPUs that share the RAM get as large a part of it as before."""
    devices, notes, available = [], [REST_IS_HERE], int(ram * AVAILABLE)
    for device in here.devices:
        if device.vendor == "apple":
            total, available = gpu_limit(ram), usually_free(ram)
            devices.append(replace(device, total=total, free=min(total, available), users=()))
            notes = [MACS_FREE, REST_IS_HERE]
        elif device.unified:
            shared = device.total - device.carve_out
            total = device.carve_out + ram * shared // max(here.ram_total, 1)
            devices.append(replace(device, total=total, free=total, users=()))
            notes = [ALL_FREE, REST_IS_HERE]
        else:
            devices.append(device)
    return replace(
        _replaced(here, "ram", notes=notes),
        devices=tuple(devices),
        ram_total=ram,
        ram_available=available,
        ram_bandwidth_source="assumed",
    )


def _with_gpus(machine: Machine, names: Sequence[str], *, ram_given: bool) -> Machine:
    """The machine with the named GPUs instead of its own."""
    gpus = [gpu for text in names for entry in text.split(",") for gpu in _counted(entry)]
    shared = [gpu for gpu in gpus if gpu.unified]
    if len(shared) > 1:
        raise UsageError(
            f"{shared[0].name} and {shared[1].name} share the RAM of a whole machine each: that is two machines.",
            hint="plan one machine at a time",
        )
    if shared:  # with the RAM that such a chip is sold with: the most, unless a size was given, in its name or as RAM
        ram = machine.ram_total if ram_given else shared[0].memory
        machine = replace(
            _replaced(machine, "ram"),
            ram_total=ram,
            ram_available=int(ram * AVAILABLE),
            ram_bandwidth=shared[0].bandwidth,
            ram_bandwidth_source="table",
        )
    return _with_devices(machine, [_named(gpu, machine.ram_total) for gpu in gpus for _ in range(gpu.dies)])


def _counted(entry: str) -> list[Gpu]:
    """The GPUs of one entry: `RTX 4090`, `2xH100`, `2 x RTX 3090`, `RTX 4090 x2`."""
    count, name = 1, entry
    if match := _COUNTED_BEHIND.fullmatch(entry.strip()):
        count, name = int(match[2]), match[1]
    elif match := _COUNTED.fullmatch(entry.strip()):
        count, name = int(match[1]), match[2]
    if not 1 <= count <= MOST_DEVICES:
        raise UsageError(
            f"--gpu: {count} GPUs cannot be planned.",
            hint=f"1 to {MOST_DEVICES}, as many as llama.cpp uses: --gpu 2xH100",
        )
    gpu = _of_size(name)
    if gpu.vendor == "apple":
        with_size = _SIZE_IN_NAME.fullmatch(name.strip())
        typed = re.sub("^apple ", "", name.strip(), flags=re.IGNORECASE)
        hint = f'type --apple "{typed}"' if with_size else f'say its memory, too: --apple "{_as_sold(gpu)}"'
        raise UsageError(f"--gpu: {gpu.name} is a Mac's chip.", hint=hint)
    return [gpu] * count


def _of_size(name: str) -> Gpu:
    """The GPU of that name; of one that shares the RAM with the memory in the name, at most the largest on sale."""
    match = _SIZE_IN_NAME.fullmatch(name.strip())
    if not match:
        return find_gpu(name)
    size = int(match[2])
    try:
        gpu = find_gpu(name)
    except UsageError:
        with suppress(UsageError):
            gpu = find_gpu(match[1])
            if gpu.unified and gpu.vendor != "apple" and 0 < size < gpu.gib:
                return replace(gpu, gib=size)
        raise
    return replace(gpu, gib=size) if gpu.unified and size in gpu.sizes else gpu


def _with_devices(machine: Machine, devices: list[Device]) -> Machine:
    """The machine with these GPUs instead of its own."""
    if len(devices) > MOST_DEVICES:
        raise UsageError(
            f"{len(devices)} GPUs are more than llama.cpp uses.", hint=f"name at most {MOST_DEVICES} devices"
        )
    notes = [ALL_FREE, REST_IS_HERE]
    if any(device.bandwidth_source == "assumed" for device in devices):
        notes.append(_exact("card", "--gpu NAME"))
    if len({device.vendor for device in devices}) > 1:  # no build of llama.cpp has all their own backends
        devices = [replace(device, backend="vulkan") for device in devices]
        notes.append(ONLY_VULKAN)
    backends = dict.fromkeys(device.backend for device in devices)
    changed = _replaced(machine, "devices", notes=notes)
    return replace(changed, devices=tuple(devices), backends=("cpu", *backends))


def _named(gpu: Gpu, ram: int) -> Device:
    """A GPU of the table, idle."""
    total = int(ram * _SHARE[gpu.vendor]) if gpu.unified else gpu.memory
    return Device(
        vendor=gpu.vendor,
        name=gpu.name,
        total=total,
        free=total,
        bandwidth=gpu.bandwidth,
        bandwidth_source="table",
        backend=_backend(gpu),
        operations=gpu.operations,
        unified=gpu.unified,
        compute_capability=gpu.compute_capability,
    )


def _backend(gpu: Gpu) -> Backend:
    """The vendor's own backend, or Vulkan where that has no code for the GPU."""
    if gpu.vendor in {"nvidia", "amd"}:
        row = advice("build for AMD" if gpu.vendor == "amd" else "build for NVIDIA", gpu.compute_capability)
        return row.backend or "vulkan"
    return SERVED_BY[gpu.vendor][0]


def _unnamed(size: int) -> Device:
    """A card of which only the memory is known, as fast as most of that size; most are NVIDIA's."""
    return Device(
        vendor="nvidia",
        name=f"GPU with {size / GIB:g} GiB",
        total=size,
        free=size,
        bandwidth=typical_bandwidth("nvidia", size),
        bandwidth_source="assumed",
        backend="cuda",
    )


def _mac(here: Machine, text: str) -> Machine:
    """A Mac with that much unified memory."""
    match = _CHIP_AND_SIZE.fullmatch(text.strip())
    if not match:
        example = "M4 Max 64G"
        with suppress(UsageError):
            example = next((_as_sold(chip) for chip in gpus_named(text) if chip.vendor == "apple"), example)
        raise UsageError(
            "--apple needs the size of the memory.", hint=f'for example: --apple 64G or --apple "{example}"'
        )
    ram = parse_size(match["size"], "--apple")
    chip = _chip(match["chip"], ram) if match["chip"] else None
    limit, available = gpu_limit(ram), usually_free(ram)
    sold = [mac for mac in GPUS if mac.vendor == "apple" and ram in {size * GIB for size in mac.sizes}]
    exact = [_exact("chip", f'--apple "{_as_sold(sold[-1], ram // GIB)}"')] if sold and not chip else []
    device = Device(
        vendor="apple",
        name=chip.name if chip else "GPU of an unnamed chip",
        total=limit,
        free=min(limit, available),
        bandwidth=chip.bandwidth if chip else typical_bandwidth("apple", ram),
        bandwidth_source="table" if chip else "assumed",
        backend="metal",
        operations=chip.operations if chip else None,
        unified=True,
    )
    return replace(
        _replaced(here, "devices", "ram", notes=[*exact, MACS_FREE, MAC_REST_IS_HERE]),
        devices=(device,),
        backends=("cpu", "metal"),
        ram_total=ram,
        ram_available=available,
        ram_bandwidth=device.bandwidth,
        ram_bandwidth_source=device.bandwidth_source,
        cpu=f"Apple {chip.name}" if chip else "Apple silicon",
        simd=("NEON",),
        os="macOS",
    )


def _chip(name: str, ram: int) -> Gpu:
    """The chip of that name that is sold with that much memory, which also tells variants apart."""
    chips = [chip for chip in gpus_named(name) if chip.vendor == "apple"]
    if not chips:
        raise UsageError(
            f"--apple: {name} is not a chip of Apple's.", hint=f'cards are named with --gpu: --gpu "{name}"'
        )
    for chip in chips:
        if ram in {size * GIB for size in chip.sizes}:
            return chip
    sold = sorted(size for chip in chips for size in chip.sizes)
    raise UsageError(
        f"--apple: {name} is not sold with {ram / GIB:g} GB of memory, only with {', '.join(map(str, sold))}.",
        hint=f"to plan with this size all the same, leave the chip out: --apple {ram / GIB:g}G",
    )


def _as_sold(chip: Gpu, size: int = 0) -> str:
    """Return a value of --apple for a chip, with a size in GiB; without one, the smallest that it is sold with."""
    return f"{re.sub(' [0-9]+-core$', '', chip.name)} {size or chip.sizes[0]}G"


def _exact(what: str, example: str) -> Note:
    """Return the note of a GPU of which only the memory is known."""
    text = f"The speed of the GPU is that of most with this much memory; the name of the {what} makes it exact"
    return Note("devices", text, example)
