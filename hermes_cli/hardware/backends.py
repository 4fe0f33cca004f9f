"""The backends of the installed llama-cpp-python, read off its files (an import takes 0.1 s), and their GPUs."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from hermes_cli.hardware.machine import Backend, Device, Vendor

if TYPE_CHECKING:
    from collections.abc import Sequence

# ggml builds every backend as a library of its own, libggml-cuda.so or ggml-cuda.dll (ggml/src/CMakeLists.txt).
LIBRARY = re.compile(r"(?:lib)?ggml-(\w+)\.(?:so|dylib|dll)(?:\.[\d.]+)?")
BACKEND_OF_LIBRARY: dict[str, Backend] = {
    "cuda": "cuda",
    "hip": "rocm",
    "metal": "metal",
    "vulkan": "vulkan",
    "sycl": "sycl",
}
FLAGS: dict[Backend, tuple[str, ...]] = {
    "cuda": ("-DGGML_CUDA=on",),
    "rocm": ("-DGGML_HIP=on",),
    "metal": ("-DGGML_METAL=on",),
    "vulkan": ("-DGGML_VULKAN=on",),
    "sycl": ("-DGGML_SYCL=on", "-DCMAKE_C_COMPILER=icx", "-DCMAKE_CXX_COMPILER=icpx"),
    "cpu": (),
}
TITLES: dict[Backend, str] = {
    "cuda": "CUDA",
    "rocm": "ROCm",
    "metal": "Metal",
    "vulkan": "Vulkan",
    "sycl": "SYCL",
    "cpu": "the CPU",
}
SERVED_BY: dict[Vendor, tuple[Backend, ...]] = {  # the faster one first
    "nvidia": ("cuda", "vulkan"),
    "amd": ("rocm", "vulkan"),
    "intel": ("sycl", "vulkan"),
    "apple": ("metal",),
}
REBUILD = "pip install --force-reinstall --no-cache-dir --no-binary llama-cpp-python llama-cpp-python"


def library_folder() -> Path | None:
    """Return the folder of llama_cpp's libraries, None if it is not installed."""
    chosen = os.environ.get("LLAMA_CPP_LIB_PATH")  # llama_cpp's own variable
    if chosen:
        return Path(chosen)
    spec = find_spec("llama_cpp")  # of a package at the top this runs nothing
    return Path(spec.origin).parent / "lib" if spec and spec.origin else None


def built_backends(folder: Path | None) -> tuple[Backend, ...]:
    """The backends whose libraries are in the folder; the CPU always."""
    names = [file.name for file in folder.glob("*ggml-*")] if folder else []
    libraries = {match[1] for name in names if (match := LIBRARY.fullmatch(name))}
    found = {backend for library, backend in BACKEND_OF_LIBRARY.items() if library in libraries}
    return ("cpu", *(backend for backend in get_args(Backend) if backend in found))


def install_command(backend: Backend, *, windows: bool = sys.platform == "win32") -> str:
    """Return the command that installs a llama-cpp-python with this backend.

    Windows' shells do not set a variable for one command, so there pip hands the flags to the build.
    """
    flags = FLAGS[backend]
    if not flags:
        return REBUILD
    if windows:
        return f'{REBUILD} -C cmake.args="{";".join(flags)}"'
    return f'CMAKE_ARGS="{" ".join(flags)}" {REBUILD}'


def backend_for(vendor: Vendor, backends: tuple[Backend, ...]) -> Backend | None:
    """Return the backend that drives this vendor's devices, the faster one of two; None if there is none."""
    return next((backend for backend in SERVED_BY[vendor] if backend in backends), None)


def assign_backends(devices: Sequence[Device], backends: tuple[Backend, ...]) -> tuple[Device, ...]:
    """The devices with the backend that will drive them; without one they are not usable, and `fix` says what helps.

    Cards of several vendors are used together with Vulkan only: no build has more of their own backends than one.
    """
    mixed = len({device.vendor for device in devices if not device.unified}) > 1
    return tuple(_matched(device, backends, mixed=mixed) for device in devices)


def _matched(device: Device, backends: tuple[Backend, ...], *, mixed: bool) -> Device:
    if device.vendor == "amd" and device.backend == "vulkan":  # one that ROCm does not know
        backends = tuple(backend for backend in backends if backend != "rocm")
    served = backend_for(device.vendor, backends)
    if served:
        return replace(device, backend=served)
    if not device.usable:  # what keeps it from being used at all comes first
        return device
    wanted = "vulkan" if mixed else device.backend
    reason = f"the installed llama-cpp-python was built without {TITLES[wanted]}"
    return replace(device, usable=False, reason=reason, fix=install_command(wanted))


MOST_DIGITS = 9  # of an index; Python refuses to read numbers of some thousand


def visible_devices(choice: str | None, identifiers: Sequence[str], indexable: int | None = None) -> list[int]:
    """Return the positions of the devices that CUDA_VISIBLE_DEVICES, or ROCm's and HIP's equivalent, leaves, in order.

    The CUDA C++ programming guide (environment variables): a list of indexes, of UUIDs or of their unambiguous
    beginnings; from the first entry that names nothing on, all are hidden. So "" and "-1" hide everything.

    Args:
        choice: the variable's value, None if it is not set.
        identifiers: the devices' UUIDs.
        indexable: how many of them, from the first on, also go by an index; None is all.
    """
    if choice is None:
        return list(range(len(identifiers) if indexable is None else indexable))
    positions: list[int] = []
    for entry in choice.split(","):
        position = _position(entry.strip(), identifiers, len(identifiers) if indexable is None else indexable)
        if position is None:
            break
        if position not in positions:
            positions.append(position)
    return positions


def _position(entry: str, identifiers: Sequence[str], indexable: int) -> int | None:
    if entry.isdecimal():
        return int(entry) if len(entry) <= MOST_DIGITS and int(entry) < indexable else None
    matches = [i for i, identifier in enumerate(identifiers) if entry and identifier.lower().startswith(entry.lower())]
    return matches[0] if len(matches) == 1 else None
