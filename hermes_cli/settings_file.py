"""Files of settings in YAML that people edit: chat.yaml and serve.yaml are read, and one key of them changed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from hermes_cli import paths
from hermes_cli.catalog.load import yaml_loader
from hermes_cli.errors import HermesError, UsageError

MOST_VALUES = 100_000  # that a file stands for: with aliases, a few lines may mean billions, or have no end
LOCK_SECONDS = 10.0  # that another command gets to write its change


def parse(text: str, place: str) -> Any:  # noqa: ANN401 - what YAML holds
    """Return the document of a text; UsageError, which begins with the place, if it is not YAML or has no end."""
    try:
        document = yaml.load(text, Loader=yaml_loader())  # noqa: S506 - a safe loader
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a number of 5,000 digits
        reason = " ".join(str(error).split())
        raise UsageError(f"{place} is not YAML: {reason}.", hint="correct it.") from None
    left, count = [document], 0
    while left:
        value, count = left.pop(), count + 1
        if count > MOST_VALUES:
            raise UsageError(
                f"{place} has more than {MOST_VALUES:,} values, aliases included.", hint="correct what * refers to."
            )
        if isinstance(value, dict):
            left += value.values()
        elif isinstance(value, list):
            left += value
    return document


@contextmanager
def changing(path: Path) -> Iterator[None]:
    """Keep other commands of hermes from changing a file while the context reads and writes it.

    Raises:
        HermesError: another one does not come to an end.
        OSError: there can be no lock beside the file.
    """
    from filelock import FileLock, Timeout  # noqa: PLC0415 - 30 ms, only for changes

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=LOCK_SECONDS)
    try:
        lock.acquire()
    except Timeout:
        raise HermesError(f"another hermes is changing {path}.", hint="wait for it to end, then try again.") from None
    except OSError as error:  # of the lock, which nobody knows
        raise OSError(error.errno, error.strerror, str(path)) from None
    try:
        yield
    finally:
        lock.release()


def write_section(path: Path, name: str, value: object) -> None:
    """Change a key at the top of a file in YAML; arguments and errors are those of `with_section`."""
    changed = with_section(path.read_text(encoding="utf-8-sig") if path.exists() else "", name, value)
    paths.write_settings(path, changed)


def with_section(text: str, name: str, value: object) -> str:
    """Return YAML with another value of a key at its top, and everything else as it was; None takes the key out.

    Raise UsageError if it is written in a way in which this cannot be done.
    """
    section = "" if value is None else yaml.safe_dump({name: value}, sort_keys=False, allow_unicode=True, width=1000)
    written = re.compile(rf"^{re.escape(name)}:.*(?:\n|\Z)(?:(?:[ \t]*\n)*(?:[ \t]+\S|-).*(?:\n|\Z))*", re.MULTILINE)
    match = written.search(text)
    before, after = (text[: match.start()], text[match.end() :]) if match else (text, "")
    changed = before + ("\n" if before and not before.endswith("\n") else "") + section + after
    try:
        expected = {key: old for key, old in (parse(text, "") or {}).items() if key != name}
        expected |= {} if value is None else {name: value}
        is_as_meant = (parse(changed, "") or {}) == expected
    except (UsageError, AttributeError):
        is_as_meant = False
    if not is_as_meant:
        raise UsageError(f"{name} cannot be changed in this file.", hint="change it by hand: hermes config edit")
    return changed
