"""Tests that need what this machine's kernel may lack, under Debian's kernels in a virtual machine.

Off unless ``HOSTSPEC_VM_TESTS=1``, as they download kernels and take many minutes. What runs in the guest is
ordinary pytest, with the features that every one of these kernels has required by ``HOSTSPEC_REQUIRE``, so
that it cannot pass by skipping. ``docs/kernels.md`` describes the settings, and has the results.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from hostspec.testing.requirements import require_or_skip
from tests.vm.expectations import SERIES
from tests.vm.guest import REPORT, run_in_guest
from tests.vm.kernels import fetch, latest
from tests.vm.results import keep, read_report

CHECKOUT = Path(__file__).parents[2]
_PROGRAMS = ("qemu-system-x86_64", "apt-get", "dpkg-deb", "depmod", "modprobe", "busybox")
_DEFAULT_MINUTES = "60"
_REQUIRED = ("project-quotas", "overlay", "btrfs", "vfs", "xfs", "busybox", "runc")

_QUOTAS = ("plugins/overlay/tests/test_project_quotas.py", "tests/run/test_quota_events.py")
_SUITES = tuple(
    f"plugins/{driver}/tests/test_conformance.py::{case}"
    for driver, case in (
        ("overlay", "TestOnExt4"),
        ("btrfs", "TestBtrfs"),
        ("btrfs", "TestDirectoriesOfBtrfs"),
        ("vfs", "TestVfsOnExt4"),
        ("vfs", "TestDirectoriesOfVfs"),
    )
)


def _series() -> list[str]:
    return [each.strip() for each in os.environ.get("HOSTSPEC_VM_KERNELS", ",".join(SERIES)).split(",")]


@pytest.fixture(autouse=True)
def _machine() -> None:
    """End the test where this machine cannot boot another kernel, or shall not."""
    if os.environ.get("HOSTSPEC_VM_TESTS") != "1":
        require_or_skip("vm", "takes many minutes; HOSTSPEC_VM_TESTS=1 switches it on")
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    missing = [name for name in _PROGRAMS if shutil.which(name, path=path) is None]
    if missing:
        packages = "qemu-system-x86, kmod and busybox-static"
        require_or_skip("vm", f"{', '.join(missing)} is missing; install {packages}")


@pytest.mark.parametrize("series", _series())
def test_the_drivers_and_their_quotas_work_under_another_kernel(series: str) -> None:
    kernel = fetch(latest(series))
    whole = os.environ.get("HOSTSPEC_VM_WHOLE") == "1"
    finished = run_in_guest(
        kernel,
        (
            *(sys.executable, "-m", "pytest", "-q", "-n2", "-p", "no:cacheprovider", f"--junitxml={REPORT}"),
            *(() if whole else ("-p", "tests.vm.one_of_each")),
            *("tests/vm/ways.py", *_QUOTAS, *_SUITES),
        ),
        directory=str(CHECKOUT),
        environment={"HOSTSPEC_REQUIRE": ",".join(_REQUIRED)},
        timeout=60 * float(os.environ.get("HOSTSPEC_VM_MINUTES", _DEFAULT_MINUTES)),
    )
    print(f"{kernel.version}:\n{finished.output}")  # noqa: T201 - pytest shows it where the test fails
    results = read_report(finished.report, kernel.version)
    if results:
        keep(results, series)
    assert finished.status == 0, finished.console
    assert sum(each.passed for each in results) > len(_SUITES)
