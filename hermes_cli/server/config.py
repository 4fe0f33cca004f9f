"""Sources of settings: flags, the environment, a model's entry in the file, the file, defaults; the first wins.

Every value is checked by its type in settings.py, and an error names its source.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_type_hints

import msgspec

from hermes_cli import paths
from hermes_cli.errors import NotFoundError, UsageError
from hermes_cli.server.settings import Key, ModelEntry, ModelKeys, ServerKeys, ServerSettings, read_keys, seconds

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FILE = "serve.yaml"
OF_MODELS = frozenset(ModelKeys.__struct_fields__)
_SECRET = frozenset({"api_keys"})
_TYPES = {
    name: kind
    for name, kind in get_type_hints(ServerKeys, include_extras=True).items()
    if name in ServerKeys.__struct_fields__
}


@dataclass(frozen=True)
class Given:
    """A value and its source: "--port", "HERMES_LLM_PORT", "serve.yaml"."""

    value: Any
    source: str


@dataclass(frozen=True)
class Resolved:
    """The settings, and the source of each that is not a default."""

    settings: ServerSettings
    sources: dict[str, str]


def default_file() -> Path:
    """Return the path of the file if none is named."""
    return paths.config_dir() / FILE


def read_file(path: Path | None) -> dict[str, Given]:
    """Read a file; return nothing if the default one does not exist.

    Args:
        path: of the file; None for the default one.

    Raises:
        NotFoundError: there is no such file.
        UsageError: it is no YAML, or has an unknown key.
    """
    import yaml  # noqa: PLC0415 - 20 ms, and most servers have no file

    from hermes_cli.catalog.load import yaml_loader  # noqa: PLC0415 - as above

    place = path or default_file()
    try:
        document = yaml.load(place.read_text(encoding="utf-8"), Loader=yaml_loader())  # noqa: S506 - a safe loader
    except FileNotFoundError:
        if path is None:
            return {}
        raise NotFoundError(f"there is no file {path}.", hint="check --config.") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UsageError(f"{place} cannot be read: {reason}.", hint="check --config.") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{place} is no YAML: {' '.join(str(error).split())}.", hint="correct it.") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise UsageError(f"{place} is no list of settings.", hint="write lines like this one: port: 8080")
    for key in document:
        if key not in _TYPES:
            raise _unknown(str(key), place)
    return {key: Given(value, str(place)) for key, value in document.items()}


def resolve(typed: Mapping[str, Given], file: Mapping[str, Given]) -> Resolved:
    """Merge all sources.

    Args:
        typed: of flags and the environment.
        file: of the file.

    Raises:
        UsageError: a value makes no sense, or two contradict each other.
    """
    given = {**file, **typed}
    values = {name: _checked(name, value) for name, value in given.items()}
    if "keep_alive" in given:
        _duration(values["keep_alive"], given["keep_alive"].source)
    entries = _entries(values, typed, file)
    keys = _keys(values, given)
    _check_names(entries)
    values |= {"models": entries, "keys": keys}
    return Resolved(ServerSettings(**values), {name: value.source for name, value in given.items()})


def document(resolved: Resolved) -> dict[str, Any]:
    """Return the settings in the form of a file; of keys only the names."""
    settings = resolved.settings
    plain = {name: msgspec.to_builtins(getattr(settings, name)) for name in _TYPES if name not in _SECRET | {"models"}}
    shown = {name: value for name, value in plain.items() if name not in OF_MODELS}
    entries = [_plain_entry(entry) for entry in settings.models]
    return {"models": entries, **shown, "keys": [key.name for key in settings.keys]}


def as_yaml(resolved: Resolved) -> str:
    """Return the settings as a file, with the source of each."""
    import yaml  # noqa: PLC0415 - as above

    lines = []
    for name, value in document(resolved).items():
        comment = f"  # {resolved.sources[name]}" if name in resolved.sources else ""
        if name == "keys":
            lines += [f"# {len(value)} keys, not shown: {', '.join(value)}"] if value else []
            continue
        text = yaml.safe_dump({name: value}, allow_unicode=True, sort_keys=False, width=1000).rstrip("\n")
        first, *rest = text.split("\n")
        lines += [first + comment, *rest]
    for_models = sorted(OF_MODELS & resolved.sources.keys())
    lines += [f"# for all models, {name}: {resolved.sources[name]}" for name in for_models]
    return "\n".join(lines) + "\n"


def _plain_entry(entry: ModelEntry) -> dict[str, Any]:
    return {name: value for name, value in msgspec.to_builtins(entry).items() if value is not None and value != []}


def _checked(name: str, given: Given) -> Any:  # noqa: ANN401 - whatever the setting is
    value = given.value
    if name == "kv_type" and isinstance(value, str):
        value = value.lower()
    if name == "tensor_split" and isinstance(value, str):
        value = value.split(",")
    try:
        return msgspec.convert(value, _TYPES[name], strict=False)
    except msgspec.ValidationError as error:
        raise _bad_value(name, given, str(error)) from None


def _bad_value(name: str, given: Given, reason: str) -> UsageError:
    """Return an error with the source, the value and what it should be."""
    problem = reason.replace("`", "").replace(" - at $", " at ").rstrip(".")
    shown = "" if name in _SECRET or name == "models" else f" {given.value!r}"
    where = given.source if given.source.startswith("--") else f"{given.source}: {name}"
    return UsageError(
        f"{where}{shown}: {problem[:1].lower()}{problem[1:]}.", hint="see what there can be: hermes serve --help"
    )


def _unknown(key: str, place: Path) -> UsageError:
    near = difflib.get_close_matches(key, _TYPES, 1)
    hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(_TYPES)}"
    return UsageError(f"{place}: there is no setting {key}.", hint=hint)


def _duration(value: float | str, source: str) -> None:
    try:
        seconds(value)
    except UsageError as error:
        raise UsageError(f"{source} {value}: {error.message}", hint=error.hint) from None


def _entries(
    values: Mapping[str, Any], typed: Mapping[str, Given], file: Mapping[str, Given]
) -> tuple[ModelEntry, ...]:
    """Return the models with all their settings: typed, else of their entry, else of the file."""
    listed = [
        ModelEntry(model=entry) if isinstance(entry, str) else entry
        for entry in (_checked("models", file["models"]) if "models" in file else ())
    ]
    if "models" in typed:
        known = {name: entry for entry in listed for name in (entry.model, entry.name) if name}
        listed = [known.get(name) or ModelEntry(model=name) for name in typed["models"].value]
    above = {name: values[name] for name in OF_MODELS if name in typed}
    below = {name: values[name] for name in OF_MODELS if name in values}
    entries = []
    for entry in listed:
        own = {name: value for name in OF_MODELS if (value := getattr(entry, name)) is not None}
        if "keep_alive" in own:
            _duration(own["keep_alive"], f"keep_alive of {entry.model}")
        entries.append(msgspec.structs.replace(entry, **{**below, **own, **above}))
    return tuple(entries)


def _keys(values: Mapping[str, Any], sources: Mapping[str, Given]) -> tuple[Key, ...]:
    """Return the keys that were given, and those of the file of keys.

    Raises:
        UsageError: one is empty or cannot be sent in a header.
    """
    given = values.get("api_keys", ())
    pairs = given.items() if isinstance(given, dict) else ((f"key-{n}", key) for n, key in enumerate(given, 1))
    keys = [Key(name, secret) for name, secret in pairs]
    if path := values.get("api_key_file"):
        from pathlib import Path  # noqa: PLC0415 - only here

        keys += read_keys(Path(path).expanduser())
    for key in keys:
        if not key.secret or not key.secret.isascii() or not key.secret.isprintable() or " " in key.secret:
            source = sources["api_keys"].source if "api_keys" in sources else "--api-key-file"
            raise UsageError(
                f"{source}: the key {key.name} cannot be sent in a header.",
                hint="use letters, digits and punctuation, without spaces: openssl rand -hex 32",
            )
    return tuple(keys)


def _check_names(entries: tuple[ModelEntry, ...]) -> None:
    """Refuse a name that is given twice; names that models have by themselves are known later."""
    seen: set[str] = set()
    for name in (name for entry in entries for name in {entry.name or entry.model, *entry.aliases}):
        if name in seen:
            raise UsageError(f"two models are called {name}.", hint="give one of them another name or alias.")
        seen.add(name)
