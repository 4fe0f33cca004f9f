"""The probe as a whole, and the backends of the installed llama.cpp."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pynvml  # type: ignore[import-untyped]
import pytest

from hermes_cli.hardware import bandwidth
from hermes_cli.hardware.advice import BUILDS, CUDA_12_WHEEL, install_command
from hermes_cli.hardware.machine import Backend, Device, Machine, Note, Vendor
from hermes_cli.hardware.probe import (
    ProbeSources,
    assign_backends,
    built_backends,
    cuda_release,
    library_folder,
    probe,
)
from hermes_cli.hardware.system import SystemMemory

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
    monkeypatch.setenv("HERMES_LLM_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    # a short look at the RAM: tests/hardware/test_bandwidth.py looks longer
    for name, value in {"TRIES": 1, "SECONDS": 0.001, "SMALLEST": 1 << 24, "LARGEST": 1 << 24}.items():
        monkeypatch.setattr(bandwidth, name, value)


@pytest.fixture
def libraries(tmp_path: Path) -> Path:
    folder = tmp_path / "libraries"
    folder.mkdir()
    (folder / "libggml-vulkan.so").touch()
    return folder


def sources(root: Path, libraries: Path | None = None) -> ProbeSources:
    return ProbeSources(
        root=root,
        environ={},
        amdsmi=lambda: None,
        sysctl=None,
        host_memory=lambda: SystemMemory(32 * GIB, 20 * GIB),
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
    assert not machine.simulated
    (device,) = machine.usable_devices
    assert (device.name, device.backend, device.total) == ("Arc Graphics 130V / 140V", "vulkan", 24 * GIB)
    unknown = "The memory bandwidth of Arc Graphics 130V / 140V is unknown: "
    assert [note.text[: len(unknown)] for note in machine.notes] == [unknown]


def test_a_mac() -> None:
    printed = "hw.memsize: 17179869184\nhw.perflevel0.physicalcpu: 4\nmachdep.cpu.brand_string: Apple M2\n"
    mac = replace(
        sources(Path("nowhere")), sysctl=lambda _: printed, host_memory=lambda: SystemMemory(16 * GIB, 9 * GIB)
    )
    machine = probe(measure=False, sources=mac)
    assert (machine.cpu, machine.cores, machine.simd) == ("Apple M2", 4, ("NEON",))
    (device,) = machine.devices
    assert (device.name, device.free, device.unified) == ("M2", 9 * GIB, True)
    assert (device.usable, device.fix) == (False, install_command("metal"))


def test_measured_once_and_then_known(tree: Tree) -> None:
    here = sources(tree({"proc/cpuinfo": "model name : Some CPU\n"}))
    first = probe(sources=here)
    assert first.ram_bandwidth_source == "measured"
    assert probe(measure=False, sources=here).ram_bandwidth == first.ram_bandwidth
    other = replace(here, allowed_cpus=lambda: {0})
    assert probe(measure=False, sources=other).ram_bandwidth is None


def test_builds_for_nothing_that_is_here(tree: Tree) -> None:
    """The card comes first: another build for the GPU that would then be left alone helps nobody."""
    machine = probe(measure=False, sources=sources(tree(LAPTOP | CARD)))
    assert machine.backends == ("cpu",)
    assert machine.usable_devices == ()
    reason = "the installed llama-cpp-python was built without Vulkan"
    assert [(device.vendor, device.reason, device.fix) for device in machine.devices] == [
        ("amd", reason, install_command("vulkan")),
        ("intel", reason, ""),
    ]


def test_beside_a_card_the_processors_gpu_is_left_alone(tree: Tree, libraries: Path) -> None:
    machine = probe(measure=False, sources=sources(tree(LAPTOP | CARD), libraries))
    assert [device.name for device in machine.devices] == ["Radeon RX 7900 XTX", "Arc Graphics 130V / 140V"]
    assert [device.name for device in machine.usable_devices] == ["Radeon RX 7900 XTX"]
    arc = machine.devices[1]
    assert arc.reason == "llama.cpp leaves a GPU that shares the RAM alone beside a card with memory of its own"
    assert arc.fix == ""
    assert machine.notes == ()


def test_a_driver_that_fails_in_its_own_way(tree: Tree, libraries: Path) -> None:
    def broken(_: Path, __: list[Note]) -> ModuleType | None:
        raise MemoryError("of the driver")

    here = replace(sources(tree(LAPTOP), libraries), nvml=broken)
    machine = probe(measure=False, sources=here)
    assert [device.vendor for device in machine.devices] == ["intel"]
    assert Note("devices", "NVIDIA's GPUs could not be looked at (MemoryError: of the driver).") in machine.notes


def test_a_container_is_the_machine(tree: Tree) -> None:
    limits = {"sys/fs/cgroup/memory.max": f"{8 * GIB}\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"}
    machine = probe(measure=False, sources=sources(tree({"proc/self/cgroup": "0::/\n"} | limits)))
    assert (machine.ram_total, machine.ram_available, machine.cores) == (8 * GIB, 8 * GIB, 2)
    limited = "Of the machine's 34.36 GB of RAM, 8.59 GB may be used here"
    assert machine.notes == (Note("ram", f"{limited}: its cgroup (a container or a service) is limited."),)


def test_a_container_without_sys_and_proc_is_still_a_machine(tmp_path: Path) -> None:
    machine = probe(measure=False, sources=sources(tmp_path / "nothing"))
    assert (machine.devices, machine.cores, machine.notes) == ((), 4, ())
    assert (machine.ram_total, machine.ram_available) == (32 * GIB, 20 * GIB)


def nvidia_card(name: str, mebibytes: int, **answers: object) -> ModuleType:
    """A module pynvml whose one card tells its name, its memory, and what else is given."""
    told = {"Name": name, "MemoryInfo": SimpleNamespace(total=mebibytes << 20, free=mebibytes << 20)} | answers
    module = ModuleType("pynvml")
    vars(module).update({name: getattr(pynvml, name) for name in dir(pynvml) if name.startswith("NVML")})
    vars(module).update({f"nvmlDeviceGet{key}": lambda *_, value=value: value for key, value in told.items()})
    vars(module).update(
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetCount=lambda: 1,
        nvmlDeviceGetHandleByIndex=lambda index: index,
    )
    return module


def with_card(tree: Tree, module: ModuleType) -> Machine:
    return probe(measure=False, sources=replace(sources(tree({})), nvml=lambda _, __: module))


def mac(chip: str, gibibytes: int, *, measure: bool = False) -> Machine:
    printed = f"hw.memsize: {gibibytes * GIB}\nmachdep.cpu.brand_string: Apple {chip}\n"
    memory = SystemMemory(gibibytes * GIB, gibibytes * GIB // 2)
    return probe(
        measure=measure,
        sources=replace(sources(Path("nowhere")), sysctl=lambda _: printed, host_memory=lambda: memory),
    )


def bandwidth_of(machine: Machine) -> tuple[float | None, str]:
    (device,) = machine.devices
    return device.bandwidth, device.bandwidth_source


@pytest.mark.parametrize(
    ("chip", "gibibytes", "gb_per_s"),
    [
        ("M1", 8, 68),
        ("M4 Pro", 48, 273),
        ("M3 Max", 36, 300),  # two variants of one name, told apart by their memory
        ("M3 Max", 96, 300),
        ("M3 Max", 64, 400),
        ("M4 Max", 36, 410),
        ("M4 Max", 128, 546),
    ],
)
def test_the_table_tells_the_bandwidth_of_macs(chip: str, gibibytes: int, gb_per_s: float) -> None:
    machine = mac(chip, gibibytes)
    assert bandwidth_of(machine) == (gb_per_s * 1e9, "table")
    assert machine.notes == ()


@pytest.mark.parametrize(("chip", "gibibytes"), [("M4 Max", 24), ("M1 (Virtual)", 8), ("M99", 64)])
def test_a_chip_that_the_table_leaves_open_stays_unknown(chip: str, gibibytes: int) -> None:
    machine = mac(chip, gibibytes)
    assert bandwidth_of(machine) == (None, "assumed")
    unknown = f"The memory bandwidth of {chip} is unknown: neither its driver nor the table of GPUs tells it"
    text = f"{unknown}; hardware.yaml can (docs/planning.md)."
    assert machine.notes == (Note("devices", text),)


def test_what_a_macs_processor_reads_is_not_what_its_gpu_could() -> None:
    machine = mac("M99 Max", 64, measure=True)
    assert machine.ram_bandwidth
    assert bandwidth_of(machine) == (None, "assumed")


def test_the_table_tells_what_a_driver_is_silent_about(tree: Tree) -> None:
    machine = with_card(tree, nvidia_card("NVIDIA GeForce RTX 4060 Laptop GPU", 8188))
    assert bandwidth_of(machine) == (256e9, "table")
    assert machine.notes == ()


def test_what_the_driver_tells_comes_before_the_table(tree: Tree) -> None:
    card = nvidia_card("NVIDIA GeForce RTX 4090", 24564, MemoryBusWidth=384, MaxClockInfo=9000)
    assert bandwidth_of(with_card(tree, card)) == (864e9, "probed")


@pytest.mark.parametrize(("width", "megahertz"), [(384, 0), (0, 9000), (384, 2**32 - 1), (1, 1)])
def test_an_absurd_answer_is_none(tree: Tree, width: int, megahertz: int) -> None:
    card = nvidia_card("NVIDIA GeForce RTX 4090", 24564, MemoryBusWidth=width, MaxClockInfo=megahertz)
    assert bandwidth_of(with_card(tree, card)) == (1008e9, "table")


def test_a_slice_of_a_card_is_not_the_card(tree: Tree) -> None:
    for name, mebibytes in [("NVIDIA A100-SXM4-80GB", 9728), ("NVIDIA A100-SXM4-80GB MIG 1g.10gb", 9728)]:
        assert bandwidth_of(with_card(tree, nvidia_card(name, mebibytes))) == (None, "assumed")


@pytest.mark.parametrize(
    ("total", "free", "left"), [(1 << 60, 1 << 60, (0, 0)), (1 << 33, 1 << 34, (1 << 33, 1 << 33))]
)
def test_absurd_memory_is_cut_to_what_can_be(tree: Tree, total: int, free: int, left: tuple[int, int]) -> None:
    card = nvidia_card("NVIDIA X", 1, MemoryInfo=SimpleNamespace(total=total, free=free))
    (device,) = with_card(tree, card).devices
    assert (device.total, device.free) == left


def test_a_gpu_in_the_processor_is_as_fast_as_the_ram_that_it_shares(tree: Tree, libraries: Path) -> None:
    machine = probe(sources=sources(tree(LAPTOP), libraries))
    assert machine.ram_bandwidth
    assert bandwidth_of(machine) == (machine.ram_bandwidth, "measured")
    assert all("while the RAM's bandwidth was measured" in note.text for note in machine.notes)  # others may be busy


def test_two_cards_of_a_kind_are_noted_once(tree: Tree) -> None:
    module = nvidia_card("NVIDIA Something", 8192)
    vars(module)["nvmlDeviceGetCount"] = lambda: 2
    machine = with_card(tree, module)
    assert len(machine.devices) == 2
    assert len(machine.notes) == 1


def devices_with(tree: Tree, libraries: Path, **environ: str) -> tuple[tuple[Device, ...], tuple[Note, ...]]:
    """What is found of two GPUs, NVIDIA's and AMD's, by a build for Vulkan."""
    module = nvidia_card("NVIDIA GeForce RTX 4090", 24564, UUID="GPU-1")
    here = replace(sources(tree(CARD), libraries), nvml=lambda _, __: module, environ=environ)
    machine = probe(measure=False, sources=here)
    return machine.devices, machine.notes


def test_variables_of_cuda_and_rocm_hide_nothing_from_vulkan(tree: Tree, libraries: Path) -> None:
    found, notes = devices_with(tree, libraries, CUDA_VISIBLE_DEVICES="", ROCR_VISIBLE_DEVICES="")
    assert [(device.vendor, device.backend) for device in found] == [("nvidia", "vulkan"), ("amd", "vulkan")]
    assert notes == ()
    _, (note,) = devices_with(tree, libraries, GGML_VK_VISIBLE_DEVICES="1")
    assert note.fix == "unset GGML_VK_VISIBLE_DEVICES"
    (libraries / "libggml-vulkan.so").rename(libraries / "libggml-cuda.so")
    found, notes = devices_with(tree, libraries, CUDA_VISIBLE_DEVICES="")
    assert found == ()
    assert {note.fix for note in notes} == {"unset CUDA_VISIBLE_DEVICES"}


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


BASE = ("libggml-base.so", "libggml-base.so.0.25.3", "libggml-cpu.so", "libggml.so", "libllama.so")


def folder(tmp_path: Path, *names: str) -> Path:
    for name in names:
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("files", "backends"),
    [
        (BASE, ["cpu"]),
        ((*BASE, "libggml-cuda.so"), ["cpu", "cuda"]),
        ((*BASE, "libggml-cuda.so.0.25.3"), ["cpu", "cuda"]),
        ((*BASE, "libggml-hip.so"), ["cpu", "rocm"]),
        ((*BASE, "libggml-vulkan.so", "libggml-cuda.so"), ["cpu", "cuda", "vulkan"]),
        ((*BASE, "libggml-sycl.so"), ["cpu", "sycl"]),
        (("libggml-base.dylib", "libggml-metal.dylib", "libggml-blas.dylib"), ["cpu", "metal"]),
        (("ggml-base.dll", "ggml-vulkan.dll", "llama.dll"), ["cpu", "vulkan"]),
        ((*BASE, "libggml-cuda.so.old", "notes-ggml-hip.so", "libggml-cudart.so"), ["cpu"]),
        ((), ["cpu"]),
    ],
)
def test_libraries_tell_backends(tmp_path: Path, files: tuple[str, ...], backends: list[str]) -> None:
    assert list(built_backends(folder(tmp_path, *files))) == backends


def test_nothing_installed(tmp_path: Path) -> None:
    assert built_backends(None) == ("cpu",)
    assert built_backends(tmp_path / "nowhere") == ("cpu",)


def test_the_installed_llama_cpp(monkeypatch: pytest.MonkeyPatch) -> None:
    """What its files tell is what it says of itself once it is loaded."""
    monkeypatch.delenv("LLAMA_CPP_LIB_PATH", raising=False)
    place = library_folder()
    assert place is not None
    assert list(place.glob("*llama*"))
    asked = subprocess.run(
        [sys.executable, "-c", "import llama_cpp; print(llama_cpp.llama_supports_gpu_offload())"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (built_backends(place) != ("cpu",)) == (asked.stdout.strip() == "True")


def test_llama_cpps_own_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA_CPP_LIB_PATH", str(tmp_path))
    assert library_folder() == tmp_path


def test_one_command_for_each_backend() -> None:
    rebuild = "pip install --force-reinstall --no-cache-dir --no-binary llama-cpp-python llama-cpp-python"
    assert install_command("cuda", windows=False) == f'CMAKE_ARGS="-DGGML_CUDA=on" {rebuild}'
    assert install_command("rocm", windows=False) == f'CMAKE_ARGS="-DGGML_HIP=on" {rebuild}'
    assert install_command("vulkan", windows=False) == f'CMAKE_ARGS="-DGGML_VULKAN=on" {rebuild}'
    assert install_command("metal", windows=False) == f'CMAKE_ARGS="-DGGML_METAL=on" {rebuild}'
    assert "-DGGML_SYCL=on" in install_command("sycl", windows=False)
    assert install_command("cuda", windows=True) == f'{rebuild} -C cmake.args="-DGGML_CUDA=on"'


def device(vendor: Vendor, backend: Backend, *, usable: bool = True, fix: str = "") -> Device:
    return Device(vendor, "GPU", 1, 1, None, "assumed", backend, usable, fix)


@pytest.mark.parametrize(
    ("vendor", "advised", "backends", "used"),
    [
        ("nvidia", "cuda", ("cpu", "cuda"), "cuda"),
        ("nvidia", "cuda", ("cpu", "vulkan"), "vulkan"),
        ("nvidia", "cuda", ("cpu", "cuda", "vulkan"), "cuda"),
        ("amd", "rocm", ("cpu", "vulkan"), "vulkan"),
        ("amd", "rocm", ("cpu", "rocm", "vulkan"), "rocm"),
        ("amd", "vulkan", ("cpu", "rocm", "vulkan"), "vulkan"),  # ROCm does not know it
        ("intel", "vulkan", ("cpu", "sycl"), "sycl"),
        ("apple", "metal", ("cpu", "metal"), "metal"),
    ],
)
def test_devices_get_what_is_built(
    vendor: Vendor, advised: Backend, backends: tuple[Backend, ...], used: Backend
) -> None:
    (one,) = assign_backends([device(vendor, advised)], backends)
    assert (one.backend, one.usable, one.fix) == (used, True, "")


@pytest.mark.parametrize(
    ("vendor", "advised", "backends"),
    [
        ("nvidia", "cuda", ("cpu",)),
        ("nvidia", "cuda", ("cpu", "rocm", "sycl")),
        ("amd", "rocm", ("cpu", "cuda")),
        ("amd", "vulkan", ("cpu", "rocm")),
        ("intel", "vulkan", ("cpu", "cuda")),
        ("apple", "metal", ("cpu",)),
    ],
)
def test_devices_without_a_backend_say_what_helps(
    vendor: Vendor, advised: Backend, backends: tuple[Backend, ...]
) -> None:
    (one,) = assign_backends([device(vendor, advised)], backends)
    assert (one.backend, one.usable, one.fix) == (advised, False, install_command(advised))
    assert one.reason == f"the installed llama-cpp-python was built without {BUILDS[advised].title}"


@pytest.mark.parametrize(
    ("target", "built", "says", "fix"),
    [
        ("gfx1032", ("cpu",), "ROCm has no code for it (HSA_OVERRIDE_GFX_VERSION=10.3.0", "vulkan"),
        ("gfx1032", ("cpu", "rocm"), "built without Vulkan, and ROCm has no code for it", "vulkan"),
        ("gfx1010", ("cpu", "rocm"), "built without Vulkan, and ROCm has no code for it", "vulkan"),
        ("gfx803", ("cpu", "rocm"), "built without Vulkan, and ROCm has no code for it", "vulkan"),
        ("", ("cpu", "rocm"), "the installed llama-cpp-python was built without Vulkan", "vulkan"),
    ],
)
def test_a_card_without_code_of_rocms_is_told_vulkan(
    target: str, built: tuple[Backend, ...], says: str, fix: Backend
) -> None:
    (one,) = assign_backends([replace(device("amd", "vulkan"), compute_capability=target)], built)
    assert (one.usable, one.fix) == (False, install_command(fix))
    assert says in one.reason


@pytest.mark.parametrize(
    ("capability", "built", "release", "reason"),
    [
        ("6.1", ("cpu", "cuda"), 13, "CUDA 13 has no code for compute capability 6.1"),
        ("7.0", ("cpu", "cuda"), 13, "CUDA 13 has no code for compute capability 7.0"),
        ("7.5", ("cpu", "cuda"), 13, ""),
        ("6.1", ("cpu", "cuda"), 12, ""),
        ("6.1", ("cpu", "cuda"), 0, ""),
        ("3.7", ("cpu", "cuda"), 12, "CUDA 12 has no code for compute capability 3.7"),
        ("3.5", ("cpu", "cuda"), 13, "CUDA 13 has no code for compute capability 3.5, Vulkan and CUDA 11 have"),
        ("6.1", ("cpu",), 0, "was built without CUDA, and CUDA 13 has no code for it, CUDA 12 has"),
    ],
)
def test_an_old_card_needs_an_old_cuda(capability: str, built: tuple[Backend, ...], release: int, reason: str) -> None:
    (one,) = assign_backends([replace(device("nvidia", "cuda"), compute_capability=capability)], built, release)
    assert one.usable == (not reason)
    assert reason in one.reason
    assert bool(one.fix) == bool(reason)
    assert "cu124" in one.fix or not reason or capability[0] == "3"


@pytest.mark.parametrize("release", [12, 13])
@pytest.mark.parametrize(
    ("name", "mebibytes", "capability"), [("Tesla K80", 11441, (3, 7)), ("GeForce GT 710", 2002, (3, 5))]
)
def test_kepler_is_not_used_by_a_build_with_a_later_cuda(
    tree: Tree, tmp_path: Path, release: int, name: str, mebibytes: int, capability: tuple[int, int]
) -> None:
    (tmp_path / "libggml-cuda.so").write_bytes(f"\x7fELF.\0libcudart.so.{release}\0".encode())
    module = nvidia_card(name, mebibytes, CudaComputeCapability=capability)
    here = replace(sources(tree({}), tmp_path), nvml=lambda _, __: module)
    (card,) = probe(measure=False, sources=here).devices
    assert (card.usable, card.backend, card.fix) == (False, "vulkan", install_command("vulkan"))
    assert f"CUDA {release} has no code" in card.reason


@pytest.mark.parametrize("name", ["libggml-cuda.so", "ggml-cuda.dll"])
@pytest.mark.parametrize(
    ("content", "release"),
    [(b"\x7fELF.\0libcudart.so.13\0", 13), (b"MZ\0cudart64_12.dll\0", 12), (b"static", 0), (b"", 0)],
)
def test_the_release_of_cuda_that_llama_cpp_was_built_with(
    tmp_path: Path, name: str, content: bytes, release: int
) -> None:
    (tmp_path / name).write_bytes(content)
    assert cuda_release(tmp_path) == release
    assert cuda_release(tmp_path / "nowhere") == cuda_release(None) == 0


def test_a_pascal_card_with_a_wheel_for_cuda_13(tree: Tree, libraries: Path) -> None:
    (libraries / "libggml-vulkan.so").unlink()
    (libraries / "libggml-cuda.so").write_bytes(b"\0libcudart.so.13\0")
    card = nvidia_card("Tesla P40", 24576, CudaComputeCapability=(6, 1))
    machine = probe(measure=False, sources=replace(sources(tree({}), libraries), nvml=lambda _, __: card))
    assert [(one.usable, one.fix) for one in machine.devices] == [(False, CUDA_12_WHEEL)]
    (libraries / "libggml-cuda.so").write_bytes(b"\0libcudart.so.12\0")
    machine = probe(measure=False, sources=replace(sources(tree({}), libraries), nvml=lambda _, __: card))
    assert [(one.usable, one.fix) for one in machine.devices] == [(True, "")]


def test_cards_of_two_vendors_need_one_build_for_both() -> None:
    mine = [device("nvidia", "cuda"), device("amd", "rocm")]
    assert [one.fix for one in assign_backends(mine, ("cpu",))] == [install_command("vulkan")] * 2
    first, second = assign_backends(mine, ("cpu", "cuda"))
    assert (first.backend, first.usable) == ("cuda", True)
    assert (second.usable, second.fix) == (False, install_command("vulkan"))
    assert [one.backend for one in assign_backends(mine, ("cpu", "vulkan"))] == ["vulkan"] * 2


def test_a_gpu_in_the_processor_does_not_make_it_two_vendors() -> None:
    mine = [device("nvidia", "cuda"), replace(device("intel", "vulkan"), unified=True)]
    assert [one.fix for one in assign_backends(mine, ("cpu",))] == [install_command("cuda"), install_command("vulkan")]


def test_what_else_is_wrong_stays() -> None:
    hidden = device("nvidia", "cuda", usable=False, fix="export CUDA_VISIBLE_DEVICES=MIG-1")
    assert assign_backends([hidden], ("cpu", "cuda")) == [hidden]
    assert assign_backends([hidden], ("cpu",)) == [hidden]
