"""What engine.py asks: invented texts, the same in every run, as long as a model has room for."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Any

Json = dict[str, Any]

# Numbers of words without a common factor: a sentence comes back after 17,017 others.
WHO = ("The pilot", "A keeper", "The cook", "Our neighbour", "The clerk", "A diver", "The youngest child")
DOES = (
    *("paints", "carries", "measures", "forgets", "sells", "repairs", "counts", "borrows", "washes", "describes"),
    "hides",
)
WHAT = (
    *("the old lantern", "two baskets of fish", "a map of the coast", "the blue rope", "seven letters", "a clock"),
    *("the long ladder", "a bag of salt", "the white sail", "some copper nails", "a wooden oar", "the last ticket"),
    "an empty barrel",
)
WHERE = (
    *("behind the market", "at the lighthouse", "near the bridge", "on the upper deck", "under the stairs"),
    *("before breakfast", "in the rain", "after the concert", "beside the mill", "at low tide", "on the hill"),
    *("in the third street", "without a word", "for the museum", "with great care", "on Tuesdays", "by candlelight"),
)
NAMES = ("Aurora", "Borealis", "Cormorant", "Dolphin", "Ermine", "Fulmar", "Gannet", "Heron", "Ibis", "Jackdaw", "Kite")
CITIES = ("Lisbon", "Oslo", "Genoa", "Bergen", "Cork", "Malaga", "Tallinn", "Izmir", "Piraeus", "Bilbao", "Gdansk")

CHAT, SYSTEM, ARRIVING = 4096, 2048, 4096  # tokens, where a model has room for them
FIELDS = 40
ROOM = 8192  # tokens of context that all of it needs


def sentences(start: int) -> Iterator[str]:
    """One after the other, for ever."""
    for i in count(start * 101):
        yield f"{WHO[i % 7]} {DOES[i * 3 % 11]} {WHAT[i * 5 % 13]} {WHERE[i * 7 % 17]}."


def turn(role: str, text: str) -> str:
    """A message in ChatML, which models of other families read as any text."""
    return f"<|im_start|>{role}\n{text}<|im_end|>\n"


ANSWER = "<|im_start|>assistant\n"


@dataclass(frozen=True)
class Extraction:
    """Fields to find in a text, and the schema of what is to come out."""

    prompt: str
    schema: Json


class Material:
    """Prompts for one model. A number makes each round's prompts different from the other rounds'."""

    def __init__(self, tokens_of: Callable[[str], int], reach: int) -> None:
        """For a model.

        Args:
            tokens_of: counts the tokens of a text.
            reach: tokens that the model was trained for.
        """
        self._tokens_of = tokens_of
        self.reach = min(reach, ROOM)
        scale = self.reach / ROOM
        self.chat_tokens, self.system_tokens = int(CHAT * scale), int(SYSTEM * scale)
        self.arriving_tokens = int(ARRIVING * scale)

    @cached_property
    def _characters(self) -> float:
        """A token's, on average."""
        sample = " ".join(text for text, _ in zip(sentences(0), range(200), strict=False))
        return len(sample) / self._tokens_of(sample)

    def text(self, tokens: int, number: int) -> str:
        """About so many tokens of prose, to a few hundredths."""
        most, length = tokens * self._characters, 0
        parts: list[str] = []
        for sentence in sentences(number):
            length += len(sentence) + 1
            if length > most:
                return " ".join(parts)
            parts.append(sentence)
        raise AssertionError  # sentences never end

    def question(self, number: int) -> str:
        """A short prompt that is like no other from its first words on."""
        name, city = NAMES[number % len(NAMES)], CITIES[number // len(NAMES) % len(CITIES)]
        user = f"{name} {number} sails to {city}. {self.text(40, 50 + number)} What happened on board?"
        return turn("user", user) + ANSWER

    def history(self) -> str:
        """Nine turns of a chat, which have the chat's tokens together."""
        each = self.chat_tokens // 9 - 30  # what stands around the texts
        turns = (
            turn("user", f"Part {i}, please. {self.text(each // 5, i)}")
            + turn("assistant", self.text(each * 4 // 5, 20 + i))
            for i in range(9)
        )
        return turn("system", "You tell a long story in parts.") + "".join(turns)

    def shared(self, number: int, requests: int) -> list[str]:
        """Prompts with one long system prompt, and a short question each."""
        system = turn("system", f"Rules of harbour {number}. {self.text(self.system_tokens, 200 + number)}")
        return [
            system
            + turn("user", f"{NAMES[i % 11]} asks for berth {i}. {self.text(12, 90 + i)} Which rules apply?")
            + ANSWER
            for i in range(requests)
        ]

    def arriving(self, number: int) -> str:
        """A long prompt that is like no other from its first words on."""
        return turn("user", f"Report {number}. {self.text(self.arriving_tokens, 400 + number)} Sum it up.") + ANSWER

    def code(self, number: int) -> tuple[str, int]:
        """A prompt that asks for a file to be repeated, and how many tokens that file has."""
        functions = [_function(number * 3 + i) for i in range(3)]
        while self._tokens_of("".join(functions)) * 5 > self.reach * 2:
            functions.pop()
        file = "".join(functions).rstrip() + "\n"
        asked = f"Here is a file:\n\n```python\n{file}```\n\nHere is the same file again, unchanged:\n\n```python\n"
        return asked, self._tokens_of(file)

    def trip(self, number: int) -> tuple[str, Json]:
        """A wish that needs a call with nested arguments, and the tool."""
        tool = {"type": "function", "function": {"name": "book_trip", "description": "Book it.", "parameters": TRIP}}
        system = f"You call tools. Tools: {json.dumps(tool)}" if self.reach == ROOM else "You call book_trip."
        one, two = NAMES[number % 11], NAMES[(number + 4) % 11]
        ways = CITIES[number % 11], CITIES[(number + 3) % 11]
        wish = (
            f"Book a trip for {one} Smith, aged {30 + number}, seat {number + 2}C, and {two} Jones, "
            f"aged {40 + number}, seat {number + 2}D, from {ways[0]} to {ways[1]} on 2027-0{number % 9 + 1}-14 in "
            "economy class, with one bag each, vegetarian meals, flexible dates, and pay by card in EUR."
        )
        return turn("system", system) + turn("user", wish) + ANSWER, tool

    def record(self, number: int) -> Extraction:
        """A ship's papers, of which as many of the fields are asked for as there is room for."""
        fields = list(_fields(number))
        while True:
            lines = "\n".join(f"{name.replace('_', ' ').capitalize()}: {value}" for name, value, _ in fields)
            prompt = f"The papers of a ship:\n\n{lines}\n\nThe same as JSON, all fields in this order:\n\n"
            whole = prompt + json.dumps({name: value for name, value, _ in fields})
            if self._tokens_of(whole) * 5 < self.reach * 4:
                break
            fields.pop()
        properties = {name: schema for name, _, schema in fields}
        return Extraction(prompt, _object(properties))


def call_schema(tool: Json) -> Json:
    """What a call of a tool is as one JSON value, as the models are trained to write it."""
    function = tool["function"]
    return _object({"name": {"const": function["name"]}, "arguments": function["parameters"]})


def _object(properties: Json) -> Json:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


_TEXT = {"type": "string", "minLength": 1, "maxLength": 20}
_DATE = {"type": "string", "pattern": "^20[0-9]{2}-[0-9]{2}-[0-9]{2}$"}
_COUNT = {"type": "integer", "minimum": 0, "maximum": 999}
_TRUTH = {"type": "boolean"}
_SEAT = _object({"row": {"type": "integer", "minimum": 1, "maximum": 40}, "letter": {"enum": list("ABCDEF")}})
_PERSON = _object(
    {
        "name": _object({"first": _TEXT, "last": _TEXT}),
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "seat": _SEAT,
        "meal": {"enum": ["none", "vegetarian", "vegan", "any"]},
        "bags": {"type": "integer", "minimum": 0, "maximum": 3},
    }
)
TRIP = _object(
    {
        "route": _object({"from": _TEXT, "to": _TEXT, "date": _DATE}),
        "class": {"enum": ["economy", "business", "first"]},
        "passengers": {"type": "array", "items": _PERSON, "minItems": 2, "maxItems": 2},
        "options": _object({"flexible_dates": _TRUTH, "refundable": _TRUTH, "notify_by_mail": _TRUTH}),
        "payment": _object(
            {"method": {"enum": ["card", "transfer", "cash"]}, "currency": {"enum": ["EUR", "USD", "GBP"]}}
        ),
    }
)


def _fields(number: int) -> Iterator[tuple[str, Any, Json]]:
    """Name, value and schema of `FIELDS` fields: eight of each kind."""
    code = {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{4}$"}
    state = {"enum": ["new", "good", "worn", "broken"]}
    parts = ("hull", "mast", "engine", "anchor", "radio", "galley", "hold", "deck")
    for at, part in enumerate(parts):
        key = number * 13 + at * 5
        yield f"{part}_maker", f"{NAMES[key % 11]} of {CITIES[key % 7]}", _TEXT
        yield f"{part}_code", f"{'ABCDEFGH'[key % 8]}{'KLMNPQ'[key % 6]}-{1000 + key * 37 % 9000}", code
        yield f"{part}_weight", 10 + key * 29 % 900, _COUNT
        yield f"{part}_state", state["enum"][key % 4], state
        yield f"{part}_insured", key % 3 == 0, _TRUTH


def _function(i: int) -> str:
    name, other = NAMES[i % 11].lower(), CITIES[i * 3 % 11].lower()
    return (
        f"def {name}_to_{other}(crew, cargo, speed={i % 9 + 3}):\n"
        f'    """Plan the voyage of the {name}."""\n'
        f"    if len(crew) < {i % 5 + 2} or cargo > {100 + i * 17}:\n"
        f'        raise ValueError("the {name} cannot leave for {other}")\n'
        f"    days = {40 + i * 3} / speed\n"
        f'    return {{"ship": "{name}", "port": "{other}", "days": days, "crew": sorted(crew)}}\n\n\n'
    )
