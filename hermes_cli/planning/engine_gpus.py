"""The GPUs that vLLM and SGLang can use, what they compute in, and how much of their memory the engine may take."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hermes_cli.errors import UsageError
from hermes_cli.planning.launch_memory import REPORTED, UTILIZATION
from hermes_cli.planning.launch_plan import ENGINE_TITLES

if TYPE_CHECKING:
    from hermes_cli.catalog.engine_weights import EngineWeights
    from hermes_cli.hardware.machine import Device, Machine
    from hermes_cli.planning.launch_plan import EngineName

# Compute capabilities (NVIDIA): what vLLM needs at all, BF16, FP8 and FP4 in hardware (its documentation).
LEAST_CAPABILITY, BF16_CAPABILITY, FP8_CAPABILITY, FP4_CAPABILITY = 7.5, 8.0, 8.9, 10.0
_AMD_FP8 = ("gfx94", "gfx95", "gfx12")
_AMD = ("gfx90a", "gfx94", "gfx95", "gfx11", "gfx12")


def engine_gpus(machine: Machine, engine: EngineName) -> tuple[Device, ...]:
    """Return the GPUs of a node that the engine should use: of unequal ones those with the most memory together.

    Each gives as much as the smallest of them, so a small one beside large ones can take more than it brings.

    Raise UsageError if there are none.
    """
    if gpus := supported_gpus(machine):
        free = sorted((free_memory(gpu) for gpu in gpus), reverse=True)
        used = max(range(1, len(gpus) + 1), key=lambda count: (count * free[count - 1], -count))
        return tuple(gpu for gpu in gpus if free_memory(gpu) >= free[used - 1])[:used]
    title = ENGINE_TITLES[engine]
    others = ", ".join(dict.fromkeys(device.name for device in machine.devices if not device.left_out))
    have = f"not {others}" if others else "and this machine has none that can be used"
    raise UsageError(
        f"{title} needs GPUs of NVIDIA (compute capability {LEAST_CAPABILITY:g} or more) or AMD, {have}.",
        hint="plan for others: --gpu 8xH100; llama.cpp runs here: hermes recommend",
    )


def free_memory(gpu: Device) -> int:
    """Return the bytes of a GPU that are free, but for those that the user wants to stay so."""
    return gpu.free - (gpu.reserve or 0)


def supported_gpus(machine: Machine) -> tuple[Device, ...]:
    """Return the GPUs that vLLM has kernels for, whatever llama.cpp was built for, but for those left out."""
    return tuple(device for device in machine.devices if is_supported(device) and not device.left_out)


def is_supported(device: Device) -> bool:
    """Return whether vLLM has kernels for a GPU."""
    if device.vendor == "amd":
        return device.compute_capability.startswith(_AMD)
    return device.vendor == "nvidia" and capability(device) >= LEAST_CAPABILITY


def capability(device: Device) -> float:
    """Return the compute capability; of a card that only its memory is known of, that of most of today's."""
    try:
        return float(device.compute_capability)
    except ValueError:
        return FP8_CAPABILITY


def computes_fp8(device: Device) -> bool:
    """Return whether a GPU multiplies 8-bit floats; others unpack such weights and gain memory only."""
    if device.vendor == "amd":
        return device.compute_capability.startswith(_AMD_FP8)
    return capability(device) >= FP8_CAPABILITY


def why_not(weights: EngineWeights, gpus: tuple[Device, ...]) -> str | None:
    """Return the reason for which vLLM has no kernels for a format on these GPUs, None if it has."""
    for gpu in gpus:
        if weights.format in {"fp8", "awq", "nvfp4"} and gpu.vendor == "amd":
            if weights.format != "fp8" or not computes_fp8(gpu):
                return f"vLLM has no {weights.title} kernels for {gpu.name}"
        elif weights.format == "nvfp4" and capability(gpu) < BF16_CAPABILITY:
            return f"vLLM has no NVFP4 kernels for {gpu.name}"
    return None


def gpu_room(gpus: tuple[Device, ...], *, simulated: bool) -> tuple[int, int, float]:
    """Return the memory of the smallest GPU, the bytes of it that the engine may use, and their share of it.

    vLLM takes the same share of each GPU, and refuses to start if that is not free. A simulated GPU has what a driver
    reports of the memory in its name.
    """
    total = min(gpu.total for gpu in gpus)
    if simulated:
        total = round(total * REPORTED)
    free = min(total if simulated and not gpu.reserve else free_memory(gpu) for gpu in gpus)
    share = min(UTILIZATION, max(int(free / total * 100), 0) / 100)
    return total, int(total * share), share
