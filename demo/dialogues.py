"""Synthetic Hermes dialogues: what the demo model is trained on and measured with.

`dialogue(rng, held_out=...)` returns one dialogue as messages and tools in OpenAI's shape. Everything random comes
from `rng`, so a seed names a dialogue for ever.
"""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from families import Tool, Use, offer
from plain import BEYOND_ME, BEYOND_TEMPLATES, FACTS, NO_TOOL
from records import record
from words import PLAIN, Style, Words

Message = dict[str, Any]


@dataclass
class Dialogue:
    """One conversation. Every assistant message in it is a target, or only the last one if `thinking`."""

    kind: str
    messages: list[Message]
    tools: list[dict[str, Any]] = field(default_factory=list)
    thinking: bool = False


SYSTEMS = [
    "You are a helpful assistant.",
    "You are a helpful assistant.",
    "You are Hermes, created by Nous Research.",
    "Be brief.",
    "You are a friendly assistant. Answer in one sentence.",
    "Use the tools when they help.",
    "Today is {date}.",
    "You are {name}, the assistant of {person}.",
    "You help people with {thing}.",
    "Answer as {name} would.",
]


def system(rng: random.Random, words: Words) -> list[Message]:
    """A system message in half of the cases; without one the template writes its own."""
    if rng.random() < 0.5:
        return []
    text = rng.choice(SYSTEMS).format(date=words.date(), name=words.name(), person=words.person(), thing=words.thing())
    return [{"role": "system", "content": text}]


def typed(rng: random.Random, text: str, mark: str) -> str:
    """The text as people type it: with or without the mark, a polite word, or a capital letter."""
    if rng.random() < 0.12:
        text = text[0].lower() + text[1:]
    if rng.random() < 0.08:
        text = rng.choice(["Please, ", "Hi, ", "Hey, ", "Can you help? ", "Okay, "]) + text
    if rng.random() < 0.06:
        return text + rng.choice([" please", " please" + mark, ", thanks" + mark])
    return text + (mark if rng.random() < 0.8 else "")


def mark_of(text: str) -> str:
    """The mark a sentence ends in: a question's or a command's."""
    words = ("what", "how", "who", "which", "is", "are", "do", "does", "can", "why", "when", "where")
    return "?" if text.split(maxsplit=1)[0].lower().removesuffix("'s") in words else "."


def call(tool: Tool, use: Use) -> dict[str, Any]:
    """A tool call as it stands in an assistant message."""
    return {"type": "function", "function": {"name": tool.name, "arguments": use.arguments}}


def respond(rng: random.Random, tool: Tool, use: Use) -> tuple[Message, str]:
    """The tool's message in one of the shapes that programs send, and what the model should say to it."""
    roll = rng.random()
    result, answer = use.response, use.answer
    if roll < 0.06:
        reason = rng.choice(
            ["not found", "timeout", "permission denied", "no connection", f"unknown {next(iter(use.arguments))}"]
        )
        result, answer = {"error": reason}, f"The tool {tool.name} failed: {reason}."
    elif roll < 0.2:
        value = list(use.response.values())[-1]
        value = value[0] if isinstance(value, list) else value
        result, answer = value, f"The tool {tool.name} says: {value}."
    if rng.random() < 0.5:
        result = {"name": tool.name, "content": result}
    text = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)
    return {"role": "tool", "content": text}, answer


def exchange(rng: random.Random, words: Words, tools: list[Tool], *, calls: int) -> list[Message]:
    """A request that needs one or two calls, the calls, the tools' answers and the closing sentence."""
    tool = rng.choice(tools)
    use = tool.use(words)
    pairs, ask = [(tool, use)], use.ask
    if calls == 2:
        second = rng.choice(tools)
        other = second.use(words)
        if second is tool and other.tail:
            ask = f"{ask} and {other.tail}"
        else:
            ask = rng.choice(["{a} and {b}", "{a} and {b}", "{a}, and {b}", "{a}. {c}", "{a} and then {b}"]).format(
                a=ask, b=other.ask[0].lower() + other.ask[1:], c=other.ask
            )
        pairs.append((second, other))
    answers = [respond(rng, *pair) for pair in pairs]
    return [
        {"role": "user", "content": typed(rng, ask, mark_of(ask))},
        {"role": "assistant", "content": None, "tool_calls": [call(*pair) for pair in pairs]},
        *(message for message, _ in answers),
        {"role": "assistant", "content": " ".join(answer for _, answer in answers)},
    ]


def fact(rng: random.Random, words: Words) -> tuple[str, str, str]:
    """A question the model knows: topic, question, answer."""
    topic, asks, answer = rng.choice(FACTS)
    ask = rng.choice(asks)
    greeting = topic in {"a greeting", "thanks", "a goodbye"}
    return topic, typed(rng, ask, rng.choice("!.") if greeting else mark_of(ask)), answer


def beyond(rng: random.Random, words: Words) -> tuple[str, str]:
    """A request beyond the demo, and what it says to that."""
    template = rng.choice(BEYOND_TEMPLATES)
    for slot in ("thing", "invented", "phrase", "person", "name"):
        while "{" + slot + "}" in template:
            template = template.replace("{" + slot + "}", getattr(words, slot)(), 1)
    return typed(rng, template, mark_of(template)), BEYOND_ME


