from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import RunHermes, clean_environment
from hypothesis import given
from hypothesis import strategies as st

from hermes_cli.errors import NotFoundError, UsageError
from hermes_cli.server.settings import (
    ModelEntry,
    ServerKeys,
    ServerSettings,
    SettingValue,
    as_yaml,
    document,
    read_file,
    read_keys,
    resolve,
    seconds,
)


def typed(**values: Any) -> dict[str, SettingValue]:  # noqa: ANN401 - whatever a flag holds
    return {name: SettingValue(value, f"--{name.replace('_', '-')}") for name, value in values.items()}


def in_file(tmp_path: Path, text: str) -> dict[str, SettingValue]:
    path = tmp_path / "serve.yaml"
    path.write_text(text)
    return read_file(path)


def settings(tmp_path: Path, text: str = "", **flags: Any) -> ServerSettings:  # noqa: ANN401 - as above
    return resolve(typed(**flags), in_file(tmp_path, text)).settings


def test_defaults_are_safe() -> None:
    plain = resolve({}, {}).settings
    assert (plain.host, plain.port, plain.keys, plain.cors, plain.insecure) == ("127.0.0.1", 8080, (), (), False)
    assert plain.log_prompts is False


def test_a_flag_wins_over_the_model_s_entry_and_that_over_the_file(tmp_path: Path) -> None:
    text = """
        port: 9000
        context: 4096
        slots: 2
        models:
          - {model: hermes-3:8b, aliases: [main, gpt-4o], context: 65536, keep_alive: 5m}
          - demo
    """
    one = settings(tmp_path, text, slots=8)
    first, second = one.models
    assert one.port == 9000
    assert (first.context, first.slots, first.aliases, first.idle_seconds) == (65_536, 8, ("main", "gpt-4o"), 300)
    assert (second.model, second.context, second.slots, second.idle_seconds) == ("demo", 4096, 8, None)
    assert [entry.context for entry in settings(tmp_path, text, context=2048).models] == [2048, 2048]


def test_names_that_are_typed_choose_among_the_entries(tmp_path: Path) -> None:
    text = "models: [{model: hermes-3:8b, name: big, context: 8192}, demo]"
    entries = settings(tmp_path, text, models=["other", "big"]).models
    assert [(entry.model, entry.context) for entry in entries] == [("other", None), ("hermes-3:8b", 8192)]


def test_the_environment_counts_less_than_a_flag_and_more_than_the_file(hermes: RunHermes, tmp_path: Path) -> None:
    (tmp_path / "serve.yaml").write_text("port: 1111\nslots: 1\nbatch: 256\n")
    env = {"HERMES_LLM_CONFIG_DIR": str(tmp_path), "HERMES_LLM_PORT": "2222", "HERMES_LLM_SLOTS": "2"}
    done = hermes("serve", "demo", "--print-config", "--port", "3333", env=env)
    assert done.returncode == 0
    assert "port: 3333  # --port\n" in done.stdout
    said = yaml.safe_load(done.stdout)
    assert (said["port"], said["models"][0]["slots"], said["models"][0]["batch"]) == (3333, 2, 256)
    assert "# for all models, slots: HERMES_LLM_SLOTS\n" in done.stdout
    assert f"# for all models, batch: {tmp_path / 'serve.yaml'}\n" in done.stdout


def test_what_is_printed_is_a_file_that_means_the_same(tmp_path: Path) -> None:
    flags = {"models": ["demo"], "tensor_split": "3,1", "cors": ["http://a"], "keep_alive": "5m", "kv_type": "Q8_0"}
    first = resolve(typed(**flags), {})
    again = resolve({}, in_file(tmp_path, as_yaml(first)))
    assert again.settings.models == first.settings.models
    assert document(again) == document(first)


def test_showing_the_settings_needs_no_http() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "hermes_cli", "serve", "demo", "--print-config"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=clean_environment())
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "hermes_cli.server.settings" in imported
    assert not imported & {"uvicorn", "starlette", "asyncio", "llama_cpp", "numpy", "psutil"}


