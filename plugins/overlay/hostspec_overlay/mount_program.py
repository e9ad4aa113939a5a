"""Mounting by a program instead of the kernel's overlayfs: fuse-overlayfs, or another one with its options.

The program is called as containers/storage calls it (``drivers/overlay/overlay.go``, ``get``)::

    cd HOME; PROGRAM -o lowerdir=A:B,upperdir=…,workdir=…,OPTIONS,uidmapping=…,gidmapping=… TARGET

It maps IDs in both directions, so that under a map too the layers' files carry unmapped IDs. It goes on in a
process of its own, which ends with the mount.

What such a program writes, the kernel's overlayfs does not read (deleted files are ``.wh.NAME`` where the
program may make no devices, and opaque directories hold a ``.wh..wh..opq``). So the first writable mount
leaves a note in the home, by which the Go library and this driver know that the store needs a program.
"""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from typing import NamedTuple

from hostspec.idmap import IdRanges
from hostspec_overlay.layout import Lower
from hostspec_overlay.mounting import MountPlan
from hostspec_overlay.noted_program import note_mount_program
from hostspec_overlay.roots import show_masked_root

__all__ = ["MountProgram"]

_PERMISSIONS_IN_USER_XATTR = 2  # fuse-overlayfs(1): keep owner and mode in user.containers.override_stat


class MountProgram(NamedTuple):
    """A program that mounts layers."""

    path: str
    """Absolute path of the executable."""
    home: str
    """The driver's home, in which the program is started."""
    keeps_modes_apart: bool = False
    """Owners and modes are in an extended attribute (``force_mask``)."""

    def mount(self, plan: MountPlan, target: str) -> None:
        """Mount at ``target``; the program's process ends when that is unmounted.

        Raises:
            OSError: The program failed, with its own words; nothing is mounted.
        """
        if plan.upper is not None:
            note_mount_program(self.home)
            if self.keeps_modes_apart:
                show_masked_root(plan.upper)
        options = ",".join(self._options(plan))
        done = subprocess.run(
            (self.path, "-o", options, target),
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        if done.returncode:
            said = os.fsdecode(done.stderr).strip().replace("\n", "; ")
            reason = said or f"it exited with status {done.returncode}"
            raise OSError(errno.EIO, f"mount program {self.path}: {reason}", target)

    def _options(self, plan: MountPlan) -> Iterator[str]:
        yield "lowerdir=" + ":".join(_escaped(_name(lower, self.home)) for lower in plan.lowers)
        for key, path in (("upperdir", plan.upper), ("workdir", plan.work)):
            if path is not None:
                yield f"{key}={_escaped(path)}"
        yield from sorted(plan.choices.attributes)
        for name, value in plan.overlay_options():
            yield name if value is None else f"{name}={_escaped(value)}"
        if plan.idmap:
            yield _mapping("uid", plan.idmap.uids)
            yield _mapping("gid", plan.idmap.gids)
        if self.keeps_modes_apart:
            yield f"xattr_permissions={_PERMISSIONS_IN_USER_XATTR}"


def _name(lower: Lower, home: str) -> str:
    """Return how to call a layer, seen from the home: short, since there may be 500 of them."""
    return lower.name if lower.home == home else lower.path


def _escaped(text: str) -> str:
    """Keep commas from ending an option, as libfuse reads it."""
    return text.replace("\\", "\\\\").replace(",", "\\,")


def _mapping(kind: str, ranges: IdRanges) -> str:
    """Return the option that maps one kind of ID.

    Where the map holds a single ID, every file gets it, as with the Go library.
    """
    found = list(ranges)
    if len(found) == 1 and found[0].size == 1:
        return f"squash_to_{kind}={found[0].host_id}"
    return f"{kind}mapping=" + ":".join(f"{each.container_id}:{each.host_id}:{each.size}" for each in found)
