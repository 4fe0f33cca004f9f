from __future__ import annotations

import pytest

from hermes_cli.catalog.load import shipped_catalogue
from hermes_cli.catalog.models import CatalogModel
from hermes_cli.planning.recommend import draft_candidates

CATALOGUE = shipped_catalogue()
EXPECTED = {
    "hermes-3:405b": ["hermes-3:3b", "hermes-3:8b", "hermes-3:70b"],
    "hermes-3:70b": ["hermes-3:3b", "hermes-3:8b"],
    "hermes-3:8b": ["hermes-3:3b"],
    "hermes-4:405b": ["hermes-4:70b"],
    "deephermes-3:8b": ["deephermes-3:3b"],
}


@pytest.mark.parametrize("model", CATALOGUE.models, ids=lambda model: model.short)
def test_who_drafts_for_whom(model: CatalogModel) -> None:
    candidates = draft_candidates(model, CATALOGUE)
    assert [one.short for one in candidates] == EXPECTED.get(model.short, [])
    for one in candidates:
        assert one.parameters <= model.parameters / 2
        assert one.architecture.tokenizer == model.architecture.tokenizer
        assert one.architecture.vocabulary == model.architecture.vocabulary
        assert one.prompt.format == model.prompt.format
