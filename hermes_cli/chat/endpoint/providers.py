"""Services that host Hermes models, as in `openrouter:hermes-4-405b`, and the keys that are stored for them.

A key comes from the environment, else from what `hermes login` stored: the system's keyring where the library `keyring`
is installed and works, else a file that only this user can read. It is never shown.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hermes_cli import paths
from hermes_cli.errors import AccessError, UsageError

if TYPE_CHECKING:
    from hermes_cli.catalog.models import Catalogue

APP = "hermes-llm"  # in the keyring
FILE = "keys.json"  # in the folder of settings


@dataclass(frozen=True)
class Provider:
    """A service."""

    name: str  # stands before the colon
    title: str  # its own name
    host: str  # of its API
    variable: str  # in the environment, for its key
    # the field of `CloudNames` with its names of models; `owner` stands before a name that has none
    ids: Literal["openrouter", "nous_portal"]
    owner: str
    page: str  # where a key is made


PROVIDERS = {
    provider.name: provider
    for provider in (
        Provider(
            "openrouter",
            "OpenRouter",
            "openrouter.ai",
            "OPENROUTER_API_KEY",
            "openrouter",
            "nousresearch/",
            "https://openrouter.ai/keys",
        ),
        Provider(
            "nous",
            "Nous Portal",
            "inference-api.nousresearch.com",
            "NOUS_API_KEY",
            "nous_portal",
            "",
            "https://portal.nousresearch.com",
        ),
    )
}


def provider_named(text: str) -> Provider:
    """Return the service of a name; UsageError if there is none."""
    provider = PROVIDERS.get(text.strip().lower().removesuffix(":"))
    if provider is None:
        raise UsageError(
            f"there is no service {text}.",
            hint=f"choose one of: {', '.join(PROVIDERS)}; the Hub's token: hf auth login",
        )
    return provider


def hosted(text: str | None) -> tuple[Provider, str] | None:
    """Return the service and the name of the model that `openrouter:NAME` stands for; None if it is no such name."""
    name, colon, model = (text or "").strip().partition(":")
    provider = PROVIDERS.get(name.lower()) if colon else None
    if provider is None:
        return None
    if not model.strip():
        raise UsageError(
            f"{text} names no model.", hint=f"for example: {provider.name}:hermes-4-70b; hermes list has more."
        )
    return provider, model.strip()


def hosted_id(provider: Provider, model: str, catalogue: Catalogue) -> str:
    """Return the service's id of a model: of the catalogue's names, else as it was typed."""
    from hermes_cli.catalog.file_names import normalize_name  # noqa: PLC0415 - with the catalogue, where it is loaded

    wanted = normalize_name(model)
    for known in catalogue.models:
        identifier: str | None = getattr(known.cloud, provider.ids)
        if identifier:
            own = identifier.rpartition("/")[2]
            if wanted in {normalize_name(name) for name in (identifier, own, known.short, known.id, known.name)}:
                return identifier
    return model if "/" in model else provider.owner + model


def stored_key(host: str) -> str | None:
    """Return the key that was stored for a host; None if there is none."""
    provider = next((provider for provider in PROVIDERS.values() if provider.host == host), None)
    if provider is None:
        return None
    if ring := _keyring():
        with suppress(Exception):  # a locked or broken keyring has no key
            if key := ring.get_password(APP, provider.name):
                return str(key)
    return _read_file().get(provider.name)


def store_key(provider: Provider, key: str) -> str:
    """Store a key in place of an earlier one; return where, in words.

    Raise UsageError if it is not a key.
    """
    key = key.strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise UsageError("that is not a key.", hint=f"copy it again, without spaces: {provider.page}")
    if ring := _keyring():
        with suppress(Exception):  # no service of the system answers
            ring.set_password(APP, provider.name, key)
            _write_file({name: other for name, other in _read_file().items() if name != provider.name})
            return "the system's keyring"
    _write_file({**_read_file(), provider.name: key})
    return str(_path())


def forget_key(provider: Provider) -> bool:
    """Remove a stored key; return whether there was one."""
    keys, found = _read_file(), False
    if ring := _keyring():
        with suppress(Exception):  # it has none
            ring.delete_password(APP, provider.name)
            found = True
    if provider.name in keys:
        del keys[provider.name]
        _write_file(keys)
        found = True
    return found


def _keyring() -> Any:  # noqa: ANN401 - of a library that need not be there
    if find_spec("keyring") is None:
        return None
    import keyring  # type: ignore[import-not-found] # noqa: PLC0415 - where it is installed

    return keyring


def _path() -> Path:
    return paths.config_dir() / FILE


def _read_file() -> dict[str, str]:
    path = _path()
    try:
        keys = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise paths.access_error(path, error) from None
    except ValueError:
        keys = None
    if not isinstance(keys, dict):
        raise AccessError(f"{path} is damaged.", hint="remove it and store the keys again: hermes login")
    return {str(name): str(key) for name, key in keys.items()}


def _write_file(keys: dict[str, str]) -> None:
    if keys:
        paths.write_private(_path(), json.dumps(keys))
    else:
        _path().unlink(missing_ok=True)
