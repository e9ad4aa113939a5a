"""What a guest's report says, and the table that is made of it."""

from __future__ import annotations

from tests.vm.results import Result, read_report, with_table

REPORT = """<?xml version="1.0" encoding="utf-8"?>
<testsuites><testsuite name="pytest" errors="1" failures="1" skipped="1" tests="6">
<testcase classname="tests.vm.ways" name="test_the_driver[overlay]"><properties>
<property name="driver" value="overlay"/><property name="mounts" value="string"/>
<property name="strategies" value="template, copy"/></properties></testcase>
<testcase classname="plugins.overlay.tests.test_conformance.TestOnExt4" name="test_a"/>
<testcase classname="plugins.overlay.tests.test_conformance.TestOnExt4" name="test_b"><skipped/></testcase>
<testcase classname="plugins.overlay.tests.test_project_quotas" name="test_c[xfs]"/>
<testcase classname="plugins.vfs.tests.test_conformance.TestVfsOnExt4" name="test_d"><failure/></testcase>
<testcase classname="plugins.vfs.tests.test_conformance.TestVfsOnExt4" name="test_e"><error/></testcase>
</testsuite></testsuites>
"""


def test_a_report_is_counted_by_driver_and_quotas_apart() -> None:
    found = [each._replace(date="") for each in read_report(REPORT, "5.10.0-46-amd64")]
    assert found == [
        Result("5.10.0-46-amd64", "overlay", 2, 1, 0, "string", "template, copy", ""),
        Result("5.10.0-46-amd64", "project quotas", 1, 0, 0, "", "", ""),
        Result("5.10.0-46-amd64", "vfs", 0, 0, 2, "", "", ""),
    ]


def test_a_guest_without_a_report_has_no_results() -> None:
    assert read_report("", "5.10.0-46-amd64") == []


def test_the_table_takes_the_place_of_the_one_before() -> None:
    page = "before\n<!-- results -->\nold\n<!-- end of results -->\nafter\n"
    result = Result("6.1.0-56-amd64", "btrfs", 131, 2, 0, "bind", "shift", "2026-11-24")
    written = with_table(page, [result])
    assert "| 6.1.0-56-amd64 | btrfs | 131 | 2 | 0 | bind | shift | 2026-11-24 |\n" in written
    assert "old" not in written
    assert written.startswith("before\n<!-- results -->\n")
    assert written.endswith("<!-- end of results -->\nafter\n")
    assert with_table(written, [result]) == written
