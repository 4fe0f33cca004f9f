"""AMD's cards through what the amdgpu driver shows in /sys, and amdsmi for the width of their memory bus.

Files: the kernel's Documentation/gpu/amdgpu (driver-misc.rst, thermal.rst) and its KFD topology, which ROCm reads too.
amdsmi comes with ROCm, not from a package index, so most machines lack it; then the table of GPUs tells the bandwidth.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from hermes_cli.hardware.advice import access_problem, advice, advice_at
from hermes_cli.hardware.machine import Device, Note
from hermes_cli.hardware.nvidia import visible_devices
from hermes_cli.hardware.system import Card, SystemMemory, graphics_cards, pci_name, read_number, read_text

if TYPE_CHECKING:
    from types import ModuleType

VENDOR = 0x1002  # ATI, now AMD, at PCI-SIG
NAMES = "usr/share/libdrm/amdgpu.ids"  # AMD's own list of models, part of libdrm
SMALL_CARVE_OUT = 1 << 30  # what firmware usually sets aside for a GPU inside the processor is at most 1 GiB

# Transfers on a data line per tick of the memory clock that the driver shows; checked with the makers' figures:
# RX 580 2000 MHz x 256 bit = 256 GB/s, RX 7900 XTX 1250 x 384 = 960, MI210 1600 x 4096 = 1638, MI300X 1300 x 8192 =
# 5325.
TRANSFERS_PER_CLOCK = {"GDDR5": 4, "GDDR6": 16, "HBM": 2, "HBM2": 2, "HBM2E": 2, "HBM3": 4}


def load_smi() -> ModuleType | None:
    """The amdsmi module where ROCm put one that works with its library."""
    try:
        import amdsmi  # type: ignore[import-not-found]  # noqa: PLC0415 - only where there is such a card
    except (ImportError, OSError, AttributeError, KeyError):  # it loads a C library, and fails in the library's ways
        return None
    module: ModuleType = amdsmi
    return module


def devices(
    root: Path,  # of the file system
    ram: SystemMemory,  # what a GPU inside the processor shares
    # where ROCR_VISIBLE_DEVICES, HIP_VISIBLE_DEVICES, CUDA_VISIBLE_DEVICES and HSA_OVERRIDE_GFX_VERSION are looked up
    environ: Mapping[str, str],
    notes: list[Note],  # what cannot be found out is added here
    smi: Callable[[], ModuleType | None] = load_smi,  # gives the module amdsmi; called only if there is a card
    *,
    # they are used with Vulkan, which neither minds ROCm's variables nor needs its device file
    through_vulkan: bool = False,
) -> list[Device]:
    """The GPUs that programs started now would see, in their order."""
    cards = []
    for card in graphics_cards(root, VENDOR):
        if card.driver == "amdgpu":
            cards.append(card)
        else:
            other = f"The AMD GPU at {card.address} has no driver that helps here: {card.driver or 'none'}, not amdgpu."
            missing = advice_at("amdgpu is not loaded", root)
            text = f"{other} {missing.text}." if missing.text and not card.driver else other
            notes.append(Note("devices", text, fix="" if card.driver else missing.fix))
    if not through_vulkan:
        cards = _visible(cards, environ, notes)
    bandwidths = _bandwidths(cards, smi, notes) if cards else {}
    override = environ.get("HSA_OVERRIDE_GFX_VERSION", "")
    return [
        _device(root, card, ram, bandwidths.get(card.address), notes, override, through_vulkan=through_vulkan)
        for card in cards
    ]


def _visible(cards: list[Card], environ: Mapping[str, str], notes: list[Note]) -> list[Card]:
    """ROCR hides cards from the runtime, HIP from what is left (ROCm documentation, "GPU isolation").

    HIP takes CUDA's variable where its own is not set (HIP documentation, "HIP environment variables").
    """
    of_hip = "HIP_VISIBLE_DEVICES" if "HIP_VISIBLE_DEVICES" in environ else "CUDA_VISIBLE_DEVICES"
    for variable in ("ROCR_VISIBLE_DEVICES", of_hip):
        identifiers = [f"GPU-{read_text(card.device / 'unique_id')}" for card in cards]
        left = [cards[position] for position in visible_devices(environ.get(variable), identifiers)]
        if hidden := len(cards) - len(left):
            hides = f'{variable}="{environ[variable]}" hides {hidden} of {len(cards)} AMD GPUs.'
            notes.append(Note("devices", hides, fix=f"unset {variable}"))
        cards = left
    return cards


def _device(
    root: Path,
    card: Card,
    ram: SystemMemory,
    bandwidth: float | None,
    notes: list[Note],
    override: str,
    *,
    through_vulkan: bool,
) -> Device:
    name, target = _name(root, card), _target(root, card)
    total, free, carve_out, unified = _memory(card, ram)
    if not total:
        notes.append(Note("devices", f"amdgpu does not tell the memory of {name}."))
    taken_for = _overridden(override) or target if target else "unknown"
    backend = advice("build for AMD", taken_for).backend or "vulkan"
    reason, fix = access_problem(root, card, *(["dev/kfd"] if backend == "rocm" and not through_vulkan else []))
    return Device(
        vendor="amd",
        name=name,
        total=total,
        free=free,
        bandwidth=bandwidth,
        bandwidth_source="assumed" if bandwidth is None else "probed",
        # a GPU that is not in KFD's topology is none to ROCm; Vulkan takes all
        backend=backend,
        usable=not reason,
        fix=fix,
        reason=reason,
        unified=unified,
        carve_out=carve_out,
        compute_capability=target,
        driver=f"amdgpu {read_text(root / 'sys/module/amdgpu/version')}".strip(),
    )


def _name(root: Path, card: Card) -> str:
    """Servers' cards know their name; others are looked up by model and revision."""
    listed = re.search(
        rf"^{card.product:04X},\s*{card.revision:02X},\s*(.+)$", read_text(root / NAMES), re.MULTILINE | re.IGNORECASE
    )
    name = read_text(card.device / "product_name") or (listed[1] if listed else pci_name(root, VENDOR, card.product))
    return name.strip().removeprefix("AMD ") or f"GPU {card.product:04x}"


