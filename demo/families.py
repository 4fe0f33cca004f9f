"""The kinds of tools that dialogues offer: how each is declared, asked for, answered, and what the model says then."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from words import CURRENCIES, LANGUAGES, SKIES, Words

Arguments = dict[str, Any]


@dataclass(frozen=True)
class Use:
    """One use of a tool: the request in words, the arguments of the call, what the tool returns, what is said of it."""

    ask: str
    arguments: Arguments
    response: Any
    answer: str
    tail: str = ""
    """What asks for the same tool once more after "and" ("in Oslo"); empty where that reads badly."""


@dataclass(frozen=True)
class Tool:
    """A tool as offered in one dialogue, with a maker of uses."""

    name: str
    description: str
    parameters: dict[str, dict[str, Any]]
    use: Callable[[Words], Use]
    required: list[str] | None = field(default=None)

    def schema(self) -> dict[str, Any]:
        """The declaration in OpenAI's shape."""
        required = list(self.parameters) if self.required is None else self.required
        return {
            "type": "function",
            "function": {
                "name": self.name,
                "description": self.description,
                "parameters": {"type": "object", "properties": self.parameters, "required": required},
            },
        }


def _parameter(rng: random.Random, kind: str, description: str) -> dict[str, Any]:
    return {"type": kind, "description": description} if rng.random() < 0.5 else {"type": kind}


def weather(rng: random.Random, words: Words) -> Tool:
    """The weather of a place, sometimes in a unit that was asked for."""
    name = rng.choice(
        ["get_weather", "get_weather", "get_weather", "weather", "current_weather", "get_current_weather"]
    )
    place = rng.choice(["city", "city", "location", "place"])
    with_unit = rng.random() < 0.2
    parameters = {place: _parameter(rng, "string", f"The {place}.")}
    if with_unit:
        parameters["unit"] = {"type": "string", "enum": ["celsius", "fahrenheit"]}

    def use(words: Words) -> Use:
        city = words.city()
        degrees, sky = words.rng.randint(-20, 40), words.rng.choice(SKIES)
        ask = words.rng.choice(
            [
                "What's the weather in {c}",
                "What's the weather in {c}",
                "What is the weather in {c}",
                "How is the weather in {c}",
                "What's the weather like in {c}",
                "Tell me the weather in {c}",
                "weather in {c}",
                "Is it raining in {c}",
                "How warm is it in {c}",
                "Do I need an umbrella in {c}",
                "What's the weather for {c}",
                "Show me the weather in {c}",
                "Check the weather in {c}",
                "I am going to {c}, what's the weather",
            ]
        ).format(c=city)
        arguments: Arguments = {place: city}
        if with_unit and words.rng.random() < 0.6:
            unit = words.rng.choice(["celsius", "fahrenheit"])
            ask, arguments["unit"] = f"{ask} in {unit}", unit
        return Use(
            ask,
            arguments,
            {place: city, "temperature": degrees, "condition": sky},
            f"It is {degrees} degrees and {sky} in {city}.",
            tail="" if "unit" in arguments else words.rng.choice([city, f"in {city}"]),
        )

    return Tool(
        name,
        rng.choice(
            [
                "Get the weather for a city.",
                "Get the current weather.",
                "Current weather in a place.",
                "Look up the weather of a city.",
            ]
        ),
        parameters,
        use,
        [place],
    )


def clock(rng: random.Random, words: Words) -> Tool:
    """The local time of a place."""
    place = rng.choice(["city", "location", "place", "timezone"])

    def use(words: Words) -> Use:
        city, time = words.city(), words.clock()
        ask = words.rng.choice(
            [
                "What time is it in {c}",
                "What's the time in {c}",
                "Tell me the time in {c}",
                "time in {c}",
                "How late is it in {c}",
                "Which time is it in {c}",
            ]
        ).format(c=city)
        return Use(
            ask,
            {place: city},
            {place: city, "time": time},
            f"It is {time} in {city}.",
            tail=words.rng.choice([city, f"in {city}"]),
        )

    return Tool(
        rng.choice(["get_time", "get_time", "current_time", "local_time"]),
        rng.choice(["Get the local time.", "The current time in a city.", "Tell the time of a place."]),
        {place: _parameter(rng, "string", "Where.")},
        use,
    )