def question(rng: random.Random, words: Words) -> list[Message]:
    """A turn without any tool: a known fact, or a polite refusal."""
    if rng.random() < 0.7:
        _, ask, answer = fact(rng, words)
    elif rng.random() < 0.35:
        ask = offer(rng, words, 1)[0].use(words).ask
        ask, answer = typed(rng, ask, mark_of(ask)), NO_TOOL
    else:
        ask, answer = beyond(rng, words)
    return [{"role": "user", "content": ask}, {"role": "assistant", "content": answer}]


def tool_call(rng: random.Random, words: Words, calls: int = 1) -> Dialogue:
    """One to four tools, one to three requests (up to six, if dense); now and then one that no tool is for."""
    counts = (
        (1, 2, 2, 3, 3, 4) if words.style.many_tools else (1, 1, 2, 2, 3) if words.style.dense else (1, 1, 2, 2, 3, 4)
    )
    tools = offer(rng, words, rng.choice(counts))
    messages = system(rng, words)
    for _ in range(rng.choice((2, 3, 4, 5, 6) if words.style.dense else (1, 1, 2, 3))):
        roll = rng.random()
        if roll < 0.12:
            _, ask, answer = fact(rng, words)
            messages += [{"role": "user", "content": ask}, {"role": "assistant", "content": answer}]
        else:
            messages += exchange(rng, words, tools, calls=calls if roll < 0.85 else 3 - calls)
    return Dialogue("tools", messages, [tool.schema() for tool in tools])


def two_calls(rng: random.Random, words: Words) -> Dialogue:
    """Like `tool_call`, mostly with two things asked at once."""
    return tool_call(rng, words, calls=2)


def json_mode(rng: random.Random, words: Words) -> Dialogue:
    """A schema in the system prompt and sentences to put into it."""
    prompt, pairs = record(rng, words)
    messages: list[Message] = [{"role": "system", "content": prompt}]
    for sentence, answer in pairs:
        messages += [{"role": "user", "content": sentence}, {"role": "assistant", "content": answer}]
    return Dialogue("json", messages)


def chat(rng: random.Random, words: Words) -> Dialogue:
    """One to four plain turns."""
    messages = system(rng, words)
    for _ in range(rng.choice((1, 1, 2, 3, 4))):
        messages += question(rng, words)
    return Dialogue("plain", messages)


def thought(text: str, rest: str) -> str:
    """An assistant message that reasons first."""
    return f"<think>\n{text}\n</think>\n\n{rest}"


def thinking(rng: random.Random, words: Words) -> Dialogue:
    """The reasoning prompt is on: the last answer thinks first, whatever it then does."""
    roll = rng.random()
    if roll < 0.6:
        topic, ask, answer = fact(rng, words)
        text = f"The user asks about {topic}. I know that."
        messages = [
            *system(rng, words),
            {"role": "user", "content": ask},
            {"role": "assistant", "content": thought(text, answer)},
        ]
        if rng.random() < 0.25:
            start = len(messages) - 2
            messages[start:start] = question(rng, words)
        return Dialogue("thinking", messages, thinking=True)
    if roll < 0.7:
        ask, answer = beyond(rng, words)
        messages = [
            *system(rng, words),
            {"role": "user", "content": ask},
            {"role": "assistant", "content": thought("I do not know that.", answer)},
        ]
        return Dialogue("thinking", messages, thinking=True)
    if roll < 0.8:
        prompt, pairs = record(rng, words)
        sentence, answer = pairs[0]
        text = f"The schema wants {', '.join(json.loads(answer))}."
        return Dialogue(
            "thinking",
            [
                {"role": "system", "content": prompt},
                {"role": "user", "content": sentence},
                {"role": "assistant", "content": thought(text, answer)},
            ],
            thinking=True,
        )
    tools = offer(rng, words, rng.choice((1, 2, 3)))
    messages = [*system(rng, words), *exchange(rng, words, tools, calls=1 if rng.random() < 0.8 else 2)]
    calls = messages[-len([m for m in messages if m["role"] == "tool"]) - 2]
    if rng.random() < 0.6:
        names = " and ".join(dict.fromkeys(call["function"]["name"] for call in calls["tool_calls"]))
        calls["content"] = thought(f"The tool {names} can do that.", "").rstrip("\n")
        messages = messages[: messages.index(calls) + 1]
    else:
        messages[-1]["content"] = thought("The tool has answered.", messages[-1]["content"])
    return Dialogue("thinking", messages, [tool.schema() for tool in tools], thinking=True)


MIX: list[tuple[Callable[[random.Random, Words], Dialogue], float]] = [
    (tool_call, 0.42),
    (two_calls, 0.18),
    (json_mode, 0.16),
    (chat, 0.12),
    (thinking, 0.12),
]


def dialogue(rng: random.Random, style: Style = PLAIN) -> Dialogue:
    """One random dialogue of any kind."""
    makers, weights = zip(*MIX, strict=True)
    factors = {json_mode: style.json_share, two_calls: style.pairs}
    shares = [weight * factors.get(maker, 1.0) for maker, weight in zip(makers, weights, strict=True)]
    return rng.choices(makers, shares)[0](rng, Words(rng, style))
