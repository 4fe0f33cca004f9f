from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil
import pytest

from hermes_cli.hardware import system
from hermes_cli.hardware.system import SystemMemory

Tree = Callable[[Mapping[str, str]], Path]
GIB = 2**30
HOST = SystemMemory(64 * GIB, 40 * GIB)
NO_LIMIT = "9223372036854771712\n"  # version 1's way to say so

RYZEN = """processor	: 0
vendor_id	: AuthenticAMD
model name	: AMD Ryzen 9 7950X 16-Core  Processor
flags		: fpu sse2 ssse3 fma cx16 sse4_1 avx f16c rdrand bmi1 avx2 bmi2 avx512f avx512_bf16 avx512_vnni
"""
CORE_ULTRA = """model name	: Intel(R) Core(TM) Ultra 7 258V
flags		: fpu fma avx f16c avx2 bmi2 avx_vnni
"""
SAPPHIRE_RAPIDS = """model name	: Intel(R) Xeon(R) Platinum 8480C
flags		: avx avx2 fma f16c bmi2 avx512f avx512_vnni avx512_bf16 avx_vnni amx_bf16 avx512_fp16 amx_tile amx_int8
"""
GRAVITON_3 = """processor	: 0
BogoMIPS	: 2100.00
Features	: fp asimd evtstrm aes atomics fphp asimdhp asimddp sha512 sve i8mm bf16
CPU implementer	: 0x41
CPU architecture: 8
CPU part	: 0xd40
"""
RASPBERRY_PI_5 = """Features	: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer	: 0x41
CPU part	: 0xd0b
"""


def v2(path: str, **files: str) -> dict[str, str]:
    return {f"sys/fs/cgroup{path}/{name.replace('_', '.', 1)}": content for name, content in files.items()}


def memory(tree: Tree, files: Mapping[str, str]) -> SystemMemory:
    return system.within_limits(tree(files), HOST)


def test_no_cgroup_no_limit(tree: Tree) -> None:
    assert memory(tree, {}) == HOST
    assert memory(tree, {"proc/self/cgroup": "0::/user.slice/session-2.scope\n"}) == HOST


