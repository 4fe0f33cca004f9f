from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from hermes_cli.hardware.machine import Backend, Device, Vendor
from hermes_cli.hardware.probe import BUILDS, assign_backends, built_backends, install_command, library_folder

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
