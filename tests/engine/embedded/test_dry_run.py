"""Plans confirmed by real llama.cpp in a real child process, on the demo model and on skeletons of large ones."""

from __future__ import annotations

import math
import os
import re
import resource
import signal
import struct
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from engine_rig import children, pid_of, run
from gguf_bytes import entry, gguf, string, tensor
from hostile_gguf import hostile
from scripted_child import program
from skeleton import metadata, write_skeleton

from hermes_cli.catalog.load import shipped_catalogue
from hermes_cli.catalog.models import Architecture, Yarn, model_tensors
from hermes_cli.engine.embedded import child as child_module
from hermes_cli.engine.embedded.bindings import LOG
from hermes_cli.engine.embedded.child import Child
from hermes_cli.engine.embedded.engine import EmbeddedEngine
from hermes_cli.engine.embedded.fit_check import FitCheck, check_fit
from hermes_cli.engine.embedded.llama import LlamaContext, LlamaModel
from hermes_cli.errors import DoesNotFitError, EngineError, HermesError, IntegrityError, UsageError
from hermes_cli.gguf.types import KvType
from hermes_cli.hardware.advice import advice_at
from hermes_cli.hardware.machine import Device, Machine
from hermes_cli.hardware.probe import probe
from hermes_cli.planning.fitted_plan import FittedPlan
from hermes_cli.planning.load_plan import LoadOverrides
from hermes_cli.planning.memory import ContextSettings, on_cpu, weights
from hermes_cli.planning.placement import OVERHEAD, reserved_bytes

MODELS = {model.short: model for model in shipped_catalogue().models}
ONE_OF_EACH_KIND = ["hermes-4.3:36b", "hermes-4:14b", "hermes-3:8b", "hermes-3:3b", "hermes-2:8x7b", "hermes-4:405b"]
MIB = 1 << 20
GIB = 1 << 30
ROUNDING = MIB // 100  # of llama.cpp's log


def architecture(layers: int, heads: int, head_length: int) -> Architecture:
    """A llama that is small in everything else."""
    return Architecture(
        kind="llama",
        layers=layers,
        embedding_length=64,
        heads=heads,
        kv_heads=heads,
        head_length=head_length,
        feed_forward_length=64,
        vocabulary=64,
        tokenizer="llama",
        rope_base=10_000.0,
    )


def machine(ram: float, *cards: float) -> Machine:
    """With so many GiB of free RAM, and cards that only the machine believes in."""
    devices = tuple(Device("nvidia", "Card", int(gib * GIB), int(gib * GIB), None, "given", "cuda") for gib in cards)
    return Machine(devices, 1 << 40, int(ram * GIB), None, "given", "a CPU", 2, (), "an OS", "/", GIB, ("cpu",))


Skeleton = Callable[[str], Path]


@pytest.fixture
def skeleton(tmp_path: Path) -> Skeleton:
    """Writes a model's header and a hole in place of its weights."""

    def write(name: str) -> Path:
        path = tmp_path / f"{name.replace(':', '-')}.gguf"
        write_skeleton(path, MODELS[name].architecture, MODELS[name].context.trained)
        return path

    return write


@pytest.fixture
def long_winded(tmp_path: Path) -> Path:
    """Little to hold, but 1 MiB of KV cache for each token."""
    write_skeleton(tmp_path / "long.gguf", architecture(4, 512, 128), 65_536)
    return tmp_path / "long.gguf"


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
@pytest.mark.parametrize(("context", "kv_type"), [(None, None), (4000, "q8_0")])
def test_the_child_says_what_planning_computes(
    skeleton: Skeleton, name: str, context: int | None, kv_type: KvType | None
) -> None:
    found = check_fit(skeleton(name), LoadOverrides(context, kv_type=kv_type), machine(1000))
    a = MODELS[name].architecture
    planned = on_cpu(a, weights(a, "F16", imatrix=False), found.plan.settings)
    assert found.total.weights == planned.weights
    assert found.total.kv_cache == pytest.approx(planned.kv_cache, abs=ROUNDING)
    assert found.total.compute == pytest.approx(planned.compute, abs=4 * ROUNDING)
    assert found.total.output == pytest.approx(planned.output, abs=ROUNDING)
    assert found.total.overhead == OVERHEAD["cpu"]
    assert found.note == ""