def test_a_container_with_version_2(tree: Tree) -> None:
    files = v2(
        "",
        memory_max="8589934592\n",
        memory_high="max\n",
        memory_current=f"{3 * GIB}\n",
        memory_stat=f"anon 12345\nfile {2 * GIB}\ninactive_file {GIB}\nactive_file {GIB // 2}\n",
    )
    assert memory(tree, {"proc/self/cgroup": "0::/\n"} | files) == SystemMemory(8 * GIB, 13 * GIB // 2)


@pytest.mark.parametrize(
    ("used", "stat", "available"),
    [
        (5.5, {"inactive_file": 0.25, "active_file": 5}, 7.75),  # a model was read more than once
        (4, {"slab_reclaimable": 3, "slab_unreclaimable": 0.5}, 7),
        (6, {"inactive_file": 2, "active_file": 2, "slab_reclaimable": 1}, 7),
        (6, {"anon": 5, "shmem": 1, "file_dirty": 1}, 2),  # nothing of this can be dropped
        (1, {"active_file": 2}, 8),  # counters lag behind each other
    ],
)
def test_what_the_kernel_drops_before_it_refuses_is_free(
    tree: Tree, used: float, stat: dict[str, float], available: float
) -> None:
    for prefix, usage, folder, group in (
        ("", "memory.current", "sys/fs/cgroup", "0::/\n"),
        ("total_", "memory.usage_in_bytes", "sys/fs/cgroup/memory", V1_DOCKER),
    ):
        files = {
            "proc/self/cgroup": group,
            f"{folder}/memory.max": f"{8 * GIB}\n",
            f"{folder}/memory.limit_in_bytes": f"{8 * GIB}\n",
            f"{folder}/{usage}": f"{int(used * GIB)}\n",
            f"{folder}/memory.stat": "".join(f"{prefix}{name} {int(size * GIB)}\n" for name, size in stat.items()),
        }
        assert memory(tree, files) == SystemMemory(8 * GIB, int(available * GIB))


def test_nested_limits_of_version_2(tree: Tree) -> None:
    """The service has no limit, its slice 16 GiB of which others use 10, the slice above it 32 GiB."""
    files = {
        "proc/self/cgroup": "0::/work.slice/work-llm.slice/hermes.service\n",
        **v2("/work.slice", memory_max=f"{32 * GIB}\n", memory_high="max\n", memory_current=f"{12 * GIB}\n"),
        **v2(
            "/work.slice/work-llm.slice",
            memory_max=f"{20 * GIB}\n",
            memory_high=f"{16 * GIB}\n",
            memory_current=f"{10 * GIB}\n",
            memory_stat="inactive_file 0\n",
        ),
        **v2(
            "/work.slice/work-llm.slice/hermes.service", memory_max="max\n", memory_high="max\n", memory_current="1\n"
        ),
    }
    assert memory(tree, files) == SystemMemory(16 * GIB, 6 * GIB)


def test_an_outer_group_may_be_fuller_than_the_inner_one(tree: Tree) -> None:
    files = {
        "proc/self/cgroup": "0::/outer/inner\n",
        **v2("/outer", memory_max=f"{16 * GIB}\n", memory_current=f"{15 * GIB}\n"),
        **v2("/outer/inner", memory_max=f"{8 * GIB}\n", memory_current=f"{GIB}\n"),
    }
    assert memory(tree, files) == SystemMemory(8 * GIB, GIB)


def test_limits_above_the_machine_change_nothing(tree: Tree) -> None:
    files = v2("", memory_max=f"{99 * GIB}\n", memory_current=f"{GIB}\n")
    assert memory(tree, {"proc/self/cgroup": "0::/\n"} | files) == HOST


def test_a_group_over_its_soft_limit_has_nothing_left(tree: Tree) -> None:
    files = v2("", memory_max=f"{9 * GIB}\n", memory_high=f"{4 * GIB}\n", memory_current=f"{5 * GIB}\n")
    assert memory(tree, {"proc/self/cgroup": "0::/\n"} | files) == SystemMemory(4 * GIB, 0)


V1_DOCKER = "12:cpu,cpuacct:/docker/4f3c\n7:memory:/docker/4f3c\n1:name=systemd:/docker/4f3c\n0::/system.slice\n"


def v1_memory(path: str, limit: str, usage: int = 0, inactive: int = 0) -> dict[str, str]:
    folder = f"sys/fs/cgroup/memory{path}"
    return {
        f"{folder}/memory.limit_in_bytes": limit,
        f"{folder}/memory.usage_in_bytes": f"{usage}\n",
        f"{folder}/memory.stat": f"cache 1\ninactive_file 5\ntotal_inactive_file {inactive}\n",
    }


def test_a_container_with_version_1(tree: Tree) -> None:
    """The path is the host's: inside, only the container's own group can be seen, at the top."""
    files = {"proc/self/cgroup": V1_DOCKER} | v1_memory("", f"{4 * GIB}\n", usage=2 * GIB, inactive=GIB)
    assert memory(tree, files) == SystemMemory(4 * GIB, 3 * GIB)


def test_version_1_outside_a_container(tree: Tree) -> None:
    files = {
        "proc/self/cgroup": V1_DOCKER,
        **v1_memory("", NO_LIMIT, usage=30 * GIB),
        **v1_memory("/docker/4f3c", f"{16 * GIB}\n", usage=GIB),
    }
    assert memory(tree, files) == SystemMemory(16 * GIB, 15 * GIB)


def test_a_limit_of_version_1_above_what_the_container_sees(tree: Tree) -> None:
    """The container has none of its own, the pod around it has one, and only memory.stat tells."""
    files = v1_memory("", NO_LIMIT, usage=GIB)
    stat = {"sys/fs/cgroup/memory/memory.stat": f"hierarchical_memory_limit {6 * GIB}\ntotal_inactive_file 0\n"}
    assert memory(tree, {"proc/self/cgroup": V1_DOCKER} | files | stat) == SystemMemory(6 * GIB, 5 * GIB)


@pytest.mark.parametrize("limit", ["0\n", "", "what\n"])
def test_a_limit_that_cannot_be_is_none(tree: Tree, limit: str) -> None:
    assert memory(tree, {"proc/self/cgroup": V1_DOCKER} | v1_memory("", limit)) == HOST
    two = v2("", memory_max=limit, memory_high=limit)
    assert memory(tree, {"proc/self/cgroup": "0::/\n"} | two) == HOST


def test_more_available_than_there_is_is_all_of_it(tree: Tree) -> None:
    assert system.within_limits(tree({}), SystemMemory(8 * GIB, 9 * GIB)) == SystemMemory(8 * GIB, 8 * GIB)


def test_version_1_without_a_limit(tree: Tree) -> None:
    assert memory(tree, {"proc/self/cgroup": V1_DOCKER} | v1_memory("", NO_LIMIT, usage=30 * GIB)) == HOST


def test_the_version_that_has_the_controller_counts(tree: Tree) -> None:
    files = {"proc/self/cgroup": V1_DOCKER, **v2("", memory_max="1\n"), **v1_memory("", f"{4 * GIB}\n")}
    assert memory(tree, files).total == 4 * GIB


def topology(threads: list[str]) -> dict[str, str]:
    return {f"sys/devices/system/cpu/cpu{i}/topology/core_cpus_list": f"{of}\n" for i, of in enumerate(threads)}


SMT_8 = topology(["0,4", "1,5", "2,6", "3,7"] * 2)


def test_threads_of_one_core_count_once(tree: Tree) -> None:
    root = tree(SMT_8)
    assert system.cores(root, {}, range(8)) == 4
    assert system.cores(root, {}, {0, 4, 5}) == 2


def test_older_kernels_name_the_file_otherwise(tree: Tree) -> None:
    root = tree({name.replace("core_cpus_list", "thread_siblings_list"): of for name, of in SMT_8.items()})
    assert system.cores(root, {}, range(8)) == 4


def test_without_topology_every_cpu_is_a_core(tree: Tree) -> None:
    assert system.cores(tree({}), {}, {1, 2, 3}) == 3


def alone(count: int, start: int = 0) -> dict[str, str]:
    """Cores with one thread each."""
    return {f"sys/devices/system/cpu/cpu{i}/topology/core_cpus_list": f"{i}\n" for i in range(start, start + count)}


CORE_I9_13900K = (
    topology([f"{2 * core}-{2 * core + 1}" for core in range(8) for _ in range(2)])
    | alone(16, start=16)
    | {"sys/devices/cpu_core/cpus": "0-15\n", "sys/devices/cpu_atom/cpus": "16-31\n"}
)
CORE_ULTRA_265K = alone(20) | {"sys/devices/cpu_core/cpus": "0-3,12-15\n", "sys/devices/cpu_atom/cpus": "4-11,16-19\n"}


def capacities(*of: int) -> dict[str, str]:
    folder = "sys/devices/system/cpu"
    return alone(len(of)) | {f"{folder}/cpu{i}/cpu_capacity": f"{capacity}\n" for i, capacity in enumerate(of)}


RK3588 = capacities(*[530] * 4, *[1024] * 4)
SNAPDRAGON_8_GEN_3 = capacities(*[325] * 2, *[782] * 3, *[720] * 2, 1024)


@pytest.mark.parametrize(
    ("files", "cpus", "cores"),
    [
        (CORE_I9_13900K, range(32), 8),
        (CORE_I9_13900K, range(8, 32), 4),
        (CORE_I9_13900K, range(16, 32), 16),  # only slow ones are left to it
        (CORE_ULTRA_265K, range(20), 8),
        (RK3588, range(8), 4),
        (RK3588, range(4), 4),
        (SNAPDRAGON_8_GEN_3, range(8), 6),
        (capacities(1024, 1024, 1024, 1024), range(4), 4),
        (alone(4) | {"sys/devices/cpu_core/cpus": "what\n"}, range(4), 4),
    ],
)
def test_only_the_fast_cores_count(tree: Tree, files: dict[str, str], cpus: range, cores: int) -> None:
    assert system.cores(tree(files), {}, cpus) == cores


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("max 100000", 4), ("250000 100000", 2), ("50000 100000", 1), ("1600000 100000", 4), ("", 4), ("100000 0", 4)],
)
def test_a_quota_of_cpu_time_in_version_2(tree: Tree, quota: str, cores: int) -> None:
    root = tree(SMT_8 | {"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/x": "", "sys/fs/cgroup/a/cpu.max": quota})
    assert system.cores(root, {}, range(8)) == cores


