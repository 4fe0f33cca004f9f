"""The machine around the GPUs, within the limits of a container: memory, processor, system, disk; cards in Linux' /sys.

Functions take the root of the file system, or sysctl's answers on a Mac, so that recorded machines serve too. A file
that is absent, forbidden or unreadable is simply unknown: drivers differ in what they show.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from hermes_cli import paths

CPU_FOLDER = "sys/devices/system/cpu"
DISPLAY = 0x03  # the PCI class of display controllers: the top byte of "0x030000"
RECLAIMABLE = ("inactive_file", "active_file", "slab_reclaimable")  # of memory.stat
FAST = 0.6  # of the fastest core's capacity; a core below makes the others wait at every step
JETSON = re.compile(r"(?i)jetson|tegra|nvidia .*(?:orin|xavier|thor)")  # models
PCI_IDS = ("usr/share/hwdata/pci.ids", "usr/share/misc/pci.ids")  # Fedora and Arch; Debian and SUSE

# What llama.cpp has code for (ggml/src/ggml-cpu/ggml-cpu.c), as Linux, macOS and Windows call it.
CPUINFO_FLAGS = {
    "avx": "AVX",
    "avx2": "AVX2",
    "avx512f": "AVX512F",
    "avx512_vnni": "AVX512_VNNI",
    "avx512_bf16": "AVX512_BF16",
    "avx_vnni": "AVX_VNNI",
    "amx_int8": "AMX_INT8",
    "f16c": "F16C",
    "fma": "FMA",
    "bmi2": "BMI2",
    "neon": "NEON",  # 32-bit ARM
    "asimd": "NEON",  # 64-bit ARM
    "asimddp": "DOTPROD",
    "i8mm": "I8MM",
    "sve": "SVE",
}
SYSCTL_FLAGS = {
    "hw.optional.avx1_0": "AVX",
    "hw.optional.avx2_0": "AVX2",
    "hw.optional.avx512f": "AVX512F",
    "hw.optional.f16c": "F16C",
    "hw.optional.fma": "FMA",
    "hw.optional.bmi2": "BMI2",
    "hw.optional.arm.FEAT_DotProd": "DOTPROD",
    "hw.optional.arm.FEAT_I8MM": "I8MM",
}
WINDOWS_FEATURES = {  # PF_…_AVAILABLE of IsProcessorFeaturePresent, winnt.h
    39: "AVX",
    40: "AVX2",
    41: "AVX512F",
    19: "NEON",
    43: "DOTPROD",
    46: "SVE",
}

ARM_CORES = {  # "CPU implementer" and "CPU part" of /proc/cpuinfo, from the cores' reference manuals (MIDR_EL1)
    (0x41, 0xD08): "Cortex-A72",
    (0x41, 0xD0B): "Cortex-A76",
    (0x41, 0xD0C): "Neoverse N1",
    (0x41, 0xD40): "Neoverse V1",
    (0x41, 0xD49): "Neoverse N2",
    (0x41, 0xD4F): "Neoverse V2",
    (0xC0, 0xAC3): "Ampere-1",
}


def read_text(path: Path) -> str:
    """Return the file's text without the final newline; empty if it cannot be read."""
    try:
        return path.read_text("utf-8", "replace").strip("\n\0 ")
    except OSError:
        return ""


def read_number(path: Path) -> int | None:
    """Return the number in the file, decimal or 0x…; None if there is none."""
    try:
        return int(read_text(path), 0)
    except ValueError:
        return None


class SystemMemory(NamedTuple):
    """RAM in bytes: all of it, and what programs can get without swapping."""

    total: int
    available: int


def host_memory() -> SystemMemory:
    """The whole machine's RAM, whatever a container may have of it."""
    kibibytes = dict(re.findall(r"^(\w+): +(\d+) kB$", read_text(Path("/proc/meminfo")), re.MULTILINE))
    total, available = (1024 * int(kibibytes.get(key, 0)) for key in ("MemTotal", "MemAvailable"))
    if 0 < available <= total:
        return SystemMemory(total, available)
    import psutil  # noqa: PLC0415 - 15 ms, and Linux does without

    memory = psutil.virtual_memory()
    return SystemMemory(memory.total, memory.available)


def within_limits(root: Path, host: SystemMemory) -> SystemMemory:
    """Return the RAM that this process's cgroups leave it."""
    total, available = host
    for limit, used in _memory_limits(root):
        total, available = min(total, limit), min(available, limit - used)
    return SystemMemory(total, min(max(available, 0), total))