def test_what_was_confirmed_is_what_is_loaded(demo_path: Path) -> None:
    found = check_fit(demo_path, LoadOverrides(context=700, kv_type="q8_0"), machine(1))
    with (
        LOG.capture() as lines,
        LlamaModel(demo_path, gpu_layers=found.plan.gpu_layers) as model,
        LlamaContext(model, found.plan.settings, threads=found.plan.threads) as context,
    ):
        assert context.length == 768
    said = dict(re.findall(r"(model|KV|compute) buffer size = +([\d.]+) MiB", "".join(lines)))
    assert found.total.weights == pytest.approx(float(said["model"]) * MIB, abs=ROUNDING)
    assert found.total.kv_cache == pytest.approx(float(said["KV"]) * MIB, abs=ROUNDING)
    assert found.total.compute == pytest.approx(float(said["compute"]) * MIB, abs=ROUNDING)


def test_nothing_is_allocated_and_no_process_is_left(skeleton: Skeleton) -> None:
    assert check_fit(skeleton("hermes-4:405b"), LoadOverrides(), machine(2000)).total.total > 700 * GIB
    assert not children()
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # KiB, on macOS bytes
    assert largest * (1 if sys.platform == "darwin" else 1024) < GIB


@pytest.mark.parametrize(
    ("ram", "context", "note"),
    [
        (17.5, 16_384, ""),
        (
            16.9,
            8192,
            r"context 8,192 instead of 16,384 tokens: what was wanted needs 1[89]\.\d\d GB in RAM, where 18\.15",
        ),
        (15.8, 2048, r"context 2,048 instead of 16,384 tokens"),
    ],
)
def test_a_machine_with_less_memory_gets_less_context(skeleton: Skeleton, ram: float, context: int, note: str) -> None:
    found = check_fit(skeleton("hermes-3:8b"), LoadOverrides(), machine(ram))
    assert found.plan.settings.context == context
    assert re.match(note, found.note)
    assert bool(found.note) == bool(note)
    assert found.total.total <= ram * GIB


@pytest.mark.parametrize(
    ("name", "loading", "ram", "flags"),
    [
        ("hermes-3:8b", LoadOverrides(context=131_072), 24, "--kv-type q8_0"),
        ("hermes-3:8b", LoadOverrides(context=131_072, kv_type="q4_0"), 18, r"--context \d+"),
        ("hermes-3:8b", LoadOverrides(context=131_072), 16, r"--context \d+"),
        ("hermes-3:8b", LoadOverrides(kv_type="f32"), 15.45, r"--kv-type q8_0"),
    ],
)
def test_what_is_insisted_on_is_refused_with_numbers_and_what_would_fit(
    skeleton: Skeleton, name: str, loading: LoadOverrides, ram: float, flags: str
) -> None:
    path = skeleton(name)
    with pytest.raises(
        DoesNotFitError, match=rf"needs \d+\.\d\d GB in RAM, where {ram * GIB / 1e9:.2f} GB are free"
    ) as caught:
        check_fit(path, loading, machine(ram))
    said = re.fullmatch(rf"this would fit: ({flags})\. --force loads it all the same\.", caught.value.hint)
    assert said
    typed = dict(zip(said[1].split()[::2], said[1].split()[1::2], strict=True))
    context = int(typed["--context"]) if "--context" in typed else loading.context
    kv_type: KvType | None = "q8_0" if "--kv-type" in typed else loading.kv_type
    assert check_fit(path, LoadOverrides(context, kv_type=kv_type), machine(ram)).plan.settings.k_type == (
        kv_type or "f16"
    )


def test_a_context_larger_than_any_machine_is_refused_at_once(long_winded: Path) -> None:
    with pytest.raises(DoesNotFitError, match=r"65,536 tokens of context it needs [67]\d\.\d\d GB in RAM") as caught:
        check_fit(long_winded, LoadOverrides(context=65_536), machine(32))
    assert "--kv-type q4_0" in caught.value.hint or "--context" in caught.value.hint


def test_force_overrules(long_winded: Path) -> None:
    found = check_fit(long_winded, LoadOverrides(context=65_536, force=True), machine(1))
    assert found.plan.settings.context == 65_536
    assert found.total.total > 64 * GIB
    assert found.note.startswith("loaded because of --force: it needs 6")


def test_a_longer_context_than_trained_is_an_error_of_use(demo_path: Path) -> None:
    with pytest.raises(UsageError, match="longer than the 1,024 tokens"):
        check_fit(demo_path, LoadOverrides(context=4096), machine(1))


def test_cards_that_llama_cpp_does_not_find_count_for_nothing(demo_path: Path) -> None:
    found = check_fit(demo_path, LoadOverrides(), machine(1, 24, 24))
    assert [place.name for place in found.places] == ["RAM"]
    assert found.note == "llama.cpp finds 0 of 2 GPUs; hermes hardware may tell why"
    here = replace(machine(1, 24), backends=("cpu", "cuda"))
    missing, _, advised = check_fit(demo_path, LoadOverrides(), here).note.partition("; hermes hardware may tell why")
    assert missing == "llama.cpp finds 0 of 1 GPUs"
    expected = advice_at("CUDA finds no GPU")
    assert advised == (f"; {expected.text}: {expected.fix}" if expected.fix else "")


