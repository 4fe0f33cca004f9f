"""Models for vLLM and SGLang on this machine: which weights, and the words that start the engine."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from hermes_cli.catalog.load import load_catalogue
from hermes_cli.catalog.models import Catalogue
from hermes_cli.engine.upstream.programs import EngineKind, EngineProgram
from hermes_cli.errors import HermesError, NotFoundError, NotInstalledError, UsageError
from hermes_cli.hardware.machine import Machine
from hermes_cli.hardware.probe import probe
from hermes_cli.hardware.simulate import simulate
from hermes_cli.models import launched as launched_models
from hermes_cli.models.engine_choice import own
from hermes_cli.models.launched import launched
from hermes_cli.models.owned import OwnedModel
from hermes_cli.models.resolve import EngineChoice, ModelRequest
from hermes_cli.planning.load_plan import LoadOverrides


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return load_catalogue()


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The Hub's cache, on a machine without a GPU."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(launched_models, "probe", lambda **_: machine())
    return tmp_path / "hub"


def machine(*gpus: str) -> Machine:
    return simulate(probe(measure=False), gpu=gpus, vram=None, ram=None, apple=None, cpu_only=not gpus)


def weights(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": 1024}))
    for name in names or ("model.safetensors",):
        (folder / name).touch()
    return folder


def plan(
    catalogue: Catalogue, name: str, engine: EngineKind = "vllm", more: tuple[str, ...] = (), **overrides: object
) -> OwnedModel:
    choice = EngineChoice(engine, arguments=("--dtype", "float32", *more))
    request = ModelRequest(name, LoadOverrides(**overrides), engine=choice)  # type: ignore[arg-type]
    return launched(request, choice, EngineProgram(engine, ("/opt/engine",), "PATH"), catalogue)


def test_a_folder_in_vllm(catalogue: Catalogue, tmp_path: Path) -> None:
    folder = weights(tmp_path / "demo-hf")
    model = plan(catalogue, str(folder), context=512, slots=4)
    words = model.command.words
    assert words[:5] == ("/opt/engine", "serve", str(folder), "--served-model-name", "demo-hf")
    for pair in (("--uds", "{socket}"), ("--max-model-len", "512"), ("--max-num-seqs", "4"), ("--dtype", "float32")):
        assert pair in itertools.pairwise(words)
    assert model.command.environment["VLLM_RPC_BASE_PATH"] == "{folder}"
    assert (model.context, model.known) == (512, None)
    assert plan(catalogue, str(folder)).context == 1024  # as config.json says


@pytest.mark.parametrize(
    ("more", "meeting"),
    [
        ((), ""),
        (("--nnodes", "1"), ""),
        (("--nnodes", "2"), "127.0.0.1:29501"),
        (("--nnodes=2", "--master-addr", "10.0.0.1", "--master-port=5000"), "10.0.0.1:5000"),
    ],
)
def test_the_head_of_several_nodes_gets_a_heartbeat(
    catalogue: Catalogue, tmp_path: Path, more: tuple[str, ...], meeting: str
) -> None:
    command = plan(catalogue, str(weights(tmp_path / "demo-hf")), more=more).command
    assert (command.meeting, command.heartbeat) == (meeting, bool(meeting))
    assert ("VLLM_HOST_IP" in command.environment) == (not meeting)  # the user's own counts: others must reach it


def test_sglang_gets_a_free_port_of_loopback(catalogue: Catalogue, tmp_path: Path) -> None:
    words = plan(catalogue, str(weights(tmp_path / "demo-hf")), "sglang").command.words
    pairs = list(itertools.pairwise(words))
    assert ("--port", "{port}") in pairs
    assert ("--host", "127.0.0.1") in pairs


def test_weights_of_the_catalogue_that_are_here(catalogue: Catalogue, hub: Path) -> None:
    with pytest.raises(NotInstalledError) as caught:
        plan(catalogue, "hermes-4:14b@fp8")
    assert caught.value.pull == "hermes-4:14b@fp8"
    folder = hub / "models--NousResearch--Hermes-4-14B-FP8" / "snapshots" / "abc"
    weights(folder, "model-00001-of-00002.safetensors")
    with pytest.raises(NotInstalledError):
        plan(catalogue, "hermes-4:14b@fp8")
    (folder / "model-00002-of-00002.safetensors").touch()
    for name in ("hermes-4:14b@fp8", "hermes-4:14b"):
        model = plan(catalogue, name)
        assert str(folder) in model.command.words
        assert model.known
        assert model.known.short == "hermes-4:14b"


def test_gpus_share_a_model_that_one_does_not_hold(
    catalogue: Catalogue, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launched_models, "probe", lambda **_: machine("2xH100"))
    weights(hub / "models--NousResearch--Hermes-4-70B-FP8" / "snapshots" / "abc")
    model = plan(catalogue, "hermes-4:70b@fp8")
    assert ("--tensor-parallel-size", "2") in itertools.pairwise(model.command.words)
    assert "--enforce-eager" not in model.command.words
    assert ("--max-model-len", str(model.context)) in itertools.pairwise(model.command.words)


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("demo", UsageError, "the demo model is a GGUF file, which vLLM does not load"),
        ("./no-such-folder", NotFoundError, "there is no folder"),
        ("somebody/Something-GGUF", UsageError, "is not a model with weights for vLLM"),
    ],
)
def test_what_has_no_weights(catalogue: Catalogue, name: str, kind: type[HermesError], said: str) -> None:
    with pytest.raises(kind, match=said):
        plan(catalogue, name)


def test_types_of_llama_cpp_are_refused(catalogue: Catalogue, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--kv-type is for llama"):
        plan(catalogue, str(weights(tmp_path / "demo-hf")), kv_type="q8_0")


def test_windows_has_no_way_to_watch_an_engine(catalogue: Catalogue) -> None:
    with pytest.raises(UsageError, match="on Windows hermes starts no other engine"):
        own(ModelRequest("demo", engine=EngineChoice("llama-server")), catalogue, "win32")