def _memory_limits(root: Path) -> Iterator[tuple[int, int]]:
    """Bytes, of each group that limits this process: the limit, and what is used without what the kernel would drop.

    Usage counts cached files, a model that was loaded once among them, and the kernel's caches of names (slab): all of
    that is dropped before anything is refused, as LXCFS reckons, too. Version 1 doesn't tell its part of the slab.
    """
    folders, version = _cgroups(root, "memory")
    for folder in folders:
        statistics = dict(re.findall(r"^(\w+) (\d+)$", read_text(folder / "memory.stat"), re.MULTILINE))
        if version == 1:
            # its own, a number just below 2^63 if there is none; and the lowest of groups that a container cannot see
            own = read_number(folder / "memory.limit_in_bytes")
            limits = [own, int(statistics.get("hierarchical_memory_limit", 0))]
            usage, prefix = "memory.usage_in_bytes", "total_"
        else:
            # where the kernel kills, and where it makes the process wait; "max" where it does neither
            limits = [read_number(folder / "memory.max"), read_number(folder / "memory.high")]
            usage, prefix = "memory.current", ""
        reclaimable = sum(int(statistics.get(f"{prefix}{name}", 0)) for name in RECLAIMABLE)
        used = (read_number(folder / usage) or 0) - reclaimable
        if limit := min((limit for limit in limits if limit), default=0):  # with 0 nothing would run
            yield limit, max(used, 0)


def _cpu_quota(root: Path) -> float | None:
    """The CPU time that cgroups leave this process, in CPUs; None if unlimited."""
    folders, version = _cgroups(root, "cpu")
    quotas = []
    for folder in folders:
        if version == 1:
            quota, period = read_text(folder / "cpu.cfs_quota_us"), read_text(folder / "cpu.cfs_period_us")
        else:
            quota, _, period = read_text(folder / "cpu.max").partition(" ")
        if quota.isdecimal() and period.isdecimal() and int(quota) and int(period):  # else "max" or -1, no limit
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def _cgroups(root: Path, controller: str) -> tuple[list[Path], int]:
    """Folders of the process's groups, innermost first, and the cgroup version of this controller.

    /proc/self/cgroup has a line "N:controllers:/path"; that of version 2 has no controllers. Both versions can be
    there at once, and then each controller belongs to one of them: version 1 if that names it.
    """
    groups = re.findall(r"^\d+:([^:]*):(.*)$", read_text(root / "proc/self/cgroup"), re.MULTILINE)
    top, version = root / "sys/fs/cgroup", 2
    path = next((path for controllers, path in groups if not controllers), None)
    for controllers, of_version_1 in groups:
        if controller in controllers.split(","):
            # "cpu" is a link to "cpu,cpuacct" on most systems, not on all
            named = top / controller
            top, path, version = named if named.is_dir() else top / controllers, of_version_1, 1
            break
    if path is None:
        return [], version
    # in a container the path may be the host's: then only the top is there
    parts = [part for part in path.split("/") if part not in {"", "..", "."}]
    folders = [top.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1)]
    return [folder for folder in folders if folder.is_dir()], version


def cpu_name(root: Path, sysctl: Mapping[str, str]) -> str:
    """The processor as its maker calls it; else the board or the core (ARM), or the architecture."""
    info = read_text(root / "proc/cpuinfo")
    model = re.search(r"^model name\s*: (.+)$", info, re.MULTILINE)
    name = sysctl.get("machdep.cpu.brand_string") or (model[1] if model else "")
    if not name:
        # boards by the firmware's device tree ("Raspberry Pi 5 Model B Rev 1.0"), servers by their cores
        ids = dict(re.findall(r"^CPU (implementer|part)\s*: (0x[0-9a-f]+)$", info, re.MULTILINE))
        core = ARM_CORES.get((int(ids.get("implementer", "0"), 0), int(ids.get("part", "0"), 0)), "")
        name = read_text(root / "proc/device-tree/model") or core
    if not name and sys.platform == "win32":
        import winreg  # noqa: PLC0415 - Windows only

        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, r"HARDWARE\DESCRIPTION\System\CentralProcessor\0") as key:
            name = str(winreg.QueryValueEx(key, "ProcessorNameString")[0])
    return " ".join(name.split()) or platform.machine()


