"""hostspec graph driver on overlayfs: a layer is an upper directory over its parents'."""

from __future__ import annotations

from hostspec_overlay.driver import OverlayDriver, open_driver

__all__ = ["OverlayDriver", "open_driver"]
