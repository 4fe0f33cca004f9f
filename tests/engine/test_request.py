"""Every value of sampling: wrong ones are named, the ends of what is allowed can be drawn with."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
from logit_rows import distinct

from hermes_cli.engine.embedded.llama import LlamaModel
from hermes_cli.engine.embedded.sampler import Sampler
from hermes_cli.engine.embedded.vocabulary import Vocabulary
from hermes_cli.engine.request import MAX_BIASES, PARAMETERS, SamplingOptions
from hermes_cli.errors import UsageError

CONTEXT = 1024


@pytest.fixture(scope="session")
def vocabulary(demo_model: LlamaModel) -> Vocabulary:
    return demo_model.vocabulary


def wrong_values() -> Iterator[tuple[str, object]]:
    for name, number in PARAMETERS.items():
        least, most, step = number.least, number.most, 1 if number.whole else 0.001
        yield from ((name, value) for value in (least - step, most + step, -(10**30), 10**30))
        yield from ((name, value) for value in (math.nan, math.inf, -math.inf, True, "1", b"1", [1]))
        yield from [(name, 0.5)] if number.whole else []
        yield from [(name, None)] if name != "seed" else []


@pytest.mark.parametrize(("name", "value"), [*wrong_values()])
def test_wrong_values_are_named(name: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"^{name} is "):
        SamplingOptions(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", PARAMETERS)
@pytest.mark.parametrize("end", ["least", "most"])
def test_the_ends_of_all_ranges_can_be_drawn_with(vocabulary: Vocabulary, name: str, end: str) -> None:
    values: dict[str, Any] = {name: getattr(PARAMETERS[name], end)}
    if name.startswith("dry") and name != "dry_multiplier":
        values["dry_multiplier"] = 1.0
    if name == "penalty_last_n":
        values["repeat_penalty"] = 1.5
    if name.startswith("mirostat_"):
        values["mirostat"] = 2
    sampler = Sampler(SamplingOptions(**values), vocabulary, CONTEXT)
    for step in range(5):
        token = sampler.draw(distinct(step, 5000))
        assert 0 <= token < 5000
        sampler.accept(token % vocabulary.size)


@pytest.mark.parametrize("bias", [((-1, 1.0),), ((1, math.nan),), ((1, math.inf),), ((1, 1.0),) * (MAX_BIASES + 1)])
def test_wrong_biases_are_named(bias: tuple[tuple[int, float], ...]) -> None:
    with pytest.raises(UsageError, match=r"^logit_bias "):
        SamplingOptions(logit_bias=bias)
