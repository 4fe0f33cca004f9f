"""Child processes that run a function of hermes: how they start, what passes through their pipes, how they ended.

Parent and child send each other frames: the length (4 bytes, little-endian) and a msgpack array of kind, number and
payload. The number says which request a frame belongs to; 0 is none. Bytes that are no frame, and payloads of another
type than is asked for, are an EngineError in whichever process reads them.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import msgspec

from hermes_cli import errors
from hermes_cli.errors import EngineError, HermesError, UsageError, restore
from hermes_cli.platforms import child_python, ending_signals

T = TypeVar("T")

MAX_FRAME_BYTES = 256 << 20  # the text that fills a context of a million tokens has less than 10 MB
READ_BYTES = 1 << 16
_LENGTH_BYTES = 4
NTSTATUS_ERROR = 0xC0000000  # exit codes from here on are errors of Windows, which documents them in hexadecimal
CRASH_SIGNALS = {signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE}
_SECRET = re.compile("KEY|TOKEN|SECRET|PASSW|CREDENTIAL", re.IGNORECASE)  # in names of environment variables
_MAX_SHOWN = 300  # characters of a last line
_ERRORS = {
    name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, HermesError)
}


def command(module: str) -> tuple[str, ...]:
    """Return the command that runs `main()` of a module; `sys.path` as JSON has to follow as its first argument.

    Neither the environment nor the current folder changes what it imports; without `site` it starts sooner. Ctrl-C
    reaches all processes of a terminal, and SIGTERM all of a service: the parent decides what they mean, since it may
    want to finish something first.
    """
    ignored = [int(number) for number in ending_signals()]
    program = (
        f"import json, signal, sys; [signal.signal(number, signal.SIG_IGN) for number in {ignored}];"
        f" sys.path[:] = json.loads(sys.argv[1]); from {module} import main; main()"
    )
    return (child_python(), "-I", "-S", "-c", program)


def environment(**more: str) -> dict[str, str]:
    """Return the environment for a child, with some more variables: without keys and passwords, which it needs not."""
    return {name: value for name, value in os.environ.items() if not _SECRET.search(name)} | more


class Frame(NamedTuple):
    """A message: its kind, the request that it belongs to, and its payload, not decoded yet."""

    kind: str
    number: int
    payload: msgspec.Raw

    def read(self, kind: type[T]) -> T:
        """Return the payload as a dataclass or a builtin type."""
        return decode(self.payload, kind)

    def error(self) -> HermesError:
        """Return the error in the payload of a frame of kind "failed"."""
        return read_error(self.payload)


class FrameSplitter:
    """Cuts the bytes that come out of a pipe into frames."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that are complete now."""
        pending = self._pending
        pending += data
        frames: list[Frame] = []
        start = 0
        while len(pending) >= start + _LENGTH_BYTES:
            size = int.from_bytes(pending[start : start + _LENGTH_BYTES], "little")
            if size > MAX_FRAME_BYTES:
                raise protocol_error(f"a frame of {size:,} bytes, where {MAX_FRAME_BYTES:,} is the most")
            end = start + _LENGTH_BYTES + size
            if len(pending) < end:
                break
            frames.append(Frame(*decode(pending[start + _LENGTH_BYTES : end], tuple[str, int, msgspec.Raw])))
            start = end
        del pending[:start]
        return frames


def pack(kind: str, number: int = 0, payload: object = None) -> bytes:
    """Return a frame; UsageError if it would be too long, or has a number of more than 64 bits."""
    body = _encode((kind, number, payload))
    if len(body) > MAX_FRAME_BYTES:
        raise UsageError(
            f"a request of {len(body):,} bytes is too long.", hint=f"send up to {MAX_FRAME_BYTES:,} bytes."
        )
    return len(body).to_bytes(_LENGTH_BYTES, "little") + body


def read_frames(pipe: int) -> Iterator[Frame]:
    """Yield the frames that come out of a file descriptor until its other end is closed."""
    splitter = FrameSplitter()
    while data := os.read(pipe, READ_BYTES):
        yield from splitter.feed(data)


