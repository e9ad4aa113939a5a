"""``hostspec.conf``: what only hostspec obeys, in files that no other program reads.

Podman, buildah and skopeo warn of what they do not know in ``storage.conf``, with every command. So these
files have a name of their own. They lie in the directories of ``storage.conf``, and each of them is read: of
a key that several have, the last directory's counts. With ``CONTAINERS_STORAGE_CONF`` it is only the one
beside that file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from hostspec.errors import InvalidRequest
from hostspec.store.configuration.files import (
    SYSTEM_DIRECTORIES,
    Toml,
    UnknownKey,
    named_file,
    parse_file,
    read_file,
    user_directory,
    user_of,
)
from hostspec.store.configuration.policy import POLICY_PREFIX, Policy, parse_policy
from hostspec.store.format.layout import DRIVER_SYNONYMS

__all__ = ["FORMAT_TABLES", "OwnSettings", "read_own_settings"]

_NAME = "hostspec.conf"
_RUN = "run"
_SUBNET = f"{_RUN}.subnet"

FORMAT_TABLES: Mapping[str, frozenset[str]] = {
    "aufs": frozenset(),
    "btrfs": frozenset({"min_space", "size"}),
    "overlay": frozenset(
        {
            "force_mask",
            "ignore_chown_errors",
            "inodes",
            "mount_program",
            "mountopt",
            "size",
            "skip_mount_home",
            "sync",
            "use_composefs",
        }
    ),
    "thinpool": frozenset(),
    "vfs": frozenset({"ignore_chown_errors", "sync"}),
    "zfs": frozenset(),
}
"""The tables ``[storage.options.DRIVER]`` that the format of ``storage.conf`` has, and the keys that hostspec
takes from each. Other tables and keys are for ``hostspec.conf``."""


class OwnSettings(NamedTuple):
    """What the files say together."""

    files: tuple[str, ...] = ()
    """Absolute paths of the files, in the order in which they were read."""
    values: Mapping[str, str] = {}
    """Texts by key: ``KEY`` for the store's own options, ``DRIVER.KEY`` and ``run.KEY``."""
    said_in: Mapping[str, str] = {}
    """The file whose value counts, by key."""
    unknown: tuple[UnknownKey, ...] = ()
    """Keys that hostspec does not know."""

    @property
    def subnet(self) -> str:
        """The addresses of private networks, ``ADDRESS/PREFIX``, or ``""``."""
        return self.values.get(_SUBNET, "")

    def options_for(self, driver: str) -> tuple[str, ...]:
        """Return the driver's options and the store's own.

        Returns:
            ``DRIVER.KEY=VALUE`` and ``hostspec.KEY=VALUE``.
        """
        of_driver = [each for each in self.values.items() if each[0].startswith(f"{driver}.")]
        own = [each for each in self.values.items() if "." not in each[0]]
        return (
            *(f"{key}={value}" for key, value in of_driver),
            *(f"{POLICY_PREFIX}.{key}={value}" for key, value in own),
        )


def read_own_settings(
    environment: Mapping[str, str] = os.environ,
    *,
    uid: int | None = None,
    system: Sequence[str] = SYSTEM_DIRECTORIES,
) -> OwnSettings:
    """Read the files that there are.

    Args:
        environment: The environment variables.
        uid: The user; by default the one whose process this is.
        system: Directories of everybody's files, the one that counts most last.

    Raises:
        InvalidRequest: A file cannot be read, or says what it cannot; names the file and the key.
    """
    rootless = (user_of(environment) if uid is None else uid) != 0
    files: list[str] = []
    values: dict[str, str] = {}
    said_in: dict[str, str] = {}
    unknown: list[UnknownKey] = []
    for path in _paths(environment, system, rootless=rootless):
        text = read_file(path)
        if text is None:
            continue
        files.append(path)
        reader = _Reader(path, parse_file(path, text))
        values.update(reader.values)
        said_in.update(dict.fromkeys(reader.values, path))
        unknown += (UnknownKey(path, key) for key in reader.unknown)
    return OwnSettings(tuple(files), values, said_in, tuple(unknown))


def _paths(environment: Mapping[str, str], system: Sequence[str], *, rootless: bool) -> Iterator[str]:
    named = named_file(environment)
    if named:
        yield os.path.join(os.path.dirname(os.path.abspath(named)), _NAME)
        return
    own = user_directory(environment, rootless=rootless)
    for directory in (*system, *([own] if own else [])):
        yield os.path.join(directory, _NAME)


class _Reader:
    """Takes one file apart."""

    def __init__(self, path: str, content: Toml) -> None:
        self._path = path
        self.values: dict[str, str] = {}
        self.unknown: list[str] = []
        for key, value in content.items():
            if isinstance(value, dict):
                self._read_table(key, value)
            elif key in Policy._fields:
                self.values[key] = self._text(key, value)
                self._check_policy(key)
            else:
                self.unknown.append(key)

    def _read_table(self, name: str, table: Toml) -> None:
        if name == _RUN:
            self._read_run(table)
        elif _is_driver(name):
            driver = DRIVER_SYNONYMS.get(name, name)
            for key, value in table.items():
                if key in FORMAT_TABLES.get(driver, ()):
                    place = (
                        f"belongs into [storage.options.{name}] of storage.conf, where every program reads it"
                    )
                    raise InvalidRequest(self._path, f"{name}.{key} {place}")
                self.values[f"{driver}.{key}"] = self._text(f"{name}.{key}", value)
        else:
            self.unknown.append(name)

    def _read_run(self, table: Toml) -> None:
        for key, value in table.items():
            full = f"{_RUN}.{key}"
            if full == _SUBNET:
                self.values[full] = self._text(full, value)
                self._check_subnet(self.values[full])
            else:
                self.unknown.append(full)

    def _check_policy(self, key: str) -> None:
        try:
            parse_policy([(key, self.values[key])])
        except InvalidRequest as error:
            raise InvalidRequest(self._path, f"{key} = {self.values[key]!r} {error.reason}") from error

    def _check_subnet(self, text: str) -> None:
        from ipaddress import IPv4Network  # noqa: PLC0415 - few files have the key

        try:
            IPv4Network(text)
        except ValueError as error:
            raise InvalidRequest(self._path, f"{_SUBNET} must be a network's address: {error}") from error

    def _text(self, key: str, value: object) -> str:
        """Return the text that stands for a value where options are given one by one."""
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, int):
            return str(value)
        if not isinstance(value, str):
            raise InvalidRequest(self._path, f"{key} must be text")
        return value


def _is_driver(name: str) -> bool:
    if DRIVER_SYNONYMS.get(name, name) in FORMAT_TABLES:
        return True
    from hostspec.entry_points import announced  # noqa: PLC0415 - only tables of others' drivers need it
    from hostspec.plugins import ENTRY_POINT_GROUP  # noqa: PLC0415

    return any(each.name == name for each in announced(ENTRY_POINT_GROUP))
