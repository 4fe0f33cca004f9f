"""`probe()`: this machine as a Machine. Takes 15 ms on one without GPUs, and 0.3 s more when RAM is to be measured.

Nothing that a driver does can fail it: what could not be found out becomes one of the machine's notes. The backends of
the installed llama-cpp-python are read off its files, because an import takes 0.1 s.
"""

from __future__ import annotations

import mmap
import os
import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hermes_cli import paths
from hermes_cli.hardware import amd, apple, bandwidth, intel, nvidia, system
from hermes_cli.hardware.advice import BEFORE_CUDA_12, BEFORE_CUDA_13, BUILDS, Advice, advice, install_command
from hermes_cli.hardware.machine import SERVED_BY, Backend, Device, Machine, Note, ValueSource, Vendor
from hermes_cli.hardware.system import SystemMemory
from hermes_cli.units import memory_size

if TYPE_CHECKING:
    from types import ModuleType

    from hermes_cli.hardware.corrections import Corrections

VULKANS_CHOICE = "GGML_VK_VISIBLE_DEVICES"  # indexes among Vulkan's devices
LARGEST_MEMORY = 1 << 46  # bytes; no device has 64 TiB
SLOWEST_MEMORY, FASTEST_MEMORY = 1e9, 1e14  # bytes per second; no GPU's memory is slower or faster


# ggml builds every backend as a library of its own, libggml-cuda.so or ggml-cuda.dll (ggml/src/CMakeLists.txt).
LIBRARY = re.compile(r"(?:lib)?ggml-(\w+)\.(?:so|dylib|dll)(?:\.[\d.]+)?")
CUDA_RUNTIME = re.compile(rb"(?:libcudart\.so\.|cudart64_)(\d+)")  # what a library built with CUDA loads


def library_folder() -> Path | None:
    """Return the folder of llama_cpp's libraries, None if it is not installed."""
    chosen = os.environ.get("LLAMA_CPP_LIB_PATH")  # llama_cpp's own variable
    if chosen:
        return Path(chosen)
    spec = find_spec("llama_cpp")  # of a package at the top this runs nothing
    return Path(spec.origin).parent / "lib" if spec and spec.origin else None


def built_backends(folder: Path | None) -> tuple[Backend, ...]:
    """The backends whose libraries are in the folder; the CPU always."""
    files = folder.glob("*ggml-*") if folder else ()
    libraries = {match[1] for file in files if (match := LIBRARY.fullmatch(file.name))}
    return ("cpu", *(backend for backend, build in BUILDS.items() if build.library in libraries))


def cuda_release(folder: Path | None) -> int:
    """Return the release of CUDA that llama.cpp was built with, 12 or 13; 0 if its library does not tell."""
    for name in ("libggml-cuda.so", "ggml-cuda.dll"):
        with (
            suppress(OSError, ValueError),
            (folder or Path()).joinpath(name).open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            release = CUDA_RUNTIME.search(content)
            return int(release[1]) if release else 0
    return 0


def _read_adapters() -> list[Mapping[str, Any]]:
    from hermes_cli.hardware import windows  # noqa: PLC0415 - Windows only, and it reads the table of GPUs

    return windows.read_adapters()


@dataclass(frozen=True)
class ProbeSources:
    """Sources of the probe. The defaults are this machine; tests give recorded ones."""

    root: Path = Path("/")  # of the file system
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)  # variables that hide or order GPUs
    # gives pynvml, or None where there is no NVIDIA driver
    nvml: Callable[[Path, list[Note]], ModuleType | None] = nvidia.load
    amdsmi: Callable[[], ModuleType | None] = amd.load_smi  # gives amdsmi, or None where ROCm did not bring it
    # runs sysctl, None where that is not macOS
    sysctl: apple.Sysctl | None = apple.run_sysctl if sys.platform == "darwin" else None
    host_memory: Callable[[], SystemMemory] = system.host_memory  # the whole machine's RAM
    allowed_cpus: Callable[[], set[int] | None] = system.allowed_cpus  # logical CPUs this process may run on
    libraries: Callable[[], Path | None] = library_folder  # the folder of llama.cpp's libraries
    # gives Windows' display adapters; None where that is not Windows
    registry: Callable[[], list[Mapping[str, Any]]] | None = _read_adapters if sys.platform == "win32" else None
    # the file in which a person corrects what is found (corrections.py)
    corrections: Callable[[], Path] = lambda: paths.config_dir() / "hardware.yaml"


