"""The loopimage graph driver: a layer is a file system in a file, and a new layer is a clone of that file."""

from __future__ import annotations

from hostspec_loopimage.driver import LoopimageDriver, open_driver

__all__ = ["LoopimageDriver", "open_driver"]
