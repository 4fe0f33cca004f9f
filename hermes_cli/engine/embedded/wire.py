"""What engine and child say to each other: frames through two pipes.

A frame is its length (4 bytes, little-endian) and a msgpack array of kind, number and payload; the number is the
request's that it is about, or 0.

    to the child     load (path, plan, options) · generate (request) · cancel · tokenize (text, special)
                     · detokenize (tokens) · stats · close
    to the engine    progress (0 to 1) · loaded (what the model says of itself) · events (of several requests, what one
                     step brought) · answer (to tokenize and detokenize) · failed (error; number 0: of loading)
                     · stats (asked for, or with number 0 about once a second while there is work)
                     · saving (it will take a little longer to end)
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast, get_type_hints

import msgspec

from hermes_cli import errors
from hermes_cli.engine.embedded.options import DraftPlan, EngineOptions, LoraFile
from hermes_cli.engine.protocol import Done, TextEvent
from hermes_cli.engine.request import GenerationRequest
from hermes_cli.errors import EngineError, HermesError, UsageError, restore
from hermes_cli.planning.load_plan import LoadPlan

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hermes_cli.engine.protocol import Event

    Answered = Event | HermesError

T = TypeVar("T")

MOST_BYTES = 256 << 20  # of a frame; the text that fills a context of a million tokens has less than 10 MB
_LENGTH = 4  # bytes of a frame's length
_TEXT, _DONE, _ERROR = range(3)
_ERRORS = {
    name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, HermesError)
}
_HINTS = {**get_type_hints(GenerationRequest), "prompt": tuple[int | str, ...]}  # msgspec takes no union of two tuples
_BUG = "this is a bug in hermes; please report it."


class Frame(NamedTuple):
    """What was said: of which kind, about which request, and what."""

    kind: str
    number: int
    payload: msgspec.Raw

    def read(self, kind: type[T]) -> T:
        """The payload as a dataclass or a builtin type.

        Raises:
            EngineError: it is nothing of the kind.
        """
        return _decoded(self.payload, kind)

    def events(self) -> list[tuple[int, Answered]]:
        """What the requests with these numbers get.

        Raises:
            EngineError: the payload is no list of events.
        """
        said = _decoded(self.payload, list[tuple[int, int, msgspec.Raw]])
        return [(number, _event(tag, body)) for number, tag, body in said]

    def error(self) -> HermesError:
        """What went wrong over there.

        Raises:
            EngineError: that, too.
        """
        return _error(self.payload)

    def request(self) -> GenerationRequest:
        """What is asked.

        Raises:
            UsageError: a value makes no sense.
            EngineError: the payload is no request.
        """
        raw = _decoded(self.payload, dict[str, Any])
        try:
            return GenerationRequest(**{name: msgspec.convert(raw[name], kind) for name, kind in _HINTS.items()})
        except (KeyError, msgspec.ValidationError) as error:
            raise nonsense(f"a request with {error}") from error

    def load(self) -> tuple[Path, LoadPlan, EngineOptions]:
        """What to load, and how.

        Raises:
            EngineError: the payload says nothing of it.
        """
        path, plan, raw = _decoded(self.payload, tuple[bytes, LoadPlan, dict[str, Any]])
        try:
            return _path(path), plan, _options(raw)
        except (KeyError, TypeError, msgspec.ValidationError) as error:
            raise nonsense(f"options with {error}") from error


class Splitter:
    """Cuts what comes out of a pipe into frames."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are whole now.

        Raises:
            EngineError: this is something else, or a frame is too long.
        """
        held = self._held
        held += data
        frames: list[Frame] = []
        at = 0
        while len(held) >= at + _LENGTH:
            size = int.from_bytes(held[at : at + _LENGTH], "little")
            if size > MOST_BYTES:
                raise nonsense(f"a frame of {size:,} bytes, where {MOST_BYTES:,} is the most")
            end = at + _LENGTH + size
            if len(held) < end:
                break
            frames.append(Frame(*_decoded(held[at + _LENGTH : end], tuple[str, int, msgspec.Raw])))
            at = end
        del held[:at]
        return frames


def pack(kind: str, number: int = 0, payload: object = None) -> bytes:
    """A frame.

    Raises:
        UsageError: it would be too long, or holds a number that is too large.
    """
    body = _encoded((kind, number, payload))
    if len(body) > MOST_BYTES:
        raise UsageError(f"a request of {len(body):,} bytes is too long.", hint=f"send up to {MOST_BYTES:,} bytes.")
    return len(body).to_bytes(_LENGTH, "little") + body


def pack_events(events: Iterable[tuple[int, Answered]]) -> bytes:
    """What one step brought, in one frame."""
    return pack("events", 0, [(number, _tag(event), event) for number, event in events])


def pack_load(path: Path, plan: LoadPlan, options: EngineOptions) -> bytes:
    """The first frame that a child gets."""
    return pack("load", 0, (path, plan, options))


def _encoded(message: object) -> bytes:
    try:
        return _ENCODER.encode(message)
    except UnicodeEncodeError:  # JSON escapes and command lines can hold half characters
        return _ENCODER.encode(_whole(msgspec.to_builtins(message, builtin_types=(bytes,), enc_hook=_basic)))
    except OverflowError as error:
        raise UsageError("a number has more than 64 bits.", hint="give a smaller one.") from error


def _basic(value: object) -> object:
    if isinstance(value, HermesError):
        return type(value).__name__, vars(value)
    if isinstance(value, os.PathLike):
        return os.fsencode(value)
    raise TypeError(f"{type(value).__name__} cannot be sent")


_ENCODER = msgspec.msgpack.Encoder(enc_hook=_basic)


def _whole(value: Any) -> Any:  # noqa: ANN401 - whatever msgpack holds
    """The same with question marks in place of half characters, as the tokenizer takes them."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {key: _whole(one) for key, one in value.items()}
    return [_whole(one) for one in value] if isinstance(value, list | tuple) else value


