from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import go_template
import pytest
from gguf_bytes import SMALL, SMALL_SHARD
from hub_cache import HubCache
from hypothesis import given
from hypothesis import strategies as st

from hermes_cli.catalog.load import shipped_catalogue
from hermes_cli.catalog.models import CatalogModel
from hermes_cli.errors import HermesError, NotFoundError
from hermes_cli.prompting.families import THINKING_PROMPT
from hermes_cli.store.export import ExportSource, modelfile, plain_name, shards, to_folder, to_lm_studio, to_ollama
from hermes_cli.store.export import go_template as template_of

CATALOGUE = shipped_catalogue()
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}
TOOL_TEXT = '{"type":"function","function":{"name":"get_weather","parameters":{"type":"object"}}}'


def model(short: str) -> CatalogModel:
    return next(one for one in CATALOGUE.models if one.short == short)


def said(role: str, content: str = "", thinking: str = "", **calls: str) -> dict[str, Any]:
    """A message as Ollama hands it to a template; calls as city=…"""
    made = [{"Function": {"Name": "get_weather", "Arguments": {"city": city}}} for city in calls.values()]
    return {"Role": role, "Content": content, "Thinking": thinking, "ToolCalls": made}


def values(*messages: dict[str, Any], tools: int = 0, think: bool = False) -> dict[str, Any]:
    system = "\n\n".join(one["Content"] for one in messages if one["Role"] == "system")
    return {"System": system, "Messages": list(messages), "Tools": [TOOL] * tools, "Think": think}


HI = values(said("user", "Hi"))
BRIEF = values(said("system", "Be brief."), said("user", "Hi"), said("assistant", "Hello!"), said("user", "Bye"))
CALLING = values(
    said("user", "Hi"),
    said("assistant", "Both:", "which?", a="Rome", b="Oslo"),
    said("tool", "13"),
    said("tool", "7"),
    said("assistant", "13 and 7."),
    said("user", "Thanks"),
)
ANSWERED = values(said("user", "Hi"), said("assistant", a="Rome"), said("tool", "13"))
DIALOGUES = [
    HI,
    BRIEF,
    CALLING,
    ANSWERED,
    values(said("system", "Be brief."), said("user", "Hi"), tools=2),
    values(said("user", "Hi"), tools=1, think=True),
    values(said("system", "Be brief."), said("user", "Hi"), think=True),
    values(said("user", "Hi"), said("assistant", "So", "deep")),
]


def prompt(short: str, dialogue: dict[str, Any]) -> str:
    template = template_of(model(short))
    assert template is not None
    return go_template.render(template, dialogue)


