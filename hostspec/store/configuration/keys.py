"""The keys of ``storage.conf``: which there are, and what each must be.

Those of containers/storage 1.43 to 1.6x, as containers-storage.conf(5) documents them. Options of drivers
are handed to the driver, which obeys or refuses each; what no version knows is listed as unknown.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import NamedTuple, NoReturn

from hostspec.errors import InvalidRequest
from hostspec.idmap import IdMap
from hostspec.store.configuration.files import Settings, UnknownKey
from hostspec.store.configuration.own_settings import FORMAT_TABLES, OwnSettings
from hostspec.store.format.layout import DRIVER_SYNONYMS

__all__ = ["Configuration", "SettingsReader"]

_STORAGE_KEYS = frozenset(
    {
        "driver",
        "driver_priority",
        "graphroot",
        "imagestore",
        "options",
        "rootless_storage_path",
        "runroot",
        "transient_store",
    }
)
# In the order in which the Go library hands them to a driver, with the driver's name for each.
_DRIVER_KEYS = {
    "additionalimagestores": "imagestore",
    "additionallayerstores": "additionallayerstore",
    "size": "size",
    "mount_program": "mount_program",
    "skip_mount_home": "skip_mount_home",
    "ignore_chown_errors": "ignore_chown_errors",
    "use_composefs": "use_composefs",
    "force_mask": "force_mask",
    "mountopt": "mountopt",
}
_OPTION_KEYS = frozenset(
    (
        *_DRIVER_KEYS,
        "auto-userns-max-size",
        "auto-userns-min-size",
        "disable-volatile",
        "imagestore",
        "pull_options",
        "remap-gids",
        "remap-group",
        "remap-uids",
        "remap-user",
        "root-auto-userns-user",
        "strip_suid_sgid",
    )
)
_VARIABLE_IN_PATH = re.compile(r"\$(?:\{([^}]*)\}|(\w+))", re.ASCII)


class Configuration(NamedTuple):
    """What holds for a store that nothing else is said about."""

    root: str
    """Absolute path of the graph root."""
    run_root: str
    """Absolute path of the run root."""
    files: tuple[str, ...] = ()
    """The files that were read."""
    driver: str | None = None
    """The driver's name, or ``None`` for the store's own."""
    driver_priority: tuple[str, ...] = ()
    """Drivers to try first for a new store, best first."""
    image_store: str | None = None
    """Absolute path of the graph root for images, where they have one of their own."""
    transient: bool = False
    """Whether containers need not survive a reboot."""
    disable_volatile: bool = False
    """Whether volatile containers are mounted like any other."""
    idmap: IdMap = IdMap()
    """Map of layers and containers for which none is named."""
    auto_userns_user: str = ""
    """User whose subordinate IDs are for automatic user namespaces; for container engines."""
    auto_userns_sizes: tuple[int | None, int | None] = (None, None)
    """Least and greatest number of IDs in an automatic user namespace; for container engines."""
    pull_options: Mapping[str, str] = {}
    """For programs that pull images."""
    unknown_keys: tuple[UnknownKey, ...] = ()
    """Keys of ``storage.conf`` that no version of the format knows."""
    general: tuple[tuple[str, str], ...] = ()
    """Driver options for whichever driver it is; names and values."""
    tables: Mapping[str, tuple[tuple[str, str], ...]] = {}
    """Driver options by driver."""
    instead: tuple[str, ...] | None = None
    """Options of ``STORAGE_OPTS``, which replace those of ``storage.conf``."""
    own: OwnSettings = OwnSettings()
    """What ``hostspec.conf`` says."""

    @property
    def all_files(self) -> tuple[str, ...]:
        """Every file that was read."""
        return (*self.files, *self.own.files)

    @property
    def unknown(self) -> tuple[UnknownKey, ...]:
        """Keys that nobody knows, of all files."""
        return (*self.unknown_keys, *self.own.unknown)

    def options_for(self, driver: str) -> tuple[str, ...]:
        """Return the options for a driver, and the store's own; of one given twice, the last counts.

        Returns:
            ``DRIVER.KEY=VALUE`` and ``hostspec.KEY=VALUE``.
        """
        given = tuple(
            f"{driver}.{key}={value}" for key, value in (*self.general, *self.tables.get(driver, ()))
        )
        return (*self.own.options_for(driver), *(given if self.instead is None else self.instead))

    def sources_for(self, driver: str) -> Mapping[str, str]:
        """Return which files say something of the driver's options: what to name, by ``DRIVER.KEY``."""
        if self.instead is not None:
            return self.own.said_in
        source = " with ".join(self.files)
        given = (*self.general, *self.tables.get(driver, ()))
        return {**self.own.said_in, **{f"{driver}.{key}": source for key, _ in given}}


