"""The graph driver of btrfs: each layer is a subvolume, a snapshot of its parent's.

Announced as ``btrfs`` in the entry-point group ``hostspec.drivers``.
"""

from __future__ import annotations

from hostspec_btrfs.driver import BtrfsDriver, open_driver

__all__ = ["BtrfsDriver", "open_driver"]
