from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from hermes_cli.hardware import apple
from hermes_cli.hardware.machine import Device, Note
from hermes_cli.hardware.system import SystemMemory, cores, cpu_name, simd

GIB = 2**30
MIB = 2**20

# As `sysctl` prints it: keys that a Mac lacks go to standard error.
M1_8GB = """hw.memsize: 8589934592
hw.physicalcpu: 8
hw.perflevel0.physicalcpu: 4
iogpu.wired_limit_mb: 0
machdep.cpu.brand_string: Apple M1
sysctl.proc_translated: 0
hw.optional.arm.FEAT_DotProd: 1
hw.optional.arm.FEAT_I8MM: 0
"""
M4_MAX_128GB = """hw.memsize: 137438953472
hw.physicalcpu: 16
hw.perflevel0.physicalcpu: 12
iogpu.wired_limit_mb: 0
machdep.cpu.brand_string: Apple M4 Max
sysctl.proc_translated: 0
hw.optional.arm.FEAT_DotProd: 1
hw.optional.arm.FEAT_I8MM: 1
"""
M2_ULTRA_192GB = """hw.memsize: 206158430208
hw.physicalcpu: 24
hw.perflevel0.physicalcpu: 16
iogpu.wired_limit_mb: 184320
machdep.cpu.brand_string: Apple M2 Ultra
sysctl.proc_translated: 0
hw.optional.arm.FEAT_DotProd: 1
hw.optional.arm.FEAT_I8MM: 1
"""
INTEL_MAC = """hw.memsize: 17179869184
hw.physicalcpu: 8
machdep.cpu.brand_string: Intel(R) Core(TM) i9-9880H CPU @ 2.30GHz
hw.optional.avx1_0: 1
hw.optional.avx2_0: 1
hw.optional.avx512f: 0
hw.optional.bmi2: 1
hw.optional.f16c: 1
hw.optional.fma: 1
"""


def answers(printed: str) -> dict[str, str]:
    return apple.answers(lambda _: printed)


def look(printed: str, available: int = 500 * GIB) -> Device:
    (device,) = apple.devices(answers(printed), SystemMemory(int(answers(printed)["hw.memsize"]), available), [])
    return device


def test_m1() -> None:
    device = look(M1_8GB, available=3 * GIB)
    assert (device.vendor, device.name, device.backend, device.unified) == ("apple", "M1", "metal", True)
    assert device.total // MIB == 5461
    assert device.free == 3 * GIB
    assert (device.bandwidth, device.bandwidth_source) == (None, "assumed")


def test_m4_max() -> None:
    device = look(M4_MAX_128GB)
    assert (device.name, device.total, device.free) == ("M4 Max", 96 * GIB, 96 * GIB)


def test_a_limit_that_somebody_set() -> None:
    device = look(M2_ULTRA_192GB)
    assert (device.name, device.total) == ("M2 Ultra", 180 * GIB)


@pytest.mark.parametrize(
    ("gigabytes", "megabytes"),  # what llama.cpp's logs of such Macs say
    [
        (8, 5461),
        (16, 10922),
        (18, 12288),
        (24, 16384),
        (32, 21845),
        (36, 27648),
        (48, 36864),
        (64, 49152),
        (192, 147456),
    ],
)
def test_what_macos_gives_the_gpu(gigabytes: int, megabytes: int) -> None:
    assert apple.gpu_limit(gigabytes * GIB) // MIB == megabytes


def test_a_limit_beyond_the_memory_is_the_memory() -> None:
    assert apple.gpu_limit(8 * GIB, set_megabytes=99_999) == 8 * GIB


def test_a_python_for_intel_macs_is_noted() -> None:
    notes: list[Note] = []
    printed = M1_8GB.replace("proc_translated: 0", "proc_translated: 1")
    apple.devices(answers(printed), SystemMemory(8 * GIB, 4 * GIB), notes)
    assert len(notes) == 1
    assert "Rosetta" in notes[0].text


def test_macs_with_intel_processors_have_no_such_gpu() -> None:
    assert apple.devices(answers(INTEL_MAC), SystemMemory(16 * GIB, 8 * GIB), []) == []
    assert apple.devices({}, SystemMemory(16 * GIB, 8 * GIB), []) == []


def test_processors_of_macs(tmp_path: Path) -> None:
    nowhere = tmp_path
    m4, intel = answers(M4_MAX_128GB), answers(INTEL_MAC)
    assert cpu_name(nowhere, m4) == "Apple M4 Max"
    assert (cores(nowhere, m4, None), cores(nowhere, intel, None)) == (12, 8)
    assert simd(nowhere, answers(M1_8GB)) == ("NEON", "DOTPROD")
    assert simd(nowhere, m4) == ("NEON", "DOTPROD", "I8MM")
    assert simd(nowhere, intel) == ("AVX", "AVX2", "F16C", "FMA", "BMI2")


def test_sysctl_that_cannot_be_run() -> None:
    def missing(keys: Sequence[str]) -> str:
        assert "hw.memsize" in keys
        raise FileNotFoundError

    assert apple.answers(missing) == {}
