"""Folders of hermes.

Everything of ours is called `hermes-llm`: `~/.hermes` and most `HERMES_*` variables belong to Nous' Hermes Agent.
Models live in the Hugging Face Hub's own cache, so that every tool that knows it shares one copy.
"""

from __future__ import annotations

import codecs
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import platformdirs

from hermes_cli.errors import AccessError, UsageError

APP = "hermes-llm"
MAX_LOG_BYTES = 8 << 20  # of a log; as many are kept of what came before
PACKAGE = Path(__file__).parent


def catalog() -> Path:
    """catalog.yaml: inside the package when installed from a wheel, beside it in a checkout."""
    installed = PACKAGE / "catalog.yaml"
    return installed if installed.exists() else PACKAGE.parent / "catalog.yaml"


def catalog_overlay() -> Path:
    """Return the file with what `hermes catalog refresh` learned from the Hub."""
    return data_dir() / "catalog-overlay.json"


def asset(name: str) -> Path:
    """A file that ships inside the package: the demo model and its tools."""
    return PACKAGE / "assets" / name


def config_dir() -> Path:
    """Settings a person writes."""
    return _ours("HERMES_LLM_CONFIG_DIR", platformdirs.user_config_path)


def data_dir() -> Path:
    """Return the folder of data that a person would miss: conversations, refreshed facts."""
    return _ours("HERMES_LLM_DATA_DIR", platformdirs.user_data_path)


def chats_dir() -> Path:
    """Saved conversations, a file each."""
    return data_dir() / "chats"


def cache_dir() -> Path:
    """Return the folder of data that can be made anew: measurements, compiled catalogue."""
    return _ours("HERMES_LLM_CACHE_DIR", platformdirs.user_cache_path)


def log_dir() -> Path:
    """Return the folder of logs: of servers in the background."""
    return _ours("HERMES_LLM_LOG_DIR", platformdirs.user_log_path)


def hub_home() -> Path:
    """Return HF_HOME, found as huggingface_hub finds it (its constants.py) without the cost of importing it."""
    home = os.environ.get("HF_HOME") or str(Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    with _home_needed("HF_HOME"):
        return Path(os.path.expandvars(home)).expanduser()


def models_dir() -> Path:
    """Return the Hub's cache, found as HF_HOME is."""
    cache = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    with _home_needed("HF_HOME"):
        return Path(os.path.expandvars(cache)).expanduser() if cache else hub_home() / "hub"


def write_private(path: Path, content: str | bytes) -> None:
    """Write a file that only this user can read, in one step: it is never half written, and never open to others.

    Raise OSError if it cannot be written; `filename` is the path. What was there is as before.
    """
    _write_whole(path, content.encode() if isinstance(content, str) else content, None)


def write_data(path: Path, content: bytes) -> None:
    """Write a file of ours in one step; errors are those of `write_private`."""
    _write_whole(path, content, 0o666 & ~_umask())


def write_settings(path: Path, text: str, *, private: bool = False) -> None:
    """Write a file of settings that people edit: in one step, with the mode, byte order mark and line breaks it has.

    A `private` one can be read by its owner alone from then on.

    Raises:
        OSError: as `write_private`.
    """
    try:
        before, mode = path.read_bytes(), stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        before, mode = b"", 0o666 & ~_umask()
    mark = codecs.BOM_UTF8 if before.startswith(codecs.BOM_UTF8) else b""
    if b"\r\n" in before:
        text = text.replace("\n", "\r\n")
    _write_whole(path, mark + text.encode(), None if private else mode)


def _write_whole(path: Path, content: bytes, mode: int | None) -> None:
    with replacing(path, folder_mode=0o700 if mode is None else 0o777) as partial:
        partial.write_bytes(content)
        if mode is not None:
            partial.chmod(mode)


@contextmanager
def replacing(path: Path, *, folder_mode: int = 0o777) -> Iterator[Path]:
    """Yield a new file in the folder of a path, which becomes it at the end, or is removed by an error.

    It is nobody else's: its name is new, and only this user can read it.

    Raises:
        OSError: as `write_private`.
    """
    import tempfile  # noqa: PLC0415 - 10 ms, for what is seldom written

    target = Path(os.path.realpath(path))  # a link stays: settings are often kept elsewhere
    try:
        target.parent.mkdir(parents=True, exist_ok=True, mode=folder_mode)
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:100]}.")  # mode 0600
        os.close(descriptor)
        partial = Path(name)
        try:
            yield partial
            partial.replace(target)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    except OSError as error:  # of the partial file, or of a full disk, which names none
        raise OSError(error.errno, error.strerror, str(path)) from None


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def is_dir(path: Path) -> bool:
    """Return whether a folder is there; one that may not be seen counts as none, which Path.is_dir raises for."""
    return os.path.isdir(path)  # noqa: PTH112 - see above


