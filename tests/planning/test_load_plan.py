"""Load plans in order of preference, and the choice of one by its dry run."""

from __future__ import annotations

import struct
from dataclasses import replace
from itertools import islice
from pathlib import Path

import msgspec
import pytest
from gguf_bytes import entry, gguf, parse_header, string, tensor
from hypothesis import given
from hypothesis import strategies as st
from skeleton import write_skeleton

from hermes_cli.catalog.load import shipped_catalogue
from hermes_cli.errors import DoesNotFitError, EngineError, UsageError
from hermes_cli.gguf.header import read_header
from hermes_cli.gguf.types import KV_TYPES
from hermes_cli.hardware.machine import Device, Machine
from hermes_cli.hardware.selection import select_devices
from hermes_cli.planning.best_placement import NEEDS, best_placement
from hermes_cli.planning.file_architecture import FileArchitecture
from hermes_cli.planning.fitted_plan import RAM, DryRun, MemoryUse, choose_plan
from hermes_cli.planning.load_plan import LoadOverrides, LoadPlan
from hermes_cli.planning.memory import ContextSettings, FileFacts, MemoryBreakdown, Pooling, facts_of, weights
from hermes_cli.planning.placement import place_split
from hermes_cli.planning.planner import alternatives_to, plans_for

MODELS = {model.short: model for model in shipped_catalogue().models}
ONE_OF_EACH_KIND = ["hermes-4.3:36b", "hermes-4:14b", "hermes-3:8b", "hermes-3:3b", "hermes-2:8x7b"]
USUAL = NEEDS["chat"].wanted
GIB = 1 << 30


def machine(*gpus: float, ram: float = 64) -> Machine:
    devices = tuple(
        Device("nvidia", f"Card {size}", int(size * GIB), int(size * GIB), None, "given", "cuda") for size in gpus
    )
    return Machine(devices, 1 << 40, int(ram * GIB), None, "given", "a CPU", 8, (), "an OS", "/", GIB, ("cpu",))


def facts(name: str, quantization: str = "Q4_K_M") -> FileFacts:
    model = MODELS[name]
    a = model.architecture
    of_file = FileArchitecture(**msgspec.structs.asdict(a), has_rules=True)
    return FileFacts(weights(a, quantization, imatrix=False), model.context.trained, of_file)


def unknown(name: str) -> FileFacts:
    """The same file, if its graph were one that nobody knows."""
    return replace(facts(name), architecture=None)


def fits(file: FileFacts, plan: LoadPlan, on: Machine) -> bool:
    assert file.architecture
    split = plan.tensor_split or (1,)
    table, devices = file.weights, plan.devices or ()
    return place_split(file.architecture, table, plan.settings, on, plan.gpu_layers, devices, split).fits


def lengths(plans: tuple[LoadPlan, ...]) -> list[int]:
    return [plan.settings.context for plan in plans]


def test_the_usual_context_is_what_chat_needs() -> None:
    first = plans_for(facts("hermes-3:8b"), machine(), LoadOverrides())[0]
    assert first == LoadPlan(replace(first.settings, context=USUAL), 0, (), threads=8)
    assert first.settings.k_type == "f16"
    assert first.settings.flash_attention


@pytest.mark.parametrize(
    ("file", "pooling", "context", "batch"),
    [
        (facts("hermes-4:14b"), "last", 8192, 512),  # its last token has seen all others
        (facts("hermes-4:14b"), "mean", 2048, 2048),
        (unknown("hermes-4:14b"), "last", 2048, 2048),  # attention may look ahead
        (replace(unknown("hermes-4:14b"), trained_context=300), "cls", 300, 300),
    ],
)
def test_texts_to_embed_are_decoded_whole_where_they_have_to_be(
    file: FileFacts, pooling: Pooling, context: int, batch: int
) -> None:
    settings = plans_for(file, machine(), LoadOverrides(pooling=pooling, longest=True))[0].settings
    assert (settings.context, settings.pooling, settings.slots) == (context, pooling, 32)
    assert min(settings.micro_batch, settings.context) == batch
    asked = plans_for(file, machine(), LoadOverrides(pooling=pooling, context=256))[0].settings
    assert asked.context == 256


def test_the_usual_context_is_at_most_the_trained_one() -> None:
    file = replace(facts("hermes-3:8b"), trained_context=3000)
    assert lengths(plans_for(file, machine(), LoadOverrides())) == [3000, 1500, 750]


