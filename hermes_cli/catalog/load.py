"""catalog.yaml as objects.

Reading YAML takes longer than everything else that `hermes list` does, so the result is kept as JSON in the cache
folder, under a name that is the hash of the YAML text: an edited catalogue has another name and is read anew.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from hermes_cli import paths
from hermes_cli.catalog.models import Catalogue
from hermes_cli.catalog.overlay import merged, read_overlay
from hermes_cli.errors import HermesError

if TYPE_CHECKING:
    import yaml


@lru_cache(maxsize=1)
def load_catalogue() -> Catalogue:
    """The catalogue that ships with hermes, with what `hermes catalog refresh` learned laid over it.

    Raises:
        HermesError: catalog.yaml is missing or faulty.
    """
    return merged(shipped_catalogue(), read_overlay())


def shipped_catalogue() -> Catalogue:
    """The catalogue as it ships.

    Raises:
        HermesError: catalog.yaml is missing or faulty.
    """
    path = paths.catalog()
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise HermesError(
            f"the catalogue {path} cannot be read: {error.strerror}.",
            hint="install hermes again: pip install --force-reinstall --no-deps hermes-llm",
        ) from None
    compiled = paths.cache_dir() / f"catalog-{hashlib.sha256(raw).hexdigest()[:32]}.json"
    try:
        return msgspec.json.decode(compiled.read_bytes(), type=Catalogue)
    except (OSError, msgspec.MsgspecError):
        pass  # not compiled yet, or by another version of hermes
    try:
        catalogue = read_yaml(raw.decode("utf-8"))
    except (ValueError, msgspec.ValidationError) as error:
        raise HermesError(
            f"the catalogue {path} is faulty: {error}.", hint=f"see every fault by line: hermes catalog check {path}"
        ) from None
    _keep(compiled, msgspec.json.encode(catalogue))
    return catalogue


def read_yaml(text: str) -> Catalogue:
    """A catalogue from YAML text.

    Raises:
        ValueError: not YAML.
        msgspec.ValidationError: a key is missing, unknown, or of the wrong type.
    """
    import yaml  # noqa: PLC0415 - 20 ms, and a compiled catalogue does without

    try:
        return msgspec.convert(yaml.load(text, Loader=yaml_loader()), Catalogue)  # noqa: S506 - a safe loader
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


@lru_cache(maxsize=1)
def yaml_loader() -> type[yaml.SafeLoader]:
    """A safe loader that leaves dates as text; the fast one of libyaml where it is installed."""
    import yaml  # noqa: PLC0415 - as above

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        pass

    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    return Loader


def _keep(path: Path, content: bytes) -> None:
    """Write the compiled catalogue whole or not at all; a cache that cannot be written is no reason to fail."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for old in path.parent.glob("catalog-*.json"):
            old.unlink(missing_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".catalog-")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(temporary).replace(path)
    except OSError:
        return


def as_plain(value: object) -> Any:  # noqa: ANN401 - what JSON can hold
    """A catalogue entry as dictionaries and lists, for `--json`."""
    return msgspec.to_builtins(value)
