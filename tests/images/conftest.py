from __future__ import annotations

from tests.store.conftest import open_here, store

__all__ = ["open_here", "store"]
