"""The machine around the GPUs: memory, processor, operating system, disk. Limits of containers count.

Functions take the root of the file system, or sysctl's answers on a Mac, so that recorded machines serve too.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from hermes_cli import paths

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

CPU_FOLDER = "sys/devices/system/cpu"

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


class SystemMemory(NamedTuple):
    """RAM in bytes: all of it, and what programs can get without swapping."""

    total: int
    available: int


def host_memory() -> SystemMemory:
    """The whole machine's RAM, whatever a container may have of it."""
    import psutil  # noqa: PLC0415 - 15 ms that commands without a probe can save

    memory = psutil.virtual_memory()
    return SystemMemory(memory.total, memory.available)


def within_limits(root: Path, host: SystemMemory) -> SystemMemory:
    """Return the RAM that this process's cgroups leave it."""
    groups = cgroup_memory(root)
    total = min([host.total, *(group.limit for group in groups)])
    available = min([host.available, *(group.limit - group.used for group in groups)])
    return SystemMemory(total, min(max(available, 0), total))


def cpu_name(root: Path, sysctl: Mapping[str, str]) -> str:
    """The processor as its maker calls it, or the board or the architecture where it has no name."""
    info = read_text(root / "proc/cpuinfo")
    told = re.search(r"^model name\s*: (.+)$", info, re.MULTILINE)
    name = (
        sysctl.get("machdep.cpu.brand_string") or (told[1] if told else "") or _arm_name(root, info) or _registry_name()
    )
    return " ".join(name.split()) or platform.machine()


def _arm_name(root: Path, info: str) -> str:
    """Servers by their cores, boards by the firmware's device tree ("Raspberry Pi 5 Model B Rev 1.0")."""
    ids = dict(re.findall(r"^CPU (implementer|part)\s*: (0x[0-9a-f]+)$", info, re.MULTILINE))
    core = ARM_CORES.get((int(ids.get("implementer", "0"), 0), int(ids.get("part", "0"), 0)), "")
    return read_text(root / "proc/device-tree/model") or core


def _registry_name() -> str:
    """Return the processor's name in the registry of Windows."""
    if sys.platform == "win32":
        import winreg  # noqa: PLC0415 - Windows only

        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, r"HARDWARE\DESCRIPTION\System\CentralProcessor\0") as key:
            return str(winreg.QueryValueEx(key, "ProcessorNameString")[0])
    return ""


def allowed_cpus() -> set[int] | None:
    """The logical CPUs this process may run on, None where the system does not tell (macOS, Windows)."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None


def cores(root: Path, sysctl: Mapping[str, str], allowed: Iterable[int] | None) -> int:
    """Physical cores this process may use: llama.cpp gains nothing from a second thread on a core.

    On Apple silicon the fast ones only, as llama.cpp counts there. Of a quota of CPU time, whole cores: more threads
    than that spend part of each period stopped, with the others waiting for them.
    """
    physical = int(sysctl.get("hw.perflevel0.physicalcpu") or sysctl.get("hw.physicalcpu") or 0)
    physical = physical or len({_core(root, cpu) for cpu in allowed or ()}) or _counted_cores()
    quota = cgroup_cpus(root)
    return max(physical if quota is None else min(physical, int(quota)), 1)


def _core(root: Path, cpu: int) -> str:
    """Return the list of a core's logical CPUs ("0,16"), which identifies the core; newer kernels first."""
    topology = root / CPU_FOLDER / f"cpu{cpu}/topology"
    return read_text(topology / "core_cpus_list") or read_text(topology / "thread_siblings_list") or str(cpu)


def _counted_cores() -> int:
    import psutil  # noqa: PLC0415 - as above

    return psutil.cpu_count(logical=False) or os.cpu_count() or 1


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
    found = re.search(r"^(?:flags|Features)\s*: (.*)$", read_text(root / "proc/cpuinfo"), re.MULTILINE)
    flags = set(found[1].split()) if found else set()
    return tuple(dict.fromkeys(name for flag, name in CPUINFO_FLAGS.items() if flag in flags))


