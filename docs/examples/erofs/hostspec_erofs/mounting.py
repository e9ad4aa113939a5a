"""From a chain of layers to one overlay, with nothing between that anybody could see or leave behind.

Each layer becomes a *detached* mount, under its map if it has one. A thread of its own, in a mount
namespace of its own, puts them into a tmpfs, mounts the overlay over them, and hands that out as a detached
mount again. What the thread mounted is gone with it, however it ends; the overlay keeps the file systems
alive that it needs. So there is nothing to count: the last mount of an image that goes takes its loop
device along.

Linux 5.19 can map EROFS and the lower layers of an overlay. The detour through a namespace is for kernels
before 6.15, on which an overlay cannot stand on detached mounts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

from hostspec.errors import OperationNotSupported
from hostspec.kernel.mountfds import move_mount, open_tree, set_attributes
from hostspec.kernel.mounts import MS_RDONLY, mount, private_mount_namespace
from hostspec.kernel.usernamespaces import user_namespace
from hostspec_erofs.images import mount_image
from hostspec_erofs.layers import Layer, Level

__all__ = ["MAX_DEPTH", "mounted_levels", "overlay"]

MAX_DEPTH = 500
"""Layers that the kernel takes in one overlay (OVL_MAX_STACK in fs/overlayfs)."""

_OPTIONS = "redirect_dir=nofollow,metacopy=off,index=off"
"""So that every file in an upper directory is whole, and at its own place, when an image is made of it."""


@contextmanager
def mounted_levels(levels: Sequence[Level]) -> Iterator[list[str]]:
    """Give paths to what each layer of a chain adds, as it is to be seen, for the time of a ``with`` block.

    Those that add nothing are left out.
    """
    with ExitStack() as opened:
        paths = []
        for level in levels:
            if not level.layer.adds_nothing:
                descriptor = _detached(level)
                opened.callback(os.close, descriptor)
                # Not the descriptor's own name, which is a symbolic link.
                paths.append(f"/proc/self/fd/{descriptor}/.")
        yield paths


def overlay(place: str, levels: Sequence[Level], upper: Layer | None) -> int:
    """Return a detached mount of a chain.

    Args:
        place: Any directory that the overlay does not need; something is mounted over it, unseen by others.
        levels: The layers that are only read, uppermost first.
        upper: The layer that takes what is written; ``None`` for a read-only mount.

    Raises:
        OperationNotSupported: There are more layers than the kernel takes.
        OSError: The kernel refused.
    """
    lowers = [level for level in levels if not level.layer.adds_nothing]
    if len(lowers) > MAX_DEPTH:
        reason = f"the kernel mounts at most {MAX_DEPTH} layers at once"
        raise OperationNotSupported("erofs", f"mount {len(lowers)} layers", reason)
    with ThreadPoolExecutor(max_workers=1) as aside:
        return aside.submit(_overlay_aside, place, lowers, upper).result()


def _overlay_aside(place: str, lowers: Sequence[Level], upper: Layer | None) -> int:
    """Make the overlay, in a thread that does nothing else: it gets another namespace and directory."""
    private_mount_namespace()
    writable = [] if upper is None else [("upperdir", upper.diff), ("workdir", upper.work)]
    with ExitStack() as opened:
        options = [_OPTIONS]
        for key, path in writable:
            descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            opened.callback(os.close, descriptor)
            # By number there are no separators and no escapes, and a page is enough for all.
            options.append(f"{key}=/proc/self/fd/{descriptor}")
        layers = [_detached(level) for level in lowers]
        for layer in layers:
            opened.callback(os.close, layer)
        mount("tmpfs", place, "tmpfs")
        os.chdir(place)
        names = [str(number) for number in range(len(layers))]
        for name, layer in zip(names, layers, strict=True):
            os.mkdir(name)
            move_mount(layer, name)
        if len(names) < (1 if upper else 2):
            os.mkdir("empty")  # an overlay has an upper and a lower layer, or two lower ones
            names.append("empty")
        os.mkdir("merged")
        data = ",".join([f"lowerdir={':'.join(names)}", *options])
        mount("overlay", "merged", "overlay", 0 if upper else MS_RDONLY, data)
        return open_tree("merged", clone=True)


def _detached(level: Level) -> int:
    """Return a detached, read-only mount of what one layer adds, under its map."""
    layer = level.layer
    if layer.has_diff:
        made = open_tree(layer.diff, clone=True)
    else:
        image = os.open(layer.image, os.O_RDONLY | os.O_CLOEXEC)
        try:
            made = mount_image(image)
        finally:
            os.close(image)
    try:
        namespace = user_namespace(level.shift) if level.shift else None
        set_attributes(made, read_only=True, userns_fd=namespace)
    except BaseException:
        os.close(made)
        raise
    return made