def probe(
    *,
    measure: bool = True,  # whether to measure RAM's bandwidth if that is due
    sources: ProbeSources | None = None,  # where to look instead of at this machine
) -> Machine:
    """Look at this machine; raise UsageError if hardware.yaml is no good."""
    sources = sources or ProbeSources()
    notes: list[Note] = []
    root, sysctl = sources.root, apple.answers(sources.sysctl) if sources.sysctl else {}
    host = sources.host_memory()
    ram = system.within_limits(root, host)
    if ram.total < host.total:
        limited = f"Of the machine's {memory_size(host.total)} of RAM, {memory_size(ram.total)} may be used here"
        notes.append(Note("ram", f"{limited}: its cgroup (a container or a service) is limited."))
    corrections = _corrections(sources.corrections())
    ram = corrections.corrected_ram(ram) if corrections else ram
    given_bandwidth = corrections.ram_bandwidth if corrections else None
    cpu, cores = system.cpu_name(root, sysctl), system.cores(root, sysctl, sources.allowed_cpus())
    cache = system.last_level_cache(root)
    best = None if given_bandwidth else bandwidth.ram_bandwidth(cpu, cores, ram, cache=cache, measured=measure)
    ram_bandwidth = best.speed if best else given_bandwidth
    if best and best.load > bandwidth.CALM:
        busy = f"other programs used {best.load:.0%} of the processors while the RAM's bandwidth was measured"
        notes.append(Note("bandwidth", f"{busy}; a later run measures again, and may find this machine faster"))
    bandwidth_source: ValueSource = "given" if given_bandwidth else "measured" if ram_bandwidth else "assumed"
    backends = built_backends(sources.libraries())
    found = _devices(sources, sysctl, ram, backends, notes)
    before = f"{BEFORE_CUDA_12} {BEFORE_CUDA_13}".split()
    old = "cuda" in backends and any(device.compute_capability in before for device in found)
    release = cuda_release(sources.libraries()) if old else 0
    reported = [_plausible(device) for device in _cards_first(assign_backends(found, backends, release))]
    devices = corrections.corrected_devices(reported, ram, notes) if corrections else reported
    disk = paths.models_dir()
    return Machine(
        devices=tuple(
            _with_speed(device, host.total if one.unified else one.total, (ram_bandwidth, bandwidth_source), notes)
            for device, one in zip(devices, reported, strict=True)
        ),
        ram_total=ram.total,
        ram_available=ram.available,
        ram_bandwidth=ram_bandwidth,
        ram_bandwidth_source=bandwidth_source,
        cpu=cpu,
        cores=cores,
        simd=system.simd(root, sysctl),
        os=system.os_text(root),
        disk_path=str(disk),
        disk_free=system.disk_free(disk),
        backends=backends,
        notes=tuple(dict.fromkeys(notes)),
        ram_source="given" if corrections and corrections.ram.memory else "probed",
    )


def _corrections(file: Path) -> Corrections | None:
    """Return the contents of hardware.yaml, None if there is no such file; only then is its reader imported (50 ms)."""
    if not file.exists():
        return None
    from hermes_cli.hardware.corrections import read_corrections  # noqa: PLC0415 - as above

    return read_corrections(file)


def _devices(
    sources: ProbeSources, sysctl: Mapping[str, str], ram: SystemMemory, built: tuple[Backend, ...], notes: list[Note]
) -> list[Device]:
    """All GPUs, in the order in which llama.cpp registers what drives them (ggml/src/ggml-backend-reg.cpp)."""
    root, environ = sources.root, sources.environ

    def of_nvidia() -> list[Device]:
        nvml = sources.nvml(root, notes)
        # Vulkan does not mind CUDA's variables
        minded = {} if _driving_backend("nvidia", built) == "vulkan" else environ
        return nvidia.devices(nvml, root, ram, minded, notes)

    def of_amd() -> list[Device]:
        through_vulkan = _driving_backend("amd", built) == "vulkan"
        return amd.devices(root, ram, environ, notes, sources.amdsmi, through_vulkan=through_vulkan)

    def of_windows() -> list[Device]:
        if sources.registry is None:
            return []
        from hermes_cli.hardware import windows  # noqa: PLC0415 - as above

        return windows.devices(sources.registry(), ram, built, notes)

    vendors: dict[str, Callable[[], list[Device]]] = {
        "NVIDIA": of_nvidia,
        "AMD and Intel": of_windows,
        "AMD": of_amd,
        "Apple": lambda: apple.devices(sysctl, ram, notes),
        "Intel": lambda: intel.devices(root, ram, notes),
    }
    devices: list[Device] = []
    for vendor, devices_of_vendor in vendors.items():
        try:
            devices += devices_of_vendor()
        except Exception as error:  # noqa: BLE001 - a driver's surprise must not keep people from their CPU
            failure = f"{type(error).__name__}: {error}"
            notes.append(Note("devices", f"{vendor}'s GPUs could not be looked at ({failure})."))
    if "vulkan" in built and VULKANS_CHOICE in environ:
        some = f'{VULKANS_CHOICE}="{environ[VULKANS_CHOICE]}" lets llama.cpp use some GPUs only; which, Vulkan decides.'
        notes.append(Note("devices", some, fix=f"unset {VULKANS_CHOICE}"))
    return devices


def _driving_backend(vendor: Vendor, built: Collection[Backend]) -> Backend | None:
    """The backend that drives this vendor's devices, the faster one of two; None if there is none."""
    return next((backend for backend in SERVED_BY[vendor] if backend in built), None)


