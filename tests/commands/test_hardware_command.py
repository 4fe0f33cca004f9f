"""What `hermes hardware` says of recorded machines; tests/hardware has the probe itself."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pynvml  # type: ignore[import-untyped]
import pytest
from conftest import RunHermes

from hermes_cli.commands.hardware import show
from hermes_cli.console import Console, Voice
from hermes_cli.hardware.advice import install_command
from hermes_cli.hardware.machine import Device, Machine
from hermes_cli.hardware.probe import ProbeSources, probe
from hermes_cli.hardware.system import SystemMemory

Tree = Callable[[Mapping[str, str | bytes]], Path]
Capture = pytest.CaptureFixture[str]
GIB = 2**30
MIB = 2**20

CPU: dict[str, str | bytes] = {"proc/cpuinfo": "model name : AMD Ryzen 9 7950X\nflags : avx2 fma\n"}
RADEON: dict[str, str | bytes] = {
    "sys/class/drm/card0/device/vendor": "0x1002\n",
    "sys/class/drm/card0/device/product_name": "AMD Radeon RX 7900 XTX\n",
    "sys/class/drm/card0/device/uevent": "DRIVER=amdgpu\nPCI_SLOT_NAME=0000:03:00.0\n",
    "sys/class/drm/card0/device/mem_info_vram_total": f"{24 * GIB}\n",
    "sys/class/drm/card0/device/gpu_metrics": bytes([0x78, 0x00, 1, 3]),
    "sys/class/drm/card0/device/drm/renderD128/dev": "226:128\n",
}
ARC: dict[str, str | bytes] = {
    "sys/class/drm/card1/device/vendor": "0x8086\n",
    "sys/class/drm/card1/device/device": "0x64a0\n",
    "sys/class/drm/card1/device/uevent": "DRIVER=xe\nPCI_SLOT_NAME=0000:00:02.0\n",
}


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERMES_LLM_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("HERMES_LLM_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))


def nvml(count: int, **answers: object) -> ModuleType:
    """pynvml on a machine with so many RTX 4090."""
    told: dict[str, object] = {
        "Name": "NVIDIA GeForce RTX 4090",
        "MemoryInfo": SimpleNamespace(total=24564 * MIB, free=22518 * MIB),
        "MemoryBusWidth": 384,
        "MaxClockInfo": 10501,
        "CudaComputeCapability": (8, 9),
        "ComputeRunningProcesses": [SimpleNamespace(pid=10**7 + i, usedGpuMemory=GIB) for i in range(6)],
    }
    module = ModuleType("pynvml")
    vars(module).update({name: getattr(pynvml, name) for name in dir(pynvml) if name.startswith("NVML")})
    vars(module).update({f"nvmlDeviceGet{key}": lambda *_, value=value: value for key, value in told.items()})
    vars(module).update(
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlSystemGetDriverVersion=lambda: "580.82.07",
        nvmlDeviceGetCount=lambda: count,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetUUID=lambda handle: f"GPU-{handle}",
    )
    vars(module).update(answers)
    return module


def machine(
    root: Path, *built: str, cards: ModuleType | None = None, sysctl: str | None = None, **environ: str
) -> Machine:
    """A recorded machine with a llama.cpp that was built for these backends."""
    folder = root / "libraries"
    folder.mkdir(parents=True)
    for name in built:
        (folder / f"libggml-{name}.so").touch()
    return probe(
        measure=False,
        sources=ProbeSources(
            root=root,
            environ=environ,
            nvml=lambda _, __: cards,
            amdsmi=lambda: None,
            sysctl=None if sysctl is None else lambda _: sysctl,
            host_memory=lambda: SystemMemory(32 * GIB, 20 * GIB),
            allowed_cpus=lambda: {0, 1, 2, 3},
            libraries=lambda: folder,
        ),
    )


def said(machine: Machine, capsys: Capture, voice: Voice = Voice.HUMAN) -> tuple[list[str], list[str]]:
    """Lines of standard output and standard error."""
    out = io.StringIO()
    show(machine, Console(voice, color=False, out=out))
    return out.getvalue().splitlines(), capsys.readouterr().err.splitlines()


def test_every_number_has_a_unit_and_a_source(tree: Tree, capsys: Capture, tmp_path: Path) -> None:
    found = replace(machine(tree(CPU), "cuda", cards=nvml(1)), disk_free=100 * GIB, os="Linux", ram_bandwidth=5.12e10)
    out, err = said(replace(found, ram_bandwidth_source="measured"), capsys)
    named = ", ".join(f"process {10**7 + i} 1.07 GB" for i in range(4))
    assert out == [
        "GPU 0        GeForce RTX 4090, used with cuda",
        "  memory     23.61 GB of 25.76 GB (23.99 GiB) free (NVML)",
        "  bandwidth  1008 GB/s (NVML)",
        "  driver     580.82.07, compute capability 8.9 (NVML)",
        f"  in use by  {named} and 2 more (NVML)",
        "CPU          AMD Ryzen 9 7950X, 4 cores (operating system)",
        "  SIMD       AVX2 FMA (operating system)",
        "RAM          21.47 GB of 34.36 GB (32 GiB) available (operating system)",
        "  bandwidth  51 GB/s (measured)",
        f"disk         107.37 GB free in {tmp_path / 'hub'} (operating system)",
        "system       Linux",
        "backends     cpu, cuda (files of the installed llama-cpp-python)",
    ]
    assert err == []


def test_the_table_is_named_where_a_number_is_from_it(capsys: Capture) -> None:
    printed = f"hw.memsize: {32 * GIB}\nmachdep.cpu.brand_string: Apple M1 Max\n"
    found = replace(probe_of_mac(printed), os="macOS 26")
    out, _ = said(found, capsys)
    assert out[0].endswith("M1 Max, used with metal")
    assert "  memory     21.47 GB of 22.91 GB (21.33 GiB) of the RAM free (sysctl)" in out
    assert "  bandwidth  400 GB/s (data sheet)" in out


def test_what_hardware_yaml_gives_is_shown_as_such(tree: Tree, capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config/hardware.yaml").write_text(
        "ram: {memory: 48G, bandwidth: 80}\ngpus:\n  0: {memory: 20G, bandwidth: 900}\n  1: {use: no}\n  B580: {}\n"
    )
    out, err = said(machine(tree(CPU), "cuda", cards=nvml(2)), capsys)
    assert out[:3] == [
        "GPU 0        GeForce RTX 4090, used with cuda",
        "  memory     19.33 GB of 21.47 GB (20 GiB) free (hardware.yaml)",
        "  bandwidth  900 GB/s (hardware.yaml)",
    ]
    assert "GPU 1        GeForce RTX 4090, left out by hardware.yaml" in out
    assert "RAM          38.65 GB of 51.54 GB (48 GiB) available (hardware.yaml)" in out
    assert "  bandwidth  80 GB/s (hardware.yaml)" in out
    there = "0 (GeForce RTX 4090), 1 (GeForce RTX 4090)"
    assert err == [f"hardware.yaml names a GPU that is not here: B580. Found: {there}."]


def test_a_carve_out_is_told(tree: Tree, capsys: Capture) -> None:
    folder = "sys/class/drm/card0/device"
    apu: dict[str, str | bytes] = {
        f"{folder}/mem_info_vram_total": str(96 * GIB),
        f"{folder}/mem_info_gtt_total": str(16 * GIB),
        f"{folder}/gpu_metrics": bytes([0x08, 0x01, 3, 0]),
        "dev/dri/renderD128": "",
    }
    out, _ = said(machine(tree(CPU | RADEON | apu), "vulkan"), capsys)
    assert "  memory     120.26 GB of 120.26 GB (112 GiB) free (amdgpu driver)" in out
    assert "  carve-out  103.08 GB of these are no RAM (amdgpu driver)" in out


def probe_of_mac(printed: str) -> Machine:
    sources = ProbeSources(
        root=Path("nowhere"),
        environ={},
        nvml=lambda _, __: None,
        sysctl=lambda _: printed,
        host_memory=lambda: SystemMemory(32 * GIB, 20 * GIB),
        libraries=lambda: None,
    )
    found = probe(measure=False, sources=sources)
    return replace(found, devices=tuple(replace(one, usable=True, reason="", fix="") for one in found.devices))


def test_two_cards_without_a_build_are_one_line_and_one_command(tree: Tree, capsys: Capture) -> None:
    out, err = said(machine(tree(CPU), cards=nvml(2)), capsys)
    assert [line for line in out if line.startswith("GPU")] == [
        "GPU 0        GeForce RTX 4090, not used",
        "GPU 1        GeForce RTX 4090, not used",
    ]
    names = "GPU 0 (GeForce RTX 4090), GPU 1 (GeForce RTX 4090)"
    assert err == [
        f"{names} are not used: the installed llama-cpp-python was built without CUDA.",
        f"  next: {install_command('cuda')}",
    ]


def test_a_card_that_may_not_be_opened(tree: Tree, capsys: Capture) -> None:
    out, err = said(machine(tree(CPU | RADEON | {".dockerenv": ""}), "vulkan"), capsys)
    assert out[0] == "GPU 0        Radeon RX 7900 XTX, not used"
    assert "  bandwidth  960 GB/s (data sheet)" in out
    assert err == [
        "GPU 0 (Radeon RX 7900 XTX) is not used: no access to /dev/dri/renderD128.",
        "  next: docker run --device /dev/dri/renderD128 …",
    ]


def test_beside_a_card_the_processors_gpu_is_no_fault(tree: Tree, capsys: Capture) -> None:
    """The usual laptop: nothing is wrong, so nothing is a warning, and no command is recommended."""
    found = machine(tree(CPU | ARC), "cuda", cards=nvml(1))
    _, err = said(found, capsys)
    reason = "llama.cpp leaves a GPU that shares the RAM alone beside a card with memory of its own"
    assert err == [f"GPU 1 (GPU 64a0) is not used: {reason}."]
    assert said(found, capsys, Voice.QUIET)[1] == []


def test_hidden_cards_come_back_with_one_command(tree: Tree, capsys: Capture) -> None:
    out, err = said(machine(tree(CPU), "cuda", cards=nvml(2), CUDA_VISIBLE_DEVICES=""), capsys)
    assert out[0].split() == ["GPU", "none", "found"]
    assert err == [
        'CUDA_VISIBLE_DEVICES="" hides 2 of 2 NVIDIA devices.',
        "  next: unset CUDA_VISIBLE_DEVICES",
    ]


def fail() -> None:
    raise pynvml.NVMLError_LibRmVersionMismatch


def test_a_driver_that_was_updated_wants_a_reboot(tree: Tree, capsys: Capture) -> None:
    _, err = said(machine(tree(CPU), "cuda", cards=nvml(1, nvmlInit=fail)), capsys)
    assert err[0].startswith("NVIDIA's driver does not answer: ")
    assert err[1:] == ["  next: sudo reboot"]


def everything(tree: Tree) -> Machine:
    """A machine with something to say about all of it."""
    limits = {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": f"{8 * GIB}\n"}
    unknown = nvml(2, nvmlDeviceGetName=lambda _: "NVIDIA Prototype", nvmlDeviceGetMemoryBusWidth=lambda _: 0)
    return machine(tree(CPU | RADEON | ARC | limits), cards=unknown, CUDA_VISIBLE_DEVICES="1", HIP_VISIBLE_DEVICES="0")


def test_no_line_is_said_twice(tree: Tree, capsys: Capture) -> None:
    _, err = said(everything(tree), capsys)
    assert len(err) == len(set(err)) > 6


def test_json_loses_nothing(tree: Tree, capsys: Capture) -> None:
    found = everything(tree)
    _, err = said(found, capsys)
    out, _ = said(found, capsys, Voice.JSON)
    page: dict[str, Any] = json.loads("\n".join(out))
    texts = [one["text"] for one in page["notes"]] + [one["fix"] for one in [*page["notes"], *page["devices"]]]
    texts += [f"is not used: {one['reason']}." for one in page["devices"]]
    texts += [f"are not used: {one['reason']}." for one in page["devices"]]
    for line in err:
        assert any(text and line.endswith(text) for text in texts), line
    for one in page["devices"]:
        assert one["usable"] == (not one["reason"])
        assert {"total", "free", "bandwidth", "bandwidth_source", "backend", "users", "driver"} <= set(one)
    assert {one["about"] for one in page["notes"]} == {"devices", "ram"}


def test_quiet_keeps_what_something_can_be_done_about(tree: Tree, capsys: Capture) -> None:
    out, err = said(machine(tree(CPU), cards=nvml(1)), capsys, Voice.QUIET)
    assert out[0] == "GPU 0        GeForce RTX 4090, not used"
    assert err[1] == f"  next: {install_command('cuda')}"


def test_a_bad_hardware_yaml_is_one_clear_error(hermes: RunHermes, tmp_path: Path) -> None:
    (tmp_path / "hardware.yaml").write_text("gpus:\n  0: {bandwith: 9}\n")
    for command in (["hardware"], ["recommend"], ["plan", "hermes-3:8b"]):
        done = hermes(*command, env={"HERMES_LLM_CONFIG_DIR": str(tmp_path)})
        assert (done.returncode, done.stdout) == (2, "")
        assert "hardware.yaml: Object contains unknown field `bandwith` - at `$.gpus[...]`" in done.stderr
        assert "docs/planning.md" in done.stderr


def test_the_command_itself(hermes: RunHermes, tmp_path: Path) -> None:
    own_cache = {"HERMES_LLM_CACHE_DIR": str(tmp_path / "cache")}
    done = hermes("hardware", "--json", env=own_cache)
    assert done.returncode == 0, done.stderr
    page = json.loads(done.stdout)
    assert page["ram_total"] > 0
    assert page["ram_bandwidth_source"] == "measured"
    again = hermes("hardware", env=own_cache)
    assert f"{page['cores']} cores (operating system)" in again.stdout
    assert "GB/s (measured)" in again.stdout


def test_nvml_is_named_only_for_what_it_tells(tree: Tree, capsys: Capture) -> None:
    board = Device("nvidia", "Jetson AGX Orin", 32 * GIB, 30 * GIB, None, "assumed", "cuda", unified=True)
    out, _ = said(replace(machine(tree(CPU)), devices=(board,), cores=1), capsys)
    assert "  memory     32.21 GB of 34.36 GB (32 GiB) of the RAM free (operating system)" in out
    assert not any("NVML" in line for line in out)
    assert any(", 1 core (" in line for line in out)
