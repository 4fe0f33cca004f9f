"""Commands about how the model answers: which model, reasoning, system prompt, sampling, JSON."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from hermes_cli.chat.bounds import read_schema
from hermes_cli.chat.slash.command import SlashCommand
from hermes_cli.engine.request import SamplingOptions
from hermes_cli.errors import HermesError, UsageError

if TYPE_CHECKING:
    from hermes_cli.chat.options import ChatOptions
    from hermes_cli.chat.repl_context import ReplContext

USUAL = "default"
_NUMBERS = tuple(one.name for one in fields(SamplingOptions) if one.type in {"float", "int", "int | None"})
_OWN = {"max_tokens": 1, "think_budget": 0}  # the smallest value of each
SETTINGS = (*_NUMBERS, *_OWN)


def _model(scene: ReplContext, rest: str) -> None:
    """Say which there are, or go on with another one. The old one is put away first: both may not fit."""
    if not rest:
        names = scene.model_names()
        for name in names:
            scene.show(f"{'*' if name == scene.partner.name else ' '} {name}")
        scene.console.note("/model NAME goes on with another one; the conversation stays")
        return
    old = scene.partner
    scene.loop.run(old.rest())
    try:
        new = scene.open_partner(rest)
    except HermesError:
        scene.console.note(f"{old.name} stays")
        raise
    scene.loop.run(old.close())
    scene.talk.partner = new
    scene.console.note(f"{new.name}{_room(new.context)}; it reads the conversation with your next message")
    manner = scene.conversation.manner
    if new.reasons is False and (manner.think or manner.think_budget is not None):
        scene.conversation.behave(replace(manner, think=None, think_budget=None))
        scene.console.note("it has no reasoning mode: think is off")
    if new.takes_tools is False and scene.toolbox.schemas:
        scene.console.note("it was not trained for tools: they are not offered to it")


def _room(context: int | None) -> str:
    return f", {context:,} tokens of context" if context else ""


def _think(scene: ReplContext, rest: str) -> None:
    manner = scene.conversation.manner
    word, _, value = rest.partition(" ")
    if word == "show":
        scene.view.show_reasoning()
        return
    if word not in {"", "on", "off", "budget", USUAL} or (value and word != "budget"):
        raise UsageError(f"/think {rest[:40]}: not understood.", hint="/think on, off, budget N, default or show")
    if word in {"on", "budget"} and scene.partner.reasons is False:
        raise UsageError(
            f"{scene.partner.name} has no reasoning mode.", hint="/model with Hermes 4 or DeepHermes 3 has one."
        )
    if word == "budget":
        scene.conversation.behave(replace(manner, think=True, think_budget=_whole("budget", value, 0)))
    elif word:
        think = {"on": True, "off": False}.get(word)
        scene.conversation.behave(replace(manner, think=think, think_budget=None))
    scene.console.note(f"think: {thinking(scene.conversation.manner)}")


def thinking(manner: ChatOptions) -> str:
    """How reasoning is switched, for people."""
    said = {None: "auto", True: "on", False: "off"}[manner.think]
    budget = manner.think_budget
    return said if budget is None else f"{said}, at most {budget:,} tokens"


def _system(scene: ReplContext, rest: str) -> None:
    if rest:
        scene.conversation.behave(replace(scene.conversation.manner, system=None if rest == USUAL else rest))
    said = scene.conversation.manner.system
    scene.show(said or "(no system prompt of yours)")
    if not rest:
        scene.console.note("/system TEXT changes it from the next message on, /system default leaves it out")


def _set(scene: ReplContext, rest: str) -> None:
    name, _, value = rest.partition(" ")
    name, value = name.lower().replace("-", "_"), value.strip()
    if not name:
        _list_settings(scene)
        return
    manner = scene.conversation.manner
    if name in _OWN:
        number = None if value == USUAL else _whole(name, value, _OWN[name])
        manner = replace(manner, max_tokens=number) if name == "max_tokens" else replace(manner, think_budget=number)
    elif name in _NUMBERS:
        manner = replace(manner, sampling=_sampling(manner, name, value))
    else:
        raise UsageError(f"there is no setting {name[:40]}.", hint=f"there are {', '.join(SETTINGS)}.")
    scene.conversation.behave(manner)
    scene.console.note(f"{name}: {value}")


def _sampling(manner: ChatOptions, name: str, value: str) -> dict[str, float | int]:
    """What is insisted on, with one more."""
    rest = {key: said for key, said in manner.sampling.items() if key != name}
    if value == USUAL:
        return rest
    for kind in (int, float):
        with suppress(ValueError):
            said: dict[str, Any] = {**rest, name: kind(value)}
            SamplingOptions(**said)  # raises UsageError where it is out of range
            return said
    raise UsageError(
        f"{name}: {value[:40] or 'nothing'} is no number.", hint=f"/set {name} 0.7, or /set {name} default"
    )


def _list_settings(scene: ReplContext) -> None:
    manner = scene.conversation.manner
    rows = [[name, str(value)] for name, value in sorted(manner.sampling.items())]
    rows += [[name, str(value)] for name in _OWN if (value := getattr(manner, name)) is not None]
    if rows:
        scene.console.table(["setting", "value"], rows)
    scene.console.note(f"all else is as the model recommends; /set NAME VALUE changes {', '.join(SETTINGS)}")


def _json(scene: ReplContext, rest: str) -> None:
    manner = scene.conversation.manner
    if rest == "off":
        manner = replace(manner, schema=None)
    elif rest in {"any", "on"}:
        manner = replace(manner, schema=True)
    elif rest:
        manner = replace(manner, schema=read_schema(rest))
    scene.conversation.behave(manner)
    schema = manner.schema
    told = "off, answers are text" if schema is None else "any object" if schema is True else "as the schema says"
    scene.console.note(f"JSON: {told}")


def _whole(name: str, value: str, least: int) -> int:
    try:
        number = int(value.replace(",", ""))
    except ValueError:
        number = least - 1
    if number < least:
        raise UsageError(
            f"{name}: {value[:40] or 'nothing'} is not a whole number from {least}.", hint="give a number of tokens."
        )
    return number


COMMANDS = (
    SlashCommand("/model", "[NAME]", "go on with another model, or list them", _model),
    SlashCommand(
        "/think", "[on|off|budget N|default|show]", "reason before answering, or show the last reasoning", _think
    ),
    SlashCommand("/system", "[TEXT|default]", "show or change the system prompt", _system),
    SlashCommand("/set", "[NAME VALUE|NAME default]", "sampling and limits", _set),
    SlashCommand("/json", "SCHEMA|any|off", "answers conform to a JSON schema, a file or typed", _json),
)
