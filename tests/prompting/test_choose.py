"""Which template a model gets, and why."""

from __future__ import annotations

from pathlib import Path

import pytest

from hermes_cli.catalog.load import load_catalogue
from hermes_cli.catalog.models import CatalogModel
from hermes_cli.errors import UsageError
from hermes_cli.gguf.header import read_header
from hermes_cli.paths import asset
from hermes_cli.prompting.choose import FileTemplates, TemplateChoice, choose, identify, policy
from hermes_cli.prompting.compose import PromptInput
from hermes_cli.prompting.families import (
    ALPACA,
    CHATML,
    DEEPHERMES_3,
    HERMES_2_PRO,
    HERMES_3,
    HERMES_4,
    HERMES_4_QWEN,
    LLAMA_3,
    Family,
    family_of,
)
from hermes_cli.prompting.messages import Message
from hermes_cli.prompting.render import FileFormat, OurFormat

HERE = Path(__file__).parent
MODELS = {model.id: model for model in load_catalogue().models}

LLAMA_TURNS = (HERE / "hermes_4_as_known.jinja").read_text(encoding="utf-8")
# Hermes 4 14B's: the same in ChatML. Many files of Hermes 4.3 carry it by mistake.
CHATML_TURNS = (
    LLAMA_TURNS.replace("<|start_header_id|>", "<|im_start|>")
    .replace("<|end_header_id|>\\n\\n", "\\n")
    .replace("<|end_header_id|>\\n", "\\n")
    .replace("<|end_header_id|>", "\\n")
    .replace("<|eot_id|>", "<|im_end|>\\n")
    .replace("bos_token + ", "")
)
PLAIN_LLAMA = (
    "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>{{ m.content }}<|eot_id|>{% endfor %}"
)

LLAMA_TOKENS = {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"}
CHATML_TOKENS = {"<|im_start|>", "<|im_end|>"}


def carried(source: str | None, tokens: set[str], **named: str) -> FileTemplates:
    return FileTemplates(named | ({"default": source} if source else {}), tokens.__contains__, bos="<bos>")


def ours(choice: TemplateChoice) -> Family:
    assert isinstance(choice.format, OurFormat)
    assert choice.format.bos == "<bos>"
    return choice.format.family


def of_file(choice: TemplateChoice) -> FileFormat:
    assert isinstance(choice.format, FileFormat)
    return choice.format


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("nous-hermes-13b", ALPACA),
        ("openhermes-7b", ALPACA),
        ("openhermes-2.5-mistral-7b", CHATML),
        ("nous-hermes-2-yi-34b", CHATML),
        ("hermes-2-pro-mistral-7b", HERMES_2_PRO),
        ("hermes-2-theta-llama-3-8b", HERMES_2_PRO),
        ("hermes-3-llama-3.1-8b", HERMES_3),
        ("deephermes-3-mistral-24b-preview", DEEPHERMES_3),
        ("hermes-4-14b", HERMES_4_QWEN),
        ("hermes-4-70b", HERMES_4),
        ("hermes-4.3-36b", HERMES_4),
        ("openhermes-13b", None),
    ],
)
def test_families(model: str, family: Family | None) -> None:
    assert family_of(MODELS[model]) is family


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_the_catalogue_and_the_families_say_the_same(model: CatalogModel) -> None:
    family = family_of(model)
    assert policy(model)
    if family:
        assert family.markup == model.prompt.format
        assert bool(family.tools) == model.tools
        assert family.reasoning == (model.reasoning.switch if model.reasoning else None)
        request = PromptInput([Message("user", "Hi")])
        stop = choose(carried(None, LLAMA_TOKENS | CHATML_TOKENS), model).format.render(request).stop
        # Cards of Alpaca models say "###", which would cut an answer at its first heading.
        wanted = ("### Instruction:",) if model.prompt.format == "alpaca" else model.prompt.stop
        assert stop == wanted


def test_ours_where_it_is_proven_whatever_the_file_carries() -> None:
    for source in (None, CHATML_TURNS, "{% broken"):
        choice = choose(carried(source, CHATML_TOKENS), MODELS["hermes-3-llama-3.1-8b"])
        assert ours(choice) is HERMES_3
        assert choice.why == "hermes' own for Hermes 3: equal to the published one"
    # Unless its vocabulary says that it is something else.
    foreign = choose(carried(PLAIN_LLAMA, LLAMA_TOKENS), MODELS["hermes-3-llama-3.1-8b"])
    assert of_file(foreign).source == PLAIN_LLAMA


def test_the_file_s_own_where_the_published_one_is_known_in_part() -> None:
    for model, source, tokens in (
        ("hermes-4-70b", LLAMA_TURNS, LLAMA_TOKENS | CHATML_TOKENS),
        ("hermes-4.3-36b", LLAMA_TURNS, LLAMA_TOKENS),
        ("hermes-4-14b", CHATML_TURNS, CHATML_TOKENS),
        ("deephermes-3-llama-3-8b-preview", LLAMA_TURNS, LLAMA_TOKENS),
    ):
        choice = choose(carried(source, tokens), MODELS[model])
        assert of_file(choice).prompted_reasoning
        assert choice.why.startswith("the file's own: the published template of ")
        assert choice.why.endswith(" is known only in part")


