"""`hermes bench` with the demo model, and what it changes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import RunHermes

from hermes_cli.hardware.probe import probe
from hermes_cli.planning.speed import Speed
from hermes_cli.store.benchmarks import Benchmark, BenchmarkTest, keep, machine_key, speed_ratios


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setenv("HERMES_LLM_DATA_DIR", str(tmp_path / "data"))
    return {"HERMES_LLM_DATA_DIR": str(tmp_path / "data")}


def test_measures_keeps_and_compares(hermes: RunHermes, environment: dict[str, str]) -> None:
    done = hermes("bench", "demo", "--runs", "2", "--json", env=environment)
    assert done.returncode == 0, done.stderr
    first = json.loads(done.stdout)
    assert first["model"] == "demo"
    assert [test["name"] for test in first["tests"]] == ["pp512", "tg128"]  # it was trained for 1,024 tokens
    for test in first["tests"]:
        assert len(test["runs"]) == 2
        assert min(test["runs"]) <= test["tokens_per_second"] <= max(test["runs"])
        assert test["estimate"]["low"] < test["estimate"]["expected"]
    assert first["compared_with"] is None
    again = hermes("bench", "demo", "--runs", "1", "--compare", env=environment)
    assert again.returncode == 0, again.stderr
    assert "BEFORE" in again.stdout
    assert "pp512" in again.stdout
    assert len(json.loads(Path(environment["HERMES_LLM_DATA_DIR"], "benchmarks.json").read_bytes())) == 2


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("bench", "demo", "--depth", "4096"), 2, "--depth 4,096"),
        (("bench", "hermes-3:8b"), 3, "not on this machine"),
        (("bench", "hermis"), 3, "hermis"),
        (("bench", "demo", "--runs", "0"), 2, "0"),
        (("bench", "demo", "--kv-type", "q9"), 2, "q9"),
    ],
)
def test_bad_input_is_one_clear_error(
    hermes: RunHermes, environment: dict[str, str], arguments: tuple[str, ...], code: int, says: str
) -> None:
    done = hermes(*arguments, env={**environment, "HF_HUB_CACHE": environment["HERMES_LLM_DATA_DIR"]})
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert not Path(environment["HERMES_LLM_DATA_DIR"], "benchmarks.json").exists()


def test_recommend_and_plan_use_what_was_measured(hermes: RunHermes, environment: dict[str, str]) -> None:
    machine = probe(measure=False)
    asked = ("plan", "hermes-3:3b:Q4_K_M", "--json")
    before = json.loads(hermes(*asked, env=environment).stdout)["tokens_per_second"]
    test = BenchmarkTest("tg128", "decode", 0, 5.0, 0.1, (5.0,), Speed(10, 7.5, 13, "computed"))
    result = Benchmark("", "hermes-3:3b:Q4_K_M", 2 << 30, machine_key(machine), "", 0, 29, 1, "f16", (test,))
    keep(result)
    after = json.loads(hermes(*asked, env=environment).stdout)["tokens_per_second"]
    assert after["source"] == "measured"
    assert after["expected"] == pytest.approx(before["expected"] / 2, rel=0.5)  # the bandwidth is measured each time
    assert not speed_ratios(replace(machine, simulated=True))
    keep(replace(result, machine="another"))
    assert len(speed_ratios(machine)) == 1


def test_a_file_of_results_that_is_damaged_is_no_result(environment: dict[str, str], hermes: RunHermes) -> None:
    folder = Path(environment["HERMES_LLM_DATA_DIR"])
    folder.mkdir()
    (folder / "benchmarks.json").write_text("[{", encoding="utf-8")
    done = hermes("plan", "hermes-3:3b:Q4_K_M", "--json", env=environment)
    assert json.loads(done.stdout)["tokens_per_second"]["source"] != "measured"