ATTRIBUTES = (
    "population, capital, area, currency, mayor, price, height, age, author, owner, color, birthday, address, rating, "
    "status, distance, value, weight, director, language, salary, elevation, size, speed, history, number, president, "
    "score, phone number, stock price, birth date, zip code, opening hours, exchange rate, release date, market cap"
).split(", ")
HOLDERS = "city country person place name company product item thing user team book symbol id topic title".split()


def attribute(rng: random.Random, words: Words) -> Tool:
    """`get_X(holder)`: one attribute, known or invented, of something. Teaches matching by words, not by memory."""
    ordinary = words.style.ordinary_tools
    noun = rng.choice(ATTRIBUTES) if ordinary or rng.random() < 0.5 else words.invented()
    if not ordinary and rng.random() < 0.15:
        noun = f"{noun} {words.thing()}"
    holder = rng.choice(HOLDERS) if ordinary or rng.random() < 0.8 else words.invented()
    name = rng.choice(["get_", "get_", "get_", "find_", "lookup_", "fetch_", ""]) + noun.replace(" ", "_")

    def use(words: Words) -> Use:
        what = words.rng.choice([words.city, words.name, words.person, words.name, words.thing])()
        value = words.rng.choice([words.integer, words.name, words.thing, words.decimal, words.person])()
        ask = words.rng.choice(
            [
                "What is the {n} of {v}",
                "What's the {n} of {v}",
                "Tell me the {n} of {v}",
                "{n} of {v}",
                "Find the {n} of {v}",
                "Get the {n} of {v}",
                "Give me the {n} of {v}",
                "What is the {n} for {v}",
                "Look up the {n} of {v}",
                "I need the {n} of {v}",
                "Do you know the {n} of {v}",
            ]
        )
        return Use(
            ask.format(n=noun, v=what),
            {holder: what},
            {holder: what, noun.replace(" ", "_"): value},
            f"The {noun} of {what} is {value}.",
            tail=words.rng.choice([what, f"of {what}"]),
        )

    return Tool(
        name,
        rng.choice(
            [
                f"Get the {noun} of a {holder}.",
                f"The {noun} of a {holder}.",
                f"Look up the {noun}.",
                f"Find the {noun} of a {holder}.",
                f"Returns the {noun} for a {holder}.",
            ]
        ),
        {holder: _parameter(rng, "string", f"The {holder}.")},
        use,
    )


def search(rng: random.Random, words: Words) -> Tool:
    """Free-text search in one of several places; the query is copied word by word."""
    places = ["web", "notes", "files", "mail", "docs", "internet"]
    where = rng.choice(places if words.style.ordinary_tools else [*places, words.invented()])
    key = rng.choice(["query", "query", "q", "text", "term"])

    def use(words: Words) -> Use:
        query, found = words.phrase(5), words.phrase(4)
        ask = words.rng.choice(
            [
                "Search the {w} for {q}",
                "Search my {w} for {q}",
                "Look in the {w} for {q}",
                "Find {q} in the {w}",
                "Search for {q} in the {w}",
                "Look up {q} in the {w}",
            ]
        ).format(w=where, q=query)
        return Use(ask, {key: query}, {"results": [found]}, f"I found {found}.")

    return Tool(
        rng.choice([f"search_{where}", f"{where}_search", f"find_in_{where}"]),
        rng.choice([f"Search the {where}.", f"Find something in the {where}."]),
        {key: _parameter(rng, "string", "What to search for.")},
        use,
    )