def write_frame(pipe: int, frame: bytes) -> None:
    """Write a whole frame to a file descriptor."""
    rest = memoryview(frame)
    while rest:
        rest = rest[os.write(pipe, rest) :]


@lru_cache  # making one takes longer than using it
def _decoder(kind: Any) -> msgspec.msgpack.Decoder[Any]:  # noqa: ANN401 - of any type
    return msgspec.msgpack.Decoder(kind, dec_hook=_from_basic)


def decode(raw: bytes | bytearray | msgspec.Raw, kind: type[T]) -> T:
    """Return msgpack data as a value of a type."""
    try:
        return cast("T", _decoder(kind).decode(raw))  # type: ignore[arg-type] # types are hashable
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise protocol_error(f"{bytes(memoryview(raw)[:40])!r} ({error})") from error


def read_error(raw: msgspec.Raw) -> HermesError:
    """Return an error that was packed in the other process."""
    name, attributes = decode(raw, tuple[str, dict[str, Any]])
    if name not in _ERRORS or not {"message", "hint"} <= attributes.keys():
        raise protocol_error(f"an error called {name!r}: {attributes}")
    return restore(_ERRORS[name], attributes)


def protocol_error(what: str) -> EngineError:
    """Return the error about bytes that are no frame, or a frame that makes no sense where it came."""
    return EngineError(
        f"between hermes and its child process came {what}.", hint="this is a bug in hermes; please report it."
    )


def _encode(message: object) -> bytes:
    try:
        return _ENCODER.encode(message)
    except UnicodeEncodeError:  # JSON escapes and command lines can hold half characters
        builtins = msgspec.to_builtins(message, builtin_types=(bytes,), enc_hook=_to_basic)
        return _ENCODER.encode(_without_surrogates(builtins))
    except OverflowError as error:
        raise UsageError("a number has more than 64 bits.", hint="give a smaller one.") from error


def _to_basic(value: object) -> object:
    if isinstance(value, HermesError):
        return type(value).__name__, vars(value)
    if isinstance(value, os.PathLike):
        return os.fsencode(value)
    raise TypeError(f"{type(value).__name__} cannot be sent")


def _from_basic(kind: type, value: Any) -> object:  # noqa: ANN401 - whatever msgpack holds
    if kind is Path and isinstance(value, bytes):
        return Path(os.fsdecode(value))
    raise TypeError(f"{kind.__name__} cannot be made of {value!r}")


_ENCODER = msgspec.msgpack.Encoder(enc_hook=_to_basic)


def _without_surrogates(value: Any) -> Any:  # noqa: ANN401 - whatever msgpack holds
    """Replace half characters by question marks, as the tokenizer takes them."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {key: _without_surrogates(item) for key, item in value.items()}
    return [_without_surrogates(item) for item in value] if isinstance(value, list | tuple) else value


@dataclass(frozen=True)
class ExitReport:
    """End of a process: its exit code, negative for a signal, and its output on standard error."""

    code: int
    log: str

    @property
    def how(self) -> str:
        """The predicate of a sentence about the process: "was ended (Killed)", "ended with code 1"."""
        if self.code < 0:
            return f"was ended ({signal.strsignal(-self.code) or f'signal {-self.code}'})"
        code = self.code if self.code < NTSTATUS_ERROR else f"0x{self.code:08X}"
        return f"ended with code {code}"

    @property
    def crashed(self) -> bool:
        """True if it ended by a fault of its own, as an overflow of its stack: nobody outside sends these signals."""
        return self.code >= NTSTATUS_ERROR or -self.code in CRASH_SIGNALS

    @property
    def last_line(self) -> str:
        """The last line on standard error that is not empty."""
        lines = (line.strip() for line in reversed(self.log.splitlines()))
        return next(filter(None, lines), "it gave no reason")[:_MAX_SHOWN]
