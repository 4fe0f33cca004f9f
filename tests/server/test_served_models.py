"""Names become models that are ready to be loaded; llama.cpp confirms what is planned."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from server_rig import offer, planned_of
from skeleton import write_skeleton
from tiny_bert import write_tiny_bert

from hermes_cli.catalog.load import shipped_catalogue
from hermes_cli.engine.embedded.messages import DraftPlan, EngineOptions
from hermes_cli.errors import DoesNotFitError, IntegrityError, NotFoundError, UsageError
from hermes_cli.hardware.machine import Device, Machine
from hermes_cli.planning.fitted_plan import RAM, FittedPlan, MemoryUse, remaining_machine
from hermes_cli.planning.memory import MemoryBreakdown
from hermes_cli.server.served_models import ServedModel, plan_models
from hermes_cli.server.settings import SettingValue, resolve

MIB = 1 << 20
CATALOGUE = shipped_catalogue()
MODELS = {model.short: model for model in CATALOGUE.models}


def machine(ram: float = 64 * 1024, *gpus: float) -> Machine:
    """Sizes in MiB."""
    devices = tuple(
        Device("nvidia", f"Card {size}", int(size * MIB), int(size * MIB), None, "given", "cuda") for size in gpus
    )
    return Machine(devices, 1 << 40, int(ram * MIB), None, "given", "a CPU", 2, (), "an OS", "/", MIB, ("cpu",))


def lined_up(*models: Any, on: Machine | None = None, **settings: Any) -> tuple[tuple[ServedModel, ...], list[str]]:  # noqa: ANN401 - as the file has them
    said: list[str] = []
    told = {"models": list(models), **settings}
    resolved = resolve({}, {name: SettingValue(value, "serve.yaml") for name, value in told.items()}).settings
    return plan_models(resolved, CATALOGUE, on or machine(), said.append), said


def copies(folder: Path, demo: Path, *names: str) -> list[str]:
    return [str(shutil.copy(demo, folder / f"{name}.gguf")) for name in names]


@pytest.fixture(scope="module")
def alone() -> float:
    """MiB that the demo needs."""
    return planned_of(lined_up("demo")[0][0]).fitted.total.total / MIB


def test_the_demo_as_it_is_planned_by_default() -> None:
    (demo,), said = lined_up("demo")
    assert (demo.name, demo.aliases, demo.model.context, planned_of(demo).fitted.plan.settings.slots) == (
        "demo",
        (),
        1024,
        4,
    )
    assert (demo.quantization, planned_of(demo).resolved.known, demo.think, demo.idle_seconds) == (
        "Q8_0",
        None,
        None,
        None,
    )
    assert demo.size == CATALOGUE.demo.bytes
    assert planned_of(demo).options.max_queue == 256
    assert "<tool_call>" in planned_of(demo).options.tags
    assert said == []


def test_what_an_entry_says_is_what_is_planned(tmp_path: Path, demo_path: Path) -> None:
    entry = {
        "model": copies(tmp_path, demo_path, "mine")[0],
        "name": "hermes",
        "aliases": ["main", "gpt-4o"],
        "context": 512,
        "slots": 2,
        "kv_type": "q8_0",
        "batch": 64,
        "threads": 1,
        "think": True,
        "keep_alive": "5m",
        "draft": "demo",
    }
    (one,), _ = lined_up(entry, max_queue=3)
    plan = planned_of(one).fitted.plan
    assert (one.name, one.aliases, one.think, one.idle_seconds) == ("hermes", ("main", "gpt-4o"), True, 300)
    assert (plan.settings.context, plan.settings.slots, plan.settings.k_type) == (512, 2, "q8_0")
    assert (plan.settings.micro_batch, plan.threads) == (64, 1)
    assert planned_of(one).options.max_queue == 3
    draft = planned_of(one).options.draft
    assert draft
    assert draft.path.name == "demo.gguf"


def test_a_model_for_embeddings_is_planned_as_its_file_says_and_any_other_as_asked(tmp_path: Path) -> None:
    bert = str(write_tiny_bert(tmp_path / "bert.gguf", "cls"))
    entries = [
        {"model": "demo", "name": "pooled", "pooling": "last"},
        bert,
        {"model": bert, "name": "mean", "pooling": "mean"},
    ]
    pooled, stated, other = lined_up("demo", *entries)[0][1:]
    assert (pooled.model.pooling, stated.model.pooling, other.model.pooling) == ("last", "cls", "mean")
    assert (pooled.model.context, stated.model.context) == (1024, 64)
    assert planned_of(stated).fitted.total.kv_cache == 0


def test_a_reranker_is_no_model_for_anything(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="a reranker"):
        lined_up(str(write_tiny_bert(tmp_path / "rank.gguf", "rank")))


def test_a_file_goes_by_its_name_and_never_by_its_path(tmp_path: Path, demo_path: Path) -> None:
    (one,), _ = lined_up(copies(tmp_path, demo_path, "mine")[0])
    assert (one.name, one.aliases) == ("mine", ())


def test_models_that_fit_together_are_planned_beside_each_other(tmp_path: Path, demo_path: Path, alone: float) -> None:
    offers, said = lined_up(*copies(tmp_path, demo_path, "a", "b"), on=machine(2 * alone + 1))
    assert [(one.name, one.model.context) for one in offers] == [("a", 1024), ("b", 1024)]
    assert said == []


def test_the_first_gets_what_the_others_leave(tmp_path: Path, demo_path: Path, alone: float) -> None:
    offers, said = lined_up(*copies(tmp_path, demo_path, "a", "b"), on=machine(2 * alone - 0.5))
    assert [(one.name, one.model.context) for one in offers] == [("a", 512), ("b", 1024)]
    assert "context 512 instead of 1,024" in planned_of(offers[0]).fitted.note
    assert said == []


def test_models_that_do_not_fit_together_take_turns(tmp_path: Path, demo_path: Path, alone: float) -> None:
    offers, said = lined_up(*copies(tmp_path, demo_path, "a", "b"), on=machine(1.2 * alone))
    assert [one.model.context for one in offers] == [1024, 1024]
    assert said == ["these models do not fit into memory together: they take turns, as they are asked for"]


def test_a_model_that_does_not_fit_alone_is_refused() -> None:
    with pytest.raises(DoesNotFitError, match=r"demo\.gguf does not fit"):
        lined_up("demo", on=machine(10))
    (forced,), _ = lined_up({"model": "demo", "force": True}, on=machine(10))
    assert planned_of(forced).resolved.overrides.force
    assert "because of --force" in planned_of(forced).fitted.note


def test_a_server_offers_the_longest_context_that_fits(tmp_path: Path) -> None:
    """A chat is content with 16,384 tokens."""
    model = MODELS["hermes-3:3b"]
    write_skeleton(tmp_path / "three.gguf", model.architecture, model.context.trained, "Q4_K_M")
    (roomy,), _ = lined_up(str(tmp_path / "three.gguf"))
    (tight,), _ = lined_up(str(tmp_path / "three.gguf"), on=machine(8 * 1024))
    assert (roomy.model.context, tight.model.context) == (131_072, 32_768)


def test_for_an_agent_there_is_enough_context_or_a_refusal(tmp_path: Path) -> None:
    model = MODELS["hermes-3:3b"]
    write_skeleton(tmp_path / "three.gguf", model.architecture, model.context.trained, "Q4_K_M")
    (enough,), _ = lined_up(str(tmp_path / "three.gguf"), on=machine(11 * 1024), for_agent=True)
    assert enough.model.context == 65_536
    with pytest.raises(DoesNotFitError) as error:
        lined_up(str(tmp_path / "three.gguf"), on=machine(8 * 1024), for_agent=True)
    assert "with 65,536 tokens of context it needs" in error.value.message
    assert "this would fit: --kv-type q8_0" in error.value.hint


@pytest.mark.parametrize(
    ("ram", "hint"), [(24 * 1024, "this has it: hermes pull deephermes"), (2 * 1024, "no Hermes model has 65,536")]
)
def test_a_model_that_was_trained_for_less_is_no_agent_s(ram: float, hint: str) -> None:
    with pytest.raises(DoesNotFitError) as error:
        lined_up("demo", on=machine(ram), for_agent=True)
    assert error.value.message == (
        "65,536 tokens of context are needed, more than the 1,024 tokens this model was trained for."
    )
    assert hint in error.value.hint


def test_a_context_that_is_no_agent_s_contradicts() -> None:
    with pytest.raises(UsageError, match=r"--context 512 is less than the 65,536 tokens"):
        lined_up("demo", context=512, for_agent=True)


def test_only_the_first_model_has_to_suit_the_agent(tmp_path: Path) -> None:
    model = MODELS["hermes-3:3b"]
    write_skeleton(tmp_path / "three.gguf", model.architecture, model.context.trained, "Q4_K_M")
    offers, _ = lined_up(str(tmp_path / "three.gguf"), "demo", for_agent=True)
    assert [one.model.context for one in offers] == [131_072, 1024]


@pytest.mark.parametrize(
    ("models", "kind", "said"),
    [
        (["hermes-3:8b"], NotFoundError, "is not on this machine"),
        (["no-such-model"], NotFoundError, "there is no model named no-such-model"),
        (["/nowhere/x.gguf"], NotFoundError, "there is no file /nowhere/x.gguf"),
        ([{"model": "demo", "yarn": True}], UsageError, "no source documents YaRN for demo"),
        ([{"model": "demo", "context": 4096}], UsageError, "--context 4,096 is longer than the 1,024"),
        ([{"model": "demo", "template": "nowhere"}], UsageError, "nowhere"),
        ([{"model": "demo", "name": "a"}, {"model": "demo", "aliases": ["A"]}], UsageError, "would stand for both"),
    ],
)
def test_what_cannot_be_served_is_told_before_anything_is_loaded(
    models: list[Any], kind: type[Exception], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(kind, match=said.replace("(", "\\(")):
        lined_up(*models)


def test_what_is_left_of_a_machine() -> None:
    taken = FittedPlan(
        planned_of(offer()).fitted.plan,
        (
            MemoryUse(RAM, MemoryBreakdown(weights=3 * MIB), 0),
            MemoryUse("Card", MemoryBreakdown(kv_cache=5 * MIB), 0, 0),
        ),
    )
    left = remaining_machine(machine(10, 20), taken)
    assert (left.ram_available, left.devices[0].free) == (7 * MIB, 15 * MIB)
    shared = machine(20, 15)
    shared = replace(shared, devices=(replace(shared.devices[0], unified=True),))
    left = remaining_machine(shared, taken)
    assert (left.ram_available, left.devices[0].free) == (12 * MIB, 10 * MIB)
    assert remaining_machine(machine(1), taken).ram_available == 0


def test_room_is_asked_of_llama_cpp(demo_path: Path) -> None:
    fits = planned_of(offer(path=demo_path, force=True))
    assert fits.memory_fault() is None
    drafted = replace(fits, options=EngineOptions(draft=DraftPlan(demo_path, fits.fitted.plan)))
    assert drafted.memory_fault() is None


def test_where_there_is_no_room_both_numbers_are_told(demo_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hermes_cli.models.planned.probe", lambda **_: machine(320))
    fits = planned_of(offer(path=demo_path, force=True))
    assert fits.memory_fault() is None
    error = replace(fits, options=EngineOptions(draft=DraftPlan(demo_path, fits.fitted.plan))).memory_fault()
    assert error
    assert "demo does not fit: it needs 170 MB in RAM, where 165 MB are free." in error.message