def test_a_kv_type_that_does_not_suit_the_model_is_llama_cpp_s_refusal(tmp_path: Path) -> None:
    write_skeleton(tmp_path / "odd.gguf", architecture(1, 1, 48), 512)
    with pytest.raises(EngineError, match=r"odd\.gguf like this: .*block size 32"):
        check_fit(tmp_path / "odd.gguf", LoadOverrides(kv_type="q8_0"), machine(1))
    forced = check_fit(tmp_path / "odd.gguf", LoadOverrides(kv_type="q8_0", force=True), machine(1, 24))
    assert forced.plan.settings.k_type == "q8_0"
    assert re.match(
        r"loaded because of --force: llama\.cpp cannot make a context of 512 tokens: .*block size 32", forced.note
    )


def test_a_file_that_makes_llama_cpp_abort_is_a_clear_error(tmp_path: Path) -> None:
    path = hostile(tmp_path / "abort.gguf", llama__rope__scaling__type="nonsense")
    with pytest.raises(IntegrityError, match=r"gives up over .*abort\.gguf: GGML_ASSERT\(.*rope_scaling"):
        check_fit(path, LoadOverrides(), machine(1))


def test_a_file_that_llama_cpp_refuses_is_told_with_its_reason(tmp_path: Path) -> None:
    path = hostile(tmp_path / "missing.gguf")
    with pytest.raises(IntegrityError, match=r"cannot load .*missing\.gguf: .*tensor 'output_norm\.weight' not found"):
        check_fit(path, LoadOverrides(), machine(1))


def interrupted(path: Path, limit: float, send: signal.Signals) -> HermesError:
    async def test() -> HermesError:
        child = await Child.start()
        os.kill(child.pid, send)
        with pytest.raises(EngineError) as caught:
            await FitCheck(child, path, LoadOverrides(), machine(1), limit=limit).result()
        assert not child.usable
        assert not psutil.pid_exists(child.pid)
        return caught.value

    return run(test())


def test_a_child_that_hangs_is_ended(demo_path: Path) -> None:
    error = interrupted(demo_path, 0.2, signal.SIGSTOP)
    assert error.message == f"llama.cpp did not say within 0.2 seconds what {demo_path} needs."


def test_a_child_that_is_killed_is_told(demo_path: Path) -> None:
    error = interrupted(demo_path, 60, signal.SIGKILL)
    assert "was ended (Killed)" in error.message
    assert str(demo_path) in error.message
    assert "memory" in error.hint


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("print('Hello, world!', flush=True); signal.pause()", r"came a frame of 1,819,043,144 bytes"),
        ("send('fit', 0, 1); signal.pause()", r"came b'\\x01' \(Expected `object`, got `int`\)"),
        ("send('dance'); signal.pause()", r"came a frame of kind 'dance'"),
        ("import nowhere", r"ended with code 1: ModuleNotFoundError: No module named 'nowhere'"),
        ("", r"ended with code 0: it gave no reason"),
    ],
)
def test_another_program_in_its_place_is_no_traceback(
    demo_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, says: str
) -> None:
    monkeypatch.setattr(child_module, "COMMAND", program(script))
    with pytest.raises(EngineError, match=says):
        check_fit(demo_path, LoadOverrides(), machine(1))


def test_the_child_of_a_check_loads_the_model(demo_path: Path) -> None:
    async def test() -> None:
        child = await Child.start()
        await FitCheck(child, demo_path, LoadOverrides(256), machine(1)).result()
        fitted = await FitCheck(child, demo_path, LoadOverrides(512), machine(1)).result()
        made = EmbeddedEngine(demo_path, fitted.plan, child=child)
        assert (await made.load()).context == 512
        assert await pid_of(made) == child.pid
        await made.close()

    run(test())


def test_after_a_refusal_the_child_is_gone(tmp_path: Path) -> None:
    async def test() -> None:
        child = await Child.start()
        with pytest.raises(IntegrityError):
            await FitCheck(child, hostile(tmp_path / "missing.gguf"), LoadOverrides(), machine(1)).result()
        assert not child.usable

    run(test())


ANSWER = """
    for frame in frames():
        send("fit", 0, {answer!r})
"""


def answered(monkeypatch: pytest.MonkeyPatch, path: Path, on: Machine, ram: int, *cards: int) -> FittedPlan:
    """What is made of an answer about GPUs, which the tests' llama.cpp does not have: MiB in RAM and on each card."""
    parts = [{"weights": size * MIB} for size in (ram, *cards)]
    devices = [{"name": f"CUDA{number}", "free": 5000 * MIB} for number in range(len(cards))]
    script = ANSWER.format(answer={"parts": parts, "devices": devices})
    monkeypatch.setattr(child_module, "COMMAND", program(script))
    return check_fit(path, LoadOverrides(), on)


