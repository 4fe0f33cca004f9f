"""llama.cpp's own programs, built once from the very source that the installed llama-cpp-python was built from.

    python benchmarks/peers.py      # builds them if they are not there yet, and says where they are

They lie in hermes' cache folder, under llama-cpp-python's version. `HERMES_BENCH_PEERS` names a folder with ready ones
instead. `CMAKE_ARGS`, which a GPU needs, is passed on to CMake; pip gives llama-cpp-python the same.
"""

import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import time
from importlib.metadata import version
from pathlib import Path

from hermes_cli import paths

READY = "HERMES_BENCH_PEERS"
PROGRAMS = ("llama-server", "llama-bench", "llama-batched-bench", "llama-cli")
CMAKE_OPTIONS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_APP=OFF",
    "-DLLAMA_OPENSSL=OFF",  # loopback only
    "-DLLAMA_USE_PREBUILT_UI=OFF",
    "-DLLAMA_BUILD_IS_DEV=OFF",
    f"-DCMAKE_PROJECT_llama.cpp_INCLUDE={Path(__file__).parents[1] / 'tools/lean-llama.cmake'}",  # the AMX fault
    "-DLEAN_PROGRAMS=ON",
)
PACKAGE = "llama-cpp-python"


def programs() -> Path:
    """The folder with `PROGRAMS`, built if need be: some 10 minutes on 2 cores, 0.5 GB on disk.

    Exits with what is wrong and what to do about it.
    """
    if given := os.environ.get(READY):
        return _given(Path(given).expanduser())
    home = paths.cache_dir() / "peers" / version(PACKAGE)
    built = home / "built"
    if not built.exists():
        _build(home)
        built.touch()
    return home / "build" / "bin"


def _given(folder: Path) -> Path:
    if not (folder / "llama-server").is_file():
        sys.exit(f"{READY} is {folder}, and there is no llama-server; name the folder that it lies in.")
    return folder


def _build(home: Path) -> None:
    for tool in ("cmake", "ninja"):
        if not shutil.which(tool):
            sys.exit(
                f"{tool} is needed to build llama.cpp's programs; install it (pip install {tool}), or name a folder "
                f"with ready ones in {READY}."
            )
    started = time.monotonic()
    home.mkdir(parents=True, exist_ok=True)
    source = home / "source"
    if not source.exists():
        _fetch(home, source)
    build, extra = home / "build", shlex.split(os.environ.get("CMAKE_ARGS", ""))
    print(f"[2/3] configuring in {build}", file=sys.stderr)
    _run("cmake", "-G", "Ninja", "-S", source, "-B", build, *CMAKE_OPTIONS, *extra, quiet=home / "cmake.log")
    print("[3/3] building (some 10 minutes on 2 cores, only the first time)", file=sys.stderr)
    _run("ninja", "-C", build, *PROGRAMS)
    print(f"built in {time.monotonic() - started:.0f} s", file=sys.stderr)


def _fetch(home: Path, source: Path) -> None:
    """The source as llama-cpp-python ships it. pip asks for its metadata, and does not compile it."""
    wanted = f"{PACKAGE}=={version(PACKAGE)}"
    print(f"[1/3] fetching the source of {wanted}", file=sys.stderr)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet")
    _run(*pip, "--no-deps", "--no-binary", PACKAGE, "--dest", home, wanted)
    archive = next(home.glob("llama_cpp_python-*.tar.gz"))
    unpacked = home / "unpacked"
    shutil.rmtree(unpacked, ignore_errors=True)
    with tarfile.open(archive) as tar:
        tar.extractall(unpacked, filter="data")
    next(unpacked.glob("*/vendor/llama.cpp")).rename(source)  # last: what is there is whole
    shutil.rmtree(unpacked)
    archive.unlink()


def _run(*command: str | Path, quiet: Path | None = None) -> None:
    """Run a program, its output on standard error or in a file; exits if it fails."""
    with (quiet or Path(os.devnull)).open("wb") as log:
        code = subprocess.run(command, check=False, stdout=log if quiet else sys.stderr).returncode
    if code:
        where = f"; {quiet} has its output" if quiet else ""
        sys.exit(f"{Path(command[0]).name} failed with code {code}{where}.")


if __name__ == "__main__":
    print(programs())
