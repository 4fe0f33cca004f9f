from __future__ import annotations

import pytest

from hermes_cli.catalog.load import shipped_catalogue
from hermes_cli.planning.speed import PROMPTS, PromptTokens, Speed, first_token_seconds

ARCHITECTURE = next(model.architecture for model in shipped_catalogue().models if model.short == "hermes-3:8b")
PREFILL = Speed(1000, 500, 2000, "computed")


def test_a_short_prompt_takes_its_tokens_over_the_prefill_speed() -> None:
    first = first_token_seconds(PromptTokens(512, 512), PREFILL, ARCHITECTURE, 8192)
    assert (first.expected, first.low, first.high) == pytest.approx((0.512, 0.256, 1.024))
    assert first.expected < first.turn < 1.1 * first.expected  # attention to the first prompt


def test_attention_counts_over_a_long_prompt() -> None:
    first = first_token_seconds(PROMPTS["long-context"], PREFILL, ARCHITECTURE, 131_072)
    assert 1.8 * 65.536 < first.expected < 2.5 * 65.536


def test_a_prompt_is_no_longer_than_the_context() -> None:
    assert first_token_seconds(PROMPTS["agent"], PREFILL, ARCHITECTURE, 4096).prompt_tokens == 4096