def test_a_gpu_keeps_a_reserve_and_pays_for_its_backend(demo_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = answered(monkeypatch, demo_path, machine(1, 8, 8), 100, 4000, 0)
    ram, first, second = found.places
    assert (ram.name, ram.part.total, ram.room) == ("RAM", 100 * MIB + OVERHEAD["cpu"], GIB)
    assert (first.name, first.part.total) == ("Card", 4000 * MIB + OVERHEAD["cuda"])
    assert first.room == 8 * GIB - reserved_bytes(machine(1, 8).devices[0])
    assert second.part.total == 0
    assert found.gpu_layers == 7
    with pytest.raises(DoesNotFitError, match=r"needs [89]\.\d\d GB on Card, where [78]\.\d\d GB are free"):
        answered(monkeypatch, demo_path, machine(1, 8), 100, 7900)


def test_a_gpu_that_only_llama_cpp_knows_has_what_its_driver_says(
    demo_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    *_, card = answered(monkeypatch, demo_path, machine(1), 100, 4000).places
    assert (card.name, card.room) == ("CUDA0", 5000 * MIB)
    with pytest.raises(DoesNotFitError, match="on CUDA0"):
        answered(monkeypatch, demo_path, machine(1), 100, 4900)


def test_memory_that_is_shared_is_not_there_twice(demo_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def shared(ram: float) -> Machine:
        on = machine(ram, 16)
        return replace(on, devices=(replace(on.devices[0], unified=True),))

    assert answered(monkeypatch, demo_path, shared(16), 4000, 8000).total.weights == 12_000 * MIB
    with pytest.raises(DoesNotFitError, match="in RAM"):
        answered(monkeypatch, demo_path, shared(11), 4000, 8000)


def test_what_lies_in_the_current_folder_is_not_imported(
    demo_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("json", "ctypes", "hermes_cli", "llama_cpp"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported from here')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert check_fit(demo_path, LoadOverrides(), machine(1)).plan.settings == ContextSettings(1024)


def test_this_very_machine(demo_path: Path) -> None:
    found = check_fit(demo_path, LoadOverrides(threads=1))
    assert found.plan.threads == 1
    assert found.places[0].room <= probe(measure=False).ram_total


def write_shards(folder: Path) -> tuple[Path, int]:
    """A model of one layer in two files; the first one's path and the bytes of all tensors."""
    a = architecture(1, 1, 64)
    halves = list(model_tensors(a))[:6], list(model_tensors(a))[6:]
    written = 0
    for number, half in enumerate(halves):
        entries = [
            entry("split.no", 2, struct.pack("<H", number)),
            entry("split.count", 2, struct.pack("<H", 2)),
            entry("split.tensors.count", 5, struct.pack("<i", len(halves[0]) + len(halves[1]))),
        ]
        entries += [packed(key, value) for key, value in metadata(a, 512).items()] if number == 0 else []
        table, offset = [], 0
        for one in half:
            table.append(tensor(one.name, one.shape, offset=offset))
            offset += math.prod(one.shape) * 4
        (folder / f"m-{number + 1:05}-of-00002.gguf").write_bytes(gguf(entries, table, bytes(offset)))
        written += offset
    return folder / "m-00001-of-00002.gguf", written


def packed(key: str, value: str | float) -> bytes:
    if isinstance(value, str):
        return entry(key, 8, string(value))
    return (
        entry(key, 4, struct.pack("<I", value)) if isinstance(value, int) else entry(key, 6, struct.pack("<f", value))
    )


def test_shards_count_together(tmp_path: Path) -> None:
    path, written = write_shards(tmp_path)
    assert check_fit(path, LoadOverrides(), machine(1)).total.weights == written


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    path, _ = write_shards(tmp_path)
    (tmp_path / "m-00002-of-00002.gguf").unlink()
    with pytest.raises(IntegrityError, match=r"shard 2 of 2 is missing: m-00002-of-00002\.gguf"):
        check_fit(path, LoadOverrides(), machine(1))


def test_a_context_stretched_by_yarn_is_confirmed_and_loaded(demo_path: Path) -> None:
    yarn = Yarn(context=4096, factor=4.0, original=1024)
    confirmed = check_fit(demo_path, LoadOverrides(context=2048, yarn=yarn))
    assert confirmed.plan.settings.yarn_factor == 4
    with LlamaModel(demo_path) as model, LlamaContext(model, confirmed.plan.settings, threads=1) as context:
        assert context.length == 2048