def allowed_cpus() -> set[int] | None:
    """The logical CPUs this process may run on, None where the system does not tell (macOS, Windows)."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None


def cores(root: Path, sysctl: Mapping[str, str], allowed: Iterable[int] | None) -> int:
    """Physical cores this process may use: llama.cpp gains nothing from a second thread on a core.

    Of processors with fast and slow cores the fast ones only, as llama.cpp counts (common_cpu_get_num_math): threads go
    in step, at the pace of the slowest. Of a quota of CPU time, whole cores: more threads than that spend part of each
    period stopped, with the others waiting for them.
    """
    physical = int(sysctl.get("hw.perflevel0.physicalcpu") or sysctl.get("hw.physicalcpu") or 0)
    if not physical:
        fast = _performance_cpus(root, set(allowed or ()))
        folders = [(cpu, root / CPU_FOLDER / f"cpu{cpu}/topology") for cpu in fast]
        # a core is identified by the list of its logical CPUs ("0,16"); newer kernels first
        names = ("core_cpus_list", "thread_siblings_list")
        physical = len({read_text(at / names[0]) or read_text(at / names[1]) or str(cpu) for cpu, at in folders})
    if not physical:
        import psutil  # noqa: PLC0415 - as above

        physical = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    quota = _cpu_quota(root)
    return max(physical if quota is None else min(physical, int(quota)), 1)


def _performance_cpus(root: Path, allowed: set[int]) -> set[int]:
    """The allowed logical CPUs on fast cores; all of them where cores are alike, or only slow ones are allowed.

    Intel's kinds of cores have a counter each in /sys/devices ("0-15" in cpu_core/cpus); ARM's kernels tell the
    capacity of every CPU, 1024 being that of the fastest.
    """
    listed = read_text(root / "sys/devices/cpu_core/cpus")
    if listed:
        ranges = [_range(part) for part in listed.split(",")]
        fast = {cpu for cpu in allowed if any(cpu in numbers for numbers in ranges)}
    else:
        capacities = {cpu: read_number(root / CPU_FOLDER / f"cpu{cpu}/cpu_capacity") or 0 for cpu in allowed}
        least = FAST * max(capacities.values(), default=0)
        fast = {cpu for cpu, capacity in capacities.items() if capacity >= least}
    return allowed & fast or allowed


def _range(text: str) -> range:
    """The numbers of "0-15" or "7"; none if it is neither."""
    ends = re.fullmatch(r"(\d+)(?:-(\d+))?", text.strip())
    return range(int(ends[1]), int(ends[2] or ends[1]) + 1) if ends else range(0)


def last_level_cache(root: Path) -> int:
    """Bytes of the first CPU's largest cache, 0 if unknown. Files say "266240K"."""
    sizes = (read_text(file) for file in (root / CPU_FOLDER / "cpu0/cache").glob("index*/size"))
    return max((int(size[:-1]) << 10 for size in sizes if re.fullmatch(r"\d+K", size)), default=0)


def simd(root: Path, sysctl: Mapping[str, str]) -> tuple[str, ...]:
    """The instruction sets of this processor that llama.cpp has code for."""
    if sysctl:
        neon = ("NEON",) if sysctl.get("machdep.cpu.brand_string", "").startswith("Apple") else ()
        return neon + tuple(name for key, name in SYSCTL_FLAGS.items() if sysctl.get(key) == "1")
    if sys.platform == "win32":
        import ctypes  # noqa: PLC0415 - 5 ms

        return windows_simd(lambda feature: bool(ctypes.windll.kernel32.IsProcessorFeaturePresent(feature)))
    line = re.search(r"^(?:flags|Features)\s*: (.*)$", read_text(root / "proc/cpuinfo"), re.MULTILINE)
    flags = set(line[1].split()) if line else set()
    return tuple(dict.fromkeys(name for flag, name in CPUINFO_FLAGS.items() if flag in flags))


def windows_simd(present: Callable[[int], bool]) -> tuple[str, ...]:
    """`simd` by Windows' IsProcessorFeaturePresent, which knows fewer; F16C, FMA and BMI2 came with AVX2."""
    names = [name for feature, name in WINDOWS_FEATURES.items() if present(feature)]
    return tuple(names + (["F16C", "FMA", "BMI2"] if "AVX2" in names else []))


def os_text(root: Path) -> str:
    """The operating system: "Ubuntu 24.04.3 LTS, Linux 6.8.0-60-generic, x86_64"."""
    system, machine, release = platform.system(), platform.machine(), platform.release()
    if system == "Darwin":
        return f"macOS {platform.mac_ver()[0]}, {machine}"
    if system == "Windows":
        return f"Windows {release} ({platform.version()}), {machine}"
    distribution = re.search(r'^PRETTY_NAME="?(.*?)"?$', read_text(root / "etc/os-release"), re.MULTILINE)
    kernel = read_text(root / "proc/sys/kernel/osrelease") or release
    wsl = " under WSL" if "microsoft" in kernel.lower() else ""
    return ", ".join([*([distribution[1]] if distribution else []), f"{system} {kernel}{wsl}", machine])


