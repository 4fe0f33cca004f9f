"""The prompt formats of the Hermes family, as far as we write them ourselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from hermes_cli.prompting.prompt_texts import HERMES_3_IDENTITY, HERMES_4_IDENTITY

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hermes_cli.catalog.models import CatalogModel

Markup = Literal["alpaca", "chatml", "llama-3"]

# What a vocabulary must have as single tokens to read a markup.
TURN_TOKENS: dict[Markup, tuple[str, ...]] = {
    "alpaca": (),
    "chatml": ("<|im_start|>", "<|im_end|>"),
    "llama-3": ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
}
STOPS: dict[Markup, tuple[str, ...]] = {
    "alpaca": ("### Instruction:",),
    "chatml": ("<|im_end|>",),
    "llama-3": ("<|eot_id|>",),
}


def write_turns(markup: Markup, turns: Iterable[Mapping[str, str]], bos: str = "") -> str:
    """Return the prompt for turns, up to where the model is to go on.

    Args:
        markup: how turns are set apart.
        turns: each with `role` and `content`; in Llama 3's markup `gap` may replace the empty line behind the header.
        bos: the begin-of-text token, where the markup spells it.
    """
    match markup:
        case "alpaca":
            headers = {"system": "", "assistant": "### Response:\n"}
            texts = [headers.get(turn["role"], "### Instruction:\n") + turn["content"] + "\n\n" for turn in turns]
            return "".join([*texts, "### Response:\n"])
        case "chatml":
            # The template of Hermes 2 Pro and 3 has no line break behind a tool's turn, whose text ends with one.
            ends = {"tool": ""}
            texts = [
                f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>" + ends.get(turn["role"], "\n")
                for turn in turns
            ]
            return "".join([bos, *texts, "<|im_start|>assistant\n"])
        case "llama-3":
            gap = "\n\n"
            texts = [
                f"<|start_header_id|>{turn['role']}<|end_header_id|>{turn.get('gap', gap)}{turn['content']}<|eot_id|>"
                for turn in turns
            ]
            return "".join([bos, *texts, f"<|start_header_id|>assistant<|end_header_id|>{gap}"])


@dataclass(frozen=True)
class Family:
    """Models that read the same prompts.

    Attributes:
        title: what to call it.
        markup: how turns are set apart; the name of one of our templates.
        proven: our text is equal to the published template's, character by character (tests/prompting/test_parity.py).
        spells_bos: the published template writes the begin-of-text token; the others leave it to the tokenizer.
        identity: the system prompt where none is given and no tools either.
        tools: in the words of which generation tools are offered, None if the models were not trained for them.
        reasoning: how thinking is switched on: by a system prompt, or by the template's `thinking` too.
    """

    title: str
    markup: Markup
    proven: bool = False
    spells_bos: bool = False
    identity: str | None = None
    tools: Literal[3, 4] | None = None
    reasoning: Literal["system-prompt", "thinking"] | None = None


ALPACA = Family("Alpaca", "alpaca", proven=True)
CHATML = Family("ChatML", "chatml", proven=True)
LLAMA_3 = Family("Llama 3", "llama-3", spells_bos=True)
HERMES_2_PRO = Family("Hermes 2 Pro", "chatml", proven=True, spells_bos=True, tools=3)
HERMES_3 = Family("Hermes 3", "chatml", proven=True, spells_bos=True, identity=HERMES_3_IDENTITY, tools=3)
DEEPHERMES_3 = Family("DeepHermes 3", "llama-3", spells_bos=True, tools=3, reasoning="system-prompt")
HERMES_4 = Family(
    "Hermes 4 (Llama 3 turns)",
    "llama-3",
    spells_bos=True,
    identity=HERMES_4_IDENTITY,
    tools=4,
    reasoning="thinking",
)
HERMES_4_QWEN = Family("Hermes 4 (ChatML)", "chatml", identity=HERMES_4_IDENTITY, tools=4, reasoning="thinking")


def family_of(model: CatalogModel) -> Family | None:
    """The family of a model of the catalogue, None where its prompt format is unknown."""
    markup, switch = model.prompt.format, model.reasoning.switch if model.reasoning else None
    if markup == "unknown":
        return None
    if markup == "alpaca":
        return ALPACA
    if markup == "llama-3":
        return {"thinking": HERMES_4, "system-prompt": DEEPHERMES_3}.get(switch or "", LLAMA_3)
    if switch == "thinking":
        return HERMES_4_QWEN
    if not model.tools:
        return CHATML
    return HERMES_3 if model.generation == "Hermes 3" else HERMES_2_PRO
