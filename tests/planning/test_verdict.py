from __future__ import annotations

import pytest

from hermes_cli.errors import DoesNotFitError, EngineError
from hermes_cli.planning.load_plan import RAM, DryRun, LoadOverrides, LoadPlan, MemoryUse, choose_plan
from hermes_cli.planning.memory import ContextSettings, MemoryBreakdown

GIB = 1 << 30
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
            "context 8,192 instead of 16,384 tokens: what was wanted needs 9.50 GiB on Card, where 8.00 GiB are free",
        ),
        (
            PARTIAL,
            "20 of 33 layers on the GPU, the rest on the CPU: what was wanted needs 9.50 GiB on Card, where 8.00 GiB are free",
        ),
    ],
)
def test_what_was_given_up_is_said_with_numbers(plan: LoadPlan, note: str) -> None:
    found = choose_plan("some.gguf", LoadOverrides(), [(FULL, needs(1, 9.5)), (plan, needs(3, 7))], ())
    assert (found.plan, found.note) == (plan, note)


def test_a_refusal_has_both_numbers_of_every_place_and_the_worst_first() -> None:
    error = refusal(LoadOverrides(), (FULL, needs(1, 20)), (PARTIAL, needs(6, 9)))
    assert error.message == (
        "some.gguf does not fit: with 16,384 tokens of context it needs 6.00 GiB in RAM, where 4.00 GiB are free, "
        "and 9.00 GiB on Card, where 8.00 GiB are free."
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
        "loaded because of --force: it needs 9.00 GiB on Card, where 8.00 GiB are free, "
        "and 1.00 GiB in RAM, where 4.00 GiB are free"
    )