def disk_free(folder: Path) -> int:
    """Bytes free where `folder` is or would be made; 0 if that cannot be found out."""
    try:
        return shutil.disk_usage(paths.existing(folder)).free
    except OSError:  # also from exists(): a folder that this user may not look into
        return 0


@dataclass(frozen=True)
class Card:
    """One /sys/class/drm/cardN."""

    folder: Path  # cardN itself; `device`: the PCI device behind it
    device: Path
    address: str  # where it sits ("0000:03:00.0"), which also orders cards
    # product, revision: PCI ids that tell the model
    product: int
    revision: int
    driver: str  # the kernel's ("amdgpu", "xe", "i915")


def graphics_cards(root: Path, vendor: int) -> list[Card]:
    """The vendor's graphics cards by PCI address, which is how drivers enumerate them."""
    cards = []
    for folder in (root / "sys/class/drm").glob("card*"):
        device = folder / "device"
        # card0-DP-1 and the like are the connectors of card0
        if re.fullmatch(r"card\d+", folder.name) and read_number(device / "vendor") == vendor:
            event = dict(re.findall(r"^(\w+)=(.*)$", read_text(device / "uevent"), re.MULTILINE))
            product, revision = read_number(device / "device") or 0, read_number(device / "revision") or 0
            address, driver = event.get("PCI_SLOT_NAME", ""), event.get("DRIVER", "")
            cards.append(Card(folder, device, address, product, revision, driver))
    return sorted(cards, key=lambda card: (card.address, card.folder.name))


def on_pci(root: Path, vendor: int) -> bool:
    """Return whether a display controller of this vendor is plugged in, with or without a driver."""
    return any(
        read_number(device / "vendor") == vendor and (read_number(device / "class") or 0) >> 16 == DISPLAY
        for device in (root / "sys/bus/pci/devices").glob("*")
    )


def container_engine(root: Path) -> str:
    """The program that runs the container we are in, by the file it leaves there; empty outside and in others'."""
    marks = {".dockerenv": "docker", "run/.containerenv": "podman"}
    return next((engine for mark, engine in marks.items() if (root / mark).exists()), "")


def in_container(root: Path) -> bool:
    """Return whether this is a container: Docker's, Podman's, Kubernetes', LXC's or systemd's. WSL is none."""
    kubernetes = (root / "run/secrets/kubernetes.io").exists() or (root / "var/run/secrets/kubernetes.io").exists()
    manager = read_text(root / "run/systemd/container")  # "lxc", "systemd-nspawn"; "wsl" under WSL
    return bool(container_engine(root)) or kubernetes or manager not in {"", "wsl"}


def is_wsl(root: Path) -> bool:
    """Return whether this is Windows' Subsystem for Linux."""
    return (root / "dev/dxg").exists() or "microsoft" in read_text(root / "proc/sys/kernel/osrelease").lower()


def jetson_model(root: Path) -> str:
    """The name of a Jetson by the firmware's device tree ("Jetson Orin Nano"); empty for other machines."""
    model = read_text(root / "proc/device-tree/model")
    if "nvidia,tegra" not in read_text(root / "proc/device-tree/compatible") and not JETSON.search(model):
        return ""
    module = re.split(r"(?i) (?:engineering|developer|reference)", model.removeprefix("NVIDIA "))[0].strip()
    return module if module.startswith("Jetson") else f"Jetson {module}".strip()


def pci_name(root: Path, vendor: int, product: int) -> str:
    """The model's name from the PCI ID database ("Navi 31 [Radeon RX 7900 XTX]": what is in brackets); else empty."""
    for place in PCI_IDS:
        with suppress(OSError), (root / place).open(encoding="utf-8", errors="replace") as file:
            name = _entry(file, f"{vendor:04x}", f"{product:04x}")
            inside = re.search(r"\[(.+)\]", name)
            return inside[1] if inside else name
    return ""


def _entry(lines: Iterator[str], vendor: str, product: str) -> str:
    """Vendors stand at the start of a line, their products after one tab (the format's own description in pci.ids)."""
    for line in lines:
        if line.startswith(vendor):
            break
    for line in lines:
        if line.startswith(f"\t{product}"):
            return line[len(product) + 1 :].strip()
        if line[0] not in "\t#\n":
            break
    return ""
