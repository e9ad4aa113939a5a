"""The ownership pass: a layer's whole tree under another ID map.

Files that the layer inherits are changed through an overlay mount, which copies each up into the upper
directory as its owner changes. The result is then put below the layer's own (still empty) difference::

    before   diff                  over the layers below
    pass     diff + mount          what is inherited is copied up and changed
    after    diff (empty), diff1   over the layers below

so that ``diff``, ``changes`` and every other client see only what is added from then on; this is what
``UpdateLayerIDMap`` in containers/storage's ``drivers/overlay/overlay.go`` leaves. What the layer had added
*before* the pass stays in ``diff``, and is changed where it lies; what it hides of the layers below is left
alone, since nobody sees it and the map need not cover it.

The mount is detached: no one sees it, and it ends with this process. It is ``volatile`` (Linux 5.10), for
else the content of each copied file is synced by itself; instead the file system is synced once at the end.
With metacopy no content is copied, and there is nothing to sync: metadata waits for the journal in any mount.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple

from hostspec.archive.lowers import read_xattr
from hostspec.archive.upper import inspect_upper
from hostspec.archive.whiteouts import is_whiteout_device
from hostspec.idmap import IdMap
from hostspec.kernel.filesystems import sync_filesystem
from hostspec.kernel.mounts import unmount
from hostspec.kernel.reflink import supports_reflinks
from hostspec.ownership import shift_tree
from hostspec.values import Shifted, ShiftOptions
from hostspec_overlay.environment import whiteout_form
from hostspec_overlay.layout import LayerDirectory, Lower, numbered_diffs
from hostspec_overlay.mounting import MountPlan, detached_overlay, mount_overlay
from hostspec_overlay.options import MountChoices
from hostspec_overlay.roots import copy_root, make_directory

__all__ = ["OwnershipPass"]


class OwnershipPass(NamedTuple):
    """One pass over one layer."""

    layer: LayerDirectory
    lowers: list[Lower]
    """Everything below the layer's ``diff``, uppermost first."""
    choices: MountChoices
    """The store's own mount options: what every other client mounts with too."""
    mount_api: str
    """The user's choice of a way to mount."""
    new_place: Callable[[str], str]
    """Gives a path in the driver's working area for something of that name."""
    discard: Callable[[str], object]
    """Takes a path out of sight, to be deleted later."""

    def run(self, old: IdMap, new: IdMap, options: ShiftOptions) -> Shifted:
        """Give every file the IDs of ``new`` instead of ``old``.

        Raises:
            IdNotMapped: An ID is outside one of the maps, and squashing is not allowed.
            OSError: The operating system refused.
        """
        diff = self.layer.diff
        if not self.lowers:
            return _shift(diff, old, new, options)
        if not os.listdir(diff):
            inherited = self._pass_over_inherited(old, new, options)
            copy_root(f"{diff}1", diff)
            return inherited
        hidden = _hidden_by(diff)
        own_difference = self.new_place("own-difference")
        os.rename(diff, own_difference)
        make_directory(diff)
        copy_root(own_difference, diff)
        inherited = self._pass_over_inherited(old, new, options, hidden=hidden)
        os.rmdir(diff)
        os.rename(own_difference, diff)
        _give_whiteouts_an_owner(diff, old.root())
        own = _shift(diff, old, new, options)
        return Shifted(
            own.inodes + inherited.inodes, inherited.bytes_copied, own.squashed + inherited.squashed
        )

    def _pass_over_inherited(
        self, old: IdMap, new: IdMap, options: ShiftOptions, *, hidden: Container[str] = frozenset()
    ) -> Shifted:
        """Change what the layers below bring, into ``diff1``; ``diff`` is empty before and after."""
        self._renew_work()
        with self._mounted(options.mount_label) as root:
            inherited = _shift(
                root, old, new, options, copies_content=self._copies_content(), left_out=hidden
            )
        if not self._has_metacopy():
            sync_filesystem(self.layer.diff)
        self._rotate()
        # The kernel remembers in it which upper directory it was used with.
        self._renew_work()
        return inherited

    def _has_metacopy(self) -> bool:
        return self.choices.overlay_option("metacopy") == "on"

    def _copies_content(self) -> bool:
        return not self._has_metacopy() and not _has_reflinks(self.layer.home)

    @contextmanager
    def _mounted(self, label: str) -> Iterator[str]:
        """Give the layer's tree through a mount of our own, unseen by others if the kernel can do that."""
        choices = MountChoices(overlay=self.choices.overlay).without_overlay("volatile")
        plan = MountPlan(
            home=self.layer.home,
            lowers=self.lowers,
            upper=self.layer.diff,
            work=self.layer.work,
            choices=choices.with_overlay("volatile"),
            label=label,
        )
        try:
            mount = self._detached(plan)
        except OSError as error:
            if error.errno != errno.ENOSYS:
                raise
            with self._mounted_visibly(plan) as path:
                yield path
            return
        try:
            # Not the descriptor's own name, which is a symbolic link.
            yield f"/proc/self/fd/{mount}/."
        finally:
            os.close(mount)

    def _detached(self, plan: MountPlan) -> int:
        try:
            return detached_overlay(plan, self.mount_api)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        # Before Linux 5.10 there is no such option.
        return detached_overlay(
            plan._replace(choices=plan.choices.without_overlay("volatile")), self.mount_api
        )

    @contextmanager
    def _mounted_visibly(self, plan: MountPlan) -> Iterator[str]:
        """Mount in the working area, where whoever clears away after dead processes takes it down."""
        target = self.new_place("ownership-pass")
        os.mkdir(target, 0o700)
        mount_overlay(plan, target, self.mount_api)
        try:
            yield target
        finally:
            unmount(target, lazy=True)
            os.rmdir(target)

    def _rotate(self) -> None:
        """Rename ``diff`` to ``diff1``, ``diff1`` to ``diff2``, and so on; make an empty ``diff``."""
        diff = self.layer.diff
        for number in range(len(list(numbered_diffs(diff))), 0, -1):
            os.rename(f"{diff}{number}", f"{diff}{number + 1}")
        os.rename(diff, f"{diff}1")
        make_directory(diff)

    def _renew_work(self) -> None:
        found = os.stat(self.layer.work)
        self.discard(self.layer.work)
        make_directory(self.layer.work, mode=stat.S_IMODE(found.st_mode), owner=(found.st_uid, found.st_gid))


