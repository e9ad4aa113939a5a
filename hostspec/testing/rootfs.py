"""Pytest plugin: writable root file systems for tests, each cloned from an image in milliseconds.

::

    def test_the_package_installs(rootfs):
        subprocess.run(["chroot", rootfs, "dpkg", "-i", "/tmp/mine.deb"], check=True)

Which image is said by ``--rootfs-image``, by the key ``rootfs_image`` of pytest's configuration, or by a
session fixture :func:`rootfs_source` of your own. It is imported once, into a store that later runs find
again.

Whatever becomes of a test, its root file system is unmounted and deleted; what a killed run left, the next
one clears away.

An entry point: imported by every run of pytest where hostspec is installed, so nothing else is imported
before a fixture is used.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from hostspec.store import Image, Store
    from hostspec.testing.clones import Clone, LayerClone

__all__ = ["layer_clone", "rootfs", "rootfs_image", "rootfs_source", "rootfs_store", "session_layer_clone"]

SOURCE, DIRECTORY, DRIVER = "rootfs_image", "rootfs_store", "rootfs_driver"
"""Keys of pytest's configuration."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of this plugin."""
    group = parser.getgroup("rootfs", "writable root file systems for tests (hostspec)")
    group.addoption("--rootfs-image", metavar="SOURCE", help="overrides rootfs_image of the configuration")
    parser.addini(SOURCE, "image for rootfs: oci:DIR, an archive, a root directory, or a name in the store")
    parser.addini(DIRECTORY, "directory of the store for rootfs (default: in the user's cache)")
    parser.addini(DRIVER, "graph driver of that store (default: the best that works there)")


@pytest.fixture(scope="session")
def rootfs_source(pytestconfig: pytest.Config) -> str:
    """What :func:`rootfs_image` is imported from; override it, or configure ``rootfs_image``."""
    named = pytestconfig.getoption("--rootfs-image") or _configured(pytestconfig, SOURCE)
    if not named:
        raise pytest.UsageError(
            "rootfs needs an image: give --rootfs-image SOURCE, set rootfs_image in pytest's configuration, "
            "or write a session fixture rootfs_source that returns one"
        )
    return named


@pytest.fixture(scope="session")
def rootfs_store(pytestconfig: pytest.Config) -> Iterator[Store]:
    """The store that root file systems are cloned in, free of what runs left that were killed."""
    from hostspec.store import open_store  # noqa: PLC0415 - only who uses it waits for it
    from hostspec.testing.clones import clear_dead  # noqa: PLC0415

    directory = _configured(pytestconfig, DIRECTORY) or _default_directory()
    with open_store(
        root=os.path.join(directory, "graph"),
        run_root=os.path.join(directory, "run"),
        driver=pytestconfig.getini(DRIVER) or None,
    ) as store:
        clear_dead(store)
        yield store


@pytest.fixture(scope="session")
def rootfs_image(rootfs_store: Store, rootfs_source: str) -> Image:
    """The image that root file systems are cloned from, imported where it is new or has changed."""
    from hostspec.testing.clones import obtain_image  # noqa: PLC0415 - only who uses it waits for it

    return obtain_image(rootfs_store, rootfs_source)


@pytest.fixture
def layer_clone(rootfs_store: Store) -> Iterator[LayerClone]:
    """Clones templates for one test: ``layer_clone(image or clone)`` returns a :class:`Clone`."""
    from hostspec.testing.clones import LayerClone  # noqa: PLC0415 - only who uses it waits for it

    with LayerClone(rootfs_store) as clones:
        yield clones


@pytest.fixture(scope="session")
def session_layer_clone(rootfs_store: Store) -> Iterator[LayerClone]:
    """As :func:`layer_clone`, for the whole session: to prepare a root once, and clone it for each test."""
    from hostspec.testing.clones import LayerClone  # noqa: PLC0415 - only who uses it waits for it

    with LayerClone(rootfs_store) as clones:
        yield clones


@pytest.fixture
def rootfs(layer_clone: LayerClone, rootfs_image: Image) -> Path:
    """A writable root file system of the test's own: the path at which it is mounted."""
    clone: Clone = layer_clone(rootfs_image)
    return clone.path


def _configured(config: pytest.Config, key: str) -> str:
    """Return a value of the configuration, in which ``./`` and ``../`` begin at the directory of its file."""
    value = str(config.getini(key) or "")
    start = str(config.inipath.parent if config.inipath else config.rootpath)
    return re.sub(r"^([\w-]+:)?(?=\.\.?/)", lambda transport: f"{transport[1] or ''}{start}/", value)


def _default_directory() -> str:
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(cache, "hostspec", "rootfs")
