"""What a running sub-command is given."""

from __future__ import annotations

import os
from types import TracebackType
from typing import TYPE_CHECKING, Self

from hostspec.cli.grammar import TRUE, Arguments, UsageError
from hostspec.idmap import IdMap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hostspec.observers import Observer
    from hostspec.store import Store

__all__ = ["Context"]


class Context:
    """Opens the store that the global flags name, when a sub-command first asks for it."""

    def __init__(self, arguments: Arguments) -> None:
        """Take what was given on the command line."""
        self._arguments = arguments
        self._store: Store | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._store is not None:
            self._store.close()

    @property
    def root(self) -> str | None:
        """The store's directory as given, absolute, or ``None`` for the default."""
        return _absolute(self._arguments.one("graph"))

    @property
    def run_root(self) -> str | None:
        """The run directory as given, absolute, or ``None`` for the default."""
        return _absolute(self._arguments.one("run"))

    @property
    def driver(self) -> str | None:
        """The driver as given, by flag or environment, or ``None`` for the store's own."""
        return self._arguments.one("storage-driver") or os.environ.get("STORAGE_DRIVER") or None

    @property
    def options(self) -> tuple[str, ...]:
        """Storage options, ``KEY=VALUE``, by flag or else by environment."""
        given = self._arguments.every("storage-opt")
        return given or tuple(filter(None, os.environ.get("STORAGE_OPTS", "").split(",")))

    @property
    def squash(self) -> bool:
        """Whether the options say to go on where an owner cannot be set (``ignore_chown_errors``)."""
        settings = [each.rpartition(".")[2].partition("=") for each in self.options]
        given = [value for key, _, value in settings if key == "ignore_chown_errors"]
        return bool(given) and given[-1] in TRUE

    @property
    def store(self) -> Store:
        """The store, open.

        Raises:
            HostspecError: It cannot be opened.
        """
        if self._store is None:
            from hostspec.store import open_store  # noqa: PLC0415 - not every command has a store

            self._check_driver()
            self._store = open_store(
                root=self.root,
                run_root=self.run_root,
                driver=self.driver,
                options=self.options,
                observers=self._observers(),
            )
        return self._store

    def _check_driver(self) -> None:
        """Refuse a driver that is not installed, which a command that only lists records would never open."""
        if self.root is None or self.driver is None or os.path.isdir(f"{self.root}/{self.driver}-layers"):
            return
        from hostspec.plugins import installed_drivers  # noqa: PLC0415 - only for a store that is not there yet

        names = [each.name for each in installed_drivers()]
        if self.driver not in names:
            known = ", ".join(names) or "none"
            reason = f"no installed distribution provides a driver {self.driver!r} (installed: {known})"
            raise UsageError("--storage-driver", reason)

    def _observers(self) -> Sequence[Observer]:
        if not self._arguments.given("debug"):
            return ()
        from hostspec.cli.tracing import StderrTrace  # noqa: PLC0415 - only for --debug

        return (StderrTrace(),)


def idmap_of(arguments: Arguments) -> IdMap:
    """Return the map that ``--uidmap`` and ``--gidmap`` describe; one alone serves for both.

    Raises:
        InvalidIdMap: A range is malformed, or they contradict each other.
        UsageError: A half is given and also said not to be mapped.
    """
    uids, gids = arguments.every("uidmap"), arguments.every("gidmap")
    for kind, ranges in (("uid", uids), ("gid", gids)):
        if ranges and arguments.given(f"host{kind}map"):
            raise UsageError(f"--host{kind}map", f"contradicts --{kind}map")
    parsed = IdMap.parse(uids, gids)
    return IdMap(
        () if arguments.given("hostuidmap") else parsed.uids,
        () if arguments.given("hostgidmap") else parsed.gids,
    )


def _absolute(path: str | None) -> str | None:
    return os.path.abspath(path) if path else None
