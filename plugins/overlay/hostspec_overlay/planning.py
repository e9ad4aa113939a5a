"""From a layer to the overlay mount that shows it."""

from __future__ import annotations

import os
from collections.abc import Sequence

from hostspec.errors import OperationNotSupported
from hostspec.idmap import IdMap
from hostspec.kernel.deletion import delete_tree
from hostspec_overlay.layout import MAX_DEPTH, LayerDirectory, Lower
from hostspec_overlay.mounting import MountPlan
from hostspec_overlay.options import DRIVER, MountChoices
from hostspec_overlay.roots import (
    content_is_shifted,
    make_directory,
    restore_root,
    root_is_shifted,
    shift_root,
)

__all__ = ["empty_lower", "plan_mount"]


def plan_mount(
    layer: LayerDirectory,
    below: Sequence[Lower],
    choices: MountChoices,
    *,
    home: str,
    spare: str,
    idmap: IdMap,
    label: str = "",
    by_program: bool = False,
) -> MountPlan:
    """Return how a layer is to be mounted, and prepare its own directories for it.

    Args:
        layer: The layer.
        below: Everything below its ``diff``, uppermost first.
        choices: With ``ro`` for a mount without an upper directory, so that ``diff`` is only read.
        home: The driver's home.
        spare: Path of an empty directory, made where a layer has none and may not be written.
        idmap: Show what lies below, and in a read-only mount what the layer itself brought unmapped, so.
        label: SELinux label.
        by_program: A program mounts it, which maps the layer's own directories too.

    Raises:
        OperationNotSupported: There are more layers than the kernel mounts, or the map cannot be shown.
        OSError: The operating system refused.
    """
    read_only = "ro" in choices.attributes
    if layer.writable:
        restore_root(layer.diff)
    shifted = (
        bool(idmap)
        and not by_program
        and _prepare_shift(layer, below[0].path if below else None, idmap, read_only=read_only)
    )
    lowers = [layer.as_lower("diff"), *below] if read_only else list(below)
    if len(lowers) > MAX_DEPTH:
        raise OperationNotSupported(
            DRIVER, f"mount layer {layer.layer_id}", f"the kernel mounts at most {MAX_DEPTH} layers at once"
        )
    if not below:
        # There must be something below; a read-only mount wants two layers.
        lowers.append(empty_lower(layer, spare))
    if not os.path.isdir(home):
        home = lowers[0].home  # without a layer of its own: what is mounted lies in an additional store
    plan = MountPlan(home, lowers, choices=choices, label=label, idmap=idmap)
    if read_only and by_program:
        return plan._replace(choices=choices.without_overlay("volatile"))
    if read_only:
        return plan._replace(
            # An index would refuse a directory that another mount writes to.
            choices=choices.without_overlay("volatile").with_overlay("index", "off"),
            mapped_from=1 if shifted else 0,
        )
    _forget_volatile_use(layer)
    return plan._replace(upper=layer.diff, work=layer.work)


def _prepare_shift(layer: LayerDirectory, below: str | None, idmap: IdMap, *, read_only: bool) -> bool:
    """Tell whether what the layer holds has its host IDs already; make it so where it is to be written."""
    if root_is_shifted(idmap, layer.diff, below):
        return True
    if content_is_shifted(idmap, layer.diff):
        if layer.writable:
            shift_root(layer.diff, idmap)
        return True
    if read_only:
        return False
    if os.listdir(layer.diff):
        raise OperationNotSupported(
            DRIVER,
            f"mount layer {layer.layer_id} under ID map {idmap}",
            "the upper directory of an overlay cannot be mapped, and it holds unmapped files; "
            "mount a new layer on top of it instead, or mount it read-only",
        )
    shift_root(layer.diff, idmap)
    return True


def _forget_volatile_use(layer: LayerDirectory) -> None:
    """Let a layer be mounted again that was mounted volatile, as containers/storage does.

    The kernel refuses, since the machine may have crashed in between.
    """
    delete_tree(f"{layer.work}/work/incompat/volatile")


def empty_lower(layer: LayerDirectory, spare: str = "") -> Lower:
    """Return an empty directory to stand below a layer that stands on none.

    Args:
        layer: The layer.
        spare: Where to make one for a layer that may not be written; absolute path.

    Raises:
        OSError: The operating system refused.
    """
    if not os.path.isdir(layer.empty):
        if not layer.writable:
            os.makedirs(spare, 0o700, exist_ok=True)
            return Lower(os.path.dirname(spare), os.path.basename(spare))
        make_directory(layer.empty, mode=0o700)
    return layer.as_lower("empty")
