"""The table of advice, row by row: what is the matter, on which recorded machine, and the one command that mends it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import get_args

import pytest

from hermes_cli.hardware.advice import (
    CUDA_12_WHEEL,
    TABLE,
    Problem,
    advice,
    advice_at,
    install_command,
    place,
)
from hermes_cli.hardware.machine import Backend

Tree = Callable[[Mapping[str, str | bytes]], Path]

PLACES: dict[str, dict[str, str | bytes]] = {
    "linux": {"proc/sys/kernel/osrelease": "6.8.0-60-generic\n"},
    "ubuntu": {"usr/bin/ubuntu-drivers": ""},
    "wsl": {"dev/dxg": "", "usr/bin/ubuntu-drivers": "", "run/systemd/container": "wsl\n"},
    "wsl by its kernel": {"proc/sys/kernel/osrelease": "5.15.167.4-microsoft-standard-WSL2\n"},
    "docker": {".dockerenv": "", "usr/bin/ubuntu-drivers": ""},
    "docker under WSL": {".dockerenv": "", "dev/dxg": ""},
    "podman": {"run/.containerenv": ""},
    "kubernetes": {"run/secrets/kubernetes.io/serviceaccount/token": ""},
    "lxc": {"run/systemd/container": "lxc\n"},
    "jetson": {"proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0", "usr/bin/ubuntu-drivers": ""},
    "jetson by its chip": {"proc/device-tree/compatible": "nvidia,p3768-0000+p3767-0005\0nvidia,tegra234\0"},
    "docker on a jetson": {"proc/device-tree/model": "NVIDIA Jetson AGX Orin\0", ".dockerenv": ""},
}
NAMES = {
    "linux": "elsewhere",
    "wsl by its kernel": "wsl",
    "docker under WSL": "docker",
    "kubernetes": "container",
    "lxc": "container",
    "jetson by its chip": "jetson",
    "docker on a jetson": "docker",
}


@pytest.mark.parametrize("name", PLACES)
def test_places(tree: Tree, name: str) -> None:
    assert place(tree(PLACES[name])) == NAMES.get(name, name)


UVM = "sudo rmmod nvidia_uvm && sudo modprobe nvidia_uvm"


@pytest.mark.parametrize(
    ("problem", "name", "fix", "says"),
    [
        ("NVML is missing", "docker", "docker run --gpus all …", ""),
        ("NVML is missing", "podman", "podman run --device nvidia.com/gpu=all …", ""),
        ("NVML is missing", "lxc", "", ""),
        ("NVML is missing", "wsl", "", ""),
        ("NVML is missing", "jetson", "", ""),  # ubuntu-drivers would put a driver for cards over JetPack's
        ("NVML is missing", "ubuntu", "sudo ubuntu-drivers install", ""),
        ("NVML is missing", "linux", "", ""),
        ("NVIDIA's driver is not loaded", "docker", "docker run --gpus all …", ""),
        ("NVIDIA's driver is not loaded", "podman", "podman run --device nvidia.com/gpu=all …", ""),
        ("NVIDIA's driver is not loaded", "kubernetes", "", "Only the host can load it"),
        ("NVIDIA's driver is not loaded", "wsl", "wsl.exe --shutdown", "install it there"),
        ("NVIDIA's driver is not loaded", "linux", "sudo modprobe nvidia", ""),
        ("NVIDIA's driver was replaced", "docker", "docker restart …", "Start the container anew"),
        ("NVIDIA's driver was replaced", "podman", "podman restart …", "Start the container anew"),
        ("NVIDIA's driver was replaced", "lxc", "", "Start the container anew"),
        ("NVIDIA's driver was replaced", "wsl", "wsl.exe --shutdown", ""),
        ("NVIDIA's driver was replaced", "ubuntu", "sudo reboot", ""),
        ("NVIDIA's driver fails", "docker", "docker restart …", "restart it"),
        ("NVIDIA's driver fails", "docker under WSL", "docker restart …", "restart it"),
        ("NVIDIA's driver fails", "kubernetes", "", "restart it"),
        ("NVIDIA's driver fails", "wsl", "wsl.exe --shutdown", ""),
        ("NVIDIA's driver fails", "linux", "nvidia-smi", ""),
        ("NVIDIA's driver finds no GPU", "docker", "docker run --gpus all …", ""),
        ("NVIDIA's driver finds no GPU", "podman", "podman run --device nvidia.com/gpu=all …", ""),
        ("NVIDIA's driver finds no GPU", "linux", "nvidia-smi", ""),
        ("CUDA finds no GPU", "docker", "docker restart …", "the container may have lost them"),
        ("CUDA finds no GPU", "lxc", "", "the container may have lost them"),
        ("CUDA finds no GPU", "wsl", "wsl.exe --shutdown", "WSL may have lost them"),
        ("CUDA finds no GPU", "jetson", "", ""),
        ("CUDA finds no GPU", "linux", UVM, "after a suspend CUDA fails (error 999)"),
        ("amdgpu is not loaded", "docker", "", "Only the host can load it"),
        ("amdgpu is not loaded", "podman", "", "Only the host can load it"),
        ("amdgpu is not loaded", "wsl", "", "Only the host can load it"),
        ("amdgpu is not loaded", "linux", "sudo modprobe amdgpu", ""),
        ("device files are absent", "docker", "docker run --device /dev/kfd …", ""),
        ("device files are absent", "podman", "podman run --device /dev/kfd …", ""),
        ("device files are absent", "linux", "", ""),
        ("device files are closed", "docker", "docker run --group-add $(stat -c %g /dev/dri/renderD128) …", ""),
        ("device files are closed", "podman", "podman run --group-add keep-groups …", ""),
        ("device files are closed", "lxc", "", ""),
        ("device files are closed", "linux", "sudo usermod -aG render,video $USER", ""),
        ("a Jetson's device files are absent", "docker on a jetson", "docker run --runtime nvidia …", ""),
        ("a Jetson's device files are absent", "podman", "podman run --device nvidia.com/gpu=all …", ""),
        ("a Jetson's device files are absent", "lxc", "", ""),
    ],
)
def test_what_mends_it_there(tree: Tree, problem: Problem, name: str, fix: str, says: str) -> None:
    row = advice_at(problem, tree(PLACES[name]), "--device /dev/kfd")
    assert row.fix == fix
    assert says in row.text
    assert bool(says) == bool(row.text)


VULKAN, HIP, CUDA = install_command("vulkan"), install_command("rocm"), install_command("cuda")


@pytest.mark.parametrize(
    ("target", "backend", "fix", "says"),
    [
        *((target, "rocm", HIP, "") for target in ("gfx906", "gfx90a", "gfx942", "gfx1030", "gfx1100", "gfx1102")),
        *((target, "rocm", HIP, "") for target in ("gfx908", "gfx950", "gfx1101", "gfx1151", "gfx1200", "gfx1201")),
        *((target, "vulkan", VULKAN, "ROCm has no code for it") for target in ("gfx803", "gfx900", "gfx902", "gfx90c")),
        *((target, "vulkan", VULKAN, "ROCm has no code for it") for target in ("gfx1010", "gfx1012", "gfx1152")),
        *((target, "vulkan", VULKAN, "HSA_OVERRIDE_GFX_VERSION=10.3.0") for target in ("gfx1031", "gfx1032")),
        *((target, "vulkan", VULKAN, "HSA_OVERRIDE_GFX_VERSION=10.3.0") for target in ("gfx1034", "gfx1035")),
        ("gfx1103", "vulkan", VULKAN, "HSA_OVERRIDE_GFX_VERSION=11.0.2"),
        ("unknown", "vulkan", VULKAN, ""),
    ],
)
def test_builds_for_amd(target: str, backend: Backend, fix: str, says: str) -> None:
    row = advice("build for AMD", target)
    assert (row.backend, row.fix) == (backend, fix)
    assert says in row.text
    assert bool(says) == bool(row.text)


@pytest.mark.parametrize(
    ("capability", "backend", "fix", "says"),
    [
        ("3.7", "vulkan", VULKAN, "CUDA 12 has no code"),
        *((old, "cuda", CUDA_12_WHEEL, "CUDA 13 has no code") for old in ("5.0", "5.2", "6.0", "6.1", "7.0")),
        *((new, "cuda", CUDA, "") for new in ("7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0", "")),
    ],
)
def test_builds_for_nvidia(capability: str, backend: Backend, fix: str, says: str) -> None:
    row = advice("build for NVIDIA", capability)
    assert (row.backend, row.fix) == (backend, fix)
    assert says in row.text


def test_jetsons_build_with_the_cuda_that_they_have() -> None:
    """There are no wheels for them, also not for the old ones."""
    for capability in ("7.2", "8.7", "11.0"):
        assert advice("build for NVIDIA", "unified", capability).fix == CUDA


def test_every_problem_has_a_last_row_for_all_other_places() -> None:
    for problem in get_args(Problem):
        assert [row.where for row in TABLE if row.problem == problem][-1] == ""


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.problem}, {row.where or 'others'}")
def test_rows(row: tuple[str, ...]) -> None:
    """A row is reached, and inside a container no command is advised that only the host can run."""
    problem, where, text, fix, _ = row
    for name in where.split() or ["nowhere"]:
        assert advice(problem, name) is row  # type: ignore[arg-type]
        if name in {"docker", "podman", "container"}:
            assert not fix.startswith("sudo ")
    assert not text.endswith(".")
