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
    """A remark on the machine: a figure that is unknown, or a device that is hidden or unusable.

    Attributes:
        about: what it no longer holds for once that is replaced: the GPUs, the RAM, or the plan of another machine.
        text: a sentence or two.
        fix: the one command that helps, empty if there is none.
    """

    about: NoteSubject
    text: str
    fix: str = ""


@dataclass(frozen=True)
class Device:
    """A GPU, or a slice of one.

    Attributes:
        name: as its vendor calls it, without the vendor ("GeForce RTX 4090").
        total, free: bytes of memory; on unified memory what the GPU may take of it.
        bandwidth: bytes per second of its memory, None if nothing tells; `bandwidth_source` says where it is from.
        backend: what llama.cpp would use it with.
        usable: whether llama.cpp, as it is installed here, will use it.
        fix: the one command that would make it usable, empty if there is none.
        reason: why it is not usable, to go on after "is not used: "; empty if it is.
        unified: it shares the machine's RAM.
        carve_out: of `free`, the bytes that firmware sets aside for a GPU inside the processor and that are not RAM.
        users: other programs that hold its memory now, with how much of it ("python 3.44 GB").
        operations: dense FP16 operations per second by its data sheet, None if it has none.
        left_out: by what the user leaves it out ("--devices"); empty if nothing does.
        reserve: bytes of it that the user wants to stay free; None leaves it to planning/placement.py.
        memory_source: where its memory is from.
    """

    vendor: Vendor
    name: str
    total: int
    free: int
    bandwidth: float | None
    bandwidth_source: ValueSource
    backend: Backend
    usable: bool = True
    fix: str = ""
    reason: str = ""
    unified: bool = False
    carve_out: int = 0
    compute_capability: str = ""
    driver: str = ""
    users: tuple[str, ...] = ()
    operations: float | None = None
    left_out: str = ""
    reserve: int | None = None
    memory_source: ValueSource = "probed"

    def ram_taken(self, size: int) -> int:
        """Return how many of so many bytes on this device are the machine's RAM."""
        return max(size - self.carve_out, 0) if self.unified else 0


@dataclass(frozen=True)
class Machine:
    """Everything that decides what runs here and how fast.

    Attributes:
        devices: GPUs in llama.cpp's order.
        ram_total, ram_available: bytes, within the limits of a container (cgroup); `ram_source` says where from.
        ram_bandwidth: bytes per second that all cores together read, None if unknown.
        cores: physical ones this process may use.
        simd: the instruction sets that llama.cpp has code for ("AVX2", "NEON" …).
        disk_free: bytes where models go (`disk_path`).
        backends: what the installed llama-cpp-python was built with.
        simulated: this is a machine somebody thinks of, not the one at hand.
        notes: what could not be found out, and what is not as the plain numbers suggest.
    """

    devices: tuple[Device, ...]
    ram_total: int
    ram_available: int
    ram_bandwidth: float | None
    ram_bandwidth_source: ValueSource
    cpu: str
    cores: int
    simd: tuple[str, ...]
    os: str
    disk_path: str
    disk_free: int
    backends: tuple[Backend, ...]
    simulated: bool = False
    notes: tuple[Note, ...] = ()
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
