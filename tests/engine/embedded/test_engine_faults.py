"""The fault run of tools/engine_faults.py, shortened."""

from __future__ import annotations

import engine_faults
import pytest


def test_every_request_ends_however_often_the_child_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_faults, "LIFETIMES", (0.3, 1.5))
    outcome = engine_faults.trial(4, clients=8, seed=3)
    assert outcome.kills > 0
    assert outcome.ends.keys() >= engine_faults.WANTED
    assert (outcome.hung, outcome.wrong, outcome.left) == (0, 0, 0)
    assert outcome.counted
    assert outcome.grown < 20_000_000
