"""Limits, quotas that are off, and what layers occupy."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from hostspec.driver import GraphDriver
from hostspec.errors import (
    OperationNotSupported,
)
from hostspec.testing.directory_layers import committed
from hostspec.values import CreateOptions, LayerRef

from .conftest import btrfs, nested_in, opened, subvolumes_of


def write_durably(path: str, size: int) -> None:
    with open(path, "wb") as file:
        file.write(os.urandom(size))
        os.fsync(file.fileno())


def quotas_of(place: str) -> str:
    done = subprocess.run(["btrfs", "qgroup", "show", place], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_quotas_that_are_off_stay_off(driver: GraphDriver) -> None:
    assert not driver.capabilities.limits_size
    committed(driver, "base")
    with pytest.raises(OperationNotSupported, match="quotas are off"):
        driver.create("limited", LayerRef("base"), CreateOptions(size=1 << 20))
    with pytest.raises(OperationNotSupported, match="inodes"):
        driver.create("limited", LayerRef("base"), CreateOptions(inodes=10))
    assert driver.list_layers() == ["base"]
    assert len(subvolumes_of(driver)) == 1
    driver.disk_usage("base")
    driver.remove("base")
    driver.reclaim()
    assert "quotas not enabled" in quotas_of(driver.home)


def test_a_limit_holds_where_quotas_are_on(quota_directory: str) -> None:
    driver = opened(quota_directory)
    assert driver.capabilities.limits_size
    driver.create("base", options=CreateOptions(size=8 << 20))
    driver.commit("base")
    assert driver.disk_usage("base").limit_bytes == 8 << 20
    assert Path(driver.home, "quotas", "base").read_text() == str(8 << 20)
    with pytest.raises(OSError, match="quota"):
        write_durably(os.path.join(driver.mount("base"), "big"), 16 << 20)
    driver.create("child", LayerRef("base"))
    assert driver.disk_usage("child").limit_bytes is None
    driver.remove("base")
    driver.reclaim()
    assert os.listdir(os.path.join(driver.home, "quotas")) == []
    assert "0/5" in quotas_of(quota_directory)


def test_usage_is_what_btrfs_says_it_is(driver: GraphDriver) -> None:
    base = committed(driver, "base", small="x")
    for name, size in (("a", 1 << 20), ("b", 3 << 20)):
        Path(base, name).write_bytes(os.urandom(size))
    os.link(os.path.join(base, "a"), os.path.join(base, "link"))
    with open(os.path.join(base, "sparse"), "wb") as file:
        file.seek(64 << 20)
        file.write(os.urandom(1 << 16))
    nested_in(base)
    Path(base, "direct", "c").write_bytes(os.urandom(1 << 19))
    os.sync()
    child = committed(driver, "child", "base")
    Path(child, "own").write_bytes(os.urandom(1 << 18))
    os.link(os.path.join(child, "own"), os.path.join(child, "own link"))
    with open(os.path.join(child, "b"), "r+b") as file:
        file.write(os.urandom(1 << 17))
    os.sync()
    for layer_id in ("base", "child"):
        told = (
            btrfs("filesystem", "du", "--summarize", "--raw", driver.mount(layer_id)).splitlines()[1].split()
        )
        usage = driver.disk_usage(layer_id)
        assert (usage.exclusive_bytes, usage.shared_bytes) == (int(told[1]), int(told[2]))
        assert usage.shared_bytes > 0
    assert driver.disk_usage("child").exclusive_bytes == (1 << 18) + (1 << 17)
    driver.remove("base")
    driver.reclaim()
