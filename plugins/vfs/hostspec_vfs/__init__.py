"""The graph driver of plain directories: each layer is a whole copy of its parent.

Announced as ``vfs`` in the entry-point group ``hostspec.drivers``.
"""

from __future__ import annotations

from hostspec_vfs.driver import VfsDriver, open_driver

__all__ = ["VfsDriver", "open_driver"]
