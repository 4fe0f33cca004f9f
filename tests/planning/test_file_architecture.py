"""Memory of models of other families, against llama.cpp's dry run of their headers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from architectures import FAMILIES, LAYERS, write_family

from hermes_cli.catalog.load import shipped_catalogue
from hermes_cli.catalog.names import FileReference
from hermes_cli.engine.embedded.fit_check import dry_runs
from hermes_cli.gguf.header import read_header
from hermes_cli.models.any_model import measured, memory_source, open_variant
from hermes_cli.planning.file_architecture import DryRunPoint, FileArchitecture
from hermes_cli.planning.memory import KINDS, ContextSettings, facts_of, on_cpu, weights

ROUNDING = (1 << 20) // 100  # of llama.cpp's log
EVERY = [
    ContextSettings(4096),
    ContextSettings(8192, k_type="q8_0", v_type="q8_0"),
    ContextSettings(1024, flash_attention=False),
    ContextSettings(4096, slots=4, micro_batch=128),
]
BY_RULES = sorted(set(FAMILIES) & set(KINDS))


@pytest.mark.parametrize("name", BY_RULES)
def test_the_rules_of_a_family_are_what_llama_cpp_allocates(tmp_path: Path, name: str) -> None:
    path = write_family(tmp_path / "some.gguf", name)
    facts = facts_of([read_header(path)])
    assert facts.architecture
    for settings, said in zip(EVERY, dry_runs(path, facts.weights, EVERY), strict=True):
        ours = on_cpu(facts.architecture, facts.weights, settings)
        for part in ("weights", "kv_cache", "compute", "output"):
            assert getattr(ours, part) == pytest.approx(getattr(said.parts[0], part), abs=ROUNDING), (settings, part)


def test_every_family_with_rules_is_proved_here_or_in_the_catalogue() -> None:
    listed = {model.architecture.kind for model in shipped_catalogue().models}
    assert set(KINDS) == set(BY_RULES) | listed


@pytest.mark.parametrize("name", sorted(set(FAMILIES) - set(BY_RULES)))
def test_of_other_families_the_dry_run_decides(tmp_path: Path, name: str) -> None:
    path = write_family(tmp_path / "some.gguf", name)
    variant = open_variant(FileReference(path), str(path), shipped_catalogue())
    assert memory_source(variant) == "dry run"
    architecture = measured(variant, EVERY).model.architecture
    table = weights(architecture, variant.quantization, imatrix=False)
    for settings, said in zip(EVERY, dry_runs(path, table, EVERY), strict=True):
        ours = on_cpu(architecture, table, settings)
        assert ours.kv_cache == pytest.approx(said.parts[0].kv_cache, abs=LAYERS)
        assert ours.compute == said.parts[0].compute
        assert ours.output == pytest.approx(said.parts[0].output, abs=ROUNDING)


def test_a_tensor_that_no_rule_knows_leaves_it_to_the_dry_run(tmp_path: Path) -> None:
    """Qwen 2's biases under the name of llama, as some conversions have them."""
    path = write_family(tmp_path / "some.gguf", "qwen2")
    path.write_bytes(path.read_bytes().replace(b"qwen2", b"llama"))
    assert facts_of([read_header(path)]).architecture is None


def test_between_two_contexts_memory_lies_on_a_line() -> None:
    short, long = ContextSettings(1024), ContextSettings(4096)
    architecture = FileArchitecture(
        **msgspec.structs.asdict(shipped_catalogue().models[0].architecture),
        points=(DryRunPoint(long, 400, 40), DryRunPoint(short, 100, 10)),
    )
    assert architecture.point(ContextSettings(2048)) == DryRunPoint(ContextSettings(2048), 200, 20)
    assert architecture.point(ContextSettings(8192)) == DryRunPoint(ContextSettings(8192), 800, 80)
    assert architecture.point(ContextSettings(512)) == DryRunPoint(short, 100, 10)
    assert architecture.point(replace(long, k_type="q8_0")) is None
