"""The conformance suite for graph drivers: subclass :class:`DriverConformance`, supply the driver.

The only part of hostspec that imports pytest (extra ``hostspec[testing]``).
"""

from __future__ import annotations

import pytest

# Before the modules with the tests are imported, so that their assertions explain themselves.
pytest.register_assert_rewrite(
    *(
        f"hostspec.testing.{module}"
        for module in (
            "changes",
            "diff_apply",
            "facts",
            "life_cycle",
            "mounts",
            "ownership",
            "templates",
            "untrusted_tars",
            "whiteouts",
        )
    )
)

from hostspec.testing.layers import Layers  # noqa: E402
from hostspec.testing.opening import DriverOpener  # noqa: E402
from hostspec.testing.suite import DriverConformance  # noqa: E402
from hostspec.testing.tree import Entry, Tree  # noqa: E402

__all__ = ["DriverConformance", "DriverOpener", "Entry", "Layers", "Tree"]
