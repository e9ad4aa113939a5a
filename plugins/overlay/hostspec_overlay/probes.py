"""What this kernel and file system can do, found out by making mounts that nobody sees.

Each probe is made at most once in a process for each home, and only when somebody asks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from hostspec.idmap import IdMap
from hostspec.kernel.deletion import delete_tree
from hostspec.kernel.usernamespaces import user_namespace
from hostspec_overlay.environment import BackingMount, backing_mount, enforces_limits
from hostspec_overlay.layout import Lower
from hostspec_overlay.mounting import MountPlan, MountWay, detached_overlay
from hostspec_overlay.options import NO_CHOICES, MountChoices

__all__ = ["Outcome", "Probes"]

_NO_MAP = IdMap()
_ANY_MAP = IdMap.parse(["0:100000:65536"])
_NO_WAY_IN = "the map leaves out UID 0 or GID 0, to which the directories above the layers belong"


class Outcome(NamedTuple):
    """What a probe found out."""

    works: bool
    reason: str
    """How it was found out, or what stands against it; for people."""

    def __str__(self) -> str:
        return f"{'yes' if self.works else 'no'} ({self.reason})"


class _Scratch(NamedTuple):
    """A small overlay to try things on."""

    place: str
    """Directory that holds ``lower``, ``upper`` and ``work``."""
    root: str
    """The mounted tree: a file ``file``, an empty file ``deleted``, a directory ``directory``."""


_known: dict[tuple[str, object], Outcome] = {}
"""Outcomes by home and by what was tried."""


class Probes:
    """The probes at one home."""

    def __init__(self, home: str, new_place: Callable[[], str], mount_api: str) -> None:
        """Prepare to probe; nothing is done yet.

        Args:
            home: Absolute path of the driver's home, on whose file system to probe.
            new_place: Gives a path on that file system at which nothing is.
            mount_api: The user's choice of a way to mount.
        """
        self._home = home
        self._new_place = new_place
        self._mount_api = mount_api

    def mapped_lowers(self, idmap: IdMap) -> Outcome:
        """Find out whether layers can be mounted under a map.

        What a mount can do is tried once, with any map; of this one, whether the kernel takes it, and whether
        layers can be reached under it.
        """
        mounts = self._once(
            ("mapped", self._mount_api),
            lambda scratch: _shows_owner(scratch, _ANY_MAP),
            f"tried an idmapped lower layer on {backing_mount(self._home).filesystem}",
            idmap=_ANY_MAP,
        )
        if mounts.works:
            if idmap.uids.find_host(0) is None or idmap.gids.find_host(0) is None:
                return Outcome(works=False, reason=_NO_WAY_IN)
            try:
                user_namespace(idmap)
            except OSError as refusal:
                return Outcome(works=False, reason=f"the kernel does not take this map: {_in_words(refusal)}")
        return mounts

    def report(self, choices: MountChoices) -> list[tuple[str, str]]:
        """Return everything, for people.

        Args:
            choices: The mount options that every mount gets.
        """
        backing = backing_mount(self._home)
        return [
            ("Backing Filesystem", backing.filesystem),
            ("Supports d_type", str(self._file_types())),
            ("Using metacopy", _true_or_false(choices.overlay_option("metacopy") == "on")),
            ("Mount options", str(choices) or "none"),
            ("metacopy", str(self._option("metacopy", "on", _leaves_stub))),
            ("redirect_dir", str(self._option("redirect_dir", "on", _renames_directory))),
            ("index", str(self._option("index", "on", lambda s: os.path.isdir(f"{s.place}/work/index")))),
            ("userxattr", str(self._option("userxattr", None, _writes_user_notes))),
            ("volatile", str(self._option("volatile", None, _is_marked_volatile))),
            ("Idmapped lower layers", str(self.mapped_lowers(_ANY_MAP))),
            *(
                (f"Mount way {way.value}", str(self._way(way)))
                for way in MountWay
                if way is not MountWay.CLASSIC
            ),
            ("Project quota", str(_project_quota(backing))),
        ]

    def _option(self, name: str, value: str | None, check: Callable[[_Scratch], bool]) -> Outcome:
        choices = MountChoices().with_overlay(name, value)
        return self._once((name, value), check, "tried, and it has its effect", choices=choices)

    def _way(self, way: MountWay) -> Outcome:
        return self._once(way, _shows_files, "tried", mount_api=way.value)

    def _file_types(self) -> Outcome:
        return self._once("d_type", _hides_deleted, "tried, and a deleted file is hidden")

    def _once(
        self,
        key: object,
        check: Callable[[_Scratch], bool],
        success: str,
        *,
        choices: MountChoices = NO_CHOICES,
        idmap: IdMap = _NO_MAP,
        mount_api: str = "",
    ) -> Outcome:
        """Return what is known, or mount a scratch overlay and see whether ``check`` holds on it."""
        known = _known.get((self._home, key))
        if known is not None:
            return known
        try:
            with self._scratch(choices, idmap, mount_api or self._mount_api) as scratch:
                works = check(scratch)
            outcome = Outcome(works, success if works else "the kernel takes it, but it has no effect here")
        except OSError as refusal:
            outcome = Outcome(works=False, reason=_in_words(refusal))
        _known[self._home, key] = outcome
        return outcome

    @contextmanager
    def _scratch(self, choices: MountChoices, idmap: IdMap, mount_api: str) -> Iterator[_Scratch]:
        place = self._new_place()
        try:
            for name in ("lower/directory", "spare", "upper", "work"):
                os.makedirs(f"{place}/{name}")
            for name, content in (("file", b"content"), ("deleted", b"")):
                with open(f"{place}/lower/{name}", "wb") as file:
                    file.write(content)
            plan = MountPlan(
                place, [Lower(place, "lower"), Lower(place, "spare")], choices=choices, idmap=idmap
            )
            if idmap:
                first = (next(iter(idmap.uids), None), next(iter(idmap.gids), None))
                os.chown(f"{place}/lower/file", *(each.container_id if each else 0 for each in first))
            else:
                plan = plan._replace(upper=f"{place}/upper", work=f"{place}/work")
            mount = detached_overlay(plan, mount_api)
            try:
                yield _Scratch(place, f"/proc/self/fd/{mount}")
            finally:
                os.close(mount)
        finally:
            delete_tree(place)


def _in_words(refusal: OSError) -> str:
    return f"{refusal.strerror}: {refusal.filename}" if refusal.filename else str(refusal.strerror)


def _shows_files(scratch: _Scratch) -> bool:
    return os.path.isfile(f"{scratch.root}/file")


def _shows_owner(scratch: _Scratch, idmap: IdMap) -> bool:
    expected = (next(iter(idmap.uids), None), next(iter(idmap.gids), None))
    found = os.stat(f"{scratch.root}/file")
    return (found.st_uid, found.st_gid) == tuple(each.host_id if each else 0 for each in expected)


def _leaves_stub(scratch: _Scratch) -> bool:
    os.chmod(f"{scratch.root}/file", 0o600)
    return "trusted.overlay.metacopy" in os.listxattr(f"{scratch.place}/upper/file")


def _renames_directory(scratch: _Scratch) -> bool:
    os.rename(f"{scratch.root}/directory", f"{scratch.root}/renamed")
    return "trusted.overlay.redirect" in os.listxattr(f"{scratch.place}/upper/renamed")


def _writes_user_notes(scratch: _Scratch) -> bool:
    os.rmdir(f"{scratch.root}/directory")
    os.mkdir(f"{scratch.root}/directory")
    return "user.overlay.opaque" in os.listxattr(f"{scratch.place}/upper/directory")


def _is_marked_volatile(scratch: _Scratch) -> bool:
    return os.path.isdir(f"{scratch.place}/work/work/incompat/volatile")


def _hides_deleted(scratch: _Scratch) -> bool:
    os.unlink(f"{scratch.root}/deleted")
    return "deleted" not in os.listdir(scratch.root)


def _project_quota(backing: BackingMount) -> Outcome:
    if enforces_limits(backing):
        return Outcome(works=True, reason="the file system is mounted with prjquota")
    return Outcome(works=False, reason="needs XFS or ext4 mounted with prjquota, and the machine's root")


def _true_or_false(value: bool) -> str:  # noqa: FBT001 - a converter
    return "true" if value else "false"