def assign_backends(
    devices: Sequence[Device],  # as their vendors' modules found them
    built: tuple[Backend, ...],  # the backends of the installed llama.cpp
    cuda_release: int = 0,  # the release of CUDA that it was built with, 0 if unknown
) -> list[Device]:
    """The devices with the backend that will drive them; without one they are not usable, and `fix` says what helps.

    Cards of several vendors are used together with Vulkan only: no build has more of their own backends than one.
    """
    mixed = len({device.vendor for device in devices if not device.unified}) > 1
    assigned = []
    for device in devices:
        without_code = _without_code(device, cuda_release)
        backend = _driving_backend(device.vendor, {*built} - without_code)
        if backend:
            assigned.append(replace(device, backend=backend))
        elif device.usable:
            known = _advised_build(device)
            wanted = "vulkan" if mixed else known.backend or device.backend
            reason = f"the installed llama-cpp-python was built without {BUILDS[wanted].title}"
            if "cuda" in without_code & {*built}:
                reason = f"CUDA {cuda_release} has no code for compute capability {device.compute_capability}"
                reason += ", Vulkan and CUDA 11 have" * (device.compute_capability in BEFORE_CUDA_12.split())
            elif known.text:
                reason = f"{reason}, and {known.text}"
            fix = install_command("vulkan") if mixed else known.fix
            assigned.append(replace(device, backend=wanted, usable=False, reason=reason, fix=fix))
        else:  # what keeps it from being used at all comes first
            assigned.append(device)
    return assigned


def _without_code(device: Device, cuda_release: int) -> set[Backend]:
    """Backends that have no code for a device, whatever was built."""
    if device.vendor == "amd" and device.backend == "vulkan":
        return {"rocm"}
    old = {12: BEFORE_CUDA_12, 13: f"{BEFORE_CUDA_12} {BEFORE_CUDA_13}"}.get(cuda_release, "")
    return {"cuda"} if device.vendor == "nvidia" and device.compute_capability in old.split() else set()


def _advised_build(device: Device) -> Advice:
    """The row of the table of advice for a device that the installed llama.cpp does not serve."""
    if device.vendor == "nvidia":
        return advice("build for NVIDIA", *["unified"] * device.unified, device.compute_capability)
    if device.vendor == "amd":
        row = advice("build for AMD", device.compute_capability or "unknown")
        if row.backend == device.backend:
            return row
    return Advice("build for AMD", "", fix=install_command(device.backend), backend=device.backend)


def _cards_first(devices: list[Device]) -> list[Device]:
    """Beside a card llama.cpp leaves a GPU that shares the RAM alone (llama.cpp, "add integrated GPUs only if …").

    Where the card cannot be used yet, what would make it comes first: no other build is recommended for the other GPU.
    """
    cards = [device for device in devices if not device.unified]
    usable = any(card.usable for card in cards)
    reason = "llama.cpp leaves a GPU that shares the RAM alone beside a card with memory of its own"
    result = []
    for device in devices:
        if device.unified and usable:
            result.append(replace(device, usable=False, reason=reason, fix=""))
        elif device.unified and cards and not device.usable:
            result.append(replace(device, fix=""))
        else:
            result.append(device)
    return result


def _plausible(device: Device) -> Device:
    """The device without numbers that cannot be: memory of 0 and a bandwidth of None are unknown."""
    total = device.total if 0 <= device.total <= LARGEST_MEMORY else 0
    device = replace(device, total=total, free=min(max(device.free, 0), total))
    if device.bandwidth is not None and SLOWEST_MEMORY <= device.bandwidth <= FASTEST_MEMORY:
        return device
    return replace(device, bandwidth=None, bandwidth_source="assumed")


def _with_speed(
    device: Device,  # as the vendor's module found it, or a person corrected it
    # bytes that the driver reports, or of the whole machine's RAM if it shares that: they tell models apart
    memory: int,
    of_ram: tuple[float | None, ValueSource],  # the RAM's bandwidth, None if unknown, and where that is from
    notes: list[Note],  # what stays unknown is added here
) -> Device:
    """The device with everything that can be known of how fast it is."""
    from hermes_cli.hardware.gpus import gpu_reported_as  # noqa: PLC0415 - 10 ms, only where there is a GPU

    listed = gpu_reported_as(device.vendor, device.name, memory or None)
    device = replace(device, operations=listed.operations if listed else None)
    if device.bandwidth is not None:
        return device
    if listed:
        return replace(device, bandwidth=listed.bandwidth, bandwidth_source="table")
    if device.unified and device.vendor != "apple" and of_ram[0]:
        return replace(device, bandwidth=of_ram[0], bandwidth_source=of_ram[1])
    if device.usable or device.fix:  # of one that will not be used nobody needs it
        unknown = f"The memory bandwidth of {device.name} is unknown: neither its driver nor the table of GPUs tells it"
        amdsmi = "; amdsmi, which comes with ROCm, may" if device.vendor == "amd" else ""
        notes.append(Note("devices", f"{unknown}{amdsmi}; hardware.yaml can (docs/planning.md)."))
    return device
