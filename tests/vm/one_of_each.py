"""Pytest plugin: what of the conformance suite can depend on the kernel, as an emulated processor is slow.

Of a test with parameters the first set; of those about mounts and shifting, where kernels differ most, all.
"""

from __future__ import annotations

import pytest

_SUITE = "hostspec.testing."
_ABOUT_THE_KERNEL = frozenset(
    {"chains", "children", "idmapped_binds", "mounts", "on_disk", "ownership", "shifting", "templates"}
    | {"whiteouts", "writing"}
)
_ALL_OF = ("mount", "shift")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the rest of the suite; other tests stay."""
    kept: dict[tuple[object, str], pytest.Item] = {}
    left_out = []
    for item in items:
        module = getattr(item, "function").__module__  # noqa: B009 - Item does not promise it; every test has it
        name = item.name.partition("[")[0]
        whole = not module.startswith(_SUITE) or any(word in name for word in _ALL_OF)
        matters = not module.startswith(_SUITE) or module.removeprefix(_SUITE) in _ABOUT_THE_KERNEL
        if not matters or kept.setdefault((item.parent, item.name if whole else name), item) is not item:
            left_out.append(item)
    items[:] = kept.values()
    config.hook.pytest_deselected(items=left_out)
