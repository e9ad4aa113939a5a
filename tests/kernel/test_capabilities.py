"""What this process may do, as the kernel sees it."""

from __future__ import annotations

import os

import pytest

from hostspec.idmap import IdMap
from hostspec.kernel.capabilities import can_mount, in_user_namespace
from hostspec.kernel.usernamespaces import run_in_user_namespace

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount, and map any ID")


def test_root_of_a_user_namespace_can_mount_and_is_known_to_be_in_one() -> None:
    found = (can_mount(), in_user_namespace())
    inside = run_in_user_namespace(
        IdMap.parse(["0:100000:65536"]), lambda: 2 * can_mount() + in_user_namespace()
    )

    assert found == (True, False)
    assert inside == 3
