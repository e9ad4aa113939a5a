"""Which configuration files count, and what they say together (containers-storage.conf(5)).

One main file: that of ``CONTAINERS_STORAGE_CONF``, else the user's, the administrator's or the
distribution's, the first that exists. On top of it, key by key, the drop-in files of newer versions of
the Go library (``storage.conf.d/*.conf``; of several with one name the last directory's counts), and the
file of ``CONTAINERS_STORAGE_CONF_OVERRIDE``. ``CONTAINERS_STORAGE_CONF`` switches drop-in files off.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from hostspec.errors import InvalidRequest

__all__ = [
    "SYSTEM_DIRECTORIES",
    "Settings",
    "Toml",
    "UnknownKey",
    "named_file",
    "parse_file",
    "read_file",
    "read_settings",
    "user_directory",
    "user_of",
]

SYSTEM_DIRECTORIES = ("/usr/share/containers", "/etc/containers")
"""The distribution's and the administrator's directory; the latter counts more."""

_NAME = "storage"
_SUFFIX = ".conf"
_VARIABLE = "CONTAINERS_STORAGE_CONF"

Toml = dict[str, object]
"""What a file says."""


class UnknownKey(NamedTuple):
    """A key that nobody knows."""

    source: str
    """The file, or the files that were merged."""
    key: str
    """The key, with its tables before it."""

    def __str__(self) -> str:
        return f"{self.key} in {self.source}"


class Settings(NamedTuple):
    """What configuration files say."""

    files: tuple[str, ...]
    """Absolute paths of the files, in the order in which they were read."""
    content: Toml
    """Their tables, merged."""

    @property
    def source(self) -> str:
        """What to name in a message about a key."""
        return " with ".join(self.files) or "the configuration"


def user_of(environment: Mapping[str, str]) -> int:
    """Return the ID of the user whose store it is: the caller, outside the namespace that podman made."""
    named = environment.get("_CONTAINERS_ROOTLESS_UID", "")
    return int(named) if named.isdigit() else os.geteuid()


def user_directory(environment: Mapping[str, str], *, rootless: bool) -> str | None:
    """Return the directory of the user's own configuration files.

    Root has one only where ``XDG_CONFIG_HOME`` says so, as in the Go library.
    """
    home = environment.get("XDG_CONFIG_HOME")
    if not home and rootless:
        home = os.path.join(environment.get("HOME") or os.path.expanduser("~"), ".config")
    return os.path.join(home, "containers") if home else None


def named_file(environment: Mapping[str, str]) -> str:
    """Return the path of the one file that the environment names, or ``""``."""
    return environment.get(_VARIABLE, "")


def read_settings(
    environment: Mapping[str, str],
    uid: int,
    *,
    user: str | None,
    system: Sequence[str] = SYSTEM_DIRECTORIES,
) -> Settings:
    """Read the files that count.

    Args:
        environment: The environment variables.
        uid: The user whose store it is; 0 for the system's.
        user: Directory of the user's own files, or ``None`` to leave them out.
        system: Directories of everybody's files, the one that counts most last.

    Raises:
        InvalidRequest: A file that was named does not exist, or one cannot be read or is no TOML.
    """
    files: list[str] = []
    content: Toml = {}
    for path, text in _texts(environment, uid, user, system):
        files.append(path)
        _merge(content, parse_file(path, text))
    return Settings(tuple(files), content)


def _texts(
    environment: Mapping[str, str], uid: int, user: str | None, system: Sequence[str]
) -> Iterator[tuple[str, bytes]]:
    named = named_file(environment)
    if named:
        yield named, _needed(named, _VARIABLE)
    else:
        directories = [*system, *([user] if user else [])]
        for directory in reversed(directories):
            path = os.path.join(directory, _NAME + _SUFFIX)
            text = read_file(path)
            if text is not None:
                yield path, text
                break
        for path in _drop_ins(directories, uid, user):
            text = read_file(path)
            if text is not None:
                yield path, text
    override = environment.get(f"{_VARIABLE}_OVERRIDE")
    if override:
        yield override, _needed(override, f"{_VARIABLE}_OVERRIDE")


def _drop_ins(directories: Sequence[str], uid: int, user: str | None) -> list[str]:
    """Return the drop-in files, sorted by name; one of a later directory hides its namesakes."""
    by_name: dict[str, str] = {}
    for directory in directories:
        kinds = [f"{_NAME}{_SUFFIX}.d"]
        if directory != user:
            special = f"{_NAME}.{'rootless' if uid else 'rootful'}{_SUFFIX}.d"
            kinds += [special, os.path.join(special, str(uid))] if uid else [special]
        for kind in kinds:
            below = os.path.join(directory, kind)
            try:
                names = os.listdir(below)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise InvalidRequest(below, f"cannot be read: {error.strerror}") from error
            by_name.update({name: os.path.join(below, name) for name in names if name.endswith(_SUFFIX)})
    return [by_name[name] for name in sorted(by_name)]


def _needed(path: str, variable: str) -> bytes:
    text = read_file(path)
    if text is None:
        raise InvalidRequest(path, f"does not exist; correct or unset {variable}")
    return text


def read_file(path: str) -> bytes | None:
    """Return what a file holds, or ``None`` where there is none.

    Raises:
        InvalidRequest: It cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InvalidRequest(path, f"cannot be read: {error.strerror}") from error


def parse_file(path: str, text: bytes) -> Toml:
    """Return what a file says.

    Raises:
        InvalidRequest: It is no TOML.
    """
    import tomllib  # noqa: PLC0415 - who names a store by flags needs none

    try:
        return tomllib.loads(text.decode())
    except ValueError as error:  # of both, what is no UTF-8 and what is no TOML
        raise InvalidRequest(path, f"is no TOML: {error}; correct the file") from error


def _merge(content: Toml, more: Toml) -> None:
    for key, value in more.items():
        present = content.get(key)
        if isinstance(present, dict) and isinstance(value, dict):
            _merge(present, value)
        else:
            content[key] = value