_decoder = lru_cache(msgspec.msgpack.Decoder)  # making one takes longer than using it


def _decoded(raw: bytes | bytearray | msgspec.Raw, kind: type[T]) -> T:
    try:
        return cast("T", _decoder(kind).decode(raw))  # type: ignore[arg-type] # types are hashable
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise nonsense(f"{bytes(memoryview(raw)[:40])!r} ({error})") from error


def nonsense(what: str) -> EngineError:
    """What to say of something that is no frame."""
    return EngineError(f"between hermes and its engine's process came {what}.", hint=_BUG)


def _tag(event: Answered) -> int:
    return _TEXT if isinstance(event, TextEvent) else _DONE if isinstance(event, Done) else _ERROR


def _event(tag: int, body: msgspec.Raw) -> Answered:
    if tag == _TEXT:
        return _decoded(body, TextEvent)
    return _decoded(body, Done) if tag == _DONE else _error(body)


def _error(raw: msgspec.Raw) -> HermesError:
    name, attributes = _decoded(raw, tuple[str, dict[str, Any]])
    if name not in _ERRORS or not {"message", "hint"} <= attributes.keys():
        raise nonsense(f"an error called {name!r}: {attributes}")
    return restore(_ERRORS[name], attributes)


def _path(raw: bytes) -> Path:
    return Path(os.fsdecode(raw))


def _options(raw: dict[str, Any]) -> EngineOptions:
    """By hand where a path is in it: msgspec does not know them."""
    adapters = tuple(LoraFile(_path(one["path"]), one["scale"]) for one in raw["adapters"])
    draft = raw["draft"] and DraftPlan(_path(raw["draft"]["path"]), msgspec.convert(raw["draft"]["plan"], LoadPlan))
    prefixes = raw["prefixes"] and _path(raw["prefixes"])
    return EngineOptions(
        **{**raw, "tags": tuple(raw["tags"]), "adapters": adapters, "draft": draft, "prefixes": prefixes}
    )