def arithmetic(rng: random.Random, words: Words) -> Tool:
    """A two-number operation."""
    name, verb, sign = rng.choice(
        [
            ("add", "Add", "plus"),
            ("multiply", "Multiply", "times"),
            ("subtract", "Subtract", "minus"),
            ("divide", "Divide", "divided by"),
        ]
    )
    first, second = rng.choice([("a", "b"), ("x", "y"), ("first", "second")])

    def use(words: Words) -> Use:
        left, right, result = words.integer(), words.integer(), words.integer()
        ask = words.rng.choice(
            [
                f"What is {left} {sign} {right}",
                f"{left} {sign} {right}",
                f"What's {left} {sign} {right}",
                f"How much is {left} {sign} {right}",
                f"{verb} {left} and {right}",
                f"Calculate {left} {sign} {right}",
            ]
        )
        return Use(ask, {first: left, second: right}, {"result": result}, f"The result is {result}.")

    return Tool(
        name,
        rng.choice([f"{verb} two numbers.", f"{verb} numbers."]),
        {first: {"type": "integer"}, second: {"type": "integer"}},
        use,
    )


def message(rng: random.Random, words: Words) -> Tool:
    """Sends a text to someone."""
    name, kind = rng.choice([("send_message", "message"), ("send_email", "email"), ("send_sms", "text")])
    to, body = rng.choice(["to", "recipient", "person"]), rng.choice(["text", "body", "message", "content"])

    def use(words: Words) -> Use:
        who = words.email() if kind == "email" and words.rng.random() < 0.5 else words.person()
        text = words.phrase(5)
        ask = words.rng.choice(["Send {w} a {k} saying {t}", "Send a {k} to {w} saying {t}", "Send a {k} to {w}: {t}"])
        return Use(
            ask.format(w=who, k=kind, t=text), {to: who, body: text}, {"status": "sent"}, f"I sent the {kind} to {who}."
        )

    return Tool(
        name,
        rng.choice([f"Send a {kind}.", f"Send a {kind} to someone."]),
        {to: _parameter(rng, "string", "Who gets it."), body: _parameter(rng, "string", "What it says.")},
        use,
    )


def timer(rng: random.Random, words: Words) -> Tool:
    """A timer of minutes or seconds."""
    unit = rng.choice(["minutes", "minutes", "seconds", "hours"])

    def use(words: Words) -> Use:
        count = words.rng.randint(2, 90)
        ask = words.rng.choice(
            [
                "Set a timer for {n} {u}",
                "Set a {n} {u} timer",
                "Start a timer of {n} {u}",
                "Remind me in {n} {u}",
                "timer {n} {u}",
            ]
        ).format(n=count, u=unit)
        return Use(ask, {unit: count}, {"status": "started"}, f"The timer is set for {count} {unit}.")

    return Tool(
        rng.choice(["set_timer", "start_timer", "timer"]),
        rng.choice(["Set a timer.", "Start a timer."]),
        {unit: _parameter(rng, "integer", f"How many {unit}.")},
        use,
    )


def currency(rng: random.Random, words: Words) -> Tool:
    """Converts an amount between currencies."""
    source, target = rng.choice([("from", "to"), ("source", "target"), ("from_currency", "to_currency")])

    def use(words: Words) -> Use:
        left, right = words.rng.sample(CURRENCIES, 2)
        amount, result = words.integer(), words.decimal()
        ask = words.rng.choice(
            [
                "Convert {a} {l} to {r}",
                "How much is {a} {l} in {r}",
                "What is {a} {l} in {r}",
                "{a} {l} in {r}",
                "Change {a} {l} to {r}",
            ]
        ).format(a=amount, l=left, r=right)
        return Use(
            ask,
            {"amount": amount, source: left, target: right},
            {"result": result},
            f"{amount} {left} is {result} {right}.",
        )

    return Tool(
        rng.choice(["convert_currency", "exchange", "convert"]),
        rng.choice(["Convert money.", "Convert between currencies."]),
        {"amount": {"type": "number"}, source: {"type": "string"}, target: {"type": "string"}},
        use,
    )


def translate(rng: random.Random, words: Words) -> Tool:
    """Translates a phrase."""
    language_key = rng.choice(["language", "to", "target_language"])

    def use(words: Words) -> Use:
        text, language, result = words.phrase(4), words.rng.choice(LANGUAGES), words.phrase(3)
        ask = words.rng.choice(
            ["Translate {t} to {l}", "Translate {t} into {l}", "Say {t} in {l}", "What is {t} in {l}"]
        )
        return Use(
            ask.format(t=text, l=language),
            {"text": text, language_key: language},
            {"translation": result},
            f"In {language} it is {result}.",
        )

    return Tool(
        "translate",
        rng.choice(["Translate a text.", "Translate text to a language."]),
        {"text": {"type": "string"}, language_key: {"type": "string"}},
        use,
    )


