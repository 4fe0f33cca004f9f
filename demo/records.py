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


def _person(words: Words) -> tuple[str, list[Field]]:
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


def _product(words: Words) -> tuple[str, list[Field]]:
    name, rng = words.name(), words.rng
    price, stock, colour, maker = words.decimal(), words.integer(), words.thing(), words.name()
    return name, [
        (rng.choice(["name", "product", "title"]), {"type": "string"}, name, ""),
        ("price", {"type": "number"}, price, rng.choice([f"costs {price}", f"costs {price} dollars"])),
        ("stock", {"type": "integer"}, stock, f"has {stock} in stock"),
        ("color", {"type": "string"}, colour, f"has the color {colour}"),
        ("maker", {"type": "string"}, maker, f"is made by {maker}"),
        ("available", {"type": "boolean"}, yes := rng.random() < 0.5, "is available" if yes else "is not available"),
    ]


def _event(words: Words) -> tuple[str, list[Field]]:
    name, rng = words.name(), words.rng
    date, time, place, guests = words.date(), words.clock(), words.city(), rng.randint(2, 500)
    return name, [
        (rng.choice(["name", "event", "title"]), {"type": "string"}, name, ""),
        ("date", {"type": "string"}, date, f"is on {date}"),
        ("time", {"type": "string"}, time, f"starts at {time}"),
        ("place", {"type": "string"}, place, f"takes place in {place}"),
        ("guests", {"type": "integer"}, guests, f"has {guests} guests"),
    ]


def _anything(words: Words) -> tuple[str, list[Field]]:
    """Invented property names: `the X is Y`."""
    rng, name = words.rng, words.name()
    fields: list[Field] = [("name", {"type": "string"}, name, "")]
    for _ in range(4):
        key = words.invented()
        number = rng.random() < 0.4
        value: Any = words.integer() if number else words.thing()
        fields.append((key, {"type": "integer" if number else "string"}, value, f"has {key} {value}"))
    return name, fields


def record(rng: random.Random, words: Words) -> tuple[str, str, str]:
    """One JSON-mode exchange.

    Returns:
        The system prompt with the schema, the user's sentence, and the JSON text expected in reply.
    """
    subject, fields = rng.choice([_person, _person, _product, _event, _anything])(words)
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
    clauses = [clause for _, _, _, clause in stated]
    sentence = f"{subject} {clauses[0]}"
    if len(clauses) > 1:
        sentence += "".join(f", {clause}" for clause in clauses[1:-1]) + f" and {clauses[-1]}"
    sentence = (
        rng.choice(["", "", "", "Please extract: ", "Extract the facts: "]) + sentence + rng.choice([".", ".", ""])
    )
    answer = json.dumps({name: value for name, _, value, _ in wanted}, ensure_ascii=False)
    return SYSTEM.format(schema=json.dumps(schema, ensure_ascii=False)), sentence, answer
