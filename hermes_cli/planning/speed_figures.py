"""The share of a device's bandwidth and arithmetic that llama.cpp reaches, by backend and kind of chip.

The figures are rounded by hand from benchmarks/published_speeds.csv, which names the source of each measurement. A fit
to half of them finds nearly the same (docs/speed.md; python benchmarks/speed_model.py prints the errors).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hermes_cli.hardware.machine import Device, Machine

TERA = 1e12
ASSUMED_RAM_BANDWIDTH = 40e9  # bytes/s; two channels of DDR4-3200 give 51 in theory
ASSUMED_GPU_BANDWIDTH = 300e9  # bytes/s; of a card that nothing is known of
# Bytes/s at which weights in RAM reach a GPU for a large batch: llama.cpp copies them out of mapped, pageable memory.
# Mixtral in Q3_K_L with no layer on an RTX 3090 Ti: 20.4 GB and 1,024 tokens in 4.2 s, of which 2.1 s are the copy
# (ggml-org/llama.cpp#6083); 8B in Q6_K on Vulkan: 6.1 GB in 1.1 s (#8164).
COPY_BANDWIDTH = 10e9
DEVICE_SECONDS = 0.2e-3  # per token and further device: 8B on one, two and four RTX 3090, published_speeds.csv

# Operations per second of one core for prefill. Core i5-9500, i7-7820HQ and Threadripper 3970X: 68 to 83 with AVX2;
# Ryzen 7 8840U: 87 with AVX512_VNNI (published_speeds.csv); a virtual core of a Xeon with AVX512_VNNI: 50 (measured
# with benchmarks/speed_model.py). NEON is assumed.
CORE_OPERATIONS = {"AVX512_VNNI": 70e9, "AVX_VNNI": 65e9, "AVX2": 65e9, "NEON": 60e9}
SLOWEST_CORE = 10e9
# Share of those that attention reaches in prefill, on F16 and without repacking: 7B with 14 of 32 layers on the CPU
# (#6083). llama.cpp has that kernel for many tokens and a KV cache of floats only. Operations per second of a core
# without it, on a virtual one of a Xeon with AVX512_VNNI (heads of Llama 3 8B, 2,000 and 4,000 earlier tokens): of one
# token 5.1e9 to 5.8e9 in F16 and not surely more in Q8_0 (5e9, 5e9, 13e9); of a prompt in Q8_0 7.3e9 to 9.4e9, where
# F16 reaches 34e9.
CPU_ATTENTION = 0.3
FLOAT_KV_TYPES = {"f16", "bf16", "f32"}
CORE_ATTENTION, CORE_ATTENTION_QUANTIZED = 5.5e9, 8.5e9
# Attention on a GPU takes so many times longer than its operations would as a matrix product of weights: 8B from
# 4,096 to 32,768 tokens on an RTX 3090 1.7 (#17505), RX 7900 XTX 1.2 (#26284), GB10 0.7 (#16578).
GPU_ATTENTION = 1.4


@dataclass(frozen=True)
class DeviceFigures:
    """The speed that llama.cpp reaches on a kind of device."""

    share: float  # of the memory's bandwidth, for weights of four bits and more
    layer_seconds: float  # per token and layer, for starting kernels and for what cannot overlap with reading
    operations_share: float  # of the FP16 operations of the data sheet, for prefill
    operations_per_byte: float  # where there is no such figure: operations for each byte/s of bandwidth
    # the exponent of UNPACK_SHARE; 0.5 where integer dot products unpack small types nearly for free
    unpacking: float = 1.0


CPU = DeviceFigures(0.75, 0.0, 1.0, 0.0)
PASCAL = DeviceFigures(0.6, 0.10e-3, 0.68, 32, 0.5)
HBM = DeviceFigures(0.62, 0.09e-3, 0.68, 12, 0.5)
GEFORCE = DeviceFigures(0.9, 0.075e-3, 0.68, 60, 0.5)
ADA = DeviceFigures(0.9, 0.075e-3, 0.68, 110, 0.5)
BLACKWELL = DeviceFigures(0.9, 0.05e-3, 0.68, 110, 0.5)
ROCM = DeviceFigures(0.88, 0.13e-3, 0.4, 35)
ROCM_APU = DeviceFigures(0.8, 0.2e-3, 0.4, 35)
VULKAN = DeviceFigures(0.9, 0.07e-3, 0.4, 40, 0.5)
VULKAN_APU = DeviceFigures(0.85, 0.12e-3, 0.4, 35, 0.5)
METAL_TO_M3 = DeviceFigures(0.85, 0.2e-3, 0.6, 22)
METAL = DeviceFigures(0.9, 0.075e-3, 0.6, 26)
ALCHEMIST = DeviceFigures(0.3, 0.1e-3, 0.4, 30)
SYCL = DeviceFigures(0.88, 0.12e-3, 0.4, 47)

# Compute capabilities of chips with HBM (P100, V100, A100, H100, B200): no kernel of llama.cpp fills that bandwidth
# with one token, nor their tensor cores with a prompt.
_HBM_CHIPS = frozenset({"6.0", "7.0", "8.0", "9.0", "10.0", "10.3"})
_VOLTA, _ADA, _BLACKWELL = 7.0, 8.9, 12.0
_OLD_APPLE = re.compile(r"\bM[123]\b")
_ALCHEMIST = re.compile(r"\bArc (?:Pro )?A\d")
_HBM_OPERATIONS, _HBM_EXPONENT = 95 * TERA, 0.4  # reached of 156 TFLOPS (A100); more of them gain less (H100)
_HBM_REFERENCE = 156 * TERA

# Share of the bandwidth of Q4_K_M that smaller types reach. llama.cpp's tools/quantize/README.md has the same Llama 3.1
# 8B in all of them on one machine (its F16 speed is that of an M4 Max with 546 GB/s), less METAL's fixed time. On CUDA
# the square root is nearer: IQ1_M on an RTX 3090 reaches 0.66 of it (#8215).
UNPACK_SHARE = {
    "Q3_K_L": 0.84,
    "Q3_K_M": 0.80,
    "Q3_K_S": 0.74,
    "IQ3_M": 0.74,
    "IQ3_S": 0.72,
    "IQ3_XS": 0.72,
    "IQ3_XXS": 0.68,
    "Q2_K": 0.73,
    "Q2_K_S": 0.80,
    "IQ2_M": 0.62,
    "IQ2_S": 0.60,
    "IQ2_XS": 0.58,
    "IQ2_XXS": 0.55,
    "IQ1_M": 0.44,
    "IQ1_S": 0.46,
}


def figures_of(device: Device | None) -> DeviceFigures:
    """Return the figures of a device, or of the CPU."""
    if device is None or device.backend == "cpu":
        return CPU
    if device.backend == "cuda":
        return _cuda(device.compute_capability)
    if device.backend == "metal":
        return METAL_TO_M3 if _OLD_APPLE.search(device.name) else METAL
    if device.backend == "sycl":
        return ALCHEMIST if _ALCHEMIST.search(device.name) else SYCL
    card, apu = (ROCM, ROCM_APU) if device.backend == "rocm" else (VULKAN, VULKAN_APU)
    return apu if device.unified else card


def _cuda(capability: str) -> DeviceFigures:
    if capability in _HBM_CHIPS:
        return HBM
    try:
        generation = float(capability)
    except ValueError:
        return GEFORCE
    if generation < _VOLTA:
        return PASCAL
    return GEFORCE if generation < _ADA else ADA if generation < _BLACKWELL else BLACKWELL


@cache
def _core_operations(simd: tuple[str, ...]) -> float:
    return max((CORE_OPERATIONS.get(name, 0.0) for name in simd), default=0.0)


def operations_of(device: Device | None, machine: Machine) -> tuple[float, bool]:
    """Operations per second that prefill reaches, and whether that is more than an assumption."""
    if device is None:
        core = _core_operations(machine.simd)
        return machine.cores * max(core, SLOWEST_CORE), core > SLOWEST_CORE
    figures = figures_of(device)
    if not device.operations:
        return bandwidth_of(device, machine)[0] * figures.operations_per_byte, False
    operations = device.operations
    if device.backend == "cuda" and not device.name.startswith(("GeForce", "TITAN")):
        # Workstation and data centre cards double their rate with FP32 accumulation, which llama.cpp gains nothing by:
        # an RTX 6000 Ada is no faster than an RTX 4090 (published_speeds.csv).
        operations /= 2
    if figures is HBM:
        most = _HBM_OPERATIONS * (operations / _HBM_REFERENCE) ** _HBM_EXPONENT
        return min(most, operations * figures.operations_share), True
    return operations * figures.operations_share, True


def bandwidth_of(device: Device | None, machine: Machine) -> tuple[float, bool]:
    """Bytes per second, and whether that is more than an assumption."""
    if device is None:
        return machine.ram_bandwidth or ASSUMED_RAM_BANDWIDTH, machine.ram_bandwidth is not None
    return device.bandwidth or ASSUMED_GPU_BANDWIDTH, device.bandwidth_source != "assumed"
