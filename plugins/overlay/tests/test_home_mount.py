"""The home is bound and unbound by whoever holds the lock under which the Go library opens a driver."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing

import pytest

from hostspec.driver import GraphDriver
from hostspec.kernel import filelocks
from hostspec.kernel.mountinfo import is_mountpoint, mount_points

from .conftest import OpenOverlay


class StorageLock:
    """The lock, as another program holds it."""

    def __init__(self, directory: str) -> None:
        self.fd = os.open(f"{directory}/storage.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        assert filelocks.lock(self.fd, exclusive=True, wait=False)

    def close(self) -> None:
        os.close(self.fd)


@pytest.fixture
def driver(ext4_directory: str, open_overlay: OpenOverlay) -> Iterator[GraphDriver]:
    opened = open_overlay(ext4_directory)
    opened.create("layer")
    opened.commit("layer")
    yield opened
    opened.cleanup()


def test_the_home_stays_bound_while_somebody_opens_the_store(driver: GraphDriver) -> None:
    path = driver.mount("layer")
    with closing(StorageLock(os.path.dirname(driver.home))):
        driver.unmount("layer", path)

        assert mount_points(driver.home) == [driver.home]
    driver.mount("layer")
    driver.unmount("layer", path)
    assert mount_points(driver.home) == []


def test_whoever_never_lets_the_lock_go_does_not_keep_a_layer_from_being_mounted(driver: GraphDriver) -> None:
    with closing(StorageLock(os.path.dirname(driver.home))):
        path = driver.mount("layer")

        assert is_mountpoint(path)
        assert is_mountpoint(driver.home)


def test_the_lock_is_free_again_after_a_mount(driver: GraphDriver) -> None:
    lock = f"{os.path.dirname(driver.home)}/storage.lock"
    with open(lock, "wb"):
        pass
    path = driver.mount("layer")

    with closing(StorageLock(os.path.dirname(driver.home))):
        pass
    driver.unmount("layer", path)
    with closing(StorageLock(os.path.dirname(driver.home))):
        pass