@pytest.mark.parametrize(("gpu", "context"), [(8, 16_384), (6.5, 8192), (6, 4096)])
def test_the_longest_context_that_keeps_everything_on_the_gpu_comes_first(gpu: float, context: int) -> None:
    file, on = facts("hermes-3:8b"), machine(gpu)
    chosen = next(plan for plan in plans_for(file, on, LoadOverrides()) if fits(file, plan, on))
    assert (chosen.settings.context, chosen.gpu_layers) == (context, 33)


def test_a_model_larger_than_the_gpu_keeps_its_context_and_shares_its_layers() -> None:
    file, on = facts("hermes-4:70b"), machine(24)
    wanted, chosen, *rest = plans_for(file, on, LoadOverrides())
    assert wanted.gpu_layers == 81
    assert chosen.settings.context == USUAL
    assert file.architecture
    best = best_placement(file.architecture, "", file.weights, chosen.settings, on)
    assert (chosen.gpu_layers, chosen.devices) == (best.gpu_layers, best.devices)
    assert [plan.gpu_layers for plan in rest[:2]] == [chosen.gpu_layers - 1, chosen.gpu_layers - 2]


def test_several_gpus_get_llama_cpp_s_split() -> None:
    first = plans_for(facts("hermes-4:70b"), machine(20, 40), LoadOverrides())[0]
    small, large = first.tensor_split
    assert small + large == first.gpu_layers == 81
    assert first.devices == (0, 1)
    assert 1.8 < large / small < 2.5


def test_gpus_that_are_not_needed_or_left_out_get_nothing() -> None:
    on = machine(2, 24, 24)
    assert plans_for(facts("hermes-3:8b"), on, LoadOverrides())[0].devices == (1,)
    assert plans_for(facts("hermes-4:70b"), on, LoadOverrides())[0].devices == (1, 2)
    for names, devices in ((["2"], (2,)), (["Card 2 "], (0,)), (["card 24"], (1,))):
        chosen = select_devices(on, names)
        assert plans_for(facts("hermes-3:3b", "Q2_K"), chosen, LoadOverrides(context=512))[0].devices == devices


def test_without_layers_the_fastest_gpu_reads_prompts_or_none_does() -> None:
    plans = plans_for(facts("hermes-3:8b"), machine(8, 24), LoadOverrides(gpu_layers=0))
    assert [plan.devices for plan in plans[:2]] == [(0,), ()]
    assert {plan.gpu_layers for plan in plans} == {0}


def test_what_is_too_large_for_anything_has_its_numbers_asked_for() -> None:
    file, on = facts("hermes-4:405b"), machine(ram=16)
    found = plans_for(file, on, LoadOverrides())
    assert lengths(found) == [USUAL, 512]
    assert not list(alternatives_to(file, on, LoadOverrides()))


def test_a_longer_context_than_trained_is_refused() -> None:
    with pytest.raises(UsageError, match=r"--context 200,000 is longer than the 131,072 tokens"):
        plans_for(facts("hermes-3:8b"), machine(), LoadOverrides(context=200_000))


@pytest.mark.parametrize(("layers", "planned"), [(-1, 33), (0, 0), (20, 20), (99, 33)])
def test_layers_that_are_asked_for_stay(layers: int, planned: int) -> None:
    found = plans_for(facts("hermes-3:8b"), machine(12), LoadOverrides(gpu_layers=layers))
    assert {plan.gpu_layers for plan in found} == {planned}


def test_alternatives_give_up_as_little_as_possible() -> None:
    file, on = facts("hermes-3:8b"), machine(ram=14)
    assert lengths(plans_for(file, on, LoadOverrides(context=131_072))) == [131_072]
    smaller_cache, *shorter = alternatives_to(file, on, LoadOverrides(context=131_072))
    assert (smaller_cache.settings.context, smaller_cache.settings.k_type) == (131_072, "q8_0")
    longest = next(plan for plan in shorter if plan.settings.k_type == "f16")
    assert fits(file, longest, on)
    one_step_more = replace(longest, settings=replace(longest.settings, context=longest.settings.context + 1024))
    assert not fits(file, one_step_more, on)


def test_layers_are_given_up_before_the_cache_and_the_cache_before_the_context() -> None:
    first = next(alternatives_to(facts("hermes-3:8b"), machine(6), LoadOverrides(context=8192, gpu_layers=-1)))
    assert 0 < first.gpu_layers < 33
    assert (first.settings.context, first.settings.k_type) == (8192, "f16")