def windows_simd(present: Callable[[int], bool]) -> tuple[str, ...]:
    """The same from Windows' IsProcessorFeaturePresent, which knows fewer; F16C, FMA and BMI2 came with AVX2."""
    found = [name for feature, name in WINDOWS_FEATURES.items() if present(feature)]
    return tuple(found + (["F16C", "FMA", "BMI2"] if "AVX2" in found else []))


def os_text(root: Path) -> str:
    """For people: "Ubuntu 24.04.3 LTS, Linux 6.8.0-60-generic, x86_64"."""
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


class CgroupMemory(NamedTuple):
    """One group that limits memory, in bytes. `used` is without what the kernel would drop first."""

    limit: int
    used: int


def cgroup_memory(root: Path) -> list[CgroupMemory]:
    """The groups that limit this process's memory, innermost first."""
    folders, version = _groups(root, "memory")
    groups = (_memory_v1(folder) if version == 1 else _memory_v2(folder) for folder in folders)
    return [group for group in groups if group]


def cgroup_cpus(root: Path) -> float | None:
    """Return the CPU quota of this process in CPUs, None if unlimited."""
    folders, version = _groups(root, "cpu")
    quotas = [_quota_v1(folder) if version == 1 else _quota_v2(folder) for folder in folders]
    return min((quota for quota in quotas if quota), default=None)


def _groups(root: Path, controller: str) -> tuple[list[Path], int]:
    """Folders of the process's groups, innermost first, and the cgroup version of this controller.

    /proc/self/cgroup has a line "N:controllers:/path"; that of version 2 has no controllers. Both versions can be
    there at once, and then each controller belongs to one of them: version 1 if that names it.
    """
    two = ""
    for controllers, path in re.findall(r"^\d+:([^:]*):(.*)$", read_text(root / "proc/self/cgroup"), re.MULTILINE):
        if controller in controllers.split(","):
            top = root / "sys/fs/cgroup" / controller
            # "cpu" is a link to "cpu,cpuacct" on most systems, not on all
            return _upwards(top if top.is_dir() else top.with_name(controllers), path), 1
        if not controllers:
            two = path
    return (_upwards(root / "sys/fs/cgroup", two) if two else []), 2


def _upwards(top: Path, path: str) -> list[Path]:
    """The group's folder and all above it. In a container the path may be the host's: then only the top is there."""
    parts = [part for part in path.split("/") if part not in {"", "..", "."}]
    folders = [top.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1)]
    return [folder for folder in folders if folder.is_dir()]


def _memory_v2(folder: Path) -> CgroupMemory | None:
    """memory.max is where the kernel kills, memory.high where it makes the process wait: neither is to be passed."""
    limits = [limit for limit in (read_number(folder / "memory.max"), read_number(folder / "memory.high")) if limit]
    if not limits:  # both say "max" (or 0, with which nothing would run), or this is the root, which has neither
        return None
    reclaimable = _counted(read_text(folder / "memory.stat"), "inactive_file")
    return CgroupMemory(min(limits), _used(folder / "memory.current", reclaimable))


def _memory_v1(folder: Path) -> CgroupMemory | None:
    """The group's limit, or that of a group above which a container cannot see, if it is lower."""
    own = read_number(folder / "memory.limit_in_bytes")  # unlimited is a number just below 2^63: no limit to any RAM
    stat = read_text(folder / "memory.stat")
    limits = [limit for limit in (own, _counted(stat, "hierarchical_memory_limit")) if limit]
    if not limits:
        return None
    return CgroupMemory(min(limits), _used(folder / "memory.usage_in_bytes", _counted(stat, "total_inactive_file")))


def _used(usage: Path, reclaimable: int) -> int:
    """Usage counts cached files; of those the inactive ones are dropped before anything else is refused."""
    return max((read_number(usage) or 0) - reclaimable, 0)


def _counted(stat: str, name: str) -> int:
    """A line of memory.stat, 0 if there is none of that name."""
    line = re.search(rf"^{name} (\d+)$", stat, re.MULTILINE)
    return int(line[1]) if line else 0


