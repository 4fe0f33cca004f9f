"""Which model is served when none is named."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pexpect
import pytest
from conftest import clean_environment
from hub_cache import HubCache
from terminal_rig import hermes_in_terminal

from hermes_cli.catalog.load import shipped_catalogue
from hermes_cli.catalog.variants import Variant, variants
from hermes_cli.commands.serving import default_entry
from hermes_cli.console import Console, Voice
from hermes_cli.errors import HermesError, NotFoundError
from hermes_cli.hardware.machine import Machine
from hermes_cli.planning.recommend import RecommendOptions, recommendations
from hermes_cli.server.served_models import AGENT_CONTEXT
from hermes_cli.server.settings import ModelEntry, ServerSettings

CATALOGUE = shipped_catalogue()
GIB = 1 << 30


def machine(ram: float) -> Machine:
    return Machine((), 1 << 40, int(ram * GIB), None, "given", "a CPU", 8, (), "an OS", "/", GIB, ("cpu",))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HubCache:
    made = HubCache(tmp_path)
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    return made


def variant(name: str) -> Variant:
    return next(variant for model in CATALOGUE.models for variant in variants(model) if variant.name == name)


def put(cache: HubCache, *names: str) -> None:
    for wanted in map(variant, names):
        for file in wanted.files:
            cache.put(wanted.repository.repo, file, wanted.name.encode())


def chosen(ram: float, **settings: Any) -> ModelEntry:  # noqa: ANN401 - any setting
    return default_entry(ServerSettings(**settings), CATALOGUE, machine(ram), Console(Voice.QUIET, out=io.StringIO()))


@pytest.mark.parametrize("ram", [64, 24, 4])
def test_the_best_that_is_installed_and_fits(cache: HubCache, ram: float) -> None:
    here = {"hermes-3:3b:Q4_K_M", "hermes-3:8b:Q4_K_M", "hermes-4:70b:Q4_K_M"}
    put(cache, *here)
    ranked = [best.variant.name for best in recommendations(CATALOGUE, machine(ram), RecommendOptions())]
    assert chosen(ram).model == next(name for name in ranked if name in here)


def test_what_was_said_for_all_counts_for_it(cache: HubCache) -> None:
    put(cache, "hermes-3:8b:Q4_K_M")
    entry = chosen(24, slots=2, keep_alive="5m", kv_type="q4_0")
    assert (entry.slots, entry.keep_alive, entry.kv_type) == (2, "5m", "q4_0")


def test_for_an_agent_it_gets_the_settings_that_were_counted_on(cache: HubCache) -> None:
    put(cache, "hermes-3:8b:Q4_K_M")

    def counted_on(ram: float) -> str:
        ranked = recommendations(CATALOGUE, machine(ram), RecommendOptions("agent", AGENT_CONTEXT))
        return next(best.settings.k_type for best in ranked if best.variant.name == "hermes-3:8b:Q4_K_M")

    assert (chosen(64, for_agent=True).kv_type or "f16") == counted_on(64)
    assert chosen(11, for_agent=True).kv_type == counted_on(11) == "q8_0"  # nothing else fits
    put(cache, "hermes-4:14b:Q4_K_M")
    assert chosen(64, for_agent=True).yarn is None


def test_one_that_needs_yarn_gets_it(cache: HubCache) -> None:
    put(cache, "hermes-4:14b:Q4_K_M")
    entry = chosen(64, for_agent=True)
    assert (entry.model, entry.yarn) == ("hermes-4:14b:Q4_K_M", True)


def test_where_none_is_installed_the_refusal_says_which_to_fetch(cache: HubCache) -> None:  # noqa: ARG001 - empty
    with pytest.raises(NotFoundError) as error:
        chosen(24)
    assert error.value.message == "no model was named, and no Hermes model that fits is here."
    assert "hermes pull hermes-" in error.value.hint
    with pytest.raises(HermesError, match="no Hermes model fits this machine"):
        chosen(0.1)


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals")
def test_on_a_terminal_it_offers_to_fetch_the_best(cache: HubCache, tmp_path: Path) -> None:
    environment = {**clean_environment(), **cache.environment, "HERMES_LLM_CONFIG_DIR": str(tmp_path)}
    terminal = hermes_in_terminal(["serve", "--port", "0"], environment=environment, folder=tmp_path)
    terminal.expect(r"No model is here\. Fetch (\S+), [0-9.]+ GB, the best that fits\? \[Y/n\]")
    terminal.sendline("n")
    terminal.expect("nothing was fetched")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0  # no is no error
