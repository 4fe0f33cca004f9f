r"""Regular expressions as JSON Schema means them (ECMA-262) in the dialect of the grammar engine (Rust's regex crate).

The two agree on most and differ where it hurts: in sets (`[a&&b]`, `[[]`), in what `.`, `\d`, `\w` and `\s` stand
for, and in letters that one of them gives a meaning. What has no equivalent (look-around, back references, word
borders) is refused rather than read differently.
"""

from __future__ import annotations

import re

# ECMA-262 15, 22.2.2.9: WhiteSpace and LineTerminator.
_SPACE = r"\t\n\v\f\r \x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}\x{feff}"
_LINE_ENDS = r"\n\r\x{2028}\x{2029}"
_DIGIT, _WORD = "0-9", "0-9A-Za-z_"
_SETS = {"d": _DIGIT, "w": _WORD, "s": _SPACE, "D": f"[^{_DIGIT}]", "W": f"[^{_WORD}]", "S": f"[^{_SPACE}]"}
_CONTROLS = {"t": "\t", "n": "\n", "v": "\v", "f": "\f", "r": "\r", "b": "\b", "0": "\0"}

_HEX = re.compile(r"x([0-9a-fA-F]{2})|u\{([0-9a-fA-F]{1,6})\}|u([0-9a-fA-F]{4})(?:\\u([dD][c-fC-F][0-9a-fA-F]{2}))?")
_PROPERTY = re.compile(r"[pP]\{\w+(?:=\w+)?\}", re.ASCII)
_COUNT = re.compile(r"\{(\d+)(,(\d*))?\}", re.ASCII)
_CONTROL = re.compile(r"c([A-Za-z])")
_GROUP = re.compile(r"\?:|\?P?<[A-Za-z_$][\w$]*>", re.ASCII)

LONGEST = 4_000  # characters of an expression
MOST_REPEATS = 10_000  # in `{n,m}`: more make a state machine too large to build for every request


class PatternError(ValueError):
    """An expression that cannot be enforced; the message says what in it."""


def to_rust(pattern: str) -> str:
    """Return an expression in Rust's dialect, anchors as they are; it contains neither `/` nor line breaks.

    Raise PatternError if it is no expression, or one with a feature that cannot be enforced.
    """
    if len(pattern) > LONGEST:
        raise PatternError(f"it has {len(pattern):,} characters; at most {LONGEST:,} are taken")
    return _Reader(pattern).read()


def _literal(letter: str) -> str:
    if letter.isascii() and (letter.isalnum() or letter in "_ \"'<>=,;:!@%"):
        return letter
    return f"\\x{{{ord(letter):x}}}"


class _Reader:
    """Goes through an expression once, from left to right."""

    def __init__(self, pattern: str) -> None:
        self._text, self._at = pattern, 0

    def read(self) -> str:
        done: list[str] = []
        depth = 0
        repeatable = False  # whether a quantifier may follow
        while self._at < len(self._text):
            letter = self._next()
            if letter in "*+?" or (letter == "{" and _COUNT.match(self._text, self._at - 1)):
                if not repeatable:
                    raise PatternError(f"`{letter}` repeats nothing")
                done.append(self._quantifier(letter))
                repeatable = False
                continue
            repeatable = letter not in "(|^$"
            depth += {"(": 1, ")": -1}.get(letter, 0)
            if depth < 0:
                break
            done.append(self._atom(letter))
        if depth:
            raise PatternError("its parentheses do not match")
        return "".join(done)

    def _next(self) -> str:
        if self._at == len(self._text):
            raise PatternError("it ends too early")
        self._at += 1
        return self._text[self._at - 1]

    def _match(self, expression: re.Pattern[str]) -> re.Match[str] | None:
        match = expression.match(self._text, self._at)
        if match:
            self._at = match.end()
        return match

    def _quantifier(self, letter: str) -> str:
        text = ""
        if letter == "{":
            self._at -= 1
            count = self._match(_COUNT)
            text = count[0] if count else ""
            if any(int(number) > MOST_REPEATS for number in re.findall(r"\d+", text)):
                raise PatternError(f"`{text}` repeats more than {MOST_REPEATS:,} times")
        if self._text.startswith("?", self._at):  # a lazy one matches the same texts
            self._at += 1
        return text or letter

    def _atom(self, letter: str) -> str:
        if letter == "(":
            if self._text.startswith("?", self._at) and not self._match(_GROUP):
                raise PatternError(f"`({self._text[self._at : self._at + 2]}` (look-around, flags) is not supported")
            return "(?:"
        if letter in ")|^$":
            return letter
        if letter == "{" and self._text.startswith(",", self._at):
            raise PatternError("`{,n}` means different things to different readers; write `{0,n}`")
        if letter == ".":
            return f"[^{_LINE_ENDS}]"
        if letter == "[":
            return self._set()
        if letter == "\\":
            text, is_set = self._escape(in_set=False)
            return f"[{text}]" if is_set else text
        return _literal(letter)

    def _escape(self, *, in_set: bool) -> tuple[str, bool]:
        """Read an escape behind its backslash: its text for a set, and whether it is several characters."""
        if property_name := self._match(_PROPERTY):
            return f"\\{property_name[0]}", True
        if number := self._match(_HEX):
            return _literal(_decoded(number)), False
        if control := self._match(_CONTROL):
            return _literal(chr(ord(control[1]) % 32)), False
        letter = self._next()
        if letter in _SETS:
            return _SETS[letter], True
        follows = self._text[self._at : self._at + 1] if letter == "0" else ""
        if follows.isdigit() or (letter == "b" and not in_set) or (letter.isalnum() and letter not in _CONTROLS):
            raise PatternError(f"`\\{letter}{follows}` is not supported")
        return _literal(_CONTROLS.get(letter, letter)), False

    def _set(self) -> str:
        """Read a set behind its `[`."""
        negated = self._text.startswith("^", self._at)
        self._at += negated
        parts: list[str] = []
        while (letter := self._next()) != "]":
            part, is_set = self._member(letter)
            if not is_set and re.match(r"-[^\]]", self._text[self._at :]):
                self._at += 1
                last, is_set = self._member(self._next())
                part += (_literal("-") if is_set else "-") + last  # [a-\d]: the hyphen is one of the letters
            parts.append(part)
        if not parts:
            if negated:
                return "(?s:.)"
            raise PatternError("`[]` matches nothing")
        return f"[{'^' if negated else ''}{''.join(parts)}]"

    def _member(self, letter: str) -> tuple[str, bool]:
        return self._escape(in_set=True) if letter == "\\" else (_literal(letter), False)


def _decoded(number: re.Match[str]) -> str:
    low = number[4]
    code = int(number[1] or number[2] or number[3], 16)
    is_high = 0xD800 <= code < 0xDC00  # noqa: PLR2004 - Unicode's high surrogates
    if low and is_high:
        code = 0x10000 + ((code - 0xD800) << 10) + int(low, 16) - 0xDC00
    elif low:
        raise PatternError(f"`\\{number[0]}` is half a character")
    if 0xD800 <= code < 0xE000 or code > 0x10FFFF:  # noqa: PLR2004 - surrogates; the last code point
        raise PatternError(f"`\\{number[0]}` is no character")
    return chr(code)