class SettingsReader:
    """Takes values out of settings, and refuses those of the wrong type."""

    def __init__(self, settings: Settings, environment: Mapping[str, str], uid: int) -> None:
        """Take settings, and what is to be replaced in their paths.

        Raises:
            InvalidRequest: ``storage`` or ``storage.options`` is no table.
        """
        self._settings = settings
        self._environment = environment
        self._uid = uid
        self._storage = self._table(settings.content, "storage")
        self._options = self._table(self._storage, "storage.options")

    def all(self, root: str, run_root: str) -> Configuration:
        """Return everything that the files say, with roots where they name none."""
        options = self._options
        if self._switch(options, "storage.options.strip_suid_sgid"):
            self._refuse("storage.options.strip_suid_sgid", "is not supported; leave it out")
        graph = self.path("graphroot") or root
        image_store = self.path("imagestore") or self._expanded(
            self._text(options, "storage.options.imagestore")
        )
        if image_store == graph:
            self._refuse("storage.imagestore", "must be another directory than graphroot")
        return Configuration(
            root=graph,
            run_root=self.path("runroot") or run_root,
            files=self._settings.files,
            driver=self._driver(),
            driver_priority=self._texts(self._storage, "storage.driver_priority"),
            image_store=image_store,
            transient=self._switch(self._storage, "storage.transient_store"),
            disable_volatile=self._switch(options, "storage.options.disable-volatile"),
            idmap=self._idmap(),
            auto_userns_user=self._text(options, "storage.options.root-auto-userns-user"),
            auto_userns_sizes=(
                self._number(options, "storage.options.auto-userns-min-size"),
                self._number(options, "storage.options.auto-userns-max-size"),
            ),
            pull_options=self._pull_options(),
            unknown_keys=self._unknown(),
            general=self._general(),
            tables={name: self._of_driver(name) for name in options if name in FORMAT_TABLES},
            instead=self._instead(),
        )

    def for_any_user(self, root: str, run_root: str) -> Configuration:
        """Return what everybody's files say to a user who has no file: little of it is meant for them."""
        driver = self._driver()
        given = self._table(self._options, f"storage.options.{driver}") if driver else {}
        squash = given.get("ignore_chown_errors", self._options.get("ignore_chown_errors"))
        named = self._plain("storage.options.ignore_chown_errors", squash) if squash is not None else ""
        return Configuration(
            root=root,
            run_root=run_root,
            files=self._settings.files,
            driver=driver,
            driver_priority=self._texts(self._storage, "storage.driver_priority"),
            pull_options=self._pull_options(),
            unknown_keys=self._unknown(),
            tables={driver: (("ignore_chown_errors", named),)} if driver and named else {},
            instead=self._instead(),
        )

    def path(self, key: str) -> str | None:
        """Return the path of a key of ``[storage]``, with variables replaced and links followed."""
        return self._expanded(self._text(self._storage, f"storage.{key}"))

    def _expanded(self, text: str) -> str | None:
        if not text:
            return None
        text = text.replace("$UID", str(self._uid))
        text = _VARIABLE_IN_PATH.sub(lambda found: self._environment.get(found[1] or found[2], ""), text)
        return os.path.realpath(text)

    def _driver(self) -> str | None:
        name = self._environment.get("STORAGE_DRIVER") or self._text(self._storage, "storage.driver")
        return DRIVER_SYNONYMS.get(name, name) or None

    def _pull_options(self) -> Mapping[str, str]:
        table = self._table(self._options, "storage.options.pull_options")
        return {key: self._plain(f"storage.options.pull_options.{key}", each) for key, each in table.items()}

    def _instead(self) -> tuple[str, ...] | None:
        given = self._environment.get("STORAGE_OPTS")
        return None if given is None else tuple(filter(None, given.split(",")))

    def _general(self) -> tuple[tuple[str, str], ...]:
        found: list[tuple[str, str]] = []
        for key, name in _DRIVER_KEYS.items():
            if key.endswith("stores"):
                found += ((name, each) for each in self._texts(self._options, f"storage.options.{key}"))
            elif key in self._options:
                found.append((name, self._plain(f"storage.options.{key}", self._options[key])))
        return tuple(each for each in found if each[1])

    def _of_driver(self, name: str) -> tuple[tuple[str, str], ...]:
        table = self._options[name]
        if not isinstance(table, dict):
            return ()  # listed as unknown
        return tuple(
            (key, self._plain(f"storage.options.{name}.{key}", value))
            for key, value in table.items()
            if value != "" and key in FORMAT_TABLES[name]
        )

    def _unknown(self) -> tuple[UnknownKey, ...]:
        found = [key for key in self._settings.content if key != "storage"]
        found += [f"storage.{key}" for key in self._storage if key not in _STORAGE_KEYS]
        driver = self._driver()
        for key, value in self._options.items():
            if not isinstance(value, dict) or key not in FORMAT_TABLES:
                found += [f"storage.options.{key}"] if key not in _OPTION_KEYS else []
            elif key == driver:
                known = FORMAT_TABLES[key]
                found += [f"storage.options.{key}.{each}" for each in value if each not in known]
        return tuple(UnknownKey(self._settings.source, key) for key in found)

    def _idmap(self) -> IdMap:
        user = self._text(self._options, "storage.options.remap-user")
        group = self._text(self._options, "storage.options.remap-group")
        if user or group:
            return IdMap(
                _subordinate_ids("/etc/subuid", user or group), _subordinate_ids("/etc/subgid", group or user)
            )
        return IdMap.parse(self._ranges("remap-uids"), self._ranges("remap-gids"))

    def _ranges(self, key: str) -> list[str]:
        text = self._text(self._options, f"storage.options.{key}")
        numbers = re.findall("[0-9]+", text)
        if len(numbers) % 3 or re.sub(r"[0-9:,\s]", "", text):
            self._refuse(f"storage.options.{key}", "must be CONTAINER:HOST:SIZE, several joined by commas")
        return [":".join(numbers[start : start + 3]) for start in range(0, len(numbers), 3)]

    # Types

    def _table(self, within: Mapping[str, object], key: str) -> Mapping[str, object]:
        value = within.get(key.rpartition(".")[2], {})
        if not isinstance(value, dict):
            self._refuse(key, "must be a table")
        return value

    def _text(self, within: Mapping[str, object], key: str) -> str:
        value = within.get(key.rpartition(".")[2], "")
        if not isinstance(value, str):
            self._refuse(key, "must be text")
        return value

    def _texts(self, within: Mapping[str, object], key: str) -> tuple[str, ...]:
        value = within.get(key.rpartition(".")[2], [])
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            self._refuse(key, "must be a list of texts")
        return tuple(value)

    def _number(self, within: Mapping[str, object], key: str) -> int | None:
        value = within.get(key.rpartition(".")[2])
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
            self._refuse(key, "must be a whole number, 0 or more")
        return value or None

    def _switch(self, within: Mapping[str, object], key: str) -> bool:
        value = within.get(key.rpartition(".")[2], False)
        if value in ("true", "false"):  # texts are what the drivers' own switches take
            return value == "true"
        if not isinstance(value, bool):
            self._refuse(key, "must be true or false")
        return value

    def _plain(self, key: str, value: object) -> str:
        """Return the text that a driver is given for a value."""
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, int):
            return f"{value:o}" if key.endswith("force_mask") else str(value)
        if not isinstance(value, str):
            self._refuse(key, "must be text")
        return value

    def _refuse(self, key: str, reason: str) -> NoReturn:
        raise InvalidRequest(self._settings.source, f"{key} {reason}")


def _subordinate_ids(path: str, user: str) -> list[tuple[int, int, int]]:
    """Return a user's subordinate IDs as a map: the lowest host IDs first, from container ID 0 on.

    Raises:
        InvalidRequest: The file gives the user none.
    """
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            rows = [line.strip().split(":") for line in file]
    except FileNotFoundError:
        rows = []
    found = sorted(
        (int(row[1]), int(row[2]))
        for row in rows
        if len(row) == len(("user", "first", "size")) and row[0] == user and (row[1] + row[2]).isdigit()
    )
    if not found:
        raise InvalidRequest(path, f"has no IDs for {user!r}, whom remap-user or remap-group names")
    ranges: list[tuple[int, int, int]] = []
    first = 0
    for host, size in found:
        ranges.append((first, host, size))
        first += size
    return ranges