def test_keys_are_never_printed(hermes: RunHermes, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("# ours\nalice hunter2\nhunter3\n")
    given = ("--api-key", "hunter1", "--api-key-file", "keys")
    for arguments in (("--print-config",), ("--print-config", "--json"), ("--port", "x"), ("--port", "70000")):
        done = hermes("serve", "demo", *given, *arguments)
        assert "hunter" not in done.stdout + done.stderr
    done = hermes("serve", "demo", *given, "--print-config")
    assert "# 3 keys, not shown: key-1, alice, line-3\n" in done.stdout
    assert "hunter1" not in repr(resolve(typed(api_keys=["hunter1"]), {}).settings.keys)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"port": 70_000}, "--port 70000: "),
        ({"port": "x"}, "--port 'x': "),
        ({"context": 1}, "--context 1: "),
        ({"slots": 0}, "--slots 0: "),
        ({"kv_type": "q9"}, "--kv-type 'q9': "),
        ({"keep_alive": "soon"}, "--keep-alive soon: "),
        ({"grace": -1}, "--grace -1: "),
        ({"timeout": float("nan")}, "--timeout nan: "),
        ({"tensor_split": "1,x"}, "--tensor-split '1,x': "),
        ({"cors": ["http://a b"]}, "--cors ['http://a b']: "),
        ({"api_keys": ["a b"]}, "the key key-1 cannot be sent"),
        ({"api_keys": ["\u00e9"]}, "the key key-1 cannot be sent"),
        ({"api_keys": [""]}, "the key key-1 cannot be sent"),
        ({"models": ["demo", "demo"]}, "two models are called demo"),
        ({"api_key_file": "/nowhere"}, "the file of keys /nowhere cannot be read"),
    ],
)
def test_a_bad_value_is_told_with_who_said_it(flags: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as error:
        resolve(typed(**flags), {})
    assert said in error.value.message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("prot: 1", "there is no setting prot"),
        ("port: [", "is not YAML"),
        ("- port", "is not a list of settings"),
        ("models: [{model: demo, contxt: 1}]", "contxt"),
        ("models: [{context: 64}]", "model"),
        ("models: [{model: a, aliases: [x]}, {model: b, aliases: [x]}]", "two models are called x"),
        ("models: [{model: a, keep_alive: soon}]", "keep_alive of a soon: "),
        ("port: many", "serve.yaml: port 'many': "),
        ("api_keys: {a: 1}", "serve.yaml: api_keys: "),
    ],
)
def test_a_bad_file_is_told_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError) as error:
        resolve({}, in_file(tmp_path, text))
    assert said in error.value.message


def test_only_the_usual_file_may_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERMES_LLM_CONFIG_DIR", str(tmp_path))
    assert read_file(None) == {}
    (tmp_path / "serve.yaml").write_text("")
    assert read_file(None) == {}
    with pytest.raises(NotFoundError, match="there is no file"):
        read_file(tmp_path / "other.yaml")


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "serve.yaml").write_bytes(b"port: \xff")
    for path in (tmp_path, tmp_path / "serve.yaml"):
        with pytest.raises(UsageError, match="cannot be read"):
            read_file(path)


def test_keys_have_names_of_their_own_or_of_their_line(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("\n# comment\nalice  k1 # hers\nk2\n")
    assert [(key.name, key.secret) for key in read_keys(path)] == [("alice", "k1"), ("line-4", "k2")]
    path.write_text("# nobody\n")
    with pytest.raises(UsageError, match="no key"):
        read_keys(path)
    path.write_text("a b c\n")
    with pytest.raises(UsageError, match="line 1"):
        read_keys(path)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (300, 300),
        ("300", 300),
        ("5m", 300),
        ("1h30m", 5400),
        ("1.5s", 1.5),
        ("250ms", 0.25),
        (0, 0),
        ("0", 0),
        (-1, None),
        ("-1", None),
        ("-1m", None),
        ("never", None),
        ("inf", None),
        (float("inf"), None),
    ],
)
def test_durations(given: float | str, meant: float | None) -> None:
    assert seconds(given) == meant


@given(st.text(max_size=12) | st.floats())
def test_a_duration_is_a_number_or_an_error(given: str | float) -> None:
    try:
        found = seconds(given)
    except UsageError:
        return
    assert found is None or 0 <= found < float("inf")


def test_a_model_that_nobody_named_gets_what_was_said_for_all(tmp_path: Path) -> None:
    entry = settings(tmp_path, "context: 4096", slots=2, think=False).entry("demo")
    assert (entry.model, entry.context, entry.slots, entry.think) == ("demo", 4096, 2, False)


def test_every_setting_is_described() -> None:
    lines = Path(inspect.getfile(ServerKeys)).read_text("utf-8").splitlines()
    for name in (*ServerKeys.__struct_fields__, *ModelEntry.__struct_fields__):
        declared = next(number for number, line in enumerate(lines) if line.startswith(f"    {name}: "))
        assert "  # " in lines[declared] or lines[declared - 1].startswith("    # "), name
