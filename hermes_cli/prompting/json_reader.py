r"""JSON as models write it, read piece by piece and written again as strict JSON.

Every character is looked at once. What is certain stands in `pieces`; numbers, escapes and white space stay as the
model wrote them. Beyond JSON this reads what Python's `ast.literal_eval` would read the same way, and slips that leave
no doubt about what was meant:

- single quotes, `True`, `False`, `None`, `.5`, `5.`, `+5`; `\xhh` and `\Uhhhhhhhh` once there were single quotes;
- a comma before a closing bracket; control characters in strings as they are (line breaks, mostly);
- `\'`, and a backslash before a letter that is no escape anywhere (`\d`, `\.`), or before a word where digits belong
  (`\users`): the backslash itself. In a text that begins like `C:\Users` so are those that follow (`C:\Users\name`).

Not read: NaN and Infinity, which JSON cannot say; escapes that JSON lacks and Python reads as something else (`\a`,
`\1`); keys without quotes, comments, missing commas; more than `MAX_DEPTH` brackets in one another.
"""

from __future__ import annotations

import json
import re
import sys
from enum import Enum, auto
from string import hexdigits

# json recurses once per level, within Python's limit of 1000 frames: half of it is left to whoever reads or writes.
MAX_DEPTH = 500
# The most digits that Python converts to an integer (sys.int_info.default_max_str_digits).
MAX_WORD = 4300

_SPACE = re.compile(r"[ \t\n\r]+")
_WORD = re.compile(r"[A-Za-z0-9_.+-]+")
# Parts of a string that need no change: not a quote, backslash, control character or lone half of a character.
_PLAIN = {
    '"': re.compile(r'[^"\\\x00-\x1f\ud800-\udfff]+'),
    "'": re.compile(r"""[^"'\\\x00-\x1f\ud800-\udfff]+"""),
}
_DRIVE = re.compile(r"[A-Za-z]:")
_ESCAPE_SIZES = {"u": 6, "x": 4, "U": 10}
_LITERALS = {"true": "true", "false": "false", "null": "null", "True": "true", "False": "false", "None": "null"}
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_PYTHON_NUMBER = re.compile(r"([+-]?)(?:(0|[1-9][0-9]*)(?:\.([0-9]*))?|\.([0-9]+))([eE][+-]?[0-9]+)?")
_CLOSERS = {"{": "}", "[": "]"}


class _Expect(Enum):
    """Tokens that may come next, outside of strings and words."""

    VALUE = auto()
    ITEM = auto()  # or the end of the array
    KEY = auto()  # or the end of the object
    COLON = auto()
    COMMA = auto()  # or the end of either


_MAY_CLOSE = frozenset({_Expect.ITEM, _Expect.KEY, _Expect.COMMA})


