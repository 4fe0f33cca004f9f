"""`hermes pull` as a process, against the Hub of tests/hub_server.py."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import pytest
from architectures import write_family
from conftest import Finished, RunHermes, clean_environment, eventually
from hub_server import Fault, Hub, serving
from terminal_rig import hermes_in_terminal
from tiny_bert import write_tiny_bert

from hermes_cli import paths
from hermes_cli.catalog.load import shipped_catalogue
from hermes_cli.catalog.variants import preferred_variants
from hermes_cli.commands.options import bytes_per_second
from hermes_cli.errors import ExitCode

REPO, FILE = "NousResearch/Hermes-3-Llama-3.2-3B-GGUF", "Hermes-3-Llama-3.2-3B.Q4_K_M.gguf"
SHARDS = tuple(f"Model-Q8_0-{number:05}-of-00003.gguf" for number in (1, 2, 3))
Pull = Callable[..., Finished]


@pytest.fixture
def hub() -> Iterator[Hub]:
    demo = paths.asset("demo.gguf").read_bytes()
    other = {"Model-Q4_K_M.gguf": demo, **{name: name.encode() * 1000 for name in SHARDS}, "README.md": b"Hello"}
    with serving(Hub({REPO: {FILE: demo}, "somebody/Model-GGUF": other, "somebody/Empty": {"a.txt": b""}})) as hub:
        yield hub


@pytest.fixture
def environment(hub: Hub, tmp_path: Path) -> dict[str, str]:
    ours = {f"HERMES_LLM_{name}_DIR": str(tmp_path / name.lower()) for name in ("CACHE", "DATA", "CONFIG")}
    return {**hub.environment, **ours, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_DISABLE_XET": "1"}


@pytest.fixture
def pull(hermes: RunHermes, environment: dict[str, str]) -> Pull:
    return lambda *arguments: hermes("pull", *arguments, env=environment)


def test_a_model_is_fetched_found_and_used(pull: Pull, hermes: RunHermes, environment: dict[str, str]) -> None:
    done = pull("hermes-3:3b:Q4_K_M")
    assert done.returncode == 0, done.stderr
    path = Path(done.stdout.strip())
    assert path.name == FILE
    assert path.read_bytes() == paths.asset("demo.gguf").read_bytes()
    assert "next: hermes chat hermes-3:3b:Q4_K_M" in done.stderr
    answered = hermes("chat", "hermes-3:3b", "Who are you?", env=environment)
    assert "Hermes demo" in answered.stdout, answered.stderr


def test_a_model_for_embeddings_is_to_be_served(pull: Pull, hub: Hub, tmp_path: Path) -> None:
    bert = write_tiny_bert(tmp_path / "bert.gguf").read_bytes()
    hub.repositories["somebody/BERT-GGUF"] = {"bert-F32.gguf": bert}
    done = pull("somebody/BERT-GGUF")
    assert done.returncode == 0, done.stderr
    assert "next: hermes serve somebody/BERT-GGUF" in done.stderr


def test_what_is_here_is_said_and_not_fetched_again(pull: Pull, hub: Hub) -> None:
    pull("hermes-3:3b:Q4_K_M")
    hub.requests.clear()
    again = pull("hermes-3:3b:Q4_K_M")
    assert again.returncode == 0
    assert "here already" in again.stderr
    assert "0 B to fetch" in again.stderr
    assert not any("/resolve/" in path for _, path, _ in hub.requests)


def test_a_dry_run_fetches_nothing(pull: Pull, hub: Hub, tmp_path: Path) -> None:
    done = pull("hermes-3:3b:Q4_K_M", "--dry-run")
    assert done.returncode == 0, done.stderr
    for said in (REPO, FILE, "4.09 MB to fetch", "free there", "fits this machine"):
        assert said in done.stdout
    assert not any("/resolve/" in path for _, path, _ in hub.requests)
    assert not list(tmp_path.glob("hub/**/*.gguf"))


def test_json_is_a_line_for_each_event(pull: Pull) -> None:
    done = pull("somebody/Model-GGUF", "--quant", "Q8_0", "--json")
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert {event["event"] for event in events[:-1]} == {"progress"}
    assert events[-1]["event"] == "done"
    assert [Path(path).name for path in events[-1]["paths"]] == list(SHARDS)
    assert [one["bytes"] for one in events[-1]["files"]] == [len(name) * 1000 for name in SHARDS]


def test_quiet_says_only_the_path(pull: Pull) -> None:
    done = pull("somebody/Model-GGUF:Q4_K_M", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip().endswith("Model-Q4_K_M.gguf")


@pytest.mark.parametrize(
    ("text", "speed"),
    [
        *(("5", 5e6), ("2.5", 2.5e6), ("500k", 5e5), ("500kB/s", 5e5), ("1,5M", 1.5e6), ("1 GB/s", 1e9)),
        *(("10 MB/s", 1e7), ("4MiB", 4 << 20), (".5", 5e5), ("1k", 1000)),
    ],
)
def test_speeds_as_people_write_them(text: str, speed: float) -> None:
    assert bytes_per_second(text) == speed


@pytest.mark.parametrize("text", ["", "0", "-1", "fast", "5 Mbit", "5Mbps", "0.5k", "5 5", "1e3", "nan", "5/s/s"])
def test_what_is_no_speed(text: str, pull: Pull, hub: Hub) -> None:
    done = pull("hermes-3:3b:Q4_K_M", "--limit-rate", text)
    assert (done.returncode, hub.sent) == (2, 0)
    assert f"--limit-rate {text} is " in done.stderr
    assert "bytes, not bits" in done.stderr


def test_a_limit_of_speed(pull: Pull) -> None:
    start = time.monotonic()
    assert pull("hermes-3:3b:Q4_K_M", "--limit-rate", "20").returncode == 0
    assert time.monotonic() - start >= 4_085_152 / 20e6


def test_several_names_at_once(pull: Pull) -> None:
    done = pull("hermes-3:3b:Q4_K_M", "somebody/Model-GGUF:Q4_K_M", "--quiet")
    assert [Path(line).name for line in done.stdout.splitlines()] == [FILE, "Model-Q4_K_M.gguf"]


def test_without_a_quantization_the_one_that_fits_best(pull: Pull) -> None:
    done = pull("hermes-3:3b", "--dry-run")
    assert f"{FILE}  4.09 MB" in done.stdout


def test_without_a_name_it_asks_first(
    environment: dict[str, str], pull: Pull, hermes: RunHermes, hub: Hub, tmp_path: Path
) -> None:
    pick = json.loads(hermes("recommend", "--json", env=environment).stdout)["pick"]
    hub.repositories[pick["repository"]] = dict.fromkeys(pick["files"], paths.asset("demo.gguf").read_bytes())
    nobody = pull()
    assert nobody.returncode == 2
    assert "--yes" in nobody.stderr
    child = hermes_in_terminal(["pull"], environment={**clean_environment(), **environment}, folder=tmp_path)
    child.expect(r"Fetch [0-9.]+ MB\? \[Y/n\] ")
    child.sendline("n")
    child.expect("nothing was fetched")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0  # no is no error
    assert pull("--yes").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("demo",), 2, "ships with hermes"),
        (("./some.gguf",), 2, "hermes import some.gguf"),
        (("hermes-3:3b", "--quant", "nope"), 2, "--quant nope is not a quantization"),
        (("hermes-3:3b:Q4_K_M", "--quant", "Q8_0"), 2, "the name says Q4_K_M, --quant says Q8_0"),
        (("--quant", "Q8_0"), 2, "need a name"),
        (("nous-hermes:13b:Q9",), 3, "Q9"),
        (("openhermes-1:7b",), 3, "no GGUF files"),
        (("somebody/Model-GGUF", "--quant", "Q5_0"), 3, "it has Q4_K_M, Q8_0"),
        (("somebody/Empty",), 3, "has no GGUF files"),
        (("somebody/None",), 3, "there is no repository somebody/None"),
        (("hermes-3:8b:Q4_K_M",), 3, "Hermes-3-Llama-3.1-8B-GGUF"),
    ],
)
def test_bad_input_is_one_clear_error(pull: Pull, arguments: tuple[str, ...], code: int, says: str) -> None:
    done = pull(*arguments)
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "next: " in done.stderr
    assert "Traceback" not in done.stderr


def test_offline_is_said(hermes: RunHermes, environment: dict[str, str]) -> None:
    done = hermes("pull", "hermes-3:3b:Q4_K_M", env={**environment, "HF_HUB_OFFLINE": "1"})
    assert done.returncode == 5
    assert "HF_HUB_OFFLINE" in done.stderr


def test_no_network_is_said(hermes: RunHermes, environment: dict[str, str]) -> None:
    done = hermes("pull", "hermes-3:3b:Q4_K_M", env={**environment, "HF_ENDPOINT": "http://127.0.0.1:9"})
    assert done.returncode == 5
    assert "127.0.0.1:9" in done.stderr


def test_too_large_a_model_is_said_before_the_download(pull: Pull, hub: Hub) -> None:
    model = next(one for one in shipped_catalogue().models if one.short == "hermes-3:405b")
    largest = max((one for one in preferred_variants(model) if one.computed_bytes), key=lambda one: one.bytes or 0)
    hub.repositories[largest.repository.repo] = dict.fromkeys(largest.files, b"as if it were large")
    done = pull(largest.name, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "does not fit this machine" in done.stderr
    assert "hermes recommend" in done.stderr


Away = Callable[[Hub, dict[str, str]], dict[str, str]]


def busy(status: int) -> Away:
    def away(hub: Hub, environment: dict[str, str]) -> dict[str, str]:
        hub.status = status
        return environment

    return away


@pytest.mark.parametrize(
    ("away", "says"),
    [
        (lambda _hub, environment: {**environment, "HF_HUB_OFFLINE": "1"}, "offline mode is on (HF_HUB_OFFLINE)"),
        (lambda _hub, environment: {**environment, "HF_ENDPOINT": "http://127.0.0.1:9"}, "cannot be reached"),
        (lambda _hub, environment: {**environment, "HTTP_PROXY": "http://127.0.0.1:9"}, "the proxy in HTTP_PROXY"),
        (busy(429), "too many requests"),
        (busy(503), "status 503"),
        (busy(401), "refuses access"),
    ],
    ids=["offline", "away", "proxy", "429", "503", "401"],
)
def test_what_is_complete_needs_no_hub(
    pull: Pull, hermes: RunHermes, environment: dict[str, str], hub: Hub, away: Away, says: str
) -> None:
    names = ("hermes-3:3b:Q4_K_M", "somebody/Model-GGUF:Q8_0")
    fetched = pull(*names).stdout
    without = away(hub, environment)
    done = hermes("pull", *names, env=without)
    assert (done.returncode, done.stdout) == (0, fetched), done.stderr
    assert done.stderr.count("here already") == 4
    assert f"not checked whether there is a newer revision: {'the Hub' * (says[0] == 's')}" in done.stderr
    assert says in done.stderr
    assert "next: hermes chat hermes-3:3b:Q4_K_M" in done.stderr
    last = json.loads(hermes("pull", "hermes-3:3b", "--json", env=without).stdout.splitlines()[-1])
    assert (last["event"], [file["verified"] for file in last["files"]]) == ("done", [True])
    assert says in last["hub_error"]
    for more in (("--quant", "Q8_0"), ("--revision", "other")):
        assert hermes("pull", "hermes-3:3b", *more, env=without).returncode == 5
    assert hermes("pull", "hermes-3:3b", "--revision", "main", "--dry-run", env=without).returncode == 0


def test_without_the_hub_a_repository_means_one_of_the_models_that_are_here(
    pull: Pull, hermes: RunHermes, environment: dict[str, str]
) -> None:
    names = ("somebody/Model-GGUF:Q4_K_M", "somebody/Model-GGUF:Q8_0")
    fetched = pull(*names).stdout
    done = hermes("pull", "somebody/Model-GGUF", env={**environment, "HF_HUB_OFFLINE": "1"})
    assert (done.returncode, done.stdout) == (0, fetched.splitlines(keepends=True)[0]), done.stderr
    assert f"next: hermes chat {names[0]}" in done.stderr


def test_of_a_repository_the_best_quantization_is_recommended_and_pulled(
    pull: Pull, hermes: RunHermes, environment: dict[str, str], hub: Hub, tmp_path: Path
) -> None:
    header = write_family(tmp_path / "some.gguf", "qwen2").read_bytes()
    sizes = {"Q4_K_M": 0, "UD-Q6_K_XL": 5_000_000, "Q8_0": 10_000_000}
    hub.repositories["some/Small-GGUF"] = {f"s-{name}.gguf": header + bytes(more) for name, more in sizes.items()}
    page = json.loads(hermes("recommend", "some/Small-GGUF", "--json", env=environment).stdout)
    assert [candidate["name"].partition(":")[2] for candidate in page["candidates"]] == ["Q8_0", "UD-Q6_K_XL", "Q4_K_M"]
    read = {path.rpartition("/")[2] for _, path, _ in hub.requests if "/resolve/" in path}
    assert read == {"s-Q4_K_M.gguf", "s-Q8_0.gguf"}, "the usual one and the best"
    planned = json.loads(hermes("plan", "some/Small-GGUF:Q8_0", "--context", "8192", "--json", env=environment).stdout)
    assert page["pick"]["memory_bytes"] == planned["total"]
    done = pull("some/Small-GGUF", "--dry-run")
    assert (
        "took Q8_0, the best that fits this machine (hermes recommend); it also has UD-Q6_K_XL, Q4_K_M" in done.stdout
    )


def test_what_is_not_complete_does_need_it(
    pull: Pull, hermes: RunHermes, environment: dict[str, str], tmp_path: Path
) -> None:
    pull("somebody/Model-GGUF:Q8_0")
    next(tmp_path.glob(f"hub/**/{SHARDS[1]}")).unlink()
    done = hermes("pull", "somebody/Model-GGUF:Q8_0", env={**environment, "HF_HUB_OFFLINE": "1"})
    assert done.returncode == 5


def test_without_the_hub_content_is_checked_by_the_hash_that_is_known(
    pull: Pull, hermes: RunHermes, environment: dict[str, str], tmp_path: Path
) -> None:
    path = Path(pull("hermes-3:3b:Q4_K_M").stdout.strip()).resolve()
    (tmp_path / "cache" / "verified.json").unlink()
    offline = {**environment, "HF_HUB_OFFLINE": "1"}
    assert "hashing the bytes that are here" in hermes("pull", "hermes-3:3b", env=offline).stderr
    assert "hashing" not in hermes("pull", "hermes-3:3b", env=offline).stderr
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    damaged = hermes("pull", "hermes-3:3b", env=offline)
    assert damaged.returncode == 6
    assert "is damaged: its SHA-256 is not the Hub's, which cannot be asked now" in damaged.stderr
    assert path.exists(), "nothing is lost"


def test_a_mirror_that_lists_no_size_and_no_hash(pull: Pull, hub: Hub) -> None:
    hub.stated = {"size": None, "lfs": None, "blobId": None}
    done = pull("hermes-3:3b:Q4_K_M", "--json")
    assert done.returncode == 0, done.stderr
    assert "states no hash" not in done.stderr, "the headers of the file state both"
    assert pull("hermes-3:3b:Q4_K_M", "--json").stdout.count('"verified": true') == 1


def test_a_mirror_without_hashes_is_checked_by_the_catalogues(
    pull: Pull, hermes: RunHermes, environment: dict[str, str], hub: Hub
) -> None:
    assert hermes("catalog", "refresh", env=environment).returncode == 0
    hub.stated, hub.plain = {"size": None, "lfs": None, "blobId": None}, True
    demo = hub.repositories[REPO][FILE]
    hub.repositories[REPO] = {FILE: b"x" * len(paths.asset("demo.gguf").read_bytes())}
    damaged = pull("hermes-3:3b:Q4_K_M")
    assert damaged.returncode == 6, damaged.stderr
    hub.repositories[REPO] = {FILE: demo}
    done = pull("hermes-3:3b:Q4_K_M", "--json")
    assert "states no hash" not in done.stderr
    assert pull("hermes-3:3b:Q4_K_M", "--json").stdout.count('"verified": true') == 1


def test_a_mirror_that_states_no_hash_at_all(
    pull: Pull, hermes: RunHermes, environment: dict[str, str], hub: Hub
) -> None:
    hub.stated, hub.plain = {"size": None, "lfs": None, "blobId": None}, True
    done = pull("somebody/Model-GGUF:Q4_K_M")
    assert done.returncode == 0, done.stderr
    assert f"{hub.url} publishes no hash of Model-Q4_K_M.gguf, so its content cannot be checked" in done.stderr
    assert Path(done.stdout.strip()).read_bytes() == paths.asset("demo.gguf").read_bytes()
    again = pull("somebody/Model-GGUF:Q4_K_M")
    assert "0 B to fetch" in again.stderr
    assert "cannot be checked" in again.stderr
    listed = hermes("list", "--installed", "--json", env=environment).stdout
    assert [model["state"] for model in json.loads(listed)["models"]] == ["unverified"]
    shown = hermes("show", "somebody/Model-GGUF", env=environment).stdout
    assert "4.09 MB" in shown, "the header that is read tells it"
    assert shown.splitlines()[-1].split()[1] == "unknown"
    offline = hermes("pull", "somebody/Model-GGUF:Q4_K_M", env={**environment, "HF_HUB_OFFLINE": "1"})
    assert "no published hash of it is known here" in offline.stderr
    hub.stated, hub.plain = {}, False  # the Hub itself, which does state one
    better = pull("somebody/Model-GGUF:Q4_K_M", "--json")
    assert json.loads(better.stdout.splitlines()[-1])["paths"] == [done.stdout.strip()]
    checked = hermes("verify", "--json", env=environment)
    assert [one["outcome"] for one in json.loads(checked.stdout)["files"]] == ["verified"]


def test_after_ctrl_c_it_says_what_is_kept(hub: Hub, environment: dict[str, str], tmp_path: Path) -> None:
    hub.faults = [Fault(), *[Fault(stall=1_500_000)] * 9]
    child = hermes_in_terminal(
        ["pull", "hermes-3:3b:Q4_K_M"],
        environment={**clean_environment(), **environment, "TERM": "xterm-256color"},
        folder=tmp_path,
    )
    arriving = (tmp_path / "hub").rglob
    eventually(lambda: any(part.stat().st_size > 1_000_000 for part in arriving("*.incomplete")))
    child.sendintr()
    child.expect(r"MB are kept; the same command goes on from there")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == ExitCode.INTERRUPTED