@given(
    st.sampled_from(ONE_OF_EACH_KIND),
    st.lists(st.integers(2, 96), max_size=3),
    st.integers(2, 128),
    st.builds(
        LoadOverrides,
        context=st.none() | st.sampled_from([512, 4000, 8192, 32_768]),
        gpu_layers=st.none() | st.sampled_from([-1, 0, 10]),
        kv_type=st.none() | st.sampled_from(KV_TYPES),
    ),
)
def test_every_row_of_plans_keeps_its_promises(name: str, gpus: list[int], ram: int, loading: LoadOverrides) -> None:
    file, on = facts(name), machine(*gpus, ram=ram)
    if loading.context and loading.context > file.trained_context:
        return
    plans = plans_for(file, on, loading)
    first, *others = plans
    assert first.settings.context == (loading.context or min(USUAL, file.trained_context))
    for plan in plans:
        assert plan.settings.context == (loading.context or plan.settings.context)
        assert plan.settings.k_type == plan.settings.v_type == (loading.kv_type or "f16")
        assert loading.gpu_layers is None or plan.gpu_layers == first.gpu_layers
        used = len(plan.devices or ())
        assert plan.gpu_layers == 0 or not gpus or len(plan.tensor_split) == (used if used != 1 else 0)
        assert used <= len(gpus)
    some_fit = any(fits(file, plan, on) for plan in plans)
    assert all(fits(file, plan, on) for plan in others) or not some_fit
    alternatives = list(islice(alternatives_to(file, on, loading), 2))
    assert all(fits(file, plan, on) for plan in alternatives)
    assert len({*plans, *alternatives}) == len(plans) + len(alternatives)


@given(st.lists(st.integers(2, 96), max_size=3), st.integers(2, 128))
def test_an_unknown_graph_gets_plans_that_its_weights_allow(gpus: list[int], ram: int) -> None:
    file, on = unknown("hermes-3:70b"), machine(*gpus, ram=ram)
    _, *others = plans_for(file, on, LoadOverrides())
    table = file.weights
    for plan in others[:-1]:
        on_gpus = sum(table.layers[len(table.layers) + 1 - plan.gpu_layers :]) + table.head if plan.gpu_layers else 0
        assert on_gpus <= sum(gpus) * GIB
        assert table.total - on_gpus <= ram * GIB


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
def test_facts_of_a_file_are_those_of_its_model(tmp_path: Path, name: str) -> None:
    a = MODELS[name].architecture
    write_skeleton(tmp_path / "skeleton.gguf", a, 4096)
    found = facts_of([read_header(tmp_path / "skeleton.gguf")])
    assert found.trained_context == 4096
    assert found.weights == weights(a, "F16", imatrix=False)
    assert found.architecture
    told = ("kind", "layers", "heads", "kv_heads", "head_length", "vocabulary", "tied_embeddings", "experts_used")
    assert all(getattr(found.architecture, field) == getattr(a, field) for field in told)


FIGURES = {
    "block_count": 1,
    "context_length": 64,
    "embedding_length": 8,
    "feed_forward_length": 16,
    "attention.head_count": 2,
}


def header_facts(figures: dict[str, int], kind: str = "llama") -> FileFacts:
    entries = [entry("general.architecture", 8, string(kind))]
    entries += [entry(f"{kind}.{key}", 5, struct.pack("<i", value)) for key, value in figures.items()]
    tensors = [tensor("token_embd.weight", (8, 4)), tensor("blk.0.attn_q.weight", (8, 8), offset=128)]
    return facts_of([parse_header(gguf(entries, tensors, bytes(128 + 256)))])


def test_figures_that_a_header_leaves_out_follow_from_others() -> None:
    a = header_facts(FIGURES).architecture
    assert a
    assert (a.kv_heads, a.head_length, a.vocabulary, a.tied_embeddings) == (2, 4, 4, True)


@pytest.mark.parametrize(
    "strange",
    [
        {"block_count": 2},
        {"block_count": -1},
        {"attention.head_count": 0},
        {"attention.head_count": -4},
        {"attention.head_count_kv": 0},
        {"attention.value_length": 5},
        {"expert_count": 2_000_000_000, "expert_used_count": 2_000_000_000},
        {"expert_used_count": 3},
        {"embedding_length": 0},
    ],
    ids=str,
)
def test_figures_that_cannot_be_computed_with_are_left_to_llama_cpp(strange: dict[str, int]) -> None:
    assert header_facts(FIGURES | strange).architecture is None