@pytest.mark.parametrize("folder", ["cpu", "cpu,cpuacct"])
@pytest.mark.parametrize(("quota", "cores"), [("-1", 4), ("300000", 3)])
def test_a_quota_of_cpu_time_in_version_1(tree: Tree, folder: str, quota: str, cores: int) -> None:
    files = {f"sys/fs/cgroup/{folder}/cpu.cfs_quota_us": quota, f"sys/fs/cgroup/{folder}/cpu.cfs_period_us": "100000\n"}
    root = tree(SMT_8 | {"proc/self/cgroup": V1_DOCKER} | files)
    assert system.cores(root, {}, range(8)) == cores


@pytest.mark.parametrize(
    ("cpuinfo", "name", "flags"),
    [
        (RYZEN, "AMD Ryzen 9 7950X 16-Core Processor", "AVX AVX2 AVX512F AVX512_VNNI AVX512_BF16 F16C FMA BMI2"),
        (CORE_ULTRA, "Intel(R) Core(TM) Ultra 7 258V", "AVX AVX2 AVX_VNNI F16C FMA BMI2"),
        (
            SAPPHIRE_RAPIDS,
            "Intel(R) Xeon(R) Platinum 8480C",
            "AVX AVX2 AVX512F AVX512_VNNI AVX512_BF16 AVX_VNNI AMX_INT8 F16C FMA BMI2",
        ),
        (GRAVITON_3, "Neoverse V1", "NEON DOTPROD I8MM SVE"),
        ("model name : some old Atom\nflags : fpu sse2 ssse3\n", "some old Atom", ""),
    ],
)
def test_processors(tree: Tree, cpuinfo: str, name: str, flags: str) -> None:
    root = tree({"proc/cpuinfo": cpuinfo})
    assert system.cpu_name(root, {}) == name
    assert system.simd(root, {}) == tuple(flags.split())


