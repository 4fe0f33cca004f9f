"""Settings of a server: their types and defaults, and where they come from.

Sources are flags, the environment, a model's entry in the file, the file, defaults; the first wins. Every value is
checked by its type, and an error names its source.
"""

from __future__ import annotations

import math
import re
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import msgspec
from msgspec import Meta, Struct

from hermes_cli import paths
from hermes_cli.errors import NotFoundError, UsageError, did_you_mean
from hermes_cli.gguf.types import KvType
from hermes_cli.planning.memory import Pooling

PORT = 8080
OLLAMA_PORT = 11_434  # where Ollama's clients look first
SLOTS = 4  # as llama-server: an agent's next turn, its title, a sub-agent and an editor
NEVER = "never"
_PARTS = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h))+")  # as Go writes durations, and Ollama's clients `keep_alive`
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}

Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Dollars = Annotated[float, Meta(ge=0)]
Name = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[^\s\x00-\x1f]+$")]


class ModelKeys(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Settings of a model; None leaves the choice to hermes."""

    context: Annotated[int, Meta(ge=64)] | None = None  # tokens that one request can use
    slots: Annotated[int, Meta(ge=1, le=64)] | None = None  # requests at once
    kv_type: KvType | None = None  # of the KV cache
    gpu_layers: Annotated[int, Meta(ge=-1)] | None = None  # layers on GPUs; -1 is all
    # The proportion in which several GPUs share the layers.
    tensor_split: tuple[Annotated[float, Meta(ge=0)], ...] | None = None
    devices: str | None = None  # GPUs that may be used, by number or name, with commas between them
    reserve: str | None = None  # memory to leave free on each GPU: 2G
    threads: Annotated[int, Meta(ge=1, le=512)] | None = None  # of the CPU
    batch: Annotated[int, Meta(ge=32, le=65_536)] | None = None  # tokens in one decode
    yarn: bool | None = None  # stretch the context as the base model documents it
    engine_url: str | None = None  # where an engine listens that somebody else runs; it has the model
    tokenizer: str | None = None  # of the model in that engine: a folder with tokenizer.json, or a GGUF file
    engine: str | None = None  # an engine that hermes starts for it: llama-server, vllm, sglang
    engine_command: str | None = None  # how to start that one; None looks for it
    engine_args: tuple[str, ...] | None = None  # passed on to it
    rpc: str | None = None  # HOST:PORT,… of other machines that compute for llama-server
    template: str | None = None  # `file`, `model`, or the path of a chat template
    draft: str | None = None  # a small model with the same vocabulary; `auto` takes one that is installed
    think: bool | None = None  # reason before answering
    strict_think: bool | None = None  # refuse requests for reasoning if the model has none, instead of a warning
    think_end: Annotated[str, Meta(max_length=500)] | None = None  # sentence that ends reasoning at its budget
    keep_alive: float | str | None = None  # how long after its last request a model stays in memory: seconds, 5m, never
    pooling: Pooling | None = None  # make embeddings, with one vector of all tokens of a text; None is as its file says
    pin: bool | None = None  # keep it in memory, whatever other models need
    force: bool | None = None  # load it even if there is too little memory


class ModelEntry(ModelKeys, frozen=True):
    """A model in the list of a file."""

    model: Annotated[str, Meta(min_length=1)]  # a name of the catalogue, `demo`, or the path of a file
    name: Name | None = None  # its id in the API; None is its own name
    aliases: tuple[Name, ...] = ()  # other names for it; `*` stands for every name that no model has
    # Only of an entry: nothing leaves this machine by a setting for all models.
    upstream: str | None = None  # the service that has the model, `openrouter` or `nous`, or an address
    spend_limit: Annotated[float, Meta(gt=0)] | None = None  # USD that may be spent there as long as the server runs
    price: tuple[Dollars, Dollars] | None = None  # for a million tokens in, and out

    @property
    def idle_seconds(self) -> float | None:
        """Return how long it stays in memory without a request; None for ever."""
        return None if self.keep_alive is None else seconds(self.keep_alive)


class ServerKeys(ModelKeys, frozen=True):
    """All settings; those of models count for every model that has no own value."""

    models: tuple[str | ModelEntry, ...] = ()  # the first is the default
    host: Annotated[str, Meta(min_length=1, max_length=255)] = "127.0.0.1"  # where to listen
    port: Annotated[int, Meta(ge=0, le=65_535)] = PORT  # 0 takes any that is free
    api_keys: tuple[str, ...] | dict[Name, str] = ()  # of clients, by name if they have names
    api_key_file: str | None = None  # one key on each line, with a name in front if it has one
    insecure: bool = False  # listen beyond this machine without a key
    allowed_hosts: tuple[Name, ...] = ()  # names under which clients may address the server, beside those it has anyway
    cors: tuple[Name, ...] = ()  # origins of web pages that may use it; `*` is all
    prefix_cache: str | None = None  # disk for KV caches of prompts that outlive the server: 4G; for each model
    max_queue: Annotated[int, Meta(ge=0, le=100_000)] = 256  # requests that may wait for each model
    max_body: Annotated[float, Meta(gt=0, le=1024)] = 32  # size of a request, in MiB
    timeout: Seconds = 3600  # seconds that a request may take, waiting and loading included
    load_timeout: Seconds = 600  # seconds that a request waits for its model to be loaded
    header_timeout: Seconds = 10  # seconds in which the head of a request has to arrive
    body_timeout: Seconds = 60  # the same for its body
    write_timeout: Seconds = 120  # seconds after which a client that reads nothing is dropped
    grace: Annotated[float, Meta(ge=0, le=86_400)] = 30  # seconds to finish requests when the server is stopped
    max_connections: Annotated[int, Meta(ge=1, le=100_000)] = 1024  # open at once
    alias: tuple[Name, ...] = ()  # other names for the first model
    # MCP servers whose tools are run here for clients that ask: commands, addresses, names in chat.yaml.
    mcp: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()  # tools among them that may be run: `server:tool`, `*` for any characters
    # The longest that a request may keep its model in memory: seconds, 5m, never.
    max_keep_alive: float | str | None = None
    ollama: bool = False  # speak Ollama's API, too
    manage_models: bool = False  # its clients may fetch models of the catalogue, name them anew, and delete them
    for_agent: bool = False  # require the context that agents need
    log_json: bool = False  # the access log as JSON
    log_prompts: bool = False  # bodies of requests in the access log


@dataclass(frozen=True)
class Key:
    """An API key, and the name of its client in the log."""

    name: str
    secret: str = field(repr=False)


class ServerSettings(ServerKeys, frozen=True):
    """A server, resolved."""

    models: tuple[ModelEntry, ...] = ()  # with the settings for all models; the first is the default
    keys: tuple[Key, ...] = ()  # of clients; empty lets everybody in
    own_key: bool = False  # the key was made for this run, and nobody knows it yet

    def entry(self, model: str) -> ModelEntry:
        """Return the entry of a model that is the only one, with the settings for all models."""
        keys = {name: getattr(self, name) for name in ModelKeys.__struct_fields__}
        return ModelEntry(model=model, aliases=self.alias, **keys)

    @property
    def most_idle_seconds(self) -> float | None:
        """Return how long a request may keep its model in memory; None for ever."""
        return None if self.max_keep_alive is None else seconds(self.max_keep_alive)

    @property
    def most_body(self) -> int:
        """Return the largest body in bytes."""
        return int(self.max_body * 2**20)


def seconds(value: float | str) -> float | None:
    """Parse a duration: seconds, "5m", "1h30m"; negative or "never" is None. Raise UsageError if it is none."""
    if isinstance(value, str):
        text = value.strip().lower()
        if text == NEVER:
            return None
        negative, text = text.startswith("-"), text.removeprefix("-")
        if _PARTS.fullmatch(text):
            number = sum(float(count) * _UNITS[unit] for count, unit in _PART.findall(text))
        else:
            try:
                number = float(text)
            except ValueError:
                number = math.nan
        value = -number if negative else number
    if isinstance(value, float) and math.isnan(value):
        raise UsageError("that is no duration.", hint="give seconds, or like this: 30s, 5m, 1h30m, never")
    return None if value < 0 or value > sys.float_info.max else float(value)


def _unreadable(name: str, error: OSError | UnicodeDecodeError, flag: str) -> UsageError:
    reason = error.strerror if isinstance(error, OSError) else "it is not text"
    return UsageError(f"{name} cannot be read: {reason}.", hint=f"check {flag}.")


def read_keys(path: Path) -> tuple[Key, ...]:
    """Read keys from a file: one on each line, with a name in front if it has one; `#` begins a comment."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(f"the file of keys {path}", error, "--api-key-file") from None
    keys = []
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if len(words) > 2:  # noqa: PLR2004 - a name and a key
            raise UsageError(f"{path}, line {number}: more than a name and a key.", hint="one key on each line.")
        if words:
            keys.append(Key(words[0] if len(words) > 1 else f"line-{number}", words[-1]))
    if not keys:
        raise UsageError(f"there is no key in {path}.", hint="write one on a line of its own.")
    return tuple(keys)


FILE = "serve.yaml"
OF_MODELS = frozenset(ModelKeys.__struct_fields__)
_SECRET = frozenset({"api_keys"})
_TYPES = {
    name: kind
    for name, kind in get_type_hints(ServerKeys, include_extras=True).items()
    if name in ServerKeys.__struct_fields__
}


@dataclass(frozen=True)
class SettingValue:
    """A value and its source: "--port", "HERMES_LLM_PORT", "serve.yaml"."""

    value: Any
    source: str


@dataclass(frozen=True)
class Resolved:
    """The settings, and the source of each that is not a default."""

    settings: ServerSettings
    sources: dict[str, str]


def read_file(path: Path | None) -> dict[str, SettingValue]:
    """Read a file of settings, or the default one: nothing if that does not exist.

    Raise NotFoundError if there is no such file, UsageError if it is not YAML or has an unknown key.
    """
    place = path or paths.config_dir() / FILE
    try:
        text = place.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        if path is None:
            return {}
        raise NotFoundError(f"there is no file {path}.", hint="check --config.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(str(place), error, "--config") from None
    from hermes_cli.settings_file import parse  # noqa: PLC0415 - YAML: 20 ms, and most servers have no file

    return from_document(parse(text, str(place)) or {}, str(place))


def from_document(document: object, place: str) -> dict[str, SettingValue]:
    """Return the settings in the document of a file; UsageError for an unknown key."""
    if not isinstance(document, dict):
        raise UsageError(f"{place} is not a list of settings.", hint="write lines like this one: port: 8080")
    for key in document:
        if key not in _TYPES:
            hint = did_you_mean(str(key), _TYPES, f"there are: {', '.join(_TYPES)}")
            raise UsageError(f"{place}: there is no setting {key}.", hint=hint)
    return {key: SettingValue(value, place) for key, value in document.items()}


def resolve(typed: Mapping[str, SettingValue], file: Mapping[str, SettingValue]) -> Resolved:
    """Merge what was typed, as flags or in the environment, and what is in the file.

    Raise UsageError if a value makes no sense, or two contradict each other.
    """
    merged = {**file, **typed}
    values = {name: _checked(name, value) for name, value in merged.items()}
    for name in ("keep_alive", "max_keep_alive"):
        if values.get(name) is not None:
            source = merged[name].source
            _duration(values[name], source if name in typed else f"{source}: {name}")
    if values.get("ollama"):
        values.setdefault("port", OLLAMA_PORT)
    elif values.get("manage_models"):
        source = merged["manage_models"].source
        raise UsageError(f"{source} is for Ollama's API, which is off.", hint="add --ollama, or leave it out.")
    values |= {"models": _entries(values, typed, file), "keys": _keys(values, merged)}
    return Resolved(ServerSettings(**values), {name: value.source for name, value in merged.items()})


def document(resolved: Resolved) -> dict[str, Any]:
    """Return the settings in the form of a file; of keys only the names."""
    settings = resolved.settings
    entries = [
        {name: value for name, value in msgspec.to_builtins(entry).items() if value is not None and value != []}
        for entry in settings.models
    ]
    names = [name for name in _TYPES if name not in {"models", *_SECRET, *OF_MODELS}]
    shown = {name: msgspec.to_builtins(getattr(settings, name)) for name in names}
    return {"models": entries, **shown, "keys": [key.name for key in settings.keys]}


def as_yaml(resolved: Resolved) -> str:
    """Return the settings as a file, with the source of each."""
    import yaml  # noqa: PLC0415 - 20 ms, only to print them

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


# msgspec's words for what a value should be, in plain ones.
_PLAIN = {
    r"[Ii]nvalid enum value .*": "there is no such choice",
    r"\bint\b": "a whole number",
    r"\bfloat\b": "a number",
    r"\bstr\b": "text",
    r"\bbool\b": "true or false",
    r"\b(array|object)\b": r"an \1",
    r"<= ": "of at most ",
    r">= ": "of at least ",
    r"< ": "below ",
    r"> ": "above ",
}


def _checked(name: str, setting: SettingValue) -> Any:  # noqa: ANN401 - whatever the setting is
    """Return a value as the type of its setting; an error names the source, the value and what it should be."""
    value = setting.value
    if name == "kv_type" and isinstance(value, str):
        value = value.lower()
    if name == "tensor_split" and isinstance(value, str):
        value = value.split(",")
    try:
        return msgspec.convert(value, _TYPES[name], strict=False)
    except msgspec.ValidationError as error:
        reason = str(error).replace("`", "").replace(" - at $", " at ").rstrip(".")
        shown = "" if name in _SECRET or name == "models" else f" {setting.value!r}"
        where = setting.source if setting.source.startswith("--") else f"{setting.source}: {name}"
        choices = [choice for kind in (_TYPES[name], *get_args(_TYPES[name])) for choice in get_args(kind)]
        known = ", ".join(choice for choice in choices if isinstance(choice, str))
        hint = f"choose one of: {known}" if known else "see what there can be: hermes serve --help"
        for msgspecs, plain in _PLAIN.items():
            reason = re.sub(msgspecs, plain, reason)
        raise UsageError(f"{where}{shown}: {reason[:1].lower()}{reason[1:]}.", hint=hint) from None


def _duration(value: float | str, source: str) -> None:
    try:
        seconds(value)
    except UsageError as error:
        raise UsageError(f"{source} {value}: {error.message}", hint=error.hint) from None


def _entries(
    values: Mapping[str, Any], typed: Mapping[str, SettingValue], file: Mapping[str, SettingValue]
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
    if entries:
        aliases = dict.fromkeys((*entries[0].aliases, *values.get("alias", ())))
        entries[0] = msgspec.structs.replace(entries[0], aliases=tuple(aliases))
    # Names that models have by themselves are known later.
    names = Counter(name for entry in entries for name in {entry.name or entry.model, *entry.aliases})
    for name, count in names.items():
        if count > 1:
            raise UsageError(f"two models are called {name}.", hint="give one of them another name or alias.")
    return tuple(entries)


def _keys(values: Mapping[str, Any], sources: Mapping[str, SettingValue]) -> tuple[Key, ...]:
    """Return the keys that were given, and those of the file of keys."""
    api_keys = values.get("api_keys", ())
    pairs = api_keys.items() if isinstance(api_keys, dict) else ((f"key-{n}", key) for n, key in enumerate(api_keys, 1))
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