@pytest.mark.parametrize(
    ("model", "source", "tokens", "why"),
    [
        ("hermes-4.3-36b", CHATML_TURNS, LLAMA_TOKENS, "the file's is another model's, it writes <|im_start|>"),
        (
            "hermes-4-70b",
            CHATML_TURNS,
            LLAMA_TOKENS | CHATML_TOKENS,
            "the file's is another model's, it writes <|im_start|>",
        ),
        ("hermes-4-14b", LLAMA_TURNS, CHATML_TOKENS, "the file's is another model's, it writes <|start_header_id|>"),
        ("hermes-4-70b", None, LLAMA_TOKENS, "the file carries none"),
        ("hermes-4-70b", "<|start_header_id|><|end_header_id|><|eot_id|>{% if", LLAMA_TOKENS, "the file's is broken"),
        ("hermes-4-70b", PLAIN_LLAMA, LLAMA_TOKENS, "the file's takes no tools"),
        ("deephermes-3-llama-3-8b-preview", PLAIN_LLAMA, LLAMA_TOKENS, "the file's takes no tools"),
        (
            "hermes-4-70b",
            LLAMA_TURNS.replace("thinking", "reflecting"),
            LLAMA_TOKENS,
            "the file's has no switch for reasoning",
        ),
    ],
)
def test_ours_where_the_file_s_is_wrong(model: str, source: str | None, tokens: set[str], why: str) -> None:
    choice = choose(carried(source, tokens), MODELS[model])
    family = family_of(MODELS[model])
    assert family
    assert ours(choice) is family
    assert choice.why == f"hermes' own for {family.title}: {why}"


def test_models_that_are_not_in_the_catalogue() -> None:
    own = choose(carried(PLAIN_LLAMA, LLAMA_TOKENS, tool_use=LLAMA_TURNS))
    assert of_file(own).takes_tools
    assert own.why == "the file's own and `tool_use`: no other is known for this model"
    # A file of Hermes 4.3 under another name, with 14B's template.
    mistaken = choose(carried(CHATML_TURNS, LLAMA_TOKENS))
    assert ours(mistaken) is HERMES_4
    assert mistaken.why == (
        "hermes' own for Hermes 4 (Llama 3 turns): the file's is another model's, <|im_start|> is not a token of its vocabulary"
    )
    # Tokens that no markup here has: nothing is better than what the file says.
    assert of_file(choose(carried(CHATML_TURNS, set()))).source == CHATML_TURNS
    assert of_file(choose(carried("{{ messages }}", LLAMA_TOKENS))).source == "{{ messages }}"


def test_files_without_a_template_go_by_their_vocabulary() -> None:
    assert ours(choose(carried(None, CHATML_TOKENS | LLAMA_TOKENS))) is CHATML
    assert ours(choose(carried(None, LLAMA_TOKENS))) is LLAMA_3
    assert ours(choose(carried(None, set()))) is ALPACA
    assert "goes by its vocabulary" in choose(carried(None, set())).why


def test_the_user_may_choose(tmp_path: Path) -> None:
    model, file = MODELS["hermes-3-llama-3.1-8b"], carried(PLAIN_LLAMA, CHATML_TOKENS)
    assert of_file(choose(file, model, "file")).source == PLAIN_LLAMA
    assert ours(choose(carried(LLAMA_TURNS, LLAMA_TOKENS), MODELS["hermes-4-70b"], "model")) is HERMES_4
    assert ours(choose(file, None, "model")) is CHATML
    mine = tmp_path / "mine.jinja"
    mine.write_text("{{ messages[0].content }}!", encoding="utf-8")
    chosen = choose(file, model, str(mine))
    assert chosen.format.render(PromptInput([Message("user", "Hi")])).text == "Hi!"
    assert chosen.why == f"{mine}: as --template asks for"
    for wanted, why in (
        (str(tmp_path / "none.jinja"), "cannot be read: No such file"),
        (str(tmp_path), "cannot be read"),
    ):
        with pytest.raises(UsageError, match=why):
            choose(file, model, wanted)
    mine.write_bytes(b"\xff")
    with pytest.raises(UsageError, match="not UTF-8"):
        choose(file, model, str(mine))
    mine.write_text("{% if", encoding="utf-8")
    with pytest.raises(UsageError, match="broken in line 1"):
        choose(file, model, str(mine))
    with pytest.raises(UsageError, match="carries no chat template"):
        choose(carried(None, set()), model, "file")


@pytest.mark.parametrize(
    "name",
    ["Hermes 3 Llama 3.1 8B", "NousResearch_Hermes-3-Llama-3.1-8B", "Hermes-3-Llama-3.1-8B.Q4_K_M", "hermes-3:8b"],
)
def test_files_are_known_by_name_and_shape(name: str) -> None:
    shape = {"block_count": 32, "embedding_length": 4096}
    found = identify(("something else", name), shape.get, load_catalogue())
    assert found is not None
    assert found.id == "hermes-3-llama-3.1-8b"
    assert identify((name,), {**shape, "block_count": 28}.get, load_catalogue()) is None
    assert identify((name,), lambda _: None, load_catalogue()) is None


@pytest.mark.parametrize(
    "name", ["", "Hermes 3", "llama", "Hermes-3-Llama-3.1-8B-lorablated", "/etc/passwd", "\0", "a" * 9999, "demo"]
)
def test_other_names_are_nobody_s(name: str) -> None:
    assert identify((name,), {"block_count": 32, "embedding_length": 4096}.get, load_catalogue()) is None


def test_the_demo() -> None:
    header = read_header(asset("demo.gguf"), ("tokenizer.ggml.tokens",))
    tokens = header.metadata["tokenizer.ggml.tokens"]
    assert isinstance(tokens, tuple)
    source = header.text("tokenizer.chat_template")
    assert source
    assert identify((header.text("general.name") or "",), header.number, load_catalogue()) is None
    choice = choose(FileTemplates({"default": source}, frozenset(tokens).__contains__))
    assert of_file(choice).source == source
    assert of_file(choice).takes_tools
