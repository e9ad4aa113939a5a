"""What a running sub-command is given."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
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
        from hostspec.store.format.layout import DRIVER_SYNONYMS  # noqa: PLC0415 - not every command has a store

        name = self._arguments.one("storage-driver") or os.environ.get("STORAGE_DRIVER") or None
        return None if name is None else DRIVER_SYNONYMS.get(name, name)

    @property
    def image_store(self) -> str | None:
        """The images' own directory as given, absolute, or ``None``."""
        return _absolute(self._arguments.one("image-store"))

    @property
    def options(self) -> tuple[str, ...]:
        """Storage options, ``KEY=VALUE``, by flag or else by environment."""
        given = self._arguments.every("storage-opt")
        return given or tuple(filter(None, os.environ.get("STORAGE_OPTS", "").split(",")))

    @property
    def squash(self) -> bool:
        """Whether the options say to go on where an owner cannot be set (``ignore_chown_errors``)."""
        given = [value for key, value in self.store.driver_options if key == "ignore_chown_errors"]
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
            # Only flags name a store; where there are none, the configuration does, and the
            # environment changes what it says.
            named = self._names_store()
            transient = self._arguments.one("transient-store")
            self._store = open_store(
                root=self.root,
                run_root=self.run_root,
                driver=self.driver if named else None,
                options=self.options if named else (),
                image_store=self.image_store,
                transient=None if transient is None else transient == "true",
                observers=self._observers(),
            )
            with suppress(
                OSError
            ):  # as with the peer, a store that was looked into can be another's additional store
                os.makedirs(self._store.root, 0o700, exist_ok=True)
            self._tell_what_is_unknown()
            self._clean_up_after_the_dead(self._store)
        return self._store

    @staticmethod
    def _clean_up_after_the_dead(store: Store) -> None:
        """End what was run by processes that have died, and take down what they mounted for themselves.

        The directories are there where anything ever ran or was mounted so.
        """
        notes = os.path.join(store.root, f"{store.driver_name}-layers", "hostspec", "runs")
        if os.path.isdir(os.path.join(store.run_root, "hostspec-run")) or os.path.isdir(notes):
            from hostspec.run.recovery import clean_up  # noqa: PLC0415 - most stores never run anything

            clean_up(store)
        driver_run_root = os.path.join(store.run_root, store.driver_name)
        if os.path.isdir(driver_run_root) and not store.read_only:
            from hostspec.private_mounts import PrivateMounts  # noqa: PLC0415 - not where nothing was mounted

            with suppress(OSError):  # whoever opens the driver tries again, and says so
                PrivateMounts(driver_run_root).reclaim()

    def refuse_if_running(self, reference: str | None = None) -> None:
        """Raise InvalidRequest if a container runs, which nobody could list or stop once it is deleted.

        Args:
            reference: To the container, if it is to one; by default to any of the store.
        """
        if os.path.isdir(os.path.join(self.store.run_root, "hostspec-run")):
            from hostspec.run.control import refuse_if_running  # noqa: PLC0415 - most stores never run anything

            refuse_if_running(self.store, reference)

    def report_damage(self, kind: str) -> int:
        """Say which records of a kind were left out of a list because they cannot be understood.

        Returns:
            The exit code.
        """
        damage = self.store.damage([kind])
        for each in damage:
            print(f"hostspec: {each}", file=sys.stderr)
        return 1 if damage else 0

    def tell_of_depth(self, *tops: str | None, anywhere: bool = False, store: Store | None = None) -> None:
        """Say on standard error which of these layers stand on more than other programs can mount.

        Args:
            tops: IDs of layers.
            anywhere: Also to a script; without, only on a terminal or with ``--debug``, because commands that
                the peer has write nothing there when they succeed.
            store: Where the layers are, if it is another one.
        """
        if not (anywhere or self._arguments.given("debug") or os.isatty(sys.stderr.fileno())):
            return
        for top in dict.fromkeys(tops):
            problem = (store or self.store).too_deep_for_others(top) if top else None
            if problem:
                print(f"hostspec: {problem}", file=sys.stderr)

    def _names_store(self) -> bool:
        return any(self._arguments.every(key) for key in ("graph", "run", "storage-driver", "storage-opt"))

    def _tell_what_is_unknown(self) -> None:
        configuration = self._store.configuration if self._store is not None else None
        if configuration is None or not self._arguments.given("debug"):
            return
        for each in configuration.unknown:
            print(f"hostspec: {each.source}: {each.key} is not known", file=sys.stderr)

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
        from hostspec.cli.tracing import log_to_stderr  # noqa: PLC0415 - only for --debug

        return (log_to_stderr(),)


def idmap_of(arguments: Arguments) -> IdMap | None:
    """Return the map that ``--uidmap`` and ``--gidmap`` describe; one alone serves for both.

    Returns:
        ``None`` where nothing is said about it, neither by a map nor by ``--hostuidmap`` or ``--hostgidmap``.

    Raises:
        InvalidIdMap: A range is malformed, or they contradict each other.
        UsageError: A half is given and also said not to be mapped.
    """
    uids, gids = (tuple(filter(None, arguments.every(flag))) for flag in ("uidmap", "gidmap"))
    for kind, ranges in (("uid", uids), ("gid", gids)):
        if ranges and arguments.given(f"host{kind}map"):
            raise UsageError(f"--host{kind}map", f"contradicts --{kind}map")
    user, group = arguments.one("subuidmap"), arguments.one("subgidmap")
    if user or group:
        if uids or gids:
            raise UsageError("--subuidmap", "contradicts --uidmap and --gidmap")
        from hostspec.kernel.subordinate_ids import granted_id_map  # noqa: PLC0415 - seldom asked for

        return granted_id_map(user or group or "", group or user or "")
    if not (uids or gids or arguments.given("hostuidmap") or arguments.given("hostgidmap")):
        return None
    parsed = IdMap.parse(uids, gids)
    return IdMap(
        () if arguments.given("hostuidmap") else parsed.uids,
        () if arguments.given("hostgidmap") else parsed.gids,
    )


def _absolute(path: str | None) -> str | None:
    return os.path.abspath(path) if path else None
