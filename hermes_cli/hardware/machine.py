"""The data model of hardware. Sizes in bytes, bandwidth in bytes per second."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

Vendor = Literal["nvidia", "amd", "intel", "apple"]
Backend = Literal["cpu", "cuda", "rocm", "metal", "vulkan", "sycl"]
ValueSource = Literal["probed", "measured", "table", "given", "assumed"]
NoteSubject = Literal["devices", "ram", "simulation", "bandwidth"]

MOST_DEVICES = 16  # llama_max_devices()

SERVED_BY: dict[Vendor, tuple[Backend, ...]] = {  # the faster one first
    "nvidia": ("cuda", "vulkan"),
    "amd": ("rocm", "vulkan"),
    "intel": ("sycl", "vulkan"),
    "apple": ("metal",),
}


@dataclass(frozen=True)
class Note:
    """A remark on the machine: a figure that is unknown, or a device that is hidden or unusable."""

    # what it no longer holds for once that is replaced: the GPUs, the RAM, or the plan of another machine
    about: NoteSubject
    text: str  # a sentence or two
    fix: str = ""  # the one command that helps, empty if there is none


@dataclass(frozen=True)
class Device:
    """A GPU, or a slice of one."""

    vendor: Vendor
    name: str  # as its vendor calls it, without the vendor ("GeForce RTX 4090")
    # total, free: bytes of memory; on unified memory what the GPU may take of it
    total: int
    free: int
    # bytes per second of its memory, None if nothing tells; `bandwidth_source` says where it is from
    bandwidth: float | None
    bandwidth_source: ValueSource
    backend: Backend  # what llama.cpp would use it with
    usable: bool = True  # whether llama.cpp, as it is installed here, will use it
    fix: str = ""  # the one command that would make it usable, empty if there is none
    reason: str = ""  # why it is not usable, to go on after "is not used: "; empty if it is
    unified: bool = False  # it shares the machine's RAM
    # of `free`, the bytes that firmware sets aside for a GPU inside the processor and that are not RAM
    carve_out: int = 0
    compute_capability: str = ""
    driver: str = ""
    users: tuple[str, ...] = ()  # other programs that hold its memory now, with how much of it ("python 3.44 GB")
    operations: float | None = None  # dense FP16 operations per second by its data sheet, None if it has none
    left_out: str = ""  # by what the user leaves it out ("--devices"); empty if nothing does
    reserve: int | None = None  # bytes of it that the user wants to stay free; None leaves it to planning/placement.py
    memory_source: ValueSource = "probed"  # where its memory is from

    def ram_taken(self, size: int) -> int:
        """Return how many of so many bytes on this device are the machine's RAM."""
        return max(size - self.carve_out, 0) if self.unified else 0


@dataclass(frozen=True)
class Machine:
    """Everything that decides what runs here and how fast."""

    devices: tuple[Device, ...]  # GPUs in llama.cpp's order
    # ram_total, ram_available: bytes, within the limits of a container (cgroup); `ram_source` says where from
    ram_total: int
    ram_available: int
    ram_bandwidth: float | None  # bytes per second that all cores together read, None if unknown
    ram_bandwidth_source: ValueSource
    cpu: str
    cores: int  # physical ones this process may use
    simd: tuple[str, ...]  # the instruction sets that llama.cpp has code for ("AVX2", "NEON" …)
    os: str
    disk_path: str
    disk_free: int  # bytes where models go (`disk_path`)
    backends: tuple[Backend, ...]  # what the installed llama-cpp-python was built with
    simulated: bool = False  # this is a machine somebody thinks of, not the one at hand
    notes: tuple[Note, ...] = ()  # what could not be found out, and what is not as the plain numbers suggest
    ram_source: ValueSource = "probed"

    @cached_property
    def usable_devices(self) -> tuple[Device, ...]:
        """The GPUs that llama.cpp, as it is installed here, will use, without those that the user leaves out."""
        return tuple(device for device in self.devices if device.usable and not device.left_out)

    @property
    def memory_free(self) -> int:
        """Bytes of RAM and GPUs together, those that they share counted once."""
        return self.ram_available + sum(
            device.carve_out if device.unified else device.free for device in self.usable_devices
        )
