from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from hermes_cli.hardware.backends import fix_for
from hermes_cli.hardware.probe import Sources, probe
from hermes_cli.hardware.system import Memory

Tree = Callable[[Mapping[str, str | bytes]], Path]
GIB = 2**30

LAPTOP: dict[str, str | bytes] = {
    "proc/cpuinfo": "model name\t: Intel(R) Core(TM) Ultra 7 258V\nflags\t\t: avx avx2 fma f16c bmi2 avx_vnni\n",
    "proc/self/cgroup": "0::/user.slice\n",
    "etc/os-release": 'PRETTY_NAME="Fedora Linux 43 (Workstation Edition)"\n',
    "sys/class/drm/card1/device/vendor": "0x8086\n",
    "sys/class/drm/card1/device/device": "0x64a0\n",
    "sys/class/drm/card1/device/uevent": "DRIVER=xe\nPCI_SLOT_NAME=0000:00:02.0\n",
    "usr/share/hwdata/pci.ids": "8086  Intel Corporation\n\t64a0  Lunar Lake [Intel Arc Graphics 130V / 140V]\n",
}
CARD: dict[str, str | bytes] = {
    "sys/class/drm/card0/device/vendor": "0x1002\n",
    "sys/class/drm/card0/device/product_name": "AMD Radeon RX 7900 XTX\n",
    "sys/class/drm/card0/device/uevent": "DRIVER=amdgpu\nPCI_SLOT_NAME=0000:03:00.0\n",
    "sys/class/drm/card0/device/mem_info_vram_total": f"{24 * GIB}\n",
    "sys/class/drm/card0/device/gpu_metrics": bytes([0x78, 0x00, 1, 3]),
}


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERMES_LLM_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def libraries(tmp_path: Path) -> Path:
    folder = tmp_path / "libraries"
    folder.mkdir()
    (folder / "libggml-vulkan.so").touch()
    return folder


def sources(root: Path, libraries: Path | None = None) -> Sources:
    return Sources(
        root=root,
        environ={},
        amdsmi=lambda: None,
        sysctl=None,
        host_memory=lambda: Memory(32 * GIB, 20 * GIB),
        allowed_cpus=lambda: {0, 1, 2, 3},
        libraries=lambda: libraries,
    )


@pytest.mark.skipif(sys.platform != "linux", reason="a recorded Linux")
def test_a_laptop(tree: Tree, libraries: Path, tmp_path: Path) -> None:
    machine = probe(measure=False, sources=sources(tree(LAPTOP), libraries))
    assert (machine.ram_total, machine.ram_available) == (32 * GIB, 20 * GIB)
    assert (machine.ram_bandwidth, machine.ram_bandwidth_source) == (None, "assumed")
    assert (machine.cpu, machine.cores) == ("Intel(R) Core(TM) Ultra 7 258V", 4)
    assert machine.simd == ("AVX", "AVX2", "AVX_VNNI", "F16C", "FMA", "BMI2")
    assert machine.os.startswith("Fedora Linux 43 (Workstation Edition), Linux ")
    assert machine.disk_path == str(tmp_path / "hub")
    assert machine.disk_free > 0
    assert machine.backends == ("cpu", "vulkan")
    assert (machine.simulated, machine.notes) == (False, ())
    (device,) = machine.usable_devices
    assert (device.name, device.backend, device.total) == ("Arc Graphics 130V / 140V", "vulkan", 24 * GIB)


def test_a_mac() -> None:
    printed = "hw.memsize: 17179869184\nhw.perflevel0.physicalcpu: 4\nmachdep.cpu.brand_string: Apple M2\n"
    mac = replace(sources(Path("nowhere")), sysctl=lambda _: printed, host_memory=lambda: Memory(16 * GIB, 9 * GIB))
    machine = probe(measure=False, sources=mac)
    assert (machine.cpu, machine.cores, machine.simd) == ("Apple M2", 4, ("NEON",))
    (device,) = machine.devices
    assert (device.name, device.free, device.unified) == ("M2", 9 * GIB, True)
    assert (device.usable, device.fix) == (False, fix_for("metal"))


def test_measured_once_and_then_known(tree: Tree) -> None:
    here = sources(tree({"proc/cpuinfo": "model name : Some CPU\n"}))
    first = probe(sources=here)
    assert first.ram_bandwidth_source == "measured"
    assert probe(measure=False, sources=here).ram_bandwidth == first.ram_bandwidth
    other = replace(here, allowed_cpus=lambda: {0})
    assert probe(measure=False, sources=other).ram_bandwidth is None


def test_builds_for_nothing_that_is_here(tree: Tree) -> None:
    machine = probe(measure=False, sources=sources(tree(LAPTOP | CARD)))
    assert machine.backends == ("cpu",)
    assert machine.usable_devices == ()
    assert [(device.vendor, device.fix) for device in machine.devices] == [
        ("amd", fix_for("vulkan")),
        ("intel", fix_for("vulkan")),
    ]


def test_beside_a_card_the_processors_gpu_is_left_alone(tree: Tree, libraries: Path) -> None:
    machine = probe(measure=False, sources=sources(tree(LAPTOP | CARD), libraries))
    assert [device.name for device in machine.devices] == ["Radeon RX 7900 XTX", "Arc Graphics 130V / 140V"]
    assert [device.name for device in machine.usable_devices] == ["Radeon RX 7900 XTX"]
    assert (
        "llama.cpp does not use Arc Graphics 130V / 140V while there is a card with memory of its own." in machine.notes
    )


def test_a_driver_that_fails_in_its_own_way(tree: Tree, libraries: Path) -> None:
    def broken(_: Path, __: list[str]) -> ModuleType | None:
        raise MemoryError("of the driver")

    here = replace(sources(tree(LAPTOP), libraries), nvml=broken)
    machine = probe(measure=False, sources=here)
    assert [device.vendor for device in machine.devices] == ["intel"]
    assert machine.notes == ("NVIDIA's GPUs could not be looked at (MemoryError: of the driver).",)


def test_a_container_is_the_machine(tree: Tree) -> None:
    limits = {"sys/fs/cgroup/memory.max": f"{8 * GIB}\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"}
    machine = probe(measure=False, sources=sources(tree({"proc/self/cgroup": "0::/\n"} | limits)))
    assert (machine.ram_total, machine.ram_available, machine.cores) == (8 * GIB, 8 * GIB, 2)


def test_this_machine_and_what_it_costs_to_look() -> None:
    program = """
import sys
from hermes_cli.hardware.probe import probe
machine = probe(measure=False)
assert 0 < machine.ram_available <= machine.ram_total
assert machine.cores >= 1 and machine.cpu and machine.os and machine.disk_free > 0
assert "cpu" in machine.backends
print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    heavy = {"llama_cpp", "numpy", "huggingface_hub", "rich", "typer", "pydantic", "httpx2", "yaml"}
    assert not heavy & set(done.stdout.split())


def test_importing_the_probe_imports_no_vendors() -> None:
    program = "import sys, hermes_cli.hardware.probe; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"pynvml", "psutil", "amdsmi"} & set(done.stdout.split())
