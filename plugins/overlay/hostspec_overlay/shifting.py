"""The ownership pass: a layer's whole tree under another ID map.

Files that the layer inherits are written under their new IDs into a directory that is then put below the
layer's own (still empty) difference::

    before   diff                  over the layers below
    pass     diff, inherited       what is inherited is written
    after    diff (empty), diff1   over the layers below

so that ``diff``, ``changes`` and every other client see only what is added from then on; this is what
``UpdateLayerIDMap`` in containers/storage's ``drivers/overlay/overlay.go`` leaves. What the layer had added
*before* the pass stays in ``diff``, and is changed where it lies; what it hides of the layers below is left
alone, since nobody sees it and the map need not cover it.

Where it can be foreseen what the kernel would write, it is written without a mount
(:mod:`hostspec_overlay.inherited`), and like all other files of a layer it is synced when the store says so.
Otherwise (renamed directories, content checked by ``verity``, SELinux
labels by mount, a user namespace, a layer with a difference of its own, a tree too deep for the files that
this process may have open) files are changed through an overlay mount with ``diff`` for its upper directory,
which copies each up as its owner changes.

That mount is detached: no one sees it, and it ends with this process. It is ``volatile`` (Linux 5.10), for
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

from hostspec.archive.lowers import NotNative
from hostspec.archive.whiteouts import WhiteoutForm, is_whiteout_device
from hostspec.idmap import IdMap
from hostspec.idshift import IdShift
from hostspec.kernel.deletion import delete_tree
from hostspec.kernel.filesystems import sync_filesystem
from hostspec.kernel.mounts import unmount
from hostspec.kernel.own_directory import may_leave_shared_directory
from hostspec.kernel.reflink import supports_reflinks
from hostspec.ownership import shift_tree
from hostspec.values import Shifted, ShiftOptions
from hostspec_overlay.environment import whiteout_form
from hostspec_overlay.hidden import hidden_by
from hostspec_overlay.inherited import write_inherited
from hostspec_overlay.layout import LayerDirectory, Lower, numbered_diffs
from hostspec_overlay.mount_program import MountProgram
from hostspec_overlay.mounting import MountPlan, detached_overlay, mount_overlay
from hostspec_overlay.options import MountChoices
from hostspec_overlay.planning import empty_lower
from hostspec_overlay.roots import copy_root, make_directory

__all__ = ["OwnershipPass"]

_MOST_LOWERS = 32
"""Layers that are read without a mount: each may be open in each directory on the way down a tree."""

_UNFINISHED = "inherited"
"""Name, in the layer's directory, of what becomes ``diff1`` when it is complete."""


class OwnershipPass(NamedTuple):
    """One pass over one layer."""

    layer: LayerDirectory
    lowers: list[Lower]
    """Everything below the layer's ``diff``, uppermost first."""
    choices: MountChoices
    """The store's own mount options: what every other client mounts with too."""
    mount_api: str
    """The user's choice of a way to mount."""
    program: MountProgram | None
    """Mounts instead of the kernel."""
    direct: bool
    """Write what is inherited without a mount, where that leaves what a mount would."""
    volatile: bool
    """Sync once in the end instead of each file, where the kernel can do that."""
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
        if self.program is not None:
            return self._pass_by_program(self.program, old, new, options)
        if not self.lowers:
            return _shift(diff, old, new, options)
        if not os.listdir(diff):
            inherited = self._write_inherited(old, new, options)
            if inherited is None:
                inherited = self._pass_over_inherited(old, new, options)
            copy_root(f"{diff}1", diff)
            return inherited
        hidden = hidden_by(diff, whiteout_form())
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

    def _pass_by_program(
        self, program: MountProgram, old: IdMap, new: IdMap, options: ShiftOptions
    ) -> Shifted:
        """Change all that the layer shows: only the program knows how it keeps owners and deletions."""
        plan = MountPlan(
            home=self.layer.home,
            lowers=self.lowers or [empty_lower(self.layer)],
            upper=self.layer.diff,
            work=self.layer.work,
            choices=MountChoices(overlay=self.choices.overlay),
            label=options.mount_label,
        )
        with self._mounted_visibly(lambda target: program.mount(plan, target)) as root:
            done = _shift(root, old, new, options, copies_content=True)
        sync_filesystem(self.layer.diff)
        if self.lowers:
            self._rotate()
            copy_root(f"{self.layer.diff}1", self.layer.diff)
        self._renew_work()
        return done

    def _write_inherited(self, old: IdMap, new: IdMap, options: ShiftOptions) -> Shifted | None:
        """Write what the layers below bring into ``diff1`` without a mount; ``None`` where that cannot be."""
        if not self._can_write_directly(options.mount_label):
            return None
        place = f"{self.layer.path}/{_UNFINISHED}"
        make_directory(place, mode=0o700)
        try:
            written = write_inherited(
                [lower.path for lower in self.lowers],
                self.layer.diff,
                place,
                IdShift(old, new, squash=options.squash),
                stubs=self._has_metacopy(),
                threads=options.threads,
                progress=options.progress,
            )
        except BaseException as failure:
            delete_tree(place)
            if isinstance(failure, NotNative) or _is_too_deep(failure):
                return None
            raise
        self._make_room()
        os.rename(place, f"{self.layer.diff}1")
        return written

    def _can_write_directly(self, label: str) -> bool:
        """Tell whether what the kernel would make can be foreseen in everything."""
        return (
            self.direct
            and whiteout_form() is WhiteoutForm.OVERLAY
            and len(self.lowers) <= _MOST_LOWERS
            and not label
            and self.choices.overlay_option("verity") in {None, "off"}
            and self.choices.overlay_option("userxattr") is None
            and may_leave_shared_directory()
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
            choices=choices.with_overlay("volatile") if self.volatile else choices,
            label=label,
        )
        try:
            mount = self._detached(plan)
        except OSError as error:
            if error.errno != errno.ENOSYS:
                raise
            with self._mounted_visibly(lambda target: mount_overlay(plan, target, self.mount_api)) as path:
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
    def _mounted_visibly(self, mount: Callable[[str], None]) -> Iterator[str]:
        """Mount in the working area, where whoever clears away after dead processes takes it down."""
        target = self.new_place("ownership-pass")
        os.mkdir(target, 0o700)
        mount(target)
        try:
            yield target
        finally:
            unmount(target, lazy=True)
            os.rmdir(target)

    def _rotate(self) -> None:
        """Rename ``diff`` to ``diff1``, ``diff1`` to ``diff2``, and so on; make an empty ``diff``."""
        diff = self.layer.diff
        self._make_room()
        os.rename(diff, f"{diff}1")
        make_directory(diff)

    def _make_room(self) -> None:
        """Rename ``diff1`` to ``diff2``, and so on."""
        diff = self.layer.diff
        for number in range(len(list(numbered_diffs(diff))), 0, -1):
            os.rename(f"{diff}{number}", f"{diff}{number + 1}")

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


def _is_too_deep(failure: BaseException) -> bool:
    """Tell whether more layers had a directory, all the way down to it, than this process may open."""
    return isinstance(failure, OSError) and failure.errno == errno.EMFILE


def _give_whiteouts_an_owner(diff: str, owner: tuple[int, int]) -> None:
    """Let whiteouts carry IDs that the map covers: theirs mean nothing, but must not fail the pass."""
    for directory, _, names in os.walk(diff):
        for name in names:
            found = os.lstat(f"{directory}/{name}")
            if is_whiteout_device(found):
                os.chown(f"{directory}/{name}", *owner, follow_symlinks=False)


_has_reflinks = cache(supports_reflinks)
