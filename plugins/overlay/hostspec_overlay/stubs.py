"""Stubs that an ownership pass left in a layer: files whose content is found below by ``metacopy=on`` only.

The kernel refuses them (EPERM) to a mount without that option. Whether a store has it may change, and what
was made before has to be shown all the same.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from hostspec_overlay.layout import Lower
from hostspec_overlay.options import MountChoices

__all__ = ["follow_stubs", "holds_stubs"]

_STUB = "trusted.overlay.metacopy"


def follow_stubs(choices: MountChoices, lowers: Sequence[Lower]) -> MountChoices:
    """Return mount options by which every file in these layers has its content.

    Args:
        choices: The options that the mount is to have. Where others among them forbid metacopy, they are
            returned as they are.
        lowers: Everything below the upper directory.

    Raises:
        OSError: The operating system refused.
    """
    if choices.overlay_option("metacopy") == "on" or _excludes_metacopy(choices):
        return choices
    # Only beside a ``diff`` that is empty since: what was written by a pass.
    passes = (lower.path for lower in lowers if os.path.basename(lower.name)[len("diff") :].isdigit())
    return choices.with_overlay("metacopy", "on") if any(map(holds_stubs, passes)) else choices


def holds_stubs(directory: str) -> bool:
    """Tell whether an ownership pass left stubs in a directory.

    It leaves either all content or none below, so that the first file with any tells.

    Raises:
        OSError: The operating system refused.
    """
    for parent, _, names in os.walk(directory):
        for name in names:
            path = f"{parent}/{name}"
            found = os.lstat(path)
            if stat.S_ISREG(found.st_mode) and found.st_size:
                return _STUB in os.listxattr(path, follow_symlinks=False)
    return False


def _excludes_metacopy(choices: MountChoices) -> bool:
    return (
        choices.overlay_option("userxattr") is not None
        or choices.overlay_option("nfs_export") == "on"
        or choices.overlay_option("redirect_dir") not in {None, "on"}
    )
