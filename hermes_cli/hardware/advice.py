"""Advice on GPUs that cannot be used, in one table: what is the matter, where, and the one command that mends it.

A command is advised only where it does what it says: a container can load no module of the kernel, under WSL the driver
is that of Windows, and a Jetson's driver comes with JetPack.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from hermes_cli.hardware.system import Card, container_engine, in_container, is_wsl, jetson_model
from hermes_cli.platforms import REINSTALL

if TYPE_CHECKING:
    from hermes_cli.hardware.machine import Backend

Problem = Literal[
    "NVML is missing",
    "NVIDIA's driver is not loaded",
    "NVIDIA's driver was replaced",
    "NVIDIA's driver fails",
    "NVIDIA's driver finds no GPU",
    "CUDA finds no GPU",
    "amdgpu is not loaded",
    "device files are absent",
    "device files are closed",
    "a Jetson's device files are absent",
    "build for NVIDIA",
    "build for AMD",
]


class Build(NamedTuple):
    """A build of llama.cpp for a backend: the backend's title, the name of its library, and CMake's flags."""

    title: str
    library: str
    flags: str


BUILDS: dict[Backend, Build] = {
    "cuda": Build("CUDA", "cuda", "-DGGML_CUDA=on"),
    "rocm": Build("ROCm", "hip", "-DGGML_HIP=on"),
    "metal": Build("Metal", "metal", "-DGGML_METAL=on"),
    "vulkan": Build("Vulkan", "vulkan", "-DGGML_VULKAN=on"),
    "sycl": Build("SYCL", "sycl", "-DGGML_SYCL=on -DCMAKE_C_COMPILER=icx -DCMAKE_CXX_COMPILER=icpx"),
}
REBUILD = f"{REINSTALL} --no-binary llama-cpp-python llama-cpp-python"
# The author's wheel for CUDA 12, which drivers from 525 on run.
CUDA_12_WHEEL = f"{REINSTALL} llama-cpp-python --extra-index-url https://abetlen.github.io/llama-cpp-python/whl/cu124"


def install_command(backend: Backend, *, windows: bool = sys.platform == "win32") -> str:
    """Return the command that installs a llama-cpp-python with this backend.

    Windows' shells do not set a variable for one command, so there pip hands the flags to the build.
    """
    flags = BUILDS[backend].flags
    if windows:
        return f'{REBUILD} -C cmake.args="{flags.replace(" ", ";")}"'
    return f'CMAKE_ARGS="{flags}" {REBUILD}'


class Advice(NamedTuple):
    """A row of the table."""

    problem: Problem  # what is the matter
    where: str  # places, or architectures of GPUs, with blanks between them; empty for all others
    text: str = ""  # what to know, a sentence or a part of one without its full stop
    fix: str = ""  # the one command that mends it, empty if none does; {files} are flags for the device files
    backend: Backend | None = None  # the one that serves such a GPU best


ROOT = Path("/")
CONTAINERS = "docker podman container"
RELOAD_UVM = "sudo rmmod nvidia_uvm && sudo modprobe nvidia_uvm"
RELOAD_TEXT = "after a suspend CUDA fails (error 999) until its module is loaded anew"
NO_ROCM = "ROCm has no code for it"
OVERRIDE = f"{NO_ROCM} (HSA_OVERRIDE_GFX_VERSION={{}} makes it take that of a GPU like it)"
# CUDA's release notes: 13.0 removed Maxwell, Pascal and Volta; 12.0 removed Kepler.
BEFORE_CUDA_12 = "3.0 3.2 3.5 3.7"
BEFORE_CUDA_13 = "5.0 5.2 5.3 6.0 6.1 6.2 7.0 7.2"
# What rocBLAS has kernels for (ROCm's compatibility matrix; gfx1150 and gfx1151 since 7.0).
ROCM_TARGETS = "gfx906 gfx908 gfx90a gfx942 gfx950 gfx1030 gfx1100 gfx1101 gfx1102 gfx1150 gfx1151 gfx1200 gfx1201"

TABLE = (
    Advice("NVML is missing", "docker", fix="docker run --gpus all …"),
    Advice("NVML is missing", "podman", fix="podman run --device nvidia.com/gpu=all …"),
    Advice("NVML is missing", "container wsl jetson"),
    Advice("NVML is missing", "ubuntu", fix="sudo ubuntu-drivers install"),
    Advice("NVML is missing", ""),
    Advice("NVIDIA's driver is not loaded", "docker", fix="docker run --gpus all …"),
    Advice("NVIDIA's driver is not loaded", "podman", fix="podman run --device nvidia.com/gpu=all …"),
    Advice("NVIDIA's driver is not loaded", "container", "Only the host can load it"),
    Advice("NVIDIA's driver is not loaded", "wsl", "WSL has that of Windows: install it there", "wsl.exe --shutdown"),
    Advice("NVIDIA's driver is not loaded", "", fix="sudo modprobe nvidia"),
    Advice("NVIDIA's driver was replaced", "docker podman", "Start the container anew", "{engine} restart …"),
    Advice("NVIDIA's driver was replaced", "container", "Start the container anew"),
    Advice("NVIDIA's driver was replaced", "wsl", fix="wsl.exe --shutdown"),
    Advice("NVIDIA's driver was replaced", "", fix="sudo reboot"),
    Advice(
        "NVIDIA's driver fails",
        "docker podman",
        "A container loses its GPUs when the host reloads systemd: restart it",
        "{engine} restart …",
    ),
    Advice(
        "NVIDIA's driver fails",
        "container",
        "A container loses its GPUs when the host reloads systemd: restart it",
    ),
    Advice("NVIDIA's driver fails", "wsl", fix="wsl.exe --shutdown"),
    Advice("NVIDIA's driver fails", "", fix="nvidia-smi"),
    Advice("NVIDIA's driver finds no GPU", "docker", fix="docker run --gpus all …"),
    Advice("NVIDIA's driver finds no GPU", "podman", fix="podman run --device nvidia.com/gpu=all …"),
    Advice("NVIDIA's driver finds no GPU", "", fix="nvidia-smi"),
    Advice("CUDA finds no GPU", "docker podman", "the container may have lost them", "{engine} restart …"),
    Advice("CUDA finds no GPU", "container", "the container may have lost them"),
    Advice("CUDA finds no GPU", "wsl", "WSL may have lost them", "wsl.exe --shutdown"),
    Advice("CUDA finds no GPU", "jetson"),
    Advice("CUDA finds no GPU", "", RELOAD_TEXT, RELOAD_UVM),
    Advice("amdgpu is not loaded", f"{CONTAINERS} wsl", "Only the host can load it"),
    Advice("amdgpu is not loaded", "", fix="sudo modprobe amdgpu"),
    Advice("device files are absent", "docker podman", fix="{engine} run {files} …"),
    Advice("device files are absent", ""),
    Advice("a Jetson's device files are absent", "docker", fix="docker run --runtime nvidia …"),
    Advice("a Jetson's device files are absent", "podman", fix="podman run --device nvidia.com/gpu=all …"),
    Advice("a Jetson's device files are absent", ""),
    Advice("device files are closed", "docker", fix="docker run --group-add $(stat -c %g /dev/dri/renderD128) …"),
    Advice("device files are closed", "podman", fix="podman run --group-add keep-groups …"),
    Advice("device files are closed", "container"),
    Advice("device files are closed", "", fix="sudo usermod -aG render,video $USER"),  # from the next login on
    # JetPack has its own CUDA, and nobody has wheels for it
    Advice("build for NVIDIA", "unified", fix=install_command("cuda"), backend="cuda"),
    Advice(
        "build for NVIDIA",
        BEFORE_CUDA_12,
        "CUDA 12 has no code for it, Vulkan and CUDA 11 have",
        install_command("vulkan"),
        "vulkan",
    ),
    Advice("build for NVIDIA", BEFORE_CUDA_13, "CUDA 13 has no code for it, CUDA 12 has", CUDA_12_WHEEL, "cuda"),
    Advice("build for NVIDIA", "", fix=install_command("cuda"), backend="cuda"),
    Advice("build for AMD", ROCM_TARGETS, fix=install_command("rocm"), backend="rocm"),
    Advice(
        "build for AMD",
        "gfx1031 gfx1032 gfx1034 gfx1035 gfx1036",
        OVERRIDE.format("10.3.0"),
        install_command("vulkan"),
        "vulkan",
    ),
    Advice("build for AMD", "gfx1103", OVERRIDE.format("11.0.2"), install_command("vulkan"), "vulkan"),
    Advice("build for AMD", "unknown", "", install_command("vulkan"), "vulkan"),  # not in ROCm's topology
    Advice("build for AMD", "", NO_ROCM, install_command("vulkan"), "vulkan"),
)


def advice(problem: Problem, *where: str) -> Advice:
    """Return the first row of the table for a problem in one of these places, or with one of these architectures."""
    return next(row for row in TABLE if row.problem == problem and (not row.where or {*row.where.split()} & {*where}))


def advice_at(problem: Problem, root: Path = ROOT, files: str = "") -> Advice:
    """Return the advice for the place that a root of the file system belongs to, with its command written out."""
    row = advice(problem, place(root))
    return row._replace(fix=row.fix.format(engine=container_engine(root), files=files) if "{" in row.fix else row.fix)


def place(root: Path) -> str:
    """Return where this is, as rows of the table call it; the innermost counts."""
    if in_container(root):
        return container_engine(root) or "container"
    if is_wsl(root):
        return "wsl"
    if jetson_model(root):
        return "jetson"
    return "ubuntu" if (root / "usr/bin/ubuntu-drivers").exists() else "elsewhere"


def access_problem(
    root: Path,  # of the file system
    card: Card,  # which is used through its render nodes
    *others: str,  # more device files that it is used through ("dev/kfd")
) -> tuple[str, str]:
    """Return why this process cannot use the card, and the command that changes it; both empty if it can.

    /sys is the same in a container and outside, so a card may be seen that cannot be used.
    """
    nodes = [*(f"dev/dri/{node.name}" for node in (card.device / "drm").glob("renderD*")), *others]
    closed = [node for node in sorted(nodes) if not os.access(root / node, os.R_OK | os.W_OK)]
    if not closed:
        return "", ""
    there = any((root / node).exists() for node in closed)
    files = " ".join(f"--device /{node}" for node in closed)
    fix = advice_at("device files are closed" if there else "device files are absent", root, files).fix
    return f"no access to {', '.join(f'/{node}' for node in closed)}", fix