def _shift(
    root: str,
    old: IdMap,
    new: IdMap,
    options: ShiftOptions,
    *,
    copies_content: bool = False,
    left_out: Container[str] = frozenset(),
) -> Shifted:
    return shift_tree(
        root,
        old,
        new,
        squash=options.squash,
        threads=options.threads,
        copies_content=copies_content,
        left_out=left_out,
        progress=options.progress,
    )


def _hidden_by(diff: str) -> frozenset[str]:
    """Return the paths, from the layer's root, at which nothing of the layers below shows through.

    They are those of all that is no directory, and of opaque directories. Whoever deletes or replaces what
    is there leaves the path hidden, so that a later pass does not meet what this one left alone.
    """
    form = whiteout_form()
    if inspect_upper(diff, form=form).has_redirects:
        # What is hidden at its own path may show at another.
        return frozenset()
    hidden: set[str] = set()
    for directory, subdirectories, names in os.walk(diff):
        opaque = {
            name
            for name in subdirectories
            if os.path.islink(f"{directory}/{name}")
            or read_xattr(f"{directory}/{name}", f"{form.xattr_prefix}opaque") == b"y"
        }
        hidden.update(f"{directory[len(diff) :]}/{name}" for name in opaque.union(names))
        subdirectories[:] = [name for name in subdirectories if name not in opaque]
    return frozenset(hidden)


def _give_whiteouts_an_owner(diff: str, owner: tuple[int, int]) -> None:
    """Let whiteouts carry IDs that the map covers: theirs mean nothing, but must not fail the pass."""
    for directory, _, names in os.walk(diff):
        for name in names:
            found = os.lstat(f"{directory}/{name}")
            if is_whiteout_device(found):
                os.chown(f"{directory}/{name}", *owner, follow_symlinks=False)


_has_reflinks = cache(supports_reflinks)