def test_other_kinds_and_odd_headers_still_have_plans() -> None:
    for file in (header_facts(FIGURES, kind="gemma3"), facts_of([parse_header(gguf([], []))])):
        assert file.architecture is None
        assert plans_for(file, machine(ram=1), LoadOverrides())
        assert plans_for(file, machine(8, 8, ram=1), LoadOverrides(context=64))


def test_an_unknown_graph_has_alternatives_even_if_its_weights_fit() -> None:
    first = next(alternatives_to(unknown("hermes-3:8b"), machine(6), LoadOverrides(context=8192, gpu_layers=-1)))
    assert 0 < first.gpu_layers < 33


def test_yarn_stretches_only_what_needs_it() -> None:
    model = MODELS["hermes-4:14b"]
    yarn = model.context.yarn
    assert yarn is not None
    on = machine(80)
    long = plans_for(facts(model.short), on, LoadOverrides(context=64_000, yarn=yarn))[0].settings
    assert (long.yarn_factor, long.yarn_original) == (yarn.factor, yarn.original)
    short = plans_for(facts(model.short), on, LoadOverrides(context=32_000, yarn=yarn))[0].settings
    assert (short.yarn_factor, short.yarn_original) == (0, 0)
    with pytest.raises(UsageError, match="131,072 tokens YaRN stretches"):
        plans_for(facts(model.short), on, LoadOverrides(context=200_000, yarn=yarn))
    with pytest.raises(UsageError, match="40,960 tokens this model was trained for"):
        plans_for(facts(model.short), on, LoadOverrides(context=64_000))


def test_a_server_looks_for_the_longest_context_that_the_model_can_handle() -> None:
    file = facts("hermes-3:8b")
    assert plans_for(file, machine(48), LoadOverrides(longest=True))[0].settings.context == 131_072
    chosen = next(
        plan for plan in plans_for(file, machine(12), LoadOverrides(longest=True)) if fits(file, plan, machine(12))
    )
    assert (chosen.settings.context, chosen.gpu_layers) == (32_768, 33)
    yarn = MODELS["hermes-4:14b"].context.yarn
    assert (
        plans_for(facts("hermes-4:14b"), machine(80), LoadOverrides(longest=True, yarn=yarn))[0].settings.context
        == 131_072
    )


def test_a_context_that_it_must_have_is_never_halved() -> None:
    file, on = replace(facts("hermes-3:8b"), trained_context=100_000), machine(16)
    plans = plans_for(file, on, LoadOverrides(longest=True, least=65_536))
    assert set(lengths(plans)) <= {100_000, 65_536}
    assert lengths(plans_for(file, on, LoadOverrides(least=65_536)))[0] == 65_536
    others = list(alternatives_to(file, machine(8, ram=12), LoadOverrides(longest=True, least=65_536)))
    assert others
    assert min(plan.settings.context for plan in others) >= 65_536


def test_a_model_that_cannot_handle_what_it_must_have_is_refused() -> None:
    file = replace(facts("hermes-4:14b"), trained_context=40_960)
    with pytest.raises(UsageError, match="65,536 tokens of context are needed, more than the 40,960"):
        plans_for(file, machine(), LoadOverrides(least=65_536))
    yarn = MODELS["hermes-4:14b"].context.yarn
    assert plans_for(file, machine(), LoadOverrides(least=65_536, yarn=yarn))


def test_what_is_insisted_on_of_gpus_and_batches_is_in_every_plan() -> None:
    file = facts("hermes-3:8b")
    loading = LoadOverrides(tensor_split=(3, 1), micro_batch=128)
    for plan in plans_for(file, machine(24, 24), loading):
        assert plan.settings.micro_batch == 128
        assert plan.tensor_split == ((3, 1) if plan.gpu_layers else ())


Tried = tuple[LoadPlan, DryRun]
FULL, PARTIAL, SHORT = (
    LoadPlan(ContextSettings(16_384), 33),
    LoadPlan(ContextSettings(16_384), 20),
    LoadPlan(ContextSettings(8192), 33),
)
SMALL_CACHE = LoadPlan(ContextSettings(16_384, k_type="q8_0", v_type="q8_0"), 33)


