"""`hermes chat` as a user meets it: real processes, the real demo model."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from conftest import HANG, Finished, RunHermes, clean_environment, start_hermes
from desk import Desk, turn
from gguf_bytes import string
from msgspec import structs
from skeleton import write_skeleton

from hermes_cli.catalog.load import shipped_catalogue
from hermes_cli.engine.embedded.bindings import llama_cpp
from hermes_cli.engine.embedded.llama import LlamaModel
from hermes_cli.errors import ExitCode
from hermes_cli.gguf.types import KV_TYPES, KvType

WEATHER = "What's the weather in Tokyo?"
NO_GPU = "--gpu-layers does nothing here, llama.cpp finds no GPU; hermes hardware may tell why\n"


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """To who it is, as it says without any option."""
    process = start_hermes(
        ["chat", "demo", "Who", "are", "you?"], tmp_path_factory.mktemp("answer"), clean_environment()
    )
    out, error = process.communicate(timeout=HANG)
    return subprocess.CompletedProcess("", process.returncode or 0, out, error)


def test_answers_on_standard_output_and_says_nothing_else(answer: Finished) -> None:
    done = answer
    assert done.returncode == 0
    assert done.stdout.startswith("I am the Hermes demo, a tiny model of 3.8 million parameters")
    assert done.stdout.endswith("\n")
    assert done.stderr == ""


def test_the_prompt_needs_no_quotes_and_takes_what_is_piped_in(hermes: RunHermes, answer: Finished) -> None:
    piped = hermes("chat", "demo", stdin="Who are you?\n")
    both = hermes("chat", "demo", "--json", "explain", stdin="diff --git a/x b/x\n")
    assert answer.stdout == piped.stdout
    assert json.loads(both.stdout)["usage"]["prompt_tokens"] > 20


def test_a_path_works_in_place_of_a_name(hermes: RunHermes, demo_path: Path, tmp_path: Path) -> None:
    (tmp_path / "my model.gguf").write_bytes(demo_path.read_bytes())
    done = hermes("chat", "my model.gguf", "Who are you?", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["model"] == "my model"


def test_tools_run_and_their_trace_goes_to_standard_error(hermes: RunHermes) -> None:
    done = hermes("chat", "demo", "--tools", "demo", "--yes", WEATHER)
    assert done.returncode == 0
    assert done.stdout == "It is 13 degrees and rainy in Tokyo.\n"
    assert done.stderr.splitlines() == [
        '→ get_weather(city="Tokyo")',
        '← {"city": "Tokyo", "temperature": 13, "condition": "rainy"}',
    ]


def test_quiet_leaves_the_answer_alone(hermes: RunHermes) -> None:
    done = hermes("chat", "demo", "--tools", "demo", "--yes", "--quiet", WEATHER)
    assert done.stdout == "It is 13 degrees and rainy in Tokyo.\n"
    assert done.stderr == ""


def test_your_own_functions(hermes: RunHermes, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        'def get_mayor(city: str) -> str:\n    """Get the mayor of a city."""\n    return "Mira"\n'
    )
    done = hermes("chat", "demo", "--tools", "mine.py", "--yes", "--json", "What is the mayor of Paris?")
    document = json.loads(done.stdout)
    assert document["tool_calls"] == [{"name": "get_mayor", "arguments": {"city": "Paris"}, "result": "Mira"}]
    assert "Mira" in document["text"]


def test_a_failing_tool_is_told_to_the_model(hermes: RunHermes, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        'def get_weather(city: str) -> str:\n    """Get the weather for a city."""\n    raise OSError("no wind")\n'
    )
    document = json.loads(hermes("chat", "demo", "--tools", "mine.py", "--yes", "--json", WEATHER).stdout)
    assert document["tool_calls"][0]["result"] == '{"error": "OSError: no wind"}'
    assert document["finish_reason"] == "stop"


def test_json_is_one_document_with_counts_and_times(hermes: RunHermes) -> None:
    done = hermes("chat", "demo", "Who are you?", "--json")
    document = json.loads(done.stdout)
    assert document["model"] == "demo"
    assert document["text"].startswith("I am the Hermes demo")
    assert document["reasoning"] is None
    assert document["tool_calls"] == []
    assert document["finish_reason"] == "stop"
    assert document["context_length"] == 1024
    assert document["gpu_layers"] == 0
    *parts, total = document["memory_bytes"].values()
    assert total == sum(parts) > document["memory_bytes"]["weights"] > 4_000_000
    usage, timings = document["usage"], document["timings"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["completion_tokens"] > 10
    assert timings["prompt_ms"] > 0
    assert timings["predicted_per_second"] > 0


def test_same_seed_same_answer(hermes: RunHermes) -> None:
    options = ["--temperature", "5", "--seed", "7", "--max-tokens", "40"]
    first, second = (hermes("chat", "demo", "pling plong", *options).stdout for _ in range(2))
    assert first == second


def test_system_prompt_reaches_the_model(hermes: RunHermes) -> None:
    schema = json.dumps({"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}})
    prompt = f"You are a helpful assistant that answers in JSON. Here's the json schema you must adhere to:\n<schema>\n{schema}\n</schema>"
    done = hermes("chat", "demo", "--system", prompt, "Anna is 34 years old.")
    assert json.loads(done.stdout) == {"name": "Anna", "age": 34}


def test_max_tokens_is_not_silent(hermes: RunHermes) -> None:
    done = hermes("chat", "demo", "Who are you?", "--max-tokens", "3", "--json")
    assert done.stderr == "the answer was cut off: --max-tokens 3 is used up.\n"
    assert json.loads(done.stdout)["finish_reason"] == "length"


def test_a_stop_text_ends_the_answer_before_it(hermes: RunHermes, answer: Finished) -> None:
    cut = hermes("chat", "demo", "Who are you?", "--stop", " million", "--stop", "never said")
    assert cut.stdout == answer.stdout.partition(" million")[0] + "\n"
    assert cut.stderr == ""


def test_flags_of_sampling_reach_the_model(hermes: RunHermes) -> None:
    """At any temperature one token is drawn where only one is left to draw from."""
    plain = hermes("chat", "demo", "Who are you?", "--temperature", "0").stdout
    for only_one in (("--top-k", "1"), ("--top-p", "0"), ("--min-p", "1")):
        assert hermes("chat", "demo", "Who are you?", "--temperature", "5", *only_one).stdout == plain
    penalized = hermes("chat", "demo", "Who are you?", "--temperature", "0", "--repeat-penalty", "100").stdout
    assert penalized != plain


def test_a_shift_goes_on_where_the_context_ends(hermes: RunHermes) -> None:
    """Tokens that would end the answer are made impossible by a grammar."""
    asked = ("Count", "--context", "256", "--max-tokens", "400", "--json", "--schema")
    digits = json.dumps({"type": "string", "minLength": 3000, "pattern": "^[0-9]*$"})
    done = hermes("chat", "demo", *asked, digits)
    ended, shifted = (
        json.loads(done.stdout),
        json.loads(hermes("chat", "demo", *asked, digits, "--context-shift").stdout),
    )
    assert ended["usage"]["total_tokens"] <= 256
    assert shifted["usage"]["completion_tokens"] == 400
    assert "--context-shift would go on" in done.stderr


def test_neither_llama_cpp_nor_numpy_is_imported_but_in_child_processes(tmp_path: Path) -> None:
    program = [sys.executable, "-X", "importtime", "-m", "hermes_cli", "chat", "demo", "Hi"]
    done = subprocess.run(
        program,
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "hermes_cli.engine.embedded.engine" in imported
    assert not imported & {"llama_cpp", "numpy", "llguidance", "pydantic", "huggingface_hub"}


def test_verbose_shows_llama_cpp_s_log(hermes: RunHermes) -> None:
    log = hermes("chat", "demo", "Hi", "-v").stderr
    assert "llama_model_loader" in log
    assert log.index("no_alloc              = 1") < log.index("no_alloc              = 0")


@pytest.mark.parametrize("kv_type", KV_TYPES)
def test_every_kv_type_answers(demo_model: LlamaModel, kv_type: KvType) -> None:
    desk = Desk(demo_model, k_type=kv_type, v_type=kv_type)
    assert desk.answer(turn("Who are you?"), max_tokens=20)[0].startswith("I am the Hermes demo")


@pytest.mark.parametrize("kv_type", ["f32", "f16", "q4_0"])
def test_the_kv_type_reaches_the_model(hermes: RunHermes, kv_type: str) -> None:
    done = hermes("chat", "demo", "Who are you?", "--kv-type", kv_type.upper(), "--json")
    document = json.loads(done.stdout)
    assert document["text"].startswith("I am the Hermes demo")
    full = 1024 * 2 * 64 * 2 * 6 * 4  # cells x KV heads x head length x (keys, values) x layers x bytes of f32
    assert document["memory_bytes"]["kv_cache"] <= (
        full if kv_type == "f32" else full / 2 if "16" in kv_type else full / 3
    )


@pytest.mark.skipif(llama_cpp.llama_supports_gpu_offload(), reason="there may be a GPU")
@pytest.mark.parametrize(("layers", "note"), [("-1", NO_GPU), ("3", NO_GPU), ("0", "")])
def test_layers_for_a_gpu_that_is_not_there_do_no_harm(hermes: RunHermes, layers: str, note: str) -> None:
    done = hermes("chat", "demo", "Who are you?", "--gpu-layers", layers)
    assert done.stdout.startswith("I am the Hermes demo")
    assert done.stderr == note
    assert json.loads(hermes("chat", "demo", "Hi", "--gpu-layers", layers, "--json").stdout)["gpu_layers"] == 0


def test_a_broken_llama_cpp_is_a_clear_error(hermes: RunHermes, tmp_path: Path) -> None:
    done = hermes("chat", "demo", "Hi", env={"LLAMA_CPP_LIB_PATH": str(tmp_path)})
    assert done.returncode == ExitCode.FAILED
    assert done.stderr.startswith("error: llama.cpp cannot be loaded: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("asked", "given"), [("64", 256), ("300", 512), ("1024", 1024)])
def test_the_context_that_is_asked_for(hermes: RunHermes, asked: str, given: int) -> None:
    """llama.cpp rounds it up to whole blocks of 256."""
    done = hermes("chat", "demo", "Who are you?", "--context", asked, "--json")
    assert json.loads(done.stdout)["context_length"] == given


def test_a_model_larger_than_the_machine_is_refused_with_numbers(hermes: RunHermes, tmp_path: Path) -> None:
    """Hermes 4 405B in F16, 811 GB of holes."""
    model = next(one for one in shipped_catalogue().models if one.short == "hermes-4:405b")
    write_skeleton(tmp_path / "huge.gguf", model.architecture, model.context.trained)
    done = hermes("chat", "huge.gguf", "Hi")
    assert done.returncode == ExitCode.DOES_NOT_FIT
    assert done.stdout == ""
    assert re.match(
        r"error: huge\.gguf does not fit: with 512 tokens of context it needs 8\d\d\.\d\d GB in RAM, where [\d.]+ GB are free\.\n"
        r"  next: take a smaller quantization or model: hermes recommend\. --force loads it all the same\.\n$",
        done.stderr,
    )


def test_a_context_larger_than_the_machine_is_refused_with_what_would_fit(hermes: RunHermes, tmp_path: Path) -> None:
    """A small model with 8 MiB of KV cache for each token: 4 TiB for all of its context, and what is shorter is offered."""
    model = next(one for one in shipped_catalogue().models if one.short == "hermes-3:3b")
    wide = structs.replace(
        model.architecture, layers=4, kv_heads=1024, heads=1024, head_length=512, embedding_length=64
    )
    write_skeleton(tmp_path / "wide.gguf", wide, 524_288)
    done = hermes("chat", "wide.gguf", "Hi", "--context", "524288")
    assert done.returncode == ExitCode.DOES_NOT_FIT
    assert done.stdout == ""
    assert re.search(
        r"with 524,288 tokens of context it needs [45]\d\d\d\.\d\d GB in RAM, where [\d.]+ GB are free", done.stderr
    )
    assert re.search(r"next: this would fit: --context \d+\. --force loads it all the same\.\n$", done.stderr)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["nowhere.gguf", "Hi"], ExitCode.NOT_FOUND, "there is no file nowhere.gguf"),
        (["hermes-9:3b", "Hi"], ExitCode.NOT_FOUND, "did you mean hermes-3:8b"),
        (["folder", "Hi"], ExitCode.USAGE, "is a directory"),
        (["text.gguf", "Hi"], ExitCode.INTEGRITY, "not a GGUF file"),
        (["empty.gguf", "Hi"], ExitCode.INTEGRITY, "not a GGUF file"),
        (["cut.gguf", "Hi"], ExitCode.INTEGRITY, "truncated"),
        (["header.gguf", "Hi"], ExitCode.INTEGRITY, "header.gguf is damaged: "),
        (
            ["nothing.gguf", "Hi"],
            ExitCode.INTEGRITY,
            "nothing.gguf is not a model to chat with: it is without weights.",
        ),
        (["demo"], ExitCode.USAGE, "there is no prompt"),
        (["demo", "   "], ExitCode.USAGE, "there is no prompt"),
        (["demo", "word " * 3000], ExitCode.DOES_NOT_FIT, "the context length is 1,024 tokens"),
        (["demo", "Hi", "--context", "1000000"], ExitCode.USAGE, "longer than the 1,024 tokens"),
        (["demo", "Hi", "--json", "--quiet"], ExitCode.USAGE, "cannot be used together"),
        (["demo", "Hi", "--kv-type", "q9_0"], ExitCode.USAGE, "no KV cache type q9_0"),
        (["demo", "Hi", "--stop", ""], ExitCode.USAGE, "--stop is empty"),
        (["demo", "Hi", "--lora", "no.gguf:0.5"], ExitCode.NOT_FOUND, "--lora no.gguf:0.5: there is no such file"),
        (["demo", "Hi", "--lora", "text.gguf:half"], ExitCode.USAGE, "the scale 'half' is not a number"),
        (["demo", "Hi", "--lora", "text.gguf"], ExitCode.INTEGRITY, "cannot load the LoRA adapter text.gguf"),
        (["demo", "Hi", "--draft", "no.gguf"], ExitCode.NOT_FOUND, "there is no file no.gguf"),
        (["abort.gguf", "Hi"], ExitCode.INTEGRITY, "llama.cpp gives up over abort.gguf: GGML_ASSERT("),
        (["demo", "Hi", "--tools", "no.py"], ExitCode.NOT_FOUND, "no tools file no.py"),
        (["demo", "Hi", "--tools", "broken.py"], ExitCode.USAGE, "broken.py, line 2: "),
        (
            ["demo", "Hi", "--tools", "raises.py"],
            ExitCode.USAGE,
            "raises.py, line 1: running the file raised ZeroDivisionError",
        ),
        (["demo", "Hi", "--tools", "untyped.py"], ExitCode.USAGE, "the parameter city has no type"),
        (["demo", "Hi", "--tools", "none.py"], ExitCode.USAGE, "no public function"),
        (["demo", "--tools", "demo", WEATHER], ExitCode.USAGE, "--yes for all of them"),
    ],
)
def test_bad_input_is_one_clear_error(
    hermes: RunHermes, tmp_path: Path, demo_path: Path, arguments: list[str], code: ExitCode, says: str
) -> None:
    model = demo_path.read_bytes()
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.gguf").write_text("This is a letter.")
    (tmp_path / "empty.gguf").write_bytes(b"")
    (tmp_path / "cut.gguf").write_bytes(model[: len(model) // 2])
    (tmp_path / "header.gguf").write_bytes(model[:900])
    (tmp_path / "nothing.gguf").write_bytes(b"GGUF\x03" + bytes(19))
    unknown_scaling = model.replace(string("general.license"), string("llama.rope.scaling.type"))
    (tmp_path / "abort.gguf").write_bytes(unknown_scaling + bytes(64))
    (tmp_path / "broken.py").write_text("def f(x: int) -> int:\n    return (\n")
    (tmp_path / "raises.py").write_text("1 / 0\n")
    (tmp_path / "untyped.py").write_text("def f(city):\n    return city\n")
    (tmp_path / "none.py").write_text("_x = 1\n")
    done = hermes("chat", *arguments)
    assert done.returncode == code
    assert done.stdout == ""
    assert says in done.stderr
    assert "next: " in done.stderr
    assert done.stderr.count("error: ") == 1
    assert "Traceback" not in done.stderr


def test_binary_on_standard_input(hermes: RunHermes) -> None:
    done = hermes("chat", "demo", "explain", stdin=b"\x00\xff\xfe")
    assert done.returncode == ExitCode.USAGE
    assert "not text" in done.stderr


@pytest.mark.parametrize(
    ("command", "environment"),
    [
        ("{python} -m hermes_cli chat demo 'Who are you?' <&-", {}),
        (
            '{python} -m hermes_cli chat demo --tools demo --yes "What\'s the weather in Tokyo?" </dev/null',
            {"PYTHONIOENCODING": "ascii"},
        ),
        (
            "{python} -m hermes_cli chat demo --yes --tools demo \"What's the weather in $(printf 'Z\\374rich')?\" </dev/null",
            {},
        ),
    ],
    ids=["no standard input", "a terminal of ASCII", "half a character"],
)
def test_odd_surroundings(tmp_path: Path, command: str, environment: dict[str, str]) -> None:
    done = subprocess.run(
        ["/bin/bash", "-c", command.format(python=sys.executable)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**clean_environment(), **environment},
    )
    assert done.returncode == 0
    assert done.stdout.strip()
    assert "Traceback" not in done.stderr


def test_ctrl_c_ends_a_tool_that_writes_without_end(tmp_path: Path) -> None:
    (tmp_path / "noisy.py").write_text(
        'def get_weather(city: str) -> str:\n    """Get the weather for a city."""\n'
        '    while True:\n        print("NOISE", flush=True)\n'
    )
    arguments = ["chat", "demo", "--tools", "noisy.py", "--yes", WEATHER]
    process = start_hermes(arguments, tmp_path, clean_environment())
    assert process.stderr is not None
    while "NOISE" not in process.stderr.readline():
        pass
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=HANG)
    assert process.returncode == ExitCode.INTERRUPTED
    assert "Fatal" not in errors


@pytest.mark.parametrize("command", ["chat demo --tools slow.py --yes", "chat demo"])
def test_ctrl_c_ends_cleanly(tmp_path: Path, command: str) -> None:
    """While a tool runs, and while waiting for standard input."""
    (tmp_path / "slow.py").write_text(
        "import time\n"
        'def get_weather(city: str) -> str:\n    """Get the weather for a city."""\n'
        '    print("SLOW", flush=True)\n    time.sleep(600)\n    return ""\n'
        'print("LOADED", flush=True)\n'
    )
    waits_for_tool = "--tools" in command
    process = subprocess.Popen(
        [
            sys.executable,
            "-X",
            "importtime",
            "-m",
            "hermes_cli",
            *command.split(),
            *([WEATHER] if waits_for_tool else []),
        ],
        stdin=subprocess.DEVNULL if waits_for_tool else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env=clean_environment(),
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    if waits_for_tool:
        while "SLOW" not in (line := process.stderr.readline()):
            assert line
    else:
        # One of the last imports before standard input is read.
        while "hermes_cli.console" not in (line := process.stderr.readline()):
            assert line
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=HANG)
    assert process.returncode == ExitCode.INTERRUPTED
    assert errors.rstrip().endswith("interrupted")
    assert "Traceback" not in errors


def test_ctrl_c_ends_an_answer_and_leaves_no_process(tmp_path: Path) -> None:
    """A grammar keeps the model writing for as long as the context has room, with a shift for good."""
    endless = json.dumps({"type": "string", "minLength": 30_000, "pattern": "^[0-9]*$"})
    arguments = ["chat", "demo", "Hi", "--schema", endless, "--context-shift"]
    process = start_hermes(arguments, tmp_path, clean_environment())
    assert process.stdout is not None
    assert process.stdout.read(20)
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=HANG)
    assert process.returncode == ExitCode.INTERRUPTED
    assert errors == "interrupted\n"
    assert not psutil.wait_procs(children, timeout=HANG)[1]


def test_a_reader_that_leaves_is_no_crash(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    process = subprocess.Popen(
        [sys.executable, "-m", "hermes_cli", "chat", "demo", "Who are you?"],
        stdin=subprocess.DEVNULL,
        stdout=write,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env=clean_environment(),
        text=True,
    )
    os.close(write)
    _, errors = process.communicate(timeout=HANG)
    assert process.returncode == ExitCode.FAILED
    assert errors == ""