def readable(path: Path) -> Path:
    """Return the path, if the folders above it can be entered and it can be read, or is not there.

    Raise AccessError if it may not be read; the hint says what to do.
    """
    try:
        if stat.S_ISDIR(path.stat().st_mode):
            os.scandir(path).close()
        else:
            path.open("rb").close()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise access_error(path, error) from None
    return path


def access_error(path: Path | str, error: OSError) -> AccessError:
    """Return our error for a path that the system refuses: the folder or file that is closed, and what opens it."""
    path = Path(path)
    places = {"HF_HOME": hub_home(), "HF_HUB_CACHE": models_dir()}
    variable = next((name for name, place in places.items() if place == path or place in path.parents), None)
    name = f"{variable} ({path})" if variable else str(path)
    other_place = f", or choose another folder with {variable}" if variable else ""
    if not isinstance(error, PermissionError):
        message = f"cannot use {name}: {error.strerror or error}."
        return AccessError(message, hint=f"check the path and its disk{other_place}.")
    verb, closed = _closed_part(path)
    try:
        info = closed.stat()
    except OSError:
        return AccessError(f"cannot {verb} {name}: {error.strerror}.", hint=f"check its owner{other_place}.")
    owner, group, user = _owners(info)
    whose = "it" if closed == path else str(closed)
    needed = stat.S_IXGRP if stat.S_ISDIR(info.st_mode) else stat.S_IRGRP
    if owner == user:
        hint = f"it is yours, so open it: chmod u+rwX {closed}"
    elif verb == "read" and info.st_gid and info.st_mode & needed:
        hint = f"add yourself to the group {group}, then log in again: sudo usermod -aG {group} {user}"
    elif variable:
        hint = f"make it yours: sudo chown -R {user} {closed}{other_place}."
    else:
        hint = "ask its owner for access, or copy it with sudo to a folder of yours."
    return AccessError(f"cannot {verb} {name}: {whose} belongs to {owner} and is closed to you.", hint=hint)


def _closed_part(path: Path) -> tuple[str, Path]:
    """Return what is not possible, `read` or `write`, and the folder or file on the way to a path that refuses it."""
    effective = os.access in os.supports_effective_ids
    for folder in reversed(path.absolute().parents):
        if not os.access(folder, os.X_OK, effective_ids=effective):
            return "read", folder
    wanted = os.R_OK | os.X_OK if is_dir(path) else os.R_OK
    if os.path.lexists(path):
        return "write" if os.access(path, wanted, effective_ids=effective) else "read", path
    return "write", path.absolute().parent


def _owners(info: os.stat_result) -> tuple[str, str, str]:
    """Return the names of a file's owner and group, and of the user; numbers where the system knows no names."""
    owner, group, user = str(info.st_uid), str(info.st_gid), os.environ.get("USER", "$USER")
    with suppress(ImportError, KeyError):
        import pwd  # noqa: PLC0415 - not on Windows

        owner = pwd.getpwuid(info.st_uid).pw_name
        user = pwd.getpwuid(os.geteuid()).pw_name
    with suppress(ImportError, KeyError):
        import grp  # noqa: PLC0415 - not on Windows

        group = grp.getgrgid(info.st_gid).gr_name
    return owner, group, user


def trim_log(log: Path) -> None:
    """Keep a log short that a process goes on appending to: copy it to `NAME.1`, and empty it."""
    with suppress(OSError):
        if log.stat().st_size > MAX_LOG_BYTES:
            shutil.copyfile(log, log.with_name(f"{log.name}.1"))
            os.truncate(log, 0)


def existing(folder: Path) -> Path:
    """The folder itself, or the nearest above it that exists: what its disk can be asked through.

    Raise OSError if a folder on the way may not be looked into.
    """
    return next(place for place in (folder, *folder.parents) if place.exists() or place == place.parent)


def _ours(variable: str, default: Callable[..., Path]) -> Path:
    chosen = os.environ.get(variable)
    with _home_needed(variable):
        return Path(chosen).expanduser() if chosen else default(APP, appauthor=False)


@contextmanager
def _home_needed(variable: str) -> Iterator[None]:
    try:
        yield
    except RuntimeError:  # from pathlib and platformdirs
        raise UsageError(
            "the home folder is not known, so hermes does not know where its files are.",
            hint=f"set HOME, or {variable} to an absolute path.",
        ) from None