def needs(ram: float, card: float = 0) -> DryRun:
    """On a machine with 4 GiB of RAM and 8 on a card."""
    places = (
        MemoryUse(RAM, MemoryBreakdown(weights=int(ram * GIB)), 4 * GIB),
        MemoryUse("Card", MemoryBreakdown(kv_cache=int(card * GIB)), 8 * GIB),
    )
    return DryRun(places[: 2 if card else 1])


def refusal(loading: LoadOverrides, *plans: Tried, alternatives: tuple[Tried, ...] = ()) -> DoesNotFitError:
    with pytest.raises(DoesNotFitError) as caught:
        choose_plan("some.gguf", loading, plans, alternatives)
    return caught.value


def test_what_fits_at_once_needs_no_words() -> None:
    found = choose_plan("some.gguf", LoadOverrides(), [(FULL, needs(1, 7))], ())
    assert (found.plan, found.note) == (FULL, "")
    assert found.total == MemoryBreakdown(weights=GIB, kv_cache=7 * GIB)


@pytest.mark.parametrize(
    ("plan", "note"),
    [
        (
            SHORT,
            "context 8,192 instead of 16,384 tokens: what was wanted needs 10.20 GB on Card, where 8.59 GB are free",
        ),
        (
            PARTIAL,
            "20 of 33 layers on the GPU, the rest on the CPU: what was wanted needs 10.20 GB on Card, where 8.59 GB are free",
        ),
    ],
)
def test_what_was_given_up_is_said_with_numbers(plan: LoadPlan, note: str) -> None:
    found = choose_plan("some.gguf", LoadOverrides(), [(FULL, needs(1, 9.5)), (plan, needs(3, 7))], ())
    assert (found.plan, found.note) == (plan, note)


def test_a_refusal_has_both_numbers_of_every_place_and_the_worst_first() -> None:
    error = refusal(LoadOverrides(), (FULL, needs(1, 20)), (PARTIAL, needs(6, 9)))
    assert error.message == (
        "some.gguf does not fit: with 16,384 tokens of context it needs 6.44 GB in RAM, where 4.29 GB are free, "
        "and 9.66 GB on Card, where 8.59 GB are free."
    )
    assert "hermes recommend" in error.hint
    assert "--force" in error.hint


@pytest.mark.parametrize(
    ("loading", "alternative", "flags"),
    [
        (LoadOverrides(context=16_384), SHORT, "--context 8192"),
        (LoadOverrides(gpu_layers=-1), PARTIAL, "--gpu-layers 20"),
        (LoadOverrides(context=16_384), SMALL_CACHE, "--kv-type q8_0"),
        (
            LoadOverrides(context=16_384, gpu_layers=33),
            LoadPlan(ContextSettings(4096, k_type="q4_0", v_type="q4_0"), 5),
            "--context 4096 --kv-type q4_0 --gpu-layers 5",
        ),
        (
            LoadOverrides(kv_type="f16"),
            LoadPlan(ContextSettings(512, k_type="q8_0", v_type="q8_0"), 20),
            "--kv-type q8_0",
        ),
    ],
)
def test_the_hint_is_what_to_type(loading: LoadOverrides, alternative: LoadPlan, flags: str) -> None:
    error = refusal(loading, (FULL, needs(1, 9)), alternatives=((SHORT, needs(5, 9)), (alternative, needs(1, 1))))
    assert error.hint == f"this would fit: {flags}. --force loads it all the same."


def test_what_llama_cpp_refuses_is_no_question_of_memory() -> None:
    no = DryRun(refusal="no such cache")
    with pytest.raises(EngineError, match=r"some\.gguf like this: no such cache") as caught:
        choose_plan("some.gguf", LoadOverrides(), [(FULL, no), (SHORT, no)], ())
    assert not isinstance(caught.value, DoesNotFitError)
    found = choose_plan("some.gguf", LoadOverrides(), [(FULL, no), (SHORT, needs(1, 1))], ())
    assert found.plan == SHORT
    assert "no such cache" in found.note


def test_force_loads_what_was_wanted_most() -> None:
    found = choose_plan("some.gguf", LoadOverrides(force=True), [(FULL, needs(1, 9)), (SHORT, needs(1, 9))], ())
    assert found.plan == FULL
    assert found.note == (
        "loaded because of --force: it needs 9.66 GB on Card, where 8.59 GB are free, "
        "and 1.07 GB in RAM, where 4.29 GB are free"
    )