def _quota_v2(folder: Path) -> float | None:
    """cpu.max: "200000 100000" is two CPUs, "max 100000" no limit."""
    quota, _, period = read_text(folder / "cpu.max").partition(" ")
    return int(quota) / int(period) if quota.isdecimal() and period.isdecimal() and int(period) else None


def _quota_v1(folder: Path) -> float | None:
    quota, period = read_number(folder / "cpu.cfs_quota_us"), read_number(folder / "cpu.cfs_period_us")
    return quota / period if quota and period and quota > 0 else None  # -1 is no limit


DISPLAY = 0x03  # the PCI class of display controllers: the top byte of "0x030000"
PCI_IDS = ("usr/share/hwdata/pci.ids", "usr/share/misc/pci.ids")  # Fedora and Arch; Debian and SUSE


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


@dataclass(frozen=True)
class Card:
    """One /sys/class/drm/cardN.

    Attributes:
        folder: cardN itself; `device`: the PCI device behind it.
        address: where it sits ("0000:03:00.0"), which also orders cards.
        product, revision: PCI ids that tell the model.
        driver: the kernel's ("amdgpu", "xe", "i915").
    """

    folder: Path
    device: Path
    address: str
    product: int
    revision: int
    driver: str


def graphics_cards(root: Path, vendor: int) -> list[Card]:
    """The vendor's graphics cards by PCI address, which is how drivers enumerate them."""
    found = [
        _card(folder)
        for folder in (root / "sys/class/drm").glob("card*")
        # card0-DP-1 and the like are the connectors of card0
        if re.fullmatch(r"card\d+", folder.name) and read_number(folder / "device/vendor") == vendor
    ]
    return sorted(found, key=lambda card: (card.address, card.folder.name))


def _card(folder: Path) -> Card:
    device = folder / "device"
    event = dict(re.findall(r"^(\w+)=(.*)$", read_text(device / "uevent"), re.MULTILINE))
    return Card(
        folder=folder,
        device=device,
        address=event.get("PCI_SLOT_NAME", ""),
        product=read_number(device / "device") or 0,
        revision=read_number(device / "revision") or 0,
        driver=event.get("DRIVER", ""),
    )


def on_pci(root: Path, vendor: int) -> bool:
    """Return whether a display controller of this vendor is plugged in, with or without a driver."""
    return any(
        read_number(device / "vendor") == vendor and (read_number(device / "class") or 0) >> 16 == DISPLAY
        for device in (root / "sys/bus/pci/devices").glob("*")
    )


def access_problem(root: Path, card: Card, *others: str) -> tuple[str, str]:
    """Return why this process cannot use the card, and the command that changes it; both empty if it can.

    /sys is the same in a container and outside, so a card may be seen that cannot be used.

    Args:
        root: of the file system.
        card: which is used through its render nodes.
        others: more device files that it is used through ("dev/kfd").
    """
    closed = _closed_nodes(root, card, others)
    return (f"no access to {', '.join(closed)}", _fix_for_closed(root, closed)) if closed else ("", "")


def _closed_nodes(root: Path, card: Card, others: Iterable[str]) -> list[str]:
    nodes = [*(f"dev/dri/{node.name}" for node in (card.device / "drm").glob("renderD*")), *others]
    return [f"/{node}" for node in sorted(nodes) if not os.access(root / node, os.R_OK | os.W_OK)]


def _fix_for_closed(root: Path, closed: list[str]) -> str:
    if any((root / node.lstrip("/")).exists() for node in closed):
        return "sudo usermod -aG render,video $USER"  # takes effect at the next login
    engine = container_engine(root)
    return f"{engine} run {' '.join(f'--device {node}' for node in closed)} …" if engine else ""


def container_engine(root: Path) -> str:
    """The program that runs the container we are in, by the file it leaves there; empty outside and in others'."""
    marks = {".dockerenv": "docker", "run/.containerenv": "podman"}
    return next((engine for mark, engine in marks.items() if (root / mark).exists()), "")


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
