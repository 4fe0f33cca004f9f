"""Settings of a server, with types and defaults; config.py reads them from flags, the environment and a file."""

from __future__ import annotations

import math
import re
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta, Struct

from hermes_cli.errors import UsageError
from hermes_cli.planning.memory import KvType  # noqa: TC001 - msgspec reads it

if TYPE_CHECKING:
    from pathlib import Path

PORT = 8080
SLOTS = 4  # as llama-server: an agent's next turn, its title, a sub-agent and an editor
NEVER = "never"
_PARTS = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h))+")  # as Go writes durations, and Ollama's clients `keep_alive`
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}

Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Name = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[^\s\x00-\x1f]+$")]


class ModelKeys(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Settings of a model; None leaves the choice to hermes.

    Attributes:
        context: tokens that one request can use.
        slots: requests at once.
        kv_type: of the KV cache.
        gpu_layers: layers on GPUs; -1 is all.
        tensor_split: the proportion in which several GPUs share them.
        threads: of the CPU.
        batch: tokens in one decode.
        yarn: stretch the context as the base model documents it.
        template: `file`, `model`, or the path of a chat template.
        draft: a small model with the same vocabulary that drafts tokens; `auto` takes one that is installed.
        think: reason before answering.
        keep_alive: how long after its last request a model stays in memory: seconds, 5m, never.
        force: load it even if there is too little memory.
    """

    context: Annotated[int, Meta(ge=64)] | None = None
    slots: Annotated[int, Meta(ge=1, le=64)] | None = None
    kv_type: KvType | None = None
    gpu_layers: Annotated[int, Meta(ge=-1)] | None = None
    tensor_split: tuple[Annotated[float, Meta(ge=0)], ...] | None = None
    threads: Annotated[int, Meta(ge=1, le=512)] | None = None
    batch: Annotated[int, Meta(ge=32, le=65_536)] | None = None
    yarn: bool | None = None
    template: str | None = None
    draft: str | None = None
    think: bool | None = None
    keep_alive: float | str | None = None
    force: bool | None = None


class ModelEntry(ModelKeys, frozen=True):
    """A model in the list of a file.

    Attributes:
        model: a name of the catalogue, `demo`, or the path of a file.
        name: its id in the API; None is its own name.
        aliases: other names for it; `*` stands for every name that no model has.
    """

    model: Annotated[str, Meta(min_length=1)]
    name: Name | None = None
    aliases: tuple[Name, ...] = ()

    @property
    def idle_seconds(self) -> float | None:
        """Return how long it stays in memory without a request; None for ever."""
        return None if self.keep_alive is None else seconds(self.keep_alive)


class ServerKeys(ModelKeys, frozen=True):
    """All settings; those of models count for every model that has no own value.

    Attributes:
        models: the first is the default.
        host, port: where to listen; port 0 takes any that is free.
        api_keys: of clients, by name if they have names.
        api_key_file: one key on each line, with a name in front if it has one.
        insecure: listen beyond this machine without a key.
        allowed_hosts: names under which clients may address the server, beside those it has anyway.
        cors: origins of web pages that may use it; `*` is all.
        max_queue: requests that may wait for each model.
        max_body: size of a request, in MiB.
        timeout: seconds that a request may take, waiting and loading included.
        load_timeout: seconds that a request waits for its model to be loaded.
        header_timeout, body_timeout: seconds in which the head and the body of a request have to arrive.
        write_timeout: seconds after which a client that reads nothing is dropped.
        grace: seconds that running requests have to finish when the server is stopped.
        max_connections: open at once.
        for_agent: require the context that agents need.
        log_json: the access log as JSON.
        log_prompts: bodies of requests in the access log.
    """

    models: tuple[str | ModelEntry, ...] = ()
    host: Annotated[str, Meta(min_length=1, max_length=255)] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535)] = PORT
    api_keys: tuple[str, ...] | dict[Name, str] = ()
    api_key_file: str | None = None
    insecure: bool = False
    allowed_hosts: tuple[Name, ...] = ()
    cors: tuple[Name, ...] = ()
    max_queue: Annotated[int, Meta(ge=0, le=100_000)] = 256
    max_body: Annotated[float, Meta(gt=0, le=1024)] = 32
    timeout: Seconds = 3600
    load_timeout: Seconds = 600
    header_timeout: Seconds = 10
    body_timeout: Seconds = 60
    write_timeout: Seconds = 120
    grace: Annotated[float, Meta(ge=0, le=86_400)] = 30
    max_connections: Annotated[int, Meta(ge=1, le=100_000)] = 1024
    for_agent: bool = False
    log_json: bool = False
    log_prompts: bool = False


@dataclass(frozen=True)
class Key:
    """An API key, and the name of its client in the log."""

    name: str
    secret: str = field(repr=False)


class ServerSettings(ServerKeys, frozen=True):
    """A server, resolved.

    Attributes:
        models: with the settings for all models; the first is the default.
        keys: of clients; empty lets everybody in.
        own_key: the key was made for this run, and nobody knows it yet.
    """

    models: tuple[ModelEntry, ...] = ()
    keys: tuple[Key, ...] = ()
    own_key: bool = False

    def entry(self, model: str) -> ModelEntry:
        """Return the entry of a model, with the settings for all models."""
        return ModelEntry(model=model, **{name: getattr(self, name) for name in ModelKeys.__struct_fields__})

    @property
    def most_body(self) -> int:
        """Return the largest body in bytes."""
        return int(self.max_body * 2**20)


def seconds(given: float | str) -> float | None:
    """Parse a duration: seconds, "5m", "1h30m"; negative or "never" is None.

    Raises:
        UsageError: it is no duration.
    """
    if isinstance(given, str):
        text = given.strip().lower()
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
        given = -number if negative else number
    if isinstance(given, float) and math.isnan(given):
        raise UsageError("that is no duration.", hint="give seconds, or like this: 30s, 5m, 1h30m, never")
    return None if given < 0 or given > sys.float_info.max else float(given)


def read_keys(path: Path) -> tuple[Key, ...]:
    """Read keys from a file: one on each line, with a name in front if it has one; `#` begins a comment.

    Raises:
        UsageError: it cannot be read, or there is no key in it.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UsageError(f"the file of keys {path} cannot be read: {reason}.", hint="check --api-key-file.") from None
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
