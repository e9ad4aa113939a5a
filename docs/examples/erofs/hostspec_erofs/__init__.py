"""The EROFS graph driver: an image layer is one compressed file, mounted below an overlay."""

from __future__ import annotations

from hostspec_erofs.driver import ErofsDriver, open_driver

__all__ = ["ErofsDriver", "open_driver"]
