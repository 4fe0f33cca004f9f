"""`hermes chat --draft`: the demo model stands in for the files of large and small ones."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import RunHermes
from hub_cache import HubCache

from hermes_cli.catalog.load import shipped_catalogue
from hermes_cli.catalog.models import CatalogModel
from hermes_cli.catalog.variants import variants
from hermes_cli.engine.embedded.fit_check import check_fit
from hermes_cli.engine.embedded.messages import DraftPlan
from hermes_cli.errors import DoesNotFitError, ExitCode
from hermes_cli.models.planned import draft_plan
from hermes_cli.models.resolve import ModelRequest, ResolvedModel
from hermes_cli.planning.fitted_plan import RAM, FittedPlan
from hermes_cli.planning.load_plan import LoadOverrides
from hermes_cli.store.library import ModelFile

WHO = "Who are you?"


def known(short: str) -> CatalogModel:
    return next(model for model in shipped_catalogue().models if model.short == short)


def put(cache: HubCache, short: str, content: bytes) -> Path:
    variant = next(one for one in variants(known(short)) if one.quantization == "Q4_K_M" and len(one.files) == 1)
    return cache.put(variant.repository.repo, variant.files[0], content)


@pytest.fixture
def cache(tmp_path: Path, demo_path: Path) -> HubCache:
    cache = HubCache(tmp_path / "cache")
    put(cache, "hermes-3:8b", demo_path.read_bytes())
    return cache


def test_auto_takes_what_is_installed_and_changes_nothing_of_the_answer(
    hermes: RunHermes, cache: HubCache, demo_path: Path
) -> None:
    small = put(cache, "hermes-3:3b", demo_path.read_bytes())
    asked = ("chat", "hermes-3:8b", "--threads", "1", "--temperature", "0", "--max-tokens", "24", "--json", WHO)
    plain = json.loads(hermes(*asked, env=cache.environment).stdout)
    helped = json.loads(hermes(*asked, "--draft", "auto", env=cache.environment).stdout)
    assert helped["text"] == plain["text"]
    assert (plain["draft"], helped["draft"]) == (None, small.name)
    assert 0 < helped["usage"]["accepted_tokens"] <= helped["usage"]["drafted_tokens"]


def test_auto_says_what_to_fetch(hermes: RunHermes, cache: HubCache) -> None:
    done = hermes(
        "chat", "hermes-3:8b", "--draft", "auto", "--threads", "1", "--max-tokens", "4", WHO, env=cache.environment
    )
    assert done.returncode == 0
    assert "hermes pull hermes-3:3b gets one" in done.stderr
    done = hermes("chat", "demo", "--draft", "auto", "--threads", "1", WHO, env=cache.environment)
    assert "the catalogue knows of none" in done.stderr


def test_the_one_that_is_named_has_to_be_here(hermes: RunHermes, cache: HubCache) -> None:
    done = hermes("chat", "demo", "--draft", "hermes-3:3b", WHO, env=cache.environment)
    assert done.returncode == ExitCode.NOT_FOUND
    assert "hermes pull hermes-3:3b" in done.stderr


def crowded(demo_path: Path) -> FittedPlan:
    """The demo's plan, if it took more than there is."""
    confirmed = check_fit(demo_path, LoadOverrides())
    places = [
        replace(place, part=replace(place.part, weights=10**15)) if place.name == RAM else place
        for place in confirmed.places
    ]
    return replace(confirmed, places=tuple(places))


def test_auto_leaves_out_what_does_not_fit(cache: HubCache, demo_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = put(cache, "hermes-3:3b", demo_path.read_bytes())
    monkeypatch.setenv("HF_HUB_CACHE", str(cache.hub))
    notes: list[str] = []

    def draft(wanted: str, confirmed: FittedPlan) -> DraftPlan | None:
        request = ModelRequest("hermes-3:8b", draft=wanted)
        resolved = ResolvedModel(request, ModelFile("large", demo_path), known("hermes-3:8b"), LoadOverrides())
        return draft_plan(resolved, confirmed, shipped_catalogue(), notes.append)

    found = draft("auto", check_fit(demo_path, LoadOverrides()))
    assert found
    assert found.path == small
    assert found.plan.settings.context == 1024
    assert not notes
    assert draft("auto", crowded(demo_path)) is None
    assert "no memory left" in notes[0]
    with pytest.raises(DoesNotFitError):
        draft("hermes-3:3b", crowded(demo_path))
    assert draft("off", crowded(demo_path)) is None
