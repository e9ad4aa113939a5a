"""Mounts of layers that are directories under ID maps: idmapped binds (mount_setattr(2)).

Such a mount maps in both directions, so that all of the layer stays unmapped on disk. Subvolumes of btrfs
that are nested in a layer are shown through the same mount.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from threading import Lock

from hostspec.errors import OperationNotSupported
from hostspec.idmap import IdMap
from hostspec.values import Shifting, StoredIds

__all__ = ["ShiftedMounts"]

_DIRECTORY = "shifted"
_SWITCH_OFF = "_CONTAINERS_OVERLAY_DISABLE_IDMAP"
"""Environment variable by which newer versions of containers/storage are made to copy instead of shifting."""
_DELETED = "//deleted"  # how the kernel shows a mount whose root directory is gone
_ENTERED_BY_ALL = 0o711  # a container's root is no root of the host


class ShiftedMounts:
    """The shifted mounts of one driver; used from several threads.

    The shared one of a layer lies below the run root: whatever the layer's ID, it is found again by its
    place, by any process, and its directory is there only as long as it is. What is found there is looked
    at: another store with the same run root may have a layer of the same ID, as a copy of this one has.
    """

    def __init__(self, driver: str, run_root: str, *, switched_on: bool) -> None:
        """Take a run root; nothing is made on disk before the first mount.

        Args:
            driver: The driver's name, for messages.
            run_root: Absolute path of the directory for what need not survive a reboot.
            switched_on: False where the user wants no such mounts.
        """
        self._driver = driver
        self._places = os.path.join(run_root, _DIRECTORY)
        self._switched_on = switched_on
        self._mounting = Lock()

    def supports(self, directory: str, idmap: IdMap) -> Shifting:
        """Find out whether what is in ``directory`` can be shown under a map, by doing it unseen."""
        from hostspec.kernel.filesystems import filesystem_name  # noqa: PLC0415 - loads ctypes

        if not idmap:
            return Shifting(possible=True, reason="nothing to map", stored=StoredIds.UNMAPPED)
        # What is shifted already can still be mounted, as its files would be shown with wrong owners else.
        if os.environ.get(_SWITCH_OFF) == "yes":
            reason = f"switched off by {_SWITCH_OFF} in the environment"
            return Shifting(possible=False, reason=reason, stored=StoredIds.UNMAPPED)
        try:
            os.close(self._clone(directory, idmap, read_only=True))
        except OperationNotSupported as refusal:
            return Shifting(possible=False, reason=refusal.reason, stored=StoredIds.UNMAPPED)
        reason = f"tried an idmapped mount on {filesystem_name(directory)}"
        return Shifting(possible=True, reason=reason, stored=StoredIds.UNMAPPED)

    def place(self, layer_id: str) -> str:
        """Return where the shared mount of a layer is, or would be."""
        return os.path.join(self._places, layer_id)

    def is_shown(self, tree: str, place: str) -> bool:
        """Tell whether the shared mount of this very layer is at ``place``, in this mount namespace."""
        # Without loading ctypes for who shifts nothing.
        if not os.path.isdir(place):
            return False
        from hostspec.kernel.mountinfo import is_mountpoint  # noqa: PLC0415

        return is_mountpoint(place) and os.path.samefile(tree, place)

    def mount_shared(self, tree: str, place: str, idmap: IdMap) -> None:
        """Show a layer under a map at ``place``, if it is not yet.

        Raises:
            OperationNotSupported: This map cannot be shown here.
            OSError: The kernel refused, or something else is shown there (EBUSY). Nothing has changed.
        """
        with self._mounting:
            if self.is_shown(tree, place):
                _refuse_other_map(tree, place, idmap)
                return
            clone = self._clone(tree, idmap, read_only=False)
            try:
                self._clear(place)
                _attach(clone, place)
            finally:
                os.close(clone)

    def _clear(self, place: str) -> None:
        """Make the directory for a shared mount, or take what is left of an old one off it."""
        self.forget(place)
        if os.path.dirname(place) == self._places:
            os.makedirs(os.path.dirname(self._places), exist_ok=True)
            with suppress(FileExistsError):
                os.mkdir(self._places, _ENTERED_BY_ALL)
        try:
            os.mkdir(place, 0o700)
        except FileExistsError:
            from hostspec.kernel.mountinfo import is_mountpoint  # noqa: PLC0415 - only who shifts needs it

            if is_mountpoint(place):
                problem = "a layer of another store is mounted there; each store needs a run root of its own"
                raise OSError(errno.EBUSY, problem, place) from None

    def mount_at(self, tree: str, target: str, idmap: IdMap, *, read_only: bool = False) -> None:
        """Show a layer under a map at a directory.

        Raises:
            OperationNotSupported: This map cannot be shown here.
            OSError: The kernel refused; nothing is mounted.
        """
        clone = self._clone(tree, idmap, read_only=read_only)
        try:
            _attach(clone, target)
        finally:
            os.close(clone)

    def unmount(self, path: str, *, patient: bool = True) -> None:
        """Take a mount down, if it is still there, and the directory of a shared one.

        Args:
            path: Where it is.
            patient: Whether one that is used may be so for a moment only.

        Raises:
            OSError: EBUSY while it is used.
        """
        from hostspec.kernel.mountinfo import is_mountpoint  # noqa: PLC0415 - only who mounts needs it
        from hostspec.kernel.mounts import A_MOMENT, unmount  # noqa: PLC0415 - only who mounts needs it

        # Not while another thread has made the directory and is about to mount on it.
        with self._mounting:
            if is_mountpoint(path):
                unmount(path, patience=A_MOMENT if patient else 0)
            if os.path.dirname(path) == self._places:
                _remove_directory(path)

    def forget(self, place: str) -> None:
        """Take down a shared mount of what is gone, even if it is used, and delete the place.

        Whoever has files open there keeps them. What shows a directory that exists, another store's, is left.
        """
        if not os.path.isdir(place):
            return
        from hostspec.kernel.mountinfo import mount_at  # noqa: PLC0415 - only who shifts needs it
        from hostspec.kernel.mounts import unmount_all  # noqa: PLC0415 - only who shifts needs it

        place = os.path.realpath(place)
        shown = mount_at(place)
        if shown is not None and shown.root.endswith(_DELETED):
            unmount_all(place)
        _remove_directory(place)

    def take_down_deleted(self) -> None:
        """Take down the shared mounts of layers whose directory is gone, which somebody else deleted."""
        if not self._layer_ids():
            return
        from hostspec.kernel.mountinfo import mount_table  # noqa: PLC0415 - only where something is shifted

        here = os.path.realpath(self._places)
        for entry in mount_table():
            if os.path.dirname(entry.mount_point) == here and entry.root.endswith(_DELETED):
                self.forget(entry.mount_point)

    def take_down_unused(self, tree_of: Callable[[str], str | None]) -> None:
        """Take down the shared mounts in which nobody works.

        Args:
            tree_of: Returns the directory of one of our layers, ``None`` for the ID of no layer of ours.
        """
        for layer_id in self._layer_ids():
            tree, place = tree_of(layer_id), self.place(layer_id)
            if tree is not None and self.is_shown(tree, place):
                with suppress(OSError):
                    self.unmount(place, patient=False)
        with suppress(OSError):
            os.rmdir(self._places)

    def _layer_ids(self) -> list[str]:
        try:
            return os.listdir(self._places)
        except FileNotFoundError:
            return []

    def _clone(self, directory: str, idmap: IdMap, *, read_only: bool) -> int:
        from hostspec.kernel.idmapped import idmapped_clone  # noqa: PLC0415 - only who shifts needs it
        from hostspec.kernel.usernamespaces import user_namespace  # noqa: PLC0415

        if not self._switched_on:
            raise self._refusal(idmap, f"switched off by the option {self._driver}.hostspec_shifting")
        try:
            namespace = user_namespace(idmap)
        except OSError as refusal:
            raise self._refusal(
                idmap, f"no user namespace can have this map here: {refusal.strerror}"
            ) from refusal
        try:
            return idmapped_clone(directory, namespace, read_only=read_only)
        except OSError as refusal:
            if refusal.errno not in _MEANINGS:
                raise
            raise self._refusal(idmap, f"{_MEANINGS[refusal.errno]} ({refusal})") from refusal

    def _refusal(self, idmap: IdMap, reason: str) -> OperationNotSupported:
        return OperationNotSupported(self._driver, f"mount under the ID map {idmap}", reason)


_MEANINGS: dict[int | None, str] = {
    errno.EPERM: "idmapped mounts need CAP_SYS_ADMIN over the file system",
    errno.EINVAL: "this kernel cannot map IDs on this file system",
    errno.ENOSYS: "this kernel has no idmapped mounts: they came with Linux 5.12",
}


def _attach(clone: int, target: str) -> None:
    from hostspec.kernel.mountfds import move_mount  # noqa: PLC0415 - only who shifts needs it

    move_mount(clone, target)


def _refuse_other_map(tree: str, place: str, idmap: IdMap) -> None:
    """Refuse to pass off a mount under another map; the owner of its root tells, if it has one there."""
    own, shown = os.stat(tree), os.stat(place)
    wanted = (idmap.uids.find_host(own.st_uid), idmap.gids.find_host(own.st_gid))
    if None not in wanted and wanted != (shown.st_uid, shown.st_gid):
        raise OSError(errno.EBUSY, "the layer is mounted there under another ID map", place)


def _remove_directory(path: str) -> None:
    # Somebody may be faster, or may mount here again.
    with suppress(OSError):
        os.rmdir(path)
