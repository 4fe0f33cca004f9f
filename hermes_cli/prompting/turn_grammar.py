r"""A whole turn of the model as one grammar (Lark, as llguidance reads it): thoughts, text, calls, the answer.

A bound turn is a thought, if the model may think, and then at once calls or an answer. A free turn is text with
thoughts and calls in it, and only what stands in the calls is constrained:

    l, m     all so far: `l` ends at the start of a line (white space aside), where `<think>` opens a thought; `m` does
             not, and there it is text. So the parser reads it (parse.py).
    l0, m0   the same, not ending in text: no two texts stand side by side, or a tag could be spelled in two halves.

Tags are single tokens where the vocabulary has them, else text. Thoughts are free, calls in them too. Outside of them
`<tool_call>` in letters is not text: what the parser would take for a call is one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from hermes_cli.prompting.call_block import CALL, END_CALL

THOUGHTS = (("<think>", "</think>"), ("<scratch_pad>", "</scratch_pad>"))
TAGS = (CALL, END_CALL, *(tag for pair in THOUGHTS for tag in pair))

# Whether a bound turn may begin with a thought; `inside`: the prompt ended in an open `<think>`; `ended`: in the line
# behind `</think>`.
Thinking = Literal["no", "may", "inside", "ended"]

# Texts that end at the start of a line, after what ended there and after what did not.
_TO_LINE_START = {"l0": r"((?s:.*)\n)?\s*", "m0": r"(?s:.*)\n\s*"}


@dataclass(frozen=True)
class SpecialTokens:
    """Special tokens of a vocabulary: the ids of those `TAGS` that are one token, and of all others.

    Tokens that end a generation are in neither.
    """

    tags: Mapping[str, int]
    others: tuple[int, ...] = ()


@dataclass(frozen=True)
class AnswerGrammar:
    """Grammar of an answer: rules that define `answer`, and grammars that they name with `@`."""

    rules: str
    named: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class ToolGrammar:
    """Grammar of the possible calls: rules for `call_body`, the text between the tags; empty if none is possible."""

    rules: str
    required: bool = False
    parallel: bool = True


def turn_grammar(
    answer: AnswerGrammar | None, calls: ToolGrammar | None, *, thinking: Thinking = "no", tokens: SpecialTokens
) -> str | None:
    """Return the grammar of a turn, None where nothing is constrained.

    Without an `answer` it is any text, without `calls` there are no tools. `thinking` is for bound turns; in free ones
    a thought may stand anywhere.
    """
    if not answer and not calls:
        return None
    writer = _Writer(tokens, calls)
    possible = calls if calls and calls.rules else None
    if answer or (possible and possible.required):
        writer.bound(answer, possible, thinking)
    else:
        writer.free(possible, inside=thinking == "inside")
    named = [("turn", "\n".join(writer.lines)), *(answer.named if answer else ())]
    grammars = [{"name": name, "lark_grammar": text} for name, text in named]
    return json.dumps({"grammars": grammars}, ensure_ascii=False)


def quoted(text: str) -> str:
    """Return a text as a literal of Lark."""
    return json.dumps(text, ensure_ascii=False)


def _ids(ids: Iterable[int]) -> str:
    return f"<[{','.join(map(str, sorted(ids)))}]>"


def _without(*starts: str) -> str:
    """Return a rule for texts that begin with none of these regular expressions."""
    return " & ".join(["/(?s:.*)/", *(f"~/{start}(?s:.*)/" for start in starts)])


def _escaped(tag: str) -> str:
    return re.escape(tag).replace("/", r"\/")


class _Writer:
    """Writes the rules of one turn."""

    def __init__(self, tokens: SpecialTokens, calls: ToolGrammar | None) -> None:
        self.lines: list[str] = []
        self._tags = tokens.tags
        no_calls = calls is not None and not calls.rules
        self._special = {*tokens.others, *tokens.tags.values()} - ({tokens.tags.get(CALL)} if no_calls else set())
        self._forbidden = [f"(?s:.*){_escaped(CALL)}"] if no_calls else []

    def bound(self, answer: AnswerGrammar | None, calls: ToolGrammar | None, thinking: Thinking) -> None:
        """Write rules for what is wanted at once, after a thought if the model may think."""
        wanted = ["calls"] if calls else []
        if answer and not (calls and calls.required):
            wanted.append("answer")
            self.lines.append(answer.rules)
        lead = {"no": "", "may": "lead? ", "inside": "closed0 gap ", "ended": '"\\n"? '}[thinking]
        self._rule("start", [f"{lead}({' | '.join(wanted)})"])
        if thinking in {"may", "inside"}:
            self._thoughts()
            self._rule("lead", [f"{self._tag(begin)} closed{at} gap" for at, (begin, _) in enumerate(THOUGHTS)])
            self._rule("gap", ['("\\n" | "\\n\\n")?'])
        if calls:
            self._rule("calls", ["call" + (' ("\\n" call)*' if calls.parallel else "")])
            self._rule("call", [f"{self._tag(CALL)} called"])
            self._called(calls)

    def free(self, calls: ToolGrammar | None, *, inside: bool) -> None:
        """Write rules for text with thoughts and calls in it."""
        self._thoughts()
        self._texts()
        begins = [begin for begin, _ in THOUGHTS]
        l0, m0, ends = ["closed0" if inside else '""'], [], ["l", "m", *(["open0"] if inside else [])]
        for at, begin in enumerate(begins):
            self._rule(f"begin{at}", self._up_to(begin, "l"))
            l0.append(f"begin{at} closed{at}")
            ends.append(f"begin{at} open{at}")
        if others := self._special - {self._tags.get(tag) for tag in (CALL, *begins)}:
            m0.append(f"(l | m) {_ids(others)}")
        m0 += [f"m {self._tag(begin)}" for begin in begins if begin in self._tags]
        if calls:
            self._called(calls)
            after_line, in_line = ([f"{head} called" for head in self._up_to(CALL, end)] for end in ("l", "m"))
            if calls.parallel:
                l0, m0 = l0 + after_line, m0 + in_line
            else:
                ends += after_line + in_line
        self._rule("start", ends)
        self._rule("l", ["l0", "l0 TEXT_L0_L", "m0 TEXT_M0_L"])
        self._rule("m", ["m0", "l0 TEXT_L0_M", "m0 TEXT_M0_M"])
        self._rule("l0", l0)
        self._rule("m0", m0 or ["m0 m0"])  # that is never

    def _rule(self, name: str, alternatives: Iterable[str]) -> None:
        self.lines.append(f"{name}: {' | '.join(alternatives)}")

    def _tag(self, tag: str) -> str:
        return _ids([self._tags[tag]]) if tag in self._tags else quoted(tag)

    def _called(self, calls: ToolGrammar) -> None:
        self._rule("called", [f"call_body {self._tag(END_CALL)}"])
        self.lines.append(calls.rules)

    def _thoughts(self) -> None:
        """Write rules for what follows `<think>`: `closed0` with its end, `open0` without."""
        for at, (_, end) in enumerate(THOUGHTS):
            inner = self._special - {self._tags.get(end)}
            self._rule(f"ANY{at}", [_without(f"(?s:.*){_escaped(end)}", *self._forbidden)])
            self._rule(f"THOUGHT{at}", [f"ANY{at} & /(?s:.+)/"])
            self._rule(f"inner{at}", [f"(THOUGHT{at} {_ids(inner)} | {_ids(inner)})*" if inner else '""'])
            self._rule(f"open{at}", [f"inner{at} THOUGHT{at}", f"inner{at}"])
            if end in self._tags:
                self._rule(f"closed{at}", [f"open{at} {self._tag(end)}"])
            else:
                self._rule(f"CLOSED{at}", [f"ANY{at} {quoted(end)}"])
                self._rule(f"closed{at}", [f"inner{at} CLOSED{at}"])

    def _texts(self) -> None:
        """Write lexemes for text: `TEXT_M0_L` is one after `m0` that ends at the start of a line."""
        spelled = [_escaped(begin) for begin, _ in THOUGHTS if begin not in self._tags]
        for before, to_line in _TO_LINE_START.items():
            name = before.upper()
            self._rule(f"CLEAN_{name}", [_without(f"(?s:.*){_escaped(CALL)}", *(to_line + tag for tag in spelled))])
            self._rule(f"TEXT_{name}_L", [f"CLEAN_{name} & /{to_line}/ & /(?s:.+)/"])
            self._rule(f"TEXT_{name}_M", [f"CLEAN_{name} & ~/{to_line}/ & /(?s:.+)/"])

    def _up_to(self, tag: str, end: Literal["l", "m"]) -> list[str]:
        """Return rules for all up to and with a tag that stands where `end` says."""
        if tag in self._tags:
            return [f"{end} {self._tag(tag)}"]
        heads = []
        for before, to_line in _TO_LINE_START.items():
            name = f"{before}_{end}_{re.sub('[^a-z]', '', tag)}".upper()
            self._rule(name, [f"(CLEAN_{before.upper()} & {'' if end == 'l' else '~'}/{to_line}/) {quoted(tag)}"])
            heads.append(f"{before} {name}")
        return heads