def table(rng: random.Random, words: Words) -> Tool:
    """Books a restaurant table: three arguments of two types."""
    place, guests = rng.choice(["restaurant", "name", "place"]), rng.choice(["people", "guests", "seats"])

    def use(words: Words) -> Use:
        where, count, time = words.name(), words.rng.randint(1, 12), words.clock()
        ask = words.rng.choice(
            [
                "Book a table at {w} for {n} at {t}",
                "Reserve a table for {n} at {w} at {t}",
                "Book {w} for {n} people at {t}",
            ]
        ).format(w=where, n=count, t=time)
        return Use(
            ask,
            {place: where, guests: count, "time": time},
            {"status": "booked"},
            f"I booked {where} for {count} at {time}.",
        )

    return Tool(
        rng.choice(["book_table", "reserve_table"]),
        "Book a table in a restaurant.",
        {place: {"type": "string"}, guests: {"type": "integer"}, "time": {"type": "string"}},
        use,
    )


def note(rng: random.Random, words: Words) -> Tool:
    """Stores a line of text."""
    name, noun = rng.choice(
        [("add_todo", "todo list"), ("create_note", "notes"), ("add_item", "shopping list"), ("add_note", "notes")]
    )
    key = rng.choice(["text", "item", "note", "title"])

    def use(words: Words) -> Use:
        text = words.phrase(5)
        ask = words.rng.choice(["Add {t} to my {n}", "Put {t} on my {n}", "Add {t} to the {n}", "Write {t} in my {n}"])
        return Use(ask.format(t=text, n=noun), {key: text}, {"status": "saved"}, f"I added {text} to your {noun}.")

    return Tool(
        name,
        rng.choice([f"Add to the {noun}.", f"Add something to the {noun}."]),
        {key: _parameter(rng, "string", "What to add.")},
        use,
    )


def file(rng: random.Random, words: Words) -> Tool:
    """Reads, deletes or counts a file."""
    verb, past = rng.choice(
        [
            ("read", "The file {p} says: {r}."),
            ("delete", "I deleted {p}."),
            ("open", "I opened {p}."),
            ("count_lines", "The file {p} has {r} lines."),
        ]
    )
    key = rng.choice(["path", "path", "file", "filename"])

    def use(words: Words) -> Use:
        path = words.path()
        if verb == "count_lines":
            ask, value = words.rng.choice(["How many lines has {p}", "Count the lines of {p}"]), words.integer()
            return Use(ask.format(p=path), {key: path}, {"lines": value}, past.format(p=path, r=value))
        ask = words.rng.choice(["{v} the file {p}", "{v} {p}", "Please {v} {p}"]).format(v=verb.capitalize(), p=path)
        text = words.phrase(4)
        response = {"content": text} if verb == "read" else {"status": "ok"}
        return Use(ask, {key: path}, response, past.format(p=path, r=text))

    return Tool(
        verb if verb == "count_lines" else f"{verb}_file",
        rng.choice(["Work on a file.", f"{verb.capitalize()} a file."])
        if verb != "count_lines"
        else "Count the lines of a file.",
        {key: _parameter(rng, "string", "The path.")},
        use,
    )


def switch(rng: random.Random, words: Words) -> Tool:
    """Turns a device on or off."""
    state = rng.choice(["on", "off"])
    key = rng.choice(["device", "name", "room"])

    def use(words: Words) -> Use:
        device = words.thing()
        ask = words.rng.choice(["Turn {s} the {d}", "Switch {s} the {d}", "Turn the {d} {s}", "Switch the {d} {s}"])
        return Use(ask.format(s=state, d=device), {key: device}, {"status": "ok"}, f"The {device} is {state}.")

    return Tool(
        rng.choice([f"turn_{state}", f"switch_{state}"]),
        f"Turn {state} a device.",
        {key: _parameter(rng, "string", "The device.")},
        use,
    )


