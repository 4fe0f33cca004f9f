"""Logs as llama.cpp writes them; test_dry_run.py compares with llama.cpp itself, which has only a CPU there."""

from __future__ import annotations

import pytest

from hermes_cli.engine.embedded.dry_run import read_logs
from hermes_cli.engine.embedded.messages import LoggedDevice
from hermes_cli.errors import EngineError
from hermes_cli.planning.memory import MemoryBreakdown, Weights

MIB = 1 << 20
WEIGHTS = Weights(embedding=1000, layers=(1, 2, 4, 8), output=100)


def model_log(*names: str, on: str) -> str:
    """Of four layers and the output; `on` has a digit for the device of each, - for the CPU."""
    lines = [
        f"llama_prepare_model_devices: using device {name} (NVIDIA GeForce RTX 3060 (12 GB)) (0000:0{index}:00.0) - 11{index}91 MiB free"
        for index, name in enumerate(names)
    ]
    lines += ["llama_model_loader: loaded meta data with 30 key-value pairs and 291 tensors from x.gguf (version V3)"]
    for layer, device in enumerate(on):
        name = "CPU" if device == "-" else names[int(device)]
        lines.append(f"load_tensors: layer {layer:3} assigned to device {name}, is_swa = 0")
    lines += [f"load_tensors: {'CPU_Mapped':>12} model buffer size =     0.00 MiB"]
    return "\n".join(lines) + "\n"


def cache_log(size: float, *names: str) -> str:
    lines = [f"llama_kv_cache: layer {layer:3}: dev = {name}" for layer, name in enumerate(names)]
    lines += [f"llama_kv_cache: {name:>10} KV buffer size =     0.00 MiB" for name in dict.fromkeys(names)]
    lines += [
        f"llama_kv_cache: size = {size:7.2f} MiB (  8192 cells, {len(names):3} layers,  1/1 seqs), K (f16): {size / 2:7.2f} MiB, V (f16): {size / 2:7.2f} MiB"
    ]
    return "\n".join(lines) + "\n"


def buffers_log(**sizes: float) -> str:
    output = f"llama_context: {'CPU':>10}  output buffer size =     0.50 MiB\n"
    return output + "".join(
        f"sched_reserve: {name:>10} compute buffer size = {size:8.2f} MiB\n" for name, size in sizes.items()
    )


def test_all_on_the_cpu() -> None:
    log = cache_log(64, *["CPU"] * 4) + buffers_log(CPU=5.5)
    found = read_logs(model_log(on="-----"), log, WEIGHTS).parts
    assert found == (MemoryBreakdown(1115, 64 * MIB, int(5.5 * MIB), MIB // 2),)


def test_two_cards_and_a_pinned_host_buffer() -> None:
    log = cache_log(64, "CPU", "CUDA0", "CUDA0", "CUDA1") + buffers_log(CUDA0=100, CUDA1=50, CUDA_Host=8)
    found = read_logs(model_log("CUDA0", "CUDA1", on="-0011"), log, WEIGHTS).parts
    assert found == (
        MemoryBreakdown(1001, 16 * MIB, 8 * MIB, MIB // 2),
        MemoryBreakdown(2 + 4, 32 * MIB, 100 * MIB),
        MemoryBreakdown(8 + 100, 16 * MIB, 50 * MIB),
    )


def test_devices_come_in_llama_cpp_s_order_with_what_is_free() -> None:
    log = cache_log(64, *["CPU"] * 4) + buffers_log(CPU=5.5)
    found = read_logs(model_log("CUDA0", "CUDA1", on="00000"), log, WEIGHTS).devices
    assert found == (LoggedDevice("CUDA0", 11_091 * MIB), LoggedDevice("CUDA1", 11_191 * MIB))
    assert read_logs(model_log(on="-----"), log, WEIGHTS).devices == ()


@pytest.mark.parametrize(
    ("device", "buffer", "is_its"),
    [
        ("CUDA0", "CUDA0", True),
        ("CUDA0", "CUDA0_Split", True),
        ("MTL0", "MTL0_Private", True),
        ("MTL0", "MTL0_Mapped", True),
        ("Vulkan0", "Vulkan_Host", False),
        ("CUDA1", "CUDA10", False),
        ("SYCL0", "CPU_REPACK", False),
        ("ROCm0", "ROCm_Host", False),
    ],
)
def test_whose_a_buffer_is(device: str, buffer: str, *, is_its: bool) -> None:
    log = cache_log(4, *[device] * 4) + buffers_log(**{buffer: 7})
    _, held = read_logs(model_log(device, on="00000"), log, WEIGHTS).parts
    assert held.compute == (7 * MIB if is_its else 0)


def test_a_tied_embedding_table_is_copied_to_the_device() -> None:
    tied = Weights(embedding=1000, layers=(1, 2, 4, 8), output=100, tied=True)
    log = cache_log(4, *["CUDA0"] * 4) + buffers_log(CUDA0=1)
    ram, card = read_logs(model_log("CUDA0", on="00000"), log, tied).parts
    assert (ram.weights, card.weights) == (1000, 15 + 1100)
    (alone,) = read_logs(model_log(on="-----"), log, tied).parts
    assert alone.weights == 1115


def test_two_caches_count_both() -> None:
    """Models with a sliding window have a short and a long one."""
    log = cache_log(10, "CPU", "CUDA0") + cache_log(40, "CUDA0", "CUDA0") + buffers_log(CPU=1)
    ram, card = read_logs(model_log("CUDA0", on="-0000"), log, WEIGHTS).parts
    assert (ram.kv_cache, card.kv_cache) == (5 * MIB, 45 * MIB)


@pytest.mark.parametrize(
    ("model", "context"),
    [
        ("", cache_log(4, "CPU") + buffers_log(CPU=1)),
        (model_log(on="-----"), cache_log(4, "CPU")),
        (model_log(on="-----"), buffers_log(CPU=1)),
        (model_log(on="-----"), "something else entirely\n"),
    ],
)
def test_a_log_that_says_too_little_is_an_error(model: str, context: str) -> None:
    with pytest.raises(EngineError, match="does not say"):
        read_logs(model, context, WEIGHTS)