def _memory(card: Card, ram: SystemMemory) -> tuple[int, int, int, bool]:
    """Total and free bytes, how many of the free ones are no RAM, and whether the others are.

    A GPU inside the processor has a carve-out that the system does not count as RAM ("VRAM") and may take more from
    RAM, up to the size of its translation table ("GTT").
    """
    vram_total, vram_used, gtt_total, gtt_used = (
        read_number(card.device / f"mem_info_{name}") or 0
        for name in ("vram_total", "vram_used", "gtt_total", "gtt_used")
    )
    try:
        # the third byte, the format, is 1 on cards and 2 or 3 on APUs (the kernel's kgd_pp_interface.h)
        with (card.device / "gpu_metrics").open("rb") as file:
            in_processor = file.read(4)[2] > 1
    except (OSError, IndexError):  # kernels before 5.10, and GPUs older than Vega
        in_processor = vram_total <= SMALL_CARVE_OUT
    free = vram_total - vram_used
    if not in_processor:
        return vram_total, free, 0, False
    return vram_total + gtt_total, free + min(max(gtt_total - gtt_used, 0), ram.available), max(free, 0), True


def _target(root: Path, card: Card) -> str:
    """Return ROCm's name of the architecture ("gfx1100"), from the KFD node at the card's PCI address.

    gfx_target_version is major x 10000 + minor x 100 + stepping; location_id is bus x 256 + device x 8 + function.
    """
    place = re.fullmatch(r"(\w+):(\w+):(\w+)\.(\w)", card.address)
    if not place:
        return ""
    domain, bus, slot, function = (int(part, 16) for part in place.groups())
    for file in (root / "sys/class/kfd/kfd/topology/nodes").glob("*/properties"):
        node = dict(re.findall(r"^(\w+) (\d+)$", read_text(file), re.MULTILINE))
        version = int(node.get("gfx_target_version", 0))
        at = (int(node.get("domain", 0)), int(node.get("location_id", -1)))
        if version and at == (domain, bus << 8 | slot << 3 | function):
            return f"gfx{version // 10000}{version // 100 % 100:x}{version % 100:x}"
    return ""


def _overridden(version: str) -> str:
    """Return the architecture that HSA_OVERRIDE_GFX_VERSION makes ROCm take GPUs for: "10.3.0" is gfx1030."""
    parts = re.fullmatch(r"(\d{1,2})\.(\d{1,2})\.(\d{1,2})", version.strip())
    return f"gfx{parts[1]}{int(parts[2]):x}{int(parts[3]):x}" if parts else ""


def _bandwidths(cards: list[Card], smi: Callable[[], ModuleType | None], notes: list[Note]) -> dict[str, float]:
    """Bytes per second by PCI address, of the cards that amdsmi tells it of."""
    module, by_address = smi(), {card.address: card for card in cards}
    if module is None:
        return {}
    try:
        module.amdsmi_init()
    except module.AmdSmiException as error:
        notes.append(Note("devices", f"amdsmi does not answer: {error}"))
        return {}
    bandwidths: dict[str, float] = {}
    with suppress(module.AmdSmiException):  # what it told until then is true
        for handle in module.amdsmi_get_processor_handles():
            card = by_address.get(module.amdsmi_get_gpu_device_bdf(handle))
            bandwidth = card and _bandwidth(module, handle, card)
            if card and bandwidth:
                bandwidths[card.address] = bandwidth
    with suppress(module.AmdSmiException):
        module.amdsmi_shut_down()
    return bandwidths


def _bandwidth(module: ModuleType, handle: object, card: Card) -> float | None:
    """The maximum itself where firmware tells it (MI300, in GB/s), else bus width x clock x transfers per clock / 8."""
    try:
        memory = module.amdsmi_get_gpu_vram_info(handle)
    except module.AmdSmiException:
        return None
    maximum, width = memory.get("vram_max_bandwidth"), memory.get("vram_bit_width")  # "N/A" where not told
    if isinstance(maximum, int) and maximum > 0:
        return maximum * 1e9
    try:  # amdsmi gives a number, which its header may change, and an enumeration of names
        rate = TRANSFERS_PER_CLOCK.get(module.AmdSmiVramType(memory.get("vram_type")).name, 0)
    except (ValueError, AttributeError):
        return None
    # the highest step ("3: 1249Mhz *")
    steps = re.findall(r"^\d+: (\d+)Mhz", read_text(card.device / "pp_dpm_mclk"), re.MULTILINE | re.IGNORECASE)
    clock = max((int(step) * 1e6 for step in steps), default=0)
    return width * clock * rate / 8 or None if isinstance(width, int) else None