class Reader:
    """Reads one object or array. Give it the text from the opening bracket on, until it is `closed` or `stuck`."""

    def __init__(self) -> None:
        self.pieces: list[str] = []  # strict JSON, certain
        self.closed = False
        self.stuck = False  # the next character cannot belong to the value
        # Where in `pieces` the first container inside the outermost one begins and ends.
        self.inner_from: int | None = None
        self.inner_to: int | None = None
        self._held: list[str] = []  # a comma, a key, a colon: nothing certain without the value that follows
        self._stack: list[str] = []
        self._expect = _Expect.VALUE
        self._quote = ""  # of the string that we are in
        self._begin = ""  # of the string, three characters
        self._is_path = False  # the string is a path of Windows whose backslashes stand for themselves
        self._python = False  # single quotes were seen
        self._in_key = False
        self._word = ""
        self._waiting = False

    def read(self, text: str, at: int) -> int:
        """Read on from `at`; return where it stopped, which is at most an unfinished escape before the end."""
        self.stuck = self._waiting = False
        while at < len(text) and not (self.closed or self.stuck or self._waiting):
            if self._quote:
                at = self._string(text, at)
            elif self._word:
                at = self._more_word(text, at)
            elif space := _SPACE.match(text, at):
                (self._held or self.pieces).append(space[0])
                at = space.end()
            else:
                at = self._token(text, at)
        return at

    def close(self) -> bool:
        """Add the closing brackets if nothing else is missing."""
        if self._quote or self._word or self._held or self._expect not in _MAY_CLOSE:
            return False
        while self._stack:
            self._close()
        return True

    def closers(self, outer: int = 0) -> str:
        """Return the text that makes `pieces` valid JSON, without the brackets of the `outer` outermost containers."""
        quote = '"' if self._quote and not self._in_key else ""
        return quote + "".join(reversed(self._stack[outer:]))

    def _token(self, text: str, at: int) -> int:
        character, expect = text[at], self._expect
        if self._stack and character == self._stack[-1] and expect in _MAY_CLOSE:
            self._close()
        elif expect is _Expect.VALUE or expect is _Expect.ITEM:
            return self._value(character, text, at)
        elif expect is _Expect.KEY and character in _PLAIN:
            self._in_key = True
            self._open_string(character)
        elif expect is _Expect.COLON and character == ":":
            self._held.append(":")
            self._expect = _Expect.VALUE
        elif expect is _Expect.COMMA and character == ",":
            self._held.append(",")
            self._expect = _Expect.KEY if self._stack[-1] == "}" else _Expect.ITEM
        else:
            self.stuck = True
            return at
        return at + 1

    def _value(self, character: str, text: str, at: int) -> int:
        if character in _PLAIN:
            self._certain()
            self._open_string(character)
        elif character in _CLOSERS and len(self._stack) < MAX_DEPTH:
            self._open(character)
        elif _WORD.match(text, at):
            return self._more_word(text, at)
        else:
            self.stuck = True
            return at
        return at + 1

    def _open(self, bracket: str) -> None:
        self._certain()
        if len(self._stack) == 1 and self.inner_from is None:
            self.inner_from = len(self.pieces)
        self.pieces.append(bracket)
        self._stack.append(_CLOSERS[bracket])
        self._expect = _Expect.KEY if bracket == "{" else _Expect.ITEM

    def _close(self) -> None:
        self._held.clear()  # a trailing comma
        self.pieces.append(self._stack.pop())
        self._expect = _Expect.COMMA
        self.closed = not self._stack
        if len(self._stack) == 1 and self.inner_to is None:
            self.inner_to = len(self.pieces)

    def _certain(self) -> None:
        """Keep what was held for the value that begins."""
        self.pieces += self._held
        self._held.clear()

    def _open_string(self, quote: str) -> None:
        self._quote, self._begin, self._is_path = quote, "", False
        self._python |= quote == "'"
        self._write('"')

    def _write(self, text: str) -> None:
        (self._held if self._in_key else self.pieces).append(text)

    def _string(self, text: str, at: int) -> int:
        plain = _PLAIN[self._quote].match(text, at)
        if plain:
            self._begin = (self._begin + plain[0][:3])[:3]
            self._write(plain[0])
            return plain.end()
        character = text[at]
        if character == "\\":
            return self._escape(text, at)
        if character == self._quote:
            self._write('"')
            self._expect = _Expect.COLON if self._in_key else _Expect.COMMA
            self._quote, self._in_key = "", False
        else:
            self._write(_escaped(character))
        return at + 1

    def _escape(self, text: str, at: int) -> int:
        letter = text[at + 1 : at + 2]
        size = _ESCAPE_SIZES.get(letter, 2)
        follows = text[at + 2 : at + size]
        is_hex = set(follows) <= set(hexdigits)
        if not letter or (at + size > len(text) and is_hex):
            self._waiting = True
            return at
        lacks_digits = not is_hex and follows[0].isalpha() and follows[0] not in hexdigits
        is_drive = _DRIVE.fullmatch(self._begin) is not None
        escape = _json_escape(text[at : at + size], python=self._python) if is_hex else None
        if lacks_digits or (self._is_path and letter not in '"\\') or (escape is None and is_drive):
            escape, size = r"\\", 1
        if escape is None:
            self.stuck = True
            return at
        # Else it is no escape of JSON, and whoever wrote one such path did not write others in between.
        self._is_path |= is_drive and escape.startswith(r"\\") and letter != "\\"
        self._begin += "\\"
        self._write(escape)
        return at + size

    def _more_word(self, text: str, at: int) -> int:
        """Read a number or a literal, which may end with the text or go on."""
        if more := _WORD.match(text, at):
            if len(self._word) + len(more[0]) > MAX_WORD:
                self.stuck = True
                return at
            self._word += more[0]
            at = more.end()
        if at < len(text):
            value = _json_word(self._word)
            self.stuck = value is None
            if value is not None:
                self._certain()
                self.pieces.append(value)
                self._word, self._expect = "", _Expect.COMMA
        return at


def strict_object(text: str) -> str | None:
    """Return an object as strict JSON, None if there is anything else or more."""
    reader = Reader()
    whole = text.startswith("{") and reader.read(text, 0) == len(text) and reader.closed
    return "".join(reader.pieces) if whole else None


def skip(separator: re.Pattern[str], text: str, at: int) -> int:
    """Return where an expression that may match nothing ends."""
    match = separator.match(text, at)
    return match.end() if match else at


def _escaped(character: str) -> str:
    return json.dumps(character)[1:-1]


def _json_escape(escape: str, *, python: bool) -> str | None:
    """Return the escape in JSON's spelling, None if its meaning is in doubt."""
    letter, digits = escape[1], escape[2:]
    if letter in '"\\/bfnrt':
        return escape
    if letter == "'":
        return letter
    if not digits:
        return f"\\\\{letter}" if letter.isprintable() and letter not in "avN01234567" else None
    if letter == "u":
        return escape
    # In JSON it is as likely that a backslash was meant.
    code = int(digits, 16)
    return _escaped(chr(code)) if python and code <= sys.maxunicode else None


def _json_word(word: str) -> str | None:
    if word in _LITERALS:
        return _LITERALS[word]
    if _NUMBER.fullmatch(word):
        return word
    if not (number := _PYTHON_NUMBER.fullmatch(word)):
        return None
    sign, whole, decimals, only_decimals, exponent = number.groups()
    minus, fraction = sign.removeprefix("+"), decimals or only_decimals
    dot = f".{fraction or 0}" if decimals is not None or only_decimals else ""
    return f"{minus}{whole or 0}{dot}{exponent or ''}"


_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\\?\Z)|\s+|[,:]|[^",:\s]+', re.DOTALL)


def respaced(text: str) -> str:
    """Return JSON, or the beginning of it, spaced as the models write it: `{"a": 1, "b": [2, 3]}`."""
    spaced = {",": ", ", ":": ": "}
    return "".join(spaced.get(token, token) for token in _TOKENS.findall(text) if not token.isspace())