@pytest.mark.parametrize(
    ("short", "dialogue", "expected"),
    [
        ("openhermes-2.5:7b", HI, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"),
        (
            "openhermes-2.5:7b",
            BRIEF,
            (
                "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
                "<|im_start|>assistant\nHello!<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n"
            ),
        ),
        (
            "hermes-3:8b",
            HI,
            (
                "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
                "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
            ),
        ),
        (
            "hermes-4:70b",
            HI,
            (
                "<|start_header_id|>system<|end_header_id|>\n\nYou are Hermes, created by Nous Research.<|eot_id|>"
                "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
                "<|start_header_id|>assistant<|end_header_id|>\n\n"
            ),
        ),
        (
            "deephermes-3:8b",
            HI,
            "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        ),
        ("nous-hermes:13b", HI, "### Instruction:\nHi\n\n### Response:\n"),
        (
            "nous-hermes:13b",
            BRIEF,
            "Be brief.\n\n### Instruction:\nHi\n\n### Response:\nHello!\n\n### Instruction:\nBye\n\n### Response:\n",
        ),
    ],
)
def test_prompts(short: str, dialogue: dict[str, Any], expected: str) -> None:
    assert prompt(short, dialogue) == expected


@pytest.mark.parametrize(("short", "role"), [("hermes-3:8b", "tool"), ("hermes-4:14b", "user")])
def test_calls_and_results(short: str, role: str) -> None:
    assert prompt(short, CALLING).partition("<|im_start|>user\nHi<|im_end|>\n")[2] == (
        "<|im_start|>assistant\nBoth:\n"
        '<tool_call>\n{"name": "get_weather", "arguments": {"city":"Rome"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "get_weather", "arguments": {"city":"Oslo"}}\n</tool_call><|im_end|>\n'
        f"<|im_start|>{role}\n<tool_response>\n13\n</tool_response>\n<tool_response>\n7\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n13 and 7.<|im_end|>\n<|im_start|>user\nThanks<|im_end|>\n<|im_start|>assistant\n"
    )


def test_results_at_the_end_are_answered() -> None:
    assert prompt("hermes-4:70b", ANSWERED).endswith(
        "<|start_header_id|>user<|end_header_id|>\n\n<tool_response>\n13\n</tool_response><|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def test_tools_come_in_the_words_of_each_generation() -> None:
    dialogue = values(said("system", "Be brief."), said("user", "Hi"), tools=2)
    older, newer = prompt("hermes-3:8b", dialogue), prompt("hermes-4:14b", dialogue)
    assert f"Here are the available tools: <tools> {TOOL_TEXT}\n{TOOL_TEXT} </tools>Use the following" in older
    assert "</tool_call><|im_end|>\n<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n" in older
    assert newer.startswith("<|im_start|>system\nBe brief.\n\n# Tools\n\nYou are a function calling AI model.")
    assert f"<tools>\n{TOOL_TEXT}\n{TOOL_TEXT}\n</tools>\n\nFor each function call" in newer
    assert "</tool_call><|im_end|>\n<|im_start|>user\nHi<|im_end|>\n" in newer


def test_thinking_is_asked_for_before_everything_else() -> None:
    thinking = values(said("system", "Be brief."), said("user", "Hi"), think=True)
    assert prompt("hermes-4:14b", thinking).startswith(f"<|im_start|>system\n{THINKING_PROMPT}\n\nBe brief.<|im_end|>")
    alone = prompt("deephermes-3:8b", values(said("user", "Hi"), think=True))
    assert alone.startswith(f"<|start_header_id|>system<|end_header_id|>\n\n{THINKING_PROMPT}<|eot_id|>")
    assert "created by Nous" not in prompt("hermes-4:14b", values(said("user", "Hi"), think=True))
    assert THINKING_PROMPT not in prompt("hermes-3:8b", thinking)


def test_old_thoughts_are_left_out_and_a_begun_answer_goes_on() -> None:
    assert "which?" not in prompt("hermes-4:14b", CALLING)
    begun = prompt("hermes-4:14b", values(said("user", "Hi"), said("assistant", "So", "deep")))
    assert begun.endswith("<|im_start|>assistant\n<think>deep</think>\nSo")


@pytest.mark.parametrize("short", [one.short for one in CATALOGUE.models])
def test_every_prompt_of_the_catalogue_ends_with_the_models_turn(short: str) -> None:
    template = template_of(model(short))
    if model(short).prompt.format == "unknown":
        assert template is None
        return
    assert template is not None
    for dialogue in DIALOGUES[:-1]:
        text = prompt(short, dialogue)
        assert text.endswith(("<|im_start|>assistant\n", "assistant<|end_header_id|>\n\n", "### Response:\n"))
        assert all(stop.strip() for stop in model(short).prompt.stop)
        assert "{{" not in text
    assert model(short).tools == (".Tools" in template)
    assert bool(model(short).reasoning) == (".Thinking" in template)


def test_go_renders_the_same(tmp_path_factory: pytest.TempPathFactory) -> None:
    program = go_template.compiled(tmp_path_factory.mktemp("go"))
    if program is None:
        pytest.skip("there is no Go")
    templates = {template for one in CATALOGUE.models if (template := template_of(one))}
    for template in templates:
        for dialogue in DIALOGUES:
            sorted_tools = json.loads(json.dumps(dialogue, sort_keys=True))
            assert go_template.render_by_go(program, template, sorted_tools) == go_template.render(
                template, sorted_tools
            )


# The Modelfile


def test_a_modelfile() -> None:
    text = modelfile(["Hermes-4-14B-Q4_K_M.gguf"], model("hermes-4:14b"))
    template = template_of(model("hermes-4:14b"))
    assert text.startswith(f'FROM ./Hermes-4-14B-Q4_K_M.gguf\nTEMPLATE """{template}"""\n')
    assert text.partition('"""\n')[2].splitlines() == [
        'PARAMETER stop "<|im_end|>"',
        "PARAMETER temperature 0.6",
        "PARAMETER top_p 0.95",
        "PARAMETER top_k 20",
        "# Hermes 4 14B handles 40,960 tokens; the more, the more memory is taken",
        "PARAMETER num_ctx 16384",
    ]


def test_parameters_that_nobody_recommends_are_left_out() -> None:
    text = modelfile(["x.gguf"], model("hermes-3:8b"))
    assert "temperature" not in text.partition('"""\n')[2]
    assert "num_ctx 4096\n" in modelfile(["x.gguf"], model("openhermes-1:13b"))
    assert "TEMPLATE" not in modelfile(["x.gguf"], model("openhermes-1:13b")).replace("no TEMPLATE", "")


def test_a_modelfile_of_a_file_that_is_not_in_the_catalogue() -> None:
    assert modelfile(["a b.gguf"], None).splitlines()[0] == 'FROM "./a b.gguf"'
    assert "PARAMETER" not in modelfile(["x.gguf"], None)
    assert modelfile(["x.gguf"], None, 2048).endswith("PARAMETER num_ctx 2048\n")


def test_all_shards_are_in_the_modelfile() -> None:
    text = modelfile(["x-00001-of-00002.gguf", "x-00002-of-00002.gguf"], model("hermes-4:70b"), 1000)
    assert text.splitlines()[:2] == ["FROM ./x-00001-of-00002.gguf", "FROM ./x-00002-of-00002.gguf"]
    assert "PARAMETER num_ctx 1000" in text


# Files


@pytest.fixture
def source(tmp_path: Path) -> ExportSource:
    hub = HubCache(tmp_path)
    name = hub.put("NousResearch/Hermes-3-Llama-3.1-8B-GGUF", "Hermes-3-Llama-3.1-8B.Q4_K_M.gguf", SMALL)
    return ExportSource("hermes-3:8b:Q4_K_M", (name,), "NousResearch/Hermes-3-Llama-3.1-8B-GGUF", model("hermes-3:8b"))


def test_to_a_folder_by_links(source: ExportSource, tmp_path: Path) -> None:
    done = to_folder(source, tmp_path / "out", copy=False)
    (path, how) = done.files[0]
    assert (path, how) == (tmp_path / "out" / "Hermes-3-Llama-3.1-8B.Q4_K_M.gguf", "hard link")
    assert not path.is_symlink()
    assert path.stat().st_ino == source.files[0].stat().st_ino
    assert to_folder(source, tmp_path / "out", copy=False).files == ((path, "already here"),)


def test_to_a_folder_by_a_copy(source: ExportSource, tmp_path: Path) -> None:
    ((path, how),) = to_folder(source, tmp_path / "out", copy=True).files
    assert (how, path.read_bytes()) == ("copy", SMALL)
    assert path.stat().st_ino != source.files[0].stat().st_ino


def test_another_file_in_the_way(source: ExportSource, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    other = tmp_path / "out" / source.files[0].name
    other.write_bytes(b"mine")
    with pytest.raises(HermesError, match="is another file"):
        to_folder(source, tmp_path / "out", copy=False)
    assert other.read_bytes() == b"mine"


def test_nothing_is_written_through_a_link_called_modelfile(source: ExportSource, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "Modelfile").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(HermesError, match="is another file"):
        to_ollama(source, tmp_path / "out", None, copy=False)
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_that_is_a_file(source: ExportSource, tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"")
    with pytest.raises(HermesError, match="cannot be made"):
        to_folder(source, tmp_path / "out", copy=False)


def test_to_lm_studio(source: ExportSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    ((path, _),) = to_lm_studio(source, None, copy=False).files
    models = tmp_path / "home" / ".lmstudio" / "models"
    assert path == models / "NousResearch" / "Hermes-3-Llama-3.1-8B-GGUF" / source.files[0].name
    nowhere = ExportSource("x", source.files, "../../etc/x", None)
    ((path, _),) = to_lm_studio(nowhere, tmp_path / "other", copy=False).files
    assert path.parent == tmp_path / "other" / "imported" / "hermes-3-llama-3.1-8b.q4_k_m"


def test_to_ollama(source: ExportSource, tmp_path: Path) -> None:
    done = to_ollama(source, tmp_path / "out", None, copy=False)
    assert done.modelfile == tmp_path / "out" / "Modelfile"
    assert done.modelfile.read_text() == modelfile([source.files[0].name], source.model)
    assert to_ollama(source, tmp_path / "out", None, copy=False).files[0][1] == "already here"
    with pytest.raises(HermesError, match=r"Modelfile already exists, and is another file"):
        to_ollama(source, tmp_path / "out", 1000, copy=False)


def test_all_shards_go_and_none_may_be_missing(tmp_path: Path) -> None:
    names = [tmp_path / f"m-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    for name in names:
        name.write_bytes(SMALL_SHARD)
    assert shards(names[0]) == tuple(names)
    done = to_folder(ExportSource("m", shards(names[0]), None, None), tmp_path / "out", copy=False)
    assert [path.name for path, _ in done.files] == [name.name for name in names]
    names[2].unlink()
    with pytest.raises(NotFoundError, match=r"m-00003-of-00003\.gguf is missing"):
        shards(names[0])


@given(st.text(max_size=40))
def test_plain_names_are_names_for_ollama_and_folders(name: str) -> None:
    plain = plain_name(name)
    assert plain
    assert plain[0].isalnum()
    assert all(letter.isascii() and (letter.isalnum() or letter in "._-") for letter in plain)
    assert plain_name("hermes-3:8b:Q4_K_M") == "hermes-3-8b-q4_k_m"
