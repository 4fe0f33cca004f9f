"""JSON mode: a schema, a sentence that holds the facts, and the object that the schema asks for."""

import json
import random
from typing import Any

from words import Words

Field = tuple[str, dict[str, Any], Any, str]
"""Name, JSON schema, value, and the words of the sentence that state it."""

SYSTEM = (
    "You are a helpful assistant that answers in JSON. Here's the json schema you must adhere to:\n"
    "<schema>\n{schema}\n</schema>"
)


def _person(words: Words, _: list[Field] | None = None) -> tuple[str, list[Field]]:
    name, rng = words.person(), words.rng
    age, city, job, mail = rng.randint(1, 99), words.city(), words.thing(), words.email()
    likes = [words.thing() for _ in range(rng.randint(1, 3))]
    return name, [
        ("name", {"type": "string"}, name, ""),
        ("age", {"type": "integer"}, age, rng.choice([f"is {age} years old", f"is {age}"])),
        ("city", {"type": "string"}, city, rng.choice([f"lives in {city}", f"comes from {city}"])),
        ("job", {"type": "string"}, job, f"works with {job}"),
        ("email", {"type": "string"}, mail, f"has the address {mail}"),
        ("likes", {"type": "array", "items": {"type": "string"}}, likes, f"likes {' and '.join(likes)}"),
        ("married", {"type": "boolean"}, married := rng.random() < 0.5, "is married" if married else "is not married"),
    ]


def _product(words: Words, like: list[Field] | None = None) -> tuple[str, list[Field]]:
    name, rng = words.name(), words.rng
    price, stock, colour, maker = words.decimal(), words.integer(), words.thing(), words.name()
    return name, [
        (like[0][0] if like else rng.choice(["name", "product", "title"]), {"type": "string"}, name, ""),
        ("price", {"type": "number"}, price, rng.choice([f"costs {price}", f"costs {price} dollars"])),
        ("stock", {"type": "integer"}, stock, f"has {stock} in stock"),
        ("color", {"type": "string"}, colour, f"has the color {colour}"),
        ("maker", {"type": "string"}, maker, f"is made by {maker}"),
        ("available", {"type": "boolean"}, yes := rng.random() < 0.5, "is available" if yes else "is not available"),
    ]


def _event(words: Words, like: list[Field] | None = None) -> tuple[str, list[Field]]:
    name, rng = words.name(), words.rng
    date, time, place, guests = words.date(), words.clock(), words.city(), rng.randint(2, 500)
    return name, [
        (like[0][0] if like else rng.choice(["name", "event", "title"]), {"type": "string"}, name, ""),
        ("date", {"type": "string"}, date, f"is on {date}"),
        ("time", {"type": "string"}, time, f"starts at {time}"),
        ("place", {"type": "string"}, place, f"takes place in {place}"),
        ("guests", {"type": "integer"}, guests, f"has {guests} guests"),
    ]


def _anything(words: Words, like: list[Field] | None = None) -> tuple[str, list[Field]]:
    """Invented property names: `the X is Y`."""
    rng, name = words.rng, words.name()
    fields: list[Field] = [("name", {"type": "string"}, name, "")]
    for place in range(1, 5):
        if like:
            key, number = like[place][0], like[place][1]["type"] == "integer"
        else:
            key, number = words.invented(), rng.random() < 0.4
        value: Any = words.integer() if number else words.thing()
        fields.append((key, {"type": "integer" if number else "string"}, value, f"has {key} {value}"))
    return name, fields


def _sentence(rng: random.Random, subject: str, clauses: list[str]) -> str:
    """The facts in words: "Anna is 34, lives in Oslo and likes tea."."""
    sentence = f"{subject} {clauses[0]}"
    if len(clauses) > 1:
        sentence += "".join(f", {clause}" for clause in clauses[1:-1]) + f" and {clauses[-1]}"
    return rng.choice(["", "", "", "Please extract: ", "Extract the facts: "]) + sentence + rng.choice([".", ".", ""])


def _answer(fields: list[Field], wanted: list[str]) -> str:
    values = {name: value for name, _, value, _ in fields}
    return json.dumps({name: values[name] for name in wanted}, ensure_ascii=False)


def record(rng: random.Random, words: Words) -> tuple[str, list[tuple[str, str]]]:
    """One JSON-mode dialogue.

    Returns:
        The system prompt with the schema, and pairs of a user's sentence and the JSON text expected in reply: one pair,
        or up to four if the style repeats schemas.
    """
    make = rng.choice([_person, _person, _product, _event, _anything])
    subject, fields = make(words)
    others = [field for field in fields if field[3]]
    stated = rng.sample(others, rng.randint(1, min(4, len(others))))
    wanted = rng.sample(stated, rng.randint(1, len(stated))) if rng.random() < 0.3 else list(stated)
    if rng.random() < 0.85 or not wanted:
        wanted.insert(0, fields[0])
    if rng.random() < 0.2:
        rng.shuffle(wanted)
    schema: dict[str, Any] = {"type": "object", "properties": {name: kind for name, kind, _, _ in wanted}}
    if rng.random() < 0.7:
        schema["required"] = [name for name, _, _, _ in wanted]
    if rng.random() < 0.3:
        schema = {"title": rng.choice(["Record", "Answer", words.name()]), **schema}
    names, said = [name for name, _, _, _ in wanted], [name for name, _, _, _ in stated]
    pairs = [(_sentence(rng, subject, [clause for _, _, _, clause in stated]), _answer(fields, names))]
    for _ in range(rng.choice((1, 2, 3)) if words.style.repeat_schema else 0):
        subject, more = make(words, fields)
        order = rng.sample(said, len(said)) if rng.random() < 0.5 else said
        clauses = {name: clause for name, _, _, clause in more}
        pairs.append((_sentence(rng, subject, [clauses[name] for name in order]), _answer(more, names)))
    return SYSTEM.format(schema=json.dumps(schema, ensure_ascii=False)), pairs