def route(rng: random.Random, words: Words) -> Tool:
    """The way between two places."""
    start, end = rng.choice([("origin", "destination"), ("start", "end"), ("from", "to")])

    def use(words: Words) -> Use:
        left, right, minutes = words.city(), words.city(), words.rng.randint(5, 900)
        ask = words.rng.choice(
            [
                "How do I get from {l} to {r}",
                "Find a route from {l} to {r}",
                "How far is it from {l} to {r}",
                "route from {l} to {r}",
            ]
        ).format(l=left, r=right)
        return Use(
            ask, {start: left, end: right}, {"minutes": minutes}, f"It takes {minutes} minutes from {left} to {right}."
        )

    return Tool(
        rng.choice(["find_route", "get_directions", "route"]),
        rng.choice(["Find a route.", "The way between two places."]),
        {start: {"type": "string"}, end: {"type": "string"}},
        use,
    )


def lookup(rng: random.Random, words: Words) -> Tool:
    """A record by its number."""
    nouns = ["user", "order", "ticket", "invoice"]
    noun = rng.choice(nouns if words.style.ordinary_tools else [*nouns, words.invented()])
    key = rng.choice(["id", f"{noun}_id", "number"])

    def use(words: Words) -> Use:
        number, name = words.integer(), words.person()
        ask = words.rng.choice(
            ["Look up {n} {i}", "Show {n} {i}", "Get {n} {i}", "Find {n} number {i}", "Who is {n} {i}"]
        )
        return Use(ask.format(n=noun, i=number), {key: number}, {"name": name}, f"The {noun} {number} is {name}.")

    return Tool(
        rng.choice([f"get_{noun}", f"lookup_{noun}"]),
        f"Get a {noun} by number.",
        {key: _parameter(rng, "integer", f"The number of the {noun}.")},
        use,
    )


FAMILIES: list[tuple[Callable[[random.Random, Words], Tool], float]] = [
    (weather, 4),
    (attribute, 6),
    (clock, 2),
    (search, 2),
    (arithmetic, 1.5),
    (message, 1.5),
    (timer, 1),
    (currency, 1),
    (translate, 1),
    (table, 1),
    (note, 1),
    (file, 1),
    (switch, 1),
    (route, 1),
    (lookup, 1),
]


def oddly_named(rng: random.Random, words: Words, tool: Tool) -> Tool:
    """The same tool under a name and parameters that its kind does not usually have."""
    stem = tool.name.split("_", 1)[-1]
    name = rng.choice(
        [
            f"{rng.choice(['fetch', 'find', 'query', 'do', 'api', words.invented()])}_{stem}",
            f"{tool.name}_{words.invented()}",
        ]
    )
    renamed = {
        key: rng.choice([f"{key}_{words.invented()}", words.invented(), f"{key}_name", f"the_{key}"])
        for key in tool.parameters
    }

    def use(words: Words) -> Use:
        made = tool.use(words)
        arguments = {renamed[key]: value for key, value in made.arguments.items()}
        return replace(made, arguments=arguments)

    parameters = {renamed[key]: kind for key, kind in tool.parameters.items()}
    required = None if tool.required is None else [renamed[key] for key in tool.required]
    return Tool(name, tool.description, parameters, use, required)


def offer(rng: random.Random, words: Words, count: int) -> list[Tool]:
    """`count` tools of different families (attributes may repeat) with different names, in random order."""
    chosen: dict[str, Tool] = {}
    families, weights = zip(*FAMILIES, strict=True)
    if words.style.many_tools:
        weights = tuple(weight * (2.5 if family is attribute else 1) for family, weight in FAMILIES)
    used: set[Callable[..., Tool]] = set()
    while len(chosen) < count:
        family = rng.choices(families, weights)[0]
        if family in used and family is not attribute:
            continue
        used.add(family)
        tool = family(rng, words)
        if words.style.odd_names and rng.random() < words.style.odd_names:
            tool = oddly_named(rng, words, tool)
        chosen.setdefault(tool.name, tool)
    return list(chosen.values())
