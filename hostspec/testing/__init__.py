"""The conformance suite for graph drivers.

``pytest --pyargs hostspec.testing --driver NAME`` proves an installed driver; a subclass of
:class:`DriverConformance` proves it in its author's own repository.

The only part of hostspec that imports pytest (extra ``hostspec[testing]``).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from hostspec.testing.driver_opener import DriverOpener
    from hostspec.testing.layers import Layers
    from hostspec.testing.suite import DriverConformance
    from hostspec.testing.tree import Entry, Tree

__all__ = ["DriverConformance", "DriverOpener", "Entry", "Layers", "Tree"]

# Before the modules with the tests are imported, so that their assertions explain themselves.
pytest.register_assert_rewrite(
    *(
        f"hostspec.testing.{module}"
        for module in (
            "additional_stores",
            "chains",
            "changes",
            "concurrency",
            "crashes",
            "diff_apply",
            "facts",
            "id_maps",
            "life_cycle",
            "mounts",
            "ownership",
            "random_operations",
            "refusals",
            "templates",
            "untrusted_tars",
            "whiteouts",
            "writing",
        )
    )
)

_HOMES = {
    "DriverConformance": "suite",
    "DriverOpener": "driver_opener",
    "Entry": "tree",
    "Layers": "layers",
    "Tree": "tree",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is asked for.

    Every run of pytest where hostspec is installed imports this package for its options, and most
    of them test no driver.
    """
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
