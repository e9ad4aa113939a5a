"""Warnings as the kernel would send them: to its own multicast group, in its own format.

Kernels that keep no quotas send none, but root may send to the group, so that this runs everywhere;
tests/vm sees the kernel's own.
"""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator

import pytest

from hostspec.kernel.quota_warnings import Level, QuotaWarning, QuotaWarnings, quota_warnings, sends_warnings

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may send what the kernel sends")

_BYTES_HARD, _INODES_BELOW_SOFT, _UNHEARD_OF = 4, 8, 99
_PROJECT, _USER = 2, 0
_NETLINK_GENERIC = 16
_DEVICE = (259, os.getpid() % (1 << 20))  # the group is the machine's: other tests may send, too


@pytest.fixture
def listening() -> Iterator[QuotaWarnings]:
    with quota_warnings() as warnings:
        yield warnings


def send(warnings: QuotaWarnings, *, kind: int, number: int, what: int) -> None:
    """Send a warning to everybody who listens (fs/quota/netlink.c, quota_send_warning)."""
    sock = warnings._socket
    attributes = (
        struct.pack("=HHI", 8, 1, kind),
        struct.pack("=HHQ", 12, 2, number),
        struct.pack("=HHI", 8, 3, what),
        struct.pack("=HHI", 8, 4, _DEVICE[0]),
        struct.pack("=HHI", 8, 5, _DEVICE[1]),
        struct.pack("=HHQ", 12, 6, 1000),
    )
    body = struct.pack("=BBH", 1, 1, 0) + b"".join(attributes)
    message = struct.pack("=IHHII", 16 + len(body), sock.prid, 0, 0, 0) + body
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_GENERIC) as sender:
        sender.bind((0, 0))
        sender.sendto(message, (0, 1 << sock.mcast_groups["events"] - 1))


def received(warnings: QuotaWarnings) -> list[QuotaWarning]:
    """Return what has come so far."""
    stop, stopping = os.pipe()
    os.close(stopping)  # the end of a pipe can be read at once
    try:
        return [each for each in warnings.until(stop) if each.device == os.makedev(*_DEVICE)]
    finally:
        os.close(stop)


def test_each_warning_says_whose_limit_it_is_about_and_on_which_file_system(listening: QuotaWarnings) -> None:
    send(listening, kind=_PROJECT, number=4_000_000_000, what=_BYTES_HARD)
    send(listening, kind=_USER, number=514_000, what=_INODES_BELOW_SOFT)

    assert received(listening) == [
        QuotaWarning("project", 4_000_000_000, "bytes", Level.LIMIT, os.makedev(*_DEVICE), 1000),
        QuotaWarning("user", 514_000, "inodes", Level.BELOW_SOFT_LIMIT, os.makedev(*_DEVICE), 1000),
    ]


def test_what_a_newer_kernel_may_say_is_left_out(listening: QuotaWarnings) -> None:
    send(listening, kind=_PROJECT, number=7, what=_UNHEARD_OF)
    send(listening, kind=_UNHEARD_OF, number=7, what=_BYTES_HARD)
    send(listening, kind=_PROJECT, number=8, what=_BYTES_HARD)

    assert [each.number for each in received(listening)] == [8]


def test_another_network_namespace_hears_nothing_and_says_so() -> None:
    script = "from hostspec.kernel.quota_warnings import *\nwith quota_warnings(): pass"
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    said = done.stderr.splitlines()
    assert said[0].startswith("Traceback")
    assert "[Errno 95] the kernel sends no quota warnings here" in said[-1]
    assert not [line for line in said if "ResourceWarning" in line]


def test_btrfs_sends_no_warnings(btrfs_directory: str, xfs_directory: str) -> None:
    assert not sends_warnings(btrfs_directory)
    assert sends_warnings(xfs_directory)
