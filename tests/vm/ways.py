"""Run in the guest beside the suites: what drivers find out about this kernel, for the report and the record.

Not collected by itself; :mod:`tests.vm.test_kernels` names it.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hostspec.idmap import IdMap
from hostspec.store import open_store
from tests.scratch_filesystems import directory_for
from tests.vm.expectations import EXPECTED, series_here

_MAP = IdMap.parse(["0:514000:65536"])
_MOUNT_WAY = "Mount way "


@pytest.mark.parametrize("driver", ["overlay", "btrfs", "vfs"])
def test_the_driver_takes_the_best_ways_that_this_kernel_has(
    driver: str, request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> None:
    record_property("driver", driver)
    directory = directory_for(driver, request)
    with open_store(root=f"{directory}/graph", run_root=f"{directory}/run", driver=driver) as store:
        facts = dict(store.status())
        strategies = [way.name for way in store.idmap_strategies(_MAP) if way.possible]
    mount_ways = [name.removeprefix(_MOUNT_WAY) for name in facts if name.startswith(_MOUNT_WAY)]
    working = [way for way in mount_ways if facts[_MOUNT_WAY + way].startswith("yes")]
    record_property("mounts", working[0] if working else "bind")
    record_property("strategies", ", ".join(strategies))

    expected = EXPECTED[series_here()]
    assert ("shift" in strategies) == expected.shifts
    assert {"template", "copy"} & set(strategies)
    if driver == "overlay":
        assert working[0] == expected.overlay_mounts
