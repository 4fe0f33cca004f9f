"""The slash command for presets: options under a name in chat.yaml, as `hermes chat --preset` takes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hermes_cli import paths
from hermes_cli.chat.conversation import ChatOptions, read_schema
from hermes_cli.chat.slash.command import slash_command
from hermes_cli.chat.slash.settings import SAMPLING, change_model
from hermes_cli.engine.request import SamplingOptions
from hermes_cli.errors import UsageError
from hermes_cli.tools.config import FILE, read_chat_file

if TYPE_CHECKING:
    from hermes_cli.chat.repl import ReplContext

# Option of `hermes chat`, without dashes in front: field of ChatOptions.
_FIELDS = {
    "system": "system",
    "think": "think",
    "think_budget": "think_budget",
    "schema": "schema",
    "max_tokens": "max_tokens",
    "stop": "stops",
    "context_shift": "shift",
}


@slash_command(
    "/preset",
    "[NAME|save NAME]",
    "options that you keep under a name",
    lambda *_: ["save ", *read_chat_file().presets],
)
def _preset(context: ReplContext, argument: str) -> None:
    presets = read_chat_file().presets
    word, _, name = argument.partition(" ")
    if word == "save" and name.strip():
        name = name.strip()
        kept = {"model": context.backend.name, **as_preset(context.conversation.options)}
        from hermes_cli.settings_file import changing, write_section  # noqa: PLC0415 - YAML, only where it is written

        with changing(paths.config_dir() / FILE):
            write_section(paths.config_dir() / FILE, "presets", {**read_chat_file().presets, name: kept})
        context.console.note(f"saved; /preset {name} or hermes chat --preset {name} takes it")
    elif argument:
        if argument not in presets:
            hint = f"there are: {', '.join(presets)}" if presets else "/preset save NAME keeps the options of now."
            raise UsageError(f"there is no preset {argument[:40]}.", hint=hint)
        apply_preset(context, argument, presets[argument])
    else:
        for name, values in presets.items():
            context.print(f"{name}: {', '.join(f'{key} {value}' for key, value in values.items())}")
        context.console.note("/preset NAME takes one, /preset save NAME keeps the model and options of now")


def apply_preset(context: ReplContext, name: str, preset: Mapping[str, Any]) -> None:
    """Go on with the options of a preset, and its model; raise UsageError if a value is out of range."""
    values = {key.replace("-", "_"): value for key, value in preset.items()}
    model = values.pop("model", None)
    options = context.conversation.options
    sampling = {key: values.pop(key) for key in SAMPLING if key in values}
    try:
        SamplingOptions(**sampling)
    except TypeError as error:
        raise UsageError(f"the preset {name}: {error}.", hint=f"correct {FILE}: hermes config edit") from None
    changes: dict[str, Any] = {field: values.pop(key) for key, field in _FIELDS.items() if key in values}
    if isinstance(changes.get("schema"), str):
        changes["schema"] = read_schema(changes["schema"])
    if stops := changes.get("stops"):
        changes["stops"] = (stops,) if isinstance(stops, str) else tuple(stops)
    if model and model != context.backend.name:
        change_model(context, str(model))
    context.conversation.set_options(replace(options, **changes, sampling={**options.sampling, **sampling}))
    left = f"; {', '.join(values)} count from the start: hermes chat --preset {name}" if values else ""
    context.console.note(f"preset {name}{left}")


def as_preset(options: ChatOptions) -> dict[str, Any]:
    """Return options as a preset: those that are not as they are by themselves."""
    default = ChatOptions()
    kept = {
        key: value for key, field in _FIELDS.items() if (value := getattr(options, field)) != getattr(default, field)
    }
    if "stop" in kept:
        kept["stop"] = list(kept["stop"])
    if "schema" in kept:
        kept["schema"] = json.dumps({"type": "object"} if kept["schema"] is True else kept["schema"])
    return kept | dict(options.sampling)
