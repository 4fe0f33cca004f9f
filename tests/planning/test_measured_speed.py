from __future__ import annotations

import pytest

from hermes_cli.planning.memory import MemoryBreakdown
from hermes_cli.planning.placement import DeviceShare, Placement
from hermes_cli.planning.speed import PrefillSpeed, Speed, SpeedRatio, corrected

ESTIMATE = Speed(100, 75, 130, "computed")


def placed(on_gpu: int, layers: int = 32) -> Placement:
    cut = layers - max(on_gpu - 1, 0)
    host = DeviceShare(None, 0, cut, output=not on_gpu, part=MemoryBreakdown(), room=0)
    card = DeviceShare(0, cut, layers, output=bool(on_gpu), part=MemoryBreakdown(), room=0)
    return Placement((host, card) if on_gpu else (host,))


def ratio(model: str, value: float, gpu_layers: int = 33) -> SpeedRatio:
    return SpeedRatio(model, "decode", gpu_layers, 33, value)


def test_the_same_model_in_the_same_place_is_measured() -> None:
    measured = corrected(ESTIMATE, "decode", "a", placed(33), [ratio("a", 3.0), ratio("a", 0.5), ratio("b", 1.0)])
    assert (measured.expected, measured.source) == (50, "measured")  # the last run
    assert 40 < measured.low < 50 < measured.high < 60


@pytest.mark.parametrize(("measured", "factor"), [(0.8, 0.8), (1.2, 1.2), (9.0, 2.0), (0.01, 0.5)])
def test_others_are_corrected_within_bounds(measured: float, factor: float) -> None:
    speed = corrected(ESTIMATE, "decode", "b", placed(33), [ratio("a", measured)])
    assert (speed.expected, speed.low, speed.high) == pytest.approx((100 * factor, 75 * factor, 130 * factor))
    assert speed.source == "computed"


def test_what_was_elsewhere_or_another_speed_says_nothing() -> None:
    assert corrected(ESTIMATE, "decode", "b", placed(0), [ratio("a", 0.5)]) == ESTIMATE
    assert corrected(ESTIMATE, "decode", "b", placed(20), [ratio("a", 0.5)]) == ESTIMATE
    assert corrected(ESTIMATE, "prefill", "b", placed(33), [ratio("a", 0.5)]) == ESTIMATE
    assert corrected(ESTIMATE, "decode", "a", placed(20), [ratio("a", 0.5, 10)]).expected == 50


def test_a_slower_prefill_is_slower_over_earlier_tokens_too() -> None:
    assert PrefillSpeed(100, 50, 150, "computed", 1e-6).times(0.5).growth == 2e-6