def test_boards_are_called_by_their_name(tree: Tree) -> None:
    board = "Raspberry Pi 5 Model B Rev 1.0\0"
    root = tree({"proc/cpuinfo": RASPBERRY_PI_5, "proc/device-tree/model": board})
    assert system.cpu_name(root, {}) == "Raspberry Pi 5 Model B Rev 1.0"
    assert system.simd(root, {}) == ("NEON", "DOTPROD")


def test_a_processor_without_a_name(tree: Tree) -> None:
    assert system.cpu_name(tree({}), {}) == platform.machine()
    assert system.simd(tree({}), {}) == ()


def test_windows_tells_features_by_number() -> None:
    assert system.windows_simd({39, 40}.__contains__) == ("AVX", "AVX2", "F16C", "FMA", "BMI2")
    assert system.windows_simd({39}.__contains__) == ("AVX",)
    assert system.windows_simd({19, 43}.__contains__) == ("NEON", "DOTPROD")


def test_the_last_cache(tree: Tree) -> None:
    folder = "sys/devices/system/cpu/cpu0/cache"
    sizes = {"index0": "48K\n", "index2": "2048K\n", "index3": "107520K\n", "index4": "what\n"}
    assert system.last_level_cache(tree({f"{folder}/{index}/size": size for index, size in sizes.items()})) == 105 << 20
    assert system.last_level_cache(Path("nowhere")) == 0


@pytest.mark.skipif(platform.system() != "Linux", reason="reads Linux's files")
def test_operating_systems(tree: Tree) -> None:
    ubuntu = {"etc/os-release": 'NAME="Ubuntu"\nPRETTY_NAME="Ubuntu 24.04.3 LTS"\n'}
    machine = platform.machine()
    root = tree(ubuntu | {"proc/sys/kernel/osrelease": "6.8.0-60-generic\n"})
    assert system.os_text(root) == f"Ubuntu 24.04.3 LTS, Linux 6.8.0-60-generic, {machine}"
    root = tree(ubuntu | {"proc/sys/kernel/osrelease": "5.15.167.4-microsoft-standard-WSL2\n"})
    assert system.os_text(root) == f"Ubuntu 24.04.3 LTS, Linux 5.15.167.4-microsoft-standard-WSL2 under WSL, {machine}"
    (root / "etc/os-release").unlink()
    (root / "proc/sys/kernel/osrelease").unlink()
    assert system.os_text(root) == f"Linux {platform.release()}, {machine}"


def test_the_disk_of_a_folder_that_is_yet_to_be_made(tmp_path: Path) -> None:
    free = system.disk_free(tmp_path / "a" / "b" / "c")
    assert free == pytest.approx(shutil.disk_usage(tmp_path).free, abs=GIB)
    assert not (tmp_path / "a").exists()


def test_a_folder_that_cannot_be_looked_at_has_no_known_room() -> None:
    """Asking for it fails as for a folder in somebody else's home: with an error other than "not found"."""
    assert system.disk_free(Path("/tmp") / ("x" * 5000) / "models") == 0  # noqa: S108 - nothing is written


def test_this_machine() -> None:
    total, available = system.host_memory()
    assert total == psutil.virtual_memory().total
    assert 0 < available <= total
    limited = system.within_limits(Path("/"), SystemMemory(total, available))
    assert 0 < limited.total <= total
    cores = system.cores(Path("/"), {}, system.allowed_cpus())
    assert 1 <= cores <= (os.cpu_count() or 1)
